"""Intervals and tests against slow loops, closed forms, and their promised rates of error in simulated studies."""

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from oracles import light
from scipy import optimize, stats

from nacl.statistics import bootstrap_means, mean_interval, non_inferiority, paired_difference, sign_flip_test

SHAPES = [(1, 6), (2, 5), (3, 10), (6, 4)]


def study(rng, seeds, patients, *, skewed=False, seed_share=0.0, interaction=1.0):
    """Scores of mean 0; `seed_share`: the seeds' part of the mean's variance over the patients' part, 1 / patients."""
    patient = rng.exponential(size=patients) - 1 if skewed else rng.standard_normal(patients)
    seed = rng.standard_normal((seeds, 1)) * math.sqrt(seed_share * seeds / patients)
    return patient + seed + math.sqrt(interaction) * rng.standard_normal((seeds, patients))


def seed_parts_by_loop(y):
    """(of seeds alone, of the interaction) in the variance of the mean, from textbook sums of squares."""
    seeds, patients = len(y), len(y[0])
    if seeds == 1:
        return 0.0, 0.0
    total = sum(map(sum, y))
    of_seeds = sum(sum(row) ** 2 for row in y) / patients - total**2 / (seeds * patients)
    of_patients = sum(sum(row[p] for row in y) ** 2 for p in range(patients)) / seeds - total**2 / (seeds * patients)
    of_all = sum(value**2 for row in y for value in row) - total**2 / (seeds * patients)
    mean_square = (of_all - of_seeds - of_patients) / ((seeds - 1) * (patients - 1))
    own = (of_seeds / (seeds - 1) - mean_square) / (seeds * patients)
    return max(own, 0.0), mean_square / (seeds * patients)


def ends_by_loop(sides, level):
    """Both ends, by solving Hall's transformation for the mean that is just refused; `sides` is [a] or [a, b]."""
    patients = len(sides[0][0])
    means = [[sum(row[p] for row in y) / len(y) for p in range(patients)] for y in sides]
    d = [values[0] - sum(values[1:]) for values in zip(*means, strict=True)]
    mean = sum(d) / patients
    seed_parts = [seed_parts_by_loop(y) for y in sides]
    of_patients = sum((x - mean) ** 2 for x in d) / (patients - 1) / patients
    parts = [(max(of_patients, sum(e for _, e in seed_parts)), patients - 1)]
    parts += [(own, len(y) - 1) for (own, _), y in zip(seed_parts, sides, strict=True) if len(y) > 1]
    se = math.sqrt(sum(v for v, _ in parts))
    g = sum((x - mean) ** 3 for x in d) / patients / patients**2 / se**3
    g = math.copysign(min(abs(g), 0.35), g)
    t = math.sqrt(sum(v * stats.t.ppf((1 + level) / 2, f) ** 2 for v, f in parts)) / se

    def hall(x):
        return x + g * x**2 / 3 + g**2 * x**3 / 27 + g / 6

    return [mean - se * optimize.brentq(lambda x, q=q: hall(x) - q, -1e3, 1e3, xtol=1e-13) for q in (t, -t)]


# Intervals: values


@pytest.mark.parametrize("level", [0.5, 0.9, 0.95, 0.99])
@pytest.mark.parametrize(("seeds", "patients"), SHAPES)
def test_interval_matches_the_loop(seeds, patients, level):
    for draw in range(5):
        scores = study(np.random.default_rng(draw), seeds, patients, skewed=True, seed_share=draw)
        found = mean_interval(scores, level=level)
        np.testing.assert_allclose([found.low, found.high], ends_by_loop([scores.tolist()], level), atol=1e-9)
        assert found.mean == pytest.approx(scores.mean())
        assert (found.level, found.patients, found.seeds) == (level, patients, seeds)


@pytest.mark.parametrize("counts", [(1, 3), (4, 2), (5, 1)])
def test_different_numbers_of_seeds_have_parts_of_their_own(counts):
    rng = np.random.default_rng(0)
    a, b = (study(rng, seeds, 7, skewed=True, seed_share=2.0) for seeds in counts)
    found = paired_difference(a, b)
    np.testing.assert_allclose([found.low, found.high], ends_by_loop([a.tolist(), b.tolist()], 0.95), atol=1e-9)
    assert found.seeds == min(counts)


