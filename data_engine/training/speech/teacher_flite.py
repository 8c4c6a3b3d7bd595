"""The teacher flite: its voices under many pitches and vocal tracts, and its pronunciation of any English text.

`flite -psdur` prints every phone with its end time, which gives frame labels for nothing.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np

from data_engine.core.errors import ConfigError, RecordError
from data_engine.models.phones import PAUSE, TOKEN_IDS, TimedPhone, merged, warped
from data_engine.training.speech.spoken import SAMPLE_RATE, Spoken, levelled, resampled
from data_engine.training.speech.texts import Sentence

VOICES = {"slt": 180.0, "rms": 95.0, "awb": 125.0, "kal16": 105.0}
"""Voices and their usual F0 in Hz."""

LICENCE = "flite licence (BSD-like); voices of CMU ARCTIC, free for any use"
SOURCE = "flite"
_WEIGHTS = (0.32, 0.32, 0.26, 0.10)
_SECONDS = 60


@cache
def program() -> str:
    """Returns the path of flite.

    Raises:
        ConfigError: It is not installed.
    """
    found = shutil.which("flite")
    if found is None:
        raise ConfigError("the program 'flite' is not installed (Debian and Ubuntu: apt install flite)")
    return found


def pronounce(texts: Sequence[str]) -> list[list[str]]:
    """Returns flite's phones of each English text, without pauses, joined as `merged` joins spoken ones.

    Raises:
        RecordError: SYNTHESIS_FAILED, flite refused a text.
    """
    named = ([TimedPhone(name, 0, 0) for name in _printed("-ps", text.lower()).split()] for text in texts)
    return [[phone.name for phone in merged(phones) if phone.name != PAUSE] for phones in named]


def _printed(option: str, text: str, *more: str) -> str:
    command = [program(), *more, option, "-t", text, *([] if "-o" in more else ["-o", "none"])]
    done = subprocess.run(command, capture_output=True, timeout=_SECONDS, check=False, text=True)  # noqa: S603 (a list)
    if done.returncode:
        raise RecordError("SYNTHESIS_FAILED", f"flite refused '{text[:60]}': {done.stderr[-200:]}")
    return done.stdout


def parse_phones(printed: str, sample_rate: int) -> list[TimedPhone]:
    """Returns the phones that `flite -psdur` printed: name and end in seconds of each, in order."""
    pairs = [(name, float(end)) for name, end in re.findall(r"(\w+):([\d.]+)", printed)]
    edges = [0] + [round(end * sample_rate) for _, end in pairs]
    return merged([TimedPhone(name, edges[n], edges[n + 1]) for n, (name, _) in enumerate(pairs)])


def speak(sentence: Sentence, voice: str, stretch: float, f0_hz: float, warp: float, split: str) -> Spoken:
    """Returns a sentence in a voice.

    Args:
        sentence: English.
        voice: One of VOICES.
        stretch: Factor on every duration before warping.
        f0_hz: Mean F0 before warping.
        warp: Factor on pitch and formants; the utterance becomes shorter by it.
        split: train or test.

    Raises:
        RecordError: SYNTHESIS_FAILED, flite refused it or used a phone we do not have.
    """
    import soundfile

    with tempfile.TemporaryDirectory(prefix="flite-") as folder:
        output = Path(folder) / "speech.wav"
        settings = (f"duration_stretch={stretch:.4f}", f"int_f0_target_mean={f0_hz:.1f}")
        options = ["-voice", voice, *(part for setting in settings for part in ("--setf", setting))]
        printed = _printed("-psdur", sentence.text, *options, "-o", str(output))
        wave, rate = soundfile.read(output, dtype="float32")
    if rate != SAMPLE_RATE:
        raise RecordError("SYNTHESIS_FAILED", f"the voice '{voice}' of this flite speaks at {rate} Hz")
    phones = parse_phones(printed, rate)
    unknown = sorted({phone.name for phone in phones} - TOKEN_IDS.keys())
    if not phones or unknown:
        raise RecordError("SYNTHESIS_FAILED", f"flite said '{sentence.text[:60]}' with the phones {unknown or 'none'}")
    warped_wave = resampled(wave, 1 / warp) if warp != 1 else wave
    times = warped(phones, 1 / warp, len(warped_wave))
    name = voice if warp == 1 else f"{voice}*{warp:.2f}"
    return Spoken(levelled(warped_wave), sentence.text, "en", name, SOURCE, LICENCE, split, times)


def draw(sentence: Sentence, rng: np.random.Generator) -> Spoken:
    """Returns a sentence by a drawn pseudo-speaker: vocal tract 0.82..1.22, pitch 0.8..1.25, tempo 0.85..1.15."""
    voice = str(rng.choice(list(VOICES), p=_WEIGHTS))
    warp = float(rng.uniform(0.82, 1.22)) if rng.random() < 0.8 else 1.0
    stretch = float(rng.uniform(0.85, 1.15)) * warp
    return speak(sentence, voice, stretch, VOICES[voice] * float(rng.uniform(0.8, 1.25)), warp, "train")


def natural(sentence: Sentence, number: int) -> Spoken:
    """Returns a test sentence in one of the natural voices, by turns."""
    voice = ("slt", "rms", "awb")[number % 3]
    return speak(sentence, voice, 1.0, VOICES[voice], 1.0, "test")
