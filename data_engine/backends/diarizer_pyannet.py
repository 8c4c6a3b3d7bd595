"""Who speaks when, without torch: pyannote's segmentation of short windows, Resemblyzer's voices, clustering.

The procedure of pyannote.audio 2.1 (Bredin 2023, Interspeech, "pyannote.audio 2.1 speaker diarization pipeline"): a
network tells up to three speakers of each window of 5 s apart, also where they speak at once; the voice of each is
embedded from the frames where it is alone; clustering tells which speakers of different windows are one; each
instant goes to as many speakers as the windows around it hear on average, the likeliest first.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from data_engine.backends.protocols import Wave
from data_engine.backends.protocols_listening import Diarization, SpeakerTurn
from data_engine.backends.speaker_resemblyzer import DIMENSIONS, ResemblyzerEmbedder
from data_engine.core.config import validate
from data_engine.core.errors import MissingExtraError
from data_engine.models.speaker_clustering import ClusterSettings, speaker_centroids
from data_engine.models.speaker_segmentation import FIRST, FRAMES, SAMPLE_RATE, STRIDE, WINDOW

Floats = npt.NDArray[np.float32]
Flags = npt.NDArray[np.bool_]

MODEL = Path(__file__).parents[1] / "assets" / "speaker_segmentation" / "model.onnx"

_FRAME_SECONDS = STRIDE / SAMPLE_RATE
_SHORTEST, _ALONE, _FOUNDING = 0.25, 0.6, 1.2
"""Seconds: of a local speaker that is embedded at all; alone, to be embedded from those frames only; alone, to found
a speaker."""


_EMBEDDED_AT_ONCE = 32
_ALL_WINDOWS = 64
"""Of a wave with more windows (100 s), the voices of every second one are embedded: their sound overlaps."""


@dataclass(frozen=True, slots=True, eq=False)
class LocalSpeakers:
    """The embedded speakers of the windows of one wave.

    Attributes:
        window: Of each, int64 [speakers].
        number: Within its window, int64 [speakers].
        seconds: That it speaks alone, float32 [speakers].
        voices: Unit-length, float32 [speakers, 256].
    """

    window: npt.NDArray[np.int64]
    number: npt.NDArray[np.int64]
    seconds: Floats
    voices: Floats


def overlapping_windows(wave: Wave, step: int) -> Iterator[Wave]:
    """Yields windows of 5 s, `step` frames apart; the last is filled up with zeros, so that every sample is in one."""
    stride = step * STRIDE
    covered = FIRST - STRIDE // 2 + STRIDE * FRAMES  # the frames of a window end a little before it
    count = max(0, -(-(len(wave) - covered) // stride)) + 1
    for start in range(0, count * stride, stride):
        piece = wave[start : start + WINDOW]
        yield np.pad(piece, (0, WINDOW - len(piece)))


def frame_edges(frames: int, num_samples: int) -> npt.NDArray[np.int64]:
    """Returns where frames begin and the last one ends, in samples, int64 [frames + 1]."""
    edges = FIRST - STRIDE // 2 + STRIDE * np.arange(frames + 1, dtype=np.int64)
    edges[0] = 0
    return edges.clip(0, num_samples)


def frames_of(wave: Wave, window: int, step: int, chosen: Flags) -> Wave:
    """Returns the samples of the chosen frames of a window, one after the other.

    Args:
        wave: Whole wave, float32 [samples].
        window: Number of the window.
        step: Frames between windows.
        chosen: bool [293].
    """
    first = window * step * STRIDE + FIRST - STRIDE // 2
    samples = first + STRIDE * np.flatnonzero(chosen)[:, None] + np.arange(STRIDE)
    return np.asarray(wave[samples[samples < len(wave)]], np.float32)


def overlap_added(values: Floats, step: int) -> Floats:
    """Returns the mean over the windows that hold each frame, float32 [frames, columns].

    Args:
        values: float32 [windows, 293, columns].
        step: Frames between windows.
    """
    total = np.zeros(((len(values) - 1) * step + FRAMES, values.shape[2]), np.float32)
    windows = np.zeros((len(total), 1), np.float32)
    for number, one in enumerate(values):
        total[number * step : number * step + FRAMES] += one
        windows[number * step : number * step + FRAMES] += 1
    return np.asarray(total / np.maximum(windows, 1), np.float32)


def embedded_windows(count: int) -> Flags:
    """Returns of which windows the voices are embedded, bool [count]: together they hear the whole wave."""
    numbers = np.arange(count)
    return np.asarray((count <= _ALL_WINDOWS) | (numbers % 2 == 0) | (numbers == count - 1))


def likeliest(scores: Floats, counts: Floats) -> Flags:
    """Returns who speaks in each frame, bool [frames, speakers]: as many as `counts` says, those of highest score.

    Args:
        scores: Of each speaker, float32 [frames, speakers]; one of zero never speaks.
        counts: How many speak at once, float32 [frames, 1]; rounded.
    """
    ranks = np.argsort(np.argsort(-scores, axis=1, kind="stable"), axis=1)
    return np.asarray((ranks < np.rint(counts)) & (scores > 0))


class PyanNetDiarizer:
    """Role `diarization`: overlap-aware, on the weights this package carries.

    Args:
        threshold: Activity from which a local speaker speaks, 0..1.
        step: Frames of 16.9 ms between windows: fewer hear each instant more often, and cost more.
        clustering: `models.speaker_clustering.ClusterSettings` by name.
        model: ONNX file of the segmentation; default: the one this package carries.

    Raises:
        ConfigError: `clustering` is not one.
    """

    sample_rate = SAMPLE_RATE

    def __init__(
        self, threshold: float = 0.4, step: int = 88, clustering: dict[str, Any] | None = None,
        model: str | None = None,
    ) -> None:  # fmt: skip
        self._threshold, self._step = threshold, step
        self._clustering = validate(ClusterSettings, clustering or {}, "clustering of pyannet")
        self._path = Path(model) if model else MODEL
        self._speaker = ResemblyzerEmbedder()
        self._session: Any = None

    @property
    def revision(self) -> str:
        """SHA-256 of both networks' weights, shortened."""
        own = hashlib.sha256(self._path.read_bytes()).hexdigest()[:16]
        return f"pyannet-onnx-{own}+{self._speaker.revision}"

    def open(self) -> None:
        """Loads the weights.

        Raises:
            MissingExtraError: onnxruntime is not installed.
        """
        try:
            import onnxruntime
        except ImportError as error:
            raise MissingExtraError("onnxruntime", "embedded", "speaker diarization with pyannet") from error
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(str(self._path), options, providers=["CPUExecutionProvider"])
        self._speaker.open()

    def diarize(self, waves: Sequence[Wave]) -> list[Diarization]:
        """Returns the turns of each wave; a wave in which nobody speaks has none."""
        return [self._diarized(np.asarray(wave, np.float32)) for wave in waves]

    def _diarized(self, wave: Wave) -> Diarization:
        activity = self.activity(wave)
        embedded = embedded_windows(len(activity))
        heard = self._local_speakers(wave, np.where(embedded[:, None, None], activity, 0.0))
        if not len(heard.window):
            return Diarization((), np.zeros((0, DIMENSIONS), np.float32))
        founding = heard.seconds >= min(_FOUNDING, float(heard.seconds.max()))
        voices = speaker_centroids(heard.voices[founding], heard.seconds[founding], self._clustering)
        found = _by_speaker(activity, heard, voices)
        _follow_neighbours(found, activity, np.flatnonzero(~embedded), self._step)
        scores = overlap_added(found, self._step)
        counts = overlap_added((activity > self._threshold).sum(axis=2, keepdims=True).astype(np.float32), self._step)
        return _numbered(likeliest(scores, counts), voices, len(wave))

    def activity(self, wave: Wave) -> Floats:
        """Returns the activity of the local speakers of each window, float32 [windows, 293, 3]."""
        # One window at a time: more at once are slower on one core, and would tie the result to a batch size.
        windows = overlapping_windows(wave, self._step)
        return np.concatenate([self._session.run(None, {"waves": window[None]})[0] for window in windows])

    def _local_speakers(self, wave: Wave, activity: Floats) -> LocalSpeakers:
        speaks = activity > self._threshold
        alone = speaks & (speaks.sum(axis=2, keepdims=True) == 1)
        seconds = alone.sum(axis=1) * _FRAME_SECONDS
        window, number = np.nonzero(speaks.sum(axis=1) * _FRAME_SECONDS >= _SHORTEST)
        clean = (seconds >= _ALONE)[:, None, :]
        chosen = np.where(clean, alone, speaks)
        places = zip(window.tolist(), number.tolist(), strict=True)
        waves = (frames_of(wave, w, self._step, chosen[w, :, k]) for w, k in places)
        parts = iter(lambda: list(islice(waves, _EMBEDDED_AT_ONCE)), [])
        embedded = np.concatenate([np.zeros((0, DIMENSIONS), np.float32), *map(self._speaker.embed, parts)])
        return LocalSpeakers(window, number, seconds[window, number].astype(np.float32), embedded)

    def close(self) -> None:
        """Frees the weights."""
        self._session = None
        self._speaker.close()


