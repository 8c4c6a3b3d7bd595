"""Rows of the two tokenizers: phone error rates, use of the codebooks, and whether int8 keeps the codes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from data_engine.backends.codec_nano import ENCODER, FULL_BITS, SMALL_BITS, network_file
from data_engine.backends.protocols import CodeStreams, Wave
from data_engine.backends.semantic_session import onnx_session
from data_engine.models.codec_views import normalise_peak
from data_engine.models.kaldi_fbank import kaldi_fbank, low_frame_rate
from data_engine.training.batches import UNKNOWN, frame_labels
from data_engine.training.evaluation.bench import Bench
from data_engine.training.evaluation.figures import Found, NotMeasuredError, Statistic, Weights, ratio_of
from data_engine.training.evaluation.utterances import SILENT, Spoken
from data_engine.training.linguistic import GRID
from data_engine.training.scoring import collapsed, edits

Ints = npt.NDArray[np.int64]
_LINGUISTIC_CODES, _SEMANTIC_CODES = 1024, 4096
_SAME_TOKENIZER = 0.98


def linguistic(bench: Bench) -> dict[str, Found]:
    """Returns the phone error rates of the encoder's best CTC path, with the ONNX file that ships."""
    bench.codec  # noqa: B018 (says what is missing)
    session = onnx_session(network_file(bench.folder, ENCODER, SMALL_BITS), "cpu", 1)

    def best_path(wave: Wave) -> Ints:
        rows = low_frame_rate(kaldi_fbank(normalise_peak(wave)))[None]
        best: Ints = session.run(["log_posteriors"], {"features": rows})[0][0].argmax(-1)
        return best

    return {
        name: phone_errors(bench, name, [best_path(one.wave) for one in bench.spoken(name)])
        for name in ("teachers", "real")
    }


def phone_errors(bench: Bench, name: str, paths: Sequence[Ints]) -> Found:
    """Returns the phone error rate of best paths; pauses do not count. Details: the rate of each source."""
    spoken = bench.spoken(name)
    wrong = [edits(one.utterance.spoken, collapsed(path, SILENT)) for one, path in zip(spoken, paths, strict=True)]
    total = [len(one.utterance.spoken) for one in spoken]
    sources = {
        source: round(sum(w for w, one in zip(wrong, spoken, strict=True) if one.source == source)
                      / max(sum(len(one.utterance.spoken) for one in spoken if one.source == source), 1), 4)
        for source in sorted({one.source for one in spoken})
    }  # fmt: skip
    return bench.found(ratio_of(wrong, total), len(spoken), by_source=sources)


def semantic(bench: Bench) -> dict[str, Found]:
    """Returns the phone error rates of the head that was trained with the tokenizer, from the codes alone."""
    import torch

    model = trained_head(bench, bench.settings.semantic_checkpoint)
    found = {}
    with torch.inference_mode():
        for name in ("teachers", "real"):
            paths = [head_path(model, stream.vq06) for stream in bench.streams(name)]
            found[name] = phone_errors(bench, name, paths)
    return found


def head_path(model: Any, codes: npt.NDArray[np.uint16]) -> Ints:
    """Returns the best CTC token of each code by the phone head of a `training.semantic.SemanticTraining`."""
    import torch

    from data_engine.models.token_decoder import code_points

    hidden = model.phones_in(code_points(torch.from_numpy(codes.astype(np.int64))).float()[None])
    for block in model.phone_blocks:
        hidden = block(hidden)
    best: Ints = model.ctc(hidden)[0].argmax(-1).numpy()
    return best


def trained_head(bench: Bench, checkpoint: Path) -> Any:
    """Returns the model of a checkpoint, which must be the one whose encoder ships.

    Raises:
        NotMeasuredError: There is none, or its encoder gives other codes.
    """
    import torch

    from data_engine.models.fake_quant import put_on_grid
    from data_engine.training.loop import halve, load_weights
    from data_engine.training.semantic import GRID as SEMANTIC_GRID
    from data_engine.training.semantic import SemanticTraining, codes_of

    if not checkpoint.is_file():
        raise NotMeasuredError(f"the phone head needs the training checkpoint '{checkpoint}', which is not there")
    model = SemanticTraining()
    load_weights(model.eval(), checkpoint.parent)
    put_on_grid(model.encoder)  # as `weights_on_grid` does before the file is written; the head stays as it is
    halve(model.encoder)
    with torch.inference_mode():
        pairs = list(zip(bench.spoken("teachers"), bench.streams("teachers"), strict=True))[:5]
        features = [SEMANTIC_GRID.features(normalise_peak(one.wave)) for one, _ in pairs]
        codes = [codes_of(model, [rows])[: len(stream.vq06)] for rows, (_, stream) in zip(features, pairs, strict=True)]
    same = np.mean(np.concatenate([c == stream.vq06 for c, (_, stream) in zip(codes, pairs, strict=True)]))
    if same < _SAME_TOKENIZER:
        raise NotMeasuredError(f"'{checkpoint}' is not what ships: only {same:.1%} of its codes are the same")
    return model


