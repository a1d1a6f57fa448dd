"""Gradient flow on cross-entropy: against other integrators, small steps, limits and bounds."""

import math

import numpy as np
import pytest
import sympy
import torch
from scipy.integrate import solve_ivp
from scipy.special import softmax

from nacl.theory import fitted_gap, fitting_time, gradient_flow


def by_steps(features, labels, time, num_classes, steps):
    """Gradient descent on the mean cross-entropy by autograd, in `steps` equal steps from 0."""
    weights = torch.zeros(features.shape[1], num_classes, dtype=torch.float64, requires_grad=True)
    for _ in range(steps):
        loss = torch.nn.functional.cross_entropy(features @ weights, labels)
        (slope,) = torch.autograd.grad(loss, weights)
        weights = (weights - time / steps * slope).detach().requires_grad_()
    return weights.detach()


def pixels(count, inputs, num_classes, seed=0):
    rng = np.random.default_rng(seed)
    return torch.as_tensor(rng.standard_normal((count, inputs))), torch.as_tensor(rng.integers(num_classes, size=count))


# One pixel


@pytest.mark.parametrize("num_classes", [2, 3, 4, 19])
def test_gap_is_what_an_integration_of_all_logits_gives(num_classes):
    times, y = np.array([0.01, 1.0, 30.0, 1000.0]), np.eye(num_classes)[0]
    options = {"t_eval": times, "rtol": 1e-10, "atol": 1e-12, "method": "LSODA"}
    logits = solve_ivp(lambda _, now: y - softmax(now), (0, 1000), np.zeros(num_classes), **options).y
    assert np.allclose(logits[0] - logits[1:], fitted_gap(torch.tensor(times), num_classes), rtol=1e-7)


def test_implicit_solution_proved():
    d, k = sympy.Symbol("d", real=True), sympy.Symbol("K", positive=True)
    slope = sympy.diff((sympy.exp(d) + (k - 1) * d - 1) / k, d)
    assert sympy.simplify(1 / slope - k / (sympy.exp(d) + k - 1)) == 0


@pytest.mark.parametrize("num_classes", [2, 4, 100])
def test_time_and_gap_are_inverse(num_classes):
    time = torch.tensor([[0.0, 1e-3, 0.3], [7.0, 1e4, 1e12]], dtype=torch.float64)
    gap = fitted_gap(time, num_classes)
    assert gap.shape == time.shape
    assert torch.allclose(fitting_time(gap, num_classes), time, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("num_classes", [2, 4])
def test_doubt_falls_like_one_over_time(num_classes):
    time = torch.logspace(3, 15, 7, dtype=torch.float64)
    others = num_classes - 1
    doubt = others / (fitted_gap(time, num_classes).exp() + others)
    share = (doubt * num_classes * time / others - 1).abs()
    assert (share < 2 * others * (num_classes * time).log() / (num_classes * time)).all()
    assert share[-1] < 1e-12
    assert (share.diff() < 0).all()


# Many pixels


@pytest.mark.parametrize("num_classes", [2, 3])
def test_flow_is_the_limit_of_small_steps(num_classes):
    features, labels = pixels(7, 4, num_classes)
    weights = gradient_flow(features, labels, [0.5, 5.0], num_classes)
    errors = [(by_steps(features, labels, 5.0, num_classes, n) - weights[1]).abs().max().item() for n in (400, 1600)]
    assert errors[1] < 3e-3
    assert math.isclose(errors[0] / errors[1], 4, rel_tol=0.05)  # the error of Euler's method is linear in its step


def test_free_logits_follow_the_closed_form():
    labels, times = torch.tensor([0, 2, 1, 2, 2]), [1.0, 300.0]
    logits = gradient_flow(torch.eye(5), labels, times, 3)
    gap = fitted_gap(torch.tensor(times) / 5, 3)
    own = logits.gather(2, labels.expand(2, 5).unsqueeze(2))
    others = logits.scatter(2, labels.expand(2, 5).unsqueeze(2), math.inf).amin(dim=2, keepdim=True)
    assert torch.allclose(own - others, gap.view(2, 1, 1).expand(2, 5, 1), rtol=1e-5)


def test_contradicting_labels_end_at_the_minimum():
    labels = torch.tensor([0, 0, 0, 1])
    weights = gradient_flow(torch.ones(4, 1), labels, [1000.0], 2)
    assert torch.allclose(weights[0, 0].softmax(0), torch.tensor([0.75, 0.25], dtype=torch.float64), atol=1e-4)


def test_loss_of_what_can_be_fitted_is_below_its_bound():
    features, labels = pixels(10, 20, 3, seed=1)
    times = torch.logspace(0.5, 4, 8, dtype=torch.float64)
    weights = gradient_flow(features, labels, times.tolist(), 3)
    logits = features @ (weights[-1] / weights[-1].norm())
    own = logits.gather(1, labels[:, None])
    margin = (own - logits.scatter(1, labels[:, None], -math.inf)).min()
    loss = torch.stack([torch.nn.functional.cross_entropy(features @ w, labels) for w in weights])
    assert margin > 0
    assert (loss <= 2 / times + times.log() ** 2 / (2 * margin**2 * times)).all()
    assert loss[-1] < 1e-3


def test_weights_stay_centred_and_of_the_asked_shape():
    features, labels = pixels(6, 3, 4)
    weights = gradient_flow(features.float(), labels, [0.0, 1.0, 9.0], 4)
    assert weights.shape == (3, 3, 4)
    assert weights.dtype == torch.float64
    assert (weights[0] == 0).all()
    assert weights.sum(dim=2).abs().max() < 1e-12


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"times": [1.0, 1.0]}, "`times` to be increasing"),
        ({"times": []}, "`times` to be increasing"),
        ({"times": [-1.0, 1.0]}, "`times` to be finite and not negative"),
        ({"features": torch.ones(3)}, r"`features` of shape \(n, M\)"),
        ({"features": torch.ones(2, 2)}, r"`features` of shape \(n, M\), one row a label, got \(2, 2\)"),
        ({"features": torch.tensor([[1.0], [math.nan], [1.0]])}, "`features` to be finite"),
        ({"labels": torch.tensor([0, 1, 2])}, r"`labels` in \[0, 2\), got 2"),
        ({"labels": torch.tensor([0, -1, 1])}, r"`labels` in \[0, 2\), got -1"),
        ({"num_classes": 1}, "`num_classes` of at least 2"),
    ],
)
def test_errors_name_the_argument(change, message):
    right = {"features": torch.ones(3, 1), "labels": torch.tensor([0, 1, 1]), "times": [1.0], "num_classes": 2}
    with pytest.raises(ValueError, match=message):
        gradient_flow(**(right | change))


@pytest.mark.parametrize("function", [fitted_gap, fitting_time])
@pytest.mark.parametrize("value", [-1.0, math.inf, math.nan])
def test_negative_or_endless_is_refused(function, value):
    with pytest.raises(ValueError, match="to be finite and not negative"):
        function(torch.tensor([value]), 2)
