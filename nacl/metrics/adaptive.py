"""Calibration errors from bins of equal mass: exact by sorting, or streaming by a fine histogram with its bound."""

import math

import numpy as np
import torch
from torch import Tensor

from nacl._checks import check_choice, check_flag, check_integer, check_number
from nacl.metrics._forecast import Forecast
from nacl.metrics._metric import Metric, Sums
from nacl.metrics.bins import cell_sums, forecast_rows
from nacl.metrics.calibration import CONVENTIONS
from nacl.metrics.regions import mask_of

# The fine histogram's cells are the leading bits of a float32: 512 an octave of p below 1/2, and of 1 - p above it.
SHIFT = 14
SMALLEST, HALF = (int(np.float32(x).view(np.int32)) >> SHIFT for x in (2.0**-25, 0.5))
BELOW_HALF = HALF - SMALLEST + 1  # what is smaller than 2^-25 shares the first cell
CELLS = 2 * BELOW_HALF

BEYOND = 4.0  # more than any confidence: what it is added to is sorted out of the way


def adaptive_calibration_error(
    probs: Tensor,
    target: Tensor,
    *,
    n_bins: int = 15,
    region: str = "all",
    classwise: bool = False,
    threshold: float = 0.0,
    convention: str = "standard",
    from_logits: bool = False,
    ignore_index: int = -100,
) -> float:
    """Calibration error over bins that hold equally many pixels, exactly, by sorting.

    sum_b n_b / n abs(accuracy_b - mean confidence_b), where the edges of the bins are the quantiles b / n_bins of the
    confidences; equal confidences stay in one bin, so that the order of pixels does not matter. It needs all
    confidences at once; `AdaptiveCalibrationError` does not.

    Args:
        probs: softmax output (N, C, ...), in 2D or 3D.
        target: labels (N, ...), integers in [0, C) or `ignore_index`.
        n_bins: number of bins.
        region: the pixels that count, see `region_mask`.
        classwise: each class's probability, then the mean over classes (Nixon et al.'s ACE), instead of the largest.
        threshold: probabilities up to here are left out (0 leaves out none); with `classwise` and 1e-3 this is Nixon
            et al.'s TACE.
        convention: "standard", or "reference", whose edges are interpolated and whose first bin leaves out the
            smallest confidence and all that equal it, so that a forecast of one confidence has an error of 0.
        from_logits: `probs` are logits.
        ignore_index: label of the pixels that never count.

    Returns:
        The error in [0, 1]; NaN if no confidence counts. A class of which none counts is left out of the mean.

    Raises:
        ValueError: shapes that do not fit, values out of range, unknown `region` or `convention`.
        TypeError: dtypes that do not fit.

    Example:
        >>> probs = torch.tensor([0.8, 0.2]).view(1, 2, 1, 1).expand(1, 2, 4, 4)
        >>> target = torch.zeros(1, 4, 4, dtype=torch.long)
        >>> round(adaptive_calibration_error(probs, target), 6)
        0.2
        >>> adaptive_calibration_error(probs, target, convention="reference")
        0.0

    References:
        Nguyen and O'Connor, EMNLP 2015 (equal mass). Nixon et al., CVPR workshop 2019 (ACE, TACE).
    """
    check_integer("n_bins", n_bins, low=1)
    check_flag("classwise", classwise)
    check_choice("convention", convention, CONVENTIONS)
    check_number("threshold", threshold, low=0, high=1)
    forecast = Forecast.checked(probs, target, ignore_index, from_logits=from_logits)
    mask = mask_of(forecast, region)
    rows = range(forecast.num_classes if classwise else 1)
    errors = []
    for row in rows:
        values, wrong = _confidences(forecast, mask, row, classwise=classwise, threshold=threshold)
        errors.append(_sorted_error(values, wrong, n_bins, convention))
    return float(np.nanmean(errors)) if not np.isnan(errors).all() else math.nan


