"""What a stranger holds after `make demo`."""

import json
import re

import pytest

from data_engine.io.shards import read_table
from tests.e2e.conftest import engine

TABLES = {
    "recordings": 1, "segments": 4, "voices": 2, "scripts": 8, "candidates": 48, "aqaa": 12, "preferences": 8,
}  # fmt: skip

pytestmark = [pytest.mark.xdist_group("demo"), pytest.mark.timeout(1500)]


@pytest.mark.parametrize(("table", "at_least"), TABLES.items())
def test_every_table_is_there(demo_run, table, at_least):
    run = json.loads((demo_run / "run.json").read_text())
    assert run["state"] == "complete"
    assert sum(part["rows"] for part in run["tables"][table]) >= at_least


def test_there_are_segments_and_voices_of_both_speakers(demo_run):
    kept = read_table(str(demo_run), "segments", ["speaker_id", "decision"]).to_pylist()
    assert len({row["speaker_id"] for row in kept}) == 2
    assert len({row["speaker_id"] for row in kept if row["decision"] == "keep"}) == 2
    assert len(set(read_table(str(demo_run), "voices", ["speaker_id"]).column(0).to_pylist())) == 2


def test_every_row_is_valid(demo_run):
    finished = engine("validate", demo_run)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    assert finished.stdout.strip().endswith("valid")


def test_every_synthetic_row_says_who_made_it_from_which_seed(demo_run):
    columns = ["is_synthetic", "generator", "generator_revision", "seed", "consent_basis", "allowed_uses"]
    for row in read_table(str(demo_run), "candidates", columns).to_pylist():
        assert row["is_synthetic"] is True
        assert row["generator"] and row["generator_revision"] and row["seed"] is not None
        assert "clone" in row["allowed_uses"] and row["consent_basis"]


def test_what_failed_is_kept_with_its_scores_and_reasons(demo_run):
    rows = read_table(str(demo_run), "candidates", ["decision", "reasons", "score", "selected"]).to_pylist()
    dropped = [row for row in rows if row["decision"] == "drop"]
    assert dropped
    assert all(row["reasons"] and row["score"] is not None and not row["selected"] for row in dropped)
    assert all(not row["reasons"] for row in rows if row["decision"] == "keep")


def test_preference_pairs_of_both_kinds_never_mix(demo_run):
    pairs = read_table(str(demo_run), "preferences", ["kind", "masked", "chosen_text", "rejected_text"]).to_pylist()
    assert {pair["kind"] for pair in pairs} == {"text", "audio"}
    assert all((pair["chosen_text"] != pair["rejected_text"]) == pair["masked"] for pair in pairs)


def test_nothing_is_lost_at_any_stage(demo_run):
    run = json.loads((demo_run / "run.json").read_text())
    for pipeline in run["pipelines"].values():
        for stats in pipeline["stages"]:
            if stats["stage"] in ("segment", "diarize", "extract", "transcribe", "annotate", "tokenize", "filter"):
                assert stats["rows_in"] == stats["rows_out"] + stats["rejected"]
            assert stats["rejected"] == sum(stats["reject_codes"].values())


def test_the_report_is_one_page_that_needs_nothing_else(demo_run):
    page = (demo_run / "report" / "index.html").read_text(encoding="utf-8")
    assert page.count("<audio") >= 4
    assert not re.search(r"""(?:src|href)=["'](?!data:|#)""", page)
    assert "<script" not in page
    assert len(page) < 12_000_000


def test_running_again_computes_nothing(demo_run):
    before = {p: p.stat().st_mtime_ns for p in demo_run.rglob("part-*")}
    finished = engine("run", "configs/demo.yaml", "--output", demo_run)
    assert finished.returncode == 0
    assert "already committed" in finished.stderr
    assert {p: p.stat().st_mtime_ns for p in demo_run.rglob("part-*")} == before
