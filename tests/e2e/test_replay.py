"""Crashes and rejects of whole runs, and `data-engine replay` after the fix, as its user would do it."""

import json
import os
import signal
import subprocess
import time

import pytest

from tests.conftest import PLUGINS
from tests.e2e.conftest import COMMAND, data_hashes, engine

pytestmark = [pytest.mark.xdist_group("replay"), pytest.mark.timeout(1500)]

B_SAMPLES = int(7.5 * 16000)
"""Length of clip b, which shares its shard with clip a."""


@pytest.fixture(scope="module")
def env():
    return {**os.environ, "PYTHONPATH": str(PLUGINS)}


@pytest.fixture
def crashing_config(small_config, tmp_path):
    """Curate alone, with a VAD that ends on clip b until a file says that it was mended."""

    def write(way):
        text = small_config.read_text(encoding="utf-8").partition("synthesize:")[0]
        options = {"samples": B_SAMPLES, "way": way, "mended": str(tmp_path / "mended")}
        text += f"  segment: {{vad: {json.dumps({'name': 'crashing', 'options': options})}}}\n"
        (tmp_path / "crashing.yaml").write_text(text, encoding="utf-8")
        return tmp_path / "crashing.yaml"

    return write


@pytest.mark.parametrize(("way", "words"), [("segfault", "SIGSEGV"), ("leave", "exit code 11")])
def test_a_recording_that_crashes_the_interpreter_is_one_dead_shard_until_it_is_mended(
    crashing_config, tmp_path, env, way, words
):
    config, out = crashing_config(way), tmp_path / "out"
    crashed = engine("run", config, "--output", out, "--workers", 2, env=env)
    said = " ".join(crashed.stderr.split())
    assert crashed.returncode == 1, crashed.stderr
    assert "Traceback" not in crashed.stderr
    assert words in said and "1 shards are dead" in said and f"data-engine replay {out}" in said

    status = engine("status", out, "--json", env=env)
    assert status.returncode == 1
    state = json.loads(status.stdout)["curate"]
    assert state["shards"] == {"planned": 3, "committed": 2, "dead": 1}
    assert words in state["dead"][0]["reason"]

    (tmp_path / "mended").touch()
    replayed = engine("replay", out, env=env)
    assert replayed.returncode == 0, replayed.stderr
    assert "1 dead shards of curate" in replayed.stderr
    undisturbed = engine("run", config, "--output", tmp_path / "undisturbed", "--workers", 2, env=env)
    assert undisturbed.returncode == 0, undisturbed.stderr
    assert data_hashes(out) == data_hashes(tmp_path / "undisturbed")
    assert engine("status", out, env=env).returncode == 0
    assert engine("validate", out).returncode == 0


def test_memory_under_a_limit_is_a_reject_that_a_larger_limit_mends(crashing_config, tmp_path, env):
    config, out = crashing_config("numpy"), tmp_path / "out"
    limited = ("--set", "runner.options.memory_limit=3GiB")
    assert engine("run", config, "--output", out, "--workers", 1, *limited, env=env).returncode == 0
    assert reject_codes(out)["OUT_OF_MEMORY"] == 1
    shown = engine("replay", out, "--dry-run", "--json", env=env)
    assert json.loads(shown.stdout)["rejects"] == [
        {"pipeline": "curate", "stage": "segment", "code": "OUT_OF_MEMORY", "rejects": 1, "shards": 1}
    ]
    before = data_hashes(out)
    replayed = engine("replay", out, "--set", "runner.options.memory_limit=12GiB", env=env)
    assert replayed.returncode == 0, replayed.stderr
    assert "OUT_OF_MEMORY" not in reject_codes(out)
    assert len(data_hashes(out)["recordings"]) == len(before["recordings"]) == 3
    undisturbed = engine("run", config, "--output", tmp_path / "undisturbed", "--workers", 1, env=env)
    assert undisturbed.returncode == 0, undisturbed.stderr
    assert tables(out) == tables(tmp_path / "undisturbed")


def test_a_mended_source_file_is_replayed_and_all_later_pipelines_follow(small_config, clips, tmp_path):
    source, out = tmp_path / "clips", tmp_path / "out"
    source.mkdir()
    for path in clips.iterdir():
        (source / path.name).write_bytes(path.read_bytes())
    good = (source / "b.wav").read_bytes()
    (source / "b.wav").write_bytes(b"RIFF, but nothing that follows is sound")
    place = ("--set", f"source.path={source}", "--workers", 2)
    assert engine("run", small_config, "--output", out, *place).returncode == 0
    before = reject_codes(out)
    (source / "b.wav").write_bytes(good)

    refused = engine("replay", out, "--code", "NOT_A_CODE")
    assert refused.returncode == 2 and "NOT_AUDIO" in refused.stderr
    refused = engine("replay", out, "--set", "curate.cut.max_seconds=9")
    assert refused.returncode == 2 and "only runner.* may differ" in " ".join(refused.stderr.split())

    killed_amid_replay(out, [f"--code={code}" for code in before if code != "DUPLICATE"])
    assert engine("status", out).returncode == 1
    replayed = engine("replay", out)
    assert replayed.returncode == 0, replayed.stderr
    assert sum(before.values()) == sum(reject_codes(out).values()) + 1
    assert engine("validate", out).returncode == 0
    assert engine("run", small_config, "--output", tmp_path / "fresh", *place).returncode == 0
    assert tables(out) == tables(tmp_path / "fresh")
    assert not list((out / "work/tmp").iterdir())
    assert unnamed_files(out) == []

    again = engine("replay", out)
    assert again.returncode == 0 and "no such rejects and no dead shard" in again.stderr


def killed_amid_replay(folder, codes):
    """Starts a replay and kills it when the shards of curate are made again, but not yet what follows from them."""
    notes, markers = "work/revoked/curate.analyse/part-*.json", "rejects/curate.analyse/part-*.json"
    command = [str(COMMAND), "replay", str(folder), *codes]
    replay = subprocess.Popen(command, stderr=subprocess.DEVNULL, start_new_session=True)
    while replay.poll() is None and not (list(folder.glob(notes)) and len(list(folder.glob(markers))) < 3):
        time.sleep(0.005)
    while replay.poll() is None and len(list(folder.glob(markers))) < 3:
        time.sleep(0.02)
    assert replay.poll() is None, "the replay ended before it could be killed"
    os.killpg(replay.pid, signal.SIGKILL)
    replay.wait()


def tables(folder):
    """Hashes of the data, without rejects: those say how often they were replayed and which listing they are of."""
    return {name: hashes for name, hashes in data_hashes(folder).items() if name != "rejects"}


def reject_codes(folder):
    """Counts over the stages of curate."""
    pipelines = json.loads((folder / "run.json").read_text())["pipelines"]
    found = [stage["reject_codes"] for stage in pipelines["curate"]["stages"]]
    return {code: count for codes in found for code, count in codes.items()}


def unnamed_files(folder):
    """Public data files that `run.json` does not name."""
    run = json.loads((folder / "run.json").read_text())
    named = {part["file"] for parts in run["tables"].values() for part in parts} | set(run["rejects"])
    found = {str(path.relative_to(folder)) for path in folder.rglob("part-*.arrow")}
    return sorted(name for name in found - named if not name.startswith("work/"))
