"""From quotas to whole numbers per stratum: proportional fitting towards the shares, bounded by what there is.

Deterministic: element-wise IEEE arithmetic in a fixed order, then rounding by largest remainder.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

_ROUNDS = 1000
_CLOSE = 1e-10
_LEAST = 1e-12


def quota_targets(available: Ints, categories: Sequence[Ints], shares: Sequence[Floats], size: int) -> Ints:
    """Returns how much to take of each stratum, int64 [strata].

    They sum to `size`, or to all there is of strata whose shares are above zero. Where a category has less than its
    share, the other categories of its column make up for it, in proportion to their shares. What quotas of several
    columns leave open follows the proportions of what there is.

    Args:
        available: What there is, in rows or milliseconds, int64 [strata].
        categories: For each quota column the category of each stratum, int64 [strata].
        shares: For each quota column the share of each category; they sum to 1.
        size: How much is asked for, in the unit of `available`.
    """
    usable = available * _wanted(categories, shares, len(available))
    total = min(size, int(usable.sum()))
    caps = usable.astype(np.float64)
    marginals = [
        proportional(total, share, np.bincount(members, caps, len(share)).astype(np.float64))
        for members, share in zip(categories, shares, strict=True)
    ]
    fitted = fit(caps, categories, marginals, caps)
    return rounded(proportional(total, np.maximum(fitted, caps * _LEAST), caps), usable, total)


def quota_weights(got: Ints, categories: Sequence[Ints], shares: Sequence[Floats]) -> Floats:
    """Returns the weight of each stratum with which what was got has the shares asked for, float64 [strata].

    All 1 when the quotas are met; their mean over what was got is 1. Categories of which there is nothing are left out
    of the shares; where several columns contradict each other the fit is the nearest that was reached.

    Args:
        got: What was taken, in rows or milliseconds, int64 [strata].
        categories: As for `quota_targets`.
        shares: As for `quota_targets`.
    """
    counts = got.astype(np.float64)
    present = [np.bincount(members, counts, len(s)) > 0 for members, s in zip(categories, shares, strict=True)]
    kept = [np.where(there, s, 0.0) for there, s in zip(present, shares, strict=True)]
    marginals = [counts.sum() * s / s.sum() if s.sum() else s for s in kept]
    fitted = fit(counts, categories, marginals, np.full(len(counts), np.inf))
    return np.divide(fitted, counts, out=np.ones(len(counts)), where=counts > 0)


def fit(start: Floats, categories: Sequence[Ints], marginals: Sequence[Floats], caps: Floats) -> Floats:
    """Returns amounts whose sums per category approach `marginals`, none above its cap, float64 [strata].

    Iterative proportional fitting (Deming and Stephan 1940) with an upper bound: each column in turn is scaled to its
    sums, and what lies above its cap is cut; both are projections in the sense of relative entropy, so they converge
    where the marginals can be met.
    """
    amounts = np.minimum(start, caps)
    for _ in range(_ROUNDS):
        before = amounts
        for members, wanted in zip(categories, marginals, strict=True):
            sums = np.bincount(members, amounts, len(wanted))
            factors = np.divide(wanted, sums, out=np.zeros(len(wanted)), where=sums > 0)
            amounts = np.minimum(amounts * factors[members], caps)
        if np.abs(amounts - before).max(initial=0.0) <= _CLOSE * start.max(initial=0.0):
            break
    return amounts


def proportional(total: float, weights: Floats, caps: Floats) -> Floats:
    """Returns `total` divided in proportion to `weights`, none above its cap, float64 [n].

    Less than `total` when everything with a weight above zero is at its cap.
    """
    amounts, open_ = np.zeros(len(weights)), (weights > 0) & (caps > 0)
    left = float(total)
    while open_.any() and left > 0:
        offered = np.where(open_, weights, 0.0) * (left / weights[open_].sum())
        full = open_ & (offered >= caps)
        if not full.any():
            amounts[open_] = offered[open_]
            break
        amounts[full] = caps[full]
        left -= float(caps[full].sum())
        open_ &= ~full
    return amounts


def rounded(amounts: Floats, caps: Ints, total: int) -> Ints:
    """Returns whole numbers near `amounts` that sum to `total`: largest remainders first, none above its cap.

    Args:
        amounts: float64 [n].
        caps: Their sum is at least `total`, int64 [n].
        total: What the result sums to.
    """
    whole = np.minimum(np.floor(amounts).astype(np.int64), caps)
    order = np.argsort(whole - amounts, kind="stable")
    left = total - int(whole.sum())
    for most in (1, abs(left)):
        for place in order if left > 0 else order[::-1]:
            room = int(caps[place] - whole[place]) if left > 0 else int(whole[place])
            step = min(most, room, abs(left)) * (1 if left > 0 else -1)
            whole[place] += step
            left -= step
    return whole


def _wanted(categories: Sequence[Ints], shares: Sequence[Floats], strata: int) -> npt.NDArray[np.bool_]:
    wanted = np.ones(strata, bool)
    for members, share in zip(categories, shares, strict=True):
        wanted &= share[members] > 0
    return wanted
