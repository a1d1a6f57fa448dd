"""For MONAI: its `NACLLoss` made from `nacl.losses.nacl_loss`, and the metrics of `nacl.metrics` as its own kind."""

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, distributed, nn

from nacl._checks import check_choice, check_integer, check_number, expectation, extra_needed, is_scanned
from nacl._penalties import PENALTIES
from nacl.losses import nacl_loss
from nacl.metrics import Metric
from nacl.priors import PRIORS, neighbour_prior

with extra_needed("monai", "nacl.integrations.monai", extra="monai"):
    from monai.metrics import CumulativeIterationMetric
    from monai.utils import convert_to_tensor, get_dist_device


class NACLLoss(nn.Module):
    """A drop-in for `monai.losses.NACLLoss`: the same arguments and call, the mathematics of `nacl_loss`.

    L = CE + alpha * mean over pixels and classes of P(l_ik - tau_ik), see `nacl_loss`, whose `penalty_weight` is alpha.
    Where it differs from MONAI's: the shares tau sum to 1 at the edge of the image (`border="zero"` is MONAI's edge);
    "gaussian" obeys `kernel_size`; labels can be ignored; more kernels and distances; float labels with a channel
    axis, as MONAI's transforms give them, are taken as they come.

    Args:
        classes: C, the channels of the network's output.
        dim: axes of space, 2 or 3.
        kernel_size: width of the window in pixels, odd, for all axes or one an axis.
        kernel_ops: how tau is taken from the labels: a `prior` of `nacl.priors.neighbour_prior`. (MONAI's "gaussian"
            gives the centre the weight of the window's; ours gives it 1/2, as SVLS does.)
        distance_type: "l1", "l2" or "huber".
        alpha: weight of the penalty, not negative.
        sigma: standard deviation in pixels of the "gaussian" and the "bilateral" kernel.
        border: what counts beyond the image: "inside", "replicate", "background" or "zero".
        softmax: constrain softmax(l) instead of l.
        mixed_only: penalise only where the window holds several classes, see `nacl_loss`.
        delta: where "huber" turns from square to linear, positive.
        ignore_index: label of pixels that give no loss, no gradient, and are nobody's neighbours.
        reduction: "mean" over the pixels that are not ignored, "sum", or "none".

    Raises:
        ValueError: an unknown name, an even `kernel_size`, `dim` other than 2 or 3, a value out of range.
        TypeError: an argument of another type.

    Example:
        >>> criterion = NACLLoss(classes=3, dim=2)
        >>> criterion(torch.zeros(2, 3, 8, 8), torch.zeros(2, 1, 8, 8))
        tensor(1.1319)

    References:
        Murugesan et al., Medical Image Analysis 101 (2025) 103501. MONAI 1.6, `monai.losses.NACLLoss`.
    """

    def __init__(
        self,
        classes: int,
        dim: int,
        kernel_size: int | tuple[int, ...] = 3,
        kernel_ops: str = "mean",
        distance_type: str = "l1",
        alpha: float = 0.1,
        sigma: float = 1.0,
        *,
        border: str = "inside",
        softmax: bool = False,
        mixed_only: bool = False,
        delta: float = 1.0,
        ignore_index: int = -100,
        reduction: str = "mean",
    ) -> None:
        super().__init__()
        check_integer("classes", classes, low=2)
        check_integer("dim", dim, low=2)
        if dim > 3:
            raise ValueError(expectation("dim", "to be 2 or 3", dim))
        check_choice("kernel_ops", kernel_ops, PRIORS)
        check_choice("distance_type", distance_type, PENALTIES)
        check_number("alpha", alpha, low=0)
        self.classes, self.dim = classes, dim
        self.neighbours = {"prior": kernel_ops, "kernel_size": kernel_size, "sigma": sigma, "border": border}
        self.neighbours["ignore_index"] = ignore_index
        self.options = {"penalty": distance_type, "penalty_weight": alpha, "delta": delta, "softmax": softmax}
        self.options |= {"mixed_only": mixed_only, "reduction": reduction}
        # A call on the smallest input refuses a bad option where it is written, not at the first step.
        space = (1,) * dim
        self(torch.zeros(1, classes, *space), torch.zeros(1, *space).long(), torch.zeros(1, *space))

    def forward(self, inputs: Tensor, targets: Tensor, image: Tensor | None = None) -> Tensor:
        """The loss.

        Args:
            inputs: logits (B, C, H, W) or (B, C, D, H, W).
            targets: labels (B, ...) or (B, 1, ...), integers, or floats that are whole numbers.
            image: the network's input, for the kernels that look at it.
        """
        inputs = _plain("inputs", inputs)
        if inputs.ndim != self.dim + 2 or inputs.shape[1] != self.classes:
            rule = f"of shape (B, {self.classes}, {'H, W' if self.dim == 2 else 'D, H, W'})"
            context = f"classes={self.classes}, dim={self.dim}"
            raise ValueError(expectation("inputs", rule, tuple(inputs.shape), context))
        target = _labels("targets", targets, inputs)
        image = None if image is None else _plain("image", image)
        return nacl_loss(inputs, target, image=image, **self.neighbours, **self.options)

    def get_constr_target(self, mask: Tensor, image: Tensor | None = None) -> Tensor:
        """tau (B, C, ...) for labels (B, ...): what the penalty draws the logits to."""
        return neighbour_prior(_plain("mask", mask).long(), self.classes, image=image, **self.neighbours)

    def extra_repr(self) -> str:
        options = {"classes": self.classes, "dim": self.dim, **self.neighbours, **self.options}
        return ", ".join(f"{name}={value!r}" for name, value in options.items())


