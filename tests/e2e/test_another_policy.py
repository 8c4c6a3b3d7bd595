"""Annotate, then filter: another threshold runs no model again."""

import shutil

import pytest

from data_engine.io.shards import read_table
from tests.e2e.conftest import engine

pytestmark = [pytest.mark.xdist_group("small"), pytest.mark.timeout(1500)]

STRICT = """
name: strict
version: 1
rules:
  - {column: dnsmos_ovr, min: 4.9, reason: LOW_QUALITY}
"""


def test_another_policy_in_the_same_folder_decides_anew_and_analyses_nothing(small_config, small_run, tmp_path):
    folder = tmp_path / "out"
    shutil.copytree(small_run, folder)
    analysed = {p: p.stat().st_mtime_ns for p in folder.glob("rejects/curate.analyse/*")}
    (small_config.parent / "strict.yaml").write_text(STRICT)
    changed = ["--set", "curate.policy=strict.yaml", "--set", "synthesize=null", "--set", "prefer=null"]
    finished = engine("run", small_config, "--output", folder, "--overwrite", *changed)
    assert finished.returncode == 0, finished.stderr
    assert {p: p.stat().st_mtime_ns for p in folder.glob("rejects/curate.analyse/*")} == analysed
    rows = read_table(str(folder), "segments", ["policy", "decision", "reasons"]).to_pylist()
    assert rows
    assert all(row == {"policy": "strict.1", "decision": "drop", "reasons": ["LOW_QUALITY"]} for row in rows)
    assert read_table(str(folder), "voices").num_rows == 0


def test_voices_that_do_not_allow_cloning_speak_nothing(small_config, tmp_path):
    finished = engine("run", small_config, "--output", tmp_path / "out", "--set", "source.allowed_uses=[tts, dialogue]")
    assert finished.returncode == 0, finished.stderr
    assert read_table(str(tmp_path / "out"), "voices").num_rows > 0
    assert read_table(str(tmp_path / "out"), "candidates").num_rows == 0
    rejects = engine("inspect", tmp_path / "out", "rejects", "--where", "code=VOICE_NOT_CONSENTED", "--rows", 1)
    assert "VOICE_NOT_CONSENTED" in rejects.stdout
    assert "clone" in rejects.stdout
