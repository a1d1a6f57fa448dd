"""How confident each loss lets a pixel become: by formula, and by minimising the loss itself."""

import math
import re

import numpy as np
import pytest
import scipy.optimize
import sympy
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from oracles import light

from nacl.losses import cross_entropy_loss, nacl_loss, svls_loss
from nacl.priors import neighbour_prior, svls_prior
from nacl.theory import confidence_ceiling, family_table, nacl_minimum

WINDOWS = ([1, 1, 1], [0, 1, 1], [0, 1, 2])  # certainly inside, at a border of two classes, where three meet


def minimised(loss, num_classes):
    """softmax of the logits (class 0 the label's) at which a smooth loss of logits (1, K) is smallest."""

    def value_and_slope(x):
        x = torch.as_tensor(x)[None].requires_grad_()
        value = loss(x).sum()
        return value.item(), torch.autograd.grad(value, x)[0][0].numpy()

    options = {"gtol": 1e-12, "maxiter": 2000}
    start = np.eye(num_classes)[0]
    found = scipy.optimize.minimize(value_and_slope, start, jac=True, method="BFGS", options=options)
    return torch.as_tensor(found.x).softmax(0)


def cross_entropy(logits):
    return -logits.log_softmax(1)[:, 0]


def entropy(logits):
    return torch.special.entr(logits.softmax(1)).sum(1)


def penalty_of(distance, penalty, delta=1.0):
    size = distance.abs()
    if penalty == "huber":
        return torch.where(size <= delta, size**2 / 2, delta * (size - delta / 2))
    return size if penalty == "l1" else size**2


def mbls(logits, margin, c, penalty, delta=1.0):
    excess = (logits.amax(1, keepdim=True) - logits - margin).clamp(min=0)
    return cross_entropy(logits) + c * penalty_of(excess, penalty, delta).sum(1)


def apart(confidence, num_classes):
    """Logits (1, K) of one that exceeds the others, which are equal, so that it has this confidence."""
    logits = torch.zeros(1, num_classes, dtype=torch.float64)
    logits[0, 0] = math.log(confidence / (1 - confidence) * (num_classes - 1))
    return logits


def assert_no_step_lowers(loss, logits, margin=1e-14):
    rng = torch.Generator().manual_seed(0)
    lowest = loss(logits)
    for size in (1e-4, 1e-2, 1.0):
        steps = size * torch.randn(200, logits.shape[1], generator=rng, dtype=torch.float64)
        assert (loss(logits + steps) >= lowest - margin).all()


# Values


@pytest.mark.parametrize(
    ("loss", "parameters", "ceiling"),
    [
        ("ce", {}, 1),
        ("focal", {}, 1),
        ("label_smoothing", {}, 0.925),
        ("svls", {}, 1),
        ("svls", {"tau": (0.5, 0.5, 0, 0)}, 0.75),
        ("ecp", {}, 1),  # 1 - 1.3e-17
        ("ecp", {"penalty_weight": 1}, 0.956245),
        ("mbls", {}, 0.999864),
        ("mbls", {"penalty_weight": 0}, 1),
        ("nacl", {}, 0.975),
        ("nacl", {"tau": (0.6, 0.4, 0, 0)}, 0.975),
        ("nacl", {"tau": (1 / 3, 1 / 3, 1 / 3, 0)}, 0.975),
        ("nacl", {"penalty_weight": 0}, 1),
        ("nacl", {"penalty_weight": 3}, math.e / (math.e + 3)),
        ("nacl", {"penalty": "l2"}, 0.90968),
        ("nacl", {"penalty": "l2", "tau": (0.6, 0.4, 0, 0)}, 0.89551),
        ("nacl", {"penalty": "l2", "tau": (1 / 3, 1 / 3, 1 / 3, 0)}, 0.88594),
        ("nacl", {"softmax": True}, 1),
        ("nacl", {"softmax": True, "penalty_weight": 99}, 1),
        ("nacl", {"softmax": True, "penalty_weight": 2, "tau": (0.6, 0.4, 0, 0)}, 1),
        ("nacl", {"softmax": True, "penalty_weight": 2.5, "tau": (0.6, 0.4, 0, 0)}, 0.8),
        ("nacl", {"softmax": True, "penalty_weight": 9, "tau": (0.6, 0.4, 0, 0)}, 0.6),
    ],
)
def test_ceilings_of_four_classes(loss, parameters, ceiling):
    assert confidence_ceiling(loss, 4, **parameters) == pytest.approx(ceiling, abs=5e-6)


