"""Calibration after training: scale the logits of a trained network, by what its validation cases say.

Batches are (logits, target) or (logits, target, image), in a list, a DataLoader, or whatever else can be iterated
again. A fit reads them several times, and needs no memory beside that of one batch.
"""

import math
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from typing import Self

import torch
from torch import Tensor, nn

from nacl._checks import check_choice, check_integer, check_logits, check_logits_and_target, check_number, expectation
from nacl._likelihood import (
    TEMPERATURE_LIMITS,
    Batches,
    Fit,
    best_inverse,
    best_weights,
    check_classes,
    check_finite,
    items,
    slabs_of,
)

CONVENTIONS = ("standard", "reference")
GATE_SPREAD = 0.01  # for logits of some tens, whose windows hold 25 C of them: the gates start within (0.1, 0.9)


class _Scaling(nn.Module):
    """What all share: a number of classes, the last fit, and a way to store what was fitted."""

    last_fit: Fit | None = None

    def __init__(self, num_classes: int | None) -> None:
        super().__init__()
        if num_classes is not None:
            check_integer("num_classes", num_classes, low=2)
        self.num_classes = num_classes

    def state(self) -> dict[str, float | Tensor]:
        """What was fitted, by name: numbers, and tensors on the CPU."""
        tensors = ((name, tensor.detach().cpu().clone()) for name, tensor in self.state_dict().items())
        return {name: tensor if tensor.ndim else tensor.item() for name, tensor in tensors}

    def _checked(self, logits: Tensor) -> Tensor:
        """Logits in float32 or float64, found to be of the right number of classes."""
        check_logits(logits)
        check_classes(logits, self.num_classes)
        return logits if logits.dtype == torch.float64 else logits.float()

    def extra_repr(self) -> str:
        return "" if self.num_classes is None else f"num_classes={self.num_classes}"


class _GlobalScaling(_Scaling):
    """A few numbers for all pixels, in float64."""

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        # They follow the model to its device, but model.half() takes no digits from them; MPS has no float64.
        for name, buffer in self._buffers.items():
            device = fn(buffer.float()).device
            self._buffers[name] = buffer if device.type == "mps" else buffer.to(device)
        return self


class TemperatureScaling(_GlobalScaling):
    """One temperature for all pixels and classes: l / T.

    T > 0 minimises the mean negative log-likelihood of softmax(l / T) over the valid pixels of all batches. That is
    convex in b = 1 / T: Newton's method, kept in a bracket, finds where its derivative, the sum over pixels of
    E_softmax(b l)[l] - l_y, is 0. The order of a pixel's logits stays, and so does the predicted class (unless two
    logits are so near that rounding makes them equal).

    Where every pixel is right (no logit is larger than its label's), the likelihood rises for ever as T falls; where
    the logits are worse than none, it rises for ever with T. T then stops at 0.001 or 1000, with a warning and
    `last_fit.converged` False. Where the logits of every pixel are all equal, each T is as good: T = 1.

    Args:
        num_classes: number of classes, C, that logits are checked for; None for any.

    Attributes:
        temperature: T, a buffer in float64 without axes; 1 before the fit.
        last_fit: a `Fit` (nll, pixels, passes, converged), or None before the fit.

    Raises:
        ValueError, TypeError: `num_classes` is no integer of at least 2.

    Example:
        >>> logits = torch.tensor([4.0, 0.0]).view(1, 2, 1, 1).expand(1, 2, 1, 4)
        >>> scaling = TemperatureScaling().fit([(logits, torch.tensor([[[0, 0, 0, 1]]]))])
        >>> round(scaling.state()["temperature"], 6)  # 3 of 4 are right: 4 / T = log 3
        3.640957

    References:
        Guo et al., On calibration of modern neural networks, ICML 2017, section 4.2.
    """

    def __init__(self, num_classes: int | None = None) -> None:
        super().__init__(num_classes)
        self.register_buffer("temperature", torch.ones((), dtype=torch.float64))

    def forward(self, logits: Tensor) -> Tensor:
        """Calibrated logits of `logits` (N, C, ...), in float32, or in float64 for float64 logits."""
        logits = self._checked(logits)
        return logits / self.temperature.to(logits)

    @torch.no_grad()
    def fit(self, batches: Batches, *, ignore_index: int = -100) -> Self:
        """Find T.

        Args:
            batches: (logits, target), (N, C, ...) and (N, ...) of any floating dtype; sizes may differ.
            ignore_index: label of the pixels that do not count.

        Raises:
            ValueError: no valid pixel; shapes or labels that do not fit; a valid pixel with NaN or infinite logits.
            TypeError: dtypes that do not fit; batches that can be iterated only once.
        """
        inverse, self.last_fit = best_inverse(partial(slabs_of, batches, self.num_classes, ignore_index))
        self.temperature.fill_(1 / inverse)
        if not self.last_fit.converged:
            _warn(f"the likelihood has no maximum for T within {TEMPERATURE_LIMITS}; T stopped at {1 / inverse:g}")
        return self


