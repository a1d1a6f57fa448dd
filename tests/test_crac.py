"""CRaC: its value, its regions, and the multipliers that it learns."""

import copy
import pickle
import re

import numpy as np
import oracles
import pytest
import torch
from loss_cases import PER_CLASS, C, by_pixel, data
from oracles import IGNORE

from nacl.losses import CRaCLoss, cross_entropy_loss
from nacl.losses.lagrangian import LAGRANGIANS, crac_loss
from nacl.priors import BORDERS, mixed_shares, neighbour_prior

SLOPES = {
    "phr": lambda h, m, rho: m + rho * h,
    "p2": lambda h, m, rho: m + 2 * m * rho * h + rho**2 * h**2 / 2,
    "p3": lambda h, m, rho: m + 2 * m * rho * h,
}


def learned(logits, target, multipliers, rho, *, margin=10.0, lagrangian="phr", low=1e-6, high=1e6, **window):
    """The multipliers after one epoch of validation, and the mean distances: (2, C) each, by loops."""
    tau = oracles.prior(target, logits.shape[1], "mean", **window)
    slopes, distances = ([[[] for _ in range(logits.shape[1])] for _ in range(2)] for _ in range(2))
    for place in np.ndindex(*target.shape):
        if target[place] == IGNORE:
            continue
        at = (place[0], slice(None), *place[1:])
        r, of_classes = oracles.crac_distances(logits[at], tau[at], margin)
        for k, h in enumerate(of_classes):
            slopes[r][k].append(SLOPES[lagrangian](h, multipliers[r][k], rho[r][k]))
            distances[r][k].append(h)
    new = np.array(multipliers, dtype=float)
    for r, k in np.ndindex(*new.shape):
        if slopes[r][k]:
            new[r, k] = min(max(np.mean(slopes[r][k]), low), high)
    return new, np.array([[np.mean(d) if d else np.nan for d in row] for row in distances])


def loss_of(penalties):
    """A Module in float64, with multipliers to begin with."""
    loss = CRaCLoss(C, **penalties).double()
    loss.multipliers.copy_(PER_CLASS)
    loss.rho.copy_(2 * PER_CLASS + 0.1)
    return loss


def one_pixel(*logits):
    return torch.tensor(logits, dtype=torch.float64).view(1, -1, 1, 1)


# Values


@pytest.mark.parametrize(
    ("lagrangian", "penalty"),
    [
        ("phr", (0.2 * 8 + 3 * 64 / 2 + 0.2 * 1 + 3 * 1 / 2) / 2),
        ("p2", (0.2 * 8 + 0.2 * 3 * 64 + 9 * 512 / 6 + 0.2 + 0.2 * 3 + 9 / 6) / 2),
        ("p3", (0.2 * 8 + 0.2 * 3 * 64 + 0.2 + 0.2 * 3) / 2),
    ],
)
def test_a_pixel_inside_an_object_by_hand(lagrangian, penalty):
    logits, target = one_pixel(2, -1), torch.zeros(1, 1, 1).long()  # 8 from the margin of 10, and 1 from 0
    loss = crac_loss(logits, target, multipliers=0.2, rho=3.0, lagrangian=lagrangian)
    assert (loss - cross_entropy_loss(logits, target)).item() == pytest.approx(penalty)


def test_pixels_of_a_border_are_drawn_to_tau_itself():
    logits, target = torch.zeros(1, 2, 1, 2), torch.tensor([[[0, 1]]])
    penalty = crac_loss(logits, target, multipliers=1.0, rho=0) - cross_entropy_loss(logits, target)
    assert penalty.item() == pytest.approx(0.5)


@pytest.mark.parametrize("region", [0, 1])
def test_each_region_has_its_own_multipliers(region):
    logits, target = torch.zeros(1, 2, 1, 5), torch.tensor([[[0, 0, 0, 1, 1]]])
    multipliers = torch.zeros(2, 2)
    multipliers[region] = 1.0
    loss = crac_loss(logits, target, multipliers=multipliers, rho=0, reduction="none")
    paid = (loss - cross_entropy_loss(logits, target, reduction="none") > 1e-6).flatten().tolist()
    border = [False, False, True, True, False]
    assert paid == (border if region else [not x for x in border])


# Regions


@pytest.mark.parametrize("across", [False, True])
def test_straight_edge_is_a_border_on_both_sides(across):
    target = torch.zeros(1, 20, 20).long()
    target[:, :, 10:] = 1
    if across:
        target = target.mT
    mixed = mixed_shares(neighbour_prior(target, 2))[0, 0]
    expected = torch.zeros(20, 20)
    expected[:, 9:11] = 1
    assert torch.equal(mixed.T if across else mixed, expected)


def test_the_authors_test_for_a_border_is_zero_by_algebra():
    window = np.array([[0, 0, 1]] * 3)
    assert (window.mean() - window).sum() == pytest.approx(0)  # though the window holds two classes


@pytest.mark.parametrize("border", BORDERS)
def test_edge_of_an_image_is_a_border_only_where_background_is_seen_beyond(border):
    mixed = mixed_shares(neighbour_prior(torch.full((1, 3, 3), 2), C, border=border))
    assert mixed.sum() == (8 if border == "background" else 0)


