"""Samples one can play: few, the same on every run, within a budget of bytes."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from data_engine.report import wording
from data_engine.report.reading import Reader
from data_engine.report.tables import Candidates, Clips, Pairs

PAGE_BYTES = 8_000_000
SAMPLE_BYTES = 900_000
_AUDIO_TYPES = ((b"fLaC", "audio/flac"), (b"RIFF", "audio/wav"), (b"OggS", "audio/ogg"))
_SCORES: tuple[tuple[str, str, int], ...] = (
    ("score", "score", 2), ("dnsmos_ovr", "DNSMOS", 2), ("snr_db", "SNR dB", 0), ("f0_median_hz", "F0 Hz", 0),
    ("speaking_rate", "syllables/s", 1), ("text_confidence", "confidence", 2), ("word_error_rate", "WER", 2),
    ("speaker_similarity", "voice", 2), ("rate_ratio", "rate/asked", 2), ("pitch_ratio", "pitch/asked", 2),
)  # fmt: skip
"""Column, how the page calls it, decimals."""
_SEGMENT = (
    "segment_id", "audio", "num_samples", "sample_rate", "text", "speaker_id", "language", "reasons",
    "dnsmos_ovr", "snr_db", "f0_median_hz", "speaking_rate", "text_confidence", "pii",
)  # fmt: skip
_CANDIDATE = (
    "candidate_id", "audio", "num_samples", "sample_rate", "text", "heard", "voice_id", "language", "emotion", "level",
    "speed", "dialect", "reasons", "score", "dnsmos_ovr", "word_error_rate", "speaker_similarity", "rate_ratio",
    "pitch_ratio",
)  # fmt: skip
_PAIR = (
    "pair_id", "kind", "axis", "margin", "scorer", "prompt_text", "chosen_text", "rejected_text", "chosen_audio",
    "rejected_audio",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Sample:
    """A clip on the page.

    Attributes:
        identifier: Id of the row.
        text: What is said.
        facts: Speaker, controls and the like.
        scores: (name, value) as people read them.
        reasons: Why it was dropped.
        audio: `data:` address; None when there is none or the budget is spent.
        note: Why there is no audio, or what was heard.
    """

    identifier: str
    text: str | None
    facts: Sequence[str] = ()
    scores: Sequence[tuple[str, str]] = ()
    reasons: Sequence[str] = ()
    audio: str | None = None
    note: str | None = None
    heard: str | None = None


@dataclass(frozen=True, slots=True)
class PairSample:
    """A preference pair on the page: facts about it, the prompt, the better and the worse answer."""

    facts: Sequence[str]
    prompt: str
    chosen: Sample
    rejected: Sample


@dataclass(slots=True)
class Budget:
    """Bytes of audio that still fit on the page."""

    left: int = PAGE_BYTES

    def embed(self, audio: Mapping[str, Any] | None) -> tuple[str | None, str | None]:
        """Returns the audio as a `data:` address, or None and why."""
        content = (audio or {}).get("bytes") or b""
        kind = next((name for magic, name in _AUDIO_TYPES if content.startswith(magic)), None)
        if kind is None:
            return None, "no audio in the row"
        encoded = base64.b64encode(content).decode("ascii")
        if len(encoded) > min(self.left, SAMPLE_BYTES):
            return None, "audio left out to keep this page small"
        self.left -= len(encoded)
        return f"data:{kind};base64,{encoded}", None


@dataclass(frozen=True, slots=True)
class Samples:
    """Everything one can play, by where it stands on the page."""

    kept: Sequence[Sample] = ()
    dropped: Sequence[Sample] = ()
    selected: Sequence[Sample] = ()
    failed: Sequence[Sample] = ()
    pairs: Sequence[PairSample] = field(default_factory=list)


def read_samples(reader: Reader, segments: Clips, candidates: Candidates, pairs: Pairs) -> Samples:
    """Returns the chosen samples with their audio."""
    budget = Budget()
    clips, takes = segments, candidates.clips
    return Samples(
        kept=[_segment(row, budget) for row in _rows(reader, "segments", clips.kept.kept, _SEGMENT)],
        dropped=[_segment(row, budget) for row in _rows(reader, "segments", clips.sample_drops(), _SEGMENT)],
        selected=[_candidate(row, budget) for row in _rows(reader, "candidates", takes.kept.kept, _CANDIDATE)],
        failed=[_candidate(row, budget) for row in _rows(reader, "candidates", takes.sample_drops(), _CANDIDATE)],
        pairs=[
            _pair(row, budget)
            for smallest in pairs.samples.values()
            for row in _rows(reader, "preferences", smallest.kept, _PAIR)
        ],
    )


def _rows(
    reader: Reader, table: str, places: Sequence[tuple[str, tuple[int, ...]]], columns: Sequence[str]
) -> list[dict[str, Any]]:
    found = (reader.row(table, place, columns) for _, place in places)
    return [row for row in found if row is not None]


def _segment(row: Mapping[str, Any], budget: Budget) -> Sample:
    marked = [found for found in row["pii"] or () if found["action"] == "mark"]
    audio, note = (None, "holds personal data, not played here") if marked else budget.embed(row["audio"])
    facts = [_seconds(row), row["language"] or "language unknown", f"speaker {_speaker(row['speaker_id'])}"]
    text = without_personal_data(row["text"], marked)
    return Sample(row["segment_id"], text, facts, _scores(row), row["reasons"] or (), audio, note)


def without_personal_data(text: str | None, marked: Sequence[Mapping[str, Any]]) -> str | None:
    """Returns a transcript with a tag such as [PHONE] for each entry of its column `pii`."""
    for found in sorted(marked, key=lambda f: -int(f["text_start"])):
        start, end = found["text_start"], found["text_start"] + found["text_length"]
        text = f"{(text or '')[:start]}[{found['kind']}]{(text or '')[end:]}"
    return text


def _candidate(row: Mapping[str, Any], budget: Budget) -> Sample:
    audio, note = budget.embed(row["audio"])
    spoken = row["language"] + (f" ({row['dialect']})" if row["dialect"] else "")
    facts = [
        _seconds(row), spoken, f"{row['emotion']} {row['level']}", f"speed {row['speed']}",
        f"voice {wording.short(row['voice_id'])}",
    ]  # fmt: skip
    reasons, heard = row["reasons"] or (), row["heard"]
    return Sample(row["candidate_id"], row["text"], facts, _scores(row), reasons, audio, note, heard)


def _pair(row: Mapping[str, Any], budget: Budget) -> PairSample:
    sides = {}
    for side in ("chosen", "rejected"):
        audio, note = budget.embed(row[f"{side}_audio"])
        sides[side] = Sample(row["pair_id"], row[f"{side}_text"], audio=audio, note=note)
    what = "differs in text, trains masked DPO" if row["kind"] == "text" else "differs in sound only"
    facts = [what, f"worse in {row['axis']}", f"margin {row['margin']:.1f} of 10", f"by {row['scorer']}"]
    return PairSample(facts, conversation(row["prompt_text"]), sides["chosen"], sides["rejected"])


def conversation(prompt: str) -> str:
    """Returns a prompt as lines of `role: text`, without the marks of the chat template."""
    turns = [turn.replace("<|EOT|>", "").strip() for turn in prompt.split("<|BOT|>")]
    said = [turn.replace("\n", ": ", 1) for turn in turns]
    return "\n".join(turn for turn in said if turn not in ("", "assistant"))


def _scores(row: Mapping[str, Any]) -> list[tuple[str, str]]:
    found = ((label, row.get(name), digits) for name, label, digits in _SCORES)
    return [(label, wording.number(value, digits)) for label, value, digits in found if value is not None]


def _seconds(row: Mapping[str, Any]) -> str:
    samples, rate = row["num_samples"], row["sample_rate"]
    return wording.duration(samples / rate) if samples and rate else "length unknown"


def _speaker(speaker_id: str) -> str:
    """Returns the number of a speaker that was found, or the name of a declared one."""
    recording, colon, number = speaker_id.rpartition(":")
    return f"{wording.short(recording)}:{number}" if colon else speaker_id
