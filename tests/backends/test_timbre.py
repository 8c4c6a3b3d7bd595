"""An utterance takes on a voice's timbre and pitch, and keeps its words, timing and level."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr

from data_engine.backends.espeak_library import SAMPLE_RATE as ESPEAK_RATE
from data_engine.backends.espeak_library import Utterance, shared_library
from data_engine.backends.prosody_rules import ProsodyTargets
from data_engine.backends.protocols import VoicePrompt
from data_engine.backends.timbre import (
    SAMPLE_RATE,
    analyse,
    colour,
    move_pitch,
    move_timbre,
    resynthesize,
    speaker_norms,
    voice_exemplars,
)
from data_engine.backends.voice_rendering import (
    VoiceTargets,
    deviations,
    levelled,
    render,
    trimmed,
    voice_target,
)

CALIBRATION = "1 2 3 4 5 6 7 8 9 10. 11 12 13 20 34 57 68 79 90 100."
TEXT = "I looked it up, and the answer is Canberra, of course."
TURNS = {"a": ((11.1, 14.45), (18.6, 21.45)), "b": ((14.75, 17.9), (21.8, 27.8))}
"""Two speakers of the sample, where nobody else speaks, in seconds."""


def say(text, variant):
    samples = shared_library().say(Utterance(text, "en-us", variant)).samples / 32768.0
    return soxr.resample(samples.astype(np.float32), ESPEAK_RATE, SAMPLE_RATE)


@pytest.fixture(scope="module")
def source():
    return speaker_norms(analyse(say(CALIBRATION, "f2")))


@pytest.fixture(scope="module")
def spoken():
    return analyse(say(TEXT, "f2"))


@pytest.fixture(scope="module")
def target():
    return voice_exemplars(analyse(say("A big blue van brought cold air, good food and six thin sheep.", "m7")))


def cosines(left, right):
    return float((left * right).sum() / np.sqrt((left**2).sum() * (right**2).sum()))


def mean_shape(frames):
    logs = np.log(frames.envelope[frames.f0 > 0] + 1e-12)
    return (logs - logs.mean(axis=1, keepdims=True)).mean(axis=0)


def test_the_vocoder_gives_back_what_it_took_apart(spoken):
    again = analyse(resynthesize(spoken))
    both = (spoken.f0 > 0) & (again.f0[: len(spoken.f0)] > 0)
    assert np.median(np.abs(np.log(spoken.f0[both] / again.f0[: len(spoken.f0)][both]))) < 0.01


def test_the_envelope_moves_towards_the_voice_with_alpha(spoken, source, target):
    goal = np.mean(target.sounds[True].log_envelope, axis=0)
    goal = goal - goal.mean()
    distances = [np.abs(mean_shape(move_timbre(spoken, source, target, a)) - goal).mean() for a in (0.0, 0.5, 1.0)]
    assert distances[0] > 1.25 * distances[1] > 1.25 * distances[2]


def test_level_pitch_and_timing_stay(spoken, source, target):
    moved = move_timbre(spoken, source, target, 0.8)
    np.testing.assert_array_equal(moved.f0, spoken.f0)
    np.testing.assert_allclose(moved.envelope.sum(axis=1), spoken.envelope.sum(axis=1), rtol=1e-6, atol=1e-9)
    assert moved.aperiodicity.min() >= 0
    assert moved.aperiodicity.max() <= 1


def test_alpha_zero_changes_nothing(spoken, source, target):
    still = move_timbre(spoken, source, target, 0.0)
    audible = spoken.envelope > 1e-8
    np.testing.assert_allclose(still.envelope[audible], spoken.envelope[audible], rtol=0.01)
    np.testing.assert_array_equal(still.aperiodicity, spoken.aperiodicity)


def test_pitch_reaches_the_median_and_widens_around_it(spoken):
    moved = move_pitch(spoken, 1.5, 130.0)
    voiced = spoken.f0 > 0
    assert np.median(moved.f0[voiced]) == pytest.approx(130, rel=1e-6)
    assert np.log(moved.f0[voiced]).std() == pytest.approx(1.5 * np.log(spoken.f0[voiced]).std(), rel=0.02)
    assert not moved.f0[~voiced].any()


def test_breath_and_slope_are_added(spoken):
    coloured = colour(spoken, ProsodyTargets(breath=0.3, tilt_db=6.0))
    assert coloured.aperiodicity.mean() > spoken.aperiodicity.mean()
    gain = 10 * np.log10(coloured.envelope / spoken.envelope)
    frequency = np.linspace(0, SAMPLE_RATE / 2, 513)
    assert gain[:, frequency <= 1000] == pytest.approx(0, abs=1e-6)
    assert gain[:, 256] == pytest.approx(12, abs=0.1)  # two octaves above 1 kHz


def test_a_prompt_without_voice_has_no_exemplars():
    noise = np.random.default_rng(0).normal(0, 0.01, SAMPLE_RATE).astype(np.float32)
    assert voice_exemplars(analyse(np.zeros(SAMPLE_RATE, np.float32))) is None
    assert voice_target(VoicePrompt("n", noise, SAMPLE_RATE, None, np.zeros(1, np.float32), 150.0)).f0_hz == 150.0


def test_a_level_is_reached_unless_the_peak_would_clip():
    tone = (0.01 * np.sin(np.arange(SAMPLE_RATE) * 0.1)).astype(np.float32)
    wave, lowered = levelled(tone, -20.0)
    assert 10 * np.log10(np.mean(wave**2)) == pytest.approx(-20, abs=0.1)
    assert lowered == 0
    wave, lowered = levelled(tone, 10.0)
    assert np.abs(wave).max() == pytest.approx(0.97, abs=1e-3)
    assert lowered > 10


def test_silence_at_the_ends_is_cut_to_a_tenth_of_a_second():
    burst = np.sin(np.arange(SAMPLE_RATE // 2)).astype(np.float32)
    wave = np.concatenate([np.zeros(SAMPLE_RATE, np.float32), burst, np.zeros(SAMPLE_RATE, np.float32)])
    assert len(trimmed(wave)) == pytest.approx(0.7 * SAMPLE_RATE, abs=320)
    assert not len(trimmed(np.zeros(SAMPLE_RATE, np.float32)))


def test_deviations_are_small_and_depend_on_the_seed_alone():
    asked = ProsodyTargets(tempo=1.2, pitch_factor=1.5)
    drawn = [deviations(seed, asked, 0.95) for seed in range(50)]
    assert drawn == [deviations(seed, asked, 0.95) for seed in range(50)]
    assert all(abs(t.tempo / 1.2 - 1) <= 0.03 and abs(t.pitch_factor / 1.5 - 1) <= 0.02 for t, _ in drawn)
    assert all(0.85 <= alpha <= 1 for _, alpha in drawn)


def test_a_prompt_is_analysed_once():
    prompt = VoicePrompt("v", say(TEXT, "m3"), SAMPLE_RATE, None, np.zeros(1, np.float32))
    targets = VoiceTargets()
    assert targets.of(prompt) is targets.of(prompt)


def recorded_turns():
    spec = importlib.util.find_spec("pyannote")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        path = Path(folder) / "audio" / "sample" / "sample.wav"
        if path.is_file():
            wave, rate = soundfile.read(path, dtype="float32")
            return {s: np.concatenate([wave[int(a * rate) : int(b * rate)] for a, b in t]) for s, t in TURNS.items()}
    pytest.skip("pyannote.audio, whose sample holds two speakers, is not installed")


@pytest.mark.parametrize("speaker", sorted(TURNS))
def test_a_recorded_speaker_is_recognised_better_after_the_move(speaker, source):
    from data_engine.backends.speaker_resemblyzer import ResemblyzerEmbedder

    prompt = recorded_turns()[speaker]
    embedder = ResemblyzerEmbedder()
    embedder.open()
    voice = voice_target(VoicePrompt(speaker, prompt, SAMPLE_RATE, None, np.zeros(1, np.float32)))
    raw = say(TEXT, "f2")
    moved, _ = render(raw, source, voice, ProsodyTargets(), alpha=0.6)
    before, after, own = embedder.embed([raw, moved, prompt])
    assert cosines(after, own) > cosines(before, own) + 0.05
