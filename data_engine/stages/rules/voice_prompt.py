"""Which segments make a voice prompt: their score, what is held while segments stream by, and the choice."""

from __future__ import annotations

import math
from bisect import insort
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, takewhile
from typing import Any

import numpy as np
from pydantic import Field

from data_engine.backends.protocols import Wave
from data_engine.core.config import Settings
from data_engine.stages.rules.prompt_text import text_problem

Row = dict[str, Any]
Key = tuple[float, str]
SpeakerKey = tuple[str, str, str, tuple[str, ...], str, int]

GOOD_SNR_DB = 40.0
BAD_CLIPPING_RATIO = 0.001
_WEIGHTS = {"quality": 0.5, "snr": 0.25, "confidence": 0.25}
_UNSPACED_LANGUAGES = ("zh", "yue", "ja")


def segment_score(segment: Mapping[str, Any]) -> float:
    """Returns how good a prompt a segment makes, 0..1.

    Half DNSMOS overall (1..5 to 0..1), a quarter signal-to-noise ratio (0..40 dB), a quarter confidence of the
    transcript; what was not measured is left out of the mean. Clipping lowers the score in proportion, to 0 at one
    sample in a thousand: a cloned voice repeats it.
    """
    parts = {
        "quality": None if segment["dnsmos_ovr"] is None else (segment["dnsmos_ovr"] - 1) / 4,
        "snr": None if segment["snr_db"] is None else segment["snr_db"] / GOOD_SNR_DB,
        "confidence": segment["text_confidence"],
    }
    known = {name: min(max(part, 0.0), 1.0) for name, part in parts.items() if part is not None}
    total = sum(_WEIGHTS[name] for name in known)
    mean = sum(_WEIGHTS[name] * part for name, part in known.items()) / total if total else 0.0
    return float(mean * max(0.0, 1 - (segment["clipping_ratio"] or 0.0) / BAD_CLIPPING_RATIO))


def speaker_key(row: Row) -> SpeakerKey:
    """Returns what segments of one prompt must share: speaker, consent record, language and sample rate."""
    consent = repr(row["consent_basis"]), repr(row["licence"]), tuple(sorted(row["allowed_uses"]))
    return row["speaker_id"], *consent, repr(row["language"]), row["sample_rate"]


class PromptRules(Settings):
    """What a segment must be to become part of a prompt, besides kept and of fitting length.

    Attributes:
        max_overlap_ratio: Share in which another speaker may be heard too.
        check_text: Whether a text that cannot be trusted (`prompt_text.text_problem`) bars its segment.
    """

    max_overlap_ratio: float = Field(default=0.02, ge=0.0, le=1.0)
    check_text: bool = True


def unfit(segment: Mapping[str, Any], shortest: float, longest: float, rules: PromptRules) -> str | None:
    """Returns why a segment cannot be part of a prompt, None when it can.

    Args:
        segment: Row of `segment.v1` with a decision.
        shortest: Seconds it must have.
        longest: Seconds it may have.
        rules: What else it must be.
    """
    if segment["decision"] != "keep":
        return "not_kept"
    if not segment["audio"] or not segment["audio"]["bytes"]:
        return "no_audio"
    if seconds(segment) < shortest:
        return "too_short"
    if seconds(segment) > longest:
        return "too_long"
    if (segment["overlap_ratio"] or 0.0) > rules.max_overlap_ratio:
        return "overlapped"
    return text_problem(segment) if rules.check_text else None


def seconds(segment: Mapping[str, Any]) -> float:
    """Returns the length of a segment."""
    return float(segment["num_samples"] / segment["sample_rate"])


