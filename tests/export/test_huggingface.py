"""Hugging Face `datasets` reads our shards as they are, and the folder we export for it."""

from __future__ import annotations

import importlib.util
import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile

from data_engine.core.errors import ConfigError
from data_engine.core.schema import load_schema
from data_engine.export.catalog import export
from data_engine.export.split_files import SplitFiles
from data_engine.io.storage import Storage
from tests.rows import example, plain_row, segment, write_output

DECODE = """
import json, sys, datasets
for kind, files in json.loads(sys.argv[1]).items():
    for row in datasets.load_dataset(kind, data_files=files, split="train", cache_dir="cache"):
        wave, rate = row["audio"]["array"], row["audio"]["sampling_rate"]
        print(json.dumps([kind, row["segment_id"], rate, wave[:100].tolist(), len(wave)]))
"""


@pytest.fixture
def output(tmp_path: Path) -> str:
    voice = {**plain_row(load_schema("voice")), "audio": segment(0)["audio"], "licence": "CC0-1.0"}
    changes: dict[int, dict[str, str]] = {3: {"split": "test"}, 4: {"decision": "drop"}}
    segments = [segment(n, **changes.get(n, {})) for n in range(6)]
    examples = [[example(n, audio_q=segment(n)["audio"]) for n in range(3)], [example(3, split="validation")]]
    tables = {"segments": [segments[:4], segments[4:]], "aqaa": examples, "voices": [[voice]]}
    return write_output(tmp_path / "run", tables)


@pytest.fixture
def exported(output: str, tmp_path: Path) -> str:
    export(output, str(tmp_path / "hf"), "huggingface")
    return str(tmp_path / "hf")


def shards(output: str, table: str) -> list[str]:
    return sorted(str(path) for path in Path(output).glob(f"{table}/*.arrow"))


def flac_samples(audio: dict[str, Any]) -> np.ndarray:
    return soundfile.read(io.BytesIO(audio["bytes"]), dtype="float32")[0]


@pytest.fixture
def ffmpeg(tmp_path: Path) -> dict[str, str]:
    """Environment in which torchcodec finds the FFmpeg libraries inside the PyAV wheel, by the names it looks for.

    The wheel names them `libavcodec-<hash>.so.<version>`, torchcodec asks for `libavcodec.so.62`.
    """
    (root,) = importlib.util.find_spec("av").submodule_search_locations or ()
    folder = tmp_path / "ffmpeg"
    folder.mkdir()
    for library in Path(root).parent.glob("av.libs/*.so*"):
        short = re.sub(r"^(lib(?:av|sw)[a-z]+)-[0-9a-f]+\.so\.(\d+)\..*$", r"\1.so.\2", library.name)
        for name in {library.name, short}:
            (folder / name).symlink_to(library)
    return {**os.environ, "LD_LIBRARY_PATH": str(folder)}


@pytest.mark.parametrize("table", ["segments", "aqaa"])
def test_datasets_reads_our_shards_directly(output: str, table: str, tmp_path: Path) -> None:
    loaded = datasets.load_dataset(
        "arrow", data_files=shards(output, table), split="train", cache_dir=str(tmp_path / "cache")
    )
    schema = load_schema({"segments": "segment"}.get(table, table))
    assert loaded.column_names == list(schema.names)
    audio = [field.name for field in schema.fields if field.type == "struct<bytes: binary, path: string>"]
    assert audio == [name for name, feature in loaded.features.items() if isinstance(feature, datasets.Audio)]


def test_audio_of_a_shard_is_the_recording(output: str, tmp_path: Path) -> None:
    loaded = datasets.load_dataset(
        "arrow", data_files=shards(output, "segments"), split="train", cache_dir=str(tmp_path / "cache")
    ).cast_column("audio", datasets.Audio(decode=False))
    for number, row in enumerate(loaded):
        np.testing.assert_array_equal(flac_samples(row["audio"]), flac_samples(segment(number)["audio"]))


@pytest.mark.skipif(importlib.util.find_spec("torchcodec") is None, reason="torchcodec is not installed")
def test_the_audio_feature_decodes(output: str, exported: str, ffmpeg: dict[str, str], tmp_path: Path) -> None:
    files = {"arrow": shards(output, "segments"), "parquet": [f"{exported}/data/segments/*.parquet"]}
    # A process of its own: the dynamic loader reads LD_LIBRARY_PATH when a process starts.
    command = [sys.executable, "-c", DECODE, json.dumps(files)]
    done = subprocess.run(command, env=ffmpeg, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row[0] for row in rows] == ["arrow"] * 6 + ["parquet"] * 5
    for _, name, rate, first, length in rows:
        wanted = flac_samples(segment(int(name[1:]))["audio"])
        assert (rate, length) == (16000, wanted.size)
        np.testing.assert_array_equal(np.array(first, np.float32), wanted[:100])


