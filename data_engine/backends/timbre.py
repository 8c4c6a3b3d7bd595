"""Moves a synthetic utterance towards a consented voice with the WORLD vocoder, by its nearest exemplars.

Speech is taken apart into F0, spectral envelope and aperiodicity (WORLD, Morise et al. 2016). Each frame's
envelope is drawn towards the mean of the frames of the voice's prompt that sound most alike, as in exemplar-based
voice conversion (nearest-neighbour matching, Sundermann et al. 2006; Baas et al. 2023); likeness is measured on
cepstra whose mean and spread were taken out speaker by speaker, so that the same sound of two speakers is close.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from data_engine.backends.prosody_rules import ProsodyTargets
from data_engine.backends.protocols import Wave
from data_engine.models.world import load_world

SAMPLE_RATE = 16_000
FRAME_MS = 5.0
F0_FLOOR, F0_CEILING = 60.0, 600.0

_PURPOSE = "moving a synthetic voice towards a consented one"
_FFT_SIZE = 1024
_BINS = _FFT_SIZE // 2 + 1
_MELS, _CEPSTRA = 40, 16
_CONTEXT = ((-2, 0.6), (0, 1.0), (2, 0.6))
_NEIGHBOURS = 6
_SMOOTHING = 5
_FEWEST_FRAMES = 20
_SCALE_LIMITS = (0.25, 4.0)
_SMALLEST_POWER = 1e-12
_SPEECH_BELOW_LOUD_DB = 35.0
_DB = 10.0 / np.log(10.0)

Float = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]


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
class SoundNorm:
    """Mean and spread of a speaker's cepstra, [16] each, over voiced or over unvoiced speech frames."""

    mean: Float
    spread: Float


@dataclass(frozen=True, slots=True, eq=False)
class SpeakerNorms:
    """What makes a synthetic speaker's sounds comparable.

    Attributes:
        sounds: Norms by voicing; a voicing with too few frames is absent.
        log_f0_spread: Half the distance of the 16th and 84th percentile of log F0.
    """

    sounds: dict[bool, SoundNorm]
    log_f0_spread: float


@dataclass(frozen=True, slots=True, eq=False)
class SoundExemplars:
    """Frames of a prompt of one voicing.

    Attributes:
        features: Normed cepstra in context, [frames, 48].
        log_envelope: Log power envelope less the frame's own level, float32 [frames, 513].
        aperiodicity: Float32 [frames, 513].
    """

    features: Float
    log_envelope: npt.NDArray[np.float32]
    aperiodicity: npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class VoiceExemplars:
    """What is kept of a consented voice: exemplars by voicing, and median and spread of log F0."""

    sounds: dict[bool, SoundExemplars]
    log_f0_median: float
    log_f0_spread: float


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
    parts = (np.ascontiguousarray(part, np.float64) for part in (frames.f0, frames.envelope, frames.aperiodicity))
    wave: Wave = load_world(_PURPOSE).synthesize(*parts, SAMPLE_RATE, FRAME_MS).astype(np.float32)
    return wave


def cepstra(frames: SpeechFrames) -> Float:
    """Returns 16 cepstral coefficients of the mel envelope, without level, [frames, 16]."""
    from scipy.fft import dct

    log_mels = np.log(frames.envelope @ _mel_weights().T + _SMALLEST_POWER)
    coefficients: Float = dct(log_mels, norm="ortho", axis=1)[:, 1 : _CEPSTRA + 1]
    return coefficients


def speech_mask(frames: SpeechFrames) -> Mask:
    """Returns which frames lie within 35 dB of the loud ones (95th percentile), [frames]."""
    level = _log_level(frames.envelope) * _DB
    mask: Mask = level > np.percentile(level, 95) - _SPEECH_BELOW_LOUD_DB
    return mask


def speaker_norms(frames: SpeechFrames) -> SpeakerNorms:
    """Returns the norms of a speaker from a long enough utterance (some seconds)."""
    features, speech, voiced = cepstra(frames), speech_mask(frames), frames.f0 > 0
    masks = {True: speech & voiced, False: speech & ~voiced}
    sounds = {v: _norm(features[m]) for v, m in masks.items() if m.sum() >= _FEWEST_FRAMES}
    return SpeakerNorms(sounds, _log_f0_spread(frames.f0))


def voice_exemplars(frames: SpeechFrames) -> VoiceExemplars | None:
    """Returns the exemplars of a prompt, or None when less than 100 ms of it is voiced."""
    norms = speaker_norms(frames)
    if True not in norms.sounds:
        return None
    speech, voiced = speech_mask(frames), frames.f0 > 0
    features = cepstra(frames)
    shape = _log_shape(frames.envelope)
    sounds = {}
    for voicing, norm in norms.sounds.items():
        mask = speech & (voiced == voicing)
        near = _in_context((features - norm.mean) / norm.spread)[mask]
        sounds[voicing] = SoundExemplars(
            near, shape[mask].astype(np.float32), frames.aperiodicity[mask].astype(np.float32)
        )
    return VoiceExemplars(sounds, float(np.median(np.log(frames.f0[voiced]))), norms.log_f0_spread)


