"""Listeners of a run: several at once, and the one that turns what it hears into metrics."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Protocol

from data_engine.core.plan import Listener, Plan
from data_engine.io.storage import Storage
from data_engine.telemetry.live import LiveRun
from data_engine.telemetry.measurements import Measurement, measure
from data_engine.telemetry.opentelemetry import OtlpExport, otlp_endpoint
from data_engine.telemetry.prometheus import PrometheusFile


class Sink(Protocol):
    """Where measurements go."""

    def update(self, measurements: Sequence[Measurement]) -> None:
        """Takes the present state; cheap, since it is called after every shard."""
        ...

    def close(self, measurements: Sequence[Measurement]) -> None:
        """Takes the last state and lets go."""
        ...


class Listeners:
    """A `Listener` that tells several, in their order."""

    def __init__(self, *listeners: Listener) -> None:
        self.listeners = listeners

    def planned(self, plan: Plan, committed: int) -> None:
        """Tells every listener."""
        for listener in self.listeners:
            listener.planned(plan, committed)

    def shard_done(self, plan: Plan, report: Mapping[str, Any]) -> None:
        """Tells every listener."""
        for listener in self.listeners:
            listener.shard_done(plan, report)


class Telemetry:
    """A `Listener` that measures the run after every shard; whatever fails here costs a warning, never the run.

    Args:
        live: State of the run.
        sinks: Where measurements go; one that fails is dropped.
        warn: Is called with a sentence when a sink is dropped.
    """

    def __init__(self, live: LiveRun, sinks: Sequence[Sink], warn: Callable[[str], None]) -> None:
        self.live, self.sinks, self.warn = live, list(sinks), warn
        self._state: Callable[[], Mapping[str, Any]] | None = None

    def planned(self, plan: Plan, committed: int) -> None:
        """Reads what was done before and shows it."""
        self._state = self.live.run
        self._follow(partial(self.live.planned, plan, committed))

    def shard_done(self, plan: Plan, report: Mapping[str, Any]) -> None:
        """Counts the shard."""
        self._follow(partial(self.live.shard_done, plan, report))

    def _follow(self, event: Callable[[], None]) -> None:
        if self.sinks and not self._guarded("metrics during the run", event):
            self._send("close")
            self.sinks.clear()
        self._send("update")

    def finish(self, run: Mapping[str, Any]) -> None:
        """Takes `run.json` as the last word."""
        self._state = lambda: run

    def close(self) -> None:
        """Sends the last state, also of a run that was stopped; a run that never began leaves no trace."""
        self._send("close")

    def _send(self, verb: str) -> None:
        measurements = measure(self._state()) if self._state else []
        for sink in tuple(self.sinks):
            if not self._guarded(type(sink).__name__, partial(getattr(sink, verb), measurements)):
                self.sinks.remove(sink)

    def _guarded(self, what: str, action: Callable[[], None]) -> bool:
        try:
            action()
        except Exception as error:
            self.warn(f"{what}: {type(error).__name__}: {error}; the run goes on without them")
            return False
        return True


def open_telemetry(run: str, storage: Storage, environ: Mapping[str, str], warn: Callable[[str], None]) -> Telemetry:
    """Returns the metrics of a run: by OTLP when an endpoint is configured, and always as OUTPUT/metrics.prom.

    Args:
        run: Name of the run.
        storage: Output folder.
        environ: Environment variables; see `opentelemetry.ENDPOINTS`.
        warn: Is called with a sentence when metrics cannot be sent.

    Raises:
        MissingExtraError: An endpoint is configured and the extra `telemetry` is not installed.
    """
    sinks: list[Sink] = [PrometheusFile(storage, {"run": run, "output": storage.uri})]
    endpoint = otlp_endpoint(environ)
    if endpoint:
        sinks.append(OtlpExport(endpoint, run, storage.uri, warn))
    return Telemetry(LiveRun(storage), sinks, warn)