@dataclass(slots=True)
class Shortlist:
    """The best segments of one speaker so far, of bounded length, whatever the order they come in.

    What is given up sets a floor: nothing worse is taken later, so the result is the best segments whose lengths add up
    to no more than the budget, as if all had been sorted at once.

    Attributes:
        budget: Seconds that are held at most.
        held: (key, segment), best first; the key is (minus score, segment id).
    """

    budget: float
    held: list[tuple[Key, Row]] = field(default_factory=list)
    _floor: Key = (math.inf, "")

    def add(self, segment: Row) -> list[str]:
        """Takes a segment and returns the ids of those that are given up, itself perhaps."""
        key = -segment_score(segment), segment["segment_id"]
        if key > self._floor:
            return [segment["segment_id"]]
        insort(self.held, (key, segment), key=lambda item: item[0])
        lengths = accumulate(seconds(row) for _, row in self.held)
        keep = sum(1 for _ in takewhile(lambda total: total <= self.budget, lengths))
        given_up, self.held = self.held[keep:], self.held[:keep]
        self._floor = min([self._floor, *(key for key, _ in given_up)])
        return [name for (_, name), _ in given_up]


@dataclass(slots=True)
class Shortlists:
    """The best segments of every speaker and consent record so far.

    Attributes:
        shortest: Seconds a segment must have.
        longest: Seconds a prompt may have; twice as much is held per speaker.
        rules: What else a segment must be.
        by_speaker: What is held.
    """

    shortest: float
    longest: float
    rules: PromptRules = field(default_factory=PromptRules)
    by_speaker: dict[SpeakerKey, Shortlist] = field(default_factory=dict)

    def add(self, segments: Iterable[Row]) -> dict[str, str]:
        """Takes segments and returns segment id -> reason for those that are not used."""
        unused: dict[str, str] = {}
        for row in segments:
            reason = unfit(row, self.shortest, self.longest, self.rules)
            if reason:
                unused[row["segment_id"]] = reason
                continue
            shortlist = self.by_speaker.setdefault(speaker_key(row), Shortlist(2 * self.longest))
            unused |= dict.fromkeys(shortlist.add(row), "not_best")
        return unused

    def take(self) -> list[Shortlist]:
        """Returns what is held, in order of speakers, and forgets it."""
        held = [shortlist for _, shortlist in sorted(self.by_speaker.items(), key=lambda item: item[0])]
        self.by_speaker = {}
        return held


def choose(shortlist: Shortlist, target: float, longest: float, gap: float) -> list[Row]:
    """Returns the segments of the prompt, in the order they were spoken.

    Best first until the prompt, with `gap` seconds between its parts, has `target` seconds; a segment that would make
    it longer than `longest` is passed over.
    """
    chosen: list[Row] = []
    length = 0.0
    for _, row in shortlist.held:
        longer = length + seconds(row) + (gap if chosen else 0.0)
        if length < target and longer <= longest:
            chosen.append(row)
            length = longer
    return sorted(chosen, key=lambda row: (row["recording_id"], row["channel"], row["start"], row["segment_id"]))


def joined_wave(waves: Sequence[Wave], sample_rate: int, gap: float) -> Wave:
    """Returns the waves with `gap` seconds of silence between them, float32 [samples]."""
    silence = np.zeros(round(gap * sample_rate), np.float32)
    parts = [part for wave in waves for part in (silence, wave)]
    return np.concatenate(parts[1:])


def joined_text(segments: Sequence[Mapping[str, Any]]) -> str | None:
    """Returns what the prompt says; None when one of its segments has no text, for a prompt text must be whole."""
    texts = [row["text"] for row in segments]
    if any(text is None for text in texts):
        return None
    unspaced = (segments[0]["language"] or "").split("-")[0] in _UNSPACED_LANGUAGES
    return ("" if unspaced else " ").join(text.strip() for text in texts)


def weighted_mean(segments: Sequence[Mapping[str, Any]], values: Sequence[float | None]) -> float | None:
    """Returns the mean of the values there are, weighted by the length of their segments."""
    known = [(seconds(row), value) for row, value in zip(segments, values, strict=True) if value is not None]
    total = sum(weight for weight, _ in known)
    return sum(weight * value for weight, value in known) / total if total else None
