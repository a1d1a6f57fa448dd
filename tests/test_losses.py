"""What holds for every loss, in 2D and 3D."""

import math

import oracles
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from loss_cases import (
    FUNCTIONS,
    OF_IMAGES,
    VARIANTS,
    C,
    Variant,
    by_pixel,
    data,
    each_loss,
    gradient,
    grey,
    over,
    spaces,
    variants,
)
from oracles import IGNORE, light

REDUCTIONS = ("none", "mean", "sum")


def by_loops(loss, logits, target, **more):
    """A variant's value at each pixel, or for each image and class."""
    options = {key: v.numpy() if isinstance(v, torch.Tensor) else v for key, v in (loss.options | more).items()}
    of = oracles.image_losses if loss.name in OF_IMAGES else oracles.pixel_losses
    around = {key: image.numpy() for key, image in loss.data(target).items()}
    return torch.as_tensor(of(logits.detach().numpy(), target.numpy(), loss.name, **options, **around))


# Values


@pytest.mark.parametrize("holes", [0, 0.3])
@spaces
@variants
def test_every_reduction_matches_the_loop(loss, shape, holes):
    logits, target = data(shape, holes=holes)
    slow = by_loops(loss, logits, target)
    count = slow.numel() if loss.name in OF_IMAGES else (target != IGNORE).sum()
    for reduction, expected in {"none": slow, "sum": slow.sum(), "mean": slow.sum() / count}.items():
        fast = loss(logits, target, reduction=reduction)
        torch.testing.assert_close(fast.detach(), expected, rtol=0, atol=1e-10)


@variants
def test_mean_is_the_default(loss):
    logits, target = data()
    assert loss(logits, target) == loss(logits, target, reduction="mean")


@pytest.mark.parametrize("ignore_index", [255, 0])
@variants
def test_any_number_can_mean_ignored_also_a_class(loss, ignore_index):
    logits, target = data((1, 4, 3), ignore_index=ignore_index)
    fast = loss(logits, target, ignore_index=ignore_index, reduction="none").detach()
    torch.testing.assert_close(fast, by_loops(loss, logits, target, ignore_index=ignore_index), rtol=0, atol=1e-10)


# Ignored pixels


@spaces
@variants
def test_ignored_pixels_have_no_gradient_and_no_loss(loss, shape):
    logits, target = data(shape)
    value = loss(logits, target, reduction="none")
    slope, ignored = by_pixel(gradient(value, logits)), target == IGNORE
    assert (slope[ignored] == 0).all()
    assert (slope[~ignored] != 0).any()
    if loss.name not in OF_IMAGES:
        assert (value[ignored] == 0).all()


@pytest.mark.parametrize("value", [1e30, math.inf, -math.inf, math.nan])
@variants
def test_logits_of_ignored_pixels_change_nothing(loss, value):
    logits, target = data()
    broken = logits.detach().clone()
    by_pixel(broken)[target == IGNORE] = value
    broken.requires_grad_()
    old, new = loss(logits, target), loss(broken, target)
    torch.testing.assert_close(new, old, rtol=0, atol=0)
    torch.testing.assert_close(gradient(new, broken), gradient(old, logits), rtol=0, atol=0)


@variants
def test_image_of_ignored_pixels_changes_nothing(loss):
    logits, target = data()
    image = grey(target)
    by_pixel(image)[target == IGNORE] = math.nan
    torch.testing.assert_close(loss(logits, target, image), loss(logits, target), rtol=0, atol=0)


@variants
def test_map_with_an_ignored_frame_equals_its_crop(loss):
    logits, target = data((2, 7, 6), holes=0.1)
    image, crop = grey(target), (..., slice(1, 5), slice(2, None))
    inside = torch.zeros_like(target, dtype=torch.bool)
    inside[crop] = True
    whole = loss(logits, torch.where(inside, target, IGNORE), image)
    torch.testing.assert_close(whole, loss(logits[crop], target[crop], image[crop]), rtol=0, atol=1e-12)


@spaces
@variants
def test_nothing_valid_gives_zero_and_zero_gradient(loss, shape):
    logits, _ = data(shape)
    for reduction in REDUCTIONS:
        value = loss(logits, torch.full(shape, IGNORE), reduction=reduction)
        assert (value == 0).all()
        assert (gradient(value, logits) == 0).all()


# Sizes


