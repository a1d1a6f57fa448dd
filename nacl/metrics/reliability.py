"""A reliability curve without bins: isotonic regression of what came true on the confidence."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import isotonic_regression
from torch import Tensor

from nacl._checks import check_integer, expectation
from nacl.metrics._forecast import Forecast
from nacl.metrics.bins import forecast_rows
from nacl.metrics.regions import mask_of


@dataclass(frozen=True)
class ReliabilityCurve:
    """The share of pixels that came true as a rising step function of the confidence, and what it says of a forecast.

    Attributes:
        confidence: (points,) float64, the different confidences, rising.
        accuracy: (points,) float64, the isotonic share there.
        count: (points,) int64, the pixels of each.
        correct: (points,) int64, those that came true.
    """

    confidence: NDArray[np.float64]
    accuracy: NDArray[np.float64]
    count: NDArray[np.int64]
    correct: NDArray[np.int64]

    @property
    def calibration_error(self) -> float:
        """Mean over pixels of abs(accuracy - confidence): an expected calibration error without bins."""
        return self._mean(abs(self.accuracy - self.confidence))

    @property
    def miscalibration(self) -> float:
        """MCB: by how much recalibration lowers the Brier score of "came true"; 0 is calibrated, never negative."""
        return self._brier(self.confidence) - self._brier(self.accuracy)

    @property
    def discrimination(self) -> float:
        """DSC: by how much the recalibrated forecast is better than always saying the mean; never negative."""
        return self.uncertainty - self._brier(self.accuracy)

    @property
    def uncertainty(self) -> float:
        """UNC: the Brier score of always saying the mean. Brier score = MCB - DSC + UNC, exactly."""
        mean = self._mean(self.correct / self.count)
        return mean * (1 - mean)

    def _brier(self, forecast: NDArray[np.float64]) -> float:
        right, total = self.correct, self.count
        squares = right * (1 - forecast) ** 2 + (total - right) * forecast**2
        return float(squares.sum() / total.sum())

    def _mean(self, values: NDArray[np.float64]) -> float:
        return float((values * self.count).sum() / self.count.sum())


def reliability_curve(
    probs: Tensor,
    target: Tensor,
    *,
    class_index: int | None = None,
    region: str = "all",
    from_logits: bool = False,
    ignore_index: int = -100,
) -> ReliabilityCurve:
    """The reliability curve that the data themselves choose, instead of bins: CORP (Dimitriadis et al., PNAS 2021).

    Isotonic regression (pool adjacent violators) finds the rising function of the confidence that fits what came true
    best. It has no number of bins to choose, and takes the Brier score apart without a remainder. With few pixels it
    follows chance as bins do: the error of a calibrated forecast falls with about the power -2/3 of their number.

    Args:
        probs: softmax output (N, C, ...), in 2D or 3D.
        target: labels (N, ...), integers in [0, C) or `ignore_index`.
        class_index: the class whose probability is judged; by default the predicted class of each pixel.
        region: the pixels that count, see `region_mask`.
        from_logits: `probs` are logits.
        ignore_index: label of the pixels that never count.

    Raises:
        ValueError: shapes that do not fit, values out of range, unknown `region`, a `class_index` out of range, a
            region without a pixel.
        TypeError: dtypes that do not fit.

    Example:
        >>> probs = torch.tensor([[0.9, 0.8], [0.1, 0.2]]).view(1, 2, 1, 2)
        >>> curve = reliability_curve(probs, torch.tensor([[[1, 0]]]))
        >>> curve.confidence.round(3), curve.accuracy
        (array([0.8, 0.9]), array([0.5, 0.5]))
    """
    forecast = Forecast.checked(probs, target, ignore_index, from_logits=from_logits)
    if class_index is not None:
        check_integer("class_index", class_index, low=0)
        if class_index >= forecast.num_classes:
            raise ValueError(expectation("class_index", f"below {forecast.num_classes}", class_index))
    values, correct = [], []
    rows = forecast_rows(forecast, [mask_of(forecast, region)], classwise=class_index is not None)
    for confidence, right, part in rows:
        inside = slice(None) if part is None else part
        values.append(confidence[:, class_index or 0][inside].flatten().cpu())
        correct.append(right[:, class_index or 0][inside].flatten().cpu())
    confidence = torch.cat(values).double().numpy() if values else np.zeros(0)
    if not len(confidence):
        raise ValueError(expectation("region", "with a pixel at least", repr(region)))
    points, group, count = np.unique(confidence, return_inverse=True, return_counts=True)
    right = np.bincount(group, torch.cat(correct).double().numpy()).astype(np.int64)
    fit = isotonic_regression(right / count, weights=count.astype(float)).x
    return ReliabilityCurve(points, fit, count, right)
