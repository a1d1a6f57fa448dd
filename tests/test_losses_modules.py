"""The Modules of the losses, and what functions and Modules refuse."""

import copy
import inspect
import math
import pickle
import re

import numpy as np
import pytest
import torch
from loss_cases import FUNCTIONS, OF_IMAGES, VARIANTS, C, data, each_loss, over, variants

from nacl.losses import (
    LOSSES,
    CRaCLoss,
    CrossEntropyLoss,
    FocalLoss,
    NACLLoss,
    SVLSLoss,
    build_loss,
    keywords,
    nacl_loss,
    svls_loss,
)
from nacl.losses._module import PER_CALL

FUNCTIONAL = {key: loss for key, loss in VARIANTS.items() if loss.name != "crac"}  # whose Module is its function
MODULES = sorted(set(LOSSES) - {"crac"})


def refuses(error, message):
    return pytest.raises(error, match=re.escape(message))


# Modules


@over(FUNCTIONAL, "loss")
def test_module_equals_function_also_copied_and_pickled(loss):
    logits, target = data()
    module = build_loss(loss.name, **loss.options, reduction="none")
    expected = loss(logits, target, reduction="none")
    for same in (module, copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        torch.testing.assert_close(same(logits, target, **loss.data(target)), expected, rtol=0, atol=0)
    assert module.state_dict() == {}


@pytest.mark.parametrize("name", MODULES)
def test_module_has_the_keywords_of_its_function(name):
    signature = {p.name: p.default for p in inspect.signature(LOSSES[name]).parameters.values()}
    function = inspect.signature(FUNCTIONS[name]).parameters
    assert signature == {key: p.default for key, p in function.items() if key not in ("logits", "target", *PER_CALL)}
    assert LOSSES[name]().options == keywords(LOSSES[name]) == signature


def test_keywords_of_crac_are_those_that_it_can_be_built_with():
    assert build_loss("crac", num_classes=3, **keywords(CRaCLoss)).options["margin"] == 10.0
    assert "num_classes" not in keywords(CRaCLoss)


def test_repr_shows_every_option():
    assert repr(CrossEntropyLoss(reduction="sum")) == "CrossEntropyLoss(ignore_index=-100, reduction='sum')"
    assert repr(SVLSLoss(sigma=2.0)) == (
        "SVLSLoss(kernel_size=3, sigma=2.0, border='inside', ignore_index=-100, reduction='mean')"
    )


def test_set_changes_the_loss():
    logits, target = data()
    loss = NACLLoss()
    loss.set(penalty_weight=0.7, prior="gaussian", kernel_size=(3, 5))
    assert loss(logits, target) == nacl_loss(logits, target, penalty_weight=0.7, prior="gaussian", kernel_size=(3, 5))
    assert keywords(NACLLoss)["penalty_weight"] == 0.1
    assert NACLLoss().options["penalty_weight"] == 0.1


@pytest.mark.parametrize(
    "options",
    [{"penalty_weight": 0.7, "kernel_size": 2}, {"penalty_weight": 0.7, "sigmaa": 1}, {"penalty_weight": -1}],
)
def test_refused_set_changes_nothing(options):
    loss = NACLLoss(penalty_weight=0.3)
    before = dict(loss.options)
    with pytest.raises(ValueError, match="Expected `"):
        loss.set(**options)
    assert loss.options == before


@pytest.mark.parametrize("prior", ["gradient", "mean"])
def test_module_says_whether_it_reads_the_image(prior):
    assert NACLLoss(prior=prior).reads_image == (prior == "gradient")


@each_loss
def test_build_loss_makes_the_module(loss):
    module = build_loss(loss.name, num_classes=C, reduction="sum")
    assert type(module) is LOSSES[loss.name]
    assert module.options["reduction"] == "sum"


def test_module_takes_images_and_volumes():
    loss = NACLLoss(kernel_size=3)
    for shape in ((2, 3, 4), (2, 3, 4, 2)):
        logits, target = data(shape)
        assert loss(logits, target) == nacl_loss(logits, target)


# Refused tensors

PLANE = torch.zeros(1, 3, 2, 2)


@pytest.mark.parametrize(
    ("logits", "target", "error", "message"),
    [
        (torch.zeros(1, 3, 4), None, ValueError, "`logits` of shape (N, C, H, W) or (N, C, D, H, W) with C"),
        (torch.zeros(1, 1, 2, 2), None, ValueError, "with C of at least 2, got (1, 1, 2, 2)"),
        (torch.zeros(1, 3, 2, 2, 2, 2), None, ValueError, "with C of at least 2, got (1, 3, 2, 2, 2, 2)"),
        (torch.zeros(1, 3, 2, 2).int(), None, TypeError, "`logits` of a floating dtype, got torch.int32. Call logits"),
        (torch.zeros(1, 3, 2, 2).cfloat(), None, TypeError, "`logits` of a floating dtype, got torch.complex64"),
        (np.zeros((1, 3, 2, 2)), None, TypeError, "`logits` to be a torch.Tensor, got ndarray"),
        ([[1.0, 2.0]], None, TypeError, "`logits` to be a torch.Tensor, got list"),
        (PLANE, np.zeros((1, 2, 2), int), TypeError, "`target` to be a torch.Tensor, got ndarray"),
        (PLANE, None, TypeError, "`target` to be a torch.Tensor, got NoneType"),
        (PLANE, torch.zeros(1, 2, 3).long(), ValueError, "`target` of shape (1, 2, 2), got (1, 2, 3) (logits (1"),
        (PLANE, torch.zeros(2, 2).long(), ValueError, "`target` of shape (1, 2, 2), got (2, 2)"),
        (PLANE, torch.zeros(1, 1, 2, 2).long(), ValueError, "got (1, 1, 2, 2) (logits (1, 3, 2, 2)). Call target."),
        (PLANE, torch.zeros(1, 2, 2), TypeError, "`target` of an integer dtype, got torch.float32. Call target.long()"),
        (PLANE, torch.zeros(1, 2, 2).bool(), TypeError, "`target` of an integer dtype, got torch.bool"),
        (PLANE, torch.full((1, 2, 2), 3), ValueError, "`target` values in [0, 3) or ignore_index=-100, got 3 (num"),
        (PLANE, torch.full((1, 2, 2), -1), ValueError, "`target` values in [0, 3) or ignore_index=-100, got -1"),
        (PLANE * math.nan, torch.zeros(1, 2, 2).long(), ValueError, "`logits` without NaN or infinite values, got"),
        (PLANE + math.inf, torch.zeros(1, 2, 2).long(), ValueError, "`logits` without NaN or infinite values, got"),
    ],
    ids=str,
)  # fmt: skip
@each_loss
def test_bad_tensors_are_named(loss, logits, target, error, message):
    if target is None and logits is not PLANE:
        target = torch.zeros(1, 2, 2).long()
    with refuses(error, message):
        loss(logits, target)


@pytest.mark.parametrize(
    ("dtype", "label"),
    [
        (torch.uint8, 3),
        (torch.uint8, 156),  # -100 in int8
        (torch.int8, -128),
        (torch.int16, 256),  # 0 in uint8
        (torch.int32, -1),
        (torch.int64, 2**32),  # 0 in int32
    ],
)
@each_loss
def test_label_out_of_range_is_refused_in_every_integer_type(loss, label, dtype):
    target = torch.zeros(1, 2, 2, dtype=dtype)
    target[0, 1, 1] = label
    with refuses(ValueError, f"got {label} (num_classes=3). Remap the labels or raise num_classes."):
        loss(PLANE, target)


@variants
def test_one_nan_is_refused(loss):
    logits, target = data(holes=0)
    logits.data[1, 2, 3, 1] = math.nan
    for reduction in ("none", "mean", "sum"):
        with refuses(ValueError, "`logits` without NaN"):
            loss(logits, target, reduction=reduction)


# Refused options

PRIOR_NAMES = "'mean', 'gaussian', 'max', 'min', 'median', 'mode', 'bilateral'"


@pytest.mark.parametrize(
    ("name", "options", "error", "message"),
    [
        ("ce", {"reduction": "avg"}, ValueError, "`reduction` to be one of 'none', 'mean', 'sum', got 'avg'"),
        ("ce", {"ignore_index": 0.5}, TypeError, "`ignore_index` to be an integer, got 0.5"),
        ("label_smoothing", {"smoothing": 1.1}, ValueError, "`smoothing` in [0, 1], got 1.1"),
        ("label_smoothing", {"smoothing": -0.1}, ValueError, "`smoothing` in [0, 1], got -0.1"),
        ("label_smoothing", {"smoothing": math.nan}, ValueError, "`smoothing` in [0, 1], got nan"),
        ("focal", {"gamma": -1}, ValueError, "`gamma` in [0, inf), got -1"),
        ("focal", {"gamma": "2"}, TypeError, "`gamma` to be a number, got '2'"),
        ("focal", {"gamma_unsure": -1}, ValueError, "`gamma_unsure` in [0, inf), got -1"),
        ("focal", {"threshold": 0}, ValueError, "`threshold` in (0, 1], got 0"),
        ("focal", {"threshold": 1.5}, ValueError, "`threshold` in (0, 1], got 1.5"),
        ("ecp", {"penalty_weight": -0.1}, ValueError, "`penalty_weight` in [0, inf), got -0.1"),
        ("mbls", {"margin": -1}, ValueError, "`margin` in [0, inf), got -1"),
        ("mbls", {"penalty_weight": math.inf}, ValueError, "`penalty_weight` in [0, inf), got inf"),
        ("mbls", {"penalty": "l3"}, ValueError, "`penalty` to be one of 'l1', 'l2', 'huber', got 'l3'"),
        ("mbls", {"delta": 0}, ValueError, "`delta` in (0, inf), got 0"),
        ("svls", {"kernel_size": 2}, ValueError, "`kernel_size` to be odd, got 2. Use 1 or 3"),
        ("svls", {"kernel_size": "3"}, TypeError, "`kernel_size` to be an integer, got '3'"),
        ("svls", {"sigma": -1}, ValueError, "`sigma` in (0, inf), got -1"),
        ("svls", {"border": "insid"}, ValueError, "got 'insid'. Did you mean 'inside'?"),
        ("nacl", {"kernel_size": 0}, ValueError, "`kernel_size` of at least 1, got 0"),
        ("nacl", {"kernel_size": True}, TypeError, "`kernel_size` to be an integer, got True"),
        ("nacl", {"kernel_size": None}, TypeError, "`kernel_size` to be an integer, got None"),
        ("nacl", {"kernel_size": (3, 4)}, ValueError, "`kernel_size` to be odd, got (3, 4). Use 3 or 5"),
        ("nacl", {"kernel_size": (3, 5.0)}, TypeError, "`kernel_size` to be an integer, got 5.0"),
        ("nacl", {"kernel_size": (3,)}, ValueError, "`kernel_size` of one number, or 2, one an axis, got (3,)"),
        ("nacl", {"kernel_size": (3,) * 4}, ValueError, "`kernel_size` of one number, or 2, one an axis, got (3, 3, 3"),
        ("nacl", {"kernel_size": ()}, ValueError, "`kernel_size` of one number, or 2, one an axis, got ()"),
        ("nacl", {"prior": "gaussian", "sigma": True}, TypeError, "`sigma` to be a number, got True"),
        ("nacl", {"sigma": math.nan}, ValueError, "`sigma` in (0, inf), got nan"),
        ("nacl", {"penalty_weight": -0.1}, ValueError, "`penalty_weight` in [0, inf), got -0.1"),
        ("nacl", {"penalty_weight": math.nan}, ValueError, "`penalty_weight` in [0, inf), got nan"),
        ("nacl", {"penalty_weight": True}, TypeError, "`penalty_weight` to be a number, got True"),
        ("nacl", {"penalty": "L1"}, ValueError, "`penalty` to be one of 'l1', 'l2', 'huber', got 'L1'. Did you"),
        ("nacl", {"delta": -1.0}, ValueError, "`delta` in (0, inf), got -1.0"),
        ("nacl", {"softmax": 1}, TypeError, "`softmax` to be True or False, got 1"),
        ("nacl", {"mixed_only": None}, TypeError, "`mixed_only` to be True or False, got None"),
        ("nacl", {"prior": "meen"}, ValueError, f"`prior` to be one of {PRIOR_NAMES}"),
        ("nacl", {"prior": "neighbour"}, ValueError, f"`prior` to be one of {PRIOR_NAMES}"),
        ("crac", {"margin": 0}, ValueError, "`margin` in (0, inf), got 0"),
        ("crac", {"lagrangian": "p4"}, ValueError, "`lagrangian` to be one of 'phr', 'p2', 'p3', got 'p4'"),
        ("crac", {"kernel_size": 4}, ValueError, "`kernel_size` to be odd, got 4"),
        ("crac", {"border": "mirror"}, ValueError, "`border` to be one of"),
        ("dice", {"smooth": 0}, ValueError, "`smooth` in (0, inf), got 0"),
        ("dice", {"batch": 1}, TypeError, "`batch` to be True or False, got 1"),
        ("dice", {"include_background": "no"}, TypeError, "`include_background` to be True or False, got 'no'"),
        ("l1_ace", {"n_bins": 0}, ValueError, "`n_bins` of at least 1, got 0"),
        ("l1_ace", {"n_bins": 10.0}, TypeError, "`n_bins` to be an integer, got 10.0"),
    ],
)  # fmt: skip
def test_bad_options_are_named_by_function_and_module(name, options, error, message):
    with refuses(error, message):
        FUNCTIONS[name](PLANE, torch.zeros(1, 2, 2).long(), **options)
    with refuses(error, message):
        build_loss(name, num_classes=3, **options)


def test_the_prior_inside_svls_is_no_prior_of_nacl():
    with refuses(ValueError, "`prior` to be one of"):
        NACLLoss(prior="neighbours")


def test_window_of_two_axes_does_not_fit_a_volume():
    logits, target = data((1, 2, 3, 4))
    with refuses(ValueError, "`kernel_size` of one number, or 3, one an axis, got (3, 5)"):
        svls_loss(logits, target, kernel_size=(3, 5))


@pytest.mark.parametrize("value", [0.5, True, "255", None])
@each_loss
def test_ignore_index_that_is_no_integer_is_named(loss, value):
    with refuses(TypeError, f"Expected `ignore_index` to be an integer, got {value!r}"):
        build_loss(loss.name, num_classes=C, ignore_index=value)


@pytest.mark.parametrize(
    ("image", "error", "message"),
    [
        (None, ValueError, "`image` for prior='gradient', got None. Pass image=the network's input"),
        (np.zeros((2, 5, 4)), TypeError, "`image` to be a floating torch.Tensor, got ndarray"),
        (torch.zeros(2, 5, 4).int(), TypeError, "`image` to be a floating torch.Tensor, got torch.int32"),
        (torch.zeros(2, 5, 5), ValueError, "`image` of shape (N, ...) or (N, channels, ...), got (2, 1, 5, 5) (targ"),
        (torch.zeros(5, 4), ValueError, "`image` of shape (N, ...) or (N, channels, ...), got (5, 4) (target"),
        (torch.zeros(1, 5, 4), ValueError, "`image` of shape (N, ...) or (N, channels, ...), got (1, 1, 5, 4)"),
        (torch.full((2, 5, 4), math.nan), ValueError, "without NaN"),
    ],
    ids=str,
)  # fmt: skip
def test_image_that_does_not_fit_is_named(image, error, message):
    logits, target = data()
    with refuses(error, message):
        nacl_loss(logits, target, prior="gradient", image=image)
    with refuses(error, message):
        NACLLoss(prior="gradient")(logits, target, image=image)


def test_unknown_keyword_suggests_the_nearest():
    with refuses(ValueError, "got 'penalty_wieght'. Did you mean 'penalty_weight'"):
        NACLLoss(penalty_wieght=0.2)
    with refuses(ValueError, "got 'gama'. Did you mean 'gamma'"):
        FocalLoss().set(gama=2)
    with refuses(ValueError, "Expected `keyword` to be one of 'ignore_index', 'reduction', got 'sigma'"):
        build_loss("ce", sigma=1.0)


def test_unknown_loss_suggests_the_nearest():
    with refuses(ValueError, "got 'NaCl'. Did you mean 'nacl'"):
        build_loss("NaCl")


def test_loss_that_keeps_something_for_each_class_asks_for_their_number():
    with refuses(TypeError, "Expected `num_classes` to be an integer, got None"):
        build_loss("crac")


def test_every_loss_is_of_pixels_or_of_images():
    assert {*MODULES, "crac"} == set(LOSSES)
    assert set(OF_IMAGES) < set(LOSSES)
