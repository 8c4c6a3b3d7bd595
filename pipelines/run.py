"""The whole engine: the pipelines a config names, one after the other, into one output folder."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from data_engine.core.config import Settings, override, read_yaml, speed_knob, validate
from data_engine.core.errors import ConfigError
from data_engine.core.plan import Listener, Plan
from data_engine.io.sources import SourceConfig
from data_engine.io.storage import Storage
from data_engine.report.page import write_report
from data_engine.runners.books import claim, write_run_file
from data_engine.runners.run import execute, find_runner
from pipelines.curate import CurateConfig, plan_curate
from pipelines.prefer import PreferConfig, plan_prefer
from pipelines.synthesize import SynthesizeConfig, plan_synthesize


class RunnerConfig(Settings):
    """How the run is executed; nothing here changes the output."""

    kind: str = speed_knob("local")
    workers: int | None = speed_knob(None, ge=1)
    """Processes; none: one per core."""
    options: dict[str, Any] = speed_knob({})
    """Options of the runner: a cluster's address, a Beam runner, ..."""


class RunConfig(Settings):
    """A run: what goes in, which pipelines, where to."""

    name: str
    output: str
    seed: int = 0
    source: SourceConfig | None = None
    curate: CurateConfig | None = None
    synthesize: SynthesizeConfig | None = None
    prefer: PreferConfig | None = None
    runner: RunnerConfig = RunnerConfig()
    report: bool = True


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended."""

    output: str
    run: Mapping[str, Any]
    dead: Sequence[Mapping[str, Any]]


def read_run_config(path: Path, assignments: Sequence[str]) -> RunConfig:
    """Returns the validated config of a run.

    Raises:
        ConfigError: Naming the file, the key and what was expected.
    """
    config = validate(RunConfig, override(read_yaml(path), assignments), str(path))
    if config.curate and not config.source:
        raise ConfigError(f"{path}: 'curate' needs a 'source' section, e.g. --set source.path=FOLDER")
    if not (config.curate or config.synthesize or config.prefer):
        raise ConfigError(f"{path}: names no pipeline; add a section 'curate', 'synthesize' or 'prefer'")
    return config


def open_output(config: RunConfig) -> Storage:
    """Returns the output folder, local paths made absolute so that every worker means the same."""
    uri = config.output if "://" in config.output else str(Path(config.output).absolute())
    return Storage(uri)


def plans(config: RunConfig, base: Path, storage: Storage) -> Iterator[tuple[Plan, Settings]]:
    """Yields each pipeline's plan when the one before it is done, since it may read its output."""
    if config.curate:
        assert config.source is not None
        yield plan_curate(config.curate, config.source, base, storage, config.seed), config.curate
    if config.synthesize:
        yield plan_synthesize(config.synthesize, base, storage, config.seed), config.synthesize
    if config.prefer:
        yield plan_prefer(config.prefer, storage, config.seed), config.prefer


def run(config: RunConfig, base: Path, listener: Listener, overwrite: bool = False) -> Outcome:
    """Runs a config to its end, or finishes it when it was begun before.

    Args:
        config: What to run.
        base: Folder that relative paths in the config start from.
        listener: Is told of every shard.
        overwrite: Replace public tables of another configuration in the same folder.

    Returns:
        What `run.json` says, and the dead shards; a pipeline with dead shards keeps later ones from starting.
    """
    storage = open_output(config)
    runner = find_runner(config.runner.kind)
    workers = config.runner.workers or os.cpu_count() or 1
    described = config.model_dump(mode="json")
    dead: list[dict[str, Any]] = []
    for plan, settings in plans(config, base, storage):
        described_part = {plan.pipeline: settings.model_dump(mode="json")}
        if plan.pipeline == "curate" and config.source:
            described_part["source"] = config.source.model_dump(mode="json")
        claim(storage, plan, {"seed": config.seed, **described_part}, overwrite)
        dead = execute(plan, runner, workers, listener, config.runner.options)
        if dead:
            break
    state = "incomplete" if dead else "complete"
    written = write_run_file(storage, described, state)
    if config.report:
        write_report(storage, written)
    return Outcome(storage.uri, written, dead)


def describe_plan(config: RunConfig, base: Path) -> list[dict[str, Any]]:
    """Returns pipelines with their stages, signatures and shard counts, without running anything.

    The plan is made in a temporary folder; later pipelines are planned as if earlier ones had no output yet.
    """
    with TemporaryDirectory() as folder:
        return [
            {
                "pipeline": plan.pipeline,
                "shards": None if plan.pipeline == "prefer" and config.synthesize else plan.num_shards,
                "stages": [
                    {"group": g.name, "stage": s.stage, "table": s.table, "signature": s.signature}
                    for g in plan.groups
                    for s in g.steps
                ],
            }
            for plan, _ in plans(config, base, Storage(folder))
        ]
