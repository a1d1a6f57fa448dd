"""Augmentation of 3D patches: each slice as in 2D, all of a patch alike, none mixed, and nothing from beyond."""

import math
from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from oracles import light

from nacl.data import Case
from nacl.data.augment import Augmentation, flipped, toned, turned
from nacl.data.patches import BEYOND, patches_of

NOTHING = Augmentation(flip=0, rotation=0, scale=0, gamma=0, contrast=0, brightness=0)
RANGES = [field.name for field in fields(Augmentation)]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random_patches(batch=3, channels=2, depth=5, height=12, width=10, *, seed=0, dtype=torch.int64):
    generator = seeded(seed)
    images = torch.rand(batch, channels, depth, height, width, generator=generator)
    return images, torch.randint(0, 4, (batch, depth, height, width), generator=generator, dtype=dtype)


def padded_patches(**sizes):
    """Of the first patch the outer slices lie beyond the volume, of the second a frame; the third lies within."""
    images, labels = random_patches(**sizes)
    labels[0, 0] = labels[0, -1] = BEYOND
    labels[1, :, :2] = labels[1, :, -2:] = labels[1, ..., :3] = BEYOND
    return images * (labels != BEYOND)[:, None], labels


# What stays


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64])
@pytest.mark.parametrize("channels", [1, 4])
def test_ranges_of_nothing_change_nothing(channels, dtype):
    images, labels = random_patches(1, channels, dtype=dtype)
    found = NOTHING(images, labels, seeded())
    assert torch.equal(found[0], images)
    assert torch.equal(found[1], labels)


@pytest.mark.parametrize("name", RANGES)
def test_each_range_does_something_and_only_geometry_moves_labels(name):
    images, labels = random_patches()
    augment = replace(NOTHING, **{name: 1.0 if name != "rotation" else 30.0})
    changed, moved = augment(images, labels, seeded())
    assert not torch.equal(changed, images)
    assert torch.equal(moved, labels) == (name in ("gamma", "contrast", "brightness"))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("label_dtype", [torch.uint8, torch.int64])
def test_shapes_and_dtypes_stay_and_the_arguments_too(dtype, label_dtype):
    images, labels = random_patches(dtype=label_dtype)
    images = images.to(dtype)
    before = images.clone(), labels.clone()
    changed, moved = Augmentation()(images, labels, seeded())
    assert (changed.shape, changed.dtype) == (images.shape, dtype)
    assert (moved.shape, moved.dtype) == (labels.shape, label_dtype)
    assert torch.equal(images, before[0])
    assert torch.equal(labels, before[1])


def test_a_label_of_156_is_not_one_of_minus_100():
    """They are equal in uint8."""
    images, labels = random_patches(dtype=torch.uint8)
    labels[:] = 156
    changed, moved = Augmentation()(images, labels, seeded())
    assert (moved == 156).all()
    assert (changed > 0).float().mean() > 0.9


@given(st.integers(0, 2**32), st.integers(1, 4), st.integers(1, 9), st.integers(1, 9))
@light
def test_labels_are_of_those_that_were_there_and_intensities_in_their_range(seed, depth, height, width):
    images, labels = random_patches(3, 2, depth, height, width, seed=seed)
    most = Augmentation(flip=0.5, rotation=180, scale=2, gamma=2, contrast=3, brightness=3)
    changed, moved = most(images, labels, seeded(seed))
    assert torch.isfinite(changed).all()
    assert 0 <= changed.min() <= changed.max() <= 1
    for before, after in zip(labels, moved, strict=True):
        assert set(after.unique().tolist()) <= set(before.unique().tolist())


def test_slices_take_as_many_draws_as_before_patches_came_and_the_same_for_the_same():
    """Of 2D slices: rows, columns, angle, factor, then three tones a channel."""
    images = (torch.arange(4 * 2 * 12 * 10).view(4, 2, 12, 10) % 17) / 16
    labels = torch.arange(4 * 12 * 10).view(4, 12, 10) % 5
    generator = seeded(11)
    changed, moved = replace(NOTHING, flip=0.5, brightness=0.5)(images, labels, generator)
    after = torch.rand(3, generator=generator)
    twice = seeded(11)
    torch.rand(4, 4 + 3 * 2, generator=twice)
    assert torch.equal(after, torch.rand(3, generator=twice)), "as many draws"
    drawn = torch.rand(4, 4 + 3 * 2, generator=seeded(11))
    expected, wanted = images.clone(), labels.clone()
    for row in range(4):
        for axis in (0, 1):
            if drawn[row, axis] < 0.5:
                expected[row], wanted[row] = expected[row].flip(axis - 2), wanted[row].flip(axis - 2)
    factors = 1.5 ** (2 * drawn[:, 8:] - 1)
    assert torch.equal(moved, wanted)
    torch.testing.assert_close(changed, (expected * factors[..., None, None]).clamp(0, 1))


