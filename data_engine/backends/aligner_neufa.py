"""Role `aligner`, embedded: this project's own small NeuFA; English and Mandarin, no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from data_engine.backends.aligned_text import SAMPLE_RATE, align_each, timed_text, too_short
from data_engine.backends.codec_files import files_hash
from data_engine.backends.pronunciation import (
    LANGUAGES,
    Phones,
    Pronouncer,
    lexicon_files,
    pronouncer_revision,
    text_words,
)
from data_engine.backends.protocols import Wave
from data_engine.backends.protocols_listening import AlignedText
from data_engine.backends.semantic_session import onnx_session
from data_engine.core.errors import RecordError
from data_engine.models.neufa_features import HOP, normalised_mel, phone_spans
from data_engine.models.phones import TOKEN_IDS

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]

FOLDER = Path(__file__).parent.parent / "assets" / "aligner_neufa"
NETWORK = "aligner.onnx"


@dataclass(frozen=True, slots=True, eq=False)
class SoftAlignment:
    """Both attentions of a text and its speech, to pool what is known per frame into phones or words, and back.

    Attributes:
        frames_of_phones: w1, how much of each phone is in each frame; float32 [phones, frames], rows add up to at
            most 1: what is missing is in no frame.
        phones_of_frames: w2, how much of each frame is in each phone; the same shape, columns add up to at most 1:
            what is missing is a pause.
        phones: Name of each phone.
        words: Words of the text.
        owners: Word of each phone.
        hop: Samples of a frame; frame n is centred on sample `hop` n.
    """

    frames_of_phones: Floats
    phones_of_frames: Floats
    phones: tuple[str, ...]
    words: tuple[str, ...]
    owners: tuple[int, ...]
    hop: int = HOP


class NeufaAligner:
    """Role `aligner`: words and phones with times out of the attention between text and speech, 16 kHz.

    Args:
        path: Folder with aligner.onnx; the shipped one when not given.
        path_weight: Weight of log w2 (which phone is a frame?) beside log w1 (which frames are a phone?).
        threads: Threads of the network.
    """

    sample_rate = SAMPLE_RATE
    languages = LANGUAGES

    def __init__(self, path: str | None = None, path_weight: float = 0.5, threads: int = 1) -> None:
        self._file = (Path(path) if path else FOLDER) / NETWORK
        self._weight, self._threads = path_weight, threads
        self._session: Any = None
        self._pronouncer: Pronouncer | None = None

    @property
    def revision(self) -> str:
        """SHA-256 over network, lexicons, espeak-ng's version and how the two attentions are weighed.

        Raises:
            ConfigError: A file is missing.
        """
        return files_hash([self._file, *lexicon_files()], pronouncer_revision(), str(self._weight))

    def open(self) -> None:
        """Loads network and lexicons.

        Raises:
            ConfigError: A file is missing or no model.
            MissingExtraError: onnxruntime is not installed.
        """
        self._session = onnx_session(self._file, "cpu", self._threads)
        self._pronouncer = Pronouncer()

    def close(self) -> None:
        """Frees them."""
        self._session = self._pronouncer = None

    def align(self, waves: Sequence[Wave], texts: Sequence[str], language: str) -> list[AlignedText | RecordError]:
        """Returns when each word and phone of each text is said; in its place, why it cannot be aligned.

        Args:
            waves: float32 [samples] each, 16 kHz.
            texts: What is said in each.
            language: `en` or `zh`.

        Raises:
            ValueError: Another language.
        """
        assert self._pronouncer is not None, "open() first"
        return align_each(waves, texts, language, self._pronouncer, self._align)

    def soft(self, wave: Wave, text: str) -> SoftAlignment:
        """Returns both attention matrices of a text and its speech.

        Args:
            wave: float32 [samples], 16 kHz.
            text: With one word at least.

        Raises:
            RecordError: UNSUPPORTED_LANGUAGE, a word cannot be pronounced.
        """
        assert self._pronouncer is not None, "open() first"
        words = text_words(text)
        said = self._pronouncer.phones(words)
        phones = tuple(phone for way in said for phone in way)
        owners = tuple(number for number, way in enumerate(said) for _ in way)
        w1, w2 = (np.exp(rows[:-1]) for rows in self._attentions(wave, phones))
        return SoftAlignment(w1, w2, phones, tuple(words), owners)

    def phone_times(self, wave: Wave, phones: Sequence[str], pauses: Sequence[int]) -> tuple[Ints, float]:
        """Returns first and after-last sample of each phone, int64 [phones, 2], and how well they fit, 0..1.

        Args:
            wave: float32 [samples], 16 kHz.
            phones: At least one, of `models.phones.TOKENS`.
            pauses: Phones that a pause may come before; one may always come after the last.

        Raises:
            RecordError: TOO_SHORT, there are fewer frames than phones.
        """
        log_w1, log_w2 = self._attentions(wave, phones)
        found = phone_spans(log_w1 + np.float32(self._weight) * log_w2, pauses)
        if found is None:
            raise too_short(len(phones), len(wave))
        spans, rows = found
        spoken = np.flatnonzero(rows < len(phones))
        confidence = float(np.exp(log_w2[rows[spoken], spoken].mean()))
        # A boundary lies half-way between the centres of the frames beside it.
        return np.clip(spans * HOP - HOP // 2, 0, len(wave)), confidence

    def _align(self, wave: Wave, words: Sequence[str], pronounced: Sequence[Phones]) -> AlignedText:
        begins = np.cumsum([0, *(len(phones) for phones in pronounced[:-1])])
        times, confidence = self.phone_times(wave, [p for phones in pronounced for p in phones], begins.tolist())
        return timed_text(words, pronounced, times, len(wave), confidence)

    def _attentions(self, wave: Wave, phones: Sequence[str]) -> tuple[Floats, Floats]:
        """Returns log w1 and log w2 [phones + 1, frames]; the last row is a pause."""
        tokens = np.array([[TOKEN_IDS[phone] for phone in phones]], np.int64)
        inputs = {"mel": normalised_mel(wave)[None], "phones": tokens}
        log_w1, log_w2 = self._session.run(["log_w1", "log_w2"], inputs)
        return log_w1, log_w2
