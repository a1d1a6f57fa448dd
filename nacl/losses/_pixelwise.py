"""The engine under every loss that is a mean over pixels: closed-form gradients, taken slab by slab.

A loss states its value and its gradient at a pixel in terms of the logits l and of log s; this file does the rest.

- On a CPU both are computed in one pass over slabs that fit the cache, so that nothing but the gradient is as large as
  the logits.
- On CUDA, one fused kernel does the same for the losses it knows (`nacl.losses._triton`).
- Under torch.compile, without that kernel, the gradient is computed anew in the backward pass, from the logits and
  their log-sum-exp.
- Under torch.func, and for a second derivative, autograd differentiates the same two expressions.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from nacl._checks import (
    REDUCTIONS,
    Labels,
    check_choice,
    check_labels,
    check_logits_and_target,
    check_not_nan,
    is_functional,
)
from nacl._windows import IGNORED, OUT_OF_RANGE, indicators, narrow_dtype, narrow_labels
from nacl.losses import _triton
from nacl.priors import Evidence, Neighbourhood, whole_tau

SLAB = 2**18
"""Logits in a slab: at least as many where the batch has them, and less than twice as many where rows are that fine.

1 to 2 MiB in float32, the caches of two cores.
"""


class Pixels(NamedTuple):
    """What a loss may know of the pixels of a slab."""

    logits: Tensor  # (N, C, ...), float32 or float64
    log_probs: Tensor  # the same
    narrow: Tensor  # labels (N, ...), in the smallest integers, -1 where ignored
    index: Tensor | None  # labels (N, ...), int64 and in [0, C); None under torch.compile
    tau: Tensor | None  # (N, C, ...)

    @property
    def probs(self) -> Tensor:
        """s, (N, C, ...)."""
        return self.log_probs.exp()

    @property
    def label_log_prob(self) -> Tensor:
        """log s_y, (N, ...)."""
        if torch.compiler.is_compiling():
            label_log_prob = torch.where(self._is_label, self.log_probs, 0).sum(dim=1)
            return torch.where(self.narrow.float() == OUT_OF_RANGE, torch.nan, label_log_prob)
        return self.log_probs.gather(1, self.index.unsqueeze(1)).squeeze(1)

    def minus_label(self, values: Tensor, share: float = 1.0) -> Tensor:
        """`values` - share * y."""
        if torch.compiler.is_compiling():
            return torch.where(self._is_label, values - share, values)
        return torch.sub(values, indicators(self.narrow, values.shape[1]).to(values.dtype), alpha=share)

    @property
    def _is_label(self) -> Tensor:
        """y as booleans. Compiled, a comparison of floats is fused and vectorised; a gather, or integers, are not."""
        classes = torch.arange(self.logits.shape[1], dtype=torch.float32, device=self.logits.device)
        return self.narrow.unsqueeze(1).float() == classes.view(-1, *[1] * (self.narrow.ndim - 1))

    def times_log_probs(self, weights: Tensor) -> Tensor:
        """sum_k w_k log s_k, (N, ...). A weight of 0 is no term at all, also where log s is -inf."""
        terms = (weights * self.log_probs).nan_to_num(nan=0.0, posinf=torch.inf, neginf=-torch.inf)
        return terms.sum(dim=1)


Formula = Callable[[Pixels], tuple[Tensor, Callable[[], Tensor]]]
"""A loss at each pixel (N, ...), and a function that gives its derivative in the logits (N, C, ...)."""


Kernel = Callable[[], dict[str, object]]
"""The keywords with which `nacl.losses._triton.fused_pixel_loss` computes the same."""


def pixel_loss(
    formula: Formula,
    logits: Tensor,
    target: Tensor,
    *,
    ignore_index: int,
    reduction: str,
    neighbourhood: Neighbourhood | None = None,
    image: Tensor | None = None,
    kernel: Kernel | None = None,
) -> Tensor:
    """`formula` at every valid pixel, reduced: "none", "mean" over the valid pixels, or "sum".

    Logits and target are checked here. tau comes from `neighbourhood`, and from `image` if that looks at it. `kernel`
    says the same to the fused kernel, if that knows the loss.
    """
    check_choice("reduction", reduction, REDUCTIONS)
    labels = check_logits_and_target(logits, target, ignore_index)
    fused = None
    if kernel is not None and _triton.available(logits):
        if logits.dtype == torch.float16:  # whose gradient must be scaled before it is rounded
            logits = logits.float()
        fused = {"target": target, "ignore_index": ignore_index, **kernel()}  # labels of any dtype, narrow ones faster
    pixels = _map(formula, logits, labels, ignore_index, neighbourhood, image, fused)
    loss = pixels if reduction == "none" else pixels.sum()
    if reduction == "mean":
        loss = loss / _valid(labels)
    check_not_nan(loss, "logits")
    return loss


def _valid(labels: Labels) -> Tensor | int:
    """The number of valid pixels, at least 1."""
    if labels.ignored is None:
        return max(labels.target.numel(), 1)
    return (~labels.ignored).sum().clamp(min=1)


def _map(
    formula: Formula,
    logits: Tensor,
    labels: Labels,
    ignore_index: int,
    neighbourhood: Neighbourhood | None,
    image: Tensor | None,
    fused: dict[str, object] | None,
) -> Tensor:
    if torch.compiler.is_compiling() and fused is not None:
        return _Fused.apply(fused, logits)
    if torch.compiler.is_compiling():
        narrow = compiled_labels(labels.target, logits.shape[1], ignore_index)
        evidence = () if neighbourhood is None else _evidence(narrow, image, wide(logits).dtype, *neighbourhood)
        value = _Recomputed.apply(formula, neighbourhood, logits, narrow, *evidence)
        return torch.where(narrow.float() == IGNORED, 0, value)
    if is_functional(logits) or is_functional(labels.target):
        value = formula(_all_pixels(logits, labels, neighbourhood, image))[0]
        return value if labels.ignored is None else torch.where(labels.ignored, 0, value)
    wanted = logits.requires_grad and torch.is_grad_enabled()
    return _Slabs.apply(formula, neighbourhood, logits, labels, image, fused, wanted)


def wide(logits: Tensor) -> Tensor:
    """The logits in the dtype to compute in: float32, or float64."""
    return logits if logits.dtype == torch.float64 else logits.float()


def _all_pixels(logits: Tensor, labels: Labels, neighbourhood: Neighbourhood | None, image: Tensor | None) -> Pixels:
    """The whole batch, differentiable."""
    logits = wide(logits)
    if labels.ignored is not None:  # what is there must not reach a derivative
        logits = torch.where(labels.ignored.unsqueeze(1), 0, logits)
    tau = None if neighbourhood is None else whole_tau(neighbourhood, labels, image, logits.dtype)
    narrow = narrow_labels(labels, logits.shape[1])
    return Pixels(logits, logits.log_softmax(dim=1), narrow, labels.known, tau)


class _Slabs(torch.autograd.Function):
    """Value and gradient in one pass; the gradient waits for the backward pass."""

    @staticmethod
    def forward(ctx, formula, neighbourhood, logits, labels, image, fused, wanted):
        ctx.rest = formula, neighbourhood
        if fused is not None:
            value, gradient = _triton.fused_pixel_loss(logits, gradient=wanted, **fused)
            ctx.save_for_backward(logits, gradient, image, *labels)
            return value
        dtype = wide(logits[:0]).dtype
        narrow, index = narrow_labels(labels, logits.shape[1]), labels.known
        padded = None if neighbourhood is None else neighbourhood.padded(narrow, image)
        value = torch.empty(narrow.shape, dtype=dtype, device=logits.device)
        gradient = torch.empty_like(logits, dtype=dtype) if wanted else None  # to be scaled before it is rounded
        for slab in slabs(logits):
            of_slab, tau = slab.of(narrow), None
            if neighbourhood is not None:
                tau = neighbourhood.tau(slab.evidence(neighbourhood, padded, dtype), of_slab, dtype)
            x = wide(slab.of(logits))
            slab_value, slab_gradient = formula(Pixels(x, x.log_softmax(dim=1), of_slab, slab.of(index), tau))
            slab.of(value).copy_(slab_value)
            if wanted:
                slab.of(gradient).copy_(slab_gradient())
        if labels.ignored is not None:
            value.masked_fill_(labels.ignored, 0)
            if wanted:
                gradient.masked_fill_(labels.ignored.unsqueeze(1), 0)
        ctx.save_for_backward(logits, gradient, image, *labels)
        return value

    @staticmethod
    def backward(ctx, grad):
        logits, gradient, image, *labels = ctx.saved_tensors
        if torch.is_grad_enabled():  # a second derivative is wanted
            formula, neighbourhood = ctx.rest
            labels = Labels(*labels)
            gradient = formula(_all_pixels(logits, labels, neighbourhood, image))[1]()
            if labels.ignored is not None:
                gradient = torch.where(labels.ignored.unsqueeze(1), 0, gradient)
        return None, None, (gradient * grad.unsqueeze(1)).to(logits.dtype), None, None, None, None


class _Slab(NamedTuple):
    """Some images, and of these some rows along one axis of space."""

    images: slice
    start: int
    rows: int
    axis: int  # counted from the last, -1

    def of(self, x: Tensor, reach: int = 0) -> Tensor:
        """The slab of `x` (N, ...), with `reach` rows more."""
        return x[self.images].narrow(self.axis, self.start, self.rows + reach)

    def labels(self, labels: Labels) -> Labels:
        """The labels of the slab."""
        return Labels(self.of(labels.target), None if labels.ignored is None else self.of(labels.ignored))

    def evidence(self, neighbourhood: Neighbourhood, padded: tuple[Tensor, ...], dtype: torch.dtype) -> Evidence:
        """What the windows of the slab hold."""
        return neighbourhood.evidence(*(self.of(x, neighbourhood.window[self.axis] - 1) for x in padded), dtype=dtype)


def slabs(values: Tensor) -> Iterator[_Slab]:
    """The parts of a batch (N, C, ...), one after the other; on a GPU the whole."""
    images, _, *space = values.shape
    length = max(space)
    axis = space.index(length) - len(space)
    whole = values.device.type != "cpu"
    an_image = max(values[:1].numel(), 1)
    step = images if whole else -(-SLAB // an_image)
    rows = length if whole else -(-length // max(an_image // SLAB, 1))
    for first in range(0, images, max(step, 1)):
        for start in range(0, length, max(rows, 1)):
            yield _Slab(slice(first, first + step), start, min(rows, length - start), axis)


class _Fused(torch.autograd.Function):
    """The fused kernel under torch.compile."""

    @staticmethod
    def forward(ctx, fused, logits):
        value, gradient = _triton.fused_pixel_loss(logits, gradient=True, **fused)
        ctx.save_for_backward(gradient)
        return value

    @staticmethod
    def backward(ctx, grad):
        (gradient,) = ctx.saved_tensors
        return None, (gradient * grad.unsqueeze(1)).to(gradient.dtype)


class _Recomputed(torch.autograd.Function):
    """Saves the log-sum-exp only: with everything else fused, to compute again is faster than to read."""

    @staticmethod
    def forward(ctx, formula, neighbourhood, logits, narrow, *evidence):
        x = wide(logits)
        x = x - x.amax(dim=1, keepdim=True)
        log_sum = x.exp().sum(dim=1, keepdim=True).log()
        ctx.save_for_backward(logits, narrow, log_sum, *evidence)
        ctx.rest = formula, neighbourhood
        return formula(_pixels_again(neighbourhood, logits, narrow, log_sum, *evidence))[0]

    @staticmethod
    def backward(ctx, grad):
        logits, narrow, *_ = ctx.saved_tensors
        formula, neighbourhood = ctx.rest
        gradient = formula(_pixels_again(neighbourhood, *ctx.saved_tensors))[1]() * grad.unsqueeze(1)
        gradient = torch.where(narrow.unsqueeze(1).float() == IGNORED, 0, gradient).to(logits.dtype)
        return None, None, gradient, *(None for _ in ctx.saved_tensors[1:])


def _pixels_again(
    neighbourhood: Neighbourhood | None, logits: Tensor, narrow: Tensor, log_sum: Tensor, *evidence: Tensor
) -> Pixels:
    x = wide(logits)
    tau = neighbourhood.tau(Evidence(*evidence), narrow, x.dtype) if evidence else None
    return Pixels(x, x - x.amax(dim=1, keepdim=True) - log_sum, narrow, None, tau)


@torch.library.custom_op("nacl::narrow_labels", mutates_args=())
def compiled_labels(target: Tensor, num_classes: int, ignore_index: int) -> Tensor:
    """Checked labels in the smallest integers. Opaque, so that the compiled loops round it read nothing wider."""
    return narrow_labels(check_labels(target, num_classes, ignore_index), num_classes)


@compiled_labels.register_fake
def _(target, num_classes, ignore_index):
    return target.new_empty(target.shape, dtype=narrow_dtype(num_classes))


@torch.library.custom_op("nacl::evidence", mutates_args=())
def _evidence(
    narrow: Tensor,
    image: Tensor | None,
    dtype: torch.dtype,
    prior: str,
    num_classes: int,
    window: Sequence[int],
    sigma: float,
    border: str,
) -> list[Tensor]:
    """`Neighbourhood.evidence` of a batch as one opaque step: compiled, the shifts over bytes are many times slower."""
    neighbourhood = Neighbourhood(prior, num_classes, tuple(window), sigma, border)
    padded = neighbourhood.padded(narrow, image)
    batch = neighbourhood.evidence_like(narrow, dtype)
    if not batch[0].is_floating_point():  # bytes fit the cache without slabs
        return [x for x in neighbourhood.evidence(*padded, dtype=dtype) if x is not None]
    for slab in slabs(batch[0]):
        for whole, part in zip(batch, slab.evidence(neighbourhood, padded, dtype), strict=False):
            slab.of(whole).copy_(part)
    return batch


@_evidence.register_fake
def _(narrow, image, dtype, prior, num_classes, window, sigma, border):
    return Neighbourhood(prior, num_classes, tuple(window), sigma, border).evidence_like(narrow, dtype)
