"""Crosstalk: on a two-channel call each channel keeps its own speech, and what bleeds over from the other is none."""

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from data_engine.core.errors import ConfigError
from data_engine.core.harness import StageRun
from data_engine.core.stage import Worker
from data_engine.stages.catalog import build_stage
from data_engine.stages.rules.crosstalk import CrosstalkSettings, losing_channel, repeated_speech, same_sound
from tests.stages.test_segment import CACHE, RATE, segment

BLEED = 0.1  # -20 dB
DELAY = 160


def line_noise(seed, length, level=3e-4):
    return np.random.default_rng(seed).normal(0, level, length)


def echoed(wave):
    """The wave as it comes through a room or a line: delayed, with reflections."""
    path = np.zeros(DELAY + 200)
    path[[DELAY, DELAY + 37, DELAY + 120]] = (1.0, 0.5, -0.3)
    return np.convolve(wave, path)[: len(wave)]


@pytest.fixture(scope="module")
def call(conversation):
    """Two sides of a call, 30 s: the first speaks in the first half, the second in the second, both at 13 to 15 s."""
    talk = soundfile.read(conversation, dtype="float32")[0].astype(np.float64)
    first, second = np.zeros(30 * RATE), np.zeros(30 * RATE)
    first[: 15 * RATE] = talk[: 15 * RATE]
    second[13 * RATE : 28 * RATE] = talk[15 * RATE :][: 15 * RATE]
    return first, second


def with_bleed(call, bleed=BLEED):
    first, second = call
    return [
        first + bleed * echoed(second) + line_noise(1, len(first)),
        second + bleed * echoed(first) + line_noise(2, len(first)),
    ]


def spoken(row, channel):
    mask = np.zeros(30 * RATE, bool)
    for region in row["speech"]:
        if region["channel"] == channel:
            mask[region["start"] : region["start"] + region["num_samples"]] = True
    return mask


def test_speech_that_bleeds_over_is_not_found_again(tmp_path, call):
    clean = segment(tmp_path, {"call": with_bleed(call, 0.0)})[0]["call"]
    found = segment(tmp_path, {"call": with_bleed(call)})[0]["call"]
    heard = segment(tmp_path, {"call": with_bleed(call)}, crosstalk={"correlation": 1.1})[0]["call"]
    for channel in (0, 1):
        own = spoken(clean, channel)
        assert (spoken(heard, channel) & ~own).sum() > 4 * RATE
        assert (spoken(found, channel) & ~own).sum() < 0.6 * RATE
        assert (spoken(found, channel) & own).sum() > 0.97 * own.sum()


def test_a_call_gives_one_speaker_per_channel(tmp_path, conversation):
    talk = soundfile.read(conversation, dtype="float32")[0].astype(np.float64)
    sides = np.zeros((2, 12 * RATE))
    for side, at, start, end in ((0, 0.2, 10.6, 14.6), (1, 4.6, 21.9, 27.8)):
        part = talk[round(start * RATE) : round(end * RATE)]
        sides[side, round(at * RATE) : round(at * RATE) + len(part)] = part
    row = segment(tmp_path, {"call": with_bleed(sides)})[0]["call"]
    row |= {"sample_rate": RATE, "num_samples": 12 * RATE, "num_channels": 2, "split": "test", "allowed_uses": []}
    for name in ("diarize", "cut"):
        stage = build_stage(name, {})
        stage.open(Worker(tmp_path, CACHE))
        made = StageRun(stage, "signature").run([stage.spec.consumes.batch([row])])
        rows = [found for batch in made for found in batch.to_pylist()]
        row |= rows[0] if name == "diarize" else {}
    assert [len({r["speaker_id"] for r in rows if r["channel"] == channel}) for channel in (0, 1)] == [1, 1]
    lengths = [sum(r["num_samples"] for r in rows if r["channel"] == channel) / RATE for channel in (0, 1)]
    assert lengths == pytest.approx([4.0, 5.9], abs=1.0)


@pytest.mark.parametrize(("gains", "kept"), [((1.0, 1.0), 0), ((1.0, 0.8), 0), ((0.6, 1.0), 1), ((0.05, 1.0), 1)])
def test_a_stereo_file_that_was_split_is_heard_once(tmp_path, conversation, gains, kept):
    talk = soundfile.read(conversation, dtype="float32")[0]
    channels = [gain * talk + line_noise(at, len(talk), 1e-4) for at, gain in enumerate(gains)]
    row = segment(tmp_path, {"stereo": channels})[0]["stereo"]
    alone = segment(tmp_path, {"mono": [channels[kept]]})[0]["mono"]
    assert {region["channel"] for region in row["speech"]} == {kept}
    assert [region["start"] for region in row["speech"]] == [region["start"] for region in alone["speech"]]


def test_both_sides_are_kept_where_both_speak_at_once(tmp_path, call):
    found = segment(tmp_path, {"call": with_bleed(call)})[0]["call"]
    both = spoken(found, 0) & spoken(found, 1)
    alone = [spoken(segment(tmp_path, {"one": [side]})[0]["one"], 0) for side in call]
    assert both.sum() > 0.8 * (alone[0] & alone[1]).sum() > 0.5 * RATE


def test_windows_that_correlate_at_a_lag_are_the_same_sound():
    noise = np.random.default_rng(0).normal(0, 0.1, (8, 4096 + 300)).astype(np.float32)
    late = 0.1 * noise[:, :4096] + np.float32(0.001)
    alike, louder = same_sound(noise[:, 200:4296], late, 300)
    assert (alike > 0.9).all()
    assert louder == pytest.approx(np.full(8, 20.0), abs=0.5)
    assert (same_sound(noise[:, 200:4296], late, 100)[0] < 0.2).all()
    assert (same_sound(noise[:4, :4096], noise[4:, :4096], 300)[0] < 0.2).all()
    assert not np.isnan(same_sound(np.zeros((1, 4096), np.float32), late[:1], 300)[0]).any()


windows = st.lists(st.tuples(st.floats(0, 1), st.floats(-40, 40)), min_size=1, max_size=20)


@given(windows)
def test_only_what_is_alike_loses_and_the_louder_channel_never_does(pairs):
    settings = CrosstalkSettings()
    alike, louder = (np.array(values) for values in zip(*pairs, strict=True))
    loses = losing_channel(alike, louder, settings)
    assert (loses[alike < settings.correlation] == -1).all()
    assert set(loses[(alike >= settings.correlation) & (louder >= settings.level_db)]) <= {1}
    assert set(loses[(alike >= settings.correlation) & (louder <= -settings.level_db)]) <= {0}
    assert len(set(loses[(alike >= settings.correlation) & (np.abs(louder) < settings.level_db)])) <= 1


def test_sound_is_read_only_where_two_channels_may_hold_speech():
    waves, read = np.random.default_rng(0).normal(0, 0.1, (3, RATE)).astype(np.float32), []
    waves[2] = 0.1 * waves[0]

    def sound(channel, start, length):
        read.append(channel)
        return waves[channel, start : start + length]

    heard = [np.arange(31) < 20, np.arange(31) >= 20, np.arange(31) < 31]
    found = repeated_speech(heard, 512, sound, RATE, CrosstalkSettings())
    assert not found[0].any()
    assert not found[1].any()
    assert found[2].tolist() == heard[0].tolist()
    read.clear()
    repeated_speech([np.arange(31) < 10, np.arange(31) > 20], 512, sound, RATE, CrosstalkSettings())
    assert read == []


def test_a_threshold_that_means_nothing_is_refused():
    with pytest.raises(ConfigError, match="correlation"):
        build_stage("segment", {"crosstalk": {"correlation": 0}})
