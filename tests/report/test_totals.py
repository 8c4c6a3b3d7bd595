"""The totals of the report are written for programs, and are the numbers the page shows."""

import json

from data_engine.io.storage import Storage
from data_engine.report.page import render, write_report
from data_engine.report.totals import TOTALS, Counts, count_totals
from tests.rows import write_output
from tests.stages.rows import segment


def output(tmp_path):
    rows = [segment(n, decision="keep" if n % 3 else "drop", reasons=[] if n % 3 else ["NOISE"]) for n in range(9)]
    root = write_output(tmp_path / "out", {"segments": [rows[:4], [], rows[4:]]})
    return Storage(root), json.loads((tmp_path / "out" / "run.json").read_text())


def test_the_totals_are_written_beside_the_page(tmp_path):
    storage, run = output(tmp_path)
    write_report(storage, run)
    assert storage.read_json(TOTALS) == count_totals(storage, run)
    kept, dropped = (Counts(storage.read_json(TOTALS)).of("segments", "decision", d) for d in ("keep", "drop"))
    assert (kept.rows, dropped.rows) == (6, 3)


def test_the_page_shows_the_totals_it_is_given(tmp_path):
    storage, run = output(tmp_path)
    totals = count_totals(storage, run)
    totals["segments"]["by"]["reasons"] = {"COUNTED ELSEWHERE": [4321, 0]}
    assert "4,321" in render(storage, run, totals)
    assert "4,321" not in render(storage, run)
