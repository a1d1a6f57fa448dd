"""In segmentation-models-pytorch: its networks and losses with ours, its ignored label, and its binary mode."""

import warnings

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from nacl.data import stack_slices
from nacl.losses import CombinedLoss, CrossEntropyLoss, MbLSLoss, NACLLoss, SVLSLoss
from nacl.metrics import BrierScore, CalibrationError

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # its imports
    smp = pytest.importorskip("segmentation_models_pytorch")

LOSSES = {
    "nacl": lambda: NACLLoss(penalty_weight=0.01),
    "svls": lambda: SVLSLoss(),
    "mbls": lambda: MbLSLoss(),
    "nacl and smp's dice": lambda: CombinedLoss(NACLLoss(penalty_weight=0.01), smp.losses.DiceLoss("multiclass")),
}


def network(name="Unet", classes=3, **options):
    torch.manual_seed(0)
    narrow = {"decoder_channels": (16, 8, 4), "encoder_depth": 3} if name == "Unet" else {}
    return smp.create_model(name, "resnet18", encoder_weights=None, in_channels=1, classes=classes, **narrow, **options)


@pytest.fixture(scope="module")
def batch(request):
    squares = request.getfixturevalue("squares")
    images, labels = stack_slices(squares.split("train"))
    return torch.as_tensor(images)[:8].float(), torch.as_tensor(labels)[:8].long()


def train(model, loss, images, labels, steps=10):
    optimiser = torch.optim.Adam(model.parameters(), 3e-3)
    values = []
    for _ in range(steps):
        optimiser.zero_grad()
        value = loss(model(images), labels)
        value.backward()
        optimiser.step()
        values.append(value.item())
    return values


@pytest.mark.parametrize("name", LOSSES)
def test_an_smp_network_learns_with_it(name, batch):
    values = train(network(), LOSSES[name](), *batch)
    assert np.isfinite(values).all()
    assert values[-1] < 0.8 * values[0]


@pytest.mark.parametrize("name", ["FPN", "DeepLabV3Plus", "Segformer"])
def test_other_networks_of_smp_too(name, batch):
    values = train(network(name).eval(), NACLLoss(penalty_weight=0.01), *batch, steps=3)  # eval: 1 pixel a channel
    assert values[-1] < values[0]


def test_masks_are_taken_in_any_integers_and_a_channel_axis_is_named(batch):
    images, labels = batch
    logits = network()(images).detach()
    loss = NACLLoss()
    assert torch.equal(loss(logits, labels), loss(logits, labels.to(torch.uint8)))
    with pytest.raises(ValueError, match=r"Call target\.squeeze\(1\)"):
        loss(logits, labels[:, None])


def test_the_sum_with_smps_dice_is_the_sum(batch):
    images, labels = batch
    logits = network()(images).detach()
    ours, theirs = NACLLoss(), smp.losses.DiceLoss("multiclass")
    both = CombinedLoss(ours, theirs, weights=(1.0, 0.5))
    assert both(logits, labels).item() == pytest.approx((ours(logits, labels) + 0.5 * theirs(logits, labels)).item())


def test_pixels_of_255_are_ignored_by_both(batch):
    images, labels = batch[0], batch[1].clone()
    labels[:, :8] = 255
    logits = network()(images).detach().requires_grad_()
    both = CombinedLoss(NACLLoss(ignore_index=255), smp.losses.DiceLoss("multiclass", ignore_index=255))
    both(logits, labels).backward()
    assert not logits.grad[:, :, :8].any()
    assert logits.grad[:, :, 8:].any()


def test_cross_entropy_is_averaged_over_the_pixels_that_count_where_smps_divides_by_all(batch):
    labels = batch[1].clone()
    labels[:, :8] = 255
    logits = network()(batch[0]).detach()
    share = (labels != 255).double().mean().item()
    ours = CrossEntropyLoss(ignore_index=255)(logits, labels).item()
    theirs = smp.losses.SoftCrossEntropyLoss(ignore_index=255, smooth_factor=0.0)(logits, labels).item()
    assert ours == pytest.approx(F.cross_entropy(logits, labels, ignore_index=255).item(), rel=1e-5)
    assert theirs == pytest.approx(share * ours, rel=1e-5)


def test_a_network_of_one_channel_is_refused_with_the_way_out(batch):
    images, labels = batch
    mask = (labels == 1).long()
    with torch.no_grad():
        one = network(classes=1)(images)
    with pytest.raises(ValueError, match=r"`logits` .* got \(8, 1, 32, 32\)\. A mask is 2 classes.*in smp, classes=2"):
        NACLLoss()(one, mask)
    with pytest.raises(ValueError, match=r"pass torch\.cat\(\[1 - probs, probs\], dim=1\)"):
        CalibrationError().update(one.sigmoid(), mask)


def test_two_classes_are_how_a_mask_is_learned(batch):
    images, labels = batch
    model = network(classes=2)
    values = train(model, NACLLoss(penalty_weight=0.01), images, (labels == 1).long())
    assert values[-1] < 0.8 * values[0]


def test_metrics_of_a_network_with_a_sigmoid(batch):
    """Both ways out agree with the definition."""
    images, labels = batch
    mask = (labels == 1).long()
    with torch.no_grad():
        logits = network(classes=1)(images)
    probs = logits.sigmoid()
    squares = 2 * (probs[:, 0].double() - mask).square().mean().item()
    found = BrierScore()
    found.update(torch.cat([1 - probs, probs], dim=1), mask)
    assert found.compute() == pytest.approx(squares, abs=1e-6)
    found = BrierScore(from_logits=True)
    found.update(torch.cat([torch.zeros_like(logits), logits], dim=1), mask)
    assert found.compute() == pytest.approx(squares, abs=1e-6)
