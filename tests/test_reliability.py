"""The reliability curve without bins, against pooling of adjacent violators by a loop."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import IGNORE, forecast, two_classes

from nacl.metrics import REGIONS, _forecast, region_mask, reliability_curve


def pooled_by_loop(confidence, correct):
    """The rising share at each different confidence: blocks that fall are merged until none does."""
    points = sorted(set(confidence))
    blocks = []
    for v in points:
        members = [c for p, c in zip(confidence, correct, strict=True) if p == v]
        blocks.append([sum(members), len(members), 1])
        while len(blocks) > 1 and blocks[-2][0] / blocks[-2][1] >= blocks[-1][0] / blocks[-1][1]:
            last = blocks.pop()
            blocks[-1] = [a + b for a, b in zip(blocks[-1], last, strict=True)]
    return points, [right / total for right, total, length in blocks for _ in range(length)]


def check(curve, confidence, correct):
    points, shares = pooled_by_loop(confidence, correct)
    assert curve.confidence.tolist() == pytest.approx(points, abs=1e-12)
    assert curve.accuracy.tolist() == pytest.approx(shares, abs=1e-12)
    at = dict(zip(points, shares, strict=True))
    assert curve.calibration_error == pytest.approx(np.mean([abs(at[p] - p) for p in confidence]), abs=1e-12)
    pairs = list(zip(confidence, correct, strict=True))
    brier, recalibrated = np.mean([(p - c) ** 2 for p, c in pairs]), np.mean([(at[p] - c) ** 2 for p, c in pairs])
    mean = np.mean(correct)
    assert curve.uncertainty == pytest.approx(mean * (1 - mean), abs=1e-12)
    assert curve.miscalibration == pytest.approx(brier - recalibrated, abs=1e-12)
    assert curve.discrimination == pytest.approx(mean * (1 - mean) - recalibrated, abs=1e-12)
    assert curve.miscalibration - curve.discrimination + curve.uncertainty == pytest.approx(brier, abs=1e-12)
    assert min(curve.miscalibration, curve.discrimination) >= -1e-15
    assert curve.count.dtype == curve.correct.dtype == np.int64
    assert (curve.count.sum(), curve.correct.sum()) == (len(pairs), sum(correct))


@settings(max_examples=100, deadline=None, derandomize=True)
@given(
    pixels=st.lists(
        st.tuples(st.one_of(st.sampled_from([0.0, 0.25, 0.5, 1.0]), st.floats(0, 1)), st.booleans()),
        min_size=1,
        max_size=40,
    )
)
def test_curve_and_its_parts_match_the_loop(pixels):
    p, y = zip(*pixels, strict=True)
    check(reliability_curve(*two_classes(p, y), class_index=1), p, y)


@pytest.mark.parametrize("class_index", [None, 0, 2])
@pytest.mark.parametrize("region", REGIONS)
def test_curve_of_a_region_and_a_class(monkeypatch, region, class_index):
    probs, labels = forecast((2, 7, 6), 3)
    where = region_mask(probs, labels, region)
    confidence = probs.amax(dim=1) if class_index is None else probs[:, class_index]
    correct = labels == (probs.argmax(dim=1) if class_index is None else class_index)
    pairs = confidence[where].tolist(), correct[where].tolist()
    options = {"region": region, "class_index": class_index}
    check(reliability_curve(probs, labels, **options), *pairs)
    monkeypatch.setattr(_forecast, "CPU_SLAB", 11)
    check(reliability_curve(probs, labels, **options), *pairs)
    logits = reliability_curve(probs.log(), labels, from_logits=True, **options)
    assert logits.calibration_error == pytest.approx(reliability_curve(probs, labels, **options).calibration_error)


@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 3, 4, 5)])
def test_curve_of_one_pixel_and_of_volumes(shape):
    probs, labels = forecast(shape, holes=0)
    right = (probs.argmax(dim=1) == labels).flatten()
    check(reliability_curve(probs, labels), probs.amax(dim=1).flatten().tolist(), right.tolist())


def test_rising_curve_is_its_own_fit_and_a_falling_one_is_flat():
    rising = reliability_curve(*two_classes([0.6] * 4 + [0.9] * 4, [1, 0, 0, 0, 1, 1, 1, 0]))
    assert (rising.confidence.tolist(), rising.accuracy.tolist()) == (pytest.approx([0.6, 0.9]), [0.25, 0.75])
    falling = reliability_curve(*two_classes([0.6] * 4 + [0.9] * 4, [1, 1, 1, 0, 1, 0, 0, 0]))
    assert falling.accuracy.tolist() == [0.5, 0.5]
    assert falling.discrimination == pytest.approx(0, abs=1e-15)


def test_calibrated_shares_have_no_miscalibration():
    curve = reliability_curve(*two_classes([0.75] * 4 + [1.0] * 2, [1, 1, 1, 0, 1, 1]))
    assert curve.miscalibration == pytest.approx(0, abs=1e-15)
    assert curve.calibration_error == pytest.approx(0, abs=1e-15)
    assert curve.discrimination > 0


def test_error_of_a_calibrated_forecast_falls_with_the_power_minus_two_thirds():
    rng = np.random.default_rng(0)
    found = []
    for n, repeats in ((300, 30), (30_000, 6)):
        p = [rng.uniform(0.5, 1, n) for _ in range(repeats)]
        found.append(np.mean([reliability_curve(*two_classes(x, rng.random(n) < x)).miscalibration for x in p]))
    assert math.log(found[0] / found[1]) / math.log(100) == pytest.approx(2 / 3, abs=0.12)


def test_over_confidence_is_measured():
    rng = np.random.default_rng(0)
    p = rng.uniform(0.5, 0.8, 50_000)
    curve = reliability_curve(*two_classes(p + 0.15, rng.random(p.size) < p))
    assert curve.calibration_error == pytest.approx(0.15, abs=0.006)
    assert curve.miscalibration == pytest.approx(0.15**2, abs=0.002)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"class_index": 4}, ValueError, "`class_index` below 4, got 4"),
        ({"class_index": -1}, ValueError, "`class_index` of at least 0, got -1"),
        ({"class_index": 1.0}, TypeError, "`class_index` to be an integer, got 1.0"),
        ({"region": "truth"}, ValueError, "`region` to be one of .* got 'truth'"),
        ({"from_logits": 0}, TypeError, "`from_logits` to be True or False, got 0"),
    ],
)
def test_bad_options_are_named(options, error, message):
    with pytest.raises(error, match=message):
        reliability_curve(*forecast(), **options)


@pytest.mark.parametrize("shape", [(2, 3, 3), (0, 3, 3), (1, 0, 3, 3)])
def test_region_without_a_pixel_is_refused(shape):
    probs, labels = torch.full((shape[0], 2, *shape[1:]), 0.5), torch.full(shape, IGNORE)
    with pytest.raises(ValueError, match="`region` with a pixel at least, got 'all'"):
        reliability_curve(probs, labels)
