"""Eight-bit variants of both tokenizers: `python -m data_engine.training.quantise FOLDER [--cache CACHE]`.

Writes `encoder.int8.onnx` and `speech_tokenizer_v1.int8.onnx` beside their float files. With a cache it measures how
many codes are those of the float files and fails below 99 %.

Recipes: `weights` (weights of 8 bits, float activations) ships. `static` (8-bit activations too, ranges calibrated) and
`dynamic` (ranges from the batch) are there to be measured: FSQ codes of float-trained weights change more with them,
and a dynamic range makes the codes of a clip depend on the clips beside it.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from data_engine.backends.codec_nano import ENCODER, SEMANTIC, NanoCodec
from data_engine.backends.protocols import CodeStreams, Wave
from data_engine.models.codec_views import normalise_peak
from data_engine.models.kaldi_fbank import SAMPLE_RATE, kaldi_fbank, low_frame_rate
from data_engine.models.onnx_weights import store_weights_as_bytes
from data_engine.models.whisper_mel import whisper_log_mel

FLOOR = 0.99
"""Least share of codes that are those of the float files."""

_PRODUCTS = ["Conv", "MatMul"]

Inputs = dict[str, Any]
Recipe = Callable[[Path, Path, Sequence[Inputs]], None]


def small_name(name: str) -> str:
    """Returns the name of the 8-bit variant of a file."""
    return name.replace(".onnx", ".int8.onnx")


def encoder_inputs(wave: Wave) -> Inputs:
    """Returns what encoder.onnx takes of a wave."""
    return {"features": low_frame_rate(kaldi_fbank(normalise_peak(wave)))[None]}


def semantic_inputs(wave: Wave) -> Inputs:
    """Returns what speech_tokenizer_v1.onnx takes of a wave."""
    feats = np.ascontiguousarray(whisper_log_mel(normalise_peak(wave)).T)[None]
    return {"feats": feats, "feats_length": np.array([feats.shape[2]], np.int32)}


def _weights(source: Path, target: Path, calibration: Sequence[Inputs]) -> None:
    store_weights_as_bytes(source, target)


def _dynamic(source: Path, target: Path, calibration: Sequence[Inputs]) -> None:
    from onnxruntime.quantization import QuantType, quantize_dynamic

    quantize_dynamic(source, target, ["MatMul"], per_channel=True, weight_type=QuantType.QInt8)


def _static(source: Path, target: Path, calibration: Sequence[Inputs]) -> None:
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Reader(CalibrationDataReader):  # type: ignore[misc]  # onnxruntime asks for this base class
        """Gives the calibration inputs one after the other."""

        def __init__(self) -> None:
            self._rows: Iterator[Inputs] = iter(calibration)

        def get_next(self) -> Inputs | None:
            return next(self._rows, None)

    quantize_static(
        source, target, Reader(), quant_format=QuantFormat.QDQ, op_types_to_quantize=_PRODUCTS, per_channel=True,
        activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8,
    )  # fmt: skip


RECIPES: dict[str, Recipe] = {"weights": _weights, "static": _static, "dynamic": _dynamic}


def quantise(folder: Path, recipe: str = "weights", calibration: Sequence[Wave] = ()) -> dict[str, int]:
    """Writes the 8-bit files of a folder of codec `nano`; returns their sizes in bytes.

    Args:
        folder: Holds encoder.onnx and speech_tokenizer_v1.onnx.
        recipe: Of `RECIPES`.
        calibration: Speech to take the ranges of activations from; `static` alone needs it.
    """
    sizes = {}
    for name, inputs in ((ENCODER, encoder_inputs), (SEMANTIC, semantic_inputs)):
        target = folder / small_name(name)
        RECIPES[recipe](folder / name, target, [inputs(wave) for wave in calibration])
        sizes[target.name] = target.stat().st_size
    return sizes


def codes_of(folder: Path, bits: int, waves: Sequence[Wave]) -> tuple[list[CodeStreams], float]:
    """Returns the codes of waves, encoded together, and processor seconds per second of audio."""
    codec = NanoCodec(str(folder), bits=bits)
    codec.open()
    began = time.process_time()
    codes = codec.encode(waves)
    spent = time.process_time() - began
    return codes, spent / (sum(len(wave) for wave in waves) / SAMPLE_RATE)


def equal_share(one: Sequence[CodeStreams], other: Sequence[CodeStreams], stream: str) -> float:
    """Returns the share of equal codes in a stream, `vq02` or `vq06`."""
    same = [getattr(a, stream) == getattr(b, stream) for a, b in zip(one, other, strict=True)]
    return float(np.concatenate(same).mean())


def agreement(folder: Path, waves: Sequence[Wave]) -> dict[str, float]:
    """Returns shares of codes equal to the float ones in both streams, of clips that keep their codes alone, and speed.

    Args:
        folder: With the files of both kinds and the codebook.
        waves: Held-out speech, float32 at 16 kHz.
    """
    full, full_speed = codes_of(folder, 32, waves)
    small, small_speed = codes_of(folder, 8, waves)
    codec = NanoCodec(str(folder), bits=8)
    codec.open()
    alone = [codec.encode([wave])[0] for wave in waves]
    pairs = zip(small, alone, strict=True)
    kept = [np.array_equal(a.vq02, b.vq02) and np.array_equal(a.vq06, b.vq06) for a, b in pairs]
    return {
        "vq02": round(equal_share(full, small, "vq02"), 5), "vq06": round(equal_share(full, small, "vq06"), 5),
        "alone": float(np.mean(kept)), "rtf": round(small_speed, 5), "rtf_float": round(full_speed, 5),
    }  # fmt: skip


def sample_waves(cache: Path, names: Sequence[str], count: int) -> list[Wave]:
    """Returns so many evenly chosen utterances of each part of the training cache."""
    from data_engine.training.speech.waves import load

    return [
        part.utterance(int(index)).wave
        for part in load(cache, names)
        for index in np.unique(np.linspace(0, len(part) - 1, count).astype(int))
    ]  # fmt: skip


def main() -> None:
    """Writes the files, prints sizes and agreement; exits with 1 below the floor."""
    parser = argparse.ArgumentParser(description="Makes the 8-bit variants of the tokenizers.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--recipe", choices=list(RECIPES), default="weights")
    parser.add_argument("--cache", type=Path, help="training cache: measure on its test parts")
    parser.add_argument("--tests", nargs="+", default=["test_teachers", "test_ocean"])
    parser.add_argument("--utterances", type=int, default=40, help="of each test part")
    parser.add_argument("--calibrate", nargs="+", default=["flite", "real"])
    arguments = parser.parse_args()
    fitting = arguments.recipe == "static"
    if fitting and arguments.cache is None:
        parser.error("--recipe static needs --cache, to calibrate")
    calibration = sample_waves(arguments.cache, arguments.calibrate, 100) if fitting else []
    found: dict[str, Any] = {
        "recipe": arguments.recipe,
        "bytes": quantise(arguments.folder, arguments.recipe, calibration),
    }
    if arguments.cache:
        found |= agreement(arguments.folder, sample_waves(arguments.cache, arguments.tests, arguments.utterances))
    print(json.dumps(found))
    raise SystemExit(1 if min(found.get("vq02", 1.0), found.get("vq06", 1.0)) < FLOOR else 0)


if __name__ == "__main__":
    main()
