"""Networks by name."""

import pytest
import torch

from nacl.models import UNet, build_model


def parameters(model):
    return sum(p.numel() for p in model.parameters())


def test_unet_of_the_paper_has_7846180_parameters():
    assert parameters(build_model("unet", 1, 4)) == 7_846_180


@pytest.mark.parametrize("size", [(32, 32), (64, 32), (32, 96)])
@pytest.mark.parametrize(("in_channels", "num_classes"), [(1, 4), (3, 2)])
def test_unet_gives_logits_of_the_size_of_the_image(in_channels, num_classes, size):
    model = build_model("unet", in_channels, num_classes, filters=2)
    assert model(torch.zeros(2, in_channels, *size)).shape == (2, num_classes, *size)


def test_every_parameter_of_the_unet_gets_a_gradient():
    torch.manual_seed(0)
    model = UNet(1, 3, filters=4)
    model(torch.randn(2, 1, 64, 64)).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())


def test_unet_treats_the_images_of_a_batch_alone():
    model, images = UNet(1, 3, filters=2), torch.randn(3, 1, 32, 32)
    torch.testing.assert_close(model(images)[1:2], model(images[1:2]))


def test_seed_fixes_the_weights():
    states = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        states.append(build_model("unet", 1, 2, filters=2).head.weight)
    assert torch.equal(states[0], states[1])
    assert not torch.equal(states[0], states[2])


@pytest.mark.parametrize("size", [(33, 32), (32, 48), (16, 16)])
def test_size_that_does_not_halve_is_refused(size):
    shape = rf"\(1, 1, {size[0]}, {size[1]}\)"
    message = f"Expected `image` with height and width multiples of 32, got {shape}. Resize or pad to multiples of 32"
    with pytest.raises(ValueError, match=message):
        UNet(1, 2, filters=1)(torch.zeros(1, 1, *size))


@pytest.mark.parametrize(("name", "nearest"), [("Unet", "unet"), ("smp.unet", "smp.Unet")])
def test_unknown_model_suggests_the_nearest(name, nearest):
    with pytest.raises(ValueError, match=rf"Expected `model` to be one of .* got '{name}'\. Did you mean '{nearest}'"):
        build_model(name, 1, 2)


@pytest.mark.parametrize("name", ["unet", "smp.Unet"])
@pytest.mark.parametrize(
    ("filters", "error", "message"),
    [
        (0, ValueError, "`filters` of at least 1, got 0"),
        (1.5, TypeError, "`filters` to be an integer, got 1.5"),
        (True, TypeError, "`filters` to be an integer, got True"),
    ],
)
def test_bad_width_is_named(name, filters, error, message):
    with pytest.raises(error, match=message):
        build_model(name, 1, 2, filters=filters)


def test_smp_unet_gives_logits_of_the_size_of_the_image():
    model = build_model("smp.Unet", 1, 3, filters=2).eval()
    with torch.no_grad():
        assert model(torch.zeros(1, 1, 64, 32)).shape == (1, 3, 64, 32)
