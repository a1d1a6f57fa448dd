"""Validators with one grammar of errors: what was expected, what came, what to do."""

import difflib
import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from numbers import Integral, Real
from typing import NamedTuple

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


@contextmanager
def extra_needed(package: str, purpose: str, *, extra: str) -> Iterator[None]:
    """Say of an import inside that fails for want of `package` what it is for, and which extra brings it."""
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] != package:
            raise  # one that the package itself imports; Python names it
        remedy = f"Run: pip install 'nacl-calibration[{extra}]'"
        message = expectation(package, f"to be installed, for {purpose}", "none", remedy=remedy)
        raise ModuleNotFoundError(message, name=package) from error


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


def check_kernel_size(kernel_size: object, axes: int | None = None) -> tuple[int, ...]:
    """The window's size along each axis, once found to be odd: one number for all, or one an axis.

    Without `axes`, a single number gives a tuple of one.
    """
    sizes = tuple(kernel_size) if isinstance(kernel_size, tuple | list) else (kernel_size,) * (axes or 1)
    if axes is not None and len(sizes) != axes:
        raise ValueError(expectation("kernel_size", f"of one number, or {axes}, one an axis", kernel_size))
    for size in sizes:
        check_integer("kernel_size", size, low=1)
        if size % 2 == 0:
            remedy = f"Use {size - 1} or {size + 1}: a window needs a centre"
            raise ValueError(expectation("kernel_size", "to be odd", kernel_size, remedy=remedy))
    return sizes


class Labels(NamedTuple):
    """A label map in int64, and which of its pixels are ignored: None where it is known that none is."""

    target: Tensor
    ignored: Tensor | None

    @property
    def known(self) -> Tensor:
        """The labels with class 0 at ignored pixels, fit for an index."""
        return self.target if self.ignored is None else torch.where(self.ignored, 0, self.target)


def check_labels(target: Tensor, num_classes: int, ignore_index: int) -> Labels:
    """`target` in int64, once found to be an integer map (N, H, W) or (N, D, H, W); on the CPU also its values.

    (In uint8, 156 would equal an `ignore_index` of -100.)

    Values on another device are not scanned, because that would stop the device's queue: check labels where they
    are read. (The losses give NaN for a label out of range there, or CUDA's kernels refuse it.)
    """
    check_integer("ignore_index", ignore_index, low=-(2**63))
    if not isinstance(target, Tensor):
        raise TypeError(expectation("target", "to be a torch.Tensor", type(target).__name__))
    if target.is_floating_point() or target.is_complex() or target.dtype == torch.bool:
        raise TypeError(expectation("target", "of an integer dtype", target.dtype, remedy="Call target.long()"))
    if target.ndim not in (3, 4):
        raise ValueError(expectation("target", "of shape (N, H, W) or (N, D, H, W)", tuple(target.shape)))
    target = target.long()
    if not is_scanned(target):
        return Labels(target, target == ignore_index)
    low, high = (x.item() for x in target.aminmax()) if target.numel() else (0, 0)
    if low >= 0 and high < num_classes and not low <= ignore_index <= high:
        return Labels(target, None)
    ignored = target == ignore_index
    outside = ((target < 0) | (target >= num_classes)) & ~ignored
    if outside.any():
        rule = f"values in [0, {num_classes}) or ignore_index={ignore_index}"
        remedy = "Remap the labels or raise num_classes"
        got = target[outside][0].item()
        raise ValueError(expectation("target", rule, got, f"num_classes={num_classes}", remedy))
    return Labels(target, ignored if ignored.any() else None)


def check_logits(logits: Tensor, name: str = "logits") -> None:
    """Raise unless `logits` is floating (N, C, H, W) or (N, C, D, H, W), of two classes at least."""
    if not isinstance(logits, Tensor):
        raise TypeError(expectation(name, "to be a torch.Tensor", type(logits).__name__))
    if not logits.is_floating_point():
        raise TypeError(expectation(name, "of a floating dtype", logits.dtype, remedy=f"Call {name}.float()"))
    if logits.ndim not in (4, 5) or logits.shape[1] < 2:
        rule = "of shape (N, C, H, W) or (N, C, D, H, W) with C of at least 2"
        remedy = ""
        if logits.ndim in (4, 5) and logits.shape[1] == 1:
            remedy = "A mask is 2 classes, the background and it: make the network with 2 channels and no sigmoid"
            remedy += f", or pass torch.cat([1 - {name}, {name}], dim=1)" if name == "probs" else " (in smp, classes=2)"
        raise ValueError(expectation(name, rule, tuple(logits.shape), remedy=remedy))


