"""Link: finds speakers of a whole run that are one person, among those with equal consent records."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from data_engine.core.config import Settings, speed_knob
from data_engine.core.ids import content_id
from data_engine.core.schema import load_schema
from data_engine.core.stage import BatchHint, StageResult, StageSpec, Worker, column
from data_engine.stages.rules.linking import LinkSettings, link, similarities

Row = dict[str, Any]
Print = tuple[Row, npt.NDArray[np.float32]]
"""Columns of a voiceprint but its embedding, and the embedding."""

_FACTS = ("voiceprint_id", "voice_id", "consent", "recording_id", "speaker_id", "is_declared", "language", "score")


class Link:
    """Compares the voiceprints of each consent record; those of a speaker found once are unused as `alone`.

    Speakers whose consent basis, licence or allowed uses differ never meet; two declared names, or two speakers told
    apart in one recording, are never merged.

    Consumes: voiceprint.v1
    Produces: speaker.v1
    Rejects: none
    """

    class Config(Settings):
        """Settings of the comparison.

        Attributes:
            rules: When two speakers are one.
            batch_rows: Rows at once.
        """

        rules: LinkSettings = LinkSettings()
        batch_rows: int = speed_knob(1024, ge=1)

    def __init__(self, config: Config) -> None:
        self.config = config
        self.spec = StageSpec(
            name="link",
            version="1",
            consumes=load_schema("voiceprint"),
            produces=load_schema("speaker"),
            shape="fold",
            parents="voiceprint_ids",
            batch=BatchHint(max_rows=config.batch_rows),
        )
        self._held: list[Print] = []

    def open(self, worker: Worker) -> None:
        """Needs nothing."""
        self._held = []

    def process(self, batch: pa.RecordBatch) -> StageResult:
        """Compares those of every consent record that ends in this batch; rows come in order of the record."""
        held = [*self._held, *_prints(batch)]
        *ended, self._held = (list(prints) for _, prints in groupby(held, key=lambda one: one[0]["consent"]))
        return self._result(ended)

    def finish(self) -> StageResult:
        """Compares those of the last consent record."""
        held, self._held = self._held, []
        return self._result([held] if held else [])

    def close(self) -> None:
        """Holds nothing else."""
        self._held = []

    def _result(self, ended: Sequence[Sequence[Print]]) -> StageResult:
        rows: list[Row] = []
        unused: dict[str, str] = {}
        for prints in ended:
            people = [person(found) for found in _people(prints, self.config.rules)]
            merged = {name for row in people for name in row["voiceprint_ids"]}
            rows += people
            unused |= {row["voiceprint_id"]: "alone" for row, _ in prints if row["voiceprint_id"] not in merged}
        merged_ids = float(sum(len(row["merged_speakers"]) for row in rows))
        return StageResult(self.spec.produces.batch(rows), unused=unused, metrics={"speakers_merged": merged_ids})


def _prints(batch: pa.RecordBatch) -> list[Print]:
    """Returns the rows with embeddings as arrays: as lists they would take eight times the memory."""
    vectors = batch.column(batch.schema.get_field_index("embedding"))
    flat = vectors.flatten().to_numpy(zero_copy_only=False).astype(np.float32).reshape(batch.num_rows, -1)
    facts = zip(*(column(batch, name) for name in _FACTS), strict=True)
    return [(dict(zip(_FACTS, row, strict=True)), vector) for row, vector in zip(facts, flat, strict=True)]


def _people(prints: Sequence[Print], rules: LinkSettings) -> list[list[list[Print]]]:
    """Returns the people found under several speaker ids, each as the voiceprints of each id."""
    ordered = sorted(prints, key=lambda one: (one[0]["speaker_id"], one[0]["voice_id"]))
    speakers = [list(found) for _, found in groupby(ordered, key=lambda one: one[0]["speaker_id"])]
    firsts = [found[0][0] for found in speakers]
    embeddings = np.stack([_mean([vector for _, vector in found]) for found in speakers])
    names = [row["speaker_id"] if row["is_declared"] else None for row in firsts]
    recordings = [None if row["is_declared"] else row["recording_id"] for row in firsts]
    return [[speakers[at] for at in members] for members in link(embeddings, names, recordings, rules)]


def person(speakers: Sequence[Sequence[Print]]) -> Row:
    """Returns the row of speaker.v1 of speakers that are one, each given by its voiceprints.

    Of each language the voice with the highest score is kept; of equal ones that with the smaller id.
    """
    rows = sorted((row for found in speakers for row, _ in found), key=lambda row: (-row["score"], row["voice_id"]))
    best: dict[str | None, str] = {}
    for row in rows:
        best.setdefault(row["language"], row["voice_id"])
    declared = [row["speaker_id"] for row in rows if row["is_declared"]]
    kept, names = (declared or [rows[0]["speaker_id"]])[0], sorted({row["speaker_id"] for row in rows})
    mean, least = similarities(np.stack([_mean([vector for _, vector in found]) for found in speakers]))
    return {
        "person_id": content_id("person", rows[0]["consent"], *names),
        "speaker_id": kept,
        "merged_speakers": [name for name in names if name != kept],
        "similarity": mean,
        "least_similarity": least,
        "voice_ids": sorted(row["voice_id"] for row in rows),
        "kept_voice_ids": sorted(best.values()),
        "voiceprint_ids": sorted(row["voiceprint_id"] for row in rows),
    }


def _mean(vectors: Sequence[npt.NDArray[np.float32]]) -> npt.NDArray[np.float32]:
    """Returns the mean of unit vectors at unit length."""
    total = np.sum(np.stack(vectors).astype(np.float64), axis=0)
    return np.asarray(total / max(float(np.linalg.norm(total)), 1e-12), np.float32)
