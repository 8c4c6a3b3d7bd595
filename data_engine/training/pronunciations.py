"""How words are pronounced, in the phones of the linguistic model: asked of both teachers and of a dictionary."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

from data_engine.backends.pronunciation import Phones, by_espeak
from data_engine.models.phones import PAUSE, TOKEN_IDS, TimedPhone, merged
from data_engine.training.speech.teacher_flite import program, pronounce

_BATCH = 200
_SECONDS = 120
_VOWELS = {"aa", "ae", "ah", "ao", "aw", "ax", "ay", "eh", "er", "ey", "ih", "iy", "ow", "oy", "uh", "uw"}


def by_flite(words: Sequence[str]) -> list[Phones]:
    """Returns flite's phones of each word, spoken in a list so that a program run serves many."""
    found: list[Phones] = []
    for start in range(0, len(words), _BATCH):
        chosen = list(words[start : start + _BATCH])
        found += _listed(chosen) or [tuple(phones) for phones in pronounce(chosen)]
    return found


def _listed(words: Sequence[str]) -> list[Phones] | None:
    """Returns the phones of words read as a list, None when the pauses between them do not add up."""
    command = [program(), "-ps", "-t", ", ".join(words), "-o", "none"]
    done = subprocess.run(command, capture_output=True, timeout=_SECONDS, check=True, text=True)  # noqa: S603 (a list)
    spoken = [piece for piece in re.split(rf"\b{PAUSE}\b", done.stdout) if piece.strip()]
    return [tuple(piece.split()) for piece in spoken] if len(spoken) == len(words) else None


def dictionary(path: Path) -> dict[str, list[Phones]]:
    """Returns the pronunciations of a CMU dictionary without stress, its phones in our set, in file order.

    `AH` is `ax` in words with another vowel, as most are unstressed there; words without get both (`b ah t`, `b ax t`).
    """
    found: dict[str, list[Phones]] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        entry, *names = line.lower().split()
        full = sum(name in _VOWELS for name in names) == 1
        for vowel in ("ah", "ax") if full else ("ax",):
            phones = [TimedPhone(vowel if name == "ah" else name, 0, 0) for name in names]
            if all(phone.name in TOKEN_IDS for phone in phones):
                found.setdefault(entry.partition("(")[0], []).append(tuple(p.name for p in merged(phones)))
    return found


def english_lexicon(words: Sequence[str], known: dict[str, list[Phones]]) -> Iterator[tuple[str, Phones]]:
    """Yields each word with its distinct pronunciations: flite's, espeak-ng's, the dictionary's.

    Args:
        words: In the order of the lexicon.
        known: From `dictionary`.
    """
    for word, phones in zip(words, by_flite(words), strict=True):
        asked = [phones, by_espeak(word, "en-us"), *known.get(word, ())]
        distinct = dict.fromkeys(tuple(p.name for p in merged([TimedPhone(n, 0, 0) for n in a])) for a in asked)
        yield from ((word, way) for way in distinct if way and all(name in TOKEN_IDS for name in way))


def mandarin_readings(characters: Sequence[str], sentences: Sequence[str]) -> dict[str, list[Phones]]:
    """Returns the readings of each character, the one it has alone first, then those it has in pairs of the text.

    The phones of a pair less the known reading of one character are a reading of the other.
    """
    readings = {c: [phones] for c in characters if (phones := by_espeak(c, "cmn"))}
    pairs = dict.fromkeys(a + b for text in sentences for a, b in pairwise(text))
    for pair in pairs:
        a, b = pair[0], pair[1]
        if a not in readings or b not in readings:
            continue
        whole = by_espeak(pair, "cmn")
        first, second = readings[a][0], readings[b][0]
        if whole[: len(first)] == first:
            _add(readings[b], whole[len(first) :])
        elif whole[-len(second) :] == second:
            _add(readings[a], whole[: -len(second)])
    return readings


def _add(readings: list[Phones], phones: Phones) -> None:
    if phones and len(phones) <= 5 and phones not in readings:  # longer than any syllable: not cut where we think
        readings.append(phones)


def spelled(characters: str, phones: Phones, readings: dict[str, list[Phones]]) -> list[Phones] | None:
    """Returns the reading of each character that together give the phones, None when none do.

    Args:
        characters: Without punctuation.
        phones: What was spoken.
        readings: Of every character.
    """
    if not characters:
        return None if phones else []
    for reading in readings.get(characters[0], ()):
        if phones[: len(reading)] == reading:
            rest = spelled(characters[1:], phones[len(reading) :], readings)
            if rest is not None:
                return [reading, *rest]
    return None
