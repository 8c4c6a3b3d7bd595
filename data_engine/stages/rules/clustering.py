"""Speaker clustering of embedded windows: which windows there are, who speaks in them, and when turns change.

Average-linkage clustering of overlapping windows finds many pure clusters; those whose centroids are close are one
speaker; a cluster with little speech is no speaker; then every instant goes to the closest centroid, heard through
the windows around it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator

from data_engine.core.config import Settings

Floats = npt.NDArray[np.float32]
Indices = npt.NDArray[np.int64]

_REFINEMENTS = 2
_REACH = 3
_SMALLEST_NORM = 1e-12


class ClusterSettings(Settings):
    """How windows become speakers. Distances are cosine distances.

    Attributes:
        distance: Windows are joined into clusters up to this average distance.
        centroid_distance: Clusters are joined into speakers up to this distance of their centroids.
        min_window_seconds: Shorter windows are assigned to speakers but found none.
        min_windows: A speaker needs so many windows, unless it is the only one.
        min_share: A speaker needs this share of all windows, unless it is the only one.
        max_windows: Of more windows, so many evenly spaced ones are clustered: bounds memory and time.
        num_speakers: When it is known; else it is estimated.
        min_speakers: At least so many are looked for.
        max_speakers: At most so many.
    """

    distance: float = Field(default=0.25, gt=0.0, le=2.0)
    centroid_distance: float = Field(default=0.12, ge=0.0, le=2.0)
    min_window_seconds: float = Field(default=0.8, ge=0.0)
    min_windows: int = Field(default=6, ge=1)
    min_share: float = Field(default=0.01, ge=0.0, lt=1.0)
    max_windows: int = Field(default=2000, ge=2)
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


@dataclass(frozen=True, slots=True)
class Windows:
    """Windows of speech regions.

    Attributes:
        start: First sample, int64 [windows].
        num_samples: Length, int64 [windows].
        counts: Windows of each region, int64 [regions].
    """

    start: Indices
    num_samples: Indices
    counts: Indices


def place_windows(regions: Indices, window: int, hop: int) -> Windows:
    """Covers each region with windows.

    Args:
        regions: First sample and the sample after the last, int64 [regions, 2].
        window: Length of a window in samples.
        hop: Largest step between windows in samples; steps within a region are equal.

    Returns:
        Windows inside their regions that together cover them; a short region is one window.
    """
    lengths = regions[:, 1] - regions[:, 0]
    slack = np.maximum(lengths - window, 0)
    counts = -(-slack // hop) + 1
    region = np.repeat(np.arange(len(regions)), counts)
    order = np.arange(len(region)) - np.repeat(np.cumsum(counts) - counts, counts)
    start = regions[region, 0] + order * slack[region] // np.maximum(counts[region] - 1, 1)
    return Windows(start, np.minimum(lengths, window)[region], counts)


def speaker_centroids(embeddings: Floats, founding: npt.NDArray[np.bool_], settings: ClusterSettings) -> Floats:
    """Returns one unit-length centroid per speaker, float32 [speakers, dimensions].

    Args:
        embeddings: Unit-length, float32 [windows, dimensions], at least one.
        founding: Which windows are long enough to found speakers; when fewer than two are, all found.
        settings: Distances and bounds.
    """
    chosen = np.flatnonzero(founding) if founding.sum() > 1 else np.arange(len(embeddings))
    if len(chosen) > settings.max_windows:
        chosen = chosen[np.linspace(0, len(chosen) - 1, settings.max_windows).round().astype(np.int64)]
    points = embeddings[chosen]
    fewest, most = settings.bounds
    labels = _linked(points, settings.distance, min(fewest, len(points)))
    labels = join_close(points, labels, settings.centroid_distance, fewest, None)
    smallest = max(settings.min_windows, math.ceil(settings.min_share * len(points)))
    for _ in range(_REFINEMENTS):
        centroids = _centroids(points, labels, _large(labels, smallest, fewest))
        labels = np.argmax(points @ centroids.T, axis=1)
    # `most` comes last: outliers are gone by now, so it does not force real speakers together.
    labels = join_close(points, labels, settings.centroid_distance, fewest, most)
    return _centroids(points, labels, _large(labels, smallest, fewest))


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


def join_close(points: Floats, labels: Indices, distance: float, fewest: int, most: int | None) -> Indices:
    """Joins the two clusters with the closest centroids until none are closer than `distance`.

    Args:
        points: Unit-length, float32 [points, dimensions].
        labels: Cluster of each point, int64 [points].
        distance: Cosine distance.
        fewest: So many clusters are left, however close.
        most: At most so many are left, however far.

    Returns:
        New labels, int64 [points].
    """
    labels = labels.copy()
    while len(names := np.unique(labels)) > fewest:
        centroids = _centroids(points, labels, names)
        apart = 1.0 - centroids @ centroids.T
        apart[np.tril_indices(len(names))] = np.inf
        first, second = np.unravel_index(np.argmin(apart), apart.shape)
        if apart[first, second] > distance and (most is None or len(names) <= most):
            break
        labels[labels == names[second]] = names[first]
    return labels


def _large(labels: Indices, smallest: int, fewest: int) -> Indices:
    """Returns the clusters with at least `smallest` points, or the `fewest` largest ones."""
    names, counts = np.unique(labels, return_counts=True)
    largest = names[np.argsort(-counts, kind="stable")[:fewest]]
    return np.union1d(names[counts >= smallest], largest)


def _centroids(points: Floats, labels: Indices, names: Indices) -> Floats:
    member = (labels[None, :] == names[:, None]).astype(np.float32)
    return unit_rows(member @ points)


def unit_rows(vectors: Floats) -> Floats:
    """Returns the rows at length 1; rows of zeros stay zeros."""
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.maximum(norms, _SMALLEST_NORM), np.float32)


def label_frames(
    similarity: Floats, centres: npt.NDArray[np.float64], frames: npt.NDArray[np.float64], width: float
) -> Indices:
    """Returns who speaks in each frame of one region, int64 [frames].

    Args:
        similarity: Similarity of each window of the region to each speaker, [windows, speakers].
        centres: Centres of those windows, ascending and equally spaced, [windows].
        frames: Centres of the frames, [frames].
        width: Standard deviation of the Gaussian weight of a window by its distance, as `centres`.
    """
    step = (centres[-1] - centres[0]) / max(len(centres) - 1, 1) or 1.0
    nearest = np.rint((frames - centres[0]) / step).astype(np.int64).clip(0, len(centres) - 1)
    around = nearest[:, None] + np.arange(-_REACH, _REACH + 1)
    inside = (around >= 0) & (around < len(centres))
    around = around.clip(0, len(centres) - 1)
    exponents = np.where(inside, np.square((frames[:, None] - centres[around]) / width), np.inf)
    # Relative to the closest window, so that the weights of a far-off frame do not all vanish.
    weights = np.exp(-0.5 * (exponents - exponents.min(axis=1, keepdims=True)))
    scores = np.einsum("fw,fws->fs", weights, similarity[around])
    return np.asarray(np.argmax(scores, axis=1), np.int64)
