"""Decoded sound of the recordings of the current shard: raw float32 files, read piece by piece.

Reading is by offset, not by memory map, so that memory does not grow with the length of a recording.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

import numpy as np

from data_engine.io.decoding.readers import Samples

_BYTES = 4


class ScratchAudio:
    """Canonical mono sound, one file per recording and channel.

    Args:
        folder: `Worker.scratch`; the files lie in its subfolder `audio` and go with the shard.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder) / "audio"

    def _path(self, recording_id: str, channel: int) -> Path:
        return self.folder / f"{recording_id}.{channel}.f32"

    def writer(self, recording_id: str, channel: int = 0) -> ScratchWriter:
        """Opens a channel for writing; what it held before is replaced."""
        self.folder.mkdir(parents=True, exist_ok=True)
        return ScratchWriter(self._path(recording_id, channel))

    def read(self, recording_id: str, channel: int, start: int, num_samples: int) -> Samples:
        """Returns float32 [samples] from sample `start`; fewer than asked for at the end.

        Raises:
            ValueError: `start` or `num_samples` is negative.
            FileNotFoundError: The channel was not decoded in this shard.
        """
        if start < 0 or num_samples < 0:
            raise ValueError(f"start {start} and num_samples {num_samples} must not be negative")
        path = self._path(recording_id, channel)
        return np.fromfile(path, dtype="<f4", count=num_samples, offset=start * _BYTES)

    def blocks(self, recording_id: str, channel: int, block_samples: int) -> Iterator[Samples]:
        """Yields a channel in blocks of `block_samples`; the last one is shorter."""
        for start in range(0, self.num_samples(recording_id, channel), block_samples):
            yield self.read(recording_id, channel, start, block_samples)

    def num_samples(self, recording_id: str, channel: int = 0) -> int:
        """Returns the length of a channel in samples."""
        return self._path(recording_id, channel).stat().st_size // _BYTES

    def channels(self, recording_id: str) -> list[int]:
        """Returns the channels that are there, in order; none for an unknown recording."""
        return sorted(int(path.suffixes[-2][1:]) for path in self.folder.glob(f"{recording_id}.*.f32"))

    def rename(self, recording_id: str, channel: int, to_recording_id: str, to_channel: int) -> None:
        """Gives a channel another name; what had that name is replaced."""
        self._path(recording_id, channel).replace(self._path(to_recording_id, to_channel))

    def discard(self, recording_id: str) -> None:
        """Removes all channels of a recording; nothing happens when there are none."""
        for channel in self.channels(recording_id):
            self._path(recording_id, channel).unlink(missing_ok=True)


class ScratchWriter:
    """Appends blocks to one channel; a context manager."""

    def __init__(self, path: Path) -> None:
        self.num_samples = 0
        self._file = path.open("wb")

    def append(self, samples: Samples) -> None:
        """Appends float32 [samples]."""
        # not tofile: its OSError for a full disk carries no errno, and a full disk must not become a reject
        self._file.write(np.ascontiguousarray(samples, dtype="<f4").data)
        self.num_samples += samples.size

    def close(self) -> None:
        """Closes the file."""
        self._file.close()

    def __enter__(self) -> ScratchWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
