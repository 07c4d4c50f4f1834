"""A real PostgreSQL server for the tests: started, stopped, killed.

It listens on this machine alone, on a free port, with a password, and its data lie in
a folder of their own. PostgreSQL does not run as root, so its user is another then.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import system_programs

PASSWORD = "s3cret%40pass"  # noqa: S105  # as it stands in a URL; the @ is encoded
PLAIN_PASSWORD = PASSWORD.replace("%40", "@")


class Server:
    """One PostgreSQL server in one folder."""

    def __init__(self, folder: Path) -> None:
        """Make its data folder; start it with `start`."""
        self.data, self.log = folder / "data", folder / "log"
        self._bin = system_programs.postgres()
        self._user = "postgres" if os.getuid() == 0 else None
        if self._user:
            entry = pwd.getpwnam(self._user)
            os.chown(folder, entry.pw_uid, entry.pw_gid)
        password = folder / "password"
        password.write_text(PLAIN_PASSWORD)
        password.chmod(0o644)
        self._run(
            "initdb", "--no-sync", "--auth=scram-sha-256", "--username=nas",
            f"--pwfile={password}", "--encoding=UTF8", "--locale=C",
            f"--pgdata={self.data}",
        )  # fmt: skip
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        options = (
            f"port = {self.port}\nlisten_addresses = '127.0.0.1'\n"
            f"unix_socket_directories = ''\nmax_connections = 20\n"
        )
        with (self.data / "postgresql.conf").open("a") as file:
            file.write(options)

    def url(self, database: str = "postgres") -> str:
        """Return the address of a database, password and all."""
        return f"postgresql://nas:{PASSWORD}@127.0.0.1:{self.port}/{database}"

    def start(self) -> None:
        """Start it and wait until it answers."""
        self._run("pg_ctl", f"--pgdata={self.data}", f"--log={self.log}", "-w", "start")

    def stop(self, mode: str = "fast") -> None:
        """Stop it as an administrator would, cutting all connections."""
        self._run("pg_ctl", f"--pgdata={self.data}", f"--mode={mode}", "-w", "stop")

    def kill(self) -> None:
        """Kill -9 the server and all its processes, as a power cut would."""
        main = int((self.data / "postmaster.pid").read_text().split()[0])
        family = [main, *_children(main)]
        for pid in family:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        deadline = time.monotonic() + 10
        while any(Path(f"/proc/{pid}/exe").exists() for pid in family):
            assert time.monotonic() < deadline, "the server does not die"
            time.sleep(0.05)
        # After a power cut nobody has its number; here its remains may, until whoever
        # inherited them buries them, and a new server would take them for alive.
        (self.data / "postmaster.pid").unlink()

    def database(self, name: str) -> str:
        """Make an empty database; return its address."""
        with psycopg.connect(self.url(), autocommit=True) as connection:
            connection.execute(f'CREATE DATABASE "{name}"'.encode())
        return self.url(name)

    def _run(self, program: str, *arguments: str) -> None:
        # Its output goes to a file: a server that lives on would hold a pipe open.
        with tempfile.TemporaryFile("w+") as output:
            done = subprocess.run(
                [self._bin / program, *arguments],
                user=self._user,
                group=self._user,
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                timeout=300,
                check=False,
            )
            output.seek(0)
            assert done.returncode == 0, output.read()


def _children(pid: int) -> list[int]:
    """Return the children of a process."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = path.read_text().rsplit(")", 1)[1].split()
            if int(fields[1]) == pid:
                found.append(int(path.parent.name))
    return found


@contextlib.contextmanager
def running_server() -> Iterator[Server]:
    """Run a server for the block; nothing of it is left behind."""
    # A short path of its own: its user must be able to reach it.
    folder = Path(tempfile.mkdtemp(prefix="nas-postgres-"))
    folder.chmod(0o755)
    try:
        server = Server(folder)
        server.start()
        try:
            yield server
        finally:
            with contextlib.suppress(AssertionError):
                server.stop("immediate")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
