"""Two runs into one folder at once: the same bytes when they are the same run, one refusal when they are not."""

import json
import subprocess

import pytest

from data_engine.io.outputs import listed_parts
from data_engine.io.shards import read_batches
from data_engine.io.storage import Storage
from tests.e2e.conftest import CHECKOUT, COMMAND, data_hashes, engine

pytestmark = [pytest.mark.xdist_group("replay"), pytest.mark.timeout(600)]
SHORT = 2.5


def together(*commands):
    """Starts runs at the same moment and returns (exit code, stderr) of each."""
    started = [
        subprocess.Popen(
            [str(COMMAND), "run", *map(str, arguments)], cwd=CHECKOUT, text=True, stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        for arguments in commands
    ]  # fmt: skip
    return [(process.returncode, said) for process in started for said in [process.communicate(timeout=500)[1]]]


def test_the_same_run_twice_at_once_writes_the_bytes_of_one(small_config, small_run, tmp_path):
    out = tmp_path / "out"
    command = (small_config, "--output", out, "--workers", 1)
    for code, said in together(command, command):
        assert code == 0, said
    assert data_hashes(out) == data_hashes(small_run)
    assert engine("validate", out).returncode == 0
    assert not list((out / "work" / "claims").iterdir()), "the claims end with their runs"


def test_of_two_different_runs_at_once_one_is_refused_and_the_other_is_whole(small_config, tmp_path):
    out = tmp_path / "out"
    less = ("--set", "source.limit=2", "--set", "synthesize=null", "--set", "prefer=null", "--workers", 1)
    same = (small_config, "--output", out, *less)
    finished = together(same, (*same, "--set", f"curate.cut.max_seconds={SHORT}"))
    assert sorted(code for code, _ in finished) == [0, 1], finished
    refusal = next(said for code, said in finished if code == 1)
    assert "error:" in refusal
    assert "another configuration" in refusal
    run = json.loads((out / "run.json").read_text())
    assert run["state"] == "complete"
    assert (max(seconds_of(out)) <= SHORT) == (run["config"]["curate"]["cut"]["max_seconds"] == SHORT)
    books = [json.loads(path.read_text()) for path in (out / "work").glob("*.plan.json")]
    planned = {signature for book in books for signature in book["groups"].values()}
    markers = [json.loads(path.read_text()) for path in out.rglob("part-*.json")]
    assert {marker["signature"] for marker in markers} == planned, "what the refused run made is in the folder"
    assert engine("validate", out).returncode == 0


def seconds_of(out):
    """Seconds of every committed segment."""
    storage = Storage(str(out))
    for part in listed_parts(storage, "segments"):
        for batch in read_batches(storage, part, ["num_samples", "sample_rate"]):
            yield from (row["num_samples"] / row["sample_rate"] for row in batch.to_pylist())