class VectorScaling(_GlobalScaling):
    """A weight and a bias for each class: w_k l_k + c_k.

    (w, c) minimise the mean negative log-likelihood over the valid pixels of all batches, which is convex in them:
    Newton's method with a line search, from w = 1 / T and c = 0 of `TemperatureScaling`, than which the result is
    never less likely. It may change the predicted class; a weight may become negative, where a logit speaks against
    its class; and, unlike a temperature, it reacts to a constant added to the logits of a pixel.

    A constant added to c changes nothing: here sum c = 0. A class without a valid pixel would run to c_k = -inf; it
    keeps w_k = 1 / T and c_k = 0, the other c sum to 0, and a warning names it. Where some class can be told apart
    without an error, w has no optimum: the search stops once the likelihood no longer moves, with a warning and
    `last_fit.converged` False.

    Args:
        num_classes: number of classes, C.

    Attributes:
        weight: w, a buffer (C,) in float64; 1 before the fit.
        bias: c, a buffer (C,) in float64; 0 before the fit.
        last_fit: a `Fit` (nll, pixels, passes, converged), or None before the fit.

    Raises:
        ValueError, TypeError: `num_classes` is no integer of at least 2.

    Example:
        >>> logits = torch.zeros(1, 2, 1, 4)
        >>> scaling = VectorScaling(num_classes=2).fit([(logits, torch.tensor([[[0, 0, 0, 1]]]))])
        >>> scaling(logits).softmax(dim=1)[0, :, 0, 0]
        tensor([0.7500, 0.2500])

    References:
        Guo et al., On calibration of modern neural networks, ICML 2017, section 4.2.
    """

    def __init__(self, num_classes: int) -> None:
        super().__init__(num_classes)
        self.register_buffer("weight", torch.ones(num_classes, dtype=torch.float64))
        self.register_buffer("bias", torch.zeros(num_classes, dtype=torch.float64))

    def forward(self, logits: Tensor) -> Tensor:
        """Scaled logits of `logits` (N, C, ...), in float32, or in float64 for float64 logits."""
        logits = self._checked(logits)
        weight, bias = (x.to(logits).view(-1, *[1] * (logits.ndim - 2)) for x in (self.weight, self.bias))
        return weight * logits + bias

    @torch.no_grad()
    def fit(self, batches: Batches, *, ignore_index: int = -100) -> Self:
        """Find w and c; arguments and errors as in `TemperatureScaling.fit`."""
        slabs = partial(slabs_of, batches, self.num_classes, ignore_index)
        weight, bias, count, self.last_fit = best_weights(slabs, self.num_classes)
        self.weight.copy_(weight)
        self.bias.copy_(bias)
        if not count.all():
            absent = [k for k, n in enumerate(count.tolist()) if n == 0]
            _warn(f"no valid pixel has a label in {absent}; these keep w = 1 / T and c = 0")
        if not self.last_fit.converged:
            _warn("the likelihood has no maximum for w and c; they stopped where it no longer moved")
        return self


