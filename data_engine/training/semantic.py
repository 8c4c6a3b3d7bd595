"""Trains the semantic tokenizer: phones, pitch and the mel itself must be readable from its codes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from data_engine.models.fake_quant import Bits, FakeQuantiser, put_on_grid
from data_engine.models.phones import TOKENS
from data_engine.models.semantic_tokenizer import (
    DIMENSIONS,
    ConvNextBlock,
    SemanticEncoder,
    export,
    indices,
    noised,
    quantised,
)
from data_engine.models.whisper_mel import BANDS, TOKEN_SAMPLES, whisper_log_mel
from data_engine.training.batches import Batch, Batches, Floats, Grid
from data_engine.training.loop import Training, halve
from data_engine.training.scoring import perplexity
from data_engine.training.speech.waves import load
from data_engine.training.ssql import PretrainSettings, SelfSupervised, pretrain
from data_engine.training.tokenizer_training import (
    TokenizerSettings,
    phone_error_rates,
    phone_losses,
    test_examples,
)

GRID = Grid(whisper_log_mel, TOKEN_SAMPLES, 240, 4)
"""Token n is centred on sample 640 n + 240: between the middles of its second and third mel frame."""

_FRAMES = 4
_MIDDLE = 7.0
"""log2 of 128 Hz."""
_NEPER = 0.25 / math.log(10)
"""How much Whisper's log-mel, a quarter of a logarithm to base 10, grows with a factor of e of energy."""


class SemanticSettings(TokenizerSettings):
    """A training of the semantic tokenizer.

    Attributes:
        reconstruction: Weight of the mel that is rebuilt from the codes.
        pitch: Weight of the pitch that is read from single codes.
        pretrain: Self-supervised pre-training of the encoder, before anything else; none by default.
        quantised_share: Share of steps whose encoder runs with weights and activations rounded to 8 bits.
    """

    reconstruction: float = 0.0
    pitch: float = 0.0
    pretrain: PretrainSettings = PretrainSettings()
    quantised_share: float = 0.0


