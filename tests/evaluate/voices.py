"""False and missed merges of speakers across recordings: every real speech file whose speaker is known is a voice.

Pairs are counted first, threshold by threshold, as they would be merged one by one; then what the engine's own rule
makes of all files at once, with nothing known but the sound. Files come from many microphones, rooms and moods: some
speakers are acted emotions, which a speaker model hears as other people, and those make most of the missed pairs.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from itertools import combinations
from pathlib import Path

import numpy as np
import numpy.typing as npt

from data_engine.backends.speaker_resemblyzer import ResemblyzerEmbedder
from data_engine.stages.rules.linking import LinkSettings, link
from tests.evaluate.disturbances import RATE
from tests.evaluate.duplicates import mono
from tests.evaluate.table import Figure

Floats = npt.NDArray[np.float32]

THRESHOLDS = (0.75, 0.8, 0.82, 0.84, 0.86, 0.88, 0.9)
SHORTEST, LONGEST = 3.0, 15.0
"""Seconds of a prompt, as the stage `voices` makes them."""


def voices(folder: Path, shortest: float = SHORTEST) -> tuple[list[str], Floats]:
    """Returns the speaker of each real file of one known speaker that is long enough, and the embeddings of the files.

    Args:
        folder: Of the speech files.
        shortest: Seconds.
    """
    embedder = ResemblyzerEmbedder()
    embedder.open()
    speakers, vectors = [], []
    for line in (folder / "manifest.jsonl").read_text(encoding="utf-8").splitlines():
        listed = json.loads(line)
        known = listed["speakers"] == 1 and listed["speaker_id"] and listed["duration_s"] >= shortest
        if known and not listed["synthetic"] and not {"edge", "broken"} & set(listed["kinds"]):
            wave = mono((folder / listed["path"]).read_bytes())[: round(LONGEST * RATE)]
            speakers.append(listed["speaker_id"])
            vectors.append(embedder.embed([wave])[0])
    return speakers, np.stack(vectors)


def pair_figures(speakers: Sequence[str], vectors: Floats, thresholds: Sequence[float]) -> Iterator[Figure]:
    """Yields, per threshold, the share of pairs of one speaker below it and the number of other pairs that reach it."""
    one, other = np.triu_indices(len(speakers), 1)
    names = np.array(speakers)
    same, alike = names[one] == names[other], (vectors @ vectors.T)[one, other]
    for threshold in thresholds:
        missed = float((alike[same] < threshold).mean())
        yield Figure(f"one speaker, cosine below {threshold:g}", f"{int(same.sum())} pairs of files", missed, unit="%")
        wrong = float((alike[~same] >= threshold).sum())
        yield Figure(f"two speakers, cosine from {threshold:g}", f"{int((~same).sum())} pairs of files", wrong)


def merge_figures(speakers: Sequence[str], vectors: Floats, settings: LinkSettings) -> Iterator[Figure]:
    """Yields false merges, and the share of pairs of one speaker that end in one set, by the engine's rule."""
    groups = link(vectors, [None] * len(speakers), [f"file {at}" for at in range(len(speakers))], settings)
    pairs = [(speakers[a], speakers[b]) for group in groups for a, b in combinations(group, 2)]
    possible = sum(a == b for a, b in combinations(speakers, 2))
    on = f"{len(speakers)} files, {len(set(speakers))} speakers"
    false = sum(len({speakers[at] for at in group}) > 1 for group in groups)
    yield Figure(f"speakers merged, sets of two and more (threshold {settings.threshold:g})", on, len(groups))
    yield Figure("speakers merged, sets with two speakers", on, false, 0.0)
    yield Figure("speakers merged, pairs of one speaker found", on, sum(a == b for a, b in pairs) / possible, unit="%")


def figures(folder: Path) -> Iterator[Figure]:
    """Yields what each threshold would merge, and what the engine merges."""
    speakers, vectors = voices(folder)
    yield from pair_figures(speakers, vectors, THRESHOLDS)
    yield from merge_figures(speakers, vectors, LinkSettings())
