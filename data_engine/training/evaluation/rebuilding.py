"""Rows of the decoder: is speech from tokens still understood, and is it still the same voice?"""

from __future__ import annotations

import numpy as np

from data_engine.backends.protocols import CodeStreams, Wave
from data_engine.core.errors import ConfigError
from data_engine.training.evaluation.bench import Bench
from data_engine.training.evaluation.figures import Found, NotMeasuredError, mean_of, ratio_of
from data_engine.training.evaluation.utterances import Spoken
from data_engine.training.evaluation.words import WordCounts


def decoded(bench: Bench, name: str, streams: list[CodeStreams]) -> list[Wave]:
    """Returns speech from codes in the voices of the originals.

    Raises:
        NotMeasuredError: There is no decoder.
    """
    try:
        return bench.codec.decode(streams, list(bench.speakers(name)))
    except ConfigError as error:
        raise NotMeasuredError(str(error)) from error


def rebuilt(bench: Bench) -> dict[str, Found]:
    """Returns, for both sets, the word error rate over the original's and the cosine of speaker embeddings.

    The interval is of the difference, utterance by utterance: original and rebuilt are resampled together.
    """
    found: dict[str, Found] = {}
    for name in ("teachers", "real"):
        waves = decoded(bench, name, bench.streams(name))
        before, count = bench.original_words(name), len(waves)
        after = bench.words([one.text for one in bench.spoken(name)], waves)
        rates = {"original": by_source(bench.spoken(name), before), "rebuilt": by_source(bench.spoken(name), after),
                 "judge": bench.settings.judge.name}  # fmt: skip
        found[f"{name}_wer"] = bench.found(ratio_of(after.wrong - before.wrong, before.total), count, **rates)
        cosines = (bench.embedder.embed(waves) * bench.speakers(name)).sum(1)
        found[f"{name}_similarity"] = bench.found(mean_of(cosines), count)
    return found


def by_source(spoken: list[Spoken], counts: WordCounts) -> dict[str, float]:
    """Returns the word error rate of each source, and of all of them as `all`."""
    sources = np.array([one.source for one in spoken])
    rates = {"all": counts.rate}
    for source in sorted(set(sources)):
        of = sources == source
        rates[str(source)] = WordCounts(counts.wrong[of], counts.total[of]).rate
    return {name: round(rate, 4) for name, rate in rates.items()}


def shuffled(bench: Bench) -> dict[str, Found]:
    """Returns the word error rate of speech from each utterance's own codes in random order."""
    rng = np.random.default_rng(bench.settings.seed)
    mixed = [CodeStreams(rng.permutation(s.vq02), rng.permutation(s.vq06)) for s in bench.streams("teachers")]
    texts = [one.text for one in bench.spoken("teachers")]
    counts = bench.words(texts, decoded(bench, "teachers", mixed))
    return {"wer": bench.found(ratio_of(counts.wrong, counts.total), len(texts))}
