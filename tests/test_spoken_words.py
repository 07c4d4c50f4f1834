"""The script of spoken words: its spectrograms, and a set that nas reads, without a voice."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from loading import module_of

from nas.data import load_dataset
from nas.search.recipes import pixels_of
from nas.training.kinds import suitable

SCRIPT = Path(__file__).parent.parent / "benchmarks" / "spoken_words.py"

# Says a tone instead of a word, higher for another voice, with espeak-ng's header.
VOICE = f"""\
#!{sys.executable}
import io, math, struct, sys, wave, zlib
arguments = sys.argv[1:]
voice, word = arguments[1], arguments[-1]
file = io.BytesIO()
with wave.open(file, "wb") as sound:
    sound.setnchannels(1), sound.setsampwidth(2), sound.setframerate(22050)
    hertz = 300 + zlib.crc32((voice + word).encode()) % 3000
    tone = [int(9000 * math.sin(math.tau * hertz * n / 22050)) for n in range(4000)]
    sound.writeframes(struct.pack("<4000h", *tone))
sys.stdout.buffer.write(file.getvalue())
"""


@pytest.fixture(scope="module")
def script() -> ModuleType:
    """Return the script as a module."""
    return module_of(SCRIPT)


def test_a_tone_is_one_bright_band(script: ModuleType) -> None:
    """The band whose triangle peaks nearest to its frequency, at all times alike."""
    bands = script.mel_bands()
    frequencies = np.fft.rfftfreq(640, 1 / script.RATE)
    for hertz in (500, 2000, 5000):
        second = np.sin(2 * np.pi * hertz * np.arange(script.RATE) / script.RATE)
        image = script.spectrogram(second)
        assert image.shape == (40, 49)
        expected = int(bands[:, np.argmin(np.abs(frequencies - hertz))].argmax())
        assert set(image.argmax(axis=0).tolist()) == {expected}
        assert image.max() == 255


def test_a_word_is_placed_whole_in_its_second(script: ModuleType) -> None:
    """Anywhere, with noise at least 15 dB below it; what is longer is cut."""
    random = np.random.RandomState(0)
    starts = set()
    for _ in range(20):
        second = script.placed(np.full(4000, 1.0), random)
        assert len(second) == script.RATE
        loud = np.flatnonzero(np.convolve(second, np.ones(50) / 50, "same") > 0.3)
        assert 3900 < loud[-1] - loud[0] < 4100
        starts.add(int(loud[0]))
    assert len(starts) > 10
    assert len(script.placed(np.ones(20_000), random)) == script.RATE


def test_no_two_parts_share_an_accent_or_a_variant(script: ModuleType) -> None:
    """The voices of validation and test are not heard in training."""
    for place in (0, 1):
        parts = [
            {voice.split("+")[place] for voice in voices}
            for voices in script.VOICES.values()
        ]
        assert len(set.union(*parts)) == sum(map(len, parts))
    every = [voice for voices in script.VOICES.values() for voice in voices]
    assert len(every) == len(set(every)) == 20


def test_the_set_is_written_and_read(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By an espeak-ng of our own: nas takes it for spectrograms, with its own validation."""
    fake = tmp_path / "bin" / "espeak-ng"
    fake.parent.mkdir()
    fake.write_text(VOICE)
    fake.chmod(fake.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{fake.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(script, "SPEEDS", (130,))
    monkeypatch.setattr(script, "PITCHES", (38,))
    monkeypatch.setattr(script, "VOICES", {k: v[:2] for k, v in script.VOICES.items()})
    output = tmp_path / "words.npz"
    monkeypatch.setattr(
        sys, "argv", ["spoken_words.py", str(output), "--words", "a", "b"]
    )
    script.main()
    data = load_dataset(str(output))
    assert data.input_shape == (1, 40, 49)
    assert (len(data.labels), data.num_val, len(data.test_labels)) == (16, 8, 8)
    assert data.class_names == ("a", "b")
    assert suitable(pixels_of(data)) == ("shift",)


def test_without_espeak_the_package_is_named(tmp_path: Path) -> None:
    """In one line, and no file is written."""
    ended = subprocess.run(
        [sys.executable, str(SCRIPT), str(tmp_path / "words.npz")],
        env=os.environ | {"PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 1
    assert ended.stderr == (
        "spoken_words: there is no espeak-ng: apt-get install espeak-ng\n"
    )
    assert not list(tmp_path.iterdir())