@variants
def test_empty_batch_gives_zero_and_an_empty_gradient(loss):
    if isinstance(loss.options.get("multipliers"), torch.Tensor):
        loss = Variant(loss.name, {**loss.options, "multipliers": 0.1, "rho": 1.0})
    logits, target = torch.zeros(0, C, 3, 2, requires_grad=True), torch.zeros(0, 3, 2).long()
    for reduction in REDUCTIONS:
        value = loss(logits, target, reduction=reduction)
        assert (value == 0).all()
        assert gradient(value, logits).shape == logits.shape


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 1, 1, 1), (1, 1, 5), (1, 2, 1, 1)])
@variants
def test_images_narrower_than_the_window_match_the_loop(loss, shape):
    logits, target = data(shape, holes=0)
    fast = loss(logits, target, reduction="none").detach()
    torch.testing.assert_close(fast, by_loops(loss, logits, target), rtol=0, atol=1e-10)


@pytest.mark.parametrize("num_classes", [2, 127, 128, 200])
@each_loss
def test_any_number_of_classes_matches_the_loop(loss, num_classes):
    logits, target = data((1, 3, 4), num_classes=num_classes)
    target[0, 0, 0] = num_classes - 1
    fast = loss(logits, target, reduction="none").detach()
    torch.testing.assert_close(fast, by_loops(loss, logits, target), rtol=0, atol=1e-10)
    assert gradient(loss(logits, target), logits).isfinite().all()


# Symmetries

TURNS = {"flip": lambda x: x.flip(-1), "flip rows": lambda x: x.flip(-2), "transpose": lambda x: x.mT}
few = settings(light, max_examples=5)
seeds = st.integers(0, 99)


def renumbered(loss, order, seed=0):
    """The value before and after class k is called order[k]."""
    logits, target = data(seed=seed)
    renamed = torch.where(target == IGNORE, IGNORE, torch.tensor(order)[target.clamp(min=0)])
    moved = torch.empty_like(logits)
    moved[:, order] = logits.detach()
    return loss(logits, target).detach(), loss(moved, renamed).detach()


@over({key: loss for key, loss in VARIANTS.items() if not loss.knows_class_numbers}, "loss")
@few
@given(order=st.permutations(range(C)), seed=seeds)
def test_relabelling_the_classes_changes_nothing(loss, order, seed):
    old, new = renumbered(loss, order, seed)
    torch.testing.assert_close(new, old, rtol=0, atol=1e-12)


@over({key: loss for key, loss in VARIANTS.items() if loss.knows_class_numbers}, "loss")
def test_relabelling_the_classes_changes_a_loss_that_reads_their_numbers(loss):
    old, new = renumbered(loss, [2, 0, 3, 1])
    assert abs(new - old) > 1e-6


@pytest.mark.parametrize("border", ["background", "replicate", "zero"])
def test_border_of_background_is_the_one_that_names_a_class(border):
    old, new = renumbered(Variant("nacl", {"border": border}), [2, 0, 3, 1])
    assert (abs(new - old) > 1e-6) == (border == "background")


@variants
@few
@given(order=st.permutations(range(3)), seed=seeds)
def test_loss_is_permuted_with_the_batch(loss, order, seed):
    logits, target = data((3, 4, 3), seed=seed)
    image, batch = grey(target), slice(None) if loss.options.get("batch") else order
    old = loss(logits, target, image, reduction="none")
    moved = loss(logits[order], target[order], image[order], reduction="none")
    torch.testing.assert_close(moved, old[batch], rtol=0, atol=1e-12)


