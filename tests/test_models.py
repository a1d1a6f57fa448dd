"""Networks by name: each is built, runs forward and backward, and says what it can't do."""

import subprocess
import sys
from itertools import pairwise

import pytest
import torch
from torch import nn

from nacl.models import MODELS, UNet, build_model, check_model, count_parameters, model_source, takes_filters

PATCHES = {2: (64, 64), 3: (16, 32, 32)}
SPECIAL = {
    ("smp.MAnet", 2): {"filters": 8},  # its squeezed channels are a 16th, and one may be dead
    ("smp.PAN", 2): {"patch": (128, 128)},
    ("smp.DPT", 2): {"encoder": "tu-vit_tiny_patch16_224"},
    ("monai.SwinUNETR", 3): {"patch": (32, 32, 64)},
}
ALL = [(name, axes) for name, network in MODELS.items() for axes in network.axes]
# parts that these networks build and do not ask in their forward pass
UNUSED = {"smp.PSPNet": ("encoder.layer3", "encoder.layer4"), "smp.DPT": ("encoder.model.norm", "encoder.model.head")}
UNUSED["monai.UNETR"] = tuple(f"vit.blocks.{block}.norm_cross_attn" for block in range(12))


def parameters(model):
    return sum(p.numel() for p in model.parameters())


def tiny(name, axes=2, *, channels=1, classes=3, seed=0, **keywords):
    """The network at two filters, and two images for it."""
    keywords = {"patch": PATCHES[axes], "filters": 2, **SPECIAL.get((name, axes), {}), **keywords}
    torch.manual_seed(seed)
    model = build_model(name, channels, classes, **keywords)
    return model, torch.randn(2, channels, *keywords["patch"])


@pytest.mark.parametrize(("name", "axes"), ALL)
def test_every_network_learns_from_images_of_its_size(name, axes):
    model, images = tiny(name, axes, channels=2)
    logits = model(images)
    assert logits.shape == (2, 3, *images.shape[2:])
    assert logits.isfinite().all()
    logits.square().sum().backward()
    used = {key: p for key, p in model.named_parameters() if not key.startswith(UNUSED.get(name, "-"))}
    assert all(p.grad is not None and p.grad.isfinite().all() for p in used.values())
    # a bias before a normalisation has no effect, so its gradient is zero
    assert all(p.grad.abs().sum() > 0 for key, p in used.items() if not key.endswith("bias"))
    assert all(p.grad is None for key, p in model.named_parameters() if key not in used)


@pytest.mark.parametrize("name", MODELS)
def test_seed_fixes_the_weights(name):
    states = [tiny(name, seed=seed)[0].state_dict() for seed in (0, 0, 1)]
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
    assert any(not torch.equal(states[0][key], states[2][key]) for key in states[0])


@pytest.mark.parametrize(("name", "axes"), ALL)
def test_parameters_are_counted_without_memory_for_them(name, axes):
    model, images = tiny(name, axes)
    keywords = {"filters": 2, **SPECIAL.get((name, axes), {}), "patch": images.shape[2:]}
    assert count_parameters(name, 1, 3, **keywords) == parameters(model)
    assert torch.zeros(1).device.type == "cpu"  # the meta device is left again


def test_filters_widen_every_network_but_linknet():
    for name, network in MODELS.items():
        keywords = [{**SPECIAL.get((name, 2), {}), "filters": filters} for filters in (16, 32)]
        narrow, wide = (count_parameters(name, 1, 3, **of_width) for of_width in keywords)
        assert (wide == narrow) == (name == "smp.Linknet") == (not takes_filters(name))
        assert network.filters


# names


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("Unet", "unet"),
        ("smp.unet", "smp.Unet"),
        ("DynUnet", "monai.DynUNet"),
        ("FPN", "smp.FPN"),
        ("smp.DeepLab3", "smp.DeepLabV3"),
    ],
)
def test_unknown_model_suggests_the_nearest(name, nearest):
    message = rf"Expected `model` to be one of .* got '{name}'\. Did you mean '{nearest}'"
    with pytest.raises(ValueError, match=message):
        build_model(name, 1, 2)
    with pytest.raises(ValueError, match=message):
        check_model(name, 2)


@pytest.mark.parametrize("name", [name for name, network in MODELS.items() if network.axes == (2,)])
def test_a_network_for_slices_is_refused_for_volumes_and_others_are_named(name):
    with pytest.raises(ValueError, match=rf"`model` for 3 axes: 'unet', 'monai.*got '{name}'.*depth=1"):
        check_model(name, 3)


def test_a_name_is_checked_without_importing_smp_or_monai():
    code = "import sys; from nacl.models import MODELS, check_model; [check_model(n, 2) for n in MODELS]; "
    code += "check_model('no.such:thing', 3); "
    code += "sys.exit(bool({'segmentation_models_pytorch', 'monai', 'timm', 'torchvision'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_named_networks_have_no_source_of_the_users():
    assert {model_source(name) for name in MODELS} == {""}
    with pytest.raises(ValueError, match="`model` to be one of"):
        model_source("nothing")


