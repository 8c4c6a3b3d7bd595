"""Schemas as data: one JSON file per record type and version, loaded once, checked once per batch."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow as pa

from data_engine.core.errors import ContractError

_PRIMITIVES: dict[str, pa.DataType] = {
    "string": pa.string(), "binary": pa.binary(), "bool": pa.bool_(),
    "uint8": pa.uint8(), "uint16": pa.uint16(), "int32": pa.int32(), "int64": pa.int64(),
    "float32": pa.float32(), "float64": pa.float64(),
}  # fmt: skip
AUDIO_TYPE = "struct<bytes: binary, path: string>"


@dataclass(frozen=True, slots=True)
class Field:
    """One column: Arrow type as text, nullability, unit and what it means."""

    name: str
    type: str
    nullable: bool
    description: str
    unit: str | None = None
    values: tuple[str, ...] | None = None

    def arrow(self) -> pa.Field:
        """Returns the Arrow field.

        Audio is nullable for Arrow, whatever the schema says: `datasets` recognizes its Audio feature only so.
        `Schema.check` refuses nulls all the same.
        """
        return pa.field(self.name, parse_type(self.type), self.nullable or self.type == AUDIO_TYPE)


@dataclass(frozen=True, slots=True)
class Schema:
    """A versioned record type, or some columns of it (`pick`)."""

    name: str
    version: int
    description: str
    id: str
    parent: str | None
    fields: tuple[Field, ...]

    def __str__(self) -> str:
        return f"{self.name}.v{self.version}"

    @property
    def names(self) -> tuple[str, ...]:
        """Column names, in order."""
        return tuple(field.name for field in self.fields)

    def pick(self, *names: str) -> Schema:
        """Returns the schema cut to the id and `names`, in schema order.

        Raises:
            ContractError: A name is not a column of this schema.
        """
        unknown = set(names) - set(self.names)
        if unknown:
            raise ContractError(f"{self} has no column {sorted(unknown)}; it has {list(self.names)}")
        keep = {self.id, *names}
        return replace(self, fields=tuple(f for f in self.fields if f.name in keep))

    def arrow(self) -> pa.Schema:
        """Returns the Arrow schema with name, version and Hugging Face features in its metadata."""
        metadata = {
            "schema": self.name,
            "schema_version": str(self.version),
            "huggingface": json.dumps({"info": {"features": self._features()}}, sort_keys=True),
        }
        return pa.schema([field.arrow() for field in self.fields], metadata=metadata)

    def _features(self) -> dict[str, object]:
        return {f.name: _feature(parse_type(f.type), f.type) for f in self.fields}

    def check(self, batch: pa.RecordBatch, where: str) -> None:
        """Checks once per batch that every column is there with its type and nullability.

        Raises:
            ContractError: A column is missing, of another type, or null where it must not be.
        """
        for field in self.fields:
            index = batch.schema.get_field_index(field.name)
            if index < 0:
                raise ContractError(f"{where}: column '{field.name}' of {self} is missing")
            column = batch.column(index)
            if column.type != parse_type(field.type):
                raise ContractError(f"{where}: column '{field.name}' is {column.type}, {self} says {field.type}")
            if not field.nullable and column.null_count:
                raise ContractError(f"{where}: column '{field.name}' of {self} has {column.null_count} nulls")

    def batch(self, rows: list[dict[str, object]]) -> pa.RecordBatch:
        """Returns a record batch of these columns from Python rows; absent keys are null."""
        return pa.RecordBatch.from_pylist(rows, schema=pa.schema([f.arrow() for f in self.fields]))


@cache
def parse_type(text: str) -> pa.DataType:
    """Returns the Arrow type that `text` names: primitives, list<T>, struct<a: T, b: U>.

    Raises:
        ContractError: The text names no type.
    """
    text = text.strip()
    if text in _PRIMITIVES:
        return _PRIMITIVES[text]
    match = re.fullmatch(r"(list|struct)<(.*)>", text, re.DOTALL)
    if match is None:
        raise ContractError(f"schema type '{text}' is unknown")
    if match[1] == "list":
        return pa.list_(parse_type(match[2]))
    members = (part.split(":", 1) for part in _split_members(match[2]))
    return pa.struct([pa.field(name.strip(), parse_type(kind)) for name, kind in members])


def _split_members(text: str) -> list[str]:
    depth, start, parts = 0, 0, []
    for position, char in enumerate(text):
        depth += (char == "<") - (char == ">")
        if char == "," and depth == 0:
            parts.append(text[start:position])
            start = position + 1
    return [*parts, text[start:]]


def _feature(kind: pa.DataType, text: str = "") -> object:
    """Returns the Hugging Face `datasets` feature of an Arrow type."""
    if text == AUDIO_TYPE:
        return {"_type": "Audio"}
    if pa.types.is_list(kind):
        return {"feature": _feature(kind.value_type), "_type": "List"}
    if pa.types.is_struct(kind):
        return {f.name: _feature(f.type) for f in kind}
    return {"dtype": {"float": "float32", "double": "float64"}.get(str(kind), str(kind)), "_type": "Value"}


def schema_folder() -> Path:
    """Returns the folder of the schema files: inside the wheel, or of the checkout."""
    inside = Path(__file__).parent.parent / "schemas"
    return inside if inside.is_dir() else Path(__file__).parents[2] / "schemas"


@cache
def load_schema(name: str, version: int = 1) -> Schema:
    """Returns the schema `name`.v`version`.

    Raises:
        ContractError: No such schema, or its file is not well formed.
    """
    path = schema_folder() / f"{name}.v{version}.json"
    if not path.is_file():
        known = sorted(p.stem for p in schema_folder().glob("*.v*.json"))
        raise ContractError(f"there is no schema '{name}.v{version}'; known schemas: {', '.join(known)}")
    return parse_schema(json.loads(path.read_text(encoding="utf-8")))


def parse_schema(document: Mapping[str, Any]) -> Schema:
    """Returns the schema that a parsed schema file describes."""
    fields = tuple(
        Field(f["name"], f["type"], f["nullable"], f["description"], f.get("unit"), _values(f))
        for f in document["fields"]
    )
    head: dict[str, Any] = {key: document[key] for key in ("name", "version", "description", "id", "parent")}
    return Schema(**head, fields=fields)


def _values(field: dict[str, list[str]]) -> tuple[str, ...] | None:
    return tuple(field["values"]) if "values" in field else None


def known_schemas() -> list[Schema]:
    """Returns every schema the engine knows, by name and version."""
    stems = sorted(path.stem for path in schema_folder().glob("*.v*.json"))
    return [load_schema(stem.rsplit(".v", 1)[0], int(stem.rsplit(".v", 1)[1])) for stem in stems]
