"""Bins of confidence: the errors that they give, the regions, the edges, and what slabs must not change."""

import math

import numpy as np
import oracles
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from oracles import IGNORE, forecast, light, two_classes

from nacl.metrics import ERRORS, REGIONS, CalibrationBins, CalibrationError, _forecast, calibration_bins, region_mask


def rows_of(probs, labels, where, classwise):
    """(confidence, came true) of the pixels of a mask: one list for the predicted class, or one a class."""
    if classwise:
        return [(probs[:, k][where].tolist(), (labels == k)[where].tolist()) for k in range(probs.shape[1])]
    top, predicted = probs.max(dim=1)
    return [(top[where].tolist(), (predicted == labels)[where].tolist())]


def errors_by_loop(confidence, correct, n_bins):
    members = [[] for _ in range(n_bins)]
    for p, c in zip(confidence, correct, strict=True):
        members[oracles.bin_of(p, n_bins)].append((p, c))
    found = [(len(m), np.mean([p for p, _ in m]), np.mean([c for _, c in m])) for m in members if m]
    total = sum(n for n, _, _ in found)
    several = [(n, (p - a) ** 2 - a * (1 - a) / (n - 1)) for n, p, a in found if n > 1]
    return {
        "expected": sum(n * abs(p - a) for n, p, a in found) / total,
        "overconfidence": sum(n * (p - a) for n, p, a in found if p > a) / total,
        "underconfidence": sum(n * (a - p) for n, p, a in found if a > p) / total,
        "average": sum(abs(p - a) for _, p, a in found) / len(found),
        "maximum": max(abs(p - a) for _, p, a in found),
        "rms": math.sqrt(sum(n * (p - a) ** 2 for n, p, a in found) / total),
        "debiased": math.sqrt(max(0, sum(n * s for n, s in several) / sum(n for n, _ in several))),
    }


# Against the loop


@pytest.mark.parametrize("n_bins", [1, 7, 15, 33, 100])
@pytest.mark.parametrize("classwise", [False, True])
@pytest.mark.parametrize("region", REGIONS)
def test_every_error_matches_the_loop(region, classwise, n_bins):
    probs, labels = forecast()
    where = torch.as_tensor(oracles.region(probs.numpy(), labels.numpy(), region))
    slow = [errors_by_loop(*row, n_bins) for row in rows_of(probs, labels, where, classwise)]
    bins = calibration_bins(probs, labels, n_bins=n_bins, classwise=classwise)[region]
    assert set(ERRORS) == set(slow[0])
    for error in ERRORS:
        by_row = [row[error] for row in slow]
        assert getattr(bins, error).flatten().tolist() == pytest.approx(by_row, abs=1e-12)
        metric = CalibrationError(error=error, region=region, classwise=classwise, n_bins=n_bins)
        metric.update(probs, labels)
        assert metric.compute() == pytest.approx(np.mean(by_row), abs=1e-12)


@pytest.mark.parametrize("n_bins", [1, 31, 32, 33, 100, 1000])
def test_the_two_ways_to_number_bins_agree_on_every_edge_and_beside_it(n_bins):
    edges = torch.tensor([k / n_bins for k in range(n_bins + 1)], dtype=torch.float64)
    p = torch.cat([edges, edges.nextafter(torch.tensor(2.0)).clamp(max=1), edges.nextafter(torch.tensor(-1.0)).abs()])
    bins = calibration_bins(p.view(1, 1, -1, 1).repeat(1, 2, 1, 1), torch.zeros(1, len(p), 1).long(), n_bins=n_bins)
    count = [0] * n_bins
    for value in p.tolist():
        count[next(b for b in range(n_bins) if value <= (b + 1) / n_bins)] += 1
    assert bins["all"].count.tolist() == count


