"""espeak-ng through ctypes: text in, 16-bit samples and word times out, the same bytes for the same request.

espeak-ng keeps synthesizer state between utterances: the phase of its pitch flutter, a cycle counter that only
its roughness reads, and an echo buffer. `variant_text` writes the voice variants without all three, which makes
an utterance depend on its request alone; the noise generator is seeded before each one.
"""

from __future__ import annotations

import ctypes
import os
import tempfile
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from data_engine.core.errors import ConfigError, MissingExtraError, RecordError

SAMPLE_RATE = 22_050
VARIANTS = ("f1", "f2", "f3", "f4", "f5", "m1", "m2", "m3", "m4", "m5", "m6", "m7", "m8")
RATE_RANGE = (80, 450)
"""Words per minute espeak-ng speaks without time compression."""

_PACKAGE = "espeakng-loader"
_SYNCHRONOUS = 2
_OPTIONS = 0x8000 | 1
"""Do not end the process on errors; report phonemes."""
_CHARS_UTF8, _POS_CHARACTER = 1, 1
_RATE, _VOLUME, _PITCH, _RANGE = 1, 2, 3, 4
_EVENT_END, _EVENT_WORD, _EVENT_PHONEME = 0, 1, 7
_STATEFUL = ("flutter", "roughness", "echo")
_WITHOUT_STATE = ("flutter 0", "roughness 8")


class _EventId(ctypes.Union):
    _fields_ = (("number", ctypes.c_int), ("name", ctypes.c_char_p), ("string", ctypes.c_char * 8))


class _Event(ctypes.Structure):
    """`espeak_EVENT` of speak_lib.h."""

    _fields_ = (
        ("type", ctypes.c_int), ("unique_identifier", ctypes.c_uint), ("text_position", ctypes.c_int),
        ("length", ctypes.c_int), ("audio_position", ctypes.c_int), ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p), ("id", _EventId),
    )  # fmt: skip


_CALLBACK = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event))


@dataclass(frozen=True, slots=True)
class Utterance:
    """What espeak-ng is to say.

    Attributes:
        text: Plain text; markup is read out, not interpreted.
        voice: espeak-ng language, such as "en-us" or "cmn".
        variant: One of VARIANTS.
        rate: Words per minute, 80..450.
        pitch: 0..99, 50 is the variant's own.
        pitch_range: 0..99, 50 is the variant's own.
        volume: 0..200, 100 is full scale.
        seed: Seed of the noise generator.
    """

    text: str
    voice: str
    variant: str
    rate: int = 175
    pitch: int = 50
    pitch_range: int = 50
    volume: int = 80
    seed: int = 1


@dataclass(frozen=True, slots=True, eq=False)
class SpokenText:
    """What espeak-ng said.

    Attributes:
        samples: int16 [samples] at SAMPLE_RATE.
        words: First character, characters and first sample of each word.
        phonemes: Mnemonic of espeak-ng, with its stress mark, and first sample of each phoneme.
    """

    samples: npt.NDArray[np.int16]
    words: tuple[tuple[int, int, int], ...]
    phonemes: tuple[tuple[str, int], ...] = ()


def library_revision() -> str:
    """Returns the version of the wheel that brings the library and its data, without loading it."""
    try:
        return f"{_PACKAGE}-{version(_PACKAGE)}"
    except PackageNotFoundError:
        return f"{_PACKAGE}-missing"


def variant_text(original: str) -> str:
    """Returns a voice variant file without the settings that carry state between utterances."""
    kept = [line for line in original.splitlines() if not line.strip().startswith(_STATEFUL)]
    return "\n".join([*kept, *_WITHOUT_STATE, ""])


def lay_out_voices(source: Path, home: Path) -> None:
    """Fills `home` with links to espeak-ng's data and with the stateless variants.

    The folder is short-named on purpose: the library holds its path in 160 bytes.
    """
    for entry in sorted(source.iterdir()):
        if entry.name != "voices":
            (home / entry.name).symlink_to(entry)
    variants = home / "voices" / "!v"
    variants.mkdir(parents=True)
    for name in VARIANTS:
        text = (source / "voices" / "!v" / name).read_text(encoding="utf-8", errors="replace")
        (variants / name).write_text(variant_text(text), encoding="utf-8")


