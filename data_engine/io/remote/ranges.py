"""Reading remote files piece by piece: few requests, each of them retried on its own."""

from __future__ import annotations

import errno
import io
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from data_engine.io.remote.filesystems import Remote
from data_engine.io.retry import Backoff, retry

WHOLE_BYTES = 8 << 20
"""Files up to this length are read with one request."""
TAIL_BYTES = 1 << 20
_FIRST_WINDOW, _LAST_WINDOW = 256 << 10, 8 << 20
_BUFFER = 64 << 10


def open_remote(remote: Remote, path: str, size: int | None = None) -> IO[bytes]:
    """Opens a remote file for reading; nothing is asked of the store before the first read.

    Args:
        remote: File system.
        path: File in it.
        size: Its length in bytes if known, which saves a request.

    Raises:
        FileNotFoundError: The file does not exist; with the first read from an object store.
        TransientStorageError: The store kept failing; also with any read.
    """
    if remote.is_object_store:
        suffix = (lambda count: _range(remote, path, -count, None)) if remote.reads_suffixes else None
        raw: io.RawIOBase = RangeFile(
            lambda start, stop: _range(remote, path, start, stop), lambda: remote.size(path), size, suffix
        )
    else:
        raw = _RetriedFile(remote, path)
    return io.BufferedReader(raw, _BUFFER)


def _range(remote: Remote, path: str, start: int, stop: int | None) -> bytes:
    try:
        return remote.read(path, start, stop)
    except OSError as error:
        if error.errno == errno.EINVAL:  # a range beyond the end: what is there is shorter than somebody thought
            return b""
        raise


def open_uri(uri: str) -> IO[bytes]:
    """Opens a file anywhere for reading, remote ones with retries.

    Raises:
        OSError: It cannot be read; from an object store with the first read.
        TransientStorageError: The store kept failing; also with any read.
    """
    remote = Remote(uri)
    if remote.is_local:
        return Path(remote.root).open("rb")
    return open_remote(remote, remote.root)


class RangeFile(io.RawIOBase):
    """A file over ranged reads. Reads ahead, further with each read that goes on where the last one ended.

    The end is kept apart, since Arrow, Parquet and zip files are read from their end first.

    Args:
        fetch: (start, stop) -> these bytes.
        measure: Returns the length in bytes; asked at most once, and never for a short file.
        size: The length if it is known.
        suffix: count -> the last `count` bytes, or all of a shorter file; none: the store cannot.
    """

    def __init__(
        self,
        fetch: Callable[[int, int], bytes],
        measure: Callable[[], int],
        size: int | None = None,
        suffix: Callable[[int], bytes] | None = None,
    ) -> None:
        super().__init__()
        self._fetch, self._measure, self._suffix = fetch, measure, suffix
        self._size, self._position, self._window = size, 0, _FIRST_WINDOW
        self._block, self._block_start = b"", 0
        self._tail, self._tail_start = b"", 0

    @property
    def size(self) -> int:
        """Length in bytes."""
        if self._size is None and self._suffix is not None:
            self._tail = self._suffix(TAIL_BYTES)
            self._size = len(self._tail) if len(self._tail) < TAIL_BYTES else self._measure()
            self._tail_start = self._size - len(self._tail)
        elif self._size is None:
            self._size = self._measure()
        return self._size

    def readable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is."""
        return True

    def tell(self) -> int:
        """Returns the position."""
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Moves the position."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position}.get(whence)
        self._position = max(0, offset + (self.size if base is None else base))
        return self._position

    def readinto(self, buffer: Any) -> int:
        """Fills `buffer` as far as the file goes.

        Raises:
            OSError: The file is shorter than it should be.
        """
        count = min(len(buffer), self.size - self._position)
        if count <= 0:
            return 0
        found = self._held(count) or self._load(count)
        buffer[: len(found)] = found
        self._position += len(found)
        return len(found)

    def _held(self, count: int) -> memoryview | None:
        """Returns what is in memory from the position on, up to `count` bytes; None when nothing is."""
        for held, start in ((self._tail, self._tail_start), (self._block, self._block_start)):
            if start <= self._position < start + len(held):
                return memoryview(held)[self._position - start :][:count]
        return None

    def _load(self, count: int) -> memoryview:
        if self.size <= WHOLE_BYTES:
            start, stop = 0, self.size
        elif self._position >= self.size - TAIL_BYTES and not self._tail:
            start, stop = self.size - TAIL_BYTES, self.size
        else:
            follows = self._block and self._position == self._block_start + len(self._block)
            self._window = min(self._window * 2, _LAST_WINDOW) if follows else _FIRST_WINDOW
            start, stop = self._position, min(self._position + max(count, self._window), self.size)
        found = self._fetch(start, stop)
        if len(found) != stop - start:
            raise OSError(f"the file ends at byte {start + len(found)}; {self.size} bytes were expected")
        if stop == self.size and stop - start == TAIL_BYTES:
            self._tail, self._tail_start = found, start
        else:
            self._block, self._block_start = found, start
        return memoryview(found)[self._position - start :][:count]


class _RetriedFile(io.RawIOBase):
    """A file of any other fsspec store (HTTP, SFTP, ...), whose reads are tried again where it can seek."""

    def __init__(self, remote: Remote, path: str) -> None:
        super().__init__()
        self._remote, self._path = remote, path
        self._file = remote.ask(path, lambda fs: fs.open(path, "rb"))

    def readable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """Tells whether the store can."""
        return bool(self._file.seekable())

    def tell(self) -> int:
        """Returns the position."""
        return int(self._file.tell())

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Moves the position."""
        return int(self._file.seek(offset, whence))

    def readinto(self, buffer: Any) -> int:
        """Fills `buffer`; a stream that cannot seek is not tried again but fails as the store's fault."""
        seekable = self.seekable()
        position = self._file.tell() if seekable else 0

        def read() -> bytes:
            if seekable:
                self._file.seek(position)
            return bytes(self._file.read(len(buffer)))

        # reading on after a fault would leave a gap
        found = retry(read, self._path, self._remote.backoff if seekable else Backoff(attempts=1))
        buffer[: len(found)] = found
        return len(found)

    def close(self) -> None:
        """Closes the file."""
        if not self.closed:
            self._file.close()
        super().close()
