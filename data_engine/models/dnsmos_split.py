"""Cuts DNSMOS P.835 in two, so that overlapping windows share their convolutions.

    python -m data_engine.models.dnsmos_split --output data_engine/assets/dnsmos

The published network scores 9.01 s; scripts move it by 1 s and compute 98 % of it anew. It is convolutional in time
up to a global maximum, so the cut is behind its second pooling: `front.onnx` turns samples of any length into
feature rows of 40 ms, `back.onnx` turns the 225 rows of one window into three scores. Of the 64 channels of the second
convolution, which has more than half of the work, 23 died in training: they were zero for every sound tried (the model
card tells which) and are left out. Weights are unchanged. Needs onnx, onnxruntime and the wheel `speechmos` (MIT); what
it writes needs onnxruntime.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from data_engine.core.errors import MissingExtraError

_CUT = "mos_estimator_logpow/max_pooling2d/MaxPool_1_conv0"
_INPUT, _OUTPUT = "input_1", "Identity:0"
_CROP_END, _FRAME_SHAPES = "input_1:01_cropping_end", ("shape_tensor", "shape_tensor1")
_FRAME = 160
_CHANNELS, _BANDS = 32, 40
_HALF_DEAD, _NEXT = "conv2d_1", "conv2d_2"
_PROBES, _PROBE_FRAMES = 64, 101


def wheel_model() -> Path:
    """Returns the path of `sig_bak_ovr.onnx` in the installed wheel; the package itself is not imported.

    Raises:
        MissingExtraError: speechmos is not installed.
    """
    spec = importlib.util.find_spec("speechmos")
    if spec is None or not spec.submodule_search_locations:
        raise MissingExtraError("speechmos", "weights", "cutting the DNSMOS network")
    return Path(spec.submodule_search_locations[0]) / "dnsmos_models" / "sig_bak_ovr.onnx"


def free_length(model: Any) -> None:
    """Changes the framing constants in place, so that the front takes any multiple of 160 samples."""
    from onnx import numpy_helper

    any_length = {_CROP_END: np.array([np.iinfo(np.int64).max, -_FRAME])}
    any_length |= {name: np.array([0, -1, _FRAME]) for name in _FRAME_SHAPES}
    for tensor in model.graph.initializer:
        if tensor.name in any_length:
            tensor.CopyFrom(numpy_helper.from_array(any_length[tensor.name], tensor.name))
    del model.graph.value_info[:]


def probes(count: int) -> Iterator[npt.NDArray[np.float32]]:
    """Yields sounds of a second that are rougher than recordings.

    By turns spectra whose every bin jumps by up to 120 dB, and noise whose level jumps with every 10 ms.
    """
    rng = np.random.default_rng(0)
    for number in range(count):
        if number % 2:
            sound = rng.standard_normal((_PROBE_FRAMES, _FRAME)) * 10.0 ** rng.uniform(-6, 0, (_PROBE_FRAMES, 1))
        else:
            shape = _PROBE_FRAMES, _FRAME + 1
            spectra = rng.standard_normal(shape) * 10.0 ** rng.uniform(-5, 1, shape)
            sound = np.fft.irfft(spectra, 2 * _FRAME)[:, :_FRAME]
        yield sound.astype(np.float32).reshape(1, -1)


def living_channels(front: Any, count: int = _PROBES) -> npt.NDArray[np.int64]:
    """Returns the channels of the second convolution that any probe makes positive.

    The others stay 0.04 below zero, these rise 1.2 above it or more: no rounding decides.

    Args:
        front: The network in ONNX.
        count: Probes.
    """
    import onnx
    import onnxruntime

    output = next(node.output[0] for node in front.graph.node if node.name == _HALF_DEAD)
    watched = onnx.ModelProto()
    watched.CopyFrom(front)
    watched.graph.output.append(onnx.helper.make_tensor_value_info(output, onnx.TensorProto.FLOAT, None))
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(watched.SerializeToString(), options, providers=["CPUExecutionProvider"])
    highest = [session.run([output], {_INPUT: sound})[0].max(axis=(0, 2, 3)) for sound in probes(count)]
    return np.flatnonzero(np.max(highest, axis=0) > 0)


def leave_out(front: Any, living: npt.NDArray[np.int64]) -> None:
    """Leaves the other channels of the second convolution out of the network, in place."""
    from onnx import numpy_helper

    axes = {f"{_HALF_DEAD}/kernel:0": 0, f"{_HALF_DEAD}/bias:0": 0, f"{_NEXT}/kernel:0": 1}
    for tensor in front.graph.initializer:
        if tensor.name in axes:
            kept = numpy_helper.to_array(tensor).take(living, axis=axes[tensor.name])
            tensor.CopyFrom(numpy_helper.from_array(kept, tensor.name))


def split(source: Path) -> dict[str, bytes]:
    """Returns the two networks by file name; equal input gives equal bytes.

    Raises:
        MissingExtraError: onnx is not installed.
    """
    try:
        import onnx
        from onnx.utils import Extractor
    except ImportError as error:
        raise MissingExtraError("onnx", "dev", "cutting the DNSMOS network") from error
    model = onnx.load(source)
    free_length(model)
    rows = onnx.helper.make_tensor_value_info(_CUT, onnx.TensorProto.FLOAT, ["windows", _CHANNELS, "rows", _BANDS])
    model.graph.value_info.append(rows)
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_param = "samples"
    parts = {"front.onnx": ([_INPUT], [_CUT]), "back.onnx": ([_CUT], [_OUTPUT])}
    extractor = Extractor(model)
    cut = {name: extractor.extract_model(*ends) for name, ends in parts.items()}
    leave_out(cut["front.onnx"], living_channels(cut["front.onnx"]))
    changes = {"front.onnx": "any input length, dead channels left out", "back.onnx": "any input length"}
    return {name: _finish(part, source, changes[name]) for name, part in cut.items()}


def _finish(part: Any, source: Path, change: str) -> bytes:
    """Returns the checked part with its provenance, as bytes."""
    from onnx import checker, helper

    properties = {
        "source": f"speechmos, {source.name}",
        "source_sha256": hashlib.sha256(source.read_bytes()).hexdigest(),
        "licence": "MIT, Copyright (c) Microsoft Corporation",
        "change": f"cut behind the second pooling, {change}; weights unchanged",
    }
    helper.set_model_props(part, properties)
    checker.check_model(part)
    content: bytes = part.SerializeToString(deterministic=True)
    return content


def main(arguments: list[str] | None = None) -> None:
    """Runs the cut from the command line."""
    parser = argparse.ArgumentParser(description="Cut DNSMOS P.835 so that windows share work.")
    parser.add_argument("--output", type=Path, required=True, help="folder to write front.onnx and back.onnx to")
    parser.add_argument("--model", type=Path, help="sig_bak_ovr.onnx; default: of the installed wheel")
    chosen = parser.parse_args(arguments)
    chosen.output.mkdir(parents=True, exist_ok=True)
    for name, content in split(chosen.model or wheel_model()).items():
        (chosen.output / name).write_bytes(content)
        print(name, hashlib.sha256(content).hexdigest())


if __name__ == "__main__":
    main()