# Against the losses themselves


def test_cross_entropy_has_none():
    target = torch.zeros(1, 1, 1).long()
    for size in (1.0, 10.0, 100.0, 700.0):
        logits = torch.tensor([size, 0, 0], dtype=torch.float64).view(1, 3, 1, 1).requires_grad_()
        (slope,) = torch.autograd.grad(cross_entropy_loss(logits, target), logits)
        assert (slope[0, 1:] > 0).all()  # the others still fall


@light
@given(gamma=st.floats(0, 6), p=st.floats(1e-6, 1 - 1e-6), step=st.floats(1e-9, 0.5))
def test_focal_loss_only_falls(gamma, p, step):
    focal = lambda p: -((1 - p) ** gamma) * math.log(p)  # noqa: E731
    assert 0 <= focal(min(1, p + step)) <= focal(p)


@light
@given(gamma=st.floats(1, 6), seed=st.integers(0, 999))
def test_focal_loss_lies_above_its_lagrangian(gamma, seed):
    logits = 3 * torch.randn(50, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    p = logits.softmax(1)[:, 0]
    focal = -((1 - p) ** gamma) * p.log()
    assert (focal >= cross_entropy(logits) - gamma * entropy(logits) - 1e-12).all()


def test_label_smoothing_is_cross_entropy_and_a_linear_penalty_proved():
    logits, alpha = sympy.symbols("l1:5", real=True), sympy.symbols("alpha")
    lse = sympy.log(sum(map(sympy.exp, logits)))
    smoothed = -(1 - alpha) * (logits[0] - lse) - alpha / 4 * sum(v - lse for v in logits)
    penalty = alpha / 4 * sum(logits[0] - v for v in logits)
    assert sympy.simplify(smoothed - (lse - logits[0]) - penalty) == 0


@pytest.mark.parametrize("num_classes", [2, 4])
@pytest.mark.parametrize("smoothing", [0.05, 0.1, 0.5, 1.0])
def test_label_smoothing(smoothing, num_classes):
    label = torch.full((1, num_classes), smoothing / num_classes, dtype=torch.float64)
    label[0, 0] += 1 - smoothing
    p = minimised(lambda x: -(label * x.log_softmax(1)).sum(1), num_classes)[0]
    assert confidence_ceiling("label_smoothing", num_classes, smoothing=smoothing) == pytest.approx(p.item(), abs=1e-8)


@pytest.mark.parametrize("labels", WINDOWS[1:])
def test_svls(labels):
    target = torch.tensor([[labels]])
    tau = svls_prior(target, 4, dtype=torch.float64)[0, :, 0, 1]
    ceiling = confidence_ceiling("svls", 4, tau=tau[[1, 0, 2, 3]])
    at_ceiling = ((F.one_hot(torch.tensor(1), 4) + tau) / 2).log().clamp(min=-40)
    logits = torch.zeros(1, 4, 1, 3, dtype=torch.float64)
    logits[0, :, 0, 1] = at_ceiling
    logits.requires_grad_()
    (slope,) = torch.autograd.grad(svls_loss(logits, target, reduction="none")[0, 0, 1], logits)
    assert slope.abs().max() < 1e-15
    assert logits.softmax(1)[0, 1, 0, 1].item() == pytest.approx(ceiling, abs=1e-15)


@pytest.mark.parametrize("num_classes", [2, 3, 4, 6])
@pytest.mark.parametrize("c", [0.1, 0.3, 1.0, 10.0])
def test_entropy_penalty(c, num_classes):
    ceiling = confidence_ceiling("ecp", num_classes, penalty_weight=c * num_classes)
    p = minimised(lambda x: cross_entropy(x) - c * entropy(x), num_classes)[0]
    assert ceiling == pytest.approx(p.item(), abs=1e-7)
    m = math.log(ceiling / (1 - ceiling) * (num_classes - 1))
    assert c * m == pytest.approx(1 + (num_classes - 1) * math.exp(-m), rel=1e-11)


def test_entropy_penalty_is_stationary_at_its_formula_proved():
    p, beta, classes = sympy.symbols("p beta K", positive=True)
    spread = -p * sympy.log(p) - (1 - p) * sympy.log((1 - p) / (classes - 1))
    slope = sympy.diff(-sympy.log(p) - beta * spread, p)
    margin = sympy.log(p) - sympy.log(1 - p) + sympy.log(classes - 1)
    assert sympy.simplify(sympy.expand_log(slope - (beta * margin - 1 / p), force=True)) == 0


def test_margin_loss_is_stationary_at_its_formulas_proved():
    d, margin, c = sympy.symbols("d m c", positive=True)
    for classes in (2, 3, 5):
        others = classes - 1
        confidence = 1 / (1 + others * sympy.exp(-d))
        beyond = lambda penalty: sympy.log(1 + others * sympy.exp(-d)) + c * others * penalty  # noqa: B023, E731
        assert sympy.simplify(sympy.diff(beyond(d - margin), d) - (confidence - (1 - others * c))) == 0
        wanted = others * (2 * c * (d - margin) - 1 / (sympy.exp(d) + others))
        assert sympy.simplify(sympy.diff(beyond((d - margin) ** 2), d) - wanted) == 0


@pytest.mark.parametrize("num_classes", [2, 4, 5])
@pytest.mark.parametrize("margin", [0.0, 0.5, 3.0, 10.0])
@pytest.mark.parametrize("c", [0.001, 0.025, 0.3, 2.0])
@pytest.mark.parametrize("penalty", ["l1", "l2", "huber"])
def test_margin_loss(penalty, c, margin, num_classes):
    options = {"margin": margin, "penalty": penalty, "delta": 0.2}
    ceiling = confidence_ceiling("mbls", num_classes, penalty_weight=c * num_classes, **options)
    assert_no_step_lowers(lambda x: mbls(x, margin, c, penalty, 0.2), apart(ceiling, num_classes))
    at_margin = 1 / (1 + (num_classes - 1) * math.exp(-margin))
    assert ceiling >= at_margin - 1e-15
    if penalty == "l1" and 1 - (num_classes - 1) * c < at_margin:
        assert ceiling == at_margin
    if penalty == "l2":
        assert ceiling > at_margin


@pytest.mark.parametrize("labels", WINDOWS)
@pytest.mark.parametrize("penalty", ["l1", "l2", "huber"])
@pytest.mark.parametrize("weight", [0.1, 1.0, 3.0])
def test_nacl_on_the_logits(weight, penalty, labels):
    target = torch.tensor([[labels]])
    tau = neighbour_prior(target, 4, dtype=torch.float64)[0, :, 0, 1]
    options = {"penalty": penalty, "penalty_weight": weight}
    ceiling = confidence_ceiling("nacl", 4, tau=tau[[1, 0, 2, 3]], **options)
    certain = F.one_hot(torch.tensor([1]), 4).double()
    assert ceiling == pytest.approx(nacl_minimum(certain, tau[None], **options)[0, 1].item(), abs=1e-14)
    if penalty == "l2":

        def loss_of_the_middle(x):
            logits = torch.zeros(1, 4, 1, 3, dtype=torch.float64).index_fill(3, torch.tensor(1), 1) * x[0].view(4, 1, 1)
            return nacl_loss(logits[:, [1, 0, 2, 3]], target, **options, reduction="none")[0, 0, 1]

        assert minimised(loss_of_the_middle, 4)[0].item() == pytest.approx(ceiling, abs=1e-7)


def softmax_nacl(tau, c, penalty, delta=1.0):
    """CE + c sum_k P(s_k - tau_k) of distributions s (..., K), convex in s."""
    return lambda s: -s[..., 0].log() + c * penalty_of(s - tau, penalty, delta).sum(-1)


@pytest.mark.parametrize("tau", [(1, 0, 0), (0.6, 0.4, 0), (0.5, 0.3, 0.2), (0.2, 0.5, 0.3), (0.0, 0.9, 0.1)])
@pytest.mark.parametrize("c", [0.1, 0.5, 0.8, 2.0, 20.0])
@pytest.mark.parametrize("penalty", ["l1", "l2", "huber"])
def test_nacl_on_the_softmax(penalty, c, tau):
    options = {"softmax": True, "penalty": penalty, "delta": 0.25, "penalty_weight": 3 * c}
    ceiling = confidence_ceiling("nacl", 3, tau=tau, **options)
    loss = softmax_nacl(torch.tensor(tau, dtype=torch.float64), c, penalty, 0.25)
    if penalty == "l1":
        assert ceiling == pytest.approx(min(1, max(tau[0], 1 / (2 * c))), abs=1e-14)
    share = torch.linspace(0, 1, 20001, dtype=torch.float64)  # what the second class has of all but the first

    def lowest(p):
        return loss(torch.stack([torch.full_like(share, p), (1 - p) * share, (1 - p) * (1 - share)], dim=-1)).min()

    # lowest(p) is convex, so what is below both its neighbours is the minimum, to their distance
    assert all(lowest(ceiling) < lowest(p) for p in (ceiling - 2e-3, ceiling + 2e-3) if p < 1)


@pytest.mark.parametrize("penalty", ["l1", "l2"])
def test_nacl_on_the_softmax_lets_a_pixel_inside_an_object_go(penalty):
    target = torch.zeros(1, 1, 1).long()
    losses = []
    for size in (1.0, 5.0, 20.0, 40.0):
        logits = torch.tensor([size, 0, 0, 0], dtype=torch.float64).view(1, 4, 1, 1)
        losses.append(nacl_loss(logits, target, softmax=True, penalty=penalty, penalty_weight=50.0).item())
    assert losses == sorted(losses, reverse=True)
    assert 0 <= losses[-1] < 1e-13


# Limits


def test_a_heavy_penalty_ends_where_its_constraint_says():
    tau = (0.5, 0.3, 0.2)
    free = torch.tensor(tau).double().softmax(0)[0].item()
    for penalty in ("l1", "l2", "huber"):
        heavy = {"penalty": penalty, "penalty_weight": 1e9}
        assert confidence_ceiling("nacl", 3, tau=tau, **heavy) == pytest.approx(free, abs=1e-6)
        assert confidence_ceiling("nacl", 3, tau=tau, softmax=True, **heavy) == pytest.approx(0.5, abs=1e-6)
        assert confidence_ceiling("mbls", 3, margin=2.0, **heavy) == pytest.approx(1 / (1 + 2 * math.exp(-2)))
    assert confidence_ceiling("ecp", 3, penalty_weight=1e9) == pytest.approx(1 / 3)


@pytest.mark.parametrize("weight", [0, 5e-324, 1e-320, 1e-12])
def test_a_light_penalty_ends_at_cross_entropy_or_at_the_margin(weight):
    for penalty in ("l1", "l2", "huber"):
        options = {"penalty": penalty, "penalty_weight": weight}
        assert confidence_ceiling("nacl", 3, **options) == pytest.approx(1, abs=1e-9)
        assert confidence_ceiling("nacl", 3, softmax=True, tau=(0.5, 0.5, 0), **options) == 1
        assert confidence_ceiling("mbls", 3, **options) > 1 - 1e-4
    tiny = {"penalty": "huber", "penalty_weight": weight, "delta": 1e-320}
    assert confidence_ceiling("mbls", 3, **tiny) == confidence_ceiling("nacl", 3, **tiny) == 1
    assert confidence_ceiling("ecp", 3, penalty_weight=weight) == 1
    assert confidence_ceiling("label_smoothing", 3, smoothing=0) == 1


def test_equivalent_label_smoothing_of_nacl():
    for num_classes, weight in ((2, 0.1), (4, 0.1), (6, 0.9)):
        smoothing = weight / (num_classes - 1)
        nacl = confidence_ceiling("nacl", num_classes, penalty_weight=weight)
        assert confidence_ceiling("label_smoothing", num_classes, smoothing=smoothing) == pytest.approx(nacl)


# The table, and refusals


def test_table_has_a_row_for_every_ceiling():
    rows = {row.name: row for row in family_table()}
    names = ("CE", "LS", "FL", "ECP", "MbLS", "SVLS", "NACL", "CRaC")
    assert tuple(rows) == names
    assert all(all(row) for row in rows.values())


@pytest.mark.parametrize(
    ("name", "loss", "parameters", "symbols"),
    [
        ("LS", "label_smoothing", {"smoothing": 0.3}, {"alpha": 0.3}),
        ("MbLS", "mbls", {"margin": 3.0, "penalty_weight": 0.2}, {"margin": 3.0, "l": 0.2}),
        ("MbLS", "mbls", {"margin": 9.0, "penalty_weight": 1e-4}, {"margin": 9.0, "l": 1e-4}),
        ("SVLS", "svls", {"tau": (0.4, 0.6, 0, 0, 0)}, {"tau_y": 0.4}),
        ("NACL", "nacl", {"penalty_weight": 0.3}, {"l": 0.3, "softmax_y": math.e / (math.e + 4)}),
        ("NACL", "nacl", {"penalty_weight": 4}, {"l": 4, "softmax_y": math.e / (math.e + 4)}),
    ],
)
def test_formulas_of_the_table_are_those_that_are_computed(name, loss, parameters, symbols):
    formula = next(row for row in family_table() if row.name == name).ceiling
    formula = formula.replace("lambda", "l").replace("softmax(tau)_y", "softmax_y").replace("(K-1) ", "(K-1) * ")
    formula = re.sub(r" for L1|; none inside.*", "", formula)
    value = eval(formula, {"K": 5, "exp": math.exp, "max": max, **symbols})
    assert confidence_ceiling(loss, 5, **parameters) == pytest.approx(value, abs=1e-12)


@pytest.mark.parametrize(
    ("loss", "num_classes", "parameters", "error", "message"),
    [
        (
            "NACL",
            4,
            {},
            ValueError,
            "`loss` to be one of 'ce', 'label_smoothing', 'focal', 'ecp', 'mbls', 'svls', 'nacl', ",
        ),
        ("ce", 1, {}, ValueError, "`num_classes` of at least 2, got 1"),
        ("mbls", 4, {"margn": 1}, ValueError, "got 'margn'. Did you mean 'margin'?"),
        ("mbls", 4, {"margin": -1}, ValueError, "`margin` in [0, inf), got -1"),
        ("label_smoothing", 4, {"smoothing": 1.5}, ValueError, "`smoothing` in [0, 1], got 1.5"),
        ("focal", 4, {"gamma": -1}, ValueError, "`gamma` in [0, inf), got -1"),
        ("ecp", 4, {"penalty_weight": True}, TypeError, "`penalty_weight` to be a number, got True"),
        ("nacl", 4, {"penalty": "l3"}, ValueError, "`penalty` to be one of 'l1', 'l2', 'huber', got 'l3'"),
        ("nacl", 4, {"delta": 0}, ValueError, "`delta` in (0, inf), got 0"),
        ("nacl", 4, {"softmax": 1}, TypeError, "`softmax` to be True or False, got 1"),
        ("nacl", 4, {"tau": (0.5, 0.5)}, ValueError, "`tau` to hold 4 shares, got 2 (num_classes=4)"),
        ("svls", 2, {"tau": (0.5, 0.6)}, ValueError, "`tau` not negative and of sum 1 over dim 1, got [0.5, 0.6]"),
    ],
)
def test_bad_input_is_named(loss, num_classes, parameters, error, message):
    with pytest.raises(error, match=re.escape(message)):
        confidence_ceiling(loss, num_classes, **parameters)
