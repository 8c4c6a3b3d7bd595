"""`annotate` measures every clip, never drops one for what it measured, and writes null instead of nonsense."""

import math

import numpy as np
import pytest
import soundfile
import soxr

from data_engine.backends.catalog import BackendCache
from data_engine.core.errors import ConfigError
from data_engine.core.harness import StageRun
from data_engine.core.schema import load_schema
from data_engine.core.stage import Worker
from data_engine.io.audio import encode_flac
from data_engine.stages.annotate import (
    ACOUSTICS,
    QUALITY,
    SQUIM,
    Annotate,
    AnnotateConfig,
    acoustic_columns,
    decode_clip,
)
from data_engine.stages.catalog import build_stage, stage_signature_parts
from tests.backends import tiny_torchaudio

RATE = 16000
FAST = {"name": "dnsmos", "options": {"max_windows": 1}}


@pytest.fixture(scope="module")
def models():
    cache = BackendCache()
    yield cache
    cache.close()


@pytest.fixture(scope="module")
def speech(conversation):
    return soundfile.read(conversation, dtype="float32")[0]


def annotate(models, tmp_path, clips, record="segment", rate=RATE, texts=None, **settings):
    """Runs the stage over clips: arrays, or whole `audio` cells. Returns the run and rows by id."""
    stage = Annotate(AnnotateConfig(record=record, quality=FAST, **settings))
    stage.open(Worker(tmp_path, models))
    schema = load_schema(record).pick("audio", "num_samples", "sample_rate", "text", "language")
    texts = texts or [("hello there", "en")] * len(clips)
    rows = [
        {
            schema.id: f"{index:04d}",
            "audio": {"bytes": encode_flac(clip, rate), "path": None} if isinstance(clip, np.ndarray) else clip,
            "num_samples": len(clip) if isinstance(clip, np.ndarray) else 0,
            "sample_rate": rate,
            "text": text,
            "language": language,
        }
        for index, (clip, (text, language)) in enumerate(zip(clips, texts, strict=True))
    ]
    run = StageRun(stage, "signature")
    found = [row for batch in run.run([schema.batch(rows)]) for row in batch.to_pylist()]
    stage.close()
    return run, {row[schema.id]: row for row in found}


def test_speech_gets_every_column(models, tmp_path, speech):
    run, rows = annotate(models, tmp_path, [speech[RATE * 22 : RATE * 26]])
    row = rows["0000"]
    assert all(math.isfinite(row[name]) for name in (*QUALITY, *ACOUSTICS))
    assert 1.0 < row["dnsmos_ovr"] < 5.0
    assert 150.0 < row["f0_median_hz"] < 250.0
    assert row["bandwidth_hz"] == pytest.approx(4000, rel=0.06), "the conversation is telephone speech"
    assert np.linalg.norm(row["speaker_embedding"]) == pytest.approx(1.0, rel=1e-5)
    assert run.rejects == []


def test_candidates_are_measured_without_an_embedding(models, tmp_path, speech):
    _, rows = annotate(models, tmp_path, [speech[RATE * 22 : RATE * 24]], record="candidate")
    assert rows["0000"]["dnsmos_sig"] is not None
    assert "speaker_embedding" not in rows["0000"]


def test_what_cannot_be_measured_is_null_and_the_row_stays(models, tmp_path):
    silent, blip = np.zeros(RATE, np.float32), np.full(100, 0.5, np.float32)
    run, rows = annotate(models, tmp_path, [silent, blip, None, {"bytes": None, "path": "elsewhere.flac"}])
    assert list(rows) == ["0000", "0001", "0002", "0003"]
    for row in rows.values():
        assert [row[name] for name in (*QUALITY, "snr_db", "f0_median_hz", "speaking_rate", "speaker_embedding")] == [
            None
        ] * 7
    assert rows["0000"]["silence_ratio"] == 1.0
    assert run.stats.metrics["clips_unmeasured"] == 4


def test_no_value_is_nan_whatever_the_length(models, tmp_path, speech):
    clips = [speech[RATE * 22 : RATE * 22 + n] for n in (1, 160, 399, 400, 1599, 1600, 1601, 8000)]
    _, rows = annotate(models, tmp_path, clips)
    values = [row[name] for row in rows.values() for name in (*QUALITY, *ACOUSTICS)]
    assert all(value is None or math.isfinite(value) for value in values)
    assert len(rows) == len(clips)


def test_a_broken_file_is_rejected_and_its_neighbours_are_not(models, tmp_path, speech):
    clip = speech[RATE * 22 : RATE * 23]
    run, rows = annotate(models, tmp_path, [clip, {"bytes": b"not a sound", "path": None}, clip])
    assert list(rows) == ["0000", "0002"]
    assert [(reject["record_id"], reject["code"]) for reject in run.rejects] == [("0001", "NOT_AUDIO")]


