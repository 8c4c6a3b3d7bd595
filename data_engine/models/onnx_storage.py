"""Building ONNX files, and storing them at half their size where weights lose nothing by it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from data_engine.core.errors import MissingExtraError

HALF = ".half"
"""Suffix of the name of a weight that is stored so."""

_SMALLEST = 1024
"""Numbers a weight must have to be worth a cast."""


_OPSET, _IR_VERSION = 17, 8

Shape = Sequence[str | int]


def built_model(
    name: str, nodes: Callable[[Any], list[Any]], given: tuple[str, Shape], made: tuple[str, Shape],
    tensors: Mapping[str, npt.NDArray[Any]], properties: Mapping[str, str],
) -> Any:  # fmt: skip
    """Returns a checked ONNX model with one float32 input and one float32 output.

    Args:
        name: Of the graph.
        nodes: Gets `onnx.helper.make_node`, returns the operators in order.
        given: Name and shape of the input; a string is a dimension of any size.
        made: Those of the output.
        tensors: Weights and constants by name.
        properties: Provenance, kept in the file's metadata.

    Raises:
        MissingExtraError: onnx is not installed.
    """
    try:
        from onnx import TensorProto, checker, helper, numpy_helper
    except ImportError as error:
        raise MissingExtraError("onnx", "dev", f"exporting the {name.replace('_', ' ')}") from error
    graph = helper.make_graph(
        nodes(helper.make_node),
        name,
        [helper.make_tensor_value_info(given[0], TensorProto.FLOAT, list(given[1]))],
        [helper.make_tensor_value_info(made[0], TensorProto.FLOAT, list(made[1]))],
        [numpy_helper.from_array(np.ascontiguousarray(values), key) for key, values in tensors.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=_IR_VERSION)
    helper.set_model_props(model, dict(properties))
    checker.check_model(model, full_check=True)
    return model


def store_halves(path: Path) -> int:
    """Rewrites a file; float32 weights that float16 holds exactly become float16 with a cast behind them.

    onnxruntime folds the casts away when it loads the file: results and speed are those of the float32 file.

    Args:
        path: ONNX file.

    Returns:
        How many weights were stored so.
    """
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    model = onnx.load(path)
    graph, casts = model.graph, []
    for weight in graph.initializer:
        if weight.data_type != TensorProto.FLOAT or int(np.prod(weight.dims)) < _SMALLEST:
            continue
        values = numpy_helper.to_array(weight)
        halves = values.astype(np.float16)
        if np.array_equal(halves.astype(np.float32), values):
            name, stored = weight.name, f"{weight.name}{HALF}"
            weight.CopyFrom(numpy_helper.from_array(halves, stored))
            casts.append(helper.make_node("Cast", [stored], [name], name=f"{name}.cast", to=TensorProto.FLOAT))
    nodes = [*casts, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
    onnx.save(model, path)
    return len(casts)
