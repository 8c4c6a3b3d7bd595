"""Makes a small trigram model of words out of a large one and some text, and writes it as ARPA."""

from __future__ import annotations

import gzip
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from data_engine.training.sphinx_ngrams import Doubles, Ints, Ngrams

BEGIN, END = "<s>", "</s>"
_UNKNOWN_LOG10 = -9.0
_NEVER_LOG10 = -99.0
_DISCOUNT = 0.5
_LOG10 = float(np.log(10.0))


@dataclass(frozen=True, slots=True)
class Keyed:
    """N-grams of one order as sorted numbers, with the natural log probability of each."""

    keys: Ints
    logs: Doubles

    def at(self, keys: Ints) -> Doubles:
        """Returns the log probabilities of keys, NaN where there is none."""
        if not len(self.keys):
            return np.full(len(keys), np.nan)
        place = np.minimum(np.searchsorted(self.keys, keys), len(self.keys) - 1)
        return np.where(self.keys[place] == keys, self.logs[place], np.nan)


@dataclass(frozen=True, slots=True)
class Model:
    """A trigram model over a vocabulary whose first entries are <s> and </s>; logarithms are natural."""

    words: list[str]
    unigrams: Doubles
    pairs: Keyed
    triples: Keyed

    @property
    def size(self) -> int:
        """Words of the vocabulary."""
        return len(self.words)


def keyed(keys: Ints, logs: Doubles) -> Keyed:
    """Returns n-grams sorted by key, of equal keys the first."""
    unique, first = np.unique(keys, return_index=True)
    return Keyed(unique, logs[first])


def restricted(large: Ngrams, words: Sequence[str]) -> Model:
    """Returns the large model over `words` alone, its unigrams summing to one again.

    Args:
        large: Where probabilities come from.
        words: The vocabulary; what the large model does not know gets its smallest probability.
    """
    vocabulary = [BEGIN, END, *(word for word in words if word not in (BEGIN, END))]
    numbers = {word: number for number, word in enumerate(vocabulary)}
    target = np.array([numbers.get(word, -1) for word in large.words])
    unigrams = np.full(len(vocabulary), large.unigrams[target >= 0].min())
    unigrams[target[target >= 0]] = large.unigrams[target >= 0]
    unigrams[0] = -np.inf
    unigrams -= np.log(np.exp(unigrams).sum())
    size = len(vocabulary)
    pairs, triples = target[large.pairs], target[large.triples]
    inside, within = (pairs >= 0).all(1), (triples >= 0).all(1)
    return Model(
        vocabulary, unigrams, keyed(pairs[inside] @ [size, 1], large.pair_logs[inside]),
        keyed(triples[within] @ [size * size, size, 1], large.triple_logs[within]),
    )  # fmt: skip


