"""Decode: what each kind of recording ends as."""

import json

import numpy as np
import pyarrow as pa
import pytest
import soundfile

from data_engine.core.harness import StageRun
from data_engine.core.ids import split_of
from data_engine.core.schema import load_schema
from data_engine.core.stage import Stage, Worker
from data_engine.io.scratch import ScratchAudio
from data_engine.stages.decode import Decode

EDGE = {
    "aac_in_m4a.m4a": set(),
    "alaw_8k.wav": {"NARROW_BAND"},
    "clipped_speech.wav": {"CLIPPED"},
    "dc_offset_speech.wav": {"DC_OFFSET"},
    "dc_only.wav": "SILENT",
    "flac_inside.mp3": set(),
    "float_over_full_scale.wav": {"OVER_FULL_SCALE"},
    "header_only.wav": "TOO_SHORT",
    "mp3_damaged_middle.mp3": {"DECODE_WARNING"},
    "mp3_inside.wav": set(),
    "mulaw_8k.wav": {"NARROW_BAND"},
    "nan_inf_float.wav": {"NON_FINITE_REPAIRED"},
    "noise_floor_5s.wav": {"QUIET"},
    "ok_reference_16k.wav": set(),
    "one_sample.wav": "TOO_SHORT",
    "padded_silence.wav": set(),
    "random_bytes.wav": "NOT_AUDIO",
    "rate_96k_24bit.wav": set(),
    "reversed_speech.wav": set(),
    "same_twice_copy_a.wav": set(),
    "same_twice_copy_b.flac": set(),
    "short_0_05s.wav": "TOO_SHORT",
    "silence_5s.wav": "SILENT",
    "stereo_antiphase.wav": {"ANTIPHASE"},
    "stereo_right_silent.wav": set(),
    "streamed_unknown_length.wav": set(),
    "surround_5_1.wav": set(),
    "text_named.wav": "NOT_AUDIO",
    "tone_1khz_3s.wav": {"NARROW_BAND"},
    "truncated_data.wav": {"TRUNCATED", "LENGTH_MISMATCH"},
    "truncated_header.wav": "TRUNCATED_HEADER",
    "very_quiet_speech.wav": {"QUIET"},
    "white_noise_3s.wav": set(),
    "zero_bytes.wav": "EMPTY_FILE",
    "имя с пробелом 语音 é.wav": set(),
}
"""Warnings of what is accepted, or the code of what is rejected."""
LENGTH = 30_393
SAME_SPEECH = (
    "flac_inside.mp3", "mp3_inside.wav", "nan_inf_float.wav", "same_twice_copy_a.wav", "same_twice_copy_b.flac",
    "streamed_unknown_length.wav", "very_quiet_speech.wav", "float_over_full_scale.wav", "dc_offset_speech.wav",
    "stereo_antiphase.wav", "stereo_right_silent.wav", "surround_5_1.wav", "mulaw_8k.wav", "alaw_8k.wav",
)  # fmt: skip


class Shard:
    """Runs decode over files through the harness, as a shard would."""

    def __init__(self, folder):
        self.folder, self.scratch = folder, ScratchAudio(folder)

    def run(self, *paths, settings=None, **facts):
        stage = Decode(Decode.Config(**(settings or {})))
        stage.open(Worker(self.folder, lambda *_: None))
        blank = {"member": None, "allowed_uses": [], "size": -1}
        items = [{"item_id": f"item{i}", "uri": str(p), **blank, **facts} for i, p in enumerate(paths)]
        run = StageRun(stage, "signature")
        rows = [row for batch in run.run([load_schema("source").batch(items)]) for row in batch.to_pylist()]
        stage.close()
        return rows, run.rejects

    def one(self, path, **options):
        rows, rejects = self.run(path, **options)
        assert not rejects
        return rows[0]

    def wave(self, row, channel=0):
        return self.scratch.read(row["recording_id"], channel, 0, row["num_samples"])


@pytest.fixture
def shard(tmp_path):
    return Shard(tmp_path / "scratch")