def test_results_do_not_depend_on_the_batch(models, tmp_path, speech):
    clips = [speech[RATE * start : RATE * (start + 2)] for start in (8, 11, 15, 23)]
    _, together = annotate(models, tmp_path, clips)
    _, alone = annotate(models, tmp_path, clips, max_rows=1)
    assert together == alone


def test_other_rates_are_converted_but_bandwidth_is_measured_as_stored(models, tmp_path, speech):
    clip = speech[RATE * 22 : RATE * 25]
    noise = np.random.default_rng(0).standard_normal(3 * 24000).astype(np.float32) * np.float32(0.001)
    stored = soxr.resample(clip, RATE, 24000) + noise
    _, same = annotate(models, tmp_path, [clip])
    _, other = annotate(models, tmp_path, [stored], rate=24000)
    assert other["0000"]["bandwidth_hz"] > 8000
    assert other["0000"]["f0_median_hz"] == pytest.approx(same["0000"]["f0_median_hz"], rel=0.02)
    assert np.dot(other["0000"]["speaker_embedding"], same["0000"]["speaker_embedding"]) > 0.9


def test_speaking_rate_counts_the_text_where_there_is_a_rule_and_the_sound_where_not(speech):
    clip = decode_clip({"bytes": encode_flac(speech[RATE * 22 : RATE * 26], RATE), "path": None})
    seconds = clip.where.speech_seconds
    by_text = acoustic_columns(clip, "seven syllables in this clip", "en")["speaking_rate"]
    assert by_text * seconds == pytest.approx(8)
    by_sound = acoustic_columns(clip, None, "en")["speaking_rate"]
    assert by_sound == acoustic_columns(clip, "dial 911", "en")["speaking_rate"]
    assert 2.0 < by_sound < 7.0


def test_batch_limits_are_speed_knobs_and_models_are_part_of_the_signature():
    plain, revisions = stage_signature_parts("annotate", {})
    assert stage_signature_parts("annotate", {"max_rows": 2, "max_seconds": 5.0}) == (plain, revisions)
    assert stage_signature_parts("annotate", {"quality": FAST})[0] != plain
    assert set(revisions) == {"quality", "speaker"}
    spec = build_stage("annotate", {"max_rows": 3}).spec
    assert (spec.batch.max_rows, spec.consumes.id) == (3, "segment_id")
    assert build_stage("annotate", {"record": "candidate"}).spec.produces.id == "candidate_id"


def test_nobody_listens_for_emotions_unless_chosen(models, tmp_path, speech):
    _, rows = annotate(models, tmp_path, [speech[RATE * 22 : RATE * 24]])
    assert "emotion" not in rows["0000"]


def test_a_chosen_emotion_model_hears_how_segments_are_said(models, tmp_path, speech):
    silent, clip = np.zeros(RATE, np.float32), speech[RATE * 22 : RATE * 26]
    run, rows = annotate(models, tmp_path, [clip, silent, None, clip[:2000]], emotion="prosody")
    assert rows["0000"]["emotion"] in ("angry", "happy", "neutral", "sad")
    assert 0.25 <= rows["0000"]["emotion_confidence"] <= 1.0
    for name in ("0001", "0002", "0003"):
        assert (rows[name]["emotion"], rows[name]["emotion_confidence"]) == (None, None)
    assert run.rejects == []


def test_what_a_candidate_was_asked_to_sound_like_is_not_overwritten(models, tmp_path, speech):
    """The column `emotion` of a candidate is the request."""
    _, rows = annotate(models, tmp_path, [speech[RATE * 22 : RATE * 24]], record="candidate", emotion="prosody")
    assert not {"emotion", "emotion_confidence"} & rows["0000"].keys()


def test_squim_is_measured_for_segments_and_only_when_asked(models, tmp_path, speech):
    pytest.importorskip("torchaudio", exc_type=ImportError)
    path = tiny_torchaudio.write(tiny_torchaudio.squim(), tmp_path / "squim.pth")
    choice = {"name": "torchaudio", "options": {"model": str(path), "architecture": tiny_torchaudio.SQUIM}}
    clip = speech[RATE * 22 : RATE * 24]
    _, rows = annotate(models, tmp_path, [clip, np.zeros(RATE, np.float32)], squim=choice)
    assert 0 < rows["0000"]["squim_stoi"] < 1
    assert 1 <= rows["0000"]["squim_pesq"] <= 4.65
    assert math.isfinite(rows["0000"]["squim_sisdr"])
    assert [rows["0001"][name] for name in SQUIM] == [None] * 3
    _, plain = annotate(models, tmp_path, [clip])
    assert not set(SQUIM) & set(plain["0000"])
    assert {name: rows["0000"][name] for name in plain["0000"]} == plain["0000"]
    with pytest.raises(ConfigError, match="squim"):
        build_stage("annotate", {"record": "candidate", "squim": choice})
