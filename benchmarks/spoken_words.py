"""Makes a data set of spoken words: spectrograms of Debian's espeak-ng, as one .npz.

    apt-get install espeak-ng
    python benchmarks/spoken_words.py words.npz          # a minute or two
    nas search --dataset words.npz --budget 5000

Ten words are said by 20 voices, each at eight speeds and pitches, twice with noise of its
own and at a place of its own in the second. A voice is an accent with a variant of the
throat. Fourteen voices train, two validate and four test, and no two parts share an accent
or a variant. The images are log mel spectrograms, uint8 [N, 40, 49]:
40 bands from low to high, 49 times from early to late, 0 to 255 for 80 dB up to the
loudest. The same espeak-ng and numpy give the same file.
"""

from __future__ import annotations

import argparse
import io
import subprocess
import sys
import wave
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

WORDS = ("yes", "no", "up", "down", "left", "right", "on", "off", "stop", "go")
_HEARD = ("en-us", "en-gb", "en-gb-x-gbclan", "en-029")
VOICES = {
    "train": [
        *(
            f"{accent}+{variant}"
            for accent in _HEARD[:2]
            for variant in ("m1", "m3", "f1", "f2", "f4")
        ),
        *(f"{accent}+{variant}" for accent in _HEARD[2:] for variant in ("m1", "f1")),
    ],
    "val": ["en-gb-x-rp+m5", "en-us-nyc+f3"],
    "test": [
        *(
            f"{accent}+{variant}"
            for accent in ("en-gb-scotland", "en-gb-x-gbcwmd")
            for variant in ("m7", "f5")
        ),
    ],
}
SPEEDS, PITCHES = (130, 160, 190, 220), (38, 58)
TAKES = 2

RATE = 16_000
_WINDOW, _STEP, _BANDS = 640, 320, 40  # 40 ms, 20 ms
_LOWEST, _HIGHEST = 60.0, 7600.0  # Hz
_SILENCE = 80.0  # dB below the loudest

Sound = npt.NDArray[np.float64]


def main() -> None:
    """Say all words, and write the file."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("output", type=Path, help="the .npz to be written")
    parser.add_argument("--words", nargs="+", default=WORDS, help="other words to say")
    chosen = parser.parse_args()
    arrays: dict[str, Any] = {
        "class_names": np.array(chosen.words),
        "axes": np.array("NHW"),
    }
    random = np.random.RandomState(0)
    for part, voices in VOICES.items():
        arrays |= part_of(part, voices, chosen.words, random)
        print(
            f"{part}: {len(arrays[f'x_{part}'])} images of {len(voices)} voices",
            flush=True,
        )
    with chosen.output.open("wb") as file:
        np.savez_compressed(file, **arrays)


def part_of(
    part: str, voices: list[str], words: list[str], random: np.random.RandomState
) -> dict[str, Any]:
    """Return the images and labels of one part, said by these voices."""
    images, labels = [], []
    for voice in voices:
        for label, word in enumerate(words):
            for speed in SPEEDS:
                for pitch in PITCHES:
                    said = spoken(word, voice, speed, pitch)
                    for _ in range(TAKES):
                        images.append(spectrogram(placed(said, random)))
                        labels.append(label)
    return {f"x_{part}": np.stack(images), f"y_{part}": np.array(labels)}


def spoken(word: str, voice: str, speed: int, pitch: int) -> Sound:
    """Return the word as espeak-ng says it, RATE samples a second, the loudest being 1."""
    command = [
        "espeak-ng",
        "-v",
        voice,
        "-s",
        str(speed),
        "-p",
        str(pitch),
        "--stdout",
        word,
    ]
    try:
        said = subprocess.run(command, capture_output=True, check=True).stdout  # noqa: S603
    except FileNotFoundError:
        sys.exit("spoken_words: there is no espeak-ng: apt-get install espeak-ng")
    except subprocess.CalledProcessError as error:
        line = error.stderr.decode(errors="replace").strip().splitlines()[:1]
        sys.exit(f"spoken_words: espeak-ng cannot say {word!r} as {voice}: {line}")
    # The length in its header is unknown while it writes: all that follows counts.
    with wave.open(io.BytesIO(said)) as file:
        rate = file.getframerate()
        raw = np.frombuffer(said[44:][: 2 * ((len(said) - 44) // 2)], "<i2")
    loud = np.flatnonzero(np.abs(raw) > 200)
    if len(loud) < 2:
        sys.exit(f"spoken_words: {voice} says nothing for {word!r}: give another word")
    sound = raw[loud[0] : loud[-1] + 1].astype(np.float64)
    # Linear between samples: what is above RATE / 2 is weak in this voice.
    times = np.arange(0, len(sound) - 1, rate / RATE)
    sound = np.interp(times, np.arange(len(sound)), sound)
    return sound / np.abs(sound).max()


def placed(sound: Sound, random: np.random.RandomState) -> Sound:
    """Return a second of noise with the sound somewhere in it, cut where it is longer.

    The noise is 15 to 30 dB below the loudest sample.
    """
    sound = sound[:RATE]
    second = random.normal(size=RATE) * 10 ** (-random.uniform(15, 30) / 20) / 3
    start = random.randint(0, RATE - len(sound) + 1)
    second[start : start + len(sound)] += sound * random.uniform(0.5, 1.0)
    return second


def spectrogram(second: Sound) -> npt.NDArray[np.uint8]:
    """Return the log mel spectrogram [40, 49] of a second, the loudest being 255."""
    starts = np.arange(0, len(second) - _WINDOW + 1, _STEP)
    windows = second[starts[:, None] + np.arange(_WINDOW)] * np.hanning(_WINDOW)
    powers = np.abs(np.fft.rfft(windows)) ** 2  # [49, 321]
    decibels = 10 * np.log10(mel_bands() @ powers.T + 1e-10)
    above = (decibels - decibels.max() + _SILENCE) / _SILENCE
    return np.rint(255 * above.clip(0, 1)).astype(np.uint8)


def mel_bands() -> npt.NDArray[np.float64]:
    """Return triangles over the frequencies, float [40, 321], evenly spaced in mel."""

    def mel(hertz: float) -> float:
        return float(2595 * np.log10(1 + hertz / 700))

    edges = np.linspace(mel(_LOWEST), mel(_HIGHEST), _BANDS + 2)
    hertz = 700 * (10 ** (edges / 2595) - 1)
    frequencies = np.fft.rfftfreq(_WINDOW, 1 / RATE)
    rising = (frequencies - hertz[:-2, None]) / (hertz[1:-1] - hertz[:-2])[:, None]
    falling = (hertz[2:, None] - frequencies) / (hertz[2:] - hertz[1:-1])[:, None]
    return np.minimum(rising, falling).clip(0)


if __name__ == "__main__":
    main()
