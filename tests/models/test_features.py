"""Spectral features follow their definitions."""

import numpy as np
import pytest

from data_engine.models.features import (
    MelSettings,
    apply_filterbank,
    frames,
    hz_to_mel,
    log_mel,
    mel_filterbank,
    mel_to_hz,
    power_spectrogram,
    window_function,
)

NOISE = np.random.default_rng(7).standard_normal(16000).astype(np.float32)


def tone(hz: float, seconds: float = 1.0, rate: int = 16000) -> np.ndarray:
    return np.sin(2 * np.pi * hz * np.arange(int(seconds * rate)) / rate).astype(np.float32)


@pytest.mark.parametrize(("scale", "mel_of_1_khz"), [("htk", 999.985), ("slaney", 15.0)])
def test_mel_scales_meet_their_published_value_at_1_khz(scale, mel_of_1_khz):
    assert hz_to_mel(1000.0, scale) == pytest.approx(mel_of_1_khz, abs=1e-3)


@pytest.mark.parametrize("scale", ["htk", "slaney"])
def test_mel_to_hz_is_the_inverse(scale):
    hz = np.linspace(0, 8000, 101)
    np.testing.assert_allclose(mel_to_hz(hz_to_mel(hz, scale), scale), hz, atol=1e-8)


def test_slaney_filters_have_unit_area_in_hertz():
    filters = mel_filterbank(16000, 4096, 40, 0.0, 8000.0)
    assert filters.shape == (40, 2049)
    np.testing.assert_allclose(filters.sum(axis=1) * (16000 / 4096), 1.0, atol=0.02)


def test_filters_without_norm_are_triangles_that_add_up_to_one():
    filters = mel_filterbank(16000, 4096, 20, 0.0, 8000.0, scale="htk", norm=None)
    edges = mel_to_hz(np.linspace(hz_to_mel(0, "htk"), hz_to_mel(8000, "htk"), 22), "htk")
    inside = slice(int(np.ceil(edges[1] / 8000 * 2048)), int(edges[-2] / 8000 * 2048))
    np.testing.assert_allclose(filters.sum(axis=0)[inside], 1.0, atol=1e-5)
    assert filters.max() <= 1.0


def test_filterbank_is_shared_and_cannot_be_changed():
    with pytest.raises(ValueError, match="read-only"):
        mel_filterbank(16000, 512, 40, 0.0, 8000.0)[0, 0] = 1.0


def test_frames_hop_through_the_wave_without_copying_it():
    wave = np.arange(10, dtype=np.float32)
    view = frames(wave, 4, 2)
    assert view.tolist() == [[0, 1, 2, 3], [2, 3, 4, 5], [4, 5, 6, 7], [6, 7, 8, 9]]
    assert np.shares_memory(view, wave)
    assert frames(wave[:3], 4, 2).shape == (0, 4)


@pytest.mark.parametrize("samples", [0, 1, 159, 160, 161, 16000])
def test_centred_frames_are_one_more_than_hops(samples):
    assert len(frames(np.zeros(samples, np.float32), 400, 160, center=True)) == 1 + samples // 160


def test_power_spectrogram_equals_the_fourier_sum_of_the_centred_window():
    n_fft, win, hop, at = 512, 400, 160, 37
    window = np.zeros(n_fft)
    window[(n_fft - win) // 2 :][:win] = window_function("hann", win)
    piece = NOISE[at * hop - n_fft // 2 : at * hop + n_fft // 2] * window
    expected = np.abs(np.exp(-2j * np.pi * np.outer(np.arange(257), np.arange(n_fft)) / n_fft) @ piece) ** 2
    power = power_spectrogram(NOISE, n_fft, win, hop)
    assert power.dtype == np.float32
    np.testing.assert_allclose(power[at], expected, rtol=1e-3, atol=1e-4)


def test_blocks_do_not_show():
    wave = np.tile(NOISE, 8)
    whole, alone = power_spectrogram(wave, 512, 400, 160), power_spectrogram(wave[160 * 480 :], 512, 400, 160)
    np.testing.assert_array_equal(whole[510:530], alone[30:50])


def test_a_tone_is_loudest_in_its_own_band():
    mel = log_mel(tone(1000.0))
    centres = mel_to_hz(np.linspace(hz_to_mel(0.0), hz_to_mel(8000.0), 82))[1:-1]
    assert mel.shape == (101, 80)
    assert mel.dtype == np.float32
    assert abs(centres[mel[50].argmax()] - 1000.0) < 50.0


def test_silence_lies_on_the_floor():
    np.testing.assert_allclose(log_mel(np.zeros(1600, np.float32), MelSettings(floor=1e-5)), np.log(1e-5), rtol=1e-6)


def test_sparse_product_equals_the_dense_one():
    power, filters = power_spectrogram(NOISE, 1024, 640, 160), mel_filterbank(16000, 1024, 80, 0.0, 8000.0)
    np.testing.assert_allclose(apply_filterbank(power, filters), power @ filters.T, rtol=1e-5)


def test_an_unknown_window_is_named():
    with pytest.raises(ValueError, match="'kaiser' is unknown"):
        window_function("kaiser", 400)
