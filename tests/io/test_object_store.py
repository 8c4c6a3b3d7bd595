"""The commit protocol on every kind of store, and what is particular to an S3-compatible one."""

import multiprocessing

import fsspec
import pytest
from fsspec.implementations.local import LocalFileSystem

from data_engine.core.errors import ConfigError, StorageError, TransientStorageError
from data_engine.io.shards import PartWriter, committed_parts, marker_name, read_batches
from data_engine.io.storage import Storage
from tests.io.faults import KINDS, REFUSALS
from tests.io.small_run import BRIEF, briefs, rows_of

ODD_NAMES = ("ä ö.json", "语音+1.json", "a%20b.json", "#1?.json", "x=1&y=2.json", "[b]*.json", "~.json")


class OtherStore(LocalFileSystem):
    """Stands for what is neither this disk nor an object store, such as SFTP: folders must be made there."""

    protocol = "otherstore"

    def __init__(self, **options):
        super().__init__(auto_mkdir=False, **options)

    @classmethod
    def _strip_protocol(cls, path):
        return super()._strip_protocol(str(path).removeprefix("otherstore://"))


@pytest.fixture(params=["local", "memory", "other", "s3"])
def storage(request, tmp_path):
    if request.param == "s3":
        return Storage(request.getfixturevalue("s3"))
    fsspec.register_implementation("otherstore", OtherStore, clobber=True)
    folder = {
        "local": str(tmp_path / "out"),
        "memory": f"memory://{tmp_path}/out",
        "other": f"otherstore://{tmp_path}/out",
    }
    return Storage(folder[request.param])


def part_of(storage, seeds, table="scripts", shard=0, vouched=True):
    with storage.scratch() as folder:
        writer = PartWriter(BRIEF, folder)
        writer.write(briefs(seeds))
        marker = writer.commit(storage, table, shard, {"signature": "s"})
    if vouched:
        storage.write_json(marker_name(table, shard), marker)
    return marker


class TestEveryStore:
    def test_writes_reads_lists_and_overwrites(self, storage):
        assert storage.list("t") == []
        storage.write("t/a.json", b"1")
        storage.write_json("t/b.json", {"ä": [1]})
        storage.write("t/sub/c", b"3")
        assert storage.list("t") == ["a.json", "b.json", "sub"]
        storage.write("t/a.json", b"22")
        with storage.open("t/a.json") as file:
            assert file.read() == b"22"
        assert storage.read_jsons(["t/a.json", "t/b.json", "t/none"]) == [22, {"ä": [1]}, None]

    def test_says_what_is_missing(self, storage):
        assert not storage.exists("t/a")
        assert storage.read_json("t/a") is None
        assert storage.list("t/a") == []
        with pytest.raises(FileNotFoundError), storage.open("t/a") as file:
            file.read()
        storage.remove("t/a")
        storage.remove_file("t/a")
        storage.write("t/a", b"x")
        assert storage.exists("t/a")
        assert storage.exists("t")
        assert not storage.exists("t/a/b")

    def test_removes_files_and_folders_and_nothing_beside_them(self, storage):
        for name in ("t/a", "t/b/c", "t/b/d/e", "tt", "t2/a"):
            storage.write(name, b"x")
        storage.remove("t/a")
        assert storage.list("t") == ["b"]
        storage.remove("t")
        assert (storage.list("t"), storage.exists("tt"), storage.list("t2")) == ([], True, ["a"])
        storage.remove_file("tt")
        assert not storage.exists("tt")

    def test_takes_any_name_literally(self, storage):
        for number, name in enumerate(ODD_NAMES):
            storage.write_json(f"odd/{name}", number)
        assert storage.list("odd") == sorted(ODD_NAMES)
        assert [storage.read_json(f"odd/{name}") for name in ODD_NAMES] == list(range(len(ODD_NAMES)))
        storage.remove("odd/[b]*.json")
        assert storage.list("odd") == sorted(set(ODD_NAMES) - {"[b]*.json"})
        storage.remove("odd")
        assert storage.list("odd") == []

    def test_an_empty_file_is_a_file(self, storage):
        storage.write("t/empty", b"")
        assert storage.exists("t/empty")
        assert storage.read_json("t/empty") is None
        with storage.open("t/empty") as file:
            assert file.read() == b""

    def test_a_finished_file_is_put_in_place_and_replaces_the_old_one(self, storage, tmp_path):
        for content in (b"old", b"new!"):
            (tmp_path / "x").write_bytes(content)
            storage.put(tmp_path / "x", "t/x")
        with storage.open("t/x", size=4) as file:
            assert file.read() == b"new!"
        storage.get("t/x", tmp_path / "back")
        assert (tmp_path / "back").read_bytes() == b"new!"

    def test_a_part_without_its_marker_does_not_exist(self, storage):
        part_of(storage, [1, 2], shard=0)
        part_of(storage, [3], shard=1, vouched=False)
        assert {shard: len(rows) for shard, rows in rows_of(storage, "scripts").items()} == {0: 2}

    def test_another_process_or_instance_sees_a_change_at_once(self, storage):
        other = Storage(storage.uri)
        assert (other.list("t"), other.exists("t/a")) == ([], False)
        storage.write("t/a", b"1")
        assert (other.list("t"), other.exists("t/a")) == (["a"], True)
        storage.remove("t/a")
        assert (other.list("t"), other.exists("t/a")) == ([], False)

    def test_a_part_that_is_gone_or_damaged_names_the_remedy(self, storage):
        marker = part_of(storage, [1, 2, 3])
        name = f"scripts/{marker['file']}"
        with storage.open(name) as file:
            content = file.read()
        (part,) = committed_parts(storage, "scripts")
        for damage in (content[:100], content[:-40], b""):
            storage.write(name, damage)
            with pytest.raises(StorageError, match=r"Remove its marker 'scripts/part-00000\.json' and run again"):
                list(read_batches(storage, part))
        storage.remove(name)
        with pytest.raises(StorageError, match="cannot be read"):
            list(read_batches(storage, part))


