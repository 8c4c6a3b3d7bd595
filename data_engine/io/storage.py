"""Storage through fsspec: local disks, object stores and memory behind one small class.

Nothing assumes a rename. What is visible is whole: a local file is written beside its target, synced and
renamed; an object store makes an object visible when its upload is complete. Remote operations are retried
(`io.retry`), so that what fails has failed for a while; what cannot succeed fails at once. Listings are never cached.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import pyarrow as pa

from data_engine.core.errors import EngineError, StorageError
from data_engine.core.redaction import refuse_secret_uri
from data_engine.io.remote.filesystems import Remote
from data_engine.io.remote.ranges import open_remote
from data_engine.io.remote.removal import remove_tree
from data_engine.io.retry import Result, describe, shown_cause

_READERS = 16
_MISSING = (FileNotFoundError, NotADirectoryError)


class Storage:
    """A folder somewhere.

    Args:
        uri: Local path or any fsspec URI, without credentials.
        options: Options of the file system, and `retry`: fields of `io.retry.Backoff`. Credentials and the address of
            an S3-compatible server come from the environment.

    Raises:
        ConfigError: Nobody knows the protocol, its library is not installed, or the URI holds a password.
    """

    def __init__(self, uri: str, options: Mapping[str, Any] | None = None) -> None:
        self.uri = str(uri)
        refuse_secret_uri(self.uri, "storage")
        self.remote = Remote(self.uri, options)
        self.root, self.is_local = self.remote.root, self.remote.is_local

    @property
    def fs(self) -> Any:
        """The fsspec file system, for what is not offered here; nothing is retried there."""
        return self.remote.fs

    def path(self, name: str) -> str:
        """Returns the full path of `name` inside the folder."""
        return f"{self.root.rstrip('/')}/{name}" if name else str(self.root)

    def exists(self, name: str) -> bool:
        """Tells whether `name` exists now."""
        if self.is_local:
            with _storage_errors("read", self.path(name), True):
                return Path(self.path(name)).exists()
        try:
            self._read(name, lambda fs, path: fs.info(path))
        except _MISSING:
            return False
        return True

    def list(self, folder: str) -> list[str]:
        """Returns the sorted names inside `folder`; empty when it does not exist. Unfinished files are left out."""
        try:
            found = self._read(folder, lambda fs, path: fs.ls(path, detail=False))
        except _MISSING:
            return []
        paths = {str(path).rstrip("/") for path in found} - {self.path(folder).rstrip("/")}
        names = (path.rsplit("/", 1)[-1] for path in paths)
        return sorted(name for name in names if not (name.startswith(".") and name.endswith(".tmp")))

    def open(self, name: str, size: int | None = None) -> IO[bytes]:
        """Opens `name` for reading.

        Args:
            name: File inside the folder.
            size: Its length in bytes if known, which saves a request.

        Raises:
            FileNotFoundError: It does not exist; with the first read when an object store is asked.
            TransientStorageError: The store kept failing; also with any read.
        """
        with _storage_errors("read", self.path(name), self.is_local):
            if self.is_local:
                return self.fs.open(self.path(name), "rb")  # type: ignore[no-any-return]
            return open_remote(self.remote, self.path(name), size)

    def open_arrow(self, name: str, size: int | None = None) -> Any:
        """Opens `name` as `open` does, for a reader of Arrow's: a local file is none of Python's.

        A thread of Arrow's that lets go of a Python file while the interpreter ends aborts the process ("terminate
        called without an active exception", apache/arrow#45017); files in object stores keep that small risk.
        """
        if not self.is_local:
            return self.open(name, size)
        with _storage_errors("read", self.path(name), True):
            return pa.OSFile(self.path(name))

    def get(self, name: str, local: Path) -> None:
        """Copies `name` to a local file."""
        self._read(name, lambda fs, path: fs.get_file(path, str(local)))

    def read_json(self, name: str) -> Any | None:
        """Returns the JSON in `name`; None when it is missing or was cut off while being written.

        Raises:
            TransientStorageError: The store kept failing: whether there is something is not known.
        """
        try:
            with _storage_errors("read", self.path(name), self.is_local):
                content = self.remote.read(self.path(name))
            return json.loads(content)
        except (*_MISSING, ValueError):
            return None

    def read_jsons(self, names: Sequence[str]) -> Sequence[Any | None]:
        """Returns `read_json` of each name; from a remote store many at a time."""
        if self.is_local or len(names) < 2:
            return [self.read_json(name) for name in names]
        with ThreadPoolExecutor(min(_READERS, len(names))) as pool:
            return list(pool.map(self.read_json, names))

    def write(self, name: str, content: bytes) -> None:
        """Writes `name` so that it is seen whole or not at all.

        Raises:
            StorageError: The target cannot be written: disk full, no permission, no such bucket.
            TransientStorageError: The store kept failing.
        """
        if self.is_local:
            with _storage_errors("write", self.path(name), True):
                _write_local(Path(self.path(name)), content, self._temporary(name))
        else:
            self._write(name, lambda fs, path: fs.pipe_file(path, content))

    def _temporary(self, name: str) -> Path:
        """Returns where a file grows: among the scratch of an output, where what a killed process left is removed."""
        target, own = Path(self.path(name)), f"{os.getpid()}-{uuid.uuid4().hex[:8]}.tmp"
        scratch = Path(self.path("work/tmp"))
        if scratch.is_dir():
            return scratch / f"{os.uname().nodename}-{own}"
        return target.with_name(f".{target.name}.{own}")

    def write_json(self, name: str, value: Any) -> None:
        """Writes JSON for people and programs: indented, keys in the given order."""
        self.write(name, (json.dumps(value, ensure_ascii=False, indent=2) + "\n").encode())

    def put(self, local: Path, name: str) -> None:
        """Moves a finished local file to `name`, where it is seen whole or not at all; raises what `write` raises."""
        if self.is_local:
            with _storage_errors("write", self.path(name), True):
                _move_local(local, Path(self.path(name)))
        elif "memory" in self.remote.protocols:  # its put_file shows the file while it grows
            self.write(name, local.read_bytes())
        else:
            self._write(name, lambda fs, path: fs.put_file(str(local), path, **self.remote.upload_options))

    def remove(self, name: str) -> None:
        """Removes a file or folder if it is there.

        Raises:
            StorageError: It is still there after several attempts, or cannot be removed.
            TransientStorageError: The store kept failing.
        """
        if self.is_local:
            with _storage_errors("remove", self.path(name), True):
                if self.fs.exists(self.path(name)):
                    self.fs.rm(self.path(name), recursive=True)
            return
        with _storage_errors("remove", self.path(name), False):
            self.fs.invalidate_cache()
            remove_tree(self.remote, self.path(name))

    def remove_file(self, name: str) -> None:
        """Removes a file if it is there, with one request and without looking first."""
        try:
            self._read(name, lambda fs, path: fs.rm_file(path))
        except _MISSING:
            return

    def _read(self, name: str, operation: Callable[[Any, str], Result]) -> Result:
        """Asks the store; a FileNotFoundError is an answer, everything else an error of the engine."""
        path = self.path(name)
        with _storage_errors("reach", path, self.is_local):
            self.fs.invalidate_cache()
            return self.remote.ask(path, lambda fs: operation(fs, path))

    def _write(self, name: str, operation: Callable[[Any, str], Any]) -> None:
        def prepared(fs: Any, path: str) -> None:
            if not self.remote.is_object_store:
                fs.makedirs(path.rpartition("/")[0], exist_ok=True)
            operation(fs, path)

        try:
            self._read(name, prepared)
        except _MISSING as error:
            raise StorageError(
                f"cannot write '{self.path(name)}': {describe(error)}. Make the bucket or correct the URI."
            ) from shown_cause(error)

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """Yields a temporary folder, on the disk of the output when that is local, and removes it."""
        parent, prefix = self._scratch_place()
        with _storage_errors("write", str(parent), True):
            parent.mkdir(parents=True, exist_ok=True)
            folder = Path(tempfile.mkdtemp(prefix=f"{prefix}{os.getpid()}-", dir=parent))
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _scratch_place(self) -> tuple[Path, str]:
        """Returns where temporary folders of this output lie on this machine, and how their names begin."""
        if self.is_local:
            return Path(self.path("work/tmp")), f"{os.uname().nodename}-"
        return Path(tempfile.gettempdir()), f"speech-data-engine-{os.uname().nodename}-"

    def remove_stale_scratch(self) -> None:
        """Removes temporary folders and files that killed processes of this machine left behind."""
        parent, prefix = self._scratch_place()
        for left in parent.glob(f"{prefix}*"):
            pid = left.name.removeprefix(prefix).split("-")[0]
            if pid.isdigit() and not _is_running(int(pid)):
                shutil.rmtree(left, ignore_errors=True) if left.is_dir() else left.unlink(missing_ok=True)


def _is_running(pid: int) -> bool:
    """Tells whether a process of this machine lives; one that ended and was not waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def _write_local(target: Path, content: bytes, temporary: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        with temporary.open("wb") as file:
            file.write(content)
            _sync(file)
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


def _move_local(source: Path, target: Path) -> None:
    with source.open("rb") as file:  # on disk before the marker that vouches for it
        os.fsync(file.fileno())
    target.parent.mkdir(parents=True, exist_ok=True)
    source.replace(target)


def _sync(file: IO[bytes]) -> None:
    file.flush()
    os.fsync(file.fileno())


@contextmanager
def _storage_errors(verb: str, path: str, is_local: bool) -> Iterator[None]:
    """Turns what a file system raises into errors of the engine; a missing file stays FileNotFoundError."""
    try:
        yield
    except (EngineError, FileNotFoundError):
        raise
    except Exception as error:
        found = getattr(error, "errno", None)
        if isinstance(error, _MISSING) and not is_local:
            raise
        if found == errno.ENOSPC:
            raise StorageError(
                f"no space left for '{path}'. Free space or choose another --output, then run the same command "
                "again: committed shards are kept."
            ) from error
        if is_local and found in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EDQUOT):
            raise StorageError(f"cannot {verb} '{path}': {os.strerror(found)}. Choose another --output.") from error
        if is_local:
            raise
        raise StorageError(
            f"cannot {verb} '{path}': {describe(error)}. Check the URI, the bucket's rights and the options."
        ) from shown_cause(error)
