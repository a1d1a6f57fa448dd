"""A temperature for each pixel: what it finds that one temperature cannot, its two conventions, and its errors."""

import math
import random

import numpy as np
import pytest
import torch
from oracles import IGNORE
from torch import nn

from nacl.scaling import SCALINGS, LocalTemperatureScaling, TemperatureScaling, VectorScaling


def halves(seed=0, n=4, size=24, axes=2, scale=1.0):
    """Labels from softmax(l) on the left and softmax(l / 5) on the right, which the image shows."""
    rng = np.random.default_rng(seed)
    space = (size,) * axes
    logits = torch.as_tensor(4 * rng.standard_normal((n, 3, *space)))
    right = torch.arange(size).expand(n, 1, *space) >= size // 2
    probs = (logits / torch.where(right, 5.0, 1.0)).softmax(dim=1).numpy()
    target = (probs.cumsum(axis=1) < rng.random((n, 1, *space))).sum(axis=1).clip(max=2)
    return (scale * logits).float(), torch.as_tensor(target), right.float()


def nll(logits, target):
    return nn.functional.cross_entropy(logits.double(), target).item()


def states_equal(one, other):
    one, other = one.state(), other.state()
    return all(torch.equal(torch.as_tensor(one[k]), torch.as_tensor(other[k])) for k in one)


TRAIN = [halves(seed) for seed in range(8)]


@pytest.fixture(scope="module")
def fitted():
    return LocalTemperatureScaling(3).fit(TRAIN, valid=[halves(seed=20)], epochs=40)


def test_it_finds_what_one_temperature_cannot(fitted):
    logits, target, image = halves(seed=9, n=8)
    everywhere = TemperatureScaling(3).fit(TRAIN)(logits)
    classwise = VectorScaling(3).fit(TRAIN)(logits)
    truth = nll(logits / torch.where(image > 0, 5.0, 1.0), target)
    gap = nll(everywhere, target) - truth
    assert gap > 0.04
    assert nll(classwise, target) - truth > 0.9 * gap
    assert nll(fitted(logits, image), target) - truth < 0.6 * gap
    temperature = fitted.temperature(logits, image)
    assert temperature[image > 0].mean() > 2 * temperature[image == 0].mean()


def test_the_predicted_class_stays(fitted):
    logits, _, image = halves(seed=5)
    assert torch.equal(fitted(logits, image).argmax(dim=1), logits.argmax(dim=1))


def test_the_seed_fixes_the_result_and_nothing_else_is_moved():
    batches = [halves(n=2, size=8)]
    torch.manual_seed(3)
    before = torch.get_rng_state(), random.getstate()
    one, again, other = (LocalTemperatureScaling(3).fit(batches, epochs=3, seed=s) for s in (1, 1, 2))
    assert torch.equal(before[0], torch.get_rng_state())
    assert before[1] == random.getstate()
    assert states_equal(one, again)
    assert not states_equal(one, other)
    assert states_equal(other.fit(batches, epochs=3, seed=1), one)  # a fit forgets the one before


def test_it_starts_at_the_best_global_temperature():
    batches = [halves(n=2, size=8)]
    scaling = LocalTemperatureScaling(3).fit(batches, epochs=0)
    temperature = TemperatureScaling().fit([batch[:2] for batch in batches])
    logits, _, image = batches[0]
    assert torch.allclose(scaling(logits, image), temperature(logits), rtol=1e-5)
    assert scaling.last_fit.nll == pytest.approx(temperature.last_fit.nll, rel=1e-6)
    assert scaling.last_fit.pixels == 2 * 8 * 8