class AdaptiveCalibrationError(Metric):
    """`adaptive_calibration_error` over any number of batches, by a fine histogram of confidence.

    The histogram has 24,578 cells a row: 512 an octave of the probability below 1/2, and of its distance from 1 above,
    so that certain pixels are resolved too. All confidences of a cell stay in one bin. By how much the result can
    differ from the exact one is known afterwards: `error_bound`.

    Args: as `CalibrationError` and `adaptive_calibration_error`.

    Example:
        >>> error = AdaptiveCalibrationError()
        >>> probs = torch.tensor([0.8, 0.2]).view(1, 2, 1, 1).expand(1, 2, 4, 4)
        >>> error.update(probs, torch.zeros(1, 4, 4, dtype=torch.long))
        >>> round(error.compute(), 6)
        0.2
    """

    def __init__(
        self,
        *,
        n_bins: int = 15,
        region: str = "all",
        classwise: bool = False,
        threshold: float = 0.0,
        aggregation: str = "pooled",
        num_classes: int | None = None,
        from_logits: bool = False,
        ignore_index: int = -100,
    ) -> None:
        check_integer("n_bins", n_bins, low=1)
        check_flag("classwise", classwise)
        check_number("threshold", threshold, low=0, high=1)
        self.n_bins, self.classwise, self.threshold = n_bins, classwise, threshold
        super().__init__(
            region=region,
            aggregation=aggregation,
            num_classes=num_classes,
            from_logits=from_logits,
            ignore_index=ignore_index,
        )

    @property
    def name(self) -> str:
        """Such as "adaptive_ece_all", or "classwise_tace_all"."""
        kind = "tace" if self.threshold else "adaptive_ece"
        return "_".join(["classwise"] * self.classwise + [kind, self.region])

    @property
    def error_bound(self) -> float:
        """The largest possible difference of `compute()` from the exact error of the same pixels.

        A bin's edge may cut a cell in the exact error and not in this one. The right pixels of a cell hold
        A = sum (1 - confidence) and its wrong ones B = sum confidence of what a bin's excess of confidence is made of;
        wherever the cut is, it moves no more than A + B + max(A, B).

        Raises:
            RuntimeError: no update yet, or an aggregation by cases.
        """
        return self._mean(_bound_of_cut_cells, self.pooled_sums("error_bound"))

    def pixel_sums(self, probs: Tensor, target: Tensor) -> Sums:
        """Counts and sums of confidence by cell."""
        forecast = Forecast.checked(probs, target, self.ignore_index, from_logits=self.from_logits)
        masks = [mask_of(forecast, self.region)]
        threshold = self.threshold or -1.0
        (cells,) = cell_sums(forecast, masks, _cell, CELLS, classwise=self.classwise, threshold=threshold)
        return vars(cells)

    def value(self, sums: Sums) -> float:
        """The error that the cells stand for."""
        return self._mean(_error_of_cells, sums)

    def _mean(self, of_row, sums: Sums) -> float:
        counts, confidences = (part.cpu().numpy().reshape(-1, 2, CELLS) for part in sums.values())
        rows = [of_row(c, s, self.n_bins) for c, s in zip(counts, confidences, strict=True)]
        return float(np.nanmean(rows)) if not np.isnan(rows).all() else math.nan


def _cell(values: Tensor) -> Tensor:
    """The number of each probability's cell, in order of the probability; exactly 1 has the last for itself."""
    values = values.float()
    above = values >= 0.5
    small = torch.where(above, 1 - values, values)  # exact: a float32 in [1/2, 1] has an exact distance from 1
    number = (small.contiguous().view(torch.int32) >> SHIFT).sub_(SMALLEST).clamp_(0, BELOW_HALF - 1)
    return torch.where(above, CELLS - 1 - number, number)


