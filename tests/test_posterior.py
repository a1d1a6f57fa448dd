"""Where the truth is known: divergence, error and calibration against loops, limits, and drawn labels."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from oracles import forecast, light, two_classes
from scipy import stats

from nacl.metrics import (
    CalibrationError,
    calibration_bins,
    posterior_divergence,
    posterior_error,
    region_mask,
    true_calibration_error,
)

FUNCTIONS = (posterior_divergence, posterior_error, true_calibration_error)


def pair(seed=0, shape=(2, 4, 3)):
    return forecast(shape, seed=seed)[0], forecast(shape, seed=seed + 1000)[0]


def of_predicted(probs, posterior):
    """(confidence, truth) of each pixel's predicted class."""
    p, q = (x.movedim(1, -1).reshape(-1, x.shape[1]).tolist() for x in (probs, posterior))
    return [(max(a), b[a.index(max(a))]) for a, b in zip(p, q, strict=True)]


@light
@given(seed=st.integers(0, 999))
def test_error_matches_the_loop_and_bounds_the_calibration(seed):
    probs, posterior = pair(seed)
    slow = np.mean([abs(p - q) for p, q in of_predicted(probs, posterior)])
    assert posterior_error(probs, posterior) == pytest.approx(slow, abs=1e-12)
    assert true_calibration_error(probs, posterior) <= slow + 1e-12


@light
@given(seed=st.integers(0, 999), levels=st.integers(1, 4))
def test_true_calibration_error_matches_pooling_by_a_loop(seed, levels):
    rng = np.random.default_rng(seed)
    p = rng.choice(np.linspace(0.55, 0.95, levels), 30)
    q = rng.uniform(0, 1, 30)
    blocks = []
    for v in sorted(set(p)):
        blocks.append([q[p == v].sum(), (p == v).sum(), [v] * (p == v).sum()])
        while len(blocks) > 1 and blocks[-2][0] / blocks[-2][1] >= blocks[-1][0] / blocks[-1][1]:
            last = blocks.pop()
            blocks[-1] = [a + b for a, b in zip(blocks[-1], last, strict=True)]
    slow = sum(abs(s / n - v) for s, n, values in blocks for v in values) / 30
    found = true_calibration_error(two_classes(p, p > 0)[0], two_classes(q, q > 0)[0])
    assert found == pytest.approx(slow, abs=1e-12)


@light
@given(seed=st.integers(0, 999))
def test_truth_has_no_error_and_pixels_left_out_do_not_count(seed):
    probs, posterior = pair(seed)
    assert [f(probs, probs) for f in FUNCTIONS] == pytest.approx([0, 0, 0], abs=1e-12)
    where = torch.as_tensor(np.random.default_rng(seed).random((2, 4, 3)) < 0.5)
    where[0, 0, 0] = True
    kept = [x.movedim(1, -1)[where].T[None, :, None] for x in (probs, posterior)]
    for function in FUNCTIONS:
        assert function(probs, posterior, where=where) == pytest.approx(function(*kept), abs=1e-12)
        elsewhere = torch.where(where.unsqueeze(1), posterior, 1 / 4)
        assert function(probs, elsewhere, where=where) == pytest.approx(function(*kept), abs=1e-12)


def test_right_on_average_is_calibrated_and_not_the_truth():
    probs, _ = two_classes([0.8] * 4, [1] * 4)
    posterior, _ = two_classes([0.9, 0.7, 0.9, 0.7], [1] * 4)
    assert true_calibration_error(probs, posterior) == pytest.approx(0, abs=1e-12)
    assert posterior_error(probs, posterior) == pytest.approx(0.1)
    assert posterior_divergence(probs, posterior) > 0.02


def test_every_forecast_too_sure_by_the_same():
    p = np.linspace(0.5, 0.8, 50)
    probs, posterior = two_classes(p + 0.1, p > 0)[0], two_classes(p, p > 0)[0]
    assert true_calibration_error(probs, posterior) == pytest.approx(0.1)
    assert posterior_error(probs, posterior) == pytest.approx(0.1)


@pytest.mark.parametrize("shape", [(1, 3, 3), (1, 2, 3, 4)])
def test_regions_serve_as_where(shape):
    (probs, labels), posterior = forecast(shape), pair(1, shape)[1]
    where = region_mask(probs, labels, "predicted_foreground")
    pairs = [x for x, inside in zip(of_predicted(probs, posterior), where.flatten(), strict=True) if inside]
    assert posterior_error(probs, posterior, where=where) == pytest.approx(np.mean([abs(p - q) for p, q in pairs]))


# Drawn labels