@light
@given(seed=st.integers(0, 999), n_bins=st.sampled_from([1, 5, 15]), classwise=st.booleans())
def test_the_two_parts_add_up_and_the_errors_are_in_order(seed, n_bins, classwise):
    bins = calibration_bins(*forecast(seed=seed), n_bins=n_bins, classwise=classwise)["all"]
    torch.testing.assert_close(bins.overconfidence + bins.underconfidence, bins.expected, rtol=0, atol=1e-14)
    for low, high in [(0, bins.expected), (bins.expected, bins.rms), (bins.rms, bins.maximum), (bins.maximum, 1)]:
        assert torch.all(torch.as_tensor(low) <= torch.as_tensor(high) + 1e-14)
    assert torch.all(bins.average <= bins.maximum + 1e-14)
    assert torch.all(bins.debiased <= bins.rms + 1e-14)


def test_parts_tell_too_sure_from_too_shy():
    sure, shy = (calibration_bins(*two_classes([0.9, 0.9], labels))["all"] for labels in ([0, 0], [1, 1]))
    assert (sure.overconfidence, sure.underconfidence) == (pytest.approx(0.9), 0)
    assert (shy.overconfidence, shy.underconfidence) == (0, pytest.approx(0.1))


def test_maximum_and_average_by_hand():
    bins = calibration_bins(*two_classes([0.9] * 8 + [0.6, 0.6], [1] * 8 + [0, 1]), n_bins=10)["all"]
    assert bins.maximum.item() == pytest.approx(0.1)
    assert bins.average.item() == pytest.approx((0.1 + 0.1) / 2)
    bins = calibration_bins(*two_classes([0.9] * 8 + [0.6, 0.6], [1] * 8 + [0, 0]), n_bins=10)["all"]
    assert (bins.maximum.item(), bins.average.item()) == (pytest.approx(0.6), pytest.approx(0.35))
    assert bins.expected.item() == pytest.approx((8 * 0.1 + 2 * 0.6) / 10)


def test_marginal_reliability_of_each_class():
    probs, labels = forecast(num_classes=3)
    bins = calibration_bins(probs, labels, n_bins=4, classwise=True, regions=["all"])["all"]
    assert bins.count.shape == bins.accuracy.shape == (3, 4)
    for k in range(3):
        for b in range(4):
            inside = (labels != IGNORE) & (probs[:, k] > b / 4) & (probs[:, k] <= (b + 1) / 4)
            assert bins.count[k, b] == inside.sum()
            if inside.any():
                assert bins.confidence[k, b].item() == pytest.approx(probs[:, k][inside].mean().item())
                assert bins.accuracy[k, b].item() == pytest.approx((labels[inside] == k).double().mean().item())
            else:
                assert bins.accuracy[k, b].isnan()


# Debiased


def simulated(p, says, pixels, runs):
    """Bins of `runs` forecasts that say `says` where the truth is `p`, each value in a bin of its own."""
    right = torch.as_tensor(np.random.default_rng(0).binomial(pixels, p, (runs, len(p))))
    n_bins = 10
    cells = torch.tensor([math.ceil(s * n_bins - 1e-9) for s in says])
    counts = torch.zeros(runs, 2, n_bins + 1, dtype=torch.int64)
    counts[:, 1, cells], counts[:, 0, cells] = right, pixels - right
    confidences = torch.zeros_like(counts, dtype=torch.float64)
    confidences[:, :, cells] = counts[:, :, cells] * torch.tensor(says, dtype=torch.float64)
    return CalibrationBins(counts, confidences)


@pytest.mark.parametrize("pixels", [50, 400])
def test_debiased_square_has_the_right_mean_where_plain_has_not(pixels):
    p = np.array([0.45, 0.55, 0.65, 0.75])
    bins = simulated(p, says=(p + 0.2).round(2).tolist(), pixels=pixels, runs=20_000)
    chance = (p * (1 - p)).mean() / pixels
    assert bins.rms.square().mean().item() == pytest.approx(0.04 + chance, abs=chance / 8)
    assert bins.debiased.square().mean().item() == pytest.approx(0.04, abs=chance / 8)


