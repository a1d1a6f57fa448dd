"""Bins of equal mass: the sorted error against a loop, the streamed one within its bound."""

import math

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from oracles import IGNORE, forecast, light, two_classes

from nacl.metrics import (
    REGIONS,
    AdaptiveCalibrationError,
    _forecast,
    adaptive_calibration_error,
    expected_calibration_error,
    region_mask,
)


def by_loop(confidence, correct, n_bins):
    """A bin ends at the smallest confidence that at least b / n_bins of all do not exceed."""
    total = len(confidence)
    if not total:
        return math.nan
    ends = []
    for b in range(1, n_bins + 1):
        ends.append(min(v for v in confidence if sum(p <= v for p in confidence) * n_bins >= b * total))
    excess = [0.0] * n_bins
    for p, c in zip(confidence, correct, strict=True):
        excess[next(b for b in range(n_bins) if p <= ends[b])] += p - c
    return sum(map(abs, excess)) / total


def streamed(probs, labels, **options):
    error = AdaptiveCalibrationError(**options)
    for n in range(len(probs)):
        error.update(probs[n : n + 1], labels[n : n + 1])
    return error


# The sorted error


@pytest.mark.parametrize("n_bins", [1, 2, 7, 15, 200])
@pytest.mark.parametrize("region", REGIONS)
@pytest.mark.parametrize("classwise", [False, True])
def test_sorted_error_matches_the_loop(region, n_bins, classwise):
    probs, labels = forecast((2, 6, 5))
    where = region_mask(probs, labels, region)
    if classwise:
        rows = [(probs[:, k][where].tolist(), (labels == k)[where].tolist()) for k in range(4)]
    else:
        rows = [(probs.amax(dim=1)[where].tolist(), (probs.argmax(dim=1) == labels)[where].tolist())]
    slow = np.mean([by_loop(*row, n_bins) for row in rows])
    options = {"region": region, "n_bins": n_bins, "classwise": classwise}
    assert adaptive_calibration_error(probs, labels, **options) == pytest.approx(slow, abs=1e-12)
    logits = adaptive_calibration_error(probs.log(), labels, from_logits=True, **options)
    assert logits == pytest.approx(slow, abs=1e-9)


GRID = st.sampled_from([0.0, 1.0, 0.5, 0.25, 0.75, 2**-30, 1 - 2**-24, 1 - 1e-9, 1 - 1e-12])
PIXELS = st.lists(st.tuples(st.one_of(GRID, st.floats(0, 1)), st.booleans()), min_size=1, max_size=60)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(pixels=PIXELS, n_bins=st.integers(1, 20))
def test_sorted_error_with_ties_matches_the_loop(pixels, n_bins):
    p, y = zip(*pixels, strict=True)
    probs, labels = two_classes(p, y)
    rows = [(probs[0, k].flatten().tolist(), (labels == k).flatten().tolist()) for k in range(2)]
    found = adaptive_calibration_error(probs, labels, n_bins=n_bins, classwise=True)
    assert found == pytest.approx(np.mean([by_loop(*row, n_bins) for row in rows]), abs=1e-12)


@light
@given(pixels=PIXELS, seed=st.integers(0, 99))
def test_order_of_equal_confidences_does_not_matter(pixels, seed):
    order = np.random.default_rng(seed).permutation(len(pixels))
    one, other = (zip(*x, strict=True) for x in (pixels, [pixels[i] for i in order]))
    found = adaptive_calibration_error(*two_classes(*one))
    assert adaptive_calibration_error(*two_classes(*other)) == pytest.approx(found, abs=1e-12)


@pytest.mark.parametrize("function", [adaptive_calibration_error, lambda *a, **o: streamed(*a, **o).compute()])
def test_by_hand(function):
    probs, labels = two_classes([0.6, 0.6, 0.8, 0.8], [1, 1, 0, 1])
    assert function(probs, labels, n_bins=2) == pytest.approx((0.8 + 0.6) / 4)
    assert function(probs, labels, n_bins=1) == pytest.approx(0.2 / 4)
    assert function(*two_classes([0.9], [1])) == pytest.approx(0.1)
    assert function(*two_classes([1.0] * 5, [1] * 4 + [0])) == pytest.approx(0.2)
    assert function(*two_classes([0.0, 0.0, 1.0], [1, 0, 1]), classwise=True) == pytest.approx(1 / 3)


