"""Which source channels become which output channels, and how loud: pure functions of the levels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from data_engine.core.errors import RecordError
from data_engine.io.decoding.levels import FloatArray, Levels

_ACTIVE_SHARE = 10 ** (-40 / 20)
_CANCELLATION = 0.05
_SAME_LOUDNESS = 0.9
_OVERSHOOT_PEAK = 0.999
_QUIET_PEAK = 10 ** (-40 / 20)
_RAISED_PEAK = 10 ** (-3 / 20)


def active_channels(levels: Levels, lfe: Sequence[int]) -> list[int]:
    """Returns the channels that carry sound: within 40 dB of the loudest, low-frequency effects left out."""
    candidates = [c for c in range(len(levels.rms)) if c not in lfe] or list(range(len(levels.rms)))
    loudest = max(float(levels.rms[c]) for c in candidates)
    return [c for c in candidates if levels.rms[c] > 0 and levels.rms[c] >= loudest * _ACTIVE_SHARE]


def mix_weights(levels: Levels, lfe: Sequence[int]) -> tuple[FloatArray, bool]:
    """Returns the weights [1, channels] of a mono mix, and whether the channels cancel each other.

    The mix is the mean of the active channels. Independent channels of power P give P / n; a mix below a
    twentieth of that cancels (antiphase), and the loudest channel (of equals the first, which is rarely the
    inverted one) stands in for it.
    """
    active = active_channels(levels, lfe)
    weights = np.zeros((1, len(levels.rms)))
    if not active:
        return weights, False
    weights[0, active] = 1.0 / len(active)
    mixed = float((weights @ levels.covariance @ weights.T)[0, 0])
    expected = float(np.diag(levels.covariance)[active].mean()) / len(active)
    if len(active) == 1 or mixed >= _CANCELLATION * expected:
        return weights, False
    enough = _SAME_LOUDNESS * max(float(levels.rms[c]) for c in active)
    return one_channel(len(levels.rms), next(c for c in active if levels.rms[c] >= enough)), True


def split_weights(channels: int, lfe: Sequence[int]) -> FloatArray:
    """Returns the weights [speakers, channels] that keep each channel but the LFE as a speaker's own."""
    kept = [c for c in range(channels) if c not in lfe]
    return np.eye(channels)[kept]


def one_channel(channels: int, channel: int) -> FloatArray:
    """Returns the weights [1, channels] that pick a channel, counted from 0.

    Raises:
        RecordError: CHANNEL_NOT_FOUND.
    """
    if not 0 <= channel < channels:
        detail = f"the manifest asks for channel {channel} (counted from 0), the recording has {channels}"
        raise RecordError("CHANNEL_NOT_FOUND", detail)
    return np.eye(channels)[channel : channel + 1]


def gain_for(peak: float) -> float:
    """Returns the factor for sound with this peak: over full scale down, very quiet up to -3 dBFS, else 1."""
    if peak > 1.0:
        return _OVERSHOOT_PEAK / peak
    return _RAISED_PEAK / peak if 0 < peak < _QUIET_PEAK else 1.0
