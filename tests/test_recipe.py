"""Recipes against closed forms: grids, centres of mass, areas, crops and their inverses, scaled intensities."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from oracles import light

from nacl.data.benchmarks.raw import Volume
from nacl.data.recipe import SLAB_VOXELS, Recipe


def volume(image, label=None, spacing=(5.0, 1.0, 1.0), unit="mm"):
    image = np.asarray(image)
    image = image if image.ndim == 4 else image[None]
    label = np.zeros(image.shape[1:], np.uint8) if label is None else np.asarray(label, np.uint8)
    return Volume(image, label, spacing, unit)


def noise(*shape, seed=0):
    return np.random.default_rng(seed).random(shape)


RAW = Recipe(intensity="window", low=0, high=1)  # images in [0, 1] come out as they are


# Grids


def test_nothing_to_do_changes_nothing():
    image, label = noise(2, 3, 12, 12).astype(np.float32), np.arange(3 * 144).reshape(3, 12, 12) % 5
    for recipe in (RAW, Recipe(1.0, 12, "window", 0, 1)):
        done = recipe.apply(volume(image, label))
        assert np.array_equal(done.image, image)
        assert np.array_equal(done.label, label)
        assert (done.spacing, done.lost) == ((5.0, 1.0, 1.0), 0.0)
        assert (done.image.dtype, done.label.dtype) == (np.float32, np.uint8)


@pytest.mark.parametrize("factor", [0.25, 0.5, 2, 3, 4])
def test_constants_stay_constant_on_every_grid(factor):
    image, label = np.full((1, 2, 12, 24), 0.625, np.float32), np.full((2, 12, 24), 3)
    done = Recipe(factor, None, "window", 0, 1).apply(volume(image, label))
    rows = round(12 / factor)
    assert done.image.shape == (1, 2, round(24 / factor), round(24 / factor))
    np.testing.assert_allclose(done.image, 0.625, atol=1e-6)
    labelled = (done.label == 3).sum(axis=(1, 2))
    assert (labelled == rows * round(24 / factor)).all()  # the rest pads to a square
    assert done.spacing == pytest.approx((5, factor, factor))


def test_new_spacing_keeps_the_length_of_each_axis():
    done = Recipe(spacing=1.25).apply(volume(noise(2, 100, 77), spacing=(8.0, 0.683, 1.9)))
    rows, columns = round(100 * 0.683 / 1.25), round(77 * 1.9 / 1.25)
    assert done.image.shape == (1, 2, columns, columns)
    assert done.spacing == pytest.approx((8.0, 100 * 0.683 / rows, 77 * 1.9 / columns))


def test_an_axis_never_vanishes_and_one_slice_is_fine():
    done = Recipe(spacing=100.0).apply(volume(noise(1, 3, 4)))
    assert done.image.shape == (1, 1, 1, 1)


@light
@given(st.integers(20, 48), st.sampled_from([0.4, 0.7, 1.5, 2.0, 3.3]), st.integers(0, 99))
def test_centre_of_mass_stays_within_half_a_new_pixel(size, spacing, seed):
    row, column = np.random.default_rng(seed).uniform(0.35 * size, 0.65 * size, 2)
    y, x = np.mgrid[:size, :size] + 0.5
    image = np.exp(-((y - row) ** 2 + (x - column) ** 2) / (2 * 2.0**2))
    done = Recipe(spacing, None, "window", 0, 1).apply(volume(image[None]))
    new = done.image[0, 0].astype(float)
    y, x = (np.mgrid[: len(new), : len(new)] + 0.5) * np.array(done.spacing[1:])[:, None, None]
    found = (new * y).sum() / new.sum(), (new * x).sum() / new.sum()
    assert math.dist(found, (row, column)) < spacing / 2


def test_downsampling_averages_and_does_not_skip():
    """Lines finer than the new grid become their mean, 1/3; a filter of fixed width would leave a pattern of them.

    A triangle of 4 pixels to each side weighs a wave of 3 pixels by sinc^2(4/3) = 0.043, of an amplitude of 2/3.
    """
    image = np.tile([0.0, 0.0, 1.0], 32)[None, None, :].repeat(96, axis=1)
    inner = Recipe(4.0, None, "window", 0, 1).apply(volume(image)).image[0, 0, :, 1:-1]
    np.testing.assert_allclose(inner, 1 / 3, atol=0.04)


@pytest.mark.parametrize("spacing", [0.5, 0.8, 1.6, 2.5])
def test_a_big_square_keeps_its_area_to_a_pixel_a_side(spacing):
    label = np.zeros((1, 60, 60))
    label[:, 15:45, 20:50] = 2
    done = Recipe(spacing).apply(volume(np.zeros((1, 60, 60)), label))
    side = math.sqrt((done.label == 2).sum()) * spacing
    assert abs(side - 30) <= spacing
    assert set(np.unique(done.label)) == {0, 2}


def test_labels_are_those_of_pixels_and_never_one_between():
    label = np.zeros((1, 12, 12))
    label[:, :6], label[:, 6:] = 1, 3  # their mean is 2
    done = Recipe(spacing=3.0).apply(volume(np.zeros((1, 12, 12)), label))
    assert done.label[0].tolist() == [[1] * 4] * 2 + [[3] * 4] * 2


@pytest.mark.parametrize("first", range(4, 10))
def test_a_vessel_of_one_and_a_half_new_pixels_survives_wherever_it_lies(first):
    label = np.zeros((1, 20, 20))
    label[:, :, first : first + 3] = 1
    widths = (Recipe(spacing=2.0).apply(volume(np.zeros((1, 20, 20)), label)).label[0] == 1).sum(axis=1)
    assert set(widths) <= {1, 2}


def test_slabs_leave_no_seam():
    shape = (2 * SLAB_VOXELS // 256**2 + 1, 256, 256)
    image = np.broadcast_to(noise(1, 256, 256), shape)
    label = np.broadcast_to(noise(1, 256, 256, seed=1) > 0.5, shape)
    done = Recipe(1.7, 100, "window", 0, 1).apply(volume(image, label))
    assert (done.image == done.image[:, :1]).all()
    assert (done.label == done.label[:1]).all()


# Crops


@light
@given(st.integers(1, 9), st.integers(1, 9), st.integers(9, 14))
def test_padding_then_cropping_is_the_identity(height, width, size):
    side = max(height, width)
    image, label = noise(1, height, width) + 1, noise(1, height, width, seed=1) * 4
    square = RAW.apply(volume(image - 1, label))  # padded to side x side
    wide = Recipe(None, size, "window", 0, 1).apply(volume(square.image, square.label))
    back = Recipe(None, side, "window", 0, 1).apply(volume(wide.image, wide.label))
    assert np.array_equal(back.image, square.image)
    assert np.array_equal(back.label, square.label)
    assert back.lost == 0


def test_the_odd_pixel_goes_and_comes_at_the_end():
    image = np.arange(5.0)[None, None, :].repeat(5, axis=1) / 10
    cropped = Recipe(None, 2, "window", 0, 1).apply(volume(image)).image[0, 0, 0]
    np.testing.assert_allclose(cropped, [0.1, 0.2])  # (5 - 2) // 2 = 1 before, 2 after
    padded = Recipe(None, 8, "window", -1, 1).apply(volume(image)).image[0, 0]
    np.testing.assert_allclose(padded[1], [0.5, 0.5, 0.55, 0.6, 0.65, 0.7, 0.5, 0.5], atol=1e-6)


def test_padding_is_the_least_value_that_the_crop_left():
    image = np.full((1, 4, 10), 7.0)
    image[0, 0, 0], image[0, 1, 5], image[0, 2, 5] = -100, 5, 9  # the first is cropped off
    done = Recipe(None, 6, "minmax").apply(volume(image)).image[0, 0]
    assert done[2, 3] == 0
    assert done[3, 3] == 1
    assert (done[0] == 0).all()
    assert (done[-1] == 0).all()
    assert done[1, 0] == 0.5


def test_lost_is_the_share_of_labelled_voxels_that_the_crop_cut_off():
    label = np.zeros((2, 10, 10))
    label[0, 4:6, 0:10] = 1  # 20 voxels, of which 8 are inside the middle 4 x 4
    done = Recipe(size=4).apply(volume(np.zeros((2, 10, 10)), label))
    assert done.lost == pytest.approx(12 / 20)
    assert Recipe(size=4).apply(volume(np.zeros((2, 10, 10)))).lost == 0


# Intensities


def test_minmax_spans_0_to_1_in_each_channel_by_itself():
    image = np.stack([noise(2, 6, 6) * 5 - 3, noise(2, 6, 6, seed=1) * 900 + 40])
    done = Recipe().apply(volume(image)).image
    for new, old in zip(done, image, strict=True):
        np.testing.assert_allclose(new, (old - old.min()) / (old.max() - old.min()), atol=1e-6)
        assert (new.min(), new.max()) == (0, 1)


def test_percentiles_against_numpy_and_clipped():
    image = noise(2, 20, 20) ** 3 * 1000 + 1
    done = Recipe(None, None, "percentiles", 1, 99).apply(volume(image)).image[0]
    low, high = np.percentile(image, (1, 99))
    np.testing.assert_allclose(done, ((image - low) / (high - low)).clip(0, 1), atol=1e-5)


def test_zeros_around_a_brain_are_not_counted_and_zeros_within_a_scan_are():
    brain = np.zeros((4, 20, 20))
    brain[:, 6:14, 6:14] = noise(4, 8, 8) * 100 + 50
    low, high = np.percentile(brain[brain > 0], (2, 98))
    done = Recipe(None, None, "percentiles", 2, 98).apply(volume(brain)).image[0]
    np.testing.assert_allclose(done, ((brain - low) / (high - low)).clip(0, 1), atol=1e-5)
    brain[0, 0, 0] = 3  # one corner is not 0: no background
    low, high = np.percentile(brain, (2, 98))
    done = Recipe(None, None, "percentiles", 2, 98).apply(volume(brain)).image[0]
    np.testing.assert_allclose(done, ((brain - low) / (high - low)).clip(0, 1), atol=1e-5)


def test_equal_percentiles_fall_back_to_the_extremes():
    image = np.ones((1, 20, 20))
    image[0, 10, 10], image[0, 11, 11] = 5, 3
    done = Recipe(None, None, "percentiles", 5, 95).apply(volume(image)).image[0, 0]
    assert (done[10, 10], done[11, 11], done[0, 0]) == (1, 0.5, 0)


def test_a_window_is_in_the_units_of_the_file():
    hounsfield = np.array([-1000, -150, 50, 250, 3000], np.int16).reshape(1, 1, 5).repeat(5, axis=1)
    done = Recipe(None, None, "window", -150, 250).apply(volume(hounsfield)).image[0, 0]
    np.testing.assert_allclose(done[0], [0, 0, 0.5, 1, 1])


@pytest.mark.parametrize("value", [0, 7, -3.5, 1e30])
@pytest.mark.parametrize("intensity", ["minmax", "percentiles"])
def test_a_constant_image_is_0(intensity, value):
    done = Recipe(2.0, 9, intensity).apply(volume(np.full((2, 10, 10), value)))
    assert not done.image.any()


@light
@given(st.sampled_from(["minmax", "percentiles", "window"]), st.sampled_from(["f4", "f8", "i2", "u2", ">i2"]))
def test_order_is_kept_and_values_are_in_0_to_1(intensity, dtype):
    image = (noise(1, 1, 200) * 4000).astype(dtype)
    done = Recipe(None, None, intensity, 10, 90).apply(volume(image)).image[0, 0, 99]
    assert (np.diff(done[np.argsort(image[0, 0], kind="stable")]) >= 0).all()
    assert 0 <= done.min() <= done.max() <= 1


# Refused


@pytest.mark.parametrize(
    ("values", "error", "message"),
    [
        ({"spacing": 0.0}, ValueError, r"`spacing` in \(0, inf\), got 0"),
        ({"spacing": math.nan}, ValueError, "`spacing`"),
        ({"spacing": "1"}, TypeError, "`spacing` to be a number, got '1'"),
        ({"size": 0}, ValueError, "`size` of at least 1, got 0"),
        ({"size": 1.5}, TypeError, "`size` to be an integer"),
        ({"intensity": "minmaks"}, ValueError, "Did you mean 'minmax'"),
        ({"intensity": "percentiles", "high": 101.0}, ValueError, r"`high` in \[0, 100\], got 101"),
        ({"intensity": "window", "low": 5, "high": 5}, ValueError, "`low` below `high`, got 5 and 5"),
    ],
)
def test_values_out_of_range_are_named(values, error, message):
    with pytest.raises(error, match=message):
        Recipe(**values)


def test_pixels_of_unknown_size_are_not_resampled():
    with pytest.raises(ValueError, match=r"`spacing` to be None.*got 1\.5 \(unit 'px'\)"):
        Recipe(spacing=1.5).apply(volume(noise(1, 4, 4), unit="px"))


def test_a_range_beyond_float32_and_no_voxels_are_named():
    with pytest.raises(ValueError, match="range that float32 can hold"):
        Recipe().apply(volume([[[-3e38, 3e38]]]))
    with pytest.raises(ValueError, match=r"`volume` with voxels, got an image of shape \(1, 0, 4, 4\)"):
        Recipe().apply(volume(np.zeros((1, 0, 4, 4))))


def test_halving_keeps_the_areas_of_small_structures():
    """Discs of 2 in discs of 1: over 200 slices the areas stay, to the error of counting."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:64, :64]
    discs = []
    for _ in range(200):
        radius = np.hypot(y - rng.uniform(28, 36), x - rng.uniform(28, 36))
        discs.append(np.select([radius < 5, radius < 14], [2, 1], 0))
    label = np.array(discs, np.uint8)
    volume = Volume(label[None].astype(np.float32), label, (1.0, 0.5, 0.5))
    halved = Recipe(spacing=1.0).apply(volume).label
    for k in (1, 2):
        assert 4 * (halved == k).sum() == pytest.approx((label == k).sum(), rel=0.01)
