"""Pitch of cached parts, measured once: `python -m data_engine.training.speech.pitch_tracks CACHE [--every N] PART`."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from data_engine.models.pitch import fundamental_frequency
from data_engine.training.speech.spoken import SAMPLE_RATE
from data_engine.training.speech.waves import PITCH_FILE, Part, load, pitch_frames


def measure(part: Part, every: int, target: Path) -> None:
    """Writes log2 of F0 in Hz every 10 ms of every N-th utterance, NaN elsewhere and where unvoiced.

    Args:
        part: Its waves.
        every: N; the others stay NaN.
        target: File to write.
    """
    tracks = np.full(sum(pitch_frames(int(length)) for length in part.length), np.nan, np.float32)
    for index in range(0, len(part), every):
        hertz = fundamental_frequency(part.utterance(index).wave, SAMPLE_RATE)
        first = int(part.pitch_start[index])
        count = min(len(hertz), pitch_frames(int(part.length[index])))
        tracks[first : first + count] = np.log2(np.where(hertz > 0, hertz, np.nan))[:count]
    np.save(target, tracks)


def main() -> None:
    """Runs the command."""
    parser = argparse.ArgumentParser(description="Measures the pitch of parts of the training corpus.")
    parser.add_argument("cache", type=Path)
    parser.add_argument("--every", type=int, default=1)
    parser.add_argument("parts", nargs="+")
    arguments = parser.parse_args()
    for part in load(arguments.cache, arguments.parts):
        measure(part, arguments.every, arguments.cache / part.name / PITCH_FILE)
        print(part.name, flush=True)


if __name__ == "__main__":
    main()
