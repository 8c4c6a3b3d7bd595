"""DNSMOS P.835 (Reddy et al. 2022, arXiv 2110.01763): speech, background and overall quality without a reference.

Scores equal those of the published script, which moves a window of 9.01 s over the clip by 1 s. Here windows
share their convolutions: the network is cut in two (`data_engine.models.dnsmos_split`), its front runs once over
each second of the clip, and the ends of each window, where the network sees zeros instead of the neighbouring
second, are computed again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from data_engine.backends.protocols import Wave
from data_engine.core.errors import MissingExtraError

Floats = npt.NDArray[np.float32]
Integers = npt.NDArray[np.int64]

SAMPLE_RATE = 16000
WINDOW = 144160
MODEL = Path(__file__).parent.parent / "assets" / "dnsmos"

_WINDOW_SECONDS = 9.01
_FRAME = 160
_BLOCKS = 9
_ROW_FRAMES, _EDGE_ROWS = 4, 2
"""Four 3x3 convolutions and one behind a pooling reach 6 frames: so far zeros beyond the end of a window are heard."""
_BLOCK_ROWS, _ROW, _ENDS = 25, 640, 24
"""Rows of a block of one second, samples of a row, rows of a window that its ends may reach."""
_TOGETHER = 3
"""Seconds: fewer hear more of their neighbours twice, more need more memory."""
_BACK_CHUNK = 32

_POLYNOMIALS = np.array(
    [
        [0.0052439, 1.22083953, -0.08397278],
        [-0.39604546, 1.60915514, -0.13166888],
        [0.04602535, 1.11546468, -0.06766283],
    ]
)
"""Constant, linear and quadratic term that map the network's output to SIG, BAK and OVR (published script)."""


def window_starts(num_samples: int, max_windows: int | None = None, every_window: bool = False) -> Integers:
    """Returns the first second of each window of 9.01 s.

    A clip that is too short is doubled until one window fits; starts may then lie in a repetition.

    Args:
        num_samples: Samples of the clip, at least 1.
        max_windows: At most so many, evenly spread; None: all.
        every_window: False: the published script, which computes the end of a window in floating point and
            leaves out those that come out one sample short (the 8th to the 24th, the 120th to the 123rd).
            True: all of them.
    """
    length = num_samples
    while length < WINDOW:
        length *= 2
    starts = np.arange(int(np.floor(length / SAMPLE_RATE) - _WINDOW_SECONDS) + 1)
    if not every_window:
        ends = ((starts + _WINDOW_SECONDS) * SAMPLE_RATE).astype(np.int64)
        starts = starts[ends - starts * SAMPLE_RATE >= WINDOW]
    if max_windows is not None and len(starts) > max_windows:
        starts = starts[np.linspace(0, len(starts) - 1, max_windows).round().astype(np.int64)]
    return starts


