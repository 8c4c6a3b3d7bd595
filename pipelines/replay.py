"""replay: what was rejected, or died, runs again after a fix and folds into the run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from data_engine.core.config import override, validate
from data_engine.core.errors import ConfigError
from data_engine.io.items import read_items
from data_engine.io.storage import Storage
from data_engine.runners.books import PIPELINES, dead_shards, read_book
from data_engine.runners.replay import Selection, Target, count_rejects, find_targets, later_pipelines
from data_engine.runners.request import read_request
from pipelines.run import RunConfig, open_output


@dataclass(frozen=True, slots=True)
class Replay:
    """What is going to be run again.

    Attributes:
        config: The configuration as it ran, but for its runner.
        base: Folder that relative paths in it start from.
        sections: Sections of it that were asked for.
        storage: Output folder.
        targets: Committed shards whose rejects are replayed.
        dead: Reports of dead shards by pipeline; they run again in any case.
    """

    config: RunConfig
    base: Path
    sections: tuple[str, ...]
    storage: Storage
    targets: Sequence[Target]
    dead: dict[str, list[dict[str, Any]]]

    def described(self) -> dict[str, Any]:
        """Returns in JSON types what will be done."""
        return {
            "shards": [
                {"pipeline": t.pipeline, "shard": t.shard, "rejects": {" ".join(k): n for k, n in t.rejects.items()}}
                for t in self.targets
            ],
            "rejects": count_rejects(self.targets),
            "dead": {pipeline: [report["shard"] for report in reports] for pipeline, reports in self.dead.items()},
            "checked_after": [
                name
                for name in (later_pipelines(self.targets) if self.targets else ())
                if read_book(self.storage, name)
            ],
        }


def plan_replay(folder: str, selection: Selection, assignments: Sequence[str]) -> Replay:
    """Returns what a replay would do; changes nothing.

    Args:
        folder: Output folder of a run.
        selection: Which rejected records to run again.
        assignments: `runner.key=value` overrides: a replay changes how a run is executed, never what it makes.

    Raises:
        ConfigError: The folder holds no run, or the selection names something it does not have.
    """
    for assignment in assignments:
        if not assignment.startswith("runner."):
            raise ConfigError(
                f"--set {assignment}: a replay runs the same configuration again, only runner.* may differ. To change "
                "the configuration: data-engine run CONFIG --set ... --overwrite"
            )
    request = read_request(Storage(folder))
    values = override({**request.config, "output": folder}, assignments)
    config = validate(RunConfig, values, f"{folder}/work/request.json")
    storage = open_output(config)
    dead = {name: found for name in PIPELINES if (found := dead_shards(storage, name))}
    sections = tuple(name for name in request.sections if getattr(config, name, None) is not None)
    return Replay(config, Path(request.base), sections, storage, find_targets(storage, selection), dead)


def listed_before(storage: Storage) -> pa.Table | None:
    """Returns the recordings as the run listed them; None when it lists none or never came so far.

    A file that was mended has another size, so listing again would be another run: work is divided once. The listing
    says where a recording is, and what is there now is decoded.
    """
    book = read_book(storage, "curate")
    if book is None:
        return None
    first = next(iter(book.groups.values()))
    return read_items(storage, f"work/items/curate-{first[:12]}")
