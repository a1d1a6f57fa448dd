"""Sums over the pixels of each bin of confidence: what most calibration errors are made of."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from nacl._checks import check_flag, check_integer, expectation
from nacl._windows import indicators
from nacl.metrics._forecast import Forecast
from nacl.metrics.regions import REGIONS, mask_of

COMPARED = 32  # up to here one comparison an edge is faster than a binary search


@dataclass(frozen=True)
class CalibrationBins:
    """Counts and sums of confidence in bins of equal width, (a, b], and in one of its own for a confidence of 0.

    Its properties have the shape of the leading axes: () for the predicted class, (C,) for each class's probability.
    `bins_a + bins_b` pools two parts of the data.

    Attributes:
        counts: int64 (..., 2, n_bins + 1): the wrong and the right, in the bin {0} and the n_bins others.
        confidences: float64, the same: sums of confidence.
    """

    counts: Tensor
    confidences: Tensor

    def __add__(self, other: "CalibrationBins") -> "CalibrationBins":
        if self.counts.shape != other.counts.shape:
            shapes = f"{tuple(self.counts.shape)} and {tuple(other.counts.shape)}"
            raise ValueError(expectation("bins", "of one shape", shapes))
        return CalibrationBins(self.counts + other.counts, self.confidences + other.confidences)

    @property
    def n_bins(self) -> int:
        """Number of bins on [0, 1]."""
        return self.counts.shape[-1] - 1

    @property
    def total(self) -> Tensor:
        """Number of pixels."""
        return self.counts.sum(dim=(-2, -1))

    @property
    def count(self) -> Tensor:
        """Pixels in each bin (..., n_bins); a confidence of 0 is in the first."""
        return _with_zeros(self.counts.sum(dim=-2))

    @property
    def confidence_sum(self) -> Tensor:
        """Sum of confidence in each bin (..., n_bins)."""
        return _with_zeros(self.confidences.sum(dim=-2))

    @property
    def correct_sum(self) -> Tensor:
        """Right pixels in each bin (..., n_bins)."""
        return _with_zeros(self.counts[..., 1, :]).double()

    @property
    def confidence(self) -> Tensor:
        """Mean confidence in each bin; NaN in an empty one."""
        return self.confidence_sum / self.count

    @property
    def accuracy(self) -> Tensor:
        """Share of right pixels in each bin; NaN in an empty one."""
        return self.correct_sum / self.count

    @property
    def expected(self) -> Tensor:
        """Expected calibration error: sum_b abs(confidence_sum_b - correct_sum_b) / total."""
        return self._excess().abs().sum(dim=-1) / self.total

    @property
    def overconfidence(self) -> Tensor:
        """The part of `expected` that bins contribute in which the confidence is above the accuracy."""
        return self._excess().clamp_min(0).sum(dim=-1) / self.total

    @property
    def underconfidence(self) -> Tensor:
        """The part of `expected` that bins contribute in which the confidence is below the accuracy."""
        return (-self._excess()).clamp_min(0).sum(dim=-1) / self.total

    @property
    def average(self) -> Tensor:
        """Average calibration error: the mean of abs(accuracy - confidence) over the bins that are not empty."""
        return self._gap().abs().nanmean(dim=-1)

    @property
    def maximum(self) -> Tensor:
        """Maximum calibration error: the largest abs(accuracy - confidence) of a bin."""
        gap = self._gap().abs()
        return torch.where(self.total > 0, gap.nan_to_num(-1).amax(dim=-1), torch.nan)

    @property
    def rms(self) -> Tensor:
        """Root of the mean over pixels of (accuracy_b - confidence_b)^2."""
        return (self._gap().square().nan_to_num() * self.count).sum(dim=-1).div(self.total).sqrt()

    @property
    def debiased(self) -> Tensor:
        """`rms` without the share that chance gives to a calibrated forecast (Kumar et al., NeurIPS 2019).

        From each bin's squared gap its variance accuracy (1 - accuracy) / (n_b - 1) is taken. That leaves the mean
        square unbiased where pixels are independent and share one confidence in a bin; where confidences differ by d
        within a bin, it takes up to d^2 / 4 n_b too much. A negative mean square gives 0. Neighbouring pixels are not
        independent, so on images more chance is left than this takes away. A bin of one pixel is left out.
        """
        several = self.count > 1
        variance = self.accuracy * (1 - self.accuracy) / (self.count - 1)
        terms = torch.where(several, self._gap().square() - variance, 0) * self.count
        pixels = (self.count * several).sum(dim=-1)
        return (terms.sum(dim=-1) / pixels).clamp_min(0).sqrt()

    @property
    def reference(self) -> Tensor:
        """`expected` as in the papers' code, where a confidence of exactly 0 is in no bin, though in the total."""
        excess = self.confidences.sum(dim=-2) - self.counts[..., 1, :]
        return excess[..., 1:].abs().sum(dim=-1) / self.total

    def _excess(self) -> Tensor:
        return self.confidence_sum - self.correct_sum

    def _gap(self) -> Tensor:
        return self._excess() / self.count


