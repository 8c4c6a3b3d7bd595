"""Acoustic measures find what was put into the sound, and say None where there is nothing to measure."""

import numpy as np
import pytest
import soxr
from scipy.signal import lfilter

from data_engine.models import acoustics as a
from data_engine.models.pitch import fundamental_frequency, pitch_statistics
from data_engine.models.syllables import count_nuclei, count_syllables, speaking_rate

RATE = 16000


def silence(seconds: float) -> np.ndarray:
    return np.zeros(round(seconds * RATE), np.float32)


def noise(seconds: float, level_db: float, seed: int = 0, rate: int = RATE) -> np.ndarray:
    samples = np.random.default_rng(seed).standard_normal(round(seconds * rate))
    return (samples * 10 ** (level_db / 20)).astype(np.float32)


def vowel(seconds: float, f0: float = 120.0, level_db: float = -20.0, vibrato_semitones: float = 0.0) -> np.ndarray:
    """Pulses of a voice through one formant at 600 Hz."""
    time = np.arange(round(seconds * RATE)) / RATE
    pitch = f0 * 2 ** (vibrato_semitones * np.sqrt(2) * np.sin(2 * np.pi * 4 * time) / 12)
    phase = np.cumsum(pitch) / RATE
    pulses = np.diff(np.floor(phase), prepend=0.0)
    radius, angle = 0.97, 2 * np.pi * 600 / RATE
    sound = lfilter([1.0], [1.0, -2 * radius * np.cos(angle), radius**2], pulses)
    return (sound / np.sqrt(np.mean(sound**2)) * 10 ** (level_db / 20)).astype(np.float32)


def syllables(count: int, each: float = 0.2) -> np.ndarray:
    envelope = np.tile(0.55 - 0.45 * np.cos(2 * np.pi * np.arange(round(each * RATE)) / (each * RATE)), count)
    return (vowel(count * each)[: len(envelope)] * envelope).astype(np.float32)


@pytest.mark.parametrize("snr", [10, 20, 30, 40])
def test_snr_is_the_energy_of_speech_over_the_noise_under_it(snr):
    speech = np.concatenate([silence(0.5), vowel(1.5), silence(0.5), vowel(1.0), silence(0.5)])
    measured = a.snr_db(a.activity(speech + noise(4.0, -20 - snr), RATE))
    assert measured == pytest.approx(snr, abs=1.5)


def test_snr_does_not_take_digital_silence_for_a_quiet_room():
    speech = vowel(2.0) + noise(2.0, -35)
    speech[8000:12000] = noise(0.25, -35)
    padded = np.concatenate([silence(1.0), speech, silence(1.0)])
    assert a.snr_db(a.activity(padded, RATE)) == pytest.approx(15, abs=3)


def test_energy_is_the_level_of_the_speech_not_of_the_pauses():
    clip = np.concatenate([silence(2.0), vowel(1.0, level_db=-23.0), silence(2.0)])
    assert a.energy_dbfs(a.activity(clip, RATE)) == pytest.approx(-23.0, abs=0.5)


def test_silence_ratio_and_longest_pause_come_from_the_gaps():
    clip = np.concatenate([silence(0.5), vowel(1.0), silence(0.6), vowel(1.0), silence(0.1), vowel(0.8)])
    where = a.activity(clip, RATE)
    assert a.silence_ratio(where) == pytest.approx(1.1 / 4.0, abs=0.03)
    assert a.longest_pause(where) == pytest.approx(0.6, abs=0.05)
    assert where.speech_seconds == pytest.approx(2.9, abs=0.1)


def test_a_clip_of_one_level_is_speech_throughout():
    where = a.activity(vowel(1.0), RATE)
    assert a.silence_ratio(where) == 0.0
    assert a.longest_pause(where) == 0.0


def test_close_gaps_closes_short_inner_gaps_only():
    mask = np.array([0, 1, 0, 1, 0, 0, 0, 1, 0], bool)
    assert a.close_gaps(mask, 3).astype(int).tolist() == [0, 1, 1, 1, 0, 0, 0, 1, 0]


def test_clipping_counts_the_samples_that_were_cut_off():
    sine = 2.0 * np.sin(2 * np.pi * 100 * np.arange(RATE) / RATE)
    cut = np.clip(sine, -1.0, 1.0).astype(np.float32)
    assert a.clipping_ratio(cut) == pytest.approx(np.mean(np.abs(sine) >= 1.0), abs=1e-3)


@pytest.mark.parametrize(
    "clean",
    [np.sin(np.pi * np.arange(RATE) / 160).astype(np.float32), noise(1.0, -20), 0.3 * np.sign(noise(1.0, 0.0))],
    ids=["full-scale sine", "noise", "square far below full scale"],
)
def test_what_is_not_clipped_counts_nothing(clean):
    assert a.clipping_ratio(clean) == 0.0


