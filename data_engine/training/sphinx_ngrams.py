"""Reads the trigram model inside the pocketsphinx wheel as arrays, so that a smaller one can be made of it.

The file is a trie of the last word first: below each word its predecessors, below those theirs, bit-packed with
quantised probabilities (Heafield 2011, KenLM's trie). pocketsphinx itself cannot write this model as text.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from data_engine.core.errors import ConfigError, MissingExtraError

Ints = npt.NDArray[np.int64]
Doubles = npt.NDArray[np.float64]

_HEADER = b"Trie Language Model"
_LOG = float(np.log(1.0001))
"""Natural logarithm of the base in which the file counts."""
_TABLE, _QUANT_BITS = 1 << 16, 16
_UNIGRAM = np.dtype([("log", "<f4"), ("back", "<f4"), ("next", "<u4")])


@dataclass(frozen=True, slots=True)
class Ngrams:
    """A trigram model; logarithms are natural.

    Attributes:
        words: Words by number.
        unigrams: Log probability of each word.
        pairs: Numbers of (history, word), [bigrams, 2].
        pair_logs: Log probability of each word after its history.
        triples: Numbers of (history, history, word), [trigrams, 3].
        triple_logs: Log probability of each word after its histories.
        backs: Log back-off weight of each word as history.
    """

    words: list[str]
    unigrams: Doubles
    backs: Doubles
    pairs: Ints
    pair_logs: Doubles
    triples: Ints
    triple_logs: Doubles


def model_folder() -> Path:
    """Returns the folder of the US English model in the pocketsphinx wheel.

    Raises:
        MissingExtraError: The wheel is not installed.
    """
    found = importlib.util.find_spec("pocketsphinx")
    if found is None or not found.submodule_search_locations:
        raise MissingExtraError("pocketsphinx", "embedded", "making the language model")
    return Path(found.submodule_search_locations[0]) / "model" / "en-us"


def packed_bits(memory: npt.NDArray[np.uint8], starts: Ints, width: int) -> Ints:
    """Returns the numbers of `width` bits (at most 57) that start at the given bits, little end first."""
    first, shift = starts >> 3, (starts & 7).astype(np.uint64)
    found = np.zeros(len(starts), np.uint64)
    for byte in range(8):
        found |= memory[first + byte].astype(np.uint64) << np.uint64(8 * byte)
    return ((found >> shift) & np.uint64((1 << width) - 1)).astype(np.int64)


def read_ngrams(path: Path) -> Ngrams:
    """Returns the model of a file `*.lm.bin` of order 3.

    Raises:
        ConfigError: It is another kind of file.
    """
    content = path.read_bytes()
    start = len(_HEADER)
    if not content.startswith(_HEADER) or content[start] != 3:
        raise ConfigError(f"'{path}' is no trigram model of pocketsphinx")
    ones, twos, threes = (int(n) for n in np.frombuffer(content, "<u4", 3, start + 1))
    offset = start + 1 + 12 + 4
    tables = np.frombuffer(content, "<f4", 3 * _TABLE, offset).reshape(3, -1).astype(np.float64) * _LOG
    offset += 3 * _TABLE * 4
    unigrams = np.frombuffer(content, _UNIGRAM, ones + 1, offset)
    offset += unigrams.nbytes
    word_bits, next_bits = ones.bit_length(), threes.bit_length()
    width, last_width = word_bits + 2 * _QUANT_BITS + next_bits, word_bits + _QUANT_BITS
    size, last_size = ((1 + twos) * width + 7) // 8 + 8, ((1 + threes) * last_width + 7) // 8 + 8
    middle = np.frombuffer(content, np.uint8, size, offset)
    last = np.frombuffer(content, np.uint8, last_size, offset + size)
    words = content[offset + size + last_size + 4 :].decode("utf-8").split("\0")[:ones]

    count = int(unigrams["next"][-1])
    bits = np.arange(count + 1) * width
    histories = packed_bits(middle, bits[:-1], word_bits)
    pair_words = np.repeat(np.arange(ones), np.diff(unigrams["next"].astype(np.int64)))
    pair_logs = tables[0][packed_bits(middle, bits[:-1] + word_bits + _QUANT_BITS, _QUANT_BITS)]
    below = packed_bits(middle, bits + word_bits + 2 * _QUANT_BITS, next_bits)
    found = int(below[-1])
    bits = np.arange(found) * last_width
    parents = np.repeat(np.arange(count), np.diff(below))
    triples = np.stack([packed_bits(last, bits, word_bits), histories[parents], pair_words[parents]], axis=1)
    triple_logs = tables[2][packed_bits(last, bits + word_bits, _QUANT_BITS)]
    return Ngrams(
        words, unigrams["log"][:-1] * _LOG, unigrams["back"][:-1] * _LOG, np.stack([histories, pair_words], axis=1),
        pair_logs, triples, triple_logs,
    )  # fmt: skip