class TestUnfinishedUploads:
    @pytest.fixture
    def small_parts(self, monkeypatch):
        monkeypatch.setattr("data_engine.io.remote.filesystems.PART_BYTES", 5 << 20)  # the least that S3 takes

    def test_on_a_local_disk_are_not_listed(self, tmp_path):
        storage = Storage(str(tmp_path))
        storage.write("t/a", b"x")
        (tmp_path / "t" / ".b.0123abcd.tmp").write_bytes(b"half")
        assert storage.list("t") == ["a"]

    def test_in_memory_are_not_seen(self, tmp_path, monkeypatch):
        storage = Storage(f"memory://{tmp_path}")
        (tmp_path / "x").write_bytes(b"whole")
        seen = []
        inner = fsspec.implementations.memory.MemoryFile.commit

        def commit(file):
            inner(file)
            seen.append(bytes(storage.fs.cat_file(storage.path("x"))))

        monkeypatch.setattr(fsspec.implementations.memory.MemoryFile, "commit", commit)
        storage.put(tmp_path / "x", "x")
        assert seen == [b"whole"]

    @pytest.mark.parametrize("kind", ["503", "lost"])
    def test_on_s3_are_not_seen_and_finish_when_tried_again(self, s3, proxy, faulty, tmp_path, small_parts, kind):
        content = bytes(range(256)) * (11 << 12)  # three parts
        (tmp_path / "x").write_bytes(content)
        direct, seen = Storage(s3), []
        posts = {"completing": 0}

        def faults(number):
            method, path = proxy.requests[-1]
            completing = method == "POST" and "uploadId" in path
            posts["completing"] += completing
            return kind if completing and posts["completing"] == 1 else None

        proxy.reset(faults, lambda: seen.append(direct.list("t")))
        Storage(s3, {**faulty, "config_kwargs": {}}).put(tmp_path / "x", "t/x")
        assert seen[0] == []
        with direct.open("t/x") as file:
            assert file.read() == content
        assert direct.fs.list_multipart_uploads("engine") == []

    def test_on_s3_leave_nothing_behind_when_they_are_given_up(self, s3, proxy, faulty, tmp_path, small_parts):
        (tmp_path / "x").write_bytes(bytes(11 << 20))
        proxy.reset(lambda number: "503" if "partNumber=2" in proxy.requests[-1][1] else None)
        quick = {**faulty, "config_kwargs": {}, "retry": {"attempts": 2, "first_seconds": 0.01}}
        with pytest.raises(TransientStorageError, match=r"'engine/.*/t/x' could not be reached in 2 attempts"):
            Storage(s3, quick).put(tmp_path / "x", "t/x")
        assert Storage(s3).list("t") == []
        assert Storage(s3).fs.list_multipart_uploads("engine") == []


