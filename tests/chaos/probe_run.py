"""A run of many short shards with a third party's stage: `python -m tests.chaos.probe_run OUT --shards 200`."""

import argparse
import sys
import traceback

import pyarrow as pa

from data_engine.core.errors import EngineError
from data_engine.core.plan import Plan
from data_engine.core.schema import load_schema
from data_engine.io.items import write_items
from data_engine.io.storage import Storage
from data_engine.runners.books import claim, write_run_file
from data_engine.runners.run import execute, open_runner
from pipelines.compose import Verb, compose
from tests.plugins import probe_stages as probe

ROWS_PER_SHARD = 2
REJECT_EVERY = 7


class Quiet:
    def planned(self, plan, committed):
        print(f"{committed} of {plan.num_shards} committed", file=sys.stderr)

    def shard_done(self, plan, report):
        if report["status"] == "dead":
            print(f"dead: {report}", file=sys.stderr)


def expected_ids(shards):
    """Returns the ids that go in."""
    return [f"brief-{number:05d}" for number in range(shards * ROWS_PER_SHARD)]


def plan_of(storage, shards, pause):
    """Returns the plan: each row takes `pause` seconds, some are rejected."""
    brief = load_schema("brief")
    rows = [
        {"brief_id": name, "language": "en", "axis": "x", "seed": probe.REJECT if n % REJECT_EVERY == 3 else 1000 + n}
        for n, name in enumerate(expected_ids(shards))
    ]
    verb = Verb("probe", probe.ProbeConfig(pause=pause))
    groups = compose(
        brief, "chaos", [("first", [verb]), ("second", [Verb("probe", probe.ProbeConfig(mode="careful"))])]
    )
    groups = tuple(type(g)(g.name, g.steps, keep=True) for g in groups)
    write_items(storage, "work/items/chaos", pa.Table.from_batches([brief.batch(rows)]), ROWS_PER_SHARD)
    return Plan("prefer", storage.uri, "brief", "work/items/chaos", groups, shards, 0, {})


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("out")
    parser.add_argument("--runner", default="local")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--shards", type=int, default=200)
    parser.add_argument("--pause", type=float, default=0.25)
    asked = parser.parse_args()
    storage = Storage(asked.out)
    plan = plan_of(storage, asked.shards, asked.pause)
    held = claim(storage, plan, {}, overwrite=False)
    with open_runner(asked.runner, asked.workers, {}) as runner:
        dead = execute(plan, runner, Quiet())
    write_run_file(storage, {}, "incomplete" if dead else "complete")
    held.release()
    return 1 if dead else 0


def exit_code():
    """Returns 0, 1 as the command line does for what a next start may finish, and 70 for a bug."""
    try:
        return main()
    except EngineError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except Exception:
        traceback.print_exc()
        return 70


if __name__ == "__main__":
    sys.exit(exit_code())
