"""What every embedded synthesizer does after speaking: takes on the voice, the pitch and the level asked for."""

from __future__ import annotations

import unicodedata
from collections import OrderedDict
from dataclasses import dataclass, replace

import numpy as np

from data_engine.backends.prosody_rules import ProsodyTargets
from data_engine.backends.protocols import VoicePrompt, Wave
from data_engine.backends.timbre import (
    SAMPLE_RATE,
    Float,
    SpeakerNorms,
    VoiceExemplars,
    analyse,
    colour,
    move_pitch,
    move_timbre,
    resynthesize,
    voice_exemplars,
)
from data_engine.core.errors import RecordError

HIGH_VOICE_HZ = 165.0
"""Voices above speak through a high (female) source, below through a low one."""
SPEECH_DBFS = -26.0
"""Level of neutral speech, the nominal level of ITU-T P.56 practice."""

_PEAK = 0.97
_MARGIN = 0.1
_SHORTEST = 0.06
_BLOCK = 160
_SEMITONE = float(np.log(2) / 12)
_FALLBACK_HZ, _FALLBACK_SPREAD = 140.0, 0.12
_CACHED_VOICES = 16


@dataclass(frozen=True, slots=True, eq=False)
class VoiceTarget:
    """The consented voice as the renderer sees it: median F0 in Hz, spread of log F0, exemplars if it has speech."""

    f0_hz: float
    log_f0_spread: float
    exemplars: VoiceExemplars | None


class VoiceTargets:
    """Targets by voice id, the last few kept: a prompt is analysed once, however many turns it speaks."""

    def __init__(self) -> None:
        self._kept: OrderedDict[str, VoiceTarget] = OrderedDict()

    def of(self, voice: VoicePrompt) -> VoiceTarget:
        """Returns the target of a prompt."""
        if voice.voice_id not in self._kept:
            self._kept[voice.voice_id] = voice_target(voice)
        self._kept.move_to_end(voice.voice_id)
        if len(self._kept) > _CACHED_VOICES:
            self._kept.popitem(last=False)
        return self._kept[voice.voice_id]


def voice_target(voice: VoicePrompt) -> VoiceTarget:
    """Returns what to aim at; pitch the library measured wins over pitch measured here."""
    wave = resampled(voice.wave, voice.sample_rate)
    exemplars = voice_exemplars(analyse(wave)) if len(wave) >= SAMPLE_RATE // 10 else None
    hz = voice.f0_median_hz or (float(np.exp(exemplars.log_f0_median)) if exemplars else _FALLBACK_HZ)
    spread = exemplars.log_f0_spread if exemplars else _FALLBACK_SPREAD
    if voice.f0_std_semitones:
        spread = min(spread, voice.f0_std_semitones * _SEMITONE)
    return VoiceTarget(hz, spread, exemplars)


def deviations(seed: int, asked: ProsodyTargets, alpha: float) -> tuple[ProsodyTargets, float]:
    """Returns targets and alpha a little off, by a seed, so that takes of one turn differ.

    Tempo moves within 3 %, pitch within 2 %, alpha within 0.1 and inside 0..1.
    """
    tempo, pitch, shift = np.random.default_rng(seed).uniform((0.97, 0.98, -0.1), (1.03, 1.02, 0.1))
    targets = replace(asked, tempo=asked.tempo * float(tempo), pitch_factor=asked.pitch_factor * float(pitch))
    return targets, float(np.clip(alpha + shift, 0.0, 1.0))


def require_words(text: str) -> None:
    """Refuses a text in which nothing can be pronounced.

    Raises:
        RecordError: SYNTHESIS_FAILED.
    """
    if not any(unicodedata.category(character)[0] in "LN" for character in text):
        raise RecordError("SYNTHESIS_FAILED", f"there is no word to speak in '{text[:60]}'")


def require_sound(wave: Wave, text: str) -> None:
    """Refuses a rendering that came out empty.

    Raises:
        RecordError: SYNTHESIS_FAILED.
    """
    if len(wave) < _SHORTEST * SAMPLE_RATE:
        raise RecordError("SYNTHESIS_FAILED", f"'{text[:60]}' came out without sound")


def resampled(wave: Wave, sample_rate: int) -> Wave:
    """Returns a wave at 16 kHz."""
    if sample_rate == SAMPLE_RATE:
        return wave
    import soxr

    at_16k: Wave = soxr.resample(wave, sample_rate, SAMPLE_RATE).astype(np.float32)
    return at_16k


def render(
    wave: Wave, source: SpeakerNorms, voice: VoiceTarget, targets: ProsodyTargets, alpha: float
) -> tuple[Wave, float]:
    """Turns a synthetic utterance into the voice.

    Args:
        wave: Utterance at 16 kHz, at the tempo asked for.
        source: Norms of the speaker of `wave`.
        voice: Where to go.
        targets: Pitch, range, breath, slope and level asked for.
        alpha: How far the timbre goes, 0..1.

    Returns:
        The wave at 16 kHz, trimmed to 0.1 s of margin, and the gain in dB that a full scale peak left.
    """
    frames = analyse(wave)
    if voice.exemplars is not None:
        frames = move_timbre(frames, source, voice.exemplars, alpha)
    scale = targets.range_factor * voice.log_f0_spread / source.log_f0_spread
    frames = move_pitch(frames, scale, voice.f0_hz * targets.pitch_factor)
    return levelled(trimmed(resynthesize(colour(frames, targets))), SPEECH_DBFS + targets.gain_db)


def trimmed(wave: Wave) -> Wave:
    """Returns the wave without silence at its ends, but for 0.1 s; silence is 45 dB below the loudest 10 ms."""
    levels = _block_levels(wave)
    loud = np.flatnonzero(levels > levels.max(initial=0.0) * 10 ** (-45 / 10))
    if not len(loud):
        return wave[:0]
    margin = int(_MARGIN * SAMPLE_RATE)
    return wave[max(0, loud[0] * _BLOCK - margin) : (loud[-1] + 1) * _BLOCK + margin]


def levelled(wave: Wave, dbfs: float) -> tuple[Wave, float]:
    """Returns the wave with its speech (10 ms blocks within 30 dB of the loudest) at an RMS, and the dB it got less.

    A peak never passes 0.97: rather than clip, the level stays lower.
    """
    levels = _block_levels(wave)
    if not levels.max(initial=0.0) > 0:
        return wave, 0.0
    rms = float(np.sqrt(levels[levels > levels.max() * 1e-3].mean()))
    gain = 10 ** (dbfs / 20) / rms
    bounded = min(gain, _PEAK / float(np.abs(wave).max()))
    return (wave * bounded).astype(np.float32), float(20 * np.log10(gain / bounded))


def _block_levels(wave: Wave) -> Float:
    blocks = wave[: len(wave) // _BLOCK * _BLOCK].reshape(-1, _BLOCK).astype(np.float64)
    levels: Float = np.square(blocks).mean(axis=1)
    return levels
