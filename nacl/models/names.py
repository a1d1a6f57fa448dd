"""The networks that have a name here."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from nacl.models import monai, smp, unet
from nacl.models._options import Options

SLICES, BOTH = (2,), (2, 3)


@dataclass(frozen=True)
class Network:
    """What is known of a network by name.

    Attributes:
        axes: 2 where it takes slices, 3 where it takes patches of volumes.
        description: one line.
        filters: what `filters` sets.
        build: gives the network, of its name and `Options`; imports what it needs when it is called.
        takes_filters: whether `filters` sets anything.
    """

    axes: tuple[int, ...]
    description: str
    filters: str
    build: Callable[[str, Options], nn.Module]
    takes_filters: bool = True


_LEVELS = "width at full resolution, doubled at each level"
_DECODER = "width of the decoder at full resolution, doubled at each level"
_OF_32 = "width of the decoder; 32 gives smp's own"
_DPT = f"vision transformer and convolutions; its encoder is one, such as {smp.DPT_ENCODER}"
_SWIN = "width at full resolution, rounded up to a multiple of 12; 48 gives the published one"

MODELS = {
    "unet": Network(BOTH, "the paper's U-Net: five levels, ReLU, no normalisation", _LEVELS, unet.build),
    "smp.Unet": Network(SLICES, "U-Net", _DECODER, smp.build),
    "smp.UnetPlusPlus": Network(SLICES, "U-Net with nested, dense skip connections", _DECODER, smp.build),
    "smp.MAnet": Network(SLICES, "U-Net with attention over positions and channels", _DECODER, smp.build),
    "smp.Linknet": Network(
        SLICES, "U-Net whose skips are added", "nothing: widths are the encoder's", smp.build, takes_filters=False
    ),
    "smp.FPN": Network(SLICES, "feature pyramid", f"{_OF_32}; up to a multiple of 8", smp.build),
    "smp.PSPNet": Network(SLICES, "pooled pyramid on a map of 1/8", _OF_32, smp.build),
    "smp.PAN": Network(SLICES, "attention over a pyramid; from 128 pixels on", _OF_32, smp.build),
    "smp.DeepLabV3": Network(SLICES, "dilated convolutions on a map of 1/8", _OF_32, smp.build),
    "smp.DeepLabV3Plus": Network(SLICES, "dilated convolutions on a map of 1/16, a skip", _OF_32, smp.build),
    "smp.UPerNet": Network(SLICES, "pooled pyramid and feature pyramid", _OF_32, smp.build),
    "smp.Segformer": Network(SLICES, "one linear layer on all of the encoder's maps", _OF_32, smp.build),
    "smp.DPT": Network(SLICES, _DPT, _OF_32, smp.build),
    "monai.AttentionUnet": Network(BOTH, "U-Net with gates of attention; strides are planned", _LEVELS, monai.build),
    "monai.DynUNet": Network(BOTH, "nnU-Net's; kernels and strides are planned", _LEVELS, monai.build),
    "monai.UNETR": Network(
        BOTH, "transformer on patches of 16", "all widths; 16 gives the published ones", monai.build
    ),
    "monai.SwinUNETR": Network(BOTH, "transformer in shifted windows", _SWIN, monai.build),
}
"""Networks by name; any other is `MODULE:FUNCTION` of the user's own, see `nacl.models.build_model`."""