def _by_speaker(activity: Floats, heard: LocalSpeakers, voices: Floats) -> Floats:
    """Returns the activity of each speaker of the wave, float32 [windows, 293, speakers].

    Two local speakers of one window are never the same: the assignment with the greatest similarity is taken.
    """
    from scipy.optimize import linear_sum_assignment

    similarity = heard.voices @ voices.T
    found = np.zeros((*activity.shape[:2], len(voices)), np.float32)
    for window in np.unique(heard.window):
        here = np.flatnonzero(heard.window == window)
        for local, speaker in zip(*linear_sum_assignment(-similarity[here]), strict=True):
            found[window, :, speaker] = activity[window, :, heard.number[here[local]]]
    return found


def _follow_neighbours(found: Floats, activity: Floats, windows: Iterable[int], step: int) -> None:
    """Assigns the local speakers of windows between two others: to those who speak there at the same time.

    Args:
        found: Activity of each speaker of the wave, float32 [windows, 293, speakers]; filled in.
        activity: Of the local speakers, float32 [windows, 293, 3].
        windows: Numbers of the windows, no two of them neighbours.
        step: Frames between windows.
    """
    from scipy.optimize import linear_sum_assignment

    for window in windows:
        known = overlap_added(found[[window - 1, window + 1]], 2 * step)[step : step + FRAMES]
        together = np.minimum(activity[window][:, :, None], known[:, None, :]).sum(axis=0)
        for local, speaker in zip(*linear_sum_assignment(-together), strict=True):
            if together[local, speaker] > 0:
                found[window, :, speaker] = activity[window, :, local]


def _numbered(speaks: Flags, voices: Floats, num_samples: int) -> Diarization:
    """Returns the turns of the frames; speakers who never come up get no number."""
    edges = frame_edges(len(speaks), num_samples)
    present = np.flatnonzero(speaks.any(axis=0))
    turns: list[SpeakerTurn] = []
    for number, speaker in enumerate(present):
        steps = np.flatnonzero(np.diff(np.concatenate([[False], speaks[:, speaker], [False]]).astype(np.int8)))
        bounds = edges[steps].reshape(-1, 2)
        turns += [SpeakerTurn(first, last - first, number) for first, last in bounds.tolist() if last > first]
    return Diarization(tuple(sorted(turns)), voices[present])