def test_ignored_pixels_make_no_border():
    target = torch.tensor([[[0, 0, IGNORE, 1, 1]]])
    assert (mixed_shares(neighbour_prior(target, 2))[target.unsqueeze(1) != IGNORE] == 0).all()


# Learning


@pytest.mark.parametrize(
    "options",
    [{}, {"margin": 2.0, "border": "replicate"}, {"kernel_size": 5, "border": "background"}, {"border": "zero"}],
    ids=str,
)
@pytest.mark.parametrize("lagrangian", LAGRANGIANS)
@pytest.mark.parametrize("shape", [(4, 5, 4), (2, 3, 3, 4)])
def test_multipliers_become_the_mean_slope_of_their_region(shape, lagrangian, options):
    logits, target = data(shape)
    loss = loss_of({"lagrangian": lagrangian, **options})
    before = loss.multipliers.tolist(), loss.rho.tolist()
    for i in range(len(target)):
        loss.observe(logits[i : i + 1], target[i : i + 1])
    assert loss.multipliers.tolist() == before[0]
    loss.update()
    expected, _ = learned(logits.detach().numpy(), target.numpy(), *before, lagrangian=lagrangian, **options)
    np.testing.assert_allclose(loss.multipliers, expected, rtol=0, atol=1e-10)


def test_observation_in_one_batch_or_in_many_is_the_same():
    logits, target = data((4, 5, 4))
    one, many = loss_of({}), loss_of({})
    one.observe(logits, target)
    for i in range(4):
        many.observe(logits[i : i + 1], target[i : i + 1])
    one.update()
    many.update()
    torch.testing.assert_close(one.multipliers, many.multipliers)


def test_update_forgets_what_it_has_used():
    (logits, target), loss = data(), loss_of({})
    for _ in range(2):
        loss.observe(logits, target)
        loss.update()
    fresh = loss_of({})
    fresh.observe(logits, target)
    fresh.update()
    again = fresh.multipliers.tolist(), fresh.rho.tolist()
    expected, _ = learned(logits.detach().numpy(), target.numpy(), *again)
    np.testing.assert_allclose(loss.multipliers, expected, rtol=0, atol=1e-10)


def test_region_without_pixels_keeps_its_multipliers():
    loss = loss_of({})
    logits, _ = data()
    loss.observe(logits, torch.ones(2, 5, 4).long())
    loss.update()
    torch.testing.assert_close(loss.multipliers[1], PER_CLASS[1].double())
    assert (loss.multipliers[0] != PER_CLASS[0]).all()


def test_ignored_pixels_teach_nothing():
    (logits, target), loss = data(), loss_of({})
    by_pixel(logits.data)[target == IGNORE] = torch.nan
    loss.observe(logits, target)
    loss.update()
    expected, _ = learned(logits.detach().numpy(), target.numpy(), PER_CLASS.tolist(), (2 * PER_CLASS + 0.1).tolist())
    np.testing.assert_allclose(loss.multipliers, expected, rtol=0, atol=1e-6)


def test_multipliers_stay_between_their_limits():
    loss = CRaCLoss(2, multiplier_min=0.5, multiplier_max=2.0)
    assert (loss.multipliers == 0.5).all()
    loss.observe(torch.tensor([10.0, -90]).view(1, 2, 1, 1), torch.zeros(1, 1, 1).long())
    loss.update()
    assert loss.multipliers[0].tolist() == [0.5, 2.0]


def test_rho_grows_where_the_distance_did_not_fall_by_a_tenth_and_no_further_than_its_largest():
    loss = CRaCLoss(2, rho=1.0, rho_growth=1.5, rho_max=2.0, rho_every=1)
    target = torch.zeros(1, 1, 1).long()
    seen = []
    for off in ([1.0, 1.0], [0.95, 0.5], [0.9, 0.5], [0.9, 0.1]):
        loss.observe(torch.tensor([10 - off[0], off[1]]).view(1, 2, 1, 1), target)
        loss.update()
        seen.append(loss.rho.flatten().tolist())
    assert seen == [[1, 1, 1, 1], [1.5, 1, 1, 1], [2, 1.5, 1, 1], [2, 1.5, 1, 1]]


@pytest.mark.parametrize(("every", "when"), [(0, []), (1, [2, 3, 4, 5]), (2, [3, 5])])
def test_rho_is_looked_at_every_so_many_updates(every, when):
    loss = CRaCLoss(2, rho_every=every, rho_max=100.0)
    logits, target = torch.zeros(1, 2, 1, 1), torch.zeros(1, 1, 1).long()
    grown, last = [], 1.0
    for update in range(6):
        loss.observe(logits + 1, target)  # class 1 stays 1 away
        loss.update()
        if loss.rho[0, 1] > last:
            grown.append(update)
        last = loss.rho[0, 1].item()
    assert [update for update in grown if update > 1] == when  # the first look has nothing to compare with


def test_observing_changes_no_gradient_and_no_graph():
    (logits, target), loss = data(), CRaCLoss(C)
    loss.observe(logits, target)
    loss.update()
    assert logits.grad is None
    assert not loss.multipliers.requires_grad
    assert list(loss.parameters()) == []