def counted(sentences: Sequence[Sequence[str]], words: Sequence[str]) -> Model:
    """Returns a bigram model of sentences by absolute discounting (Ney et al. 1994); no pair spans an unknown word."""
    numbers = {word: number for number, word in enumerate(words)}
    size = len(words)
    lines = [[0, *(numbers.get(word, -1) for word in sentence), 1] for sentence in sentences]
    stream = np.array([number for line in lines for number in line], np.int64)
    known = stream[stream > 0]
    unigrams = np.log((np.bincount(known, minlength=size) + 1e-3) / (len(known) + 1e-3 * size))
    unigrams[0] = -np.inf
    history, word = stream[:-1], stream[1:]
    inside = (history >= 0) & (word > 0) & (history != 1)
    keys, counts = np.unique(history[inside] * size + word[inside], return_counts=True)
    totals = np.bincount(keys // size, weights=counts, minlength=size)
    kinds = np.bincount(keys // size, minlength=size)
    rest = _DISCOUNT * kinds / np.maximum(totals, 1)
    chances = (counts - _DISCOUNT) / totals[keys // size] + rest[keys // size] * np.exp(unigrams[keys % size])
    return Model(list(words), unigrams, Keyed(keys, np.log(chances)), Keyed(keys[:0], unigrams[:0]))


def mixed(large: Model, small: Model, share: float) -> Model:
    """Returns the linear mixture of unigrams and of the pairs of both; triples stay the large model's.

    Args:
        large: Of a language.
        small: Of a domain, over the same words.
        share: Of the small one.
    """
    size = large.size
    unigrams = np.logaddexp(np.log1p(-share) + large.unigrams, np.log(share) + small.unigrams)
    keys = np.union1d(large.pairs.keys, small.pairs.keys)
    general, special = _pair_logs(large, keys), _pair_logs(small, keys)
    seen = np.bincount(small.pairs.keys // size, minlength=size)[keys // size] > 0
    weight = np.where(seen, share, 0.0)
    with np.errstate(divide="ignore"):
        logs = np.logaddexp(np.log1p(-weight) + general, np.log(weight) + special)
    return Model(large.words, unigrams, Keyed(keys, logs), large.triples)


def _pair_logs(model: Model, keys: Ints) -> Doubles:
    """Returns log P(word | history) with back-off."""
    found = model.pairs.at(keys)
    backed = pair_backs(model)[keys // model.size] + model.unigrams[keys % model.size]
    return np.where(np.isnan(found), backed, found)


def pair_backs(model: Model) -> Doubles:
    """Returns the log weight of unigrams after each history, so that the whole sums to one."""
    history, word = np.divmod(model.pairs.keys, model.size)
    taken = np.bincount(history, weights=np.exp(model.pairs.logs), minlength=model.size)
    covered = np.bincount(history, weights=np.exp(model.unigrams[word]), minlength=model.size)
    return _rest(taken, covered)


def triple_backs(model: Model) -> Doubles:
    """Returns the log weight of pairs after each pair of histories, in the order of `model.pairs`."""
    context, word = np.divmod(model.triples.keys, model.size)
    place = np.searchsorted(model.pairs.keys, context)
    lower = _pair_logs(model, context % model.size * model.size + word)
    count = len(model.pairs.keys)
    taken = np.bincount(place, weights=np.exp(model.triples.logs), minlength=count)
    return _rest(taken, np.bincount(place, weights=np.exp(lower), minlength=count))


def _rest(taken: npt.NDArray[Any], covered: npt.NDArray[Any]) -> Doubles:
    weights: Doubles = np.log(np.maximum(1 - taken, 1e-4) / np.maximum(1 - covered, 1e-4))
    return weights


def pruned(model: Model, pairs: int, triples: int) -> Model:
    """Returns the model with the n-grams that tell most: the largest P(h, w) (log P(w | h) - log P of the back-off).

    The criterion is that of Stolcke 1998 (arXiv cs/0006025) without the change of the back-off weight.
    """
    size = model.size
    context, word = np.divmod(model.triples.keys, size)
    whole = ~np.isnan(model.pairs.at(context))
    kept = Keyed(model.triples.keys[whole], model.triples.logs[whole])
    context, word = context[whole], word[whole]
    reach = model.unigrams[context // size] + model.pairs.at(context)
    reach = np.where(context // size == 0, model.pairs.at(context) + model.unigrams[1], reach)
    gain = np.exp(reach + kept.logs) * (kept.logs - _pair_logs(model, context % size * size + word))
    best = np.sort(np.argsort(-gain, kind="stable")[:triples])
    chosen = Keyed(kept.keys[best], kept.logs[best])
    history, word = np.divmod(model.pairs.keys, size)
    reach = np.where(history == 0, model.unigrams[1], model.unigrams[history])
    backed = pair_backs(model)[history] + model.unigrams[word]
    gain = np.exp(reach + model.pairs.logs) * (model.pairs.logs - backed)
    needed = np.isin(model.pairs.keys, np.concatenate([context[best], chosen.keys % (size * size)]))
    order = np.argsort(-np.where(needed, np.inf, gain), kind="stable")
    stay = np.sort(order[: max(pairs, int(needed.sum()))])
    return _closed(Model(model.words, model.unigrams, Keyed(model.pairs.keys[stay], model.pairs.logs[stay]), chosen))


def _closed(model: Model) -> Model:
    """Returns the model with the pairs that end a triple, which KenLM wants to be there."""
    ends = np.setdiff1d(model.triples.keys % (model.size * model.size), model.pairs.keys)
    keys = np.concatenate([model.pairs.keys, ends])
    pairs = keyed(keys, np.concatenate([model.pairs.logs, _pair_logs(model, ends)]))
    return Model(model.words, model.unigrams, pairs, model.triples)


def write_arpa(model: Model, path: Path) -> None:
    """Writes the model as gzipped ARPA, the same bytes for the same model."""
    words = np.array(model.words)
    size = model.size
    singles = [
        f"{_UNKNOWN_LOG10:.0f}\t<unk>",
        *_lines(_log10(_apart(model.unigrams), 5), words, _log10(pair_backs(model), 2)),
    ]
    history, word = np.divmod(model.pairs.keys, size)
    context, last = np.divmod(model.triples.keys, size)
    used = np.isin(model.pairs.keys, context)
    backs = np.where(used, triple_backs(model), 0.0)
    doubles = _lines(_log10(model.pairs.logs, 4), _joined(words, history, word), _log10(backs, 2))
    triples = _lines(_log10(model.triples.logs, 3), _joined(words, context // size, context % size, last))
    heading = "".join(f"ngram {n + 1}={len(lines)}\n" for n, lines in enumerate((singles, doubles, triples)))
    body = (f"\\{n + 1}-grams:\n" + "\n".join(lines) + "\n" for n, lines in enumerate((singles, doubles, triples)))
    text = f"\\data\\\n{heading}\n" + "\n".join(body) + "\n\\end\\\n"
    with path.open("wb") as file, gzip.GzipFile("", "wb", 9, file, mtime=0) as packed:
        packed.write(text.encode("utf-8"))


def _log10(logs: Doubles, digits: int) -> npt.NDArray[np.str_]:
    return np.char.mod(f"%.{digits}f", np.minimum(np.maximum(logs / _LOG10, _NEVER_LOG10), 9.0))


def _apart(logs: Doubles) -> Doubles:
    """Returns the logarithms with equal ones set apart by 0.00001 (base ten).

    The search breaks ties between homophones by where they lie in memory, so there may be none.
    """
    order = np.argsort(-logs, kind="stable")
    steps = np.arange(len(logs)) * 1e-5
    rounded = np.round(np.maximum(logs[order] / _LOG10, _NEVER_LOG10), 5)
    found = np.empty_like(logs)
    found[order] = (np.minimum.accumulate(rounded + steps) - steps) * _LOG10
    return found


def _joined(words: npt.NDArray[np.str_], *columns: Ints) -> list[str]:
    return [" ".join(row) for row in zip(*(words[column] for column in columns), strict=True)]


def _lines(logs: npt.NDArray[np.str_], grams: Iterable[str], backs: npt.NDArray[np.str_] | None = None) -> list[str]:
    """Returns ARPA lines; a back-off weight of one is left out."""
    tails = ["" if float(back) == 0.0 else f"\t{back}" for back in backs] if backs is not None else None
    ends = tails or [""] * len(logs)
    return [f"{log}\t{gram}{tail}" for log, gram, tail in zip(logs, grams, ends, strict=True)]
