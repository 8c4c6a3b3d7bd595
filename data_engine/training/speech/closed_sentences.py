"""The closed domain of text to speech: short sentences of a small grammar, about 120 words in all.

Tested are sentences that are never trained on, of words that are.
"""

from __future__ import annotations

from functools import cache
from itertools import product

from data_engine.core.ids import seed_of

PROMPTS = ("Good morning.", "This is my voice.", "Thank you, goodbye.")
"""What the clips say that show a voice; every voice speaks all of them."""

_TEST_PERCENT = 6
_SLOTS: dict[str, tuple[str, ...]] = {
    "name": ("Anna", "Peter", "Maria", "John", "Laura", "David"),
    "day": ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"),
    "number": ("two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"),
    "colour": ("red", "blue", "green", "white", "yellow", "black"),
    "thing": ("boat", "house", "horse", "garden", "table", "door", "car", "book"),
    "place": ("school", "the station", "the market", "the river", "the library", "the office"),
    "month": ("January", "March", "April", "June", "August", "October", "December"),
    "weather": ("sunny", "cloudy", "cold", "warm", "windy"),
}
_SHAPES = (
    "{name} has a {colour} {thing}.", "The {colour} {thing} is near {place}.", "{name} will come on {day}.",
    "Meet {name} at {place}.", "The train leaves at {number}.", "It is {weather} in {month}.",
    "{name} bought {number} books.", "We go to {place} on {day}.", "My {thing} is {colour}.",
    "The {thing} costs {number} dollars.", "On {day} it will be {weather}.", "{name} was born in {month}.",
    "Open the {colour} door, {name}.", "There are {number} people at {place}.", "Is the {thing} {colour}?",
    "{name} waits for {name} at {number}.", "Please bring the {colour} {thing}.", "{day} was {weather}.",
)  # fmt: skip


def held_out(text: str) -> bool:
    """Tells whether a sentence is kept for the test, by a hash."""
    return seed_of("closed", text) % 100 < _TEST_PERCENT


@cache
def sentences() -> tuple[str, ...]:
    """Returns every sentence of the grammar, mixed by a hash so that any first part of them covers all shapes."""
    found = [text for shape in _SHAPES for text in _filled(shape)]
    return tuple(sorted(dict.fromkeys(found), key=lambda text: seed_of("order", text)))


def _filled(shape: str) -> list[str]:
    pieces = shape.split("{")
    names = [piece.split("}")[0] for piece in pieces[1:]]
    rests = [piece.split("}")[1] for piece in pieces[1:]]
    return [
        pieces[0] + "".join(value + rest for value, rest in zip(values, rests, strict=True))
        for values in product(*(_SLOTS[name] for name in names))
        if len(set(values)) == len(values)
    ]