class LocalTemperatureScaling(_Scaling):
    """A temperature for each pixel, T_i, which a small network reads from the logits and the image: l_i / T_i.

    Nine 5 x 5 convolutions of dilation 2, each to one channel: from the logits four maps t_1 to t_4 and gates g_1 to
    g_4 (through a sigmoid), from the image a map t_image. With mix_g(a, b) = g a + (1 - g) b,

    t = mix_g4(mix_g3(mix_g1(t_1, t_2), mix_g2(t_3, t_4)), t_image)

    and T = T_0 exp(t) within [0.001, 1000], T_0 the best global temperature. T > 0, so that the predicted class stays.
    The convolutions read l / T_0, so that logits in another unit give the same result. At first every t is 0, T = T_0,
    and the gates have small random weights, without which t_1 to t_4 would learn the same. Of the states at the start
    and after each epoch that with the least negative log-likelihood is kept.

    `convention="reference"` follows the authors: T = max(0, 2 + t) + 1e-8, and all weights start at 0. Two faults come
    with it: T starts at 2, whatever the logits are, and where t falls below -2 it is 1e-8, without a gradient to bring
    it back. And t_1 to t_4 have equal gradients, so that they stay equal, g_1 to g_3 have none and stay 1/2: six of
    the nine convolutions add nothing.

    Args:
        num_classes: number of classes, C.
        image_channels: channels of the image.
        axes: 2 for (N, C, H, W), 3 for volumes (N, C, D, H, W), whose windows are 5 x 5 x 5. Every axis of space needs
            5 pixels.
        convention: "standard" or "reference".

    Attributes:
        last_fit: a `Fit` (nll, pixels, passes, converged), or None before the fit.

    Raises:
        ValueError, TypeError: values out of range.

    Example:
        >>> logits, image = torch.randn(2, 3, 8, 8), torch.rand(2, 1, 8, 8)
        >>> scaling = LocalTemperatureScaling(3)
        >>> scaling.temperature(logits, image).shape
        torch.Size([2, 1, 8, 8])
        >>> bool((scaling(logits, image) == logits).all())  # T = 1 before the fit
        True

    References:
        Ding et al., Local temperature scaling for probability calibration, ICCV 2021 (arXiv 2008.05105).

    Departures from the authors' code, in both conventions: the state at the start may be kept too; any number of image
    channels; volumes.
    """

    def __init__(
        self, num_classes: int, *, image_channels: int = 1, axes: int = 2, convention: str = "standard"
    ) -> None:
        super().__init__(num_classes)
        check_integer("num_classes", num_classes, low=2)
        check_integer("image_channels", image_channels, low=1)
        if axes not in (2, 3):
            raise ValueError(expectation("axes", "to be 2 or 3", repr(axes)))
        check_choice("convention", convention, CONVENTIONS)
        self.image_channels, self.axes, self.convention = image_channels, axes, convention
        kind = {2: nn.Conv2d, 3: nn.Conv3d}[axes]
        # skip_init: drawing weights only to overwrite them would move the global random state
        conv = partial(nn.utils.skip_init, kind, kernel_size=5, dilation=2, padding=4, padding_mode="reflect")
        self.from_logits = conv(num_classes, 8)
        self.from_image = conv(image_channels, 1)
        self.register_buffer("start", torch.ones(()))
        self._reset(seed=0)

    @torch.no_grad()
    def _reset(self, seed: int) -> None:
        for parameter in self.parameters():
            parameter.zero_()
        if self.convention == "standard":
            gates = self.from_logits.weight[4:]
            gates.copy_(GATE_SPREAD * torch.randn(gates.shape, generator=torch.Generator().manual_seed(seed)))

    def temperature(self, logits: Tensor, image: Tensor) -> Tensor:
        """T (N, 1, ...) of `logits` (N, C, ...) and `image` (N, channels, ...)."""
        logits, dtype = self._checked(logits), self.start.dtype
        self._check_space(logits, image)
        maps, gates = self.from_logits(logits.to(dtype) / self.start).split(4, dim=1)
        t1, t2, t3, t4 = maps.split(1, dim=1)
        g1, g2, g3, g4 = gates.sigmoid().split(1, dim=1)
        of_logits = _mix(g3, _mix(g1, t1, t2), _mix(g2, t3, t4))
        t = _mix(g4, of_logits, self.from_image(image.to(dtype)))
        if self.convention == "reference":
            return torch.relu(2 + t) + 1e-8  # each map plus 1, and 1 again after they are mixed
        low, high = (math.log(limit) for limit in TEMPERATURE_LIMITS)
        return (self.start.log() + t).clamp(low, high).exp()  # exp last: its gradient beyond the limits is 0, not NaN

    def forward(self, logits: Tensor, image: Tensor) -> Tensor:
        """Calibrated logits, in float32, or in float64 for float64 logits."""
        return self._checked(logits) / self.temperature(logits, image)

    def _check_space(self, logits: Tensor, image: Tensor) -> None:
        if logits.ndim != self.axes + 2 or min(logits.shape[2:]) < 5:
            rule = f"with {self.axes} axes of space of at least 5 pixels"
            raise ValueError(expectation("logits", rule, tuple(logits.shape), f"axes={self.axes}"))
        wanted = (logits.shape[0], self.image_channels, *logits.shape[2:])
        if tuple(image.shape) != wanted:
            raise ValueError(expectation("image", f"of shape {wanted}", tuple(image.shape)))

    def fit(
        self,
        batches: Batches,
        *,
        valid: Batches | None = None,
        epochs: int = 100,
        learning_rate: float | None = None,
        seed: int = 0,
        device: str | torch.device | None = None,
        ignore_index: int = -100,
        on_epoch: Callable[[int, float, float], None] | None = None,
    ) -> Self:
        """Learn from scratch, by Adam on the cross-entropy of each batch. On the CPU the seed fixes the result.

        Args:
            batches: (logits, target, image), (N, C, ...), (N, ...) and (N, channels, ...); a step each, in the order
                in which they come, which a DataLoader may shuffle.
            valid: such batches, on which the best state is chosen; `batches` without them. (The authors train on
                training cases and choose on validation cases.)
            epochs: passes over `batches`, 0 for none.
            learning_rate: positive; None for 1e-3, or 1e-4 with `convention="reference"`, as there.
            seed: of the first gates.
            device: where to compute, and to stay; None for where the module is.
            ignore_index: label of the pixels that do not count.
            on_epoch: called after each epoch with its number, from 1, and the mean negative log-likelihoods on
                `batches` (while learning) and on `valid`.

        Raises:
            ValueError, TypeError: as `TemperatureScaling.fit`; here all logits and images must be finite.
        """
        check_integer("epochs", epochs, low=0)
        check_integer("seed", seed, low=0)
        if learning_rate is None:
            learning_rate = 1e-4 if self.convention == "reference" else 1e-3
        check_number("learning_rate", learning_rate, low=0, open_low=True)
        self.to(device)
        self._reset(seed)
        if self.convention == "standard":
            inverse, _ = best_inverse(partial(slabs_of, batches, self.num_classes, ignore_index))
            self.start.fill_(1 / inverse)
        valid = batches if valid is None else valid
        optimizer = torch.optim.Adam(self.parameters(), lr=learning_rate)
        least, pixels = self._epoch(valid, ignore_index)
        best = self.state()
        for epoch in range(1, epochs + 1):
            trained, _ = self._epoch(batches, ignore_index, optimizer)
            nll, _ = self._epoch(valid, ignore_index)
            if on_epoch is not None:
                on_epoch(epoch, trained, nll)
            if nll < least:
                least, best = nll, self.state()
        self.load_state_dict({name: torch.as_tensor(value) for name, value in best.items()})
        self.last_fit = Fit(least, pixels, epochs, None)
        return self

    def _epoch(
        self, batches: Batches, ignore_index: int, optimizer: torch.optim.Optimizer | None = None
    ) -> tuple[float, int]:
        """Mean negative log-likelihood and number of valid pixels; with an optimiser, a step for each batch."""
        total, pixels = 0.0, 0
        for logits, target, image in self._placed(batches, ignore_index):
            count = int((target != ignore_index).sum())
            if not count:
                continue
            with torch.set_grad_enabled(optimizer is not None):
                losses = nn.functional.cross_entropy(
                    self(logits, image), target, ignore_index=ignore_index, reduction="none"
                )
                if optimizer is not None:
                    optimizer.zero_grad()
                    (losses.sum() / count).backward()
                    optimizer.step()
            total += losses.detach().sum(dtype=torch.float64).item()
            pixels += count
        if not pixels:
            raise ValueError(expectation("batches", "with a valid pixel at least", "none"))
        return total / pixels, pixels

    def _placed(self, batches: Batches, ignore_index: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Batches on the device of the weights, once found to be in order."""
        for index, (logits, target, image, *_) in items(batches, 3):
            target = check_logits_and_target(logits, target, ignore_index).target
            check_finite(logits, index)
            check_finite(image, index, "image")
            yield tuple(x.detach().to(self.start.device) for x in (logits, target, image))


def _mix(gate: Tensor, one: Tensor, other: Tensor) -> Tensor:
    return torch.lerp(other, one, gate)


def _warn(what: str) -> None:
    warnings.warn(f"Calibration: {what}.", RuntimeWarning, stacklevel=3)


SCALINGS: dict[str, type[_Scaling]] = {
    "temperature": TemperatureScaling,
    "vector": VectorScaling,
    "local": LocalTemperatureScaling,
}
"""Scalings by name; each takes the number of classes first."""
