"""Parity with MONAI, where MONAI is right."""

import pytest
import torch
from loss_cases import C, data

from nacl.losses import CombinedLoss, CrossEntropyLoss, DiceLoss, dice_loss, focal_loss, nacl_loss
from nacl.priors import neighbour_prior

pytestmark = pytest.mark.filterwarnings("ignore")  # MONAI's imports


@pytest.fixture(scope="module")
def monai():
    return pytest.importorskip("monai.losses")


def batch(axes):
    logits, target = data((2, 7, 6) if axes == 2 else (1, 5, 6, 5), holes=0)
    return logits.detach().float(), target


def close(got, expected):
    torch.testing.assert_close(got, expected, rtol=2e-6, atol=1e-6)


@pytest.mark.parametrize("kernel_size", [1, 3, 5])
@pytest.mark.parametrize("penalty", ["l1", "l2"])
@pytest.mark.parametrize("axes", [2, 3])
def test_nacl_with_border_zero_is_monais_everywhere(monai, axes, penalty, kernel_size):
    logits, target = batch(axes)
    theirs = monai.NACLLoss(C, axes, kernel_size=kernel_size, distance_type=penalty, alpha=0.3)
    ours = nacl_loss(logits, target, kernel_size=kernel_size, penalty=penalty, penalty_weight=0.3, border="zero")
    close(ours, theirs(logits, target))


@pytest.mark.parametrize("kernel_size", [3, 5])
@pytest.mark.parametrize("axes", [2, 3])
def test_prior_is_monais_inside_the_image_but_not_in_the_corner(monai, axes, kernel_size):
    _, target = batch(axes)
    theirs = monai.NACLLoss(C, axes, kernel_size=kernel_size).get_constr_target(target)
    ours = neighbour_prior(target, C, kernel_size=kernel_size)
    half = kernel_size // 2
    inside = (..., *[slice(half, -half)] * axes)
    close(ours[inside], theirs[inside])
    corner = (0, slice(None), *[0] * axes)
    assert theirs[corner].sum().item() == pytest.approx(((half + 1) / kernel_size) ** axes)
    assert ours[corner].sum().item() == pytest.approx(1)


def test_monais_gaussian_prior_ignores_its_kernel_size_and_ours_does_not(monai):
    _, target = batch(2)
    theirs = [monai.NACLLoss(C, 2, kernel_size=k, kernel_ops="gaussian").get_constr_target(target) for k in (3, 5)]
    ours = [neighbour_prior(target, C, prior="gaussian", kernel_size=k) for k in (3, 5)]
    assert torch.equal(*theirs)
    assert not torch.equal(*ours)


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
@pytest.mark.parametrize("over_batch", [False, True])
@pytest.mark.parametrize("background", [False, True])
@pytest.mark.parametrize("axes", [2, 3])
def test_dice_is_monais(monai, axes, background, over_batch, reduction):
    logits, target = batch(axes)
    theirs = monai.DiceLoss(
        include_background=background, to_onehot_y=True, softmax=True, batch=over_batch, reduction=reduction
    )(logits, target[:, None])
    ours = dice_loss(logits, target, include_background=background, batch=over_batch, reduction=reduction)
    close(ours.flatten(), theirs.flatten())


def test_sum_of_dice_and_cross_entropy_is_monais(monai):
    logits, target = batch(2)
    theirs = monai.DiceCELoss(to_onehot_y=True, softmax=True, lambda_dice=0.7, lambda_ce=1.3)(logits, target[:, None])
    ours = CombinedLoss(DiceLoss(include_background=True), CrossEntropyLoss(), weights=(0.7, 1.3))
    close(ours(logits, target), theirs)


@pytest.mark.parametrize("gamma", [0.5, 2.0, 3.0])
def test_focal_loss_is_monais_which_averages_over_the_classes(monai, gamma):
    logits, target = batch(2)
    theirs = monai.FocalLoss(to_onehot_y=True, use_softmax=True, gamma=gamma)(logits, target[:, None])
    close(focal_loss(logits, target, gamma=gamma), C * theirs)


def test_l1_ace_is_monais(monai):
    hard = getattr(monai, "HardL1ACELoss", None)
    if hard is None:
        pytest.skip("this MONAI has no HardL1ACELoss")
    logits, target = batch(2)
    from nacl.losses import l1_ace_loss

    theirs = hard(to_onehot_y=True, softmax=True, ignore_empty_classes=False)(logits, target[:, None])
    close(l1_ace_loss(logits, target), theirs)
