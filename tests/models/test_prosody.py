"""`prosody` measures how a clip is said: a change of the voice moves the measures it should, a level moves none."""

import numpy as np
import pytest

from data_engine.models.prosody import prosody

RATE = 16000


def voice(seconds=2.0, hertz=120.0, range_semitones=1.0, syllables=4.0, depth_db=20.0, tilt_db=-12.0, breath=0.01):
    """A buzz: harmonics with a slope in dB per octave, a pitch that sways and a level that beats like syllables."""
    time = np.arange(round(seconds * RATE)) / RATE
    semitones = range_semitones * np.sin(2 * np.pi * 0.7 * time)
    phase = 2 * np.pi * np.cumsum(hertz * 2 ** (semitones / 12)) / RATE
    numbers = np.arange(1, int(7000 / (hertz * 2 ** (range_semitones / 12))) + 1)
    sound = sum(10 ** (tilt_db * np.log2(n) / 20) * np.sin(n * phase) for n in numbers)
    beat = 10 ** (-depth_db / 20 * (0.5 + 0.5 * np.cos(2 * np.pi * syllables * time)))
    noise = np.random.default_rng(0).standard_normal(len(time)) * breath
    padding = np.zeros(RATE // 10)
    return np.concatenate([padding, 0.1 * beat * (sound + noise), padding]).astype(np.float32)


def test_the_level_of_a_recording_changes_nothing():
    plain, loud, quiet = (prosody(voice() * np.float32(gain)) for gain in (1.0, 4.0, 0.02))
    assert plain.keys() == loud.keys()
    np.testing.assert_allclose(list(loud.values()), list(plain.values()), atol=1e-3, rtol=1e-3)
    np.testing.assert_allclose(list(quiet.values()), list(plain.values()), atol=1e-3, rtol=1e-3)


def test_a_higher_voice_is_higher_by_so_many_semitones():
    low, high = prosody(voice(hertz=120, range_semitones=0.3)), prosody(voice(hertz=180, range_semitones=0.3))
    assert high["f0_median"] - low["f0_median"] == pytest.approx(12 * np.log2(1.5), abs=0.3)
    assert low["f0_median"] == pytest.approx(12 * np.log2(1.2), abs=0.3)


@pytest.mark.parametrize(
    ("changed", "rising", "falling"),
    [
        ({"range_semitones": 4.0}, ["f0_spread", "f0_std", "f0_movement"], ["f0_fall"]),
        ({"syllables": 6.0}, ["rate"], []),
        ({"depth_db": 8.0}, [], ["energy_std", "energy_range"]),
        ({"tilt_db": -6.0}, ["alpha_voiced", "slope_high_voiced"], ["hammarberg_voiced", "h1_h2"]),
        ({"breath": 0.3}, [], ["cpp_mean"]),
    ],
    ids=lambda value: ",".join(value) if isinstance(value, dict) else "",
)
def test_a_change_of_the_voice_moves_its_measures(changed, rising, falling):
    before, after = prosody(voice()), prosody(voice(**changed))
    for name in rising:
        assert after[name] > before[name] + 0.05 * abs(before[name]), name
    for name in falling:
        assert after[name] < before[name] - 0.05 * abs(before[name]), name


def test_a_pause_is_counted():
    said, silence = voice(0.8), np.zeros(RATE // 2, np.float32)
    together, apart = prosody(np.concatenate([said, said])), prosody(np.concatenate([said, silence, said]))
    assert apart["pause_share"] > together["pause_share"] + 0.15
    assert apart["pauses"] > 0.0


@pytest.mark.parametrize("wave", [np.zeros(RATE), np.zeros(0), voice(0.15)[:3000]], ids=["silence", "nothing", "short"])
def test_what_is_no_speech_has_no_prosody(wave):
    assert prosody(wave.astype(np.float32)) is None


def test_a_whisper_has_no_pitch_but_is_measured():
    noise = np.random.default_rng(1).standard_normal(RATE).astype(np.float32) * 0.1
    measures = prosody(noise)
    assert np.isnan(measures["f0_median"])
    assert np.isfinite(measures["alpha_unvoiced"])
    assert not any(np.isinf(value) for value in measures.values())
