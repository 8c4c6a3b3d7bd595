"""Fake quantisation: float arithmetic that rounds weights and activations as integer arithmetic would.

Quantisers after SSQL (arXiv 2207.05432): weights symmetric per output channel, activations asymmetric per tensor,
ranges from minimum and maximum, gradients straight through the rounding (Bengio et al. 2013, arXiv 1308.3432).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from data_engine.models.onnx_weights import short

_LAYERS = (nn.Linear, nn.Conv1d)
_SMALLEST = 1e-12
_KERNEL_BITS = 8


@dataclass(frozen=True, slots=True)
class Bits:
    """Bits of the weights and of the activations, as in `4w4a`."""

    weights: int
    activations: int

    def __str__(self) -> str:
        return f"{self.weights}w{self.activations}a"


@dataclass(frozen=True, slots=True)
class Plan:
    """Which layers depart from the bits of a pass (SSQL, sec. 4: the first layer keeps 8/8).

    Attributes:
        fixed: Layer to its own bits.
        float_inputs: Layers whose input is not rounded.
    """

    fixed: Mapping[str, Bits] = field(default_factory=dict)
    float_inputs: Collection[str] = ()


Ranges = dict[str, tuple[Tensor, Tensor]]
"""Layer to the smallest and the largest value of its input."""

Moments = dict[str, Tensor]
"""Buffer of a batch normalisation to the mean or variance of its latest input."""


def rounded(values: Tensor) -> Tensor:
    """Returns the nearest integers, half to even; the gradient is that of the values themselves."""
    return values + (torch.round(values) - values).detach()


def weight_scales(weights: Tensor, bits: int) -> Tensor:
    """Returns the step of each output channel, [channels, 1, ...].

    Its largest magnitude over (2 ** bits - 1) / 2, as SSQL has it: of 2 bits all four levels are in use. Eight bits are
    those of the kernels that will run them, whose largest magnitude is 127.
    """
    largest = weights.detach().abs().amax(dim=tuple(range(1, weights.ndim)), keepdim=True)
    steps: Tensor = largest / (127 if bits == _KERNEL_BITS else (2**bits - 1) / 2)
    return steps.clamp_min(_SMALLEST)


def fake_weights(weights: Tensor, bits: int) -> Tensor:
    """Returns weights [channels, ...] on the grid of so many bits, per channel: 2 bits are -2, -1, 0 and 1 steps.

    The gradient is that of the weights themselves.
    """
    scales, half = weight_scales(weights, bits), 2 ** (bits - 1)
    steps = weights / scales
    return (steps + (torch.clamp(torch.round(steps), -half, half - 1) - steps).detach()) * scales


def fake_activations(values: Tensor, bits: int, smallest: Tensor, largest: Tensor) -> Tensor:
    """Returns values on an asymmetric grid with an exact zero; what lies outside of the range moves to its edge.

    Args:
        values: Any shape.
        bits: Of the grid.
        smallest: Lower end of the range, a scalar.
        largest: Its upper end.
    """
    low, high = smallest.clamp_max(0.0), largest.clamp_min(0.0)
    scale = ((high - low) / (2**bits - 1)).clamp_min(_SMALLEST)
    zero = torch.round(-low / scale)
    levels = torch.clamp(rounded(values / scale) + zero, 0, 2**bits - 1)
    moved: Tensor = (levels - zero) * scale
    return moved


class FakeQuantiser:
    """Runs a module with its linear and convolution layers rounded; the module and its weights stay as they are.

    Args:
        module: Any network of `nn.Linear` and `nn.Conv1d` layers.
        plan: Exceptions.
    """

    def __init__(self, module: nn.Module, plan: Plan | None = None) -> None:
        self._module, self._plan = module, plan or Plan()
        self._layers = {n: layer for n, layer in module.named_modules() if isinstance(layer, _LAYERS)}
        self._norms = {n: m for n, m in module.named_modules() if isinstance(m, nn.BatchNorm1d)}

    @property
    def layers(self) -> list[str]:
        """Names of the layers that are rounded."""
        return list(self._layers)

    def bits_of(self, layer: str, bits: Bits) -> Bits:
        """Returns the bits a layer has in a pass of so many bits."""
        return self._plan.fixed.get(layer, bits)

    @contextmanager
    def observing(self, ranges: Ranges, moments: Moments | None = None) -> Iterator[None]:
        """Widens `ranges` by the inputs of every layer while the module runs inside, and sets `moments`."""
        handles = [layer.register_forward_pre_hook(_observer(name, ranges)) for name, layer in self._layers.items()]
        if moments is not None:
            handles += [m.register_forward_pre_hook(_moments_of(name, moments)) for name, m in self._norms.items()]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def run(self, bits: Bits, ranges: Ranges | None, *inputs: Any, moments: Moments | None = None) -> Any:
        """Returns what the module returns when every layer is rounded.

        Running means of normalisations stay those of the passes in float, whose codes the rounded ones are to give.

        Args:
            bits: Of weights and activations.
            ranges: Of the inputs of the layers; their own minimum and maximum when not given.
            inputs: Of the module.
            moments: That batch normalisations use; when not given, those of their own input while training.
        """
        rounding = {n: la for n, la in self._layers.items() if n not in self._plan.float_inputs}
        handles = [
            layer.register_forward_pre_hook(_rounder(self.bits_of(name, bits).activations, (ranges or {}).get(name)))
            for name, layer in rounding.items()
        ]
        weights = {
            f"{name}.weight" if name else "weight": fake_weights(layer.weight, self.bits_of(name, bits).weights)
            for name, layer in self._layers.items()
        }
        statistics = {name: buffer.clone() for name, buffer in self._module.named_buffers()}
        training = [norm for norm in self._norms.values() if norm.training] if moments is not None else []
        try:
            for norm in training:
                norm.eval()
            return torch.func.functional_call(self._module, weights | statistics | (moments or {}), inputs)
        finally:
            for norm in training:
                norm.train()
            for handle in handles:
                handle.remove()


def _observer(name: str, ranges: Ranges) -> Any:
    def observe(layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        seen = inputs[0].detach().float().aminmax()
        smallest, largest = ranges.get(name, seen)
        ranges[name] = (torch.minimum(smallest, seen[0]), torch.maximum(largest, seen[1]))

    return observe


def _moments_of(name: str, moments: Moments) -> Any:
    def observe(norm: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        values = inputs[0].detach().float().transpose(0, 1).flatten(1)
        moments[f"{name}.running_var"], moments[f"{name}.running_mean"] = torch.var_mean(values, 1, correction=0)

    return observe


def _rounder(bits: int, known: tuple[Tensor, Tensor] | None) -> Any:
    def round_input(layer: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        smallest, largest = known or inputs[0].detach().float().aminmax()
        return (fake_activations(inputs[0], bits, smallest, largest), *inputs[1:])

    return round_input


@torch.no_grad()
def put_on_grid(module: nn.Module) -> int:
    """Moves the weights of every linear and convolution layer to a grid of 8 bits, symmetric per channel.

    Its steps have 4 bits of mantissa, so weights are exact in half precision, too, and
    `models.onnx_weights` finds the integers again: the model gives the same output from 8-bit weights.

    Args:
        module: Changed in place.

    Returns:
        Layers changed.
    """
    layers = [layer for layer in module.modules() if isinstance(layer, _LAYERS)]
    for layer in layers:
        scales = torch.from_numpy(short(weight_scales(layer.weight, 8).double().numpy())).float()
        layer.weight.copy_(torch.round(layer.weight / scales) * scales)
    return len(layers)
