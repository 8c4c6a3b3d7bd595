"""Role `pii` without a model: shapes, check digits and the words around them, written and spoken."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from data_engine.backends.pii.addresses import find_addresses
from data_engine.backends.pii.numbers import Candidate, find_numbers
from data_engine.backends.pii.spoken import Rendered, written_addresses, written_numbers
from data_engine.backends.protocols import PiiSpan

RULES = "1"
"""Raised whenever a rule changes what is found."""


class PatternDetector:
    """Finds e-mail addresses, phone numbers, payment cards, IBANs, national ids and IP addresses; no names.

    National ids are the US social security number, the Chinese resident id, the German tax id and the British national
    insurance number. Spoken digits and signs are read in English and Mandarin. Scores are what the rule is worth:
    above 0.9 with a check digit, 0.6 to 0.9 by shape or by the words before it, 0.4 by length alone.
    """

    kinds = frozenset({"EMAIL", "PHONE", "CARD", "IBAN", "NATIONAL_ID", "IP"})

    def __init__(self) -> None:
        """Has no options."""

    @property
    def revision(self) -> str:
        """Version of the rules."""
        return f"patterns-{RULES}"

    def open(self) -> None:
        """Needs nothing."""

    def close(self) -> None:
        """Holds nothing."""

    def find(self, texts: Sequence[str], language: str | None) -> list[list[PiiSpan]]:
        """Returns the spans of each text, in order, none overlapping another."""
        return [_find(text, language) for text in texts]


def _find(text: str, language: str | None) -> list[PiiSpan]:
    numbers, addresses = written_numbers(text), written_addresses(text)
    found = [
        *_spans(numbers, find_numbers(numbers, language)),
        *_spans(addresses, find_addresses(addresses)),
    ]
    return distinct(found)


def _spans(rendered: Rendered, candidates: Iterable[Candidate]) -> list[PiiSpan]:
    return [PiiSpan(c.kind, *rendered.source(c.start, c.end), c.score) for c in candidates]


def distinct(spans: Iterable[PiiSpan]) -> list[PiiSpan]:
    """Returns the spans in order of place, of overlapping ones the surest, then the longest."""
    chosen: list[PiiSpan] = []
    for span in sorted(set(spans), key=lambda s: (-s.score, s.start - s.end, s.start, s.kind)):
        if all(span.end <= other.start or other.end <= span.start for other in chosen):
            chosen.append(span)
    return sorted(chosen, key=lambda s: s.start)
