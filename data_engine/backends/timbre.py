"""Moves the timbre of a synthetic utterance towards a consented voice, with the WORLD vocoder.

Speech is taken apart into F0, spectral envelope and aperiodicity (Morise et al. 2016), each is moved, and the
wave is put together again. Of the voice only long-term statistics are used: median and spread of log F0, the
average envelope of voiced and unvoiced frames. The envelope is stretched along frequency by the factor that
brings the two averages closest (vocal-tract length, as in Eide and Gish 1996), then equalised by what is left.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from data_engine.backends.prosody_rules import ProsodyTargets
from data_engine.backends.protocols import Wave
from data_engine.backends.world import load_world

SAMPLE_RATE = 16_000
FRAME_MS = 5.0
F0_FLOOR, F0_CEILING = 60.0, 600.0

_PURPOSE = "moving a synthetic voice towards a consented one"
_FFT_SIZE = 1024
_BINS = _FFT_SIZE // 2 + 1
_LIFTER = 40
_MAX_EQUALISER_DB = 18.0
_WARPS = np.linspace(0.84, 1.2, 19)
_SPREAD_LIMITS = (0.5, 2.0)
_SMALLEST_POWER = 1e-12
_DB = 10.0 / np.log(10.0)

Float = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class SpeechFrames:
    """One utterance, a frame each FRAME_MS.

    Attributes:
        f0: Hz, 0 where unvoiced, [frames].
        envelope: Power spectral envelope, [frames, 513].
        aperiodicity: Share of noise, 0..1, [frames, 513].
    """

    f0: Float
    envelope: Float
    aperiodicity: Float


@dataclass(frozen=True, slots=True, eq=False)
class TimbreStatistics:
    """What is kept of a voice.

    Attributes:
        log_f0_median: Natural logarithm of Hz.
        log_f0_spread: Standard deviation of log F0.
        voiced: Mean log power envelope of voiced frames, [513], its mean removed.
        unvoiced: The same of unvoiced speech frames.
    """

    log_f0_median: float
    log_f0_spread: float
    voiced: Float
    unvoiced: Float


def analyse(wave: Wave) -> SpeechFrames:
    """Takes a wave [samples] at 16 kHz apart.

    Raises:
        MissingExtraError: pyworld is not installed.
    """
    world = load_world(_PURPOSE)
    samples = np.ascontiguousarray(wave, np.float64)
    limits = {"f0_floor": F0_FLOOR, "f0_ceil": F0_CEILING}
    rough, times = world.dio(samples, SAMPLE_RATE, frame_period=FRAME_MS, **limits)
    f0 = world.stonemask(samples, rough, times, SAMPLE_RATE)
    envelope = world.cheaptrick(samples, f0, times, SAMPLE_RATE, fft_size=_FFT_SIZE)
    return SpeechFrames(f0, envelope, world.d4c(samples, f0, times, SAMPLE_RATE, fft_size=_FFT_SIZE))


def resynthesize(frames: SpeechFrames) -> Wave:
    """Puts an utterance together again, float32 [samples] at 16 kHz."""
    parts = (np.ascontiguousarray(part) for part in (frames.f0, frames.envelope, frames.aperiodicity))
    wave: Wave = load_world(_PURPOSE).synthesize(*parts, SAMPLE_RATE, FRAME_MS).astype(np.float32)
    return wave


def timbre_statistics(frames: SpeechFrames) -> TimbreStatistics | None:
    """Returns the statistics of an utterance, or None when too little of it is voiced (under 100 ms)."""
    speech = _is_speech(frames)
    voiced = (frames.f0 > 0) & speech
    if voiced.sum() < 20:
        return None
    log_f0 = np.log(frames.f0[voiced])
    low, median, high = np.percentile(log_f0, (16, 50, 84))
    unvoiced = speech & ~voiced
    average = _mean_log_envelope(frames.envelope[voiced])
    hiss = _mean_log_envelope(frames.envelope[unvoiced]) if unvoiced.sum() >= 10 else average
    return TimbreStatistics(float(median), float(max((high - low) / 2, 0.02)), average, hiss)


def vocal_tract_factor(source: TimbreStatistics, target: TimbreStatistics) -> float:
    """Returns the stretch of the frequency axis that brings the source's voiced average closest to the target's.

    Compared are lifter-smoothed log envelopes below 6 kHz without level and slope, which the equaliser handles.
    """
    goal = _shape(target.voiced)
    distances = [np.abs(_shape(stretch(source.voiced[None], w)[0]) - goal).mean() for w in _WARPS]
    return float(_WARPS[int(np.argmin(distances))])


def stretch(log_envelope: Float, factor: float) -> Float:
    """Returns envelopes [frames, 513] with formants moved to `factor` times their frequency, linear below 80 %."""
    knee = 0.8 * (_BINS - 1) / max(factor, 1.0)
    where = np.arange(_BINS, dtype=np.float64)
    end = _BINS - 1.0
    source = np.interp(where, (0.0, knee * factor, end), (0.0, knee, end))
    left = np.minimum(source.astype(np.int64), _BINS - 2)
    share = source - left
    moved: Float = log_envelope[:, left] * (1 - share) + log_envelope[:, left + 1] * share
    return moved


def equaliser(source: Float, target: Float) -> Float:
    """Returns the log-power gain [513] from one average envelope to another: lifter-smoothed and bounded."""
    bound = _MAX_EQUALISER_DB / _DB
    gain: Float = np.clip(smooth(target - source), -bound, bound)
    return gain


def smooth(log_envelope: Float) -> Float:
    """Returns an envelope [513] cut to its first cepstral coefficients, without ripples."""
    cepstrum = np.fft.irfft(log_envelope, _FFT_SIZE)
    cepstrum[_LIFTER : _FFT_SIZE - _LIFTER + 1] = 0.0
    result: Float = np.fft.rfft(cepstrum).real
    return result


def move_timbre(
    frames: SpeechFrames, source: TimbreStatistics, target: TimbreStatistics, alpha: float
) -> SpeechFrames:
    """Moves the envelope from the source voice towards the target voice.

    Args:
        frames: An utterance of the source voice.
        source: Long-term statistics of the source voice.
        target: Long-term statistics of the consented voice.
        alpha: 0 leaves the timbre, 1 moves it all the way.
    """
    factor = 1 + alpha * (vocal_tract_factor(source, target) - 1)
    log_envelope = stretch(np.log(frames.envelope + _SMALLEST_POWER), factor)
    voiced = equaliser(stretch(source.voiced[None], factor)[0], target.voiced)
    unvoiced = equaliser(stretch(source.unvoiced[None], factor)[0], target.unvoiced)
    gain = np.where((frames.f0 > 0)[:, None], voiced, unvoiced)
    aperiodicity = np.clip(stretch(frames.aperiodicity, factor), 0.0, 1.0)
    return replace(frames, envelope=np.exp(log_envelope + alpha * gain), aperiodicity=aperiodicity)


def move_pitch(
    frames: SpeechFrames, source_spread: float, log_median: float, log_spread: float
) -> SpeechFrames:
    """Gives an utterance a median and a spread of log F0; its own median is taken, its spread is the voice's.

    Args:
        frames: An utterance of the source voice.
        source_spread: Spread of log F0 of the source voice.
        log_median: Median to reach, log Hz.
        log_spread: Spread to reach.
    """
    voiced = frames.f0 > 0
    if not voiced.any():
        return frames
    log_f0 = np.log(frames.f0[voiced])
    scale = float(np.clip(log_spread / source_spread, *_SPREAD_LIMITS))
    f0 = np.zeros_like(frames.f0)
    f0[voiced] = np.exp(log_median + scale * (log_f0 - np.median(log_f0)))
    f0[voiced] = np.clip(f0[voiced], F0_FLOOR, F0_CEILING)
    return replace(frames, f0=f0)


def colour(frames: SpeechFrames, targets: ProsodyTargets) -> SpeechFrames:
    """Adds breath and spectral slope as an emotion asks for them."""
    frequency = np.linspace(0, SAMPLE_RATE / 2, _BINS)
    octaves = np.log2(np.maximum(frequency, 1000.0) / 1000.0)
    gain = np.exp(targets.tilt_db * octaves / _DB)
    noise = frames.aperiodicity + targets.breath * (1 - frames.aperiodicity)
    return replace(frames, envelope=frames.envelope * gain, aperiodicity=noise)


def _is_speech(frames: SpeechFrames) -> npt.NDArray[np.bool_]:
    """Frames within 35 dB of the loud ones (95th percentile)."""
    power = np.log(frames.envelope.sum(axis=1) + _SMALLEST_POWER) * _DB
    speech: npt.NDArray[np.bool_] = power > np.percentile(power, 95) - 35
    return speech


def _mean_log_envelope(envelope: Float) -> Float:
    average: Float = np.log(envelope + _SMALLEST_POWER).mean(axis=0)
    return average - average.mean()


def _shape(log_envelope: Float) -> Float:
    used = smooth(log_envelope)[: int(_BINS * 6000 / (SAMPLE_RATE / 2))]
    x = np.linspace(-1, 1, len(used))
    slope = (used * x).sum() / (x * x).sum()
    shape: Float = used - used.mean() - slope * x
    return shape
