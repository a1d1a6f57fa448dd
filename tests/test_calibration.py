"""Calibration errors against loops over bins, and against data whose error is known."""

import math

import numpy as np
import oracles
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from oracles import IGNORE, light

from nacl.metrics import (
    REGIONS,
    CalibrationError,
    classwise_calibration_error,
    expected_calibration_error,
    region_mask,
)

C = 4


def data(*, shape=(2, 9, 8), seed=0, holes=0.2, sharp=2.0):
    """Probabilities in float64, smooth enough to have regions, and labels of which some are ignored."""
    rng = np.random.default_rng(seed)
    logits = rng.standard_normal((shape[0], C, *shape[1:])) + sharp * (np.arange(C) == 0)[None, :, None, None]
    logits[:, 1, : shape[1] // 2, : shape[2] // 2] += 3 * sharp
    target = np.where(rng.random(shape) < holes, IGNORE, rng.integers(0, C, shape))
    return torch.as_tensor(logits).softmax(dim=1), torch.as_tensor(target)


def two_classes(p, labels):
    """A column of pixels with P(class 1) = p."""
    p = torch.as_tensor(p, dtype=torch.float64).view(1, 1, -1, 1)
    return torch.cat([1 - p, p], dim=1), torch.as_tensor(labels).long().view(1, -1, 1)


def ece_by_loop(probs, target, where, n_bins):
    top, predicted = probs.max(dim=1)
    return oracles.calibration_error(top[where].tolist(), (predicted == target)[where].tolist(), n_bins)


def cece_by_loop(probs, target, where, n_bins, num_classes=C, **options):
    pairs = [(probs[:, k][where].tolist(), (target == k)[where].tolist()) for k in range(num_classes)]
    return np.mean([oracles.calibration_error(p, c, n_bins, **options) for p, c in pairs])


# Against loops


@pytest.mark.parametrize("region", REGIONS)
def test_region_matches_the_loop(region):
    probs, target = data()
    found = region_mask(probs, target, region)
    np.testing.assert_array_equal(found, oracles.region(probs.numpy(), target.numpy(), region))
    assert found.any()
    assert not found.all()


@pytest.mark.parametrize("n_bins", [1, 2, 10, 15])
@pytest.mark.parametrize("region", REGIONS)
def test_errors_match_the_loop(region, n_bins):
    probs, target = data()
    where = torch.as_tensor(oracles.region(probs.numpy(), target.numpy(), region))
    options = {"region": region, "n_bins": n_bins}
    ece, cece = (f(probs, target, **options) for f in (expected_calibration_error, classwise_calibration_error))
    assert ece == pytest.approx(ece_by_loop(probs, target, where, n_bins), abs=1e-10)
    assert cece == pytest.approx(cece_by_loop(probs, target, where, n_bins), abs=1e-10)


@pytest.mark.parametrize("region", REGIONS)
@pytest.mark.parametrize("largest", [1, 2, 3])
def test_reference_classwise_error_counts_classes_up_to_the_largest_label(largest, region):
    probs, target = data()
    target = target.clamp(max=largest)
    probs[:, 3, 0], probs[:, 0, 0] = 0, probs[:, 0, 0] + probs[:, 3, 0]  # p = 0 drops out
    where = torch.as_tensor(oracles.region(probs.numpy(), target.numpy(), region))
    error = classwise_calibration_error(probs, target, region=region, convention="reference")
    slow = cece_by_loop(probs, target, where, 15, num_classes=largest + 1, drop_zeros=True)
    assert error == pytest.approx(slow, abs=1e-10)
    if largest < C - 1:
        assert error != pytest.approx(classwise_calibration_error(probs, target, region=region), abs=1e-4)


def test_reference_classwise_error_drops_a_wrong_zero():
    probs, target = two_classes([0.0, 0.0], [1, 0])
    assert classwise_calibration_error(probs, target) == pytest.approx(0.5)
    assert classwise_calibration_error(probs, target, convention="reference") == pytest.approx(0.25)


# Bins


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("n_bins", [4, 10, 15, 20])
def test_probability_on_an_edge_belongs_to_the_bin_below(n_bins, dtype):
    edges = torch.tensor([k / n_bins for k in range(n_bins + 1)], dtype=dtype).view(1, 1, -1, 1)
    error = CalibrationError(n_bins=n_bins, classwise=True)
    error.update(torch.cat([edges, edges], dim=1), torch.zeros(1, n_bins + 1, 1).long())
    assert error.bins.count[0].tolist() == [2] + [1] * (n_bins - 1)


@pytest.mark.parametrize("n_bins", [1, 4, 8])
def test_probability_just_above_an_edge_belongs_to_the_bin_above(n_bins):
    above = [math.nextafter(k / n_bins, 1) for k in range(n_bins)]
    error = CalibrationError(n_bins=n_bins, classwise=True)
    error.update(*two_classes(above, [0] * n_bins))
    assert error.bins.count[1].tolist() == [1] * n_bins


def test_certain_pixels_fall_in_the_end_bins():
    error = CalibrationError(n_bins=5, classwise=True)
    error.update(*two_classes([0.0, 1.0, 1.0, 1.0], [0, 1, 1, 0]))
    bins = error.bins
    assert bins.count[1].tolist() == [1, 0, 0, 0, 3]
    assert bins.confidence_sum[1].tolist() == [0, 0, 0, 0, 3]
    assert bins.correct_sum[1].tolist() == [0, 0, 0, 0, 2]
    assert bins.expected.tolist() == pytest.approx([0.25, 0.25])


def test_bins_tell_accuracy_and_confidence_by_hand():
    error = CalibrationError(n_bins=2)
    error.update(*two_classes([0.9, 0.7, 0.2, 0.4], [1, 0, 0, 1]))
    assert error.bins.confidence.tolist() == pytest.approx([math.nan, 0.75], nan_ok=True)
    assert error.bins.accuracy.tolist() == pytest.approx([math.nan, 0.5], nan_ok=True)
    assert error.compute() == pytest.approx(0.25)
    assert error.bins.count.dtype == torch.int64
    assert error.bins.confidence_sum.dtype == error.bins.correct_sum.dtype == torch.float64


# Invariants


@light
@given(
    cuts=st.lists(st.integers(1, 5), max_size=3),
    seed=st.integers(0, 99),
    region=st.sampled_from(REGIONS),
    classwise=st.booleans(),
    convention=st.sampled_from(["standard", "reference"]),
)
def test_chunks_give_the_error_of_the_whole(cuts, seed, region, classwise, convention):
    probs, target = data(shape=(6, 4, 4), seed=seed)
    whole, parts = (CalibrationError(region=region, classwise=classwise, convention=convention) for _ in range(2))
    whole.update(probs, target)
    chunks = zip(*(x.tensor_split(sorted(set(cuts))) for x in (probs, target)), strict=True)
    for p, t in chunks:
        parts.update(p, t)
    assert parts.compute() == pytest.approx(whole.compute(), abs=1e-12, nan_ok=True)
    assert torch.equal(parts.bins.count, whole.bins.count)


@light
@given(order=st.permutations(range(24)), seed=st.integers(0, 99), classwise=st.booleans())
def test_order_of_the_pixels_does_not_matter(order, seed, classwise):
    probs, target = data(shape=(1, 24, 1), seed=seed)
    errors = []
    for p, t in ((probs, target), (probs[:, :, order], target[:, order])):
        error = CalibrationError(classwise=classwise)
        error.update(p, t)
        errors.append(error.compute())
    assert errors[1] == pytest.approx(errors[0], abs=1e-12)


@light
@given(order=st.permutations(range(C)), seed=st.integers(0, 99))
def test_relabelling_the_classes_changes_neither_error(order, seed):
    probs, target = data(seed=seed)
    renamed = torch.where(target == IGNORE, IGNORE, torch.tensor(order)[target.clamp(min=0)])
    moved = torch.empty_like(probs)
    moved[:, order] = probs
    for function in (expected_calibration_error, classwise_calibration_error):
        assert function(moved, renamed) == pytest.approx(function(probs, target), abs=1e-12)


@pytest.mark.parametrize("classwise", [False, True])
def test_ignored_pixels_do_not_count(classwise):
    probs, target = data(shape=(1, 30, 1))
    valid = (target != IGNORE)[0, :, 0]
    function = classwise_calibration_error if classwise else expected_calibration_error
    assert function(probs, target) == pytest.approx(function(probs[:, :, valid], target[:, valid]), abs=1e-12)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16])
