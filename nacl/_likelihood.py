"""Least negative log-likelihood of scaled logits, to convergence in float64, from batches read slab by slab."""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from nacl._checks import check_logits_and_target, expectation

TEMPERATURE_LIMITS = (1e-3, 1e3)
SLAB = 2**17  # numbers in float64, which a core's cache holds with the few arrays made from them
MAX_PASSES = 100
TOLERANCE = 1e-7  # relative Newton step; after it the error is of the order of its square

Batches = Iterable[tuple[Tensor, ...]]
Slabs = Callable[[], Iterator[tuple[Tensor, Tensor]]]


@dataclass(frozen=True)
class Fit:
    """What a fit came to: mean `nll` in nats over its valid `pixels`, after `passes` over the batches.

    `converged` is False where the likelihood has no maximum within the limits. Local scaling stops after its last
    epoch and does not know: None.
    """

    nll: float
    pixels: int
    passes: int
    converged: bool | None


def items(batches: Batches, parts: int) -> Iterator[tuple[int, tuple[Tensor, ...]]]:
    """The batches and their numbers, each found to have `parts` tensors at least."""
    names = f"({', '.join(('logits', 'target', 'image')[:parts])})"
    if isinstance(batches, Iterator):
        rule = "that can be iterated more than once"
        raise TypeError(expectation("batches", rule, type(batches).__name__, remedy="Pass a list or a DataLoader"))
    for index, batch in enumerate(batches):
        if not isinstance(batch, tuple | list):
            raise TypeError(expectation("batches", f"of tuples {names}", type(batch).__name__, f"batch {index}"))
        if len(batch) < parts:
            raise ValueError(expectation("batches", f"of tuples {names}", f"{len(batch)} items", f"batch {index}"))
        yield index, tuple(batch)


