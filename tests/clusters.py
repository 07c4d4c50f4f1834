"""A real Ray cluster of several nodes on this machine, for the tests.

Run as a program it holds the cluster and obeys the lines on its standard input, so
that Ray's many processes and threads are none of the test process's. Nodes are those
of Ray's own cluster utility: each has a raylet, an object store and workers.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from studying import environment

_MEGABYTE = 2**20


class Cluster:
    """The cluster that another process holds."""

    def __init__(self, orders: IO[str], answers: IO[str]) -> None:
        """Read its address, which is the first that it says."""
        self._orders, self._answers = orders, answers
        self.address = self._answer()

    def add_node(self, cpus: int = 1) -> str:
        """Add a node; return its id."""
        return self._order(f"add {cpus}")

    def remove_node(self, node: str) -> None:
        """Kill all processes of a node at once."""
        self._order(f"remove {node}")

    def _order(self, order: str) -> str:
        self._orders.write(order + "\n")
        self._orders.flush()
        return self._answer()

    def _answer(self) -> str:
        line = self._answers.readline()
        assert line.startswith("answer "), f"the cluster has died: {line}"
        return line.removeprefix("answer ").strip()


@contextlib.contextmanager
def running_cluster(cpus: int = 2) -> Iterator[Cluster]:
    """Run a cluster for the block, at first of one node.

    One at a time on this machine, whatever else tests here: two that begin together take
    each other's ports.
    """
    lock = Path(tempfile.gettempdir()) / f"nas-tests-ray-{os.getuid()}.lock"
    with lock.open("w") as alone:
        fcntl.flock(alone, fcntl.LOCK_EX)  # freed with its process, too
        with _cluster(cpus) as cluster:
            yield cluster


@contextlib.contextmanager
def _cluster(cpus: int) -> Iterator[Cluster]:
    with subprocess.Popen(
        [sys.executable, __file__, str(cpus)],
        env=_environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            yield Cluster(process.stdin, process.stdout)
        finally:
            process.stdin.close()
            process.wait(timeout=120)


def _environment() -> dict[str, str]:
    """Return one in which this file finds its helpers, also where CI keeps them away."""
    plain = environment()
    here = str(Path(__file__).parent)
    return plain | {"PYTHONPATH": os.pathsep.join([here, plain["PYTHONPATH"]])}


def _hold(cpus: int) -> None:
    """Hold a cluster until the standard input ends."""
    # Ray writes to stdout, too; the answers have it to themselves.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"

    from ray.cluster_utils import Cluster as RaysOwn

    def say(text: str) -> None:
        answers.write(f"answer {text}\n")
        answers.flush()

    common = {"object_store_memory": 80 * _MEGABYTE, "include_dashboard": False}
    cluster = RaysOwn(initialize_head=True, head_node_args={"num_cpus": cpus, **common})
    nodes = {}
    try:
        say(cluster.address)
        for line in sys.stdin:
            match line.split():
                case ["add", count]:
                    node = cluster.add_node(num_cpus=int(count), **common)
                    nodes[node.node_id] = node
                    say(node.node_id)
                case ["remove", name]:
                    cluster.remove_node(nodes.pop(name), allow_graceful=False)
                    say("removed")
    finally:
        cluster.shutdown()


if __name__ == "__main__":
    _hold(int(sys.argv[1]))
