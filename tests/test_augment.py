"""Augmentation: exact where it can be, image and label always together, nothing invented, and seeded."""

import math
from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from conftest import square_case
from hypothesis import given
from hypothesis import strategies as st
from oracles import light
from torch import nn

from nacl.data.augment import Augmentation, flipped, toned, turned
from nacl.losses import CrossEntropyLoss
from nacl.training import fit

NOTHING = Augmentation(flip=0, rotation=0, scale=0, gamma=0, contrast=0, brightness=0)
RANGES = [field.name for field in fields(Augmentation)]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random_batch(batch=4, channels=2, height=12, width=10, *, seed=0, dtype=torch.uint8):
    generator = seeded(seed)
    images = torch.rand(batch, channels, height, width, generator=generator)
    return images, torch.randint(0, 4, (batch, height, width), generator=generator, dtype=dtype)


def blob(size=64, *, radius=14.0, x=6.0, y=-8.0, batch=1):
    """A bright disc off the centre of a dark slice, and its label."""
    centre = torch.arange(size) - (size - 1) / 2
    label = (torch.hypot(centre[None, :] - x, centre[:, None] - y) < radius).to(torch.uint8)
    label = label.expand(batch, size, size).clone()
    return label.float()[:, None], label


def angles(*degrees: float) -> torch.Tensor:
    return torch.tensor([math.radians(value) for value in degrees])


# What stays


@pytest.mark.parametrize("channels", [1, 4])
@pytest.mark.parametrize("batch", [1, 3])
def test_ranges_of_nothing_change_nothing(batch, channels):
    images, labels = random_batch(batch, channels)
    found = NOTHING(images, labels, seeded())
    assert torch.equal(found[0], images)
    assert torch.equal(found[1], labels)


@pytest.mark.parametrize("name", RANGES)
def test_each_range_does_something_and_only_geometry_moves_labels(name):
    images, labels = random_batch()
    augment = replace(NOTHING, **{name: 1.0 if name != "rotation" else 30.0})
    changed, moved = augment(images, labels, seeded())
    assert not torch.equal(changed, images)
    assert torch.equal(moved, labels) == (name in ("gamma", "contrast", "brightness"))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("label_dtype", [torch.uint8, torch.int64])
@pytest.mark.parametrize("channels", [1, 4])
def test_shapes_and_dtypes_stay_and_the_arguments_too(dtype, label_dtype, channels):
    images, labels = random_batch(1, channels, dtype=label_dtype)
    images = images.to(dtype)
    before = images.clone(), labels.clone()
    changed, moved = Augmentation()(images, labels, seeded())
    assert (changed.shape, changed.dtype) == (images.shape, dtype)
    assert (moved.shape, moved.dtype) == (labels.shape, label_dtype)
    assert torch.equal(images, before[0])
    assert torch.equal(labels, before[1])


@given(st.integers(0, 2**32), st.integers(1, 9), st.integers(1, 9))
@light
def test_labels_are_of_those_that_were_there_and_intensities_in_their_range(seed, height, width):
    images, labels = random_batch(3, 2, height, width, seed=seed)
    most = Augmentation(flip=0.5, rotation=180, scale=2, gamma=2, contrast=3, brightness=3)
    changed, moved = most(images, labels, seeded(seed))
    assert torch.isfinite(changed).all()
    assert 0 <= changed.min() <= changed.max() <= 1
    for before, after in zip(labels, moved, strict=True):
        assert set(after.unique().tolist()) <= set(before.unique().tolist())


def test_an_ignored_label_stays_itself():
    images, labels = random_batch(dtype=torch.int64)
    labels[:, :3] = -100
    _, moved = Augmentation()(images, labels, seeded())
    assert set(moved.unique().tolist()) == {-100, 0, 1, 2, 3}


# Flips


@pytest.mark.parametrize(("reverse", "axes"), [((1, 0), [-2]), ((0, 1), [-1]), ((1, 1), [-2, -1]), ((0, 0), [])])
def test_flips_are_those_of_torch(reverse, axes):
    images, labels = random_batch()
    chosen = torch.zeros(4, 2, dtype=torch.bool)
    chosen[2] = torch.tensor(reverse)
    changed, moved = flipped(images, labels, chosen)
    assert torch.equal(changed[2], images[2].flip(axes))
    assert torch.equal(moved[2], labels[2].flip(axes))
    for other in (0, 1, 3):
        assert torch.equal(changed[other], images[other])


