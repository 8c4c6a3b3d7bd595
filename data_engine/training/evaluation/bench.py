"""What several rows share, loaded and computed once: test sets, their codes, the judges."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from data_engine.backends.catalog import build_backend
from data_engine.backends.codec_nano import FOLDER, SMALL_BITS, NanoCodec
from data_engine.backends.protocols import CodeStreams, Recognizer, Wave
from data_engine.backends.speaker_resemblyzer import ResemblyzerEmbedder
from data_engine.core.errors import ConfigError, MissingExtraError
from data_engine.training.evaluation.figures import Found, NotMeasuredError, Statistic, bootstrap
from data_engine.training.evaluation.settings import EvaluationSettings
from data_engine.training.evaluation.utterances import Spoken, probe_corpus, test_set
from data_engine.training.evaluation.words import WordCounts, count_words


class Bench:
    """Models and utterances under test.

    Args:
        settings: Of the evaluation.
    """

    def __init__(self, settings: EvaluationSettings) -> None:
        self.settings = settings
        self.folder: Path = settings.codec or FOLDER
        # Kept per bench, computed when first asked for.
        self.spoken: Callable[[str], list[Spoken]] = cache(self._spoken)
        self.streams: Callable[[str], list[CodeStreams]] = cache(self._streams)
        self.original_words: Callable[[str], WordCounts] = cache(self._original_words)
        self.speakers: Callable[[str], npt.NDArray[np.float32]] = cache(self._speakers)

    def open_codec(self, folder: Path, bits: int) -> NanoCodec:
        """Returns the codec of a folder in 8 or 32 bits, opened.

        Raises:
            NotMeasuredError: A file of it is missing.
        """
        codec = NanoCodec(str(folder), bits=bits)
        try:
            codec.open()
        except (ConfigError, MissingExtraError) as error:
            raise NotMeasuredError(str(error)) from error
        return codec

    @cached_property
    def codec(self) -> NanoCodec:
        """The codec that ships."""
        return self.open_codec(self.folder, SMALL_BITS)

    @property
    def tokenizer_hash(self) -> str | None:
        """Hash of the tokenizers, None when they are not there."""
        try:
            return NanoCodec(str(self.folder)).revision
        except ConfigError:
            return None

    @cached_property
    def judge(self) -> Recognizer:
        """The recognizer that judges speech."""
        return self.recognizer(self.settings.judge.name, self.settings.judge.options)

    def recognizer(self, name: str, options: dict[str, object]) -> Recognizer:
        """Returns an opened recognizer.

        Raises:
            NotMeasuredError: It, or what it needs, is not there.
        """
        try:
            found: Recognizer = build_backend("asr", name, options)
            found.open()
        except (ConfigError, MissingExtraError) as error:
            raise NotMeasuredError(str(error)) from error
        return found

    @cached_property
    def embedder(self) -> ResemblyzerEmbedder:
        """The judge of speakers."""
        embedder = ResemblyzerEmbedder()
        embedder.open()
        return embedder

    @cached_property
    def probes(self) -> tuple[list[Spoken], list[CodeStreams]]:
        """The corpus that codes are probed on, with its codes."""
        spoken = probe_corpus(self.settings.cache, self.settings.probes)
        return spoken, self.codec.encode([one.wave for one in spoken])

    def found(self, statistic: Statistic, utterances: int, **details: object) -> Found:
        """Returns a figure with its interval."""
        interval = bootstrap(statistic, utterances, self.settings.seed, self.settings.resamples)
        return Found(*interval, utterances, details)

    def words(self, texts: list[str], waves: list[Wave]) -> WordCounts:
        """Returns what the judge got wrong."""
        return count_words(texts, [heard.text for heard in self.judge.transcribe(waves, "en")])

    def _spoken(self, name: str) -> list[Spoken]:
        names = {"teachers": self.settings.sets.teachers, "real": self.settings.sets.real}[name]
        return test_set(self.settings.cache, self.settings.corpus, names, self.settings.sets)

    def _streams(self, name: str) -> list[CodeStreams]:
        return self.codec.encode([one.wave for one in self.spoken(name)])

    def _original_words(self, name: str) -> WordCounts:
        return self.words([one.text for one in self.spoken(name)], [one.wave for one in self.spoken(name)])

    def _speakers(self, name: str) -> npt.NDArray[np.float32]:
        return self.embedder.embed([one.wave for one in self.spoken(name)])
