"""The grammar of errors: argument, rule, value, remedy."""

import re

import numpy as np
import pytest
import torch

from nacl._checks import (
    check_choice,
    check_flag,
    check_forecast,
    check_integer,
    check_kernel_size,
    check_labels,
    check_logits_and_target,
    check_number,
    check_probs,
    expectation,
    extra_needed,
)


@pytest.mark.parametrize(
    ("context", "remedy", "message"),
    [
        ("", "", "Expected `x` in [0, 1], got 7."),
        ("of 3", "", "Expected `x` in [0, 1], got 7 (of 3)."),
        ("", "Halve it", "Expected `x` in [0, 1], got 7. Halve it."),
        ("of 3", "Halve it", "Expected `x` in [0, 1], got 7 (of 3). Halve it."),
    ],
)
def test_message_is_expected_got_context_remedy(context, remedy, message):
    assert expectation("x", "in [0, 1]", 7, context, remedy) == message


@pytest.mark.parametrize("value", ["mena", "MEAN", "means"])
def test_unknown_name_suggests_the_nearest(value):
    message = f"Expected `prior` to be one of 'mean', 'gaussian', got '{value}'. Did you mean 'mean'?"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        check_choice("prior", value, ["mean", "gaussian"])


def test_far_name_gets_no_suggestion():
    with pytest.raises(ValueError, match=r"got 'zzz'\.$"):
        check_choice("prior", "zzz", ["mean", "gaussian"])


@pytest.mark.parametrize("value", [True, "1", None, 1j, torch.tensor(1.0)])
def test_not_a_number(value):
    with pytest.raises(TypeError, match="Expected `sigma` to be a number, got "):
        check_number("sigma", value)


@pytest.mark.parametrize("value", [0, -1, 2.5, float("nan"), float("inf"), -float("inf")])
def test_number_out_of_range_names_range_and_value(value):
    message = f"Expected `sigma` in (0, 2], got {value}."
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        check_number("sigma", value, low=0, high=2, open_low=True)


def test_infinite_is_no_number_even_without_bounds():
    with pytest.raises(ValueError, match=r"Expected `x` in \(-inf, inf\), got inf"):
        check_number("x", float("inf"))


@pytest.mark.parametrize("value", [0, 1e-9, 2, np.float32(1), np.int64(2)])
def test_number_in_range(value):
    check_number("x", value, low=0, high=2)


@pytest.mark.parametrize("value", [True, 3.0, "3", None])
def test_not_an_integer(value):
    with pytest.raises(TypeError, match=f"Expected `n_bins` to be an integer, got {value!r}"):
        check_integer("n_bins", value, low=1)


def test_integer_too_low():
    check_integer("n_bins", np.int64(1), low=1)
    with pytest.raises(ValueError, match="Expected `n_bins` of at least 1, got 0"):
        check_integer("n_bins", 0, low=1)


@pytest.mark.parametrize("value", [2, 4])
def test_even_kernel_suggests_its_odd_neighbours(value):
    with pytest.raises(ValueError, match=rf"`kernel_size` to be odd, got {value}\. Use {value - 1} or {value + 1}"):
        check_kernel_size(value)


@pytest.mark.parametrize("sizes", [(3, 5), [1, 3, 3], (np.int64(3),)])
def test_kernel_sizes_come_back_one_an_axis(sizes):
    assert check_kernel_size(sizes, len(sizes)) == tuple(sizes)
    assert check_kernel_size(3, 3) == (3, 3, 3)
    assert check_kernel_size(3) == (3,)


@pytest.mark.parametrize("sizes", [(3,), (3, 3, 3), ()])
def test_kernel_sizes_of_other_axes_are_refused(sizes):
    message = f"Expected `kernel_size` of one number, or 2, one an axis, got {sizes}."
    with pytest.raises(ValueError, match=re.escape(message)):
        check_kernel_size(sizes, 2)


@pytest.mark.parametrize("value", [1, "yes", None, torch.tensor(True)])
def test_not_a_flag(value):
    with pytest.raises(TypeError, match="Expected `softmax` to be True or False, got "):
        check_flag("softmax", value)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int16, torch.uint16, torch.int32, torch.int64])
def test_labels_come_back_in_int64(dtype):
    labels = check_labels(torch.tensor([[[0, 1]]], dtype=dtype), 2, -100)
    assert labels.target.dtype == torch.int64
    assert labels.ignored is None
    assert labels.known is labels.target


@pytest.mark.parametrize("ignore_index", [-100, 255, 1])
def test_ignored_pixels_are_told_and_known_labels_fit_an_index(ignore_index):
    labels = check_labels(torch.tensor([[[0, ignore_index, 2]]]), 3, ignore_index)
    assert labels.ignored.tolist() == [[[False, True, False]]]
    assert labels.known.tolist() == [[[0, 0, 2]]]


def test_labels_of_an_empty_batch_are_in_order():
    assert check_labels(torch.zeros(0, 2, 2).long(), 2, -100).ignored is None


