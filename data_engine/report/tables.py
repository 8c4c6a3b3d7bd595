"""One pass over each table: what the page says about it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data_engine.report.control import Control
from data_engine.report.counting import Smallest, Tallies, Tally, equal, floats, groups, listed, seconds
from data_engine.report.reading import Reader
from data_engine.report.spread import Spread
from data_engine.report.totals import Counts
from data_engine.tokens.vocabulary import AUDIO_OFFSET, AUDIO_SIZE

SAMPLES = 4
_MEASURED = ("dnsmos_ovr", "snr_db", "speaking_rate", "f0_median_hz")
_CODED = ("num_samples", "sample_rate", "num_groups", "tokenizer_hash", "codec", "decision", "reasons")
_BINS: Mapping[str, tuple[float, float, int]] = {
    "seconds": (0, 0.1, 300), "dnsmos_ovr": (1, 0.02, 200), "snr_db": (-10, 0.25, 320),
    "speaking_rate": (0, 0.05, 240), "f0_median_hz": (50, 1, 450), "word_error_rate": (0, 0.01, 150),
    "speaker_similarity": (0, 0.005, 200), "score": (0, 0.005, 200),
}  # fmt: skip
"""Lower end, width and number of the bins of each measure."""


def _spreads(names: tuple[str, ...]) -> dict[str, tuple[Spread, Spread]]:
    return {name: (Spread(*_BINS[name]), Spread(*_BINS[name])) for name in names}


@dataclass(slots=True)
class Clips:
    """What segments and candidates have in common.

    Attributes:
        spreads: Measure -> values of kept and of other rows.
        every: All rows.
        passed: Those that are kept.
        languages: By language.
        reasons: Reason -> rows dropped for it.
        kept: Places of samples that were kept.
        dropped: Reason -> places of samples that were dropped for it.
        codecs: Back end and hash of the audio tokenizer -> rows.
        num_groups: Complete groups of 120 ms.
    """

    spreads: dict[str, tuple[Spread, Spread]]
    every: Tally
    passed: Tally
    languages: Tallies
    reasons: Tallies
    kept: Smallest = field(default_factory=lambda: Smallest(SAMPLES))
    dropped: dict[str, Smallest] = field(default_factory=dict)
    codecs: Counter[str] = field(default_factory=Counter)
    num_groups: int = 0

    def add(self, rows: pa.Table, ids: str, picked: str = "decision", value: Any = "keep") -> None:
        """Adds a chunk; samples of the kept are those whose column `picked` is `value`."""
        keep = equal(rows, "decision", "keep")
        self.kept.add(rows, ids, equal(rows, picked, value))
        for name, (good, other) in self.spreads.items():
            values = seconds(rows) if name == "seconds" else floats(rows, name)
            good.add(values[keep])
            other.add(values[~keep])
        for reason, mask in listed(rows.column("reasons")):
            self.dropped.setdefault(reason, Smallest(SAMPLES)).add(rows, ids, mask)
        self._add_codes(rows)

    def _add_codes(self, rows: pa.Table) -> None:
        self.num_groups += int(np.nansum(floats(rows, "num_groups")))
        names = pc.binary_join_element_wise(rows.column("codec"), rows.column("tokenizer_hash"), " ")
        self.codecs.update({key: int(mask.sum()) for key, mask in groups(names) if key != "unknown"})

    def sample_drops(self) -> list[tuple[str, tuple[int, ...]]]:
        """Returns places of dropped rows, one for each of the commonest reasons first."""
        chosen: dict[str, tuple[int, ...]] = {}
        for turn in range(SAMPLES):
            for reason, _ in self.reasons.ranked():
                candidates = self.dropped.get(reason, Smallest(0)).kept  # none: that part became unreadable
                if turn < len(candidates) and len(chosen) < SAMPLES:
                    chosen.setdefault(*candidates[turn])
        return list(chosen.items())


def _clips(counts: Counts, table: str, measured: tuple[str, ...]) -> Clips:
    passed = counts.of(table, "decision", "keep")
    languages, reasons = counts.by(table, "language"), counts.by(table, "reasons")
    return Clips(_spreads(("seconds", *measured)), counts.every(table), passed, languages, reasons)


def read_segments(reader: Reader, counts: Counts) -> Clips:
    """Returns what the segments table holds."""
    clips = _clips(counts, "segments", _MEASURED)
    for rows in reader.chunks("segments", ["segment_id", *_CODED, *_MEASURED]):
        clips.add(rows, "segment_id")
    return clips


@dataclass(slots=True)
class Candidates:
    """What the candidates table holds.

    Attributes:
        clips: As for segments; `passed` are those that pass every gate.
        selected: Takes that are used.
        control: Asked against measured.
    """

    clips: Clips
    selected: Tally
    control: Control = field(default_factory=Control)


def read_candidates(reader: Reader, counts: Counts) -> Candidates:
    """Returns what the candidates table holds."""
    measured = ("word_error_rate", "speaker_similarity", "score", *_MEASURED)
    found = Candidates(_clips(counts, "candidates", measured), counts.of("candidates", "selected", "true"))
    asked = ("language", "emotion", "level", "speed", "dialect", "rate_ratio", "pitch_ratio", "selected")
    for rows in reader.chunks("candidates", ["candidate_id", *_CODED, *measured, *asked]):
        found.clips.add(rows, "candidate_id", "selected", True)
        found.control.add(rows)
    return found


def read_speech_seconds(reader: Reader) -> Tally:
    """Returns recordings, and the seconds of speech found in them."""
    tally = Tally()
    for rows in reader.chunks("recordings", ["recording_id", "speech", "sample_rate"]):
        speech = rows.column("speech").combine_chunks()
        rate = floats(rows, "sample_rate")[pc.list_parent_indices(speech).to_numpy(zero_copy_only=False)]
        samples = pc.struct_field(pc.list_flatten(speech), "num_samples").to_numpy(zero_copy_only=False)
        tally.rows += rows.num_rows
        tally.seconds += float((samples / np.maximum(rate, 1)).sum())
    return tally


@dataclass(slots=True)
class Examples:
    """What the aqaa table holds.

    Attributes:
        types: Record type -> rows, and seconds of audio in query and answer.
        lengths: Ids per example.
        text_ids: Ids that are not audio, special ids included.
        audio_ids: Ids of the two audio codebooks.
        loss_ids: Ids that carry loss.
        facts: (what, value) of hashes and templates -> rows.
    """

    every: Tally
    types: Tallies
    axes: Tallies
    splits: Tallies
    lengths: Spread = field(default_factory=lambda: Spread(0, 4, 8192))
    text_ids: int = 0
    audio_ids: int = 0
    loss_ids: int = 0
    facts: Counter[tuple[str, str]] = field(default_factory=Counter)

    def add(self, rows: pa.Table) -> None:
        """Adds a chunk."""
        self.lengths.add(_lengths(rows.column("input_ids")))
        ids = pc.list_flatten(rows.column("input_ids")).to_numpy()
        audio = int(((ids >= AUDIO_OFFSET) & (ids < AUDIO_OFFSET + AUDIO_SIZE)).sum())
        self.audio_ids, self.text_ids = self.audio_ids + audio, self.text_ids + len(ids) - audio
        self.loss_ids += int(pc.sum(pc.list_flatten(rows.column("loss_mask"))).as_py() or 0)
        for name in ("tokenizer_hash", "text_tokenizer_hash", "prompt_template"):
            self.facts.update({(name, key): int(mask.sum()) for key, mask in groups(rows.column(name))})


def read_examples(reader: Reader, counts: Counts) -> Examples:
    """Returns what the aqaa table holds."""
    types, axes, splits = (counts.by("aqaa", name) for name in ("type", "axis", "split"))
    found = Examples(counts.every("aqaa"), types, axes, splits)
    columns = ("tokenizer_hash", "text_tokenizer_hash", "prompt_template", "input_ids", "loss_mask")
    for rows in reader.chunks("aqaa", columns):
        found.add(rows)
    return found


def _lengths(lists: Any) -> Any:
    lengths = pc.cast(pc.list_value_length(lists), pa.float64())
    return pc.fill_null(lengths, float("nan")).to_numpy()


@dataclass(slots=True)
class Pairs:
    """What the preferences table holds: pairs by kind and axis, and samples of each kind."""

    rows: int
    axes: Tallies
    samples: dict[str, Smallest] = field(default_factory=lambda: {"text": Smallest(2), "audio": Smallest(2)})


def read_pairs(reader: Reader, counts: Counts) -> Pairs:
    """Returns what the preferences table holds."""
    found = Pairs(counts.every("preferences").rows, counts.by("preferences", "kind: axis"))
    for rows in reader.chunks("preferences", ["pair_id", "kind"]):
        for kind, smallest in found.samples.items():
            smallest.add(rows, "pair_id", equal(rows, "kind", kind))
    return found
