"""A filter policy: rules over the columns of a record, evaluated a batch at a time; nothing here drops a row.

A rule names a column and what it must be; a row that is not so carries the rule's reason. The policies of this
project are in `configs/policies/`, one per use.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field, model_validator

from data_engine.core.config import Settings, read_yaml, validate
from data_engine.core.errors import ConfigError
from data_engine.core.schema import Schema, parse_type

Scalar = bool | int | float | str
Mask = npt.NDArray[np.bool_]

DERIVED = {"seconds": ("num_samples", "sample_rate")}
"""Columns a rule may name that no schema has, and what they are made of: seconds = num_samples / sample_rate."""


class Rule(Settings):
    """What one column must be. A row breaks the rule when any of the given conditions does not hold.

    Attributes:
        column: Column of the record, or `seconds`; of a list of structs also one member, `pii.action`.
        min: Least value, included.
        max: Greatest value, included.
        equals: The only value.
        one_of: The only values.
        contains: A value that a list column must hold.
        lacks: A value that a list column must not hold.
        absent: The value must be null; for columns that hold a reason to drop.
        missing: What happens when the value is null or not a number.
        reason: Written into `reasons` of a row that breaks the rule.
    """

    column: str
    min: float | None = None
    max: float | None = None
    equals: Scalar | None = None
    one_of: tuple[Scalar, ...] | None = None
    contains: str | None = None
    lacks: str | None = None
    absent: bool = False
    missing: Literal["keep", "drop"] = "keep"
    reason: str = Field(min_length=1)

    @model_validator(mode="after")
    def _says_something(self) -> Rule:
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"rule '{self.reason}': min {self.min} is above max {self.max}")
        conditions = (self.min, self.max, self.equals, self.one_of, self.contains, self.lacks)
        if self.absent and (self.missing == "drop" or any(c is not None for c in conditions)):
            raise ValueError(f"rule '{self.reason}': absent goes with no other condition")
        if not self.absent and all(c is None for c in conditions) and self.missing == "keep":
            raise ValueError(f"rule '{self.reason}' keeps everything: give it a condition or missing: drop")
        return self


class Policy(Settings):
    """A named, versioned list of rules; a row is kept when it breaks none."""

    name: str
    version: str | int
    rules: tuple[Rule, ...] = ()

    @property
    def label(self) -> str:
        """Name and version, as written into the rows: `tts.1`."""
        return f"{self.name}.{self.version}"

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns of the record that the rules read, in rule order, each once."""
        read = (name for rule in self.rules for name in DERIVED.get(rule.column, (rule.column.partition(".")[0],)))
        return tuple(dict.fromkeys(read))


def load_policy(path: str | Path) -> Policy:
    """Returns the policy in a YAML file.

    Raises:
        ConfigError: The file cannot be read, or a key in it is wrong.
    """
    return validate(Policy, read_yaml(Path(path)), str(path))


def check_policy(policy: Policy, schema: Schema) -> None:
    """Checks every rule against the record type before any work.

    Raises:
        ConfigError: A rule names an unknown column, or a condition its column's type cannot meet.
    """
    types = {field.name: parse_type(field.type) for field in schema.fields}
    types |= {name: pa.float64() for name in DERIVED}
    types |= {f"{name}.{part.name}": pa.list_(part.type) for name, kind in types.items() for part in _members(kind)}
    for rule in policy.rules:
        where = f"policy '{policy.label}', rule '{rule.reason}'"
        if rule.column not in types:
            raise ConfigError(f"{where}: {schema} has no column '{rule.column}'; it has {', '.join(types)}")
        kind = types[rule.column]
        number = pa.types.is_floating(kind) or pa.types.is_integer(kind)
        if (rule.min is not None or rule.max is not None) and not number:
            raise ConfigError(f"{where}: min and max need a number, '{rule.column}' is {kind}")
        for condition in ("contains", "lacks"):
            if getattr(rule, condition) is not None and not _list_of_strings(kind):
                raise ConfigError(f"{where}: {condition} needs a list of strings, '{rule.column}' is {kind}")
        _check_values(rule, kind, where)


def _members(kind: pa.DataType) -> list[pa.Field]:
    """Returns the members of a list of structs; of other types none."""
    return list(kind.value_type) if pa.types.is_list(kind) and pa.types.is_struct(kind.value_type) else []


