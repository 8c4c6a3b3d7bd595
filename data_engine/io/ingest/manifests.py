"""Rows of manifests: JSON lines, CSV and TSV, on any storage."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from typing import Any

from data_engine.core.errors import ConfigError
from data_engine.io.remote.ranges import open_uri

MANIFEST_SUFFIXES = (".jsonl", ".json", ".csv", ".tsv", ".ndjson")


def manifest_rows(uri: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yields (line number, columns).

    Raises:
        ConfigError: It is not what its name says, naming the line.
    """
    with open_uri(uri) as binary, io.TextIOWrapper(binary, "utf-8-sig", newline="") as file:
        try:
            yield from _table_rows(file, uri) if uri.lower().endswith((".csv", ".tsv")) else _json_rows(file, uri)
        except UnicodeDecodeError as error:
            raise ConfigError(f"source.path: '{uri}' is not UTF-8 text: {error.reason}") from error


def _table_rows(file: io.TextIOWrapper, uri: str) -> Iterator[tuple[int, dict[str, Any]]]:
    reader = csv.DictReader(file, dialect="excel-tab" if uri.lower().endswith(".tsv") else "excel")
    for row in reader:
        if None in row:
            raise ConfigError(f"source.path: '{uri}' line {reader.line_num} has more cells than the header")
        yield reader.line_num, {name: value for name, value in row.items() if value not in (None, "")}


def _json_rows(file: io.TextIOWrapper, uri: str) -> Iterator[tuple[int, dict[str, Any]]]:
    for line, text in enumerate(file, start=1):
        if not text.strip():
            continue
        try:
            row = json.loads(text)
        except ValueError as error:
            raise ConfigError(f"source.path: '{uri}' line {line} is not JSON: {error}") from error
        if not isinstance(row, dict):
            raise ConfigError(f"source.path: '{uri}' line {line} must be a JSON object, one per line")
        yield line, row