@pytest.mark.parametrize(("inner", "stored"), [(8000, 16000), (16000, 48000), (16000, 16000)])
def test_bandwidth_shows_upsampling(inner, stored):
    wave = soxr.resample(noise(2.0, -20, rate=inner), inner, stored).astype(np.float32)
    assert a.bandwidth_hz(wave, stored) == pytest.approx(inner / 2, rel=0.06)


@pytest.mark.parametrize("f0", [80.0, 120.0, 220.0, 400.0])
def test_median_f0_is_that_of_the_voice(f0):
    found = pitch_statistics(fundamental_frequency(vowel(1.0, f0), RATE))
    assert found.median_hz == pytest.approx(f0, rel=0.02)
    assert found.voiced_ratio > 0.9
    assert found.std_semitones < 0.5


def test_f0_spread_is_in_semitones():
    found = pitch_statistics(fundamental_frequency(vowel(2.0, 150.0, vibrato_semitones=2.0), RATE))
    assert found.std_semitones == pytest.approx(2.0, abs=0.3)


def test_octave_errors_do_not_widen_the_spread():
    track = np.array([0.0] * 10 + [150.0] * 40 + [310.0] * 3)
    assert pitch_statistics(track).std_semitones == pytest.approx(0.0, abs=1e-9)
    assert pitch_statistics(track).voiced_ratio == pytest.approx(43 / 53)


def test_noise_has_no_pitch():
    found = pitch_statistics(fundamental_frequency(noise(1.0, -20), RATE))
    assert found.median_hz is None
    assert found.voiced_ratio < 0.05


@pytest.mark.parametrize("count", [3, 8, 15])
def test_nuclei_are_the_voiced_peaks_of_intensity(count):
    wave = np.concatenate([silence(0.3), syllables(count), silence(0.3)])
    assert count_nuclei(wave, RATE, fundamental_frequency(wave, RATE)) == count


def test_unvoiced_peaks_are_no_nuclei():
    bursts = np.concatenate([np.concatenate([noise(0.1, -20, seed), silence(0.1)]) for seed in range(5)])
    assert count_nuclei(bursts, RATE, fundamental_frequency(bursts, RATE)) == 0


def test_speaking_rate_leaves_pauses_out():
    wave = np.concatenate([vowel(1.0), silence(2.0), vowel(1.0)])
    assert speaking_rate(8, a.activity(wave, RATE)) == pytest.approx(4.0, rel=0.05)
    assert speaking_rate(0, a.activity(wave, RATE)) is None


def test_syllables_of_english_words():
    words_by_count = {
        1: "the walked makes don't I'm were one called queue please time schools",
        2: "table people wanted boxes every something quiet being language nation million didn't rhythm unique hundred",
        3: "created idea area video beautiful actual museum employee serious",
        4: "society information situation",
    }
    for count, words in words_by_count.items():
        assert {word: count_syllables(word, "en") for word in words.split()} == dict.fromkeys(words.split(), count)


@pytest.mark.parametrize(
    ("text", "language", "count"),
    [
        ("今天天气怎么样？", "zh", 7),
        ("我用 Python 写的。", "zh-CN", 6),
        ("안녕하세요", "ko", 5),
        ("buenos días", "es", 4),
        ("Good morning, everyone.", "en-US", 6),
        ("", "en", 0),
        ("call 911", "en", None),
        ("こんにちは", "ja", None),
        ("hello", None, None),
    ],
)
def test_syllables_of_text_by_language(text, language, count):
    assert count_syllables(text, language) == count


@pytest.mark.parametrize("samples", [0, 1, 10, 100, 399, 400, 1599])
def test_nothing_crashes_on_short_clips(samples):
    wave = noise(1.0, -20)[:samples]
    where, f0 = a.activity(wave, RATE), fundamental_frequency(wave, RATE)
    values = [
        a.snr_db(where), a.energy_dbfs(where), a.silence_ratio(where), a.longest_pause(where), a.clipping_ratio(wave),
        a.bandwidth_hz(wave, RATE), pitch_statistics(f0).median_hz, float(count_nuclei(wave, RATE, f0)),
    ]  # fmt: skip
    assert all(value is None or np.isfinite(value) for value in values)


def test_digital_silence_has_nothing_to_measure():
    where = a.activity(silence(1.0), RATE)
    assert (a.snr_db(where), a.energy_dbfs(where), a.longest_pause(where)) == (None, None, None)
    assert a.silence_ratio(where) == 1.0
    assert a.bandwidth_hz(silence(1.0), RATE) is None