def test_each_axis_is_reversed_with_its_probability():
    images = torch.tensor([[[[0.0, 1.0], [2.0, 3.0]]]]).expand(4000, 1, 2, 2) / 3
    labels = torch.zeros(4000, 2, 2, dtype=torch.uint8)
    changed, _ = replace(NOTHING, flip=0.3)(images, labels, seeded())
    corner = (changed[:, 0, 0, 0] * 3).round()
    shares = [(corner == value).float().mean().item() for value in range(4)]
    assert shares == pytest.approx([0.49, 0.21, 0.21, 0.09], abs=4 * math.sqrt(0.25 / 4000))


# Turns and sizes


@pytest.mark.parametrize("quarters", [-1, 1, 2, 3])
def test_quarter_turns_are_those_of_torch(quarters):
    images, labels = random_batch(height=11, width=11)
    changed, moved = turned(images, labels, angles(*[90.0 * quarters] * 4), torch.ones(4))
    torch.testing.assert_close(changed, images.rot90(quarters, (-2, -1)), atol=1e-5, rtol=0)
    assert torch.equal(moved, labels.rot90(quarters, (-2, -1)))


def test_a_slice_that_is_not_square_is_not_sheared():
    """Half a turn reverses both axes; a quarter turn of the square in the middle is that square's."""
    images, labels = random_batch(height=8, width=14)
    changed, moved = turned(images, labels, angles(180, 90, 90, 90), torch.ones(4))
    torch.testing.assert_close(changed[0], images[0].flip(-2, -1), atol=1e-5, rtol=0)
    assert torch.equal(moved[1, :, 3:11], labels[1, :, 3:11].rot90(1))


def test_each_slice_of_a_batch_is_turned_by_its_own_angle_and_factor():
    images, labels = blob(batch=3)
    by, factor = angles(0, 30, -70), torch.tensor([1.0, 1.3, 0.8])
    together = turned(images, labels, by, factor)
    for row in range(3):
        alone = turned(images[row : row + 1], labels[row : row + 1], by[row : row + 1], factor[row : row + 1])
        assert torch.equal(together[1][row], alone[1][0])
        torch.testing.assert_close(together[0][row], alone[0][0])


@pytest.mark.parametrize("factor", [0.7, 1.0, 1.25, 1.4])
def test_areas_grow_as_the_square_of_the_factor(factor):
    images, labels = blob(size=256, radius=25.0)
    _, moved = turned(images, labels, angles(10), torch.tensor([factor]))
    assert moved.sum().item() / labels.sum().item() == pytest.approx(factor**2, rel=0.02)


@pytest.mark.parametrize("degrees", [0.0, 33.0, -120.0])
@pytest.mark.parametrize("factor", [0.8, 1.25])
def test_a_point_goes_where_a_turn_and_a_factor_send_it(degrees, factor):
    """Anticlockwise as shown, with rows counted downwards: the blob's centre of mass by the formula."""
    images, labels = blob(size=192, radius=9.0, x=12.0, y=-5.0)
    _, moved = turned(images, labels, angles(degrees), torch.tensor([factor]))
    row, column = (where.double().mean().item() - 95.5 for where in torch.nonzero(moved[0], as_tuple=True))
    turn = complex(12.0, 5.0) * factor * np.exp(1j * math.radians(degrees))
    assert (column, -row) == pytest.approx((turn.real, turn.imag), abs=0.3)


def test_a_label_that_is_painted_into_the_image_stays_on_it():
    images, labels = blob(size=96, radius=20.0, batch=16)
    images = 0.2 + 0.6 * images
    augment = Augmentation(rotation=180, scale=0.5)
    changed, moved = augment(images, labels, seeded())
    middle = (changed.amax(dim=(-2, -1), keepdim=True) + changed.amin(dim=(-2, -1), keepdim=True)) / 2
    seen = (changed > middle)[:, 0]
    disagree = (seen != moved.bool()).flatten(1).sum(dim=1)
    outline = 2 * math.pi * 20 * 1.5
    assert (disagree < 0.2 * outline).all()
    assert (moved != labels).flatten(1).any(dim=1).all()


def test_what_comes_in_from_beyond_the_edge_is_the_mirror_image():
    """A third of the size: every third pixel from the middle, 5, 8, 11, 14, where 8 and more are 15 minus them."""
    labels = torch.arange(8, dtype=torch.uint8).expand(1, 8, 8)
    changed, moved = turned(labels[:, None] / 7, labels, angles(0), torch.tensor([1 / 3]))
    assert moved[0, 0].tolist() == [6, 3, 0, 2, 5, 7, 4, 1]
    torch.testing.assert_close(changed[0, 0] * 7, moved[0].float(), atol=1e-4, rtol=0)


# Intensities


def one(value: float) -> torch.Tensor:
    return torch.tensor(value).view(1, 1, 1, 1)