def test_the_exported_folder_loads_by_table_and_split(output: str, exported: str, tmp_path: Path) -> None:
    def load(table: str) -> Any:
        return datasets.load_dataset(exported, table, cache_dir=str(tmp_path / "cache"))

    segments, examples, voices = load("segments"), load("aqaa"), load("voices")
    assert {name: part.num_rows for name, part in segments.items()} == {"train": 4, "test": 1}
    assert {name: part.num_rows for name, part in examples.items()} == {"train": 3, "validation": 1}
    assert {name: part.num_rows for name, part in voices.items()} == {"train": 1}
    for loaded in (segments, voices):
        assert isinstance(loaded["train"].features["audio"], datasets.Audio)
    assert examples["train"].features["input_ids"] == datasets.List(datasets.Value("int32"))
    first = segments["train"].cast_column("audio", datasets.Audio(decode=False))[0]
    assert first["words"] == [{"text": "segment", "start": 0, "num_samples": 2000}]
    np.testing.assert_array_equal(flac_samples(first["audio"]), flac_samples(segment(0)["audio"]))
    assert examples["validation"][0]["input_ids"] == example(3)["input_ids"]


def test_dropped_segments_stay_out_unless_asked_for(output: str, exported: str, tmp_path: Path) -> None:
    ids = pq.read_table(f"{exported}/data/segments").column("segment_id").to_pylist()
    assert sorted(ids) == ["s00000", "s00001", "s00002", "s00003", "s00005"]
    report = export(output, str(tmp_path / "all"), "huggingface", dropped=True, tables=("segments",))
    assert (report.rows, report.left_out) == ({"segments/train": 5, "segments/test": 1}, {})


def test_the_report_and_card_say_what_was_written(output: str, tmp_path: Path) -> None:
    target = tmp_path / "hf"
    report = export(output, str(target), "huggingface", split="train")
    assert report.rows == {"segments/train": 4, "aqaa/train": 3, "voices/train": 1}
    assert report.left_out == {"dropped": 1}
    written = sorted(str(path.relative_to(target)) for path in target.rglob("*") if path.is_file())
    assert sorted(report.files) == written
    assert "data/segments/train-00000-of-00001.parquet" in written
    card = (target / "README.md").read_text()
    for fact in ("license: cc0-1.0", "| segments | train | 4 |", "`audio-1`", "`text-1`", "a machine made", "- en"):
        assert fact in card


def test_an_export_has_the_same_bytes_every_time(output: str, exported: str, tmp_path: Path) -> None:
    export(output, str(tmp_path / "again"), "huggingface")
    for path in Path(exported).rglob("*.parquet"):
        assert path.read_bytes() == (tmp_path / "again" / path.relative_to(exported)).read_bytes()


def test_big_sets_are_cut_into_files_that_know_their_number(output: str, tmp_path: Path) -> None:
    files = SplitFiles(Storage(str(tmp_path / "out")), "data", tmp_path, max_bytes=1)
    for number in range(3):
        files.write("train", load_schema("segment").batch([segment(number)]))
    assert files.close() == [f"data/train-{number:05d}-of-00003.parquet" for number in range(3)]


def test_targets_are_local_folders_or_object_stores(output: str) -> None:
    report = export(output, "memory://hf-export", "huggingface", tables=("segments",))
    written = Storage("memory://hf-export").list("data/segments")
    assert sorted(report.files) == sorted(["README.md", *(f"data/segments/{name}" for name in written)])


def test_only_an_earlier_export_is_replaced_and_only_when_asked(output: str, exported: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is not empty"):
        export(output, exported, "huggingface")
    report = export(output, exported, "huggingface", overwrite=True, tables=("voices",))
    assert report.rows == {"voices/train": 1}
    assert not (Path(exported) / "data" / "segments").exists()
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "letter.txt").write_text("dear")
    with pytest.raises(ConfigError, match="other things than an export"):
        export(output, str(tmp_path / "home"), "huggingface", overwrite=True)
    assert (tmp_path / "home" / "letter.txt").read_text() == "dear"


def test_what_cannot_be_exported_is_refused(output: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no export format 'hf'; known: huggingface, trl"):
        export(output, str(tmp_path / "x"), "hf")
    with pytest.raises(ConfigError, match="no split 'val'"):
        export(output, str(tmp_path / "x"), "huggingface", "val")
    with pytest.raises(ConfigError, match="has no rows of preferences"):
        export(output, str(tmp_path / "x"), "huggingface", tables=("preferences",))


def test_every_column_has_a_feature_in_the_metadata(exported: str) -> None:
    schema = pq.read_schema(f"{exported}/data/aqaa/train-00000-of-00001.parquet")
    assert list(json.loads(schema.metadata[b"huggingface"])["info"]["features"]) == sorted(schema.names)
