"""Losses against loops, limits, derivatives, ignored pixels, and what each refuses."""

import copy
import functools
import inspect
import math
import re

import numpy as np
import oracles
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from oracles import IGNORE, light
from torch.nn import functional as F

from nacl.losses import (
    LOSSES,
    CrossEntropyLoss,
    NACLLoss,
    SVLSLoss,
    build_loss,
    cross_entropy_loss,
    nacl_loss,
    svls_loss,
)
from nacl.priors import BORDERS, neighbour_prior

C = 4
VARIANTS = [
    ("ce", {}),
    ("svls", {}),
    ("svls", {"kernel_size": 5, "sigma": 0.7}),
    ("nacl", {}),
    ("nacl", {"penalty": "l2", "penalty_weight": 0.3}),
    ("nacl", {"prior": "gaussian", "kernel_size": 5, "sigma": 2.0, "penalty_weight": 1.0}),
    ("nacl", {"softmax": True, "penalty": "l2"}),
    ("nacl", {"softmax": True, "penalty": "l1", "kernel_size": 7}),
]
FUNCTIONS = {"ce": cross_entropy_loss, "svls": svls_loss, "nacl": nacl_loss}
variants = pytest.mark.parametrize(("name", "options"), VARIANTS)
each_loss = pytest.mark.parametrize("name", FUNCTIONS)


def data(*, shape=(2, 5, 4), holes=0.2, seed=0, num_classes=C):
    """Logits in float64 with gradient, and labels of which some are ignored."""
    rng = np.random.default_rng(seed)
    target = np.where(rng.random(shape) < holes, IGNORE, rng.integers(0, num_classes, shape))
    logits = torch.as_tensor(2 * rng.standard_normal((shape[0], num_classes, *shape[1:])))
    return logits.requires_grad_(), torch.as_tensor(target)


def gradient(loss, logits):
    return torch.autograd.grad(loss, logits)[0]


# Values


@pytest.mark.parametrize("border", BORDERS)
@variants
def test_loss_matches_the_loop(name, options, border):
    logits, target = data()
    window = {} if name == "ce" else {"border": border}
    fast = FUNCTIONS[name](logits, target, **options, **window, reduction="none")
    renamed = {"prior_name" if key == "prior" else key: value for key, value in options.items()}
    slow = oracles.pixel_losses(logits.detach().numpy(), target.numpy(), name, **renamed, **window)
    np.testing.assert_allclose(fast.detach(), slow, rtol=0, atol=1e-10)


@variants
def test_sum_adds_and_mean_divides_by_the_valid_pixels(name, options):
    logits, target = data()
    none, total, mean = (FUNCTIONS[name](logits, target, **options, reduction=r) for r in ("none", "sum", "mean"))
    assert none.shape == target.shape
    torch.testing.assert_close(total, none.sum())
    torch.testing.assert_close(mean, none.sum() / (target != IGNORE).sum())


def test_nacl_by_hand():
    logits, target = torch.tensor([[[[0.0, 2.0]], [[0.0, -1.0]]]]), torch.tensor([[[0, 1]]])
    cross_entropy = [math.log(2), math.log(1 + math.exp(3))]
    l1 = [(0.5 + 0.5) / 2, (1.5 + 1.5) / 2]
    l2 = [(0.25 + 0.25) / 2, (2.25 + 2.25) / 2]
    for penalty, distance in (("l1", l1), ("l2", l2)):
        loss = nacl_loss(logits, target, penalty=penalty, penalty_weight=0.2, reduction="none")
        expected = [ce + 0.2 * d for ce, d in zip(cross_entropy, distance, strict=True)]
        assert loss.flatten().tolist() == pytest.approx(expected)


# Limits


def test_cross_entropy_is_torchs():
    logits, target = data()
    torch.testing.assert_close(cross_entropy_loss(logits, target), F.cross_entropy(logits, target))


