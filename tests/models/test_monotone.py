"""The search through a line of states, against every way there is."""

from itertools import pairwise, product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_engine.models.monotone import best_path, spans
from data_engine.models.neufa_features import phone_spans, states_of


def ways(frames, optional):
    """Every way through the states: one on at most, two where the one between may be left out."""
    last = len(optional) - 1
    starts = {0, 1} if optional[0] and last else {0}
    ends = {last, last - 1} if optional[last] and last else {last}
    for way in product(range(len(optional)), repeat=frames):
        steps = list(pairwise(way))
        allowed = all(b - a in (0, 1) or (b - a == 2 and optional[a + 1]) for a, b in steps)
        if way[0] in starts and way[-1] in ends and allowed:
            yield way


def score(emitted, way):
    return float(emitted[np.arange(len(way)), list(way)].sum())


@given(st.integers(1, 6), st.integers(1, 4), st.integers(0, 15), st.integers(0, 2**31))
def test_no_way_is_better_than_the_one_found(frames, states, skippable, seed):
    optional = np.array([bool(skippable >> n & 1) for n in range(states)])
    optional[1:] &= ~optional[:-1]  # never two in a row
    emitted = np.random.default_rng(seed).normal(0, 3, (frames, states)).astype(np.float32)
    found, all_ways = best_path(emitted, optional), list(ways(frames, optional))
    if not all_ways or optional.all():
        assert found is None or optional.all()
        return
    assert tuple(found) in all_ways
    assert score(emitted, found) == pytest.approx(max(score(emitted, way) for way in all_ways), abs=1e-4)


def test_too_few_frames_or_no_states_have_no_way():
    assert best_path(np.zeros((2, 3), np.float32), np.zeros(3, bool)) is None
    assert best_path(np.zeros((0, 3), np.float32), np.zeros(3, bool)) is None
    assert best_path(np.zeros((3, 0), np.float32), np.zeros(0, bool)) is None


def test_spans_of_states_that_were_skipped_are_empty_where_the_next_begins():
    path = np.array([0, 0, 2, 2, 2, 3])
    assert spans(path, np.arange(4)).tolist() == [[0, 2], [2, 2], [2, 5], [5, 6]]


def test_pauses_may_come_before_words_and_at_the_end():
    states, pauses = states_of(4, [0, 2])
    assert states.tolist() == [4, 0, 1, 4, 2, 3, 4]
    assert pauses.tolist() == [True, False, False, True, False, False, True]


@pytest.mark.parametrize(
    ("rows", "pauses", "times"),
    [
        ([0, 0, 1, 1, 1], [0], [[0, 2], [2, 5]]),
        ([2, 0, 1, 2, 2], [0], [[1, 2], [2, 3]]),
        ([0, 2, 2, 1, 1], [0, 1], [[0, 1], [3, 5]]),
        ([0, 2, 2, 1, 1], [0], [[0, 3], [3, 5]]),  # no pause inside a word
    ],
)
def test_phones_last_as_long_as_their_rows_lead(rows, pauses, times):
    scores = np.full((3, 5), -4.0, np.float32)
    scores[rows, np.arange(5)] = -0.1
    scores[0, 1:3] += 0.5  # of two poor choices for a frame, the first phone is the better
    found = phone_spans(scores, pauses)
    assert found[0].tolist() == times
    assert phone_spans(scores[:, :1], pauses) is None
