"""Eight-bit weights in an ONNX file: a quarter of the float32 size, the arithmetic of the float file.

Weights of matrix products and convolutions become signed bytes with a step per output channel; they are multiplied
out once, when the file is loaded: a cast and a product of constants, which onnxruntime folds. (With DequantizeLinear
more codes changed: 2.2 % against 1.3 % of the semantic ones.) Activations stay float, so codes depend neither on the
clips beside a clip nor on which integer instructions a machine has.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from data_engine.core.errors import MissingExtraError
from data_engine.models.onnx_storage import HALF

Floats = npt.NDArray[np.float32]

_BYTES, _STEP = ".int8", ".step"
"""Suffixes of the stored integers of a weight and of their steps."""

_LARGEST = 127
_MANTISSA = 4
_CHANNEL_AXIS = {"Conv": 0, "MatMul": 1}
"""Operator -> axis of the output channels in its weights."""


def short(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Returns positive values rounded up to 4 bits of mantissa.

    Such a number times an integer of 7 bits has 11 bits, which is what half precision holds exactly.
    """
    fraction, exponent = np.frexp(values)
    rounded: npt.NDArray[np.float64] = np.ldexp(np.ceil(fraction * 2**_MANTISSA), exponent - _MANTISSA)
    return rounded


def rounded_weights(weights: Floats, axis: int) -> tuple[npt.NDArray[np.int8], Floats]:
    """Returns integers in -127..127 of the same shape and the step of each channel, float32 [1, channels, 1, ...].

    Symmetric per channel, range from the largest magnitude. Weights that `models.fake_quant.put_on_grid` has moved
    to a grid are given back exactly.

    Args:
        weights: Of one layer.
        axis: Of the output channels.
    """
    others = tuple(n for n in range(weights.ndim) if n != axis)
    exact = weights.astype(np.float64)
    largest = np.abs(exact).max(axis=others, keepdims=True)
    steps = np.where(largest > 0, largest / _LARGEST, 1.0)
    # Rounded up, the step of a grid leaves its largest weight at 112 to 127: a grid is one of the next short steps.
    candidate = short(steps)
    found = np.zeros_like(steps, dtype=bool)
    for _ in range(3):
        fits = ~found & (exact == np.rint(exact / candidate) * candidate).all(axis=others, keepdims=True)
        steps, found = np.where(fits, candidate, steps), found | fits
        candidate = short(candidate * (1 + 2.0 ** -(_MANTISSA + 2)))
    single = steps.astype(np.float32)
    return np.rint(exact / single).astype(np.int8), single


def stored_weights(path: Path) -> dict[str, npt.NDArray[Any]]:
    """Returns the weights of an ONNX file by name, however they are stored: whole, in half precision or as bytes."""
    import onnx
    from onnx import numpy_helper

    found = {weight.name: numpy_helper.to_array(weight) for weight in onnx.load(path).graph.initializer}
    steps = {name: found.pop(name) for name in list(found) if name.endswith(_STEP)}
    weights: dict[str, npt.NDArray[Any]] = {}
    for name, values in found.items():
        layer = name.removesuffix(_BYTES)
        step = steps.get(layer + _STEP) if layer != name else None
        weights[layer.removesuffix(HALF)] = values if step is None else values.astype(np.float32) * step
    return weights


def store_weights_as_bytes(source: Path, target: Path) -> int:
    """Writes `target`, the model of `source` with 8-bit weights; returns the number of layers changed.

    Args:
        source: ONNX file; weights may be float16 behind a cast (`models.onnx_storage`) and transposed.
        target: New ONNX file; the same bytes for the same source.

    Raises:
        MissingExtraError: The library onnx is not installed.
    """
    try:
        import onnx
    except ImportError as error:
        raise MissingExtraError("onnx", "train", "8-bit variants of the tokenizers") from error
    model = onnx.load(str(source))
    makers = {name: node for node in model.graph.node for name in node.output}
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    axes = _weight_axes(model.graph, makers)
    changed = [name for name in axes if _origin(name, makers) in stored]
    added = [node for name in changed for node in _replace(model.graph, name, axes[name], makers, stored)]
    kept = [node for node in model.graph.node if not set(node.output) & set(changed)]
    del model.graph.node[:]
    model.graph.node.extend([*added, *kept])
    onnx.checker.check_model(model)
    target.write_bytes(model.SerializeToString(deterministic=True))
    return len(changed)


def _weight_axes(graph: Any, makers: dict[str, Any]) -> dict[str, int]:
    """Returns the tensors that are weights and the axis of their output channels, in the order of use."""
    found: dict[str, int] = {}
    for node in graph.node:
        if node.op_type not in _CHANNEL_AXIS:
            continue
        name, axis = node.input[1], _CHANNEL_AXIS[node.op_type]
        maker = makers.get(name)
        if maker is not None and maker.op_type == "Transpose":
            name, axis = maker.input[0], list(maker.attribute[0].ints)[axis]
        found[name] = axis
    return found


def _origin(name: str, makers: dict[str, Any]) -> str:
    maker = makers.get(name)
    return str(maker.input[0]) if maker is not None and maker.op_type == "Cast" else name


def _replace(graph: Any, name: str, axis: int, makers: dict[str, Any], stored: dict[str, Any]) -> list[Any]:
    """Stores one weight as bytes; returns the nodes that make it again."""
    from onnx import TensorProto, helper, numpy_helper

    old = stored[_origin(name, makers)]
    integers, steps = rounded_weights(numpy_helper.to_array(old).astype(np.float32), axis)
    graph.initializer.remove(old)
    graph.initializer.append(numpy_helper.from_array(integers, name + _BYTES))
    graph.initializer.append(numpy_helper.from_array(steps, name + _STEP))
    return [
        helper.make_node("Cast", [name + _BYTES], [f"{name}.float"], to=TensorProto.FLOAT),
        helper.make_node("Mul", [f"{name}.float", name + _STEP], [name]),
    ]
