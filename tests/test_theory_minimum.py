"""NACL's minimum: the duality proved in symbols, and in numbers a gap of zero on random pixels."""

import itertools
import math
import re

import numpy as np
import pytest
import scipy.optimize
import sympy
import torch
from hypothesis import given
from hypothesis import strategies as st
from oracles import light

from nacl.losses import nacl_loss
from nacl.priors import neighbour_prior, one_hot
from nacl.theory import nacl_minimum, nacl_minimum_logits

PENALTIES = ("l1", "l2", "huber")
DELTA = 0.7
WEIGHTS = (0.01, 0.1, 0.5, 1.3, 5.0)
certain_pixels = [(k, c) for k in range(2, 7) for c in (0.01, 0.1, 0.3, 0.6, 0.95, 1.0, 2.0)]


def pixels(num_classes, count=60, seed=0):
    """Expected labels of every kind (certain, noisy, with classes that never occur), and shares of windows."""
    rng = np.random.default_rng([seed, num_classes])
    q = rng.dirichlet(np.ones(num_classes), count)
    q[::3] = np.eye(num_classes)[rng.integers(num_classes, size=len(q[::3]))]
    q[1::3, rng.integers(num_classes)] = 0
    tau = rng.multinomial(9, rng.dirichlet(np.ones(num_classes), count)) / 9
    return torch.as_tensor(q / q.sum(axis=1, keepdims=True)), torch.as_tensor(tau)


def penalty_of(distance, penalty, delta=DELTA):
    size = distance.abs()
    return {
        "l1": size,
        "l2": size**2,
        "huber": torch.where(size <= delta, size**2 / 2, delta * (size - delta / 2)),
    }[penalty]


def objective(logits, q, tau, penalty, c, delta=DELTA):
    return logits.logsumexp(1) - (q * logits).sum(1) + c * penalty_of(logits - tau, penalty, delta).sum(1)


def dual_value(p, q, tau, penalty, c):
    """-KL(p || softmax(tau)) - R(p - q) + lse(tau) - q.tau, for p in the box."""
    divergence = (torch.xlogy(p, p) - p * tau.log_softmax(1)).sum(1)
    distance = ((p - q) ** 2).sum(1) * {"l1": 0, "l2": 1 / (4 * c), "huber": 1 / (2 * c)}[penalty]
    return tau.logsumexp(1) - (q * tau).sum(1) - divergence - distance


# Proofs


def test_conjugates_of_the_three_penalties_proved():
    u, v = sympy.symbols("u v", real=True)
    c, delta, t, more = sympy.symbols("c delta t m", positive=True)
    assert sympy.solve(sympy.diff(u * v - c * v**2, v), v) == [u / (2 * c)]
    assert sympy.simplify((u * v - c * v**2).subs(v, u / (2 * c)) - u**2 / (4 * c)) == 0
    # abs, along each ray v = t sign(u): within the box u = c / (1 + m) the slope is negative, beyond it is positive
    slope = sympy.diff(u * t - c * t, t)
    assert slope.subs(u, c / (1 + more)).simplify().is_negative
    assert slope.subs(u, c * (1 + more)).simplify().is_positive
    assert (u * t - c * t).subs(t, 0) == 0
    # Huber: the parabola's peak v = u / c is on the parabola for u <= c delta; the line then only falls, from lower
    parabola, line = u * v - c * v**2 / 2, u * v - c * delta * (v - delta / 2)
    assert sympy.solve(sympy.diff(parabola, v), v) == [u / c]
    assert sympy.simplify(parabola.subs(v, u / c) - u**2 / (2 * c)) == 0
    assert sympy.simplify(line.subs(v, delta) - parabola.subs(v, delta)) == 0
    assert sympy.simplify(sympy.diff(line, v) - (u - c * delta)) == 0
    assert sympy.simplify(u**2 / (2 * c) - line.subs(v, delta) - (c * delta - u) ** 2 / (2 * c)) == 0


