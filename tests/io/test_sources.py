"""Listing sources and bringing their items here."""

import hashlib
import io
import json
import tarfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_engine.core.errors import ConfigError, RecordError
from data_engine.core.schema import load_schema
from data_engine.io.ingest.localize import Localizer, localize
from data_engine.io.sources import SourceConfig, list_source, source_digest


def fill(folder, **files):
    for name, content in files.items():
        path = folder / name.replace("__", "/").replace("_dot_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder


def rows(path, base, **settings):
    table = list_source(SourceConfig(path=str(path), **settings), base)
    for batch in table.to_batches():
        load_schema("source").check(batch, "listing")
    return table.to_pylist()


def content_of(row, scratch):
    local = localize(row, scratch)
    content = local.path.read_bytes()
    assert local.sha256 == hashlib.sha256(content).hexdigest()
    assert local.size == len(content)
    local.release()
    return content


@pytest.fixture
def folder(tmp_path):
    return fill(
        tmp_path / "corpus", b_dot_wav=b"bb", a__x_dot_MP3=b"xxx", a__notes_dot_txt=b"n", a__x_dot_TextGrid=b"t",
        _dot_hidden_dot_wav=b"h", c_dot_json=b"{}",
    )  # fmt: skip


def test_a_folder_lists_its_sound_files_sorted_and_openable(folder, tmp_path):
    listed = rows("corpus", tmp_path, language="de", allowed_uses=("asr",))
    assert [row["uri"] for row in listed] == [str(folder / "a/x.MP3"), str(folder / "b.wav")]
    assert [row["size"] for row in listed] == [3, 2]
    assert {row["language"] for row in listed} == {"de"}
    assert [row["allowed_uses"] for row in listed] == [["asr"], ["asr"]]
    assert [content_of(row, tmp_path / "s") for row in listed] == [b"xxx", b"bb"]
    assert (folder / "b.wav").exists()


def test_a_star_lists_every_file(folder, tmp_path):
    assert len(rows(folder, tmp_path, extensions=("*",))) == 5
    assert len(rows(folder, tmp_path, extensions=("txt",))) == 1


def test_globs_single_files_and_file_uris_are_sources(folder, tmp_path):
    assert len(rows("corpus/**/*.MP3", tmp_path)) == 1
    assert len(rows(folder / "c.json", tmp_path, kind="files")) == 1
    assert len(rows(f"file://{folder}", tmp_path)) == 2


def test_moving_a_source_changes_no_id_and_no_digest(folder, tmp_path):
    before = list_source(SourceConfig(path=str(folder)), tmp_path)
    folder.rename(tmp_path / "moved")
    after = list_source(SourceConfig(path="moved"), tmp_path)
    assert before.column("item_id") == after.column("item_id")
    assert source_digest(before) == source_digest(after)
    named = list_source(SourceConfig(path="moved", name="second"), tmp_path)
    assert not set(named.column("item_id").to_pylist()) & set(after.column("item_id").to_pylist())


def test_the_digest_sees_declared_facts(folder, tmp_path):
    plain = list_source(SourceConfig(path=str(folder)), tmp_path)
    consented = list_source(SourceConfig(path=str(folder), consent_basis="contract"), tmp_path)
    assert source_digest(plain) != source_digest(consented)


def test_later_copies_name_the_first(tmp_path):
    same = bytes(70_000)
    fill(tmp_path / "c", a_dot_wav=same, b_dot_wav=same[:-1] + b"x", c_dot_wav=same, d_dot_wav=b"", e_dot_wav=b"")
    listed = rows("c", tmp_path)
    assert [row["duplicate_of"] for row in listed] == [None, None, listed[0]["item_id"], None, None]
    assert {row["duplicate_of"] for row in rows("c", tmp_path, find_duplicates=False)} == {None}


def test_a_manifest_gives_facts_defaults_and_attributes(tmp_path):
    fill(tmp_path / "m", x_dot_wav=b"xx")
    lines = [
        {
            "audio_filepath": "x.wav",
            "speaker_id": "ann",
            "text": "hi",
            "allowed_uses": ["tts", "clone"],
            "z": 1,
            "a": "b",
        },
        {"audio_filepath": "gone/y.wav", "language": "fr"},
        {"audio_filepath": "s3://bucket/z.wav", "allowed_uses": "asr; tts"},
    ]
    (tmp_path / "m/list.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n\n", encoding="utf-8")
    listed = {row["uri"]: row for row in rows("m/list.jsonl", tmp_path, language="en", speaker="unknown")}
    first = listed[str(tmp_path / "m/x.wav")]
    assert (first["speaker"], first["text"], first["language"], first["size"]) == ("ann", "hi", "en", 2)
    assert first["allowed_uses"] == ["tts", "clone"]
    assert first["attributes"] == '{"a": "b", "z": 1}'
    gone = listed[str(tmp_path / "m/gone/y.wav")]
    assert (gone["language"], gone["speaker"], gone["size"]) == ("fr", "unknown", -1)
    assert listed["s3://bucket/z.wav"]["allowed_uses"] == ["asr", "tts"]
    with pytest.raises(RecordError, match="UNREADABLE"):
        localize(gone, tmp_path)


@pytest.mark.parametrize(("suffix", "comma"), [("csv", ","), ("tsv", "\t")])
def test_tables_are_manifests_with_named_columns(tmp_path, suffix, comma):
    table = [["where", "who", "extra"], ["x.wav", "bob", ""], ["/abs/ä b.wav", "", "7"]]
    text = "\ufeff" + "\n".join(comma.join(cells) for cells in table)
    (tmp_path / f"l.{suffix}").write_text(text, encoding="utf-8")
    listed = rows(f"l.{suffix}", tmp_path, columns={"where": "uri", "who": "speaker"}, speaker="nobody")
    assert [(row["uri"], row["speaker"], row["attributes"]) for row in listed] == [
        ("/abs/ä b.wav", "nobody", '{"extra": "7"}'),
        (str(tmp_path / "x.wav"), "bob", None),
    ]


def test_an_item_listed_twice_is_a_duplicate_with_an_id_of_its_own(tmp_path):
    (tmp_path / "l.jsonl").write_text('{"path": "x.wav"}\n{"path": "x.wav"}\n', encoding="utf-8")
    first, second = rows("l.jsonl", tmp_path, find_duplicates=False)
    assert first["item_id"] != second["item_id"]
    assert second["duplicate_of"] == first["item_id"]


@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_a_tar_lists_members_with_their_side_files(tmp_path, mode):
    path = tmp_path / ("s.tar" if mode == "w" else "s.tar.gz")
    files = {"b/2.flac": b"two", "b/1.flac": b"one!", "b/1.json": b'{"speaker": "ann", "k": 2}', "b/1.txt": b"hello\n"}
    with tarfile.open(path, mode) as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    one, two = rows(path, tmp_path)
    assert (one["member"], one["speaker"], one["text"], one["attributes"]) == ("b/1.flac", "ann", "hello", '{"k": 2}')
    assert (two["member"], two["size"], two["text"]) == ("b/2.flac", 3, None)
    scratch = tmp_path / "scratch"
    assert [content_of(row, scratch) for row in (two, one)] == [b"two", b"one!"]
    assert not list(scratch.iterdir())
    with pytest.raises(RecordError, match="no file 'absent'"):
        localize({**one, "member": "absent"}, scratch)


@pytest.mark.parametrize("form", ["parquet", "stream", "file"])
def test_a_data_set_lists_its_rows(tmp_path, form):
    count = 300
    sounds = [{"bytes": f"sound {i}".encode(), "path": f"{i}.wav"} for i in range(count)]
    table = pa.table({"id": list(range(count)), "audio": sounds, "sentence": [f"s{i}" for i in range(count)]})
    if form == "parquet":
        pq.write_table(table, tmp_path / "d.parquet", row_group_size=100)
    else:
        make = pa.ipc.new_stream if form == "stream" else pa.ipc.new_file
        with make(str(tmp_path / "d.arrow"), table.schema) as writer:
            writer.write_table(table, max_chunksize=70)
    listed = rows(tmp_path, tmp_path)
    assert len(listed) == count
    assert (listed[7]["member"], listed[7]["text"], listed[7]["attributes"]) == ("000000007", "s7", '{"id": 7}')
    localizer = Localizer()
    for index in (0, 299, 5, 150, 151):
        local = localizer.localize(listed[index], tmp_path / "s")
        assert local.path.read_bytes() == f"sound {index}".encode()
    with pytest.raises(RecordError, match="no row"):
        localizer.localize({**listed[0], "member": "000000300"}, tmp_path / "s")
    localizer.close()


def test_data_set_rows_may_point_to_files(tmp_path):
    fill(tmp_path / "d", x_dot_wav=b"sound")
    audio = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    table = pa.table({"audio": pa.array([{"bytes": None, "path": "x.wav"}], audio)})
    pq.write_table(table, tmp_path / "d/t.parquet")
    (row,) = rows("d", tmp_path, kind="huggingface")
    assert content_of(row, tmp_path / "s") == b"sound"


def test_remote_items_are_copied(tmp_path):
    import fsspec

    fsspec.filesystem("memory").pipe_file("/remote-listing/a.wav", b"far away")
    (row,) = rows("memory://remote-listing", tmp_path)
    assert row["uri"].startswith("memory://")
    assert content_of(row, tmp_path / "s") == b"far away"


def test_the_limit_takes_the_first_items(folder, tmp_path):
    assert len(rows(folder, tmp_path, limit=1)) == 1


@pytest.mark.parametrize(
    ("name", "content", "settings", "words"),
    [("missing", None, {}, "does not exist"), ("empty", None, {}, "nothing to decode"),
     ("l.jsonl", "{broken", {}, "line 1 is not JSON"), ("l.jsonl", "[1]", {}, "must be a JSON object"),
     ("l.jsonl", '{"foo": "x.wav"}', {}, "source.columns: no column"),
     ("l.jsonl", '{"path": "x"}\n{"text": "t"}', {}, "line 2 names no file"),
     ("l.csv", "path\nx.wav,too many\n", {}, "more cells"),
     ("l.csv", "path,who\nx.wav,a\n", {"columns": {"whom": "speaker"}}, r"no column \['whom'\]; it has"),
     ("l.csv", "path,a,b\nx,1,2\n", {"columns": {"a": "text", "b": "text"}}, "more than one column"),
     ("d.parquet", b"not parquet", {}, "damaged"), ("d.tar", b"not a tar", {}, "damaged"),
     ("scheme", None, {"path": "nosuchscheme://x"}, "cannot be opened")],
)  # fmt: skip
def test_mistakes_are_config_errors_that_name_the_remedy(tmp_path, name, content, settings, words):
    (tmp_path / "empty").mkdir()
    if content is not None:
        (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    settings = {"path": str(tmp_path / name), **settings}
    with pytest.raises(ConfigError, match=words):
        list_source(SourceConfig(**settings), tmp_path)