def test_intensities_follow_their_formula():
    x = torch.tensor([[[[0.0, 0.25, 0.5, 0.81]]]])
    unit = one(1.0)
    torch.testing.assert_close(toned(x, one(0.5), unit, unit), x.sqrt())
    mean = x.mean()
    torch.testing.assert_close(toned(x, unit, one(0.5), unit), mean + 0.5 * (x - mean))
    torch.testing.assert_close(toned(x, unit, unit, one(1.5)), torch.tensor([[[[0.0, 0.375, 0.75, 1.0]]]]))
    every = (mean := x.square().mean()) + 1.2 * (x.square() - mean)
    torch.testing.assert_close(toned(x, one(2.0), one(1.2), one(0.9)), (0.9 * every).clamp(0, 1))
    dark = torch.cat([torch.cat([x, x / 2], dim=1), torch.cat([x / 3, x / 4], dim=1)])
    alone = [toned(part, unit, one(0.5), unit) for part in (x, x / 2, x / 3, x / 4)]
    torch.testing.assert_close(toned(dark, unit, one(0.5), unit), torch.cat(alone).view_as(dark))


def test_each_channel_has_its_own_tone_within_its_range():
    images = torch.full((500, 2, 2, 2), 0.5)
    changed, _ = replace(NOTHING, brightness=0.5)(images, torch.zeros(500, 2, 2, dtype=torch.uint8), seeded())
    factors = changed[:, :, 0, 0] / 0.5
    assert 1 / 1.5 <= factors.min() < 0.68
    assert 1.48 < factors.max() <= 1.5 + 1e-6
    assert factors.log().mean().item() == pytest.approx(0, abs=0.03)
    assert abs(torch.corrcoef(factors.T)[0, 1]) < 0.15


# Seeds


def test_the_generator_alone_decides():
    images, labels = random_batch()
    torch.manual_seed(1)
    before = torch.get_rng_state()
    found = [Augmentation()(images, labels, seeded(seed)) for seed in (5, 5, 6)]
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(a, b) for a, b in zip(found[0], found[1], strict=True))
    assert not torch.equal(found[0][0], found[2][0])


def test_one_range_does_not_move_the_draws_of_another():
    images, labels = random_batch()
    with_tone = Augmentation()(images, labels, seeded())
    without = replace(Augmentation(), gamma=0, contrast=0, brightness=0)(images, labels, seeded())
    assert torch.equal(with_tone[1], without[1])


def test_slices_of_a_batch_and_batches_in_turn_are_changed_differently():
    images, labels = blob(batch=3)
    generator = seeded()
    batches = [Augmentation()(images, labels, generator)[0] for _ in range(2)]
    flat = torch.cat(batches).flatten(1)
    assert len(flat.unique(dim=0)) == 6


# What is refused


@pytest.mark.parametrize("name", RANGES)
def test_ranges_out_of_theirs_are_named(name):
    for value, error in ((-0.1, ValueError), (math.nan, ValueError), (math.inf, ValueError), ("1", TypeError)):
        with pytest.raises(error, match=f"`{name}`"):
            Augmentation(**{name: value})
    if name in ("flip", "rotation"):
        with pytest.raises(ValueError, match=f"`{name}` in .*, got 181"):
            Augmentation(**{name: 181})


@pytest.mark.parametrize(
    ("images", "labels", "error", "message"),
    [
        (torch.zeros(2, 1, 4, 4, dtype=torch.uint8), torch.zeros(2, 4, 4).long(), TypeError, "`images`.*uint8"),
        (torch.zeros(2, 1, 4, 4), torch.zeros(2, 4, 4), TypeError, "`labels`.*float32"),
        (torch.zeros(2, 1, 4, 4), torch.zeros(2, 4, 4).bool(), TypeError, "`labels`.*bool"),
        (
            torch.zeros(2, 4, 4),
            torch.zeros(2, 4, 4).long(),
            ValueError,
            r"`images` of shape \(B, M, H, W\) or .*, got \(2,",
        ),
        (
            torch.zeros(2, 1, 4, 4),
            torch.zeros(2, 4, 5).long(),
            ValueError,
            r"`labels` of shape \(2, 4, 4\), got \(2, 4, 5",
        ),
        (
            torch.zeros(2, 1, 4, 4),
            torch.zeros(2, 4, 4, device="meta").long(),
            ValueError,
            "`labels`.*device.*cpu.*meta",
        ),
    ],
)
def test_what_does_not_fit_is_named(images, labels, error, message):
    with pytest.raises(error, match=message):
        Augmentation()(images, labels, seeded())


# In training


CASES = [square_case(f"t{index}", "train") for index in range(2)]


