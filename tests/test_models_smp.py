"""Networks of smp: all of them, encoders by name, and weights that are there or not."""

import inspect
import json
import warnings

import pytest
import torch
from safetensors.torch import save_file

from nacl.models import MODELS, build_model, count_parameters
from nacl.models.smp import WIDTHS

with warnings.catch_warnings():
    warnings.simplefilter("ignore", FutureWarning)  # of torch, about what timm imports from it
    smp = pytest.importorskip("segmentation_models_pytorch")
RESNET18 = smp.encoders.encoders["resnet18"]["pretrained_settings"]["imagenet"]


def test_every_architecture_of_smp_that_takes_classes_is_there():
    takes = {name for name, value in vars(smp).items() if inspect.isclass(value)}
    takes = {name for name in takes if "classes" in inspect.signature(getattr(smp, name)).parameters}
    assert set(WIDTHS) == takes
    assert {name.removeprefix("smp.") for name in MODELS if name.startswith("smp.")} == takes


def test_smp_unet_is_what_smp_builds_with_these_widths():
    torch.manual_seed(0)
    mine = build_model("smp.Unet", 1, 3, filters=4).state_dict()
    torch.manual_seed(0)
    theirs = smp.Unet("resnet18", encoder_weights=None, decoder_channels=(64, 32, 16, 8, 4), in_channels=1, classes=3)
    assert list(mine) == list(theirs.state_dict())
    assert all(torch.equal(tensor, mine[name]) for name, tensor in theirs.state_dict().items())


@pytest.mark.parametrize("name", WIDTHS)
def test_filters_of_16_or_32_give_smps_own_widths(name):
    filters = 16 if name in ("Unet", "UnetPlusPlus", "MAnet") else 32
    encoder = "tu-vit_tiny_patch16_224" if name == "DPT" else "resnet18"
    theirs = getattr(smp, name)(encoder, encoder_weights=None, in_channels=1, classes=4)
    count = sum(parameter.numel() for parameter in theirs.parameters())
    keywords = {"encoder": encoder, "filters": filters}
    assert count_parameters(f"smp.{name}", 1, 4, **keywords) == count


@pytest.mark.parametrize("encoder", ["mobilenet_v2", "tu-resnet10t"])
def test_encoders_are_taken_by_name(encoder):
    images = torch.zeros(2, 3, 64, 64)
    assert build_model("smp.FPN", 3, 2, filters=2, encoder=encoder)(images).shape == (2, 2, 64, 64)


@pytest.mark.parametrize(
    ("name", "encoder", "message"),
    [
        (
            "smp.Unet",
            "resnet-18",
            r"`encoder` to be one of smp's \d+ encoders, .*'resnet-18'\. Did you mean 'resnet18'",
        ),
        ("smp.Unet", "tu-resnet_18", r"got 'tu-resnet_18'\. Did you mean .*'tu-resnet18'"),
        ("smp.FPN", "???", r"got '\?\?\?'\. See the pages of smp and timm"),
        ("smp.DPT", "resnet18", r"vision transformer of timm for DPT, got 'resnet18'\. Try 'tu-vit_tiny_patch16_224'"),
        ("smp.DPT", "tu-resnet18", r"`encoder` that smp.DPT takes, got 'tu-resnet18' \("),
        ("smp.UnetPlusPlus", "mit_b0", r"`encoder` that smp.UnetPlusPlus takes, got 'mit_b0' \("),
    ],
)
def test_an_encoder_that_is_unknown_or_does_not_fit_is_refused(name, encoder, message):
    with pytest.raises(ValueError, match=message):
        build_model(name, 1, 2, filters=2, encoder=encoder)


def test_unknown_weights_are_refused_and_the_known_named():
    message = r"`weights` that smp has for 'resnet18': 'none', 'imagenet'.*, got 'imagenot'"
    with pytest.raises(ValueError, match=message):
        build_model("smp.Unet", 1, 2, filters=2, weights="imagenot")


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """The hub's cache in an empty folder, on a machine without network."""
    constants = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize("encoder", ["resnet18", "tu-resnet18"])
def test_weights_that_can_not_be_had_are_named_with_what_to_do(cache, encoder):
    message = rf"`weights` .*got none for 'imagenet' of '{encoder}' \(the network could not be reached, .*\)\. .*'none'"
    with pytest.raises(OSError, match=message):
        build_model("smp.Unet", 1, 2, filters=2, encoder=encoder, weights="imagenet")


def test_weights_that_were_downloaded_before_are_taken_without_a_network(cache):
    torch.manual_seed(7)
    stored = smp.encoders.get_encoder("resnet18", weights=None).state_dict()
    folder = cache / f"models--{RESNET18['repo_id'].replace('/', '--')}" / "snapshots" / RESNET18["revision"]
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({}))
    save_file({name: tensor.contiguous() for name, tensor in stored.items()}, folder / "model.safetensors")
    encoder = build_model("smp.Unet", 3, 2, filters=2, weights="imagenet").encoder.state_dict()
    assert all(torch.equal(encoder[name], tensor) for name, tensor in stored.items())


def test_a_batch_of_one_is_refused_by_batch_normalisation_where_one_pixel_is_left():
    model = build_model("smp.DeepLabV3", 1, 2, filters=2, patch=(64, 64))
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        model(torch.zeros(1, 1, 64, 64))
    assert model.eval()(torch.zeros(1, 1, 64, 64)).shape == (1, 2, 64, 64)
