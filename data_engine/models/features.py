"""Spectral features of speech in vectorised numpy: framing, power spectrogram, mel filterbanks, log-mel.

Time is the first axis everywhere: [frames, bins]. Spectra are computed block by block, so memory grows with
the output and not with the windowed frames.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Literal

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
MelScale = Literal["slaney", "htk"]
MelNorm = Literal["slaney"] | None
Window = Literal["hann", "hamming"]

_BLOCK = 512
_SLANEY_LINEAR = 200.0 / 3.0
_SLANEY_KNEE_HZ = 1000.0
_SLANEY_LOG_STEP = np.log(6.4) / 27.0


@dataclass(frozen=True, slots=True)
class MelSettings:
    """A log-mel spectrogram.

    Attributes:
        sample_rate: Hz.
        n_fft: Points of the Fourier transform.
        win_length: Samples of the Hann window, centred in the n_fft points.
        hop: Samples from one frame to the next.
        n_mels: Bands.
        fmin: Lower edge of the first band, Hz.
        fmax: Upper edge of the last band, Hz.
        floor: Energy below which the logarithm is cut off.
    """

    sample_rate: int = 16000
    n_fft: int = 1024
    win_length: int = 640
    hop: int = 160
    n_mels: int = 80
    fmin: float = 0.0
    fmax: float = 8000.0
    floor: float = 1e-5


def hz_to_mel(hz: npt.ArrayLike, scale: MelScale = "slaney") -> npt.NDArray[np.float64]:
    """Returns mels of frequencies in Hz.

    `htk`: 2595 log10(1 + f / 700) (O'Shaughnessy 1987). `slaney`: linear below 1 kHz, logarithmic above
    (Auditory Toolbox, Slaney 1998).
    """
    frequency = np.asarray(hz, dtype=np.float64)
    if scale == "htk":
        return np.asarray(2595.0 * np.log10(1.0 + frequency / 700.0))
    knee = _SLANEY_KNEE_HZ / _SLANEY_LINEAR
    above = knee + np.log(np.maximum(frequency, _SLANEY_KNEE_HZ) / _SLANEY_KNEE_HZ) / _SLANEY_LOG_STEP
    return np.where(frequency < _SLANEY_KNEE_HZ, frequency / _SLANEY_LINEAR, above)


def mel_to_hz(mels: npt.ArrayLike, scale: MelScale = "slaney") -> npt.NDArray[np.float64]:
    """Returns frequencies in Hz; the inverse of `hz_to_mel`."""
    mel = np.asarray(mels, dtype=np.float64)
    if scale == "htk":
        return np.asarray(700.0 * (10.0 ** (mel / 2595.0) - 1.0))
    knee = _SLANEY_KNEE_HZ / _SLANEY_LINEAR
    above = _SLANEY_KNEE_HZ * np.exp(_SLANEY_LOG_STEP * (np.maximum(mel, knee) - knee))
    return np.where(mel < knee, mel * _SLANEY_LINEAR, above)


@cache
def mel_filterbank(
    sample_rate: int, n_fft: int, n_mels: int, fmin: float, fmax: float,
    scale: MelScale = "slaney", norm: MelNorm = "slaney",
) -> Floats:  # fmt: skip
    """Returns triangular mel filters, float32 [n_mels, n_fft // 2 + 1], read-only.

    Args:
        sample_rate: Hz.
        n_fft: Points of the Fourier transform.
        n_mels: Filters; their centres are equally spaced in mel.
        fmin: Lower edge of the first filter, Hz.
        fmax: Upper edge of the last filter, Hz.
        scale: Mel formula, see `hz_to_mel`.
        norm: `slaney`: each filter has unit area in Hz; None: unit height.
    """
    bins = np.linspace(0.0, sample_rate / 2.0, n_fft // 2 + 1)
    edges = mel_to_hz(np.linspace(hz_to_mel(fmin, scale), hz_to_mel(fmax, scale), n_mels + 2), scale)
    lower, centre, upper = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    rising, falling = (bins - lower) / (centre - lower), (upper - bins) / (upper - centre)
    filters = np.maximum(0.0, np.minimum(rising, falling))
    if norm == "slaney":
        filters = filters * (2.0 / (upper - lower))
    result: Floats = filters.astype(np.float32)
    result.setflags(write=False)
    return result


def frames(wave: Floats, length: int, hop: int, center: bool = False) -> Floats:
    """Returns overlapping frames [frames, length] as a read-only view.

    Args:
        wave: [samples].
        length: Samples of a frame.
        hop: Samples from one frame to the next.
        center: Pads length // 2 zeros at both ends, so that frame t is centred on sample t * hop and there
            are 1 + samples // hop frames. Otherwise only complete frames: none when the wave is shorter.
    """
    if center:
        wave = np.pad(wave, length // 2)
    if len(wave) < length:
        return np.zeros((0, length), wave.dtype)
    view: Floats = np.lib.stride_tricks.sliding_window_view(wave, length)[::hop]
    return view


@cache
def window_function(name: Window, length: int) -> Floats:
    """Returns a periodic window, float32 [length], read-only.

    Raises:
        ValueError: The name is unknown.
    """
    if name not in ("hann", "hamming"):
        raise ValueError(f"window '{name}' is unknown; known: hann, hamming")
    cosine = np.cos(2.0 * np.pi * np.arange(length) / length)
    shape = 0.5 - 0.5 * cosine if name == "hann" else 0.54 - 0.46 * cosine
    result: Floats = shape.astype(np.float32)
    result.setflags(write=False)
    return result


def power_spectrogram(
    wave: Floats, n_fft: int, win_length: int, hop: int, window: Window = "hann", center: bool = True
) -> Floats:
    """Returns squared magnitudes, float32 [frames, n_fft // 2 + 1].

    Args:
        wave: [samples].
        n_fft: Points of the Fourier transform, at least win_length.
        win_length: Samples of the window, centred in the n_fft points.
        hop: Samples from one frame to the next.
        window: Periodic window.
        center: See `frames`.
    """
    left = (n_fft - win_length) // 2
    # Only the magnitude is wanted, so the zeros beside the window can all go to its right.
    view = frames(np.asarray(wave, np.float32), n_fft, hop, center)[:, left : left + win_length]
    weights = window_function(window, win_length)
    power = np.empty((len(view), n_fft // 2 + 1), np.float32)
    for start in range(0, len(view), _BLOCK):
        spectrum = np.fft.rfft(view[start : start + _BLOCK] * weights, n=n_fft)
        power[start : start + _BLOCK] = spectrum.real**2 + spectrum.imag**2
    return power


def apply_filterbank(power: Floats, filters: Floats) -> Floats:
    """Returns band energies, float32 [frames, n_mels], of power spectra [frames, bins].

    The product is sparse: a bin is in two triangles at most, and sums are in a fixed order, which a threaded
    dense product does not promise.
    """
    from scipy.sparse import csr_array

    return np.ascontiguousarray((csr_array(filters) @ power.T).T, dtype=np.float32)


def log_mel(wave: Floats, settings: MelSettings = MelSettings()) -> Floats:
    """Returns the natural logarithm of Slaney-normalised mel energies, float32 [frames, n_mels].

    Args:
        wave: float32 [samples] at `settings.sample_rate`; 1 + samples // hop frames come out.
        settings: Which spectrogram.
    """
    power = power_spectrogram(wave, settings.n_fft, settings.win_length, settings.hop)
    filters = mel_filterbank(settings.sample_rate, settings.n_fft, settings.n_mels, settings.fmin, settings.fmax)
    energies: Floats = np.maximum(apply_filterbank(power, filters), np.float32(settings.floor))
    return np.log(energies, out=energies)
