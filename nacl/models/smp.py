"""The networks of segmentation-models-pytorch (smp), each an encoder by name with a decoder; for slices."""

import difflib
import warnings
from collections.abc import Callable
from types import ModuleType

from torch import nn

from nacl._checks import expectation
from nacl.models._options import Options
from nacl.models.levels import check_multiples

WIDTHS: dict[str, Callable[[int], dict[str, object]]] = {
    "Unet": lambda filters: {"decoder_channels": _halving(filters)},
    "UnetPlusPlus": lambda filters: {"decoder_channels": _halving(filters)},
    "MAnet": lambda filters: {"decoder_channels": _halving(filters)},
    "Linknet": lambda filters: {},
    # from here on 32 filters are smp's own widths
    # FPN normalises 32 groups of its channels
    "FPN": lambda filters: {
        "decoder_pyramid_channels": 8 * filters,
        "decoder_segmentation_channels": 32 * -(-filters // 8),
    },
    "PSPNet": lambda filters: {"psp_out_channels": 16 * filters},
    "PAN": lambda filters: {"decoder_channels": filters},
    "DeepLabV3": lambda filters: {"decoder_channels": 8 * filters},
    "DeepLabV3Plus": lambda filters: {"decoder_channels": 8 * filters},
    "UPerNet": lambda filters: {"decoder_channels": 8 * filters},
    "Segformer": lambda filters: {"decoder_segmentation_channels": 8 * filters},
    "DPT": lambda filters: {
        "decoder_fusion_channels": 8 * filters,
        "decoder_intermediate_channels": [8 * filters, 16 * filters, 32 * filters, 32 * filters],
    },
}
"""What `filters` sets of each architecture: the width of its decoder (`Linknet`'s follows from its encoder)."""

LEAST = {"PAN": 128}
"""Pixels that an architecture needs along each axis: PAN pools a map of 1/16 of the image three times."""

DPT_ENCODER = "tu-vit_tiny_patch16_224"
"""The smallest vision transformer of timm that DPT takes."""


def build(name: str, options: Options) -> nn.Module:
    """The network of smp called `name`, such as "smp.FPN"."""
    smp = _smp()
    architecture = name.removeprefix("smp.")
    _check_encoder(name, options.encoder)
    settings = WIDTHS[architecture](options.filters)
    if architecture == "DPT":
        settings["dynamic_img_size"] = True  # else only of the size that the encoder was trained at
    try:
        network = getattr(smp, architecture)(
            encoder_name=options.encoder,
            encoder_weights=_weights(options),
            in_channels=options.in_channels,
            classes=options.num_classes,
            **settings,
        )
    except OSError as error:
        raise OSError(_unreachable(options, error)) from error
    except (ValueError, TypeError, RuntimeError, AttributeError, IndexError, NotImplementedError) as error:
        rule = f"that {name} takes" + ("" if options.weights == "none" else f", with weights {options.weights!r}")
        raise ValueError(expectation("encoder", rule, repr(options.encoder), _first_line(error))) from error
    stride = network.encoder.output_stride if network.requires_divisible_input_shape else 1
    check_multiples(options.patch, (stride, stride), name, least=LEAST.get(architecture, 1))
    return network


def _smp() -> ModuleType:
    """The package, slow to import and in the extra `train`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of torch, about what timm imports from it
        import segmentation_models_pytorch
    return segmentation_models_pytorch


def _halving(filters: int) -> list[int]:
    return [filters * 2**level for level in reversed(range(5))]


def _check_encoder(name: str, encoder: str) -> None:
    if name == "smp.DPT" and not encoder.startswith("tu-"):
        remedy = f"Try {DPT_ENCODER!r}"
        raise ValueError(
            expectation("encoder", "to be a vision transformer of timm for DPT", repr(encoder), "", remedy)
        )
    known = names = _smp().encoders.get_encoder_names()
    if encoder.startswith("tu-"):
        from timm import is_model, list_models

        if is_model(encoder.removeprefix("tu-")):
            return
        known = [f"tu-{model}" for model in list_models()]
    if encoder in known:
        return
    near = difflib.get_close_matches(encoder, known, n=3, cutoff=0.5)
    remedy = f"Did you mean {' or '.join(map(repr, near))}?" if near else "See the pages of smp and timm for the names."
    rule = f"to be one of smp's {len(names)} encoders, or tu-NAME of timm"
    raise ValueError(f"{expectation('encoder', rule, repr(encoder))} {remedy}")


def _weights(options: Options) -> str | bool | None:
    """What smp is told: None for random weights, True for those of a timm model, whose name says which."""
    if options.weights == "none":
        return None
    if options.encoder.startswith("tu-"):
        return True
    known = _smp().encoders.encoders[options.encoder]["pretrained_settings"]
    if options.weights not in known:
        rule = f"that smp has for {options.encoder!r}: {', '.join(map(repr, ['none', *known]))}"
        raise ValueError(expectation("weights", rule, repr(options.weights)))
    return options.weights


def _unreachable(options: Options, error: OSError) -> str:
    encoder, weights = options.encoder, options.weights
    remedy = "Use weights='none' for random ones, or build this network once where there is a network"
    return expectation(
        "weights",
        "that are on this machine or can be downloaded from huggingface.co",
        f"none for {weights!r} of {encoder!r}",
        f"the network could not be reached, or does not have them: {_first_line(error)}",
        f"{remedy}, and copy its cache ($HF_HOME, else ~/.cache/huggingface) here",
    )


def _first_line(error: Exception) -> str:
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0].rstrip(".")
