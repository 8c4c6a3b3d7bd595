"""Lists the items of each kind of source."""

from __future__ import annotations

import glob
import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from data_engine.core.errors import ConfigError, RecordError
from data_engine.core.redaction import refuse_secret_uri
from data_engine.io.ingest.fields import read_fields
from data_engine.io.ingest.localize import local_path
from data_engine.io.ingest.manifests import MANIFEST_SUFFIXES, manifest_rows
from data_engine.io.ingest.packs import (
    DATASET_SUFFIXES,
    TAR_SUFFIXES,
    TarPack,
    audio_column,
    dataset_batches,
    dataset_schema,
    open_pack,
    resolve,
)
from data_engine.io.remote.filesystems import Remote
from data_engine.io.retry import shown_cause

_SIDECARS = (".json", ".txt", ".lab")
_SIDECAR_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Item:
    """One thing to decode.

    Attributes:
        key: Path relative to the source root.
        uri: What opens it.
        member: Member of a tar, or row of a data set.
        size: Bytes; -1 when unknown.
        fields: Declared facts by their `source.v1` names.
        attributes: The other declared columns, as JSON with sorted keys.
    """

    key: str
    uri: str
    member: str | None = None
    size: int = -1
    fields: Mapping[str, Any] = field(default_factory=dict)
    attributes: str | None = None


@dataclass(frozen=True, slots=True)
class FoundFile:
    """A file under the source path: relative to the source root, as it opens, and its bytes (-1: unknown)."""

    key: str
    uri: str
    size: int


class Listing:
    """A source path and what it holds.

    Args:
        path: Absolute path, glob or URI.
        extensions: Lower-case extensions that count as sound; "*" for all.
        columns: Column of a manifest -> `source.v1` field.
    """

    def __init__(self, path: str, extensions: frozenset[str], columns: Mapping[str, str]) -> None:
        self.path, self.extensions, self.columns = path, extensions, columns
        refuse_secret_uri(path, "source.path")
        try:
            self.remote = Remote(path)
            self.root = self.remote.root
            found = self.remote.ask(self.root, lambda fs: _type_of(fs, self.root, self.remote.is_object_store))
        except (ConfigError, ValueError, OSError) as error:
            raise ConfigError(f"source.path: '{path}' cannot be opened: {error}") from shown_cause(error)
        self.is_folder, self.is_file = found == "directory", found == "file"
        if not (self.is_folder or self.is_file or glob.has_magic(self.root)):
            raise ConfigError(f"source.path: '{path}' does not exist. Check the path; it is relative to the config.")
        self.found = sorted(self._find(), key=lambda file: file.key)

    def _find(self) -> Iterator[FoundFile]:
        """Yields the files under the path; hidden ones are left out."""
        if self.is_folder:
            root, details = self.root.rstrip("/"), self._ask(lambda fs: fs.find(self.root, detail=True))
        elif self.is_file:
            root, details = self.root.rpartition("/")[0], {self.root: self._ask(lambda fs: fs.info(self.root))}
        else:
            matches = self._ask(lambda fs: fs.glob(self.root, detail=True))
            details = {name: info for name, info in matches.items() if info["type"] == "file"}
            root = _fixed_part(self.root)
        for name, info in details.items():
            key = name[len(root) :].lstrip("/")
            if not key or key.endswith("/"):  # stands for a folder in the consoles of object stores
                continue
            if self.is_file or not any(part.startswith(".") for part in key.split("/")):
                size = info.get("size")
                yield FoundFile(key, _openable(self.remote, name), -1 if size is None else int(size))

    def _ask(self, operation: Callable[[Any], Any]) -> Any:
        return self.remote.ask(self.root, operation)

    def guess_kind(self) -> str:
        """Returns files, manifest, tar or huggingface by the names that are there; sound files come first."""
        names = [file.key.lower() for file in self.found]
        if self.is_file and names[0].endswith(MANIFEST_SUFFIXES):
            return "manifest"
        if any(self.is_sound(name) for name in names) and self.extensions != {"*"}:
            return "files"
        if any(name.endswith(DATASET_SUFFIXES) for name in names):
            return "huggingface"
        return "tar" if any(name.endswith(TAR_SUFFIXES) for name in names) else "files"

    def is_sound(self, name: str) -> bool:
        """Tells whether a name has one of the extensions."""
        return "*" in self.extensions or name.rpartition(".")[2].lower() in self.extensions

    def packs(self, suffixes: tuple[str, ...]) -> list[FoundFile]:
        """Returns the archives or data set files; caches of the `datasets` library are left out."""
        named = [f for f in self.found if f.key.lower().endswith(suffixes)]
        return [f for f in named if not f.key.rpartition("/")[2].startswith("cache-")]


def _fixed_part(pattern: str) -> str:
    """Returns the folder of a glob before its first wildcard."""
    parts = pattern.split("/")
    count = next(i for i, part in enumerate(parts) if glob.has_magic(part))
    return "/".join(parts[:count])


def _openable(remote: Remote, name: str) -> str:
    return name if remote.is_local else str(remote.fs.unstrip_protocol(name))


def _type_of(fs: Any, path: str, is_object_store: bool) -> str | None:
    """Returns directory, file or None; never None because an object store did not answer."""
    if is_object_store:
        try:
            return str(fs.info(path)["type"])
        except FileNotFoundError:
            return None
    return "directory" if fs.isdir(path) else "file" if fs.isfile(path) else None