def test_calibrated_forecast_has_the_error_of_chance():
    rng = np.random.default_rng(0)
    p = rng.beta(8, 1, 40_000) / 2 + 0.5
    error = adaptive_calibration_error(*two_classes(p, rng.random(p.size) < p))
    order = np.sort(p).reshape(-1, 2000)  # bins of 2000: E|gap| is sqrt(2 / pi) of its deviation
    chance = (math.sqrt(2 / math.pi) * np.sqrt((order * (1 - order)).mean(axis=1) / 2000)).mean()
    assert error < 2 * chance
    assert error > chance / 3


# The streamed error


@settings(max_examples=300, deadline=None, derandomize=True)
@given(
    pixels=PIXELS,
    n_bins=st.sampled_from([1, 2, 3, 15, 40]),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    classwise=st.booleans(),
    threshold=st.sampled_from([0.0, 1e-3, 0.25]),
)
@example([(0.6, True)] * 40 + [(1 - 1e-9, True)] * 50 + [(1 - 1e-10, False)] * 10, 2, torch.float64, False, 0.0)
def test_streamed_error_is_within_its_bound(pixels, n_bins, dtype, classwise, threshold):
    data = two_classes(*zip(*pixels, strict=True), dtype=dtype)
    options = {"n_bins": n_bins, "classwise": classwise, "threshold": threshold}
    error = streamed(*data, **options)
    exact = adaptive_calibration_error(*data, **options)
    assert error.compute() == pytest.approx(exact, abs=error.error_bound + 1e-12, nan_ok=True)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(seed=st.integers(0, 9999), centre=st.sampled_from([0.1, 0.5, 0.6, 0.9, 1.0]), width=st.floats(1e-6, 3e-3))
def test_bound_holds_where_all_share_a_few_cells(seed, centre, width):
    rng = np.random.default_rng(seed)
    p = np.clip(centre + width * rng.standard_normal(80), 0, 1)
    data = two_classes(p, (rng.random(80) < 0.5) ^ (p > centre))
    for n_bins in (2, 5, 15):
        error = streamed(*data, n_bins=n_bins, classwise=True)
        exact = adaptive_calibration_error(*data, n_bins=n_bins, classwise=True)
        assert abs(error.compute() - exact) <= error.error_bound + 1e-12


def test_bound_covers_what_a_cell_hides_and_is_0_where_nothing_is_hidden():
    low, high = 0.7, 0.7 + 1e-6  # of one cell
    data = two_classes([low] * 50 + [high] * 50, [1] * 50 + [0] * 50)
    error = streamed(*data, n_bins=2)
    assert error.compute() == pytest.approx(0.2, abs=1e-5)
    assert adaptive_calibration_error(*data, n_bins=2) == pytest.approx(0.5, abs=1e-5)
    assert error.error_bound == pytest.approx(0.15 + 0.35 + 0.35, abs=1e-5)
    assert streamed(*two_classes([1.0] * 9, [1] * 5 + [0] * 4)).error_bound == 0


@pytest.mark.parametrize("sharp", [1, 4])
def test_streamed_error_of_a_usual_forecast_is_near_the_exact_one(sharp):
    rng = np.random.default_rng(0)
    logits = torch.as_tensor(sharp * rng.standard_normal((4, 3, 100, 100)), dtype=torch.float32)
    data = logits.softmax(dim=1), torch.as_tensor(rng.integers(0, 3, (4, 100, 100)))
    for classwise in (False, True):
        error = streamed(*data, classwise=classwise)
        assert error.error_bound < 0.02
        exact = adaptive_calibration_error(*data, classwise=classwise)
        assert error.compute() == pytest.approx(exact, abs=min(error.error_bound, 1e-3))


def test_cells_follow_the_probability_and_tell_nearly_certain_from_certain():
    octave = 0.125 * (1 + torch.arange(512) / 512)
    p = torch.cat([torch.tensor([0.0, 2.0**-24]), octave, 1 - octave.flip(0), torch.tensor([1 - 2.0**-24, 1.0])])
    error = streamed(torch.stack([p, p])[None, :, :, None], torch.zeros(1, len(p), 1).long(), classwise=True)
    counts = error.sums["counts"][1, 0]  # class 1 never comes true
    assert counts.max() == 1
    assert counts.sum() == len(p)


def test_more_bins_than_pixels_judge_each_pixel():
    p = [0.55, 0.65, 0.75, 0.95]
    for function in (adaptive_calibration_error, lambda *a, **o: streamed(*a, **o).compute()):
        assert function(*two_classes(p, [1, 0, 1, 1]), n_bins=1000) == pytest.approx((0.45 + 0.65 + 0.25 + 0.05) / 4)


