"""The metrics as torchmetrics, and against others' numbers: the authors', torchmetrics' and MONAI's."""

import pickle
from copy import deepcopy
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from oracles import IGNORE, forecast, light, two_classes

from nacl.metrics import (
    REGIONS,
    AdaptiveCalibrationError,
    BrierScore,
    CalibrationError,
    NegativeLogLikelihood,
    adaptive_calibration_error,
    classwise_calibration_error,
)

torchmetrics = pytest.importorskip("torchmetrics")
from nacl.torchmetrics import Streamed  # noqa: E402

C = 4
METRICS = {
    "ece": CalibrationError,
    "mce": lambda **o: CalibrationError(error="maximum", **o),
    "classwise": lambda **o: CalibrationError(classwise=True, **o),
    "adaptive": AdaptiveCalibrationError,
    "nll": NegativeLogLikelihood,
    "brier": BrierScore,
}
each_metric = pytest.mark.parametrize("name", METRICS)


def streamed(name="ece", **options):
    return Streamed(METRICS[name](num_classes=C, **options))


def alone(name, batches, **options):
    metric = METRICS[name](**options)
    for batch in batches:
        metric.update(*batch)
    return metric.compute()


def batches(count=3):
    return [forecast((2, 6, 5), C, seed=seed) for seed in range(count)]


def states(metric):
    return [getattr(metric, name) for name in metric.state_of.values()]


# The authors' way, in float32, one case at a time


def inside(values, low, high):
    return values.gt(low) & values.le(high)


def authors_error(confidence, correct, edges):
    total = torch.zeros(1)
    for low, high in pairwise(edges):
        members = inside(confidence, low.item(), high.item())
        share = members.float().mean()
        if share > 0:
            total += (confidence[members].mean() - correct[members].float().mean()).abs() * share
    return total.item()


def authors_numbers(probs, labels):
    """(ECE, classwise ECE, adaptive ECE) over the pixels of one case whose label is not 0."""
    edges = torch.linspace(0, 1, 16)
    chosen = labels != 0
    probs, labels = probs.movedim(1, -1)[chosen], labels[chosen]
    top, predicted = probs.max(dim=1)
    by_class = [authors_error(probs[:, k], labels == k, edges) for k in range(int(labels.max()) + 1)]
    n = len(top)
    quantiles = np.interp(np.linspace(0, n, 16), np.arange(n), np.sort(top.numpy()))
    adaptive = authors_error(top, predicted == labels, quantiles)
    return authors_error(top, predicted == labels, edges), np.mean(by_class), adaptive


@pytest.mark.parametrize("largest", [1, 2, 3])
@pytest.mark.parametrize("shape", [(2, 40, 30), (1, 6, 20, 15)])
def test_reference_convention_gives_the_authors_numbers(largest, shape):
    cases = []
    for seed in range(3):
        probs, labels = forecast(shape, C, seed=seed, holes=0)
        cases.append((probs.float(), labels.clamp(max=largest)))
    wanted = np.mean([authors_numbers(*case) for case in cases], axis=0)
    options = {"region": "true_foreground", "aggregation": "cases", "convention": "reference"}
    assert alone("ece", cases, **options) == pytest.approx(wanted[0], abs=1e-6)
    assert alone("classwise", cases, **options) == pytest.approx(wanted[1], abs=1e-6)
    options = {"region": "true_foreground", "convention": "reference"}
    adaptive = [adaptive_calibration_error(*case, **options) for case in cases]
    assert np.mean(adaptive) == pytest.approx(wanted[2], abs=1e-6)
    classwise = [classwise_calibration_error(*case, **options) for case in cases]
    assert np.mean(classwise) == pytest.approx(wanted[1], abs=1e-6)


@light
@given(seed=st.integers(0, 999), pixels=st.integers(1, 60))
def test_authors_adaptive_error_of_few_and_of_equal_confidences(seed, pixels):
    rng = np.random.default_rng(seed)
    p = rng.choice(np.concatenate([rng.random(5), [0.5, 1.0]]), pixels).astype(np.float32)
    probs, labels = two_classes(p, np.ones(pixels), dtype=torch.float32)
    found = adaptive_calibration_error(probs, labels, region="true_foreground", convention="reference")
    assert found == pytest.approx(authors_numbers(probs, labels)[2], abs=1e-6)


# Peers


@light
@given(seed=st.integers(0, 999), n_bins=st.sampled_from([5, 15, 20]))
def test_torchmetrics_agrees_away_from_edges(seed, n_bins):
    probs, labels = forecast((2, 8, 7), C, seed=seed)
    options = {"num_classes": C, "n_bins": n_bins, "ignore_index": IGNORE}
    for norm, error in (("l1", "expected"), ("l2", "rms"), ("max", "maximum")):
        peer = torchmetrics.classification.MulticlassCalibrationError(norm=norm, **options)
        peer.update(probs, labels)
        ours = CalibrationError(n_bins=n_bins, error=error)
        ours.update(probs, labels)
        assert ours.compute() == pytest.approx(peer.compute().item(), abs=2e-6)


