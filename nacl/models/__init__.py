"""Networks by name: the paper's U-Net, those of smp and MONAI, and the user's own."""

import difflib
from collections.abc import Sequence

from torch import nn

from nacl._checks import check_integer, expectation
from nacl.models import own
from nacl.models._meta import on_meta
from nacl.models._options import Options
from nacl.models.levels import check_grid
from nacl.models.names import MODELS, Network
from nacl.models.own import is_own
from nacl.models.unet import UNet

__all__ = [
    "MODELS",
    "Network",
    "UNet",
    "build_model",
    "check_model",
    "check_weights",
    "count_parameters",
    "has_encoder",
    "is_own",
    "model_source",
    "takes_filters",
]


def build_model(
    name: str,
    in_channels: int,
    num_classes: int,
    *,
    filters: int = 32,
    encoder: str = "resnet18",
    weights: str = "none",
    patch: Sequence[int] = (128, 128),
    spacing: Sequence[float] | None = None,
) -> nn.Module:
    """A network with random weights from torch's global generator.

    It maps images (N, in_channels, H, W) to logits (N, num_classes, H, W), or volumes (N, in_channels, D, H, W)
    likewise, where `patch` has three axes. Many normalise over the batch; in training those refuse a batch of one
    image where a level has one pixel left.

    Args:
        name: a key of `MODELS`, or `package.module:function` of your own. That function is called with (in_channels,
            num_classes, filters=...), and with those of the other keywords that it names; it gives an `nn.Module` whose
            logits have the size of the image, which is checked when it is trained. The working directory is searched.
        in_channels: channels of the image.
        num_classes: channels of the logits.
        filters: width; `MODELS` says of what.
        encoder: of a network of smp: one of its own, or "tu-NAME" of timm.
        weights: that this encoder begins with, such as "imagenet", downloaded by smp; "none" for random ones.
        patch: size of the images, (H, W), or of patches of volumes, (D, H, W). Networks that plan their levels plan
            them for it, the others are checked against it.
        spacing: distance of pixels along each axis, by default 1: thick slices get kernels and strides of 1.

    Raises:
        ValueError: unknown `name` (the nearest is suggested), function, encoder or weights; a patch that the network
            does not take.
        TypeError: a value of another type, a function of your own that can't be called so.
        ImportError: a package or module that is not there.
        OSError: weights that are neither here nor to be had.

    Example:
        >>> import torch
        >>> build_model("unet", 1, 4, filters=4)(torch.zeros(2, 1, 32, 32)).shape
        torch.Size([2, 4, 32, 32])
    """
    spacing = (1.0,) * len(patch) if spacing is None else spacing
    check_grid(patch, spacing)
    check_model(name, len(patch))
    for argument, value in (("in_channels", in_channels), ("num_classes", num_classes), ("filters", filters)):
        check_integer(argument, value, low=1)
    check_weights(name, weights)
    options = Options(in_channels, num_classes, filters, encoder, weights, tuple(patch), tuple(spacing))
    return MODELS[name].build(name, options) if name in MODELS else own.build(name, options)


def check_model(name: str, axes: int) -> None:
    """Raise ValueError unless `name` names a network for slices (`axes` 2) or volumes (3); nothing is imported."""
    if is_own(name):
        own.check_own(name)
        return
    _check_known(name)
    if axes not in MODELS[name].axes:
        able = [other for other, network in MODELS.items() if axes in network.axes]
        rule = f"for {axes} axes: {', '.join(map(repr, able))}, or MODULE:FUNCTION of your own"
        remedy = "Take one of those, or train on slices with depth=1" if axes == 3 else ""
        raise ValueError(expectation("model", rule, repr(name), remedy=remedy))


def _check_known(name: str) -> None:
    """Raise ValueError unless `name` is a key of MODELS; it may have been meant without the family before it."""
    if name in MODELS:
        return
    meant = {known.lower(): known for known in MODELS}
    for known in MODELS:
        meant.setdefault(known.split(".")[-1].lower(), known)
    near = difflib.get_close_matches(str(name).lower(), meant, n=1, cutoff=0.5)
    rule = f"to be one of {', '.join(map(repr, MODELS))}, or MODULE:FUNCTION of your own"
    message = expectation("model", rule, repr(name))
    raise ValueError(f"{message} Did you mean {meant[near[0]]!r}?" if near else message)


def has_encoder(name: str) -> bool:
    """Whether the network has an encoder by name; one's own may."""
    return name.startswith("smp.") or is_own(name)


def takes_filters(name: str) -> bool:
    """Whether `filters` sets anything of the network; of one's own it may."""
    return is_own(name) or MODELS[name].takes_filters


def check_weights(name: str, weights: str) -> None:
    """Raise ValueError for weights of a network without an encoder."""
    if weights != "none" and not has_encoder(name):
        remedy = "Networks of smp have encoders with weights"
        raise ValueError(expectation("weights", "'none'", repr(weights), f"model={name!r}", remedy))


def model_source(name: str) -> str:
    """A hash of the code of a user's own network, "" for a network of `MODELS`.

    It is that of the module's file, or of all .py files of the package that it lies in (the outermost). What these
    import from elsewhere does not count.

    Raises:
        ModuleNotFoundError: no such module.
        ValueError: unknown `name`.
    """
    check_model(name, 2)
    return own.source(name) if is_own(name) else ""


def count_parameters(name: str, in_channels: int, num_classes: int, **keywords: object) -> int:
    """How many numbers a network learns; arguments as of `build_model`, no memory is taken for them.

    >>> count_parameters("unet", 1, 4)
    7846180
    """
    with on_meta():
        network = build_model(name, in_channels, num_classes, **keywords)
    return sum(parameter.numel() for parameter in network.parameters())