def _list_of_strings(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) and pa.types.is_string(kind.value_type))


def _check_values(rule: Rule, kind: pa.DataType, where: str) -> None:
    for value in (*(rule.one_of or ()), *(() if rule.equals is None else (rule.equals,))):
        try:
            pa.scalar(value, kind)
        except (pa.ArrowException, TypeError, ValueError) as error:
            raise ConfigError(f"{where}: '{rule.column}' is {kind}, which {value!r} is not") from error


def evaluate(policy: Policy, batch: pa.RecordBatch) -> tuple[pa.Array, pa.Array]:
    """Returns, per row, the decision and the reasons.

    Args:
        policy: Rules; two rules with one reason give it once.
        batch: Rows with at least `policy.columns`.

    Returns:
        `keep` or `drop`, string [rows], and the reasons of the broken rules in rule order, list<string> [rows].
    """
    broken: dict[str, Mask] = {}
    for rule in policy.rules:
        mask = broken_by(rule, batch)
        broken[rule.reason] = broken[rule.reason] | mask if rule.reason in broken else mask
    grid = np.array(list(broken.values()), bool).reshape(len(broken), batch.num_rows)
    decisions = pc.if_else(pa.array(grid.any(axis=0)), "drop", "keep")
    return decisions, _lists(grid, list(broken))


def broken_by(rule: Rule, batch: pa.RecordBatch) -> Mask:
    """Returns which rows break a rule, [rows]."""
    values = _column(batch, rule.column)
    if rule.absent:
        return ~np.asarray(values.is_null().to_numpy(zero_copy_only=False), bool)
    held = [pc.fill_null(condition, True) for condition in _conditions(rule, values)]
    bad = np.zeros(batch.num_rows, bool)
    for condition in held:
        bad |= ~condition.to_numpy(zero_copy_only=False)
    missing = values.is_null().to_numpy(zero_copy_only=False)
    return np.where(missing, rule.missing == "drop", bad)


def _conditions(rule: Rule, values: pa.Array) -> list[pa.Array]:
    conditions = []
    if rule.min is not None:
        conditions.append(pc.greater_equal(values, _bound(rule.min, values.type)))
    if rule.max is not None:
        conditions.append(pc.less_equal(values, _bound(rule.max, values.type)))
    if rule.equals is not None:
        conditions.append(pc.equal(values, pa.scalar(rule.equals, values.type)))
    if rule.one_of is not None:
        conditions.append(pc.is_in(values, pa.array(rule.one_of, values.type)))
    if rule.contains is not None:
        conditions.append(_contains(values, rule.contains))
    if rule.lacks is not None:
        conditions.append(pc.invert(_contains(values, rule.lacks)))
    return conditions


def _bound(value: float, kind: pa.DataType) -> pa.Scalar:
    # A float32 column is compared in float32: 0.9 must hold for a stored 0.9.
    return pa.scalar(value, kind if pa.types.is_floating(kind) else pa.float64())


def _contains(values: pa.Array, item: str) -> pa.Array:
    rows = pc.list_parent_indices(values).to_numpy(zero_copy_only=False)
    hits = pc.fill_null(pc.equal(pc.list_flatten(values), item), False).to_numpy(zero_copy_only=False)
    found = np.zeros(len(values), bool)
    found[rows[hits]] = True
    return pa.array(found)


def _column(batch: pa.RecordBatch, name: str) -> pa.Array:
    """Returns a column with what is not a number as null."""
    if name in DERIVED:
        samples, rate = (batch.column(part).cast(pa.float64()) for part in DERIVED[name])
        return pc.divide(samples, rate)
    name, _, member = name.partition(".")
    values = batch.column(name)
    if member:
        values = values.take(pa.array(np.arange(len(values))))  # a slice has offsets that from_arrays does not take
        parts = pc.struct_field(values.values, member)
        return pa.ListArray.from_arrays(values.offsets, parts, mask=values.is_null())
    if not pa.types.is_floating(values.type):
        return values
    return pc.if_else(pc.is_nan(values), pa.scalar(None, values.type), values)


def _lists(grid: Mask, reasons: list[str]) -> pa.Array:
    offsets = np.concatenate([[0], np.cumsum(grid.sum(axis=0))]).astype(np.int32)
    _, which = np.nonzero(grid.T)
    names: Any = np.array(reasons, dtype=object)[which]
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(names, pa.string()))
