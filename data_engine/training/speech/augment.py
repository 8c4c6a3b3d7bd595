"""Speech in other rooms, over other channels, by other vocal tracts: augmentation of waves and of features."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from data_engine.core.config import Settings
from data_engine.training.speech.spoken import SAMPLE_RATE, Wave

_EQ_KNOTS = 8


class AugmentSettings(Settings):
    """How likely and how strong.

    Attributes:
        warp: Chance of another tempo with its pitch and formants (speed perturbation).
        warp_range: Smallest and largest factor on the length.
        equalise: Chance of another channel: slope within 4 dB per octave and bumps of 4 dB.
        room: Chance of a small room, reverberation time 0.08 to 0.5 s.
        noise: Chance of coloured noise.
        snr_db: Worst and best signal-to-noise ratio in dB.
        band_limit: Chance that nothing is left above 3.4 to 7 kHz.
        mask: Chance of masked bands and frames (SpecAugment, Park et al. 2019).
    """

    warp: float = 0.4
    warp_range: tuple[float, float] = (0.86, 1.16)
    equalise: float = 0.7
    room: float = 0.35
    noise: float = 0.7
    snr_db: tuple[float, float] = (8.0, 45.0)
    band_limit: float = 0.1
    mask: float = 0.6


def warp_factor(settings: AugmentSettings, rng: np.random.Generator) -> float:
    """Returns the factor on the length of an utterance, 1 most of the time."""
    return float(rng.uniform(*settings.warp_range)) if rng.random() < settings.warp else 1.0


def disturbed(wave: Wave, settings: AugmentSettings, rng: np.random.Generator) -> Wave:
    """Returns the wave through a channel and a room, with noise, at a drawn level; its timing stays.

    Args:
        wave: float32 [samples] at 16 kHz.
        settings: How likely and how strong.
        rng: Every draw.
    """
    from scipy.fft import irfft, next_fast_len, rfft

    points = next_fast_len(len(wave) + SAMPLE_RATE // 2, real=True)
    spectrum = rfft(wave, points) * _response(points, settings, rng)
    shaped = np.asarray(irfft(spectrum, points)[: len(wave)], np.float32)
    if rng.random() < settings.noise:
        snr_db = rng.uniform(*settings.snr_db)
        noise = coloured_noise(len(wave), float(rng.uniform(-6, 3)), rng)
        level = float(np.sqrt(np.mean(shaped**2) / max(float(np.mean(noise**2)), 1e-12)))
        shaped = shaped + noise * np.float32(level * 10 ** (-snr_db / 20))
    return shaped * np.float32(rng.uniform(0.3, 0.999) / max(float(np.abs(shaped).max(initial=0.0)), 1e-3))


def _response(points: int, settings: AugmentSettings, rng: np.random.Generator) -> npt.NDArray[np.complex64]:
    from scipy.fft import rfft

    frequency = np.linspace(0, SAMPLE_RATE / 2, points // 2 + 1, dtype=np.float32)
    octaves = np.log2(np.maximum(frequency, 60) / 1000)
    decibels = np.zeros_like(frequency)
    if rng.random() < settings.equalise:
        bumps = np.interp(octaves, np.linspace(-4, 3, _EQ_KNOTS), rng.normal(0, 4, _EQ_KNOTS))
        decibels += rng.uniform(-4, 4) * octaves + bumps
    if rng.random() < settings.band_limit:
        decibels -= 40 * np.maximum(np.log2(np.maximum(frequency, 60) / rng.uniform(3400, 7000)), 0)
    response = (10 ** (decibels / 20)).astype(np.complex64)
    if rng.random() < settings.room:
        response *= rfft(room(rng), points)
    return response


def room(rng: np.random.Generator) -> Wave:
    """Returns the impulse response of a small room, float32 [samples]: the direct sound, then decaying noise.

    Exponentially decaying Gaussian noise, after Polack (1988); direct to reverberant energy 0 to 15 dB.
    """
    reverberation = rng.uniform(0.08, 0.5)
    times = np.arange(int(reverberation * SAMPLE_RATE)) / SAMPLE_RATE
    tail = rng.standard_normal(len(times)) * 10 ** (-3 * times / reverberation)
    tail[: int(0.002 * SAMPLE_RATE)] = 0
    response = tail * np.sqrt(10 ** (-rng.uniform(0, 15) / 10) / np.sum(tail**2))
    response[0] = 1.0
    return np.asarray(response, np.float32)


def coloured_noise(num_samples: int, decibels_per_octave: float, rng: np.random.Generator) -> Wave:
    """Returns Gaussian noise with a spectral slope, float32 [samples]."""
    from scipy.fft import irfft, next_fast_len, rfft

    points = next_fast_len(num_samples, real=True)
    frequency = np.maximum(np.linspace(0, SAMPLE_RATE / 2, points // 2 + 1, dtype=np.float32), 50)
    spectrum = rfft(rng.standard_normal(points, np.float32)) * (frequency / 1000) ** (decibels_per_octave / 6.02)
    return np.asarray(irfft(spectrum, points)[:num_samples], np.float32)


def masked(features: npt.NDArray[np.float32], settings: AugmentSettings, rng: np.random.Generator) -> None:
    """Sets up to two bands and two short stretches of features [frames, bands] to their mean, in place."""
    if rng.random() >= settings.mask or not len(features):
        return
    mean = features.mean()
    num_frames, bands = features.shape
    for _ in range(2):
        width, length = int(rng.integers(0, bands // 6)), int(rng.integers(0, min(24, 1 + num_frames // 8)))
        band, frame = int(rng.integers(0, bands - width)), int(rng.integers(0, num_frames - length))
        features[:, band : band + width] = mean
        features[frame : frame + length] = mean
