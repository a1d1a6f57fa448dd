"""NACL: neighbour-aware calibration of segmentation networks.

>>> import torch
>>> loss = NACLLoss(penalty_weight=0.1)(torch.zeros(2, 4, 8, 8), torch.zeros(2, 8, 8, dtype=torch.long))
"""

from importlib import import_module as _import_module
from importlib.metadata import PackageNotFoundError as _NotInstalled
from importlib.metadata import distribution as _distribution

try:
    _distribution("PyNaCl")
except _NotInstalled:
    pass
else:
    raise ImportError(
        "PyNaCl is in this environment, and it installs a package called `nacl` too: each would overwrite or hide the "
        "other. Install nacl-calibration in an environment without PyNaCl (`make setup` makes one)."
    )

from nacl.losses import (
    CombinedLoss,
    CRaCLoss,
    CrossEntropyLoss,
    DiceLoss,
    EntropyPenaltyLoss,
    FocalLoss,
    L1ACELoss,
    LabelSmoothingLoss,
    MbLSLoss,
    NACLLoss,
    Schedule,
    SVLSLoss,
    build_loss,
    crac_loss,
    cross_entropy_loss,
    dice_loss,
    entropy_penalty_loss,
    focal_loss,
    l1_ace_loss,
    label_smoothing_loss,
    mbls_loss,
    nacl_loss,
    svls_loss,
)
from nacl.metrics import (
    AdaptiveCalibrationError,
    BrierScore,
    CalibrationError,
    NegativeLogLikelihood,
    adaptive_calibration_error,
    average_surface_distance,
    brier_score,
    calibration_bins,
    classwise_calibration_error,
    dice_score,
    expected_calibration_error,
    hausdorff_distance_95,
    negative_log_likelihood,
)
from nacl.priors import neighbour_prior
from nacl.scaling import LocalTemperatureScaling, TemperatureScaling, VectorScaling

__all__ = [
    "AdaptiveCalibrationError",
    "BrierScore",
    "CRaCLoss",
    "CalibrationError",
    "CombinedLoss",
    "CrossEntropyLoss",
    "DiceLoss",
    "EntropyPenaltyLoss",
    "FocalLoss",
    "L1ACELoss",
    "LabelSmoothingLoss",
    "LocalTemperatureScaling",
    "MbLSLoss",
    "NACLLoss",
    "NegativeLogLikelihood",
    "SVLSLoss",
    "Schedule",
    "TemperatureScaling",
    "VectorScaling",
    "adaptive_calibration_error",
    "average_surface_distance",
    "brier_score",
    "build_loss",
    "calibration_bins",
    "classwise_calibration_error",
    "crac_loss",
    "cross_entropy_loss",
    "dice_loss",
    "dice_score",
    "entropy_penalty_loss",
    "expected_calibration_error",
    "focal_loss",
    "hausdorff_distance_95",
    "l1_ace_loss",
    "label_smoothing_loss",
    "mbls_loss",
    "nacl_loss",
    "negative_log_likelihood",
    "neighbour_prior",
    "svls_loss",
]


def __getattr__(name: str) -> object:
    if name == "report":  # its jinja2, pandas and matplotlib are an extra
        return _import_module("nacl.reporting").report
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
