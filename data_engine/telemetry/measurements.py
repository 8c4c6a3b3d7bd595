"""What can be measured about a run: a pure function from its books to a list of typed measurements.

Names and units follow OpenTelemetry (dotted names, UCUM units); `prometheus.series_name` derives the Prometheus name by
the rules of the OpenTelemetry-to-Prometheus compatibility specification, so both roads lead to the same dashboards.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True, slots=True)
class Metric:
    """What is measured.

    Attributes:
        name: Dotted OpenTelemetry name.
        kind: counter: only grows while a run goes on; gauge: may go either way.
        unit: UCUM unit; curly brackets name what is counted and are not part of the Prometheus name.
        description: One sentence for dashboards.
    """

    name: str
    kind: Literal["counter", "gauge"]
    unit: str
    description: str


@dataclass(frozen=True, slots=True)
class Measurement:
    """One value of a metric.

    Attributes:
        metric: What is measured.
        labels: What it was measured on: pipeline, stage, table, code, reason.
        value: In the metric's unit.
    """

    metric: Metric
    labels: Mapping[str, str]
    value: float


def _metric(name: str, kind: Literal["counter", "gauge"], unit: str, description: str) -> Metric:
    return Metric(f"speech_data_engine.{name}", kind, unit, description)


RUN_COMPLETE = _metric("run.complete", "gauge", "", "1 when every shard of every pipeline is committed, else 0.")
SHARDS_PLANNED = _metric("shards.planned", "gauge", "{shard}", "Shards of the pipeline.")
SHARDS_COMMITTED = _metric("shards.committed", "gauge", "{shard}", "Shards whose last commit marker is there.")
SHARDS_DEAD = _metric("shards.dead", "gauge", "{shard}", "Shards that failed every attempt.")
PIPELINE_BUSY = _metric("pipeline.busy", "counter", "s", "Wall time of all shards of the pipeline, added up.")
STAGE_BUSY = _metric("stage.busy", "counter", "s", "Wall time the stage worked, added up over processes.")
AUDIO_IN = _metric("stage.audio.in", "counter", "s", "Audio that went into the stage.")
AUDIO_OUT = _metric("stage.audio.out", "counter", "s", "Audio that came out of the stage.")
REAL_TIME_FACTOR = _metric(
    "stage.real_time_factor", "gauge", "1", "Seconds of work of one process per second of audio; lower is faster."
)
ROWS_IN = _metric("stage.rows.in", "counter", "{row}", "Rows that went into the stage.")
ROWS_OUT = _metric("stage.rows.out", "counter", "{row}", "Rows that came out of the stage.")
ROWS_REJECTED = _metric("stage.rows.rejected", "counter", "{row}", "Rows the stage rejected, by reject code.")
ROWS_UNUSED = _metric("stage.rows.unused", "counter", "{row}", "Rows the stage left out on purpose, by reason.")
TABLE_ROWS = _metric("table.rows", "gauge", "{row}", "Committed rows of the table.")
TABLE_AUDIO = _metric("table.audio", "gauge", "s", "Committed audio of the table.")

METRICS = (
    RUN_COMPLETE, SHARDS_PLANNED, SHARDS_COMMITTED, SHARDS_DEAD, PIPELINE_BUSY, STAGE_BUSY, AUDIO_IN, AUDIO_OUT,
    REAL_TIME_FACTOR, ROWS_IN, ROWS_OUT, ROWS_REJECTED, ROWS_UNUSED, TABLE_ROWS, TABLE_AUDIO,
)  # fmt: skip


def measure(run: Mapping[str, Any]) -> list[Measurement]:
    """Returns every measurement of a run.

    Args:
        run: What `runners.books.read_run` returns: `state`, `pipelines` (shards, stages, wall_seconds) and `tables`
            (name -> parts with rows and seconds).
    """
    found = [Measurement(RUN_COMPLETE, {}, float(run["state"] == "complete"))]
    for pipeline, state in run["pipelines"].items():
        found += _of_pipeline(pipeline, state)
        for stats in state["stages"]:
            found += _of_stage({"pipeline": pipeline, "stage": stats["stage"]}, stats)
    for table, parts in run["tables"].items():
        found.append(Measurement(TABLE_ROWS, {"table": table}, sum(part["rows"] for part in parts)))
        found.append(Measurement(TABLE_AUDIO, {"table": table}, sum(part["seconds"] or 0.0 for part in parts)))
    return found


def _of_pipeline(pipeline: str, state: Mapping[str, Any]) -> Iterator[Measurement]:
    labels, shards = {"pipeline": pipeline}, state["shards"]
    yield Measurement(SHARDS_PLANNED, labels, shards["planned"])
    yield Measurement(SHARDS_COMMITTED, labels, shards["committed"])
    yield Measurement(SHARDS_DEAD, labels, shards["dead"])
    yield Measurement(PIPELINE_BUSY, labels, state["wall_seconds"])


def _of_stage(labels: Mapping[str, str], stats: Mapping[str, Any]) -> Iterator[Measurement]:
    yield Measurement(STAGE_BUSY, labels, stats["wall_seconds"])
    yield Measurement(AUDIO_IN, labels, stats["seconds_in"])
    yield Measurement(AUDIO_OUT, labels, stats["seconds_out"])
    audio = max(stats["seconds_in"], stats["seconds_out"])
    if audio:
        yield Measurement(REAL_TIME_FACTOR, labels, stats["wall_seconds"] / audio)
    yield Measurement(ROWS_IN, labels, stats["rows_in"])
    yield Measurement(ROWS_OUT, labels, stats["rows_out"])
    for code, count in stats["reject_codes"].items():
        yield Measurement(ROWS_REJECTED, {**labels, "code": code}, count)
    for reason, count in stats["unused_reasons"].items():
        yield Measurement(ROWS_UNUSED, {**labels, "reason": reason}, count)
