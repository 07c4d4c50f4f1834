"""Writes docs/notebook.ipynb, executed: `python docs/notebook.py` (extra `test`).

tests/test_notebook.py executes it again.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

PAGE = Path(__file__).with_suffix(".ipynb")

CELLS = (
    """\
# nas in a notebook

A minute's search on scikit-learn's digits, from arrays to a trained net. Written and run by
`docs/notebook.py`; every function is in [python.md](python.md).""",
    """\
import numpy as np
from sklearn.datasets import load_digits

import nas

digits = load_digits()
images = (digits.images * (255 / 16)).astype(np.uint8)  # [1797, 8, 8], 0 to 255
labels = digits.target
data = nas.Data.from_arrays(
    images[:1400], labels[:1400], images[1400:], labels[1400:], name="digits"
)
data""",
    """\
`budget` is a hard cap on the trainable parameters. The progress stands below the cell. The
stop button ends a search cleanly; the same cell goes on with it.""",
    """\
study = nas.search(
    data, budget=2000, trials=8, epochs=15, seed=0, device="cpu", workers=1
)
study""",
    "The front: the nets that no other beats in both size and accuracy.",
    'study.front()[["trial", "num_params", "val_accuracy", "macs", "summary"]]',
    "study.plot()",
    """\
`best` chooses by validation accuracy, trains the winner on training and validation data
together, and reads the test set once, after the last epoch.""",
    """\
winner = study.best(finalists=2, device="cpu", workers=1)
winner.summary""",
    "winner.model",
    """\
found = winner.predict(images[1400:])  # raw images
float((found.numpy() == labels[1400:]).mean())""",
    """\
The winner as files: weights, plain PyTorch that runs without nas, and the report. `export`
also writes ONNX, int8 ONNX and C for a microcontroller.""",
    """\
folder = winner.save()
sorted(path.name for path in folder.iterdir())""",
)


def notebook() -> NotebookNode:
    """Return the notebook, not yet run; a cell that begins in words is Markdown."""
    made = new_notebook()
    for number, text in enumerate(CELLS):
        code = text.startswith(("import", "study", "winner", "found", "folder"))
        cell = (new_code_cell if code else new_markdown_cell)(text)
        cell["id"] = f"cell-{number}"
        made["cells"].append(cell)
    made["metadata"]["kernelspec"] = {
        "name": "python3",
        "display_name": "Python 3",
        "language": "python",
    }
    return made


def run(made: NotebookNode, folder: Path) -> NotebookNode:
    """Run the cells in a kernel whose folder this is; raise what they raise."""
    # Not the 5 MB of plotly.js, which the reader's Jupyter has.
    os.environ["PLOTLY_RENDERER"] = "plotly_mimetype"
    client = NotebookClient(
        made, timeout=280, resources={"metadata": {"path": str(folder)}}
    )
    client.execute()
    for cell in made["cells"]:
        cell["metadata"].pop("execution", None)  # the time of day
    return made


def main() -> None:
    """Write the notebook with its outputs."""
    with tempfile.TemporaryDirectory() as folder:
        made = run(notebook(), Path(folder))
    nbformat.write(made, PAGE)


if __name__ == "__main__":
    main()
