"""What NeuFA hears and reads: 40 mel bands every 10 ms, normalised per clip, and phones with optional pauses."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from data_engine.models.features import Floats, MelSettings, log_mel
from data_engine.models.monotone import Ints, best_path, spans

MEL = MelSettings(n_fft=512, win_length=400, n_mels=40)
HOP = MEL.hop
"""Samples of a frame; frame t is centred on sample 160 t."""

_RANGE = np.float32(9.0)
"""Nepers below the loudest band that still count: what is quieter is no speech."""
_LEAST = np.float32(0.5)


def normalised_mel(wave: Floats) -> Floats:
    """Returns the log mel bands of a clip, less their mean over its louder half, over one deviation: [frames, 40].

    Level and channel are gone from it; silence around the speech does not shift it.

    Args:
        wave: float32 [samples] at 16 kHz.
    """
    mel = log_mel(wave, MEL)
    mel = np.maximum(mel, mel.max(initial=np.log(MEL.floor)) - _RANGE)
    level = mel.mean(axis=1)
    loud = mel[level >= np.median(level)]
    return np.asarray((mel - loud.mean(axis=0)) / np.maximum(loud.std(), _LEAST), np.float32)


def states_of(num_phones: int, pauses: npt.ArrayLike) -> tuple[Ints, npt.NDArray[np.bool_]]:
    """Returns the states of an utterance: its phones, and an optional pause before each phone that may have one.

    Args:
        num_phones: Phones.
        pauses: Phones that a pause may come before; one may always come after the last.

    Returns:
        Row of each state in the matrix of scores, `num_phones` for pauses; and which states are pauses.
    """
    before = np.zeros(num_phones + 1, np.int64)
    before[np.asarray(pauses, np.int64)] = 1
    before[num_phones] = 1
    places = np.arange(num_phones) + np.cumsum(before[:-1])
    states = np.full(num_phones + int(before.sum()), num_phones, np.int64)
    states[places] = np.arange(num_phones)
    return states, states == num_phones


def phone_spans(scores: Floats, pauses: npt.ArrayLike) -> tuple[Ints, Ints] | None:
    """Returns first and after-last frame of each phone, [phones, 2], and the row of each frame, or None if too short.

    Args:
        scores: Of each phone and, in the last row, of the pause, in each frame: [phones + 1, frames].
        pauses: Phones that a pause may come before.
    """
    states, optional = states_of(len(scores) - 1, pauses)
    path = best_path(np.ascontiguousarray(scores.T[:, states]), optional)
    if path is None:
        return None
    return spans(path, np.flatnonzero(~optional)), states[path]
