"""Scalings after training: optima by hand and by other optimisers, edges of the likelihood, and where they apply."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from oracles import IGNORE, light, log_softmax
from scipy.optimize import brentq, minimize, minimize_scalar
from torch import nn

import nacl._likelihood as likelihood
from nacl.scaling import SCALINGS, TemperatureScaling, VectorScaling


def drawn(logits, temperature, seed):
    """Labels from softmax(l / T)."""
    probs = (logits / temperature).softmax(dim=1).numpy()
    u = np.random.default_rng(seed).random((len(probs), 1, *probs.shape[2:]))
    return torch.as_tensor((probs.cumsum(axis=1) < u).sum(axis=1).clip(max=probs.shape[1] - 1))


def volume(seed=0, shape=(3, 7, 5), num_classes=3, temperature=2.5, spread=4.0, dtype=torch.float64):
    rng = np.random.default_rng(seed)
    logits = torch.as_tensor(spread * rng.standard_normal((shape[0], num_classes, *shape[1:]))).to(dtype)
    return logits, drawn(logits.double(), temperature, seed + 1)


def pixels(batches):
    """Logits (n, C) and labels (n,) of all valid pixels, as numpy's."""
    logits = np.concatenate([x.double().movedim(1, -1).reshape(-1, x.shape[1]).numpy() for x, _ in batches])
    target = np.concatenate([y.flatten().numpy() for _, y in batches])
    return logits[target != IGNORE], target[target != IGNORE]


def mean_nll(logits, target):
    return -np.mean([log_softmax(row)[k] for row, k in zip(logits, target, strict=True)])


def slope(b, logits, target):
    """Derivative of the sum of -log softmax(b l)_y in b, and the sum of its terms' sizes."""
    terms = [np.exp(log_softmax(b * row)) @ row - row[k] for row, k in zip(logits, target, strict=True)]
    return sum(terms), sum(map(abs, terms))


# One temperature


def two_classes(right, wrong, margin=4.0):
    logits = torch.tensor([margin, 0.0]).view(1, 2, 1, 1).expand(1, 2, 1, right + wrong)
    return logits, torch.tensor([0] * right + [1] * wrong).view(1, 1, -1)


@pytest.mark.parametrize(("right", "wrong"), [(3, 1), (9, 1), (99, 1), (51, 49)])
def test_one_margin_gives_the_odds(right, wrong):
    scaling = TemperatureScaling().fit([two_classes(right, wrong)])
    assert scaling.state()["temperature"] == pytest.approx(4 / math.log(right / wrong), rel=1e-12)
    share = right / (right + wrong)
    entropy = -share * math.log(share) - (1 - share) * math.log(1 - share)
    assert scaling.last_fit.nll == pytest.approx(entropy, rel=1e-12)
    assert scaling.last_fit.converged
    assert scaling.last_fit.pixels == right + wrong


def test_the_temperature_that_drew_the_labels_is_found():
    batch = volume(shape=(4, 100, 100), num_classes=2, temperature=2.5)
    logits, _ = pixels([batch])
    difference = logits[:, 0] - logits[:, 1]
    p = 1 / (1 + np.exp(-difference / 2.5))
    error = 1 / math.sqrt(np.sum(p * (1 - p) * difference**2))  # of b, from the Fisher information
    inverse = 1 / TemperatureScaling().fit([batch]).state()["temperature"]
    assert abs(inverse - 0.4) < 4 * error
    assert error < 0.005


@light
@given(seed=st.integers(0, 999), temperature=st.floats(0.3, 8), spread=st.floats(0.5, 20))
def test_the_temperature_is_that_of_other_optimisers(seed, temperature, spread):
    batches = [
        volume(seed, (3, 7, 5), temperature=temperature * spread / 4, spread=spread),
        volume(seed + 1, (1, 9, 6)),
    ]
    scaling = TemperatureScaling().fit(batches)
    logits, target = pixels(batches)
    found = 1 / scaling.state()["temperature"]
    assert found == pytest.approx(brentq(lambda b: slope(b, logits, target)[0], 1e-3, 1e3, xtol=1e-14), rel=1e-9)
    value, size = slope(found, logits, target)
    assert abs(value) < 1e-11 * size
    assert scaling.last_fit.nll == pytest.approx(mean_nll(found * logits, target), rel=1e-12)