def slabs_of(batches: Batches, num_classes: int | None, ignore_index: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Logits (C, n) in float64 and labels (n,) of the valid pixels, some at a time."""
    for index, (logits, target, *_) in items(batches, 2):
        target, ignored = check_logits_and_target(logits, target, ignore_index)
        check_classes(logits, num_classes)
        for u, y in _pieces(logits.detach(), target):
            if ignored is not None:
                valid = y != ignore_index
                u, y = u[:, valid], y[valid]
            if u.device.type == "mps":  # which has no float64
                u, y = u.cpu(), y.cpu()
            check_finite(u, index)
            if y.numel():
                yield u.double(), y


def _pieces(logits: Tensor, target: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """(C, n) and (n,) of several images, or of several rows of one, of about `SLAB` logits."""
    images = max(1, SLAB * len(logits) // max(1, logits.numel()))
    for x, y in zip(logits.split(images), target.split(images), strict=True):
        rows = max(1, SLAB * x.shape[2] // max(1, x.numel()))
        for u, v in zip(x.split(rows, dim=2), y.split(rows, dim=1), strict=True):
            yield u.movedim(1, 0).flatten(1), v.flatten()


def check_classes(logits: Tensor, num_classes: int | None) -> None:
    """Raise where logits are of another number of classes."""
    if num_classes not in (None, logits.shape[1]):
        context = f"num_classes={num_classes}"
        raise ValueError(expectation("logits", f"of {num_classes} classes", logits.shape[1], context))


def check_finite(logits: Tensor, index: int, name: str = "logits") -> None:
    """Raise where a value of batch `index` is NaN or infinite."""
    finite = logits.isfinite()
    if not finite.all():
        got, remedy = logits[~finite][0].item(), "In float16, values beyond 65504 are infinite"
        raise ValueError(expectation(name, "of finite values", got, f"batch {index}", remedy))


# One number for all classes: b = 1 / T


def best_inverse(slabs: Slabs) -> tuple[float, Fit]:
    """The b that minimises sum_i log sum_k exp(b l_ik) - b l_iy, within the limits of 1 / T."""
    low, high = (1 / limit for limit in reversed(TEMPERATURE_LIMITS))
    pixels, slope_at_zero, slope_at_infinity = _ends(slabs)
    if slope_at_zero == 0 == slope_at_infinity:  # every pixel's logits are all equal
        return _settled(slabs, 1.0, pixels, converged=True)
    if slope_at_infinity <= 0:
        return _settled(slabs, high, pixels, converged=False)
    if slope_at_zero >= 0:
        return _settled(slabs, low, pixels, converged=False)
    b, under, over = 1.0, 0.0, math.inf
    for passes in range(2, MAX_PASSES):
        nll, slope, curvature = _inverse_sums(slabs, b)
        if abs(slope) <= TOLERANCE * b * curvature:
            return b - slope / curvature, Fit(nll / pixels, pixels, passes, converged=True)
        under, over = (b, over) if slope < 0 else (under, b)
        step = -slope / curvature if curvature > 0 else -math.copysign(math.inf, slope)
        following = min(max(b + step, b / 4), 4 * b)  # in the tails the curvature vanishes and the step explodes
        if not under < following < over:
            following = math.sqrt(under * over)
        following = min(max(following, low), high)
        if following == b:
            break
        b = following
    return b, Fit(nll / pixels, pixels, passes, converged=False)


def _settled(slabs: Slabs, b: float, pixels: int, *, converged: bool) -> tuple[float, Fit]:
    return b, Fit(_inverse_sums(slabs, b)[0] / pixels, pixels, 2, converged)


def _ends(slabs: Slabs) -> tuple[int, float, float]:
    """The number of pixels, and the derivative at b = 0 and as b goes to infinity, where E[l] is the largest logit."""
    pixels, sums = 0, torch.zeros(2, dtype=torch.float64)
    for u, y in slabs():
        of_label = u.gather(0, y[None])
        pixels += y.numel()
        sums = sums.to(u) + torch.stack([(end - of_label).sum() for end in (u.mean(dim=0), u.amax(dim=0))])
    if not pixels:
        raise ValueError(expectation("batches", "with a valid pixel at least", "none"))
    return pixels, *sums.tolist()


def _inverse_sums(slabs: Slabs, b: float) -> tuple[float, float, float]:
    """Negative log-likelihood and its two derivatives in b, summed over pixels: sum E[l] - l_y, and sum Var[l]."""
    sums = torch.zeros(3, dtype=torch.float64)
    for u, y in slabs():
        u = u - u.amax(dim=0)
        p = torch.mul(u, b).exp_()
        total = p.sum(dim=0)
        p /= total
        of_label = u.gather(0, y[None]).sum()
        moment = p.mul_(u)
        mean = moment.sum(dim=0)
        slope = mean.sum() - of_label
        curvature = torch.dot(moment.flatten(), u.flatten()) - torch.dot(mean, mean)
        sums = sums.to(u) + torch.stack([total.log_().sum() - b * of_label, slope, curvature])
    return tuple(sums.tolist())


# Two for each class: theta = (w, c)


def best_weights(slabs: Slabs, num_classes: int) -> tuple[Tensor, Tensor, Fit]:
    """The w and c, (C,) each, that minimise the mean of log sum_k exp(w_k l_k + c_k) - w_y l_y - c_y; and `count`.

    Newton's method from w = b, c = 0 with a line search. Classes without a pixel keep that; the other c sum to 0.
    """
    inverse, first = best_inverse(slabs)
    count = sum(torch.bincount(y, minlength=num_classes) for _, y in slabs())
    present = (count > 0).double()
    centring = torch.diag(present) - torch.outer(present, present) / present.sum()
    free = torch.block_diag(torch.diag(present), centring)
    start = torch.zeros(2, num_classes, dtype=torch.float64, device=count.device)
    start[0] = inverse if first.converged else 1.0
    sums = partial(_vector_sums, slabs, first.pixels)
    theta, nll, passes, converged = _newton(sums, start.flatten(), free)
    fit = Fit(nll, first.pixels, first.passes + 1 + passes, converged)
    return *theta.view(2, -1).unbind(), count, fit


def _newton(sums: Callable, theta: Tensor, free: Tensor) -> tuple[Tensor, float, int, bool]:
    """Minimise a convex function of theta in the subspace that `free` projects on."""
    nll, gradient, hessian = sums(theta)
    step, fall = _newton_step(gradient, hessian, free)
    for passes in range(2, MAX_PASSES):
        if (
            step.abs().max() <= TOLERANCE * (1 + theta.abs().max()) and fall <= 1e-12
        ):  # the latter in any unit of logits
            return theta + step, nll, passes, True
        if fall <= 1e-15:  # what the step would gain is lost in rounding, but theta still runs: there is no minimum
            break
        trial, gradient, hessian = sums(theta + step)
        if trial <= nll - 1e-4 * fall + 1e-14 * (1 + nll):
            theta, nll = theta + step, trial
            step, fall = _newton_step(gradient, hessian, free)
        else:
            step, fall = step / 2, fall / 2
    return theta, nll, passes, False


def _newton_step(gradient: Tensor, hessian: Tensor, free: Tensor) -> tuple[Tensor, float]:
    """The step, 0 where nothing curves, and how fast the function falls along it."""
    gradient, hessian = free @ gradient, free @ hessian @ free
    scale = hessian.diagonal().clamp(min=0).rsqrt().nan_to_num(posinf=0)  # rare classes curve less by powers of ten
    inverse = torch.linalg.pinv(scale[:, None] * hessian * scale, rtol=1e-12, hermitian=True)
    step = -free @ (scale * (inverse @ (scale * gradient)))
    return step, -(gradient @ step).item()


def _vector_sums(slabs: Slabs, pixels: int, theta: Tensor) -> tuple[float, Tensor, Tensor]:
    """Mean negative log-likelihood, its gradient (2C,) and its Hessian (2C, 2C)."""
    weight, bias = theta.view(2, -1, 1)
    nll, gradient, hessian = 0.0, torch.zeros_like(theta), theta.new_zeros(len(theta), len(theta))
    for u, y in slabs():
        z = torch.addcmul(bias, weight, u)
        z -= z.amax(dim=0)
        of_label = z.gather(0, y[None]).sum()
        p = z.exp_()
        total = p.sum(dim=0)
        p /= total
        nll = nll + total.log_().sum() - of_label
        label = torch.zeros_like(p).scatter_(0, y[None], 1)
        both = torch.cat([p * u, p])
        gradient += torch.cat([both[: len(p)] - label * u, p - label]).sum(dim=1)
        diagonal = (both[: len(p)] * u).sum(dim=1), *both.sum(dim=1).view(2, -1)
        ww, wc, cc = map(torch.diag, diagonal)
        hessian += torch.cat([torch.cat([ww, wc], dim=1), torch.cat([wc, cc], dim=1)]) - both @ both.T
    return nll.item() / pixels, gradient / pixels, hessian / pixels
