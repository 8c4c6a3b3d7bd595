"""Word times of reference-aligned speech: small readers of TextGrid, CTM and JSON."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LEFT_OUT = {
    "NOT usable": "the reference does not fit the audio",
    "phone ends": "the ends are no times of these phones: they are random numbers in order",
    "phones + states": "the words are not listed",
}
"""Kinds of references that are no word times, and why."""

_SILENCE = {"", "sp", "sil", "<sil>", "<s>", "</s>", "[noise]", "spn"}


@dataclass(frozen=True, slots=True)
class TimedWord:
    """A word with its first and last second."""

    text: str
    start: float
    end: float


@dataclass(frozen=True, slots=True)
class Reference:
    """A recording with its word times.

    Attributes:
        path: Of the recording, below the folder of the speech files.
        words: In order.
        made_by: What the manifest says of where the times come from.
    """

    path: str
    words: tuple[TimedWord, ...]
    made_by: str

    @property
    def text(self) -> str:
        """The words as a text."""
        return " ".join(word.text for word in self.words)


def references(folder: Path) -> Iterator[Reference]:
    """Yields the English recordings of a manifest folder that have word times."""
    for line in (folder / "manifest.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        kind = row.get("alignment_kind") or ""
        if "words" in kind and "no times" not in kind and row["language"] == "en" and not _left_out(kind):
            yield Reference(row["path"], tuple(_words(folder / row["alignment"], row["path"])), kind)


def _left_out(kind: str) -> bool:
    return any(what in kind for what in LEFT_OUT)


def _words(file: Path, recording: str) -> Iterator[TimedWord]:
    read = {".TextGrid": textgrid_words, ".ctm": ctm_words, ".json": json_words}[file.suffix]
    name = Path(recording).name
    for word in read(file.read_text(encoding="utf-8-sig"), name):
        if word.text.lower() not in _SILENCE:
            yield word


def textgrid_words(text: str, recording: str) -> Iterator[TimedWord]:
    """Yields the intervals of the tier of words of a TextGrid, long or short, silences too."""
    # In both forms the values come in the same order; the long form only names them.
    values = re.findall(r'"((?:[^"]|"")*)"|(?<![\w.\[])(-?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?)(?![\w\]])', text)
    tokens: list[str | float] = [float(number) if number else quoted for quoted, number in values]
    places = [n for n, token in enumerate(tokens) if token == "IntervalTier"]
    for place in places:
        if str(tokens[place + 1]).lower() in ("words", "word"):
            count = int(float(tokens[place + 4]))
            rows = tokens[place + 5 : place + 5 + 3 * count]
            for start, end, label in zip(rows[::3], rows[1::3], rows[2::3], strict=True):
                yield TimedWord(str(label).strip(), float(start), float(end))


def ctm_words(text: str, recording: str) -> Iterator[TimedWord]:
    """Yields the lines of a CTM file: recording, channel, start, duration, word."""
    for line in text.splitlines():
        _, _, start, duration, word = line.split()[:5]
        yield TimedWord(word, float(start), float(start) + float(duration))


def json_words(text: str, recording: str) -> Iterator[TimedWord]:
    """Yields words of the two kinds of JSON: pocketsphinx's (b, d, t) and Leopard's list of tests."""
    held = json.loads(text)
    if "w" in held:
        for row in held["w"]:
            yield TimedWord(re.sub(r"\(\d+\)$", "", row["t"]), row["b"], row["b"] + row["d"])
        return
    tests: Sequence[dict[str, Any]] = held["tests"]["language_tests"]
    for row in next(test for test in tests if test["audio_file"] == recording)["words"]:
        yield TimedWord(row["word"], row["start_sec"], row["end_sec"])


Reader = Callable[[str, str], Iterator[TimedWord]]
