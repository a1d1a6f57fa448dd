"""However a loss is run, it is the same: in slabs, compiled, mapped, differentiated twice, in any order in memory."""

import functools

import pytest
import torch
from loss_cases import (
    FUNCTIONS,
    OF_IMAGES,
    ONE_EACH,
    PER_CLASS,
    VARIANTS,
    C,
    Variant,
    by_pixel,
    data,
    each_loss,
    gradient,
    grey,
    over,
    pixel_variants,
    spaces,
    variants,
)
from oracles import IGNORE
from torch.autograd import gradcheck, gradgradcheck

from nacl.losses import LOSSES, CrossEntropyLoss, _pixelwise
from nacl.losses._pixelwise import slabs
from nacl.priors import BORDERS, PRIORS


def same(got, expected, atol=1e-12):
    torch.testing.assert_close(got, expected, rtol=0, atol=atol)


def outcome(function, *arguments):
    """What it returns, or what is said against it."""
    try:
        return function(*arguments)
    except (RuntimeError, ValueError) as error:
        return str(error)


# Derivatives


@spaces
@variants
def test_gradient_is_the_one_of_finite_differences(loss, shape):
    logits, target = data((1, *shape[1:]), holes=0.2)
    assert gradcheck(lambda x: loss(x, target), logits, eps=1e-7, atol=1e-6, fast_mode=True)


@pytest.mark.parametrize("reduction", ["none", "sum"])
@each_loss
def test_gradient_of_every_reduction_is_the_one_of_finite_differences(loss, reduction):
    logits, target = data((2, 2, 2))
    assert gradcheck(lambda x: loss(x, target, reduction=reduction), logits)


@pytest.mark.parametrize("border", BORDERS)
@over({key: loss for key, loss in ONE_EACH.items() if loss.has_window}, "loss")
def test_gradient_at_every_border_is_the_one_of_finite_differences(loss, border):
    logits, target = data((1, 3, 4))
    assert gradcheck(lambda x: loss(x, target, border=border), logits, eps=1e-7, atol=1e-6, fast_mode=True)


@variants
def test_gradient_that_can_be_differentiated_again_is_the_plain_one(loss):
    logits, target = data()
    (again,) = torch.autograd.grad(loss(logits, target), logits, create_graph=True)
    assert again.requires_grad or loss.name == "l1_ace"
    same(again.detach(), gradient(loss(logits, target), logits))


@variants
def test_second_derivative_is_the_one_of_finite_differences(loss):
    logits, target = data((1, 2, 3))
    assert gradgradcheck(lambda x: loss(x, target), logits, eps=1e-7, atol=1e-5, fast_mode=True)


@over({key: loss for key, loss in VARIANTS.items() if not loss.draws_logits}, "loss")
def test_gradient_in_the_logits_sums_to_zero_where_only_their_differences_count(loss):
    logits, target = data()
    same(gradient(loss(logits, target), logits).sum(dim=1), torch.zeros(2, 5, 4, dtype=torch.float64))


@variants
def test_two_backward_passes_give_the_gradient_twice(loss):
    logits, target = data()
    value = loss(logits, target)
    first, second = (torch.autograd.grad(value, logits, retain_graph=True)[0] for _ in range(2))
    same(second, first, atol=0)
    (3 * value).backward()
    loss(logits, target).backward()
    same(logits.grad, 4 * first)


@variants
def test_gradient_is_linear_in_what_comes_from_above(loss):
    logits, target = data()
    value = loss(logits, target, reduction="none")
    above = torch.linspace(-1, 2, value.numel(), dtype=value.dtype).view(value.shape)
    (slope,) = torch.autograd.grad(value, logits, above)
    weighted = sum(
        w * torch.autograd.grad(v, logits, retain_graph=True)[0]
        for v, w in zip(loss(logits, target, reduction="none").flatten(), above.flatten(), strict=True)
    )
    same(slope, weighted)