def test_one_seed_and_symmetric_scores_give_student_s_interval():
    half = np.random.default_rng(0).standard_normal(6)
    scores = 3 + np.concatenate([half, -half])
    found = mean_interval(scores, level=0.9)
    np.testing.assert_allclose(found[1:3], stats.ttest_1samp(scores, 0).confidence_interval(0.9))


def test_seeds_without_patients_give_student_s_interval_of_the_seeds():
    by_seed = np.array([0.1, 0.4, 0.2, 0.9])
    found = mean_interval(np.repeat(by_seed[:, None], 9, axis=1))
    np.testing.assert_allclose(found[1:3], stats.ttest_1samp(by_seed, 0).confidence_interval(0.95))


def test_equal_seeds_add_nothing():
    scores = np.random.default_rng(0).exponential(size=8)
    np.testing.assert_allclose(mean_interval(np.tile(scores, (5, 1)))[:3], mean_interval(scores)[:3])


def test_one_outlier_does_not_throw_an_end_far_off():
    scores = np.array([0.83, 0.81, 0.85, 0.82, 0.84, 0.80, 0.83, 0.82, 0.84, 0.53])
    found, standard_error = mean_interval(scores), scores.std(ddof=1) / math.sqrt(10)
    assert found.mean - 4 * standard_error < found.low < found.mean - 3 * standard_error
    assert found.mean + 1.5 * standard_error < found.high < found.mean + 2.2 * standard_error


def test_skewed_scores_reach_further_on_their_long_side():
    found = mean_interval([0.0, 0.0, 0.1, 0.1, 0.2, 1.5])
    assert found.high - found.mean > 1.5 * (found.mean - found.low)


@pytest.mark.parametrize("shape", [(1, 2), (3, 5)])
def test_equal_scores_have_no_width(shape):
    assert mean_interval(np.full(shape, 0.25))[:3] == (0.25, 0.25, 0.25)


def test_paired_seeds_are_the_interval_of_differences():
    a, b = np.random.default_rng(0).standard_normal((2, 3, 8))
    assert paired_difference(a, b) == mean_interval(a - b)


# Intervals: invariants


@light
@given(st.integers(0, 1000), st.sampled_from(SHAPES))
def test_order_of_patients_and_seeds_does_not_matter(draw, shape):
    rng = np.random.default_rng(draw)
    scores = study(rng, *shape, skewed=True, seed_share=1.0)
    moved = rng.permutation(rng.permutation(scores, axis=0), axis=1)
    np.testing.assert_allclose(mean_interval(moved)[:3], mean_interval(scores)[:3])


@light
@given(st.integers(0, 1000), st.sampled_from(SHAPES), st.floats(-5, 5), st.floats(0.01, 100))
def test_interval_follows_shift_scale_and_sign(draw, shape, shift, scale):
    scores = study(np.random.default_rng(draw), *shape, skewed=True, seed_share=1.0)
    mean, low, high = mean_interval(scores)[:3]
    close = {"rtol": 1e-7, "atol": 1e-9}
    expected = [shift + scale * x for x in (mean, low, high)]
    np.testing.assert_allclose(mean_interval(shift + scale * scores)[:3], expected, **close)
    np.testing.assert_allclose(mean_interval(-scores)[:3], [-mean, -high, -low], **close)


@light
@given(st.integers(0, 1000), st.sampled_from(SHAPES))
def test_higher_level_is_wider(draw, shape):
    scores = study(np.random.default_rng(draw), *shape, skewed=True, seed_share=1.0)
    narrow, wide = (mean_interval(scores, level=level) for level in (0.8, 0.95))
    assert wide.low < narrow.low <= narrow.mean <= narrow.high < wide.high


def test_nan_leaves_the_patient_out_of_both_methods():
    a, b = np.random.default_rng(0).standard_normal((2, 3, 8))
    whole = paired_difference(np.delete(a, [1, 5], axis=1), np.delete(b, [1, 5], axis=1))
    a[2, 1] = b[:, 5] = np.nan
    assert paired_difference(a, b) == whole
    assert whole.patients == 6
    assert non_inferiority(a, b, margin=0.1).patients == 6


# Coverage


