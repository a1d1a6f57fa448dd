"""The phantom against its own formula, and its labels against its posterior."""

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
from scipy.special import ndtri
from scipy.stats import binom

from nacl.data import SPLITS
from nacl.data.phantom import PARAMETERS, draw_labels, generate

ONE_EACH = {"train": 1, "valid": 1, "test": 1}
PLAIN = replace(
    PARAMETERS,
    cases=ONE_EACH,
    centre=(0.5, 0.5),
    cavity_radius=(0.15, 0.15),
    wall=(0.07, 0.07),
    ellipticity=(0, 0),
    right_radius=(0.18, 0.18),
    ambiguity=(0.02, 0.02),
)


def test_phantom_posterior_is_a_distribution_at_every_pixel():
    for case in generate(32).cases:
        assert case.posterior.min() >= 0
        assert case.posterior.max() <= 1
        np.testing.assert_allclose(case.posterior.sum(axis=0), 1, atol=1e-6)


def test_phantom_has_one_shape_of_case():
    dataset = generate(32)
    assert {split: len(dataset.split(split)) for split in SPLITS} == PARAMETERS.cases
    for case in dataset.cases:
        assert case.image.shape[1:] == case.label.shape == case.posterior.shape[1:] == (8, 32, 32)
        assert (case.image.dtype, case.label.dtype, case.posterior.dtype) == (np.float32, np.uint8, np.float32)
        assert np.isfinite(case.image).all()
        assert 0 <= case.image.min() <= case.image.max() <= 1
        assert set(np.unique(case.label)) == {0, 1, 2, 3}


def test_phantom_is_the_same_every_time_and_no_two_cases_are_equal():
    first, second = generate(32).cases, generate(32).cases
    for a, b in zip(first, second, strict=True):
        assert a.name == b.name
        assert all(
            np.array_equal(x, y) for x, y in [(a.image, b.image), (a.label, b.label), (a.posterior, b.posterior)]
        )
    assert len({case.image.tobytes() for case in first}) == len(first)


def test_phantom_splits_share_no_patient():
    patients = {split: {case.patient for case in generate(32).split(split)} for split in SPLITS}
    assert all(not patients[a] & patients[b] for a, b in itertools.combinations(SPLITS, 2))


def test_phantom_posterior_is_its_formula():
    case = generate(64, PLAIN).cases[0]

    def phi(z: float) -> float:
        return (1 + math.erf(z / math.sqrt(2))) / 2

    for plane, row, column in [(0, 32, 32), (0, 32, 41), (0, 20, 44), (3, 40, 30), (5, 28, 28), (7, 33, 36)]:
        depth = plane / 7
        radius = math.hypot((column + 0.5) / 64 - 0.5, (row + 0.5) / 64 - 0.5)
        inner = 0.15 * math.sqrt(1 - 0.8 * depth**2)
        q_in, q_out = phi((inner - radius) / 0.02), phi((inner + 0.07 - radius) / 0.02)
        p = case.posterior[:, plane, row, column]
        assert p[3] == pytest.approx(q_in, abs=1e-6)
        assert p[2] == pytest.approx(q_out - q_in, abs=1e-6)
        assert p[0] + p[1] == pytest.approx(1 - q_out, abs=1e-6)


def test_phantom_without_ambiguity_has_the_areas_of_its_circles():
    case = generate(128, replace(PLAIN, ambiguity=(1e-9, 1e-9))).cases[0]
    area = [(case.label[0] == k).mean() for k in range(4)]
    assert area[3] == pytest.approx(math.pi * 0.15**2, rel=0.02)
    assert area[2] == pytest.approx(math.pi * (0.22**2 - 0.15**2), rel=0.02)
    assert np.array_equal(case.label, case.posterior.argmax(axis=0))


def test_phantom_image_without_noise_is_the_mean_intensity_under_the_posterior():
    case = generate(32, replace(PLAIN, texture=0.0, bias=0.0, noise=0.0)).cases[0]
    expected = sum(m * p for m, p in zip(PLAIN.intensities, case.posterior, strict=True))
    np.testing.assert_allclose(case.image[0], expected, atol=1e-6)


def test_drawn_labels_have_the_posterior_at_every_pixel():
    """Exact two-sided binomial tests, one a pixel and class, at a family-wise significance of 0.1% (Bonferroni)."""
    draws, posterior = 4000, generate(16).cases[0].posterior[:, 2].astype(np.float64)
    # Slices are independent of each other, so one call with the same posterior in 4000 slices is 4000 draws.
    labels = draw_labels(np.repeat(posterior[:, None], draws, axis=1), np.random.default_rng(1))
    counts = np.stack([(labels == k).sum(axis=0) for k in range(4)])
    p = posterior.clip(0, 1)
    p_value = 2 * np.minimum(binom.cdf(counts, draws, p), binom.sf(counts - 1, draws, p))
    assert p_value.min() > 0.001 / p_value.size
    # The test can see: frequencies of a posterior that is 5 points off fail it.
    off = np.where((p > 0.3) & (p < 0.7), p + 0.05, p)
    assert (2 * np.minimum(binom.cdf(counts, draws, off), binom.sf(counts - 1, draws, off))).min() < 0.001 / p.size


def test_an_annotators_error_is_smooth():
    """At p = 1/2 everywhere neighbours agree far more often than independent labels would (1/2)."""
    posterior = np.zeros((4, 50, 64, 64))
    posterior[[0, 3]] = 0.5
    labels = draw_labels(posterior, np.random.default_rng(0))
    agree = (labels[:, :, 1:] == labels[:, :, :-1]).mean()
    assert agree > 0.8
    independent = draw_labels(posterior, np.random.default_rng(0), correlation=1e-6)
    assert (independent[:, :, 1:] == independent[:, :, :-1]).mean() == pytest.approx(0.5, abs=0.01)


def test_a_class_is_drawn_as_often_as_it_is_probable_at_corners_too():
    """A class of probability p is drawn in a share p of slices also at corners, for several p."""
    for p in (0.1, 0.5, 0.9):
        posterior = np.zeros((4, 4000, 8, 8))
        posterior[3], posterior[0] = p, 1 - p
        share = (draw_labels(posterior, np.random.default_rng(2)) == 3).mean(axis=0)
        bound = -ndtri(0.0005 / share.size) * math.sqrt(p * (1 - p) / 4000)
        assert np.abs(share - p).max() < bound


def test_the_phantom_is_still_the_one_that_published_numbers_rest_on():
    """Values of the first and the last case at 32 pixels, written down when the first results were published."""
    cases = generate(32).cases
    first, last = (case.image[0, 2, 16, [4, 12, 16, 20]] for case in (cases[0], cases[-1]))
    np.testing.assert_allclose(first, [0.468948, 0.204147, 0.664896, 0.265695], atol=1e-5)
    np.testing.assert_allclose(last, [0.509388, 0.415122, 0.986685, 0.375536], atol=1e-5)
    assert np.bincount(cases[0].label.ravel()).tolist() == [7415, 239, 326, 212]
    assert np.bincount(cases[-1].label.ravel()).tolist() == [7170, 203, 514, 305]