class SemanticTraining(nn.Module):
    """The tokenizer with the heads that teach it and are thrown away.

    Args:
        size: Channels of the encoder and the heads.
        hidden: Channels inside blocks.
    """

    def __init__(self, size: int = 256, hidden: int = 768) -> None:
        super().__init__()
        self.encoder = SemanticEncoder(size, hidden)
        self.phones_in = nn.Linear(DIMENSIONS, size)
        self.phone_blocks = nn.ModuleList(ConvNextBlock(size, hidden // 2) for _ in range(2))
        self.ctc = nn.Linear(size, len(TOKENS))
        self.frame = nn.Linear(size, len(TOKENS))
        self.mel_in = nn.Linear(DIMENSIONS + 2 * BANDS, size)
        self.mel_blocks = nn.ModuleList(ConvNextBlock(size, hidden // 2) for _ in range(2))
        self.mel_out = nn.Linear(size, _FRAMES * BANDS)
        self.pitch = nn.Sequential(nn.Linear(DIMENSIONS, 64), nn.GELU(), nn.Linear(64, 1))

    def forward(self, mel: Tensor, codes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Returns CTC logits, frame logits [batch, tokens, phones] and the mel [batch, 4 tokens, 128] from codes.

        Args:
            mel: [batch, frames, 128]; its mean and deviation over time are given away, so that codes need not hold
                the speaker and the channel.
            codes: Points in -1..1 [batch, tokens, 6].
        """
        hidden = self.phones_in(codes)
        for block in self.phone_blocks:
            hidden = block(hidden)
        colour = torch.cat([mel.mean(1), mel.std(1)], dim=-1)[:, None].expand(-1, codes.shape[1], -1)
        shape = self.mel_in(torch.cat([codes, colour], dim=-1))
        for block in self.mel_blocks:
            shape = block(shape)
        rebuilt = self.mel_out(shape).reshape(len(mel), -1, BANDS)
        return self.ctc(hidden), self.frame(hidden), rebuilt[:, : mel.shape[1]]


class EncoderStates(nn.Module):
    """The encoder as `training.ssql` sees it: features [batch, frames, 128] to states [batch, tokens, size]."""

    def __init__(self, encoder: SemanticEncoder) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, features: Tensor) -> Tensor:
        """Returns the states."""
        states: Tensor = self.encoder(features.transpose(1, 2))[0]
        return states


def pretrain_encoder(encoder: SemanticEncoder, batches: Batches, config: SemanticSettings) -> None:
    """Runs SSQL, or its plain method, on the encoder; goes on from `ssql/state.pt` in the output folder."""
    ends = tuple(f"encoder.blocks.{number}.narrow" for number in range(len(encoder.blocks)))
    size = encoder.norm.normalized_shape[0]
    model = SelfSupervised(
        EncoderStates(encoder), size, config.pretrain.width, config.pretrain.momentum, "encoder.first", ends
    )

    def draw(number: int) -> tuple[Tensor, Tensor, float]:
        batch = batches.batch(number)
        counts = torch.from_numpy((batch.lengths + _FRAMES - 1) // _FRAMES)
        inside = torch.arange(batch.frames.shape[1])[None] < counts[:, None]
        return torch.from_numpy(batch.features), inside, batch.seconds

    pretrain(model, draw, config.output / "ssql", config.pretrain, config.loop, _NEPER)


def points_of(encoder: SemanticEncoder, mel: Tensor, share: float) -> Tensor:
    """Returns points [batch, tokens, 6]; in a share of the calls from weights and activations rounded to 8 bits.

    Args:
        encoder: What is trained.
        mel: [batch, frames, 128].
        share: 0..1, drawn from torch's generator; 0 draws nothing.
    """
    if share > 0 and float(torch.rand(())) < share:
        with torch.autocast("cpu", enabled=False):  # bfloat16 has no more than 8 bits of its own
            points: Tensor = FakeQuantiser(encoder).run(Bits(8, 8), None, mel.transpose(1, 2))[1]
    else:
        points = encoder(mel.transpose(1, 2))[1].float()
    return points


def losses_of(model: SemanticTraining, batch: Batch, config: SemanticSettings, number: int) -> dict[str, Tensor]:
    """Returns the weighted losses of a batch; codes are rounded in every other step and noised in the others."""
    mel = torch.from_numpy(batch.features)
    with torch.autocast("cpu", torch.bfloat16):
        points = points_of(model.encoder, mel, config.quantised_share)
        codes = quantised(points) if number % 2 else noised(points)
        ctc, frames, rebuilt = model(mel, codes)
    losses = phone_losses(ctc, frames, batch, GRID, (config.ctc, config.frames))
    inside = torch.arange(mel.shape[1])[None] < torch.from_numpy(batch.lengths)[:, None]
    distance = (rebuilt.float() - mel).abs().mean(-1)
    losses["mel"] = config.reconstruction * (distance * inside).sum() / inside.sum()
    losses["pitch"] = config.pitch * pitch_loss(model.pitch(codes), torch.from_numpy(batch.pitch))
    return losses


def pitch_loss(read: Tensor, measured: Tensor) -> Tensor:
    """Returns the mean distance in octaves of what single codes say and the measured pitch, where that is known.

    Args:
        read: Octaves over 128 Hz [utterances, tokens, 1].
        measured: log2 of F0 in Hz [utterances, tokens], NaN where it is not known.
    """
    known = torch.isfinite(measured)
    distance = (read[..., 0][known] - (measured[known] - _MIDDLE)).abs()
    return distance.sum() / max(int(known.sum()), 1)


def best_paths(model: SemanticTraining, features: Sequence[Floats]) -> list[npt.NDArray[np.int64]]:
    """Returns the best CTC token of each 40 ms from the codes of each utterance alone."""
    paths = []
    for rows in features:
        mel = torch.from_numpy(rows)[None]
        codes = quantised(model.encoder(mel.transpose(1, 2))[1])
        paths.append(model(mel, codes)[0][0].argmax(-1).numpy())
    return paths


def codes_of(model: SemanticTraining, features: Sequence[Floats]) -> npt.NDArray[np.int64]:
    """Returns the codes of all utterances, one after the other."""
    found = [indices(model.encoder(torch.from_numpy(rows).T[None])[1])[0].numpy() for rows in features]
    codes: npt.NDArray[np.int64] = np.concatenate(found).astype(np.int64)
    return codes


def train(config: SemanticSettings) -> None:
    """Trains from scratch, or goes on from the checkpoint in `config.output`; writes the ONNX file at the end."""
    torch.set_num_threads(1)
    torch.manual_seed(config.loop.seed)
    batches = Batches(load(config.cache, list(config.batches.weights)), config.batches, GRID, config.loop.seed)
    model = SemanticTraining()
    training = Training(model, config.output, config.loop)
    if not training.resume() and (config.pretrain.minutes or config.pretrain.steps):
        pretrain_encoder(model.encoder, batches, config)
    examples = test_examples(load(config.cache, config.tests), GRID, config.test_utterances)

    def step(number: int) -> tuple[dict[str, Tensor], float]:
        batch = batches.batch(number)
        return losses_of(model, batch, config, number), batch.seconds

    def evaluate() -> dict[str, Any]:
        codes = codes_of(model, [features for pairs in examples.values() for features, _ in pairs])
        used = {"codes": len(codes), "codes_used": len(np.unique(codes)), "perplexity": round(perplexity(codes), 1)}
        return phone_error_rates(examples, lambda features: best_paths(model, features)) | used

    training.run(step, evaluate)
    if config.weights_on_grid:
        put_on_grid(model.encoder)
    halve(model.eval())
    export(model.encoder, str(config.output / "speech_tokenizer_v1.onnx"))
