"""Draws what a training logged, for the model card: its losses, and what it was tested for, over processor minutes."""

from __future__ import annotations

import csv
import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

_STATE = ("step", "seconds", "audio_hours", "rate", "minutes")
_WINDOW = 21


def draw(folder: Path, target: Path, title: str) -> None:
    """Writes a PNG of `losses.csv` and `evaluations.jsonl` of a training's folder.

    Args:
        folder: Output folder of a training.
        target: File to write.
        title: Of the picture.

    Raises:
        FileNotFoundError: The folder has no `losses.csv`.
    """
    from matplotlib.figure import Figure

    losses, tests = read_losses(folder), read_evaluations(folder)
    figure = Figure(figsize=(9, 3.4), dpi=80, layout="constrained")
    left, right = figure.subplots(1, 2)
    for name, values in losses.items():
        if name not in _STATE:
            left.plot(losses["seconds"] / 60, smoothed(values), label=name, linewidth=1)
    for name, pairs in tests.items():
        right.plot(*zip(*pairs, strict=True), label=name, marker=".", linewidth=1)
    for axes, what in ((left, "weighted training loss"), (right, "held out")):
        axes.set(xlabel="processor minutes", title=f"{title}: {what}")
        axes.set_ylim(bottom=0)
        axes.grid(alpha=0.3)
        axes.legend(fontsize=6, framealpha=0.5)
    target.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(target, metadata={"Software": None})


def read_losses(folder: Path) -> dict[str, npt.NDArray[np.float64]]:
    """Returns the columns of `losses.csv`."""
    with (folder / "losses.csv").open(encoding="utf-8", newline="") as file:
        header, *rows = list(csv.reader(file))
    values = np.array(rows, np.float64).reshape(-1, len(header))
    return dict(zip(header, values[_kept(values[:, 0])].T, strict=True))


def read_evaluations(folder: Path) -> dict[str, list[tuple[float, float]]]:
    """Returns measure -> (processor minutes, value) of all measures that are shares of one."""
    path = folder / "evaluations.jsonl"
    lines: list[dict[str, Any]] = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    found: dict[str, list[tuple[float, float]]] = {}
    for line in itertools.compress(lines, _kept(np.array([line["step"] for line in lines]))):
        for name in line:
            if name not in _STATE and not name.startswith(("codes", "perplexity")):
                found.setdefault(name, []).append((line["minutes"], line[name]))
    return found


def _kept(steps: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """Returns which lines stand: a training that was stopped goes on from its checkpoint and logs again."""
    later = np.minimum.accumulate(np.append(steps, np.inf)[::-1])[::-1][1:]
    return np.asarray(steps < later)


def smoothed(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Returns the running mean over 21 values, over fewer at the ends."""
    ones = np.ones(min(_WINDOW, len(values)))
    return np.asarray(np.convolve(values, ones, "same") / np.convolve(np.ones(len(values)), ones, "same"))
