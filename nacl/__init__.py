"""NACL: neighbour-aware calibration of segmentation networks.

>>> import torch
>>> loss = NACLLoss(penalty_weight=0.1)(torch.zeros(2, 4, 8, 8), torch.zeros(2, 8, 8, dtype=torch.long))
"""

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
    CrossEntropyLoss,
    NACLLoss,
    SVLSLoss,
    build_loss,
    cross_entropy_loss,
    nacl_loss,
    svls_loss,
)
from nacl.metrics import (
    CalibrationError,
    classwise_calibration_error,
    dice_score,
    expected_calibration_error,
    hausdorff_distance_95,
)
from nacl.priors import neighbour_prior

__all__ = [
    "CalibrationError",
    "CrossEntropyLoss",
    "NACLLoss",
    "SVLSLoss",
    "build_loss",
    "classwise_calibration_error",
    "cross_entropy_loss",
    "dice_score",
    "expected_calibration_error",
    "hausdorff_distance_95",
    "nacl_loss",
    "neighbour_prior",
    "svls_loss",
]
