"""The last step of a Vocos-style vocoder without torch: magnitude and phase to wave."""

from __future__ import annotations

import numpy as np

from data_engine.models.features import Floats

LOUDEST = 6.0
"""Log magnitudes are clipped here."""


def inverse_spectrum(spectrum: Floats, hop: int) -> Floats:
    """Returns the wave of an inverse short-time Fourier transform with a Hann window, [(frames - 1) * hop].

    What `torch.istft(..., center=True)` computes: windowed frames overlapped and added, divided by the sum of squared
    windows.

    Args:
        spectrum: Log magnitude, then phase, float32 [frames, 2 * bins].
        hop: Samples between frames; it divides the window of 2 * (bins - 1) samples.
    """
    level, phase = np.split(spectrum, 2, axis=1)
    points = 2 * (level.shape[1] - 1)
    window = (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(points) / points)).astype(np.float32)
    pieces = np.fft.irfft(np.exp(np.minimum(level, LOUDEST)) * np.exp(1j * phase), n=points) * window
    wave, weight = _overlapped(pieces, hop), _overlapped(np.broadcast_to(window**2, pieces.shape), hop)
    inside = slice(points // 2, points // 2 + (len(spectrum) - 1) * hop)
    return np.asarray(wave[inside] / np.maximum(weight[inside], 1e-8), np.float32)


def _overlapped(pieces: Floats, hop: int) -> Floats:
    """Returns the sum of frames laid `hop` apart: one addition per hop inside a frame."""
    count, points = pieces.shape
    total = np.zeros((count + points // hop - 1, hop), pieces.dtype)
    for number in range(points // hop):
        total[number : number + count] += pieces[:, number * hop : (number + 1) * hop]
    return total.reshape(-1)