@variants
@few
@given(turn=st.sampled_from(sorted(TURNS)), shape=st.sampled_from([(2, 5, 4), (1, 2, 3, 4)]), seed=seeds)
def test_flips_and_transposition_commute_with_the_loss(loss, turn, shape, seed):
    turn, (logits, target) = TURNS[turn], data(shape, seed=seed)
    image = grey(target)
    value = loss(logits, target, image, reduction="none")
    turned = loss(turn(logits), turn(target), turn(image), reduction="none")
    expected = value if loss.name in OF_IMAGES else turn(value)
    torch.testing.assert_close(turned, expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(gradient(turned, logits), gradient(value, logits), rtol=0, atol=1e-12)


@variants
def test_one_slice_in_3d_is_the_image_in_2d(loss):
    logits, target = data()
    flat = loss(logits, target, reduction="none")
    size = loss.options.get("kernel_size", 3)
    window = {"kernel_size": (size, size, 1)} if loss.has_window else {}
    deep = loss(logits[..., None], target[..., None], grey(target)[..., None], **window, reduction="none")
    torch.testing.assert_close(deep.flatten(), flat.flatten(), rtol=0, atol=1e-12)


# Number types


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@variants
def test_half_logits_give_a_float32_loss_and_a_half_gradient(loss, dtype):
    logits, target = data()
    half = logits.detach().to(dtype).requires_grad_()
    value = loss(half, target)
    assert value.dtype == torch.float32
    wide = half.detach().float().requires_grad_()
    torch.testing.assert_close(value, loss(wide, target), rtol=1e-6, atol=0)
    slope, exact = gradient(value, half), gradient(loss(wide, target), wide)
    assert slope.dtype == dtype
    torch.testing.assert_close(slope.float(), exact, rtol=2 * torch.finfo(dtype).eps, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@variants
def test_logits_of_1e4_give_a_finite_loss_and_gradient(loss, dtype):
    _, target = data()
    sign = torch.randn(2, C, 5, 4, generator=torch.Generator().manual_seed(0)).sign()
    logits = (1e4 * sign).to(dtype).requires_grad_()
    value = loss(logits, target)
    assert value.isfinite()
    if (loss.options.get("lagrangian"), dtype) != ("p2", torch.float16):  # a cubic penalty, whose slope is above 65504
        assert gradient(value, logits).isfinite().all()


@spaces
@variants
def test_float32_is_within_a_millionth_of_float64_and_float64_stays(loss, shape):
    logits, target = data(shape)
    logits = logits.detach().float()
    single, double = loss(logits, target), loss(logits.double(), target)
    assert (single.dtype, double.dtype) == (torch.float32, torch.float64)
    torch.testing.assert_close(single.double(), double, rtol=1e-6, atol=0)


@variants
def test_autocast_does_not_round_the_loss(loss):
    logits, target = data()
    for x in (logits, logits.detach().float()):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            inside = loss(x, target)
        torch.testing.assert_close(inside, loss(x, target), rtol=0, atol=0)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int16, torch.int32, torch.uint16])
@each_loss
def test_integer_type_of_the_labels_does_not_matter(loss, dtype):
    logits, target = data(holes=0)
    torch.testing.assert_close(loss(logits, target.to(dtype)), loss(logits, target), rtol=0, atol=0)


@variants
def test_int8_labels_can_be_ignored_by_a_negative_number(loss):
    logits, target = data()
    torch.testing.assert_close(loss(logits, target.to(torch.int8)), loss(logits, target), rtol=0, atol=0)


@each_loss
def test_uint8_label_156_is_not_ignored_for_minus_100(loss):
    logits, _ = data((1, 2, 3), num_classes=157)
    target = torch.tensor([[[0, 156, 156], [1, 0, 156]]])
    value = loss(logits, target.to(torch.uint8), reduction="none")
    torch.testing.assert_close(value, loss(logits, target, reduction="none"), rtol=0, atol=0)
    assert (value != 0).any()


# A class that the network rules out

FINITE_WITHOUT_A_CLASS = {
    "ce": {},
    "label_smoothing": {"smoothing": 0.0},
    "focal": {},
    "ecp": {},
    "svls": {},
    "mbls": {"penalty_weight": 0.0},
    "nacl": {"softmax": True},
    "dice": {},
    "l1_ace": {},
}


@pytest.mark.parametrize("name", FINITE_WITHOUT_A_CLASS)
def test_infinitely_low_logit_of_an_absent_class_is_the_limit_of_a_low_one(name):
    logits, target = data(holes=0)
    target = target.clamp(max=2)
    low, lowest = logits.detach().clone(), logits.detach().clone()
    low[:, 3], lowest[:, 3] = -800.0, -math.inf
    values, slopes = [], []
    for x in (low.requires_grad_(), lowest.requires_grad_()):
        value = FUNCTIONS[name](x, target, **FINITE_WITHOUT_A_CLASS[name])
        values.append(value.detach())
        slopes.append(gradient(value, x))
    torch.testing.assert_close(values[1], values[0], rtol=0, atol=1e-12)
    torch.testing.assert_close(slopes[1], slopes[0], rtol=0, atol=1e-12)
    assert values[1].isfinite()


@pytest.mark.parametrize("name", ["ce", "label_smoothing", "focal", "ecp", "svls", "mbls", "nacl", "crac"])
@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
def test_infinitely_low_logit_of_the_label_costs_infinitely_much(name, reduction):
    logits = torch.tensor([0.0, -math.inf]).view(1, 2, 1, 1)
    assert FUNCTIONS[name](logits, torch.ones(1, 1, 1).long(), reduction=reduction) == math.inf


def test_smoothing_of_one_pays_infinitely_for_any_class_that_is_ruled_out():
    logits = torch.tensor([0.0, -math.inf]).view(1, 2, 1, 1)
    for label in (0, 1):
        target = torch.full((1, 1, 1), label)
        assert FUNCTIONS["label_smoothing"](logits, target, smoothing=1.0) == math.inf
