"""Chunks, times and words of an attention recognizer: pure functions over waves, attention weights and tokens."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from data_engine.backends.protocols import Wave, Word

POSITION_SAMPLES = 320
"""Samples at 16 kHz of one encoder position, 20 ms."""
UNSPACED = frozenset({"zh", "yue", "ja", "th", "lo", "my", "km"})
"""Languages written without spaces between words."""

_SEARCH, _BLOCK = 80_000, 1600
"""A chunk ends in the quietest 100 ms of its last 5 s."""
BROKEN = "\ufffd"
"""Stands for a character of which a token holds only some bytes."""

Floats = npt.NDArray[np.float32]


def chunk_bounds(wave: Wave, most: int) -> list[tuple[int, int]]:
    """Returns first sample and the one after the last of each chunk of a wave, none longer than `most` samples.

    What is longer is cut in the quietest 100 ms of the last 5 s (of the last half, where that is less) before it must
    be cut.
    """
    bounds: list[tuple[int, int]] = []
    start = 0
    while len(wave) - start > most:
        blocks = max(min(_SEARCH, most // 2) // _BLOCK, 1)
        window = wave[start + most - blocks * _BLOCK : start + most].reshape(blocks, _BLOCK)
        quietest = int(np.argmin(np.square(window, dtype=np.float64).sum(axis=1)))
        end = start + most - (blocks - quietest) * _BLOCK + _BLOCK // 2
        bounds.append((start, end))
        start = end
    return [*bounds, (start, len(wave))]


def median_filter(weights: Floats, width: int) -> Floats:
    """Returns the running median over the last axis, mirrored at its ends; as it is where that is too short."""
    reach = width // 2
    if reach == 0 or weights.shape[-1] <= reach:
        return weights
    pad = [(0, 0)] * (weights.ndim - 1) + [(reach, reach)]
    windows = np.lib.stride_tricks.sliding_window_view(np.pad(weights, pad, mode="reflect"), width, axis=-1)
    return np.asarray(np.median(windows, axis=-1), np.float32)


def attention_scores(weights: Floats, width: int) -> Floats:
    """Returns how well each position fits each token, [tokens, positions].

    Weights are normalised over the tokens, smoothed over time and averaged over the heads, as Whisper's word times
    are made (github.com/openai/whisper, timing.py).

    Args:
        weights: Cross-attention of the alignment heads, float32 [heads, tokens, positions].
        width: Of the median filter, in positions.
    """
    spread = weights.std(axis=1, keepdims=True)
    normal = (weights - weights.mean(axis=1, keepdims=True)) / np.maximum(spread, 1e-9)
    return np.asarray(median_filter(normal, width).mean(axis=0), np.float32)


def first_positions(scores: Floats) -> npt.NDArray[np.int64] | None:
    """Returns where each token begins on the best monotonic path, [tokens]; None with more tokens than positions.

    Each token has at least one position and each position one token (Viterbi over positions, all tokens at once).

    Args:
        scores: float32 [tokens, positions].
    """
    tokens, positions = scores.shape
    if not 0 < tokens <= positions:
        return None
    best = np.full(tokens, -np.inf)
    best[0] = scores[0, 0]
    moved = np.zeros((positions, tokens), bool)
    for position in range(1, positions):
        before = np.concatenate([[-np.inf], best[:-1]])
        moved[position] = before > best
        best = np.where(moved[position], before, best) + scores[:, position]
    begins = np.zeros(tokens, np.int64)
    position = positions
    for token in range(tokens - 1, 0, -1):
        # The last position up to here at which the path came from the token before.
        position = int(np.flatnonzero(moved[1:position, token])[-1]) + 1
        begins[token] = position
    return begins


def token_words(
    tokens: Sequence[int], begins: Sequence[int], spell: Callable[[Sequence[int]], str], language: str | None, end: int
) -> tuple[Word, ...]:
    """Returns words with times in samples.

    Args:
        tokens: Text tokens.
        begins: First sample of each token, and last that of what follows them.
        spell: Returns the text of tokens; a character that is not complete is spelled U+FFFD.
        language: In a language without spaces each complete token is a word.
        end: Sample that no word passes.
    """
    words: list[Word] = []
    first = 0
    for number in range(len(tokens)):
        text = spell(tokens[first : number + 1])
        if BROKEN in text and number + 1 < len(tokens):
            continue
        start, stop = (min(begins[place], end) for place in (first, number + 1))
        text, new = text.replace(BROKEN, ""), text.startswith(" ") or language in UNSPACED
        if words and (not new or not any(letter.isalnum() for letter in text)):
            words[-1] = Word(words[-1].text + text.rstrip(), words[-1].start, stop - words[-1].start)
        elif text.strip():
            words.append(Word(text.strip(), start, stop - start))
        first = number + 1
    return tuple(words)
