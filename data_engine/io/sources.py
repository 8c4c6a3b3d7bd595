"""Sources: what there is to decode. Listing reads names and tables, never sound.

A source is a folder, glob, file, manifest, tar archive or Hugging Face data set, on any fsspec file system.
Every item that is listed ends as a recording or as a reject; nothing is left out silently but what the
listing says it leaves out: hidden files, and names without a sound extension.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
from pydantic import Field

from data_engine.core.config import Settings
from data_engine.core.errors import ConfigError
from data_engine.core.ids import ID_LENGTH
from data_engine.core.schema import load_schema
from data_engine.core.signature import digest
from data_engine.io.ingest.duplicates import find_duplicates
from data_engine.io.ingest.listing import Item, Listing, list_dataset, list_files, list_manifest, list_tar

Kind = Literal["auto", "files", "manifest", "tar", "huggingface"]
Target = Literal["uri", "speaker", "language", "licence", "consent_basis", "allowed_uses", "text"]

EXTENSIONS = (
    "wav", "wave", "flac", "mp3", "mp2", "mpga", "m4a", "m4b", "aac", "ogg", "oga", "opus", "webm", "mka", "mkv",
    "mp4", "m4v", "mov", "3gp", "avi", "ts", "flv", "wma", "amr", "ac3", "aif", "aiff", "aifc", "au", "snd", "caf",
    "sph", "w64", "rf64", "wv", "ape", "tta", "raw", "pcm",
)  # fmt: skip
"""Names that look like sound. Headerless .raw and .pcm are listed, so that they are rejected, not forgotten."""

_LISTERS = {"files": list_files, "manifest": list_manifest, "tar": list_tar, "huggingface": list_dataset}
_DIGESTED = (
    "item_id", "size", "duplicate_of", "language", "speaker", "licence", "consent_basis", "allowed_uses", "text",
    "attributes",
)  # fmt: skip


class SourceConfig(Settings):
    """Where the recordings are.

    Attributes:
        path: Folder, glob, file, manifest (.jsonl, .csv, .tsv), tar archive, or data set (folder or file),
            as a local path or an fsspec URI.
        kind: How to read `path`; `auto` goes by what is there.
        extensions: Names that count as sound, without the dot; "*" takes every file.
        columns: Column of a manifest or data set -> what it means. Columns with common names need no entry.
        name: Goes into the item ids; needed only when several sources hold equal relative paths.
        language, speaker, licence, consent_basis, allowed_uses: For items that do not say.
        find_duplicates: Compare files of equal size; later copies become rejects.
        limit: Take the first so many items only.
    """

    path: str
    kind: Kind = "auto"
    extensions: tuple[str, ...] = EXTENSIONS
    columns: dict[str, Target] = Field(default_factory=dict)
    name: str = ""
    language: str | None = None
    speaker: str | None = None
    licence: str | None = None
    consent_basis: str | None = None
    allowed_uses: tuple[str, ...] = ()
    find_duplicates: bool = True
    limit: int | None = None


def list_source(config: SourceConfig, base_dir: Path) -> pa.Table:
    """Lists a source as rows of `source.v1`, sorted by relative path and member.

    The id of an item is a hash of its path relative to the source root (and its member), so moving the whole
    source changes no id; `uri` is what opens now. A listed file that does not exist is still an item. An item
    that is listed again gets an id of its own and is a duplicate of the first.

    Args:
        config: Where and how to look.
        base_dir: Folder that a relative path starts from.

    Raises:
        ConfigError: The source is missing, empty, or does not fit the configuration.
    """
    extensions = frozenset(extension.lower().lstrip(".") for extension in config.extensions)
    listing = Listing(absolute(config.path, base_dir), extensions, config.columns)
    kind = listing.guess_kind() if config.kind == "auto" else config.kind
    items = sorted(_LISTERS[kind](listing), key=lambda item: (item.key, item.member or ""))[: config.limit]
    if not items:
        raise ConfigError(
            f"source.path: nothing to decode in '{config.path}' (read as {kind}). Check the path, or set "
            f'source.extensions, for example ["*"] for every file.'
        )
    rows = list(_rows(items, config))
    duplicates = find_duplicates(rows) if config.find_duplicates else {}
    for row in rows:
        row["duplicate_of"] = row["duplicate_of"] or duplicates.get(row["item_id"])
    return pa.Table.from_batches([load_schema("source").batch(rows)])


def absolute(path: str, base_dir: Path) -> str:
    """Returns a local path as absolute, seen from `base_dir`; URIs as they are."""
    if path.startswith("file://"):
        path = path.removeprefix("file://")
    if "://" in path or "::" in path:
        return path
    return os.path.normpath(Path(base_dir).absolute() / Path(path).expanduser())


def _rows(items: Iterable[Item], config: SourceConfig) -> Iterable[dict[str, Any]]:
    """Yields rows with defaults filled in; ids of repeated items are made unique."""
    seen: dict[str, int] = {}
    for item in items:
        first = item_id(item.key, item.member, config.name)
        seen[first] = seen.get(first, 0) + 1
        again = seen[first] > 1
        yield {
            "item_id": item_id(f"{item.key}#{seen[first]}", item.member, config.name) if again else first,
            "uri": _encodable(item.uri),
            "member": item.member,
            "size": item.size,
            "duplicate_of": first if again else None,
            "language": item.fields.get("language") or config.language,
            "speaker": item.fields.get("speaker") or config.speaker,
            "licence": item.fields.get("licence") or config.licence,
            "consent_basis": item.fields.get("consent_basis") or config.consent_basis,
            "allowed_uses": list(item.fields.get("allowed_uses") or config.allowed_uses),
            "text": item.fields.get("text"),
            "attributes": item.attributes,
        }


def item_id(key: str, member: str | None, name: str = "") -> str:
    """Returns the id of an item: SHA-256 over its path relative to the source root, and its member."""
    text = f"{name}\0{key}\0{member or ''}" if name else f"{key}\0{member or ''}"
    return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()[:ID_LENGTH]


def _encodable(uri: str) -> str:
    try:
        uri.encode()
    except UnicodeEncodeError:
        raise ConfigError(f"source.path: the file name {uri!r} is not valid UTF-8; rename the file") from None
    return uri


def source_digest(table: pa.Table) -> str:
    """Returns a digest of what is listed: ids, sizes and declared facts, not where the source lies."""
    return digest([table.column(name).to_pylist() for name in _DIGESTED])
