"""Spoken forms as written ones: digit words become digits, "at" and "dot" become signs, with a map back to the text.

The words are those of English and Mandarin; both are read in every text, since speakers mix them and neither has words
that mean something else in the other.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

_UNITS = "zero one two three four five six seven eight nine"
_TEENS = "ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen"
_TENTHS = "twenty thirty forty fifty sixty seventy eighty ninety"
_TENS = {name: str(10 * n) for n, name in enumerate(_TENTHS.split(), 2)}
_DIGITS = {
    **{name: str(n) for n, name in enumerate(_UNITS.split())},
    **{name: str(n) for n, name in enumerate(_TEENS.split(), 10)},
    "nil": "0", "nought": "0", "niner": "9",
    **dict(zip("零〇一二三四五六七八九", "00123456789", strict=True)), "幺": "1",
}  # fmt: skip
_ZERO_LETTER = {"oh", "o"}
_TIMES = {"double": 2, "triple": 3, "treble": 3, "两个": 2, "三个": 3, "四个": 4}
_HUNDRED = "hundred"
_PLUS = {"plus", "加"}
_MARKS = {
    "at": "@", "艾特": "@", "dot": ".", "point": ".", "点": ".", "dash": "-", "hyphen": "-", "minus": "-", "杠": "-",
    "横杠": "-", "中杠": "-", "underscore": "_", "下划线": "_", "plus": "+", "colon": ":", "冒号": ":",
}  # fmt: skip
_TOKEN = re.compile(
    r"下划线|艾特|横杠|中杠|冒号|[两三四]个(?=[零〇一二三四五六七八九幺])|[A-Za-z]+(?:['’][A-Za-z]+)?|\d|\s+|.",
    re.DOTALL,
)
_JOIN = re.compile(r"[\s,，、-]*")
_WIDE = {0xFF01 + n: 0x21 + n for n in range(94)}
"""Full-width forms of ASCII, as Chinese text has them; one character each."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of the rendered text and where it came from.

    Attributes:
        value: As it is rendered.
        start: First character in the transcript.
        end: Character after the last one.
        said: True when it was words and is now digits or a sign.
    """

    value: str
    start: int
    end: int
    said: bool = False

    @property
    def digits(self) -> bool:
        """Whether it is digits."""
        return self.value.isascii() and self.value.isdigit()

    @property
    def blank(self) -> bool:
        """Whether it only separates digits: spaces, commas, hyphens."""
        return not self.said and _JOIN.fullmatch(self.value) is not None


@dataclass(frozen=True, slots=True)
class Rendered:
    """A transcript in written form.

    Attributes:
        text: Written form.
        starts: Per character of `text`, the first character of the transcript it stands for.
        ends: Likewise, the character after the last.
        said: Likewise, whether it was spoken as a word.
    """

    text: str
    starts: tuple[int, ...]
    ends: tuple[int, ...]
    said: tuple[bool, ...]

    def source(self, start: int, end: int) -> tuple[int, int]:
        """Returns the characters [start, end) of the transcript behind characters [start, end) of `text`."""
        return self.starts[start], self.ends[end - 1]


def pieces(text: str) -> list[Piece]:
    """Returns the tokens of a text, full-width forms as ASCII."""
    return [Piece(m[0], m.start(), m.end()) for m in _TOKEN.finditer(text.translate(_WIDE))]


def with_digits(found: Sequence[Piece]) -> list[Piece]:
    """Returns the pieces with digit words as digits: "double five" 55, "forty two" 42, "eight hundred" 800, "oh" 0."""
    given = [_digit(piece) for piece in found]
    read: list[Piece] = []
    position = 0
    while position < len(given):
        piece, taken = _compound(given, position)
        read.append(piece)
        position += taken
    return _zeros(read)


def _digit(piece: Piece) -> Piece:
    value = _DIGITS.get(piece.value.lower())
    return piece if value is None else Piece(value, piece.start, piece.end, True)


def _compound(given: Sequence[Piece], position: int) -> tuple[Piece, int]:
    """Returns what stands at `position`, compounds read as one piece, and how many pieces that takes."""
    piece = given[position]
    word = piece.value.lower()
    step = 2 if position + 1 < len(given) and given[position + 1].blank else 1
    following = given[position + step] if position + step < len(given) else None
    unit = following is not None and following.digits and len(following.value) == 1
    if word in _TENS:
        if following is not None and unit and following.said and following.value != "0":
            return Piece(_TENS[word][0] + following.value, piece.start, following.end, True), step + 1
        return Piece(_TENS[word], piece.start, piece.end, True), 1
    if following is None:
        return piece, 1
    if word in _TIMES and (unit or following.value.lower() in _ZERO_LETTER):
        value = following.value if unit else "0"
        return Piece(value * _TIMES[word], piece.start, following.end, True), step + 1
    if piece.said and piece.digits and following.value.lower() == _HUNDRED:
        return Piece(piece.value + "00", piece.start, following.end, True), step + 1
    return piece, 1


def _zeros(read: Sequence[Piece]) -> list[Piece]:
    """Returns the pieces with "oh" read as 0 where it stands next to a digit, and "plus" as a sign before one."""
    solid = [index for index, piece in enumerate(read) if not piece.blank]
    known = {index: read[index].digits for index in solid}
    changed = list(read)
    for order, index in enumerate(solid):
        piece, word = read[index], read[index].value.lower()
        before = order > 0 and known[solid[order - 1]]
        after = order + 1 < len(solid) and known[solid[order + 1]]
        if word in _ZERO_LETTER and (before or after):
            changed[index] = Piece("0", piece.start, piece.end, True)
            known[index] = True
        elif word in _PLUS and after and not before:
            changed[index] = Piece("+", piece.start, piece.end, True)
    return changed


def with_marks(found: Sequence[Piece]) -> list[Piece]:
    """Returns the pieces with the words for @ . - _ + : as signs, and the spaces around signs taken out."""
    read = [
        Piece(_MARKS[p.value.lower()], p.start, p.end, True) if p.value.lower() in _MARKS else p for p in found
    ]  # fmt: skip
    signs = {index for index, piece in enumerate(read) if piece.said and not piece.digits}
    beside = {n for index in signs for n in (index - 1, index + 1)}
    return [piece for index, piece in enumerate(read) if not (index in beside and piece.value.isspace())]


def joined(found: Sequence[Piece]) -> Iterator[Piece]:
    """Yields the pieces without what separates spoken digits and spelled letters from one another."""
    solid = [piece for piece in found if not piece.blank]
    apart = {a.end for a, b in pairwise(solid) if a.end != b.start and not (_spelled(a) and _spelled(b))}
    for index, piece in enumerate(found):
        if not piece.blank or not index or found[index - 1].blank or _after(found, index) in apart:
            yield piece


def _after(found: Sequence[Piece], index: int) -> int:
    return found[index - 1].end


def _spelled(piece: Piece) -> bool:
    return (piece.said and piece.digits) or (len(piece.value) == 1 and piece.value.isascii() and piece.value.isalpha())


def render(found: Sequence[Piece]) -> Rendered:
    """Returns the pieces as one text with its map."""
    plain = [(char, piece, offset) for piece in found for offset, char in enumerate(piece.value)]
    return Rendered(
        "".join(char for char, _, _ in plain),
        tuple(p.start if p.said else p.start + offset for _, p, offset in plain),
        tuple(p.end if p.said else p.start + offset + 1 for _, p, offset in plain),
        tuple(p.said for _, p, _ in plain),
    )


def written_numbers(text: str) -> Rendered:
    """Returns a transcript with digit words as digits; nothing else is changed."""
    return render(with_digits(pieces(text)))


def written_addresses(text: str) -> Rendered:
    """Returns a transcript with digit words, the words for signs, and spelled letters as they are written."""
    return render(list(joined(with_marks(with_digits(pieces(text))))))
