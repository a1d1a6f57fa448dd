"""Training losses: one function each, then a thin Module with the same keywords."""

import inspect

from torch import nn

from nacl._checks import check_choice
from nacl._penalties import PENALTIES
from nacl.losses._module import keywords
from nacl.losses.classwise import DiceLoss, L1ACELoss, dice_loss, l1_ace_loss
from nacl.losses.combined import SCHEDULES, CombinedLoss, Schedule
from nacl.losses.cross_entropy import (
    CrossEntropyLoss,
    EntropyPenaltyLoss,
    FocalLoss,
    LabelSmoothingLoss,
    cross_entropy_loss,
    entropy_penalty_loss,
    focal_loss,
    label_smoothing_loss,
)
from nacl.losses.lagrangian import LAGRANGIANS, CRaCLoss, crac_loss
from nacl.losses.margin import MbLSLoss, mbls_loss
from nacl.losses.neighbour import NACLLoss, SVLSLoss, nacl_loss, svls_loss

__all__ = [
    "LAGRANGIANS",
    "LOSSES",
    "PENALTIES",
    "SCHEDULES",
    "CRaCLoss",
    "CombinedLoss",
    "CrossEntropyLoss",
    "DiceLoss",
    "EntropyPenaltyLoss",
    "FocalLoss",
    "L1ACELoss",
    "LabelSmoothingLoss",
    "MbLSLoss",
    "NACLLoss",
    "SVLSLoss",
    "Schedule",
    "build_loss",
    "crac_loss",
    "cross_entropy_loss",
    "dice_loss",
    "entropy_penalty_loss",
    "focal_loss",
    "keywords",
    "l1_ace_loss",
    "label_smoothing_loss",
    "mbls_loss",
    "nacl_loss",
    "svls_loss",
]

LOSSES: dict[str, type[nn.Module]] = {
    "ce": CrossEntropyLoss,
    "label_smoothing": LabelSmoothingLoss,
    "focal": FocalLoss,
    "ecp": EntropyPenaltyLoss,
    "svls": SVLSLoss,
    "mbls": MbLSLoss,
    "nacl": NACLLoss,
    "crac": CRaCLoss,
    "dice": DiceLoss,
    "l1_ace": L1ACELoss,
}
"""Loss Modules by name."""


def build_loss(name: str, *, num_classes: int | None = None, **options: object) -> nn.Module:
    """The Module of `LOSSES` called `name`.

    Args:
        name: a key of `LOSSES`.
        num_classes: C, for a loss that keeps something for each class ("crac"); the others do not need it.
        options: keywords of the loss.

    Raises:
        ValueError: unknown `name` or keyword (the nearest is suggested), or a value that the loss refuses.

    Example:
        >>> build_loss("nacl", penalty_weight=0.3).options["penalty_weight"]
        0.3
    """
    check_choice("loss", name, LOSSES)
    for option in options:
        check_choice("keyword", option, keywords(LOSSES[name]))
    if "num_classes" in inspect.signature(LOSSES[name]).parameters:
        return LOSSES[name](num_classes, **options)
    return LOSSES[name](**options)
