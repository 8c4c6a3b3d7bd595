"""Makes the training corpus: teachers and real recordings into shards of the table `segments`, part by part.

Every shard depends on the configuration and its own number alone; shards that are there are not made again.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator
from functools import cache
from itertools import islice
from multiprocessing import get_context
from pathlib import Path
from typing import Literal

import numpy as np

from data_engine.backends.timbre import analyse, voice_exemplars
from data_engine.core.config import Settings, read_yaml, validate
from data_engine.core.ids import seed_of
from data_engine.core.schema import load_schema
from data_engine.io.shards import PartWriter, committed_parts, marker_name
from data_engine.io.storage import Storage
from data_engine.training.speech import closed_teacher, teacher_espeak, teacher_flite, texts
from data_engine.training.speech.real_speech import manifest, speechocean
from data_engine.training.speech.spoken import SAMPLE_RATE, Spoken, row_of
from data_engine.training.speech.texts import Sentence

TABLE = "segments"
Drawn = Literal["flite", "espeak", "espeak_zh", "rendered", "lively"]
Closed = Literal["qa", "test_qa", "closed", "test_closed"]
Kind = Drawn | Closed | Literal["real", "test_teachers", "test_zh", "test_ocean", "test_real"]
_VOICE_SECONDS, _VOICES = 12.0, 60
_TEACHER_TEST = 40
_RATES = {"rendered": (110, 250), "lively": (130, 340)}
"""Words per minute of speech in voices moved to real ones; `lively` is as fast as the engine's fastest happy speech."""


class PartSettings(Settings):
    """A part of the corpus: who speaks, into how many shards, how many utterances each (real speech: all of it).

    Attributes:
        kind: Who speaks; `qa` and `closed` are the speaker LM's closed domains.
        shards: Shards of the part.
        utterances: Utterances of each; of `closed` sentences of each, in every voice; `qa` has all of its world.
        renditions: How often each voice of `qa` asks each question.
    """

    kind: Kind
    shards: int = 1
    utterances: int = 400
    renditions: int = 2


class CorpusSettings(Settings):
    """Where texts and recordings are, and which parts to make.

    Attributes:
        output: Folder; each part is an output folder of its own inside it.
        seed: Seed of every draw.
        lists: Folder of FastSpeech 2's `preprocessed_data`.
        speechocean: Repository folder of speechocean762.
        recordings: Folder with `manifest.jsonl`.
        parts: Parts by name.
    """

    output: Path
    seed: int = 1
    lists: Path
    speechocean: Path
    recordings: Path
    parts: dict[str, PartSettings]


