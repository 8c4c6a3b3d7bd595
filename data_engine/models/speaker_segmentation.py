"""Converts pyannote's speaker segmentation network to ONNX, so that turns are found without torch.

    python -m data_engine.models.speaker_segmentation --output data_engine/assets/speaker_segmentation/model.onnx

The network (PyanNet of Bredin and Laurent 2021, arXiv 2104.04045): 80 sinc filters and two convolutions, each with
max pooling by 3 and instance normalisation, four bidirectional LSTM layers of 128, two linear layers of 128, and a
sigmoid for each of up to three speakers of a window of 5 s. The weights are those inside the wheel `whisperx`. Needs
torch and onnx; the file it writes needs onnxruntime only.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
from collections import defaultdict
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from data_engine.core.errors import ConfigError, MissingExtraError
from data_engine.models.onnx_storage import built_model, store_halves
from data_engine.models.speaker_encoder import gates_to_onnx

SAMPLE_RATE, WINDOW, SPEAKERS = 16000, 80000, 3
STRIDE, FIRST, FRAMES = 270, 496, 293
"""Samples between frames, the centre of the first frame in samples, frames of a window."""

_LAYERS, _HIDDEN = 4, 128
_FILTER_STRIDE, _MIN_LOW_HZ, _MIN_BAND_HZ = 10, 50.0, 50.0
_EPSILON, _SLOPE = 1e-5, 0.01
_INERT = (
    "omegaconf.listconfig.ListConfig", "omegaconf.base.ContainerMetadata", "omegaconf.base.Metadata",
    "omegaconf.nodes.AnyNode", "typing.Any",
    "pyannote.audio.core.model.Introspection", "pyannote.audio.core.task.Specifications",
    "pyannote.audio.core.task.Problem", "pyannote.audio.core.task.Resolution",
)  # fmt: skip
"""Classes the checkpoint names beside its tensors; none of them is built, an inert one takes its place."""

Weights = Mapping[str, npt.NDArray[np.float32]]


def wheel_weights() -> Path:
    """Returns the path of the checkpoint in the installed wheel; the package itself is not imported.

    Raises:
        ConfigError: whisperx is not installed.
    """
    spec = importlib.util.find_spec("whisperx")
    if spec is None or not spec.submodule_search_locations:
        raise ConfigError("whisperx is not installed: pip install --no-deps whisperx==3.8.6, or pass --weights")
    return Path(spec.submodule_search_locations[0]) / "assets" / "pytorch_model.bin"


def read_weights(path: Path) -> dict[str, npt.NDArray[np.float32]]:
    """Returns the tensors of the model, without its optimizer and without running pickled code.

    Raises:
        MissingExtraError: torch is not installed.
    """
    try:
        import torch
    except ImportError as error:
        raise MissingExtraError("torch", "train", "converting the speaker segmentation") from error
    inert: list[Any] = [
        list,
        dict,
        int,
        defaultdict,
        torch.torch_version.TorchVersion,
        *((_Inert, name) for name in _INERT),
    ]
    with ExitStack() as stack:
        stack.enter_context(torch.serialization.safe_globals(inert))
        state = torch.load(path, map_location="cpu", weights_only=True)["state_dict"]
    return {name: tensor.float().numpy() for name, tensor in state.items()}


class _Inert:
    """Takes the place of a class that a checkpoint names: does nothing with what it is given."""

    def __init__(self, *given: object) -> None:
        pass


def sinc_filters(weights: Weights) -> npt.NDArray[np.float32]:
    """Returns the band-pass filters of the first layer, cosine ones first, float32 [80, 1, 251].

    Each is the difference of two sinc functions under a Hamming window over twice its bandwidth (SincNet, Ravanelli
    and Bengio 2018, arXiv 1808.00158, eq. 4); the sine ones are their Hilbert partners.
    """
    part = {name: weights[f"sincnet.conv1d.0.filterbank.{name}"].astype(np.float64)
            for name in ("low_hz_", "band_hz_", "window_", "n_")}  # fmt: skip
    low = _MIN_LOW_HZ + np.abs(part["low_hz_"])
    high = np.clip(low + _MIN_BAND_HZ + np.abs(part["band_hz_"]), _MIN_LOW_HZ, SAMPLE_RATE / 2)
    band, window, time = high - low, part["window_"], part["n_"]
    below, above = low @ time, high @ time
    cosine = (np.sin(above) - np.sin(below)) / (time / 2) * window
    sine = (np.cos(below) - np.cos(above)) / (time / 2) * window
    even = np.concatenate([cosine, 2 * band, cosine[:, ::-1]], axis=1)
    odd = np.concatenate([sine, np.zeros_like(band), -sine[:, ::-1]], axis=1)
    filters: npt.NDArray[np.float64] = np.concatenate([even, odd]) / np.concatenate([2 * band, 2 * band])
    return filters[:, None].astype(np.float32)


def lstm_tensors(weights: Weights, layer: int) -> dict[str, npt.NDArray[np.float32]]:
    """Returns the ONNX tensors of one bidirectional layer: W [2, 4h, inputs], R [2, 4h, h], B [2, 8h]."""
    ways = [{kind: gates_to_onnx(weights[f"lstm.{kind}_l{layer}{way}"])
             for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")} for way in ("", "_reverse")]  # fmt: skip
    return {
        f"W{layer}": np.stack([way["weight_ih"] for way in ways]),
        f"R{layer}": np.stack([way["weight_hh"] for way in ways]),
        f"B{layer}": np.stack([np.concatenate([way["bias_ih"], way["bias_hh"]]) for way in ways]),
    }


def build_graph(weights: Weights, properties: Mapping[str, str]) -> Any:
    """Returns the ONNX model: `waves` float32 [windows, 80000] -> `speakers` float32 [windows, 293, 3].

    Args:
        weights: Tensors by torch name.
        properties: Provenance, kept in the file's metadata.

    Raises:
        MissingExtraError: onnx is not installed.
    """
    tensors: dict[str, npt.NDArray[Any]] = {"one": np.array([1]), "rows": np.array([0, 0, 2 * _HIDDEN])}
    tensors |= {name: weights[name] for name in weights if "filterbank" not in name and "lstm" not in name}
    tensors |= {name: tensors[name].T for name in tensors if name.startswith(("linear", "classifier")) and
                name.endswith("weight")}  # fmt: skip
    tensors["sincnet.conv1d.0.weight"] = sinc_filters(weights)
    for layer in range(_LAYERS):
        tensors |= lstm_tensors(weights, layer)
    halves = {name: _half(values) for name, values in tensors.items()}
    given, made = ("waves", ("windows", WINDOW)), ("speakers", ("windows", FRAMES, SPEAKERS))
    return built_model("speaker_segmentation", _nodes, given, made, halves, properties)


def _half(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Returns float32 values as half precision holds them, other values as they are."""
    return values.astype(np.float16).astype(np.float32) if values.dtype == np.float32 else values


