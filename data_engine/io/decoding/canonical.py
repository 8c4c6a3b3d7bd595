"""One recording in its canonical form: mono channels at one rate, in scratch, at full scale at most."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType

import numpy as np

from data_engine.core.errors import RecordError
from data_engine.io.audio import AudioInfo, Samples, decode_blocks
from data_engine.io.decoding.levels import FloatArray, LevelMeter, Levels
from data_engine.io.decoding.mixing import gain_for
from data_engine.io.decoding.resample import Resampler
from data_engine.io.scratch import ScratchAudio

_SECONDS_PER_BLOCK = 10.0
_SAMPLES_PER_BLOCK = 1 << 20


class CanonicalAudio:
    """Decodes a file into scratch, then mixes it. A context manager: what is not mixed is removed.

    Args:
        scratch: Scratch of the shard.
        recording_id: Recording.
        sample_rate: Rate of the result in Hz.
    """

    def __init__(self, scratch: ScratchAudio, recording_id: str, sample_rate: int) -> None:
        self._scratch, self._id, self._rate = scratch, recording_id, sample_rate
        self._raw = f"{recording_id}-source"

    def decode(self, path: Path, info: AudioInfo, max_seconds: float, damage: list[str]) -> Levels:
        """Decodes, measures, repairs and resamples each source channel, in one pass.

        Args:
            path: The file.
            info: What `probe` says of it.
            max_seconds: Longest recording that is let through.
            damage: Receives a sentence for each part that could not be decoded.

        Raises:
            RecordError: TOO_SHORT for no sample at all, TOO_LONG as soon as the limit is passed, and what
                `decode_blocks` raises.
        """
        meter = LevelMeter(info.channels, info.sample_rate)
        resampler = Resampler(info.sample_rate, self._rate, info.channels)
        writers = [self._scratch.writer(self._raw, channel) for channel in range(info.channels)]
        try:
            for block in decode_blocks(path, _SECONDS_PER_BLOCK, info, damage):
                for writer, samples in zip(writers, resampler.push(meter.push(block)), strict=True):
                    writer.append(samples)
                if meter.num_samples > max_seconds * info.sample_rate:
                    raise RecordError("TOO_LONG", f"longer than {max_seconds / 3600:g} hours (decode.max_hours)")
            for writer, samples in zip(writers, resampler.finish(), strict=True):
                writer.append(samples)
        finally:
            for writer in writers:
                writer.close()
        if not meter.num_samples:
            promised = info.declared_num_samples or 0
            raise RecordError("TOO_SHORT", f"0 samples could be decoded, the header promises {promised}")
        return meter.levels()

    def mix(self, weights: FloatArray, offset: FloatArray) -> float:
        """Writes the output channels.

        Args:
            weights: [outputs, source channels].
            offset: What is still to be subtracted from each source channel, [source channels].

        Returns:
            The gain that was applied, equal for all outputs.
        """
        peaks = [self._peak(row, offset) for row in weights]
        gain = gain_for(max(peaks))
        for channel, row in enumerate(weights):
            if gain == 1.0 and not offset.any() and np.count_nonzero(row) == 1 and row.max() == 1.0:
                self._scratch.rename(self._raw, int(row.argmax()), self._id, channel)
                continue
            with self._scratch.writer(self._id, channel) as writer:
                for start in range(0, self._scratch.num_samples(self._raw, self._first(row)), _SAMPLES_PER_BLOCK):
                    writer.append(self._mixed(row * gain, offset, start))
        return gain

    def _peak(self, row: FloatArray, offset: FloatArray) -> float:
        length = self._scratch.num_samples(self._raw, self._first(row))
        starts = range(0, length, _SAMPLES_PER_BLOCK)
        return max((float(np.abs(self._mixed(row, offset, start)).max()) for start in starts), default=0.0)

    def _mixed(self, row: FloatArray, offset: FloatArray, start: int) -> Samples:
        mixed: Samples = np.full(1, -(row @ offset), np.float32)
        for channel in np.flatnonzero(row):
            block = self._scratch.read(self._raw, int(channel), start, _SAMPLES_PER_BLOCK)
            mixed = mixed + block * np.float32(row[channel])
        return mixed

    @staticmethod
    def _first(row: FloatArray) -> int:
        return int(row.any() and row.nonzero()[0][0])

    def __enter__(self) -> CanonicalAudio:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._scratch.discard(self._raw)
