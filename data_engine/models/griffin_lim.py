"""Waveforms from mel spectrograms without a network: invert the filterbank, then find phases by Griffin-Lim.

Everything is a fixed sequence of array operations with a fixed start, so equal input gives equal output.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.fft import irfft, rfft
from scipy.sparse import csr_array

from data_engine.models.features import Floats, MelSettings, mel_filterbank, window_function

Spectra = npt.NDArray[np.complex64]

_TINY = np.float32(1e-10)
_GOLDEN = (np.sqrt(5.0) - 1.0) / 2.0


def mel_to_power(mel: Floats, settings: MelSettings, iterations: int = 12) -> Floats:
    """Returns a non-negative power spectrogram, float32 [frames, n_fft // 2 + 1], with these mel energies.

    Multiplicative updates for the Kullback-Leibler divergence (Richardson 1972; Lucy 1974; Lee and Seung 2001):
    P <- P * F'(M / FP) / F'1, from a flat start, so bins between two bands stay smooth.

    Args:
        mel: Mel energies (not logarithms), float32 [frames, n_mels].
        settings: The spectrogram they belong to.
        iterations: Updates.
    """
    filters = mel_filterbank(settings.sample_rate, settings.n_fft, settings.n_mels, settings.fmin, settings.fmax)
    bands, bins = csr_array(filters), csr_array(filters.T)  # sparse: sums in one order, whatever the threads
    weight = np.maximum(filters.sum(0), _TINY)[:, None]
    power = np.ones((filters.shape[1], len(mel)), np.float32)
    for _ in range(iterations):
        power *= (bins @ (mel.T / np.maximum(bands @ power, _TINY))) / weight
    return np.ascontiguousarray(power.T, dtype=np.float32)


def start_phases(num_frames: int, num_bins: int, hop: int, n_fft: int) -> Spectra:
    """Returns unit phasors [frames, bins]: each bin turns at its own frequency from a low-discrepancy start.

    Golden-ratio offsets spread the energy of a frame over time as random phases do, but are the same on every
    machine and in every version of every library.
    """
    bins = np.arange(num_bins, dtype=np.float64)
    offset = np.mod(bins * bins * _GOLDEN, 1.0)
    advance = np.mod(np.outer(np.arange(num_frames, dtype=np.float64) * hop / n_fft, bins), 1.0)
    return np.asarray(np.exp(2j * np.pi * (offset + advance)), np.complex64)


def griffin_lim(
    magnitude: Floats, num_samples: int, settings: MelSettings, iterations: int = 32, momentum: float = 0.99
) -> Floats:
    """Returns a waveform, float32 [num_samples], whose spectrogram is close to `magnitude`.

    Fast Griffin-Lim (Perraudin, Balazs and Sondergaard 2013) over the phases.

    Args:
        magnitude: float32 [1 + num_samples // hop, n_fft // 2 + 1]; frame t is centred on sample t * hop.
        num_samples: Length of the waveform.
        settings: n_fft, win_length and hop of the spectrogram; win_length is a multiple of hop.
        iterations: Projections; 0 keeps the start phases.
        momentum: 0 is plain Griffin-Lim.
    """
    num_frames, num_bins = magnitude.shape
    spectra = magnitude * start_phases(num_frames, num_bins, settings.hop, settings.n_fft)
    previous = np.zeros_like(spectra)
    for _ in range(iterations):
        consistent = _analyse(_overlap_add(spectra, settings), len(magnitude), settings)
        ahead = consistent + np.float32(momentum) * (consistent - previous)
        spectra = ahead * (magnitude / np.maximum(np.abs(ahead), _TINY))
        previous = consistent
    wave = _overlap_add(spectra, settings)[settings.win_length // 2 :][:num_samples]
    return np.pad(wave, (0, num_samples - len(wave)))


def _analyse(padded: Floats, num_frames: int, settings: MelSettings) -> Spectra:
    view = np.lib.stride_tricks.sliding_window_view(padded, settings.win_length)[:: settings.hop][:num_frames]
    spectra: Any = rfft(view * window_function("hann", settings.win_length), n=settings.n_fft)
    return spectra  # type: ignore[no-any-return]


def _overlap_add(spectra: Spectra, settings: MelSettings) -> Floats:
    """Returns the least-squares waveform with win_length // 2 samples before the centre of frame 0."""
    window = window_function("hann", settings.win_length)
    segments: Any = irfft(spectra, n=settings.n_fft)
    squared = np.broadcast_to(window**2, (len(spectra), settings.win_length))
    weight = _add_shifted(squared, settings.hop)
    total = _add_shifted(segments[:, : settings.win_length] * window, settings.hop)
    return np.asarray(total / np.maximum(weight, 1e-3), np.float32)


def _add_shifted(segments: Floats, hop: int) -> Floats:
    """Returns the sum of segments [frames, win_length], each `hop` samples after the one before."""
    parts = segments.reshape(len(segments), -1, hop)
    total = np.zeros((len(parts) + parts.shape[1] - 1, hop), np.float32)
    for shift in range(parts.shape[1]):
        total[shift : shift + len(parts)] += parts[:, shift]
    return total.reshape(-1)
