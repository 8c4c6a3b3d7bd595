"""Role `asr`, production: Paraformer and SenseVoice through FunASR's `AutoModel`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from data_engine.backends.funasr_decoding import Decoder, decoder_of
from data_engine.backends.funasr_loading import checked_name, load_funasr, model_revision
from data_engine.backends.protocols import Transcript, Wave
from data_engine.backends.semantic_session import length_batches
from data_engine.core.errors import ConfigError
from data_engine.models.kaldi_fbank import FRAME, LFR_STEP, SAMPLE_RATE

_SILENT = 1e-4
"""Peak up to which there is nothing to recognize; models hear words in digital silence."""
_FRAMES_PER_SECOND = 100


class FunasrRecognizer:
    """Paraformer or SenseVoiceSmall over whole segments, in batches of similar length; no VAD of FunASR's own.

    Paraformer gives words with times; SenseVoice words, language, emotion and events. A transcript depends on its
    wave only, not on the waves beside it.

    Args:
        model: Folder in FunASR's layout, or a hub id (`FunAudioLLM/SenseVoiceSmall`).
        kind: `paraformer` or `sensevoice`, to be sure of it; found out when not given.
        hub: Where a hub id is looked up: `ms` (ModelScope) or `hf` (Hugging Face).
        model_revision: Commit or tag of a hub id; needed, since a moving branch would be another model each day.
        offline: Take a hub id from the local cache only.
        device: `cpu`, `cuda` or `cuda:N`.
        batch_size_s: Seconds of audio, with padding, that the network sees at once.
        threads: Threads of the network on the CPU.
        languages: Languages to serve, of those the model knows; all of them when not given.
        word_times: Give words with times.
        use_itn: SenseVoice: written form, with punctuation and figures, in place of spoken words.
    """

    sample_rate = SAMPLE_RATE

    def __init__(
        self, model: str | None = None, kind: Literal["paraformer", "sensevoice"] | None = None,
        hub: Literal["ms", "hf"] = "ms", model_revision: str | None = None, offline: bool = True,
        device: str = "cpu", batch_size_s: float = 120.0, threads: int = 1, languages: Sequence[str] | None = None,
        word_times: bool = True, use_itn: bool = True,
    ) -> None:  # fmt: skip
        if hub not in ("ms", "hf"):
            raise ConfigError(f"asr 'funasr', option hub: 'ms' or 'hf', not '{hub}'")
        if kind not in (None, "paraformer", "sensevoice"):
            raise ConfigError(f"asr 'funasr', option kind: 'paraformer' or 'sensevoice', not '{kind}'")
        self._name, self._kind, self._hub, self._model_revision = model or "", kind, hub, model_revision
        self._offline, self._device, self._threads = offline, device, threads
        self._batch_frames = max(int(batch_size_s * _FRAMES_PER_SECOND) // LFR_STEP, 1)
        self._word_times, self._use_itn = word_times, use_itn
        self.languages = frozenset(languages or ())
        self.finds_language = False
        self._decoder: Decoder | None = None
        self._frontend: Any = None

    @property
    def revision(self) -> str:
        """SHA-256 over the files of a folder; of a hub id, its name and revision stand for them.

        Raises:
            ConfigError: A file is missing, or a hub id has no revision.
        """
        return model_revision(self._checked_name(), self._hub, self._model_revision)

    def open(self) -> None:
        """Loads the model.

        Raises:
            MissingExtraError: funasr or torch is not installed.
            ConfigError: The model is not there, not what it should be, or does not know a language asked for.
        """
        needed_by = ("asr-funasr", "asr 'funasr'")
        place = (self._hub, self._model_revision, self._offline, needed_by)
        loaded = load_funasr(self._checked_name(), self._device, self._threads, *place)
        decoder = decoder_of(loaded, self._device, self._use_itn, self._word_times)
        if self._kind not in (None, decoder.kind):
            raise ConfigError(f"asr 'funasr': '{self._name}' is a {decoder.kind}, the option kind says {self._kind}")
        known = frozenset(decoder.languages)
        if decoder.kind == "sensevoice" and self.languages - known:
            raise ConfigError(
                f"asr 'funasr': '{self._name}' knows {sorted(known)}, not {sorted(self.languages - known)}"
            )
        self.languages = self.languages or known
        self.finds_language, self._decoder, self._frontend = decoder.finds_language, decoder, loaded.kwargs["frontend"]

    def close(self) -> None:
        """Frees it."""
        self._decoder = self._frontend = None

    def transcribe(self, waves: Sequence[Wave], language: str | None) -> list[Transcript]:
        """Returns one transcript per wave; empty where nothing was heard, in silence and below 25 ms.

        Args:
            waves: float32 [samples] each, 16 kHz.
            language: One of `languages`; None where the model finds it (`finds_language`).

        Raises:
            ValueError: Another language, or none for a model that cannot tell it.
        """
        assert self._decoder is not None, "open() first"
        if language not in self.languages and not (language is None and self.finds_language):
            raise ValueError(f"this model knows {sorted(self.languages)}, not '{language}'")
        sounding = [n for n, wave in enumerate(waves) if len(wave) >= FRAME and np.abs(wave).max() > _SILENT]
        features = [self._features(waves[number]) for number in sounding]
        heard = [Transcript("")] * len(waves)
        for batch in length_batches([len(rows) for rows in features], self._batch_frames):
            chosen = [sounding[position] for position in batch]
            lengths = [len(waves[number]) for number in chosen]
            found = self._decoder.hear([features[position] for position in batch], lengths, language)
            for number, transcript in zip(chosen, found, strict=True):
                heard[number] = transcript
        return heard

    def _features(self, wave: Wave) -> Any:
        """Returns normalised stacked filterbanks [frames, size] of one wave; alone, so that no neighbour pads it."""
        import torch

        features, lengths = self._frontend(torch.from_numpy(np.ascontiguousarray(wave))[None], [len(wave)])
        return features[0, : int(lengths[0])].float()

    def _checked_name(self) -> str:
        return checked_name(self._name, self._model_revision, "asr 'funasr'")