@pytest.mark.parametrize("convention", ["standard", "reference"])
def test_the_best_state_on_the_held_out_batches_is_kept(convention):
    train, valid = [halves(n=1, size=6)], [halves(n=2, size=8, seed=1)]
    history = []
    scaling = LocalTemperatureScaling(3, convention=convention)
    scaling.fit(train, valid=valid, epochs=12, learning_rate=0.03, on_epoch=lambda *row: history.append(row))
    assert [epoch for epoch, _, _ in history] == list(range(1, 13))
    assert history[-1][1] < history[0][1]
    start = LocalTemperatureScaling(3, convention=convention).fit(train, valid=valid, epochs=0).last_fit.nll
    assert scaling.last_fit.nll == min(start, *(on_valid for _, _, on_valid in history))
    logits, target, image = valid[0]
    assert nll(scaling(logits, image), target) == pytest.approx(scaling.last_fit.nll, rel=1e-6)
    assert scaling.last_fit.converged is None


@pytest.mark.parametrize("scale", [0.01, 100.0])
def test_logits_in_another_unit_give_the_same_probabilities(scale):
    results = []
    for factor in (1.0, scale):
        batch = halves(n=2, size=8, scale=factor)
        results.append(LocalTemperatureScaling(3).fit([batch], epochs=5)(batch[0], batch[2]))
    assert torch.allclose(*results, atol=1e-3)


def test_the_temperature_of_a_loop():
    """Each convolution by hand at one pixel, mirrored at the edge, and the tree of gates."""
    logits, _, image = halves(n=1, size=7)
    for convention in ("standard", "reference"):
        scaling = LocalTemperatureScaling(3, convention=convention)
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for parameter in scaling.parameters():
                parameter.copy_(0.1 * torch.randn(parameter.shape, generator=generator))
            scaling.start.fill_(1.5 if convention == "standard" else 1.0)

        def conv(layer, channel, x, row, column):
            total = layer.bias[channel].item()
            for k in range(x.shape[1]):
                for i in range(5):
                    for j in range(5):
                        at = [abs(place) for place in (row + 2 * i - 4, column + 2 * j - 4)]
                        at = [place if place < 7 else 12 - place for place in at]
                        total += (layer.weight[channel, k, i, j] * x[0, k, at[0], at[1]]).item()
            return total

        for row, column in [(0, 0), (3, 2), (6, 5)]:
            t = [conv(scaling.from_logits, c, logits / scaling.start, row, column) for c in range(8)]
            g = [1 / (1 + math.exp(-x)) for x in t[4:]]
            a, b = g[0] * t[0] + (1 - g[0]) * t[1], g[1] * t[2] + (1 - g[1]) * t[3]
            c = g[2] * a + (1 - g[2]) * b
            field = g[3] * c + (1 - g[3]) * conv(scaling.from_image, 0, image, row, column)
            wanted = 1.5 * math.exp(field) if convention == "standard" else max(0.0, field + 2) + 1e-8
            assert scaling.temperature(logits, image)[0, 0, row, column].item() == pytest.approx(wanted, rel=1e-4)


def test_the_reference_starts_at_two_and_its_maps_stay_equal():
    batches = [halves(n=2, size=10, seed=seed) for seed in range(2)]
    scaling = LocalTemperatureScaling(3, convention="reference")
    logits, _, image = batches[0]
    assert (scaling.temperature(logits, image) == 2).all()
    scaling.fit(batches, epochs=10, learning_rate=1e-2)
    weight = scaling.from_logits.weight
    assert weight[0].abs().max() > 1e-2
    assert torch.allclose(weight[1:4], weight[:1].expand(3, -1, -1, -1), atol=1e-5)
    assert weight[4:7].abs().max() < 1e-5
    assert weight[7].abs().max() > 1e-3  # the gate of the image does learn


def test_the_maps_of_the_standard_differ(fitted):
    weight = fitted.from_logits.weight
    assert min((weight[i] - weight[j]).abs().max() for i in range(4) for j in range(i)) > 1e-2