@pytest.mark.parametrize("softmax", [False, True])
@pytest.mark.parametrize("penalty", ["l1", "l2"])
@pytest.mark.parametrize("prior", ["mean", "gaussian"])
def test_nacl_of_weight_zero_is_cross_entropy(prior, penalty, softmax):
    logits, target = data()
    loss = nacl_loss(logits, target, prior=prior, penalty=penalty, softmax=softmax, penalty_weight=0)
    torch.testing.assert_close(loss, cross_entropy_loss(logits, target), rtol=0, atol=1e-12)


def test_svls_of_kernel_one_is_cross_entropy():
    logits, target = data()
    loss = svls_loss(logits, target, kernel_size=1)
    torch.testing.assert_close(loss, cross_entropy_loss(logits, target), rtol=0, atol=1e-12)


def test_svls_inside_an_object_is_cross_entropy():
    logits, _ = data()
    target = torch.full((2, 5, 4), 3)
    torch.testing.assert_close(svls_loss(logits, target), cross_entropy_loss(logits, target), rtol=0, atol=1e-12)


def test_nacl_at_its_own_constraint_is_cross_entropy():
    _, target = data(holes=0)
    tau = neighbour_prior(target, C, dtype=torch.float64)
    torch.testing.assert_close(nacl_loss(tau, target, penalty_weight=9), cross_entropy_loss(tau, target))


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


# Invariants


@light
@given(variant=st.sampled_from(VARIANTS), order=st.permutations(range(C)), seed=st.integers(0, 99))
def test_relabelling_the_classes_changes_nothing(variant, order, seed):
    (name, options), (logits, target) = variant, data(seed=seed)
    renamed = torch.where(target == IGNORE, IGNORE, torch.tensor(order)[target.clamp(min=0)])
    moved = torch.empty_like(logits)
    moved[:, order] = logits.detach()
    old, new = (FUNCTIONS[name](*pair, **options, reduction="none") for pair in ((logits, target), (moved, renamed)))
    torch.testing.assert_close(new, old.detach(), rtol=0, atol=1e-12)


@light
@given(variant=st.sampled_from(VARIANTS), order=st.permutations(range(3)), seed=st.integers(0, 99))
def test_loss_is_permuted_with_the_batch(variant, order, seed):
    (name, options), (logits, target) = variant, data(shape=(3, 4, 3), seed=seed)
    loss = FUNCTIONS[name](logits, target, **options, reduction="none")
    moved = FUNCTIONS[name](logits[order], target[order], **options, reduction="none")
    torch.testing.assert_close(moved, loss[order], rtol=0, atol=1e-12)


@light
@given(
    variant=st.sampled_from(VARIANTS),
    turn=st.sampled_from([lambda x: x.flip(-1), lambda x: x.flip(-2), lambda x: x.mT]),
    seed=st.integers(0, 99),
)
def test_flips_and_transposition_commute_with_the_loss(variant, turn, seed):
    (name, options), (logits, target) = variant, data(seed=seed)
    loss = FUNCTIONS[name](logits, target, **options, reduction="none")
    turned = FUNCTIONS[name](turn(logits), turn(target), **options, reduction="none")
    torch.testing.assert_close(turned, turn(loss), rtol=0, atol=1e-12)


# Derivatives


@variants
def test_gradcheck(name, options):
    logits, target = data(shape=(1, 2, 3), holes=0.1)
    if options.get("penalty", "l1") == "l1" and not options.get("softmax"):
        tau = neighbour_prior(target, C, dtype=torch.float64)
        assert (tau - logits).abs().min() > 1e-4  # away from the kinks
    assert torch.autograd.gradcheck(lambda x: FUNCTIONS[name](x, target, **options), logits)


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
    options = {"penalty": penalty, "penalty_weight": 0.3} if penalty else {}
    loss = FUNCTIONS[name](logits, target, reduction=reduction, **options)
    torch.testing.assert_close(gradient(loss, logits), expected, rtol=0, atol=1e-12)


# Ignored pixels