def codes(bench: Bench) -> dict[str, Found]:
    """Returns use, perplexity and PNMI over the probe corpus and both test sets; PNMI where phone times are known."""
    spoken, streams = list(bench.probes[0]), list(bench.probes[1])
    for name in ("teachers", "real"):
        spoken, streams = spoken + bench.spoken(name), streams + bench.streams(name)
    owners = np.repeat(np.arange(len(streams)), [len(stream.vq02) for stream in streams])
    words = np.concatenate([stream.vq02 for stream in streams]).astype(np.int64)
    sounds = np.concatenate([stream.vq06 for stream in streams]).astype(np.int64)
    phones = np.concatenate([_labels(one, stream) for one, stream in zip(spoken, streams, strict=True)])
    known, count = phones != UNKNOWN, len(streams)
    information = phone_information(phones[known], words[known], owners[known])
    return {
        "linguistic_used": Found(len(np.unique(words)), utterances=count, details={"codes": len(words)}),
        "linguistic_perplexity": bench.found(perplexity(words, owners, _LINGUISTIC_CODES), count),
        "pnmi": bench.found(information, count, frames=int(known.sum())),
        "semantic_used": Found(len(np.unique(sounds)), utterances=count, details={"codes": len(sounds)}),
    }


def _labels(one: Spoken, stream: CodeStreams) -> Ints:
    return frame_labels(one.utterance, len(stream.vq02), GRID, 1.0)


def perplexity(found: Ints, owners: Ints, size: int) -> Statistic:
    """Returns the statistic perplexity of codes.

    Args:
        found: Codes of all utterances.
        owners: Number of the utterance of each.
        size: Of the codebook.
    """

    def weighted(weights: Weights) -> float:
        shares = np.bincount(found, weights[owners], size) / weights[owners].sum()
        return float(np.exp(_entropy(shares)))

    return weighted


def phone_information(phones: Ints, found: Ints, owners: Ints) -> Statistic:
    """Returns the statistic PNMI: information that codes hold about phones over the entropy of phones (HuBERT, 2021).

    Args:
        phones: Phone of each frame.
        found: Code of each frame.
        owners: Number of the utterance of each frame.
    """
    rows, columns = int(phones.max()) + 1, int(found.max()) + 1
    cell = phones * columns + found

    def weighted(weights: Weights) -> float:
        joint = np.bincount(cell, weights[owners], rows * columns).reshape(rows, columns) / weights[owners].sum()
        phone = _entropy(joint.sum(1))
        return (phone + _entropy(joint.sum(0)) - _entropy(joint.ravel())) / phone

    return weighted


def _entropy(shares: npt.NDArray[np.float64]) -> float:
    positive = shares[shares > 0]
    return float(-(positive * np.log(positive)).sum())


def int8(bench: Bench) -> dict[str, Found]:
    """Returns the shares of ids that the 8-bit tokenizers keep, on both test sets."""
    full = bench.open_codec(bench.settings.floats, FULL_BITS)
    spoken = bench.spoken("teachers") + bench.spoken("real")
    ours, theirs = bench.streams("teachers") + bench.streams("real"), full.encode([one.wave for one in spoken])
    found = {}
    for key, stream in (("linguistic", "vq02"), ("semantic", "vq06")):
        pairs = [(getattr(a, stream), getattr(b, stream)) for a, b in zip(theirs, ours, strict=True)]
        equal, total = [int((a == b).sum()) for a, b in pairs], [len(a) for a, _ in pairs]
        found[key] = bench.found(ratio_of(equal, total), len(pairs), hash_32_bit=full.revision)
    return found