@variants
def test_no_gradient_where_none_is_wanted(loss):
    logits, target = data()
    value = loss(logits, target).detach()
    assert not loss(logits.detach(), target).requires_grad
    for without in (torch.no_grad, torch.inference_mode):
        with without():
            silent = loss(logits, target)
            same(silent, value, atol=0)
            assert not silent.requires_grad


@pytest.mark.parametrize("which", ["logits", "labels"])
@each_loss
def test_batch_overwritten_before_the_backward_pass_gives_the_old_gradient_or_an_error(loss, which):
    logits, target = data()
    exact = gradient(loss(logits, target), logits)
    used = logits.detach().clone().requires_grad_()
    value = loss(1 * used, target) if which == "labels" else loss(changed := 1 * used, target)
    with torch.no_grad():
        (target if which == "labels" else changed).zero_()
    slope = outcome(gradient, value, used)
    if isinstance(slope, str):
        assert "modified by an inplace operation" in slope
    else:
        same(slope, exact)


# Memory


def sliced(x):
    return torch.cat([x + 1, x, x - 1], dim=-1)[..., x.shape[-1] : 2 * x.shape[-1]]


ORDERS = {
    "transposed": lambda x: x.mT.contiguous().mT,
    "classes last": lambda x: by_pixel(x).contiguous().movedim(-1, 1),
    "sliced": sliced,
    "every second": lambda x: x.repeat_interleave(2, dim=0)[::2],
}


@over(ORDERS, "order")
@spaces
@each_loss
def test_order_in_memory_does_not_matter(loss, shape, order):
    logits, target = data(shape)
    moved = order(logits.detach()).requires_grad_()
    labels = order(target.unsqueeze(1)).squeeze(1)
    assert not moved.is_contiguous()
    value, other = loss(logits, target), loss(moved, labels)
    same(other, value)
    same(gradient(other, moved), gradient(value, logits))


@each_loss
def test_expanded_logits_sum_the_gradients_of_their_copies(loss):
    logits, target = data((1, 5, 4))
    one = logits.detach()[..., :1].clone().requires_grad_()
    value = loss(one.expand(-1, -1, -1, 4), target)
    copies = one.detach().repeat(1, 1, 1, 4).requires_grad_()
    same(gradient(value, one), gradient(loss(copies, target), copies).sum(dim=-1, keepdim=True))


def test_channels_last_logits_have_a_channels_last_gradient():
    logits, target = data()
    moved = logits.detach().to(memory_format=torch.channels_last).requires_grad_()
    loss = CrossEntropyLoss()
    assert gradient(loss(moved, target), moved).is_contiguous(memory_format=torch.channels_last)


# Slabs


@pytest.mark.parametrize("size", [1, 2**5, 2**6, 2**8])
@pytest.mark.parametrize("shape", [(3, 7, 5), (2, 1, 9), (1, 6, 3, 2), (3, 2, 2, 2)])
def test_slabs_cover_every_pixel_once(monkeypatch, size, shape):
    monkeypatch.setattr(_pixelwise, "SLAB", size)
    logits, seen = torch.zeros(shape[0], C, *shape[1:]), torch.zeros(shape)
    for slab in slabs(logits):
        slab.of(seen).add_(1)
        an_image, a_row = logits[0].numel(), logits[0, :, 0].numel()
        assert slab.of(logits).numel() < 2 * max(size, min(an_image, a_row) + size)
    assert (seen == 1).all()


@pytest.mark.parametrize("size", [1, 2**6])
@pytest.mark.parametrize("shape", [(3, 7, 5), (2, 6, 3, 2)])
@variants
def test_slabs_change_nothing(loss, shape, size, monkeypatch):
    logits, target = data(shape)
    value = loss(logits, target, reduction="none")
    slope = gradient(value, logits)
    monkeypatch.setattr(_pixelwise, "SLAB", size)
    assert len(list(slabs(logits))) > 1
    cut = loss(logits, target, reduction="none")
    same(cut, value)
    same(gradient(cut, logits), slope)