def test_the_temperature_is_that_of_minimize_scalar():
    batch = volume(shape=(1, 8, 8))
    logits, target = pixels([batch])
    other = minimize_scalar(lambda b: mean_nll(b * logits, target), bracket=(0.1, 1.0), tol=1e-12).x
    # A minimum of values is known to the root of the rounding only.
    assert 1 / TemperatureScaling().fit([batch]).state()["temperature"] == pytest.approx(other, rel=1e-7)


@pytest.mark.parametrize("scale", [1e-2, 0.3, 1, 10, 300])
def test_scaled_logits_scale_the_temperature(scale):
    logits, target = volume()
    one, other = (TemperatureScaling().fit([(k * logits, target)]) for k in (1, scale))
    assert other.state()["temperature"] == pytest.approx(scale * one.state()["temperature"], rel=1e-10)
    assert other.last_fit.nll == pytest.approx(one.last_fit.nll, rel=1e-10)


def test_few_passes_are_enough():
    assert all(TemperatureScaling().fit([volume(temperature=t)]).last_fit.passes <= 10 for t in (0.5, 1, 2.5, 8))


@pytest.mark.parametrize("slab", [1, 7, 40, 2**17])
@pytest.mark.parametrize("name", ["temperature", "vector"])
def test_the_size_of_slabs_and_batches_does_not_matter(name, slab, monkeypatch):
    logits, target = volume(shape=(5, 7, 6))
    target[:, :2, 1] = IGNORE
    whole = SCALINGS[name](3).fit([(logits, target)])
    monkeypatch.setattr(likelihood, "SLAB", slab)
    parts = SCALINGS[name](3).fit([(logits[:1], target[:1]), (logits[1:], target[1:])])
    for key, value in whole.state().items():
        assert torch.allclose(torch.as_tensor(parts.state()[key]), torch.as_tensor(value), rtol=1e-11, atol=1e-11)
    assert parts.last_fit.pixels == whole.last_fit.pixels == (target != IGNORE).sum()


@pytest.mark.parametrize("name", ["temperature", "vector"])
def test_slices_and_volumes_and_any_memory_format(name):
    logits, target = volume(shape=(4, 6, 5))
    volumes = [(logits.movedim(0, 1)[None], target[None])]
    last = [(logits.to(memory_format=torch.channels_last), target.to(torch.uint8))]
    states = [SCALINGS[name](3).fit(b).state() for b in ([(logits, target)], volumes, last)]
    for state in states[1:]:
        assert all(torch.allclose(torch.as_tensor(state[k]), torch.as_tensor(states[0][k])) for k in state)


@pytest.mark.parametrize("name", ["temperature", "vector"])
def test_ignored_pixels_do_not_count_whatever_they_hold(name):
    logits, target = volume(shape=(2, 6, 5))
    expected = SCALINGS[name](3).fit([(logits[..., :3], target[..., :3])])
    logits[..., 3], logits[..., 4] = math.nan, math.inf
    target[..., 3:] = IGNORE
    found = SCALINGS[name](3).fit([(logits, target)])
    assert found.last_fit.pixels == 2 * 6 * 3
    for key, value in expected.state().items():
        assert torch.allclose(torch.as_tensor(found.state()[key]), torch.as_tensor(value), rtol=1e-10)
    target[target == IGNORE] = 255
    assert SCALINGS[name](3).fit([(logits, target)], ignore_index=255).last_fit == found.last_fit


def test_half_precision_is_read_as_its_values():
    logits, target = volume(dtype=torch.float16)
    half, double = (TemperatureScaling().fit([(x, target)]) for x in (logits, logits.double()))
    assert half.state() == double.state()
    assert half(logits).dtype == torch.float32
    assert half(logits.double()).dtype == torch.float64