@pytest.mark.parametrize("region", REGIONS)
def test_integer_type_of_the_labels_does_not_matter(region, dtype):
    probs, target = data(holes=0)
    assert torch.equal(region_mask(probs, target.to(dtype), region), region_mask(probs, target, region))
    error = expected_calibration_error(probs, target.to(dtype), region=region)
    assert error == expected_calibration_error(probs, target, region=region)


def test_uint8_label_156_is_not_ignored_for_minus_100():
    probs = torch.full((1, 157, 2, 2), 0.0)
    probs[:, 156] = 1
    target = torch.full((1, 2, 2), 156, dtype=torch.uint8)
    assert region_mask(probs, target).all()
    assert expected_calibration_error(probs, target) == 0


@pytest.mark.parametrize("classwise", [False, True])
@pytest.mark.parametrize("region", REGIONS)
def test_empty_region_gives_nan(region, classwise):
    probs = torch.tensor([0.8, 0.1, 0.1]).view(1, 3, 1, 1).expand(1, 3, 4, 4)
    target = torch.full((1, 4, 4), IGNORE if region == "all" else 0)
    error = CalibrationError(region=region, classwise=classwise, convention="reference" if classwise else "standard")
    error.update(probs, target)
    assert math.isnan(error.compute())


def test_empty_chunk_changes_nothing():
    probs, target = data()
    error = CalibrationError()
    for chunk in (torch.full_like(target, IGNORE), target):
        error.update(probs, chunk)
    assert error.compute() == expected_calibration_error(probs, target)


