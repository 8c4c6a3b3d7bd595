"""Segment: where speech is, channel by channel; what holds no speech is rejected."""

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from data_engine.backends.catalog import BackendCache
from data_engine.core.errors import ConfigError
from data_engine.core.harness import StageRun
from data_engine.core.stage import Worker
from data_engine.io.scratch import ScratchAudio
from data_engine.stages.catalog import build_stage
from data_engine.stages.segment import SegmentConfig, close_gaps, speech_regions

RATE, HOP = 16000, 512
CACHE = BackendCache()


def segment(folder, recordings, rate=RATE, warnings=(), **config):
    """Runs the stage over {recording_id: [channels]}; returns rows by id, and reject codes by id."""
    scratch, rows = ScratchAudio(folder), []
    for name, channels in recordings.items():
        for channel, wave in enumerate(channels):
            with scratch.writer(name, channel) as writer:
                writer.append(np.asarray(wave, np.float32))
        rows.append({
            "recording_id": name, "sample_rate": rate, "num_samples": len(channels[0]),
            "num_channels": len(channels), "warnings": list(warnings),
        })  # fmt: skip
    stage = build_stage("segment", config)
    stage.open(Worker(folder, CACHE))
    run = StageRun(stage, "signature")
    found = [row for batch in run.run([stage.spec.consumes.batch(rows)]) for row in batch.to_pylist()]
    return {row["recording_id"]: row for row in found}, {reject["record_id"]: reject["code"] for reject in run.rejects}


@pytest.fixture(scope="module")
def talk(conversation):
    return soundfile.read(conversation, dtype="float32")[0]


def test_the_conversation_is_found(tmp_path, talk):
    found, rejects = segment(tmp_path, {"talk": [talk]})
    speech = found["talk"]["speech"]
    assert not rejects
    assert abs(speech[0]["start"] / RATE - 6.69) < 0.2
    assert 21.5 < sum(region["num_samples"] for region in speech) / RATE < 24
    assert found["talk"]["warnings"] == []


def test_channels_are_told_apart(tmp_path, talk):
    silent = np.zeros(len(talk), np.float32)
    found, _ = segment(tmp_path, {"left": [talk, silent], "right": [silent, talk]})
    assert {region["channel"] for region in found["left"]["speech"]} == {0}
    assert {region["channel"] for region in found["right"]["speech"]} == {1}
    assert [r["start"] for r in found["left"]["speech"]] == [r["start"] for r in found["right"]["speech"]]


def test_the_size_of_a_read_changes_nothing(tmp_path, talk):
    rows = [segment(tmp_path, {"talk": [talk]}, block_seconds=s)[0]["talk"]["speech"] for s in (0.7, 30.0)]
    assert rows[0] == rows[1]


SECONDS = np.arange(3 * RATE) / RATE
NOT_SPEECH = {
    "tone": 0.5 * np.sin(2 * np.pi * 1000 * SECONDS),
    "hum": 0.5 * np.sin(2 * np.pi * 50 * SECONDS),
    "noise": np.random.default_rng(0).normal(0, 0.1, 3 * RATE),
    "quiet noise": np.random.default_rng(1).normal(0, 1e-4, 3 * RATE),
    "silence": np.zeros(3 * RATE),
    "offset": np.full(3 * RATE, 0.25),
    "scrap": np.full(5, 0.1),
}


def test_what_is_no_speech_is_rejected(tmp_path):
    found, rejects = segment(tmp_path, {name: [wave] for name, wave in NOT_SPEECH.items()})
    assert found == {}
    assert rejects == dict.fromkeys(NOT_SPEECH, "NO_SPEECH")


@pytest.mark.parametrize("name", ["tone_1khz_3s", "white_noise_3s", "noise_floor_5s", "silence_5s", "dc_only"])
def test_files_without_speech_are_rejected(tmp_path, shared_speech, name):
    wave, rate = soundfile.read(shared_speech / "edge" / f"{name}.wav", dtype="float32")
    assert rate == RATE
    assert segment(tmp_path, {name: [wave]}) == ({}, {name: "NO_SPEECH"})


def test_little_speech_in_a_long_recording_is_marked(tmp_path, talk):
    padded = np.concatenate([np.zeros(8 * RATE), talk[22 * RATE : 24 * RATE], np.zeros(4 * RATE)])
    found, _ = segment(tmp_path, {"padded": [padded]}, warnings=["CLIPPED"])
    (region,) = found["padded"]["speech"]
    assert 7.8 < region["start"] / RATE < 8.2
    assert found["padded"]["warnings"] == ["CLIPPED", "SPEECH_SPARSE"]


def test_another_sample_rate_ends_the_run(tmp_path, talk):
    with pytest.raises(ConfigError, match="24000"):
        segment(tmp_path, {"talk": [talk]}, rate=24000)


def test_thresholds_in_the_wrong_order_are_refused():
    with pytest.raises(ConfigError, match="release"):
        build_stage("segment", {"threshold": 0.4, "release": 0.6})


# ---- the arithmetic of regions

PROBABILITIES = st.lists(st.sampled_from([0.0, 0.2, 0.4, 0.6, 1.0]), max_size=80).map(np.array)
SETTINGS = st.builds(
    SegmentConfig,
    min_speech_seconds=st.sampled_from([0.0, 0.1, 0.25]),
    min_silence_seconds=st.sampled_from([0.0, 0.1, 0.3]),
    pad_seconds=st.sampled_from([0.0, 0.03, 0.1]),
)


@given(PROBABILITIES, SETTINGS, st.integers(0, HOP - 1))
def test_regions_are_apart_ordered_and_inside(probabilities, settings, missing):
    num_samples = max(0, len(probabilities) * HOP - missing)
    regions = speech_regions(probabilities, settings, num_samples, HOP, RATE)
    assert (regions[:, 0] < regions[:, 1]).all()
    assert (regions[1:, 0] > regions[:-1, 1]).all()
    assert ((regions >= 0) & (regions <= num_samples)).all()


@given(PROBABILITIES, SETTINGS)
def test_hops_above_the_threshold_are_kept_unless_too_short(probabilities, settings):
    num_samples = len(probabilities) * HOP
    sure = settings.model_copy(update={"min_speech_seconds": 0.0})
    covered = np.zeros(num_samples, bool)
    for start, end in speech_regions(probabilities, sure, num_samples, HOP, RATE):
        covered[start:end] = True
    assert covered.reshape(-1, HOP)[probabilities >= settings.threshold].all()


@given(PROBABILITIES, SETTINGS)
def test_a_region_holds_a_hop_above_the_threshold(probabilities, settings):
    strong = np.repeat(probabilities >= settings.threshold, HOP)
    for start, end in speech_regions(probabilities, settings, len(strong), HOP, RATE):
        assert strong[start:end].any()
        assert end - start >= settings.min_speech_seconds * RATE


def test_hysteresis_holds_on_through_a_dip_and_starts_late():
    probabilities = np.array([0.0, 0.4, 0.6, 0.4, 0.4, 0.6, 0.3, 0.4, 0.4])
    settings = SegmentConfig(min_speech_seconds=0.0, min_silence_seconds=0.0, pad_seconds=0.0)
    assert speech_regions(probabilities, settings, 9 * HOP, HOP, RATE).tolist() == [[2 * HOP, 6 * HOP]]


def test_gaps_shorter_than_the_limit_are_closed():
    regions = np.array([[0, 10], [15, 20], [30, 40]])
    assert close_gaps(regions, 6).tolist() == [[0, 20], [30, 40]]
    assert close_gaps(regions, 5).tolist() == regions.tolist()
