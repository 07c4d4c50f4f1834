"""Damaged and hostile files for every reader of nas; nothing but a NasError may come out.

    python benchmarks/fuzz.py --inputs 100000 --out benchmarks/fuzz.csv

Each reader gets its share of the inputs: files as nas writes them with some bytes
changed, cut out, repeated or put in, others that begin as they should and go on at
random, and plain noise. An input may be read or be refused with a NasError of one line;
anything else (another exception, a warning, over 2 GB of memory) ends the run and leaves
the input behind. Hypothesis draws the seeds; --seed repeats a run.
"""

from __future__ import annotations

import argparse
import gzip
import io
import json
import pickle
import random
import resource
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path

# Its neighbour, also where Python is told to leave a script's folder out (-P).
sys.path.insert(0, str(Path(__file__).parent))
import numpy as np
import safetensors
import safetensors.torch
import torch
from harness import made_up_settings, write
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import seed as from_seed
from hypothesis import strategies as st
from PIL import Image

from nas.architecture import Architecture, Block, Head
from nas.data import idx, npz, wheel
from nas.data.folder import load_folder
from nas.errors import ArchitectureError, NasError
from nas.references.bundled import (
    available,
    find_reference,
    read_reference,
    write_reference,
)
from nas.space import find_space, read_space
from nas.study.folders import create, read_study
from nas.study.settings import from_toml, to_toml

Reader = Callable[[bytes], object]
# What is worth putting in: ends of numbers, quotes, brackets, pickle and zip codes.
WORDS = (
    *(b"\0", b"\xff" * 4, b"\x7f\xff\xff\xff", b"-1", b"1e999", b"NaN", b"[" * 500),
    *(
        b'"',
        b"{",
        b"}",
        b"=",
        b"\n",
        b"../../etc/passwd",
        b"cos\nsystem\n(S'true'\ntR.",
    ),
    *(b"\x80\x04", b"PK\x01\x02", b"99999999999999999999", b"\xed\xa0\x80", b"true"),
)


def mutated(whole: bytes, chance: random.Random) -> bytes:
    """Return the bytes with a few changes, or something else altogether."""
    kind = chance.random()
    if kind < 0.05:
        return chance.randbytes(chance.randrange(200))
    if kind < 0.1:
        return whole[: chance.randrange(40)] + chance.randbytes(chance.randrange(300))
    data = bytearray(whole)
    for _ in range(chance.choice((1, 1, 1, 2, 3, 8))):
        place = chance.randrange(len(data) + 1)
        length = chance.choice((1, 2, 4, 16, 200))
        match chance.randrange(6):
            case 0:
                data[place : place + length] = chance.randbytes(length)
            case 1:
                del data[place : place + length]
            case 2:
                data[place:place] = chance.choice(WORDS)
            case 3:
                data[place : place + length] = chance.choice(WORDS)
            case 4:
                data[place:place] = data[place : place + length] * 3
            case 5 if place < len(data):
                data[place] ^= 1 << chance.randrange(8)
    return bytes(data)


