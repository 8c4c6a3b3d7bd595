"""Which stretches of speech are of one speaker: clustering of speaker embeddings.

Average-linkage clustering finds the speakers of one window; a cluster with little speech is no speaker. Speakers of
several windows are one when their voices are close, except that two of one window never are.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator

from data_engine.core.config import Settings

Floats = npt.NDArray[np.float32]
Indices = npt.NDArray[np.int64]

_SMALLEST_NORM = 1e-12


class ClusterSettings(Settings):
    """How stretches become speakers. Distances are cosine distances of unit-length embeddings.

    Attributes:
        distance: Stretches are joined up to this average distance.
        min_share: A speaker needs this share of the speech of the wave, unless it is the only one.
        max_stretches: Of more stretches, so many evenly spaced ones found the speakers: bounds memory and time.
        num_speakers: When it is known; else it is estimated.
        min_speakers: At least so many are looked for.
        max_speakers: At most so many.
    """

    distance: float = Field(default=0.2, gt=0.0, le=2.0)
    min_share: float = Field(default=0.05, ge=0.0, lt=1.0)
    max_stretches: int = Field(default=2000, ge=2)
    num_speakers: int | None = Field(default=None, ge=1)
    min_speakers: int = Field(default=1, ge=1)
    max_speakers: int | None = Field(default=None, ge=1)

    @model_validator(mode="after")
    def _ordered(self) -> ClusterSettings:
        if self.max_speakers is not None and self.max_speakers < self.min_speakers:
            raise ValueError(f"max_speakers {self.max_speakers} is below min_speakers {self.min_speakers}")
        return self

    @property
    def bounds(self) -> tuple[int, int | None]:
        """Fewest and most speakers."""
        known = self.num_speakers
        return (known, known) if known is not None else (self.min_speakers, self.max_speakers)


def speaker_centroids(embeddings: Floats, seconds: Floats, settings: ClusterSettings) -> Floats:
    """Returns one unit-length centroid per speaker, float32 [speakers, dimensions].

    Args:
        embeddings: Unit-length, of stretches of speech, float32 [stretches, dimensions], at least one.
        seconds: Speech in each, float32 [stretches].
        settings: Distance and bounds.
    """
    if len(embeddings) > settings.max_stretches:
        chosen = np.linspace(0, len(embeddings) - 1, settings.max_stretches).round().astype(np.int64)
        embeddings, seconds = embeddings[chosen], seconds[chosen]
    fewest, most = settings.bounds
    labels = _linked(embeddings, settings.distance, min(fewest, len(embeddings)))
    _, members = np.unique(labels, return_inverse=True)
    spoken = np.bincount(members, weights=seconds.astype(np.float64))
    largest = np.argsort(-spoken, kind="stable")[:fewest]
    kept = np.union1d(np.flatnonzero(spoken >= settings.min_share * spoken.sum()), largest)
    centroids = [embeddings[members == cluster].mean(axis=0) for cluster in kept]
    return _at_most(unit_rows(np.array(centroids, np.float32)), spoken[kept], most)


def _linked(points: Floats, distance: float, fewest: int) -> Indices:
    """Returns the cluster of each point by average linkage, cut at `distance` or at `fewest` clusters."""
    if len(points) == 1:
        return np.zeros(1, np.int64)
    from scipy.cluster.hierarchy import fcluster, linkage

    tree = linkage(points.astype(np.float64), "average", metric="cosine")
    labels = fcluster(tree, distance, "distance")
    if len(np.unique(labels)) < fewest:
        labels = fcluster(tree, fewest, "maxclust")
    return np.asarray(labels, np.int64)


def _at_most(centroids: Floats, weights: npt.NDArray[Any], most: int | None) -> Floats:
    """Joins the closest two centroids until `most` are left; small clusters are gone by now, so no outlier counts."""
    while most is not None and len(centroids) > most:
        apart = 1.0 - centroids @ centroids.T
        apart[np.tril_indices(len(apart))] = np.inf
        first, second = np.unravel_index(np.argmin(apart), apart.shape)
        joined = weights[first] * centroids[first] + weights[second] * centroids[second]
        centroids[first] = unit_rows(joined[None].astype(np.float32))[0]
        weights[first] += weights[second]
        centroids, weights = np.delete(centroids, second, axis=0), np.delete(weights, second)
    return centroids


def link_speakers(voices: Floats, seconds: Floats, windows: Indices, distance: float) -> Indices:
    """Tells which speakers of several windows are one, by average linkage of their voices.

    Args:
        voices: Unit-length embedding of each speaker of each window, float32 [speakers, dimensions]; zeros where it
            is not known: such a speaker stays alone.
        seconds: Speech of each, the weight of its voice, float32 [speakers].
        windows: Where each was found, int64 [speakers]; two of one window are never one.
        distance: Cosine distance up to which two are one.

    Returns:
        Numbers from 0 in the order of first appearance, int64 [speakers].
    """
    labels = np.arange(len(voices))
    apart = (1.0 - voices @ voices.T).astype(np.float64)
    known = np.asarray(voices.any(axis=1))
    may = (windows[:, None] != windows[None, :]) & known[:, None] & known[None, :]
    apart[~may] = np.inf
    weights = seconds.astype(np.float64) + _SMALLEST_NORM
    while apart.size:
        first, second = sorted(np.unravel_index(np.argmin(apart), apart.shape))
        if apart[first, second] > distance:
            break
        share = weights[second] / (weights[first] + weights[second])
        # A pair that must stay apart is infinitely far, and so is what it is joined with.
        apart[first] = (1 - share) * apart[first] + share * apart[second]
        apart[:, first] = apart[first]
        apart[second], apart[:, second], apart[first, first] = np.inf, np.inf, np.inf
        weights[first] += weights[second]
        labels[labels == second] = first
    _, first_seen, numbers = np.unique(labels, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first_seen))[numbers].astype(np.int64)


def unit_rows(vectors: Floats) -> Floats:
    """Returns the rows at length 1; rows of zeros stay zeros."""
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.maximum(norms, _SMALLEST_NORM), np.float32)