# Slices: alike, and never mixed


@pytest.mark.parametrize("height", [10, 16])
def test_each_slice_of_a_patch_is_turned_as_the_slice_alone(height):
    """To the bit: by the 2D function, with the numbers of its patch."""
    images, labels = random_patches(height=height, width=16)
    angle, factor = torch.tensor([0.3, -1.2, 0.0]), torch.tensor([1.2, 0.8, 1.0])
    changed, moved = turned(images, labels, angle, factor)
    for plane in range(images.shape[2]):
        alone = turned(images[:, :, plane], labels[:, plane], angle, factor)
        assert torch.equal(changed[:, :, plane], alone[0])
        assert torch.equal(moved[:, plane], alone[1])


def test_no_slice_is_mixed_with_its_neighbours():
    """Every slice has one intensity of its own; in the plane they stay even, whatever the turn."""
    depth = 6
    levels = torch.arange(depth) / 10
    images = levels.view(1, 1, depth, 1, 1).expand(8, 1, depth, 16, 16).contiguous()
    labels = torch.arange(depth).view(1, depth, 1, 1).expand(8, depth, 16, 16).contiguous()
    changed, moved = Augmentation(rotation=180, scale=0.5, gamma=0, contrast=0, brightness=0)(images, labels, seeded())
    torch.testing.assert_close(changed[:, 0], moved / 10, atol=1e-6, rtol=0)
    assert (moved == moved[..., :1, :1]).all()


def test_slices_of_a_patch_that_are_alike_stay_alike_and_patches_differ():
    images, labels = random_patches(6, 2, 1, 16, 16)
    images, labels = images.expand(6, 2, 4, 16, 16), labels.expand(6, 4, 16, 16)
    changed, moved = Augmentation()(images, labels, seeded())
    assert torch.equal(changed, changed[:, :, :1].expand_as(changed))
    assert torch.equal(moved, moved[:, :1].expand_as(moved))
    same = Augmentation()(images[:1].expand_as(images), labels[:1].expand_as(labels), seeded())[0]
    assert len(same.flatten(1).unique(dim=0)) == 6


def test_a_label_that_is_painted_into_the_image_stays_on_it():
    """A tube that leans: in each slice a disc at another place."""
    size, depth = 48, 5
    axis = torch.arange(size) - (size - 1) / 2
    planes = [torch.hypot(axis[None, :] - 2 * z, axis[:, None] + 3 * z) < 10 for z in range(-2, 3)]
    labels = torch.stack(planes).long().expand(8, depth, size, size).contiguous()
    images = 0.2 + 0.6 * labels[:, None].float()
    changed, moved = Augmentation(rotation=180, scale=0.3)(images, labels, seeded())
    middle = (changed.amax(dim=(-2, -1), keepdim=True) + changed.amin(dim=(-2, -1), keepdim=True)) / 2
    disagree = ((changed > middle)[:, 0] != moved.bool()).flatten(2).sum(dim=2)
    assert (disagree < 0.2 * 2 * math.pi * 10 * 1.3).all()


@pytest.mark.parametrize(
    ("reverse", "axes"), [((1, 0, 0), [-2]), ((0, 1, 0), [-1]), ((0, 0, 1), [-3]), ((1, 1, 1), [-3, -2, -1])]
)
def test_flips_are_those_of_torch(reverse, axes):
    images, labels = random_patches()
    chosen = torch.zeros(3, 3, dtype=torch.bool)
    chosen[1] = torch.tensor(reverse)
    changed, moved = flipped(images, labels, chosen)
    assert torch.equal(changed[1], images[1].flip(axes))
    assert torch.equal(moved[1], labels[1].flip(axes))
    for other in (0, 2):
        assert torch.equal(changed[other], images[other])
        assert torch.equal(moved[other], labels[other])


def test_each_of_the_three_axes_is_reversed_with_its_probability():
    images = (torch.arange(8.0).view(1, 1, 2, 2, 2) / 8).expand(4000, 1, 2, 2, 2)
    changed, _ = replace(NOTHING, flip=0.3)(images, torch.zeros(4000, 2, 2, 2).long(), seeded())
    corner = (changed[:, 0, 0, 0, 0] * 8).round()
    shares = [(corner == value).double().mean().item() for value in range(8)]
    expected = [0.7 ** (3 - value.bit_count()) * 0.3 ** value.bit_count() for value in range(8)]
    assert shares == pytest.approx(expected, abs=4 * math.sqrt(0.25 / 4000))


