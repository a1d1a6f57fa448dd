"""Ranks, critical differences and Holm's steps against scipy, Demsar's tables and slow loops."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from oracles import light
from scipy import stats

from nacl.ranks import cliques, friedman_ranks, holm, nemenyi_critical_difference

# Demsar 2006, table 5(a)
Q_95 = {2: 1.960, 3: 2.343, 4: 2.569, 5: 2.728, 6: 2.850, 7: 2.949, 8: 3.031, 9: 3.102, 10: 3.164}
Q_90 = {2: 1.645, 3: 2.052, 4: 2.291, 5: 2.459, 6: 2.589, 7: 2.693, 8: 2.780, 9: 2.855, 10: 2.920}


# Friedman


def ranks_by_loop(scores, larger_is_better=True):
    """1 + how many are better + half of the others that tie."""
    sign = 1 if larger_is_better else -1
    ranks = np.zeros(scores.shape)
    for block, column in enumerate(scores.T):
        for method, own in enumerate(column):
            better = sum(sign * other > sign * own for other in column)
            ties = sum(other == own for other in column) - 1
            ranks[method, block] = 1 + better + ties / 2
    return ranks.mean(axis=1)


@light
@given(st.integers(0, 1000), st.integers(3, 6), st.integers(2, 12), st.booleans(), st.booleans())
def test_friedman_matches_scipy_with_ties_and_without(draw, methods, blocks, ties, larger_is_better):
    rng = np.random.default_rng(draw)
    scores = rng.integers(0, 4, (methods, blocks)) / 4 if ties else rng.standard_normal((methods, blocks))
    scores[0, 0], scores[1:, 0] = 1.0, 0.0  # never all tied
    found = friedman_ranks(scores, larger_is_better=larger_is_better)
    expected = stats.friedmanchisquare(*scores)
    assert (found.chi_square, found.chi_square_p) == pytest.approx(tuple(expected), abs=1e-9)
    np.testing.assert_allclose(found.ranks, ranks_by_loop(scores, larger_is_better))
    assert found.ranks.sum() == pytest.approx(methods * (methods + 1) / 2)


@light
@given(st.integers(0, 1000), st.integers(3, 6), st.integers(3, 12))
def test_iman_and_davenport_s_f_follows_from_the_chi_square(draw, methods, blocks):
    scores = np.random.default_rng(draw).standard_normal((methods, blocks))
    found = friedman_ranks(scores)
    f = (blocks - 1) * found.chi_square / (blocks * (methods - 1) - found.chi_square)
    assert found.f_statistic == pytest.approx(f)
    assert found.p_value == pytest.approx(stats.f.sf(f, methods - 1, (methods - 1) * (blocks - 1)))


def test_blocks_that_all_agree_are_certain():
    found = friedman_ranks(np.arange(4)[:, None] * np.ones(7), larger_is_better=False)
    assert found.ranks.tolist() == [1, 2, 3, 4]
    assert found.chi_square == pytest.approx(7 * 3)
    assert (found.f_statistic, found.p_value) == (math.inf, 0.0)


def test_methods_that_all_tie_do_not_differ():
    found = friedman_ranks(np.zeros((3, 5)))
    assert found.ranks.tolist() == [2, 2, 2]
    assert found[1:5] == (0.0, 1.0, 0.0, 1.0)


def test_order_of_blocks_does_not_matter_and_methods_keep_their_ranks():
    rng = np.random.default_rng(0)
    scores = rng.standard_normal((4, 9))
    found, order = friedman_ranks(scores), [2, 0, 3, 1]
    moved = friedman_ranks(rng.permutation(scores, axis=1)[order])
    np.testing.assert_allclose(moved.ranks, found.ranks[order])
    assert moved.p_value == pytest.approx(found.p_value)


def test_block_with_nan_is_left_out():
    scores = np.random.default_rng(0).standard_normal((3, 6))
    whole = friedman_ranks(scores[:, 1:])
    scores[2, 0] = np.nan
    found = friedman_ranks(scores)
    assert (found.blocks, found.p_value, found.ranks.tolist()) == (5, whole.p_value, whole.ranks.tolist())


@pytest.mark.parametrize(("methods", "blocks"), [(3, 20), (5, 8)])
def test_friedman_refuses_a_true_null_about_as_often_as_it_says(methods, blocks):
    rng = np.random.default_rng(0)
    p = [friedman_ranks(rng.standard_normal((methods, blocks))).p_value for _ in range(1500)]
    assert 0.035 < np.mean(np.array(p) < 0.05) < 0.068


def test_few_blocks_are_flagged():
    few, enough = (friedman_ranks(np.random.default_rng(0).standard_normal((3, n))) for n in (10, 11))
    assert few.few_blocks
    assert not enough.few_blocks
    assert str(few).endswith("10 blocks: few)")
    assert str(enough).endswith("11 blocks)")


# Critical difference and cliques


@pytest.mark.parametrize(("level", "table"), [(0.95, Q_95), (0.90, Q_90)])
def test_critical_difference_has_demsar_s_quantiles(level, table):
    for methods, q in table.items():
        expected = q * math.sqrt(methods * (methods + 1) / (6 * 14))
        assert nemenyi_critical_difference(methods, 14, level=level) == pytest.approx(expected, rel=4e-4)


def test_two_methods_need_the_normal_quantile():
    expected = stats.norm.ppf(0.995) * math.sqrt(1 / 25)
    assert nemenyi_critical_difference(2, 25, level=0.99) == pytest.approx(expected, rel=1e-6)


def test_any_two_equal_methods_differ_by_the_critical_difference_as_seldom_as_promised():
    rng = np.random.default_rng(0)
    gaps = [np.ptp(friedman_ranks(rng.standard_normal((4, 25))).ranks) for _ in range(1500)]
    assert 0.03 < np.mean(np.array(gaps) >= nemenyi_critical_difference(4, 25)) < 0.065


def cliques_by_loop(ranks, critical_difference):
    """Every stretch of the order, then those that lie within no other."""
    order = sorted(range(len(ranks)), key=lambda method: ranks[method])
    stretches = [order[i:j] for i in range(len(order)) for j in range(i + 2, len(order) + 1)]
    near = [s for s in stretches if ranks[s[-1]] < ranks[s[0]] + critical_difference]
    return [tuple(s) for s in near if not any(set(s) < set(other) for other in near)]


@light
@given(st.lists(st.integers(10, 60), min_size=1, max_size=8), st.integers(1, 50))
def test_cliques_match_the_loop(tenths, critical_difference):
    ranks = [x / 10 for x in tenths]
    assert cliques(ranks, critical_difference / 10 + 0.05) == cliques_by_loop(ranks, critical_difference / 10 + 0.05)


@pytest.mark.parametrize(
    ("ranks", "critical_difference", "groups"),
    [
        ([1.0, 2.0, 3.0], 1.0, []),
        ([1.0, 2.0, 3.0], 1.5, [(0, 1), (1, 2)]),
        ([3.0, 1.0, 2.0], 2.5, [(1, 2, 0)]),
        ([1.0, 1.0, 4.0], 0.1, [(0, 1)]),
        ([1.0, 2.0, 2.5, 6.0, 6.2], 1.2, [(0, 1), (1, 2), (3, 4)]),
        ([1.0], 1.0, []),
    ],
)
def test_cliques_by_hand(ranks, critical_difference, groups):
    assert cliques(ranks, critical_difference) == groups


# Holm


def test_holm_by_hand():
    # 4 x .005, then 3 x .01, then 2 x .03, then 1 x .04, which may not fall below the one before
    assert holm([0.01, 0.04, 0.03, 0.005]).tolist() == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.7]).tolist() == [1.0, 1.0]
    assert holm([0.2]).tolist() == [0.2]
    assert holm([]).tolist() == []


@light
@given(st.lists(st.floats(0, 1), min_size=1, max_size=8), st.floats(0.001, 0.5))
def test_holm_refuses_what_the_steps_refuse(p_values, level):
    refused = set()
    for step, i in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        if min(1, p_values[i] * (len(p_values) - step)) > level:
            break
        refused.add(i)
    assert set(np.flatnonzero(holm(p_values) <= level)) == refused


def test_holm_keeps_any_false_finding_rare():
    rng = np.random.default_rng(0)
    p = rng.random((4000, 5))
    p[:, 0] = 1e-6  # one real difference among five
    found = np.array([holm(row) for row in p])
    assert (found[:, 0] < 0.05).all()
    assert np.mean((found[:, 1:] < 0.05).any(axis=1)) == pytest.approx(1 - (1 - 0.05 / 4) ** 4, abs=0.011)


# Errors


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: friedman_ranks(np.zeros((2, 9))), ValueError, r"`scores` of shape .*got \(2, 9\).*sign_flip_test"),
        (lambda: friedman_ranks(np.zeros(5)), ValueError, r"`scores` of shape \(methods, blocks\).*got \(5,\)"),
        (lambda: friedman_ranks([[1, np.nan]] * 3), ValueError, r"with at least 2 whole blocks, got 1 \(2 blocks, 1"),
        (lambda: friedman_ranks([["a", "b"]] * 3), TypeError, "`scores` to be real numbers, got dtype <U1"),
        (lambda: friedman_ranks(np.ones((3, 3)), larger_is_better="yes"), TypeError, "`larger_is_better` .*'yes'"),
        (lambda: nemenyi_critical_difference(1, 9), ValueError, "`methods` of at least 2, got 1"),
        (lambda: nemenyi_critical_difference(3, 1), ValueError, "`blocks` of at least 2, got 1"),
        (lambda: nemenyi_critical_difference(3, 9, level=1), ValueError, r"`level` in \(0, 1\), got 1"),
        (
            lambda: cliques([1.0, np.nan], 1.0),
            ValueError,
            r"`ranks` of shape \(methods,\) and finite, got \[1.0, nan\]",
        ),
        (lambda: cliques([[1.0]], 1.0), ValueError, r"`ranks` of shape \(methods,\)"),
        (lambda: cliques([1.0, 2.0], 0.0), ValueError, r"`critical_difference` in \(0, inf\), got 0.0"),
        (lambda: holm([0.1, np.nan]), ValueError, r"`p_values` values in \[0, 1\], got nan \(number 1 of 2\)"),
        (lambda: holm([0.1, 1.5]), ValueError, r"`p_values` values in \[0, 1\], got 1.5"),
        (lambda: holm([[0.1]]), ValueError, r"`p_values` of shape \(m,\), got \(1, 1\)"),
        (lambda: holm(["0.1"]), TypeError, "`p_values` to be real numbers"),
    ],
)
def test_errors_name_the_argument_and_the_value(call, error, message):
    with pytest.raises(error, match=message):
        call()
