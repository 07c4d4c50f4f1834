"""The user's own images in folders: train/CLASS/IMAGE, or CLASS/IMAGE alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from nas.data.dataset import Dataset
from nas.data.own import assemble
from nas.data.pictures import Size, find_pictures, read_pictures, skipped_note
from nas.errors import DataError

PARTS = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation"),
    "test": ("test", "testing"),
}
"""The allowed names of each part's folder, in any case."""


def load_folder(name: str, root: Path, image_size: Size | None = None) -> Dataset:
    """Return the data set below ``root``.

    The folders below train/ are the classes, ordered by name; val/ and test/, if
    present, have the same ones. Without train/, the folders below ``root`` are the
    classes. nas.data.pictures has the rules that bring images to one size and pixel
    format. ``image_size`` is height and width. The notes list skipped files. Raises
    DataError naming the files at fault.
    """
    folders = _part_folders(root)
    skipped = _beside(root, set(folders.values()))
    classes = _class_folders(folders["train"])
    for part, folder in folders.items():
        _check_classes(root, folders["train"], classes, folder, part)
        if folder != root:
            skipped += _beside(folder, {folder / label for label in classes})
    files: dict[str, list[Path]] = {}
    labels: dict[str, list[int]] = {}
    empty: list[str] = []
    for part, folder in folders.items():
        files[part], labels[part] = [], []
        for label, class_name in enumerate(classes):
            found, other = find_pictures(folder / class_name)
            skipped += other
            files[part] += found
            labels[part] += [label] * len(found)
            if not found:
                empty.append(str(folder / class_name))
    if empty:
        raise DataError(
            f"{', '.join(empty)} has no images; give at least one per class, of a kind "
            "that Pillow reads"
        )
    images, notes = read_pictures(files, image_size)
    if skipped:
        notes.insert(0, skipped_note(sorted(skipped), root))
    return assemble(
        name,
        {part: (images[part], np.array(labels[part])) for part in files},
        tuple(classes),
        notes,
    )


def _part_folders(root: Path) -> dict[str, Path]:
    """Return the folder of each part; without any, ``root`` itself is "train"."""
    found: dict[str, Path] = {}
    for path in _folders(root):
        for part, names in PARTS.items():
            if path.name.lower() in names:
                if part in found:
                    raise DataError(
                        f"{found[part]} and {path} are both the {part} part; keep one"
                    )
                found[part] = path
    if "train" not in found:
        if found:
            raise DataError(
                f"{root / 'train'} is not there, but {', '.join(p.name for p in found.values())}"
                " is; give train/ with one folder of images per class"
            )
        return {"train": root}
    # The order of PARTS, whatever the names.
    return {part: found[part] for part in PARTS if part in found}


def _folders(place: Path) -> list[Path]:
    return sorted(path for path in place.iterdir() if _is_visible_folder(path))


def _is_visible_folder(path: Path) -> bool:
    return path.is_dir() and not path.name.startswith(".")


def _beside(place: Path, used: set[Path]) -> list[Path]:
    """Return the unused entries of a folder."""
    if place in used:
        return [path for path in place.iterdir() if not _is_visible_folder(path)]
    return [path for path in place.iterdir() if path not in used]


def _class_folders(part: Path) -> list[str]:
    names = [path.name for path in _folders(part)]
    if not names and any(part.glob("*-idx[13]-ubyte*")):
        raise DataError(
            f"{part} holds files in MNIST's format: give this folder with --data-dir, and "
            "--dataset mnist, fashion-mnist or kmnist"
        )
    if not names:
        raise DataError(
            f"{part} has no class folders; give a folder with train/ and test/, each "
            "with one folder of images per class, or those folders alone"
        )
    return names


def _check_classes(
    root: Path, train: Path, classes: list[str], folder: Path, part: str
) -> None:
    """Raise DataError unless a part has the same classes as the training part."""
    odd = sorted(set(classes) ^ {path.name for path in _folders(folder)})
    if folder == train or not odd:
        return
    here, there = (
        (train.name, folder.name) if odd[0] in classes else (folder.name, train.name)
    )
    raise DataError(
        f"{root}: class {', '.join(odd)} is in {here}/ but not in {there}/; "
        f"give the {part} part the same class folders"
    )
