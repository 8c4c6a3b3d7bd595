"""Stage `tokenize`: both code streams of each clip, stamped with what made them; too short ones are rejected."""

import numpy as np
import pytest
import soundfile

from data_engine.backends.catalog import BackendCache
from data_engine.backends.codec_nano import NanoCodec
from data_engine.core.config import signature_config
from data_engine.core.harness import StageRun
from data_engine.core.schema import load_schema
from data_engine.core.stage import Worker
from data_engine.io.audio import encode_flac
from data_engine.stages.tokenize import Tokenize
from data_engine.tokens.layout import expected_counts, interleave_codes

backends = BackendCache()


@pytest.fixture
def tokenized(tmp_path):
    """Runs the stage over waves, each (float32 [samples], sample rate); returns rows and rejects."""

    def run(waves, record="segment", **settings):
        stage = Tokenize(Tokenize.Config(record=record, **settings))
        stage.open(Worker(tmp_path, backends))
        names = ("audio", "num_samples", "sample_rate")
        schema = load_schema(record).pick(*names)
        rows = [
            {schema.id: f"r{number}", "audio": audio, "num_samples": length, "sample_rate": rate}
            for number, (audio, length, rate) in enumerate(map(clip, waves))
        ]
        harness = StageRun(stage, "sig")
        return [row for batch in harness.run([schema.batch(rows)]) for row in batch.to_pylist()], harness

    return run


def clip(wave_and_rate):
    wave, rate = wave_and_rate
    if wave is None:
        return None, None, None
    return {"bytes": encode_flac(wave, rate), "path": None}, len(wave), rate


@pytest.fixture(scope="module")
def speech(conversation):
    return soundfile.read(conversation, dtype="float32")[0]


def test_every_clip_gets_the_expected_number_of_codes_and_the_stamp_of_the_codec(tokenized, speech):
    waves = [(speech[112000 : 112000 + n], 16000) for n in (8000, 16000, 40000)]
    rows, harness = tokenized(waves)
    for row, (wave, rate) in zip(rows, waves, strict=True):
        assert (len(row["vq02"]), len(row["vq06"]), row["num_groups"]) == expected_counts(len(wave), rate)
        assert interleave_codes(row["vq02"], row["vq06"]).num_groups == row["num_groups"]
        assert (row["codec"], row["tokenizer_hash"], row["quant_bits"]) == ("nano", NanoCodec().revision, 8)
    assert harness.stats.metrics["token_groups"] == sum(row["num_groups"] for row in rows)


def test_other_sample_rates_are_resampled(tokenized, speech):
    rows, _ = tokenized([(speech[112000:144000:2].copy(), 8000), (np.repeat(speech[112000:128000], 3), 48000)])
    assert [row["num_groups"] for row in rows] == [16, 8]


@pytest.mark.parametrize("num_samples", [1, 1000, 1919])
def test_a_clip_too_short_for_one_group_is_rejected(tokenized, speech, num_samples):
    rows, harness = tokenized([(speech[112000 : 112000 + n], 16000) for n in (num_samples, 1920)])
    assert [row["segment_id"] for row in rows] == ["r1"]
    assert [(r["record_id"], r["code"]) for r in harness.rejects] == [("r0", "TOO_FEW_TOKENS")]


def test_candidates_are_tokenized_too_and_one_without_audio_is_rejected(tokenized, speech):
    rows, harness = tokenized([(speech[112000:128000], 16000), (None, None)], record="candidate")
    assert [row["candidate_id"] for row in rows] == ["r0"]
    assert harness.stats.reject_codes == {"TOO_FEW_TOKENS": 1}


def test_damaged_audio_is_a_reject_with_the_reason_of_the_decoder(tmp_path):
    schema = load_schema("segment").pick("audio", "num_samples", "sample_rate")
    row = {"segment_id": "r0", "audio": {"bytes": b"no sound", "path": None}, "num_samples": 9999, "sample_rate": 16000}
    stage = Tokenize(Tokenize.Config())
    stage.open(Worker(tmp_path, backends))
    harness = StageRun(stage, "sig")
    assert list(harness.run([schema.batch([row])])) == []
    assert harness.rejects[0]["code"] == "NOT_AUDIO"


def test_batch_size_changes_speed_and_nothing_else(tokenized, speech):
    waves = [(speech[a : a + 20000], 16000) for a in range(100000, 200000, 20000)]
    assert tokenized(waves)[0] == tokenized(waves, max_rows=1)[0] == tokenized(waves, max_seconds=2.6)[0]
    assert signature_config(Tokenize.Config()) == signature_config(Tokenize.Config(max_rows=1, max_seconds=2.6))
