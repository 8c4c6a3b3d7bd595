"""Mixtures of an output folder: which rows of a table were drawn for training, as exports and the loader read them.

`mixtures/<name>.arrow` holds ids and weights (schema mixture.v1); `mixtures/<name>.json`, written last, vouches for it
and tells what was asked for and what was got.
"""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from data_engine.core.errors import ConfigError, StorageError
from data_engine.core.schema import load_schema
from data_engine.io.storage import Storage

FOLDER = "mixtures"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True, slots=True)
class Mixture:
    """The rows of a mixture; small enough for every worker.

    Attributes:
        name: Its name.
        table: Table of the rows.
        sha256: Hash of its file.
        report: What was asked for and what was got.
        ids: Ids in ascending order of their bytes, [rows].
    """

    name: str
    table: str
    sha256: str
    report: Mapping[str, Any]
    ids: npt.NDArray[np.bytes_]

    def contains(self, ids: pa.Array) -> npt.NDArray[np.bool_]:
        """Returns which ids are in the mixture, [rows]."""
        asked = _bytes(ids)
        if not len(self.ids):
            return np.zeros(len(asked), bool)
        places = np.minimum(np.searchsorted(self.ids, asked), len(self.ids) - 1)
        return np.asarray(self.ids[places] == asked, bool)


def check_name(name: str) -> str:
    """Returns a name that can be a file name.

    Raises:
        ConfigError: It cannot.
    """
    if not _NAME.fullmatch(name):
        raise ConfigError(f"'{name}' is no name for a mixture: use letters, digits, '.', '-' and '_'")
    return name


def write_mixture(storage: Storage, name: str, rows: pa.RecordBatch, report: Mapping[str, Any]) -> dict[str, Any]:
    """Writes rows of mixture.v1, then the report with the hash of their file, and returns the report."""
    schema = load_schema("mixture")
    schema.check(rows, f"mixture '{name}'")
    stream = io.BytesIO()
    with pa.ipc.new_file(stream, schema.arrow(), options=pa.ipc.IpcWriteOptions(compression="zstd")) as writer:
        writer.write_batch(rows.replace_schema_metadata(schema.arrow().metadata))
    content = stream.getvalue()
    written = {**report, "file": f"{name}.arrow", "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    storage.write(f"{FOLDER}/{name}.arrow", content)
    storage.write_json(f"{FOLDER}/{name}.json", written)
    return written


def read_mixture(storage: Storage, name: str) -> Mixture:
    """Returns a mixture of an output folder.

    Raises:
        ConfigError: There is none of that name.
        StorageError: Its file is missing, or is not the one its report vouches for.
    """
    rows, report = read_mixture_rows(storage, name)
    ids = np.sort(_bytes(rows.column("record_id")))
    return Mixture(name, report["table"], report["sha256"], report, ids)


def read_mixture_rows(storage: Storage, name: str) -> tuple[pa.RecordBatch, dict[str, Any]]:
    """Returns the rows of a mixture and its report; raises what `read_mixture` raises."""
    report = storage.read_json(f"{FOLDER}/{check_name(name)}.json")
    if not isinstance(report, dict):
        made = [n.removesuffix(".json") for n in storage.list(FOLDER) if n.endswith(".json")]
        known = f"it has {', '.join(made)}" if made else "make one: data-engine mix FOLDER CONFIG"
        raise ConfigError(f"'{storage.uri}' has no mixture '{name}'; {known}")
    file = f"{FOLDER}/{report['file']}"
    try:
        with storage.open(file) as stream:
            content = stream.read()
    except FileNotFoundError as error:
        raise StorageError(f"'{file}' is missing; run data-engine mix again") from error
    if hashlib.sha256(content).hexdigest() != report["sha256"]:
        raise StorageError(f"'{file}' is not the file its report names: it is damaged, or just being replaced")
    with pa.ipc.open_file(pa.BufferReader(content)) as reader:
        return reader.get_batch(0), report


def _bytes(ids: Any) -> npt.NDArray[np.bytes_]:
    return np.array([text.encode() for text in ids.to_pylist()], np.bytes_)
