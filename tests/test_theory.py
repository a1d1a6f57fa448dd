"""What SVLS hides: a constraint at a balance of 1 : 1."""

import math

import numpy as np
import oracles
import pytest
import sympy
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from oracles import IGNORE, light

from nacl.losses import svls_loss
from nacl.priors import BORDERS, mixed_windows, neighbour_prior, svls_prior
from nacl.theory import (
    svls_gradient,
    svls_minimum,
    svls_price,
    svls_softening,
    svls_split,
    svls_weights,
)

C = 3
odd_sizes = st.sampled_from([3, 5, 7, 9, 15])
windows = st.fixed_dictionaries(
    {"kernel_size": st.sampled_from([1, 3, 5]), "sigma": st.floats(0.3, 10), "border": st.sampled_from(BORDERS)}
)


def data(seed=0, shape=(2, 4, 5), holes=0.3):
    rng = np.random.default_rng(seed)
    target = np.where(rng.random(shape) < holes, IGNORE, rng.integers(0, C, shape))
    logits = torch.as_tensor(2 * rng.standard_normal((shape[0], C, *shape[1:])))
    return logits.requires_grad_(), torch.as_tensor(target)


def test_svls_is_half_cross_entropy_half_divergence_and_an_entropy_proved():
    y, tau, s = (sympy.symbols(f"{name}1:4", positive=True) for name in ("y", "t", "s"))
    triples = list(zip(y, tau, s, strict=True))
    svls = -sum((a + b) / 2 * sympy.log(p) for a, b, p in triples)
    cross_entropy = -sum(a * sympy.log(p) for a, _, p in triples)
    divergence = sum(b * sympy.log(b / p) for _, b, p in triples)
    entropy = -sum(b * sympy.log(b) for b in tau)
    difference = svls - (cross_entropy + divergence + entropy) / 2
    assert sympy.expand(sympy.expand_log(difference)) == 0
    assert sympy.expand(sympy.expand_log(svls - (cross_entropy + divergence) / 2)) != 0  # no part is idle


def test_gradient_of_svls_in_the_logits_proved():
    logits = sympy.symbols("l1:4", real=True)
    y2, y3, t2, t3 = sympy.symbols("y2 y3 t2 t3")
    y, tau = (1 - y2 - y3, y2, y3), (1 - t2 - t3, t2, t3)  # each sums to 1
    s = [sympy.exp(v) / sum(map(sympy.exp, logits)) for v in logits]
    loss = -sum((a + b) / 2 * sympy.log(p) for a, b, p in zip(y, tau, s, strict=True))
    for k, v in enumerate(logits):
        halves = (s[k] - y[k]) / 2 + (s[k] - tau[k]) / 2
        assert sympy.simplify(sympy.diff(loss, v) - halves) == 0


