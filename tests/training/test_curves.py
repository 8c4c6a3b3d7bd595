"""Curves for the model card: what a stopped training logged twice counts once."""

import json

import numpy as np
import pytest

from data_engine.training.curves import draw, read_evaluations, read_losses, smoothed


@pytest.fixture
def folder(tmp_path):
    rows = [(1, 1.0, 2.0), (2, 2.0, 1.9), (3, 3.0, 1.8), (2, 2.1, 1.7), (3, 3.1, 1.6)]
    lines = ["step,seconds,ctc", *(",".join(map(str, row)) for row in rows)]
    (tmp_path / "losses.csv").write_text("\n".join(lines) + "\n")
    tests = [
        {"step": 3, "minutes": 0.05, "teachers": 0.9, "codes_used": 7},
        {"step": 2, "minutes": 0.03, "teachers": 0.5},
    ]
    (tmp_path / "evaluations.jsonl").write_text("".join(json.dumps(line) + "\n" for line in tests))
    return tmp_path


def test_what_was_lost_with_a_checkpoint_is_left_out(folder):
    losses = read_losses(folder)
    assert losses["step"].tolist() == [1, 2, 3]
    assert losses["ctc"].tolist() == [2.0, 1.7, 1.6]
    assert read_evaluations(folder) == {"teachers": [(0.03, 0.5)]}


def test_smoothing_keeps_a_constant_up_to_the_ends():
    assert np.allclose(smoothed(np.full(50, 3.0)), 3.0)


def test_the_picture_is_the_same_every_time(folder):
    pytest.importorskip("matplotlib")
    for name in ("a.png", "b.png"):
        draw(folder, folder / name, "made")
    assert (folder / "a.png").read_bytes() == (folder / "b.png").read_bytes()
    assert (folder / "a.png").read_bytes().startswith(b"\x89PNG")