@light
@given(seed=st.integers(0, 999))
def test_the_predicted_class_stays(seed):
    logits, target = volume(seed, shape=(2, 20, 20), num_classes=5, dtype=torch.float32)
    scaling = TemperatureScaling(5).fit([(logits, target)])
    assert torch.equal(scaling(logits).argmax(dim=1), logits.argmax(dim=1))


# Where the likelihood has no maximum, or many


def test_pixels_that_are_all_right_have_no_best_temperature():
    with pytest.warns(RuntimeWarning, match="no maximum for T within .*; T stopped at 0.001"):
        scaling = TemperatureScaling().fit([two_classes(5, 0)])
    assert scaling.state()["temperature"] == pytest.approx(1e-3)
    assert scaling.last_fit.converged is False


def test_pixels_that_are_mostly_wrong_have_no_best_temperature():
    with pytest.warns(RuntimeWarning, match="T stopped at 1000"):
        scaling = TemperatureScaling().fit([two_classes(2, 3)])
    assert scaling.last_fit.converged is False


def test_a_best_temperature_beyond_the_limits_is_refused():
    with pytest.warns(RuntimeWarning, match="T stopped at 1000"):
        TemperatureScaling().fit([two_classes(3, 1, margin=2000.0)])
    with pytest.warns(RuntimeWarning, match="T stopped at 0.001"):
        TemperatureScaling().fit([two_classes(3, 1, margin=1e-3)])


def test_equal_logits_keep_their_temperature():
    scaling = TemperatureScaling().fit([(torch.full((1, 4, 3, 3), 7.0), torch.zeros(1, 3, 3).long())])
    assert scaling.state() == {"temperature": 1.0}
    assert scaling.last_fit.converged
    assert scaling.last_fit.nll == pytest.approx(math.log(4))


def test_an_absent_class_is_left_alone_and_named():
    logits, target = volume(num_classes=4, shape=(3, 9, 9))
    target = torch.where(target == 2, 0, target)
    with pytest.warns(RuntimeWarning, match=r"no valid pixel has a label in \[2\]"):
        scaling = VectorScaling(4).fit([(logits, target)])
    temperature = TemperatureScaling().fit([(logits, target)])
    assert scaling.weight[2] == pytest.approx(1 / temperature.state()["temperature"])
    assert scaling.bias[2] == 0
    assert scaling.bias.sum() == pytest.approx(0, abs=1e-12)
    assert scaling.last_fit.converged
    assert scaling.last_fit.nll < temperature.last_fit.nll


def test_classes_without_an_error_have_no_best_weights():
    with pytest.warns(RuntimeWarning, match="no maximum for w and c"):
        scaling = VectorScaling(2).fit([(torch.tensor([[[[3.0, -1.0]], [[0.0, 0.0]]]]), torch.tensor([[[0, 1]]]))])
    assert scaling.last_fit.converged is False
    assert scaling.weight.isfinite().all()


# A weight and a bias for each class


def skewed(seed=0, shape=(3, 9, 8), num_classes=3):
    """Labels that need another weight and bias in each class."""
    logits, _ = volume(seed, shape, num_classes)
    k = torch.arange(num_classes).view(1, -1, 1, 1)
    return logits, drawn((0.3 + 0.2 * k) * logits + 0.7 * k, 1.0, seed)


@light
@given(seed=st.integers(0, 999))
def test_the_weights_are_at_the_optimum(seed):
    batch = skewed(seed, num_classes=4)
    scaling = VectorScaling(4).fit([batch])
    logits, target = pixels([batch])
    scaled = logits * scaling.weight.numpy() + scaling.bias.numpy()
    miss = np.exp([log_softmax(row) for row in scaled]) - np.eye(4)[target]
    assert np.abs(miss.mean(axis=0)).max() < 1e-11
    assert np.abs((miss * logits).mean(axis=0)).max() < 1e-11
    assert abs(scaling.bias.sum().item()) < 1e-12
    assert scaling.last_fit.nll == pytest.approx(mean_nll(scaled, target), rel=1e-10)
    assert scaling.last_fit.nll <= TemperatureScaling().fit([batch]).last_fit.nll


