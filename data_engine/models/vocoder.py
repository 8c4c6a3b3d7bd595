"""Mel to wave by one inverse Fourier transform: a small Vocos (Siuzdak 2023, arXiv 2306.00814)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from data_engine.models.semantic_tokenizer import ConvNextBlock
from data_engine.models.token_decoder import MEL_BANDS

HOP, WINDOW = 160, 640
_BINS = WINDOW // 2 + 1
_LOUDEST = 6.0


class Vocoder(nn.Module):
    """Log-mel to wave.

    Args:
        size: Channels.
        hidden: Channels inside blocks.
        blocks: How many.
    """

    window: Tensor

    def __init__(self, size: int = 256, hidden: int = 768, blocks: int = 6) -> None:
        super().__init__()
        self.first = nn.Conv1d(MEL_BANDS, size, 7, padding=3)
        self.blocks = nn.ModuleList(ConvNextBlock(size, hidden) for _ in range(blocks))
        self.norm = nn.LayerNorm(size)
        self.spectrum = nn.Linear(size, 2 * _BINS)
        self.register_buffer("window", torch.hann_window(WINDOW))

    def forward(self, mel: Tensor) -> Tensor:
        """Returns waves [batch, (frames - 1) * 160] of natural log mel [batch, frames, 80]."""
        hidden = self.first(mel.transpose(1, 2)).transpose(1, 2)
        for block in self.blocks:
            hidden = block(hidden)
        level, phase = self.spectrum(self.norm(hidden)).float().transpose(1, 2).chunk(2, dim=1)
        spectrum = torch.polar(torch.exp(torch.clamp(level, max=_LOUDEST)), phase)
        return torch.istft(spectrum, WINDOW, HOP, WINDOW, self.window, center=True)


def spectral_loss(made: Tensor, true: Tensor, points: int) -> Tensor:
    """Returns spectral convergence plus log magnitude distance at one resolution (Yamamoto et al. 2020).

    Args:
        made: Waves [batch, samples].
        true: The same shape.
        points: Of the transform; the hop is a quarter.
    """
    window = torch.hann_window(points)

    def magnitudes(wave: Tensor) -> Tensor:
        found: Tensor = torch.stft(wave, points, points // 4, points, window, return_complex=True).abs()
        return found.clamp_min(1e-5)

    ours, theirs = magnitudes(made), magnitudes(true)
    convergence: Tensor = torch.linalg.norm(theirs - ours) / torch.linalg.norm(theirs)
    distance: Tensor = (theirs.log() - ours.log()).abs().mean()
    return convergence + distance
