"""What all metrics over batches share: a state of sums that adds over chunks, copies and processes."""

import math

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
    brier_score,
    classwise_calibration_error,
    expected_calibration_error,
    negative_log_likelihood,
)

C = 4
METRICS = {
    "ece": CalibrationError,
    "mce": lambda **o: CalibrationError(error="maximum", **o),
    "classwise": lambda **o: CalibrationError(classwise=True, **o),
    "reference": lambda **o: CalibrationError(classwise=True, convention="reference", **o),
    "adaptive": AdaptiveCalibrationError,
    "tace": lambda **o: AdaptiveCalibrationError(classwise=True, threshold=1e-3, **o),
    "nll": NegativeLogLikelihood,
    "brier": BrierScore,
}
FUNCTIONS = {
    "ece": expected_calibration_error,
    "classwise": classwise_calibration_error,
    "nll": negative_log_likelihood,
    "brier": brier_score,
}
each_metric = pytest.mark.parametrize("name", METRICS)


def filled(metric, *batches):
    for batch in batches:
        metric.update(*batch)
    return metric


def same_states(one, other):
    assert one.sums.keys() == other.sums.keys()
    for key, part in one.sums.items():
        torch.testing.assert_close(part, other.sums[key], rtol=1e-13, atol=1e-13)
        if part.dtype == torch.int64:
            assert torch.equal(part, other.sums[key])


# Chunks, copies, cases


@light
@given(
    name=st.sampled_from(sorted(METRICS)),
    order=st.permutations(range(6)),
    cuts=st.lists(st.integers(0, 6), max_size=3),
    region=st.sampled_from(REGIONS),
    seed=st.integers(0, 999),
)
def test_chunks_in_any_order_and_merged_give_the_state_of_the_whole(name, order, cuts, region, seed):
    probs, labels = forecast((6, 5, 4), C, seed=seed)
    whole = filled(METRICS[name](region=region), (probs, labels))
    parts = list(zip(*(x[order].tensor_split(sorted(cuts)) for x in (probs, labels)), strict=True))  # some are empty
    same_states(filled(METRICS[name](region=region), *parts), whole)
    merged = METRICS[name](region=region)
    for part in parts:
        merged.merge(filled(METRICS[name](region=region), part))
    merged.merge(METRICS[name](region=region))
    same_states(merged, whole)
    assert merged.compute() == pytest.approx(whole.compute(), abs=1e-12, nan_ok=True)


@each_metric
@pytest.mark.parametrize("region", REGIONS)
def test_cases_are_averaged_over_those_with_a_pixel(name, region):
    cases = [forecast((2, 5, 4), C, seed=seed) for seed in range(3)]
    values = [filled(METRICS[name](region=region), case).compute() for case in cases]
    empty = torch.full((1, C, 3, 3), 1 / C), torch.full((1, 3, 3), IGNORE)
    error = filled(METRICS[name](region=region, aggregation="cases"), cases[0], empty, *cases[1:])
    assert error.compute() == pytest.approx(np.mean(values), abs=1e-12)
    assert error.sums["cases"].item() == 3
    other = filled(METRICS[name](region=region, aggregation="cases"), *cases)
    other.merge(error)
    assert other.compute() == pytest.approx(np.mean(values), abs=1e-12)
    assert math.isnan(filled(METRICS[name](region=region, aggregation="cases"), empty).compute())


@each_metric
def test_merging_leaves_the_other_alone_and_counts_past_what_a_float_holds(name):
    data = forecast((2, 5, 4), C)
    one, other = (filled(METRICS[name](), data) for _ in range(2))
    empty = METRICS[name]()
    for metric in (one, empty):
        metric.merge(other)
        metric.update(*data)
        same_states(other, filled(METRICS[name](), data))
    before = other.compute(), {key: part.clone() for key, part in other.sums.items()}
    for _ in range(40):
        other.merge(other)
    for key, part in other.sums.items():
        assert torch.equal(part, before[1][key] * 2**40)
    assert other.compute() == before[0]


@each_metric
def test_state_is_small_and_does_not_grow(name):
    error = METRICS[name]()
    shapes = []
    for seed in range(3):
        error.update(*forecast((seed + 1, 9, 7 + seed), C, seed=seed))
        shapes.append({key: (part.shape, part.dtype) for key, part in error.sums.items()})
    assert shapes[0] == shapes[1] == shapes[2]
    assert {dtype for _, dtype in shapes[0].values()} <= {torch.int64, torch.float64}
    rows = C if name in ("classwise", "reference", "tace", "brier") else 1
    assert sum(part.numel() for part in error.sums.values()) <= rows * 4 * (24_578 if "a" in name[:2] else 16) + 1


