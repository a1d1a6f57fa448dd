"""Validators with one grammar of errors: what was expected, what came, what to do."""

import difflib
import math
from collections.abc import Iterable
from numbers import Integral, Real

import torch
from torch import Tensor

REDUCTIONS = ("none", "mean", "sum")


def expectation(argument: str, rule: str, got: object, context: str = "", remedy: str = "") -> str:
    """The message of every error: ``Expected `ARG` RULE, got VALUE (CONTEXT). REMEDY.``

    >>> expectation("kernel_size", "to be odd", 4, remedy="Use 3 or 5")
    'Expected `kernel_size` to be odd, got 4. Use 3 or 5.'
    """
    message = f"Expected `{argument}` {rule}, got {got}"
    message += f" ({context})." if context else "."
    return f"{message} {remedy}." if remedy else message


def check_choice(argument: str, value: object, allowed: Iterable[str]) -> None:
    """Raise ValueError unless `value` is one of `allowed`; the message names the nearest one."""
    allowed = list(allowed)
    if value in allowed:
        return
    by_lower = {name.lower(): name for name in allowed}
    near = difflib.get_close_matches(str(value).lower(), by_lower, n=1, cutoff=0.5)
    remedy = f"Did you mean {by_lower[near[0]]!r}?" if near else ""
    message = expectation(argument, f"to be one of {', '.join(map(repr, allowed))}", repr(value))
    raise ValueError(f"{message} {remedy}".rstrip())


def check_number(
    argument: str, value: object, *, low: float = -math.inf, high: float = math.inf, open_low: bool = False
) -> None:
    """Raise unless `value` is a finite real number in [low, high], or in (low, high] where `open_low`."""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(expectation(argument, "to be a number", repr(value)))
    inside = low < value <= high if open_low else low <= value <= high
    if not (-math.inf < value < math.inf and inside):  # math.isfinite would stop torch.compile
        rule = f"in {'(' if open_low or low == -math.inf else '['}{low}, {high}{')' if high == math.inf else ']'}"
        raise ValueError(expectation(argument, rule, value))


def check_integer(argument: str, value: object, *, low: int) -> None:
    """Raise unless `value` is an integer of at least `low`."""
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(expectation(argument, "to be an integer", repr(value)))
    if value < low:
        raise ValueError(expectation(argument, f"of at least {low}", value))


def check_kernel_size(kernel_size: object) -> None:
    """Raise unless `kernel_size` is a positive odd integer."""
    check_integer("kernel_size", kernel_size, low=1)
    if kernel_size % 2 == 0:
        remedy = f"Use {kernel_size - 1} or {kernel_size + 1}: a window needs a centre"
        raise ValueError(expectation("kernel_size", "to be odd", kernel_size, remedy=remedy))


def check_labels(target: Tensor, num_classes: int, ignore_index: int) -> Tensor:
    """`target` in int64, once found to be an integer map (N, H, W); on the CPU, also to hold labels only.

    (In uint8, 156 would equal an `ignore_index` of -100.)

    Values on another device are not scanned, because that would stop the device's queue: check labels where they
    are read. (CUDA's cross-entropy kernel refuses labels out of range, too.)
    """
    check_integer("ignore_index", ignore_index, low=-(2**63))
    if not isinstance(target, Tensor):
        raise TypeError(expectation("target", "to be a torch.Tensor", type(target).__name__))
    if target.is_floating_point() or target.is_complex() or target.dtype == torch.bool:
        raise TypeError(expectation("target", "of an integer dtype", target.dtype, remedy="Call target.long()"))
    if target.ndim != 3:
        raise ValueError(expectation("target", "of shape (N, H, W)", tuple(target.shape)))
    target = target.long()
    if target.device.type == "cpu" and target.numel() and not _is_traced(target):
        outside = (target < 0) | (target >= num_classes)
        outside &= target != ignore_index
        if outside.any():
            rule = f"values in [0, {num_classes}) or ignore_index={ignore_index}"
            remedy = "Remap the labels or raise num_classes"
            got = target[outside][0].item()
            raise ValueError(expectation("target", rule, got, f"num_classes={num_classes}", remedy))
    return target


def check_logits_and_target(logits: Tensor, target: Tensor, ignore_index: int, name: str = "logits") -> Tensor:
    """`target` in int64, once `logits` is found to be floating (N, C, H, W) and `target` a label map that fits it."""
    if not isinstance(logits, Tensor):
        raise TypeError(expectation(name, "to be a torch.Tensor", type(logits).__name__))
    if not logits.is_floating_point():
        raise TypeError(expectation(name, "of a floating dtype", logits.dtype, remedy=f"Call {name}.float()"))
    if logits.ndim != 4 or logits.shape[1] < 2:
        raise ValueError(expectation(name, "of shape (N, C, H, W) with C of at least 2", tuple(logits.shape)))
    wanted = (logits.shape[0], *logits.shape[2:])
    if isinstance(target, Tensor) and tuple(target.shape) != wanted:
        context = f"{name} {tuple(logits.shape)}"
        raise ValueError(expectation("target", f"of shape {wanted}", tuple(target.shape), context))
    return check_labels(target, logits.shape[1], ignore_index)


def prepared_logits(logits: Tensor, target: Tensor, ignore_index: int) -> tuple[Tensor, Tensor]:
    """Logits in float32 or float64, 0 at ignored pixels, and labels in int64, once both were found in order."""
    target = check_logits_and_target(logits, target, ignore_index)
    logits = logits if logits.dtype == torch.float64 else logits.float()
    return torch.where((target != ignore_index).unsqueeze(1), logits, 0), target


def check_probs(probs: Tensor) -> None:
    """Raise unless all values of `probs` are in [0, 1], up to rounding."""
    low, high = (x.item() for x in probs.aminmax()) if probs.numel() else (0.0, 1.0)
    if not (low >= 0 and high <= 1 + 1e-5):  # written so that NaN fails
        remedy = "Pass logits.softmax(dim=1), from logits without NaN"
        raise ValueError(expectation("probs", "values in [0, 1]", f"[{low:.4g}, {high:.4g}]", remedy=remedy))


def checked_forecast(probs: Tensor, target: Tensor, ignore_index: int) -> tuple[Tensor, Tensor]:
    """`probs` and `target` on the CPU, with all their values found in order. (MPS has no float64 to score them in.)"""
    probs = probs.cpu() if isinstance(probs, Tensor) else probs
    target = target.cpu() if isinstance(target, Tensor) else target
    target = check_logits_and_target(probs, target, ignore_index, name="probs")
    check_probs(probs)
    return probs, target


def check_flag(argument: str, value: object) -> None:
    """Raise unless `value` is True or False."""
    if not isinstance(value, bool):
        raise TypeError(expectation(argument, "to be True or False", repr(value)))


def check_not_nan(values: Tensor, argument: str) -> None:
    """Raise if `values`, computed from `argument`, hold NaN. On the CPU only: elsewhere it would stop the queue."""
    if values.device.type == "cpu" and not _is_traced(values) and torch.isnan(values.detach()).any():
        remedy = "Lower the learning rate, or look for NaN in the images"
        raise ValueError(expectation(argument, "without NaN or infinite values", "a loss of NaN", remedy=remedy))


def _is_traced(tensor: Tensor) -> bool:
    """Under torch.compile or torch.func a value cannot steer Python."""
    return torch.compiler.is_compiling() or torch._C._functorch.is_functorch_wrapped_tensor(tensor)
