"""Mixture sampling: a training set by quotas of language, emotion, speed or any other column, drawn over all shards.

Two passes over the table (three with `max_per`), each a summary that the runner executes: what there is per stratum,
then the rows with the smallest hashes up to the stratum's target. Local, Dask and Beam give the same bytes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field, model_validator

from data_engine.core.config import Settings
from data_engine.core.errors import ConfigError
from data_engine.core.schema import load_schema
from data_engine.core.signature import digest
from data_engine.export.mixture_quota import quota_targets, quota_weights
from data_engine.export.mixture_report import Stratum, mixture_report
from data_engine.export.mixture_rows import CountStrata, DrawRows, FindCaps, Frame
from data_engine.io.columns import table_schema
from data_engine.io.decisions import TABLE, in_force
from data_engine.io.matching import checked_filters
from data_engine.io.mixtures import check_name, write_mixture
from data_engine.io.outputs import require_parts
from data_engine.io.storage import Storage
from data_engine.runners.protocol import Runner

MOST_STRATA = 100_000
_MS_PER_HOUR = 3_600_000
_WHERE: dict[str, dict[str, Any]] = {"segments": {"decision": "keep"}, "candidates": {"selected": True}, "aqaa": {}}
_STRATIFIED = ("string", "bool", "int32")


class Size(Settings):
    """How much to take: rows, or hours of audio."""

    rows: int | None = Field(None, ge=1)
    hours: float | None = Field(None, gt=0)

    @model_validator(mode="after")
    def _is_one(self) -> Size:
        if (self.rows is None) == (self.hours is None):
            raise ValueError("give either rows or hours")
        return self

    @property
    def amount(self) -> int:
        """Rows or milliseconds."""
        return self.rows if self.rows is not None else round((self.hours or 0) * _MS_PER_HOUR)


class MixtureConfig(Settings):
    """A mixture.

    Attributes:
        table: Table to draw from. In `aqaa`, emotion, speed and dialect are those of the answer.
        where: Column -> value or values that a row must have; none: kept segments, selected candidates, all examples.
        seed: Another seed draws another sample.
        size: How much to take. With hours, rows without audio are left out.
        quotas: Column -> value -> share. Shares of a column sum to 1; `*` stands for all values that are not named,
            without it they are left out; a null is `unknown`.
        max_per: Column -> at most so many rows with one value, for example {speaker_id: 200}.
    """

    table: Literal["segments", "candidates", "aqaa"]
    where: dict[str, Any] | None = None
    seed: int = 0
    size: Size
    quotas: dict[str, dict[str, float]] = Field(default_factory=dict)
    max_per: dict[str, int] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _adds_up(self) -> MixtureConfig:
        for column, shares in self.quotas.items():
            total = sum(shares.values())
            if min(shares.values(), default=0) < 0 or not math.isclose(total, 1, abs_tol=1e-6):
                raise ValueError(f"quotas.{column}: shares are from 0 to 1 and sum to 1, these to {total:g}")
        if any(most < 1 for most in self.max_per.values()):
            raise ValueError("max_per: at least 1 row")
        return self


def draw_mixture(runner: Runner, storage: Storage, name: str, config: MixtureConfig) -> dict[str, Any]:
    """Draws a mixture, writes it into the output folder and returns its report.

    Args:
        runner: Executes the passes.
        storage: Output folder of a run.
        name: Name of the mixture; one of the same name is replaced.
        config: What to draw.

    Raises:
        ConfigError: The folder lacks the table, the table a column, or no row qualifies.
        StorageError: A part cannot be read.
    """
    check_name(name)
    frame = frame_of(config)
    committed = require_parts(storage, config.table)
    parts = [part.name for part in committed if part.marker["rows"]]
    if config.max_per:
        frame = replace(frame, caps=runner.summarise(FindCaps(frame, config.max_per), storage, parts))
    counted = runner.summarise(CountStrata(frame), storage, parts)
    strata = planned_strata(config, frame, counted)
    targets = {stratum.number: stratum.target for stratum in strata}
    drawn = runner.summarise(DrawRows(frame, targets, config.size.hours is not None), storage, parts)
    strata = weighed_strata(config, strata, drawn)
    described = config.model_dump(mode="json") | {"where": {name: list(v) for name, v in frame.where.items()}}
    head = {"name": name, "table": config.table, "schema": str(load_schema("mixture")), "config": described}
    source: dict[str, Any] = {"parts": len(committed)}
    source["parts_digest"] = digest([part.marker["sha256"] for part in committed])
    if config.table == TABLE and (result := in_force(storage)):
        source["decisions"] = result
    report = head | mixture_report(config.quotas, config.size.rows is not None, config.size.amount, strata) | source
    return write_mixture(storage, name, mixture_rows(config.table, strata, drawn), report)


def frame_of(config: MixtureConfig) -> Frame:
    """Returns the rows a mixture draws from.

    Raises:
        ConfigError: The table has no such column or value, or there are too many strata.
    """
    schema = table_schema(config.table)
    usable = {f.name for f in schema.fields if f.type in _STRATIFIED} - {schema.id}
    for key, columns in (("quotas", config.quotas), ("max_per", config.max_per)):
        for column in columns:
            if column not in usable or (key == "max_per" and _type(config.table, column) != "string"):
                raise ConfigError(
                    f"{key}: table '{config.table}' has no column '{column}' to divide by; it has "
                    f"{', '.join(sorted(usable))}. Emotion and speed are columns of aqaa (of the answer) and of "
                    "candidates; recorded segments have none"
                )
    if math.prod(len(shares) for shares in config.quotas.values()) > MOST_STRATA:
        raise ConfigError(f"quotas: more than {MOST_STRATA} combinations; name fewer values, put the others under '*'")
    where = config.where if config.where is not None else _WHERE[config.table]
    quotas = {column: tuple(shares) for column, shares in config.quotas.items()}
    return Frame(config.table, checked_filters(schema, where), config.seed, quotas, config.size.hours is not None)


def _type(table: str, column: str) -> str:
    return next(field.type for field in table_schema(table).fields if field.name == column)


def planned_strata(config: MixtureConfig, frame: Frame, counted: Sequence[Sequence[int]]) -> list[Stratum]:
    """Returns the strata with what there is and how much to take.

    Raises:
        ConfigError: No row qualifies.
    """
    categories = list(product(*frame.quotas.values()))
    columns = tuple(frame.quotas)
    strata = [Stratum(number, columns, categories[number], rows, audio) for number, rows, audio in counted]
    by_rows = config.size.rows is not None
    available = np.array([s.rows_available if by_rows else s.ms_available for s in strata], np.int64)
    members, shares = _division(config, strata)
    targets = quota_targets(available, members, shares, config.size.amount)
    if not targets.sum():
        conditions = {name: list(values) for name, values in frame.where.items()}
        raise ConfigError(
            f"no row of '{config.table}' qualifies for the mixture: where {conditions}, quotas {config.quotas}"
        )
    return [replace(stratum, target=int(target)) for stratum, target in zip(strata, targets, strict=True)]


def weighed_strata(config: MixtureConfig, strata: Sequence[Stratum], drawn: Sequence[Sequence[Any]]) -> list[Stratum]:
    """Returns the strata with what was got and its weight."""
    rows: dict[int, list[Any]] = {entry[0]: entry[1] for entry in drawn}
    found = [
        replace(s, rows=len(rows.get(s.number, ())), ms=sum(row[2] for row in rows.get(s.number, ()))) for s in strata
    ]
    got = np.array([s.rows if config.size.rows is not None else s.ms for s in found], np.int64)
    weights = quota_weights(got, *_division(config, found))
    return [replace(s, weight=float(weight)) for s, weight in zip(found, weights, strict=True)]


def _division(config: MixtureConfig, strata: Sequence[Stratum]) -> tuple[list[Any], list[Any]]:
    """Returns for each quota column the category of each stratum and the share of each category."""
    members, shares = [], []
    for position, quota in enumerate(config.quotas.values()):
        places = {name: place for place, name in enumerate(quota)}
        members.append(np.array([places[s.categories[position]] for s in strata], np.int64))
        shares.append(np.array(list(quota.values()), np.float64))
    return members, shares


def mixture_rows(table: str, strata: Sequence[Stratum], drawn: Sequence[Sequence[Any]]) -> pa.RecordBatch:
    """Returns rows of mixture.v1 in the order of their hash."""
    known = {stratum.number: stratum for stratum in strata}
    rows = sorted((tuple(row), stratum) for stratum, found in drawn for row in found)
    chosen = [known[stratum] for _, stratum in rows]
    columns: list[Any] = [
        [record_id for (_, record_id, _), _ in rows],
        [table] * len(rows),
        [stratum.label for stratum in chosen],
        [length for (_, _, length), _ in rows],
        [stratum.weight for stratum in chosen],
    ]
    fields = pa.schema([field.arrow() for field in load_schema("mixture").fields])
    return pa.RecordBatch.from_arrays(
        [pa.array(values, f.type) for values, f in zip(columns, fields, strict=True)], schema=fields
    )