def test_calibrated_forecast_is_debiased_to_nothing_half_of_the_time():
    p = np.linspace(0.05, 0.95, 10).round(2)
    bins = simulated(p, says=p.tolist(), pixels=100, runs=4000)
    assert (bins.rms > 0.01).double().mean() > 0.99
    assert 0.45 < (bins.debiased == 0).double().mean() < 0.65


def test_bin_of_one_pixel_is_left_out_of_the_debiased_error():
    alone, together = [0.95], [0.6] * 4
    bins = calibration_bins(*two_classes(alone + together, [0, 1, 1, 1, 0]), n_bins=10)["all"]
    assert bins.debiased.item() == 0  # (.75 - .6)^2 < .75 * .25 / 3
    assert bins.rms.item() > 0.4
    assert calibration_bins(*two_classes(alone, [0]))["all"].debiased.isnan()


# Regions, by hand

PREDICTED = """
00000000
00000000
00011000
00000000
00000000
00000000
"""
LABELS = """
00000000
00100000
00-11000
00000000
00000000
00000002
"""
BORDER = """
01111110
01111110
01-11110
01111110
01111110
00000000
"""


def drawn(picture):
    return torch.tensor([[IGNORE if c == "-" else int(c) for c in line] for line in picture.split()])


def hand_drawn(depth=None):
    """Probabilities and labels of the pictures, in 2D, or as the middle plane of a volume of background."""
    predicted, labels = drawn(PREDICTED), drawn(LABELS)
    if depth:
        whole = torch.zeros(depth, *predicted.shape, dtype=torch.long)
        predicted, labels = (whole.index_copy(0, torch.tensor([depth // 2]), x[None]) for x in (predicted, labels))
    probs = torch.nn.functional.one_hot(predicted, 3).movedim(-1, 0).double() * 0.7 + 0.1
    return probs[None], labels[None]


def test_regions_of_a_drawn_image():
    probs, labels = hand_drawn()
    valid = drawn(LABELS) != IGNORE
    wanted = {
        "all": valid,
        "predicted_foreground": (drawn(PREDICTED) > 0) & valid,
        "predicted_border": (drawn(BORDER) == 1) & valid,
        "true_foreground": drawn(LABELS) > 0,
    }
    bins = calibration_bins(probs, labels)
    for region in REGIONS:
        assert torch.equal(region_mask(probs, labels, region)[0], wanted[region])
        assert torch.equal(region_mask(probs.log(), labels, region, from_logits=True)[0], wanted[region])
        assert bins[region].total.item() == wanted[region].sum().item()


def test_regions_of_a_drawn_volume():
    probs, labels = hand_drawn(depth=7)
    valid, border = labels[0] != IGNORE, torch.zeros_like(labels[0], dtype=torch.bool)
    border[1:6] = drawn(BORDER) != 0  # two planes on either side
    assert torch.equal(region_mask(probs, labels, "predicted_border")[0], border & valid)
    assert region_mask(probs, labels, "predicted_foreground").sum() == 2
    assert region_mask(probs, labels, "true_foreground").sum() == 4
    assert region_mask(probs, labels).sum() == labels.numel() - 1


def test_slices_of_a_volume_have_no_neighbours_when_they_come_as_images():
    probs, labels = hand_drawn(depth=7)
    planes = region_mask(probs[0].movedim(1, 0), labels[0], "predicted_border")
    assert planes.flatten(1).any(dim=1).tolist() == [False] * 3 + [True] + [False] * 3


def test_first_of_equal_probabilities_is_predicted():
    probs = torch.full((1, 4, 2, 2), 0.25)
    assert not region_mask(probs, torch.zeros(1, 2, 2).long(), "predicted_foreground").any()
    assert calibration_bins(probs, torch.zeros(1, 2, 2).long())["all"].accuracy.nansum() == 1


@pytest.mark.parametrize("shape", [(0, 5, 6), (2, 0, 6), (0, 3, 3, 3), (1, 0, 2, 2)])
@pytest.mark.parametrize("region", REGIONS)
def test_no_pixel_gives_nan_and_no_complaint(shape, region):
    probs, labels = torch.zeros(shape[0], 3, *shape[1:]), torch.zeros(shape).long()
    assert region_mask(probs, labels, region).shape == shape
    bins = calibration_bins(probs, labels, regions=[region])[region]
    assert bins.total == 0
    assert all(getattr(bins, error).isnan() for error in ERRORS)


# Slabs, many classes


@pytest.mark.parametrize("shape", [(5, 3, 4), (2, 9, 8), (3, 2, 5, 3)])
@pytest.mark.parametrize("size", [1, 7, 24, 30])
@pytest.mark.parametrize("classwise", [False, True])
def test_slabs_change_nothing(monkeypatch, shape, size, classwise):
    probs, labels = forecast(shape)
    options = {"classwise": classwise}
    whole = calibration_bins(probs, labels, **options)
    monkeypatch.setattr(_forecast, "CPU_SLAB", size)
    slabs = calibration_bins(probs, labels, **options)
    logits = calibration_bins(probs.log(), labels, from_logits=True, **options)
    for region in REGIONS:
        assert torch.equal(slabs[region].counts, whole[region].counts)
        assert torch.equal(logits[region].counts, whole[region].counts)
        torch.testing.assert_close(slabs[region].confidences, whole[region].confidences, rtol=0, atol=1e-12)
        torch.testing.assert_close(logits[region].confidences, whole[region].confidences, rtol=0, atol=1e-12)


@pytest.mark.parametrize("num_classes", [2, 8, 9, 150])  # cells in bytes up to 8 classes of 15 bins
@pytest.mark.parametrize("n_bins", [14, 15, 200])
def test_number_of_cells_does_not_matter(num_classes, n_bins):
    probs, labels = forecast((1, 12, 9), num_classes)
    bins = calibration_bins(probs, labels, n_bins=n_bins, classwise=True)["all"]
    valid = labels != IGNORE
    assert torch.equal(bins.total, valid.sum().expand(num_classes))
    by_class = torch.stack([(labels == k).sum() for k in range(num_classes)])
    assert torch.equal(bins.correct_sum.sum(dim=-1), by_class.double())
    sums = torch.stack([probs[:, k][valid].sum() for k in range(num_classes)])
    torch.testing.assert_close(bins.confidence_sum.sum(dim=-1), sums)


def test_sum_of_two_parts_is_the_whole():
    probs, labels = forecast((4, 5, 5))
    whole, *parts = (calibration_bins(probs[s], labels[s])["all"] for s in (slice(4), slice(1), slice(1, 4)))
    assert torch.equal((parts[0] + parts[1]).counts, whole.counts)
    torch.testing.assert_close((parts[0] + parts[1]).confidences, whole.confidences)
    other = calibration_bins(probs, labels, n_bins=10)["all"]
    with pytest.raises(ValueError, match=r"`bins` of one shape, got \(2, 16\) and \(2, 11\)"):
        whole + other


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"regions": ["border"]}, ValueError, "`region` .* got 'border'. Did you mean 'predicted_border'"),
        ({"n_bins": 0}, ValueError, "`n_bins` of at least 1, got 0"),
        ({"classwise": 1}, TypeError, "`classwise` to be True or False, got 1"),
        ({"from_logits": None}, TypeError, "`from_logits` to be True or False, got None"),
        ({"ignore_index": 1.5}, TypeError, "`ignore_index` to be an integer, got 1.5"),
    ],
)
def test_bad_options_are_named(options, error, message):
    with pytest.raises(error, match=message):
        calibration_bins(*forecast(), **options)
