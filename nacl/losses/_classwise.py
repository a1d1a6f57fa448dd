"""The engine under losses that are made of sums over an image, class by class: Dice, L1-ACE.

A loss states what it sums, and what the derivative of a sum is in the probabilities. The sums are taken slab by slab,
in float64 where the device has it, and the gradient in a second pass over the slabs.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from nacl._checks import Labels, check_flag, check_not_nan, is_functional, is_scanned
from nacl._windows import IGNORED, OUT_OF_RANGE, indicators, narrow_labels
from nacl.losses._pixelwise import compiled_labels, slabs, wide


class Sums(NamedTuple):
    """What a loss sums over the pixels of an image."""

    measure: Callable[[Tensor, Tensor, Tensor], Tensor]
    """(probs, labels, valid), the first two (N, C, ...), the third (N, 1, ...) -> the sums (N, C, M)."""
    slope: Callable[[Tensor, Tensor, Tensor], Tensor]
    """(probs, labels, a derivative of the loss in its sums (N, C, M)) -> its derivative in the probabilities."""


def class_sums(sums: Sums, logits: Tensor, labels: Labels, ignore_index: int) -> Tensor:
    """The sums of every image (N, C, M), differentiable in the logits."""
    if torch.compiler.is_compiling():
        narrow = compiled_labels(labels.target, logits.shape[1], ignore_index)
        return _all_at_once(sums, logits, Labels(narrow.long(), narrow == IGNORED))
    if is_functional(logits) or is_functional(labels.target):
        return _all_at_once(sums, logits, labels)
    return _ClassSums.apply(sums, logits, labels)


def per_class(values: Tensor, include_background: bool, reduction: str) -> Tensor:
    """Losses (N, C) of each image and class, without class 0 if that is wanted, reduced."""
    check_flag("include_background", include_background)
    values = values if include_background else values[:, 1:]
    if reduction != "none":
        count = max(values.numel(), 1) if reduction == "mean" else 1
        values = values.sum() / count
    check_not_nan(values, "logits")
    return values


def accumulator(values: Tensor) -> torch.dtype:
    """The dtype to add up in: float64, which Apple's GPUs do not have."""
    return torch.float32 if values.device.type == "mps" else torch.float64


def _prepared(logits: Tensor, labels: Labels) -> tuple[Tensor, Tensor, Tensor]:
    """Probabilities, one-hot labels and the valid pixels, all in the dtype of the probabilities and 0 where ignored.

    A label out of range, where no label was looked at, is NaN in every class.
    """
    logits = wide(logits)
    narrow = narrow_labels(labels, logits.shape[1])
    label = indicators(narrow, logits.shape[1]).to(logits.dtype)
    if labels.ignored is None:
        return logits.softmax(dim=1), label, logits.new_ones(()).expand(narrow.unsqueeze(1).shape)
    ignored = labels.ignored.unsqueeze(1)
    if not is_scanned(labels.target):
        label = torch.where((narrow == OUT_OF_RANGE).unsqueeze(1), torch.nan, label)
    probs = torch.where(ignored, 0, torch.where(ignored, 0, logits).softmax(dim=1))
    return probs, label, (~ignored).to(logits.dtype)


def _all_at_once(sums: Sums, logits: Tensor, labels: Labels) -> Tensor:
    return sums.measure(*_prepared(logits, labels))


class _ClassSums(torch.autograd.Function):
    @staticmethod
    def forward(ctx, sums, logits, labels):
        nothing = sums.measure(*_prepared(logits[:0], Labels(labels.target[:0], None)))
        total = nothing.new_zeros((len(logits), *nothing.shape[1:]))
        for slab in slabs(logits):
            total[slab.images] += sums.measure(*_prepared(slab.of(logits), slab.labels(labels)))
        ctx.save_for_backward(logits, *labels)
        ctx.sums = sums
        return total

    @staticmethod
    def backward(ctx, grad):
        logits, *labels = ctx.saved_tensors
        sums, labels = ctx.sums, Labels(*labels)
        if torch.is_grad_enabled():  # a second derivative is wanted
            with torch.enable_grad():
                total = _all_at_once(sums, logits, labels)
                return None, torch.autograd.grad(total, logits, grad, create_graph=True)[0], None
        gradient = torch.empty_like(logits)
        for slab in slabs(logits):
            probs, label, _ = _prepared(slab.of(logits), slab.labels(labels))
            slope = sums.slope(probs, label, grad[slab.images].to(probs.dtype))
            weighted = probs * slope
            slab.of(gradient).copy_(weighted.sub_(probs * weighted.sum(dim=1, keepdim=True)))
        return None, gradient, None
