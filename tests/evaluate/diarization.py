"""Speech detection and diarization errors: no collar, overlap counted; and whether the speakers are counted right."""

from __future__ import annotations

import json
import tempfile
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from pyannote.core import Annotation, Segment, Timeline
from pyannote.metrics.detection import DetectionErrorRate
from pyannote.metrics.diarization import DiarizationErrorRate

from data_engine.backends.catalog import BackendCache
from data_engine.core.harness import StageRun
from data_engine.core.schema import load_schema
from data_engine.core.stage import Worker
from data_engine.io.audio import decode_bytes
from data_engine.io.decoding.resample import resample
from data_engine.io.scratch import ScratchAudio
from data_engine.stages.catalog import build_stage
from tests.evaluate.table import Figure

RATE = 16000
Region = tuple[float, float]

_BACKENDS = BackendCache()


@dataclass(frozen=True, slots=True)
class Conversation:
    """A recording whose speakers are known: how many there are and, where a reference says it, when each speaks."""

    name: str
    path: Path
    speakers: int
    reference: Annotation | None


@dataclass(frozen=True, slots=True)
class Found:
    """What the engine finds: speech regions in seconds, speaker turns, and how many speakers."""

    speech: tuple[Region, ...]
    turns: Annotation
    speakers: int
    seconds: float


def rttm(path: Path, uri: str | None) -> Annotation:
    """Returns the turns of one recording; of all when `uri` is None."""
    turns = Annotation()
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines()):
        word = line.split()
        if word[:1] == ["SPEAKER"] and uri in (None, word[1]):
            turns[Segment(float(word[3]), float(word[3]) + float(word[4])), number] = word[7]
    return turns


def sample() -> Conversation | None:
    """Returns the telephone call inside the wheel of pyannote.audio; None when it is not installed."""
    package = find_spec("pyannote")
    for folder in (package.submodule_search_locations or []) if package else []:
        path = Path(folder) / "audio" / "sample" / "sample.wav"
        if path.is_file():
            return Conversation("pyannote sample", path, 2, rttm(path.with_suffix(".rttm"), None))
    return None


def conversations(folder: Path) -> Iterator[Conversation]:
    """Yields the files with a reference, and the conversations of which the number of speakers is known."""
    for line in (folder / "manifest.jsonl").read_text(encoding="utf-8").splitlines():
        listed: dict[str, Any] = json.loads(line)
        talk = "conversation" in listed["kinds"] and listed["speakers"] and (listed["duration_s"] or 0) >= 5
        if listed["rttm"] or talk:
            # One file name carries a non-ASCII letter on purpose; its reference does not.
            name = unicodedata.normalize("NFD", Path(listed["path"]).stem).encode("ascii", "ignore").decode()
            uri = name if "pyannote" in listed["path"] else None
            reference = rttm(folder / listed["rttm"], uri) if listed["rttm"] else None
            count = len(reference.labels()) if reference else int(listed["speakers"])
            yield Conversation(name, folder / listed["path"], count, reference)


def found(path: Path, **diarize: Any) -> Found:
    """Runs `segment` and `diarize` over a file."""
    samples, rate = decode_bytes(path.read_bytes())
    waves = [resample(channel, rate, RATE) for channel in samples]
    with tempfile.TemporaryDirectory() as scratch:
        for channel, wave in enumerate(waves):
            with ScratchAudio(Path(scratch)).writer("rec", channel) as writer:
                writer.append(wave)
        row = {"recording_id": "rec", "sample_rate": RATE, "num_samples": len(waves[0]),
               "num_channels": len(waves), "warnings": [], "speaker": None, "speech": None}  # fmt: skip
        batches = [load_schema("recording").pick(*row).batch([row])]
        for name, settings in (("segment", {}), ("diarize", diarize)):
            stage = build_stage(name, settings)
            stage.open(Worker(Path(scratch), _BACKENDS))
            batches = list(StageRun(stage, "evaluate").run(batches))
    kept = batches[0].to_pylist()[0] if batches and batches[0].num_rows else {"speech": [], "turns": []}
    turns = Annotation()
    for number, turn in enumerate(kept["turns"]):
        turns[Segment(*_seconds(turn)), number] = str(turn["speaker"])
    return Found(tuple(map(_seconds, kept["speech"])), turns, len(turns.labels()), len(waves[0]) / RATE)


