"""Trains the aligner NeuFA on speech whose phone times are known."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from data_engine.core.config import Settings
from data_engine.models.neufa import ExportedNeuFA, NeuFA, attentions, export, valid
from data_engine.models.neufa_features import HOP, normalised_mel, phone_spans
from data_engine.models.phones import TOKENS
from data_engine.training.aligned_batches import (
    NO_FRAME,
    AlignedBatch,
    AlignedBatches,
    AlignedSettings,
    Ints,
    Timed,
    timed,
)
from data_engine.training.loop import LoopSettings, Training, halve
from data_engine.training.speech.spoken import SAMPLE_RATE
from data_engine.training.speech.waves import Part, load

_STEEPNESS = 0.5


class WeightSettings(Settings):
    """Weights of the losses.

    Attributes:
        mel: Squared error of the mel bands that are read.
        phones: Cross-entropy of the phones that are heard.
        diagonal: Attention far from the diagonal.
        frames: Cross-entropy of w2 with the phone of each frame.
        times: Cross-entropy of w1 with the frames of each phone.
    """

    mel: float = 1.0
    phones: float = 0.1
    diagonal: float = 0.2
    frames: float = 1.0
    times: float = 0.5


class NeufaSettings(Settings):
    """A training of NeuFA.

    Attributes:
        output: Folder of checkpoint, logs and `aligner.onnx`.
        cache: Folder that `data_engine.training.speech.waves` made.
        batches: What batches are made of.
        losses: Weights of the losses.
        tests: Parts that test.
        test_utterances: Most utterances of a source that are tested while training.
        path_weight: Weight of log w2 beside log w1 in the search.
        loop: How long and how fast.
    """

    output: Path
    cache: Path
    batches: AlignedSettings
    losses: WeightSettings = WeightSettings()
    tests: tuple[str, ...] = ("test_teachers", "test_zh")
    test_utterances: int = 30
    path_weight: float = 0.5
    loop: LoopSettings = LoopSettings()


def off_diagonal(counts: Tensor, lengths: Tensor, phones: int, frames: int) -> Tensor:
    """Returns 0 on the diagonal and up to 1 away from it, [batch, phones, frames].

    tanh(0.5 (r - 1)), where r is the larger ratio of the two relative positions, seen from the start or from the end
    (arXiv 2203.16838, the diagonal attention loss).
    """
    rows = ((torch.arange(phones) + 0.5) / counts[:, None])[:, :, None]
    columns = ((torch.arange(frames) + 0.5) / lengths[:, None])[:, None, :]
    ends = [(rows, columns), ((1 - rows).clamp_min(1e-3), (1 - columns).clamp_min(1e-3))]
    ratio = torch.stack([torch.maximum(a / b, b / a) for a, b in ends]).amax(dim=0)
    return torch.tanh(_STEEPNESS * (ratio - 1))


def losses_of(model: NeuFA, batch: AlignedBatch, weights: WeightSettings) -> dict[str, Tensor]:
    """Returns the weighted losses of a batch."""
    mel, phones, labels = (torch.from_numpy(rows) for rows in (batch.mel, batch.phones, batch.labels))
    counts, lengths = torch.from_numpy(batch.counts), torch.from_numpy(batch.lengths)
    text, speech = model.encode(phones, mel, counts, lengths)
    log_w1, log_w2 = attentions(model.scores(text, speech, counts, lengths), counts, lengths)
    w1, w2 = log_w1.exp(), log_w2.exp()
    heard, read = model.decode((w1, w2), text, speech)
    rows, columns = valid(counts, phones.shape[1]), valid(lengths, mel.shape[1])
    away = off_diagonal(counts, lengths, phones.shape[1], mel.shape[1])
    strays = [(w[:, :-1, :-1] * away).sum(dim=axis)[kept] for w, axis, kept in ((w1, 2, rows), (w2, 1, columns))]
    frames, times = label_losses(log_w1, log_w2, labels, counts)
    return {
        "mel": weights.mel * functional.mse_loss(read[columns], mel[columns]),
        "phones": weights.phones * functional.cross_entropy(heard[rows], phones[rows]),
        "diagonal": weights.diagonal * torch.stack([stray.mean() for stray in strays]).sum(),
        "frames": weights.frames * frames,
        "times": weights.times * times,
    }


def label_losses(log_w1: Tensor, log_w2: Tensor, labels: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
    """Returns how little w2 knows the phone of each frame, and w1 the frames of each phone, in nats.

    Args:
        log_w1: [batch, phones + 1, frames + 1].
        log_w2: The same shape.
        labels: Position of the phone in each frame, [batch, frames].
        counts: Phones of each utterance.
    """
    known, nothing = labels != NO_FRAME, log_w1.shape[1] - 1
    rows = torch.where(labels == counts[:, None], nothing, labels).clamp_min(0)  # pauses are the last row
    chosen = rows[:, None, :]
    frames = -log_w2[:, :, :-1].gather(1, chosen)[:, 0][known]
    in_phones = known & (rows != nothing)
    held = torch.zeros(log_w1.shape[:2]).scatter_add(1, rows, in_phones.float())
    share = in_phones / held.gather(1, rows).clamp_min(1)
    times = -(log_w1[:, :, :-1].gather(1, chosen)[:, 0] * share).sum() / (held > 0).sum().clamp_min(1)
    return frames.mean(), times


def test_utterances(parts: Sequence[Part], most: int) -> dict[str, list[Timed]]:
    """Returns utterances of the test parts by source, at most so many of each, evenly chosen."""
    chosen: dict[str, list[Timed]] = {}
    for part in parts:
        for number, source in enumerate(part.sources):
            group = np.flatnonzero((part.source == number) & (part.timed > 0))
            picked = np.unique(np.linspace(0, len(group) - 1, min(most, len(group))).astype(int))
            chosen[f"{part.name}/{source}"] = [timed(part.utterance(int(group[n]))) for n in picked]
    return chosen


def boundary_errors(model: NeuFA, utterances: Sequence[Timed], path_weight: float) -> Ints:
    """Returns by how many samples each start and end of a phone is missed; pauses may be anywhere."""
    network, errors = ExportedNeuFA(model), []
    for said in utterances:
        mel = torch.from_numpy(normalised_mel(said.wave))[None]
        log_w1, log_w2 = (rows.numpy() for rows in network(mel, torch.from_numpy(said.phones)[None]))
        found = phone_spans(log_w1 + path_weight * log_w2, np.arange(len(said.phones)))
        if found is not None:
            errors.append(np.abs(found[0] * HOP - HOP // 2 - said.times).ravel())
    return np.concatenate(errors)


def train(config: NeufaSettings) -> None:
    """Trains from scratch, or goes on from the checkpoint in `config.output`; writes `aligner.onnx` at the end."""
    torch.set_num_threads(1)
    torch.manual_seed(config.loop.seed)
    batches = AlignedBatches(load(config.cache, list(config.batches.weights)), config.batches, config.loop.seed)
    model = NeuFA(len(TOKENS))
    training = Training(model, config.output, config.loop)
    training.resume()
    tests = test_utterances(load(config.cache, config.tests), config.test_utterances)

    def step(number: int) -> tuple[dict[str, Tensor], float]:
        batch = batches.batch(number)
        return losses_of(model, batch, config.losses), batch.seconds

    def evaluate() -> dict[str, Any]:
        errors = {name: boundary_errors(model, said, config.path_weight) for name, said in tests.items()}
        return {name: round(float(found.mean()) / SAMPLE_RATE, 5) for name, found in errors.items()}

    training.run(step, evaluate)
    halve(model.eval())
    export(model, config.output / "aligner.onnx")
