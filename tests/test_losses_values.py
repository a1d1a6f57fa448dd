"""Values of the losses: windows and borders against loops, worked by hand, and in the limits of their parameters."""

import math

import numpy as np
import oracles
import pytest
import torch
from loss_cases import C, Variant, data, gradient
from oracles import IGNORE
from torch.nn import functional as F

from nacl.losses import (
    cross_entropy_loss,
    dice_loss,
    entropy_penalty_loss,
    focal_loss,
    l1_ace_loss,
    label_smoothing_loss,
    mbls_loss,
    nacl_loss,
    svls_loss,
)
from nacl.priors import BORDERS, neighbour_prior

WINDOWS = [
    *(((1, 6, 5), size) for size in (1, 3, 5, 7, (3, 5), (1, 3))),
    *(((1, 4, 3, 3), size) for size in (1, 3, 5, (3, 3, 1), (1, 3, 5))),
]
WINDOWED = [
    Variant("svls", {"sigma": 0.8}),
    Variant("nacl", {"penalty_weight": 1.0}),
    Variant("nacl", {"prior": "image_proportions_l1", "penalty": "l2"}),
    Variant("crac", {"multipliers": 0.5, "margin": 2.0}),
]


def same(got, expected, atol=1e-12):
    torch.testing.assert_close(got, expected, rtol=0, atol=atol)


def one_pixel(*logits):
    return torch.tensor(logits, dtype=torch.float64).view(1, -1, 1, 1)


def label(k):
    return torch.full((1, 1, 1), k)


# Windows


@pytest.mark.parametrize("border", BORDERS)
@pytest.mark.parametrize(("shape", "kernel_size"), WINDOWS, ids=str)
@pytest.mark.parametrize("loss", WINDOWED, ids=["svls", "nacl", "nacl image", "crac"])
def test_window_and_border_match_the_loop(loss, shape, kernel_size, border):
    logits, target = data(shape)
    around = {"kernel_size": kernel_size, "border": border}
    fast = loss(logits, target, **around, reduction="none")
    image = {key: value.numpy() for key, value in loss.data(target).items()}
    slow = oracles.pixel_losses(logits.detach().numpy(), target.numpy(), loss.name, **loss.options, **around, **image)
    np.testing.assert_allclose(fast.detach(), slow, rtol=0, atol=1e-10)


@pytest.mark.parametrize(("shape", "kernel_size"), [((1, 9, 8), 17), ((1, 3, 3, 3), 7)], ids=str)
@pytest.mark.parametrize("loss", WINDOWED[:2], ids=["svls", "nacl"])
def test_windows_of_more_than_255_pixels_match_the_loop(loss, shape, kernel_size):
    target = torch.ones(shape).long()  # counts of one class that do not fit a byte
    target[0, 0, 0] = 2
    logits, _ = data(shape)
    fast = loss(logits, target, kernel_size=kernel_size, border="replicate", reduction="none")
    around = {"kernel_size": kernel_size, "border": "replicate"}
    slow = oracles.pixel_losses(logits.detach().numpy(), target.numpy(), loss.name, **loss.options, **around)
    np.testing.assert_allclose(fast.detach(), slow, rtol=0, atol=1e-10)


# By hand. Logits log 3 and 0: probabilities 3/4 and 1/4

THREE_TO_ONE = one_pixel(math.log(3), 0)
RIGHT, WRONG = math.log(4 / 3), math.log(4)


@pytest.mark.parametrize(
    ("function", "options", "of_right", "of_wrong"),
    [
        (cross_entropy_loss, {}, RIGHT, WRONG),
        (label_smoothing_loss, {"smoothing": 0.2}, 0.9 * RIGHT + 0.1 * WRONG, 0.1 * RIGHT + 0.9 * WRONG),
        (focal_loss, {"gamma": 2}, RIGHT / 16, 9 / 16 * WRONG),
        (focal_loss, {"gamma": 3, "gamma_unsure": 5, "threshold": 0.3}, RIGHT / 4**3, 3**5 / 4**5 * WRONG),
        (
            entropy_penalty_loss,
            {"penalty_weight": 1.0},
            RIGHT - (0.75 * RIGHT + 0.25 * WRONG) / 2,
            WRONG - (0.75 * RIGHT + 0.25 * WRONG) / 2,
        ),
        (nacl_loss, {"softmax": True, "penalty_weight": 1.0}, RIGHT + 0.25, WRONG + 0.75),
        (nacl_loss, {"softmax": True, "penalty": "l2", "penalty_weight": 1.0}, RIGHT + 1 / 16, WRONG + 9 / 16),
        (dice_loss, {"smooth": 1e-300, "include_background": True, "reduction": "sum"}, 1 - 6 / 7 + 1, 1 + 1 - 2 / 5),
        (l1_ace_loss, {}, 0.25, 0.75),
    ],
)
def test_one_pixel_by_hand(function, options, of_right, of_wrong):
    assert function(THREE_TO_ONE, label(0), **options).item() == pytest.approx(of_right, rel=1e-12)
    assert function(THREE_TO_ONE, label(1), **options).item() == pytest.approx(of_wrong, rel=1e-12)


