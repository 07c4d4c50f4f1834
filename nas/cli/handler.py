"""The single error handler: every error becomes one line and an exit code.

Exit codes: 0 success, 1 an error with one line that says what, where and the remedy,
2 wrong usage, 3 a bug in nas (the line names a log file with the traceback),
130 interrupted.
"""

from __future__ import annotations

import re
import signal
import sys
import traceback
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Any

import typer

from nas.cli.encodings import print_on_any_terminal
from nas.credentials import redact
from nas.errors import NasError, UsageError

_SECONDS_BETWEEN_LOOKS = 0.05
# What Typer says of a value of the wrong kind or out of range, and what we say.
_PLAINLY = {
    r"Input should be ": "give ",
    r", unable to parse .+": "",
    r"\ba valid integer": "a whole number",
    r"\ba valid number": "a number",
    r"\bgreater than or equal to": "at least",
    r"\bless than or equal to": "at most",
}


class Interrupted(Exception):  # noqa: N818  # the user's choice, not an error
    """Interrupted by Ctrl-C; the text says how to resume."""


def run(app: typer.Typer) -> None:
    """Run the command line; turn every error into one line and an exit code."""
    print_on_any_terminal()
    interrupted = False

    def interrupt(_: int, frame: FrameType | None) -> None:
        nonlocal interrupted
        interrupted = True
        if not _importing(frame):
            raise KeyboardInterrupt
        # An exception while a library such as torch is imported may abort the process.
        # So try again soon.
        signal.signal(signal.SIGALRM, interrupt)
        signal.setitimer(signal.ITIMER_REAL, _SECONDS_BETWEEN_LOOKS)

    # `kill` ends a search like Ctrl-C: cleanly, with a line on how to resume.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, interrupt)
    try:
        code = app(prog_name="nas", standalone_mode=False)
    except UsageError as error:
        command = " ".join(["nas", *sys.argv[1:2]])
        sys.exit(_complain(f"{error}: see `{command} --help`", 2))
    except NasError as error:
        sys.exit(_complain(str(error), 1))
    except (KeyboardInterrupt, Interrupted) as stop:
        sys.exit(_complain(str(stop) or "interrupted", 130))
    except BrokenPipeError:
        # The reader of our output, such as `head`, has closed the pipe.
        sys.stderr.close()
        sys.exit(1)
    except Exception as error:  # noqa: BLE001  # the last resort
        if interrupted:  # during an import an interrupt can surface as any error
            sys.exit(_complain("interrupted", 130))
        sys.exit(_usage_error(error) or _bug(error))
    # Typer turns a KeyboardInterrupt into the code 130.
    sys.exit(_complain("interrupted", 130) if code == 130 else code or 0)


def _importing(frame: FrameType | None) -> bool:
    """Return whether an import is running in this frame or one of its callers."""
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


def _usage_error(error: Any) -> int | None:
    """Print Typer's error about the command line; return None for any other error."""
    # Depending on its version, Typer's exceptions are Click's or copies of them.
    if type(error).__name__ == "Abort":
        return _complain("interrupted", 130)
    if not hasattr(error, "format_message"):
        return None
    context = getattr(error, "ctx", None)
    command = "nas" if context is None else context.command_path
    if type(error).__name__ == "NoArgsIsHelpError":  # `nas` alone
        # The message is the help text, if that has not been shown yet.
        sys.stdout.write(f"{error.format_message()}\n")
        return int(error.exit_code)
    message = error.format_message().rstrip(".").replace("Value error, ", "")
    for pattern, words in _PLAINLY.items():
        message = re.sub(pattern, words, message)
    return _complain(f"{message}: see `{command} --help`", error.exit_code)


def _bug(error: Exception) -> int:
    import platformdirs

    stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    trace = redact("".join(traceback.format_exception(error)))
    path = Path(platformdirs.user_log_dir("nas")) / f"bug-{stamp}.log"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(trace, encoding="utf-8")
    except OSError:
        sys.stderr.write(trace)
        return _complain(f"a bug in nas: {type(error).__name__}: {error}", 3)
    return _complain(
        f"a bug in nas ({type(error).__name__}); please report it with {path}", 3
    )


def _complain(text: str, code: int) -> int:
    one_line = redact(" ".join(text.split()))
    sys.stderr.write(f"nas: {one_line}\n")
    return code
