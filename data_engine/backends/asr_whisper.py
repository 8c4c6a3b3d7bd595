"""Role `asr`, production: Whisper through transformers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from data_engine.backends.codec_files import files_hash
from data_engine.backends.protocols import Transcript, Wave
from data_engine.backends.whisper_decoding import Chunk, Whisper, joined
from data_engine.backends.whisper_words import chunk_bounds
from data_engine.core.errors import ConfigError

_SILENT = 1e-4
"""Peak up to which there is nothing to recognize; Whisper hears whole sentences in digital silence."""
_SHORTEST = 400
_SUFFIXES = (".json", ".txt", ".safetensors", ".bin", ".model")


class WhisperRecognizer:
    """Whisper (arXiv 2212.04356), greedy and without fallback to sampling, so the same clip gets the same text.

    Clips beyond the model's 30 s are cut at their quietest places. Words get their times from the alignment heads of
    the decoder where the generation config names them. Confidence is the geometric mean posterior of the tokens.

    Args:
        model: Folder written by `save_pretrained`, or a hub id (`openai/whisper-large-v3`).
        model_revision: Commit or tag of a hub id; needed, since a moving branch would be another model each day.
        offline: Take a hub id from the local cache only.
        device: `cpu`, `cuda` or `cuda:N`.
        dtype: Of the weights: `float32`, `float16` or `bfloat16`.
        batch_size: Chunks of 30 s that the network sees at once.
        max_new_tokens: Of a chunk; half the decoder's positions when not given. It ends what repeats itself.
        threads: Threads of the network on the CPU.
        languages: Languages to serve and to choose from, of those the model knows; all of them when not given.
        word_times: Give words with times.
    """

    sample_rate = 16000

    def __init__(
        self, model: str | None = None, model_revision: str | None = None, offline: bool = True, device: str = "cpu",
        dtype: Literal["float32", "float16", "bfloat16"] = "float32", batch_size: int = 16,
        max_new_tokens: int | None = None, threads: int = 1, languages: Sequence[str] | None = None,
        word_times: bool = True,
    ) -> None:  # fmt: skip
        if dtype not in ("float32", "float16", "bfloat16"):
            raise ConfigError(f"asr 'whisper', option dtype: float32, float16 or bfloat16, not '{dtype}'")
        self._name, self._model_revision, self._offline = model or "", model_revision, offline
        self._device, self._dtype, self._threads = device, dtype, threads
        self._batch_size, self._max_new_tokens, self._word_times = max(batch_size, 1), max_new_tokens, word_times
        self.languages = frozenset(languages or ())
        self.finds_language = False
        self._whisper: Whisper | None = None

    @property
    def revision(self) -> str:
        """SHA-256 over the files of a folder; of a hub id, its name and revision stand for them.

        Raises:
            ConfigError: There are no weights, or a hub id has no revision.
        """
        folder = Path(self._checked_name())
        if not folder.is_dir():
            return files_hash([], f"hf:{self._name}@{self._model_revision}", self._dtype)
        files = sorted(file for file in folder.iterdir() if file.suffix in _SUFFIXES)
        if not any(file.suffix in (".safetensors", ".bin") for file in files):
            raise ConfigError(f"'{folder}' is no Whisper checkpoint: it holds no weights (.safetensors)")
        return files_hash(files, self._dtype)

    def open(self) -> None:
        """Loads the model.

        Raises:
            MissingExtraError: transformers or torch is not installed.
            ConfigError: The model is not there, not a Whisper, or does not know a language asked for.
        """
        self._whisper = Whisper(
            self._checked_name(), self._model_revision, self._offline, self._device, self._dtype, self._threads,
            self._max_new_tokens,
        )  # fmt: skip
        known = frozenset(self._whisper.language_ids)
        if self.languages - known:
            raise ConfigError(f"asr 'whisper': '{self._name}' does not know {sorted(self.languages - known)}")
        self.languages = self.languages or known
        self.finds_language = self._whisper.multilingual

    def close(self) -> None:
        """Frees it."""
        self._whisper = None

    def transcribe(self, waves: Sequence[Wave], language: str | None) -> list[Transcript]:
        """Returns one transcript per wave; empty where nothing was heard, in silence and below 25 ms.

        Args:
            waves: float32 [samples] each, 16 kHz.
            language: One of `languages`; None lets a multilingual model find it, by the first chunk of each wave.

        Raises:
            ValueError: Another language, or none for a model of one language.
        """
        assert self._whisper is not None, "open() first"
        if language not in self.languages and not (language is None and self.finds_language):
            raise ValueError(f"this model knows {sorted(self.languages)}, not '{language}'")
        parts: list[list[Chunk]] = [self._chunks(wave, language) for wave in waves]
        if language is None:
            for firsts in self._batches([chunks[0] for chunks in parts if chunks]):
                self._whisper.find_languages(firsts, sorted(self.languages))
            for chunks in parts:
                for chunk in chunks[1:]:
                    chunk.language = chunks[0].language
        for batch in self._batches([chunk for chunks in parts for chunk in chunks]):
            self._whisper.hear(batch, self._word_times)
        return [joined(chunks, found=language is None) for chunks in parts]

    def _chunks(self, wave: Wave, language: str | None) -> list[Chunk]:
        assert self._whisper is not None
        if len(wave) < _SHORTEST or np.abs(wave).max() <= _SILENT:
            return []
        bounds = chunk_bounds(wave, self._whisper.most_samples)
        return [Chunk(wave[start:end], start, language) for start, end in bounds if end - start >= _SHORTEST]

    def _batches(self, chunks: Sequence[Chunk]) -> list[Sequence[Chunk]]:
        return [chunks[first : first + self._batch_size] for first in range(0, len(chunks), self._batch_size)]

    def _checked_name(self) -> str:
        if not self._name:
            raise ConfigError("asr 'whisper' needs the option 'model': a checkpoint folder, or a hub id")
        if not Path(self._name).is_dir() and not self._model_revision:
            raise ConfigError(
                f"there is no folder '{self._name}'. If it is a hub id, give 'model_revision' a commit or tag too"
            )
        return self._name
