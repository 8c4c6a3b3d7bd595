"""Interleaving one hour of tokens against a loop per token, as Step-Audio's tokenizer publishes it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from data_engine.tokens.layout import interleave_codes
from tests.bench.measure import Row, in_turn

HOUR02, HOUR06 = 60_000, 90_000
HOURS = 10


def per_token_loop(vq02: list[int], vq06: list[int]) -> list[int]:
    """The published procedure, written anew: offsets code by code, then groups of 2 and 3 joined in a loop."""
    first = [int(code) + 65536 for code in vq02]
    second = [int(code) + 65536 + 1024 for code in vq06]
    merged: list[int] = []
    for group in range(min(len(first) // 2, len(second) // 3)):
        merged += first[group * 2 : group * 2 + 2]
        merged += second[group * 3 : group * 3 + 3]
    return merged


def _repeat(function: Callable[[], object]) -> None:
    for _ in range(HOURS):
        function()


def interleave_hour() -> Row:
    """Both give the same ids; the peer starts from lists, ours from arrays, as each is stored."""
    random = np.random.default_rng(0)
    vq02 = random.integers(0, 1024, HOUR02).astype(np.uint16)
    vq06 = random.integers(0, 4096, HOUR06).astype(np.uint16)
    lists = vq02.tolist(), vq06.tolist()
    assert interleave_codes(vq02, vq06).ids.tolist() == per_token_loop(*lists)
    ours, theirs, ratio = in_turn(
        lambda: _repeat(lambda: interleave_codes(vq02, vq06)), lambda: _repeat(lambda: per_token_loop(*lists)), 11
    )
    return Row(
        "interleave 1 h of codes 2:3, ten in a row", "per-token loop (Step-Audio)",
        f"{ours / HOURS * 1e3:.2f} ms", f"{theirs / HOURS * 1e3:.1f} ms", f"{ratio:.0f}x faster", ">= 50x",
    )  # fmt: skip