def check_logits_and_target(logits: Tensor, target: Tensor, ignore_index: int, name: str = "logits") -> Labels:
    """The labels, once `logits` is found to be floating (N, C, ...) and `target` a label map that fits it."""
    check_logits(logits, name)
    wanted = (logits.shape[0], *logits.shape[2:])
    if isinstance(target, Tensor) and tuple(target.shape) != wanted:
        context = f"{name} {tuple(logits.shape)}"
        remedy = "Call target.squeeze(1)" if tuple(target.shape) == (wanted[0], 1, *wanted[1:]) else ""
        raise ValueError(expectation("target", f"of shape {wanted}", tuple(target.shape), context, remedy))
    if isinstance(target, Tensor) and target.device != logits.device:
        remedy = f"Call target.to({name}.device)"
        raise ValueError(expectation("target", f"on the device of {name}, {logits.device}", target.device, "", remedy))
    return check_labels(target, logits.shape[1], ignore_index)


def prepared_logits(logits: Tensor, target: Tensor, ignore_index: int) -> tuple[Tensor, Tensor]:
    """Logits in float32 or float64, 0 at ignored pixels, and labels in int64, once both were found in order."""
    target, ignored = check_logits_and_target(logits, target, ignore_index)
    logits = logits if logits.dtype == torch.float64 else logits.float()
    return logits if ignored is None else torch.where(ignored.unsqueeze(1), 0, logits), target


def check_probs(probs: Tensor, name: str = "probs") -> None:
    """Raise unless all values of `probs` are in [0, 1], up to rounding."""
    low, high = _extremes(probs)
    if not (low >= 0 and high <= 1 + 1e-5):  # written so that NaN fails
        remedy = "Pass logits.softmax(dim=1), from logits without NaN, or say from_logits=True"
        raise ValueError(expectation(name, "values in [0, 1]", f"[{low:.4g}, {high:.4g}]", remedy=remedy))


def check_forecast(forecast: Tensor, target: Tensor, ignore_index: int, *, from_logits: bool = False) -> Labels:
    """The labels, once all values of the two were found in order: on any device, since a metric waits for it anyway."""
    check_flag("from_logits", from_logits)
    name = "logits" if from_logits else "probs"
    labels = check_logits_and_target(forecast, target, ignore_index, name=name)
    if not is_scanned(target):
        labels = check_labels(target.cpu(), forecast.shape[1], ignore_index)
        labels = Labels(*(None if part is None else part.to(forecast.device) for part in labels))
    if not from_logits:
        check_probs(forecast)
    elif not max(abs(bound) for bound in _extremes(forecast)) < math.inf:
        raise ValueError(expectation("logits", "to be finite", "NaN or an infinite value"))
    return labels


def _extremes(values: Tensor) -> tuple[float, float]:
    low, high = (x.item() for x in values.detach().aminmax()) if values.numel() else (0.0, 0.0)
    return low, high


def check_flag(argument: str, value: object) -> None:
    """Raise unless `value` is True or False."""
    if not isinstance(value, bool):
        raise TypeError(expectation(argument, "to be True or False", repr(value)))


def check_not_nan(values: Tensor, argument: str) -> None:
    """Raise if `values`, computed from `argument`, hold NaN. On the CPU only: elsewhere it would stop the queue."""
    if is_scanned(values) and torch.isnan(values.detach()).any():
        remedy = "Lower the learning rate, or look for NaN in the images"
        raise ValueError(expectation(argument, "without NaN or infinite values", "a loss of NaN", remedy=remedy))


def is_scanned(values: Tensor) -> bool:
    """Whether the values may steer Python: on the CPU, and not under torch.compile or torch.func."""
    return values.device.type == "cpu" and not is_traced(values)


def is_traced(tensor: Tensor) -> bool:
    """Under torch.compile or torch.func a value cannot steer Python."""
    return torch.compiler.is_compiling() or is_functional(tensor)


def is_functional(tensor: Tensor) -> bool:
    """Inside a transform of torch.func: vmap, grad, jvp and their kin."""
    return torch._C._functorch.is_functorch_wrapped_tensor(tensor)
