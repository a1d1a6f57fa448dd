"""Is the confidence right (calibration), and is the mask right (segmentation)?"""

from nacl.metrics._metric import Metric
from nacl.metrics.adaptive import AdaptiveCalibrationError, adaptive_calibration_error
from nacl.metrics.bins import CalibrationBins, calibration_bins
from nacl.metrics.calibration import (
    ERRORS,
    CalibrationError,
    classwise_calibration_error,
    expected_calibration_error,
    reference_error,
)
from nacl.metrics.posterior import posterior_divergence, posterior_error, true_calibration_error
from nacl.metrics.regions import REGIONS, region_mask
from nacl.metrics.reliability import ReliabilityCurve, reliability_curve
from nacl.metrics.scores import BrierParts, BrierScore, NegativeLogLikelihood, brier_score, negative_log_likelihood
from nacl.metrics.segmentation import (
    SurfaceDistances,
    average_surface_distance,
    dice_score,
    hausdorff_distance_95,
    surface_distances,
)

__all__ = [
    "ERRORS",
    "REGIONS",
    "AdaptiveCalibrationError",
    "BrierParts",
    "BrierScore",
    "CalibrationBins",
    "CalibrationError",
    "Metric",
    "NegativeLogLikelihood",
    "ReliabilityCurve",
    "SurfaceDistances",
    "adaptive_calibration_error",
    "average_surface_distance",
    "brier_score",
    "calibration_bins",
    "classwise_calibration_error",
    "dice_score",
    "expected_calibration_error",
    "hausdorff_distance_95",
    "negative_log_likelihood",
    "posterior_divergence",
    "posterior_error",
    "reference_error",
    "region_mask",
    "reliability_curve",
    "surface_distances",
    "true_calibration_error",
]