@each_metric
def test_reset_forgets_all_but_the_settings(name):
    error = filled(METRICS[name](), forecast((1, 4, 4), C))
    error.reset()
    assert error.sums is None
    with pytest.raises(RuntimeError, match="Expected `update` before `compute`, got no data"):
        error.compute()
    data = forecast((1, 4, 4), 3, seed=1)  # another number of classes may follow
    same_states(filled(error, data), filled(METRICS[name](), data))


# Input


@each_metric
@pytest.mark.parametrize("region", REGIONS)
@pytest.mark.parametrize("shape", [(2, 5, 6), (2, 3, 4, 5)])
def test_logits_give_what_their_softmax_gives(name, region, shape):
    probs, labels = forecast(shape, C)
    logits = probs.log() + torch.as_tensor(np.random.default_rng(0).normal(0, 50, (shape[0], 1, *shape[1:])))
    found = filled(METRICS[name](region=region, from_logits=True), (logits, labels)).compute()
    assert found == pytest.approx(filled(METRICS[name](region=region), (probs, labels)).compute(), abs=1e-9)
    if name in FUNCTIONS:
        assert FUNCTIONS[name](logits, labels, region=region, from_logits=True) == found


@each_metric
@pytest.mark.parametrize("region", ["all", "predicted_foreground", "true_foreground"])  # a border has other neighbours
def test_volumes_are_read_as_images_of_the_same_pixels(name, region):
    probs, labels = forecast((2, 3, 4, 5), C)
    flat = probs.reshape(2, C, 12, 5), labels.reshape(2, 12, 5)
    whole = filled(METRICS[name](region=region), (probs, labels))
    same_states(filled(METRICS[name](region=region), flat), whole)


@each_metric
@pytest.mark.parametrize("ignore_index", [255, -1, 2])
def test_ignored_pixels_do_not_count_whatever_their_label(name, ignore_index):
    probs, labels = forecast((1, 30, 1), C)
    valid = (labels != IGNORE)[0, :, 0]
    kept = probs[:, :, valid], labels[:, valid]
    if ignore_index == 2:
        kept = kept[0][:, :, (kept[1] != 2)[0, :, 0]], kept[1][:, (kept[1] != 2)[0, :, 0]]
    marked = torch.where(labels == IGNORE, ignore_index, labels)
    marked = marked.to(torch.uint8) if ignore_index == 255 else marked
    same_states(filled(METRICS[name](ignore_index=ignore_index), (probs, marked)), filled(METRICS[name](), kept))


@each_metric
@pytest.mark.parametrize("from_logits", [False, True])
@pytest.mark.parametrize("region", REGIONS)
def test_layout_and_gradients_do_not_matter_and_input_is_left_alone(name, from_logits, region):
    probs, labels = forecast((2, 6, 5), C)
    probs = probs.log() if from_logits else probs
    whole = filled(METRICS[name](region=region, from_logits=from_logits), (probs, labels))
    wide = torch.full((2, C, 12, 5), 0.5, dtype=torch.float64)
    wide[:, :, ::2] = probs
    for other, target in [
        (probs.contiguous(memory_format=torch.channels_last), labels),
        (probs.movedim(1, -1).contiguous().movedim(-1, 1), labels.mT.contiguous().mT),
        (wide[:, :, ::2], labels),
        (probs.clone().requires_grad_(), labels),
    ]:
        before = other.detach().clone(), target.clone()
        found = filled(METRICS[name](region=region, from_logits=from_logits), (other, target))
        same_states(found, whole)
        assert not any(part.requires_grad for part in found.sums.values())
        assert torch.equal(other.detach(), before[0])
        assert torch.equal(target, before[1])


@each_metric
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("from_logits", [False, True])
def test_halves_are_read_as_the_float32_that_they_are(name, dtype, from_logits):
    probs, labels = forecast((2, 6, 5), C)
    probs = (probs.log() if from_logits else probs).to(dtype)
    halves, floats = (filled(METRICS[name](from_logits=from_logits), (x, labels)) for x in (probs, probs.float()))
    same_states(halves, floats)


@pytest.mark.parametrize("scale", [1e4, 1e37])
def test_huge_logits_are_certain(scale):
    logits = torch.tensor([[0.0, 1.0], [1.0, 0.0]]).view(1, 2, 1, 2) * scale
    labels = torch.tensor([[[1, 1]]])
    options = {"from_logits": True}
    assert expected_calibration_error(logits, labels, **options) == 0.5
    assert brier_score(logits, labels, **options) == 1
    assert adaptive_calibration_error(logits, labels, n_bins=1, **options) == 0.5
    assert negative_log_likelihood(logits, labels, **options) == pytest.approx(scale / 2)


