"""A million shards planned and resumed, a hundred thousand rows looked at: time and memory of the driver alone.

Each figure comes from a process of its own; `python -m tests.bench.scale plan FOLDER N` is one of them.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

from data_engine.core.plan import Plan
from data_engine.io.shards import marker_name
from data_engine.io.sources import SourceConfig
from data_engine.io.storage import Storage
from data_engine.runners.ledger import open_ledgers
from pipelines.curate import CurateConfig, plan_curate
from tests.bench.fabricated import commit_record, fabricate_output, fabricated_plan
from tests.bench.measure import Row, seconds

SHARDS, MARKERS, ROWS, PARTS = 1_000_000, 100_000, 100_000, 400


def write_manifest(path: Path, count: int) -> None:
    """Writes a manifest of recordings that nobody will open."""
    with path.open("w", encoding="utf-8") as file:
        for number in range(count):
            file.write(f'{{"audio_filepath": "s3://calls/{number % 1000:03d}/{number:08d}.flac", "duration": 31.5}}\n')


def plan(folder: Path, count: int) -> None:
    """Plans one recording per shard; prints seconds and peak memory in GiB."""
    source, storage = SourceConfig(path=str(folder / "manifest.jsonl")), Storage(str(folder / "out"))
    spent = seconds(lambda: plan_curate(CurateConfig(recordings_per_shard=1), source, folder, storage, 0))
    print(json.dumps([spent, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20]))


def write_markers(storage: Storage, plan: Plan, count: int, with_ledger: bool) -> None:
    """Commits the first `count` shards of the last group, without data and without syncing each to disk."""
    group, ledger = plan.groups[-1], open_ledgers(storage, plan)[plan.groups[-1].name]
    table = f"rejects/{plan.pipeline}.{group.name}"
    Path(storage.path(table)).mkdir(parents=True, exist_ok=True)
    facts = {"pipeline": plan.pipeline, "group": group.name, "signature": group.signature, "table": table}
    part = {"file": "part-00000-0123456789abcdef.arrow", "rows": 100, "seconds": 512.125, "sha256": "0" * 64}
    for shard in range(count):
        record = {**facts, "shard": shard, **part, **commit_record(group.name, {"segments": part})}
        Path(storage.path(marker_name(table, shard))).write_text(json.dumps(record, indent=2), encoding="utf-8")
        if with_ledger:
            ledger.add(record)


def resume(folder: Path, count: int) -> None:
    """Finds out what of a half-finished run is left; prints seconds and peak memory in GiB."""
    storage = Storage(str(folder))
    found = fabricated_plan(storage, 2 * count)
    started = time.perf_counter()
    left = open_ledgers(storage, found)[found.groups[-1].name].uncommitted(2 * count)
    spent = time.perf_counter() - started
    assert left == list(range(count, 2 * count))
    print(json.dumps([spent, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20]))


def _alone(task: str, folder: str, count: int) -> tuple[float, float]:
    command = [sys.executable, "-m", "tests.bench.scale", task, folder, str(count)]
    spent, memory = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return spent, memory


def plan_million() -> Row:
    """A manifest of a million recordings, one shard each, against reading its lines as JSON."""
    with tempfile.TemporaryDirectory() as folder:
        manifest = Path(folder) / "manifest.jsonl"
        write_manifest(manifest, SHARDS)
        with manifest.open("rb") as file:
            bare = seconds(lambda: sum(1 for line in file if json.loads(line)))
        ours, memory = _alone("plan", folder, SHARDS)
    return Row(
        f"plan {SHARDS:,} shards", "json.loads of each manifest line", f"{ours:.0f} s, {memory:.2f} GiB",
        f"{bare:.1f} s", f"{ours / bare:.0f}", "< 60 s, < 2 GiB",
    )  # fmt: skip


def resume_markers() -> Row:
    """Half of the shards committed: with the ledger, against reading every marker."""
    took: dict[bool, tuple[float, float]] = {}
    for with_ledger in (True, False):
        with tempfile.TemporaryDirectory() as folder:
            storage = Storage(folder)
            write_markers(storage, fabricated_plan(storage, 2 * MARKERS), MARKERS, with_ledger)
            took[with_ledger] = _alone("resume", folder, MARKERS)
    (ours, _), (theirs, _) = took[True], took[False]
    return Row(
        f"resume with {MARKERS:,} markers", "reading every marker", f"{ours:.2f} s", f"{theirs:.1f} s",
        f"{theirs / ours:.0f}x faster", "a million < 60 s",
    )  # fmt: skip


def look_at_rows() -> list[Row]:
    """`status`, `report` and `filter` of a hundred thousand segments in four hundred parts.

    Against `ls -l` of the folder; `filter` against copying the parts, which is the least that rewriting them costs. The
    clips are of a quarter of a second: real parts are an order of magnitude larger, and what `filter` reads is not.
    """
    command = str(Path(sys.executable).parent / "data-engine")
    with tempfile.TemporaryDirectory() as folder:
        fabricate_output(Storage(folder), ROWS, PARTS)
        bare = seconds(lambda: _run(["ls", "-lR", folder]))
        copy = seconds(lambda: _run(["cp", "-r", f"{folder}/segments", f"{folder}/copy"]))
        timed = {name: seconds(partial(_run, [command, name, folder])) for name in ("status", "report")}
        again = seconds(lambda: _run([command, "filter", folder, "--policy", "policies/asr.yaml"]))
    return [
        *(
            Row(f"{n} of {ROWS:,} rows", "ls -lR", f"{spent:.2f} s", f"{bare:.2f} s", f"{spent / bare:.0f}", "< 10 s")
            for n, spent in timed.items()
        ),
        Row(
            f"filter {ROWS:,} rows again", "cp of the parts (0.25 s clips)", f"{again:.2f} s", f"{copy:.2f} s",
            f"{again / copy:.1f}", "seconds",
        ),
    ]  # fmt: skip


def _run(command: list[str]) -> None:
    finished = subprocess.run(command, capture_output=True, text=True)
    assert finished.returncode in (0, 1), finished.stderr  # 1: other pipelines of the section never ran


if __name__ == "__main__":
    {"plan": plan, "resume": resume}[sys.argv[1]](Path(sys.argv[2]), int(sys.argv[3]))