def readers(folder: Path) -> dict[str, tuple[bytes, Reader]]:
    """Return each reader with a whole file of its kind."""
    images = np.arange(12 * 8 * 8, dtype=np.uint8).reshape(12, 8, 8)
    labels = np.arange(12) % 2
    arrays = {"x_train": images, "y_train": labels, "x_test": images, "y_test": labels}
    packed, plain = io.BytesIO(), io.BytesIO()
    np.savez_compressed(packed, **arrays)  # type: ignore[arg-type]
    np.savez(plain, **arrays)  # type: ignore[arg-type]
    floats = np.zeros((2, 784), np.float32)
    part = (floats, np.zeros(2, np.int64))
    picture = io.BytesIO()
    Image.fromarray(images[0]).save(picture, "PNG")
    architecture = Architecture(
        input_shape=(1, 8, 8),
        num_classes=10,
        blocks=(Block(out_channels=4, pool="max"), Block(out_channels=5)),
        head=Head(kind="gap"),
    )
    state = {"weight": torch.zeros(4, 3), "bias": torch.zeros(3)}
    reference = write_reference(find_reference(available()[0]))
    with create(folder / "small", made_up_settings(name="small")) as study:
        for _ in range(3):
            study.ask()
    journal = (folder / "small" / "journal.log").read_bytes()

    def read_npz(data: bytes) -> object:
        path = folder / "data.npz"
        path.write_bytes(data)
        return npz.load_npz("data.npz", path)

    def read_journal(data: bytes) -> object:
        (folder / "small" / "journal.log").write_bytes(data)
        return read_study(folder / "small").candidates()

    def read_images(data: bytes) -> object:
        for part_name in ("train", "test"):
            for label in ("a", "b"):
                path = folder / "images" / part_name / label / "0.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                bad = part_name == "train" and label == "a"
                path.write_bytes(data if bad else picture.getvalue())
        return load_folder("images", folder / "images")

    def read_weights(data: bytes) -> object:
        # nas itself reads no weights; whoever loads a winner does, by this function.
        try:
            return safetensors.torch.load(data)
        except safetensors.SafetensorError as error:
            raise NasError(str(error).splitlines()[0]) from error

    def read_architecture(data: bytes) -> object:
        try:
            return Architecture.from_json(json.loads(data))
        except (ValueError, RecursionError) as error:  # no JSON at all
            raise ArchitectureError("no JSON") from error

    def text(read: Callable[[str], object]) -> Reader:
        return lambda data: read(data.decode(errors="replace"))

    return {
        "npz, packed": (packed.getvalue(), read_npz),
        "npz, plain": (plain.getvalue(), read_npz),
        "idx": (
            idx.encode_idx(images).tobytes(),
            lambda data: idx.decode_idx(np.frombuffer(data, np.uint8), "idx"),
        ),
        "idx.gz": (
            gzip.compress(idx.encode_idx(images).tobytes()),
            lambda data: idx.decode_idx(idx.unpack(data, "gz"), "gz"),
        ),
        "pickle of the wheel": (
            pickle.dumps((part, part, part), 3),
            lambda data: wheel.to_idx(wheel.read_pickle(io.BytesIO(data))),
        ),
        "image folder": (picture.getvalue(), read_images),
        "space.toml": (
            find_space("mixed").text.encode(),
            text(lambda toml: read_space(toml, "space")),
        ),
        "reference.toml": (
            reference.encode(),
            text(lambda toml: read_reference(toml, "reference")),
        ),
        "study.toml": (
            to_toml(made_up_settings(name="small")).encode(),
            text(lambda toml: from_toml(toml, "study.toml")),
        ),
        "architecture.json": (
            json.dumps(architecture.to_json()).encode(),
            read_architecture,
        ),
        "journal.log": (journal, read_journal),
        "weights.safetensors": (safetensors.torch.save(state), read_weights),
    }


def fuzz(
    whole: bytes, read: Reader, inputs: int, seed: int, left_behind: Path
) -> Counter[str]:
    """Read so many inputs; return how many were read and how many refused."""
    counts: Counter[str] = Counter()
    read(whole)  # else nothing would be learnt from what is refused

    @from_seed(seed)
    @settings(
        max_examples=inputs,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(st.integers(0, 2**63))
    def run(number: int) -> None:
        data = mutated(whole, random.Random(number))
        try:
            read(data)
            counts["read"] += 1
        except NasError as error:
            counts["refused"] += 1
            if "\n" in str(error):
                left_behind.write_bytes(data)
                raise AssertionError(f"more than one line: {error}") from error
        except BaseException:
            left_behind.write_bytes(data)
            raise

    run()
    return counts


def main() -> None:
    """Fuzz one reader after the other."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--inputs", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", help="fuzz this reader alone")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    warnings.simplefilter("error")
    # PIL and zipfile warn of what they then refuse or read.
    warnings.filterwarnings("ignore", module="zipfile")
    limit = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 + (2 << 30)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    rows = []
    failed = False
    with tempfile.TemporaryDirectory() as place:
        found = readers(Path(place))
        share = -(-arguments.inputs // len(found))
        for name, (whole, read) in found.items():
            if arguments.only not in {None, name}:
                continue
            began = time.process_time()
            left_behind = Path(f"fuzz-{name.replace(' ', '-').replace(',', '')}.bin")
            try:
                counts = fuzz(whole, read, share, arguments.seed, left_behind)
            except Exception as error:  # noqa: BLE001  # the others shall run, too
                failed = True
                print(f"{name}: {type(error).__name__}: {error} ({left_behind})")
                continue
            row = {
                "reader": name,
                "inputs": sum(counts.values()),
                "read": counts["read"],
                "refused": counts["refused"],
                "cpu_seconds": round(time.process_time() - began, 1),
            }
            rows.append(row)
            print(row, flush=True)
            if arguments.out:
                write(arguments.out, rows)
    sys.exit(failed)


if __name__ == "__main__":
    main()
