"""States of a FunASR encoder in Paraformer layout, many clips at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from data_engine.backends.funasr_loading import load_funasr
from data_engine.backends.protocols import Wave
from data_engine.backends.semantic_session import length_batches
from data_engine.core.errors import ConfigError
from data_engine.models.features import Floats
from data_engine.models.kaldi_fbank import FRAME, LFR_STEP


class FunasrEncoder:
    """An opened encoder.

    Args:
        model: Folder or hub id.
        device: `cpu`, `cuda` or `cuda:N`.
        threads: Of torch, on the CPU.
        hub: `ms` or `hf`, of a hub id.
        revision: Of a hub id.
        offline: Take a hub id from the local cache only.

    Raises:
        MissingExtraError: funasr or torch is not installed.
        ConfigError: The model cannot be loaded, has no offline encoder, or the device is missing.
    """

    def __init__(
        self, model: str, device: str, threads: int, hub: str = "ms", revision: str | None = None, offline: bool = True
    ) -> None:
        loaded = load_funasr(model, device, threads, hub, revision, offline, ("step-audio", "codec 'step-audio'"))
        self._model, self._frontend, self._device = loaded.model, loaded.kwargs.get("frontend"), device
        if self._frontend is None or not hasattr(self._model, "encode"):
            raise ConfigError(f"'{model}' is no Paraformer: its model has no frontend or no encoder")
        if hasattr(self._model, "encode_chunk"):
            raise ConfigError(f"'{model}' is a streaming Paraformer, whose states depend on how a clip is cut into "
                              "chunks; codec 'step-audio' takes an offline one")  # fmt: skip

    def states(self, waves: Sequence[Wave], batch_frames: int) -> list[Floats]:
        """Returns the states of each wave, float32 [60 ms frames, size]; none for a wave below 25 ms.

        Args:
            waves: float32 [samples] at 16 kHz, full scale 1.
            batch_frames: Filterbank frames (10 ms) of a batch, with its padding.
        """
        long = [number for number, wave in enumerate(waves) if len(wave) >= FRAME]
        features = {number: self._features(waves[number]) for number in long}
        empty = np.zeros((0, int(self._model.encoder.output_size())), np.float32)
        found: list[Floats] = [empty] * len(waves)
        lengths = [len(features[number]) for number in long]
        for batch in length_batches(lengths, max(batch_frames // LFR_STEP, 1)):
            chosen = [long[position] for position in batch]
            for number, states in zip(chosen, self._encode([features[n] for n in chosen]), strict=True):
                found[number] = states
        return found

    def _features(self, wave: Wave) -> Any:
        """Returns normalised stacked filterbanks [frames, 560] of one wave; alone, so that no neighbour pads it."""
        import torch

        features, lengths = self._frontend(torch.from_numpy(np.ascontiguousarray(wave))[None], [len(wave)])
        return features[0, : int(lengths[0])].float()

    def _encode(self, features: Sequence[Any]) -> list[Floats]:
        import torch

        lengths = torch.tensor([len(rows) for rows in features], dtype=torch.int32)
        padded = torch.nn.utils.rnn.pad_sequence(list(features), batch_first=True)
        with torch.inference_mode():
            states = self._model.encode(padded.to(self._device), lengths.to(self._device))[0].float().cpu().numpy()
        return [rows[: int(length)] for rows, length in zip(states, lengths, strict=True)]
