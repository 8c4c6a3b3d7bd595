"""`python -m tests.chaos --seed 1 --worker-kills 100 --driver-kills 20`: the whole storm, with a table at the end."""

import argparse
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from tempfile import mkdtemp

from tests.chaos.compare import compare
from tests.chaos.storm import Storm
from tests.conftest import CHECKOUT, PLUGINS

ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join([str(PLUGINS), str(CHECKOUT)])}


def probe_command(out, runner, shards=200, pause=0.25):
    """A run of many short shards."""
    sizes = ["--shards", str(shards), "--pause", str(pause)]
    return [sys.executable, "-m", "tests.chaos.probe_run", str(out), "--runner", runner, *sizes]


def small_command(out, runner, config):
    """A run of the real stages: the small configuration of the end-to-end tests."""
    command = Path(sys.executable).parent / "data-engine"
    return [str(command), "run", str(config), "--output", str(out), "--runner", runner, "--workers", "2"]


def undisturbed(command, out):
    """Runs a command to its end in peace; returns the seconds it took."""
    started = time.monotonic()
    done = subprocess.run(command, cwd=CHECKOUT, env=ENVIRONMENT, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"the undisturbed run failed: {done.stderr[-2000:]}")
    return time.monotonic() - started


def commits(out):
    """Returns how many shards of groups are committed."""
    return len(list(out.glob("rejects/*/part-*.json")))


def weather(name, runner, make_command, folder, storm, reference):
    """Runs under a storm until its kills are used up, each complete run compared with the undisturbed one.

    Returns:
        A line of the table.
    """
    whole = commits(reference)
    started, rounds, totals, breaches = time.monotonic(), 0, {"rows": 0, "lost": 0, "doubled": 0, "files": 0}, []
    while rounds == 0 or (not storm.is_over and not storm.breaches):
        rounds += 1
        out = folder / f"{name}-{runner}-{rounds}"
        command, log = make_command(out, runner), folder / f"{name}-{runner}.log"
        storm.drive(command, lambda out=out: commits(out) / whole, log, cwd=CHECKOUT, env=ENVIRONMENT)
        found = compare(reference, out)
        totals = {key: totals[key] + found[key] for key in totals}
        breaches += [f"{out.name}: {what} {found[what][:5]}" for what in ("differing", "leftovers") if found[what]]
        breaches += _invalid(out) if name == "small" and not storm.breaches else []
        if not breaches and not storm.breaches:
            shutil.rmtree(out)
    breaches += [f"{what} rows: {totals[what]}" for what in ("lost", "doubled") if totals[what]] + storm.breaches
    return {
        "run": name, "runner": runner, "rounds": rounds, "starts": storm.starts, "workers killed": storm.killed_workers,
        "drivers killed": sum(storm.killed_drivers.values()), "of them alone": storm.killed_drivers["alone"],
        "exits with 1": storm.exits_with_1, **totals,
        "seconds": round(time.monotonic() - started), "breaches": breaches,
    }  # fmt: skip


def _invalid(out):
    command = [str(Path(sys.executable).parent / "data-engine"), "validate", str(out)]
    done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True)
    return [] if done.returncode == 0 else [f"validate: {done.stderr[-300:]}"]


def print_table(lines):
    """Prints one line per run, then what went wrong."""
    columns = [name for name in lines[0] if name != "breaches"]
    rows = [columns, *([str(line[name]) for name in columns] for line in lines)]
    widths = [max(len(row[index]) for row in rows) for index in range(len(columns))]
    for row in rows:
        print("  ".join(value.rjust(width) for value, width in zip(row, widths, strict=True)))
    for line in lines:
        for breach in line["breaches"]:
            print(f"BREACH {line['run']} on {line['runner']}: {breach}")


def main():
    parser = argparse.ArgumentParser(prog="python -m tests.chaos")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--worker-kills", type=int, default=100)
    parser.add_argument("--driver-kills", type=int, default=20)
    parser.add_argument("--runners", default="local,dask")
    parser.add_argument("--runs", default="probe,small")
    parser.add_argument("--shards", type=int, default=200, help="of the probe run")
    parser.add_argument("--folder", type=Path, help="keep outputs and logs here")
    asked = parser.parse_args()
    folder = asked.folder or Path(mkdtemp(prefix="chaos-"))
    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for run in asked.runs.split(","):
        make = _make_command(run, folder, asked.shards)
        reference = folder / f"{run}-undisturbed"
        shutil.rmtree(reference, ignore_errors=True)
        seconds = undisturbed(make(reference, "local"), reference)
        print(f"{run}: undisturbed in {seconds:.1f} s", file=sys.stderr, flush=True)
        for runner in asked.runners.split(","):
            shares = (1, 1) if run == "probe" else (0.1, 0.25)
            kills = round(asked.worker_kills * shares[0]), round(asked.driver_kills * shares[1])
            storm = Storm.of(f"{asked.seed} {run} {runner}", *kills)
            lines.append(weather(run, runner, make, folder, storm, reference))
            print_table(lines[-1:])
            sys.stdout.flush()
    print()
    print_table(lines)
    if any(line["breaches"] for line in lines):
        print(f"outputs and logs: {folder}")
        return 1
    if asked.folder is None:
        shutil.rmtree(folder)
    return 0


def _make_command(run, folder, shards):
    if run == "probe":
        return lambda out, runner: probe_command(out, runner, shards)
    from pipelines.locate import resolve_package
    from tests.e2e.conftest import write_clips, write_small_config

    (folder / "clips").mkdir(exist_ok=True)
    write_clips(resolve_package("package:pyannote/audio/sample/sample.wav"), folder / "clips")
    write_small_config(folder / "clips", folder / "small.yaml")
    return lambda out, runner: small_command(out, runner, folder / "small.yaml")


if __name__ == "__main__":
    sys.exit(main())
