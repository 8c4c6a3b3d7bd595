"""Small networks on codes: what a language model needs per second, and what a CTC head reads (PAPERS S1a, c and d)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from data_engine.backends.protocols import CodeStreams
from data_engine.tokens.layout import num_groups
from data_engine.training.batches import frame_labels
from data_engine.training.evaluation.bench import Bench
from data_engine.training.evaluation.figures import Found, ratio_of
from data_engine.training.evaluation.small_networks import (
    HeadExample,
    bits_of_windows,
    head_paths,
    train_head,
    train_language_model,
)
from data_engine.training.evaluation.utterances import SILENT, Spoken
from data_engine.training.linguistic import GRID as LINGUISTIC_GRID
from data_engine.training.scoring import collapsed, edits
from data_engine.training.semantic import GRID as SEMANTIC_GRID

Ints = npt.NDArray[np.int64]

LINGUISTIC, SEMANTIC = 1024, 4096
WINDOW_GROUPS = 40
GROUP_SECONDS = 0.12


def groups_of(stream: CodeStreams) -> Ints:
    """Returns the complete groups of a stream as flat ids 0..5119, int64 [groups, 5]: two vq02, three vq06."""
    count = num_groups(len(stream.vq02), len(stream.vq06))
    words = stream.vq02[: 2 * count].astype(np.int64).reshape(count, 2)
    sounds = stream.vq06[: 3 * count].astype(np.int64).reshape(count, 3) + LINGUISTIC
    return np.concatenate([words, sounds], axis=1)


def labels_of(one: Spoken, groups: int) -> Ints:
    """Returns the token at the centre of each code of so many groups, int64 [groups, 5]."""
    words = frame_labels(one.utterance, 2 * groups, LINGUISTIC_GRID, 1.0).reshape(groups, 2)
    sounds = frame_labels(one.utterance, 3 * groups, SEMANTIC_GRID, 1.0).reshape(groups, 3)
    return np.concatenate([words, sounds], axis=1)


COLUMNS = {"interleaved": slice(0, 5), "vq02": slice(0, 2), "vq06": slice(2, 5)}
"""Name -> which ids of a group a model sees."""

VIEWS: dict[str, tuple[Callable[[Ints], Ints], int]] = {
    "interleaved": (lambda groups: groups.reshape(-1), LINGUISTIC + SEMANTIC),
    "vq02": (lambda groups: groups[:, :2].reshape(-1), LINGUISTIC),
    "vq06": (lambda groups: groups[:, 2:].reshape(-1) - LINGUISTIC, SEMANTIC),
}
"""Name -> what a model sees of groups, and of how many ids."""


def bits(bench: Bench) -> dict[str, Found]:
    """Returns bits per second of the interleave over the sum of both single streams.

    Three language models, alike but for their ids, see the same windows of speech for the same steps. The interval is
    over held-out windows of 4.8 s.
    """
    streams, settings = bench.probes[1], bench.settings.probes
    groups = [groups_of(stream) for stream in streams]
    train = np.concatenate([g for n, g in enumerate(groups) if n % settings.held_out])
    held = np.concatenate([g for n, g in enumerate(groups) if not n % settings.held_out])
    windows = held[: len(held) // WINDOW_GROUPS * WINDOW_GROUPS].reshape(-1, WINDOW_GROUPS, 5)
    costs: dict[str, npt.NDArray[np.float64]] = {}
    for name, (view, size) in VIEWS.items():
        model = train_language_model(
            train, view, size, settings.language_model_steps, settings.rate, bench.settings.seed
        )
        costs[name] = bits_of_windows(model, np.stack([view(window) for window in windows]))
    seconds = len(windows) * WINDOW_GROUPS * GROUP_SECONDS
    shown = {name: round(float(cost.sum()) / seconds, 1) for name, cost in costs.items()}
    ratio = ratio_of(costs["interleaved"], costs["vq02"] + costs["vq06"])
    return {"bits": bench.found(ratio, len(windows), bits_per_second=shown, steps=settings.language_model_steps)}


def phone_heads(bench: Bench) -> dict[str, Found]:
    """Returns the phone errors of a head on interleaved ids over those of a head on vq06, on both test sets."""
    spoken, streams = bench.probes
    settings = bench.settings.probes
    groups = [groups_of(stream) for stream in streams]
    labels = [labels_of(one, len(g)) for one, g in zip(spoken, groups, strict=True)]
    sets = {name: [groups_of(stream) for stream in bench.streams(name)] for name in ("teachers", "real")}
    wrong: dict[str, Ints] = {}
    details: dict[str, Any] = {}
    for name, (view, size) in VIEWS.items():
        examples = [
            HeadExample(view(g), marked[:, COLUMNS[name]].reshape(-1), one.utterance.spoken)
            for g, marked, one in zip(groups, labels, spoken, strict=True)
        ]
        model = train_head(examples, size, settings.phone_head_steps, 2 * settings.rate, bench.settings.seed)
        counted = {
            key: _errors(bench, key, head_paths(model, [view(g) for g in found])) for key, found in sets.items()
        }  # fmt: skip
        wrong[name] = np.concatenate(list(counted.values()))
        details[name] = {key: round(float(c.sum()) / _phones(bench, key), 4) for key, c in counted.items()}
    return {
        "ratio": bench.found(ratio_of(wrong["interleaved"], wrong["vq06"]), len(wrong["vq06"]), error_rates=details)
    }


def _errors(bench: Bench, name: str, paths: list[Ints]) -> Ints:
    pairs = zip(bench.spoken(name), paths, strict=True)
    return np.array([edits(one.utterance.spoken, collapsed(path, SILENT)) for one, path in pairs], np.int64)


def _phones(bench: Bench, name: str) -> int:
    return sum(len(one.utterance.spoken) for one in bench.spoken(name))