def _last_ranks(total: int, n_bins: int) -> np.ndarray:
    """The rank, from 1, of the last confidence that each bin is entitled to."""
    return -(-np.arange(1, n_bins + 1) * total // n_bins)


def _bins_of_cells(counts: np.ndarray, n_bins: int) -> np.ndarray:
    """The cell in which each bin ends."""
    reached = np.cumsum(counts.sum(axis=0))
    return np.searchsorted(reached, _last_ranks(reached[-1], n_bins))


def _error_of_cells(counts: np.ndarray, confidences: np.ndarray, n_bins: int) -> float:
    total = counts.sum()
    if not total:
        return math.nan
    excess = np.cumsum(confidences.sum(axis=0) - counts[1])[_bins_of_cells(counts, n_bins)]
    return np.abs(np.diff(excess, prepend=0)).sum() / total


def _bound_of_cut_cells(counts: np.ndarray, confidences: np.ndarray, n_bins: int) -> float:
    total = counts.sum()
    if not total:
        return math.nan
    cut = np.unique(_bins_of_cells(counts, n_bins))
    certain = cut[-1] == CELLS - 1 and confidences[:, -1].sum() == counts[:, -1].sum()
    cut = cut[:-1] if certain else cut  # where all of the last cell are exactly 1, they stay together anyway
    timid, bold = (counts[1] - confidences[1])[cut], confidences[0][cut]
    return (timid + bold + np.maximum(timid, bold)).sum() / total


def _confidences(
    forecast: Forecast, mask: Tensor | None, row: int, *, classwise: bool, threshold: float
) -> tuple[Tensor, Tensor]:
    """The confidences of one row that count, sorted, and those among them that did not come true, sorted."""
    scores = forecast.scores
    dtype = scores.dtype if scores.dtype == torch.float64 else torch.float32
    values, wrong = torch.empty(2, forecast.labels.numel(), dtype=dtype, device=scores.device)
    end = 0
    for confidence, right, part in forecast_rows(forecast, [mask], classwise=classwise):
        value = confidence[:, row]
        if part is not None:
            value = value.masked_fill(~part, BEYOND)
        if threshold > 0:
            value = value.masked_fill(value <= threshold, BEYOND)
        start, end = end, end + value.numel()
        values[start:end] = value.flatten()
        torch.add(value, right[:, row].to(dtype), alpha=BEYOND, out=wrong[start:end].view_as(value))
    return _sorted(values), _sorted(wrong)


def _sorted(values: Tensor) -> Tensor:
    """The confidences in order, without what is beyond them."""
    if values.device.type == "cpu":
        values.numpy().sort()  # torch.sort carries indices along, at thirty times the cost
    else:
        values = values.sort().values
    return values[: int(torch.searchsorted(values, BEYOND / 2))]


def _sorted_error(values: Tensor, wrong: Tensor, n_bins: int, convention: str) -> float:
    total = len(values)
    if not total:
        return math.nan
    if convention == "reference":
        edges = _interpolated(values, np.arange(n_bins + 1) * total / n_bins)
        ends, wrong_ends = (torch.searchsorted(part, edges, right=True) for part in (values, wrong))
    else:
        ranks = torch.from_numpy(_last_ranks(total, n_bins)).to(values.device)
        edges = values[ranks - 1]
        ends, wrong_ends = (
            torch.cat([torch.zeros_like(ranks[:1]), torch.searchsorted(part, edges, right=True)])
            for part in (values, wrong)
        )
    pairs = zip(ends.tolist()[:-1], ends.tolist()[1:], wrong_ends.diff().tolist(), strict=True)
    # with u the distance of a confidence from 1, the excess of a bin is (number of wrong) - sum u
    return sum(abs(bad - (b - a) + values[a:b].sum(dtype=torch.float64).item()) for a, b, bad in pairs) / total


def _interpolated(values: Tensor, places: np.ndarray) -> Tensor:
    """The sorted values at fractional places, the last one beyond the end."""
    low = np.minimum(places.astype(np.int64), len(values) - 1)
    high = np.minimum(low + 1, len(values) - 1)
    below, above = (values[torch.from_numpy(index).to(values.device)].double() for index in (low, high))
    share = torch.from_numpy(np.where(places >= len(values) - 1, 0.0, places - low)).to(values.device)
    return (below + share * (above - below)).to(values.dtype)
