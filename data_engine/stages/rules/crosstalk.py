"""Crosstalk: speech of one channel that is heard, lower, on another, as on two-channel calls.

Two windows of different channels hold the same speech when they correlate at some small lag; talk of two people at
once does not, however loud. The louder channel keeps it. Where none is clearly louder, as in a stereo file that was
split, all of it goes to one channel. Measured on 16 voices in pairs (windows of 0.26 s, lags up to 50 ms): two voices
correlate up to 0.23; a voice with its echoic copy at -20 dB in noise from 0.52 on, but for 1 % of the windows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import Field

from data_engine.core.config import Settings

Floats = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]
ReadSound = Callable[[int, int, int], Floats]
"""Channel, first sample, samples -> float32 [samples], fewer at the end of the recording."""

_PRE_EMPHASIS = 0.95
_WINDOWS_AT_ONCE = 256
_HOPS_PER_WINDOW = 4
_AUDIBLE_DB = 0.5
_SMALLEST_ENERGY = 1e-12


class CrosstalkSettings(Settings):
    """When speech on a channel is that of another channel.

    Attributes:
        correlation: Windows that correlate so much hold the same speech; above 1 nothing does.
        level_db: A channel is clearly louder from this difference on.
        window_seconds: Length of a window.
        lag_seconds: Greatest delay between the channels.
    """

    correlation: float = Field(default=0.4, gt=0.0)
    level_db: float = Field(default=6.0, ge=0.0)
    window_seconds: float = Field(default=0.256, gt=0.0)
    lag_seconds: float = Field(default=0.05, ge=0.0)


def same_sound(one: Floats, other: Floats, max_lag: int) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Returns how alike windows of two channels are, and by how many dB the first is louder.

    Args:
        one: Sound of a channel, [windows, samples].
        other: That of another at the same places.
        max_lag: In samples.

    Returns:
        Largest magnitude of the normalized cross-correlation up to that lag, after a pre-emphasis of 0.95 that keeps
        two low voices from looking alike, and level difference; both float64 [windows].
    """
    from scipy.fft import irfft, next_fast_len, rfft

    first, second = _emphasized(one), _emphasized(other)
    size = next_fast_len(first.shape[1] + max_lag, real=True)
    found = np.abs(irfft(rfft(first, size) * rfft(second, size).conj(), size))
    peaks = np.concatenate([found[:, : max_lag + 1], found[:, size - max_lag :]], axis=1).max(axis=1)
    energies = [np.square(wave, dtype=np.float64).sum(axis=1) + _SMALLEST_ENERGY for wave in (first, second)]
    return peaks / np.sqrt(energies[0] * energies[1]), 10.0 * np.log10(energies[0] / energies[1])


def _emphasized(wave: Floats) -> Floats:
    return wave[:, 1:] - np.float32(_PRE_EMPHASIS) * wave[:, :-1]


def losing_channel(
    alike: npt.NDArray[np.float64], louder: npt.NDArray[np.float64], settings: CrosstalkSettings
) -> npt.NDArray[np.int64]:
    """Returns which of two channels only repeats the other in each window: 0, 1, or -1 for neither; int64 [windows].

    Args:
        alike: As `same_sound` returns it.
        louder: By how many dB channel 0 is louder.
        settings: Thresholds. Among windows in which no channel is clearly louder, the channel that is quieter on
            average loses all, the second one when they are even: a talk must not be torn between two channels.
    """
    same = alike >= settings.correlation
    even = same & (np.abs(louder) < settings.level_db)
    loses_even = 0 if even.any() and louder[even].mean() < -_AUDIBLE_DB else 1
    loses = np.where(even, loses_even, np.where(louder > 0, 1, 0))
    return np.where(same, loses, -1)


def repeated_speech(
    heard: Sequence[Mask], hop: int, read: ReadSound, sample_rate: int, settings: CrosstalkSettings
) -> list[Mask]:
    """Returns, per channel, in which hops its speech is that of another channel, bool [hops] each.

    Args:
        heard: Where each channel may hold speech, bool [hops]; only there is sound read, one window per four hops.
        hop: Samples per hop.
        read: Reads the sound of a channel.
        sample_rate: In Hz.
        settings: Thresholds.
    """
    found = [np.zeros(len(mask), bool) for mask in heard]
    window, max_lag = round(settings.window_seconds * sample_rate), round(settings.lag_seconds * sample_rate)
    for one, other in combinations(range(len(heard)), 2):
        both = np.flatnonzero(heard[one] & heard[other])
        places, hops = np.unique(both // _HOPS_PER_WINDOW, return_inverse=True)
        starts = np.maximum((2 * places + 1) * _HOPS_PER_WINDOW * hop // 2 - window // 2, 0)
        parts = [starts[at : at + _WINDOWS_AT_ONCE] for at in range(0, len(starts), _WINDOWS_AT_ONCE)]
        if not parts:
            continue
        pairs = [
            same_sound(_windows(read, one, part, window), _windows(read, other, part, window), max_lag)
            for part in parts
        ]
        alike, louder = (np.concatenate(values) for values in zip(*pairs, strict=True))
        loses = losing_channel(alike, louder, settings)[hops]
        found[one][both[loses == 0]] = True
        found[other][both[loses == 1]] = True
    return found


def _windows(read: ReadSound, channel: int, starts: npt.NDArray[Any], window: int) -> Floats:
    """Returns the sound of a channel at some places, [places, window]; zeros after its end."""
    waves = np.zeros((len(starts), window), np.float32)
    first = last = 0
    sound = np.zeros(0, np.float32)
    for row, start in enumerate(starts.tolist()):
        if row == 0 or start + window > last:  # neighbours overlap: one reading serves many of them
            reach = starts[row:][starts[row:] <= start + 64 * window][-1] + window
            first, last = start, int(reach)
            sound = read(channel, first, last - first)
        part = sound[start - first : start - first + window]
        waves[row, : len(part)] = part
    return waves
