"""What is built to be installed by name: complete, and it runs where nothing else is."""

from __future__ import annotations

import email
import os
import re
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import nas

CHECKOUT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a source distribution, and of the wheel built from it."""
    target = tmp_path_factory.mktemp("dist")
    run(
        *(sys.executable, "-m", "build", "--no-isolation", "--outdir", target),
        CHECKOUT,
        cwd=target,
    )
    return target


def run(*command: object, cwd: Path) -> str:
    """Run a command that knows nothing of the checkout; return what it printed."""
    hidden = {"PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV"}
    done = subprocess.run(
        list(map(str, command)),
        cwd=cwd,
        env={k: v for k, v in os.environ.items() if k not in hidden},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def files(folder: Path) -> Iterator[str]:
    """Yield the files of a folder of the checkout, as paths within the wheel."""
    for path in folder.rglob("*"):
        if path.is_file() and "__pycache__" not in path.parts:
            yield path.relative_to(CHECKOUT).as_posix()


def test_the_wheel_holds_nas_and_its_spaces_and_nothing_else(built: Path) -> None:
    """Kernels in C, templates, the page, spaces, references, the mark of types."""
    (path,) = built.glob("*.whl")
    with zipfile.ZipFile(path) as wheel:
        names = set(wheel.namelist())
    (info,) = {name.split("/")[0] for name in names if ".dist-info/" in name}
    inside = {name for name in names if not name.startswith(info)}
    expected = {*files(CHECKOUT / "nas")}
    expected |= {f"nas/{name}" for name in files(CHECKOUT / "search_spaces")}
    assert inside == expected
    assert {
        "nas/py.typed",
        "nas/training/kernels/gpu.cu",
        "nas/training/kernels/kernels.c",
    } <= inside
    assert {f"{info}/licenses/LICENSE", f"{info}/entry_points.txt"} <= names


def test_the_metadata_name_one_project(built: Path) -> None:
    """A name of its own, the version of the code and of the citation, the extras."""
    (path,) = built.glob("*.whl")
    with zipfile.ZipFile(path) as wheel:
        (name,) = (n for n in wheel.namelist() if n.endswith(".dist-info/METADATA"))
        told = email.message_from_bytes(wheel.read(name))
    assert told["Name"] == "nas-under-cap"
    assert told["Version"] == nas.__version__
    assert set(told.get_all("Provides-Extra", [])) == {
        *("export", "postgres", "ray", "test")
    }
    citation = (CHECKOUT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"version: {nas.__version__}\n" in citation
    # What nas tells users to install is this project, not its namesake.
    for source in (CHECKOUT / "nas").rglob("*.py"):
        for wanted in re.findall(r"pip install '(\S+)\[", source.read_text("utf-8")):
            assert wanted == told["Name"], source


def test_the_source_distribution_can_be_tested(built: Path) -> None:
    """It has the tests, the documents and the published results that they read."""
    (path,) = built.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    for name in ("README.md", "LICENSE", "CITATION.cff", "CONTRIBUTING.md"):
        assert name in names
    wanted = {*files(CHECKOUT / "tests"), *files(CHECKOUT / "search_spaces")}
    assert wanted <= names
    assert "studies/published/mnist-10000/study.toml" in names


@pytest.mark.slow
def test_it_runs_where_nothing_of_the_checkout_is(built: Path, tmp_path: Path) -> None:
    """The installed command searches, takes the winner and exports it.

    Only the dependencies are those of the environment that runs the tests.
    """
    venv.create(tmp_path / "env")
    programs = tmp_path / "env" / "bin"
    (wheel,) = built.glob("*.whl")
    pip = (sys.executable, "-m", "pip", "--python", programs / "python")
    run(*pip, "install", "--quiet", "--no-deps", "--no-index", wheel, cwd=tmp_path)
    (site,) = (tmp_path / "env").glob("lib/python*/site-packages")
    # At the end of sys.path: the nas that was just installed stands before it.
    paths = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    (site / "dependencies.pth").write_text("\n".join(paths))
    where = "import nas; print(nas.__file__)"
    assert run(programs / "python", "-c", where, cwd=tmp_path).startswith(str(site))
    assert run(programs / "nas", "--version", cwd=tmp_path).split()[-1] == (
        nas.__version__
    )
    small = "--dataset digits --budget 900 --trials 2 --epochs 1 --device cpu"
    run(programs / "nas", "search", *small.split(), cwd=tmp_path)
    few = "--finalists 1 --seeds 1 --epochs 1 --device cpu"
    run(programs / "nas", "best", "digits-900", *few.split(), cwd=tmp_path)
    run(programs / "nas", "export", "digits-900", "--to", "c", cwd=tmp_path)
    assert list((tmp_path / "studies" / "digits-900" / "best").rglob("*.c"))
    spaces = "import nas.space; print(nas.space.available())"
    assert "separable" in run(programs / "python", "-c", spaces, cwd=tmp_path)