def coverage(interval, replications, *, seed=0, **options):
    """Share of simulated studies whose interval holds the truth, 0."""
    rng = np.random.default_rng(seed)
    ends = np.array([interval(study(rng, **options)) for _ in range(replications)])
    return float(np.mean((ends[:, 0] <= 0) & (ends[:, 1] >= 0)))


def ends(scores):
    return mean_interval(scores)[1:3]


def percentiles(scores):
    return np.quantile(bootstrap_means(scores, resamples=400), [0.025, 0.975])


def nested_percentiles(scores, resamples=400):
    """The usual advice for nested data: draw patients, then seeds anew for each of them."""
    rng = np.random.default_rng(0)
    seeds, patients = scores.shape
    of_patient = rng.integers(0, patients, (resamples, patients, 1))
    of_seed = rng.integers(0, seeds, (resamples, patients, seeds))
    return np.quantile(scores[of_seed, of_patient].mean(axis=(1, 2)), [0.025, 0.975])


@pytest.mark.parametrize("skewed", [False, True])
@pytest.mark.parametrize(
    ("seeds", "patients", "seed_share"),
    [(1, 20, 0), (1, 40, 0), (3, 10, 0), (3, 20, 1), (3, 40, 4), (5, 10, 4), (10, 20, 1), (10, 10, 25)],
)
def test_interval_covers_as_promised(seeds, patients, seed_share, skewed):
    replications = 2000
    error = math.sqrt(0.95 * 0.05 / replications)
    options = {"seeds": seeds, "patients": patients, "seed_share": seed_share, "skewed": skewed}
    found = coverage(ends, replications, interaction=float(seeds > 1), **options)
    assert 0.94 - 2.5 * error < found < 0.97 + 2.5 * error


def test_bootstrap_percentiles_do_not_cover_few_seeds():
    options = {"seeds": 3, "patients": 20, "seed_share": 4}
    assert coverage(ends, 400, **options) > 0.93
    assert coverage(percentiles, 400, **options) < 0.91
    assert coverage(nested_percentiles, 400, **options) < 0.8


# Bootstrap


def test_bootstrap_means_follow_the_law_of_all_resamples():
    scores = np.array([[0.0, 1.0, 5.0], [2.0, 2.0, 9.0]])
    every = [
        scores[np.ix_(rows, columns)].mean()
        for rows in itertools.product(range(2), repeat=2)
        for columns in itertools.product(range(3), repeat=3)
    ]
    found = bootstrap_means(scores, resamples=20_000)
    assert found.mean() == pytest.approx(np.mean(every), abs=4 * np.std(every) / math.sqrt(20_000))
    assert stats.ks_2samp(found, every).statistic < 0.012
    assert set(found.round(9)) == set(np.round(every, 9))


@pytest.mark.parametrize("resamples", [1, 4096, 5000])
def test_bootstrap_means_are_as_many_as_asked_and_repeat(resamples):
    scores = np.random.default_rng(0).standard_normal((3, 5))
    found = bootstrap_means(scores, resamples=resamples, seed=3)
    assert found.shape == (resamples,)
    np.testing.assert_array_equal(found, bootstrap_means(scores, resamples=resamples, seed=3))
    assert (found != bootstrap_means(scores, resamples=resamples, seed=4)).any()


# Sign flips


def exact_p(tenths, alternative):
    """By every pattern of signs, in whole numbers."""
    seen = sum(tenths)
    sums = [sum(s * x for s, x in zip(p, tenths, strict=True)) for p in itertools.product((1, -1), repeat=len(tenths))]
    hits = {"greater": lambda x: x >= seen, "less": lambda x: x <= seen, "two-sided": lambda x: abs(x) >= abs(seen)}
    return Fraction(sum(map(hits[alternative], sums)), len(sums))


@light
@given(st.lists(st.integers(-5, 5), min_size=1, max_size=8), st.sampled_from(["two-sided", "greater", "less"]))
def test_sign_flips_match_every_pattern_ties_and_all(tenths, alternative):
    found = sign_flip_test(np.array(tenths) / 10, alternative=alternative)
    assert found == exact_p(tenths, alternative)


