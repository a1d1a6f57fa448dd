"""Is the confidence right (calibration), and is the mask right (segmentation)?"""

from nacl.metrics.calibration import (
    REGIONS,
    CalibrationBins,
    CalibrationError,
    classwise_calibration_error,
    expected_calibration_error,
    region_mask,
)
from nacl.metrics.scores import negative_log_likelihood, posterior_divergence
from nacl.metrics.segmentation import dice_score, hausdorff_distance_95

__all__ = [
    "REGIONS",
    "CalibrationBins",
    "CalibrationError",
    "classwise_calibration_error",
    "dice_score",
    "expected_calibration_error",
    "hausdorff_distance_95",
    "negative_log_likelihood",
    "posterior_divergence",
    "region_mask",
]