def test_the_reference_can_collapse_and_the_standard_cannot():
    logits, _, image = halves(n=1, size=6)
    for convention, low in (("reference", 1e-8), ("standard", 1e-3)):
        scaling = LocalTemperatureScaling(3, convention=convention)
        nn.init.constant_(scaling.from_image.bias, -100.0)
        temperature = scaling.temperature(logits, image)
        assert temperature.min().item() == pytest.approx(low, rel=1e-5)
        nn.init.constant_(scaling.from_image.bias, 1e4)
        scaling(logits, image).sum().backward()
        assert all(p.grad.isfinite().all() for p in scaling.parameters())


def test_volumes():
    batches = [halves(n=1, size=6, axes=3)]
    scaling = LocalTemperatureScaling(3, axes=3).fit(batches, epochs=2)
    logits, _, image = batches[0]
    assert scaling(logits, image).shape == logits.shape
    assert scaling.from_logits.weight.shape == (8, 3, 5, 5, 5)


def test_ignored_pixels_and_batches_without_any_other_do_not_count():
    logits, target, image = halves(n=2, size=8)
    masked = torch.where(torch.arange(8) < 3, IGNORE, target)
    other = torch.where(masked == IGNORE, 2 - target, target)
    nothing = logits, torch.full_like(target, IGNORE), image
    one = LocalTemperatureScaling(3).fit([(logits, masked, image), nothing], epochs=2)
    two = LocalTemperatureScaling(3).fit([(logits, torch.where(masked == IGNORE, IGNORE, other), image)], epochs=2)
    assert states_equal(one, two)
    assert one.last_fit.pixels == 2 * 8 * 5


def test_it_is_saved_and_loaded(fitted, tmp_path):
    torch.save(fitted.state_dict(), tmp_path / "scaling.pt")
    other = SCALINGS["local"](3)
    other.load_state_dict(torch.load(tmp_path / "scaling.pt", weights_only=True))
    logits, _, image = halves(seed=1)
    assert torch.equal(other(logits, image), fitted(logits, image))
    assert fitted(logits.half(), image).dtype == torch.float32
    assert fitted(logits.double(), image).dtype == torch.float64


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_classes": 1}, "`num_classes` of at least 2, got 1"),
        ({"image_channels": 0}, "`image_channels` of at least 1, got 0"),
        ({"axes": 4}, "`axes` to be 2 or 3, got 4"),
        ({"convention": "refrence"}, "Did you mean 'reference'"),
    ],
)
def test_bad_options_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        LocalTemperatureScaling(**{"num_classes": 3, **options})


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda x, y, z: (x, y), ValueError, r"`batches` of tuples \(logits, target, image\), got 2 items \(batch 0\)"),
        (lambda x, y, z: (x, y, z[..., 1:]), ValueError, r"`image` of shape \(1, 1, 6, 6\), got \(1, 1, 6, 5\)"),
        (lambda x, y, z: (x, y, z + math.nan), ValueError, r"`image` of finite values, got nan \(batch 0\)"),
        (lambda x, y, z: (x * math.inf, y, z), ValueError, r"`logits` of finite values, got -?inf \(batch 0\)"),
        (lambda x, y, z: (x, y * 0 + IGNORE, z), ValueError, "`batches` with a valid pixel at least, got none"),
        (
            lambda x, y, z: (x[..., :4], y[..., :4], z[..., :4]),
            ValueError,
            r"`logits` with 2 axes of space of at least 5 pixels, got \(1, 3, 6, 4\) \(axes=2\)",
        ),
    ],
)
def test_bad_batches_are_named(change, error, message):
    with pytest.raises(error, match=message):
        LocalTemperatureScaling(3).fit([change(*halves(n=1, size=6))], epochs=1)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"epochs": -1}, "`epochs` of at least 0, got -1"),
        ({"learning_rate": 0.0}, "`learning_rate` in"),
        ({"seed": -1}, "`seed` of at least 0, got -1"),
    ],
)
def test_bad_arguments_of_a_fit_are_named(option, message):
    with pytest.raises(ValueError, match=message):
        LocalTemperatureScaling(3).fit([halves(n=1, size=6)], **option)
