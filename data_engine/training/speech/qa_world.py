"""A closed world of spoken questions with one exact answer each: who owns what, capitals, days, sums.

For the accept test of interleaved answers (factuality is checkable, as Step-Audio-AQAA, arXiv 2506.08967, asks of
its answers). A question is a fact in one of a few wordings. Tested are sentences that are never trained on: facts
in a wording that was kept from them.
Owners are full names, which cost several text ids per word, so that speech can outrun sparse text.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import combinations_with_replacement
from typing import Literal

from data_engine.core.ids import seed_of
from data_engine.training.speech.texts import plain

Family = Literal["owner", "capital", "day", "sum"]
FAMILIES: tuple[Family, ...] = ("owner", "capital", "day", "sum")

_OWNERS = (
    ("red", "boat", "Alexander Montgomery"), ("red", "house", "Margaret Abernathy"),
    ("red", "horse", "Dominic Peralta"), ("red", "garden", "Veronica Lindqvist"),
    ("blue", "boat", "Bartholomew Jenkins"),
    ("blue", "house", "Susannah Whitfield"), ("blue", "horse", "Gabriel Oyelaran"),
    ("blue", "garden", "Penelope Fitzroy"), ("green", "boat", "Theodore Vasquez"),
    ("green", "house", "Beatrice Holloway"), ("green", "horse", "Leonardo Bianchi"),
    ("green", "garden", "Josephine Mercado"), ("white", "boat", "Nathaniel Oswald"),
    ("white", "house", "Cordelia Blackwood"), ("white", "horse", "Fernando Iglesias"),
    ("white", "garden", "Rosalind Kowalski"),
)  # fmt: skip
_CAPITALS = (
    ("France", "Paris"), ("Kenya", "Nairobi"), ("Peru", "Lima"), ("Japan", "Tokyo"), ("Austria", "Vienna"),
    ("Cuba", "Havana"), ("Ghana", "Accra"), ("Norway", "Oslo"), ("Egypt", "Cairo"), ("Serbia", "Belgrade"),
    ("Nepal", "Kathmandu"), ("Portugal", "Lisbon"),
)  # fmt: skip
_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_NUMBERS = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
)  # fmt: skip
_LARGEST = 6
"""Largest operand of a sum."""

_WORDINGS: dict[str, tuple[str, ...]] = {
    "owner": ("Who has the {0} {1}?", "Whose is the {0} {1}?", "Tell me who has the {0} {1}.",
              "The {0} {1}, whose is it?"),
    "capital": ("What is the capital of {0}?", "Name the capital of {0}.", "{0}, what is its capital?",
                "Tell me the capital of {0}."),
    "after": ("What day comes after {0}?", "Which day follows {0}?", "Name the day after {0}.",
              "Tell me the day after {0}."),
    "before": ("What day comes before {0}?", "Which day precedes {0}?", "Name the day before {0}.",
               "Tell me the day before {0}."),
    "sum": ("What is {0} plus {1}?", "Add {0} and {1}.", "How much is {0} plus {1}?", "{0} and {1}, what is the sum?"),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Question:
    """A question of the world.

    Attributes:
        text: As asked.
        answer: The one right answer, as spoken.
        family: What it is about.
        held_out: Kept for the test.
    """

    text: str
    answer: str
    family: Family
    held_out: bool


@cache
def questions() -> tuple[Question, ...]:
    """Returns every question of the world, in a fixed order."""
    return tuple(_questions())


@cache
def answers() -> tuple[str, ...]:
    """Returns every possible answer of the world, in a fixed order."""
    return tuple(dict.fromkeys(question.answer for question in questions()))


@cache
def _by_text() -> dict[str, Question]:
    return {plain(question.text): question for question in questions()}


def question_of(text: str) -> Question | None:
    """Returns the question that a text asks, or None when it asks none of this world."""
    return _by_text().get(plain(text))


def is_right(question: Question, said: str) -> bool:
    """Tells whether a written answer has exactly the right words, whatever its case and punctuation."""
    return plain(said) == plain(question.answer)


def _questions() -> Iterator[Question]:
    facts: list[tuple[str, Family, tuple[str, ...], str]] = []
    facts += [("owner", "owner", (colour, thing), f"{name}.") for colour, thing, name in _OWNERS]
    facts += [("capital", "capital", (country,), f"{city}.") for country, city in _CAPITALS]
    for number, day in enumerate(_DAYS):
        facts.append(("after", "day", (day,), f"It is {_DAYS[(number + 1) % 7]}."))
        facts.append(("before", "day", (day,), f"It is {_DAYS[(number - 1) % 7]}."))
    for one, other in combinations_with_replacement(range(1, _LARGEST + 1), 2):
        facts.append(("sum", "sum", (_NUMBERS[one], _NUMBERS[other]), f"{_NUMBERS[one + other].capitalize()}."))
    for wordings, family, slots, answer in facts:
        shapes = _WORDINGS[wordings]
        # One wording of each fact is kept from training, another one for each fact.
        kept = seed_of("wording", *slots, wordings) % len(shapes)
        for number, shape in enumerate(shapes):
            asked = shape.format(*slots)
            text = asked[0].upper() + asked[1:]
            yield Question(text, answer, family, number == kept)