def english(config: CorpusSettings) -> list[Sentence]:
    """Returns the English sentences that may train: read ones, the script bank thrice over, numbers."""
    read = list(texts.listed(config.lists / "LJSpeech" / "train.txt", "en", "LJ Speech", (3, 20)))
    kept = texts.without([*read, *texts.bank("en", test=False) * 3], test_texts(config))
    return kept + texts.numbers(len(kept) // 12, config.seed)


def mandarin(config: CorpusSettings) -> list[Sentence]:
    """Returns the Mandarin sentences that may train."""
    pinyin = list(texts.listed(config.lists / "AISHELL3" / "val.txt", "zh", "AISHELL-3", (3, 30)))
    return texts.bank("zh", test=False) + pinyin[20:]


@cache
def _transcripts(recordings: Path, ocean: Path) -> frozenset[str]:
    spoken = [*manifest(recordings, "test"), *speechocean(ocean, "test")]
    return frozenset(texts.plain(utterance.text) for utterance in spoken)


def test_texts(config: CorpusSettings) -> frozenset[str]:
    """Returns what the test recordings say, so that no teacher trains on it."""
    return _transcripts(config.recordings, config.speechocean)


def target_voices(config: CorpusSettings) -> list[teacher_espeak.TargetVoice]:
    """Returns real voices of the training speakers to move espeak-ng to, 12 s of speech each."""
    waves: dict[tuple[str, str], list[np.ndarray]] = {}
    for spoken in [*manifest(config.recordings, "train"), *speechocean(config.speechocean, "train")]:
        waves.setdefault((f"{spoken.source}:{spoken.speaker}", spoken.licence), []).append(spoken.wave)
    limit = int(_VOICE_SECONDS * SAMPLE_RATE)
    voices = {key: np.concatenate(parts)[:limit] for key, parts in waves.items() if sum(map(len, parts)) >= limit}
    chosen = sorted(voices, key=lambda key: seed_of(config.seed, *key))[:_VOICES]
    exemplars = {key: voice_exemplars(analyse(voices[key])) for key in chosen}
    return [teacher_espeak.TargetVoice(*key, found) for key, found in exemplars.items() if found is not None]


def utterances(config: CorpusSettings, part: PartSettings, shard: int) -> Iterator[Spoken]:
    """Yields the utterances of one shard of a part."""
    rng = np.random.default_rng(seed_of(config.seed, part.kind, shard))
    match part.kind:
        case "real":
            yield from manifest(config.recordings, "train")
            yield from speechocean(config.speechocean, "train")
        case "test_ocean":
            yield from speechocean(config.speechocean, "test")
        case "test_real":
            yield from manifest(config.recordings, "test")
        case "test_teachers" | "test_zh":
            yield from _teacher_test(config, part.kind == "test_zh")
        case "flite" | "espeak" | "espeak_zh" | "rendered" | "lively":
            yield from islice(_drawn(config, part.kind, shard, rng), part.utterances)
        case "qa" | "test_qa" | "closed" | "test_closed":
            yield from _closed(part, part.kind, shard)


def _closed(part: PartSettings, kind: Closed, shard: int) -> Iterator[Spoken]:
    test = kind.startswith("test_")
    if kind.endswith("qa"):
        lines = closed_teacher.qa_lines(test, part.renditions)
    else:
        lines = closed_teacher.closed_lines(test, part.utterances * part.shards)
    spoken = (closed_teacher.spoken_line(line) for line in islice(lines, shard, None, part.shards))
    yield from (utterance for utterance in spoken if utterance is not None)


def _drawn(config: CorpusSettings, kind: Drawn, shard: int, rng: np.random.Generator) -> Iterator[Spoken]:
    renderer = teacher_espeak.VoiceRenderer(target_voices(config), _RATES[kind]) if kind in _RATES else None
    draw = renderer.draw if renderer else teacher_flite.draw if kind == "flite" else teacher_espeak.draw
    sentences = mandarin(config) if kind == "espeak_zh" else english(config)
    if renderer:
        sentences = sentences + mandarin(config)
    order = np.random.default_rng(seed_of(config.seed, kind)).permutation(len(sentences))
    start = shard * 400
    while True:
        spoken = draw(sentences[order[start % len(order)]], rng)
        start += 1
        if spoken is not None and spoken.seconds <= 16:
            yield spoken


def _teacher_test(config: CorpusSettings, chinese: bool) -> Iterator[Spoken]:
    """Yields held-out sentences: read ones and script bank ones, in natural flite and espeak-ng voices."""
    if chinese:
        sentences, teachers = texts.bank("zh", test=True), [teacher_espeak.natural]
    else:
        read = list(texts.listed(config.lists / "LJSpeech" / "val.txt", "en", "LJ Speech", (4, 17)))
        sentences = read[:_TEACHER_TEST] + texts.bank("en", test=True)[:_TEACHER_TEST]
        teachers = [teacher_flite.natural, teacher_espeak.natural]
    spoken = (teacher(sentence, number) for teacher in teachers for number, sentence in enumerate(sentences))
    yield from (utterance for utterance in spoken if utterance is not None)
    if not chinese:
        renderer = teacher_espeak.VoiceRenderer(target_voices(config))
        drawn = (renderer.draw(s, np.random.default_rng(n), "test") for n, s in enumerate(sentences))
        yield from (utterance for utterance in drawn if utterance is not None)


def write_shard(output: str, shard: int, spoken: Iterable[Spoken]) -> float:
    """Writes and commits one shard; returns its seconds of audio."""
    storage, schema = Storage(output), load_schema("segment")
    with storage.scratch() as folder:
        writer = PartWriter(schema, folder)
        seconds = 0.0
        for utterance in spoken:
            writer.write(schema.batch([row_of(utterance)]))
            seconds += utterance.seconds
        marker = writer.commit(storage, TABLE, shard, {})
        storage.write_json(marker_name(TABLE, shard), marker)
    return seconds


def _make(job: tuple[CorpusSettings, str, int]) -> str:
    config, name, shard = job
    seconds = write_shard(str(config.output / name), shard, utterances(config, config.parts[name], shard))
    return f"{name} shard {shard}: {seconds / 3600:.3f} h"


def jobs(config: CorpusSettings, names: list[str]) -> list[tuple[CorpusSettings, str, int]]:
    """Returns the shards that are still to be made, first shards of all parts first."""
    wanted = [(config, name, shard) for name in names for shard in range(config.parts[name].shards)]
    done = {name: {p.shard for p in committed_parts(Storage(str(config.output / name)), TABLE)} for name in names}
    return sorted((job for job in wanted if job[2] not in done[job[1]]), key=lambda job: job[2])


def main() -> None:
    """Runs `python -m data_engine.training.corpus --config FILE [--processes N] [PART ...]`."""
    parser = argparse.ArgumentParser(description="Makes the training corpus of the small speech models.")
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("parts", nargs="*")
    arguments = parser.parse_args()
    config = validate(CorpusSettings, read_yaml(arguments.config), str(arguments.config))
    with get_context("spawn").Pool(arguments.processes) as pool:
        for line in pool.imap_unordered(_make, jobs(config, arguments.parts or list(config.parts))):
            print(line, flush=True)


if __name__ == "__main__":
    main()
