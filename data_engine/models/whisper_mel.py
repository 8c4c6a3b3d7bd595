"""Whisper's log-mel spectrogram with 128 bands, which CosyVoice's speech tokenizers take, without padding to 30 s."""

from __future__ import annotations

from typing import Literal

import numpy as np

from data_engine.models.features import Floats, apply_filterbank, mel_filterbank, power_spectrogram

SAMPLE_RATE = 16000
BANDS = 128
HOP, POINTS = 160, 400
TOKEN_SAMPLES = 640
"""Samples of a semantic token, 40 ms."""

_SMALLEST = np.float32(1e-10)


def whisper_log_mel(wave: Floats) -> Floats:
    """Returns (max(log10 mel, loudest - 8) + 4) / 4, float32 [samples // 160, 128] (Radford et al. 2022, sec. 2.2).

    Args:
        wave: float32 [samples] at 16 kHz, full scale 1.
    """
    edge: Literal["reflect", "constant"] = "reflect" if len(wave) > POINTS // 2 else "constant"
    mirrored = np.pad(np.asarray(wave, np.float32), POINTS // 2, mode=edge)
    power = power_spectrogram(mirrored, POINTS, POINTS, HOP, center=False)[: len(wave) // HOP]
    energies = apply_filterbank(power, mel_filterbank(SAMPLE_RATE, POINTS, BANDS, 0.0, SAMPLE_RATE / 2))
    levels = np.log10(np.maximum(energies, _SMALLEST))
    return np.asarray((np.maximum(levels, levels.max(initial=-10.0) - 8.0) + 4.0) / 4.0, np.float32)
