"""How far off the aligners are: phones of synthetic speech with known times, words of reference-aligned recordings.

Errors are those of all starts and all ends. The baselines are told where the speech begins and ends, which the
aligners are not: the mean duration of each phone, and words as long as they have letters.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from data_engine.backends.catalog import build_backend
from data_engine.backends.espeak_library import VARIANTS, Utterance
from data_engine.backends.protocols import Wave
from data_engine.core.errors import RecordError
from data_engine.models.phones import PAUSE, TimedPhone
from data_engine.training.speech import teacher_espeak, texts
from data_engine.training.speech.augment import coloured_noise
from tests.evaluate.duplicates import mono
from tests.evaluate.references import Reference, references
from tests.evaluate.table import Figure

Floats = npt.NDArray[np.float64]

RATE, UTTERANCES = 16_000, 60
RATES = (120, 260)
"""Words per minute."""


@dataclass(frozen=True, slots=True, eq=False)
class Known:
    """A wave, its phones, and first and after-last sample of each, [phones, 2]."""

    wave: Wave
    phones: tuple[str, ...]
    times: Floats


def known_speech(count: int = UTTERANCES, seed: int = 1) -> Iterator[Known]:
    """Yields held-out sentences by espeak-ng at all rates, every other one in noise of 10 to 30 dB."""
    held_out = [said for said in texts.bank("en", test=True) if 12 <= len(said.text) <= 90]
    rng = np.random.default_rng(seed)
    for number in range(count):
        sentence = held_out[number * len(held_out) // count]
        voice, variant = ("en-us", "en")[number % 2], VARIANTS[number % len(VARIANTS)]
        rate, pitch = int(rng.integers(*RATES)), int(rng.integers(25, 75))
        try:
            said = teacher_espeak.speak(sentence, Utterance(sentence.text, voice, variant, rate, pitch), 1.0, "test")
        except RecordError:
            continue
        yield known(said.wave if number % 2 else noisy(said.wave, float(rng.uniform(10, 30)), rng), said.phones or ())


def noisy(wave: Wave, decibels: float, rng: np.random.Generator) -> Wave:
    """Returns a wave in pink noise so far below it."""
    noise = coloured_noise(len(wave), -3.0, rng)
    return wave + noise * np.float32(np.sqrt((wave**2).mean() / (noise**2).mean()) * 10 ** (-decibels / 20))


def known(wave: Wave, phones: Sequence[TimedPhone]) -> Known:
    """Returns an utterance without its pauses."""
    said = [phone for phone in phones if phone.name != PAUSE]
    times = np.array([[phone.start, phone.end] for phone in said], np.float64)
    return Known(wave, tuple(phone.name for phone in said), times)


def neufa_times(aligner: Any, said: Known) -> Floats:
    """Returns the times NeuFA gives known phones, when a pause may come before any of them."""
    times, _ = aligner.phone_times(said.wave, said.phones, range(len(said.phones)))
    return np.asarray(times, np.float64)


def mean_duration_times(said: Known, means: Mapping[str, float]) -> Floats:
    """Returns times in proportion to the mean duration of each phone, from the true begin to the true end."""
    return proportional([means[phone] for phone in said.phones], said.times[0, 0], said.times[-1, 1])


def proportional(sizes: Sequence[float], start: float, end: float) -> Floats:
    """Returns start and end of parts of a stretch in proportion to their sizes, [parts, 2]."""
    edges = np.concatenate([[0.0], np.cumsum(np.asarray(sizes, np.float64))])
    edges = start + edges * (end - start) / edges[-1]
    return np.stack([edges[:-1], edges[1:]], axis=1)


def milliseconds(found: Floats, true: Floats) -> Floats:
    """Returns by how much each start and end of samples is missed."""
    return np.asarray(np.abs(found - true).ravel() * 1000 / RATE)


def mean_durations(utterances: Sequence[Known]) -> dict[str, float]:
    """Returns the mean duration of each phone; of these same utterances, so that the baseline is at its best."""
    lengths: dict[str, list[float]] = {}
    for said in utterances:
        for phone, (start, end) in zip(said.phones, said.times, strict=True):
            lengths.setdefault(phone, []).append(end - start)
    return {phone: float(np.mean(found)) for phone, found in lengths.items()}


def phone_figures(aligner: Any) -> Iterator[Figure]:
    """Yields the phone boundary error of NeuFA beside that of mean durations."""
    utterances = list(known_speech())
    means = mean_durations(utterances)
    errors = np.concatenate([milliseconds(neufa_times(aligner, said), said.times) for said in utterances])
    plain = np.concatenate([milliseconds(mean_duration_times(said, means), said.times) for said in utterances])
    on = f"{len(utterances)} held-out sentences of espeak-ng, {RATES[0]} to {RATES[1]} words a minute, half in noise"
    yield Figure("phone boundary, neufa, mean error", on, float(errors.mean()), 20.0, unit="ms")
    yield Figure("phone boundary, neufa, median error", on, float(np.median(errors)), unit="ms")
    yield Figure("phone boundary, neufa, within 50 ms", on, float((errors <= 50).mean()), unit="%")
    yield Figure("phone boundary, mean durations, mean error", on, float(plain.mean()), unit="ms")
    yield Figure("phone boundary, neufa over mean durations", on, float(errors.mean() / plain.mean()), 0.4)


def word_errors(aligner: Any, wave: Wave, reference: Reference) -> Floats:
    """Returns by how many milliseconds an aligner misses each start and end of a word."""
    found = aligner.align([wave], [reference.text], "en")[0]
    if isinstance(found, RecordError):
        raise found
    times = np.array([[word.start, word.start + word.num_samples] for word in found.words], np.float64)
    return milliseconds(times, reference_times(reference))


def reference_times(reference: Reference) -> Floats:
    """Returns first and after-last sample of each word, [words, 2]."""
    return RATE * np.array([[word.start, word.end] for word in reference.words], np.float64)


def split_errors(reference: Reference) -> Floats:
    """Returns the same when words are as long as they have letters, from the true begin to the true end."""
    true = reference_times(reference)
    return milliseconds(proportional([len(w.text) for w in reference.words], true[0, 0], true[-1, 1]), true)


def word_figures(aligners: Mapping[str, Any], folder: Path) -> Iterator[Figure]:
    """Yields the median error of word boundaries of each aligner and of splitting, per file and over all of them."""
    errors: dict[str, list[Floats]] = {name: [] for name in [*aligners, "proportional splitting"]}
    aligned = list(references(folder))
    for reference in aligned:
        wave = mono((folder / reference.path).read_bytes())
        for name, found in errors.items():
            split = name not in aligners
            found.append(split_errors(reference) if split else word_errors(aligners[name], wave, reference))
            on = f"{Path(reference.path).name} ({reference.made_by.split(',')[-1].strip()})"
            yield Figure(f"word boundary, {name}, median error", on, float(np.median(found[-1])), unit="ms")
    for name, found in errors.items():
        asked = 40.0 if name in aligners else None
        on, median = f"all {len(aligned)} reference-aligned files", float(np.median(np.concatenate(found)))
        yield Figure(f"word boundary, {name}, median error", on, median, asked, unit="ms")
        if name in aligners:
            plain = float(np.median(np.concatenate(errors["proportional splitting"])))
            yield Figure(f"word boundary, {name} over proportional splitting", on, median / plain, 1.0)
            pairs = zip(found, errors["proportional splitting"], strict=True)
            better = float(np.mean([np.median(one) < np.median(split) for one, split in pairs]))
            yield Figure(f"word boundary, {name}, files better than by splitting", on, better, unit="%")


def figures(folder: Path) -> Iterator[Figure]:
    """Yields the errors of phones, then those of words."""
    aligners = {name: build_backend("aligner", name, {}) for name in ("neufa", "ctc")}
    for aligner in aligners.values():
        aligner.open()
    yield from phone_figures(aligners["neufa"])
    yield from word_figures(aligners, folder)
