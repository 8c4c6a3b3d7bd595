"""Role `squim`, production: torchaudio's SQUIM (arXiv 2304.01448), intrusive measures without their reference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from data_engine.backends.codec_files import files_hash
from data_engine.backends.protocols import Wave
from data_engine.backends.torchaudio_weights import load_weights, torchaudio_device, weights_revision
from data_engine.core.errors import ConfigError

_RATE = 16000
_SILENT = 1e-4
"""Peak up to which there is nothing to judge; the network divides by the level."""
_NEEDED_BY = "squim 'torchaudio'"
BUNDLES = {"SQUIM_OBJECTIVE": "models/squim_objective_dns2020.pth"}
"""Bundle of `torchaudio.pipelines` -> file on torchaudio's server."""
_BASE = {
    "feat_dim": 256, "win_len": 64, "d_model": 256, "nhead": 4, "hidden_dim": 256, "num_blocks": 2,
    "rnn_type": "LSTM", "chunk_size": 71,
}  # fmt: skip
"""Arguments of `squim_objective_base`."""


class Squim:
    """What STOI, wide-band PESQ and SI-SDR would be against the clean recording, which nobody has.

    Long clips are judged in windows of equal length and averaged: attention costs the square of the length.

    Args:
        model: File with a state dict (.safetensors, .pt, .pth), or a bundle of torchaudio: SQUIM_OBJECTIVE.
        architecture: Arguments of `torchaudio.models.squim_objective_model` where they are not those of
            `squim_objective_base`.
        offline: Take the weights of a bundle from the local cache only.
        device: `cpu`, `cuda` or `cuda:N`.
        window_seconds: Longest window.
        batch_size: Windows of one clip that the network sees at once.
        threads: Threads of the network on the CPU.
    """

    sample_rate = _RATE

    def __init__(
        self, model: str | None = None, architecture: Mapping[str, Any] | None = None, offline: bool = True,
        device: str = "cpu", window_seconds: float = 10.0, batch_size: int = 8, threads: int = 1,
    ) -> None:  # fmt: skip
        if window_seconds <= 0:
            raise ConfigError(f"{_NEEDED_BY}: window_seconds is above 0, not {window_seconds}")
        self._model, self._architecture = model or "", {**_BASE, **(architecture or {})}
        self._offline, self._device, self._threads = offline, device, threads
        self._window, self._batch_size = max(round(window_seconds * _RATE), 1), max(batch_size, 1)
        self._network: Any = None
        self._place: Any = None

    @property
    def revision(self) -> str:
        """SHA-256 over the weights and the network they belong to; the name of a bundle stands for its weights.

        Raises:
            ConfigError: `model` is neither a file nor a bundle.
        """
        weights = weights_revision(self._model, BUNDLES, _NEEDED_BY)
        return files_hash([], weights, str(sorted(self._architecture.items())))

    def open(self) -> None:
        """Loads the network.

        Raises:
            MissingExtraError: torchaudio or torch is not installed.
            ConfigError: The weights are not there or of another network, or the device is missing.
        """
        weights_revision(self._model, BUNDLES, _NEEDED_BY)
        place = torchaudio_device(self._device, self._threads, _NEEDED_BY)
        from torchaudio.models import squim_objective_model

        try:
            network = squim_objective_model(**self._architecture)
        except (AssertionError, TypeError, ValueError) as error:
            raise ConfigError(f"{_NEEDED_BY}, option architecture: {error}") from error
        load_weights(network, self._model, BUNDLES, self._offline, _NEEDED_BY)
        self._network, self._place = network.to(place).eval(), place

    def close(self) -> None:
        """Frees it."""
        self._network = self._place = None

    def estimate(self, waves: Sequence[Wave]) -> npt.NDArray[np.float32]:
        """Returns STOI (0..1), PESQ (1..4.64) and SI-SDR in dB, float32 [waves, 3]; NaN for silence and scraps.

        The result for a wave does not depend on the others.

        Args:
            waves: float32 [samples] each, 16 kHz.
        """
        assert self._network is not None, "open() first"
        scores = [self._estimate(np.asarray(wave, np.float32)) for wave in waves]
        return np.array(scores, np.float32).reshape(-1, 3)

    def _estimate(self, wave: Wave) -> npt.NDArray[np.float32]:
        import torch

        windows = [w for w in equal_windows(wave, self._window) if np.abs(w).max(initial=0) > _SILENT]
        if not windows or len(windows[0]) < self._architecture["win_len"]:
            return np.full(3, np.nan, np.float32)
        found = []
        for at in range(0, len(windows), self._batch_size):
            batch = torch.from_numpy(np.stack(windows[at : at + self._batch_size])).to(self._place)
            with torch.inference_mode():
                found.append(torch.stack(self._network(batch), dim=1).float().cpu().numpy())
        return np.asarray(np.concatenate(found).mean(axis=0), np.float32)


def equal_windows(wave: Wave, longest: int) -> npt.NDArray[np.float32]:
    """Returns as few windows of equal length as hold a wave, [windows, samples]; the odd samples at its end are left.

    Args:
        wave: float32 [samples].
        longest: At most so many samples per window.
    """
    count = max(-(-len(wave) // longest), 1)
    size = len(wave) // count
    return wave[: count * size].reshape(count, size)
