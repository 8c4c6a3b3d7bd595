"""Runs of digits in a rendered transcript, with their groups and what is said before them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations

from data_engine.backends.pii.spoken import Rendered

_WRITTEN_GAP = re.compile(r"[ \t\u00a0]?[-./()–·]?[ \t\u00a0(]?")
_SPOKEN_GAP = re.compile(r"[\s,，、-]{1,3}")
_SENTENCE = re.compile(r"\.\s")
_BEFORE = 60
_MOST_GROUPS = 12


@dataclass(frozen=True, slots=True)
class Run:
    """Digits that belong together.

    Attributes:
        groups: Digits as they were grouped; digits spoken one by one are one group.
        start: First character in the rendered text, "+" and "(" included.
        end: Character after the last digit.
        plus: Whether a "+" stands before it.
        said: Whether every digit was a word.
        whole: Whether no digits stand beside it.
        before: What stands before it, in lower case.
        after: The next few characters.
    """

    groups: tuple[str, ...]
    start: int
    end: int
    plus: bool
    said: bool
    whole: bool
    before: str
    after: str

    @property
    def digits(self) -> str:
        """All digits."""
        return "".join(self.groups)

    @property
    def sizes(self) -> tuple[int, ...]:
        """Digits per group."""
        return tuple(map(len, self.groups))


def digit_runs(rendered: Rendered) -> Iterator[list[re.Match[str]]]:
    """Yields the digit groups that belong together, as they stand in the rendered text."""
    run: list[re.Match[str]] = []
    for match in re.finditer(r"[0-9]+", rendered.text):
        if run and not _together(rendered, run[-1].end(), match.start()):
            yield run
            run = []
        run.append(match)
    if run:
        yield run


def _together(rendered: Rendered, end: int, start: int) -> bool:
    gap = rendered.text[end:start]
    if rendered.said[end - 1] and rendered.said[start]:
        return _SPOKEN_GAP.fullmatch(gap) is not None
    return _WRITTEN_GAP.fullmatch(gap) is not None and _SENTENCE.match(gap) is None


def slices(rendered: Rendered) -> Iterator[Run]:
    """Yields each run of digits and its parts at written group boundaries, whole runs first."""
    for tokens in digit_runs(rendered):
        grouped: list[list[re.Match[str]]] = []
        for token in tokens:
            spoken = bool(grouped) and rendered.said[grouped[-1][-1].end() - 1] and rendered.said[token.start()]
            if spoken:
                grouped[-1].append(token)
            else:
                grouped.append([token])
        bounds = list(combinations(range(min(len(grouped), _MOST_GROUPS) + 1), 2))
        for first, last in sorted({(0, len(grouped)), *bounds}, key=lambda b: (b[0] - b[1], b[0])):
            yield _run(rendered, grouped[first:last], (first, last) == (0, len(grouped)))


def _run(rendered: Rendered, grouped: list[list[re.Match[str]]], whole: bool) -> Run:
    start, end = grouped[0][0].start(), grouped[-1][-1].end()
    lead = re.search(r"(?:\+ ?\(?|\()$", rendered.text[:start])
    begin = lead.start() if lead is not None else start
    return Run(
        groups=tuple("".join(token[0] for token in group) for group in grouped),
        start=begin,
        end=end,
        plus="+" in rendered.text[begin:start],
        said=all(rendered.said[token.start()] for group in grouped for token in group),
        whole=whole,
        before=rendered.text[max(0, begin - _BEFORE) : begin].lower(),
        after=rendered.text[end : end + 4],
    )