def test_tie_that_rounding_breaks_is_a_tie():
    assert sum([0.1, 0.2, -0.3]) > 0
    assert sign_flip_test([0.1, 0.2, -0.3], alternative="greater") == exact_p([1, 2, -3], "greater")
    assert sign_flip_test([0.1, 0.2, -0.3], alternative="less") == exact_p([1, 2, -3], "less")
    assert sign_flip_test([0.4, -0.3, 0.3]) == exact_p([4, -3, 3], "two-sided")


@pytest.mark.parametrize("alternative", ["two-sided", "greater", "less"])
@pytest.mark.parametrize("shift", [-0.4, 0.4])
def test_random_signs_come_near_the_exact_p(shift, alternative):
    differences = np.random.default_rng(1).standard_normal(12) + shift
    exact = sign_flip_test(differences, alternative=alternative)
    drawn = sign_flip_test(differences, alternative=alternative, resamples=4095)
    assert drawn != exact
    assert drawn == pytest.approx(exact, abs=4 * math.sqrt(exact * (1 - exact) / 4095))
    assert drawn != sign_flip_test(differences, alternative=alternative, resamples=4095, seed=1)


def test_random_p_is_never_0():
    assert sign_flip_test(np.ones(60), alternative="greater", resamples=9999) == 1 / 10_000


def test_exact_as_long_as_the_patterns_fit():
    differences = np.ones(10)
    assert sign_flip_test(differences, resamples=2**10) == 2 / 2**10
    assert sign_flip_test(differences, resamples=2**10 - 1) != 2 / 2**10


def test_seeds_are_averaged_before_signs_are_flipped():
    scores = np.random.default_rng(0).standard_normal((3, 9))
    scores[1, 4] = np.nan
    assert sign_flip_test(scores) == sign_flip_test(np.delete(scores, 4, axis=1).mean(axis=0))
    assert sign_flip_test([0.0, 0.0]) == 1.0


def test_sign_flips_refuse_a_true_null_as_often_as_they_say():
    rng = np.random.default_rng(0)
    p = np.array([sign_flip_test(rng.standard_t(3, 8)) for _ in range(4000)])
    for count in (2, 12, 64):  # of 256 patterns
        rate = count / 256
        assert np.mean(p <= rate) == pytest.approx(rate, abs=3 * math.sqrt(rate * (1 - rate) / 4000))


# Non-inferiority


@pytest.mark.parametrize("seeds", [(1, 1), (3, 3), (2, 4)])
def test_bound_is_an_end_of_the_difference_s_interval(seeds):
    rng = np.random.default_rng(0)
    a, b = (study(rng, n, 12, skewed=True, seed_share=1.0) for n in seeds)
    interval = paired_difference(a, b, level=0.9)
    larger, smaller = (non_inferiority(a, b, margin=0.5, larger_is_better=x) for x in (True, False))
    assert larger.bound == pytest.approx(interval.low)
    assert smaller.bound == pytest.approx(interval.high)
    assert larger.difference == pytest.approx(interval.mean) == smaller.difference
    mirrored = non_inferiority(-a, -b, margin=0.5, larger_is_better=False)
    assert (mirrored.p_value, mirrored.shown) == (pytest.approx(larger.p_value), larger.shown)


@pytest.mark.parametrize("level", [0.3, 0.8, 0.95, 0.999])
@pytest.mark.parametrize("seeds", [(1, 1), (3, 3), (2, 4)])
def test_p_value_is_where_the_bound_meets_the_margin(seeds, level):
    rng = np.random.default_rng(1)
    a, b = (study(rng, n, 12, skewed=True, seed_share=1.0) - 2 * (i == 0) for i, n in enumerate(seeds))
    at = -non_inferiority(a, b, margin=1.0, level=level).bound
    assert non_inferiority(a, b, margin=at, level=level).p_value == pytest.approx(1 - level, rel=1e-6)
    assert non_inferiority(a, b, margin=at * 1.001, level=level).shown
    assert not non_inferiority(a, b, margin=at * 0.999, level=level).shown


def test_p_value_of_one_seed_and_symmetric_differences_is_student_s():
    half = np.random.default_rng(0).standard_normal(5)
    d = np.concatenate([half, -half]) - 0.1
    expected = stats.ttest_1samp(d + 0.4, 0, alternative="greater").pvalue
    assert non_inferiority(d, np.zeros(10), margin=0.4).p_value == pytest.approx(expected)


