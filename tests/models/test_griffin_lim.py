"""Waveforms from spectrograms: the right length, the same bytes each time, the spectrum that was asked for."""

import numpy as np
import pytest

from data_engine.models.features import MelSettings, log_mel, mel_filterbank, power_spectrogram
from data_engine.models.griffin_lim import griffin_lim, mel_to_power, start_phases

SETTINGS = MelSettings()


def chirp(seconds=1.0):
    """A harmonic sound that glides from 120 to 240 Hz."""
    time = np.arange(int(seconds * 16000)) / 16000
    phase = 2 * np.pi * (120 * time + 60 * time**2 / seconds)
    return (0.1 * sum(np.sin(k * phase) / k for k in range(1, 20))).astype(np.float32)


def magnitude(wave):
    return np.sqrt(power_spectrogram(wave, SETTINGS.n_fft, SETTINGS.win_length, SETTINGS.hop))


def distance(wave, target):
    return np.linalg.norm(magnitude(wave) - target) / np.linalg.norm(target)


def test_phases_are_found_that_give_the_spectrum_back():
    target = magnitude(chirp())
    wave = griffin_lim(target, 16000, SETTINGS)
    assert distance(wave, target) < 0.1
    assert distance(wave, target) < 0.5 * distance(griffin_lim(target, 16000, SETTINGS, iterations=0), target)


def test_momentum_gets_there_in_fewer_iterations():
    target = magnitude(chirp())
    fast, plain = (griffin_lim(target, 16000, SETTINGS, momentum=alpha) for alpha in (0.99, 0.0))
    assert distance(fast, target) < distance(plain, target)


@pytest.mark.parametrize("num_samples", [0, 1, 160, 1599, 1920])
def test_the_length_is_exact_and_the_bytes_repeat(num_samples):
    target = magnitude(chirp()[:num_samples])
    first, again = (griffin_lim(target, num_samples, SETTINGS) for _ in range(2))
    assert first.dtype == np.float32
    assert len(first) == num_samples
    assert first.tobytes() == again.tobytes()


def test_silence_stays_silent():
    assert not griffin_lim(np.zeros((11, 513), np.float32), 1600, SETTINGS).any()


def test_the_power_spectrogram_has_the_mel_energies_it_was_made_from():
    mel = np.exp(log_mel(chirp(), SETTINGS))
    power = mel_to_power(mel, SETTINGS, iterations=20)
    assert power.min() >= 0
    filters = mel_filterbank(16000, 1024, 80, 0.0, 8000.0)
    gap = np.abs(np.log(np.maximum(power @ filters.T, 1e-5)) - np.log(mel))
    assert gap.mean() < 0.05


def test_start_phases_are_unit_phasors_that_turn_at_the_frequency_of_their_bin():
    phases = start_phases(5, 513, SETTINGS.hop, SETTINGS.n_fft)
    np.testing.assert_allclose(np.abs(phases), 1, atol=1e-6)
    turned = phases[1:] / phases[:-1]
    np.testing.assert_allclose(turned[0, 32], np.exp(2j * np.pi * 32 * 160 / 1024), atol=1e-5)
