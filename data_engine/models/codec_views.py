"""The two views of speech the dual codebook quantises, on integer grids so that codes are exact.

Both start from an 80-band log-mel spectrogram every 10 ms of the peak-normalised wave (Step-Audio, arXiv
2502.11946, sec. 3.1: a linguistic codebook of 1,024 at 16.67 Hz and a semantic one of 4,096 at 25 Hz).

- linguistic, 60 ms: three 20 ms cepstra, their mean over the speech taken out. Says which sound it is;
  level, pitch and the colour of voice and room are mostly gone.
- acoustic, 40 ms: the mean log-mel itself. Keeps level, harmonics (pitch) and colour.

Coordinates are integers of at most 256 in magnitude, so that every partial sum of a float32 distance stays below
2**24 and is exact: the same code comes out whatever the linear algebra library, its threads or the batch.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.fft import dct

from data_engine.models.features import Floats, MelSettings, log_mel

MEL = MelSettings()
LINGUISTIC_SAMPLES = 960
ACOUSTIC_SAMPLES = 640
LINGUISTIC_FRAMES = LINGUISTIC_SAMPLES // MEL.hop
ACOUSTIC_FRAMES = ACOUSTIC_SAMPLES // MEL.hop

QUIETEST = np.float32(-8.0)
"""Log energy below which bands count as silent; the loudest bands of a normalised wave are near +7."""
GRID_LIMIT = 256
LINGUISTIC_STEPS = 16.0
ACOUSTIC_STEPS = 32.0
"""Grid points per unit of cepstrum and per neper."""

_CEPSTRA = 14
_LEVEL_WEIGHT = 0.3  # c0 only has to tell sound from pause
_ROWS = 2048


def normalise_peak(wave: Floats) -> Floats:
    """Returns the wave with its peak at 0.999; peaks below 0.01 count as 0.01 (Step-Audio's inference code)."""
    peak = float(np.abs(wave).max(initial=0.0))
    return np.asarray(wave * np.float32(0.999 / max(peak, 0.01)), np.float32)


def code_counts(num_samples: int) -> tuple[int, int]:
    """Returns (linguistic, acoustic) codes of a 16 kHz wave: complete 60 ms; 25 per second, half to even."""
    return num_samples // LINGUISTIC_SAMPLES, round(num_samples / ACOUSTIC_SAMPLES)


def speech_mel(wave: Floats) -> Floats:
    """Returns the log-mel spectrogram of a 16 kHz wave after peak normalisation, float32 [frames, 80]."""
    return np.maximum(log_mel(normalise_peak(wave), MEL), QUIETEST)


def blocks(mel: Floats, count: int, num_frames: int) -> Floats:
    """Returns the first `count` blocks [count, num_frames, 80] of a spectrogram; its last frame fills up."""
    missing = max(0, count * num_frames - len(mel))
    filled = np.concatenate([mel, np.repeat(mel[-1:], missing, axis=0)]) if missing else mel
    return filled[: count * num_frames].reshape(count, num_frames, mel.shape[1])


def linguistic_view(mel: Floats, count: int) -> Floats:
    """Returns the linguistic coordinates of a whole wave, integers as float32 [count, 42].

    Args:
        mel: Spectrogram of the wave, from `speech_mel`.
        count: 60 ms blocks.
    """
    pairs = blocks(mel, count, LINGUISTIC_FRAMES).reshape(count, 3, 2, mel.shape[1]).mean(axis=2)
    transformed: Any = dct(pairs, type=2, axis=2, norm="ortho")
    cepstra = transformed[:, :, :_CEPSTRA]
    shape = cepstra - _speech_mean(cepstra)
    shape[:, :, 0] *= np.float32(_LEVEL_WEIGHT)
    return _grid(shape.reshape(count, 3 * _CEPSTRA), LINGUISTIC_STEPS)


def _speech_mean(cepstra: Floats) -> Floats:
    """Returns the mean cepstrum of the blocks that are loud for this wave; quantiles, as one click may not decide."""
    if not len(cepstra):
        return np.zeros(cepstra.shape[2], np.float32)
    level = cepstra[:, :, 0].mean(axis=1)
    quiet, loud = np.quantile(level, (0.05, 0.9))
    return np.asarray(cepstra[level >= 0.6 * quiet + 0.4 * loud].mean(axis=(0, 1)), np.float32)


def acoustic_view(mel: Floats, count: int) -> Floats:
    """Returns the acoustic coordinates of a wave, integers as float32 [count, 80].

    Args:
        mel: Spectrogram of the wave, from `speech_mel`.
        count: 40 ms blocks.
    """
    return _grid(blocks(mel, count, ACOUSTIC_FRAMES).mean(axis=1), ACOUSTIC_STEPS)


def _grid(coordinates: Floats, steps: float) -> Floats:
    scaled = np.rint(coordinates * np.float32(steps))
    return np.asarray(np.clip(scaled, -GRID_LIMIT, GRID_LIMIT), np.float32)


def nearest(points: Floats, centroids: Floats) -> npt.NDArray[np.int64]:
    """Returns the index of the nearest centroid of each point, int64 [points]; of equals the first.

    argmin |p - c|^2 = argmax 2 p.c - |c|^2, as matrix products of bounded height.

    Args:
        points: float32 [points, dimensions].
        centroids: float32 [centroids, dimensions].
    """
    doubled, squares = 2 * centroids.T, (centroids**2).sum(axis=1)
    found = np.empty(len(points), np.int64)
    for start in range(0, len(points), _ROWS):
        rows = slice(start, start + _ROWS)
        found[rows] = np.argmax(points[rows] @ doubled - squares, axis=1)
    return found
