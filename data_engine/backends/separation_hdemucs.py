"""Role `separation`, production: Hybrid Demucs (arXiv 2111.03600) of torchaudio takes the voice out of music."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from data_engine.backends.codec_files import files_hash
from data_engine.backends.protocols import Wave
from data_engine.backends.torchaudio_weights import load_weights, torchaudio_device, weights_revision
from data_engine.core.errors import ConfigError

_RATE = 44100
_SILENT = 1e-4
"""Peak up to which there is nothing to separate."""
_SHORTEST = _RATE // 4
"""Shorter waves are padded to a quarter of a second, about the reach of the network."""
_NEEDED_BY = "separation 'hdemucs'"
BUNDLES = {
    "HDEMUCS_HIGH_MUSDB_PLUS": "models/hdemucs_high_trained.pt",
    "HDEMUCS_HIGH_MUSDB": "models/hdemucs_high_musdbhq_only.pt",
}
"""Bundle of `torchaudio.pipelines` -> file on torchaudio's server."""


class HdemucsSeparator:
    """The source `voice` of an HDEMUCS, chunk by chunk with cross-fades; mono goes in as two equal channels.

    Args:
        model: File with a state dict (.safetensors, .pt, .pth), or a bundle of torchaudio: HDEMUCS_HIGH_MUSDB_PLUS.
        sources: What the outputs of the network are, in its order.
        voice: The source to keep.
        architecture: Arguments of `torchaudio.models.HDemucs` where they are not those of `hdemucs_high`.
        offline: Take the weights of a bundle from the local cache only.
        device: `cpu`, `cuda` or `cuda:N`.
        chunk_seconds: Length of a chunk; memory grows with it.
        overlap_seconds: Length of a cross-fade between chunks.
        batch_size: Chunks of one wave that the network sees at once.
        threads: Threads of the network on the CPU.
    """

    sample_rate = _RATE

    def __init__(
        self, model: str | None = None, sources: Sequence[str] = ("drums", "bass", "other", "vocals"),
        voice: str = "vocals", architecture: Mapping[str, Any] | None = None, offline: bool = True,
        device: str = "cpu", chunk_seconds: float = 10.0, overlap_seconds: float = 0.5, batch_size: int = 4,
        threads: int = 1,
    ) -> None:  # fmt: skip
        if voice not in sources:
            raise ConfigError(f"{_NEEDED_BY}: the voice '{voice}' is not among the sources {list(sources)}")
        self._chunk, self._overlap = round(chunk_seconds * _RATE), round(overlap_seconds * _RATE)
        if not 0 <= 2 * self._overlap <= self._chunk or self._chunk < _SHORTEST:
            raise ConfigError(f"{_NEEDED_BY}: chunk_seconds is at least 0.25 and twice overlap_seconds")
        self._model, self._sources, self._voice = model or "", tuple(sources), tuple(sources).index(voice)
        self._architecture = {"nfft": 4096, "depth": 6, **(architecture or {})}
        self._offline, self._device, self._threads = offline, device, threads
        self._batch_size = max(batch_size, 1)
        self._network: Any = None
        self._place: Any = None

    @property
    def revision(self) -> str:
        """SHA-256 over the weights and the network they belong to; the name of a bundle stands for its weights.

        Raises:
            ConfigError: `model` is neither a file nor a bundle.
        """
        weights = weights_revision(self._model, BUNDLES, _NEEDED_BY)
        return files_hash([], weights, *self._sources, str(sorted(self._architecture.items())))

    def open(self) -> None:
        """Loads the network.

        Raises:
            MissingExtraError: torchaudio or torch is not installed.
            ConfigError: The weights are not there or of another network, or the device is missing.
        """
        weights_revision(self._model, BUNDLES, _NEEDED_BY)
        place = torchaudio_device(self._device, self._threads, _NEEDED_BY)
        from torchaudio.models import HDemucs

        try:
            network = HDemucs(list(self._sources), **self._architecture)
        except (TypeError, ValueError) as error:
            raise ConfigError(f"{_NEEDED_BY}, option architecture: {error}") from error
        load_weights(network, self._model, BUNDLES, self._offline, _NEEDED_BY)
        self._network, self._place = network.to(place).eval(), place

    def close(self) -> None:
        """Frees it."""
        self._network = self._place = None

    def speech(self, waves: Sequence[Wave]) -> list[Wave]:
        """Returns the voice of each wave, as long as the wave and at its level; it does not depend on the others.

        Args:
            waves: float32 [samples] each, 44.1 kHz.
        """
        assert self._network is not None, "open() first"
        return [self._speech(np.asarray(wave, np.float32)) for wave in waves]

    def _speech(self, wave: Wave) -> Wave:
        if not len(wave) or np.abs(wave).max() <= _SILENT:
            return wave.copy()
        padded = np.pad(wave, (0, max(_SHORTEST - len(wave), 0)))
        mean, scale = padded.mean(), padded.std() + 1e-8  # the level that Demucs is trained at
        normal = (padded - mean) / scale
        starts = chunk_starts(len(normal), self._chunk, self._overlap)
        pieces = self._pieces(normal, starts)
        joined = cross_fade(pieces, starts, len(normal), self._overlap)
        return np.asarray(joined[: len(wave)] * scale + mean, np.float32)

    def _pieces(self, wave: Wave, starts: Sequence[int]) -> Iterator[Wave]:
        """Yields the voice of each chunk, the channels averaged."""
        import torch

        for at in range(0, len(starts), self._batch_size):
            chunks = np.stack([wave[start : start + self._chunk] for start in starts[at : at + self._batch_size]])
            stereo = torch.from_numpy(chunks)[:, None].expand(-1, self._network.audio_channels, -1)
            with torch.inference_mode():
                found = self._network(stereo.contiguous().to(self._place))[:, self._voice].mean(dim=1)
            yield from found.cpu().numpy()


def chunk_starts(num_samples: int, chunk: int, overlap: int) -> list[int]:
    """Returns the first sample of each chunk; the last one ends with the wave, so that all are of one length."""
    if num_samples <= chunk:
        return [0]
    return [*range(0, num_samples - chunk, chunk - overlap), num_samples - chunk]


def cross_fade(
    pieces: Iterator[Wave] | Sequence[Wave], starts: Sequence[int], num_samples: int, overlap: int
) -> npt.NDArray[np.float32]:
    """Returns chunks as one wave [num_samples], each faded in and out linearly over `overlap` samples."""
    total, weight = np.zeros(num_samples, np.float32), np.zeros(num_samples, np.float32)
    for start, piece in zip(starts, pieces, strict=True):
        steps = np.arange(1, len(piece) + 1, dtype=np.float32)
        fade = np.minimum(1, np.minimum(steps, steps[::-1]) / (overlap + 1))
        total[start : start + len(piece)] += fade * piece
        weight[start : start + len(piece)] += fade
    return np.asarray(total / weight, np.float32)
