"""Kaldi's filterbanks and low frame rate stacking in numpy: what FunASR's WavFrontend computes, without torch."""

from __future__ import annotations

from functools import cache

import numpy as np

from data_engine.models.features import Floats, apply_filterbank, frames

SAMPLE_RATE = 16000
BANDS = 80
FRAME, HOP, POINTS = 400, 160, 512
LFR_STACK, LFR_STEP = 7, 6
CODE_SAMPLES = HOP * LFR_STEP
"""Samples of a low rate frame, 60 ms."""

_PREEMPHASIS = np.float32(0.97)
_LOWEST_HZ = 20.0
_SMALLEST = np.float32(np.finfo(np.float32).eps)
_BLOCK = 2048


@cache
def mel_filters() -> Floats:
    """Returns Kaldi's triangles, equal in mel (1127 ln(1 + f / 700)), float32 [80, 257]; the Nyquist bin is unused."""
    low, high = (1127.0 * np.log1p(hz / 700.0) for hz in (_LOWEST_HZ, SAMPLE_RATE / 2))
    edges = np.linspace(low, high, BANDS + 2)
    mels = 1127.0 * np.log1p(np.arange(POINTS // 2 + 1) * SAMPLE_RATE / POINTS / 700.0)
    rising = (mels - edges[:-2, None]) / np.diff(edges)[:-1, None]
    falling = (edges[2:, None] - mels) / np.diff(edges)[1:, None]
    filters = np.maximum(0.0, np.minimum(rising, falling))
    filters[:, -1] = 0.0
    return np.asarray(filters, np.float32)


def kaldi_fbank(wave: Floats) -> Floats:
    """Returns log mel energies of complete 25 ms frames every 10 ms, float32 [frames, 80].

    Hamming window, DC removed and pre-emphasis 0.97 per frame, no dither (Kaldi's compute-fbank-feats).

    Args:
        wave: float32 [samples] at 16 kHz, full scale 1.
    """
    view = frames(np.asarray(wave, np.float32) * np.float32(32768.0), FRAME, HOP)
    window = np.hamming(FRAME).astype(np.float32)
    features = np.empty((len(view), BANDS), np.float32)
    for start in range(0, len(view), _BLOCK):
        block = view[start : start + _BLOCK]
        block = block - block.mean(axis=1, keepdims=True)
        before = np.concatenate([block[:, :1], block[:, :-1]], axis=1)
        spectrum = np.fft.rfft((block - _PREEMPHASIS * before) * window, n=POINTS)
        power = (spectrum.real**2 + spectrum.imag**2).astype(np.float32)
        features[start : start + _BLOCK] = np.log(np.maximum(apply_filterbank(power, mel_filters()), _SMALLEST))
    return features


def low_frame_rate(features: Floats) -> Floats:
    """Returns 7 frames stacked every 6 frames, [ceil(frames / 6), 560]; edges are repeated (FunASR's apply_lfr).

    Args:
        features: [frames, 80].
    """
    count = -(-len(features) // LFR_STEP)
    positions = np.arange(count)[:, None] * LFR_STEP + np.arange(LFR_STACK) - (LFR_STACK - 1) // 2
    stacked: Floats = features[np.clip(positions, 0, max(len(features) - 1, 0))].reshape(count, -1)
    return stacked
