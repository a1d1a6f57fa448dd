"""NACL's gradient in closed form: proved in symbols, and against autograd."""

import itertools
import math

import numpy as np
import pytest
import scipy.special
import sympy
import torch
from oracles import IGNORE

from nacl.losses import nacl_loss
from nacl.priors import BORDERS, neighbour_prior
from nacl.theory import nacl_gradient, penalty_slope

C = 4
PENALTIES = ("l1", "l2", "huber")


def data(seed=0, shape=(2, 4, 5), holes=0.3):
    rng = np.random.default_rng(seed)
    target = np.where(rng.random(shape) < holes, IGNORE, rng.integers(0, C, shape))
    logits = torch.as_tensor(2 * rng.standard_normal((shape[0], C, *shape[1:])))
    return logits.requires_grad_(), torch.as_tensor(target)


def penalty_of(distance, penalty, delta):
    size = distance.abs()
    if penalty == "huber":
        return torch.where(size <= delta, size**2 / 2, delta * (size - delta / 2))
    return size if penalty == "l1" else size**2


@pytest.mark.parametrize("softmax", [False, True])
@pytest.mark.parametrize("penalty", ["l1", "l2", "huber inside", "huber outside"])
def test_gradient_in_the_logits_proved(penalty, softmax):
    logits, tau = sympy.symbols("l1:4", real=True), sympy.symbols("t1:4", real=True)
    c, delta = sympy.symbols("c delta", positive=True)
    s = [sympy.exp(v) / sum(map(sympy.exp, logits)) for v in logits]
    point = s if softmax else logits
    above = (1, -1, 1)  # on which side of its kink each class is: a function of its own there
    size = {
        "l1": lambda d, side: side * d,
        "l2": lambda d, side: d**2,
        "huber inside": lambda d, side: d**2 / 2,
        "huber outside": lambda d, side: delta * (side * d - delta / 2),
    }[penalty]
    slope = {
        "l1": lambda d, side: side,
        "l2": lambda d, side: 2 * d,
        "huber inside": lambda d, side: d,
        "huber outside": lambda d, side: side * delta,
    }[penalty]
    distances = [(a - b, side) for a, b, side in zip(point, tau, above, strict=True)]
    loss = -sympy.log(s[0]) + c * sum(size(*d) for d in distances)
    u = [c * slope(*d) for d in distances]
    for k, v in enumerate(logits):
        pull = s[k] * (u[k] - sum(p * force for p, force in zip(s, u, strict=True))) if softmax else u[k]
        assert sympy.simplify(sympy.diff(loss, v) - (s[k] - int(k == 0)) - pull) == 0


@pytest.mark.parametrize("softmax", [False, True])
@pytest.mark.parametrize("penalty", PENALTIES)
@pytest.mark.parametrize(("prior", "border"), [("gaussian", "inside"), *(("mean", border) for border in BORDERS)])
def test_gradient_is_that_of_autograd_by_parts(penalty, softmax, prior, border):
    logits, target = data()
    window = {"prior": prior, "kernel_size": 3, "sigma": 0.8, "border": border}
    options = {"penalty": penalty, "penalty_weight": 0.7, "softmax": softmax, "delta": 0.4}
    parts = nacl_gradient(logits, target, **window, **options)
    tau = neighbour_prior(target, C, **window, dtype=torch.float64)
    distance = (logits.softmax(1) if softmax else logits) - tau
    constraint = 0.7 * penalty_of(distance, penalty, 0.4).mean(dim=1)[target != IGNORE].sum()
    label = torch.nn.functional.cross_entropy(logits, target, reduction="sum")
    for value, part in ((label, parts.label), (constraint, parts.constraint)):
        (slope,) = torch.autograd.grad(value, logits, retain_graph=True)
        torch.testing.assert_close(part.detach(), slope, rtol=0, atol=1e-12)
    (slope,) = torch.autograd.grad(nacl_loss(logits, target, **window, **options, reduction="sum"), logits)
    torch.testing.assert_close(parts.total.detach(), slope, rtol=0, atol=1e-12)


