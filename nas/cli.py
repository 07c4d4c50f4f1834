"""The command line: parses, calls one function a command, prints.

Exit codes: 0 fine, 1 an error with one line that says what, where and the remedy,
2 wrong usage, 3 a bug in nas (a traceback goes to a log file that the line names),
130 interrupted.
"""

from __future__ import annotations

import contextlib
import json
import re
import signal
import sys
import traceback
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from typer import Argument, Option

from nas import __version__
from nas.errors import NasError

# The commands import what they need: `nas --help` answers without torch.
if TYPE_CHECKING:
    from nas.engines.local import LocalEngine
    from nas.search import Outcome, Progress
    from nas.study import Study

app = typer.Typer(
    help="Find the most accurate tiny image classifiers under a hard parameter cap.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

StudyName = Annotated[
    str | None,
    Argument(help="Name of the study; not needed where there is only one."),
]
Studies = Annotated[
    Path,
    Option("--studies", envvar="NAS_STUDIES", help="Folder in which the studies are."),
]
Storage = Annotated[
    str | None,
    Option(
        envvar="NAS_STORAGE",
        help="Optuna storage URL, where the study is not in its folder's journal.",
    ),
]
DataDir = Annotated[
    Path | None,
    Option(help="Folder with the data set's files [env: NAS_DATA_DIR]."),
]
Workers = Annotated[
    int | None,
    Option(min=1, help="Trainer processes [default: one a core; four a GPU]."),
]
Device = Annotated[str, Option(help="auto, cpu, cuda or cuda:N.")]
Format = Annotated[
    Literal["table", "csv", "json", "md"], Option("--format", help="How to print.")
]
# The time between two writings of front.html, which takes some 30 ms.
_SECONDS_BETWEEN_FRONTS = 20.0


def _version(wanted: bool) -> None:  # noqa: FBT001  # Typer passes the flag's value
    if wanted:
        typer.echo(f"nas {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    *,
    version: Annotated[  # its callback acts on it
        bool,
        Option(
            "--version", callback=_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    pass


@app.command()
def search(  # one parameter an option
    *,
    budget: Annotated[
        int | None, Option(min=1, help="Hard cap: most trainable parameters of a net.")
    ] = None,
    trials: Annotated[
        int,
        Option(min=1, help="Finished trials that the study is to have in all."),
    ] = 200,
    dataset: Annotated[
        str | None,
        Option(
            help="mnist, fashion-mnist, kmnist, cifar10, svhn, digits, or the path of "
            "an .npz file or a folder with train/ and test/ [default: mnist]."
        ),
    ] = None,
    data_dir: DataDir = None,
    space: Annotated[
        str | None,
        Option(help="Search space: a name or a .toml file [default: mixed]."),
    ] = None,
    max_macs: Annotated[
        int | None, Option(min=1, help="Hard cap: multiply-accumulates of one image.")
    ] = None,
    max_memory: Annotated[
        int | None,
        Option(min=1, help="Hard cap: peak of the activations in bytes, as int8."),
    ] = None,
    epochs: Annotated[
        int | None,
        Option(
            min=1,
            max=10_000,
            help="Epochs of a full training [default: 3, more for small data].",
        ),
    ] = None,
    sampler: Annotated[
        Literal["tpe", "tpe-multivariate", "nsga2", "random"] | None,
        Option(help="How candidates are drawn [default: tpe]."),
    ] = None,
    pruning: Annotated[
        bool | None,
        Option("--pruning/--no-pruning", help="Stop hopeless trainings early or not."),
    ] = None,
    seed: Annotated[
        int | None,
        Option(min=0, help="Decides split, draws and trainings [default: 0]."),
    ] = None,
    workers: Workers = None,
    device: Device = "auto",
    time_limit: Annotated[
        str | None,
        Option(help="Stop cleanly after this time, such as 90s, 30m, 2h or 1h30m."),
    ] = None,
    study: Annotated[
        str | None,
        Option(help="Name of the study [default: from data set and cap]."),
    ] = None,
    studies: Studies = Path("studies"),
    storage: Storage = None,
) -> None:
    """Search for nets, or go on with a search that was stopped.

    The same command again finishes what is left: --trials is the study's total.
    """
    limit = None if time_limit is None else _seconds(time_limit)

    from nas.engines.local import devices_for
    from nas.launch import Request, launch

    devices, count = devices_for(device, workers)
    opened, data = launch(
        Request(
            studies=studies,
            study=study,
            dataset=dataset,
            data_dir=data_dir,
            param_budget=budget,
            max_macs=max_macs,
            max_memory=max_memory,
            space=space,
            epochs=epochs,
            sampler=sampler,
            seed=seed,
            pruning=pruning,
            storage=storage,
        )
    )
    with opened:
        engine = _engine(data, opened, devices, count)
        try:
            outcome = _run_search(opened, engine, trials, limit)
        except BaseException:
            # The error that led here is the one to tell.
            with contextlib.suppress(NasError):
                _write_front(opened)
            raise
        finally:
            engine.close()
        _write_front(opened)
        _write_timing(opened, outcome, devices, count)
    _say_outcome(opened, outcome)


@app.command()
def best(  # one parameter an option
    study: StudyName = None,
    *,
    max_params: Annotated[
        int | None,
        Option(min=1, help="Most parameters of the winner [default: the study's cap]."),
    ] = None,
    min_accuracy: Annotated[
        float | None,
        Option(
            min=0.0,
            max=1.0,
            help="Take the smallest net that reaches this validation accuracy (0 to 1) "
            "instead of the most accurate one.",
        ),
    ] = None,
    finalists: Annotated[
        int, Option(min=1, help="Members of the front that are trained longer.")
    ] = 3,
    epochs: Annotated[
        int | None,
        Option(min=1, max=100_000, help="Epochs [default: 15, more for small data]."),
    ] = None,
    seeds: Annotated[
        int, Option(min=1, help="How often the winner is trained, each time anew.")
    ] = 1,
    output: Annotated[
        Path | None,
        Option(help="Folder for the winner [default: best/ in the study's folder]."),
    ] = None,
    data_dir: DataDir = None,
    workers: Workers = None,
    device: Device = "auto",
    studies: Studies = Path("studies"),
    storage: Storage = None,
) -> None:
    """Retrain the winner, read the test set once, write it out ready for use."""
    import torch

    from nas.data import load_dataset
    from nas.display import RetrainDisplay
    from nas.engines.local import devices_for
    from nas.environment import hardware
    from nas.export import write_best
    from nas.recipe import full_epochs
    from nas.retrain import Wish, retrain
    from nas.study import check_data

    devices, count = devices_for(device, workers)
    opened = _read(study, studies, storage)
    settings = opened.settings
    dataset = load_dataset(settings.dataset, data_dir)
    check_data(settings, dataset.fingerprint)
    wish = Wish(
        max_params=max_params or settings.param_budget,
        min_accuracy=min_accuracy,
        finalists=finalists,
        epochs=epochs or full_epochs(settings.recipe),
        seeds=seeds,
    )
    engine = _engine(dataset, opened, devices, count)
    try:
        winner = retrain(
            opened.candidates(),
            settings,
            engine,
            wish,
            hardware=hardware(devices),
            show=RetrainDisplay(_console()).show,
        )
    finally:
        engine.close()
    folder = output or opened.folder / "best"
    summary = _winner_in_words(winner.report)
    write_best(
        folder,
        winner.candidate.architecture,
        {name: torch.from_numpy(array) for name, array in winner.weights.items()},
        winner.report,
        mean=dataset.mean,
        std=dataset.std,
        class_names=dataset.class_names,
        notes=[f"Data set {settings.dataset}, {summary}."],
    )
    typer.echo(summary)
    typer.echo(f"written to {folder}: weights.safetensors, model.py, report.json")


@app.command()
def front(
    study: StudyName = None,
    *,
    output_format: Format = "table",
    studies: Studies = Path("studies"),
    storage: Storage = None,
) -> None:
    """Print the Pareto front: the fully trained nets that no other beats."""
    from nas.candidate import front as front_of

    opened = _read(study, studies, storage)
    if output_format == "table":
        from nas.display import front_table

        members = front_of(opened.candidates())
        title = f"{opened.settings.name}: accuracy on the validation split"
        if members:
            _console().print(front_table(members, title))
        else:
            typer.echo(
                f"no fully trained candidate in {opened.settings.name} yet: go on with "
                f"`nas search --study {opened.settings.name}`"
            )
        return
    from nas.report import format_frame, front_frame

    frame = front_frame(opened.candidates())
    typer.echo(format_frame(frame, output_format), nl=False)


@app.command()
def show(
    trial: Annotated[int, Argument(min=0, help="Number of the trial.")],
    study: StudyName = None,
    *,
    studies: Studies = Path("studies"),
    storage: Storage = None,
) -> None:
    """Print one candidate layer by layer, with its costs and learning curve."""
    from nas.display import candidate_view

    opened = _read(study, studies, storage)
    _console().print(candidate_view(opened.candidate(trial)))


@app.command("studies")
def list_studies(
    *,
    output_format: Annotated[
        Literal["table", "json"], Option("--format", help="How to print.")
    ] = "table",
    studies: Studies = Path("studies"),
    storage: Storage = None,
) -> None:
    """List the studies with their counts of trials."""
    from nas.study import overview

    rows, faults = overview(studies, storage)
    if output_format == "json":
        typer.echo(json.dumps(rows))
    elif rows:
        from nas.display import studies_table

        _console().print(studies_table(rows))
    else:
        typer.echo(f"no studies in {studies}: `nas search --budget 10000` begins one")
    for fault in faults:
        typer.echo(fault, err=True)


@app.command()
def dashboard(
    study: Annotated[
        str | None, Argument(help="Name of the study [default: all of the folder].")
    ] = None,
    *,
    port: Annotated[
        int, Option(min=0, max=65535, help="Port to listen on; 0 takes any free one.")
    ] = 8765,
    open_browser: Annotated[
        bool, Option("--open", help="Open the page in the browser.")
    ] = False,
    host: Annotated[
        str,
        Option(help="Address to listen on; one that others reach needs a token."),
    ] = "127.0.0.1",
    token: Annotated[
        str | None,
        Option(
            envvar="NAS_TOKEN",
            help="What every request must bring [default: made up where needed].",
        ),
    ] = None,
    studies: Studies = Path("studies"),
    storage: Storage = None,
) -> None:
    """Serve a page to look at studies, while they are searched and after.

    It only reads. Optuna's own dashboard is one click away on it.
    """
    from nas.dashboard import serve

    serve(
        studies,
        study,
        storage=storage,
        host=host,
        port=port,
        token=token,
        open_browser=open_browser,
        say=lambda address: typer.echo(f"dashboard at {address} (Ctrl-C stops it)"),
    )


@app.command()
def report(
    study: StudyName = None,
    *,
    output: Annotated[
        Path | None,
        Option(help="File to write [default: report.html in the study's folder]."),
    ] = None,
    studies: Studies = Path("studies"),
    storage: Storage = None,
) -> None:
    """Write the dashboard's page of a study as one file that needs no network."""
    from nas.dashboard import write_report
    from nas.study import only_study

    folder = studies / study if study else only_study(studies)
    path = output or folder / "report.html"
    write_report(studies, folder.name, path, storage)
    size = path.stat().st_size / 1e6
    typer.echo(f"written to {path} ({size:.1f} MB)")


class _Interrupted(Exception):  # noqa: N818  # the user's wish, no error
    """Ctrl-C came; the text says how to go on."""


def main() -> None:
    """Run the command line; every error ends here, as one line and an exit code."""
    interrupted = False

    def interrupt(*_: object) -> None:
        nonlocal interrupted
        interrupted = True
        raise KeyboardInterrupt

    # `kill` ends a search as Ctrl-C does: cleanly, and with word on how to go on.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, interrupt)
    try:
        code = app(prog_name="nas", standalone_mode=False)
    except NasError as error:
        sys.exit(_complain(str(error), 1))
    except (KeyboardInterrupt, _Interrupted) as stop:
        sys.exit(_complain(str(stop) or "interrupted", 130))
    except BrokenPipeError:
        # Whoever read our output, `head` say, has had enough.
        sys.stderr.close()
        sys.exit(1)
    except Exception as error:  # noqa: BLE001  # the last resort
        if interrupted:  # in the midst of an import it can come out as any error
            sys.exit(_complain("interrupted", 130))
        sys.exit(_usage_error(error) or _bug(error))
    # Typer turns a KeyboardInterrupt into the code 130.
    sys.exit(_complain("interrupted", 130) if code == 130 else code or 0)


def _usage_error(error: Any) -> int | None:
    """Show what Typer has against the command line; None for any other error."""
    # Typer's exceptions are Click's or its own copy of them, by its version.
    if type(error).__name__ == "Abort":
        return _complain("interrupted", 130)
    if not hasattr(error, "format_message"):
        return None
    context = getattr(error, "ctx", None)
    command = "nas" if context is None else context.command_path
    message = error.format_message().rstrip(".")
    if not message:  # `nas` alone, which has shown the help
        return int(error.exit_code)
    return _complain(f"{message}: see `{command} --help`", error.exit_code)


def _bug(error: Exception) -> int:
    import platformdirs

    stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    trace = "".join(traceback.format_exception(error))
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
    one_line = " ".join(text.split())
    sys.stderr.write(f"nas: {one_line}\n")
    return code


def _console() -> Any:
    from rich.console import Console

    return Console()


def _seconds(text: str) -> float:
    """Return the seconds of a time such as 90s, 30m, 2h or 1h30m."""
    match = re.fullmatch(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?", text.strip())
    if (
        not match
        or not any(match.groups())
        or not any(map(int, filter(None, match.groups())))
    ):
        raise typer.BadParameter(
            f"{text!r} is no time: write 90s, 30m, 2h or 1h30m",
            param_hint="--time-limit",
        )
    hours, minutes, seconds = (int(group or 0) for group in match.groups())
    return float(3600 * hours + 60 * minutes + seconds)


def _read(name: str | None, studies: Path, storage: str | None) -> Study:
    from nas.study import only_study, read_study

    return read_study(studies / name if name else only_study(studies), storage)


def _engine(
    dataset: Any, study: Study, devices: list[str], workers: int
) -> LocalEngine:
    from nas.engines.local import LocalEngine

    return LocalEngine(
        dataset,
        split_seed=study.settings.seed,
        val_size=study.settings.val_size,
        workers=workers,
        devices=devices,
    )


def _run_search(
    study: Study, engine: LocalEngine, trials: int, limit: float | None
) -> Outcome:
    import time

    from nas.display import SearchDisplay
    from nas.search import search as run

    written = 0.0

    def show(progress: Progress) -> None:
        nonlocal written
        display.show(progress)
        ended = progress.changed is not None and progress.changed.state != "running"
        if ended and time.monotonic() - written > _SECONDS_BETWEEN_FRONTS:
            _write_front(study)
            written = time.monotonic()

    with SearchDisplay(_console()) as display:
        try:
            return run(study, engine, trials=trials, time_limit=limit, show=show)
        except KeyboardInterrupt:
            finished = sum(
                c.state in {"complete", "pruned"} for c in study.candidates()
            )
            raise _Interrupted(
                f"stopped with {finished} of {trials} trials finished; go on with the "
                "same command"
            ) from None


def _write_front(study: Study) -> None:
    from nas.report import write_front

    settings = study.settings
    write_front(
        study.folder,
        study.candidates(),
        title=f"{settings.name}: {settings.dataset}, at most "
        f"{settings.param_budget:,} parameters",
        param_budget=settings.param_budget,
    )


def _write_timing(
    study: Study, outcome: Outcome, devices: list[str], workers: int
) -> None:
    from dataclasses import asdict

    from nas.environment import hardware, versions
    from nas.files import append_json

    append_json(
        study.folder / "timing.json",
        {
            "ended": outcome.reason,
            "workers": workers,
            "seconds": {k: round(v, 2) for k, v in asdict(outcome.clock).items()},
            "hardware": hardware(devices),
            "versions": versions(),
        },
    )


def _say_outcome(study: Study, outcome: Outcome) -> None:
    from nas.candidate import front as front_of
    from nas.display import duration, front_table

    settings = study.settings
    members = front_of(study.candidates())
    if members:
        title = f"{settings.name}: accuracy on the validation split"
        _console().print(front_table(members, title))
    finished = sum(c.state in {"complete", "pruned"} for c in study.candidates())
    spent = duration(outcome.clock.total)
    typer.echo(f"{finished} trials finished; this run took {spent}")
    if outcome.reason == "time limit":
        typer.echo("the time is up; go on with the same command")
    elif outcome.reason == "exhausted":
        typer.echo(
            "the space seems to hold no further net under the caps: every new draw was "
            "one that the study has"
        )
    if members:
        typer.echo(f"next: `nas best {settings.name}` retrains the winner")


def _winner_in_words(report: dict[str, Any]) -> str:
    from nas.display import percent

    text = (
        f"trial {report['trial']}, {report['num_params']:,} parameters: test accuracy "
        f"{percent(report['test_accuracy_mean'])} after the last of {report['epochs']} "
        "epochs"
    )
    if report["seeds"] > 1:
        tests = ", ".join(percent(value) for value in report["test_accuracy"])
        spread = percent(report["test_accuracy_std"])
        text += (
            f" (mean of {report['seeds']} seeds, standard deviation {spread}: {tests})"
        )
    return text
