"""Measurements by OTLP/HTTP, when the standard environment variables name an endpoint.

A collector that is down costs a run one warning: exports happen in a thread of their own and every wait is bounded.
"""

from __future__ import annotations

import logging
import textwrap
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import import_module
from typing import Any

from data_engine import __version__
from data_engine.core.errors import MissingExtraError
from data_engine.telemetry.measurements import METRICS, Measurement, Metric

ENDPOINTS = ("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
SECONDS_TO_SAY_GOODBYE = 5.0
_LOGGER = "opentelemetry"


def otlp_endpoint(environ: Mapping[str, str]) -> str | None:
    """Returns the configured endpoint; none when there is none or telemetry is switched off the standard way."""
    if environ.get("OTEL_SDK_DISABLED", "").lower() == "true" or environ.get("OTEL_METRICS_EXPORTER", "") == "none":
        return None
    return next((environ[name] for name in ENDPOINTS if environ.get(name)), None)


class OtlpExport:
    """A sink that exports periodically (OTEL_METRIC_EXPORT_INTERVAL, milliseconds) and once more when it is closed.

    Endpoint, headers, certificates, compression and time-outs come from the standard OTEL_* variables.

    Args:
        endpoint: For the warning only.
        run: Name of the run.
        output: URI of the output folder; it identifies the service instance.
        warn: Is called at most once, with a sentence.

    Raises:
        MissingExtraError: The libraries are not installed.
    """

    def __init__(self, endpoint: str, run: str, output: str, warn: Callable[[str], None]) -> None:
        self.endpoint, self.warn = endpoint, warn
        self._latest: Sequence[Measurement] = ()
        self._warned = False
        self._log = _Trouble(self._trouble)
        self._logger = logging.getLogger(_LOGGER)
        self._propagated, self._logger.propagate = self._logger.propagate, False
        self._logger.addHandler(self._log)
        self._silenced = _heard_again()
        self._provider = self._open(_attributes(run, output))

    def _open(self, attributes: Mapping[str, str]) -> Any:
        try:
            sdk = import_module("opentelemetry.sdk.metrics")
            export = import_module("opentelemetry.sdk.metrics.export")
            resources = import_module("opentelemetry.sdk.resources")
            otlp = import_module("opentelemetry.exporter.otlp.proto.http.metric_exporter")
        except ImportError as error:
            self._release()
            raise MissingExtraError(
                "opentelemetry-sdk", "telemetry", f"exporting metrics to {self.endpoint}"
            ) from error
        try:
            resource = resources.Resource.create(attributes).merge(resources.OTELResourceDetector().detect())
            reader = export.PeriodicExportingMetricReader(otlp.OTLPMetricExporter())
            provider = sdk.MeterProvider([reader], resource=resource, shutdown_on_exit=False)
            meter = provider.get_meter("speech-data-engine", __version__)
            self._instruments(meter, import_module("opentelemetry.metrics"))
        except Exception as error:  # whatever a variable says, metrics never end a run
            self._trouble(str(error))
            return None
        return provider

    def _instruments(self, meter: Any, api: Any) -> None:
        for metric in METRICS:
            kind = "counter" if metric.kind == "counter" else "gauge"
            create = getattr(meter, f"create_observable_{kind}")
            create(metric.name, [self._callback(metric, api)], unit=metric.unit, description=metric.description)

    def _callback(self, metric: Metric, api: Any) -> Callable[[Any], Iterator[Any]]:
        def observe(_: Any) -> Iterator[Any]:
            return (api.Observation(m.value, dict(m.labels)) for m in self._latest if m.metric is metric)

        return observe

    def update(self, measurements: Sequence[Measurement]) -> None:
        """Sets what the next export sends."""
        self._latest = tuple(measurements)  # one assignment: the exporting thread sees the old or the new state

    def close(self, measurements: Sequence[Measurement]) -> None:
        """Sends the last state; gives up after a few seconds."""
        self.update(measurements)
        try:
            if self._provider is not None:
                self._provider.shutdown(timeout_millis=SECONDS_TO_SAY_GOODBYE * 1000)
        except Exception as error:
            self._trouble(str(error))
        if not self._warned:  # else a thread may still be giving up, and would say so on the terminal
            self._release()

    def _trouble(self, reason: str) -> None:
        if self._warned:
            return
        self._warned = True
        why = textwrap.shorten(reason, 200, placeholder=" ...")
        self.warn(f"metrics do not reach {self.endpoint} ({why}); the run goes on without them")

    def _release(self) -> None:
        self._logger.removeHandler(self._log)
        self._logger.propagate = self._propagated
        for logger, level in self._silenced:
            logger.setLevel(level)


class _Trouble(logging.Handler):
    """Takes the warnings of a library, which would otherwise fill the terminal with tracebacks."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        super().__init__(logging.WARNING)
        self.tell = tell

    def emit(self, record: logging.LogRecord) -> None:
        """Hands the sentence on."""
        self.tell(record.getMessage())


def _heard_again() -> list[tuple[logging.Logger, int]]:
    """Lets the library's loggers warn where another one (pyannote.audio) has silenced them; returns their levels."""
    names = [name for name in logging.root.manager.loggerDict if name.startswith(_LOGGER)]
    silenced = [logger for logger in map(logging.getLogger, names) if logger.level > logging.WARNING]
    levels = [(logger, logger.level) for logger in silenced]
    for logger in silenced:
        logger.setLevel(logging.NOTSET)
    return levels


def _attributes(run: str, output: str) -> dict[str, str]:
    """Returns the resource; OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES override it."""
    return {
        "service.name": "speech-data-engine",
        "service.version": __version__,
        "service.instance.id": str(uuid.uuid5(uuid.NAMESPACE_URL, output)),  # the same after a restart
        "speech_data_engine.run": run,
        "speech_data_engine.output": output,
    }