@pytest.mark.parametrize("error", ["expected", "average", "maximum"])
def test_monai_agrees_away_from_edges(error):
    monai = pytest.importorskip("monai.metrics")
    if not hasattr(monai, "CalibrationErrorMetric"):
        pytest.skip("this MONAI has no CalibrationErrorMetric")
    probs, labels = forecast((1, 30, 20), C, holes=0)
    one_hot = torch.nn.functional.one_hot(labels, C).movedim(-1, 1)
    peer = monai.CalibrationErrorMetric(num_bins=15, include_background=True, calibration_reduction=error)
    peer(y_pred=probs.float(), y=one_hot)
    ours = CalibrationError(classwise=True, error=error)
    ours.update(probs.float(), labels)
    assert ours.compute() == pytest.approx(peer.aggregate().mean().item(), abs=1e-5)


# The protocol of torchmetrics


@each_metric
@pytest.mark.parametrize("region", REGIONS)
def test_streamed_metric_gives_the_metrics_number(name, region):
    metric = streamed(name, region=region)
    for batch in batches():
        metric.update(*batch)
    assert metric.compute().dtype == torch.float32
    assert metric.compute().item() == pytest.approx(alone(name, batches(), region=region), rel=1e-6)
    metric.reset()
    assert not any(part.any() for part in states(metric))
    metric.update(*batches()[0])
    assert metric.compute().item() == pytest.approx(alone(name, batches(1), region=region), rel=1e-6)


@each_metric
@pytest.mark.parametrize("aggregation", ["pooled", "cases"])
def test_forward_gives_the_batchs_number_and_keeps_the_sum(name, aggregation):
    metric = streamed(name, aggregation=aggregation)
    for batch in batches():
        assert metric(*batch).item() == pytest.approx(alone(name, [batch]), rel=1e-6)
    assert metric.compute().item() == pytest.approx(alone(name, batches(), aggregation=aggregation), rel=1e-6)


@each_metric
def test_copies_and_pickles_go_on_from_where_they_were(name):
    metric = streamed(name)
    metric.update(*batches()[0])
    for other in (deepcopy(metric), pickle.loads(pickle.dumps(metric)), metric.clone()):
        for batch in batches()[1:]:
            other.update(*batch)
        assert other.compute().item() == pytest.approx(alone(name, batches()), rel=1e-6)
    assert metric.compute().item() == pytest.approx(alone(name, batches(1)), rel=1e-6)


@each_metric
@pytest.mark.parametrize(
    "cast",
    [
        lambda m: m.half(),
        lambda m: m.float(),
        lambda m: m.to(torch.bfloat16),
        lambda m: m.to(torch.float16),
        lambda m: m.set_dtype(torch.float32),
        lambda m: torch.nn.ModuleList([m]).to("cpu", torch.float16)[0],
    ],
)
def test_casts_leave_the_dtypes_and_the_sums(name, cast):
    metric = streamed(name)
    metric.update(*batches()[0])
    before = [part.clone() for part in states(metric)]
    metric = cast(metric)
    for part, old in zip(states(metric), before, strict=True):
        assert part.dtype == old.dtype
        assert part.dtype in (torch.int64, torch.float64)
        assert torch.equal(part, old)
    metric.reset()
    assert {part.dtype for part in states(metric)} == {part.dtype for part in before}


def test_states_move_with_the_module():
    metric = streamed().to("meta")
    assert {part.device.type for part in states(metric)} == {"meta"}


def test_collection_gives_each_metric_its_own_number_though_the_first_batch_does_not_tell_them_apart():
    metrics = {region: {"region": region} for region in REGIONS} | {
        "cases": {"aggregation": "cases"},
        "other": {"aggregation": "cases", "region": "true_foreground"},
        "maximum": {"name": "mce"},
        "brier": {"name": "brier"},
    }
    collection = torchmetrics.MetricCollection({key: streamed(**options) for key, options in metrics.items()})
    probs, labels = two_classes([0.9, 0.8], [1, 1])  # all foreground, predicted and true
    padded = torch.cat([torch.zeros(1, 2, 2, 1, dtype=torch.float64), probs], dim=1), labels + 2
    for data in [padded, *batches()]:
        collection.update(*data)
    found = collection.compute()
    assert found.keys() == metrics.keys()
    for key, options in metrics.items():
        name = options.get("name", "ece")
        wanted = alone(name, [padded, *batches()], **{k: v for k, v in options.items() if k != "name"})
        assert found[key].item() == pytest.approx(wanted, rel=1e-6), key


def test_collection_shares_the_state_of_equal_metrics():
    collection = torchmetrics.MetricCollection({"a": streamed(), "b": streamed()})
    collection.update(*batches()[0])
    assert list(collection.compute_groups.values()) == [["a", "b"]]


def test_unknown_number_of_classes_and_a_changed_one_are_refused():
    with pytest.raises(ValueError, match="`num_classes` to be known before the first update, got None"):
        Streamed(CalibrationError())
    with pytest.raises(ValueError, match="`probs` with 4 classes, got 3"):
        streamed().update(*forecast((1, 3, 3), 3))
