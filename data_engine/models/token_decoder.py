"""Codes to mel: a deterministic estimate from both code streams and the speaker, refined by flow matching.

A group of two linguistic and three semantic codes is 120 ms, twelve mel frames of 10 ms, computed as six pairs of
frames. Optimal-transport conditional flow matching: Lipman et al. 2022 (arXiv 2210.02747), as in CosyVoice.
"""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor, nn

from data_engine.models.semantic_tokenizer import DIMENSIONS, LEVELS, NUM_CODES

MEL_BANDS, PAIR = 80, 2
PAIRS_PER_GROUP = 6
LINGUISTIC_PER_GROUP, SEMANTIC_PER_GROUP = 2, 3
SPEAKER_SIZE = 256
_KERNEL = 7


class ConditionedBlock(nn.Module):
    """ConvNeXt block whose normalised input is scaled and shifted by a condition (FiLM, Perez et al. 2018).

    Args:
        size: Channels.
        hidden: Channels inside.
        condition: Size of the condition.
        dilation: Of the convolution over time.
    """

    def __init__(self, size: int, hidden: int, condition: int, dilation: int = 1) -> None:
        super().__init__()
        padding = _KERNEL // 2 * dilation
        self.depthwise = nn.Conv1d(size, size, _KERNEL, padding=padding, groups=size, dilation=dilation)
        self.norm = nn.LayerNorm(size, elementwise_affine=False)
        self.film = nn.Linear(condition, 2 * size)
        self.widen = nn.Linear(size, hidden)
        self.narrow = nn.Linear(hidden, size)
        self.scale = nn.Parameter(torch.full((size,), 0.5))

    def forward(self, hidden: Tensor, condition: Tensor) -> Tensor:
        """Returns [batch, frames, size] from the same shape and a condition [batch, condition]."""
        moved = self.norm(self.depthwise(hidden.transpose(1, 2)).transpose(1, 2))
        gain, shift = self.film(condition)[:, None].chunk(2, dim=-1)
        change: Tensor = self.narrow(nn.functional.gelu(self.widen(moved * (1 + gain) + shift)))
        return hidden + self.scale * change


class CodeConditioner(nn.Module):
    """Both code streams to one vector per 20 ms and to the deterministic mel.

    Args:
        codebook: Centroids of the linguistic codes, float32 [1024, states]; frozen.
        size: Channels.
        hidden: Channels inside blocks.
    """

    codebook: Tensor

    def __init__(self, codebook: Tensor, size: int = 256, hidden: int = 768) -> None:
        super().__init__()
        self.register_buffer("codebook", codebook)
        self.centroid = nn.Linear(codebook.shape[1], size)
        self.linguistic = nn.Embedding(len(codebook), size)
        self.point = nn.Linear(DIMENSIONS, size)
        self.semantic = nn.Embedding(NUM_CODES, size)
        self.phase = nn.Embedding(PAIRS_PER_GROUP, size)
        self.blocks = nn.ModuleList(ConditionedBlock(size, hidden, SPEAKER_SIZE) for _ in range(4))
        self.mel = nn.Linear(size, PAIR * MEL_BANDS)
        for table in (self.linguistic, self.semantic, self.phase):
            nn.init.normal_(table.weight, std=0.1)

    def forward(self, linguistic: Tensor, semantic: Tensor, speaker: Tensor) -> tuple[Tensor, Tensor]:
        """Returns states [batch, 6 groups, size] and the mel estimate [batch, 12 groups, 80].

        Args:
            linguistic: Codes [batch, 2 groups].
            semantic: Codes [batch, 3 groups].
            speaker: Unit-length embedding [batch, 256].
        """
        words = self.centroid(self.codebook[linguistic]) + self.linguistic(linguistic)
        sounds = self.point(code_points(semantic)) + self.semantic(semantic)
        hidden = words.repeat_interleave(3, dim=1) + sounds.repeat_interleave(2, dim=1)
        hidden = hidden + self.phase(torch.arange(hidden.shape[1]) % PAIRS_PER_GROUP)
        for block in self.blocks:
            hidden = block(hidden, speaker)
        return hidden, unpacked(self.mel(hidden))