@pytest.mark.parametrize(("loss", "p"), [(0.2, 1.0), (0.05, 0.0)])
def test_equal_differences_need_no_statistics(loss, p):
    found = non_inferiority(np.full(4, 0.5 - loss), np.full(4, 0.5), margin=0.1)
    assert (found.p_value, found.shown) == (p, p == 0)


@pytest.mark.parametrize("larger_is_better", [True, False])
def test_method_that_loses_the_margin_passes_as_seldom_as_promised(larger_is_better):
    rng, margin, sign = np.random.default_rng(0), 0.3, -1 if larger_is_better else 1
    zero, options = np.zeros((3, 15)), {"margin": margin, "larger_is_better": larger_is_better}
    studies = [study(rng, 3, 15, seed_share=1.0) + sign * margin for _ in range(2000)]
    p = np.array([non_inferiority(a, zero, **options).p_value for a in studies])
    assert 0.03 < np.mean(p < 0.05) < 0.065
    assert np.mean(p < 0.5) == pytest.approx(0.5, abs=0.04)


# Words and errors


def test_results_read_as_sentences():
    scores = np.array([0.9, 0.8, 0.7, 0.8])
    assert str(mean_interval([scores, scores])) == "0.8000 [0.6701, 0.9299] (0.95, 4 patients, 2 seeds)"
    found = str(non_inferiority(-scores, scores, margin=0.02, larger_is_better=False))
    assert found.startswith("non-inferior: -1.6000, bound -1.4078, wanted < 0.02 (0.95, p = ")
    assert found.endswith("4 patients, 1 seed: these networks only)")
    assert str(non_inferiority(-scores, scores, margin=0.02)).startswith("non-inferiority not shown: -1.6000")


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: mean_interval(np.zeros((2, 2, 2))), ValueError, r"`scores` of shape .*got \(2, 2, 2\)"),
        (lambda: mean_interval([]), ValueError, r"`scores` of shape .*got \(0,\)"),
        (lambda: mean_interval(["a", "b"]), TypeError, "`scores` to be real numbers, got dtype <U1"),
        (lambda: mean_interval([True, False]), TypeError, "`scores` to be real numbers, got dtype bool"),
        (lambda: mean_interval([1.0, -np.inf]), ValueError, "`scores` without infinite values, got -inf"),
        (
            lambda: mean_interval([1.0, np.nan]),
            ValueError,
            r"`scores` with 2 or more .*got 1 \(2 patients, 1 with NaN\)",
        ),
        (lambda: mean_interval([1.0, 2.0], level=1.0), ValueError, r"`level` in \(0, 1\), got 1.0"),
        (lambda: mean_interval([1.0, 2.0], level="x"), TypeError, "`level` to be a number, got 'x'"),
        (lambda: paired_difference([1, 2], [1, 2, 3]), ValueError, "`b` with as many patients as `a`, 2, got 3"),
        (lambda: paired_difference([1, np.nan], [np.nan, 1]), ValueError, "`a` and `b` with 2 or more .*got 0"),
        (lambda: non_inferiority([1, 2], [1, 3], margin=0), ValueError, r"`margin` in \(0, inf\), got 0"),
        (
            lambda: non_inferiority([1, 2], [1, 3], margin=1, larger_is_better=1),
            TypeError,
            "`larger_is_better` .*got 1",
        ),
        (lambda: non_inferiority([1, 2], [1, 3], margin=1, level=0), ValueError, r"`level` in \(0, 1\), got 0"),
        (lambda: sign_flip_test([np.nan]), ValueError, "`differences` with 1 or more .*got 0"),
        (lambda: sign_flip_test([1.0], alternative="larger"), ValueError, "`alternative` .*got 'larger'"),
        (lambda: sign_flip_test([1.0], resamples=0), ValueError, "`resamples` of at least 1, got 0"),
        (lambda: sign_flip_test([1.0], seed=-1), ValueError, "`seed` of at least 0, got -1"),
        (lambda: bootstrap_means([1.0, 2.0], resamples=1.5), TypeError, "`resamples` to be an integer, got 1.5"),
        (lambda: bootstrap_means([1.0]), ValueError, "`scores` with 2 or more .*got 1"),
    ],
)
def test_errors_name_the_argument_and_the_value(call, error, message):
    with pytest.raises(error, match=message):
        call()