@pytest.mark.parametrize(
    ("options", "penalty"),
    [
        ({"margin": 1.0}, 0.3 * 2 / 2),
        ({"margin": 1.0, "penalty": "l2"}, 0.3 * 4 / 2),
        ({"margin": 1.0, "penalty": "huber", "delta": 0.5}, 0.3 * 0.5 * (2 - 0.25) / 2),
        ({"margin": 1.0, "penalty": "huber", "delta": 4.0}, 0.3 * 2 / 2),
        ({"margin": 0.0}, 0.3 * 3 / 2),
        ({"margin": 3.0}, 0.0),
    ],
)
def test_mbls_by_hand(options, penalty):
    logits = one_pixel(3, 0)
    loss = mbls_loss(logits, label(0), penalty_weight=0.3, **options)
    assert loss.item() == pytest.approx(math.log1p(math.exp(-3)) + penalty, rel=1e-12)


def test_svls_at_an_edge_by_hand():
    logits = THREE_TO_ONE.repeat(1, 1, 1, 3)
    loss = svls_loss(logits, torch.tensor([[[0, 0, 1]]]), reduction="none").flatten().tolist()
    assert loss == pytest.approx([RIGHT, 0.75 * RIGHT + 0.25 * WRONG, (RIGHT + WRONG) / 2], rel=1e-12)


@pytest.mark.parametrize(
    ("options", "distances"),
    [
        ({}, [(0.5 + 0.5) / 2, (1.5 + 1.5) / 2]),
        ({"penalty": "l2"}, [(0.25 + 0.25) / 2, (2.25 + 2.25) / 2]),
        ({"penalty": "huber", "delta": 1.0}, [0.125, 1.0]),
        ({"kernel_size": 1}, [(1 + 0) / 2, (2 + 2) / 2]),
    ],
)
def test_nacl_of_two_pixels_by_hand(options, distances):
    logits, target = torch.tensor([[[[0.0, 2.0]], [[0.0, -1.0]]]]).double(), torch.tensor([[[0, 1]]])
    loss = nacl_loss(logits, target, penalty_weight=0.2, reduction="none", **options)
    cross_entropy = [math.log(2), math.log(1 + math.exp(3))]
    expected = [ce + 0.2 * d for ce, d in zip(cross_entropy, distances, strict=True)]
    assert loss.flatten().tolist() == pytest.approx(expected, rel=1e-12)


def test_dice_of_a_perfect_an_absent_and_an_invented_object():
    def loss_of(labels, predicted):
        logits = 100.0 * F.one_hot(torch.tensor([[predicted]]), 2).movedim(-1, 1)
        return dice_loss(logits.double(), torch.tensor([[labels]])).item()

    assert loss_of([0, 1, 1], [0, 1, 1]) == pytest.approx(0, abs=1e-6)
    assert loss_of([0, 0, 0], [0, 0, 0]) == pytest.approx(0, abs=1e-6)
    assert loss_of([0, 0, 0], [0, 1, 1]) == pytest.approx(1, abs=1e-5)
    assert loss_of([0, 1, 1], [0, 0, 0]) == pytest.approx(1, abs=1e-5)


def test_calibrated_forecast_has_no_calibration_error():
    logits = THREE_TO_ONE.repeat(1, 1, 1, 4)
    assert l1_ace_loss(logits, torch.tensor([[[0, 0, 1, 0]]])).item() == pytest.approx(0, abs=1e-12)


def test_penalty_weight_is_the_papers_times_the_classes():
    logits, target = torch.zeros(1, 5, 1, 1), label(2)
    penalty = nacl_loss(logits, target, penalty_weight=0.5) - cross_entropy_loss(logits, target)
    assert penalty.item() == pytest.approx(0.5 / 5 * 1)  # the one-hot label is 1 away from no logits at all


# Limits


def test_cross_entropy_is_torchs():
    logits, target = data()
    same(cross_entropy_loss(logits, target), F.cross_entropy(logits, target))


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
def test_label_smoothing_is_torchs(smoothing, reduction):
    logits, target = data()
    fast = label_smoothing_loss(logits, target, smoothing=smoothing, reduction=reduction)
    same(fast, F.cross_entropy(logits, target, label_smoothing=smoothing, reduction=reduction))


@pytest.mark.parametrize(
    "loss",
    [
        Variant("label_smoothing", {"smoothing": 0}),
        Variant("focal", {"gamma": 0}),
        Variant("focal", {"gamma": 0, "gamma_unsure": 0}),
        Variant("ecp", {"penalty_weight": 0}),
        Variant("mbls", {"penalty_weight": 0}),
        Variant("mbls", {"margin": 1e9}),
        Variant("mbls", {"margin": 1e9, "penalty": "l2"}),
        Variant("svls", {"kernel_size": 1}),
        *(Variant("nacl", {"penalty_weight": 0, "prior": p}) for p in ("mean", "gaussian", "gradient")),
        Variant("nacl", {"penalty_weight": 0, "softmax": True}),
        Variant("nacl", {"penalty": "huber", "delta": 1e-14}),
        Variant("crac", {"multipliers": 0, "rho": 0}),
    ],
    ids=str,
)
def test_loss_is_cross_entropy_in_the_limit(loss):
    logits, target = data()
    value, limit = loss(logits, target), cross_entropy_loss(logits, target)
    same(value, limit)
    same(gradient(value, logits), gradient(limit, logits))