@pytest.mark.parametrize("num_classes", [2, 3])
def test_dual_equals_primal_wherever_the_gradient_vanishes_proved(num_classes):
    logits, tau = (sympy.symbols(f"{name}1:{num_classes + 1}", real=True) for name in "lt")
    c = sympy.symbols("c", positive=True)
    lse = sympy.log(sum(map(sympy.exp, logits)))
    s = [sympy.exp(v - lse) for v in logits]
    q = [p + 2 * c * (v - t) for p, v, t in zip(s, logits, tau, strict=True)]  # the "l2" gradient is 0
    primal = lse - sum(a * v for a, v in zip(q, logits, strict=True))
    primal += c * sum((v - t) ** 2 for v, t in zip(logits, tau, strict=True))
    dual = -sum(p * (v - lse) for p, v in zip(s, logits, strict=True))
    dual += sum((p - a) * t - (p - a) ** 2 / (4 * c) for p, a, t in zip(s, q, tau, strict=True))
    assert sympy.simplify(sympy.expand(primal - dual)) == 0


@pytest.mark.parametrize("num_classes", [2, 3])
def test_conditions_of_the_box_at_a_certain_label_proved(num_classes):
    weights = sympy.symbols(f"w1:{num_classes + 1}", positive=True)  # exp(tau), the label's first
    c = sympy.symbols("c", positive=True)
    others = sum(weights[1:])
    a = c / others
    p = [1 - c, *(a * w for w in weights[1:])]
    assert sympy.simplify(sum(p) - 1) == 0
    # the free classes are stationary, log p - tau + nu = 0 with nu = -log a
    for share, weight in zip(p[1:], weights[1:], strict=True):
        assert sympy.simplify(sympy.log(share / weight) - sympy.log(a)) == 0
    # the label presses on its face, p > a exp(tau), if and only if 1 - c > softmax(tau)
    total = sum(weights)
    assert sympy.simplify((p[0] - a * weights[0]) - (1 - c - weights[0] / total) * total / others) == 0


# Against the theorem of duality


@pytest.mark.parametrize("num_classes", range(2, 7))
@pytest.mark.parametrize("penalty", PENALTIES)
def test_duality_gap_is_zero_on_random_pixels(penalty, num_classes):
    for weight in WEIGHTS:
        q, tau = pixels(num_classes)
        c = weight / num_classes
        options = {"penalty": penalty, "penalty_weight": weight, "delta": DELTA}
        p, logits = nacl_minimum(q, tau, **options), nacl_minimum_logits(q, tau, **options)
        assert p.dtype == logits.dtype == torch.float64
        assert (p > 0).all()
        assert (p.sum(1) - 1).abs().max() < 1e-13
        assert ((p - q).abs() <= {"l1": c, "l2": 1, "huber": c * DELTA}[penalty] + 1e-15).all()
        torch.testing.assert_close(logits.softmax(1), p, rtol=0, atol=1e-13)
        gap = objective(logits, q, tau, penalty, c) - dual_value(p, q, tau, penalty, c)
        assert gap.abs().max() < 1e-11


@pytest.mark.parametrize("penalty", PENALTIES)
def test_zero_is_a_subgradient_at_the_minimum(penalty):
    for num_classes, weight in itertools.product((2, 3, 4, 6), WEIGHTS):
        q, tau = pixels(num_classes, seed=1)
        c = weight / num_classes
        logits = nacl_minimum_logits(q, tau, penalty=penalty, penalty_weight=weight, delta=DELTA)
        distance, pull = logits - tau, (q - logits.softmax(1)) / c  # pull must be in dP(distance)
        if penalty == "l1":
            at_kink = distance.abs() < 1e-12
            assert (pull[at_kink].abs() <= 1 + 1e-12).all()
            torch.testing.assert_close(pull[~at_kink], distance[~at_kink].sign(), rtol=0, atol=1e-11)
        else:
            slope = 2 * distance if penalty == "l2" else distance.clamp(-DELTA, DELTA)
            torch.testing.assert_close(pull, slope, rtol=0, atol=1e-11)


@pytest.mark.parametrize("penalty", PENALTIES)
def test_no_step_lowers_the_objective(penalty):
    rng = torch.Generator().manual_seed(0)
    for num_classes, weight in itertools.product((2, 3, 5), WEIGHTS):
        q, tau = pixels(num_classes, seed=2)
        c = weight / num_classes
        logits = nacl_minimum_logits(q, tau, penalty=penalty, penalty_weight=weight, delta=DELTA)
        lowest = objective(logits, q, tau, penalty, c)
        for size in (1e-4, 1e-2, 1.0, 10.0):
            for _ in range(5):
                step = size * torch.randn(logits.shape, generator=rng, dtype=torch.float64)
                assert (objective(logits + step, q, tau, penalty, c) >= lowest - 1e-13).all()