def _nodes(node: Any) -> list[Any]:
    """Returns the operators in order; ONNX's LSTM wants time first and gives [time, directions, windows, hidden]."""
    nodes = [node("Unsqueeze", ["waves", "one"], ["channel"]), _normalised(node, "channel", "wav_norm1d", "c0")]
    for layer in range(3):
        here = f"sincnet.conv1d.{layer}"
        given = [f"c{layer}", f"{here}.weight", *([f"{here}.bias"] if layer else [])]
        nodes += [
            node("Conv", given, [f"f{layer}"], strides=[1 if layer else _FILTER_STRIDE]),
            *([] if layer else [node("Abs", ["f0"], ["a0"])]),
            node("MaxPool", [f"f{layer}" if layer else "a0"], [f"p{layer}"], kernel_shape=[3], strides=[3]),
            _normalised(node, f"p{layer}", f"norm1d.{layer}", f"n{layer}"),
            node("LeakyRelu", [f"n{layer}"], [f"c{layer + 1}"], alpha=_SLOPE),
        ]
    nodes.append(node("Transpose", ["c3"], ["h0"], perm=[2, 0, 1]))
    for layer in range(_LAYERS):
        given = [f"h{layer}", f"W{layer}", f"R{layer}", f"B{layer}"]
        nodes += [
            node("LSTM", given, [f"all{layer}"], hidden_size=_HIDDEN, direction="bidirectional"),
            node("Transpose", [f"all{layer}"], [f"ways{layer}"], perm=[0, 2, 1, 3]),
            node("Reshape", [f"ways{layer}", "rows"], [f"h{layer + 1}"]),
        ]
    return [*nodes, *_classified(node)]


def _normalised(node: Any, given: str, name: str, out: str) -> Any:
    weights = [f"sincnet.{name}.{kind}" for kind in ("weight", "bias")]
    return node("InstanceNormalization", [given, *weights], [out], epsilon=_EPSILON)


def _classified(node: Any) -> list[Any]:
    nodes = [node("Transpose", [f"h{_LAYERS}"], ["z0"], perm=[1, 0, 2])]
    for step, name in enumerate(("linear.0", "linear.1", "classifier")):
        nodes += [node("MatMul", [f"z{step}", f"{name}.weight"], [f"m{step}"]),
                  node("Add", [f"m{step}", f"{name}.bias"], [f"s{step}"])]  # fmt: skip
        last = step == 2
        nodes.append(node("Sigmoid", ["s2"], ["speakers"]) if last else
                     node("LeakyRelu", [f"s{step}"], [f"z{step + 1}"], alpha=_SLOPE))  # fmt: skip
    return nodes


def export(source: Path, output: Path) -> str:
    """Writes the ONNX file and returns its SHA-256; equal weights give equal bytes."""
    properties = {
        "source": f"whisperx, {source.name}",
        "source_sha256": hashlib.sha256(source.read_bytes()).hexdigest(),
        "licence": "MIT (pyannote/segmentation), BSD-2-Clause (whisperx)",
        "change": "converted from torch to ONNX; recurrent and linear layers in eight bits, the rest in half precision",
    }
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_bytes(build_graph(read_weights(source), properties).SerializeToString(deterministic=True))
    in_eight_bits(output)
    store_halves(output)
    return hashlib.sha256(output.read_bytes()).hexdigest()


def in_eight_bits(path: Path) -> None:
    """Rewrites a file: recurrent and linear layers get weights of eight bits, their inputs are quantized as they come.

    Unsigned weights: products with signed ones can saturate on processors without VNNI (onnxruntime's documentation).
    """
    from onnxruntime.quantization import QuantType, quantize_dynamic

    quantize_dynamic(
        path, path, op_types_to_quantize=["LSTM", "MatMul"], per_channel=True, weight_type=QuantType.QUInt8,
        extra_options={"MatMulConstBOnly": True},
    )  # fmt: skip


def main(arguments: list[str] | None = None) -> None:
    """Runs the conversion from the command line."""
    parser = argparse.ArgumentParser(description="Convert pyannote's speaker segmentation to ONNX.")
    parser.add_argument("--output", type=Path, required=True, help="ONNX file to write")
    parser.add_argument("--weights", type=Path, help="checkpoint; default: of the installed wheel whisperx")
    chosen = parser.parse_args(arguments)
    print(export(chosen.weights or wheel_weights(), chosen.output))


if __name__ == "__main__":
    main()