# Beyond the volume


@given(st.integers(0, 2**32))
@light
def test_beyond_the_volume_images_are_0_and_all_else_is_as_bright_as_it_was(seed):
    images, labels = padded_patches(height=16, width=16, seed=seed)
    images = torch.where(labels[:, None] == BEYOND, 0, 0.4 + 0.5 * images)
    changed, moved = Augmentation(rotation=90, scale=0.3)(images, labels, seeded(seed))
    assert (moved[0] == BEYOND).any()
    assert (moved[2] != BEYOND).all()
    assert (changed.masked_select((moved == BEYOND)[:, None]) == 0).all()
    assert changed[0].masked_select((moved[0] != BEYOND)[None]).min() > 0.2  # nothing of the slices beyond came in


def test_means_are_of_the_volume_and_not_of_what_lies_beyond():
    images, labels = padded_patches()
    inside = (labels != BEYOND)[:, None]
    unit, half = torch.ones(3, 2, 1, 1, 1), torch.full((3, 2, 1, 1, 1), 0.5)
    changed = toned(images, unit, half, unit, inside)
    for row in range(3):
        for channel in range(2):
            values = images[row, channel][inside[row, 0]]
            wanted = values.mean() + 0.5 * (values - values.mean())
            torch.testing.assert_close(changed[row, channel][inside[row, 0]], wanted)


def test_a_patch_is_toned_as_a_whole():
    """Where all lies within, a patch is as bright as a slice of all its slices side by side."""
    images, labels = random_patches(height=8, width=8)
    wide = images.movedim(2, 3).reshape(3, 2, 8, 40)
    numbers = [1 + 0.2 * torch.rand(3, 2, generator=seeded(part)) for part in range(3)]
    whole = toned(wide, *(number[..., None, None] for number in numbers))
    changed = toned(images, *(number[..., None, None, None] for number in numbers), (labels >= 0)[:, None])
    torch.testing.assert_close(changed.movedim(2, 3).reshape(3, 2, 8, 40), whole)


def test_a_patch_that_lies_beyond_altogether_is_0():
    images, labels = random_patches()
    changed, moved = Augmentation()(images, labels.fill_(BEYOND), seeded())
    assert (changed == 0).all()
    assert (moved == BEYOND).all()


def test_patches_of_thin_volumes_can_be_augmented():
    rng = np.random.default_rng(0)
    cases = [
        Case(name, "train", rng.random(shape, np.float32), rng.integers(1, 4, shape, np.uint8), (8.0, 1.0, 1.0))
        for name, shape in (("thin", (2, 20, 18)), ("thick", (9, 16, 40)))
    ]
    patches = patches_of(cases, torch.device("cpu"), (4, 16, 16))
    for images, labels in patches.drawn(0).batches(torch.arange(len(patches)), 3):
        changed, moved = Augmentation()(images, labels, seeded())
        assert torch.equal((moved == BEYOND).sum(dim=(1, 2, 3)), (labels == BEYOND).sum(dim=(1, 2, 3)))
        assert (changed.masked_select((moved == BEYOND)[:, None]) == 0).all()


# Seeds and what is refused


def test_the_generator_alone_decides():
    images, labels = random_patches()
    torch.manual_seed(1)
    before = torch.get_rng_state()
    found = [Augmentation()(images, labels, seeded(seed)) for seed in (5, 5, 6)]
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(a, b) for a, b in zip(found[0], found[1], strict=True))
    assert not torch.equal(found[0][0], found[2][0])


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (torch.zeros(2, 1, 3, 4, 4), torch.zeros(2, 4, 4).long(), r"`labels` of shape \(2, 3, 4, 4\), got \(2, 4, 4\)"),
        (torch.zeros(2, 1, 4, 4), torch.zeros(2, 3, 4, 4).long(), r"`labels` of shape \(2, 4, 4\), got \(2, 3, 4, 4\)"),
        (torch.zeros(1, 2, 1, 3, 4, 4), torch.zeros(2, 3, 4, 4).long(), r"`images` of shape .*\(B, M, D, H, W\), got"),
        (torch.full((2, 1, 3, 4, 4), 1.5), torch.zeros(2, 3, 4, 4).long(), r"`images` values in \[0, 1\], got \[1.5"),
    ],
)
def test_what_does_not_fit_is_named(images, labels, message):
    with pytest.raises(ValueError, match=message):
        Augmentation()(images, labels, seeded())
