"""Networks of MONAI, for slices and for patches of volumes."""

from torch import nn

from nacl._checks import expectation, extra_needed
from nacl.models._options import Options
from nacl.models.levels import SMALLEST, check_multiples, plan_levels

UNETR_PATCH = 16
"""Pixels along each axis of UNETR's tokens."""
SWIN_MULTIPLE = 32
"""SwinUNETR's tokens are 2 pixels wide, and are merged four times."""
SWIN_FILTERS = 12
"""SwinUNETR's heads share its channels, in multiples of 12."""


def build(name: str, options: Options) -> nn.Module:
    """The network of MONAI called `name`, such as "monai.DynUNet".

    Raises:
        ModuleNotFoundError: MONAI is not installed.
        ValueError: a patch that the network does not take.
    """
    with extra_needed("monai", f"model {name!r}", extra="monai"):
        import monai.networks.nets  # noqa: F401, slow to import
    return BUILDERS[name.removeprefix("monai.")](name, options)


def _attention_unet(name: str, options: Options) -> nn.Module:
    """Attention U-Net: five levels at most; strides are planned, kernels are 3 along each axis (it takes no others)."""
    from monai.networks.nets import AttentionUnet

    strides = plan_levels(options.patch, options.spacing).strides[:5]
    _check_levels(name, options, len(strides), 2)
    return AttentionUnet(
        spatial_dims=options.axes,
        in_channels=options.in_channels,
        out_channels=options.num_classes,
        channels=[options.filters * 2**level for level in range(len(strides))],
        strides=strides[1:],
    )


def _dynunet(name: str, options: Options) -> nn.Module:
    """nnU-Net's network: levels are planned, widths grow as far as nnU-Net's: to 512 in 2D, 320 in 3D from 32."""
    from monai.networks.nets import DynUNet

    levels = plan_levels(options.patch, options.spacing)
    _check_levels(name, options, len(levels.strides), 3)
    widest = options.filters * (16 if options.axes == 2 else 10)
    return DynUNet(
        spatial_dims=options.axes,
        in_channels=options.in_channels,
        out_channels=options.num_classes,
        kernel_size=levels.kernels,
        strides=levels.strides,
        upsample_kernel_size=levels.strides[1:],
        filters=[min(options.filters * 2**level, widest) for level in range(len(levels.strides))],
        norm_name=("instance", {"affine": True}),
    )


def _unetr(name: str, options: Options) -> nn.Module:
    """UNETR: the transformer is widened with `filters`; 16 are the published widths."""
    from monai.networks.nets import UNETR

    check_multiples(options.patch, (UNETR_PATCH,) * options.axes, name)
    return UNETR(
        in_channels=options.in_channels,
        out_channels=options.num_classes,
        img_size=options.patch,
        feature_size=options.filters,
        hidden_size=48 * options.filters,
        mlp_dim=4 * 48 * options.filters,
        num_heads=12,
        spatial_dims=options.axes,
    )


def _swin_unetr(name: str, options: Options) -> nn.Module:
    """Swin UNETR: 48 filters are the published widths; rounded up to a multiple of 12."""
    from monai.networks.nets import SwinUNETR

    # one pixel at the lowest level has no variance for its instance normalisation
    least = 2 * SWIN_MULTIPLE if all(size <= SWIN_MULTIPLE for size in options.patch) else 1
    check_multiples(options.patch, (SWIN_MULTIPLE,) * options.axes, name, least=least)
    return SwinUNETR(
        in_channels=options.in_channels,
        out_channels=options.num_classes,
        feature_size=-(-options.filters // SWIN_FILTERS) * SWIN_FILTERS,
        spatial_dims=options.axes,
    )


def _check_levels(name: str, options: Options, levels: int, fewest: int) -> None:
    """Raise unless the patch can be halved so often that the network has its fewest levels."""
    if levels < fewest:
        rule = f"that can be halved {fewest - 1} times, with {SMALLEST} pixels left"
        context = f"model={name!r}, spacing={options.spacing}"
        raise ValueError(expectation("patch", rule, options.patch, context, "Use multiples of 16"))


BUILDERS = {"AttentionUnet": _attention_unet, "DynUNet": _dynunet, "UNETR": _unetr, "SwinUNETR": _swin_unetr}