def test_reset_forgets():
    error = CalibrationError(classwise=True, convention="reference")
    error.update(*two_classes([0.1], [1]))
    error.reset()
    with pytest.raises(RuntimeError, match="Expected `update` before `compute`"):
        error.compute()
    error.update(*two_classes([0.1], [0]))
    assert error.compute() == pytest.approx(0.1)


def test_half_probabilities_are_summed_in_float64():
    probs = torch.tensor([0.25, 0.75]).half().view(1, 2, 1, 1).expand(1, 2, 100, 300)
    assert expected_calibration_error(probs, torch.ones(1, 100, 300).long()) == 0.25


# Known errors


@pytest.mark.parametrize(("n", "repeats"), [(100, 200), (1_000, 100), (10_000, 60), (100_000, 40)])
def test_error_of_a_calibrated_forecast_is_its_known_bias(n, repeats):
    """With E|x| = sqrt(2 / pi) std for a normal x, a bin of n_b pixels has E|gap| = sqrt(2 / pi * p (1 - p) / n_b)."""
    edges = np.linspace(0, 1, 16).clip(0.5, 1)
    share, middle = 2 * np.diff(edges), (edges[1:] + edges[:-1]) / 2
    bias = math.sqrt(2 / math.pi) * np.sqrt(share * middle * (1 - middle) / n).sum()
    assert bias == pytest.approx(0.893 / math.sqrt(n), rel=0.001)
    rng = np.random.default_rng(n)
    errors = []
    for _ in range(repeats):
        p = rng.uniform(0.5, 1, n)
        errors.append(expected_calibration_error(*two_classes(p, rng.random(n) < p)))
    assert np.mean(errors) == pytest.approx(bias, rel=0.12)