def tone(seconds=1.0, rate=16_000, hz=440.0, peak=0.5):
    return (peak * np.sin(2 * np.pi * hz * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


def noise(seconds=1.0, rate=16_000, seed=0, peak=0.5):
    wave = np.random.default_rng(seed).standard_normal(round(seconds * rate))
    return (peak * wave / np.abs(wave).max()).astype(np.float32)


def write(path, *channels, rate=16_000, subtype="FLOAT"):
    soundfile.write(path, np.stack(channels, axis=1), rate, subtype=subtype)
    return path


def likeness(a, b):
    """Largest correlation within 0.1 s of shift."""
    length = min(len(a), len(b)) - 3_200
    inner = a[1_600 : 1_600 + length]
    found = [np.dot(inner, b[s : s + length]) / np.linalg.norm(b[s : s + length]) for s in range(0, 3_200)]
    return max(found) / np.linalg.norm(inner)


def test_the_table_names_every_edge_file(shared_speech):
    assert {path.name for path in (shared_speech / "edge").iterdir()} == set(EDGE)


@pytest.mark.parametrize(("name", "expected"), EDGE.items())
def test_each_edge_file_ends_as_it_should(shared_speech, shard, name, expected):
    rows, rejects = shard.run(shared_speech / "edge" / name)
    if isinstance(expected, str):
        assert (rows, [r["code"] for r in rejects]) == ([], [expected])
        assert rejects[0]["detail"]
        assert rejects[0]["input_ref"].endswith(name)
        return
    (row,) = rows
    assert set(row["warnings"]) == expected
    wave = shard.wave(row)
    assert len(wave) == row["num_samples"] == shard.scratch.num_samples(row["recording_id"])
    assert np.isfinite(wave).all()
    assert 0.01 < np.abs(wave).max() <= 1.0
    assert shard.scratch.channels(f"{row['recording_id']}-source") == []


@pytest.mark.parametrize("name", SAME_SPEECH)
def test_the_same_words_come_out_of_every_wrapping(shared_speech, shard, name):
    reference = shard.wave(shard.one(shared_speech / "edge" / "ok_reference_16k.wav"))
    wave = shard.wave(shard.one(shared_speech / "edge" / name))
    assert abs(len(wave) - LENGTH) <= 1
    assert likeness(reference, wave) > 0.98


def test_lengths_come_from_the_data_not_from_the_header(shared_speech, shard):
    row = shard.one(shared_speech / "edge" / "truncated_data.wav")
    assert row["source_num_samples"] == row["num_samples"] == 18_227
    row = shard.one(shared_speech / "edge" / "rate_96k_24bit.wav")
    assert (row["source_num_samples"], row["num_samples"], row["source_sample_rate"]) == (96_000, 16_000, 96_000)


def test_every_shared_file_ends_as_a_recording_or_a_reject(shared_speech, shard):
    lines = (shared_speech / "manifest.jsonl").read_text(encoding="utf-8").splitlines()
    paths = [shared_speech / json.loads(line)["path"] for line in lines]
    rows, rejects = shard.run(*paths)
    assert len(rows) + len(rejects) == len(paths)
    assert {r["code"] for r in rejects} <= {
        "NOT_AUDIO", "TRUNCATED_HEADER", "EMPTY_FILE", "UNSUPPORTED_CODEC", "TOO_SHORT", "SILENT", "DUPLICATE",
    }  # fmt: skip


def test_decode_is_an_expand_stage(shard):
    stage = Decode(Decode.Config())
    assert isinstance(stage, Stage)
    assert (stage.spec.shape, stage.spec.parents) == ("expand", "item_id")


def test_declared_facts_travel_with_the_recording(tmp_path, shard):
    facts = {"speaker": "ann", "language": "en", "licence": "CC0", "consent_basis": "contract", "text": "hi"}
    row = shard.one(write(tmp_path / "a.wav", tone()), **facts, allowed_uses=["clone"], attributes='{"k": 1}')
    assert {name: row[name] for name in facts} == facts
    assert (row["allowed_uses"], row["attributes"], row["split"]) == (["clone"], '{"k": 1}', row["split"])
    assert (row["container"], row["codec"], row["gain_db"]) == ("wav", "float", 0.0)


def test_clean_sound_at_the_right_rate_is_not_touched(tmp_path, shard):
    wave = noise(25.0)
    np.testing.assert_array_equal(shard.wave(shard.one(write(tmp_path / "a.wav", wave))), wave)


def test_equal_bytes_are_one_recording(tmp_path, shard):
    a, b = write(tmp_path / "a.wav", tone()), write(tmp_path / "b.wav", tone())
    rows, rejects = shard.run(a, b)
    assert [row["item_id"] for row in rows] == ["item0"]
    assert [(r["record_id"], r["code"]) for r in rejects] == [("item1", "DUPLICATE")]
    rows, rejects = shard.run(a, duplicate_of="earlier")
    assert [(r["code"], "earlier" in r["detail"]) for r in rejects] == [("DUPLICATE", True)]


def test_a_missing_file_is_a_reject(tmp_path, shard):
    _, rejects = shard.run(tmp_path / "gone.wav")
    assert [r["code"] for r in rejects] == ["UNREADABLE"]


def test_split_keeps_a_channel_per_speaker(tmp_path, shard):
    left, right = tone(hz=300), noise()
    path = write(tmp_path / "call.wav", left, right)
    for options in ({"settings": {"channels": "split"}}, {"attributes": '{"channels": "split"}'}):
        row = shard.one(path, **options)
        assert row["num_channels"] == 2
        np.testing.assert_array_equal(shard.wave(row, 0), left)
        np.testing.assert_array_equal(shard.wave(row, 1), right)


def test_a_manifest_may_pick_a_channel(tmp_path, shard):
    path = write(tmp_path / "call.wav", tone(), noise())
    np.testing.assert_array_equal(shard.wave(shard.one(path, attributes='{"channel": 1}')), noise())
    _, rejects = shard.run(path, attributes='{"channel": 2}')
    assert [r["code"] for r in rejects] == ["CHANNEL_NOT_FOUND"]
    assert shard.one(path, attributes='{"channel": "my radio show"}')["num_channels"] == 1


def test_a_mix_is_the_mean_of_the_active_channels(tmp_path, shard):
    left, right, faint = tone(hz=300), noise(), noise(seed=1, peak=1e-4)
    row = shard.one(write(tmp_path / "a.wav", left, right, faint))
    np.testing.assert_allclose(shard.wave(row), (left + right) / 2, atol=1e-6)
    assert row["warnings"] == []


def test_antiphase_channels_do_not_cancel(tmp_path, shard):
    row = shard.one(write(tmp_path / "a.wav", noise(), -0.9 * noise()))
    assert row["warnings"] == ["ANTIPHASE"]
    np.testing.assert_allclose(shard.wave(row), noise(), atol=1e-6)


@pytest.mark.parametrize("rate", [8_000, 16_000, 44_100])
def test_an_offset_is_removed_without_a_click(tmp_path, shard, rate):
    row = shard.one(write(tmp_path / "a.wav", tone(12.0, rate, peak=0.2) + np.float32(0.3), rate=rate))
    wave = shard.wave(row)
    assert "DC_OFFSET" in row["warnings"]
    assert abs(wave.mean()) < 1e-3
    assert np.abs(wave).max() < 0.22


def test_levels_are_recorded_and_brought_into_range(tmp_path, shard):
    loud = shard.one(write(tmp_path / "loud.wav", noise(peak=4.0)))
    assert loud["warnings"] == ["OVER_FULL_SCALE"]
    assert loud["peak_dbfs"] == pytest.approx(12.04, abs=0.01)
    assert np.abs(shard.wave(loud)).max() == pytest.approx(0.999, abs=1e-4)
    np.testing.assert_allclose(shard.wave(loud), noise(peak=4.0) * 10 ** (loud["gain_db"] / 20), rtol=1e-4)
    quiet = shard.one(write(tmp_path / "quiet.wav", noise(peak=0.002)))
    assert quiet["warnings"] == ["QUIET"]
    assert np.abs(shard.wave(quiet)).max() == pytest.approx(10 ** (-3 / 20), abs=1e-4)


def test_clipping_is_a_share_of_samples(tmp_path, shard):
    row = shard.one(write(tmp_path / "a.wav", np.clip(noise(peak=2.0), -1, 1), subtype="PCM_16"))
    assert row["clipping_ratio"] == pytest.approx(np.mean(np.abs(noise(peak=2.0)) >= 1), abs=1e-3)
    assert "CLIPPED" in row["warnings"]


@pytest.mark.parametrize("broken", [np.nan, np.inf, -np.inf, 1e30])
def test_a_few_broken_samples_are_repaired_many_are_a_reject(tmp_path, shard, broken):
    wave = noise()
    wave[100:150] = broken
    row = shard.one(write(tmp_path / "few.wav", wave))
    assert row["warnings"] == ["NON_FINITE_REPAIRED"]
    np.testing.assert_array_equal(shard.wave(row)[100:150], 0)
    wave[:400] = broken
    _, rejects = shard.run(write(tmp_path / "many.wav", wave))
    assert [r["code"] for r in rejects] == ["NON_FINITE"]


def test_bandwidth_sees_through_upsampling(tmp_path, shard):
    from data_engine.io.decoding.resample import resample

    telephone = resample(noise(2.0, rate=8_000), 8_000, 48_000)
    row = shard.one(write(tmp_path / "up.wav", telephone, rate=48_000))
    assert 3_500 < row["bandwidth_hz"] <= 4_200
    assert row["warnings"] == ["NARROW_BAND"]
    assert shard.one(write(tmp_path / "full.wav", noise(2.0, rate=48_000), rate=48_000))["bandwidth_hz"] > 23_000


def test_limits_are_rejects(tmp_path, shard):
    path = write(tmp_path / "a.wav", noise(2.0))
    for settings, code in (({"min_seconds": 3}, "TOO_SHORT"), ({"max_hours": 1 / 3600}, "TOO_LONG")):
        _, rejects = shard.run(path, settings=settings)
        assert [r["code"] for r in rejects] == [code]
    assert not list((shard.folder / "audio").iterdir())


def test_a_wrong_length_is_a_warning_or_by_policy_a_reject(tmp_path, shard):
    path = write(tmp_path / "a.wav", noise(2.0), subtype="PCM_16")
    path.write_bytes(path.read_bytes()[:-30_000])
    assert shard.one(path)["warnings"] == ["TRUNCATED", "LENGTH_MISMATCH"]
    _, rejects = shard.run(path, settings={"length_mismatch": "reject"})
    assert [r["code"] for r in rejects] == ["LENGTH_MISMATCH"]
    path.write_bytes(write(path, noise(2.0), subtype="PCM_16").read_bytes()[:-2])
    assert shard.one(path)["warnings"] == ["TRUNCATED"]


def test_rejects_and_warnings_are_in_the_schemas():
    codes = next(f.values for f in load_schema("reject").fields if f.name == "code")
    assert {code for code in EDGE.values() if isinstance(code, str)} <= set(codes)
    warnings = next(f.values for f in load_schema("recording").fields if f.name == "warnings")
    assert set().union(*(w for w in EDGE.values() if isinstance(w, set))) <= set(warnings)


def test_the_rate_downstream_is_a_setting(tmp_path, shard):
    row = shard.one(write(tmp_path / "a.wav", tone(1.0, 44_100), rate=44_100), settings={"sample_rate": 24_000})
    assert (row["sample_rate"], row["num_samples"]) == (24_000, 24_000)


def test_the_same_file_gives_the_same_row_and_samples(tmp_path):
    path = write(tmp_path / "a.wav", noise(12.0, 44_100), tone(12.0, 44_100), rate=44_100)
    shards = [Shard(tmp_path / name) for name in "xy"]
    first, second = (shard.one(path) for shard in shards)
    assert pa.array([first]) == pa.array([second])
    np.testing.assert_array_equal(shards[0].wave(first), shards[1].wave(second))


@pytest.mark.parametrize(("declared", "kept"), [("test", True), ("validation", True), ("dev", False), (3, False)])
def test_a_declared_split_holds_where_it_is_one(tmp_path, shard, declared, kept):
    path = write(tmp_path / "a.wav", tone())
    row = shard.one(path, attributes=json.dumps({"split": declared}))
    assert row["split"] == (declared if kept else split_of(row["recording_id"]))
