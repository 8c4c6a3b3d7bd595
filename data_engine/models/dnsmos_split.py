"""Cuts DNSMOS P.835 in two, so that overlapping windows share their convolutions.

    python -m data_engine.models.dnsmos_split --output data_engine/assets/dnsmos

The published network scores 9.01 s; scripts move it by 1 s and compute 98 % of it anew. It is convolutional in time
up to a global maximum, so the cut is behind its second pooling: `front.onnx` turns samples of any length into
feature rows of 40 ms, `back.onnx` turns the 225 rows of one window into three scores. Weights are unchanged.
Needs onnx and the wheel `speechmos` (MIT); the files it writes need onnxruntime only.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
from pathlib import Path
from typing import Any

import numpy as np

from data_engine.core.errors import MissingExtraError

_CUT = "mos_estimator_logpow/max_pooling2d/MaxPool_1_conv0"
_INPUT, _OUTPUT = "input_1", "Identity:0"
_CROP_END, _FRAME_SHAPES = "input_1:01_cropping_end", ("shape_tensor", "shape_tensor1")
_FRAME = 160
_CHANNELS, _BANDS = 32, 40


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
    return {name: _finish(extractor.extract_model(*ends), source) for name, ends in parts.items()}


def _finish(part: Any, source: Path) -> bytes:
    """Returns the checked part with its provenance, as bytes."""
    from onnx import checker, helper

    properties = {
        "source": f"speechmos, {source.name}",
        "source_sha256": hashlib.sha256(source.read_bytes()).hexdigest(),
        "licence": "MIT, Copyright (c) Microsoft Corporation",
        "change": "cut behind the second pooling, any input length; weights unchanged",
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