def test_flsd_of_one_exponent_is_the_focal_loss():
    logits, target = data()
    same(focal_loss(logits, target, gamma=3, gamma_unsure=3), focal_loss(logits, target, gamma=3))


def test_label_smoothing_is_mbls_without_margin_where_the_network_is_right():
    logits, _ = data()
    target = logits.argmax(dim=1)
    smoothed = label_smoothing_loss(logits, target, smoothing=0.3, reduction="none")
    same(smoothed, mbls_loss(logits, target, margin=0, penalty_weight=0.3, reduction="none"))


@pytest.mark.parametrize("name", ["nacl", "mbls"])
def test_huber_is_half_of_l2_for_a_large_delta_and_l1_for_a_small_one(name):
    logits, target = data()

    def penalty(**options):
        loss = Variant(name, {"margin": 0.5} if name == "mbls" else {})
        return loss(logits, target, penalty_weight=1.0, **options) - cross_entropy_loss(logits, target)

    same(penalty(penalty="huber", delta=1e6), penalty(penalty="l2") / 2)
    torch.testing.assert_close(
        penalty(penalty="huber", delta=1e-7), 1e-7 * penalty(penalty="l1"), rtol=1e-6, atol=1e-15
    )


def test_svls_inside_an_object_is_cross_entropy():
    logits, _ = data()
    target = torch.full((2, 5, 4), 3)
    same(svls_loss(logits, target), cross_entropy_loss(logits, target))


def test_svls_listens_to_its_kernel_size_and_sigma():
    logits, target = data()
    values = {svls_loss(logits, target, kernel_size=k, sigma=s).item() for k in (3, 5, 7) for s in (0.5, 1.0, 2.0)}
    assert len(values) == 9


@pytest.mark.parametrize("prior", ["mean", "gaussian", "mode"])
def test_nacl_at_its_own_constraint_is_cross_entropy(prior):
    _, target = data(holes=0)
    tau = neighbour_prior(target, C, prior=prior, dtype=torch.float64)
    same(nacl_loss(tau, target, prior=prior, penalty_weight=9), cross_entropy_loss(tau, target))


@pytest.mark.parametrize("labels", [[1, 1, 1], [0, 1, 1], [0, 1, 2]])
def test_l1_minimum_has_confidence_one_minus_weight_over_classes_whatever_tau(labels):
    weight = 0.1
    target = torch.tensor([[labels]])
    tau = neighbour_prior(target, C, dtype=torch.float64)
    others = [0, 2, 3]
    minimum = tau.clone()
    minimum[0, 1, 0, 1] = minimum[0, others, 0, 1].logsumexp(0) + math.log(C / weight - 1)
    assert minimum.softmax(dim=1)[0, 1, 0, 1].item() == pytest.approx(1 - weight / C)

    def loss_of_the_middle(logits):
        return nacl_loss(logits, target, penalty_weight=weight, reduction="none")[0, 0, 1]

    rng = torch.Generator().manual_seed(0)
    lowest = loss_of_the_middle(minimum)
    for size in (1e-3, 1e-1, 1.0):  # the loss is convex, so a local minimum is the minimum
        for _ in range(20):
            step = size * torch.randn(tau.shape, generator=rng, dtype=torch.float64)
            assert loss_of_the_middle(minimum + step) > lowest


# Gradients in closed form


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("rule", ["ce", "svls", "nacl-l1", "nacl-l2"])
def test_gradient_is_the_closed_form(rule, reduction):
    logits, target = data()
    name, _, penalty = rule.partition("-")
    s, y = logits.detach().softmax(dim=1), torch.as_tensor(oracles.one_hot(target.numpy(), C))
    tau = torch.as_tensor(oracles.prior(target.numpy(), C, "gaussian" if name == "svls" else "mean"))
    distance = logits.detach() - tau
    expected = {
        "ce": s - y,
        "svls": s - tau,
        "nacl-l1": s - y + 0.3 * distance.sign() / C,
        "nacl-l2": s - y + 0.3 * 2 * distance / C,
    }[rule]
    valid = (target != IGNORE)[:, None]
    expected = torch.where(valid, expected, 0) / (valid.sum() if reduction == "mean" else 1)
    loss = Variant(name, {"penalty": penalty, "penalty_weight": 0.3} if penalty else {})
    same(gradient(loss(logits, target, reduction=reduction), logits), expected)


def test_largest_logits_of_mbls_share_the_gradient():
    logits = one_pixel(2, 2, -3).requires_grad_()
    slope = gradient(
        mbls_loss(logits, label(0), margin=1, penalty_weight=3) - F.cross_entropy(logits, label(0)), logits
    )
    assert slope.flatten().tolist() == pytest.approx([0.5, 0.5, -1], abs=1e-12)
