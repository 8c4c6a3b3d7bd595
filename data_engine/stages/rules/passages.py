"""Personal data in a transcript as passages of its sound: from characters to words to samples, and back out of both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import SequenceMatcher
from typing import Any

import numpy as np
import numpy.typing as npt

from data_engine.backends.protocols import PiiSpan

Owners = npt.NDArray[np.int64]
Row = dict[str, Any]
NO_WORD, UNTIMED = -2, -1
"""A character that is no letter or digit; a letter or digit that no timed word holds."""


@dataclass(frozen=True, slots=True)
class Passage:
    """Where personal data is.

    Attributes:
        kind: Its kind; of joined ones that of the surest.
        score: How sure.
        text: Characters [first, after the last) of the transcript.
        words: Words [first, after the last); None: without times, so all of the segment counts.
        samples: Samples [first, after the last) of the segment.
    """

    kind: str
    score: float
    text: tuple[int, int]
    words: tuple[int, int] | None
    samples: tuple[int, int]


def owners(text: str, words: Sequence[Mapping[str, Any]]) -> Owners:
    """Returns the word of each character of a transcript, [characters]; UNTIMED or NO_WORD where there is none.

    Case and punctuation may differ between the two, and words may be missing.
    """
    owned = np.full(len(text), NO_WORD, np.int64)
    places = [index for index, char in enumerate(text) if char.isalnum()]
    owned[places] = UNTIMED
    spelled = [(char, number) for number, word in enumerate(words) for char in word["text"] if char.isalnum()]
    said = [_fold(text[index]) for index in places]
    heard = [_fold(char) for char, _ in spelled]
    if said == heard:
        owned[places] = [number for _, number in spelled]
        return owned
    for block in SequenceMatcher(None, said, heard, autojunk=False).get_matching_blocks():
        for offset in range(block.size):
            owned[places[block.a + offset]] = spelled[block.b + offset][1]
    return owned


def _fold(char: str) -> str:
    return char.casefold()[0]


def find_passages(
    text: str, words: Sequence[Mapping[str, Any]] | None, num_samples: int, spans: Sequence[PiiSpan]
) -> list[Passage]:
    """Returns the passages of a segment, in order; those that share words or characters are one.

    Args:
        text: Transcript.
        words: With times in samples of the segment, or none.
        num_samples: Length of the segment.
        spans: What was found in the transcript.
    """
    owned = owners(text, words or [])
    passages: list[Passage] = []
    for span in sorted(spans, key=lambda s: s.start):
        found = _passage(owned, words or [], num_samples, span)
        if passages and _overlap(passages[-1], found):
            found = _union(passages.pop(), found)
        passages.append(found)
    return passages


def _passage(owned: Owners, words: Sequence[Mapping[str, Any]], num_samples: int, span: PiiSpan) -> Passage:
    whole = Passage(span.kind, span.score, (span.start, span.end), None, (0, num_samples))
    inside = owned[span.start : span.end]
    timed = inside[inside >= 0]
    known = np.flatnonzero(owned >= 0)
    if not len(known) or not len(inside):
        return whole
    if (inside == UNTIMED).any():
        # What lies between the last timed word before and the first after it may be personal.
        before, after = known[known < span.start], known[known >= span.end]
        first = int(owned[before[-1]]) + 1 if len(before) else 0
        last = int(owned[after[0]]) if len(after) else len(words)
        start = words[first - 1]["start"] + words[first - 1]["num_samples"] if first else 0
        end = words[last]["start"] if last < len(words) else num_samples
        # A word that is only partly personal stands on either side of the border: it counts.
        first, last = min([first, *timed.tolist()]), max([last, *(timed + 1).tolist()])
        bounds = [(start, end), *_times(words[first:last])]
        if first >= last:
            return whole
    elif len(timed):
        first, last = int(timed.min()), int(timed.max()) + 1
        bounds = _times(words[first:last])
    else:
        return whole
    samples = max(0, min(a for a, _ in bounds)), min(num_samples, max(b for _, b in bounds))
    if samples[0] >= samples[1]:
        return whole
    covered = np.flatnonzero((owned >= first) & (owned < last))
    text = min([span.start, *covered.tolist()]), max([span.end, *(covered + 1).tolist()])
    return Passage(span.kind, span.score, text, (first, last), samples)


def _times(words: Sequence[Mapping[str, Any]]) -> list[tuple[int, int]]:
    return [(word["start"], word["start"] + word["num_samples"]) for word in words]


def _overlap(a: Passage, b: Passage) -> bool:
    if b.text[0] < a.text[1]:
        return True
    return a.words is not None and b.words is not None and b.words[0] < a.words[1]


def _union(a: Passage, b: Passage) -> Passage:
    surest = a if a.score >= b.score else b
    words = None if a.words is None or b.words is None else _hull(a.words, b.words)
    return Passage(surest.kind, surest.score, _hull(a.text, b.text), words, _hull(a.samples, b.samples))


def _hull(a: tuple[int, int], b: tuple[int, int]) -> tuple[int, int]:
    return min(a[0], b[0]), max(a[1], b[1])


def tag(kind: str) -> str:
    """Returns what stands for personal data in a transcript: [PHONE]."""
    return f"[{kind}]"


@dataclass(frozen=True, slots=True)
class Redaction:
    """A transcript without its personal data.

    Attributes:
        text: With tags.
        words: With tags that have the times of what they stand for; None without times.
        passages: In characters of this text.
    """

    text: str
    words: list[Row] | None
    passages: list[Passage]


def redact(text: str, words: Sequence[Row] | None, passages: Sequence[Passage]) -> Redaction:
    """Returns a transcript with a tag for each passage; nothing but tags when one has no times.

    Where it is not known which words are personal, the sound of all of them goes, and so does the text of all of them.
    """
    if any(passage.words is None for passage in passages):
        kinds = dict.fromkeys(passage.kind for passage in passages)
        new = " ".join(map(tag, kinds))
        surest = max(passages, key=lambda p: p.score)
        return Redaction(new, None, [replace(surest, text=(0, len(new)))])
    new, moved, rest = "", [], 0
    listed: list[Row] = []
    spoken = 0
    for passage in passages:
        assert passage.words is not None
        new += text[rest : passage.text[0]]
        moved.append(replace(passage, text=(len(new), len(new) + len(tag(passage.kind)))))
        new, rest = new + tag(passage.kind), passage.text[1]
        start, end = passage.samples
        listed += (words or [])[spoken : passage.words[0]]
        listed.append({"text": tag(passage.kind), "start": start, "num_samples": end - start})
        spoken = passage.words[1]
    return Redaction(new + text[rest:], [*listed, *(words or [])[spoken:]], moved)
