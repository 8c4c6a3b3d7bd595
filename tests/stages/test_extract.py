"""Extract: the samples of a segment, no more and no less, as FLAC."""

import hashlib

import numpy as np
import pytest

from data_engine.backends.catalog import BackendCache
from data_engine.core.harness import StageRun
from data_engine.core.stage import Worker
from data_engine.io.audio import decode_bytes
from data_engine.io.scratch import ScratchAudio
from data_engine.stages.catalog import build_stage

RATE = 16000


@pytest.fixture
def waves(tmp_path):
    """Two channels of noise in the scratch folder."""
    random = np.random.default_rng(3)
    waves = [random.uniform(-0.9, 0.9, 2 * RATE).astype(np.float32) for _ in range(2)]
    for channel, wave in enumerate(waves):
        with ScratchAudio(tmp_path).writer("rec", channel) as writer:
            writer.append(wave)
    return waves


def extract(folder, *places):
    """Runs the stage over (channel, start, num_samples); returns rows and the run."""
    stage = build_stage("extract", {})
    stage.open(Worker(folder, BackendCache()))
    keys = ("segment_id", "recording_id", "channel", "start", "num_samples", "sample_rate")
    rows = [dict(zip(keys, (f"s{i}", "rec", *place, RATE), strict=True)) for i, place in enumerate(places)]
    run = StageRun(stage, "signature")
    return [row for batch in run.run([stage.spec.consumes.batch(rows)]) for row in batch.to_pylist()], run


def test_the_sound_is_the_stretch_of_its_channel(tmp_path, waves):
    places = [(0, 0, 1600), (1, 500, 3210), (0, 2 * RATE - 7, 7)]
    rows, _ = extract(tmp_path, *places)
    for row, (channel, start, num_samples) in zip(rows, places, strict=True):
        samples, rate = decode_bytes(row["audio"]["bytes"])
        assert (samples.shape, rate) == ((1, num_samples), RATE)
        np.testing.assert_allclose(samples[0], waves[channel][start : start + num_samples], atol=0.51 / 32768)


def test_the_file_is_named_after_the_segment(tmp_path, waves):
    (row,), _ = extract(tmp_path, (0, 0, 800))
    assert row["audio"]["path"] == "s0.flac"
    assert row["audio"]["bytes"][:4] == b"fLaC"


def test_equal_samples_are_equal_bytes(tmp_path, waves):
    first, second = (extract(tmp_path, (1, 100, 5000))[0][0]["audio"]["bytes"] for _ in range(2))
    assert hashlib.sha256(first).digest() == hashlib.sha256(second).digest()


def test_a_segment_past_the_end_is_rejected_not_shortened(tmp_path, waves):
    rows, run = extract(tmp_path, (0, 0, 800), (0, 2 * RATE - 10, 11))
    assert [row["segment_id"] for row in rows] == ["s0"]
    assert [(r["record_id"], r["code"]) for r in run.rejects] == [("s1", "LENGTH_MISMATCH")]