class Streamed(CumulativeIterationMetric):
    """A metric of `nacl.metrics` as a MONAI metric, for its loops, evaluators and handlers.

    A call adds a batch and returns the number of each image; `aggregate` gives the number of all, from sums that
    never grow: the metric's, of all pixels for `aggregation="pooled"`, or the mean over images for "cases". The
    numbers of the images are kept as MONAI keeps them (`get_buffer`), one float each. Over processes the sums are
    added, on the device that MONAI would gather on.

    Args:
        metric: it lends its arithmetic, and keeps no state here. A process may see no batch only where the metric
            knows its `num_classes`.

    Raises:
        TypeError: not a metric of `nacl.metrics`.

    Example:
        >>> from nacl.metrics import CalibrationError
        >>> error = Streamed(CalibrationError())
        >>> probs = torch.tensor([0.9, 0.1]).view(2, 1, 1).expand(2, 8, 8)
        >>> error(y_pred=[probs], y=[torch.zeros(1, 8, 8)])
        tensor([[0.1000]])
        >>> error.aggregate()
        tensor(0.1000)
        >>> error.reset()
    """

    def __init__(self, metric: Metric) -> None:
        if not isinstance(metric, Metric):
            remedy = "Pass one such as nacl.metrics.CalibrationError()"
            raise TypeError(expectation("metric", "to be a metric of nacl.metrics", type(metric).__name__, "", remedy))
        self.metric = copy.deepcopy(metric)
        super().__init__()

    def reset(self) -> None:
        """Forget everything."""
        super().reset()
        self.metric.reset()

    def aggregate(self) -> Tensor:
        """The number over all images of all processes since the last reset: float32, NaN if no pixel was in the region.

        Raises:
            RuntimeError: no image yet.
            ValueError: several processes, this one without an image, and a metric without `num_classes`.
        """
        if not (distributed.is_available() and distributed.is_initialized()):
            return torch.tensor(self.metric.compute())
        sums = self.metric.sums if self.metric.sums is not None else self.metric.empty_sums()
        sums = {name: part.clone().to(get_dist_device()) for name, part in sums.items()}
        for part in sums.values():
            distributed.all_reduce(part)
        return torch.tensor(self.metric.result(sums))

    def _compute_list(self, y_pred: Sequence[Tensor], y: Sequence[Tensor] | None = None, **options: object) -> Tensor:
        if y is None or len(y_pred) != len(y):
            got = "None" if y is None else f"{len(y_pred)} and {len(y)}"
            raise ValueError(expectation("y_pred", "and `y` of one length", got))
        pairs = zip(y_pred, y, strict=True)
        return torch.cat([self._compute_tensor(pred.unsqueeze(0), truth.unsqueeze(0)) for pred, truth in pairs])

    def _compute_tensor(self, y_pred: Tensor, y: Tensor | None = None, **options: object) -> Tensor:
        """The number of each image (B, 1).

        Args:
            y_pred: probabilities (B, C, ...), or logits where the metric says so.
            y: labels (B, ...) or (B, 1, ...), or one-hot (B, C, ...), in which a pixel without a class is ignored.
            options: what MONAI may hand to metrics of another kind.
        """
        forecast = _plain("y_pred", y_pred).detach()
        if y is None:
            raise ValueError(expectation("y", "to be labels", None))
        target = _labels("y", y, forecast, ignore_index=self.metric.ignore_index)
        values = []
        for one, labels in zip(forecast.split(1), target.split(1), strict=True):
            of_image = copy.copy(self.metric)
            of_image.reset()
            of_image.update(one, labels)
            values.append(of_image.compute())
            self.metric.merge(of_image)
        return torch.tensor(values, device=forecast.device).unsqueeze(1)


def _plain(argument: str, values: Tensor) -> Tensor:
    """A tensor without MONAI's record of where it came from, which each operation would copy."""
    if not isinstance(values, Tensor):
        raise TypeError(expectation(argument, "to be a torch.Tensor", type(values).__name__))
    return convert_to_tensor(values, track_meta=False)


def _labels(argument: str, labels: Tensor, forecast: Tensor, *, ignore_index: int | None = None) -> Tensor:
    """Labels (B, ...) in int64 from those with a channel axis, in floats, or with `ignore_index` one-hot."""
    labels, classes = _plain(argument, labels), forecast.shape[1]
    if ignore_index is not None and labels.ndim == forecast.ndim and labels.shape[1] == classes:
        return _from_one_hot(argument, labels, ignore_index)
    wanted = (forecast.shape[0], *forecast.shape[2:])
    if tuple(labels.shape) not in (wanted, (wanted[0], 1, *wanted[1:])):
        rule = f"of shape {wanted} or {(wanted[0], 1, *wanted[1:])}"
        raise ValueError(expectation(argument, rule, tuple(labels.shape), f"forecast {tuple(forecast.shape)}"))
    labels = labels.reshape(wanted)
    whole = labels.long()
    if labels.is_floating_point() and is_scanned(labels) and not torch.equal(whole.to(labels.dtype), labels):
        got = labels[whole != labels][0].item()
        raise ValueError(expectation(argument, "of whole numbers", got, remedy="Resample labels by the nearest pixel"))
    return whole


def _from_one_hot(argument: str, indicators: Tensor, ignore_index: int) -> Tensor:
    """The class of each pixel, `ignore_index` where there is none."""
    high, where = indicators.max(dim=1)
    count = indicators.sum(dim=1)
    if not (((indicators == 0) | (indicators == 1)).all() and (count <= 1).all()):
        rule = "one-hot: 0 or 1, and 1 in one class at most"
        remedy = "Pass labels, with one channel, or convert by AsDiscrete(to_onehot=C)"
        raise ValueError(expectation(argument, rule, "other values, or several classes in a pixel", remedy=remedy))
    return torch.where(high > 0, where, ignore_index)
