"""Gates and scores of a spoken take: pure functions of what was asked and what was measured.

A measure that is null was not taken: it fails no gate, unless it is required, and the composite is the weighted
mean of the components there are.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from pydantic import Field, model_validator

from data_engine.core.config import Settings

COMPONENTS = ("text", "rate", "pitch", "voice", "quality", "pauses", "repetition")

AXES: dict[str, tuple[str, ...]] = {
    "tag_obedience": ("rate", "pitch"),
    "word_error_rate": ("text",),
    "speaker_match": ("voice",),
    "naturalness": ("quality", "pauses", "repetition"),
}
"""What an audio preference can be about, and the components that measure it."""

MEASURES = (
    "dnsmos_sig", "dnsmos_bak", "dnsmos_ovr", "snr_db", "clipping_ratio", "bandwidth_hz", "energy_dbfs",
    "f0_median_hz", "f0_std_semitones", "voiced_ratio", "speaking_rate", "silence_ratio", "rate_ratio",
    "pitch_ratio", "word_error_rate", "speaker_similarity", "longest_silence", "repetition",
)  # fmt: skip
"""Columns of `candidate.v1` that hold a measurement."""


class Gates(Settings):
    """Thresholds; null turns a gate off. The defaults fit the embedded back ends.

    They were set on 208 takes of the script bank, half English and half Chinese, by the embedded synthesizer. Their
    5th to 95th percentile: rate 0.82..1.22 and pitch 0.97..1.07 of what was asked, DNSMOS 2.05..3.16, cosine to the
    voice 0.49..0.71 and to other voices 0.40..0.64, so VOICE_OFF stops only the worst. The word error rate of the
    embedded recognizer was taken on 198 takes of two runs of the demo: median 0.08, 95th percentile 0.43 in English
    and 0.57 in Chinese. With a production recognizer and a cloning synthesizer set both much tighter.

    Attributes:
        max_word_error_rate: WER_TOO_HIGH above it.
        max_rate_factor: RATE_OFF when the speaking rate is off by more than this factor, up or down.
        max_pitch_factor: PITCH_OFF likewise for the median pitch.
        min_speaker_similarity: VOICE_OFF below this cosine.
        min_dnsmos_ovr: LOW_QUALITY below this MOS, 1..5.
        max_clipping_ratio: CLIPPED above this share of samples.
        max_longest_silence: TOO_SILENT above these seconds.
        max_silence_ratio: TOO_SILENT above this share of frames.
        max_repetition: REPETITIVE above this share.
        min_groups: TOO_FEW_TOKENS below so many groups of 120 ms; never off, a take without tokens is of no use.
        required: NOT_MEASURED when one of these columns is null.
    """

    max_word_error_rate: float | None = 0.6
    max_rate_factor: float | None = Field(default=1.6, gt=1)
    max_pitch_factor: float | None = Field(default=1.35, gt=1)
    min_speaker_similarity: float | None = 0.45
    min_dnsmos_ovr: float | None = 1.8
    max_clipping_ratio: float | None = 0.001
    max_longest_silence: float | None = 1.2
    max_silence_ratio: float | None = 0.6
    max_repetition: float | None = 0.3
    min_groups: int = Field(default=2, ge=1)
    required: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _knows_required(self) -> Gates:
        unknown = set(self.required) - set(MEASURES)
        if unknown:
            raise ValueError(f"required measures {sorted(unknown)} are unknown; known: {', '.join(MEASURES)}")
        return self


class Weights(Settings):
    """Weight of each component in the composite score; only their ratios matter."""

    text: float = Field(default=0.25, ge=0)
    rate: float = Field(default=0.15, ge=0)
    pitch: float = Field(default=0.15, ge=0)
    voice: float = Field(default=0.2, ge=0)
    quality: float = Field(default=0.15, ge=0)
    pauses: float = Field(default=0.05, ge=0)
    repetition: float = Field(default=0.05, ge=0)


def gate(row: Mapping[str, Any], gates: Gates) -> list[str]:
    """Returns the names of the gates a candidate fails, in a fixed order, each once."""
    failed = {
        "NOT_MEASURED": any(row[name] is None for name in gates.required),
        "TOO_FEW_TOKENS": (row["num_groups"] or 0) < gates.min_groups,
        "WER_TOO_HIGH": _above(row["word_error_rate"], gates.max_word_error_rate),
        "RATE_OFF": _off(row["rate_ratio"], gates.max_rate_factor),
        "PITCH_OFF": _off(row["pitch_ratio"], gates.max_pitch_factor),
        "VOICE_OFF": _below(row["speaker_similarity"], gates.min_speaker_similarity),
        "LOW_QUALITY": _below(row["dnsmos_ovr"], gates.min_dnsmos_ovr),
        "CLIPPED": _above(row["clipping_ratio"], gates.max_clipping_ratio),
        "TOO_SILENT": _above(row["longest_silence"], gates.max_longest_silence)
        or _above(row["silence_ratio"], gates.max_silence_ratio),
        "REPETITIVE": _above(row["repetition"], gates.max_repetition),
    }
    return [reason for reason, is_failed in failed.items() if is_failed]


def components(row: Mapping[str, Any]) -> dict[str, float]:
    """Returns the measured components of a candidate's score, each 0 (worst) .. 1 (best).

    text: 1 - word error rate. rate, pitch: 1 at the asked value, 0 at half or double, linear in octaves.
    voice: cosine. quality: DNSMOS overall from 1..5. pauses: 1 without, 0 from 2 s. repetition: 1 - share.
    """
    scores = {
        "text": _inverse(row["word_error_rate"], 1.0),
        "rate": _closeness(row["rate_ratio"]),
        "pitch": _closeness(row["pitch_ratio"]),
        "voice": row["speaker_similarity"],
        "quality": None if row["dnsmos_ovr"] is None else (row["dnsmos_ovr"] - 1) / 4,
        "pauses": _inverse(row["longest_silence"], 2.0),
        "repetition": _inverse(row["repetition"], 1.0),
    }
    return {name: min(max(score, 0.0), 1.0) for name, score in scores.items() if score is not None}


def composite(scores: Mapping[str, float], weights: Weights) -> float:
    """Returns the weighted mean of the components there are, 0..1; 0 when nothing was measured."""
    weight = {name: getattr(weights, name) for name in scores}
    total = math.fsum(weight.values())
    return math.fsum(scores[name] * weight[name] for name in scores) / total if total else 0.0


def by_axis(scores: Mapping[str, float]) -> dict[str, float]:
    """Returns the mean of the measured components of each axis of `AXES`; axes without any are left out."""
    measured = {axis: [scores[n] for n in names if n in scores] for axis, names in AXES.items()}
    return {axis: math.fsum(values) / len(values) for axis, values in measured.items() if values}


def _above(value: float | None, limit: float | None) -> bool:
    return value is not None and limit is not None and value > limit


def _below(value: float | None, limit: float | None) -> bool:
    return value is not None and limit is not None and value < limit


def _off(ratio: float | None, factor: float | None) -> bool:
    if ratio is None or factor is None:
        return False
    return ratio <= 0 or max(ratio, 1 / ratio) > factor


def _closeness(ratio: float | None) -> float | None:
    if ratio is None:
        return None
    return 1 - abs(math.log2(ratio)) if ratio > 0 else 0.0


def _inverse(value: float | None, worst: float) -> float | None:
    return None if value is None else 1 - value / worst