def test_drawn_labels_estimate_the_true_calibration_error():
    rng = np.random.default_rng(0)
    p = rng.uniform(0.5, 0.9, 200_000)
    q = np.clip(p - 0.3 * (p - 0.5) + 0.05 * rng.choice([-1, 1], p.size), 0, 1)
    labels = rng.random(p.size) < q
    probs, target = two_classes(p, labels)
    posterior, _ = two_classes(q, labels)
    truth = (0.3 * (p - 0.5)).mean()
    assert true_calibration_error(probs, posterior) == pytest.approx(truth, abs=0.003)
    assert calibration_bins(probs, target)["all"].expected.item() == pytest.approx(truth, abs=0.005)
    assert posterior_error(probs, posterior) == pytest.approx(np.abs(q - p).mean())


def test_truth_of_a_rare_foreground_is_calibrated_except_where_the_label_chose_the_pixels():
    """On the true foreground p has density p f(p) / E[p], f that of Beta(.3, 3).

    There a bin of confidence c holds the missed, p = 1 - c, whose excess is c, and the found, p = c, whose excess is
    c - 1. The missed outweigh the found at every c, so the error is the difference of the two integrals of
    p (1 - p) f(p) / E[p], over p < 1/2 and over p > 1/2; and p (1 - p) f(p) is a multiple of Beta(1.3, 4)'s density.
    """
    a, b = 0.3, 3.0
    later = b / (a + b + 1)  # E[p (1 - p)] / E[p]
    wanted = later * (1 - 2 * stats.beta(a + 1, b + 1).sf(0.5))
    assert wanted == pytest.approx(0.566, abs=0.001)
    rng = np.random.default_rng(0)
    p = rng.beta(a, b, (1, 500, 600))
    probs = torch.as_tensor(np.stack([1 - p, p], axis=1))
    bins = calibration_bins(probs, torch.as_tensor(rng.random(p.shape) < p).long())
    assert bins["true_foreground"].expected.item() == pytest.approx(wanted, abs=0.006)
    assert bins["all"].expected.item() < 0.003
    assert bins["predicted_border"].expected.item() < 0.005
    assert bins["predicted_foreground"].expected.item() < 0.025  # a fiftieth of the pixels
    assert bins["predicted_foreground"].debiased.item() < 0.02
    by_class = CalibrationError(classwise=True, region="true_foreground")
    by_class.update(probs, torch.as_tensor(np.random.default_rng(1).random(p.shape) < p).long())
    assert by_class.compute() == pytest.approx(later, abs=0.006)  # 1 - E[p | foreground], of either class


# Input


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_number_type_of_the_forecast_changes_rounding_only(dtype):
    probs, posterior = pair()
    for function in FUNCTIONS:
        assert function(probs.to(dtype), posterior.to(dtype)) == pytest.approx(function(probs, posterior), rel=0.03)


def test_many_classes_in_bfloat16_keep_their_numbers():
    certain = torch.eye(300).view(300, 300, 1, 1)
    assert posterior_error(certain.bfloat16(), certain) == 0


def test_input_that_wants_gradients_is_read_and_left_alone():
    probs, posterior = pair()
    copies = probs.clone(), posterior.clone()
    for function in FUNCTIONS:
        assert isinstance(function(probs.requires_grad_(), posterior.requires_grad_()), float)
    assert torch.equal(probs, copies[0])
    assert torch.equal(posterior, copies[1])


@pytest.mark.parametrize("function", FUNCTIONS)
def test_no_pixel_gives_nan(function):
    probs, posterior = pair()
    assert math.isnan(function(probs, posterior, where=torch.zeros(2, 4, 3, dtype=torch.bool)))
    assert math.isnan(function(probs[:0], posterior[:0]))


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"probs": torch.full((2, 4, 4, 3), 1.5)}, ValueError, r"`probs` values in \[0, 1\], got \[1.5, 1.5\]"),
        ({"posterior": torch.full((2, 4, 4, 3), math.nan)}, ValueError, r"`posterior` values in \[0, 1\], got \[nan"),
        (
            {"posterior": torch.ones(2, 3, 4, 3)},
            ValueError,
            r"`posterior` of the shape of `probs`, \(2, 4",
        ),
        ({"posterior": None}, ValueError, "`posterior` of the shape of `probs`, .* got NoneType"),
        ({"probs": torch.ones(2, 4)}, ValueError, r"`probs` of shape \(N, C, H, W\)"),
        ({"where": torch.ones(2, 4, 3)}, ValueError, r"`where` bool, of shape \(2, 4, 3\), got torch.float32"),
        ({"where": torch.ones(2, 4, 4).bool()}, ValueError, r"`where` bool, .* got torch.bool \(2, 4, 4\)"),
        ({"where": [True]}, TypeError, r"`where` to be a torch.Tensor, got list"),
    ],
)
def test_bad_input_is_named(function, change, error, message):
    arguments = dict(zip(("probs", "posterior"), pair(), strict=True)) | change
    with pytest.raises(error, match=message):
        function(arguments.pop("probs"), arguments.pop("posterior"), **arguments)
