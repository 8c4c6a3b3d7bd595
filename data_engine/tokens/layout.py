"""The 2:3 dual-codebook layout: build it, take it apart, write it as a string, re-grid it for a vocoder.

One group is 120 ms: two vq02 ids, then three vq06 ids. Codes that do not fill a group are kept aside.

Source: Step-Audio (arXiv 2502.11946) sec. 3.1; vocoder grid as in Step-Audio-EditX (arXiv 2511.03601).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from data_engine.core.errors import ContractError
from data_engine.tokens.runs import (
    GROUP_SIZE,
    LINGUISTIC_PER_GROUP,
    SEMANTIC_PER_GROUP,
    Markers,
    find_audio_runs,
    validate_run,
    validate_sequence,
)
from data_engine.tokens.vocabulary import (
    AUDIO_OFFSET,
    AUDIO_SIZE,
    LINGUISTIC_CODES,
    SEMANTIC_CODES,
    SEMANTIC_OFFSET,
    Codes,
    Ids,
    as_codes,
    as_ids,
    codes_from_ids,
)

__all__ = [
    "GROUP_SIZE",
    "REGRID_PAD",
    "CodeLayout",
    "Markers",
    "deinterleave",
    "expected_counts",
    "find_audio_runs",
    "from_string",
    "interleave_codes",
    "num_groups",
    "regrid_25hz",
    "to_string",
    "validate_run",
    "validate_sequence",
    "vocoder_ids",
]

REGRID_PAD = LINGUISTIC_CODES  # vq02 row of every third 25 Hz frame

_AUDIO_STRING = re.compile(r"(?:<audio_(?:0|[1-9]\d{0,3})>)*+", re.ASCII)


@dataclass(frozen=True, eq=False)
class CodeLayout:
    """Two code streams laid out as one id run, plus what did not fill a group.

    Attributes:
        ids: int32, shape (5 * num_groups,).
        num_groups: Whole 120 ms groups.
        remainder02: uint16 vq02 codes after the last group (lost to the model, kept for a new layout).
        remainder06: uint16 vq06 codes after the last group.
    """

    ids: Ids
    num_groups: int
    remainder02: Codes
    remainder06: Codes


def num_groups(n02: int, n06: int) -> int:
    """Returns min(n02 // 2, n06 // 3), the whole groups of two streams (Step-Audio, arXiv 2502.11946)."""
    return min(n02 // LINGUISTIC_PER_GROUP, n06 // SEMANTIC_PER_GROUP)


def expected_counts(num_samples: int, sample_rate: int) -> tuple[int, int, int]:
    """Returns the (vq02 codes, vq06 codes, groups) a clip of this length should give.

    vq02 counts whole 60 ms frames; vq06 is 25 per second rounded half to even. Real vq06 counts may differ by
    two per 30 s window (Step-Audio, arXiv 2502.11946, sec. 3.1 and its tokenizer code). Exact in integers.

    Args:
        num_samples: Length in samples.
        sample_rate: In hertz.

    Raises:
        ContractError: Negative length or a rate that is not positive.
    """
    if num_samples < 0 or sample_rate <= 0:
        raise ContractError(f"num_samples={num_samples}, sample_rate={sample_rate}: need >= 0 samples at > 0 Hz")
    n02 = num_samples * 50 // (sample_rate * 3)
    n06 = round(Fraction(25 * num_samples, sample_rate))
    return n02, n06, num_groups(n02, n06)


def interleave_codes(vq02: Any, vq06: Any) -> CodeLayout:
    """Lays out two code streams 2:3 (Step-Audio, arXiv 2502.11946, sec. 3.1).

    Args:
        vq02: Codes 0..1023, shape (n02,).
        vq06: Codes 0..4095, shape (n06,).

    Returns:
        The id run and the codes beyond the last whole group.

    Raises:
        ContractError: A code is out of range.
    """
    codes02, codes06 = as_codes(vq02, "vq02 codes", LINGUISTIC_CODES), as_codes(vq06, "vq06 codes", SEMANTIC_CODES)
    groups = num_groups(codes02.size, codes06.size)
    used02, used06 = groups * LINGUISTIC_PER_GROUP, groups * SEMANTIC_PER_GROUP
    ids = np.empty(groups * GROUP_SIZE, np.int32)
    # one strided pass per place in the group, straight into the result: temporaries would cost more than the sums
    for place in range(LINGUISTIC_PER_GROUP):
        codes = codes02[place:used02:LINGUISTIC_PER_GROUP]
        np.add(codes, np.int32(AUDIO_OFFSET), out=ids[place::GROUP_SIZE], dtype=np.int32, casting="unsafe")
    for place in range(SEMANTIC_PER_GROUP):
        codes = codes06[place:used06:SEMANTIC_PER_GROUP]
        target = ids[LINGUISTIC_PER_GROUP + place :: GROUP_SIZE]
        np.add(codes, np.int32(SEMANTIC_OFFSET), out=target, dtype=np.int32, casting="unsafe")
    return CodeLayout(ids, groups, codes02[used02:].astype(np.uint16), codes06[used06:].astype(np.uint16))


def deinterleave(ids: Any) -> tuple[Codes, Codes]:
    """Returns the (vq02, vq06) codes of a valid run: the inverse of `interleave_codes` without remainders.

    Raises:
        ContractError: The run is not a whole number of valid groups.
    """
    grid = codes_from_ids(validate_run(ids)).reshape(-1, GROUP_SIZE)
    return grid[:, :LINGUISTIC_PER_GROUP].reshape(-1), grid[:, LINGUISTIC_PER_GROUP:].reshape(-1)


def to_string(ids: Any) -> str:
    """Writes a valid run as `<audio_5><audio_1023>...`, numbers without the 65536 offset.

    Source: prompt strings of Step-Audio (arXiv 2502.11946). Need not be whole groups.

    Raises:
        ContractError: An id is no audio id.
    """
    return "".join(_audio_strings()[vocoder_ids(ids)].tolist())


def from_string(text: str) -> Ids:
    """Reads `<audio_N>` strings back into ids; the inverse of `to_string`.

    Raises:
        ContractError: Anything but `<audio_0>`..`<audio_5119>` without spaces; the character is named.
    """
    match = _AUDIO_STRING.match(text)
    if match is None or match.end() != len(text):
        end = match.end() if match else 0
        raise ContractError(
            f"audio string is malformed at character {end}: {text[end : end + 24]!r}; "
            "expected only <audio_0>..<audio_5119> with no space or other text between them"
        )
    numbers = np.fromstring(text.replace("<audio_", "").replace(">", " "), dtype=np.int32, sep=" ")
    return as_ids(numbers, "audio string", AUDIO_SIZE) + np.int32(AUDIO_OFFSET)


def vocoder_ids(ids: Any) -> Ids:
    """Returns the flat ids 0..5119 a 41.67 Hz vocoder takes (Step-Audio, arXiv 2502.11946, sec. 3.3).

    Raises:
        ContractError: An id is no audio id.
    """
    return as_ids(ids, "audio ids", AUDIO_OFFSET + AUDIO_SIZE, AUDIO_OFFSET) - np.int32(AUDIO_OFFSET)


def regrid_25hz(ids: Any) -> tuple[Ids, Ids]:
    """Re-grids a run to the 25 Hz pairs of Step-Audio-EditX's flow decoder (arXiv 2511.03601, released code).

    Each group gives three frames: vq02 row [a, b, PAD] with PAD = 1024, vq06 row = flat id + 1 (1025..5120).
    A last group of r < 5 ids is completed with vq02 code 0 and flat vq06 id 1024.

    Args:
        ids: Audio ids (65536-based) from the start of a group, shape (n,); n need not be a multiple of 5.

    Returns:
        (row02, row06), int32, each of shape (3 * ceil(n / 5),).

    Raises:
        ContractError: An id is in the wrong codebook for its position.
    """
    missing = -np.asarray(ids).size % GROUP_SIZE
    filler = np.array([0, 0, 1024, 1024, 1024], np.int32)[GROUP_SIZE - missing :] + AUDIO_OFFSET
    run = validate_run(np.concatenate([as_ids(ids), filler]))
    grid = vocoder_ids(run).reshape(-1, GROUP_SIZE)
    row02 = np.full((len(grid), SEMANTIC_PER_GROUP), REGRID_PAD, np.int32)
    row02[:, :LINGUISTIC_PER_GROUP] = grid[:, :LINGUISTIC_PER_GROUP]
    return row02.reshape(-1), (grid[:, LINGUISTIC_PER_GROUP:] + np.int32(1)).reshape(-1)


@cache
def _audio_strings() -> npt.NDArray[np.object_]:
    return np.array([f"<audio_{number}>" for number in range(AUDIO_SIZE)], dtype=object)