@light
@given(kernel_size=odd_sizes, sigma=st.floats(1e-3, 1e6))
def test_centre_and_neighbours_weigh_one_half_each(kernel_size, sigma):
    weights = svls_weights(kernel_size, sigma)
    assert weights.centre == pytest.approx(0.5, abs=1e-10)
    assert weights.neighbours.sum().item() == pytest.approx(0.5, abs=1e-10)
    assert weights.neighbours[kernel_size // 2, kernel_size // 2] == 0


@pytest.mark.parametrize("sigma", [1e-200, 1e200])
def test_weights_at_the_ends_of_the_number_range(sigma):
    assert svls_weights(3, sigma).centre == pytest.approx(0.5)


@light
@given(kernel_size=odd_sizes, sigma=st.floats(0.5, 20))
def test_neighbours_weigh_half_of_the_normalised_gaussian(kernel_size, sigma):
    g = oracles.gaussian_weights(kernel_size, sigma)
    g[kernel_size // 2, kernel_size // 2] = 0
    np.testing.assert_allclose(svls_weights(kernel_size, sigma).neighbours, g / g.sum() / 2, rtol=0, atol=1e-12)


def test_weights_need_a_neighbour():
    with pytest.raises(ValueError, match="`kernel_size` of at least 3, got 1"):
        svls_weights(1, 1.0)
    with pytest.raises(ValueError, match="`kernel_size` to be odd, got 4"):
        svls_weights(4, 1.0)
    with pytest.raises(ValueError, match=r"`sigma` in \(0, inf\), got 0"):
        svls_weights(3, 0)


@light
@given(options=windows, seed=st.integers(0, 999))
def test_parts_add_up_to_svls_pixel_by_pixel(options, seed):
    logits, target = data(seed)
    loss = svls_loss(logits, target, **options, reduction="none")
    torch.testing.assert_close(svls_split(logits, target, **options).loss, loss, rtol=0, atol=1e-10)


@pytest.mark.parametrize("border", BORDERS)
def test_parts_match_the_loop(border):
    logits, target = data()
    split = svls_split(logits, target, border=border)
    tau = oracles.svls_tau(target.numpy(), C, border=border)
    for b, y, x in np.ndindex(*target.shape):
        log_s, share = oracles.log_softmax(logits[b, :, y, x].detach().numpy()), tau[b, :, y, x]
        entropy = -sum(t * math.log(t) for t in share if t)
        divergence = -sum(t * log_p for t, log_p in zip(share, log_s, strict=True)) - entropy
        expected = (0, 0, 0) if target[b, y, x] == IGNORE else (-log_s[target[b, y, x]], divergence, entropy)
        assert [part[b, y, x].item() for part in split] == pytest.approx(expected, abs=1e-10)


@light
@given(options=windows, seed=st.integers(0, 999))
def test_constraint_is_never_negative(options, seed):
    if options["border"] == "zero":  # tau is no distribution there
        options["border"] = "inside"
    logits, target = data(seed)
    assert (svls_split(logits, target, **options).constraint >= -1e-12).all()


def test_constraint_is_zero_where_the_prediction_is_tau_and_only_there():
    logits, target = data(holes=0)
    tau = svls_prior(target, C, kernel_size=5, sigma=3.0, dtype=torch.float64)
    mixed = (tau > 0).all(dim=1)
    assert mixed.any()
    at_tau = svls_split(tau.log().clamp(min=-800), target, kernel_size=5, sigma=3.0)
    elsewhere = svls_split(logits, target, kernel_size=5, sigma=3.0)
    assert at_tau.constraint[mixed].abs().max() < 1e-12
    assert elsewhere.constraint[mixed].min() > 1e-3


def test_entropy_does_not_depend_on_the_logits():
    logits, target = data()
    one, other = svls_split(logits, target), svls_split(3 - 2 * logits, target)
    torch.testing.assert_close(one.entropy, other.entropy, rtol=0, atol=0)
    assert one.entropy.max() > 0.1
    assert not one.entropy.requires_grad
    assert one.constraint.requires_grad


def test_parts_are_zero_at_ignored_pixels():
    logits, target = data()
    for part in svls_split(logits, target):
        assert (part[target == IGNORE] == 0).all()
    for half in svls_gradient(logits, target):
        assert (half.movedim(1, -1)[target == IGNORE] == 0).all()


@pytest.mark.parametrize("border", BORDERS)
@pytest.mark.parametrize("kernel_size", [1, 3, 5])
def test_gradient_is_that_of_autograd_in_total_and_by_halves(kernel_size, border):
    logits, target = data()
    options = {"kernel_size": kernel_size, "sigma": 0.8, "border": border}
    halves, split = svls_gradient(logits, target, **options), svls_split(logits, target, **options)
    pairs = [
        (svls_loss(logits, target, **options, reduction="sum"), halves.total),
        (split.cross_entropy.sum() / 2, halves.label),
        (split.constraint.sum() / 2, halves.constraint),
    ]
    for value, expected in pairs:
        (slope,) = torch.autograd.grad(value, logits, retain_graph=True)
        torch.testing.assert_close(slope, expected.detach(), rtol=0, atol=1e-12)


@light
@given(options=windows, price=st.floats(0, 20), seed=st.integers(0, 999))
def test_minimum_is_a_prediction_at_which_the_priced_gradient_vanishes(options, price, seed):
    _, target = data(seed)
    s = svls_minimum(target, C, price=price, **options)
    halves = svls_gradient(s.log().clamp(min=-800), target, **options)
    valid = target != IGNORE
    torch.testing.assert_close(s.sum(dim=1)[valid], torch.ones(int(valid.sum())).double(), rtol=0, atol=1e-12)
    assert (halves.label + price * halves.constraint).abs().max() < 1e-12


def test_minimum_is_the_label_at_price_zero_and_that_of_svls_at_one():
    _, target = data(holes=0)
    np.testing.assert_allclose(svls_minimum(target, C, price=0), oracles.one_hot(target.numpy(), C))
    np.testing.assert_allclose(svls_minimum(target, C), oracles.prior(target.numpy(), C, "gaussian"), atol=1e-12)


@pytest.mark.parametrize(("price", "error"), [(-1, ValueError), (math.inf, ValueError), (True, TypeError)])
def test_bad_price_is_named(price, error):
    with pytest.raises(error, match=f"Expected `price` .* got {price}"):
        svls_minimum(torch.zeros(1, 2, 2).long(), 2, price=price)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_logits_give_the_float32_parts_of_svls(dtype):
    logits, target = data()
    split = svls_split(logits.to(dtype), target)
    assert split.loss.dtype == torch.float32
    torch.testing.assert_close(split.loss, svls_loss(logits.to(dtype), target, reduction="none"))


def test_infinite_logit_of_a_class_without_weight_costs_nothing():
    logits = torch.zeros(1, 2, 1, 3)
    logits[:, 1] = -math.inf
    assert (svls_split(logits, torch.zeros(1, 1, 3).long()).loss == 0).all()


@pytest.mark.parametrize("function", [svls_split, svls_gradient])
def test_bad_input_is_named(function):
    logits, target = torch.zeros(1, 2, 2, 2), torch.zeros(1, 2, 2).long()
    with pytest.raises(ValueError, match=r"`target` of shape \(1, 2, 2\), got \(1, 2, 3\)"):
        function(logits, torch.zeros(1, 2, 3).long())
    with pytest.raises(ValueError, match=r"got 'insid'\. Did you mean 'inside'"):
        function(logits, target, border="insid")
    with pytest.raises(ValueError, match="`logits` without NaN"):
        function(torch.full_like(logits, math.nan), target)


@pytest.mark.parametrize(("kernel_size", "sigma"), [(3, 0.5), (5, 1.0), (7, 4.0)])
def test_the_price_is_one_for_svls_and_zero_for_cross_entropy(kernel_size, sigma):
    torch.manual_seed(0)
    logits = torch.randn(1, 4, 9, 9, dtype=torch.float64, requires_grad=True)
    target = torch.randint(0, 4, (1, 9, 9))
    window = {"kernel_size": kernel_size, "sigma": sigma}
    for loss, price in [(svls_loss(logits, target, **window), 1), (F.cross_entropy(logits, target), 0)]:
        (gradient,) = torch.autograd.grad(loss, logits)
        assert svls_price(gradient, logits, target, **window) == pytest.approx(price, abs=1e-9)


@pytest.mark.parametrize("border", ["inside", "replicate"])
def test_svls_softens_in_mixed_windows_and_nowhere_else(border):
    target = torch.tensor([[[0, 0, 0, 1, 1], [0, 0, 0, 1, -100], [0, 0, 2, 1, 1]]])
    softening = svls_softening(target, 3, border=border)
    label = neighbour_prior(target, 3, prior="gaussian", border=border, dtype=torch.float64)
    own = label.gather(1, target.clamp(min=0).unsqueeze(1))[:, 0]
    valid = target != -100
    assert torch.equal(softening > 0, mixed_windows(target))
    assert torch.allclose(softening[valid], 1 - own[valid], atol=1e-12, rtol=0)
    assert softening.max() <= 0.5