class TestS3:
    @pytest.mark.parametrize("variable", ["AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"])
    def test_the_server_is_named_by_the_environment(self, s3, proxy, monkeypatch, variable):
        monkeypatch.setenv(variable, proxy.url)
        Storage(s3).write("a", b"x")
        assert [method for method, _ in proxy.requests] == ["PUT"]

    def test_nobody_below_retries_what_the_store_answers(self, s3, proxy, faulty):
        proxy.reset(lambda number: "503")
        storage = Storage(s3, {**faulty, "retry": {"attempts": 3, "first_seconds": 0.01}})
        for operation in (
            lambda: storage.read_json("a"), lambda: storage.list("a"), lambda: storage.write("a", b"x"),
            lambda: storage.exists("a"), lambda: storage.open("a").read(), lambda: storage.remove_file("a"),
        ):  # fmt: skip
            before = len(proxy.requests)
            with pytest.raises(TransientStorageError, match="in 3 attempts"):
                operation()
            assert len(proxy.requests) - before == 3

    @pytest.mark.parametrize("kind", KINDS)
    def test_a_failing_store_is_never_an_answer(self, s3, proxy, faulty, kind):
        Storage(s3).write("t/a", b"1")
        proxy.reset(lambda number: kind)
        storage = Storage(s3, {**faulty, "retry": {"attempts": 1}})
        reads = [lambda: storage.read_json("t/a"), lambda: storage.list("t"), lambda: storage.open("t/a").read()]
        for read in reads:
            with pytest.raises(TransientStorageError):
                read()

    def test_what_no_retry_mends_is_asked_once(self, s3, proxy, faulty):
        storage = Storage(s3, faulty)
        for kind, words in zip(REFUSALS, ("AccessDenied|Access Denied", "refuses the credentials"), strict=True):
            proxy.reset(lambda number, kind=kind: kind)
            for operation in (lambda: storage.read_json("a"), lambda: storage.write("a", b"x")):
                with pytest.raises(StorageError, match=words):
                    operation()
            assert len(proxy.requests) == 2

    def test_a_bucket_that_does_not_exist_is_named_when_something_is_written(self, s3):
        with pytest.raises(StorageError, match=r"'nowhere-at-all/x/a'.*bucket does not exist.*Make the bucket"):
            Storage("s3://nowhere-at-all/x").write("a", b"x")

    def test_without_credentials_the_configuration_is_wrong(self, s3, monkeypatch):
        monkeypatch.delenv("AWS_ACCESS_KEY_ID")
        monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
        with pytest.raises(ConfigError, match=r"no credentials .*AWS_ACCESS_KEY_ID"):
            Storage(s3, {"config_kwargs": {"read_timeout": 7}}).read_json("a")

    def test_an_option_nobody_knows_is_named(self, s3):
        with pytest.raises(ConfigError, match=r"retry: .*'tries'.*attempts, first_seconds"):
            Storage(s3, {"retry": {"tries": 3}})

    def test_a_forked_process_reads_too(self, s3):
        storage = Storage(s3)
        storage.write_json("a", {"n": 1})
        context = multiprocessing.get_context("fork")
        ours, theirs = context.Pipe()
        child = context.Process(target=lambda: theirs.send(storage.read_json("a")), daemon=True)
        child.start()
        assert ours.poll(30)
        assert ours.recv() == {"n": 1}
        child.join()

    def test_a_folder_made_in_a_console_is_no_file(self, s3):
        storage = Storage(s3)
        storage.fs.pipe_file(f"{storage.root}/t/", b"")
        storage.write("t/a", b"x")
        assert storage.list("t") == ["a"]
        storage.remove("t")
        assert storage.list("t") == []
