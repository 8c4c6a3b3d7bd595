"""Ways to end badly, for a third party's stages and back ends: all of them real."""

import ctypes
import os
from pathlib import Path

import numpy as np

GREEDY_BYTES = 6 << 30


def segfault():
    """Reads address 0."""
    ctypes.string_at(0)


def leave():
    """Ends the process under the interpreter."""
    os._exit(11)


def want_numpy():
    """Asks numpy for more than a limit allows; without a limit nothing is touched, so it costs nothing."""
    np.empty(GREEDY_BYTES, np.uint8)


def want_arrow():
    """Asks Arrow's memory pool, which does not use malloc."""
    import pyarrow as pa

    pa.allocate_buffer(GREEDY_BYTES)


def want_onnx():
    """Asks onnxruntime's arena: 800 MB in one run of the VAD, which says so by an error of its own."""
    from data_engine.backends.vad_silero import SileroVad

    vad = SileroVad(max_hops=200_000)
    vad.open()
    vad.probabilities([np.zeros(16000 * 1200, np.float32)])


WAYS = {
    "segfault": segfault, "leave": leave, "numpy": want_numpy, "arrow": want_arrow, "onnx": want_onnx,
}  # fmt: skip


def crashing_vad(samples: int, way: str, mended: str):
    """Returns silero, except that a recording of so many samples ends it until the file `mended` exists."""
    from data_engine.backends.vad_silero import SileroVad

    vad = SileroVad()
    return _Crashing(vad, samples, way, Path(mended))


class _Crashing:
    def __init__(self, vad, samples, way, mended):
        self._vad, self._samples, self._way, self._mended = vad, samples, way, mended
        self.sample_rate, self.hop, self.revision = vad.sample_rate, vad.hop, vad.revision
        self.open, self.close = vad.open, vad.close

    def probabilities(self, blocks):
        pieces = [np.array(block) for block in blocks]
        if sum(map(len, pieces)) == self._samples and not self._mended.exists():
            WAYS[self._way]()
        return self._vad.probabilities(pieces)
