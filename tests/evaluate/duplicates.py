"""Recall and false merges of deduplication: every speech file against itself disturbed.

A file and its copy count as found when the same copy is kept for both. Two different files that share a kept copy are
a false merge, unless their waves coincide once they are aligned, which those of a second take of a sentence never do.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from data_engine.core.errors import RecordError
from data_engine.core.harness import StageRun
from data_engine.core.schema import load_schema
from data_engine.core.stage import Stage
from data_engine.io.audio import decode_bytes, encode_flac
from data_engine.io.decoding.mixing import gain_for
from data_engine.io.decoding.resample import resample
from data_engine.io.exchange import ordered
from data_engine.stages.fingerprint import Fingerprint
from data_engine.stages.match import Match
from data_engine.stages.rules.duplicates import kept_copies
from tests.evaluate.disturbances import DISTURBANCES, HARSHER, RATE, Wave
from tests.evaluate.table import Figure
from tests.stages.rows import segment

_NO_SPEECH = {"noise", "silence", "music", "rir", "broken"}
_NOT_SPEECH = (
    "dc_only.wav", "noise_floor_5s.wav", "silence_5s.wav", "tone_1khz_3s.wav", "white_noise_3s.wav",
    *(f"lhotse/test/fixtures/stereo.{container}" for container in ("wav", "mp3", "opus", "sph")),
)  # fmt: skip
"""Noise, tones and ramps that the manifest does not tag as such."""

_SHORTEST_SECONDS, _COINCIDE = 0.2, 0.7


def speech(folder: Path) -> Iterator[tuple[str, Wave]]:
    """Yields path and wave, float32 [samples] at 16 kHz, of the listed files that hold speech."""
    for line in (folder / "manifest.jsonl").read_text(encoding="utf-8").splitlines():
        listed = json.loads(line)
        if not _NO_SPEECH & set(listed["kinds"]) and not listed["path"].endswith(_NOT_SPEECH):
            try:
                wave = mono((folder / listed["path"]).read_bytes())
            except RecordError:
                continue
            if len(wave) >= _SHORTEST_SECONDS * RATE:
                yield listed["path"], wave


def mono(encoded: bytes) -> Wave:
    """Returns the mean of the channels that sound, or the loudest where they cancel, at 16 kHz."""
    samples, rate = decode_bytes(encoded)
    samples = np.nan_to_num(np.clip(samples, -16, 16))
    if not samples.size:
        return np.zeros(0, np.float32)
    loud = np.sqrt((samples.astype(np.float64) ** 2).mean(axis=1))
    mixed = samples[loud >= loud.max() / 100].mean(axis=0)
    if np.sqrt((mixed.astype(np.float64) ** 2).mean()) < loud.max() / 5:
        mixed = samples[int(loud.argmax())]
    mixed = mixed / max(1.0, float(np.abs(mixed).max()))
    return resample(np.ascontiguousarray(mixed, np.float32), rate, RATE) if rate != RATE else mixed.astype(np.float32)


def fingerprints(waves: Mapping[str, Wave]) -> list[dict[str, Any]]:
    """Returns the rows that the engine's own stage makes of recordings of one segment each."""
    stage = Fingerprint(Fingerprint.Config())
    rows = (
        segment(0, segment_id=name, recording_id=name, start=0, num_samples=len(wave), audio=_flac(wave))
        for name, wave in waves.items() if len(wave)
    )  # fmt: skip
    batches = (load_schema("segment").batch([row]) for row in rows)
    return _rows(stage, batches)


def kept(rows: Sequence[dict[str, Any]]) -> dict[str, str]:
    """Returns recording -> kept copy, as the engine's exchange, match and mark find it."""
    table = load_schema("fingerprint").batch(list(rows)).replace_schema_metadata({"schema": "fingerprint"})
    return kept_copies(_rows(Match(Match.Config()), ordered([table], "bucket")))


def false_merges(found: Mapping[str, str], waves: Mapping[str, Wave]) -> list[tuple[str, str]]:
    """Returns pairs of different files that share a kept copy although their waves do not coincide."""
    sets: dict[str, set[str]] = {}
    for name, best in found.items():
        sets.setdefault(best, set()).update({name.removesuffix("'"), best.removesuffix("'")})
    pairs = {pair for names in sets.values() for pair in combinations(sorted(names), 2)}
    return [pair for pair in sorted(pairs) if coincidence(waves[pair[0]], waves[pair[1]]) < _COINCIDE]


def coincidence(one: Wave, other: Wave) -> float:
    """Returns how far two waves are the same between 300 and 3400 Hz, 0..1.

    Each second of the shorter one is correlated with the other at all shifts, so that a piece may be missing.
    """
    shorter, longer = sorted((one, other), key=len)
    pieces = [shorter[start : start + RATE] for start in range(0, max(1, len(shorter) - RATE // 2), RATE)]
    weights = [float((piece**2).sum()) for piece in pieces]
    return float(np.average([_peak(piece, longer) for piece in pieces], weights=weights))


def _peak(one: Wave, other: Wave) -> float:
    """Returns the highest correlation of a piece with any stretch of a wave."""
    size = 1 << (len(one) + len(other)).bit_length()
    hertz = np.fft.rfftfreq(size, 1 / RATE)
    spectra = [np.fft.rfft(wave, size) * ((hertz > 300) & (hertz < 3400)) for wave in (one, other)]
    first, second = (np.fft.irfft(spectrum) for spectrum in spectra)
    products = np.abs(np.fft.irfft(spectra[1] * spectra[0].conj()))[: len(other)]
    sums = np.concatenate([[0.0], np.cumsum(second[: len(other)] ** 2)])
    energy = sums[np.minimum(np.arange(len(other)) + len(one), len(other))] - sums[:-1]
    ratio = products / np.sqrt(np.maximum(energy, energy.max() / 100) * float((first**2).sum()) + 1e-12)
    return float(ratio.max())


def measure(
    waves: Mapping[str, Wave], disturbances: Sequence[str] = (*DISTURBANCES, *HARSHER)
) -> Iterator[dict[str, Any]]:
    """Yields, per disturbance: files, recall, the missed ones, and false merges among files and copies."""
    originals = fingerprints(waves)
    for name in disturbances:
        copies = {f"{path}'": (DISTURBANCES | HARSHER)[name](wave) for path, wave in waves.items()}
        found = kept([*originals, *fingerprints(copies)])
        missed = [path for path in waves if found.get(path, path) != found.get(f"{path}'", f"{path}'")]
        row = {"disturbance": name, "files": len(waves), "recall": 1 - len(missed) / len(waves), "missed": missed}
        yield row | {"false": false_merges(found, waves)}


def _rows(stage: Stage, batches: Any) -> list[dict[str, Any]]:
    return [row for batch in StageRun(stage, "evaluate").run(batches) for row in batch.to_pylist()]


def _flac(wave: Wave) -> dict[str, Any]:
    gain = np.float32(gain_for(float(np.abs(wave).max())))  # as decoding does where a file goes beyond full scale
    return {"bytes": encode_flac(wave * gain, RATE), "path": None}


def figures(folder: Path) -> Iterator[Figure]:
    """Yields recall and false merges of each disturbance over every speech file."""
    waves = dict(speech(folder))
    for row in measure(waves):
        on, asked = f"{len(waves)} files, {row['disturbance']}", row["disturbance"] in DISTURBANCES
        yield Figure("near duplicates, recall", on, row["recall"], 0.98 if asked else None, ">=", "%")
        yield Figure("near duplicates, false merges", on, len(row["false"]), 0.0 if asked else None)
