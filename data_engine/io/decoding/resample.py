"""Streaming sample-rate conversion with an exact length: round(samples * to / from)."""

from __future__ import annotations

from typing import Any

import numpy as np

from data_engine.io.decoding.readers import Samples


def resampled_length(num_samples: int, from_rate: int, to_rate: int) -> int:
    """Returns round(num_samples * to_rate / from_rate), halves up, in integers."""
    return (2 * num_samples * to_rate + from_rate) // (2 * from_rate)


class Resampler:
    """Converts a stream block by block; the result does not depend on how it was cut.

    Args:
        from_rate: Hz of the input.
        to_rate: Hz of the output.
        channels: Number of channels.
    """

    def __init__(self, from_rate: int, to_rate: int, channels: int) -> None:
        self.from_rate, self.to_rate, self.channels = from_rate, to_rate, channels
        self.samples_in = self.samples_out = 0
        self._stream: Any = None
        if from_rate != to_rate:
            import soxr

            self._stream = soxr.ResampleStream(from_rate, to_rate, channels, dtype="float32")

    def push(self, block: Samples) -> Samples:
        """Takes float32 [channels, samples] and returns what is ready, float32 [channels, samples]."""
        self.samples_in += block.shape[1]
        ready = block if self._stream is None else self._convert(block, last=False)
        self.samples_out += ready.shape[1]
        return ready

    def finish(self) -> Samples:
        """Returns the rest; all returned samples together have the exact length."""
        if self._stream is None:
            return np.zeros((self.channels, 0), np.float32)
        missing = resampled_length(self.samples_in, self.from_rate, self.to_rate) - self.samples_out
        tail = self._convert(np.zeros((self.channels, 0), np.float32), last=True)[:, :missing]
        self.samples_out += missing
        return np.asarray(np.pad(tail, ((0, 0), (0, missing - tail.shape[1]))), np.float32)

    def _convert(self, block: Samples, last: bool) -> Samples:
        frames = np.ascontiguousarray(block.T)
        converted: Samples = self._stream.resample_chunk(frames, last=last)
        return np.asarray(converted.T, np.float32, order="C")


def resample(samples: Samples, from_rate: int, to_rate: int) -> Samples:
    """Converts a whole wave, float32 [samples], to another rate in Hz."""
    stream = Resampler(from_rate, to_rate, 1)
    joined: Samples = np.concatenate([stream.push(samples[None, :]), stream.finish()], axis=1)
    return np.ravel(joined)
