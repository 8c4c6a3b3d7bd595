"""What is visible is whole: local disk and memory store."""

import os
import tempfile

import pyarrow as pa
import pytest

from data_engine.core.errors import ConfigError, StorageError
from data_engine.io.storage import Storage


@pytest.fixture(params=["local", "memory"])
def storage(request, tmp_path):
    return Storage(str(tmp_path / "out") if request.param == "local" else f"memory://{tmp_path}/out")


def test_what_is_written_can_be_read_listed_and_removed(storage):
    storage.write("table/a.json", b"{}")
    storage.write_json("table/b.json", {"ä": 1})
    assert storage.list("table") == ["a.json", "b.json"]
    assert storage.read_json("table/b.json") == {"ä": 1}
    assert storage.exists("table/a.json")
    storage.remove("table")
    assert not storage.exists("table/a.json")
    assert storage.list("table") == []


def test_a_missing_or_cut_json_is_none(storage):
    assert storage.read_json("nothing.json") is None
    storage.write("cut.json", b'{"file": "par')
    assert storage.read_json("cut.json") is None


def test_a_finished_file_is_moved_in_whole(storage):
    with storage.scratch() as folder:
        (folder / "x").write_bytes(b"abc")
        storage.put(folder / "x", "table/x")
    assert not folder.exists()
    with storage.open("table/x") as file:
        assert file.read() == b"abc"


def test_arrow_reads_a_local_file_without_python(tmp_path):
    """Its threads may let go of a file while the interpreter ends; a file of Python's would then abort the process."""
    storage = Storage(str(tmp_path))
    storage.write("table/x", b"abc")
    with storage.open_arrow("table/x") as file:
        assert isinstance(file, pa.OSFile)
        assert file.read() == b"abc"
    with pytest.raises(FileNotFoundError):
        storage.open_arrow("table/y")


def test_an_unknown_protocol_is_a_configuration_error():
    with pytest.raises(ConfigError, match="cannot open 'nosuch://bucket'.*nosuch"):
        Storage("nosuch://bucket")


def test_a_failed_write_leaves_the_old_content_and_no_temporary_file(tmp_path, monkeypatch):
    storage = Storage(str(tmp_path))
    storage.write("a.json", b"old")

    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match="no space left for .*Free space or choose another --output"):
        storage.write("a.json", b"new")
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]
    assert (tmp_path / "a.json").read_bytes() == b"old"


def test_scratch_of_killed_processes_is_removed_and_that_of_living_ones_kept(tmp_path):
    storage = Storage(str(tmp_path))
    host = os.uname().nodename
    dead, alive = tmp_path / "work/tmp" / f"{host}-4194305-x", tmp_path / "work/tmp" / f"{host}-{os.getpid()}-x"
    for folder in (dead, alive):
        folder.mkdir(parents=True)
    storage.remove_stale_scratch()
    assert not dead.exists()
    assert alive.exists()


def test_scratch_of_a_remote_output_lies_on_this_machine_and_is_cleaned_up_too(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    storage = Storage("memory://anywhere")
    with storage.scratch() as folder:
        assert folder.parent == tmp_path
        left = tmp_path / folder.name.replace(f"-{os.getpid()}-", "-4194305-")
        left.mkdir()
        (tmp_path / "of-somebody-else").mkdir()
        storage.remove_stale_scratch()
        assert folder.exists()
    assert [path.name for path in tmp_path.iterdir()] == ["of-somebody-else"]
