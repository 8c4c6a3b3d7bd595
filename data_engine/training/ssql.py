"""SSQL (arXiv 2207.05432): self-supervised pre-training whose encoder also works with few bits.

Two augmented views of the same speech; the same frame of both is a pair. The targets are those of a network that
follows the trained one slowly, SSQL's variant on BYOL (Grill et al. 2020, arXiv 2006.07733), or of the trained one
itself: SimSiam (Chen and He 2021, arXiv 2011.10566). Each step runs the encoder in float, which gives the ranges of
activations, and once more with weights of 2..8 and activations of 4..8 bits, drawn anew; one copy of the weights, mean
of both losses.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from data_engine.core.config import Settings
from data_engine.models.fake_quant import Bits, FakeQuantiser, Moments, Plan, Ranges
from data_engine.training.loop import LoopSettings, Training

WEIGHT_BITS, ACTIVATION_BITS = (2, 8), (4, 8)
_GAIN, _NOISE = 3.0, 1.7
"""Decibels: of a view at most, and the standard deviation of its noise in each band of each frame. Gains of 10 dB, or
noise that hides weak bands, cost the probe of `ssql_accept` 4 to 5 points of phones (one seed, SimSiam)."""


class PretrainSettings(Settings):
    """Self-supervised pre-training before the training proper.

    Attributes:
        minutes: Processor minutes; 0 leaves it out.
        steps: Steps instead of minutes, for trainings that are to be compared.
        quantised: SSQL; otherwise the plain method in float.
        momentum: How much of itself the network that gives the targets keeps each step; 0 is SimSiam.
        rate: Peak learning rate of AdamW.
        width: Channels of projector and predictor.
    """

    minutes: float = 0.0
    steps: int = 0
    quantised: bool = True
    momentum: float = Field(default=0.99, ge=0, lt=1)
    rate: float = 1e-3
    width: int = 512


class Projector(nn.Sequential):
    """Three layers with batch normalisation, the last one without scale and shift (SimSiam, sec. 3)."""

    def __init__(self, size: int, width: int) -> None:
        super().__init__(
            nn.Linear(size, width, bias=False), nn.BatchNorm1d(width), nn.ReLU(),
            nn.Linear(width, width, bias=False), nn.BatchNorm1d(width), nn.ReLU(),
            nn.Linear(width, width, bias=False), nn.BatchNorm1d(width, affine=False),
        )  # fmt: skip


class Predictor(nn.Sequential):
    """Two layers as wide as the projection (SSQL's recipe for CIFAR); always in float."""

    def __init__(self, width: int) -> None:
        super().__init__(nn.Linear(width, width, bias=False), nn.BatchNorm1d(width), nn.ReLU(), nn.Linear(width, width))


class Embedder(nn.Module):
    """Encoder states of the frames that count, projected.

    Args:
        encoder: Features [batch, frames, bands] to states [batch, tokens, size].
        size: Channels of the states.
        width: Of the projection.
    """

    def __init__(self, encoder: nn.Module, size: int, width: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.projector = Projector(size, width)

    def forward(self, features: Tensor, inside: Tensor) -> Tensor:
        """Returns [frames that count, width].

        Args:
            features: [batch, frames, bands].
            inside: Which tokens count [batch, tokens].
        """
        projected: Tensor = self.projector(self.encoder(features)[inside])
        return projected


class SelfSupervised(nn.Module):
    """What is pre-trained.

    Args:
        encoder: As in `Embedder`.
        size: Channels of its states.
        width: Of projector and predictor.
        momentum: As in `PretrainSettings`.
        first: Name of the encoder's first layer, which keeps 8/8.
        float_inputs: Layers of the encoder whose input stays float: those that end a block.
    """

    def __init__(
        self, encoder: nn.Module, size: int, width: int, momentum: float, first: str,
        float_inputs: tuple[str, ...] = (),
    ) -> None:  # fmt: skip
        super().__init__()
        self.embedder = Embedder(encoder, size, width)
        self.predictor = Predictor(width)
        self.follower = copy.deepcopy(self.embedder).requires_grad_(False) if momentum else None
        projector = [f"projector.{n}" for n, m in self.embedder.projector.named_modules() if isinstance(m, nn.Linear)]
        inputs = [f"encoder.{name}" for name in float_inputs] + projector
        plan = Plan({f"encoder.{first}": Bits(8, 8)} | dict.fromkeys(projector, Bits(8, 8)), float_inputs=inputs)
        self.quantiser = FakeQuantiser(self.embedder, plan)
        self._momentum = momentum

    @torch.no_grad()
    def targets(
        self, views: tuple[Tensor, Tensor], inside: Tensor, projected: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Returns what predictions are compared with, [frames that count, width] of each view.

        Those are the follower's projections, after it has moved; without one the given projections.
        """
        if self.follower is None:
            return projected
        for slow, quick in zip(self.follower.parameters(), self.embedder.parameters(), strict=True):
            slow.lerp_(quick, 1 - self._momentum)
        return self.follower(views[0], inside), self.follower(views[1], inside)


def drawn_bits() -> Bits:
    """Returns bits for one pass from torch's generator: weights 2..8, activations 4..8, all equally likely."""
    weights = int(torch.randint(WEIGHT_BITS[0], WEIGHT_BITS[1] + 1, ()))
    return Bits(weights, int(torch.randint(ACTIVATION_BITS[0], ACTIVATION_BITS[1] + 1, ())))


def similarity_loss(predicted: tuple[Tensor, Tensor], targets: tuple[Tensor, Tensor]) -> Tensor:
    """Returns the negative cosine of each view's prediction and the other's target, -1..1 (SimSiam, eq. 1 and 2).

    Args:
        predicted: Of both views [frames, width].
        targets: Projections of both views; no gradient flows into them.
    """
    first = functional.cosine_similarity(predicted[0], targets[1].detach(), dim=-1).mean()
    second = functional.cosine_similarity(predicted[1], targets[0].detach(), dim=-1).mean()
    return -(first + second) / 2


def ssql_losses(
    model: SelfSupervised, views: tuple[Tensor, Tensor], inside: Tensor, quantised: bool
) -> dict[str, Tensor]:
    """Returns the losses of a step; their sum is SSQL's: half the float one and half the quantised one.

    The quantised pass normalises with the moments of the float pass, as an encoder in use does, where SSQL's code takes
    those of the quantised pass.

    Args:
        model: What is trained.
        views: Features [batch, frames, bands] of the same speech.
        inside: Which tokens count [batch, tokens].
        quantised: SSQL; otherwise the plain method.
    """
    bits = drawn_bits()
    ranges: Ranges = {}
    moments: tuple[Moments, Moments] = {}, {}
    z = _observed(model, ranges, moments[0], views[0], inside), _observed(model, ranges, moments[1], views[1], inside)
    targets = model.targets(views, inside, z)
    plain = similarity_loss((model.predictor(z[0]), model.predictor(z[1])), targets)
    if not quantised:
        return {"plain": plain}
    run = model.quantiser.run
    q = run(bits, ranges, views[0], inside, moments=moments[0]), run(bits, ranges, views[1], inside, moments=moments[1])
    rough = similarity_loss((model.predictor(q[0]), model.predictor(q[1])), targets)
    return {"plain": plain / 2, "ssql": rough / 2}


def _observed(model: SelfSupervised, ranges: Ranges, moments: Moments, view: Tensor, inside: Tensor) -> Tensor:
    with model.quantiser.observing(ranges, moments):
        projected: Tensor = model.embedder(view, inside)
    return projected


def view(features: Tensor, neper: float) -> Tensor:
    """Returns log energies [batch, frames, bands] at another gain, with noise and with neighbouring bands masked.

    Args:
        features: Log energies [batch, frames, bands].
        neper: How much a feature grows when energy grows by a factor of e.
    """
    batch, _, bands = features.shape
    decibel = neper * 0.2303
    gain = (2 * torch.rand(batch, 1, 1) - 1) * _GAIN * decibel
    noisy = features + gain + _NOISE * decibel * torch.randn_like(features)
    width = bands // 10
    first = torch.randint(0, bands - width, (batch, 1, 1))
    band = torch.arange(bands)
    return torch.where((band >= first) & (band < first + width), noisy.mean(dim=(1, 2), keepdim=True), noisy)


def pretrain(
    model: SelfSupervised, draw: Callable[[int], tuple[Tensor, Tensor, float]], folder: Path,
    settings: PretrainSettings, loop: LoopSettings, neper: float,
) -> None:  # fmt: skip
    """Trains until its minutes are spent; goes on from the checkpoint in `folder`, where it also logs.

    Args:
        model: What is trained.
        draw: Step number to features [batch, frames, bands], which tokens count, and seconds of audio.
        folder: Of checkpoint and logs.
        settings: How.
        loop: Seed and how often to log and save.
        neper: As in `view`.
    """
    chosen = loop.model_copy(update=settings.model_dump(include={"minutes", "steps", "rate"}))
    training = Training(model, folder, chosen)
    training.resume()

    def step(number: int) -> tuple[dict[str, Tensor], float]:
        features, inside, seconds = draw(number)
        views = view(features, neper), view(features, neper)
        return ssql_losses(model, views, inside, settings.quantised), seconds

    training.run(step, lambda: {})