def _seconds(stretch: Mapping[str, int]) -> Region:
    return stretch["start"] / RATE, (stretch["start"] + stretch["num_samples"]) / RATE


def speech_of(regions: Sequence[Region]) -> Annotation:
    """Returns regions as one speaker."""
    return Timeline([Segment(*region) for region in regions]).support().to_annotation(generator=iter(lambda: "", None))


@dataclass(frozen=True, slots=True)
class Errors:
    """Error rates of one file, and the seconds that they are shares of: of speech, and of all speakers' turns."""

    detected: float
    turned: float
    diarized: float
    seconds: float
    overlapped: float


def errors_of(one: Conversation, heard: Found) -> Errors:
    """Compares with the reference over the whole file."""
    reference, whole = one.reference, Timeline([Segment(0, heard.seconds)])
    assert reference is not None
    detection, diarization = DetectionErrorRate(), DiarizationErrorRate()
    return Errors(
        detected=float(detection(reference, speech_of(heard.speech), uem=whole)),
        turned=float(detection(reference, heard.turns, uem=whole)),
        diarized=float(diarization(reference, heard.turns, uem=whole)),
        seconds=reference.get_timeline().support().duration(),
        overlapped=sum(seconds for _, seconds in reference.chart()),
    )


@cache
def _measured(folder: Path) -> tuple[tuple[Conversation, Found], ...]:
    call = sample()
    return tuple((one, found(one.path)) for one in [*([call] if call else []), *conversations(folder)])


def figures(folder: Path) -> Iterator[Figure]:
    """Yields the errors of each file and of all, and the share of files whose speakers are counted right."""
    measured = _measured(folder)
    errors = {one.name: errors_of(one, heard) for one, heard in measured if one.reference}
    for name, error in errors.items():
        call = name == "pyannote sample"
        yield Figure("speech detection error, silero", name, error.detected, 0.03 if call else None, unit="%")
        yield Figure("speech detection error, turns of pyannet", name, error.turned, 0.03 if call else None, unit="%")
        yield Figure("diarization error, pyannet", name, error.diarized, 0.15 if call else None, unit="%")
    rttms = [error for name, error in errors.items() if name != "pyannote sample"]
    on, weights = f"{len(rttms)} RTTM files", [error.seconds for error in rttms]
    for measure, rates in (("silero", [e.detected for e in rttms]), ("turns of pyannet", [e.turned for e in rttms])):
        yield Figure(f"speech detection error, {measure}", f"{on}, all speech",
                     float(np.average(rates, weights=weights)), 0.08, unit="%")  # fmt: skip
    rates = [error.diarized for error in rttms]
    yield Figure("diarization error, pyannet", f"{on}, mean", float(np.mean(rates)), 0.20, unit="%")
    yield Figure("diarization error, pyannet", f"{on}, median", float(np.median(rates)), unit="%")
    yield Figure("diarization error, pyannet", f"{on}, all speech",
                 float(np.average(rates, weights=[e.overlapped for e in rttms])), unit="%")  # fmt: skip
    right = [one.speakers == heard.speakers for one, heard in measured]
    wrong = ", ".join(f"{one.name} {heard.speakers} of {one.speakers}"
                      for (one, heard), ok in zip(measured, right, strict=True) if not ok)  # fmt: skip
    yield Figure("speakers counted right, pyannet", f"{len(measured)} conversations (not: {wrong})",
                 float(np.mean(right)), 0.8, ">=", "%")  # fmt: skip