@pytest.mark.parametrize("prior", ["median", "bilateral", "image_proportions_l1"])
def test_gradient_of_a_volume_with_every_kind_of_prior(prior):
    logits, target = data(shape=(1, 3, 4, 5))
    image = torch.rand(1, 3, 4, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    options = {"prior": prior, "kernel_size": (1, 3, 3), "image": image, "penalty_weight": 0.7}
    (slope,) = torch.autograd.grad(nacl_loss(logits, target, **options, reduction="sum"), logits)
    torch.testing.assert_close(nacl_gradient(logits, target, **options).total.detach(), slope, rtol=0, atol=1e-12)


@pytest.mark.parametrize("penalty", PENALTIES)
def test_slope_is_that_of_the_penalty(penalty):
    distance = torch.tensor([-3.0, -0.4, -0.1, 0.0, 0.2, 0.4, 5.0], dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(penalty_of(distance, penalty, 0.4).sum(), distance)
    torch.testing.assert_close(penalty_slope(distance.detach(), penalty, delta=0.4), slope)


def test_weight_zero_leaves_cross_entropy():
    parts = nacl_gradient(*data(), penalty_weight=0)
    assert (parts.constraint == 0).all()
    assert (parts.total == parts.label).all()


def test_parts_are_zero_at_ignored_pixels_and_pixels_of_cross_entropy_sum_to_zero():
    logits, target = data()
    for softmax in (False, True):
        parts = nacl_gradient(logits, target, softmax=softmax)
        for part in parts:
            assert (part.movedim(1, -1)[target == IGNORE] == 0).all()
        assert parts.label.sum(dim=1).abs().max() < 1e-12
    assert parts.constraint.sum(dim=1).abs().max() < 1e-12  # behind the softmax a shift of all logits costs nothing


def test_the_penalty_on_the_logits_holds_a_confident_pixel_and_that_on_the_softmax_lets_it_go():
    target = torch.ones(1, 1, 1).long()
    for size in (5.0, 10.0, 20.0):
        logits = torch.tensor([0.0, size]).view(1, 2, 1, 1)
        held, loose = (nacl_gradient(logits, target, softmax=s, penalty_weight=1.0) for s in (False, True))
        assert held.total[0, 1] > 0.4
        assert loose.total[0, 1] < 0
        assert loose.constraint.abs().max() < 2 * math.exp(-size)


def test_a_weight_annealed_to_zero_gives_up_its_ceiling():
    """One pixel, four classes: held at 1 - lambda/K while the weight lasts, and past it ever further afterwards."""
    tau, weight, classes = np.array([0.6, 0.4, 0.0, 0.0]), 0.1, 4

    def confidence_after(weights, logits):
        for weight in weights:  # a step of cross-entropy, then towards tau by c, and not past it
            distance = logits - (scipy.special.softmax(logits) - np.eye(classes)[0]) - tau
            logits = tau + np.sign(distance) * np.maximum(abs(distance) - weight / classes, 0)
        return scipy.special.softmax(logits)[0], logits

    held, logits = confidence_after([weight] * 2000, np.zeros(classes))
    assert held == pytest.approx(1 - weight / classes, abs=1e-6)
    seen = [held]
    for weights in (np.linspace(weight, 0, 1000), [0] * 1000, [0] * 1000):
        confidence, logits = confidence_after(weights, logits)
        seen.append(confidence)
    assert all(a + 1e-4 < b < 1 for a, b in itertools.pairwise(seen))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"penalty": "l3"}, "`penalty` to be one of 'l1', 'l2', 'huber', got 'l3'"),
        ({"penalty_weight": -1}, r"`penalty_weight` in \[0, inf\), got -1"),
        ({"penalty": "huber", "delta": 0}, r"`delta` in \(0, inf\), got 0"),
        ({"border": "insid"}, r"got 'insid'\. Did you mean 'inside'"),
        ({"prior": "meen"}, r"got 'meen'\. Did you mean 'mean'"),
    ],
)
def test_bad_options_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        nacl_gradient(torch.zeros(1, 2, 2, 2), torch.zeros(1, 2, 2).long(), **options)


def test_bad_tensors_are_named():
    target = torch.zeros(1, 2, 2).long()
    with pytest.raises(ValueError, match=r"`target` of shape \(1, 2, 2\), got \(1, 2, 3\)"):
        nacl_gradient(torch.zeros(1, 2, 2, 2), torch.zeros(1, 2, 3).long())
    with pytest.raises(ValueError, match="`logits` without NaN"):
        nacl_gradient(torch.full((1, 2, 2, 2), math.nan), target)
    with pytest.raises(TypeError, match="`softmax` to be True or False, got 1"):
        nacl_gradient(torch.zeros(1, 2, 2, 2), target, softmax=1)
