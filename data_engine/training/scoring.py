"""How good phones and codes are: phone error rate, use and perplexity of a codebook, phone-normalised information."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]


def edits(reference: Ints, hypothesis: Ints) -> int:
    """Returns the fewest substitutions, deletions and insertions between two sequences (Levenshtein 1966)."""
    columns = np.arange(len(hypothesis) + 1)
    row = columns.copy()
    for number, symbol in enumerate(reference, 1):
        above = np.empty_like(row)
        above[0] = number
        above[1:] = np.minimum(row[1:] + 1, row[:-1] + (hypothesis != symbol))
        # An insertion costs one per column: the least of what stands left of it, each with its distance.
        row = np.minimum.accumulate(above - columns) + columns
    return int(row[-1])


def error_rate(references: Sequence[Ints], hypotheses: Sequence[Ints]) -> float:
    """Returns all edits over all reference symbols."""
    total = sum(len(reference) for reference in references)
    return sum(edits(r, h) for r, h in zip(references, hypotheses, strict=True)) / max(total, 1)


def collapsed(best: Ints, blanks: Sequence[int]) -> Ints:
    """Returns what CTC's best path says: repeats joined, then `blanks` left out (Graves et al. 2006).

    Args:
        best: Best token of each frame.
        blanks: Tokens that say nothing, the blank itself among them.
    """
    changed = np.concatenate([[True], best[1:] != best[:-1]]) if len(best) else np.zeros(0, bool)
    kept = best[changed]
    said: Ints = kept[~np.isin(kept, blanks)]
    return said


def perplexity(codes: Ints) -> float:
    """Returns two to the entropy in bits of the codes' frequencies."""
    counts = np.bincount(codes)
    shares = counts[counts > 0] / max(counts.sum(), 1)
    return float(np.exp(-(shares * np.log(shares)).sum()))


def phone_information(phones: Ints, codes: Ints) -> float:
    """Returns the mutual information of phones and codes over the entropy of the phones (PNMI, HuBERT, 2021).

    Args:
        phones: Phone of each frame.
        codes: Code of each frame.
    """
    joint = np.zeros((int(phones.max()) + 1, int(codes.max()) + 1))
    np.add.at(joint, (phones, codes), 1.0 / len(phones))
    phone, code = joint.sum(1), joint.sum(0)
    found = joint > 0
    independent = phone[:, None] * code[None, :]
    information = (joint[found] * np.log(joint[found] / independent[found])).sum()
    entropy = -(phone[phone > 0] * np.log(phone[phone > 0])).sum()
    return float(information / entropy)
