"""Smooth random fields: standard normal at every point, and correlated as their length says."""

import math

import numpy as np
import pytest
from scipy.special import ndtri
from scipy.stats import chi2

from nacl.data.fields import smooth_field, smooth_field_at

LENGTHS = [(0, 0, 0), (0, 1.5, 3), (0.4, 2, 2), (2, 1, 0), (5, 5, 5)]


def assert_standard_normal(fields: np.ndarray) -> None:
    """Independent fields (draws, *shape) have mean 0 and variance 1 at every point, at a family-wise 0.1% each."""
    draws, points = len(fields), fields[0].size
    assert np.abs(fields.mean(axis=0)).max() < -ndtri(0.0005 / points) / math.sqrt(draws)
    squares = (fields**2).sum(axis=0)
    assert chi2.ppf(0.0005 / points, draws) < squares.min()
    assert squares.max() < chi2.isf(0.0005 / points, draws)


@pytest.mark.parametrize("lengths", LENGTHS)
def test_a_field_on_a_grid_is_standard_normal_at_every_pixel(lengths):
    rng = np.random.default_rng(0)
    fields = np.stack([smooth_field(rng, (4, 6, 5), lengths) for _ in range(2000)])
    assert_standard_normal(fields)
    with pytest.raises(AssertionError):  # the test can see: 10% off is found
        assert_standard_normal(1.1 * fields)


@pytest.mark.parametrize("length", [3.0, 10.0, 40.0])
def test_a_field_at_places_is_standard_normal_at_all_of_them(length):
    rng = np.random.default_rng(1)
    places = (np.array([-20.0, -19.0, 0.3, 20.0]), np.array([0.0]), np.array([-20.0, 1.7, 11.0]))
    fields = np.stack([smooth_field_at(rng, places, length, reach=20) for _ in range(1500)])
    assert fields.shape == (1500, 4, 1, 3)
    assert_standard_normal(fields)


def test_two_pixels_are_correlated_as_a_gaussian_of_their_distance():
    rng = np.random.default_rng(2)
    fields = np.stack([smooth_field(rng, (16, 32, 32), (1.5, 3, 3)) for _ in range(40)])
    for axis, length in ((1, 1.5), (2, 3), (3, 3)):
        for step in (1, 2, 4):
            correlation = (fields * np.roll(fields, step, axis)).mean()
            assert correlation == pytest.approx(math.exp(-(step**2) / (4 * length**2)), abs=0.03)


def test_two_places_are_correlated_as_a_gaussian_of_their_distance():
    rng, places = np.random.default_rng(3), (np.arange(-40.0, 41.0, 2), np.arange(-40.0, 41.0, 2))
    fields = np.stack([smooth_field_at(rng, places, 5, reach=40) for _ in range(200)])
    for axis in (1, 2):
        for step in (1, 3, 5):
            ahead, behind = (np.take(fields, range(*ends), axis) for ends in ((step, 41), (0, 41 - step)))
            assert (ahead * behind).mean() == pytest.approx(math.exp(-((2 * step) ** 2) / 100), abs=0.03)


def test_length_0_leaves_slices_independent():
    rng = np.random.default_rng(4)
    field = smooth_field(rng, (4000, 4, 4), (0, 2, 2))
    assert abs((field[1:] * field[:-1]).mean()) < 0.03
    assert (field[:, :, 1:] * field[:, :, :-1]).mean() > 0.8


def test_a_field_at_places_does_not_depend_on_the_grid():
    def sample(*places, seed=5):
        return smooth_field_at(np.random.default_rng(seed), places, 7, reach=50)

    fine = sample(np.arange(-30.0, 31.0), np.arange(-20.0, 21.0), np.array([4.0]))
    coarse = sample(np.arange(-30.0, 31.0, 10), np.arange(-20.0, 21.0, 5), np.array([4.0]))
    np.testing.assert_allclose(fine[::10, ::5], coarse, atol=1e-12)
    other = sample(np.arange(-30.0, 31.0, 10), np.arange(-20.0, 21.0, 5), np.array([4.0]), seed=6)
    assert np.abs(other - coarse).max() > 1


def test_a_field_at_places_refuses_what_it_does_not_span():
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match=r"`places` in \[0, 20\], got 21"):
        smooth_field_at(rng, (np.array([0.0, -21.0]),), 5, reach=20)
    with pytest.raises(ValueError, match=r"`length` in \(0, inf\), got 0"):
        smooth_field_at(rng, (np.zeros(1),), 0, reach=20)
