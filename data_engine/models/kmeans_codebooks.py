"""Fits the codebooks of the embedded codec: `python -m data_engine.models.kmeans_codebooks --output FILE`.

Lloyd's algorithm with centroids kept on the integer grids of `codec_views`, so every assignment is exact and a
fit can be repeated anywhere. Prints what a trainer would ask: codes in use, perplexity, spectral distance.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from data_engine.backends.codec_kmeans import CODEBOOKS, KMeansCodec
from data_engine.models.codebook_corpus import (
    Recording,
    Wave,
    open_recordings,
    read_aloud,
    readable,
    vary,
    wheel_sample,
)
from data_engine.models.codec_views import (
    ACOUSTIC_FRAMES,
    GRID_LIMIT,
    LINGUISTIC_FRAMES,
    acoustic_view,
    blocks,
    code_counts,
    linguistic_view,
    nearest,
    speech_mel,
)

Floats = npt.NDArray[np.float32]
Indices = npt.NDArray[np.int64]

_LINGUISTIC_POINTS = 60_000
_ACOUSTIC_POINTS = 90_000


def lloyd(points: Floats, num_centroids: int, iterations: int, rng: np.random.Generator) -> Floats:
    """Returns k-means centroids rounded to integers, float32 [num_centroids, dimensions] (Lloyd 1982).

    Args:
        points: Integer coordinates, float32 [points, dimensions].
        num_centroids: Cells; an empty one is started again on a random point.
        iterations: Passes over the points.
        rng: Draws the first centroids.
    """
    centroids = points[np.sort(rng.choice(len(points), num_centroids, replace=False))]
    for _ in range(iterations):
        codes = nearest(points, centroids)
        centroids = np.rint(cell_means(codes, points, num_centroids))
        empty = np.flatnonzero(np.bincount(codes, minlength=num_centroids) == 0)
        centroids[empty] = points[rng.choice(len(points), len(empty), replace=False)]
    return np.clip(centroids, -GRID_LIMIT, GRID_LIMIT)


def cell_means(codes: Indices, values: Floats, num_cells: int, prior: float = 0.0) -> Floats:
    """Returns the mean of the values in each cell, float32 [num_cells, ...]; 0 for an empty one.

    Args:
        codes: Cell of each value, [values].
        values: float32 [values, ...].
        num_cells: Cells.
        prior: Weight of a zero value mixed into each cell, against noise in small ones.
    """
    counts = np.bincount(codes, minlength=num_cells)
    order = np.argsort(codes, kind="stable")
    filled = np.flatnonzero(counts)
    starts = (np.cumsum(counts) - counts)[filled]
    means = np.zeros((num_cells, *values.shape[1:]), np.float32)
    sums = np.add.reduceat(values[order], starts, axis=0, dtype=np.float64)
    means[filled] = sums / (counts[filled] + prior).reshape(-1, *[1] * (values.ndim - 1))
    return means


def fit_spectra(
    mels: Sequence[Floats], codes02: Sequence[Indices], codes06: Sequence[Indices]
) -> tuple[Floats, Floats]:
    """Returns what each code adds to the log-mel: vq02 float32 [1024, 6, 80] and vq06 float32 [4096, 80].

    Backfitting (Friedman and Stuetzle 1981): each codebook in turn explains what the other leaves over.
    """
    whole = [min(len(a) // 2, len(b) // 3) for a, b in zip(codes02, codes06, strict=True)]
    target = np.concatenate([blocks(mel, g, 12) for mel, g in zip(mels, whole, strict=True)])
    first = np.concatenate([codes[: 2 * g] for codes, g in zip(codes02, whole, strict=True)])
    second = np.concatenate([codes[: 3 * g] for codes, g in zip(codes06, whole, strict=True)])
    detail = np.zeros((1024, LINGUISTIC_FRAMES, target.shape[2]), np.float32)
    for _ in range(3):
        rest = target - detail[first].reshape(target.shape)
        level = cell_means(second, rest.reshape(len(second), ACOUSTIC_FRAMES, -1).mean(axis=1), 4096)
        rest = target - np.repeat(level[second], ACOUSTIC_FRAMES, axis=0).reshape(target.shape)
        detail = cell_means(first, rest.reshape(len(first), *detail.shape[1:]), 1024, prior=5.0)
    return detail, level


def fit(waves: Iterable[Wave], seed: int) -> dict[str, npt.NDArray[np.float16]]:
    """Returns the tensors of a codebook file, see `codec_kmeans.TENSORS`.

    Args:
        waves: Speech at 16 kHz, at least 90,000 blocks of 40 ms of it.
        seed: Draws the points and the first centroids.
    """
    rng = np.random.default_rng(seed)
    pairs = [(speech_mel(wave), code_counts(len(wave))) for wave in waves]
    mels = [mel for mel, _ in pairs]
    views02 = [linguistic_view(mel, n02) for mel, (n02, _) in pairs]
    views06 = [acoustic_view(mel, n06) for mel, (_, n06) in pairs]
    centroids02 = lloyd(_sample(views02, _LINGUISTIC_POINTS, rng), 1024, 15, rng)
    centroids06 = lloyd(_sample(views06, _ACOUSTIC_POINTS, rng), 4096, 12, rng)
    codes02 = [nearest(view, centroids02) for view in views02]
    codes06 = [nearest(view, centroids06) for view in views06]
    detail, level = fit_spectra(mels, codes02, codes06)
    tensors = {"vq02.centroids": centroids02, "vq02.mel": detail, "vq06.centroids": centroids06, "vq06.mel": level}
    return {name: tensor.astype(np.float16) for name, tensor in tensors.items()}


def _sample(views: Sequence[Floats], count: int, rng: np.random.Generator) -> Floats:
    """Draws distinct points: digital silence, one point over and over, would take many cells."""
    points = np.unique(np.concatenate(views), axis=0)
    return points[np.sort(rng.choice(len(points), min(count, len(points)), replace=False))]


def corpus(extra: Path | None, minutes: float, seed: int) -> Iterator[Wave]:
    """Yields the speech to fit on, each clip followed by a varied copy of itself.

    Args:
        extra: Folder of real recordings with a manifest, or None.
        minutes: Speech of espeak-ng.
        seed: Draws sentences, voices and variations.
    """
    rng = np.random.default_rng([seed, 1])
    real = [wave for recording, wave in _real(extra) if not recording.held_out]
    for wave in (*real, *wheel_sample()):
        yield wave
        yield vary(wave, rng)
    for wave in read_aloud(60 * minutes, rng):
        yield wave
        yield vary(wave, rng)


def _real(extra: Path | None) -> list[tuple[Recording, Wave]]:
    return readable(open_recordings(extra)) if extra else []


def held_out(extra: Path | None, seed: int) -> list[Wave]:
    """Returns speech that `corpus` has not: the held-out sources of `extra`, else two minutes of other espeak."""
    real = [wave for recording, wave in _real(extra) if recording.held_out]
    return real or list(read_aloud(120, np.random.default_rng([seed, 2])))


def measure(codec: KMeansCodec, waves: Sequence[Wave]) -> dict[str, float]:
    """Returns minutes, codes in use and perplexity of both codebooks, and mean log-mel distances in nepers.

    `mel_distance` is between a wave and the codes' estimate, `resynthesis_distance` between it and decoded speech.
    """
    streams = codec.encode(waves)
    decoded = codec.decode(streams, [np.zeros(0, np.float32)] * len(streams))
    mels = [blocks(speech_mel(w), len(s.vq06), ACOUSTIC_FRAMES) for w, s in zip(waves, streams, strict=True)]
    estimates = [codec.log_mel(stream) for stream in streams]
    spoken = [blocks(speech_mel(w), len(s.vq06), ACOUSTIC_FRAMES) for w, s in zip(decoded, streams, strict=True)]
    result = {"minutes": sum(map(len, waves)) / 60 / codec.sample_rate}
    for name in ("vq02", "vq06"):
        shares = np.unique(np.concatenate([getattr(s, name) for s in streams]), return_counts=True)[1]
        shares = shares / shares.sum()
        result |= {f"{name}_used": len(shares), f"{name}_perplexity": float(np.exp(-(shares * np.log(shares)).sum()))}
    result["mel_distance"] = _distance(mels, estimates)
    result["resynthesis_distance"] = _distance(mels, spoken)
    return {name: round(value, 3) for name, value in result.items()}


def _distance(left: Sequence[Floats], right: Sequence[Floats]) -> float:
    gaps = [np.abs(a.reshape(-1) - b.reshape(-1)) for a, b in zip(left, right, strict=True)]
    return float(np.concatenate(gaps).mean())


def main(arguments: Sequence[str] | None = None) -> None:
    """Fits, writes and measures."""
    from safetensors.numpy import save

    parser = argparse.ArgumentParser(prog="python -m data_engine.models.kmeans_codebooks", description=__doc__)
    parser.add_argument("--output", type=Path, default=CODEBOOKS, help="where to write codebooks.safetensors")
    parser.add_argument("--extra", type=Path, help="folder of real recordings with a manifest.jsonl")
    parser.add_argument("--minutes", type=float, default=35.0, help="minutes of espeak-ng speech")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    tensors = fit(corpus(options.extra, options.minutes, options.seed), options.seed)
    options.output.write_bytes(save(tensors))
    codec = KMeansCodec(str(options.output))
    codec.open()
    print(json.dumps({"revision": codec.revision, **measure(codec, held_out(options.extra, options.seed))}, indent=1))


if __name__ == "__main__":
    main()
