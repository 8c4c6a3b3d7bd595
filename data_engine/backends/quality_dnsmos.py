"""DNSMOS P.835 (Reddy et al. 2022, arXiv 2110.01763): speech, background and overall quality without a reference.

The network is the file `sig_bak_ovr.onnx` of the wheel `speechmos`, found without importing that package (which
would need librosa). Windows of all clips of a batch go through it together.
"""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from data_engine.backends.protocols import Wave
from data_engine.core.errors import MissingExtraError

Floats = npt.NDArray[np.float32]

SAMPLE_RATE = 16000
WINDOW_SECONDS = 9.01
WINDOW = 144160

_POLYNOMIALS = np.array(
    [
        [0.0052439, 1.22083953, -0.08397278],
        [-0.39604546, 1.60915514, -0.13166888],
        [0.04602535, 1.11546468, -0.06766283],
    ]
)
"""Constant, linear and quadratic term that map the network's output to SIG, BAK and OVR (published script)."""


def wheel_model() -> Path:
    """Returns the path of `sig_bak_ovr.onnx` in the installed wheel.

    Raises:
        MissingExtraError: speechmos is not installed.
    """
    spec = importlib.util.find_spec("speechmos")
    if spec is None or not spec.submodule_search_locations:
        raise MissingExtraError("speechmos", "embedded", "DNSMOS quality scores")
    return Path(spec.submodule_search_locations[0]) / "dnsmos_models" / "sig_bak_ovr.onnx"


def window_starts(num_samples: int, max_windows: int | None, every_window: bool) -> npt.NDArray[np.int64]:
    """Returns the first sample of each window of 9.01 s, one second apart.

    A clip that is too short is doubled until one window fits; starts may then lie in a repetition.

    Args:
        num_samples: Samples of the clip, at least 1.
        max_windows: At most so many, evenly spread; None: all.
        every_window: False: the published script, which computes the end of a window in floating point and
            leaves out those that come out one sample short (the 8th to the 24th). True: all of them.
    """
    length = num_samples
    while length < WINDOW:
        length *= 2
    index = np.arange(int(np.floor(length / SAMPLE_RATE) - WINDOW_SECONDS) + 1)
    if not every_window:
        ends = ((index + WINDOW_SECONDS) * SAMPLE_RATE).astype(np.int64)
        index = index[ends - index * SAMPLE_RATE >= WINDOW]
    if max_windows is not None and len(index) > max_windows:
        index = index[np.linspace(0, len(index) - 1, max_windows).round().astype(np.int64)]
    return index * SAMPLE_RATE


def to_mos(raw: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Returns SIG, BAK, OVR on the MOS scale for the network's output, both [windows, 3]."""
    constant, linear, quadratic = _POLYNOMIALS.T
    values = raw.astype(np.float64)
    return constant + values * (linear + values * quadratic)


class Dnsmos:
    """Role `quality`: signal, background and overall MOS.

    Args:
        model: ONNX file; default: the one in the wheel `speechmos`.
        max_windows: At most so many windows per clip, evenly spread: a long clip costs no more than that.
            None: all, which equals the published script.
        every_window: Score windows that the published script leaves out by rounding, see `window_starts`.
        chunk: Windows per run of the network: bounds memory.
    """

    sample_rate = SAMPLE_RATE

    def __init__(
        self, model: str | None = None, max_windows: int | None = None, every_window: bool = False, chunk: int = 8
    ) -> None:
        self._path = Path(model) if model else None
        self._max_windows, self._every_window, self._chunk = max_windows, every_window, chunk
        self._session: Any = None

    @property
    def revision(self) -> str:
        """SHA-256 of the weights, shortened."""
        content = (self._path or wheel_model()).read_bytes()
        return f"dnsmos-p835-{hashlib.sha256(content).hexdigest()[:16]}"

    def open(self) -> None:
        """Loads the weights.

        Raises:
            MissingExtraError: onnxruntime or speechmos is not installed.
        """
        try:
            import onnxruntime
        except ImportError as error:
            raise MissingExtraError("onnxruntime", "embedded", "DNSMOS quality scores") from error
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(
            str(self._path or wheel_model()), options, providers=["CPUExecutionProvider"]
        )

    def score(self, waves: Sequence[Wave]) -> Floats:
        """Returns SIG, BAK and OVR, float32 [waves, 3]: means over the windows of each wave.

        Raises:
            ValueError: A wave is empty.
        """
        if any(len(wave) == 0 for wave in waves):
            raise ValueError("DNSMOS cannot score a wave without samples")
        plan = [window_starts(len(wave), self._max_windows, self._every_window) for wave in waves]
        owner = np.repeat(np.arange(len(waves)), [len(starts) for starts in plan])
        starts = np.concatenate([np.zeros(0, np.int64), *plan])
        scores = np.zeros((len(waves), 3))
        for first in range(0, len(owner), self._chunk):
            chosen = slice(first, first + self._chunk)
            windows = [cut_window(waves[o], int(s)) for o, s in zip(owner[chosen], starts[chosen], strict=True)]
            raw = self._session.run(None, {"input_1": np.stack(windows)})[0]
            np.add.at(scores, owner[chosen], to_mos(raw))
        counts = np.bincount(owner, minlength=len(waves))[:, None]
        return (scores / np.maximum(counts, 1)).astype(np.float32)

    def close(self) -> None:
        """Frees the weights."""
        self._session = None


def cut_window(wave: Wave, start: int) -> Floats:
    """Returns one window [144160] of the endlessly repeated wave."""
    if start + WINDOW <= len(wave):
        return np.asarray(wave[start : start + WINDOW], np.float32)
    return np.asarray(wave, np.float32)[np.arange(start, start + WINDOW) % len(wave)]