@variants
def test_ignored_pixels_have_no_loss_and_no_gradient(name, options):
    logits, target = data()
    loss = FUNCTIONS[name](logits, target, **options, reduction="none")
    slope = gradient(loss.sum(), logits)
    ignored = target == IGNORE
    assert (loss[ignored] == 0).all()
    assert (slope.movedim(1, -1)[ignored] == 0).all()
    assert (slope.movedim(1, -1)[~ignored] != 0).any()


@pytest.mark.parametrize("value", [1e30, -1e30, math.inf, math.nan])
@variants
def test_logits_of_ignored_pixels_change_nothing(name, options, value):
    logits, target = data()
    broken = logits.detach().clone()
    broken.movedim(1, -1)[target == IGNORE] = value
    broken.requires_grad_()
    loss, same = (FUNCTIONS[name](x, target, **options) for x in (logits, broken))
    torch.testing.assert_close(same, loss, rtol=0, atol=0)
    torch.testing.assert_close(gradient(same, broken), gradient(loss, logits), rtol=0, atol=0)


@variants
def test_map_with_an_ignored_region_equals_its_crop(name, options):
    logits, target = data(shape=(2, 7, 6), holes=0.1)
    target[:, 4:], target[:, :, :2] = IGNORE, IGNORE
    whole = FUNCTIONS[name](logits, target, **options)
    torch.testing.assert_close(whole, FUNCTIONS[name](logits[:, :, :4, 2:], target[:, :4, 2:], **options))


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
@variants
def test_all_pixels_ignored_gives_zero_and_zero_gradient(name, options, reduction):
    logits, _ = data()
    loss = FUNCTIONS[name](logits, torch.full((2, 5, 4), IGNORE), **options, reduction=reduction)
    assert (loss == 0).all()
    assert (gradient(loss.sum(), logits) == 0).all()


@variants
def test_uint8_label_156_is_not_ignored_for_minus_100(name, options):
    logits, _ = data(shape=(1, 2, 3), num_classes=157)
    target = torch.tensor([[[0, 156, 156], [1, 0, 156]]])
    loss = FUNCTIONS[name](logits, target.to(torch.uint8), **options, reduction="none")
    torch.testing.assert_close(loss, FUNCTIONS[name](logits, target, **options, reduction="none"))
    assert (loss > 0).all()


# Number types


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@variants
def test_half_logits_of_1e4_give_a_finite_float32_loss(name, options, dtype):
    _, target = data()
    sign = torch.randn(2, C, 5, 4, generator=torch.Generator().manual_seed(0)).sign()
    logits = (1e4 * sign).to(dtype).requires_grad_()
    loss = FUNCTIONS[name](logits, target, **options)
    assert loss.dtype == torch.float32
    assert loss.isfinite()
    assert gradient(loss, logits).isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@variants
def test_float32_and_float64_stay(name, options, dtype):
    logits, target = data()
    assert FUNCTIONS[name](logits.to(dtype), target, **options).dtype == dtype


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int16, torch.int32])
@variants
def test_integer_type_of_the_labels_does_not_matter(name, options, dtype):
    logits, target = data(holes=0)
    loss, same = (FUNCTIONS[name](logits, t, **options) for t in (target, target.to(dtype)))
    torch.testing.assert_close(same, loss, rtol=0, atol=0)


def test_infinite_logit_of_a_class_without_weight_costs_nothing():
    logits = torch.zeros(1, 2, 1, 3)
    logits[:, 1] = -math.inf
    target = torch.zeros(1, 1, 3).long()
    assert svls_loss(logits, target) == 0
    assert cross_entropy_loss(logits, target) == 0


# Modules


@variants
def test_module_equals_function(name, options):
    logits, target = data()
    module = LOSSES[name](**options, reduction="none")
    torch.testing.assert_close(module(logits, target), FUNCTIONS[name](logits, target, **options, reduction="none"))
    torch.testing.assert_close(copy.deepcopy(module)(logits, target), module(logits, target))


@each_loss
def test_module_has_the_keywords_of_its_function(name):
    keywords = {p.name: p.default for p in inspect.signature(LOSSES[name]).parameters.values()}
    function = inspect.signature(FUNCTIONS[name]).parameters
    assert keywords == {key: p.default for key, p in function.items() if key not in ("logits", "target")}
    assert LOSSES[name]().options == keywords


