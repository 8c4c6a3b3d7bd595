"""The process that builds Beam pipelines, submits them and waits: killed with all it started when Beam hangs.

The engine itself never imports Beam; it sends jobs here and looks at the output folder meanwhile.
"""

from __future__ import annotations

import logging
import os
import re
import shlex
import signal
import sys
import threading
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any

from data_engine.core.errors import ClusterError, ConfigError, EngineError, MissingExtraError
from data_engine.runners.attempts import RUN_ENDING, Outcome, classify
from data_engine.runners.beam.child import parent
from data_engine.runners.beam.jobs import Job
from data_engine.runners.beam.options import BeamOptions, pipeline_options

if TYPE_CHECKING:
    from apache_beam.runners.runner import PipelineResult

_OURS = re.compile(rf"\b({'|'.join(RUN_ENDING)}): ([^\n\[]+)")
_WORKER_DIED = "Worker subprocess exited"


def main() -> None:
    """Takes options and the number of workers once, then jobs until the engine hangs up."""
    connection = parent(group=True)
    settings, workers = connection.recv()
    logging.basicConfig(level=settings.log_level or ("ERROR" if settings.in_process else "INFO"), stream=sys.stderr)
    try:
        check(settings, workers)
    except EngineError as error:
        connection.send(classify(error))
        return
    connection.send(("done", {}))
    driver = Driver(settings, workers)
    signal.signal(signal.SIGTERM, lambda *_: driver.cancel())
    threading.excepthook = lambda failed: _fail_fast(connection, failed.exc_value)
    while True:
        try:
            job = connection.recv()
        except EOFError:
            break
        connection.send(driver.carry_out(job))
    os._exit(0)  # Beam leaves threads behind that nobody can join


def check(settings: BeamOptions, workers: int) -> None:
    """Checks what can be checked before any work.

    Raises:
        ConfigError: Beam has no such runner or option.
        MissingExtraError: Beam is not installed.
    """
    pipeline_options(settings, workers, "check")
    from apache_beam.runners.runner import create_runner

    try:
        create_runner(settings.beam_runner)
    except (ValueError, ImportError, AttributeError) as error:
        raise ConfigError(f"runner.options.beam_runner: {error}") from error


class Driver:
    """Carries out one job at a time.

    Args:
        settings: Options of the runner.
        workers: Workers of the in-process runner.
    """

    def __init__(self, settings: BeamOptions, workers: int) -> None:
        from apache_beam.utils.shared import Shared

        self.settings, self.workers, self.guards = settings, workers, Shared()
        # in memory, all workers are threads of this process and share its guards
        self.tasks = max(settings.tasks_per_worker, workers if _threads(settings) else 1)
        self.result: PipelineResult | None = None

    def carry_out(self, job: Job) -> Outcome:
        """Builds, submits and waits; returns ("done", counters) or what went wrong."""
        import apache_beam as beam

        try:
            options = pipeline_options(self.settings, self.workers, job.name)
            pipeline = beam.Pipeline(runner=_beam_runner(self.settings), options=options)
            job.build(pipeline, self.settings, self.tasks, self.guards)
            self.result = self._submitted(pipeline)
            state = self.result.wait_until_finish() or self.result.state
            return ("done", counters(self.result)) if state == "DONE" else ("failed", f"Beam's job is {state}")
        except Exception as error:
            return _outcome(error)
        finally:
            self.result = None

    def _submitted(self, pipeline: Any) -> PipelineResult:
        try:
            return pipeline.run()
        except Exception as error:
            if self.settings.in_process:  # where submitting is running
                raise
            raise ClusterError(
                f"Beam's {self.settings.beam_runner} did not take the job: {_last_line(error)}. "
                "Check runner.options: job_endpoint, environment_type, environment_config, options."
            ) from error

    def cancel(self) -> None:
        """Cancels a job that runs elsewhere, then ends this process."""
        try:
            if self.result is not None and not self.settings.in_process:
                self.result.cancel()
        finally:
            os._exit(1)


def counters(result: PipelineResult) -> dict[str, int]:
    """Returns the engine's counters as Beam has summed them up; none where the runner keeps no metrics."""
    from apache_beam.metrics import MetricsFilter

    from data_engine.runners.beam.steps import NAMESPACE

    try:
        found = result.metrics().query(MetricsFilter().with_namespace(NAMESPACE))["counters"]
    except (NotImplementedError, AttributeError):
        return {}
    summed: dict[str, int] = {}
    for metric in found:
        summed[metric.key.metric.name] = summed.get(metric.key.metric.name, 0) + int(metric.result)
    return summed


def _beam_runner(settings: BeamOptions) -> Any:
    """Returns Beam's runner, by name or with workers that run our `worker` module."""
    if not settings.in_process or _threads(settings):
        return settings.beam_runner
    from apache_beam.runners.portability.fn_api_runner import FnApiRunner
    from apache_beam.transforms.environments import SubprocessSDKEnvironment

    command = f"exec {shlex.quote(sys.executable)} -m data_engine.runners.beam.worker"
    return FnApiRunner(default_environment=SubprocessSDKEnvironment.from_command_string(command))


def _threads(settings: BeamOptions) -> bool:
    return settings.in_process and settings.direct_running_mode != "multi_processing"


def _outcome(error: Exception) -> Outcome:
    """Returns what a failed job means; an error of ours comes out of Beam as text."""
    if isinstance(error, (EngineError, MissingExtraError)):
        return classify(error)
    found = _OURS.search(str(error))
    return ("end", (found[1], found[2].strip())) if found else ("failed", _last_line(error))


def _last_line(error: Exception) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[-1].strip()}" if lines else type(error).__name__


def _fail_fast(connection: Connection, error: BaseException | None) -> None:
    """Ends the driver when Beam's thread that waits for a worker process says that it died: its job would hang."""
    if _WORKER_DIED in str(error):
        connection.send(("failed", f"a Beam worker process died ({error})"))
        os._exit(1)
    logging.getLogger(__name__).warning("thread of Beam ended: %s", error)


if __name__ == "__main__":
    main()
