"""`separate` takes the voice out of segments with a bad background, and leaves every other byte as it is."""

import numpy as np
import pytest

from data_engine.backends.catalog import BackendCache
from data_engine.core.errors import ConfigError
from data_engine.core.harness import StageRun
from data_engine.core.stage import Worker
from data_engine.io.audio import decode_bytes, encode_flac
from data_engine.stages.catalog import build_stage
from data_engine.stages.separate import fit
from tests.backends.tiny_funasr import RATE, murmur
from tests.stages.rows import worker

CHOICE = {"separation": {"name": "half", "options": {}}}


class Halver:
    """A separation that halves, at a rate of its own, one sample short."""

    sample_rate = 44100
    revision = "halver"

    def __init__(self):
        self.heard = []

    def speech(self, waves):
        self.heard += waves
        return [(wave / 2)[:-1] for wave in waves]


class Levels:
    """A quality model whose background score is low for what is loud."""

    sample_rate = 16000
    revision = "levels"

    def score(self, waves):
        return np.array([[4, 2.9 if np.abs(wave).max() > 0.5 else 3.0, 4] for wave in waves], np.float32)


def loud(seconds, seed=0):
    wave = murmur(seconds, seed)
    return wave / np.abs(wave).max() * 0.9


def quiet(seconds, seed=0):
    return loud(seconds, seed) / 4


def separate(tmp_path, clips, rate=RATE, **settings):
    """Runs the stage over clips: arrays, or whole `audio` cells. Returns the separation, the run, rows in and out."""
    separator = Halver()
    stage = build_stage("separate", {**CHOICE, **settings})
    stage.open(worker(tmp_path, quality=Levels(), separation=separator))
    rows = [
        {
            "segment_id": str(number),
            "audio": {"bytes": encode_flac(clip, rate), "path": "a.flac"} if isinstance(clip, np.ndarray) else clip,
            "num_samples": len(clip) if isinstance(clip, np.ndarray) else 0,
            "sample_rate": rate,
        }
        for number, clip in enumerate(clips)
    ]
    batch = stage.spec.consumes.batch(rows)
    run = StageRun(stage, "signature")
    return separator, run, batch.to_pylist(), [row for part in run.run([batch]) for row in part.to_pylist()]


@pytest.mark.parametrize("rate", [8000, 16000, 44100])
def test_only_a_low_background_is_separated(tmp_path, rate):
    clips = [loud(1.0), quiet(1.0), loud(0.7, 1)]
    separator, run, before, after = separate(tmp_path, clips, rate)
    assert [row["separated"] for row in after] == [True, False, True]
    assert len(separator.heard) == 2
    assert after[1]["audio"] == before[1]["audio"], "not a byte is changed"
    for number in (0, 2):
        (wave,), at = decode_bytes(after[number]["audio"]["bytes"])
        assert at == rate
        assert len(wave) == after[number]["num_samples"] == len(clips[number])
        assert after[number]["audio"]["path"] == "a.flac"
        assert np.corrcoef(wave, clips[number])[0, 1] > 0.98, "in place, at either rate"
        assert wave.std() == pytest.approx(clips[number].std() / 2, rel=0.03)
    assert run.stats.metrics["separated"] == 2
    assert run.stats.metrics["separated_seconds"] == pytest.approx((len(clips[0]) + len(clips[2])) / rate)


def test_the_threshold_decides(tmp_path):
    separator, _, _, after = separate(tmp_path, [loud(1.0), quiet(1.0)], below_background=3.5)
    assert [row["separated"] for row in after] == [True, True]
    separator, _, _, after = separate(tmp_path, [loud(1.0), quiet(1.0)], below_background=2.5)
    assert [row["separated"] for row in after] == [False, False]
    assert separator.heard == []
    with pytest.raises(ConfigError, match="below_background"):
        build_stage("separate", {**CHOICE, "below_background": 9})


def test_what_cannot_be_judged_stays_and_what_is_no_audio_is_rejected(tmp_path):
    clips = [np.zeros(RATE, np.float32), loud(1.0)[:200], None, {"bytes": b"no audio", "path": None}]
    separator, run, before, after = separate(tmp_path, clips)
    assert [row["segment_id"] for row in after] == ["0", "1", "2"]
    assert [row["audio"] for row in after] == [row["audio"] for row in before[:3]]
    assert not any(row["separated"] for row in after)
    assert [(row["record_id"], row["code"]) for row in run.rejects] == [("3", "NOT_AUDIO")]
    assert separator.heard == []


def test_it_needs_somebody_who_separates():
    with pytest.raises(ConfigError, match="separation"):
        build_stage("separate", {})


def test_length_and_range_are_kept():
    assert fit(np.array([0.5, 2.0, -3.0], np.float32), 4).tolist() == [0.5, 1.0, -1.0, 0.0]
    assert fit(np.ones(3, np.float32), 2).tolist() == [1.0, 1.0]


def test_the_real_models_do_the_same(tmp_path):
    pytest.importorskip("torchaudio", exc_type=ImportError)
    from tests.backends.tiny_torchaudio import HDEMUCS, hdemucs, write

    options = {"model": str(write(hdemucs(), tmp_path / "hdemucs.pt")), "architecture": HDEMUCS}
    stage = build_stage("separate", {"separation": {"name": "hdemucs", "options": options}, "below_background": 5})
    stage.open(Worker(tmp_path, BackendCache()))
    audio = {"bytes": encode_flac(loud(1.0), RATE), "path": None}
    row = {"segment_id": "a", "audio": audio, "num_samples": RATE, "sample_rate": RATE}
    outputs = [
        next(iter(StageRun(stage, "s").run([stage.spec.consumes.batch([row])]))).to_pylist()[0] for _ in range(2)
    ]
    assert outputs[0] == outputs[1]
    assert outputs[0]["separated"]
    (wave,), rate = decode_bytes(outputs[0]["audio"]["bytes"])
    assert (len(wave), rate) == (RATE, RATE)
