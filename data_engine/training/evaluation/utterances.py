"""Utterances of the corpus with their texts: the test sets, and what codes are probed on."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from data_engine.backends.protocols import Wave
from data_engine.io.shards import committed_parts, read_batches
from data_engine.io.storage import Storage
from data_engine.models.phones import PAUSE, SPECIALS, TOKEN_IDS
from data_engine.training.evaluation.figures import NotMeasuredError
from data_engine.training.evaluation.settings import ProbeSettings, SetSettings
from data_engine.training.speech.spoken import SAMPLE_RATE
from data_engine.training.speech.waves import DROP, Part, Utterance, load

Ints = npt.NDArray[np.int64]
SILENT = [TOKEN_IDS[name] for name in (*SPECIALS, PAUSE, "<unk>")]
"""Tokens that are no phones."""

_MAKE = "make the corpus with data_engine.training.corpus and data_engine.training.speech.waves"


@dataclass(frozen=True, slots=True, eq=False)
class Spoken:
    """An utterance, what is said and who says it."""

    utterance: Utterance
    text: str
    source: str
    speaker: str

    @property
    def wave(self) -> Wave:
        """float32 [samples] at 16 kHz."""
        return self.utterance.wave

    @property
    def seconds(self) -> float:
        """Length in seconds."""
        return len(self.wave) / SAMPLE_RATE


def evenly(candidates: Ints, count: int) -> Ints:
    """Returns at most `count` of the candidates, evenly spread over them."""
    chosen: Ints = candidates[np.unique(np.linspace(0, len(candidates) - 1, min(count, len(candidates))).astype(int))]
    return chosen


def part_of(cache: Path, name: str) -> Part:
    """Returns a part of the corpus.

    Raises:
        NotMeasuredError: It is not there.
    """
    if not (cache / name / "index.npz").is_file():
        raise NotMeasuredError(f"there is no '{cache / name}'; {_MAKE}")
    return load(cache, [name])[0]


def texts_of(corpus: Path, name: str) -> list[str]:
    """Returns the texts of a part, in the order of its cache.

    Raises:
        NotMeasuredError: The part is not there.
    """
    storage = Storage(str(corpus / name))
    parts = committed_parts(storage, "segments") if (corpus / name).is_dir() else []
    batches = (batch for part in parts for batch in read_batches(storage, part, ("text", "decision")))
    texts = [str(row["text"]) for batch in batches for row in batch.to_pylist() if row["decision"] != DROP]
    if not texts:
        raise NotMeasuredError(f"there is no '{corpus / name}'; {_MAKE}")
    return texts


def test_set(cache: Path, corpus: Path, names: Sequence[str], settings: SetSettings) -> list[Spoken]:
    """Returns the utterances of a test set, as many of each source; none whose text has digits.

    Raises:
        NotMeasuredError: A part is not there.
    """
    parts = [part_of(cache, name) for name in names]
    each = -(-settings.utterances // sum(len(part.sources) for part in parts))
    found: list[Spoken] = []
    for part in parts:
        texts = texts_of(corpus, part.name)
        if len(texts) != len(part):
            raise NotMeasuredError(f"'{corpus / part.name}' and '{cache / part.name}' differ; make the cache again")
        seconds = part.length / SAMPLE_RATE
        fits = (seconds >= settings.shortest) & (seconds <= settings.longest)
        fits &= np.array([not re.search(r"\d", text) for text in texts])
        for number, source in enumerate(part.sources):
            chosen = evenly(np.flatnonzero(fits & (part.source == number)), each)
            found += [Spoken(part.utterance(int(i)), texts[i], source, str(part.speaker[i])) for i in chosen]
    return found


def probe_corpus(cache: Path, settings: ProbeSettings) -> list[Spoken]:
    """Returns utterances with phone times, in an order that mixes the parts.

    Raises:
        NotMeasuredError: A part is not there.
    """
    found: list[Spoken] = []
    for name, count in settings.parts.items():
        part = part_of(cache, name)
        fits = np.flatnonzero((part.timed == 1) & (part.length <= settings.longest * SAMPLE_RATE))
        found += [Spoken(part.utterance(int(i)), "", name, str(part.speaker[i])) for i in evenly(fits, count)]
    order = np.random.default_rng(0).permutation(len(found))
    return [found[number] for number in order]
