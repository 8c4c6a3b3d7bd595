"""From the posteriors of a phone model to words: a lexicon and an n-gram model through Flashlight's beam search.

The search is that of wav2letter++ (Pratap et al. 2018, arXiv 1812.07625) with a KenLM model (Heafield 2011).
"""

from __future__ import annotations

import gzip
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from data_engine.core.errors import ConfigError, MissingExtraError

Emissions = npt.NDArray[np.float32]
Lexicon = list[tuple[str, tuple[str, ...]]]

BLANK = 0
_HOMOPHONES = 6
_NEVER = float("-inf")


@dataclass(frozen=True, slots=True)
class SearchSettings:
    """How the search weighs and prunes.

    Attributes:
        beam: Hypotheses kept per frame.
        tokens: Likeliest tokens tried per frame.
        threshold: Hypotheses this much below the best are dropped.
        lm_weight: Factor on the log10 probability of the language model.
        word_score: Added per word.
    """

    beam: int = 150
    tokens: int = 30
    threshold: float = 30.0
    lm_weight: float = 1.5
    word_score: float = 0.0


@dataclass(frozen=True, slots=True)
class FoundWord:
    """A word of the best hypothesis: first frame, frame after the last, mean log posterior of its phones."""

    text: str
    first: int
    end: int
    log_posterior: float


def read_lexicon(path: Path) -> Lexicon:
    """Returns (word, phones) of a gzipped lexicon, in file order.

    Raises:
        ConfigError: The file is missing or no such file.
    """
    try:
        with gzip.open(path, "rt", encoding="utf-8") as lines:
            return [(word, tuple(phones.split())) for word, _, phones in (line.partition("\t") for line in lines)]
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read the lexicon '{path}': {error}") from error


class WordSearch:
    """An opened beam search.

    Args:
        lexicon: Words and their phones.
        model: ARPA file, may be gzipped, over those words.
        tokens: Names of the columns of the emissions, blank first.
        silence: Token that is no part of a word.
        settings: Of the search.

    Raises:
        MissingExtraError: flashlight-text is not installed.
        ConfigError: The model cannot be read.
    """

    def __init__(
        self, lexicon: Lexicon, model: Path, tokens: Sequence[str], silence: str, settings: SearchSettings
    ) -> None:
        try:
            from flashlight.lib.text import decoder, dictionary
            from flashlight.lib.text.decoder.kenlm import KenLM
        except ImportError as error:
            raise MissingExtraError("flashlight-text", "embedded", "transcribing with 'nano'") from error
        self._words = list(dict.fromkeys(word for word, _ in lexicon))
        entries = dictionary.Dictionary()
        for word in self._words:
            entries.add_entry(word)
        try:
            with _quiet():
                self._model = KenLM(str(model), entries)
        except RuntimeError as error:
            raise ConfigError(f"cannot read the language model '{model}': {error}") from error
        token_ids = {name: number for number, name in enumerate(tokens)}
        self._silence = token_ids[silence]
        self._trie = _trie(decoder, self._model, lexicon, {w: n for n, w in enumerate(self._words)}, token_ids, silence)
        options = decoder.LexiconDecoderOptions(
            settings.beam, settings.tokens, settings.threshold, settings.lm_weight, settings.word_score, _NEVER, 0.0,
            False, decoder.CriterionType.CTC,
        )  # fmt: skip
        unknown = -1  # no unknown words: the lexicon is what can be heard
        self._search = decoder.LexiconDecoder(
            options, self._trie, self._model, self._silence, BLANK, unknown, [], False
        )

    def words(self, emissions: Emissions) -> list[FoundWord]:
        """Returns the words of the best hypothesis.

        Args:
            emissions: Log posteriors [frames, tokens].
        """
        if not len(emissions):
            return []
        rows = np.ascontiguousarray(emissions, np.float32)
        found = self._search.decode(rows.ctypes.data, *rows.shape)
        if not found:
            return []
        # The path has a silence before the first and after the last frame.
        path, labels = np.array(found[0].tokens)[1:-1], np.array(found[0].words)[1:-1]
        return found_words(rows, path, labels, self._words, self._silence)


def found_words(
    emissions: Emissions, path: npt.NDArray[np.int64], labels: npt.NDArray[np.int64], words: Sequence[str], silence: int
) -> list[FoundWord]:
    """Returns the words of a path; a word is labelled where its last phone begins.

    Args:
        emissions: Log posteriors [frames, tokens].
        path: Token of each frame.
        labels: Number of the word that is complete at each frame, or negative.
        words: By number.
        silence: Token that is no part of a word.
    """
    before = np.concatenate([[BLANK], path[:-1]])
    starts = np.flatnonzero((path != BLANK) & (path != silence) & ((path != before) | (labels >= 0)))
    if not len(starts):
        return []
    run_ends = _run_ends(path, starts)
    last = np.flatnonzero(labels[starts] >= 0)
    first = np.concatenate([[0], last[:-1] + 1])
    scores = emissions[starts, path[starts]]
    sums = np.concatenate([[0.0], np.cumsum(scores, dtype=np.float64)])
    means = (sums[last + 1] - sums[first]) / (last + 1 - first)
    rows = zip(labels[starts[last]], starts[first], run_ends[last], means, strict=True)
    return [FoundWord(words[label], int(start), int(end), float(mean)) for label, start, end, mean in rows]


def _run_ends(path: npt.NDArray[np.int64], starts: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Returns the frame after the run of equal tokens that begins at each start."""
    changes = np.append(np.flatnonzero(np.diff(path)) + 1, len(path))
    following = np.append(starts[1:], len(path))
    ends: npt.NDArray[np.int64] = np.minimum(changes[np.searchsorted(changes, starts, side="right")], following)
    return ends


def homophones(lexicon: Lexicon, numbers: dict[str, int]) -> dict[tuple[str, ...], list[int]]:
    """Returns the words of each pronunciation, the first six in the order of the lexicon: a node holds no more."""
    found: dict[tuple[str, ...], list[int]] = {}
    for word, phones in lexicon:
        words = found.setdefault(phones, [])
        if len(words) < _HOMOPHONES:
            words.append(numbers[word])
    return found


def _trie(
    decoder: Any, model: Any, lexicon: Lexicon, numbers: dict[str, int], token_ids: dict[str, int], silence: str
) -> Any:
    """Returns the lexicon as a tree of phones whose nodes know the likeliest word below them."""
    trie = decoder.Trie(len(token_ids), token_ids[silence])
    start = model.start(False)
    scores = [model.score(start, number)[1] for number in range(len(numbers))]
    for phones, numbers_of in homophones(lexicon, numbers).items():
        path = [token_ids[phone] for phone in phones]
        for number in numbers_of:
            trie.insert(path, number, scores[number])
    trie.smear(decoder.SmearingMode.MAX)
    return trie


@contextmanager
def _quiet() -> Iterator[None]:
    """Sends file descriptor 2 nowhere: KenLM draws a progress bar there and cannot be told not to."""
    saved = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(nowhere)