@pytest.mark.parametrize("kernel_size", [1, 5, (3, 1, 5), (1, 3, 3), (5, 3, 1)])
@pytest.mark.parametrize("prior", PRIORS)
def test_windows_reach_over_the_cuts_of_slabs(prior, kernel_size, monkeypatch):
    logits, target = data((1, 7, 3, 3))
    loss = Variant("nacl", {"prior": prior, "kernel_size": kernel_size})
    whole = [loss(logits, target, border=border, reduction="none") for border in BORDERS]
    monkeypatch.setattr(_pixelwise, "SLAB", 1)
    for border, value in zip(BORDERS, whole, strict=True):
        same(loss(logits, target, border=border, reduction="none"), value)


# torch.func

forward_mode = pytest.mark.filterwarnings("ignore:`torch.jit.script`:FutureWarning")  # torch's own, when it starts


@forward_mode
@variants
def test_functional_gradient_and_jvp_equal_the_plain_ones(loss):
    logits, target = data()
    plain = logits.detach()
    slope, value = torch.func.grad_and_value(lambda x: loss(x, target))(plain)
    same(value, loss(plain, target))
    same(slope, gradient(loss(logits, target), logits))
    along = torch.randn(plain.shape, generator=torch.Generator().manual_seed(0), dtype=plain.dtype)
    _, change = torch.func.jvp(lambda x: loss(x, target), (plain,), (along,))
    same(change, (slope * along).sum())


@forward_mode
@variants
def test_hessian_equals_the_plain_one(loss):
    logits, target = data((1, 1, 2), holes=0)
    plain = torch.autograd.functional.hessian(lambda x: loss(x, target), logits.detach())
    same(torch.func.hessian(lambda x: loss(x, target))(logits.detach()), plain)


@variants
def test_vmap_over_logits_labels_and_images_equals_a_loop(loss):
    logits, target = data((3, 2, 5, 4))
    logits = logits.detach().movedim(1, 2)  # three batches of two images
    images = torch.stack([grey(target[0]), grey(target[0]).flip(-1), grey(target[0]) + 1])

    def one(x, y, z):
        return loss(x, y, z)

    mapped = torch.func.vmap(one)(logits, target, images)
    same(mapped, torch.stack([one(*each) for each in zip(logits, target, images, strict=True)]))
    of_logits = torch.func.vmap(one, in_dims=(0, None, None))(logits, target[0], images[0])
    same(of_logits, torch.stack([one(x, target[0], images[0]) for x in logits]))
    of_labels = torch.func.vmap(one, in_dims=(None, 0, None))(logits[0], target, images[0])
    same(of_labels, torch.stack([one(logits[0], y, images[0]) for y in target]))


@variants
def test_gradients_mapped_over_samples_equal_a_loop(loss):
    logits, target = data((3, 2, 5, 4))
    logits = logits.detach().movedim(1, 2)
    mapped = torch.func.vmap(torch.func.grad(lambda x, y: loss(x, y, grey(target[0]))))(logits, target)
    for got, x, y in zip(mapped, logits, target, strict=True):
        x = x.requires_grad_()
        same(got, gradient(loss(x, y, grey(target[0])), x))


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 3.0])
@pytest.mark.parametrize("size", [40.0, 1e4])
def test_focal_loss_of_a_sure_and_right_pixel_has_a_finite_functional_gradient(gamma, size):
    logits = torch.tensor([size, 0.0]).view(1, 2, 1, 1)
    target = torch.zeros(1, 1, 1).long()
    slope = torch.func.grad(lambda x: FUNCTIONS["focal"](x, target, gamma=gamma))(logits)
    same(slope, torch.zeros_like(slope))


# torch.compile


@pytest.fixture
def compiled():
    """A function as one graph, or an error."""
    torch._dynamo.reset()
    yield functools.partial(torch.compile, backend="aot_eager", fullgraph=True)
    torch._dynamo.reset()


