"""The semantic tokenizer: 4,096 codes at 25 Hz by finite scalar quantisation of a small convolutional encoder.

Supervised semantic tokens as in CosyVoice (arXiv 2407.05407, sec. 3.1), finite scalar quantisation after Mentzer et
al. 2023 (arXiv 2309.15505): six dimensions of four levels each. Its ONNX has the inputs and the output of CosyVoice's
`speech_tokenizer_v1.onnx`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from data_engine.models.onnx_storage import store_halves
from data_engine.models.whisper_mel import BANDS

LEVELS, DIMENSIONS = 4, 6
NUM_CODES = LEVELS**DIMENSIONS
_HALF = (LEVELS - 1) / 2
_KERNEL = 9
_SPREAD = 1.2
"""Deviation before tanh at which normally distributed points fall on the four levels equally often."""


class ConvNextBlock(nn.Module):
    """Depth-wise convolution over time, then a two-layer network per frame, with a residual (Liu et al. 2022).

    Args:
        size: Channels.
        hidden: Channels inside.
    """

    def __init__(self, size: int, hidden: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv1d(size, size, _KERNEL, padding=_KERNEL // 2, groups=size)
        self.norm = nn.LayerNorm(size)
        self.widen = nn.Linear(size, hidden)
        self.narrow = nn.Linear(hidden, size)
        self.scale = nn.Parameter(torch.full((size,), 0.5))

    def forward(self, hidden: Tensor) -> Tensor:
        """Returns [batch, frames, size] of the same shape."""
        moved = self.depthwise(hidden.transpose(1, 2)).transpose(1, 2)
        change: Tensor = self.narrow(nn.functional.gelu(self.widen(self.norm(moved))))
        return hidden + self.scale * change


class SemanticEncoder(nn.Module):
    """Log-mel to six numbers in -1..1 per 40 ms.

    Args:
        size: Channels.
        hidden: Channels inside the blocks.
        blocks: How many blocks.
    """

    def __init__(self, size: int = 256, hidden: int = 768, blocks: int = 6) -> None:
        super().__init__()
        self.first = nn.Conv1d(BANDS, size, 4, stride=2, padding=1)
        self.second = nn.Conv1d(size, size, 4, stride=2, padding=1)
        self.blocks = nn.ModuleList(ConvNextBlock(size, hidden) for _ in range(blocks))
        self.norm = nn.LayerNorm(size)
        self.narrow = nn.Linear(size, DIMENSIONS)
        # Unit variance before the bound keeps all four levels of every dimension in use.
        self.spread = nn.BatchNorm1d(DIMENSIONS, affine=False)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Returns states [batch, tokens, size] and points in -1..1, [batch, tokens, 6].

        Args:
            features: Whisper log-mel [batch, 128, frames]; tokens = (frames + 3) // 4.
        """
        frames = features.shape[2]
        missing = (frames + 3) // 4 * 4 - frames
        padded = nn.functional.pad(features, (0, missing))
        hidden = nn.functional.gelu(self.first(padded))
        hidden = nn.functional.gelu(self.second(hidden)).transpose(1, 2)
        for block in self.blocks:
            hidden = block(hidden)
        states = self.norm(hidden)
        spread = self.spread(self.narrow(states).float().transpose(1, 2)).transpose(1, 2)
        return states, torch.tanh(_SPREAD * spread) * 0.999


def quantised(points: Tensor) -> Tensor:
    """Returns points moved to the nearest of the four levels -1, -1/3, 1/3, 1; gradients pass straight through."""
    levels = torch.round((points + 1) * _HALF) / _HALF - 1
    return points + (levels - points).detach()


def noised(points: Tensor) -> Tensor:
    """Returns points with uniform noise of one level's width, which trains like quantising but with true gradients."""
    return points + (torch.rand_like(points) - 0.5) / _HALF


def indices(points: Tensor) -> Tensor:
    """Returns code numbers 0..4095, int32 [batch, tokens]; the first dimension counts least."""
    digits = torch.round((points + 1) * _HALF)
    weights = torch.tensor([float(LEVELS**n) for n in range(DIMENSIONS)])
    return (digits * weights).sum(-1).to(torch.int32)


class ExportedTokenizer(nn.Module):
    """Clips side by side: feats [batch, 128, frames] and feats_length [batch] to indices [batch, tokens], for ONNX.

    What is beyond a clip's length is silenced before every convolution, so that padding changes no code.
    """

    def __init__(self, encoder: SemanticEncoder) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, feats: Tensor, feats_length: Tensor) -> Tensor:
        """Returns int32 [batch, (frames + 3) // 4]; codes beyond a clip's own (feats_length + 3) // 4 mean nothing."""
        encoder, tokens = self.encoder, (feats_length.long() + 3) // 4
        frames = feats.shape[2]
        padded = nn.functional.pad(feats, (0, (frames + 3) // 4 * 4 - frames))
        padded = padded * _inside(padded.shape[2], feats_length.long()).transpose(1, 2)
        hidden = nn.functional.gelu(encoder.first(padded))
        hidden = hidden * _inside(hidden.shape[2], 2 * tokens).transpose(1, 2)
        hidden = nn.functional.gelu(encoder.second(hidden)).transpose(1, 2)
        inside = _inside(hidden.shape[1], tokens)
        for block in encoder.blocks:
            hidden = block(hidden * inside)
        spread = encoder.spread(encoder.narrow(encoder.norm(hidden)).float().transpose(1, 2)).transpose(1, 2)
        return indices(torch.tanh(_SPREAD * spread) * 0.999)


def _inside(count: Any, lengths: Tensor) -> Tensor:
    """Returns 1 inside each clip and 0 beyond it, [batch, count, 1]."""
    return (torch.arange(count)[None] < lengths[:, None]).float()[:, :, None]


def export(encoder: SemanticEncoder, path: str) -> None:
    """Writes the ONNX file.

    Args:
        encoder: Trained, on the CPU.
        path: File to write.
    """
    example = (torch.zeros(2, BANDS, 403), torch.tensor([403, 300], dtype=torch.int32))
    torch.onnx.export(
        ExportedTokenizer(encoder).eval(), example, path, dynamo=False, opset_version=17,
        input_names=["feats", "feats_length"], output_names=["indices"],
        dynamic_axes={"feats": {0: "batch", 2: "frames"}, "feats_length": {0: "batch"},
                      "indices": {0: "batch", 1: "tokens"}},
    )  # fmt: skip
    store_halves(Path(path))
