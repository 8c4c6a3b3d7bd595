"""Silero VAD: the sequence model inside the silero-vad wheel, through onnxruntime, without torch.

The sequence model takes many hops in one run and gives the same probabilities as the step-wise one
(github.com/snakers4/silero-vad, pull request 784).
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from data_engine.backends.protocols import Wave
from data_engine.core.errors import MissingExtraError

HOP = 512
CONTEXT = 64
"""Samples before each hop that the model sees again."""

_PURPOSE = "finding speech with silero"
_MODEL = Path("data") / "silero_vad_16k_sequence.onnx"
_STATE_SHAPE = (1, 1, 128)


def silero_folder() -> Path:
    """Returns the folder of the silero_vad package without importing it: the import needs torch.

    Raises:
        MissingExtraError: The wheel is not installed.
    """
    found = importlib.util.find_spec("silero_vad")
    if found is None or not found.submodule_search_locations:
        raise MissingExtraError("silero-vad", "weights", _PURPOSE)
    return Path(found.submodule_search_locations[0])


def hop_frames(blocks: Iterable[Wave], max_hops: int) -> Iterator[npt.NDArray[np.float32]]:
    """Cuts a stream into hops, each with the samples before it.

    Args:
        blocks: float32 [samples] pieces of one stream, of any length.
        max_hops: At most so many hops per array: bounds memory.

    Yields:
        float32 [hops, CONTEXT + HOP]; the last hop of the stream is filled up with zeros.
    """
    pending = np.zeros(CONTEXT, np.float32)
    for block in blocks:
        pending = np.concatenate([pending, np.asarray(block, np.float32)])
        complete = (len(pending) - CONTEXT) // HOP
        yield from _frames(pending, complete, max_hops)
        pending = pending[complete * HOP :]
    if len(pending) > CONTEXT:
        yield from _frames(np.pad(pending, (0, CONTEXT + HOP - len(pending))), 1, max_hops)


def _frames(samples: Wave, hops: int, max_hops: int) -> Iterator[npt.NDArray[np.float32]]:
    for first in range(0, hops, max_hops):
        last = min(hops, first + max_hops)
        piece = samples[first * HOP : last * HOP + CONTEXT]
        yield np.ascontiguousarray(np.lib.stride_tricks.sliding_window_view(piece, CONTEXT + HOP)[::HOP])


class SileroVad:
    """Role `vad`: speech probability of each 32 ms of a 16 kHz stream.

    Args:
        max_hops: Hops per run of the network: bounds memory, does not change the result.
    """

    sample_rate = 16000
    hop = HOP

    def __init__(self, max_hops: int = 1024) -> None:
        self._max_hops = max_hops
        self._session: Any = None

    @property
    def revision(self) -> str:
        """Version of the wheel that holds code and weights.

        Raises:
            MissingExtraError: The wheel is not installed.
        """
        try:
            return f"silero-vad-{metadata.version('silero-vad')}"
        except metadata.PackageNotFoundError as error:
            raise MissingExtraError("silero-vad", "weights", _PURPOSE) from error

    def open(self) -> None:
        """Loads the weights.

        Raises:
            MissingExtraError: onnxruntime or the silero-vad wheel is not installed.
        """
        try:
            import onnxruntime
        except ImportError as error:
            raise MissingExtraError("onnxruntime", "embedded", _PURPOSE) from error
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        model = str(silero_folder() / _MODEL)
        self._session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])

    def probabilities(self, blocks: Iterable[Wave]) -> npt.NDArray[np.float32]:
        """Returns the speech probability of each hop of one stream, float32 [ceil(samples / 512)].

        Args:
            blocks: float32 [samples] pieces, of any length; the network's state is kept over them.
        """
        state = np.zeros(_STATE_SHAPE, np.float32)
        cell = np.zeros(_STATE_SHAPE, np.float32)
        found = [np.zeros(0, np.float32)]
        for frames in hop_frames(blocks, self._max_hops):
            speech, state, cell = self._session.run(None, {"input": frames, "h": state, "c": cell})
            found.append(speech.reshape(-1))
        return np.concatenate(found)

    def close(self) -> None:
        """Frees the weights."""
        self._session = None