def test_the_weights_are_those_of_another_optimiser():
    batches = [skewed(1), skewed(2, (1, 5, 5))]
    logits, target = pixels(batches)

    def objective(theta):
        return mean_nll(logits * theta[:3] + np.append(theta[3:], -theta[3:].sum()), target)

    other = minimize(objective, np.array([1.0, 1, 1, 0, 0]), tol=1e-12, options={"gtol": 1e-7}).x
    scaling = VectorScaling(3).fit(batches)
    assert scaling.weight.numpy() == pytest.approx(other[:3], abs=1e-5)
    assert scaling.bias.numpy()[:2] == pytest.approx(other[3:], abs=1e-5)


@pytest.mark.parametrize("scale", [1e-2, 10, 200])
def test_logits_in_another_unit_scale_the_weights(scale):
    logits, target = skewed()
    one, other = (VectorScaling(3).fit([(k * logits, target)]) for k in (1, scale))
    assert (scale * other.weight).tolist() == pytest.approx(one.weight.tolist(), rel=1e-6)
    assert other.bias.tolist() == pytest.approx(one.bias.tolist(), rel=1e-6)


def test_a_logit_that_speaks_against_its_class_gets_a_negative_weight():
    logits, _ = volume(shape=(3, 20, 20), num_classes=2)
    target = drawn(torch.tensor([0.5, -0.5]).view(1, 2, 1, 1) * logits, 1.0, 0)
    weight = VectorScaling(2).fit([(logits, target)]).weight
    assert weight[0] > 0.3
    assert weight[1] < -0.3


def test_equal_logits_leave_the_shares_to_the_bias():
    target = torch.tensor([0] * 5 + [1] * 3 + [2] * 2).view(1, 1, 10)
    scaling = VectorScaling(3).fit([(torch.zeros(1, 3, 1, 10), target)])
    probs = scaling(torch.zeros(1, 3, 1, 1).double()).softmax(dim=1).flatten()
    assert probs.tolist() == pytest.approx([0.5, 0.3, 0.2], abs=1e-12)
    assert scaling.weight.tolist() == [1, 1, 1]


def test_a_class_with_a_constant_logit_is_fitted_by_its_sum():
    logits, target = skewed()
    logits[:, 0] = 5.0
    scaling = VectorScaling(3).fit([(logits, target)])
    flat, labels = pixels([(logits, target)])
    probs = np.exp([log_softmax(r) for r in flat * scaling.weight.numpy() + scaling.bias.numpy()])
    assert probs.mean(axis=0) == pytest.approx(np.bincount(labels) / len(labels), abs=1e-10)


def test_rare_classes_and_large_logits_converge():
    logits, target = volume(shape=(4, 64, 64), num_classes=4, spread=60.0, temperature=25.0)
    common = torch.tensor(np.random.default_rng(0).random(target.shape) < 0.995)
    logits[:, 0] += torch.where(common, 200.0, 0)
    scaling = VectorScaling(4).fit([(logits, torch.where(common, 0, target))])
    assert scaling.last_fit.converged
    assert scaling.last_fit.passes < 40


# As parts of a model


@pytest.mark.parametrize("name", ["temperature", "vector"])
def test_after_a_network_saved_and_moved(name, tmp_path):
    logits, target = skewed()
    image = torch.randn(2, 1, 8, 8)
    net = nn.Conv2d(1, 3, 3, padding=1)
    model = nn.Sequential(net, SCALINGS[name](3).fit([(logits, target)])).eval()
    assert torch.equal(model(image), model[1](net(image)))
    torch.save(model.state_dict(), tmp_path / "model.pt")
    other = nn.Sequential(nn.Conv2d(1, 3, 3, padding=1), SCALINGS[name](3))
    other.load_state_dict(torch.load(tmp_path / "model.pt", weights_only=True))
    assert torch.equal(other(image), model(image))
    before = model[1].state()
    after = model.half().float().to(torch.bfloat16)[1].state()
    assert all(torch.equal(torch.as_tensor(after[k]), torch.as_tensor(before[k])) for k in before)
    assert model.to("meta")[1]._buffers.popitem()[1].device.type == "meta"


