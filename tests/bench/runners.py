"""What a runner adds to its shards: 200 shards of a second, on Beam in-process and Dask against local processes."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from data_engine.core.plan import Plan
from data_engine.core.schema import load_schema
from data_engine.io.items import write_items
from data_engine.io.storage import Storage
from data_engine.runners.run import execute, open_runner
from pipelines.compose import Verb, compose
from tests.bench.measure import Row, seconds

PLUGINS = Path(__file__).parents[1] / "plugins"


class _Silent:
    def planned(self, plan: Plan, committed: int) -> None:
        pass

    def shard_done(self, plan: Plan, report: Any) -> None:
        assert report["status"] == "committed", report


@contextmanager
def _burning(shards: int) -> Iterator[Plan]:
    """A plan whose every shard burns a second of CPU."""
    sys.path.insert(0, str(PLUGINS))
    os.environ["PYTHONPATH"] = os.pathsep.join([str(PLUGINS), os.environ.get("PYTHONPATH", "")])
    from tests.plugins import probe_stages as probe

    brief = load_schema("brief")
    rows = [{"brief_id": f"b{i}", "language": "en", "axis": "x", "seed": probe.BURN} for i in range(shards)]
    groups = compose(brief, "items", [("burn", [Verb("probe", probe.ProbeConfig())])])
    with tempfile.TemporaryDirectory() as folder:
        storage = Storage(folder)
        write_items(storage, "work/items/x", pa.Table.from_batches([brief.batch(rows)]), 1)
        yield Plan("prefer", folder, "brief", "work/items/x", (replace(groups[0], keep=True),), shards, 0, {})


def _wall(plan: Plan, kind: str, workers: int) -> float:
    """Returns the wall seconds of a whole run, its processes' start and end included."""
    storage = Storage(plan.output)

    def run() -> None:
        with open_runner(kind, workers, {}) as runner:
            assert execute(plan, runner, _Silent()) == []

    try:
        return seconds(run)
    finally:
        storage.remove("rejects")


def runners_over_local(shards: int = 200) -> list[Row]:
    """Each runner with one worker against one local process, one after the other."""
    with _burning(shards) as plan:
        walls = {kind: _wall(plan, kind, 1) for kind in ("local", "beam", "dask")}
    return [
        Row(
            f"{shards} shards of 1 s, {kind}, one worker", "local, one process",
            f"{walls[kind]:.1f} s", f"{walls['local']:.1f} s", f"{walls[kind] / walls['local']:.2f}x", "<= 1.10x",
        )
        for kind in ("beam", "dask")
    ]  # fmt: skip


if __name__ == "__main__":
    from tests.bench.measure import print_table

    print_table(runners_over_local(int(sys.argv[1]) if len(sys.argv) > 1 else 200))