def test_repr_shows_every_option():
    assert repr(CrossEntropyLoss(reduction="sum")) == "CrossEntropyLoss(ignore_index=-100, reduction='sum')"
    assert repr(SVLSLoss(sigma=2.0)) == (
        "SVLSLoss(kernel_size=3, sigma=2.0, border='inside', ignore_index=-100, reduction='mean')"
    )
    assert repr(NACLLoss(penalty="l2")) == (
        "NACLLoss(prior='mean', kernel_size=3, sigma=1.0, penalty='l2', penalty_weight=0.1, border='inside', "
        "softmax=False, ignore_index=-100, reduction='mean')"
    )


@each_loss
def test_build_loss_makes_the_module(name):
    module = build_loss(name, reduction="sum")
    assert type(module) is LOSSES[name]
    assert module.options["reduction"] == "sum"


@pytest.fixture
def compiled():
    """A Module as one graph, or an error."""
    torch._dynamo.reset()
    yield functools.partial(torch.compile, backend="eager", fullgraph=True)
    torch._dynamo.reset()


@each_loss
def test_loss_compiles_as_one_graph(name, compiled):
    logits, target = data()
    loss = compiled(LOSSES[name]())(logits, target)
    torch.testing.assert_close(loss, FUNCTIONS[name](logits, target))


@pytest.mark.parametrize(("name", "option"), [("nacl", "penalty_weight"), ("svls", "sigma")])
def test_losses_that_differ_in_one_number_compile_side_by_side(name, option, compiled):
    logits, target = data()
    for value in (0.5, 0.7, 0.9):
        loss = compiled(LOSSES[name](**{option: value}))(logits, target)
        torch.testing.assert_close(loss, FUNCTIONS[name](logits, target, **{option: value}))


@each_loss
def test_vmap_over_logits_equals_a_loop(name):
    logits, target = data()
    stack = torch.stack([logits.detach(), 2 * logits.detach()])
    mapped = torch.func.vmap(lambda x: FUNCTIONS[name](x, target))(stack)
    torch.testing.assert_close(mapped, torch.stack([FUNCTIONS[name](x, target) for x in stack]))


# Refusals


@pytest.mark.parametrize(
    ("logits", "target", "error", "message"),
    [
        (torch.zeros(1, 3, 4), None, ValueError, "`logits` of shape (N, C, H, W) with C of at least 2, got (1, 3, 4)"),
        (torch.zeros(1, 1, 2, 2), None, ValueError, "`logits` of shape (N, C, H, W) with C of at least 2, got (1, 1,"),
        (torch.zeros(1, 3, 2, 2).int(), None, TypeError, "`logits` of a floating dtype, got torch.int32"),
        (torch.zeros(1, 3, 2, 2).cfloat(), None, TypeError, "`logits` of a floating dtype, got torch.complex64"),
        (np.zeros((1, 3, 2, 2)), None, TypeError, "`logits` to be a torch.Tensor, got ndarray"),
        (None, np.zeros((1, 2, 2), int), TypeError, "`target` to be a torch.Tensor, got ndarray"),
        (None, torch.zeros(1, 2, 3).long(), ValueError, "`target` of shape (1, 2, 2), got (1, 2, 3) (logits (1, 3, 2"),
        (None, torch.zeros(2, 2).long(), ValueError, "`target` of shape (1, 2, 2), got (2, 2)"),
        (None, torch.zeros(1, 2, 2), TypeError, "`target` of an integer dtype, got torch.float32. Call target.long()"),
        (None, torch.zeros(1, 2, 2).bool(), TypeError, "`target` of an integer dtype, got torch.bool"),
        (None, torch.full((1, 2, 2), 3), ValueError, "`target` values in [0, 3) or ignore_index=-100, got 3 (num_cla"),
        (None, torch.full((1, 2, 2), -1), ValueError, "`target` values in [0, 3) or ignore_index=-100, got -1"),
        (None, torch.full((1, 2, 2), 156, dtype=torch.uint8), ValueError, "`target` values in [0, 3) or ignore_index"),
        (torch.full((1, 3, 2, 2), math.nan), None, ValueError, "`logits` without NaN or infinite values, got a loss"),
    ],
)
@each_loss
def test_bad_tensors_are_named(name, logits, target, error, message):
    logits = torch.zeros(1, 3, 2, 2) if logits is None else logits
    target = torch.zeros(1, 2, 2).long() if target is None else target
    with pytest.raises(error, match=re.escape(f"Expected {message}")):
        FUNCTIONS[name](logits, target)


