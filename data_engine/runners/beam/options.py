"""Options of the Beam runner and how they become Beam's own pipeline options."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, field_validator

from data_engine.core.config import Settings
from data_engine.core.errors import ConfigError, MissingExtraError

if TYPE_CHECKING:
    from apache_beam.options.pipeline_options import PipelineOptions

IN_PROCESS = "FnApiRunner"
PORTABLE = ("portablerunner", "flinkrunner", "sparkrunner", "portable", "flink", "spark")
_UNFIT = {
    "direct": "may try to download a binary; write FnApiRunner, Beam's in-process runner",
    "dask": "loses rows where a pipeline branches; use --runner dask, the engine's own",
}


class BeamOptions(Settings):
    """Options of the runner; none changes the output.

    Attributes:
        beam_runner: Name of Beam's runner. The in-process one is named since Beam's default tries to download a binary.
        direct_running_mode: Where the in-process runner runs its workers.
        environment_type: Of a portable runner's workers: EXTERNAL, DOCKER, PROCESS, LOOPBACK.
        environment_config: Address of the worker pool, image, command.
        job_endpoint: Address of a portable runner's job service, HOST:PORT.
        accelerator: Resource hint of GPU groups, for example type:nvidia-l4;count:1;install-nvidia-driver.
        min_ram: Resource hint of all groups, for example 16GB.
        tasks_per_worker: Shards at a time in one Beam worker process.
        heartbeat_seconds: How often a worker says that a shard still runs.
        stall_seconds: A job that was alive and has not given a sign of life for so long is ended; its shards in flight
            are charged with an attempt and the rest is submitted again.
        log_level: Of Beam; none: errors for the in-process runner, everything worth knowing for others.
        options: Any other option of Beam's, by its name.
    """

    beam_runner: str = IN_PROCESS
    direct_running_mode: Literal["in_memory", "multi_threading", "multi_processing"] = "in_memory"
    environment_type: str | None = None
    environment_config: str | None = None
    job_endpoint: str | None = None
    accelerator: str | None = None
    min_ram: str | None = None
    tasks_per_worker: int = Field(default=1, ge=1)
    heartbeat_seconds: float = Field(default=10.0, gt=0)
    stall_seconds: float = Field(default=300.0, gt=0)
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] | None = None
    options: dict[str, Any] = Field(default_factory=dict)

    @field_validator("beam_runner")
    @classmethod
    def _is_fit(cls, value: str) -> str:
        kind = value.lower().rpartition(".")[2].removesuffix("runner").removeprefix("switching")
        if kind in _UNFIT:
            raise ValueError(f"Beam's {value} {_UNFIT[kind]}")
        return value

    @property
    def in_process(self) -> bool:
        """True for Beam's in-process runner."""
        return self.beam_runner == IN_PROCESS

    @property
    def hints(self) -> dict[str, str]:
        """Resource hints of every task."""
        return {"min_ram": self.min_ram} if self.min_ram else {}

    @property
    def gpu_hints(self) -> dict[str, str]:
        """Resource hints of tasks with a GPU."""
        return {**self.hints, **({"accelerator": self.accelerator} if self.accelerator else {})}


def pipeline_options(settings: BeamOptions, workers: int, job: str) -> PipelineOptions:
    """Returns Beam's options.

    Args:
        settings: Ours.
        workers: Workers of the in-process runner.
        job: Name of the job.

    Raises:
        ConfigError: Beam does not know an option or cannot read its value.
        MissingExtraError: Beam is not installed.
    """
    try:
        from apache_beam.options.pipeline_options import PipelineOptions
    except ImportError as error:
        raise MissingExtraError("apache-beam", "beam", "runner 'beam'") from error
    given = {k: getattr(settings, k) for k in ("environment_type", "environment_config", "job_endpoint")}
    mode = settings.direct_running_mode
    # multi_processing is an environment of ours: Beam's own prints every line of its workers' logs twice
    direct = {"direct_num_workers": workers} | ({} if mode == "multi_processing" else {"direct_running_mode": mode})
    named = {k: v for k, v in given.items() if v is not None} | (direct if settings.in_process else {})
    flags = _flags({"job_name": job, **named, **settings.options})
    unknown = _unknown(PipelineOptions, flags)
    if (
        unknown and settings.beam_runner.lower().rpartition(".")[2] not in PORTABLE
    ):  # a job service has options of its own
        raise ConfigError(f"runner.options.options: Beam has no option '{unknown[0]}'")
    return PipelineOptions(flags)


def _flags(options: Mapping[str, Any]) -> list[str]:
    """Returns options as Beam's command line has them."""
    flags: list[str] = []
    for name, value in options.items():
        if isinstance(value, bool):
            flags += [f"--{name}"] if value else []
        elif isinstance(value, list):
            flags += [f"--{name}={item}" for item in value]
        elif isinstance(value, dict):
            flags.append(f"--{name}={json.dumps(value)}")
        elif value is not None:
            flags.append(f"--{name}={value}")
    return flags


def _unknown(model: type[PipelineOptions], flags: Sequence[str]) -> list[str]:
    """Returns the names Beam does not know; its parser is the one thing that knows them."""
    parsers: list[Any] = []
    model([]).get_all_options(add_extra_args_fn=parsers.append)
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            _, unknown = parsers[0].parse_known_args(list(flags))
    except SystemExit:
        reason = said.getvalue().strip().rpartition("error: ")[2]
        raise ConfigError(f"runner.options.options: Beam refuses them: {reason}") from None
    return [flag.removeprefix("--").partition("=")[0] for flag in unknown]


def beam_arguments(extra: Sequence[str]) -> dict[str, Any]:
    """Returns extra arguments of the command line as `runner.options`.

    `--name value`, `--name=value` and `--flag` are read as Beam reads them; a name given twice is a list. Names that
    `BeamOptions` has go there, all others to its `options`.

    Raises:
        ConfigError: An argument stands alone.
    """
    found: dict[str, Any] = {}
    position = 0
    while position < len(extra):
        word = extra[position]
        name, equals, text = word.removeprefix("--").partition("=")
        if not word.startswith("--") or not name:
            raise ConfigError(f"'{word}' belongs to no option; Beam's options are written --name value")
        position += 1
        if not equals and position < len(extra) and not extra[position].startswith("--"):
            equals, text = "=", extra[position]
            position += 1
        value = text if equals else True
        found[name] = value if name not in found else [*_listed(found[name]), value]
    ours = {k: v for k, v in found.items() if k in _OURS}
    theirs = {k: v for k, v in found.items() if k not in _OURS}
    return {**ours, **({"options": theirs} if theirs else {})}


_OURS = frozenset(BeamOptions.model_fields) - {"options"}


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]
