"""DNSMOS P.835 through torch: bfloat16 on processors that multiply in it, and graphics cards.

The network, its windows and their shared work are those of `quality_dnsmos`; torch computes the convolutions. In
bfloat16, processors with AMX are four times as fast as onnxruntime, those with AVX-512 BF16 1.9 times, and scores move
by less than 0.01.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from data_engine.backends.quality_dnsmos import Dnsmos
from data_engine.backends.torch_device import torch_device
from data_engine.core.errors import MissingExtraError

Floats = npt.NDArray[np.float32]
Precision = Literal["bfloat16", "float32"]

_NEEDED_BY = "quality 'dnsmos-torch'"
_FRAME, _BINS, _LEAST = 160, 161, 1e-12
_FRONT = ("conv2d_1", "conv2d_2", "conv2d_3", "conv2d_4")
_REACH = 6
"""Frames that the front hears on either side: four convolutions and, behind a pooling, one."""
_BACK = ("conv2d_5", "conv2d_6")
_DENSE = ("dense", "dense_1", "dense_3")


class TorchDnsmos(Dnsmos):
    """Role `quality`: signal, background and overall MOS.

    Args:
        device: `cpu`, `cuda` or `cuda:N`.
        precision: Of convolutions; the spectrum is always float32.
        threads: Threads on the CPU.
        model: As `Dnsmos`.
        max_windows: As `Dnsmos`.
        every_window: As `Dnsmos`.
    """

    def __init__(
        self, device: str = "cpu", precision: Precision = "bfloat16", threads: int = 1, model: str | None = None,
        max_windows: int | None = None, every_window: bool = False,
    ) -> None:  # fmt: skip
        super().__init__(model, max_windows, every_window)
        self._device, self._precision, self._threads = device, precision, threads
        self._context_frames = _REACH
        if device != "cpu":
            self._frames_at_once = 4096  # a graphics card wants much to do

    @property
    def revision(self) -> str:
        """SHA-256 of the weights, shortened, and the precision."""
        return f"{super().revision}-torch-{self._precision}"

    def open(self) -> None:
        """Loads the weights.

        Raises:
            MissingExtraError: torch or onnx, which reads the weights, is not installed.
            ConfigError: The device is missing.
        """
        place = torch_device(self._device, self._threads, "dnsmos-torch", _NEEDED_BY)
        try:
            from onnx import load, numpy_helper
        except ImportError as error:
            raise MissingExtraError("onnx", "dnsmos-torch", _NEEDED_BY) from error
        parts = [load(self._folder / name).graph for name in ("front.onnx", "back.onnx")]
        tensors = {tensor.name: numpy_helper.to_array(tensor) for part in parts for tensor in part.initializer}
        network = _Network(tensors, place, self._precision)
        self._front, self._back = network.front, network.back


class _Network:
    """Both halves of the network as functions of arrays.

    Args:
        tensors: Weights by their names in the published file.
        place: `torch.device`.
        precision: Of convolutions.
    """

    def __init__(self, tensors: dict[str, Floats], place: Any, precision: Precision) -> None:
        import torch

        self._torch, self._place, self._type = torch, place, getattr(torch, precision)

        def moved(array: Floats) -> Any:
            return torch.from_numpy(np.array(array)).to(place)

        spectrum = [tensors[f"time2freq/stft-{part}/kernel:0"][:, :, 0].T for part in ("real", "imag")]
        self._spectrum = moved(np.concatenate(spectrum, axis=1))
        self._kernels = {name: self._kernel(moved(tensors[f"{name}/kernel:0"])) for name in (*_FRONT, *_BACK)}
        self._biases = {name: self._bias(moved(tensors[f"{name}/bias:0"])) for name in ("conv2d", *_FRONT, *_BACK)}
        # Its input, decibels, has more digits than bfloat16: as the sum of a coarse and a fine part it has enough.
        kernel = moved(tensors["conv2d/kernel:0"])
        rest = kernel - kernel.to(self._type).float()
        self._kernels["conv2d"] = self._kernel(torch.cat([kernel, kernel, rest], 1))
        names = "mos_estimator_logpow/{0}/{1}/ReadVariableOp/resource:0"
        self._dense = [
            tuple(moved(tensors[names.format(name, part)]) for part in ("MatMul", "BiasAdd")) for name in _DENSE
        ]

    def _kernel(self, weights: Any) -> Any:
        return weights.to(self._type).contiguous(memory_format=self._torch.channels_last)

    def _bias(self, weights: Any) -> Any:
        return weights.to(self._type)

    def front(self, waves: Floats, before: bool, after: bool) -> Floats:
        """Returns the rows [pieces, 32, rows, 40] of pieces of sound [pieces, samples].

        Args:
            waves: float32; what is only heard around a piece is dropped layer by layer.
            before: The first 6 frames are such.
            after: The last 6 are.
        """
        torch = self._torch
        with torch.inference_mode():
            sound = torch.from_numpy(np.ascontiguousarray(waves)).to(self._place)
            parts = sound.unfold(1, 2 * _FRAME, _FRAME) @ self._spectrum
            power = parts[..., :_BINS] ** 2 + parts[..., _BINS:] ** 2
            level = torch.log10(torch.clamp(power, min=_LEAST))[:, None]
            coarse = level.to(self._type)
            fine = (level - coarse.float()).to(self._type)
            rows = torch.cat([coarse, fine, coarse], 1).contiguous(memory_format=torch.channels_last)
            heard = slice(int(before), -1 if after else None)
            for name in ("conv2d", *_FRONT[:-1]):
                rows = self._convolved(rows, name)[:, :, heard]
            rows = torch.nn.functional.max_pool2d(rows, 2)
            rows = torch.nn.functional.max_pool2d(self._convolved(rows, _FRONT[-1])[:, :, heard], 2)
            return self._array(rows)

    def back(self, rows: Floats) -> Floats:
        """Returns the output [windows, 3] for the rows of windows."""
        torch = self._torch
        with torch.inference_mode():
            heard = torch.from_numpy(rows).to(self._place, self._type).contiguous(memory_format=torch.channels_last)
            heard = torch.nn.functional.max_pool2d(self._convolved(heard, _BACK[0]), 2)
            found = self._convolved(heard, _BACK[1]).amax((2, 3)).float()
            for number, (weights, bias) in enumerate(self._dense):
                found = torch.addmm(bias, torch.relu(found) if number else found, weights)
            return self._array(found)

    def _convolved(self, rows: Any, name: str) -> Any:
        convolved = self._torch.nn.functional.conv2d(rows, self._kernels[name], self._biases[name], padding=1)
        if self._type is not self._torch.bfloat16:
            return self._torch.relu_(convolved)
        # Negative numbers are negative as integers, too, which a processor compares five times as fast.
        convolved.view(self._torch.int16).clamp_(min=0)
        return convolved

    def _array(self, tensor: Any) -> Floats:
        found: Floats = tensor.float().contiguous().cpu().numpy()
        return found