MORE = ("nacl gaussian", "nacl median", "nacl image l2", "nacl softmax huber", "crac p2", "focal flsd")
COMPILED = ONE_EACH | {key: VARIANTS[key] for key in MORE}


def compare(function, loss, logits, target):
    value, expected = function(logits, target), loss(logits, target)
    torch.testing.assert_close(value, expected, rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(gradient(value, logits), gradient(expected, logits), rtol=1e-4, atol=1e-7)


@over(COMPILED, "loss")
def test_loss_compiles_as_one_graph_of_the_same_value_and_gradient(loss, compiled):
    logits, target = data()
    image = grey(target)  # outside: numpy's generators are not for a graph
    compare(compiled(lambda x, y: loss(x, y, image)), lambda x, y: loss(x, y, image), logits, target)


@over({key: ONE_EACH[key] for key in ("nacl", "dice")}, "loss")
def test_compiled_loss_takes_other_sizes_and_half_precision(loss, compiled):
    function = compiled(loss)
    for shape in ((2, 5, 4), (3, 6, 7)):
        logits, target = data(shape)
        compare(function, loss, logits.detach().float().requires_grad_(), target)
    half = logits.detach().half().requires_grad_()
    value = function(half, target)
    assert (value.dtype, gradient(value, half).dtype) == (torch.float32, torch.float16)


@pytest.mark.parametrize("name", ["nacl", "dice"])
def test_loss_compiles_by_inductor(name, compiled):
    loss, (logits, target) = ONE_EACH[name], data()
    compare(torch.compile(loss, fullgraph=True), loss, logits.detach().float().requires_grad_(), target)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@over({key: ONE_EACH[key] for key in ("nacl", "dice", "l1_ace")}, "loss")
def test_compiled_loss_does_not_see_ignored_pixels(loss, value, compiled):
    logits, target = data()
    by_pixel(logits.data)[target == IGNORE] = value
    compare(compiled(loss), loss, logits, target)


@pytest.mark.parametrize(("name", "option"), [("nacl", "penalty_weight"), ("svls", "sigma")])
def test_modules_that_differ_in_one_number_compile_side_by_side(name, option, compiled):
    logits, target = data()
    for value in (0.5, 0.7, 0.9):
        module = LOSSES[name](**{option: value})
        same(compiled(module)(logits, target), FUNCTIONS[name](logits, target, **{option: value}))


def test_compiled_multipliers_are_read_anew(compiled):
    logits, target = data()
    module = LOSSES["crac"](C)
    function = compiled(module)
    for size in (0.1, 0.9):
        module.multipliers.copy_(size * PER_CLASS)
        same(function(logits, target), module(logits, target))


# Labels out of range, where no value is looked at


def refused_or_nan(value, loss):
    if isinstance(value, str):
        assert "out of bounds" in value or "Remap the labels" in value
    else:
        assert loss.name in OF_IMAGES
        assert value.flatten()[0].isnan()


def with_label(label):
    logits, target = data(holes=0)
    target[0, 0, 0] = label
    return logits.detach(), target


@pytest.mark.parametrize("label", [C, -1, 256, -256])
@each_loss
def test_mapped_loss_never_takes_a_label_out_of_range_for_a_class(loss, label):
    refused_or_nan(outcome(torch.func.vmap(lambda x, y: loss(x[None], y[None])), *with_label(label)), loss)


@pytest.mark.parametrize("label", [-1, 256])
@over({key: ONE_EACH[key] for key in ("ce", "nacl", "dice", "l1_ace")}, "loss")
def test_compiled_loss_refuses_a_label_out_of_range(loss, label, compiled):
    assert "Remap the labels" in outcome(compiled(loss), *with_label(label))


@pixel_variants
def test_scanning_labels_is_skipped_where_the_values_are_unknown(loss):
    logits, target = data()
    with torch.device("meta"):
        value = loss(logits.detach().to("meta"), target.to("meta"), grey(target).to("meta"))
    assert value.shape == ()