def list_files(listing: Listing) -> Iterator[Item]:
    """Yields sound files; a file that is named itself is always one."""
    for file in listing.found:
        if listing.is_file or listing.is_sound(file.key):
            yield Item(file.key, file.uri, size=file.size)


def list_tar(listing: Listing) -> Iterator[Item]:
    """Yields sound members; .json, .txt and .lab members of the same stem describe them (WebDataset)."""
    for archive in listing.packs(TAR_SUFFIXES):
        try:
            pack = open_pack(archive.uri)
        except RecordError as error:
            raise ConfigError(f"source.path: {error.detail}") from error
        assert isinstance(pack, TarPack)
        members = list(pack.listed())
        notes = {m.name: pack.open(m.name).read() for m in members if _is_sidecar(m.name, m.size)}
        for member in members:
            if listing.is_sound(member.name) and member.name not in notes:
                declared = _sidecar_columns(notes, member.name.rpartition(".")[0])
                facts, attributes = read_fields(declared, listing.columns)
                yield Item(archive.key, archive.uri, member.name, member.size, facts, attributes)
        pack.close()


def _is_sidecar(name: str, size: int) -> bool:
    return name.lower().endswith(_SIDECARS) and size <= _SIDECAR_BYTES


def _sidecar_columns(notes: Mapping[str, bytes], stem: str) -> dict[str, Any]:
    columns: dict[str, Any] = {}
    for suffix in reversed(_SIDECARS):
        content = notes.get(stem + suffix)
        if content is None:
            continue
        text = content.decode("utf-8", "replace").strip()
        if suffix != ".json":
            columns["text"] = text
            continue
        try:
            loaded = json.loads(text)
        except ValueError:
            continue
        columns.update(loaded if isinstance(loaded, dict) else {})
    return columns


def list_dataset(listing: Listing) -> Iterator[Item]:
    """Yields the rows of Arrow and Parquet files; columns beside the sound describe it."""
    for file in listing.packs(DATASET_SUFFIXES):
        try:
            schema = dataset_schema(file.uri)
        except (pa.ArrowInvalid, OSError) as error:
            raise ConfigError(f"source.path: '{file.uri}' is damaged: {error}") from error
        audio = audio_column(file.uri, schema)
        _check_columns(listing.columns, schema.names, file.uri)
        others = [f.name for f in schema if f.name != audio and not pa.types.is_binary(f.type)]
        for first, batch in dataset_batches(file.uri, [audio, *others]):
            sizes = _sound_sizes(batch.column(0))
            for offset, row in enumerate(batch.select(others).to_pylist() if others else [{}] * batch.num_rows):
                facts, attributes = read_fields(row, listing.columns)
                yield Item(file.key, file.uri, f"{first + offset:09d}", sizes[offset], facts, attributes)


def _sound_sizes(column: Any) -> list[int]:
    if not pa.types.is_struct(column.type):
        return [-1] * len(column)
    lengths = pc.binary_length(pc.struct_field(column, "bytes")).to_pylist()
    return [-1 if length is None else int(length) for length in lengths]


def list_manifest(listing: Listing) -> Iterator[Item]:
    """Yields the rows of manifests; relative paths start from the manifest's folder."""
    for manifest in listing.found:
        if not manifest.key.lower().endswith(MANIFEST_SUFFIXES):
            raise ConfigError(
                f"source.path: '{manifest.uri}' is no manifest; give one of {', '.join(MANIFEST_SUFFIXES)}"
            )
        folder = manifest.uri.rpartition("/")[0]
        for line, row in _checked_rows(listing, manifest.uri):
            facts, attributes = read_fields(row, listing.columns)
            path = facts.get("uri")
            if not path:
                raise ConfigError(f"source.path: '{manifest.uri}' line {line} names no file; it has {sorted(row)}")
            uri = resolve(str(path), folder)
            yield Item(_relative(uri, folder), uri, None, _local_size(uri), facts, attributes)


def _checked_rows(listing: Listing, uri: str) -> Iterator[tuple[int, dict[str, Any]]]:
    rows = list(manifest_rows(uri))
    known = sorted({name for _, row in rows for name in row})
    _check_columns(listing.columns, known, uri)
    if rows and "uri" not in listing.columns.values() and not any(read_fields(r, {})[0].get("uri") for _, r in rows):
        raise ConfigError(
            f"source.columns: no column of '{uri}' is known to name the file; it has {known}. "
            "Say which one with source.columns, for example {my_column: uri}."
        )
    yield from rows


def _check_columns(columns: Mapping[str, str], known: list[str], uri: str) -> None:
    unknown = sorted(set(columns) - set(known))
    if unknown:
        raise ConfigError(f"source.columns: '{uri}' has no column {unknown}; it has {sorted(known)}")
    twice = sorted({target for target in columns.values() if list(columns.values()).count(target) > 1})
    if twice:
        raise ConfigError(f"source.columns: more than one column is mapped to {twice}; keep one")


def _relative(uri: str, folder: str) -> str:
    return os.path.normpath(uri[len(folder) + 1 :]) if uri.startswith(f"{folder}/") else uri


def _local_size(uri: str) -> int:
    path = local_path(uri)
    try:
        return path.stat().st_size if path is not None else -1
    except OSError:
        return -1
