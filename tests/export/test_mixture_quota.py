"""Quotas: targets never exceed what there is, sum to what is asked, and keep the shares where they can."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_engine.export.mixture_quota import proportional, quota_targets, quota_weights, rounded


@st.composite
def divisions(draw):
    """Strata of one to three quota columns, with shares that sum to 1 and what there is of each."""
    shape = draw(st.lists(st.integers(1, 4), min_size=1, max_size=3))
    shares = []
    for size in shape:
        parts = np.array(draw(st.lists(st.integers(0, 10), min_size=size, max_size=size).filter(any)), float)
        shares.append(parts / parts.sum())
    grid = np.stack([axis.ravel() for axis in np.meshgrid(*(np.arange(n) for n in shape), indexing="ij")])
    limit = draw(st.sampled_from([5, 1000, 10**11]))
    available = np.array(
        draw(st.lists(st.integers(0, limit), min_size=grid.shape[1], max_size=grid.shape[1])), np.int64
    )
    return available, list(grid), shares


def wanted(categories, shares):
    return np.logical_and.reduce([share[members] > 0 for members, share in zip(categories, shares, strict=True)])


@given(divisions(), st.integers(0, 3 * 10**11))
def test_targets_stay_within_what_there_is_and_sum_to_what_is_asked(division, size):
    available, categories, shares = division
    targets = quota_targets(available, categories, shares, size)
    assert (targets >= 0).all()
    assert (targets <= available).all()
    usable = available[wanted(categories, shares)].sum()
    assert targets.sum() == min(size, usable)
    assert targets[~wanted(categories, shares)].sum() == 0


@given(divisions(), st.integers(1, 2000), st.integers(0, 2000))
def test_more_asked_is_never_less_got(division, size, more):
    available, categories, shares = division
    low = quota_targets(available, categories, shares, size)
    high = quota_targets(available, categories, shares, size + more)
    assert low.sum() <= high.sum()
    if len(shares) == 1:  # largest remainders may move one row between values: the paradox of Alabama
        assert (low <= high + 1).all()


@given(divisions(), st.integers(1, 2000), st.randoms(use_true_random=False))
def test_the_order_of_strata_moves_no_more_than_ties_of_rounding(division, size, random):
    available, categories, shares = division
    order = list(range(len(available)))
    random.shuffle(order)
    targets = quota_targets(available, categories, shares, size)
    shuffled = quota_targets(available[order], [members[order] for members in categories], shares, size)
    assert np.abs(targets[order] - shuffled).max() <= 1


@given(st.lists(st.integers(1, 10), min_size=2, max_size=5), st.integers(1, 1000))
def test_one_column_with_plenty_gets_its_shares_to_a_row(parts, size):
    shares = np.array(parts, float) / sum(parts)
    targets = quota_targets(np.full(len(parts), 10_000), [np.arange(len(parts))], [shares], size)
    assert np.abs(targets - shares * size).max() < 1


def test_two_columns_are_met_together_though_the_table_is_lopsided():
    available = np.array([900, 50, 500, 400])  # en normal, en fast, zh normal, zh fast
    language, speed = np.array([0, 0, 1, 1]), np.array([0, 1, 0, 1])
    shares = [np.array([0.5, 0.5]), np.array([0.6, 0.4])]
    targets = quota_targets(available, [language, speed], shares, 500)
    assert np.bincount(language, targets).tolist() == pytest.approx([250, 250], abs=1)
    assert np.bincount(speed, targets).tolist() == pytest.approx([300, 200], abs=1)


def test_what_one_value_lacks_the_others_make_up_for_in_proportion():
    targets = quota_targets(np.array([10_000, 10, 10_000]), [np.arange(3)], [np.array([0.5, 0.3, 0.2])], 1010)
    assert targets[1] == 10
    assert targets[[0, 2]].tolist() == pytest.approx([5 / 7 * 1000, 2 / 7 * 1000], abs=1)


def test_weights_restore_the_shares_that_were_asked():
    got, shares = np.array([990, 10]), np.array([0.7, 0.3])
    weights = quota_weights(got, [np.arange(2)], [shares])
    assert (weights * got / 1000).tolist() == pytest.approx([0.7, 0.3])
    assert quota_weights(np.array([700, 300]), [np.arange(2)], [shares]).tolist() == pytest.approx([1, 1])


def test_a_value_that_is_not_there_has_no_weight_and_no_share():
    assert quota_weights(np.array([5, 0]), [np.arange(2)], [np.array([0.5, 0.5])]).tolist() == pytest.approx([1, 1])


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=6), st.floats(0, 1e6))
def test_a_division_keeps_its_caps(caps, total):
    caps = np.array(caps)
    amounts = proportional(total, np.ones(len(caps)), caps)
    assert (amounts <= caps + 1e-9).all()
    assert amounts.sum() == pytest.approx(min(total, caps.sum()), rel=1e-9, abs=1e-6)


@given(st.lists(st.tuples(st.floats(0, 100), st.integers(0, 100)), min_size=1, max_size=6), st.data())
def test_rounding_reaches_any_total_that_fits(pairs, data):
    amounts, caps = np.array([a for a, _ in pairs]), np.array([c for _, c in pairs], np.int64)
    total = data.draw(st.integers(0, int(caps.sum())))
    whole = rounded(amounts, caps, total)
    assert whole.sum() == total
    assert (whole >= 0).all()
    assert (whole <= caps).all()