def telling_rows(period: int) -> int:
    """Returns how many of the 225 rows of a window tell its score, where the sound repeats itself.

    The back ends in a maximum over time: of the repetitions in the middle of a window one is as good as all. It pools
    rows in pairs, so an odd number of rows repeats itself after two rounds; ends reach no further than 12 rows.

    Args:
        period: Rows after which the sound repeats itself; more than a window has: it does not.
    """
    step = period * (1 + period % 2)
    return _BLOCKS * _BLOCK_ROWS - max(0, (_BLOCKS * _BLOCK_ROWS - _ENDS) // step - 1) * step


def to_mos(raw: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Returns SIG, BAK, OVR on the MOS scale for the network's output, both [windows, 3]."""
    constant, linear, quadratic = _POLYNOMIALS.T
    values: npt.NDArray[np.float64] = raw.astype(np.float64)
    mapped: npt.NDArray[np.float64] = constant + values * (linear + values * quadratic)
    return mapped


class Dnsmos:
    """Role `quality`: signal, background and overall MOS.

    A clip costs about as much as its length. Short clips are repeated up to 9 s, and cost that much unless they last
    whole rows of 40 ms, as the segments of `cut` do: then every repetition gives the same rows.

    Args:
        model: Folder with front.onnx and back.onnx; default: those this package carries.
        max_windows: At most so many windows per clip, evenly spread, so that a very long clip costs no more
            than that many times 9 s. None: as many as the published script.
        every_window: Score also the windows that the published script leaves out by rounding, see
            `window_starts`.
    """

    sample_rate = SAMPLE_RATE

    def __init__(self, model: str | None = None, max_windows: int | None = None, every_window: bool = False) -> None:
        self._folder = Path(model) if model else MODEL
        self._max_windows, self._every_window = max_windows, every_window
        self._frames_at_once, self._context_frames = 128, _EDGE_ROWS * _ROW_FRAMES
        self._front: Any = None
        self._back: Any = None

    @property
    def revision(self) -> str:
        """SHA-256 of the weights, shortened."""
        content = b"".join((self._folder / name).read_bytes() for name in ("front.onnx", "back.onnx"))
        return f"dnsmos-p835-{hashlib.sha256(content).hexdigest()[:16]}"

    def open(self) -> None:
        """Loads the weights.

        Raises:
            MissingExtraError: onnxruntime is not installed.
        """
        try:
            import onnxruntime
        except ImportError as error:
            raise MissingExtraError("onnxruntime", "embedded", "DNSMOS quality scores") from error
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1

        def network(name: str) -> Callable[[Floats], Floats]:
            path, providers = str(self._folder / name), ["CPUExecutionProvider"]
            session: Any = onnxruntime.InferenceSession(path, options, providers=providers)
            return lambda array: session.run(None, {session.get_inputs()[0].name: array})[0]

        whole, self._back = network("front.onnx"), network("back.onnx")

        def front(waves: Floats, before: bool, after: bool) -> Floats:
            return whole(waves)[:, :, before * _EDGE_ROWS :][:, :, : -_EDGE_ROWS if after else None]

        self._front = front

    def score(self, waves: Sequence[Wave]) -> Floats:
        """Returns SIG, BAK and OVR, float32 [waves, 3]: means over the windows of each wave.

        The result for a wave does not depend on the others.

        Raises:
            ValueError: A wave is empty.
        """
        if any(len(wave) == 0 for wave in waves):
            raise ValueError("DNSMOS cannot score a wave without samples")
        scores = [self._score_clip(np.asarray(wave, np.float32)) for wave in waves]
        return np.array(scores, np.float32).reshape(-1, 3)

    def _score_clip(self, wave: Wave) -> npt.NDArray[np.float64]:
        starts = window_starts(len(wave), self._max_windows, self._every_window)
        if len(wave) < WINDOW and len(wave) % _ROW == 0:
            rows, first = self._joined_rows(wave, np.zeros(1, np.int64), len(wave) // _ROW), starts * _BLOCK_ROWS
        else:
            seconds = np.unique(starts[:, None] + np.arange(_BLOCKS))
            rows, first = self._rows_of(wave, seconds), np.searchsorted(seconds, starts) * _BLOCK_ROWS
        _, kept, times = np.unique(first % len(rows), return_index=True, return_counts=True)  # repetitions are equal
        starts, first = starts[kept], first[kept]
        parts = [
            self._mos(wave, starts[at : at + _BACK_CHUNK], rows, first[at : at + _BACK_CHUNK])
            for at in range(0, len(starts), _BACK_CHUNK)
        ]
        mean: npt.NDArray[np.float64] = np.average(np.concatenate(parts), axis=0, weights=times)
        return mean

    def _rows_of(self, wave: Wave, seconds: Integers) -> Floats:
        """Returns the rows of whole seconds, [25 seconds, 32, 40]; of consecutive ones, some are computed together."""
        together = _TOGETHER if seconds[-1] - seconds[0] + 1 == len(seconds) else 1
        whole = len(seconds) // together * together
        pieces = [(seconds[:whole:together], together), (seconds[whole : whole + 1], len(seconds) - whole)]
        return np.concatenate([
            self._joined_rows(wave, starts * SAMPLE_RATE, count * _BLOCK_ROWS) for starts, count in pieces if count
        ])  # fmt: skip

    def _joined_rows(self, wave: Wave, starts: Integers, num_rows: int) -> Floats:
        """Returns the rows [pieces * num_rows, 32, 40] of pieces, computed with what is heard around each."""
        heard = self._rows(wave, starts, num_rows)
        return heard.transpose(0, 2, 1, 3).reshape(-1, heard.shape[1], heard.shape[3])

    def _rows(self, wave: Wave, starts: Integers, num_rows: int, before: bool = True, after: bool = True) -> Floats:
        """Returns the front's rows for pieces of the endlessly repeated wave, [pieces, 32, num_rows, 40].

        Args:
            wave: float32 [samples].
            starts: First sample of each piece.
            num_rows: Of each piece.
            before: Heard with the sound before it, else with zeros.
            after: Likewise.
        """
        frames = num_rows * _ROW_FRAMES + self._context_frames * (before + after)
        within = np.arange((frames + 1) * _FRAME) - before * self._context_frames * _FRAME
        most = max(1, self._frames_at_once // frames)
        parts = [
            self._front(wave[(starts[at : at + most, None] + within) % len(wave)], before, after)
            for at in range(0, len(starts), most)
        ]
        return np.concatenate(parts)

    def _mos(self, wave: Wave, starts: Integers, rows: Floats, first: Integers) -> npt.NDArray[np.float64]:
        """Returns the scores [windows, 3] of windows: 225 rows each from their first, with both ends computed again."""
        around = (first[:, None] + np.arange(telling_rows(len(rows)))) % len(rows)
        heard = np.ascontiguousarray(rows[around].transpose(0, 2, 1, 3))
        left, right = starts * SAMPLE_RATE, starts * SAMPLE_RATE + WINDOW - _FRAME - _EDGE_ROWS * _ROW
        heard[:, :, :_EDGE_ROWS] = self._rows(wave, left, _EDGE_ROWS, before=False)
        heard[:, :, -_EDGE_ROWS:] = self._rows(wave, right, _EDGE_ROWS, after=False)
        return to_mos(self._back(heard))

    def close(self) -> None:
        """Frees the weights."""
        self._front = self._back = None
