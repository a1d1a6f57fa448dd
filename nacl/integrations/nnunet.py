"""nnU-Net's trainer with the losses of this package, for `nnUNetv2_train DATASET CONFIGURATION FOLD -tr NAME`.

nnU-Net 2.8 and later searches the folders of the environment variable `nnUNet_extTrainer` for NAME, and this module run
as a program prints the folder to put there::

    export nnUNet_extTrainer=$(python -m nacl.integrations.nnunet)
"""
# ruff: noqa: N801, RUF022 (nnU-Net's names begin with "nnUNetTrainer"; they are listed as they follow each other)

import sys
from collections.abc import Sequence
from pathlib import Path

from nnunetv2 import paths
from nnunetv2.training.loss.compound_losses import DC_and_CE_loss
from nnunetv2.training.loss.deep_supervision import DeepSupervisionWrapper
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from torch import Tensor, nn

from nacl._checks import check_choice, check_kernel_size, check_number, expectation
from nacl.losses import (
    EntropyPenaltyLoss,
    FocalLoss,
    LabelSmoothingLoss,
    MbLSLoss,
    NACLLoss,
    SVLSLoss,
    keywords,
)

__all__ = [
    "nnUNetTrainerNACL",
    "nnUNetTrainerDiceNACL",
    "nnUNetTrainerSVLS",
    "nnUNetTrainerDiceSVLS",
    "nnUNetTrainerMbLS",
    "nnUNetTrainerDiceMbLS",
    "nnUNetTrainerLabelSmoothing",
    "nnUNetTrainerDiceLabelSmoothing",
    "nnUNetTrainerFocal",
    "nnUNetTrainerDiceFocal",
    "nnUNetTrainerEntropyPenalty",
    "nnUNetTrainerDiceEntropyPenalty",
]

ANISOTROPY = 2
"""An axis is coarse where its voxels are this many times as long as the shortest: the rule by which nnU-Net's planner
gives a convolution a kernel of 1 along an axis (`get_pool_and_conv_props`)."""

GIVEN_BY_NNUNET = ("ignore_index", "reduction")
"""Keywords of the losses that follow from nnU-Net's plans: its ignore label, and one number a batch."""

PLAIN = int | float | str | tuple | list | None
"""What a class attribute that is an option may be, right or wrong."""

TRAINERS = Path(__file__).with_name("nnunet_trainers")
"""The folder for nnU-Net to search."""


def window(kernel_size: int | Sequence[int], spacing: Sequence[float]) -> tuple[int, ...]:
    """The window along each axis: `kernel_size`, or 1 along a coarse axis if `kernel_size` is one number.

    Args:
        kernel_size: width in voxels, odd; several numbers, one an axis, are taken as they are.
        spacing: length of a voxel along each axis, in any unit.

    Example:
        >>> window(3, (5.0, 1.25, 1.25)), window(3, (1.25, 1.0, 1.0)), window((3, 5, 5), (5.0, 1.25, 1.25))
        ((1, 3, 3), (3, 3, 3), (3, 5, 5))
    """
    sizes = check_kernel_size(kernel_size, len(spacing))
    if not isinstance(kernel_size, int):
        return sizes
    return tuple(size if length < ANISOTROPY * min(spacing) else 1 for size, length in zip(sizes, spacing, strict=True))


class PixelTerm(nn.Module):
    """A loss of this package where nnU-Net has its cross-entropy.

    Deep supervision shows it the outputs at several resolutions. The window is of as many voxels at each, and which
    axes are coarse (`window`) is found anew, by the length of a voxel there.

    Args:
        loss: its Module.
        patch: the network's patch, in voxels.
        spacing: length of a voxel along each axis, at full resolution.

    Example:
        >>> import torch
        >>> term = PixelTerm(NACLLoss(), patch=(8, 32, 32), spacing=(4.0, 1.0, 1.0))
        >>> term.options((8, 32, 32))["kernel_size"], term.options((8, 8, 8))["kernel_size"]
        ((1, 3, 3), (3, 3, 3))
    """

    def __init__(self, loss: nn.Module, patch: Sequence[int], spacing: Sequence[float]) -> None:
        super().__init__()
        self.loss, self.patch, self.spacing = loss, tuple(patch), tuple(spacing)
        self.options(self.patch)  # so that a window that does not fit is refused before the training

    def options(self, shape: Sequence[int]) -> dict[str, object]:
        """The keywords of the loss for an output of `shape` voxels."""
        options = dict(self.loss.options)
        if "kernel_size" in options:
            lengths = [
                length * (whole / here) for length, whole, here in zip(self.spacing, self.patch, shape, strict=True)
            ]
            options["kernel_size"] = window(options["kernel_size"], lengths)
        return options

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """The loss of logits (B, C, ...) and labels (B, ...) of any dtype, as nnU-Net passes them."""
        return self.loss.function(logits, target.long(), **self.options(logits.shape[2:]))

    def extra_repr(self) -> str:
        return f"patch={self.patch}, spacing={self.spacing}"


