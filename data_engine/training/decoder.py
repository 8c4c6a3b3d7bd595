"""Trains the token decoder: codes and a speaker to mel, deterministic estimate and flow matching together."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from data_engine.core.config import Settings
from data_engine.models.codec_views import normalise_peak
from data_engine.models.decoder_export import ExportedDecoder, export_decoder
from data_engine.models.features import MelSettings, log_mel
from data_engine.models.semantic_tokenizer import NUM_CODES
from data_engine.models.token_decoder import CodeConditioner, FlowEstimator, flow_loss
from data_engine.training.codes import CodedPart, load_coded
from data_engine.training.loop import LoopSettings, Training, halve

GROUP_SAMPLES, GROUP_FRAMES = 1920, 12
MEL_MEAN, MEL_SCALE = -5.0, 2.5
"""What takes natural log mel to about zero mean and unit variance."""


class DecoderSettings(Settings):
    """A training of the decoder.

    Attributes:
        output: Folder of checkpoint and logs.
        cache: Folder of the decoded corpus.
        codes: Folder that `data_engine.training.codes` made.
        linguistic: Folder with `linguistic_tokenizer.npy`.
        weights: Share of each part in the segments drawn.
        segments: Segments of a batch.
        groups: Groups of 120 ms in a segment.
        corrupted: Share of codes replaced at random in a third of the batches.
        flow_steps: Euler steps of flow matching in the finished file; 0: the deterministic estimate alone.
        loop: How long and how fast.
    """

    output: Path
    cache: Path
    codes: Path
    linguistic: Path
    weights: dict[str, float]
    segments: int = 12
    groups: int = 20
    corrupted: float = 0.08
    flow_steps: int = 6
    loop: LoopSettings = LoopSettings()


@dataclass(frozen=True, slots=True, eq=False)
class Segments:
    """A batch: codes [batch, 2 or 3 x groups], speakers [batch, 256], normalised mel [batch, 12 x groups, 80]."""

    linguistic: Tensor
    semantic: Tensor
    speaker: Tensor
    mel: Tensor


class TokenDecoder(nn.Module):
    """Conditioner and flow estimator, trained together."""

    def __init__(self, codebook: Tensor) -> None:
        super().__init__()
        self.conditioner = CodeConditioner(codebook)
        self.flow = FlowEstimator()


def draw(parts: list[CodedPart], config: DecoderSettings, step: int) -> Segments:
    """Returns the segments of a step."""
    rng = np.random.default_rng([config.loop.seed, step])
    shares = np.array([config.weights[coded.part.name] for coded in parts])
    rows = [
        _segment(parts[rng.choice(len(parts), p=shares / shares.sum())], config, rng) for _ in range(config.segments)
    ]
    linguistic, semantic, speakers, mels = (np.stack(column) for column in zip(*rows, strict=True))
    if rng.random() < 1 / 3:
        linguistic = _corrupted(linguistic, 1024, config.corrupted, rng)
        semantic = _corrupted(semantic, NUM_CODES, config.corrupted, rng)
    return Segments(*(torch.from_numpy(array) for array in (linguistic, semantic, speakers, mels)))


def _corrupted(codes: np.ndarray, size: int, share: float, rng: np.random.Generator) -> np.ndarray:
    return np.where(rng.random(codes.shape) < share, rng.integers(0, size, codes.shape), codes)


def _segment(coded: CodedPart, config: DecoderSettings, rng: np.random.Generator) -> tuple[np.ndarray, ...]:
    number = int(rng.choice(np.flatnonzero(coded.groups >= config.groups)))
    start = int(rng.integers(coded.groups[number] - config.groups + 1))
    group, wave = int(coded.first[number]) + start, coded.part.utterance(int(coded.chosen[number])).wave
    mel = (log_mel(normalise_peak(wave), MelSettings()) - MEL_MEAN) / MEL_SCALE
    frames = np.clip(np.arange(config.groups * GROUP_FRAMES) + start * GROUP_FRAMES, 0, len(mel) - 1)
    return (
        coded.linguistic[2 * group : 2 * (group + config.groups)],
        coded.semantic[3 * group : 3 * (group + config.groups)], coded.speakers[number], mel[frames].astype(np.float32),
    )  # fmt: skip


def losses_of(model: TokenDecoder, batch: Segments) -> dict[str, Tensor]:
    """Returns the distance of the deterministic mel and the error of the flow's velocity."""
    with torch.autocast("cpu", torch.bfloat16):
        states, mean = model.conditioner(batch.linguistic, batch.semantic, batch.speaker)
        flow = flow_loss(model.flow, batch.mel, mean.detach().float(), states, batch.speaker)
    return {"mel": (mean.float() - batch.mel).abs().mean(), "flow": flow}


def train(config: DecoderSettings) -> None:
    """Trains from scratch, or goes on from the checkpoint in `config.output`; writes `decoder.onnx` at the end."""
    torch.set_num_threads(1)
    torch.manual_seed(config.loop.seed)
    parts = load_coded(config.cache, config.codes, list(config.weights))
    model = TokenDecoder(torch.from_numpy(np.load(config.linguistic / "linguistic_tokenizer.npy")))
    training = Training(model, config.output, config.loop)
    training.resume()

    def step(number: int) -> tuple[dict[str, Tensor], float]:
        return losses_of(model, draw(parts, config, number)), config.segments * config.groups * GROUP_SAMPLES / 16000

    def evaluate() -> dict[str, Any]:
        torch.manual_seed(0)
        found = [losses_of(model, draw(parts, config, 10_000_000 + number)) for number in range(4)]
        return {name: round(float(np.mean([losses[name].item() for losses in found])), 4) for name in found[0]}

    training.run(step, evaluate)
    release(model, config)


def release(model: TokenDecoder, config: DecoderSettings) -> None:
    """Writes `decoder.onnx` with the weights in half precision."""
    halve(model.eval())
    exported = ExportedDecoder(model.conditioner, model.flow, config.flow_steps, MEL_MEAN, MEL_SCALE)
    export_decoder(exported, config.output / "decoder.onnx")