def calibration_bins(
    probs: Tensor,
    target: Tensor,
    *,
    n_bins: int = 15,
    regions: Sequence[str] = REGIONS,
    classwise: bool = False,
    from_logits: bool = False,
    ignore_index: int = -100,
) -> dict[str, CalibrationBins]:
    """The bins of a forecast over several regions at once.

    Args:
        probs: softmax output (N, C, ...), in 2D or 3D.
        target: labels (N, ...), integers in [0, C) or `ignore_index`.
        n_bins: number of bins of equal width on [0, 1].
        regions: of `REGIONS`, see `region_mask`.
        classwise: each class's probability and its indicator, instead of the predicted class's.
        from_logits: `probs` are logits; their softmax is taken slab by slab, so no copy of them is made.
        ignore_index: label of the pixels that never count.

    Returns:
        The bins of each region.

    Raises:
        ValueError: shapes that do not fit, values out of range, an unknown region, `n_bins` below 1.
        TypeError: dtypes that do not fit.

    Example:
        >>> probs = torch.tensor([0.9, 0.1]).view(1, 2, 1, 1).expand(1, 2, 8, 8)
        >>> bins = calibration_bins(probs, torch.zeros(1, 8, 8, dtype=torch.long))
        >>> {region: round(bins[region].expected.item(), 4) for region in ("all", "predicted_border")}
        {'all': 0.1, 'predicted_border': nan}
    """
    check_integer("n_bins", n_bins, low=1)
    check_flag("classwise", classwise)
    forecast = Forecast.checked(probs, target, ignore_index, from_logits=from_logits)
    masks = [mask_of(forecast, region) for region in regions]
    return dict(zip(regions, bins_over(forecast, masks, n_bins, classwise=classwise), strict=True))


def bins_over(
    forecast: Forecast, masks: Sequence[Tensor | None], n_bins: int, *, classwise: bool
) -> list[CalibrationBins]:
    """The bins over the pixels of each mask, of the predicted class, or of each class."""
    return cell_sums(forecast, masks, lambda values: _number(values, n_bins), n_bins + 1, classwise=classwise)


def cell_sums(
    forecast: Forecast,
    masks: Sequence[Tensor | None],
    number: Callable[[Tensor], Tensor],
    size: int,
    *,
    classwise: bool,
    threshold: float = -1.0,
) -> list[CalibrationBins]:
    """Counts and sums of the confidences above `threshold`, by the `number` in [0, size) that each confidence has."""
    rows = forecast.num_classes if classwise else 1
    cells = rows * 2 * size
    dtype = next(t for t in (torch.uint8, torch.int16, torch.int32) if cells <= torch.iinfo(t).max)
    device = forecast.scores.device
    row = (torch.arange(rows, device=device) * 2 * size).to(dtype).view(1, -1, 1)
    counts = torch.zeros(len(masks), cells + 1, dtype=torch.int64, device=device)
    sums = torch.zeros(len(masks), cells + 1, dtype=torch.float64, device=device)
    for values, right, *parts in forecast_rows(forecast, masks, classwise=classwise):
        cell = right.to(dtype).mul_(size).add_(row).add_(number(values).to(dtype))
        if threshold >= 0:
            cell.masked_fill_(values <= threshold, cells)
        weights = values.double().flatten()
        for i, mask in enumerate(parts):
            inside = (cell if mask is None else cell.masked_fill(~mask.unsqueeze(1), cells)).flatten()
            counts[i] += torch.bincount(inside, minlength=cells + 1)
            sums[i] += torch.bincount(inside, weights, minlength=cells + 1)
    shape = (rows, 2, size) if classwise else (2, size)
    return [CalibrationBins(c[:cells].view(shape), s[:cells].view(shape)) for c, s in zip(counts, sums, strict=True)]


def forecast_rows(
    forecast: Forecast, masks: Sequence[Tensor | None], *, classwise: bool
) -> Iterator[tuple[Tensor, ...]]:
    """Slab by slab: confidence and whether it came true, both (n, rows, pixels), and the pixels of the masks."""
    if classwise:
        for probs, labels, *parts in forecast.probs(*masks):
            yield probs, indicators(labels, probs.shape[1]), *parts
    else:
        for confidence, right, *parts in forecast.confidence(*masks):
            yield confidence.unsqueeze(1), right.unsqueeze(1), *parts


def _number(values: Tensor, n_bins: int) -> Tensor:
    """0 for 0, and b for values in ((b - 1) / n_bins, b / n_bins]."""
    edges = [k / n_bins for k in range(n_bins)]  # torch.linspace would be off by one rounding
    if n_bins > COMPARED or values.device.type != "cpu":
        edges = torch.tensor(edges, dtype=torch.float64, device=values.device).to(values.dtype)
        return torch.bucketize(values, edges, out_int32=True)
    number, above = torch.zeros_like(values), torch.empty_like(values)
    for edge in edges:  # compared into floats: a comparison that gives booleans is not vectorised on a CPU
        number.add_(torch.gt(values, edge, out=above))
    return number


def _with_zeros(sums: Tensor) -> Tensor:
    """Sums by bin with those of the bin {0} in the first bin."""
    return torch.cat([sums[..., :1] + sums[..., 1:2], sums[..., 2:]], dim=-1)
