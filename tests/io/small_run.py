"""A run small enough to be broken at each of its requests: two shards of two briefs through the probe stage."""

import hashlib

import pyarrow as pa

from data_engine.backends.catalog import BackendCache
from data_engine.core.errors import EngineError
from data_engine.core.plan import Plan
from data_engine.core.schema import load_schema
from data_engine.io.items import write_items
from data_engine.io.shards import committed_parts, read_batches
from data_engine.io.storage import Storage
from data_engine.runners.shard import run_shard
from pipelines.compose import Verb, compose
from tests.plugins import probe_stages as probe

BRIEF = load_schema("brief")
ITEMS = "work/items/x"
SEEDS = (1, probe.REJECT, 3, 4)


def briefs(seeds):
    return BRIEF.batch([{"brief_id": f"b{i}", "language": "en", "axis": "x", "seed": s} for i, s in enumerate(seeds)])


def plan_in(uri, options=None):
    """Returns the output folder and a plan for it; the probe stage must be found (fixture `plugin`)."""
    groups = compose(BRIEF, "items", [("only", [Verb("probe", probe.ProbeConfig())])])
    groups = tuple(type(g)(g.name, g.steps, keep=True) for g in groups)
    return Storage(uri, options), Plan("prefer", uri, "brief", ITEMS, groups, 2, 0, options or {})


def write_input(storage):
    """Writes what the run starts from."""
    write_items(storage, ITEMS, pa.Table.from_batches([briefs(SEEDS)]), 2)


def run_through(storage, plan):
    """A run of one process: writes what goes in, looks what is there, and runs what is not committed."""
    write_input(storage)
    storage.list("rejects/prefer.only")
    for shard in range(plan.num_shards):
        run_shard(plan, shard, 1, BackendCache())


def tables_of(storage, plan):
    tables = (f"work/prefer.only-{plan.groups[0].signature[:12]}", "rejects/prefer.only")
    return {table: rows_of(storage, table) for table in tables}


def objects_of(storage):
    """Name -> MD5 of every data file, and what does not depend on the clock of every marker."""
    found = {}
    for path, info in storage.fs.find(storage.root, detail=True).items():
        name = path.removeprefix(storage.root).lstrip("/")
        if not path.endswith(".json"):
            md5 = info["ETag"].strip('"') if "ETag" in info else hashlib.md5(storage.fs.cat_file(path)).hexdigest()
            found[name] = md5
        else:
            varying = {"wall_seconds", "attempt", "stages"}
            found[name] = {k: v for k, v in storage.read_json(name).items() if k not in varying}
    return found


def rows_of(storage, table):
    return {
        part.shard: [row for batch in read_batches(storage, part) for row in batch.to_pylist()]
        for part in committed_parts(storage, table)
    }


class Watcher:
    """Looks at a folder past the proxy after each change, as a trainer would, and notes parts that are not right.

    Args:
        storage, plan: What to look at.
        right: The rows of each table and shard.
        known: States of such a folder that were found right before: they are not read again.
    """

    def __init__(self, storage, plan, right, known):
        self.storage, self.plan, self.right, self.known = storage, plan, right, known
        self.wrong, self.looks = [], 0

    def __call__(self):
        self.looks += 1
        found = self.storage.fs.find(self.storage.root, detail=True)
        state = frozenset(
            (name.removeprefix(self.storage.root), info["ETag"] if name.endswith(".arrow") else "")
            for name, info in found.items()
        )
        if state in self.known:
            return
        try:
            for table, parts in tables_of(self.storage, self.plan).items():
                self.wrong += [(table, shard) for shard, rows in parts.items() if rows != self.right[table][shard]]
        except EngineError as error:  # a committed part that cannot be read
            self.wrong.append(error)
        else:
            self.known.add(state)