@pytest.mark.parametrize("excess", [0.05, 0.2])
def test_over_confidence_is_measured(excess):
    rng = np.random.default_rng(0)
    p = rng.uniform(0.5, 0.8, 200_000)
    error = expected_calibration_error(*two_classes(p + excess, rng.random(p.size) < p))
    assert error == pytest.approx(excess, abs=0.005)


def test_true_posterior_has_an_error_on_the_true_foreground_and_none_on_all():
    p = np.full(100_000, 0.3)
    probs, target = two_classes(p, np.random.default_rng(0).random(p.size) < p)
    assert expected_calibration_error(probs, target, region="all") < 0.005
    assert expected_calibration_error(probs, target, region="true_foreground") == pytest.approx(0.7)
    assert classwise_calibration_error(probs, target, region="all") < 0.005
    assert classwise_calibration_error(probs, target, region="true_foreground") == pytest.approx(0.7)


@pytest.mark.parametrize("region", ["all", "predicted_foreground"])
def test_regions_that_do_not_look_at_the_label_leave_the_true_posterior_calibrated(region):
    rng = np.random.default_rng(0)
    p = rng.uniform(0, 1, 200_000)
    probs, target = two_classes(p, rng.random(p.size) < p)
    assert expected_calibration_error(probs, target, region=region) < 0.005


# Refusals


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"n_bins": 0}, ValueError, "`n_bins` of at least 1, got 0"),
        ({"n_bins": 15.0}, TypeError, "`n_bins` to be an integer, got 15.0"),
        ({"n_bins": True}, TypeError, "`n_bins` to be an integer, got True"),
        (
            {"region": "foreground"},
            ValueError,
            "`region` to be one of .* got 'foreground'. Did you mean '.*foreground'",
        ),
        ({"convention": "refrence"}, ValueError, "`convention` .* got 'refrence'. Did you mean 'reference'"),
    ],
)
def test_bad_options_are_named(options, error, message):
    with pytest.raises(error, match=message):
        CalibrationError(**options)


@pytest.mark.parametrize(
    ("probs", "target", "error", "message"),
    [
        (torch.full((1, 2, 2, 2), 1.5), None, ValueError, r"`probs` values in \[0, 1\], got \[1.5, 1.5\]"),
        (torch.full((1, 2, 2, 2), -0.1), None, ValueError, r"`probs` values in \[0, 1\], got \[-0.1, -0.1\]"),
        (torch.full((1, 2, 2, 2), math.nan), None, ValueError, r"`probs` values in \[0, 1\], got \[nan, nan\]"),
        (torch.ones(1, 2, 2, 2).int(), None, TypeError, "`probs` of a floating dtype, got torch.int32"),
        (torch.ones(2, 2, 2), None, ValueError, r"`probs` of shape \(N, C, H, W\) .* got \(2, 2, 2\)"),
        (None, torch.zeros(1, 2, 2), TypeError, "`target` of an integer dtype, got torch.float32"),
        (None, torch.zeros(1, 2, 3).long(), ValueError, r"`target` of shape \(1, 2, 2\), got \(1, 2, 3\)"),
        (None, torch.full((1, 2, 2), 2), ValueError, r"`target` values in \[0, 2\) .* got 2"),
    ],
)
@pytest.mark.parametrize("function", [expected_calibration_error, classwise_calibration_error])
def test_bad_tensors_are_named(function, probs, target, error, message):
    probs = torch.full((1, 2, 2, 2), 0.5) if probs is None else probs
    target = torch.zeros(1, 2, 2).long() if target is None else target
    with pytest.raises(error, match=message):
        function(probs, target)


def test_changed_number_of_classes_is_refused():
    error = CalibrationError(classwise=True)
    error.update(torch.full((1, 2, 1, 1), 0.5), torch.zeros(1, 1, 1).long())
    with pytest.raises(ValueError, match="`probs` with 2 classes, got 3"):
        error.update(torch.full((1, 3, 1, 1), 1 / 3), torch.zeros(1, 1, 1).long())


def test_unknown_region_is_named():
    with pytest.raises(ValueError, match=r"`region` to be one of .* got 'border'"):
        region_mask(*data(), "border")
