"""Storage through fsspec: local disks, object stores and memory behind one small class.

Nothing assumes a rename. What is visible is whole: a local file is written beside its target, synced and
renamed; an object store makes an object visible when its upload is complete.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import fsspec

from data_engine.core.errors import ConfigError, StorageError


class Storage:
    """A folder somewhere.

    Args:
        uri: Local path or any fsspec URI.
        options: Options of the file system; credentials come from the environment instead.

    Raises:
        ConfigError: Nobody knows the protocol, or its library is not installed.
    """

    def __init__(self, uri: str, options: Mapping[str, Any] | None = None) -> None:
        self.uri = str(uri)
        try:
            self.fs, self.root = fsspec.core.url_to_fs(self.uri, **dict(options or {}))
        except (ValueError, ImportError) as error:
            raise ConfigError(f"cannot open '{self.uri}': {error}") from error
        self.is_local = "file" in self.fs.protocol or self.fs.protocol == "file"

    def path(self, name: str) -> str:
        """Returns the full path of `name` inside the folder."""
        return f"{self.root.rstrip('/')}/{name}" if name else str(self.root)

    def exists(self, name: str) -> bool:
        """Tells whether `name` exists now; listings are never cached."""
        self.fs.invalidate_cache()
        return bool(self.fs.exists(self.path(name)))

    def list(self, folder: str) -> list[str]:
        """Returns the sorted names inside `folder`; empty when it does not exist."""
        self.fs.invalidate_cache()
        try:
            found = self.fs.ls(self.path(folder), detail=False)
        except FileNotFoundError:
            return []
        return sorted(str(path).rstrip("/").rsplit("/", 1)[-1] for path in found)

    def open(self, name: str) -> IO[bytes]:
        """Opens `name` for reading."""
        return self.fs.open(self.path(name), "rb")  # type: ignore[no-any-return]

    def read_json(self, name: str) -> Any | None:
        """Returns the JSON in `name`; None when it is missing or was cut off while being written."""
        self.fs.invalidate_cache()
        try:
            return json.loads(self.fs.cat_file(self.path(name)))
        except (FileNotFoundError, ValueError):
            return None

    def write(self, name: str, content: bytes) -> None:
        """Writes `name` so that it is seen whole or not at all.

        Raises:
            StorageError: The target cannot be written: disk full, no permission.
        """
        with _storage_errors(self.path(name)):
            if not self.is_local:
                self.fs.pipe_file(self.path(name), content)
                return
            target = Path(self.path(name))
            target.parent.mkdir(parents=True, exist_ok=True)
            temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.tmp")
            try:
                with temporary.open("wb") as file:
                    file.write(content)
                    _sync(file)
                temporary.replace(target)
            finally:
                temporary.unlink(missing_ok=True)

    def write_json(self, name: str, value: Any) -> None:
        """Writes JSON for people and programs: indented, keys in the given order."""
        self.write(name, (json.dumps(value, ensure_ascii=False, indent=2) + "\n").encode())

    def put(self, local: Path, name: str) -> None:
        """Moves a finished local file to `name`."""
        with _storage_errors(self.path(name)):
            if self.is_local:
                target = Path(self.path(name))
                target.parent.mkdir(parents=True, exist_ok=True)
                local.replace(target)
            else:
                self.fs.put_file(str(local), self.path(name))

    def remove(self, name: str) -> None:
        """Removes a file or folder if it is there."""
        if self.fs.exists(self.path(name)):
            self.fs.rm(self.path(name), recursive=True)

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """Yields a temporary folder, on the disk of the output when that is local, and removes it."""
        parent = Path(self.path("work/tmp")) if self.is_local else Path(tempfile.gettempdir())
        with _storage_errors(str(parent)):
            parent.mkdir(parents=True, exist_ok=True)
            folder = Path(tempfile.mkdtemp(prefix=f"{os.uname().nodename}-{os.getpid()}-", dir=parent))
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def remove_stale_scratch(self) -> None:
        """Removes temporary folders that killed processes of this machine left behind."""
        if not self.is_local:
            return
        for folder in Path(self.path("work/tmp")).glob(f"{os.uname().nodename}-*"):
            pid = folder.name.removeprefix(f"{os.uname().nodename}-").split("-")[0]
            if pid.isdigit() and not Path(f"/proc/{pid}").exists():
                shutil.rmtree(folder, ignore_errors=True)


def _sync(file: IO[bytes]) -> None:
    file.flush()
    os.fsync(file.fileno())


@contextmanager
def _storage_errors(path: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise StorageError(
                f"no space left for '{path}'. Free space or choose another --output, then run the same command "
                "again: committed shards are kept."
            ) from error
        if error.errno in (errno.EACCES, errno.EROFS, errno.ENOTDIR, errno.EDQUOT):
            raise StorageError(f"cannot write '{path}': {error.strerror}. Choose another --output.") from error
        raise