@pytest.mark.parametrize("argument", ["filters", "in_channels", "num_classes"])
@pytest.mark.parametrize(
    ("value", "error", "message"),
    [(0, ValueError, "of at least 1, got 0"), (1.5, TypeError, "integer, got 1.5"), (True, TypeError, "got True")],
)
def test_bad_number_is_named(argument, value, error, message):
    keywords = {"in_channels": 1, "num_classes": 2, "filters": 4, argument: value}
    with pytest.raises(error, match=f"`{argument}` .*{message}"):
        build_model("unet", **keywords)


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"patch": (64,)}, r"`patch` of 2 or 3 numbers, .*got \(64,\)"),
        ({"patch": (0, 64)}, "`patch` of at least 1, got 0"),
        ({"spacing": (1.0, 1.0, 1.0)}, r"`spacing` of 2 numbers, got \(1.0, 1.0, 1.0\) \(patch=\(128, 128\)\)"),
        ({"spacing": (1.0, 0.0)}, r"`spacing` in \(0, inf\), got 0.0"),
        ({"weights": "imagenet"}, r"`weights` 'none', got 'imagenet' \(model='unet'\)"),
        ({"patch": (64, 80)}, r"`patch` .*multiples of 32 x 32, got 64 x 80 \(model='unet'\)\. Use 64 x 64"),
        ({"patch": (8, 64, 16)}, r"`patch` .*multiples of 32 x 32, got 64 x 16 .*Use 64 x 32"),
    ],
)
def test_bad_grid_or_weights_are_named(keywords, message):
    with pytest.raises(ValueError, match=message):
        build_model("unet", 1, 2, filters=1, **keywords)


@pytest.mark.parametrize(
    ("name", "patch", "near"),
    [
        ("smp.PAN", (64, 64), "128 x 128"),
        ("smp.Segformer", (64, 65), "64 x 64"),
        ("smp.DPT", (64, 50), "64 x 48"),
        ("monai.UNETR", (8, 32, 32), "16 x 32 x 32"),
        ("monai.SwinUNETR", (32, 32), "64 x 64"),
        ("monai.SwinUNETR", (16, 64, 64), "32 x 64 x 64"),
    ],
)
def test_a_patch_that_a_network_does_not_take_is_refused_when_it_is_built(name, patch, near):
    keywords = {"filters": 2, **SPECIAL.get((name, 2), {}), "patch": patch}
    with pytest.raises(ValueError, match=rf"`patch` .*model='{name}'\)\. Use {near}"):
        build_model(name, 1, 2, **keywords)


@pytest.mark.parametrize("name", ["monai.DynUNet", "monai.AttentionUnet"])
def test_a_patch_that_can_not_be_halved_is_refused(name):
    with pytest.raises(ValueError, match=r"`patch` that can be halved . times, .*got \(7, 9\)"):
        build_model(name, 1, 2, patch=(7, 9))


# the paper's network, for slices


def test_unet_of_the_paper_has_7846180_parameters():
    assert parameters(build_model("unet", 1, 4)) == 7_846_180


@pytest.mark.parametrize(("channels", "classes", "filters"), [(1, 4, 32), (3, 2, 5)])
def test_parameters_of_the_unet_are_the_closed_form(channels, classes, filters):
    def convolution(a, b, width=3):
        return width * width * a * b + b

    widths = [filters * 2**level for level in range(5)]
    count = sum(convolution(a, b) + convolution(b, b) for a, b in zip([channels, *widths], widths, strict=False))
    count += sum(convolution(3 * a, a) + convolution(a, a) for a in widths[:-1])
    assert count_parameters("unet", channels, classes, filters=filters) == count + convolution(filters, classes, 1)


def test_unet_is_the_one_that_is_written_out_here():
    """Bit for bit: the same layers, drawn in the same order."""
    torch.manual_seed(0)
    model = build_model("unet", 1, 3, filters=4)
    torch.manual_seed(0)
    widths, pairs = [1, 4, 8, 16, 32, 64], []
    pairs += [(nn.Conv2d(a, b, 3, padding=1), nn.Conv2d(b, b, 3, padding=1)) for a, b in pairwise(widths)]
    pairs += [(nn.Conv2d(3 * a, a, 3, padding=1), nn.Conv2d(a, a, 3, padding=1)) for a in widths[1:-1]]
    head = nn.Conv2d(4, 3, 1)

    def block(pair, x):
        return pair[1](pair[0](x).relu()).relu()

    image = torch.randn(2, 1, 64, 32)
    with torch.no_grad():
        one = block(pairs[0], image)
        two = block(pairs[1], nn.functional.max_pool2d(one, 2))
        three = block(pairs[2], nn.functional.max_pool2d(two, 2))
        four = block(pairs[3], nn.functional.max_pool2d(three, 2))
        up = block(pairs[4], nn.functional.max_pool2d(four, 4))
        for index, (skip, factor) in enumerate([(four, 4), (three, 2), (two, 2), (one, 2)]):
            up = up.repeat_interleave(factor, 2).repeat_interleave(factor, 3)
            up = block(pairs[8 - index], torch.cat([up, skip], dim=1))
        assert torch.equal(model(image), head(up))


@pytest.mark.parametrize("size", [(32, 32), (64, 32), (32, 96)])
def test_unet_gives_logits_of_the_size_of_the_image(size):
    assert UNet(3, 2, filters=2)(torch.zeros(2, 3, *size)).shape == (2, 2, *size)


def test_unet_treats_the_images_of_a_batch_alone():
    model, images = UNet(1, 3, filters=2), torch.randn(3, 1, 32, 32)
    torch.testing.assert_close(model(images)[1:2], model(images[1:2]))


@pytest.mark.parametrize("size", [(33, 32), (32, 48), (16, 16)])
def test_size_that_does_not_halve_is_refused(size):
    shape = rf"\(1, 1, {size[0]}, {size[1]}\)"
    message = f"Expected `image` with height and width multiples of 32, got {shape}. Resize or pad to multiples of 32"
    with pytest.raises(ValueError, match=message):
        UNet(1, 2, filters=1)(torch.zeros(1, 1, *size))


def test_a_volume_is_refused_by_the_network_for_slices():
    with pytest.raises(ValueError, match=r"`image` of shape \(N, C, H, W\), got \(1, 1, 4, 32, 32\)"):
        UNet(1, 2, filters=1)(torch.zeros(1, 1, 4, 32, 32))
