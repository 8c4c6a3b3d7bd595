"""Features of the two tokenizers, against their definitions."""

import numpy as np
import pytest

from data_engine.models.kaldi_fbank import kaldi_fbank, low_frame_rate, mel_filters
from data_engine.models.whisper_mel import whisper_log_mel


def tone(hz, seconds=1.0):
    return (0.5 * np.sin(2 * np.pi * hz * np.arange(int(16000 * seconds)) / 16000)).astype(np.float32)


@pytest.mark.parametrize("hz", [300, 1000, 3000, 6000])
def test_a_tone_is_loudest_in_the_band_around_it(hz):
    band = int(kaldi_fbank(tone(hz)).mean(0).argmax())
    assert mel_filters()[band, round(hz / 16000 * 512)] == mel_filters()[:, round(hz / 16000 * 512)].max()


def test_filterbank_frames_are_complete_ones():
    assert kaldi_fbank(np.zeros(399, np.float32)).shape == (0, 80)
    assert kaldi_fbank(np.zeros(400 + 160 * 9, np.float32)).shape == (10, 80)


def test_louder_by_ten_decibels_is_higher_by_its_logarithm():
    wave = tone(440) + 0.01 * np.random.default_rng(0).standard_normal(16000).astype(np.float32)
    assert np.allclose(kaldi_fbank(wave * np.float32(10**0.5)) - kaldi_fbank(wave), np.log(10), atol=1e-3)


def test_low_frame_rate_stacks_seven_frames_around_every_sixth():
    rows = np.repeat(np.arange(20.0, dtype=np.float32)[:, None], 80, axis=1)
    stacked = low_frame_rate(rows).reshape(-1, 7, 80)[:, :, 0]
    assert stacked.tolist() == [
        [0, 0, 0, 0, 1, 2, 3], [3, 4, 5, 6, 7, 8, 9], [9, 10, 11, 12, 13, 14, 15], [15, 16, 17, 18, 19, 19, 19],
    ]  # fmt: skip


def test_whisper_mel_has_a_frame_per_ten_milliseconds_within_its_range():
    mel = whisper_log_mel(tone(500, 1.234))
    assert mel.shape == (123, 128)
    assert mel.max() - mel.min() <= 2.0 + 1e-5


def test_silence_is_flat():
    assert np.ptp(whisper_log_mel(np.zeros(8000, np.float32))) == 0