@pytest.mark.parametrize("shape", [(2, 2), (1, 2, 2, 2, 2), ()])
def test_labels_of_other_axes_are_refused(shape):
    with pytest.raises(ValueError, match=re.escape(f"`target` of shape (N, H, W) or (N, D, H, W), got {shape}")):
        check_labels(torch.zeros(shape).long(), 2, -100)


def test_labels_of_another_device_are_not_scanned():
    labels = check_labels(torch.full((1, 2, 2), 7, device="meta"), 2, -100)
    assert labels.ignored.shape == (1, 2, 2)


def test_label_out_of_range_names_itself_and_the_range():
    message = "Expected `target` values in [0, 4) or ignore_index=-100, got 7 (num_classes=4). Remap the labels"
    with pytest.raises(ValueError, match=re.escape(message)):
        check_labels(torch.tensor([[[0, 7, -100]]]), 4, -100)


def test_name_of_the_first_argument_is_the_callers():
    with pytest.raises(TypeError, match=r"Expected `probs` of a floating dtype, got torch.int64. Call probs.float()"):
        check_logits_and_target(torch.zeros(1, 2, 1, 1).long(), torch.zeros(1, 1, 1).long(), -100, name="probs")


# Forecasts


@pytest.mark.parametrize("shape", [(2, 3, 4, 5), (2, 3, 2, 4, 5), (0, 3, 4, 5), (2, 3, 0, 5)])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_forecast_in_order_gives_its_labels(shape, dtype):
    probs, target = torch.full(shape, 1 / 3, dtype=dtype), torch.zeros(shape[0], *shape[2:]).byte()
    for from_logits in (False, True):
        labels = check_forecast(probs, target, -100, from_logits=from_logits)
        assert labels.ignored is None
        assert labels.target.dtype == torch.int64


def test_forecast_of_one_up_to_rounding_is_a_probability():
    check_probs(torch.tensor([0.0, 1 + 9e-6]))
    for value in (1 + 2e-5, -1e-9):
        with pytest.raises(ValueError, match=r"Expected `q` values in \[0, 1\], got \[.*\]\. Pass logits.softmax"):
            check_probs(torch.tensor([0.5, value]), "q")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_forecast_that_is_not_finite_is_refused(value):
    forecast, target = torch.tensor([[0.5, value]]).view(1, 2, 1, 1), torch.zeros(1, 1, 1).long()
    with pytest.raises(ValueError, match="Expected `logits` to be finite, got NaN or an infinite value"):
        check_forecast(forecast, target, -100, from_logits=True)
    with pytest.raises(ValueError, match=r"Expected `probs` values in \[0, 1\], got \[.*(nan|inf).*from_logits=True"):
        check_forecast(forecast, target, -100)
    with pytest.raises(ValueError, match=r"Expected `probs` values in \[0, 1\], got \[-3, 2\]"):
        check_forecast(torch.tensor([[2.0, -3.0]]).view(1, 2, 1, 1), target, -100)


@pytest.mark.parametrize(
    ("target", "error", "message"),
    [
        (torch.zeros(1, 2, 2), TypeError, "`target` of an integer dtype, got torch.float32. Call target.long()"),
        (torch.zeros(1, 2, 2).bool(), TypeError, "`target` of an integer dtype, got torch.bool"),
        (torch.zeros(1, 1, 2, 2).long(), ValueError, "Call target.squeeze(1)"),
        (torch.full((1, 2, 2), 255).byte(), ValueError, "values in [0, 2) or ignore_index=-100, got 255"),
        (torch.zeros(1, 2, 2, device="meta").long(), ValueError, "`target` on the device of probs, cpu, got meta"),
        (np.zeros((1, 2, 2), int), TypeError, "`target` to be a torch.Tensor, got ndarray"),
    ],
)
def test_labels_that_do_not_fit_a_forecast_are_named(target, error, message):
    with pytest.raises(error, match=re.escape(message)):
        check_forecast(torch.full((1, 2, 2, 2), 0.5), target, -100)


def test_ignored_labels_of_a_forecast_are_told():
    target = torch.tensor([[[0, 255], [1, 0]]], dtype=torch.uint8)
    labels = check_forecast(torch.full((1, 2, 2, 2), 0.5), target, 255)
    assert labels.ignored.tolist() == [[[False, True], [False, False]]]
    with pytest.raises(TypeError, match="`from_logits` to be True or False, got 1"):
        check_forecast(torch.full((1, 2, 2, 2), 0.5), target, 255, from_logits=1)


def test_a_missing_extra_is_named_and_what_else_is_missing_is_not_taken_for_it():
    message = "Expected `no_such` to be installed, for a test, got none. Run: pip install 'nacl-calibration[none]'."
    with (
        pytest.raises(ModuleNotFoundError, match=f"^{re.escape(message)}$") as caught,
        extra_needed("no_such", "a test", extra="none"),
    ):
        import no_such.part  # noqa: F401
    assert caught.value.name == "no_such"
    with (
        pytest.raises(ModuleNotFoundError, match="No module named 'another_one'"),
        extra_needed("no_such", "", extra=""),
    ):
        import another_one  # noqa: F401