def test_half_precision_is_observed_in_float32():
    (logits, target), loss = data(), CRaCLoss(C)
    loss.observe(1e3 * logits.detach().half(), target)
    loss.update()
    assert loss.multipliers.isfinite().all()


# State


def test_an_update_stays_in_its_memory_and_changes_no_backward_pass_to_come():
    (logits, target), loss = data(), CRaCLoss(C, rho_every=1)
    logits = logits.detach().requires_grad_()
    places = {name: buffer.data_ptr() for name, buffer in loss.named_buffers()}
    (expected,) = torch.autograd.grad(loss(logits, target), logits)
    value = loss(logits, target)
    for _ in range(2):
        loss.observe(logits.detach(), target)
        loss.update()
    assert torch.equal(torch.autograd.grad(value, logits)[0], expected)
    assert (loss.multipliers > 1e-6).any()
    assert {name: buffer.data_ptr() for name, buffer in loss.named_buffers()} == places


def test_state_dict_restores_what_was_learned():
    (logits, target), loss = data(), CRaCLoss(C, rho_every=1)
    for scale in (1, 1.1, 1.2):
        loss.observe(scale * logits, target)
        loss.update()
    other = CRaCLoss(C, rho_every=1)
    other.load_state_dict(loss.state_dict())
    copies = other, copy.deepcopy(loss), pickle.loads(pickle.dumps(loss))
    for module in (loss, *copies):
        module.observe(1.3 * logits, target)
        module.update()
    for module in copies:
        assert module(logits, target) == loss(logits, target)
        assert torch.equal(module.rho, loss.rho)
    assert set(loss.state_dict()) == {"multipliers", "rho", "distance", "updates"}


def test_module_is_its_function_with_what_it_has_learned():
    (logits, target), loss = data(), loss_of({"margin": 4.0, "lagrangian": "p2"})
    options = {"margin": 4.0, "lagrangian": "p2", "multipliers": loss.multipliers, "rho": loss.rho}
    assert loss(logits, target) == crac_loss(logits, target, **options)


# Refusals


def test_update_without_observation_is_refused():
    with pytest.raises(RuntimeError, match="Expected `observe` to be called with validation batches before `update`"):
        CRaCLoss(2).update()


@pytest.mark.parametrize("call", [lambda loss: loss.observe, lambda loss: loss])
def test_wrong_number_of_classes_is_named(call):
    logits, target = data(num_classes=3)
    with pytest.raises(ValueError, match=re.escape("Expected `logits` of 4 classes, got 3 (num_classes=4)")):
        call(CRaCLoss(C))(logits, target)


def test_nan_is_not_learned():
    (logits, target), loss = data(), CRaCLoss(C)
    with pytest.raises(ValueError, match="Expected `logits` without NaN"):
        loss.observe(torch.full_like(logits, torch.nan), target)
    with pytest.raises(RuntimeError, match="Expected `observe`"):
        loss.update()


@pytest.mark.parametrize("name", ["multipliers", "rho"])
@pytest.mark.parametrize(
    ("value", "error", "message"),
    [
        (torch.ones(2, 3), ValueError, r"of shape \(2, 4\), got \(2, 3\)"),
        (torch.ones(4), ValueError, r"of shape \(2, 4\), got \(4,\)"),
        (torch.full((2, 4), -1.0), ValueError, r"of numbers in \[0, inf\), got"),
        (torch.full((2, 4), torch.nan), ValueError, r"of numbers in \[0, inf\), got"),
        (-1.0, ValueError, r"in \[0, inf\), got -1.0"),
        ("1", TypeError, "to be a number, got '1'"),
    ],
)
def test_bad_multipliers_are_named(name, value, error, message):
    logits, target = data()
    with pytest.raises(error, match=f"Expected `{name}` {message}"):
        crac_loss(logits, target, **{name: value})


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"num_classes": 1}, ValueError, "`num_classes` of at least 2, got 1"),
        ({"multiplier_min": 0}, ValueError, r"`multiplier_min` in \(0, inf\), got 0"),
        ({"multiplier_min": 2.0, "multiplier_max": 1.0}, ValueError, r"`multiplier_max` in \[2.0, inf\), got 1.0"),
        ({"rho": 0}, ValueError, r"`rho` in \(0, inf\), got 0"),
        ({"rho": 3.0, "rho_max": 2.0}, ValueError, r"`rho_max` in \[3.0, inf\), got 2.0"),
        ({"rho_growth": 0.9}, ValueError, r"`rho_growth` in \[1, inf\), got 0.9"),
        ({"rho_every": -1}, ValueError, "`rho_every` of at least 0, got -1"),
        ({"rho_every": 1.5}, TypeError, "`rho_every` to be an integer, got 1.5"),
        ({"reduction": "avg"}, ValueError, "`reduction` to be one of"),
    ],
)  # fmt: skip
def test_bad_options_of_the_module_are_named(options, error, message):
    with pytest.raises(error, match=message):
        CRaCLoss(**{"num_classes": 2, **options})