class FlowEstimator(nn.Module):
    """The velocity that carries noise to mel.

    Args:
        size: Channels.
        hidden: Channels inside blocks.
        blocks: How many.
    """

    def __init__(self, size: int = 256, hidden: int = 768, blocks: int = 8) -> None:
        super().__init__()
        self.first = nn.Linear(2 * PAIR * MEL_BANDS + size, size)
        self.time = nn.Sequential(nn.Linear(64, SPEAKER_SIZE), nn.SiLU(), nn.Linear(SPEAKER_SIZE, SPEAKER_SIZE))
        dilations = [1 + number % 2 for number in range(blocks)]
        self.blocks = nn.ModuleList(ConditionedBlock(size, hidden, SPEAKER_SIZE, dilation) for dilation in dilations)
        self.last = nn.Linear(size, PAIR * MEL_BANDS)
        nn.init.zeros_(self.last.weight)

    def forward(self, noisy: Tensor, mean: Tensor, states: Tensor, speaker: Tensor, time: Tensor) -> Tensor:
        """Returns the velocity [batch, frames, 80].

        Args:
            noisy: Point on the path [batch, frames, 80]; frames are even.
            mean: Estimate of `CodeConditioner` [batch, frames, 80].
            states: Its states [batch, frames / 2, size].
            speaker: [batch, 256].
            time: 0 for noise, 1 for mel, [batch].
        """
        hidden = self.first(torch.cat([packed(noisy), packed(mean), states], dim=-1))
        condition = speaker + self.time(time_features(time))
        for block in self.blocks:
            hidden = block(hidden, condition)
        return unpacked(self.last(hidden))


def code_points(codes: Tensor) -> Tensor:
    """Returns the six numbers in -1..1 of semantic codes, [..., 6]; the inverse of `indices`."""
    weights = LEVELS ** torch.arange(DIMENSIONS)
    digits: Tensor = codes[..., None] // weights % LEVELS
    points: Tensor = digits * (2 / (LEVELS - 1)) - 1
    return points


def packed(mel: Tensor) -> Tensor:
    """Returns pairs of mel frames side by side, [batch, frames / 2, 160]."""
    return mel.reshape(len(mel), -1, PAIR * MEL_BANDS)


def unpacked(pairs: Tensor) -> Tensor:
    """Returns single mel frames, [batch, 2 pairs, 80]."""
    return pairs.reshape(len(pairs), -1, MEL_BANDS)


def time_features(time: Tensor) -> Tensor:
    """Returns 32 sines and cosines of times 0..1, [batch, 64]."""
    angles = time[:, None] * torch.exp(torch.linspace(0, math.log(1000.0), 32))
    return torch.cat([angles.sin(), angles.cos()], dim=-1)


def flow_loss(estimator: FlowEstimator, mel: Tensor, mean: Tensor, states: Tensor, speaker: Tensor) -> Tensor:
    """Returns the squared error of the velocity at a drawn time of the straight path from noise to mel."""
    noise, time = torch.randn_like(mel), torch.rand(len(mel))
    share = time[:, None, None]
    velocity = estimator((1 - share) * noise + share * mel, mean, states, speaker, time)
    loss: Tensor = (velocity.float() - (mel - noise)).square().mean()
    return loss


def sample(
    estimator: FlowEstimator, mean: Tensor, states: Tensor, speaker: Tensor, noise: Tensor, steps: int
) -> Tensor:
    """Returns mel by Euler steps along a cosine schedule of time, [batch, frames, 80].

    Args:
        estimator: Trained.
        mean: Estimate of `CodeConditioner`.
        states: Its states.
        speaker: [batch, 256].
        noise: Where to start, [batch, frames, 80]; scaled down, it gives smoother speech.
        steps: Number of steps.
    """
    times = 1 - torch.cos(torch.linspace(0, 1, steps + 1) * math.pi / 2)
    mel = noise
    for start, end in pairwise(times):
        velocity = estimator(mel, mean, states, speaker, start.expand(len(mel)))
        mel = mel + (end - start) * velocity
    return mel