# Threshold


@pytest.mark.parametrize("function", [adaptive_calibration_error, lambda *a, **o: streamed(*a, **o).compute()])
def test_threshold_leaves_small_probabilities_out(function):
    p, y = [0.0, 0.0005, 0.001, 0.3, 0.9], [1, 0, 1, 0, 1]
    data = two_classes(p, y)
    kept = [(p[3:], y[3:]), ([1 - v for v in p], [1 - v for v in y])]  # of class 1, and of class 0
    slow = np.mean([by_loop(*row, 15) for row in kept])
    assert function(*data, classwise=True, threshold=1e-3) == pytest.approx(slow, abs=1e-12)
    everything = np.mean([by_loop(p, y, 15), by_loop(*kept[1], 15)])
    assert function(*data, classwise=True) == pytest.approx(everything, abs=1e-12)


@pytest.mark.parametrize("function", [adaptive_calibration_error, lambda *a, **o: streamed(*a, **o).compute()])
def test_class_of_which_nothing_counts_is_left_out_of_the_mean(function):
    probs = torch.tensor([0.75, 0.25, 0.0]).view(1, 3, 1, 1).expand(1, 3, 2, 2)
    labels = torch.zeros(1, 2, 2).long()
    assert function(probs, labels, classwise=True) == pytest.approx(0.5 / 3)
    assert function(probs, labels, classwise=True, threshold=1e-3) == pytest.approx(0.5 / 2)
    assert math.isnan(function(probs, labels, classwise=True, threshold=1))


# Nothing, names, refusals


@pytest.mark.parametrize("classwise", [False, True])
def test_nothing_gives_nan(classwise):
    data = torch.full((1, 2, 3, 3), 0.5), torch.full((1, 3, 3), IGNORE)
    error = streamed(*data, classwise=classwise)
    assert math.isnan(error.compute())
    assert math.isnan(error.error_bound)
    for convention in ("standard", "reference"):
        assert math.isnan(adaptive_calibration_error(*data, classwise=classwise, convention=convention))


def test_slabs_change_nothing(monkeypatch):
    data = forecast((3, 5, 4))
    whole = adaptive_calibration_error(*data, classwise=True), streamed(*data).compute()
    monkeypatch.setattr(_forecast, "CPU_SLAB", 7)
    parts = adaptive_calibration_error(*data, classwise=True), streamed(*data).compute()
    assert parts == pytest.approx(whole, abs=1e-12)


def test_reference_forgives_a_forecast_of_one_confidence_as_the_authors_do():
    data = torch.tensor([0.0, 1.0]).view(1, 2, 1, 1).expand(1, 2, 4, 4), torch.zeros(1, 4, 4).long()
    assert adaptive_calibration_error(*data, convention="reference") == 0
    assert adaptive_calibration_error(*data) == expected_calibration_error(*data) == 1


def test_names_tell_what_is_measured():
    assert AdaptiveCalibrationError(region="predicted_border").name == "adaptive_ece_predicted_border"
    assert AdaptiveCalibrationError(classwise=True, threshold=1e-3).name == "classwise_tace_all"


@pytest.mark.parametrize("make", [AdaptiveCalibrationError, lambda **o: adaptive_calibration_error(*forecast(), **o)])
@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"n_bins": 0}, ValueError, "`n_bins` of at least 1, got 0"),
        ({"threshold": 2}, ValueError, r"`threshold` in \[0, 1\], got 2"),
        ({"threshold": None}, TypeError, "`threshold` to be a number, got None"),
        ({"classwise": "yes"}, TypeError, "`classwise` to be True or False, got 'yes'"),
        ({"region": "bordr"}, ValueError, "`region` .* got 'bordr'"),
    ],
)
def test_bad_options_are_named(make, options, error, message):
    with pytest.raises(error, match=message):
        make(**options)
    with pytest.raises(ValueError, match=r"`convention` .* got 'refrence'. Did you mean 'reference'"):
        adaptive_calibration_error(*forecast(), convention="refrence")


def test_bound_needs_pooled_pixels():
    with pytest.raises(RuntimeError, match="before `error_bound`, got no data"):
        _ = AdaptiveCalibrationError().error_bound
    error = AdaptiveCalibrationError(aggregation="cases")
    error.update(*forecast())
    with pytest.raises(RuntimeError, match="got an aggregation by cases"):
        _ = error.error_bound
