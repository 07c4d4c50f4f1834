"""docs/notebook.ipynb in a real kernel; a search that a notebook's stop button ends."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest
from jupyter_client import KernelManager
from loading import module_of
from studying import environment

import nas

pytestmark = pytest.mark.slow
DOCS = Path(__file__).parents[1] / "docs"


def shown(notebook: Any) -> list[list[tuple[str, ...]]]:
    """Return the kinds of outputs of each cell, with what they can be shown as."""
    return [
        [
            (output["output_type"], *sorted(output.get("data", {})))
            for output in cell.get("outputs", [])
        ]
        for cell in notebook["cells"]
    ]


def test_the_notebook_runs_and_is_committed_with_its_outputs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its cells are the script's; they put out what they did, and nothing on stderr."""
    committed = nbformat.read(DOCS / "notebook.ipynb", as_version=4)
    module = module_of(DOCS / "notebook.py")
    made = module.notebook()
    texts = [[cell["source"] for cell in n["cells"]] for n in (committed, made)]
    assert texts[0] == texts[1]
    monkeypatch.setenv("PLOTLY_RENDERER", "set anew, and restored after the test")
    for name, value in environment().items():
        monkeypatch.setenv(name, value)
    executed = module.run(made, tmp_path)
    kinds = shown(executed)
    assert kinds == shown(committed)
    figure = ("display_data", "application/vnd.plotly.v1+json")
    flat = [kind for cell in kinds for kind in cell]
    assert figure in flat
    assert not any(kind[0] in {"stream", "error"} for kind in flat)
    (search,) = (c for c in executed["cells"] if c["source"].startswith("study = nas"))
    text = search["outputs"][0]["data"]["text/plain"]
    assert "\n8 of 8 trials: " in text
    study = nas.open_study(studies=tmp_path / "studies")
    assert (study.folder / "best" / "report.json").exists()


@pytest.fixture
def kernel(tmp_path: Path) -> Iterator[Any]:
    """Return a client of a kernel in a folder of its own, and its manager."""
    manager = KernelManager(kernel_name="python3")
    manager.start_kernel(cwd=str(tmp_path), env=environment())
    client = manager.client()
    client.start_channels()
    try:
        client.wait_for_ready(timeout=100)
        yield manager, client
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)


def test_the_stop_button_leaves_the_study_in_order(kernel: Any, tmp_path: Path) -> None:
    """The cell ends as interrupted, with word; the next one goes on with the study."""
    manager, client = kernel
    asked = client.execute(
        "import nas\n"
        "keywords = dict(budget=900, epochs=2, device='cpu', workers=1)\n"
        "nas.search('digits', trials=100_000, **keywords)"
    )
    studies = tmp_path / "studies"
    deadline = time.monotonic() + 200
    while not _finished(studies):
        assert time.monotonic() < deadline, "no trial has finished"
        time.sleep(0.2)
    manager.interrupt_kernel()
    reply = _reply(client, asked)
    assert (reply["status"], reply["ename"]) == ("error", "KeyboardInterrupt")
    assert reply["evalue"].endswith("trials finished; resume with the same call")
    done = _finished(studies)
    asked = client.execute(
        f"study = nas.search('digits', trials={done + 1}, **keywords)"
    )
    reply = _reply(client, asked)
    assert reply["status"] == "ok", reply
    assert _finished(studies) == done + 1


def _reply(client: Any, asked: str) -> Any:
    """Return the kernel's reply to that request.

    A slow kernel has been asked several times whether it is ready, and replies to each.
    """
    while True:
        message = client.get_shell_msg(timeout=200)
        if message["parent_header"]["msg_id"] == asked:
            return message["content"]


def _finished(studies: Path) -> int:
    """Return how many trials have come to their end."""
    if not (
        studies / "digits-900" / "study.toml"
    ).exists():  # what `create` writes last
        return 0
    states = nas.open_study(studies=studies).trials()["state"]
    return int(states.isin(["complete", "pruned"]).sum())
