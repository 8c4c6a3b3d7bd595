"""Role `aligner`: CTC forced alignment on what the embedded phone model hears; English and Mandarin.

The search is `torchaudio.functional.forced_align` (Kürzinger et al. 2020, arXiv 2007.09127, for CTC segmentation).
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from data_engine.backends.aligned_text import SAMPLE_RATE, align_each, timed_text, too_short
from data_engine.backends.codec_files import files_hash
from data_engine.backends.codec_nano import ENCODER, SMALL_BITS, network_file
from data_engine.backends.codec_nano import FOLDER as ENCODER_FOLDER
from data_engine.backends.ctc_words import BLANK, Emissions
from data_engine.backends.phone_posteriors import PhonePosteriors
from data_engine.backends.pronunciation import (
    LANGUAGES,
    LEXICON_FOLDER,
    Phones,
    Pronouncer,
    flattened,
    lexicon_files,
    pronouncer_revision,
)
from data_engine.backends.protocols import Wave
from data_engine.backends.protocols_listening import AlignedText
from data_engine.core.errors import MissingExtraError, RecordError
from data_engine.models.codec_views import normalise_peak
from data_engine.models.kaldi_fbank import CODE_SAMPLES, FRAME, kaldi_fbank

Ints = npt.NDArray[np.int64]

PAUSE = "pau"
_LATE = 0.003
"""Seconds by which the model hears a phone after its middle."""
_BEFORE, _AFTER = 0.035, 0.05
"""Seconds from the begin of a phone after a pause to its middle, and from there to its end before a pause."""
_PAUSE_SECONDS = 0.2
"""Seconds between the middles of two phones of two words from which there may be a pause between them."""


class CtcAligner:
    """Role `aligner`: words and phones with times out of CTC posteriors, 16 kHz.

    Args:
        path: Folder with encoder.int8.onnx; the shipped codec's when not given.
        bits: 8; 32 takes encoder.onnx, the float file of a training.
        stretch: How many times slower speech is heard: a phone needs a frame of 60 ms of its own.
        passes: Of the encoder, 1, 2, 3 or 6: times are that much finer than its frames.
        threads: Threads of the network.
    """

    sample_rate = SAMPLE_RATE
    languages = LANGUAGES

    def __init__(
        self, path: str | None = None, bits: int = SMALL_BITS, stretch: float = 1.8, passes: int = 2, threads: int = 1
    ) -> None:
        self._file = network_file(Path(path) if path else ENCODER_FOLDER, ENCODER, bits)
        self._stretch, self._passes, self._threads = stretch, passes, threads
        self._model: PhonePosteriors | None = None
        self._pronouncer: Pronouncer | None = None
        self._ids: dict[str, int] = {}
        self._forced_align: Any = None

    @property
    def revision(self) -> str:
        """SHA-256 over encoder, lexicons, versions and settings.

        Raises:
            ConfigError: A file is missing.
        """
        try:
            search = f"torchaudio-{version('torchaudio')}"
        except PackageNotFoundError:
            search = "torchaudio-missing"
        files = [self._file, LEXICON_FOLDER / "tokens.txt", *lexicon_files()]
        return files_hash(files, search, pronouncer_revision(), f"{self._stretch} {self._passes}")

    def open(self) -> None:
        """Loads encoder and lexicons.

        Raises:
            ConfigError: A file is missing or not what it should be.
            MissingExtraError: torchaudio or onnxruntime is not installed.
        """
        try:
            from torchaudio.functional import forced_align
        except ImportError as error:
            raise MissingExtraError("torchaudio", "align", "aligning with 'ctc'") from error
        self._forced_align = forced_align
        self._model = PhonePosteriors(self._file, LEXICON_FOLDER / "tokens.txt", self._threads)
        self._ids = {name: number for number, name in enumerate(self._model.tokens)}
        self._pronouncer = Pronouncer()

    def close(self) -> None:
        """Frees them."""
        self._model = self._pronouncer = self._forced_align = None

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

    def _align(self, wave: Wave, words: Sequence[str], pronounced: Sequence[Phones]) -> AlignedText:
        tokens, owners = flattened(pronounced, self._ids)
        emissions = self._emissions(wave)
        if len(emissions) < needed_frames(tokens):
            raise too_short(len(tokens), len(wave))
        path, scores = self._path(emissions, tokens)
        first, last = token_frames(path)
        frame = CODE_SAMPLES / self._stretch / self._passes
        middles = (first + last) / 2 * frame + FRAME // 2 - _LATE * SAMPLE_RATE
        times = phone_times(middles, np.diff(owners, prepend=-1) > 0)
        confidence = float(np.exp(scores[path != BLANK].mean()))
        return timed_text(words, pronounced, times, len(wave), confidence)

    def _emissions(self, wave: Wave) -> Emissions:
        """Returns log posteriors in which silence is part of the blank: no text has it."""
        assert self._model is not None, "open() first"
        if len(wave) < FRAME:
            return np.zeros((0, len(self._ids)), np.float32)
        found = self._model.dense_emissions(kaldi_fbank(normalise_peak(wave)), self._stretch, self._passes)
        found[:, BLANK] = np.logaddexp(found[:, BLANK], found[:, self._ids[PAUSE]])
        return found

    def _path(self, emissions: Emissions, tokens: Sequence[int]) -> tuple[Ints, Emissions]:
        """Returns the token of each frame on the best way through a text, and its log posterior."""
        import torch

        targets = torch.tensor([tokens], dtype=torch.int32)
        path, scores = self._forced_align(torch.from_numpy(emissions)[None], targets, blank=BLANK)
        return path[0].numpy().astype(np.int64), scores[0].numpy()


def needed_frames(tokens: Sequence[int]) -> int:
    """Returns how many frames a text takes at least: one each, and a blank between equal neighbours."""
    listed = np.asarray(tokens)
    return len(listed) + int((listed[1:] == listed[:-1]).sum())


def token_frames(path: Ints) -> tuple[Ints, Ints]:
    """Returns first and last frame of each token of a CTC path."""
    changed = np.flatnonzero(np.diff(path, prepend=BLANK, append=BLANK))
    first, end = changed[path[np.minimum(changed, len(path) - 1)] != BLANK], changed
    first = first[first < len(path)]
    return first, end[np.searchsorted(end, first, side="right")] - 1


def phone_times(middles: npt.NDArray[np.float64], begins: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
    """Returns first and after-last sample of phones of which only the middles are known, [phones, 2].

    Neighbours meet half-way. Between words that are far apart there is a pause, and half a phone on either side of it.

    Args:
        middles: Sample in the middle of each phone.
        begins: Phones with which a word begins.
    """
    before, after = _BEFORE * SAMPLE_RATE, _AFTER * SAMPLE_RATE
    between = (middles[:-1] + middles[1:]) / 2
    apart = begins[1:] & (np.diff(middles) > _PAUSE_SECONDS * SAMPLE_RATE)
    ends = np.append(np.where(apart, middles[:-1] + after, between), middles[-1] + after)
    starts = np.append(middles[0] - before, np.where(apart, middles[1:] - before, between))
    return np.stack([starts, ends], axis=1)
