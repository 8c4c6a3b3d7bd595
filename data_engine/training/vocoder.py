"""Trains the vocoder on the waves of the corpus: mel and multi-resolution spectral losses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from data_engine.core.config import Settings
from data_engine.models.codec_views import normalise_peak
from data_engine.models.decoder_export import export_vocoder
from data_engine.models.features import MelSettings, log_mel, mel_filterbank
from data_engine.models.vocoder import HOP, Vocoder, spectral_loss
from data_engine.training.loop import LoopSettings, Training, halve
from data_engine.training.speech.waves import Part, load

_MEL = MelSettings()
_RESOLUTIONS = (512, 1024, 2048)


class VocoderSettings(Settings):
    """A training of the vocoder.

    Attributes:
        output: Folder of checkpoint and logs.
        cache: Folder of the decoded corpus.
        weights: Share of each part in the segments drawn.
        segments: Segments of a batch.
        frames: Mel frames of a segment.
        loop: How long and how fast.
    """

    output: Path
    cache: Path
    weights: dict[str, float]
    segments: int = 12
    frames: int = 71
    loop: LoopSettings = LoopSettings()


def draw(parts: list[Part], config: VocoderSettings, step: int) -> tuple[Tensor, Tensor]:
    """Returns mel [segments, frames, 80] and waves [segments, (frames - 1) * 160] of a step."""
    rng = np.random.default_rng([config.loop.seed, step])
    shares = np.array([config.weights[part.name] for part in parts])
    length = (config.frames - 1) * HOP
    mels, waves = [], []
    for _ in range(config.segments):
        part = parts[rng.choice(len(parts), p=shares / shares.sum())]
        wave = normalise_peak(part.utterance(int(rng.integers(len(part)))).wave)
        wave = np.pad(wave, (0, max(0, length + HOP - len(wave))))
        frame = int(rng.integers((len(wave) - length) // HOP))
        mels.append(log_mel(wave, _MEL)[frame : frame + config.frames])
        waves.append(wave[frame * HOP : frame * HOP + length])
    return torch.from_numpy(np.stack(mels)), torch.from_numpy(np.stack(waves))


def mel_distance(made: Tensor, true: Tensor) -> Tensor:
    """Returns the mean distance of natural log mels of two batches of waves."""
    filters = torch.from_numpy(
        np.array(mel_filterbank(_MEL.sample_rate, _MEL.n_fft, _MEL.n_mels, _MEL.fmin, _MEL.fmax))
    )
    window = torch.hann_window(_MEL.win_length)

    def mel(wave: Tensor) -> Tensor:
        power = torch.stft(wave, _MEL.n_fft, HOP, _MEL.win_length, window, return_complex=True).abs().square()
        return (filters @ power).clamp_min(_MEL.floor).log()

    distance: Tensor = (mel(made) - mel(true)).abs().mean()
    return distance


def losses_of(model: Vocoder, mel: Tensor, wave: Tensor) -> dict[str, Tensor]:
    """Returns the weighted losses of a batch."""
    with torch.autocast("cpu", torch.bfloat16):
        made = model(mel)
    spectral = torch.stack([spectral_loss(made, wave, points) for points in _RESOLUTIONS]).mean()
    return {"mel": 1.5 * mel_distance(made, wave), "spectral": spectral}


def train(config: VocoderSettings) -> None:
    """Trains from scratch, or goes on from the checkpoint in `config.output`; writes `vocoder.onnx` at the end."""
    torch.set_num_threads(1)
    torch.manual_seed(config.loop.seed)
    parts, model = load(config.cache, list(config.weights)), Vocoder()
    training = Training(model, config.output, config.loop)
    training.resume()

    def step(number: int) -> tuple[dict[str, Tensor], float]:
        mel, wave = draw(parts, config, number)
        return losses_of(model, mel, wave), wave.numel() / _MEL.sample_rate

    def evaluate() -> dict[str, Any]:
        found = [losses_of(model, *draw(parts, config, 10_000_000 + number)) for number in range(4)]
        return {name: round(float(np.mean([losses[name].item() for losses in found])), 4) for name in found[0]}

    training.run(step, evaluate)
    halve(model.eval())
    export_vocoder(model, config.output / "vocoder.onnx")
