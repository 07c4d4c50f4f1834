"""`nas export`: every format from a folder, its report, and one line for each error."""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from cli_runner import Invoke
from exporting import random_model
from safetensors.numpy import load_file, save_file
from studying import one_line
from system_programs import need
from test_export_onnx import session

from nas.architecture import Architecture, Block, Head
from nas.data import load_dataset
from nas.errors import ExportError, StudyError
from nas.export import source, write_best
from nas.export.deliver import FORMATS, export
from nas.export.trained import read_trained

DIGITS = load_dataset("digits")
NET = Architecture(
    input_shape=(1, 8, 8),
    num_classes=10,
    blocks=(
        Block(out_channels=6, pool="max", activation="hardswish"),
        Block(kind="separable", out_channels=8, activation="leaky_relu"),
    ),
    head=Head(),
)
FILES = {
    "onnx": {"model.onnx"},
    "onnx-int8": {"model-int8.onnx"},
    "c": {
        *("net.h", "net.c", "classify.c", "Makefile", "README.md"),
        *("cortex_m.c", "cortex_m.ld"),
    },
}


@pytest.fixture
def winner(tmp_path: Path) -> Path:
    """Return a study's folder with a winner of random weights."""
    folder = tmp_path / "studies" / "mine" / "best"
    text = source(NET, mean=DIGITS.mean, std=DIGITS.std, class_names=DIGITS.class_names)
    state = random_model(NET).state_dict()
    write_best(folder, NET, text, state, {"dataset": "digits"})
    return folder


def test_a_published_winner_is_exported_beside_the_users_studies(
    winner: Path, invoke: Invoke
) -> None:
    """What nas is published with stays as it is; the user's own winner goes first."""
    studies = winner.parent.parent
    published = studies / "published" / "mine"
    published.parent.mkdir()
    winner.parent.rename(published)
    (published / "study.toml").touch()
    at = ("--studies", str(studies))
    before = sorted(published.rglob("*"))
    done = invoke("export", "mine", "--to", "onnx", *at)
    assert done.code == 0, done.err
    assert (studies / "mine-best" / "onnx" / "model.onnx").is_file()
    assert sorted(published.rglob("*")) == before
    shutil.rmtree(studies / "mine-best")
    shutil.copytree(published / "best", studies / "mine-best")
    shutil.rmtree(published / "best")
    assert invoke("export", "mine", "--to", "onnx", *at).code == 0
    assert (studies / "mine-best" / "onnx" / "model.onnx").is_file()


@pytest.mark.parametrize("to", FORMATS)
def test_each_format_is_written_with_its_report(
    to: str, winner: Path, invoke: Invoke
) -> None:
    """The files are there; the accuracies are those that they give."""
    studies = winner.parent.parent
    done = invoke("export", "mine", "--to", to, "--studies", str(studies))
    assert done.code == 0, done.err
    folder = winner / to
    assert {path.name for path in folder.iterdir()} == FILES[to] | {"export.json"}
    report = json.loads((folder / "export.json").read_text())
    images, labels = DIGITS.test_images.numpy(), DIGITS.test_labels.numpy()
    if to == "c":
        need("make", "cc")
        subprocess.run(["make", "-s", "-C", folder], check=True)
        output = subprocess.run(
            [folder / "classify"],
            input=images.tobytes(),
            capture_output=True,
            check=True,
        ).stdout
        classes = np.array(output.split(), dtype=int)
    else:
        (name,) = FILES[to]
        model = (folder / name).read_bytes()
        classes = session(model).run(["logits"], {"image": images})[0].argmax(axis=1)
    assert report["test_accuracy"] == (classes == labels).mean()
    model_py: dict[str, Any] = {"__name__": "model"}
    exec((winner / "model.py").read_text(), model_py)  # noqa: S102 - ours
    net = model_py["load"](winner / "weights.safetensors")
    right = model_py["predict"](net, DIGITS.test_images).numpy() == labels
    assert report["test_accuracy_float"] == right.mean()
    difference = (classes == labels).astype(float) - right
    assert report["accuracy_change"] == pytest.approx(difference.mean())
    assert report["accuracy_change_standard_error"] == pytest.approx(
        difference.std() / len(labels) ** 0.5
    )
    if to == "onnx":
        assert report["accuracy_change"] == 0
        assert report["largest_logit_difference"] < 1e-4


def test_the_same_input_contract_stands_in_every_format(winner: Path) -> None:
    """model.py, both ONNX models and the C files say it in the same words."""
    net = read_trained(winner)
    texts = [(winner / "model.py").read_text()]
    for to in FORMATS:
        report = export(net, to, winner / to, DIGITS)
        contract = report["input"]
        for name in FILES[to] - {"Makefile", "cortex_m.c", "cortex_m.ld"}:
            path = winner / to / name
            if path.suffix == ".onnx":
                texts.append(onnx.load(path).graph.doc_string)
            else:
                texts.append(path.read_text())
    assert len(texts) == 7
    for text in texts:
        assert contract in " ".join(text.split())
    model = (winner / "onnx" / "model.onnx").read_bytes()
    with pytest.raises(Exception, match="uint8"):
        session(model).run(["logits"], {"image": np.zeros((1, 1, 8, 8), np.float32)})
    with pytest.raises(Exception, match="invalid dimensions"):
        session(model).run(["logits"], {"image": np.zeros((1, 1, 9, 8), np.uint8)})


