"""Role `codec`, embedded: two k-means codebooks over log-mel features, decoded with Griffin-Lim."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from data_engine.backends.protocols import CodeStreams, Wave
from data_engine.core.errors import ConfigError
from data_engine.models.codec_views import (
    ACOUSTIC_FRAMES,
    ACOUSTIC_SAMPLES,
    LINGUISTIC_FRAMES,
    MEL,
    QUIETEST,
    acoustic_view,
    code_counts,
    linguistic_view,
    nearest,
    speech_mel,
)
from data_engine.models.griffin_lim import griffin_lim, mel_to_power

Floats = npt.NDArray[np.float32]

CODEBOOKS = Path(__file__).parent.parent / "assets" / "codec_kmeans" / "codebooks.safetensors"
TENSORS: dict[str, tuple[int, ...]] = {
    "vq02.centroids": (1024, 42),
    "vq02.mel": (1024, LINGUISTIC_FRAMES, MEL.n_mels),
    "vq06.centroids": (4096, MEL.n_mels),
    "vq06.mel": (4096, MEL.n_mels),
}
"""Tensors of the file, float16: centroids on the grids of `codec_views`, and what a code adds to the log-mel."""

_SMOOTHING = np.array([1, 2, 1], np.float32) / np.float32(4)
_CONTRAST = np.float32(1.15)


class KMeansCodec:
    """Classical dual-codebook codec: codes from k-means cells, speech from their mean spectra.

    Counts are those of Step-Audio (arXiv 2502.11946): num_samples // 960 vq02 and round(25 s) vq06 codes.

    Args:
        path: Codebook file of `python -m data_engine.models.kmeans_codebooks`; the shipped one when not given.
        iterations: Griffin-Lim projections of `decode`.
    """

    sample_rate = MEL.sample_rate
    quant_bits = 16

    def __init__(self, path: str | None = None, iterations: int = 32) -> None:
        self._path = Path(path) if path else CODEBOOKS
        self._iterations = iterations
        self._tensors: dict[str, Floats] = {}

    @property
    def revision(self) -> str:
        """SHA-256 of the codebook file: the tokenizer hash.

        Raises:
            ConfigError: There is no such file.
        """
        if not self._path.is_file():
            raise ConfigError(f"there is no codebook file '{self._path}'; check the option 'path' of codec 'kmeans'")
        return hashlib.sha256(self._path.read_bytes()).hexdigest()

    def open(self) -> None:
        """Loads the codebooks.

        Raises:
            ConfigError: The file is missing or holds other tensors.
        """
        self._tensors = read_codebooks(self._path)

    def close(self) -> None:
        """Frees the codebooks."""
        self._tensors = {}

    def encode(self, waves: Sequence[Wave]) -> list[CodeStreams]:
        """Returns the codes of each wave, independent of the waves beside it.

        Args:
            waves: float32 [samples] at 16 kHz, any length; peak-normalised here, not trimmed.
        """
        counts = [code_counts(len(wave)) for wave in waves]
        mels = [speech_mel(wave) for wave in waves]
        views02 = [linguistic_view(mel, n02) for mel, (n02, _) in zip(mels, counts, strict=True)]
        views06 = [acoustic_view(mel, n06) for mel, (_, n06) in zip(mels, counts, strict=True)]
        codes02 = self._quantise("vq02.centroids", views02)
        codes06 = self._quantise("vq06.centroids", views06)
        return [CodeStreams(vq02, vq06) for vq02, vq06 in zip(codes02, codes06, strict=True)]

    def _quantise(self, name: str, views: Sequence[Floats]) -> list[npt.NDArray[np.uint16]]:
        if not views:
            return []
        codes = nearest(np.concatenate(views), self._tensors[name]).astype(np.uint16)
        return np.split(codes, np.cumsum([len(view) for view in views])[:-1])

    def decode(self, streams: Sequence[CodeStreams], speakers: Sequence[npt.NDArray[np.float32]]) -> list[Wave]:
        """Returns a waveform of exactly 640 samples per vq06 code, at most 0.999 in magnitude.

        For streams of complete groups (2 vq02, 3 vq06) that is 1,920 samples, 120 ms, per group; for raw streams
        it is the length of the encoded wave to within 20 ms. vq02 codes beyond the vq06 stream are not heard, and
        where vq02 ends early vq06 speaks alone. The voice is that of the codes: `speakers` is ignored.
        """
        return [self._speak(self.log_mel(stream)) for stream in streams]

    def log_mel(self, stream: CodeStreams) -> Floats:
        """Returns the log-mel estimate of a stream, float32 [4 * n06, 80] every 10 ms.

        The mean spectrum of the vq06 cell, plus the vq02 cell's mean deviation from it, smoothed over 30 ms so that
        codes flow into each other.
        """
        mel = np.repeat(self._tensors["vq06.mel"][stream.vq06], ACOUSTIC_FRAMES, axis=0)
        detail = self._tensors["vq02.mel"][stream.vq02].reshape(-1, MEL.n_mels)[: len(mel)]
        mel[: len(detail)] += detail
        reach = len(_SMOOTHING) // 2
        padded = np.pad(mel, ((reach, reach), (0, 0)), mode="edge") if len(mel) else mel
        return sum((w * padded[k : k + len(mel)] for k, w in enumerate(_SMOOTHING)), np.zeros_like(mel))

    def _speak(self, mel: Floats) -> Wave:
        if not len(mel):
            return np.zeros(0, np.float32)
        silent = mel <= QUIETEST + np.float32(0.5)
        # Means of cells vary less than speech does (global variance, Toda and Tokuda 2007) and sound muffled.
        average = mel.mean(axis=0)
        mel = average + _CONTRAST * (mel - average)
        energy = np.where(silent, np.float32(0.0), np.exp(mel))
        power = mel_to_power(np.concatenate([energy, energy[-1:]]), MEL)
        num_samples = len(mel) // ACOUSTIC_FRAMES * ACOUSTIC_SAMPLES
        wave = griffin_lim(np.sqrt(power), num_samples, MEL, self._iterations)
        return np.asarray(wave * np.float32(0.999 / max(0.999, float(np.abs(wave).max()))), np.float32)


def read_codebooks(path: Path) -> dict[str, Floats]:
    """Returns the tensors of a codebook file as float32.

    Raises:
        ConfigError: The file is missing, is not safetensors, or holds other tensors.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise ConfigError(f"cannot read the codebooks '{path}': {error}. Check the option 'path'.") from error
    shapes = {name: tensor.shape for name, tensor in tensors.items()}
    if shapes != TENSORS:
        raise ConfigError(f"'{path}' holds the tensors {shapes}, a codebook file holds {TENSORS}")
    return {name: tensor.astype(np.float32) for name, tensor in tensors.items()}
