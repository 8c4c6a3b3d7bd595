"""From text to words to phones, as the embedded phone model and the aligners name them: English and Mandarin."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path

from data_engine.backends.ctc_words import read_lexicon
from data_engine.backends.espeak_library import VARIANTS, Utterance, library_revision, shared_library
from data_engine.core.errors import RecordError
from data_engine.models.phones import PAUSE, from_espeak

Phones = tuple[str, ...]

LEXICON_FOLDER = Path(__file__).parent.parent / "assets" / "asr_nano"
LEXICONS = ("en.lexicon.gz", "zh.lexicon.gz")
LANGUAGES = frozenset({"en", "zh"})

_FAST = 400
_HAN = re.compile(r"([\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff])")
_LETTER = r"[a-z\u00df-\u024f]"
_PARTS = re.compile(rf"\d+(?:[.,:]\d+)*|{_LETTER}+(?:'{_LETTER}+)*'?|{_HAN.pattern[1:-1]}")
"""What of a word can be read: figures, Latin letters, Chinese characters; of others espeak-ng says their names."""


def by_espeak(text: str, voice: str) -> Phones:
    """Returns espeak-ng's phones of a text without pauses; empty when one is not in the set."""
    said = shared_library().say(Utterance(text, voice, VARIANTS[0], rate=_FAST))
    phones = from_espeak(said.phonemes, len(said.samples), voice.startswith("cmn")) or []
    return tuple(phone.name for phone in phones if phone.name != PAUSE)


def text_words(text: str) -> list[str]:
    """Returns the words of a text in its order, as written but without the punctuation around them.

    Chinese characters are words of their own; what holds no letter or digit is no word.
    """
    spaced = _HAN.sub(r" \1 ", unicodedata.normalize("NFKC", text).replace("\u2019", "'"))
    return [word for word in (_bare(part) for part in spaced.split()) if word]


def _bare(part: str) -> str:
    places = [n for n, char in enumerate(part) if char.isalnum()]
    if not places:
        return ""
    first, last = places[0], places[-1] + 1
    # The apostrophes of 'em and dogs' belong to the word.
    return part[first - (part[first - 1 : first] == "'") : last + (part[last : last + 1] == "'")]


class Pronouncer:
    """An opened lexicon with espeak-ng behind it.

    Args:
        folder: Holds the lexicons.

    Raises:
        ConfigError: A lexicon cannot be read.
    """

    def __init__(self, folder: Path = LEXICON_FOLDER) -> None:
        self._known: dict[str, Phones] = {}
        for name in LEXICONS:
            for word, phones in read_lexicon(folder / name):
                self._known.setdefault(word, phones)

    def phones(self, words: Sequence[str]) -> list[Phones]:
        """Returns the phones of each word.

        Raises:
            RecordError: UNSUPPORTED_LANGUAGE, a word cannot be pronounced.
        """
        return [self._phones(word) for word in words]

    def _phones(self, word: str) -> Phones:
        folded = word.casefold()
        for spelled in (folded, folded.strip("'")):
            if spelled in self._known:
                return self._known[spelled]
        phones = tuple(phone for part in _PARTS.findall(folded) for phone in self._part(part))
        if not phones:
            raise RecordError("UNSUPPORTED_LANGUAGE", f"nobody knows how '{word[:40]}' is pronounced")
        return phones

    def _part(self, part: str) -> Phones:
        if part not in self._known:
            self._known[part] = by_espeak(part, "cmn" if _HAN.match(part) else "en-us")
        return self._known[part]


def lexicon_files(folder: Path = LEXICON_FOLDER) -> list[Path]:
    """Returns the files a `Pronouncer` reads."""
    return [folder / name for name in LEXICONS]


def pronouncer_revision() -> str:
    """Returns the version of what pronounces words that are in no lexicon."""
    return library_revision()


def flattened(pronounced: Sequence[Phones], ids: Mapping[str, int]) -> tuple[list[int], list[int]]:
    """Returns the token of each phone of an utterance, and the word it belongs to."""
    tokens = [ids[phone] for phones in pronounced for phone in phones]
    return tokens, [number for number, phones in enumerate(pronounced) for _ in phones]
