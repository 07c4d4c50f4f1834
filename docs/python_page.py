"""Writes docs/python.md from the docstrings of the Python API: `python docs/python_page.py`.

tests/test_python_page.py holds the page to them.
"""

from __future__ import annotations

import inspect
import re
from functools import cached_property
from pathlib import Path
from typing import Any

import nas

PAGE = Path(__file__).with_name("python.md")

_HEAD = """\
# From Python

How to search on arrays, tensors and files in a script or a notebook
([notebook.ipynb](notebook.ipynb)), and use the winner as a torch module.

Keywords have the names, defaults and errors of the options of [the command line](cli.md);
`--dataset` is `data`, and `--output`, `--export` and `--front` of `nas best` are `save`, `export`
and `best_front`. A study that was begun with one can be resumed with the other. `nas import`,
`resize`, `show`, `compare`, `studies`, `data`, `dashboard` and `report` are commands only.

```python
import numpy as np
from sklearn.datasets import load_digits

import nas

digits = load_digits()
images = (digits.images * (255 / 16)).astype(np.uint8)  # [1797, 8, 8], 0 to 255
labels = digits.target
data = nas.Data.from_arrays(
    images[:1400], labels[:1400], images[1400:], labels[1400:], name="mine"
)

# The same call again resumes the study.
study = nas.search(data, budget=2000, trials=4, epochs=2, device="cpu")
print(study.front()[["trial", "num_params", "val_accuracy"]])

winner = study.best(epochs=2, finalists=2, device="cpu")
print(winner.summary)
found = winner.predict(images[1400:])  # winner.model is the nn.Module
winner.save()  # into studies/mine-2000/best: weights, model.py, report.json
```

That takes a minute. `nas.search(data, budget=10_000)` with its defaults takes as long as
`nas search`, and `study.best()` as long as `nas best`. `data` can also be `"mnist"`, or any name or
path that `--dataset` takes.

| function | command | returns |
|---|---|---|
| `nas.search` | `nas search` | `nas.Study` |
| `nas.open_study` | `nas front`, `nas front --all` | `nas.Study` |
| `study.best`, `study.best_front` | `nas best` | `nas.Trained`, a list of them |
| `nas.train` | `nas train` | `nas.Trained` |
| `nas.load` | | `nas.Trained` |
| `nas.count` | | number of parameters |

- **Ctrl-C**, or the stop button of a notebook, raises KeyboardInterrupt and leaves the study
  resumable. The same call resumes it.
- **Scripts** need no `if __name__ == "__main__":`. Workers do not run the script again.
- **Errors** are `nas.NasError` with one line: what, where, remedy. Its subclasses in `nas.errors`
  are ArchitectureError, DataError, DeviceError, EngineError, ExportError, RecipeError, SpaceError,
  StudyError, TrainingError, and UsageError for a wrong value, which is also a ValueError.
- **Progress** is shown on a terminal (stderr) and below a notebook's cell.
- **Data in memory** is not saved with the study. In a new process pass it again, to
  `nas.search(data, ...)` or `study.best(data=data)`; nas checks a hash of the content.
- **Columns** of `front()` and `trials()` are those of [nas front](cli.md#nas-front).
- **Weights** are `winner.weights`, the layers `winner.architecture`. To fine-tune, train
  `winner.model` on `winner.normalise(images)`.
- **Types**: the package is typed (`py.typed`).
"""

# Each with those of its members that are told, in this order.
_CONTENTS: list[tuple[str, Any, tuple[str, ...]]] = [
    (
        "nas.Data",
        nas.Data,
        (
            *("from_arrays", "from_npz", "from_folder", "from_dataset"),
            *("name", "input_shape", "num_classes", "class_names", "notes"),
        ),
    ),
    ("nas.search", nas.search, ()),
    ("nas.open_study", nas.open_study, ()),
    ("nas.Study", nas.Study, ("front", "trials", "plot", "best", "best_front")),
    (
        "nas.Trained",
        nas.Trained,
        ("summary", "model", "predict", "normalise", "save", "export"),
    ),
    ("nas.load", nas.load, ()),
    ("nas.train", nas.train, ()),
    ("nas.count", nas.count, ()),
]


def page() -> str:
    """Return the text of the page."""
    parts = [_HEAD]
    for name, thing, members in _CONTENTS:
        made = name == "nas.Data"  # the only class that is made by its name
        call = _signature(name, thing) if made or not members else ""
        parts.append(f"## {name}\n\n{call}{_text(thing)}\n")
        static = {m: inspect.getattr_static(thing, m) for m in members}
        short = [m for m in members if _is_short(static[m])]
        if short:
            lines = (f"- `{name}.{m}`: {_text(static[m])}\n" for m in short)
            parts.append("Properties:\n\n" + "".join(lines))
        for member in members:
            if member not in short:
                found = static[member]
                parts.append(_member(name, member, found, getattr(thing, member)))
    return "\n".join(parts)


def _is_short(found: Any) -> bool:
    """Return whether it is a property that one line explains."""
    return isinstance(found, property | cached_property) and "\n" not in _text(found)


def _member(owner: str, name: str, found: Any, value: Any) -> str:
    if isinstance(found, property | cached_property):
        return f"### {owner}.{name}\n\n{_text(found)}\n"
    # Of a class where it makes one, else of an object.
    before = owner if isinstance(found, classmethod) else owner.split(".")[1].lower()
    call = _signature(f"{before}.{name}", value)
    return f"### {owner}.{name}\n\n{call}{_text(value)}\n"


def _signature(name: str, function: Any) -> str:
    signature = inspect.signature(function)
    parameters = [p for p in signature.parameters.values() if p.name != "self"]
    words = [_parameter(p) for p in parameters]
    for number, parameter in enumerate(parameters):
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY:
            words.insert(number, "*")
            break
    end = "" if inspect.isclass(function) else f" -> {signature.return_annotation}"
    text = f"{name}({', '.join(words)}){end}"
    if len(text) > 88:
        lines = "".join(f"    {word},\n" for word in words)
        text = f"{name}(\n{lines}){end}"
    return f"```python\n{text}\n```\n\n"


def _parameter(parameter: inspect.Parameter) -> str:
    # Annotations are text, since the modules import annotations from the future.
    text = f"{parameter.name}: {parameter.annotation}"
    if parameter.default is inspect.Parameter.empty:
        return text
    return f"{text} = {parameter.default!r}"


def _text(thing: Any) -> str:
    """Return a docstring as Markdown: attributes become a list."""
    text = inspect.cleandoc(thing.__doc__)
    before, _, attributes = text.partition("Attributes:\n")
    if not attributes:
        return text
    joined = re.sub(r"\n {8}", " ", attributes.rstrip())
    items = re.sub(r"^ {4}(\w+): ", r"- `\1`: ", joined, flags=re.MULTILINE)
    return before + items


def main() -> None:
    """Write the page."""
    PAGE.write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
