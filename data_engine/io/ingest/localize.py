"""From a source row to a file on this machine, with the hash of its bytes."""

from __future__ import annotations

import errno
import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from data_engine.core.errors import EngineError, RecordError, ShardError
from data_engine.core.ids import ID_LENGTH
from data_engine.core.redaction import holds_credentials, public_uri, redact
from data_engine.io.ingest.packs import Pack, open_pack
from data_engine.io.remote.filesystems import Remote
from data_engine.io.remote.ranges import open_uri
from data_engine.io.retry import shown_cause

_CHUNK = 1 << 20
_FULL = (errno.ENOSPC, errno.EDQUOT)
_MISSING = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError)


@dataclass(frozen=True, slots=True)
class LocalFile:
    """The bytes of one source item on this machine.

    Attributes:
        path: Where they are.
        sha256: Their SHA-256 in hex.
        size: Their number.
        temporary: The file was made for this item and goes with `release`.
    """

    path: Path
    sha256: str
    size: int
    temporary: bool = False

    @property
    def recording_id(self) -> str:
        """Id of the recording: its bytes, whatever they are called."""
        return self.sha256[:ID_LENGTH]

    def release(self) -> None:
        """Removes the file if it was made for this item."""
        if self.temporary:
            self.path.unlink(missing_ok=True)


class Localizer:
    """Brings source items onto this machine; keeps the archive that was read last open."""

    def __init__(self) -> None:
        self._pack: Pack | None = None
        self._pack_uri = ""

    @contextmanager
    def opened(self, uri: str, member: str | None) -> Iterator[IO[bytes]]:
        """Opens the bytes of an item.

        Raises:
            RecordError: UNREADABLE: missing, not permitted, or damaged archive.
            ShardError: The storage failed; trying again may help.
        """
        with _failures_of(uri):
            file = self._packed(uri, member) if member is not None else open_uri(uri)
        with file:
            yield file

    def localize(self, row: Mapping[str, Any], folder: Path) -> LocalFile:
        """Returns the item as a local file: in place when it is one, else copied into `folder`.

        Args:
            row: A row of `source.v1`; `uri` and `member` are used.
            folder: Where copies go.

        Raises:
            RecordError: UNREADABLE.
            ShardError: Remote storage failed.
        """
        uri, member = row["uri"], row["member"]
        path = local_path(uri) if member is None else None
        if path is not None:
            with self.opened(uri, None) as file:
                digest, size = _copy(file, None, uri)
            return LocalFile(path, digest, size)
        folder.mkdir(parents=True, exist_ok=True)
        target = folder / f"{row['item_id']}.bin"
        if member is None:
            digest, size = _download(uri, target)
        else:
            with self.opened(uri, member) as file, target.open("wb") as sink:
                digest, size = _copy(file, sink, uri)
        return LocalFile(target, digest, size, temporary=True)

    def _packed(self, uri: str, member: str) -> IO[bytes]:
        if self._pack is None or self._pack_uri != uri:
            self.close()
            self._pack, self._pack_uri = open_pack(uri), uri
        return self._pack.open(member)

    def close(self) -> None:
        """Closes the archive that is open."""
        if self._pack is not None:
            self._pack.close()
        self._pack = None


def localize(row: Mapping[str, Any], scratch: Path) -> LocalFile:
    """Brings one source item onto this machine; see `Localizer.localize`, which is faster for many."""
    localizer = Localizer()
    try:
        return localizer.localize(row, scratch)
    finally:
        localizer.close()


def local_path(uri: str) -> Path | None:
    """Returns the path of a local file; None for what is elsewhere."""
    if uri.startswith("file://"):
        return Path(uri.removeprefix("file://"))
    return None if "://" in uri else Path(uri)


def _copy(file: IO[bytes], sink: IO[bytes] | None, uri: str) -> tuple[str, int]:
    """Returns SHA-256 and length of a stream, and copies it to `sink`."""
    digest, size = hashlib.sha256(), 0
    while chunk := _read(file, uri):
        digest.update(chunk)
        size += len(chunk)
        if sink is not None:
            sink.write(chunk)
    return digest.hexdigest(), size


def _read(file: IO[bytes], uri: str) -> bytes:
    """Reads a chunk; only reading is guarded, so that a full disk stays an OSError."""
    with _failures_of(uri):
        return file.read(_CHUNK)


def _download(uri: str, target: Path) -> tuple[str, int]:
    """Copies a remote file as a whole, with one request where that will do; returns its SHA-256 and length."""
    with _failures_of(uri):
        remote = Remote(uri)
        remote.ask(remote.root, lambda fs: fs.get_file(remote.root, str(target)))
    with target.open("rb") as file:
        return _copy(file, None, uri)


@contextmanager
def _failures_of(uri: str) -> Iterator[None]:
    """Tells what is wrong with an item from what is wrong with the storage; a full disk stays as it is."""
    try:
        yield
    except (EngineError, MemoryError):
        raise
    except Exception as error:
        if getattr(error, "errno", None) in _FULL:
            raise
        shown, reason = public_uri(uri), type(error).__name__ if holds_credentials(uri) else redact(_reason(error))
        missing = isinstance(error, _MISSING) or not isinstance(error, OSError)
        if missing or local_path(uri) is not None:
            raise RecordError("UNREADABLE", f"'{shown}' cannot be read: {reason}") from shown_cause(error)
        raise ShardError(f"reading '{shown}' failed ({reason}); the shard is tried again") from shown_cause(error)


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