@pytest.mark.parametrize("from_logits", [False, True])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@each_metric
def test_what_is_not_finite_is_refused_by_name(name, value, from_logits):
    probs, labels = forecast((1, 3, 3), C)
    probs[0, 1, 2, 2] = value
    message = "`logits` to be finite, got NaN or an infinite value" if from_logits else r"`probs` values in \[0, 1\]"
    with pytest.raises(ValueError, match=message):
        METRICS[name](from_logits=from_logits).update(probs, labels)


# Accuracy


def test_twenty_million_pixels_of_one_bin_are_counted_and_summed():
    p = torch.tensor(0.7)
    probs = torch.stack([1 - p, p]).view(1, 2, 1, 1).expand(1, 2, 2000, 2500)
    labels = torch.ones(1, 1, 1, dtype=torch.int16).expand(1, 2000, 2500)
    error = CalibrationError()
    for _ in range(4):  # 2^24 is 16.8 million
        error.update(probs, labels)
    assert error.bins.total.item() == 20_000_000
    assert error.compute() == pytest.approx(1 - p.double().item(), abs=1e-10)


@each_metric
def test_float32_forecast_is_summed_as_in_float64(name):
    probs, labels = forecast((1, 500, 600), C, holes=0)
    probs = probs.float()
    found, wanted = (filled(METRICS[name](), (x, labels)).compute() for x in (probs, probs.double()))
    # probabilities of float32 differ from those of float64 by what their logarithms and squares round
    assert found == pytest.approx(wanted, abs=1e-8)


# Refusals


@each_metric
def test_changed_number_of_classes_is_refused_also_after_a_merge(name):
    error = METRICS[name]()
    error.merge(filled(METRICS[name](), forecast((1, 3, 3), C)))
    with pytest.raises(ValueError, match="`probs` with 4 classes, got 3"):
        error.update(*forecast((1, 3, 3), 3))
    with pytest.raises(ValueError, match="`other` with 4 classes, got 3"):
        error.merge(filled(METRICS[name](), forecast((1, 3, 3), 3)))
    with pytest.raises(ValueError, match="`probs` with 5 classes, got 4"):
        METRICS[name](num_classes=5).update(*forecast((1, 3, 3), C))


@each_metric
def test_merge_refuses_what_measures_something_else(name):
    error, kind = METRICS[name](), "NegativeLogLikelihood" if name == "brier" else "BrierScore"
    with pytest.raises(ValueError, match="`other` with region='all', got 'true_foreground'"):
        error.merge(METRICS[name](region="true_foreground"))
    with pytest.raises(ValueError, match="`other` with aggregation='pooled', got 'cases'"):
        error.merge(METRICS[name](aggregation="cases"))
    with pytest.raises(TypeError, match=f"`other` to be a .*, got {kind}"):
        error.merge(NegativeLogLikelihood() if name == "brier" else BrierScore())
    error.merge(METRICS[name](num_classes=C))


@each_metric
@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"region": "bordr"}, ValueError, "`region` to be one of .* got 'bordr'"),
        ({"aggregation": "case"}, ValueError, "`aggregation` .* got 'case'. Did you mean 'cases'"),
        ({"num_classes": 1}, ValueError, "`num_classes` of at least 2, got 1"),
        ({"num_classes": 2.0}, TypeError, "`num_classes` to be an integer, got 2.0"),
        ({"from_logits": 1}, TypeError, "`from_logits` to be True or False, got 1"),
        ({"ignore_index": "x"}, TypeError, "`ignore_index` to be an integer, got 'x'"),
    ],
)
def test_bad_options_are_named(name, options, error, message):
    with pytest.raises(error, match=message):
        METRICS[name](**options)


def test_parts_and_bins_need_pooled_pixels():
    for error, part in ((CalibrationError, "bins"), (BrierScore, "parts")):
        with pytest.raises(RuntimeError, match=f"before `{part}`, got no data"):
            getattr(error(), part)
        with pytest.raises(RuntimeError, match=f"before `{part}`, got an aggregation by cases"):
            getattr(filled(error(aggregation="cases"), forecast()), part)


# Nothing yet


def test_reduce_needs_a_shape():
    with pytest.raises(ValueError, match=r"`num_classes` to be known before the first update, got None\. Pass num_cl"):
        CalibrationError().reduce()


def test_known_number_of_classes_makes_an_empty_state():
    for make in METRICS.values():
        for region in REGIONS:
            empty = make(num_classes=2, region=region).empty_sums()
            data = two_classes([0.5], [1])
            for key, part in filled(make(region=region), data).sums.items():
                assert (empty[key].shape, empty[key].dtype) == (part.shape, part.dtype)
                assert not empty[key].any()
