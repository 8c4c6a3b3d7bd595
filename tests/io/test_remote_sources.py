"""Sources on object stores and web servers are listed and read in place, with the same retries."""

import json
import tarfile
import traceback

import pytest

from data_engine.core.errors import ConfigError, RecordError, ShardError, StorageError, TransientStorageError
from data_engine.io.ingest.localize import Localizer
from data_engine.io.sources import SourceConfig, list_source
from data_engine.io.storage import Storage
from tests.io.faults import once


class TestSources:
    @pytest.fixture
    def corpus(self, s3, tmp_path):
        storage = Storage(f"{s3}/corpus")
        for name, content in {"b ä.wav": b"bb", "sub/a.flac": b"aaa", "notes.txt": b"n", ".hidden.wav": b"h"}.items():
            storage.write(name, content)
        storage.fs.pipe_file(f"{storage.root}/sub/", b"")
        (tmp_path / "x").write_bytes(b"in the archive")
        with tarfile.open(tmp_path / "t.tar.gz", "w:gz") as archive:
            archive.add(tmp_path / "x", "m.wav")
        storage.write("packed/t.tar.gz", (tmp_path / "t.tar.gz").read_bytes())
        lines = [{"path": "b ä.wav"}, {"path": f"{s3}/corpus/sub/a.flac"}, {"path": "gone.wav"}]
        storage.write("m.jsonl", "\n".join(json.dumps(line) for line in lines).encode())
        return storage

    def listed(self, uri, tmp_path, **settings):
        return list_source(SourceConfig(path=uri, **settings), tmp_path).to_pylist()

    def test_folders_globs_files_manifests_and_archives_are_read_in_place(self, corpus, tmp_path):
        folder = self.listed(corpus.uri, tmp_path)
        assert [(row["uri"], row["size"]) for row in folder] == [
            (f"{corpus.uri}/b ä.wav", 2), (f"{corpus.uri}/sub/a.flac", 3)]  # fmt: skip
        assert len(self.listed(f"{corpus.uri}/**/*.flac", tmp_path)) == 1
        assert len(self.listed(f"{corpus.uri}/b ä.wav", tmp_path)) == 1
        (packed,) = self.listed(f"{corpus.uri}/packed", tmp_path)
        manifest = self.listed(f"{corpus.uri}/m.jsonl", tmp_path)
        localizer = Localizer()
        contents = []
        for row in (*folder, packed, *manifest):
            if "gone" in row["uri"]:
                with pytest.raises(RecordError, match="UNREADABLE"):
                    localizer.localize(row, tmp_path / "s")
            else:
                contents.append(localizer.localize(row, tmp_path / "s").path.read_bytes())
        localizer.close()
        assert sorted(contents) == [b"aaa", b"aaa", b"bb", b"bb", b"in the archive"]

    def test_a_source_that_is_not_there_is_a_configuration_error(self, corpus, tmp_path):
        with pytest.raises(ConfigError, match="does not exist"):
            self.listed(f"{corpus.uri}/nothing", tmp_path)
        with pytest.raises(ConfigError, match="source.path: .*holds a password"):
            self.listed("s3://key:hunter2@bucket/x", tmp_path)

    @pytest.mark.parametrize("what", ["", "/**/*.flac", "/m.jsonl", "/packed"])
    def test_one_fault_at_any_request_of_a_listing_changes_nothing(self, corpus, proxy, monkeypatch, tmp_path, what):
        right = self.listed(f"{corpus.uri}{what}", tmp_path)
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        assert self.listed(f"{corpus.uri}{what}", tmp_path) == right
        for number in range(1, len(proxy.requests) + 1):
            proxy.reset(once(("500", "refused", "truncated")[number % 3], number))
            assert self.listed(f"{corpus.uri}{what}", tmp_path) == right

    def test_a_store_that_is_down_is_neither_an_empty_source_nor_a_reject(self, corpus, proxy, monkeypatch, tmp_path):
        row = self.listed(corpus.uri, tmp_path)[0]
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        monkeypatch.setattr("data_engine.io.retry.time.sleep", lambda seconds: None)
        monkeypatch.setattr("data_engine.io.retry.Backoff.pause", lambda *given: 0.0)
        proxy.reset(lambda number: "503")
        with pytest.raises(TransientStorageError):
            self.listed(corpus.uri, tmp_path)
        with pytest.raises(ShardError):
            Localizer().localize(row, tmp_path / "s")

    def test_an_object_one_may_not_have_is_a_reject_and_bad_credentials_end_the_run(
        self, corpus, proxy, monkeypatch, tmp_path
    ):
        row = self.listed(corpus.uri, tmp_path)[0]
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        proxy.reset(lambda number: "denied")
        with pytest.raises(RecordError, match="UNREADABLE"):
            Localizer().localize(row, tmp_path / "s")
        proxy.reset(lambda number: "expired")
        with pytest.raises(StorageError, match="refuses the credentials"):
            Localizer().localize(row, tmp_path / "s")

    def test_a_web_server_is_read_too_and_its_faults_are_told_apart(self, corpus, proxy, monkeypatch, tmp_path):
        monkeypatch.setattr("data_engine.io.retry.Backoff.pause", lambda *given: 0.0)
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        signed = Storage(corpus.uri).fs.sign(f"{corpus.root}/sub/a.flac", expiration=600)
        row = {"item_id": "i", "uri": signed, "member": None}
        assert Localizer().localize(row, tmp_path / "s").path.read_bytes() == b"aaa"
        proxy.reset(once("truncated", 1))
        assert Localizer().localize(row, tmp_path / "s").path.read_bytes() == b"aaa"
        for kind, error in (("503", ShardError), ("truncated", ShardError), ("denied", RecordError)):
            proxy.reset(lambda number, kind=kind: kind)
            with pytest.raises(error) as caught:
                Localizer().localize(row, tmp_path / "s")
            assert "Signature=" in signed
            assert signed.rpartition("Signature=")[2] not in "".join(traceback.format_exception(caught.value))
        proxy.reset()
        with Localizer().opened(row["uri"], None) as file:
            assert (file.seek(1), file.read()) == (1, b"aa")
        with pytest.raises(RecordError, match="UNREADABLE"):
            Localizer().localize({**row, "uri": signed.replace("a.flac", "gone.flac")}, tmp_path / "s")
