"""Exports Resemblyzer's voice encoder to ONNX, so that speakers are embedded without torch.

    python -m data_engine.models.speaker_encoder --output data_engine/assets/speaker_encoder/model.onnx

The network: three LSTM layers of 256 over 160 frames of 40 mel energies, the last hidden state through a linear
layer of 256 and a ReLU, then unit length (Wan et al. 2018, arXiv 1710.10467). The weights are those of the wheel
`Resemblyzer` (Apache-2.0). Needs torch, onnx and Resemblyzer; the file it writes needs onnxruntime only.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from data_engine.core.errors import ConfigError, MissingExtraError
from data_engine.models.onnx_storage import built_model

LAYERS, HIDDEN, MELS, FRAMES = 3, 256, 40, 160
_SMALLEST_NORM = 1e-12

Weights = Mapping[str, npt.NDArray[np.float32]]


def wheel_weights() -> Path:
    """Returns the path of `pretrained.pt` in the installed wheel; the package itself is not imported.

    Raises:
        ConfigError: Resemblyzer is not installed.
    """
    spec = importlib.util.find_spec("resemblyzer")
    if spec is None or not spec.submodule_search_locations:
        raise ConfigError("Resemblyzer is not installed: pip install --no-deps Resemblyzer==0.1.4, or pass --weights")
    return Path(spec.submodule_search_locations[0]) / "pretrained.pt"


def read_weights(path: Path) -> dict[str, npt.NDArray[np.float32]]:
    """Returns the tensors of the model, without its optimizer and without running pickled code.

    Raises:
        MissingExtraError: torch is not installed.
    """
    try:
        import torch
    except ImportError as error:
        raise MissingExtraError("torch", "train", "exporting the speaker encoder") from error
    state = torch.load(path, map_location="cpu", weights_only=True)["model_state"]
    return {name: tensor.numpy() for name, tensor in state.items() if name.startswith(("lstm.", "linear."))}


def gates_to_onnx(matrix: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Returns rows of gates in ONNX's order (input, output, forget, cell) from torch's (input, forget, cell, output).

    Args:
        matrix: [4 * hidden, ...].
    """
    enter, forget, cell, leave = np.split(matrix, 4)
    return np.concatenate([enter, leave, forget, cell])


def lstm_tensors(weights: Weights, layer: int) -> dict[str, npt.NDArray[np.float32]]:
    """Returns the ONNX tensors of one layer: W [1, 4h, inputs], R [1, 4h, h], B [1, 8h]."""
    part = {kind: gates_to_onnx(weights[f"lstm.{kind}_l{layer}"]) for kind in ("weight_ih", "weight_hh")}
    biases = [gates_to_onnx(weights[f"lstm.{kind}_l{layer}"]) for kind in ("bias_ih", "bias_hh")]
    return {
        f"W{layer}": part["weight_ih"][None],
        f"R{layer}": part["weight_hh"][None],
        f"B{layer}": np.concatenate(biases)[None],
    }


def build_graph(weights: Weights, properties: Mapping[str, str]) -> Any:
    """Returns the ONNX model: `mels` float32 [partials, 160, 40] -> `embedding` float32 [partials, 256].

    Args:
        weights: Tensors by torch name.
        properties: Provenance, kept in the file's metadata.

    Raises:
        MissingExtraError: onnx is not installed.
    """
    tensors: dict[str, npt.NDArray[Any]] = {"first_axis": np.array([0]), "direction_axis": np.array([1])}
    tensors["tiny"] = np.array(_SMALLEST_NORM, np.float32)
    tensors |= {"linear_weight": weights["linear.weight"], "linear_bias": weights["linear.bias"]}
    for layer in range(LAYERS):
        tensors |= lstm_tensors(weights, layer)
    given, made = ("mels", ("partials", FRAMES, MELS)), ("embedding", ("partials", HIDDEN))
    return built_model("speaker_encoder", _nodes, given, made, tensors, properties)


def _nodes(node: Any) -> list[Any]:
    """Returns the operators in order; ONNX's LSTM wants time first and adds an axis for the direction."""
    nodes = [node("Transpose", ["mels"], ["h0"], perm=[1, 0, 2])]
    for layer in range(LAYERS):
        inputs = [f"h{layer}", f"W{layer}", f"R{layer}", f"B{layer}"]
        nodes.append(node("LSTM", inputs, [f"all{layer}", f"last{layer}"], hidden_size=HIDDEN))
        if layer < LAYERS - 1:
            nodes.append(node("Squeeze", [f"all{layer}", "direction_axis"], [f"h{layer + 1}"]))
    return [
        *nodes,
        node("Squeeze", [f"last{LAYERS - 1}", "first_axis"], ["state"]),
        node("Gemm", ["state", "linear_weight", "linear_bias"], ["raw"], transB=1),
        node("Relu", ["raw"], ["positive"]),
        node("ReduceL2", ["positive"], ["norm"], axes=[1], keepdims=1),
        node("Max", ["norm", "tiny"], ["safe_norm"]),
        node("Div", ["positive", "safe_norm"], ["embedding"]),
    ]


def export(source: Path, output: Path) -> str:
    """Writes the ONNX file and returns its SHA-256; equal weights give equal bytes."""
    properties = {
        "source": f"Resemblyzer, {source.name}",
        "source_sha256": hashlib.sha256(source.read_bytes()).hexdigest(),
        "licence": "Apache-2.0",
        "change": "converted from torch to ONNX; weights unchanged",
    }
    content: bytes = build_graph(read_weights(source), properties).SerializeToString(deterministic=True)
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_bytes(content)
    return hashlib.sha256(content).hexdigest()


def main(arguments: list[str] | None = None) -> None:
    """Runs the export from the command line."""
    parser = argparse.ArgumentParser(description="Export Resemblyzer's voice encoder to ONNX.")
    parser.add_argument("--output", type=Path, required=True, help="ONNX file to write")
    parser.add_argument("--weights", type=Path, help="pretrained.pt; default: of the installed wheel")
    chosen = parser.parse_args(arguments)
    print(export(chosen.weights or wheel_weights(), chosen.output))


if __name__ == "__main__":
    main()