def trained(augment, *, seed=0, epochs=2, checkpoint=None, stop=None):
    torch.manual_seed(0)
    model = nn.Conv2d(1, 3, 3, padding=1)

    def on_epoch(history):
        if len(history) == stop:
            raise KeyboardInterrupt

    options = {"epochs": epochs, "batch_size": 3, "device": "cpu", "checkpoint": checkpoint, "on_epoch": on_epoch}
    history = fit(model, CrossEntropyLoss(), CASES, CASES[:1], 3, seed=seed, augment=augment, **options)
    return [row["loss"] for row in history]


def test_a_training_is_changed_by_it_the_same_in_every_run_and_otherwise_by_other_seeds():
    plain, augmented = trained(None), trained(Augmentation())
    assert plain != augmented
    assert augmented == trained(Augmentation())
    assert augmented != trained(Augmentation(), seed=1)
    assert plain == trained(NOTHING), "the order of slices and the weights are as without"


def test_an_augmented_training_that_was_stopped_goes_on_to_the_same_numbers(tmp_path):
    checkpoint = tmp_path / "checkpoint.safetensors"
    expected = trained(Augmentation(), epochs=3)
    with pytest.raises(KeyboardInterrupt):
        trained(Augmentation(), epochs=3, checkpoint=checkpoint, stop=1)
    assert trained(Augmentation(), epochs=3, checkpoint=checkpoint) == expected


class Reader(CrossEntropyLoss):
    """Cross-entropy that keeps what it is given."""

    reads_image = True

    def __init__(self) -> None:
        super().__init__()
        self.seen = []

    def forward(self, logits, target, *, image):
        self.seen.append((image.clone(), target.clone()))
        return super().forward(logits, target)


def test_every_seed_epoch_and_step_has_its_own_draws():
    """With one slice, repeated: their order is the same for every seed."""
    case = square_case("only", "train", slices=1)
    case, seen = replace(case, image=case.image.repeat(2, axis=1), label=case.label.repeat(2, axis=0)), []
    for seed in (0, 1):
        loss, model = Reader(), nn.Conv2d(1, 3, 1)
        fit(model, loss, [case], [], 3, epochs=2, batch_size=1, seed=seed, device="cpu", augment=Augmentation())
        seen += [image for image, _ in loss.seen]
    assert len(torch.cat(seen).flatten(1).unique(dim=0)) == 2 * 2 * 2


def test_a_loss_that_reads_the_image_is_given_the_changed_one():
    loss, augment = Reader(), replace(NOTHING, flip=1)
    fit(nn.Conv2d(1, 3, 1), loss, CASES[:1], [], 3, epochs=1, batch_size=4, device="cpu", augment=augment)
    ((image, target),) = loss.seen
    expected = {CASES[0].image[0, plane, ::-1, ::-1].tobytes() for plane in range(4)}
    assert {np.ascontiguousarray(x[0]).tobytes() for x in image} == expected
    assert set(target.unique().tolist()) == {0, 1, 2}


def test_the_defaults_go_half_as_far_as_the_ranges_that_the_docstring_names():
    """Half as far on the logarithmic scale on which factors are drawn."""
    most = {"scale": 1.4, "gamma": 1.5, "contrast": 1.25, "brightness": 1.25}
    for name, value in most.items():
        assert f"{value}]" in Augmentation.__doc__
        assert 1 + getattr(Augmentation(), name) == pytest.approx(math.sqrt(value), abs=0.03)
    assert Augmentation().rotation == 30 / 2


@pytest.mark.parametrize("value", [-0.01, 1.01, math.nan])
def test_images_beyond_their_range_are_refused_and_rounding_is_not(value):
    images, labels = random_batch()
    images[1, 0, 3, 3] = value
    with pytest.raises(ValueError, match=r"`images` values in \[0, 1\], got \["):
        Augmentation()(images, labels, seeded())
    images[1, 0, 3, 3] = -1e-7 if value < 0 else 1 + 1e-7
    changed, _ = replace(NOTHING, gamma=0.2)(images, labels, seeded())
    assert 0 <= changed.min() <= changed.max() <= 1


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine")
def test_on_a_gpu_it_waits_for_nothing_and_does_as_on_the_cpu():
    images, labels = random_batch(8, 2, 32, 32)
    on_gpu, augment = (images.cuda(), labels.cuda()), Augmentation()
    augment(*on_gpu, seeded())
    torch.cuda.set_sync_debug_mode("error")
    try:
        changed, moved = augment(*on_gpu, seeded())
    finally:
        torch.cuda.set_sync_debug_mode("default")
    expected = augment(images, labels, seeded())
    torch.testing.assert_close(changed.cpu(), expected[0], atol=1e-4, rtol=0)
    assert (moved.cpu() != expected[1]).float().mean() < 1e-3
