"""Rows of speed: real-time factors of one core, and our batches against Step-Audio's one clip at a time."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product

import numpy as np

from data_engine.backends.codec_nano import SEMANTIC, SMALL_BITS, network_file
from data_engine.backends.codec_step_audio import StepAudioCodec
from data_engine.backends.protocols import CodeStreams, Wave
from data_engine.core.errors import ConfigError
from data_engine.training.evaluation.bench import Bench
from data_engine.training.evaluation.figures import Found, NotMeasuredError, ratio_of
from data_engine.training.evaluation.one_clip import OneClipTokenizer
from data_engine.training.evaluation.utterances import probe_corpus
from data_engine.training.speech.spoken import SAMPLE_RATE


def real_time(bench: Bench) -> dict[str, Found]:
    """Returns processor seconds per second of audio, clip by clip on both test sets; one thread, models loaded."""
    codec, found = bench.codec, {}
    spoken = bench.spoken("teachers") + bench.spoken("real")
    speakers = np.concatenate([bench.speakers("teachers"), bench.speakers("real")])
    streams = bench.streams("teachers") + bench.streams("real")
    seconds = [one.seconds for one in spoken]
    codec.encode([spoken[0].wave])
    spent = [processor_seconds(lambda one=one: codec.encode([one.wave])) for one in spoken]  # type: ignore[misc]
    found["tokenize"] = bench.found(ratio_of(spent, seconds), len(spoken))
    try:
        codec.decode(streams[:1], list(speakers[:1]))
    except ConfigError:
        return found
    pairs = zip(streams, speakers, strict=True)
    spent = [processor_seconds(lambda s=s, v=v: codec.decode([s], [v])) for s, v in pairs]  # type: ignore[misc]
    found["decode"] = bench.found(ratio_of(spent, seconds), len(spoken))
    return found


def processor_seconds(work: Callable[[], object]) -> float:
    """Returns the processor time of one call, all threads together: a busy machine does not add to it."""
    began = time.process_time()
    work()
    return time.process_time() - began


def over_one_by_one(bench: Bench) -> dict[str, Found]:
    """Returns processor seconds of Step-Audio's procedure over those of codec step-audio on the same clips, in turn.

    Processor time, because a busy machine decides about wall time. Its procedure runs with each number of threads in
    `speed.threads`; the cheaper one counts, so its overhead of threads does not. Details: processor and wall seconds
    per second of audio of each, of codec nano too, and the share of linguistic codes that are the same.
    """
    funasr, semantic = bench.settings.funasr, network_file(bench.folder, SEMANTIC, SMALL_BITS)
    peers = {"chunks": OneClipTokenizer(funasr, semantic, True), "whole": OneClipTokenizer(funasr, semantic, False)}
    ours = StepAudioCodec(linguistic=str(funasr), semantic=str(semantic))
    ours.open()
    rounds = clip_rounds(bench)
    turns: list[dict[str, Turn]] = []
    for clips in [rounds[0][:2], *rounds]:  # the first one warms up
        turn = {"step_audio": taken(lambda: ours.encode(clips)), "nano": taken(lambda: bench.codec.encode(clips))}  # noqa: B023
        for name, threads in product(peers, bench.settings.speed.threads):
            work = partial(_one_by_one, peers[name], clips)
            turn[f"{name}_{threads}_threads"] = taken(work, threads)
        turns.append(turn)
    return {name: _compared(name, turns[1:], rounds) for name in peers}


def _compared(peer: str, turns: Sequence[dict[str, Turn]], rounds: Sequence[Sequence[Wave]]) -> Found:
    names = [name for name in turns[0] if name.startswith(peer)]
    ratios = [min(turn[name].processor for name in names) / turn["step_audio"].processor for turn in turns]
    seconds = sum(len(wave) for clips in rounds for wave in clips) / SAMPLE_RATE
    shown = {
        name: {"wall": round(sum(turn[name].wall for turn in turns) / seconds, 5),
               "processor": round(sum(turn[name].processor for turn in turns) / seconds, 5)}
        for name in (*names, "step_audio", "nano")
    }  # fmt: skip
    pairs = [pair for turn in turns for pair in zip(turn[names[0]].codes, turn["step_audio"].codes, strict=True)]
    same = np.concatenate([a.vq02[: len(b.vq02)] == b.vq02[: len(a.vq02)] for a, b in pairs])
    details = {"seconds_per_second": shown, "rounds": [round(ratio, 2) for ratio in ratios],
               "audio_seconds": round(seconds), "linguistic_codes_equal": round(float(same.mean()), 4)}  # fmt: skip
    return Found(statistics.median(ratios), utterances=len(pairs), details=details)


def _one_by_one(tokenizer: OneClipTokenizer, clips: Sequence[Wave]) -> list[CodeStreams]:
    return [tokenizer.tokenize(wave) for wave in clips]


@dataclass(frozen=True, slots=True, eq=False)
class Turn:
    """What tokenizing gave, and its wall and processor seconds."""

    codes: list[CodeStreams]
    wall: float
    processor: float


def taken(work: Callable[[], list[CodeStreams]], threads: int = 1) -> Turn:
    """Returns a turn with so many threads of torch."""
    import torch

    torch.set_num_threads(threads)
    wall, processor = time.perf_counter(), time.process_time()
    found = work()
    return Turn(found, time.perf_counter() - wall, time.process_time() - processor)


def clip_rounds(bench: Bench) -> list[list[Wave]]:
    """Returns clips of the probe corpus, other ones for each round.

    Raises:
        NotMeasuredError: There are too few.
    """
    settings = bench.settings.speed
    rounds: list[list[Wave]] = [[]]
    left = settings.seconds / settings.rounds
    for one in probe_corpus(bench.settings.cache, bench.settings.probes):
        if left <= 0 and len(rounds) == settings.rounds:
            return rounds
        if left <= 0:
            rounds.append([])
            left = settings.seconds / settings.rounds
        rounds[-1].append(one.wave)
        left -= one.seconds
    raise NotMeasuredError(f"the probe corpus has less than {settings.seconds:.0f} s; raise probes.parts")
