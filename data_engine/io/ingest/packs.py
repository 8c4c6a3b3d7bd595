"""Recordings inside other files: tar archives and Hugging Face data sets (Arrow, Parquet)."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator
from contextlib import ExitStack
from typing import IO, Any, Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from data_engine.core.errors import ConfigError, RecordError
from data_engine.io.remote.ranges import open_uri

TAR_SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
DATASET_SUFFIXES = (".arrow", ".parquet")
_ROWS_PER_BATCH = 64


class Pack(Protocol):
    """A file that holds recordings."""

    def open(self, member: str) -> IO[bytes]:
        """Opens a recording by name or row number."""
        ...

    def close(self) -> None:
        """Closes the file."""
        ...


def open_pack(uri: str) -> Pack:
    """Opens a tar archive or data set file by its name.

    Raises:
        OSError: The file cannot be read.
        RecordError: UNREADABLE when its content is damaged.
    """
    try:
        return DatasetPack(uri) if uri.endswith(DATASET_SUFFIXES) else TarPack(uri)
    except (tarfile.TarError, pa.ArrowInvalid, EOFError) as error:
        raise RecordError("UNREADABLE", f"'{uri}' is damaged: {error}") from error


class TarPack:
    """A tar archive, plain or compressed, local or remote; its index is read once."""

    def __init__(self, uri: str) -> None:
        self._stack = ExitStack()
        file = self._stack.enter_context(open_uri(uri))
        self._tar = tarfile.open(fileobj=file, mode="r:*")  # noqa: SIM115 closed by the stack
        self._stack.callback(self._tar.close)
        self._members = {member.name: member for member in self._scan()}

    def _scan(self) -> Iterator[tarfile.TarInfo]:
        try:
            yield from (member for member in self._tar if member.isfile())
        except (tarfile.ReadError, EOFError):
            return

    def listed(self) -> list[tarfile.TarInfo]:
        """Returns the plain files, as far as the archive is whole."""
        return list(self._members.values())

    def open(self, member: str) -> IO[bytes]:
        """Opens a member.

        Raises:
            RecordError: UNREADABLE when the archive does not hold it.
        """
        found = self._members.get(member)
        file = self._tar.extractfile(found) if found else None
        if file is None:
            raise RecordError("UNREADABLE", f"the archive holds no file '{member}'")
        return file

    def close(self) -> None:
        """Closes the archive."""
        self._stack.close()


class DatasetPack:
    """An Arrow or Parquet file with an audio column; rows are read forward, a batch at a time."""

    def __init__(self, uri: str) -> None:
        self._uri = uri
        self._audio = audio_column(uri, dataset_schema(uri))
        self._start, self._column = 0, pa.array([], pa.null())
        self._batches: Iterator[tuple[int, pa.RecordBatch]] = iter(())

    def open(self, member: str) -> IO[bytes]:
        """Opens the sound of a row.

        Raises:
            RecordError: UNREADABLE when the row does not exist or holds neither bytes nor a path.
        """
        value = self._value(int(member))
        content = value.get("bytes") if isinstance(value, dict) else None
        path = value.get("path") if isinstance(value, dict) else value
        if content is not None:
            return io.BytesIO(content)
        if not path:
            raise RecordError("UNREADABLE", f"row {int(member)} of the data set holds no sound")
        return open_uri(resolve(str(path), self._uri.rpartition("/")[0]))

    def _value(self, row: int) -> Any:
        if row < self._start:
            self._start, self._column = 0, pa.array([], pa.null())
            self._batches = iter(())
        while row >= self._start + len(self._column):
            found = next(self._batches, None)
            if found is None:
                self._batches = dataset_batches(self._uri, [self._audio], row)
                found = next(self._batches, None)
            if found is None or found[0] > row:
                raise RecordError("UNREADABLE", f"the data set has no row {row}")
            self._start, self._column = found[0], found[1].column(0)
        return self._column[row - self._start].as_py()

    def close(self) -> None:
        """Lets go of the file."""
        self._batches = iter(())


def resolve(path: str, folder: str) -> str:
    """Returns `path` as it stands when it is absolute or a URI, else inside `folder`."""
    return path if "://" in path or path.startswith("/") else f"{folder}/{path}"


def dataset_schema(uri: str) -> pa.Schema:
    """Returns the schema of an Arrow (stream or file format) or Parquet file."""
    with open_uri(uri) as file:
        if uri.endswith(".parquet"):
            return pq.read_schema(file)
        return _arrow_reader(file).schema


def dataset_batches(uri: str, columns: list[str], first_row: int = 0) -> Iterator[tuple[int, pa.RecordBatch]]:
    """Yields (number of its first row, batch) for the batches from the one that holds `first_row`."""
    with open_uri(uri) as file:
        position, batches = _parquet_batches(file, columns, first_row) if uri.endswith(".parquet") else (
            0, _arrow_batches(file, columns))  # fmt: skip
        for batch in batches:
            if position + batch.num_rows > first_row:
                yield position, batch
            position += batch.num_rows


def _parquet_batches(file: IO[bytes], columns: list[str], first_row: int) -> tuple[int, Iterator[pa.RecordBatch]]:
    parquet = pq.ParquetFile(file)
    sizes = [parquet.metadata.row_group(i).num_rows for i in range(parquet.num_row_groups)]
    skipped, position = 0, 0
    while skipped < len(sizes) and position + sizes[skipped] <= first_row:
        position, skipped = position + sizes[skipped], skipped + 1
    groups = list(range(skipped, len(sizes)))
    return position, parquet.iter_batches(_ROWS_PER_BATCH, row_groups=groups, columns=columns)


def _arrow_batches(file: IO[bytes], columns: list[str]) -> Iterator[pa.RecordBatch]:
    reader = _arrow_reader(file)
    if isinstance(reader, pa.RecordBatchFileReader):
        yield from (reader.get_batch(i).select(columns) for i in range(reader.num_record_batches))
    else:
        yield from (batch.select(columns) for batch in reader)


def _arrow_reader(file: IO[bytes]) -> Any:
    magic = file.read(6)
    file.seek(0)
    return pa.ipc.open_file(file) if magic == b"ARROW1" else pa.ipc.open_stream(file)


def audio_column(uri: str, schema: pa.Schema) -> str:
    """Returns the column with the sound: struct<bytes, path> first, else strings named audio, file or path.

    Raises:
        ConfigError: There is none, naming the columns that are there.
    """
    for field in schema:
        if pa.types.is_struct(field.type) and {"bytes", "path"} <= {f.name for f in field.type}:
            return str(field.name)
    for name in ("audio", "file", "path"):
        if name in schema.names:
            return name
    raise ConfigError(f"source.path: '{uri}' has no Audio column (struct of bytes and path); it has {schema.names}")