@pytest.mark.parametrize("name", ["temperature", "vector"])
def test_gradients_pass_through_and_the_input_is_not_changed(name):
    logits, target = skewed()
    logits.requires_grad_()
    copy = logits.detach().clone()
    scaling = SCALINGS[name](3).fit([(logits, target)])
    assert torch.equal(logits, copy)
    scaling(logits).sum().backward()
    slopes = scaling.weight if name == "vector" else (1 / scaling.temperature).expand(3)
    assert torch.allclose(logits.grad, slopes.view(1, 3, 1, 1))
    assert not list(scaling.parameters())


# Errors

GOOD = (torch.zeros(1, 3, 2, 2), torch.zeros(1, 2, 2).long())


@pytest.mark.parametrize(
    ("batches", "error", "message"),
    [
        ([], ValueError, "`batches` with a valid pixel at least, got none"),
        ([(GOOD[0], torch.full((1, 2, 2), IGNORE))], ValueError, "`batches` with a valid pixel at least, got none"),
        (iter([GOOD]), TypeError, "`batches` that can be iterated more than once, got list_iterator"),
        (GOOD, TypeError, r"`batches` of tuples \(logits, target\), got Tensor \(batch 0\)"),
        ([GOOD, GOOD[:1]], ValueError, r"`batches` of tuples \(logits, target\), got 1 items \(batch 1\)"),
        ([GOOD, (GOOD[0] + math.nan, GOOD[1])], ValueError, r"`logits` of finite values, got nan \(batch 1\)"),
        ([(GOOD[0].half() - math.inf, GOOD[1])], ValueError, r"`logits` of finite values, got -inf \(batch 0\)"),
        ([(GOOD[0], GOOD[1] + 3)], ValueError, r"`target` values in \[0, 3\) .*, got 3"),
        ([(GOOD[0], GOOD[1][:, 0])], ValueError, r"`target` of shape \(1, 2, 2\), got \(1, 2\)"),
        ([(GOOD[0], GOOD[1].float())], TypeError, "`target` of an integer dtype, got torch.float32"),
        ([(GOOD[0].int(), GOOD[1])], TypeError, "`logits` of a floating dtype, got torch.int32"),
        ([GOOD, (GOOD[0][:, :2], GOOD[1])], ValueError, r"`logits` of 3 classes, got 2 \(num_classes=3\)"),
    ],
)
@pytest.mark.parametrize("name", ["temperature", "vector"])
def test_bad_batches_are_named(name, batches, error, message):
    scaling = SCALINGS[name](3)
    before = scaling.state()
    with pytest.raises(error, match=message):
        scaling.fit(batches)
    assert all(torch.equal(torch.as_tensor(scaling.state()[k]), torch.as_tensor(before[k])) for k in before)
    assert scaling.last_fit is None


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match="`num_classes` of at least 2, got 1"):
        VectorScaling(1)
    with pytest.raises(TypeError, match=r"`num_classes` to be an integer, got 2\.5"):
        TemperatureScaling(2.5)
    with pytest.raises(ValueError, match=r"`logits` of 3 classes, got 2 \(num_classes=3\)"):
        TemperatureScaling(3)(torch.zeros(1, 2, 1, 1))
    with pytest.raises(TypeError, match="`ignore_index` to be an integer"):
        TemperatureScaling().fit([GOOD], ignore_index=0.5)


def test_any_number_of_classes_without_one_given():
    batches = [volume(num_classes=2), volume(num_classes=5)]
    assert TemperatureScaling().fit(batches).last_fit.converged