@pytest.mark.parametrize("penalty", ["l2", "huber"])
def test_a_general_optimiser_ends_at_the_minimum(penalty):
    q, tau = pixels(4, count=9, seed=3)
    p = nacl_minimum(q, tau, penalty=penalty, penalty_weight=0.8, delta=DELTA)
    for pixel in range(len(q)):
        label, shares = q[pixel : pixel + 1], tau[pixel : pixel + 1]

        def value_and_slope(x, label=label, shares=shares):
            x = torch.as_tensor(x)[None].requires_grad_()
            value = objective(x, label, shares, penalty, 0.2).sum()
            return value.item(), torch.autograd.grad(value, x)[0][0].numpy()

        found = scipy.optimize.minimize(value_and_slope, np.zeros(4), jac=True, method="BFGS", options={"gtol": 1e-10})
        torch.testing.assert_close(torch.as_tensor(found.x).softmax(0), p[pixel], rtol=0, atol=1e-8)


@pytest.mark.parametrize("penalty", ["l1", "l2"])
@pytest.mark.parametrize("weight", [0.1, 2.0])
def test_it_is_the_minimum_of_nacl_loss(penalty, weight):
    target = torch.randint(0, 4, (1, 6, 5), generator=torch.Generator().manual_seed(0))
    options = {"penalty": penalty, "penalty_weight": weight}
    q, tau = one_hot(target, 4), neighbour_prior(target, 4, dtype=torch.float64)
    logits = nacl_minimum_logits(q, tau, **options).requires_grad_()
    lowest = nacl_loss(logits, target, **options, reduction="none")
    for size in (1e-3, 1e-1, 3.0):
        step = size * torch.randn(logits.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        assert (nacl_loss(logits + step, target, **options, reduction="none") > lowest).all()
    if penalty == "l2":
        assert torch.autograd.grad(lowest.sum(), logits)[0].abs().max() < 1e-13


# What follows


@pytest.mark.parametrize(("num_classes", "c"), certain_pixels)
def test_confidence_in_a_certain_label_is_one_minus_c_or_that_of_tau(num_classes, c):
    _, tau = pixels(num_classes, seed=4)
    certain = torch.eye(1, num_classes, dtype=torch.float64).expand_as(tau)
    options = {"penalty_weight": c * num_classes}
    p, logits = nacl_minimum(certain, tau, **options), nacl_minimum_logits(certain, tau, **options)
    free = tau.softmax(1)
    bound = free[:, 0] <= 1 - c
    torch.testing.assert_close(p[:, 0], free[:, 0].clamp(min=1 - c), rtol=0, atol=1e-15)
    torch.testing.assert_close(p[~bound], free[~bound], rtol=0, atol=1e-14)
    shared = free[:, 1:] / (1 - free[:, :1]) * c
    torch.testing.assert_close(p[bound, 1:], shared[bound], rtol=0, atol=1e-14)
    if num_classes > 2:  # of two, both are on a face
        torch.testing.assert_close(logits[:, 1:], tau[:, 1:], rtol=0, atol=1e-13)
    assert bound.all() or c > (num_classes - 1) / (num_classes - 1 + math.e)
    assert not bound.any() or c < 1


def test_the_bound_on_c_that_serves_every_tau_is_the_largest():
    for num_classes in range(2, 7):
        inside = torch.eye(1, num_classes, dtype=torch.float64)
        c = (num_classes - 1) / (num_classes - 1 + math.e)
        for factor, touches in ((0.999, True), (1.001, False)):
            p = nacl_minimum(inside, inside, penalty_weight=num_classes * c * factor)[0, 0].item()
            assert (p == pytest.approx(1 - c * factor, abs=1e-12)) is touches


@pytest.mark.parametrize("num_classes", [2, 4, 6])
def test_all_classes_are_on_faces_exactly_where_the_halves_part(num_classes):
    rng = np.random.default_rng(num_classes)
    q = torch.as_tensor(rng.dirichlet(3 * np.ones(num_classes), 400))
    tau = torch.as_tensor(rng.dirichlet(np.ones(num_classes), 400))
    c = 0.02
    p = nacl_minimum(q, tau, penalty_weight=c * num_classes)
    on_faces = ((p - q).abs() > c - 1e-12).all(dim=1)
    order = (q / tau.exp()).argsort(dim=1)
    half = num_classes // 2
    low, high = (((q + sign * c) / tau.exp()).gather(1, order) for sign in (1, -1))
    parted = low[:, :half].amax(1) <= high[:, half:].amin(1)
    assert torch.equal(on_faces, parted)
    assert 0 < parted.sum() < 400
    sign = torch.ones_like(q).scatter(1, order[:, half:], -1)
    torch.testing.assert_close(p[parted], (q + c * sign)[parted], rtol=0, atol=1e-14)


@pytest.mark.parametrize("num_classes", [3, 5])
def test_with_an_odd_number_of_classes_the_middle_one_keeps_its_share(num_classes):
    rng = np.random.default_rng(num_classes)
    q = torch.as_tensor(rng.dirichlet(3 * np.ones(num_classes), 100))
    tau = torch.as_tensor(rng.dirichlet(np.ones(num_classes), 100))
    ratio = q / tau.exp()
    c = 1e-3 * ratio.sort(dim=1).values.diff(dim=1).amin(1).min().item()
    p = nacl_minimum(q, tau, penalty_weight=c * num_classes)
    expected = q + c * (ratio.median(dim=1, keepdim=True).values - ratio).sign()
    torch.testing.assert_close(p, expected, rtol=0, atol=1e-15)


def test_the_logits_of_two_classes_are_free_by_a_shift_and_by_no_more():
    certain, tau = torch.tensor([[1.0, 0.0], [0.6, 0.4]], dtype=torch.float64).unsqueeze(1)
    c = 0.05
    logits = nacl_minimum_logits(certain, tau, penalty_weight=2 * c)
    lowest = objective(logits, certain, tau, "l1", c)
    length = math.log((1 - c) / c) - 0.2
    ends = [(tau[0, 0] - logits[0, 0]).item(), (tau[0, 1] - logits[0, 1]).item()]
    assert ends[1] - ends[0] == pytest.approx(length)
    for part in (0.0, 0.3, 1.0):
        value = objective(logits + ends[0] + part * length, certain, tau, "l1", c)
        torch.testing.assert_close(value, lowest, rtol=0, atol=1e-14)
    for outside in (ends[0] - 0.1, ends[1] + 0.1):
        assert objective(logits + outside, certain, tau, "l1", c) > lowest + 1e-3


def test_a_class_inside_the_box_forbids_every_shift():
    certain, tau = torch.tensor([[1.0, 0.0, 0.0], [0.6, 0.4, 0.0]], dtype=torch.float64).unsqueeze(1)
    logits = nacl_minimum_logits(certain, tau)
    lowest = objective(logits, certain, tau, "l1", 0.1 / 3)
    for shift in (-1e-3, 1e-3):
        assert objective(logits + shift, certain, tau, "l1", 0.1 / 3) > lowest + 1e-6


# Limits and invariants


@pytest.mark.parametrize("penalty", PENALTIES)
@pytest.mark.parametrize("weight", [0, 5e-324, 1e-320])
def test_weight_zero_gives_the_expected_label(penalty, weight):
    q, tau = pixels(3)
    options = {"penalty": penalty, "penalty_weight": weight}
    torch.testing.assert_close(nacl_minimum(q, tau, **options), q, rtol=0, atol=1e-15)
    torch.testing.assert_close(nacl_minimum_logits(q, tau, **options), q.log(), rtol=0, atol=1e-12)


@pytest.mark.parametrize("penalty", PENALTIES)
@pytest.mark.parametrize("weight", [1e-300, 1e-12, 1e12, 1e300])
def test_extreme_weights_stay_finite_and_end_at_the_label_or_at_tau(penalty, weight):
    q, tau = pixels(4)
    options = {"penalty": penalty, "penalty_weight": weight}
    p = nacl_minimum(q, tau, **options)
    assert nacl_minimum_logits(q, tau, **options).isfinite().all()
    torch.testing.assert_close(p, q if weight < 1 else tau.softmax(1), rtol=0, atol=1e-10)


def test_a_box_as_wide_as_the_simplex_leaves_softmax_of_tau():
    q, tau = pixels(5)
    for weight in (5.0, 7.0):
        torch.testing.assert_close(nacl_minimum(q, tau, penalty_weight=weight), tau.softmax(1), rtol=0, atol=1e-14)
        logits = nacl_minimum_logits(q, tau, penalty_weight=weight)
        torch.testing.assert_close(logits, tau, rtol=0, atol=1e-14)


def test_huber_lies_between_l1_and_l2():
    q, tau = pixels(4)
    wide = nacl_minimum(q, tau, penalty="huber", penalty_weight=0.6, delta=100)
    torch.testing.assert_close(wide, nacl_minimum(q, tau, penalty="l2", penalty_weight=0.3), rtol=0, atol=1e-12)
    narrow = nacl_minimum(q, tau, penalty="huber", penalty_weight=0.6 / 1e-7, delta=1e-7)
    torch.testing.assert_close(narrow, nacl_minimum(q, tau, penalty_weight=0.6), rtol=0, atol=1e-6)


@pytest.mark.parametrize("penalty", PENALTIES)
@pytest.mark.parametrize("spatial", [(), (5,), (2, 3), (2, 1, 3)])
def test_every_pixel_is_solved_on_its_own(penalty, spatial):
    count = 2 * math.prod(spatial)
    q, tau = pixels(4, count=count)
    maps = [flat.view(2, *spatial, 4).movedim(-1, 1).contiguous() for flat in (q, tau)]
    p = nacl_minimum(*maps, penalty=penalty)
    assert p.shape == (2, 4, *spatial)
    flat = p.movedim(1, -1).reshape(count, 4)
    torch.testing.assert_close(flat, nacl_minimum(q, tau, penalty=penalty), rtol=0, atol=1e-14)
    same = nacl_minimum(*(m.float() for m in maps), penalty=penalty)
    torch.testing.assert_close(same, p, rtol=0, atol=1e-6)


@light
@given(penalty=st.sampled_from(PENALTIES), order=st.permutations(range(4)), weight=st.floats(0.01, 5))
def test_renumbering_the_classes_renumbers_the_minimum(penalty, order, weight):
    q, tau = pixels(4, count=12)
    p = nacl_minimum(q, tau, penalty=penalty, penalty_weight=weight)
    moved = nacl_minimum(q[:, order], tau[:, order], penalty=penalty, penalty_weight=weight)
    torch.testing.assert_close(moved, p[:, order], rtol=0, atol=1e-13)


def test_no_pixels_give_no_pixels():
    empty = torch.zeros(0, 3)
    for penalty in PENALTIES:
        assert nacl_minimum(empty, empty, penalty=penalty).shape == (0, 3)


# Refusals


@pytest.mark.parametrize("function", [nacl_minimum, nacl_minimum_logits])
@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (
            {"q": torch.tensor([[0.5, 0.4]])},
            ValueError,
            "`q` not negative and of sum 1 over dim 1, got [0.5, 0.4]. Pass",
        ),
        ({"q": torch.tensor([[1.2, -0.2]])}, ValueError, "`q` not negative and of sum 1 over dim 1, got [1.2, -0.2]"),
        (
            {"tau": torch.tensor([[math.nan, 1.0]])},
            ValueError,
            "`tau` not negative and of sum 1 over dim 1, got [nan, ",
        ),
        ({"tau": torch.ones(1, 2)}, ValueError, "`tau` not negative and of sum 1 over dim 1, got [1.0, 1.0]"),
        ({"q": [[0.5, 0.5]]}, TypeError, "`q` to be a floating torch.Tensor, got list"),
        ({"tau": torch.ones(1, 2).int()}, TypeError, "`tau` to be a floating torch.Tensor, got torch.int32"),
        ({"q": torch.ones(3)}, ValueError, "`q` of shape (N, K, ...) with K of at least 2, got (3,)"),
        ({"q": torch.ones(3, 1)}, ValueError, "`q` of shape (N, K, ...) with K of at least 2, got (3, 1)"),
        ({"tau": torch.full((2, 2), 0.5)}, ValueError, "`tau` of the shape of q, (1, 2), got (2, 2)"),
        ({"penalty": "L1"}, ValueError, "`penalty` to be one of 'l1', 'l2', 'huber', got 'L1'. Did you mean 'l1'?"),
        ({"penalty_weight": -0.1}, ValueError, "`penalty_weight` in [0, inf), got -0.1"),
        ({"penalty_weight": True}, TypeError, "`penalty_weight` to be a number, got True"),
        ({"delta": 0}, ValueError, "`delta` in (0, inf), got 0"),
    ],
)
def test_bad_input_is_named(function, change, error, message):
    arguments = {"q": torch.full((1, 2), 0.5), "tau": torch.full((1, 2), 0.5), **change}
    with pytest.raises(error, match=re.escape(f"Expected {message}")):
        function(arguments.pop("q"), arguments.pop("tau"), **arguments)