def _damage_weights(winner: Path) -> None:
    (winner / "weights.safetensors").write_bytes(b"nothing")


def _take_weights_away(winner: Path) -> None:
    (winner / "weights.safetensors").unlink()


def _add_weights(winner: Path) -> None:
    path = winner / "weights.safetensors"
    save_file(load_file(path) | {"blocks.0.skip.weight": np.ones(3)}, path)


def _poison_weights(winner: Path) -> None:
    path = winner / "weights.safetensors"
    weights = load_file(path)
    weights["blocks.0.conv.weight"][0] = np.nan
    save_file(weights, path)


def _change_source(winner: Path) -> None:
    path = winner / "model.py"
    path.write_text(path.read_text().replace("MEAN = (", "MEAN = (0.5, "))


def _change_mean(winner: Path) -> None:
    path = winner / "model.py"
    path.write_text(f"{path.read_text()}\nMEAN = (0.5,)\n")


def _forget_dataset(winner: Path) -> None:
    (winner / "report.json").write_text("{}")


def _take_winner_away(winner: Path) -> None:
    shutil.rmtree(winner)
    (winner.parent / "study.toml").write_text("")


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (_damage_weights, "weights.safetensors"),
        (_take_weights_away, "has no weights.safetensors"),
        (_add_weights, "blocks.0.skip.weight"),
        (_poison_weights, "NaN"),
        (_change_source, "MEAN has to be 1 numbers"),
        (_change_mean, "was not trained on digits"),
        (_forget_dataset, "give --dataset"),
        (_take_winner_away, "no winner yet: run `nas best mine`"),
    ],
)
def test_what_is_wrong_is_one_line_and_nothing_is_written(
    harm: Any, said: str, winner: Path, invoke: Invoke
) -> None:
    """Each names the file and the remedy; the output folder is not made."""
    harm(winner)
    studies = winner.parent.parent
    target = studies / "out"
    done = invoke(
        "export", "mine", "--to", "c", "-o", str(target), "--studies", str(studies)
    )
    assert done.code == 1
    assert said in one_line(done.err)
    assert not target.exists()


def test_an_unknown_name_and_an_unknown_format(
    tmp_path: Path, winner: Path, invoke: Invoke
) -> None:
    """Neither gets further than its line."""
    done = invoke("export", "nothing", "--to", "c", "--studies", str(tmp_path))
    assert done.code == 1
    assert f"no study 'nothing' in {tmp_path}, and no folder" in one_line(done.err)
    done = invoke("export", str(tmp_path), "--to", "c", "--studies", str(tmp_path))
    assert done.code == 1
    assert "has no architecture.json" in one_line(done.err)
    done = invoke("export", str(winner), "--to", "tflite")
    assert done.code == 2
    with pytest.raises(ExportError, match="unknown format 'tflite': give one of onnx"):
        export(read_trained(winner), "tflite", tmp_path / "out", DIGITS)


def test_no_code_of_the_folder_is_run(winner: Path, invoke: Invoke) -> None:
    """model.py is read for its constants, not imported."""
    path = winner / "model.py"
    trap = winner.parent / "trap"
    path.write_text(f"{path.read_text()}\nopen({str(trap)!r}, 'w')\n")
    done = invoke("export", str(winner), "--to", "onnx")
    assert done.code == 0, done.err
    assert not trap.exists()


def test_a_missing_library_names_the_extra(
    winner: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ONNX without onnxruntime is refused before any work; C needs neither."""
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, *rest: None if name.startswith("onnx") else real(name, *rest),
    )
    net = read_trained(winner)
    with pytest.raises(ExportError, match=r"pip install 'nas-under-cap\[export\]'"):
        export(net, "onnx", tmp_path / "out", DIGITS)
    assert export(net, "c", tmp_path / "out", DIGITS)["arena_bytes"] > 0


def test_a_folder_that_cannot_be_written(winner: Path, tmp_path: Path) -> None:
    """One line, and no file of the export is left anywhere."""
    (tmp_path / "file").write_text("")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(StudyError, match="cannot write"):
        export(read_trained(winner), "c", tmp_path / "file" / "out", DIGITS)
    assert sorted(tmp_path.rglob("*")) == before


def test_calibration_sees_training_images_alone(
    winner: Path,
) -> None:
    """With other test images the int8 net is the same."""
    net = read_trained(winner)
    export(net, "c", winner / "c", DIGITS)
    first = (winner / "c" / "net.c").read_text()
    changed = DIGITS.test_images.clone()
    DIGITS.test_images.copy_(torch.zeros_like(changed))
    try:
        export(net, "c", winner / "c", DIGITS)
    finally:
        DIGITS.test_images.copy_(changed)
    assert (winner / "c" / "net.c").read_text() == first


def test_a_source_that_no_parser_takes(winner: Path) -> None:
    """Nested too deeply, or no Python at all: one line that names the file."""
    for text in ("x = " + "(" * 5000, "-" * 200_000 + "1", "def", "\0"):
        (winner / "model.py").write_text(text)
        with pytest.raises(ExportError, match=r"model\.py") as caught:
            read_trained(winner)
        assert len(str(caught.value)) < 500
