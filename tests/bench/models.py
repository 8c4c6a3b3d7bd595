"""Speech models: the engine in two processes against the wheels' own functions, called one clip at a time.

Clips last 3 to 30 s, as Emilia-Pipe keeps them (arXiv 2407.05361), and are cut at random from a real conversation;
no two are equal. Both sides hear the same clips with their models loaded. The engine's side measures more than its
peer: level, pitch, rate and bandwidth belong to its stage.
"""

from __future__ import annotations

import io
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial
from importlib.util import find_spec
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import soundfile

from data_engine.backends.catalog import BackendCache
from data_engine.core.harness import StageRun
from data_engine.core.stage import Worker
from data_engine.io.scratch import ScratchAudio
from data_engine.stages.catalog import build_stage
from tests.bench.measure import Row, seconds

Wave = npt.NDArray[np.float32]

RATE, WORKERS = 16000, 2
SHORTEST, LONGEST = 3.0, 30.0
SILENT_UNTIL = 6.5
PEERS = ("librosa", "webrtcvad", "speechmos", "resemblyzer", "silero_vad", "torch")
QUALITIES = ("dnsmos", "dnsmos-torch")
MOST_APART = 0.01
_PER_TASK = 4


@cache
def conversation() -> Wave:
    """Returns the 30-second conversation inside the pyannote.audio wheel."""
    found = find_spec("pyannote")
    assert found is not None
    folders = [Path(folder) / "audio/sample/sample.wav" for folder in found.submodule_search_locations or ()]
    wave: Wave = soundfile.read(next(path for path in folders if path.exists()), dtype="float32")[0]
    return wave


def random_clips(count: int) -> list[Wave]:
    """Returns clips of 3 to 30 s, out of what is spoken."""
    speech, random = np.tile(conversation()[int(SILENT_UNTIL * RATE) :], 2), np.random.default_rng(0)
    lengths = (random.uniform(SHORTEST, LONGEST, count) * RATE).astype(int)
    starts = random.integers(0, len(speech) - lengths + 1)
    return [speech[start : start + length] for start, length in zip(starts, lengths, strict=True)]


@dataclass(slots=True)
class _Loaded:
    """What a worker process keeps between tasks."""

    backends: BackendCache
    quality: Any
    stages: tuple[Any, Any]
    scratch: Path


@cache
def _loaded(quality: str) -> _Loaded:
    backends, scratch = BackendCache(), Path(tempfile.mkdtemp())
    stages = build_stage("segment", {}), build_stage("annotate", {"quality": {"name": quality}})
    for stage in stages:
        stage.open(Worker(scratch, backends))
    return _Loaded(backends, backends("quality", quality, {}), stages, scratch)


def score(quality: str, clips: Sequence[Wave]) -> Any:
    """A back end of the role `quality`; runs in a worker process."""
    return _loaded(quality).quality.score(clips)


def chain(quality: str, clips: Sequence[Wave]) -> list[dict[str, Any]]:
    """Stages `segment` and `annotate`, with the harness around them; runs in a worker process."""
    loaded = _loaded(quality)
    heard, measured = (StageRun(stage, "bench") for stage in loaded.stages)
    recordings, segments = [], []
    for number, wave in enumerate(clips):
        name, sound = f"clip{number}", io.BytesIO()
        with ScratchAudio(loaded.scratch).writer(name, 0) as writer:
            writer.append(wave)
        soundfile.write(sound, wave, RATE, format="WAV")
        size = {"sample_rate": RATE, "num_samples": len(wave)}
        recordings.append({"recording_id": name, **size, "num_channels": 1, "warnings": []})
        audio = {"bytes": sound.getvalue(), "path": None}
        segments.append({"segment_id": name, "audio": audio, **size, "text": None, "language": None})
    found = [row for batch in heard.run([heard.stage.spec.consumes.batch(recordings)]) for row in batch.to_pylist()]
    rows = [row for batch in measured.run([measured.stage.spec.consumes.batch(segments)]) for row in batch.to_pylist()]
    assert (len(found), len(rows)) == (len(clips), len(clips)), (heard.rejects, measured.rejects)
    return rows


@contextmanager
def two_processes(work: Callable[[Sequence[Wave]], Any], clips: Sequence[Wave]) -> Iterator[Callable[[], list[Any]]]:
    """Yields a function that divides the clips among two loaded processes, a few at a time."""
    parts = [clips[at : at + _PER_TASK] for at in range(0, len(clips), _PER_TASK)]
    with ProcessPoolExecutor(WORKERS, get_context("spawn")) as pool:
        list(pool.map(work, [clips[:1]] * WORKERS))
        yield lambda: [row for rows in pool.map(work, parts) for row in rows]


@cache
def _peers() -> tuple[Any, Any]:
    import silero_vad
    from resemblyzer import VoiceEncoder

    return silero_vad.load_silero_vad(), VoiceEncoder("cpu", verbose=False)


def clip_by_clip(clips: Sequence[Wave]) -> None:
    """Silero VAD, Resemblyzer and speechmos through their public functions, one clip after the other."""
    import torch
    from silero_vad import get_speech_timestamps
    from speechmos import dnsmos

    vad, encoder = _peers()
    for wave in clips:
        assert get_speech_timestamps(torch.from_numpy(wave), vad, sampling_rate=RATE)
        encoder.embed_utterance(wave)
        dnsmos.run(wave, RATE)


def dnsmos_clips(count: int) -> Iterator[Row]:
    """DNSMOS of many clips; the peer's function takes the whole list and spreads it over threads itself."""
    from speechmos import dnsmos

    clips, theirs = random_clips(count), []
    dnsmos.run(clips[0], RATE)
    b = seconds(lambda: theirs.extend(dnsmos.run(clips, RATE, return_df=False)))
    reference = np.array([[row[f"{name}_mos"] for name in ("sig", "bak", "ovrl")] for row in theirs])
    for quality in QUALITIES:
        mine: list[Any] = []
        with two_processes(partial(score, quality), clips) as ours:
            a = seconds(lambda: mine.extend(ours()))  # noqa: B023 (called at once)
        apart = float(np.abs(np.array(mine) - reference).max())
        assert apart < MOST_APART, apart
        yield Row(
            f"`{quality}`, {count} clips of 3 to 30 s, {apart:.4f} apart at most", "speechmos.dnsmos.run",
            f"{a:.1f} s", f"{b:.1f} s", f"{b / a:.1f}x faster", ">= 10x",
        )  # fmt: skip


def model_chain(count: int) -> Iterator[Row]:
    """VAD, speaker embedding and DNSMOS."""
    clips = random_clips(count)
    clip_by_clip(clips[:1])
    b = seconds(lambda: clip_by_clip(clips))
    for quality in QUALITIES:
        with two_processes(partial(chain, quality), clips) as ours:
            a = seconds(ours)
        yield Row(
            f"VAD, speaker embedding and `{quality}` of {count} clips",
            "the same models, clip by clip (as Emilia-Pipe)",
            f"{a:.1f} s", f"{b:.1f} s", f"{b / a:.1f}x faster", ">= 5x",
        )  # fmt: skip


def speech_models(count: int = 200, chained: int = 40) -> list[Row]:
    """Both rows, or none where a peer is not installed."""
    absent = [name for name in PEERS if find_spec(name) is None]
    if absent:
        print(f"speech models were not compared: {', '.join(absent)} not installed", file=sys.stderr)
        return []
    return [*dnsmos_clips(count), *model_chain(chained)]


if __name__ == "__main__":
    from tests.bench.measure import print_table

    print_table(speech_models(*map(int, sys.argv[1:])))
