"""Speaker embeddings with Resemblyzer's voice encoder, converted to ONNX (`data_engine.models.speaker_encoder`).

Features and the division into partial utterances follow Resemblyzer 0.1.4; its webrtcvad trimming is left out,
because callers pass speech.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from data_engine.backends.protocols import Wave
from data_engine.core.errors import MissingExtraError
from data_engine.models.features import apply_filterbank, mel_filterbank, power_spectrogram

Floats = npt.NDArray[np.float32]

SAMPLE_RATE = 16000
DIMENSIONS = 256
MODEL = Path(__file__).parent.parent / "assets" / "speaker_encoder" / "model.onnx"

_WINDOW, _HOP, _MELS = 400, 160, 40
_PARTIAL = 160
_TARGET_DBFS = -30.0
_SMALLEST_NORM = 1e-12


def raise_volume(wave: Wave, target_dbfs: float = _TARGET_DBFS) -> Wave:
    """Returns the wave at an RMS level of at least `target_dbfs`: quiet ones are raised, loud ones kept."""
    rms = float(np.sqrt(np.mean(np.square(wave, dtype=np.float64)))) if len(wave) else 0.0
    gain = 10.0 ** (target_dbfs / 20.0) / rms if rms > 0.0 else 1.0
    return (wave * np.float32(gain)).astype(np.float32) if gain > 1.0 else np.asarray(wave, np.float32)


def partial_starts(num_samples: int, rate: float, min_coverage: float) -> npt.NDArray[np.int64]:
    """Returns the first frame of each partial utterance of 160 frames.

    Args:
        num_samples: Samples of the wave.
        rate: Partial utterances per second.
        min_coverage: The last one is dropped when less of it than this is audio; the first never is.
    """
    num_frames = -(-(num_samples + 1) // _HOP)
    step = round(SAMPLE_RATE / rate / _HOP)
    starts = np.arange(0, max(1, num_frames - _PARTIAL + step + 1), step)
    coverage = (num_samples - starts[-1] * _HOP) / (_PARTIAL * _HOP)
    return starts[:-1] if coverage < min_coverage and len(starts) > 1 else starts


def partial_mels(wave: Wave, rate: float, min_coverage: float) -> Floats:
    """Returns the mel energies (not their logarithm) of all partial utterances, [partials, 160, 40]."""
    starts = partial_starts(len(wave), rate, min_coverage)
    missing = max(0, (int(starts[-1]) + _PARTIAL) * _HOP - len(wave))
    power = power_spectrogram(np.pad(raise_volume(wave), (0, missing)), _WINDOW, _WINDOW, _HOP)
    mels = apply_filterbank(power, mel_filterbank(SAMPLE_RATE, _WINDOW, _MELS, 0.0, SAMPLE_RATE / 2))
    return mels[starts[:, None] + np.arange(_PARTIAL)]


class ResemblyzerEmbedder:
    """Role `speaker`: 256 dimensions, all partial utterances of all waves in few runs of the network.

    Args:
        model: ONNX file; default: the one this package carries.
        rate: Partial utterances per second.
        min_coverage: Share of the last partial utterance that must be audio.
        chunk: Partial utterances per run of the network: bounds memory.
    """

    sample_rate = SAMPLE_RATE

    def __init__(
        self, model: str | None = None, rate: float = 1.3, min_coverage: float = 0.75, chunk: int = 64
    ) -> None:
        self._path = Path(model) if model else MODEL
        self._rate, self._min_coverage, self._chunk = rate, min_coverage, chunk
        self._session: Any = None

    @property
    def revision(self) -> str:
        """SHA-256 of the weights, shortened."""
        return f"resemblyzer-onnx-{hashlib.sha256(self._path.read_bytes()).hexdigest()[:16]}"

    def open(self) -> None:
        """Loads the weights.

        Raises:
            MissingExtraError: onnxruntime is not installed.
        """
        try:
            import onnxruntime
        except ImportError as error:
            raise MissingExtraError("onnxruntime", "embedded", "speaker embedding with resemblyzer") from error
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(str(self._path), options, providers=["CPUExecutionProvider"])

    def embed(self, waves: Sequence[Wave]) -> Floats:
        """Returns unit-length embeddings, float32 [waves, 256].

        A wave shorter than 1.6 s is padded with zeros; an empty one gives the embedding of silence.
        """
        if not len(waves):
            return np.zeros((0, DIMENSIONS), np.float32)
        mels = [partial_mels(wave, self._rate, self._min_coverage) for wave in waves]
        counts = [len(partials) for partials in mels]
        embedded = self._run(np.concatenate(mels))
        firsts = np.concatenate([[0], np.cumsum(counts)[:-1]])
        sums = np.add.reduceat(embedded, firsts, axis=0)
        unit: Floats = sums / np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), np.float32(_SMALLEST_NORM))
        return unit

    def _run(self, mels: Floats) -> Floats:
        parts = [
            self._session.run(None, {"mels": mels[start : start + self._chunk]})[0]
            for start in range(0, len(mels), self._chunk)
        ]
        return np.concatenate(parts)

    def close(self) -> None:
        """Frees the weights."""
        self._session = None
