"""What the teachers say: public domain sentences, the script bank, numbers and Mandarin in pinyin."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data_engine.core.ids import seed_of
from data_engine.models.bank_text import bank_sentences

_HELD_OUT_PERCENT = 8
_UNITS = ("minutes", "dollars", "miles", "people", "degrees", "percent", "years", "hours", "books", "pounds")


@dataclass(frozen=True, slots=True)
class Sentence:
    """A sentence to speak.

    Attributes:
        text: As written.
        language: ISO 639-1.
        source: Where it comes from.
        pinyin: True when Mandarin is written in numbered pinyin.
    """

    text: str
    language: str
    source: str
    pinyin: bool = False


def plain(text: str) -> str:
    """Returns the words of a text alone, in lower case, so that two writings of one sentence are equal."""
    return " ".join(re.findall(r"[\w']+", text.lower()))


def held_out(text: str) -> bool:
    """Tells whether a sentence of the script bank is kept for the test, by a hash."""
    return seed_of("held out", plain(text)) % 100 < _HELD_OUT_PERCENT


def listed(path: Path, language: str, source: str, words: tuple[int, int] = (4, 17)) -> Iterator[Sentence]:
    """Yields the sentences of a list `id|speaker|{phones}|text` of FastSpeech 2's preprocessed data.

    Args:
        path: The list.
        language: `en`; `zh` lists hold pinyin.
        source: What to call it.
        words: Fewest and most words of a sentence.
    """
    for line in path.read_text(encoding="utf-8").splitlines():
        text = line.split("|")[3].strip()
        if words[0] <= len(text.split()) <= words[1]:
            yield Sentence(text, language, source, pinyin=language == "zh")


def bank(language: str, test: bool) -> list[Sentence]:
    """Returns the script bank's sentences that are kept for the test, or the others; long ones are cut at stops."""
    pieces = (piece for text in bank_sentences(language) for piece in re.split(r"(?<=[.?!;])\s+|(?<=[。？！；])", text))
    distinct = dict.fromkeys(piece.strip() for piece in pieces if len(plain(piece)) > 1)
    return [Sentence(text, language, "script bank") for text in distinct if held_out(text) == test]


def numbers(count: int, seed: int) -> list[Sentence]:
    """Returns short phrases with numbers, times and prices."""
    rng = np.random.default_rng(seed)
    return [Sentence(_number_phrase(rng), "en", "numbers") for _ in range(count)]


def _number_phrase(rng: np.random.Generator) -> str:
    whole = int(10 ** rng.uniform(0, 4))
    shapes = (
        f"{whole} {_UNITS[rng.integers(len(_UNITS))]}",
        f"at {rng.integers(1, 13)}:{rng.integers(10, 60)}",
        " ".join(str(digit) for digit in rng.integers(0, 10, rng.integers(3, 8))),
        f"it costs {rng.integers(1, 100)} dollars and {rng.integers(1, 100)} cents",
        f"chapter {rng.integers(1, 60)}, page {rng.integers(1, 900)}",
        f"in {rng.integers(1700, 2030)}",
    )
    return shapes[rng.integers(len(shapes))]


def without(sentences: Sequence[Sentence], texts: Collection[str]) -> list[Sentence]:
    """Returns the sentences whose words are not among `texts`, which are given as `plain` returns them."""
    return [sentence for sentence in sentences if plain(sentence.text) not in texts]