@cache
def shared_library() -> EspeakLibrary:
    """Returns this process's one copy: the C library has one synthesizer per process.

    Raises:
        MissingExtraError: The wheel espeakng-loader is not installed.
    """
    return EspeakLibrary()


class EspeakLibrary:
    """The loaded library. Take it from `shared_library`: a second copy in a process would share its state."""

    def __init__(self) -> None:
        try:
            import espeakng_loader
        except ImportError as error:
            raise MissingExtraError(_PACKAGE, "embedded", "speech synthesis with espeak-ng") from error
        self._home = tempfile.TemporaryDirectory(prefix="espeak-")
        lay_out_voices(Path(espeakng_loader.get_data_path()), Path(self._home.name))
        self._library = ctypes.CDLL(espeakng_loader.get_library_path())
        self._library.espeak_ng_SetRandSeed.argtypes = [ctypes.c_long]
        self._library.espeak_ng_SetRandSeed.restype = None
        self._lock = threading.Lock()
        self._chunks: list[npt.NDArray[np.int16]] = []
        self._words: list[tuple[int, int, int]] = []
        self._phonemes: list[tuple[str, int]] = []
        self._callback = _CALLBACK(self._collect)
        rate = self._library.espeak_Initialize(_SYNCHRONOUS, 0, os.fsencode(self._home.name), _OPTIONS)
        if rate != SAMPLE_RATE:
            raise ConfigError(f"espeak-ng did not start (answered {rate}); reinstall the wheel '{_PACKAGE}'")
        self._library.espeak_SetSynthCallback(self._callback)

    def say(self, utterance: Utterance) -> SpokenText:
        """Synthesizes one utterance.

        Raises:
            RecordError: SYNTHESIS_FAILED, the library refused the voice or the text.
        """
        with self._lock:
            self._chunks.clear()
            self._words.clear()
            self._phonemes.clear()
            self._prepare(utterance)
            text = utterance.text.replace("\0", " ").encode() + b"\0"
            arguments = (text, ctypes.c_size_t(len(text)), 0, _POS_CHARACTER, 0, _CHARS_UTF8, None, None)
            self._require(self._library.espeak_Synth(*arguments), "the text")
            self._require(self._library.espeak_Synchronize(), "the text")
            samples = np.concatenate(self._chunks) if self._chunks else np.zeros(0, np.int16)
            return SpokenText(samples, tuple(self._words), tuple(self._phonemes))

    def _prepare(self, utterance: Utterance) -> None:
        voice = f"{utterance.voice}+{utterance.variant}"
        self._require(self._library.espeak_SetVoiceByName(voice.encode()), f"the voice '{voice}'")
        settings = (
            (_RATE, utterance.rate), (_VOLUME, utterance.volume),
            (_PITCH, utterance.pitch), (_RANGE, utterance.pitch_range),
        )  # fmt: skip
        for parameter, value in settings:
            self._require(self._library.espeak_SetParameter(parameter, int(value), 0), f"setting {parameter}={value}")
        self._library.espeak_ng_SetRandSeed(utterance.seed & 0x7FFFFFFF or 1)

    def _require(self, status: int, what: str) -> None:
        if status:
            raise RecordError("SYNTHESIS_FAILED", f"espeak-ng refused {what} (status {status})")

    def _collect(self, wave: Any, count: int, events: Any) -> int:
        if wave and count > 0:
            self._chunks.append(np.ctypeslib.as_array(wave, (count,)).copy())
        index = 0
        while events[index].type != _EVENT_END:
            event = events[index]
            if event.type == _EVENT_WORD:
                self._words.append((event.text_position - 1, event.length, event.sample))
            elif event.type == _EVENT_PHONEME:
                self._phonemes.append((event.id.string.decode("utf-8", "replace"), event.sample))
            index += 1
        return 0


Say = Callable[[Utterance], SpokenText]
"""What `EspeakLibrary.say` is: text to samples."""
