"""Measurements in the Prometheus text exposition format 0.0.4, as a file for node_exporter's textfile collector."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence

from data_engine.io.storage import Storage
from data_engine.telemetry.measurements import METRICS, Measurement, Metric

METRICS_FILE = "metrics.prom"
SECONDS_BETWEEN_FILES = 15.0
_UNIT_SUFFIX = {"s": "_seconds", "1": "_ratio"}


def series_name(metric: Metric) -> str:
    """Returns the Prometheus name: underscores, base unit, `_total` for counters."""
    name = metric.name.replace(".", "_") + _UNIT_SUFFIX.get(metric.unit, "")
    return f"{name}_total" if metric.kind == "counter" else name


def render(measurements: Sequence[Measurement], labels: Mapping[str, str]) -> str:
    """Returns the text exposition of measurements.

    Args:
        measurements: What was measured.
        labels: Labels every series gets, which tell the runs of one machine apart.
    """
    lines: list[str] = []
    for metric in METRICS:
        values = [m for m in measurements if m.metric is metric]
        if not values:
            continue
        name = series_name(metric)
        lines += [f"# HELP {name} {_escape(metric.description)}", f"# TYPE {name} {metric.kind}"]
        lines += [f"{name}{_labels({**labels, **m.labels})} {_number(m.value)}" for m in values]
    return "\n".join(lines) + "\n"


def _labels(labels: Mapping[str, str]) -> str:
    quoted = (f'{name}="{_escape(value).replace(chr(34), chr(92) + chr(34))}"' for name, value in labels.items())
    return "{" + ",".join(quoted) + "}"


def _escape(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n")


def _number(value: float) -> str:
    if math.isfinite(value):
        return str(int(value)) if value == int(value) else repr(float(value))
    return "NaN" if math.isnan(value) else f"{'+' if value > 0 else '-'}Inf"


class PrometheusFile:
    """A sink that keeps OUTPUT/metrics.prom up to date; a reader sees an old or a new file, never half of one.

    Args:
        storage: Output folder.
        labels: Labels of every series.
        clock: Seconds that only grow; a parameter for tests.
    """

    def __init__(
        self, storage: Storage, labels: Mapping[str, str], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.storage, self.labels, self.clock = storage, labels, clock
        self._next = -math.inf

    def update(self, measurements: Sequence[Measurement]) -> None:
        """Writes the file, unless that was done moments ago."""
        if self.clock() >= self._next:
            self._write(measurements)

    def close(self, measurements: Sequence[Measurement]) -> None:
        """Writes the last state; nothing when nothing was ever measured."""
        if measurements:
            self._write(measurements)

    def _write(self, measurements: Sequence[Measurement]) -> None:
        self.storage.write(METRICS_FILE, render(measurements, self.labels).encode())
        self._next = self.clock() + SECONDS_BETWEEN_FILES