@pytest.mark.parametrize(
    ("name", "options", "error", "message"),
    [
        ("ce", {"reduction": "avg"}, ValueError, "`reduction` to be one of 'none', 'mean', 'sum', got 'avg'"),
        ("svls", {"kernel_size": 2}, ValueError, "`kernel_size` to be odd, got 2. Use 1 or 3"),
        ("svls", {"kernel_size": "3"}, TypeError, "`kernel_size` to be an integer, got '3'"),
        ("svls", {"sigma": -1}, ValueError, "`sigma` in (0, inf), got -1"),
        ("svls", {"border": "insid"}, ValueError, "got 'insid'. Did you mean 'inside'?"),
        ("nacl", {"kernel_size": 0}, ValueError, "`kernel_size` of at least 1, got 0"),
        ("nacl", {"kernel_size": True}, TypeError, "`kernel_size` to be an integer, got True"),
        ("nacl", {"prior": "gaussian", "sigma": True}, TypeError, "`sigma` to be a number, got True"),
        ("nacl", {"prior": "gaussian", "sigma": math.nan}, ValueError, "`sigma` in (0, inf), got nan"),
        ("nacl", {"penalty_weight": -0.1}, ValueError, "`penalty_weight` in [0, inf), got -0.1"),
        ("nacl", {"penalty_weight": math.inf}, ValueError, "`penalty_weight` in [0, inf), got inf"),
        ("nacl", {"penalty_weight": math.nan}, ValueError, "`penalty_weight` in [0, inf), got nan"),
        ("nacl", {"penalty_weight": True}, TypeError, "`penalty_weight` to be a number, got True"),
        ("nacl", {"penalty_weight": "0.1"}, TypeError, "`penalty_weight` to be a number, got '0.1'"),
        ("nacl", {"penalty": "L1"}, ValueError, "`penalty` to be one of 'l1', 'l2', got 'L1'. Did you mean 'l1'?"),
        ("nacl", {"prior": "meen"}, ValueError, "`prior` to be one of 'mean', 'gaussian', got 'meen'. Did you mean"),
    ],
)
def test_bad_options_are_named_by_function_and_module(name, options, error, message):
    logits, target = torch.zeros(1, 3, 2, 2), torch.zeros(1, 2, 2).long()
    with pytest.raises(error, match=re.escape(message)):
        FUNCTIONS[name](logits, target, **options)
    with pytest.raises(error, match=re.escape(message)):
        build_loss(name, **options)


@pytest.mark.parametrize("value", [0.5, True, "255", None])
@each_loss
def test_ignore_index_that_is_no_integer_is_named(name, value):
    with pytest.raises(TypeError, match=re.escape(f"Expected `ignore_index` to be an integer, got {value!r}")):
        build_loss(name, ignore_index=value)


def test_unknown_keyword_suggests_the_nearest():
    with pytest.raises(ValueError, match=r"got 'penalty_wieght'\. Did you mean 'penalty_weight'"):
        NACLLoss(penalty_wieght=0.2)
    with pytest.raises(ValueError, match="Expected `keyword` to be one of 'ignore_index', 'reduction', got 'sigma'"):
        CrossEntropyLoss(sigma=1.0)


def test_unknown_loss_suggests_the_nearest():
    with pytest.raises(ValueError, match=r"`loss` to be one of 'ce', 'svls', 'nacl', got 'NaCl'\. Did you mean 'nacl'"):
        build_loss("NaCl")