def move_timbre(frames: SpeechFrames, source: SpeakerNorms, voice: VoiceExemplars, alpha: float) -> SpeechFrames:
    """Draws each frame towards its nearest exemplars; level, F0 and timing stay.

    Args:
        frames: An utterance of the source speaker.
        source: Norms of the source speaker.
        voice: Exemplars of the consented voice.
        alpha: 0 leaves the timbre, 1 takes the exemplars' means alone.
    """
    own = _log_shape(frames.envelope)
    features, voiced = cepstra(frames), frames.f0 > 0
    shape, noise = own.copy(), frames.aperiodicity.copy()
    for voicing in sorted(source.sounds.keys() & voice.sounds.keys()):
        norm, mask = source.sounds[voicing], voiced == voicing
        if mask.any():
            near = _in_context((features - norm.mean) / norm.spread)[mask]
            shape[mask], drawn = nearest_means(near, voice.sounds[voicing])
            noise[mask] = noise[mask] + alpha * (drawn - noise[mask]) if voicing else noise[mask]
    blended = own + alpha * (_smoothed(shape) - own)
    level = _log_level(frames.envelope) - _log_level(np.exp(blended))
    return replace(frames, envelope=np.exp(blended + level[:, None]), aperiodicity=np.clip(noise, 0.0, 1.0))


def nearest_means(features: Float, exemplars: SoundExemplars) -> tuple[Float, Float]:
    """Returns the distance-weighted mean log envelope and aperiodicity of each frame's nearest exemplars.

    Args:
        features: [frames, 48].
        exemplars: At least 20 frames of the voice.

    Returns:
        [frames, 513] and [frames, 513].
    """
    from scipy.spatial import cKDTree

    distance, index = cKDTree(exemplars.features).query(features, k=_NEIGHBOURS)
    weight = 1.0 / (distance + 0.1)
    weight /= weight.sum(axis=1, keepdims=True)
    envelope, noise = (
        sum(part[index[:, n]] * weight[:, n, None] for n in range(_NEIGHBOURS))
        for part in (exemplars.log_envelope, exemplars.aperiodicity)
    )
    return envelope, noise


def move_pitch(frames: SpeechFrames, scale: float, median_hz: float) -> SpeechFrames:
    """Gives an utterance the median F0 asked for and widens its log F0 around it by `scale`, bounded."""
    voiced = frames.f0 > 0
    if not voiced.any():
        return frames
    log_f0 = np.log(frames.f0[voiced])
    around = float(np.clip(scale, *_SCALE_LIMITS)) * (log_f0 - np.median(log_f0))
    f0 = np.zeros_like(frames.f0)
    f0[voiced] = np.clip(median_hz * np.exp(around), F0_FLOOR, F0_CEILING)
    return replace(frames, f0=f0)


def colour(frames: SpeechFrames, targets: ProsodyTargets) -> SpeechFrames:
    """Adds breath and spectral slope as an emotion asks for them."""
    frequency = np.linspace(0, SAMPLE_RATE / 2, _BINS)
    octaves = np.log2(np.maximum(frequency, 1000.0) / 1000.0)
    gain = np.exp(targets.tilt_db * octaves / _DB)
    noise = frames.aperiodicity + targets.breath * (1 - frames.aperiodicity)
    return replace(frames, envelope=frames.envelope * gain, aperiodicity=noise)


def _norm(features: Float) -> SoundNorm:
    return SoundNorm(features.mean(axis=0), features.std(axis=0) + 1e-3)


def _log_f0_spread(f0: Float) -> float:
    voiced = f0[f0 > 0]
    if not len(voiced):
        return 0.1
    low, high = np.percentile(np.log(voiced), (16, 84))
    return float(max((high - low) / 2, 0.02))


def _in_context(features: Float) -> Float:
    """Returns each frame beside the ones 10 ms before and after it, [frames, 48]."""
    frames = np.arange(len(features))
    rows = (features[np.clip(frames + shift, 0, len(features) - 1)] * weight for shift, weight in _CONTEXT)
    return np.concatenate(list(rows), axis=1)


def _smoothed(shape: Float) -> Float:
    from scipy.ndimage import convolve1d

    window = np.hanning(_SMOOTHING + 2)[1:-1]
    smooth: Float = convolve1d(shape, window / window.sum(), axis=0, mode="nearest")
    return smooth


def _log_level(envelope: Float) -> Float:
    level: Float = np.log(envelope.sum(axis=1) + _SMALLEST_POWER)
    return level


def _log_shape(envelope: Float) -> Float:
    return np.log(envelope + _SMALLEST_POWER) - _log_level(envelope)[:, None]


def _mel_weights() -> Float:
    """Triangles on the mel scale of O'Shaughnessy (2595 log10(1 + f / 700)), 50 Hz to 8 kHz, [40, 513]."""
    low, high = 2595 * np.log10(1 + np.array([50.0, SAMPLE_RATE / 2]) / 700)
    edges = 700 * (10 ** (np.linspace(low, high, _MELS + 2) / 2595) - 1)
    frequency = np.linspace(0, SAMPLE_RATE / 2, _BINS)
    rising = (frequency - edges[:-2, None]) / np.diff(edges)[:-1, None]
    falling = (edges[2:, None] - frequency) / np.diff(edges)[1:, None]
    weights = np.maximum(0.0, np.minimum(rising, falling))
    normed: Float = weights / np.maximum(weights.sum(axis=1, keepdims=True), 1e-9)
    return normed
