"""Acoustic measures of one clip of speech, as pure functions on float32 [samples], mono.

What cannot be measured is None, never NaN. Frames are 25 ms every 10 ms.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from data_engine.models.features import Floats, frames, power_spectrogram

FRAMES_PER_SECOND = 100
FLOOR_DB = -100.0
"""Below the quantization noise of 16 bits (-98 dBFS): what lies there is digital silence."""

SPEECH_RANGE_DB = 30.0
"""Speech frames are at most this far below the loud ones."""

MIN_PAUSE_SECONDS = 0.2
"""Shorter gaps are closures of plosives, not pauses (cf. 250 ms in Goldman-Eisler 1968)."""

_LEAST_CONTRAST_DB = 3.0
_NOISE_SHARE = 0.1
_SNR_LIMITS = (-10.0, 100.0)
_LEAST_FRAMES = 5
_CLIP_LEVEL = 10.0 ** (-1.0 / 20.0)
_CLIP_RUN = 3
_PCM_STEP = 1.0 / 32768.0
_BAND_DROP_DB = 50.0

Levels = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Activity:
    """Where a clip is loud.

    Attributes:
        levels: dBFS of each frame, at least FLOOR_DB, float64 [frames].
        active: Frames with speech energy, [frames].
        speech: The same with gaps shorter than MIN_PAUSE_SECONDS closed, [frames].
    """

    levels: Levels
    active: Mask
    speech: Mask

    @property
    def speech_seconds(self) -> float:
        """Seconds of speech, pauses left out."""
        return int(self.speech.sum()) / FRAMES_PER_SECOND


def frame_levels(wave: Floats, sample_rate: int) -> Levels:
    """Returns the RMS level of each complete frame in dBFS, float64 [frames]; 0 dBFS is a full-scale square."""
    hop = sample_rate // FRAMES_PER_SECOND
    blocks = frames(np.square(wave, dtype=np.float64), hop * 5 // 2, hop)
    power: Levels = np.maximum(blocks.mean(axis=1), 10.0 ** (FLOOR_DB / 10.0))
    return 10.0 * np.log10(power)


def activity(wave: Floats, sample_rate: int) -> Activity:
    """Returns where speech is, by energy.

    A frame is active when it is above the noise (by 6 dB, or by half the contrast when there is less than 12 dB of
    it) and within SPEECH_RANGE_DB of the 95th percentile of levels. A clip of one level is active throughout,
    unless it is digital silence.
    """
    levels = frame_levels(wave, sample_rate)
    if not len(levels) or levels.max() <= FLOOR_DB:
        nothing = np.zeros(len(levels), np.bool_)
        return Activity(levels, nothing, nothing)
    loud, noise = float(np.percentile(levels, 95)), noise_level(levels)
    contrast = loud - noise
    threshold = max(loud - SPEECH_RANGE_DB, noise + min(6.0, contrast / 2.0))
    active = levels > (threshold if contrast >= _LEAST_CONTRAST_DB else FLOOR_DB)
    return Activity(levels, active, close_gaps(active, round(MIN_PAUSE_SECONDS * FRAMES_PER_SECOND)))


def noise_level(levels: Levels) -> float:
    """Returns the mean power, in dBFS, of the quietest tenth of the frames.

    Frames of digital silence are left out: zeros between synthesized words or beside a padded recording say
    nothing about its noise.
    """
    heard = np.sort(levels[levels > FLOOR_DB])
    if not len(heard):
        return FLOOR_DB
    quiet = heard[: max(1, round(_NOISE_SHARE * len(heard)))]
    return float(10.0 * np.log10(np.mean(10.0 ** (quiet / 10.0))))


def runs(mask: Mask) -> npt.NDArray[np.int64]:
    """Returns first and past-the-last index of each run of True, int64 [runs, 2]."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], mask, [False]]).astype(np.int8)))
    return edges.reshape(-1, 2)


def close_gaps(mask: Mask, shortest: int) -> Mask:
    """Returns the mask with inner runs of False shorter than `shortest` set to True."""
    gaps = runs(~mask)
    inner = (gaps[:, 0] > 0) & (gaps[:, 1] < len(mask)) & (gaps[:, 1] - gaps[:, 0] < shortest)
    steps = np.zeros(len(mask) + 1, np.int64)
    np.add.at(steps, gaps[inner, 0], 1)
    np.add.at(steps, gaps[inner, 1], -1)
    return mask | (np.cumsum(steps[:-1]) > 0)


def snr_db(where: Activity) -> float | None:
    """Returns the energy of the speech over that of the noise in dB, limited to -10..100.

    Noise is the quietest tenth of the frames (`noise_level`), so a clip without pauses is measured at its
    closures, which gives a lower bound. Speech is the mean power of active frames less that of the noise.
    """
    if where.active.sum() < _LEAST_FRAMES:
        return None
    noise = 10.0 ** (noise_level(where.levels) / 10.0)
    speech = float(np.mean(10.0 ** (where.levels[where.active] / 10.0))) - noise
    low, high = _SNR_LIMITS
    return float(np.clip(10.0 * np.log10(speech / noise), low, high)) if speech > 0.0 else low


def energy_dbfs(where: Activity) -> float | None:
    """Returns the RMS level of the active frames in dBFS."""
    if not where.active.any():
        return None
    return float(10.0 * np.log10(np.mean(10.0 ** (where.levels[where.active] / 10.0))))


def silence_ratio(where: Activity) -> float | None:
    """Returns the share of frames outside speech, 0..1; leading and trailing silence counts."""
    return float(1.0 - where.speech.mean()) if len(where.speech) else None


def longest_pause(where: Activity) -> float | None:
    """Returns the seconds of the longest pause between the first and the last speech frame; 0 without a pause."""
    found = runs(where.speech)
    if not len(found):
        return None
    return float(np.max(found[1:, 0] - found[:-1, 1], initial=0)) / FRAMES_PER_SECOND


def clipping_ratio(wave: Floats) -> float | None:
    """Returns the share of samples in runs of 3 or more that stick to the clip's highest or lowest value.

    An extreme value counts when it is above -1 dBFS; samples stick to it when they are within one 16-bit step.
    Clipping that was attenuated, resampled or coded lossily afterwards is not seen: measure at the source's rate.
    """
    if not len(wave):
        return None
    return (_stuck(wave) + _stuck(-wave)) / len(wave)


def _stuck(wave: Floats) -> int:
    top = float(wave.max())
    if top < _CLIP_LEVEL:
        return 0
    found = runs(wave >= top - 1.5 * _PCM_STEP)
    lengths = found[:, 1] - found[:, 0]
    return int(lengths[lengths >= _CLIP_RUN].sum())


def bandwidth_hz(wave: Floats, sample_rate: int) -> float | None:
    """Returns the highest frequency that carries signal, in Hz.

    The long-term spectrum is the 95th percentile over frames of each bin, so that fricatives, which are rare and
    hold the highest frequencies, count. Signal is what lies within 50 dB of the level between 300 and 3000 Hz.
    """
    n_fft = 512 * max(1, round(sample_rate / 16000))
    power = power_spectrogram(wave, n_fft, n_fft, n_fft // 2, center=False)
    if not len(power) or not power.any():
        return None
    spectrum = np.percentile(power, 95, axis=0)
    frequency = np.arange(len(spectrum)) * (sample_rate / n_fft)
    reference = spectrum[(frequency >= 300.0) & (frequency <= 3000.0)].mean()
    carrying = np.flatnonzero(spectrum > reference * 10.0 ** (-_BAND_DROP_DB / 10.0))
    return float(frequency[carrying[-1]]) if reference > 0.0 and len(carrying) else None