class _Trainer(nnUNetTrainer):
    """nnU-Net's trainer with `pixel_loss` in the place of cross-entropy, and `dice_weight` times nnU-Net's Dice.

    The keywords of the loss are class attributes, for a subclass to change. All else is nnU-Net's: its Dice (over the
    batch where the plans say so, gathered over processes), the weights of deep supervision, the optimiser, the
    augmentation. So a class can have one more parent that changes any of these.
    """

    pixel_loss: type[nn.Module]
    dice_weight: float = 0.0

    def __init_subclass__(cls, **options: object) -> None:
        super().__init_subclass__(**options)
        defaults = {name: x for name, x in keywords(cls.pixel_loss).items() if name not in GIVEN_BY_NNUNET}
        known = ["dice_weight", *defaults]
        plain = [name for name, x in vars(cls).items() if isinstance(x, PLAIN) and not name.startswith("_")]
        for name in plain:  # a misspelt one would be a training that ends as if it was never written
            check_choice(f"an attribute of {cls.__name__}", name, known)
        for name in defaults.keys() - set(dir(cls)):
            setattr(cls, name, defaults[name])

    def _build_loss(self) -> nn.Module:
        if self.label_manager.has_regions:
            rule = f"labels that exclude each other for {type(self).__name__}"
            remedy = "Give every voxel one label, or train nnUNetTrainer"
            raise ValueError(expectation("dataset.json", f"to have {rule}", "regions that may overlap", "", remedy))
        loss = super()._build_loss()
        both = loss.loss if isinstance(loss, DeepSupervisionWrapper) else loss
        if not isinstance(both, DC_and_CE_loss):
            remedy = "Leave out the parent class that has a loss of its own"
            rule = f"of {type(self).__name__}'s parents to be nnU-Net's DC_and_CE_loss"
            raise TypeError(expectation("the loss", rule, type(both).__name__, remedy=remedy))
        check_number("dice_weight", self.dice_weight, low=0)
        both.ce = self._pixel_term()
        both.weight_ce, both.weight_dice = 1, self.dice_weight
        self.print_to_log_file(f"Loss: {self.dice_weight:g} x nnU-Net's Dice + {both.ce.loss}")
        return loss

    def _pixel_term(self) -> PixelTerm:
        options = {name: getattr(self, name) for name in keywords(self.pixel_loss) if name not in GIVEN_BY_NNUNET}
        ignored = self.label_manager.ignore_label
        loss = self.pixel_loss(**options, **({} if ignored is None else {"ignore_index": ignored}))
        if getattr(loss, "reads_image", False):
            remedy = "nnU-Net shows its loss no image"
            raise ValueError(expectation("prior", "to need labels only", repr(options["prior"]), remedy=remedy))
        return PixelTerm(loss, self.configuration_manager.patch_size, self.configuration_manager.spacing)


class nnUNetTrainerNACL(_Trainer):
    """`nacl.nacl_loss`: attributes penalty_weight, kernel_size, prior, penalty, sigma, delta, border, softmax,
    mixed_only.
    """

    pixel_loss = NACLLoss


class nnUNetTrainerDiceNACL(nnUNetTrainerNACL):
    """The same, and nnU-Net's Dice."""

    dice_weight = 1.0


class nnUNetTrainerSVLS(_Trainer):
    """`nacl.svls_loss`: attributes kernel_size, sigma, border."""

    pixel_loss = SVLSLoss


class nnUNetTrainerDiceSVLS(nnUNetTrainerSVLS):
    """The same, and nnU-Net's Dice."""

    dice_weight = 1.0


class nnUNetTrainerMbLS(_Trainer):
    """`nacl.mbls_loss`: attributes margin, penalty_weight, penalty, delta."""

    pixel_loss = MbLSLoss


class nnUNetTrainerDiceMbLS(nnUNetTrainerMbLS):
    """The same, and nnU-Net's Dice."""

    dice_weight = 1.0


class nnUNetTrainerLabelSmoothing(_Trainer):
    """`nacl.label_smoothing_loss`: attribute smoothing."""

    pixel_loss = LabelSmoothingLoss


class nnUNetTrainerDiceLabelSmoothing(nnUNetTrainerLabelSmoothing):
    """The same, and nnU-Net's Dice."""

    dice_weight = 1.0


class nnUNetTrainerFocal(_Trainer):
    """`nacl.focal_loss`: attributes gamma, gamma_unsure, threshold."""

    pixel_loss = FocalLoss


class nnUNetTrainerDiceFocal(nnUNetTrainerFocal):
    """The same, and nnU-Net's Dice."""

    dice_weight = 1.0


class nnUNetTrainerEntropyPenalty(_Trainer):
    """`nacl.entropy_penalty_loss`: attribute penalty_weight."""

    pixel_loss = EntropyPenaltyLoss


class nnUNetTrainerDiceEntropyPenalty(nnUNetTrainerEntropyPenalty):
    """The same, and nnU-Net's Dice."""

    dice_weight = 1.0


def main() -> int:
    """Print the folder for `nnUNet_extTrainer`; the status is 1 where the installed nnU-Net has no such variable."""
    if not hasattr(paths, "nnUNet_extTrainer"):
        [file] = TRAINERS.glob("*.py")
        variants = Path(sys.modules[nnUNetTrainer.__module__].__file__).with_name("variants")
        print(
            f"This nnU-Net is older than 2.8, and does not search other folders for trainers. "
            f"pip install 'nnunetv2>=2.8', or copy {file} to {variants}.",
            file=sys.stderr,
        )
        return 1
    print(TRAINERS)
    return 0


if __name__ == "__main__":
    sys.exit(main())
