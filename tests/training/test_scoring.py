"""Scores of phones and codes against their definitions."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_engine.training.scoring import collapsed, edits, error_rate, perplexity, phone_information

words = st.lists(st.integers(0, 3), max_size=8)


def plain_distance(a, b):
    table = [[max(i, j) if 0 in (i, j) else 0 for j in range(len(b) + 1)] for i in range(len(a) + 1)]
    for i in range(1, len(a) + 1):
        for j in range(1, len(b) + 1):
            other = table[i - 1][j - 1] + (a[i - 1] != b[j - 1])
            table[i][j] = min(table[i - 1][j] + 1, table[i][j - 1] + 1, other)
    return table[-1][-1]


@given(words, words)
def test_edits_are_the_levenshtein_distance(a, b):
    assert edits(np.array(a, int), np.array(b, int)) == plain_distance(a, b)


def test_error_rate_weighs_by_length():
    assert error_rate([np.array([1, 2, 3]), np.array([4])], [np.array([1, 2, 3]), np.array([5])]) == pytest.approx(0.25)


def test_the_best_path_is_collapsed_before_blanks_go():
    assert collapsed(np.array([0, 5, 5, 0, 5, 7, 7, 1]), [0, 1]).tolist() == [5, 5, 7]
    assert collapsed(np.zeros(0, int), [0]).tolist() == []


def test_perplexity_of_equally_used_codes_is_their_number():
    assert perplexity(np.repeat(np.arange(16), 3)) == pytest.approx(16)


def test_information_is_all_or_nothing_at_the_extremes():
    phones = np.tile(np.arange(4), 50)
    assert phone_information(phones, phones + 7) == pytest.approx(1.0)
    assert phone_information(phones, np.zeros(200, int)) == pytest.approx(0.0)
