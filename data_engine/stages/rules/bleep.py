"""A tone in place of what must not be heard; everything else stays as it is, sample by sample."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from pydantic import Field

from data_engine.core.config import Settings
from data_engine.io.decoding.readers import Samples


class Tone(Settings):
    """What is heard instead.

    Attributes:
        hertz: Its frequency.
        dbfs: Its RMS level.
        margin_seconds: Sounds on either side of what is covered: word times are a few hundredths of a second off.
        fade_seconds: Outside the margin the sound goes over into the tone for so long.
    """

    hertz: float = Field(1000.0, gt=0)
    dbfs: float = Field(-20.0, le=-3.1)
    margin_seconds: float = Field(0.05, ge=0)
    fade_seconds: float = Field(0.01, ge=0)


def reach(tone: Tone, sample_rate: int) -> tuple[int, int]:
    """Returns margin and fade in samples."""
    return round(tone.margin_seconds * sample_rate), round(tone.fade_seconds * sample_rate)


def share_of_tone(
    num_samples: int, intervals: Sequence[tuple[int, int]], margin: int, fade: int
) -> npt.NDArray[np.float64]:
    """Returns how much of each sample is tone, [samples]: 1 in an interval and its margin, 0 beyond the fade.

    Args:
        num_samples: Length of the clip.
        intervals: [first sample, sample after the last).
        margin: Samples.
        fade: Samples; the share falls as a squared cosine.
    """
    share = np.zeros(num_samples)
    for start, end in intervals:
        low, high = start - margin, end + margin
        first, last = max(0, low - fade), min(num_samples, high + fade)
        at = np.arange(first, last)
        distance = np.maximum(0, np.maximum(low - at, at - (high - 1)))
        share[first:last] = np.maximum(share[first:last], np.cos(distance / (fade + 1) * np.pi / 2) ** 2)
    return share


def bleep(wave: Samples, sample_rate: int, intervals: Sequence[tuple[int, int]], tone: Tone) -> Samples:
    """Returns the clip with a tone in the intervals; nothing of the sound is left in them or in their margins.

    Args:
        wave: float32 [samples].
        sample_rate: Hz.
        intervals: [first sample, sample after the last).
        tone: Level, frequency, margin and fade.
    """
    share = share_of_tone(len(wave), intervals, *reach(tone, sample_rate))
    peak = np.sqrt(2.0) * 10.0 ** (tone.dbfs / 20.0)
    sound = peak * np.sin(2.0 * np.pi * tone.hertz / sample_rate * np.arange(len(wave)))
    mixed = wave * (1.0 - share) + sound * share
    return np.where(share == 0.0, wave, mixed).astype(np.float32)
