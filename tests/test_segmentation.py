"""Dice and surface distance, by hand and against loops over voxels."""

import math

import numpy as np
import oracles
import pytest
from hypothesis import given
from hypothesis import strategies as st
from oracles import light

from nacl.metrics import dice_score, hausdorff_distance_95

C = 3


def volumes(seed, shape=(3, 5, 6)):
    """A random label volume, and one that differs from it in some voxels."""
    rng = np.random.default_rng(seed)
    target = rng.choice(C, shape, p=[0.6, 0.3, 0.1])
    return np.where(rng.random(shape) < 0.3, rng.integers(0, C, shape), target), target


def mask(rows):
    return np.array([[int(c == "#") for c in row] for row in rows.split()])


# Dice


@light
@given(seed=st.integers(0, 999))
def test_dice_matches_the_loop(seed):
    prediction, target = volumes(seed)
    for k, score in enumerate(dice_score(prediction, target, C), start=1):
        counts = np.zeros(3)
        for p, t in zip(prediction.flat, target.flat, strict=True):
            counts += [p == k and t == k, p == k, t == k]
        assert score == pytest.approx(2 * counts[0] / (counts[1] + counts[2]), abs=1e-12, nan_ok=True)


def test_dice_of_drawn_masks():
    a, b = mask(".##. .##. ...."), mask("..## ..## ....")
    assert dice_score(a, b, 2).tolist() == [0.5]
    assert dice_score(a, a, 2).tolist() == [1]
    assert dice_score(a, mask(".... .... ####"), 2).tolist() == [0]


def test_dice_of_absent_classes():
    prediction, target = [[0, 1, 0]], [[0, 0, 3]]  # 1 only predicted, 2 nowhere, 3 only true
    np.testing.assert_array_equal(dice_score(prediction, target, 4), [0, math.nan, 0])
    np.testing.assert_array_equal(dice_score(prediction, target, 4, convention="reference"), [1, 1, 0])


@light
@given(seed=st.integers(0, 999))
def test_dice_and_distance_do_not_change_when_the_masks_are_swapped(seed):
    prediction, target = volumes(seed)
    for function in (dice_score, hausdorff_distance_95):
        np.testing.assert_allclose(function(target, prediction, C), function(prediction, target, C))


# Surface distance


@light
@given(seed=st.integers(0, 999), spacing=st.tuples(*[st.sampled_from([0.5, 1.0, 1.25, 8.0])] * 3))
def test_distance_matches_the_loop_with_anisotropic_spacing(seed, spacing):
    prediction, target = volumes(seed)
    found = hausdorff_distance_95(prediction, target, C, spacing=spacing)
    for k in range(1, C):
        a, b = prediction == k, target == k
        if a.any() and b.any():
            assert found[k - 1] == pytest.approx(oracles.hausdorff_95(a, b, spacing), abs=1e-10)


@light
@given(seed=st.integers(0, 999), spacing=st.tuples(*[st.sampled_from([0.7, 1.0, 3.0])] * 2))
def test_distance_of_planes_matches_the_loop(seed, spacing):
    prediction, target = volumes(seed, (7, 8))
    a, b = prediction == 1, target == 1
    found = hausdorff_distance_95(prediction, target, C, spacing=spacing)[0]
    assert found == pytest.approx(oracles.hausdorff_95(a, b, spacing), abs=1e-10)


@pytest.mark.parametrize(
    ("a", "b", "spacing", "distance"),
    [
        ("#... .... ....", "...# .... ....", None, 3),
        ("#... .... ....", ".... .... #...", (2, 1), 4),
        ("#... .... ....", ".... .... ...#", (2, 1), 5),
        (".##. .##. ....", ".##. .##. ....", None, 0),
        ("#### #### ####", "#### #### ####", None, 0),
    ],
)
def test_distance_of_drawn_masks(a, b, spacing, distance):
    assert hausdorff_distance_95(mask(a), mask(b), 2, spacing=spacing).tolist() == [distance]


def test_rim_of_a_hole_is_surface_and_the_interior_is_not():
    full, holed = mask("##### ##### ##### ##### #####"), mask("##### ##### ##.## ##### #####")
    distances = [0] * 16 + [0] * 16 + [1] * 4  # both outer rims; the rim of the hole is 1 from the outer one
    assert hausdorff_distance_95(holed, full, 2)[0] == np.percentile(distances, 95) == 1


def test_both_directions_are_pooled_before_the_percentile():
    a, b = np.zeros((1, 40), int), np.zeros((1, 40), int)
    a[0, 0] = 1
    b[0, [0, 39]] = 1  # distances 0 from a, 0 and 39 from b
    pooled = np.percentile([0, 0, 39], 95)
    assert hausdorff_distance_95(a, b, 2)[0] == pytest.approx(pooled)
    assert pooled != np.percentile([0, 39], 95)  # the larger of the two percentiles


@light
@given(seed=st.integers(0, 999), shift=st.tuples(*[st.integers(0, 4)] * 3))
def test_translation_changes_neither_dice_nor_distance(seed, shift):
    pair = volumes(seed, (3, 4, 4))
    options = {"spacing": (5.0, 1.0, 1.5)}
    here = [np.pad(v, [(1, 5)] * 3) for v in pair]
    there = [np.pad(v, [(1 + s, 5 - s) for s in shift]) for v in pair]
    np.testing.assert_array_equal(dice_score(*there, C), dice_score(*here, C))
    np.testing.assert_allclose(
        hausdorff_distance_95(*there, C, **options), hausdorff_distance_95(*here, C, **options), rtol=1e-12
    )


def test_distance_scales_with_the_spacing():
    prediction, target = volumes(0)
    unit = hausdorff_distance_95(prediction, target, C)
    np.testing.assert_allclose(hausdorff_distance_95(prediction, target, C, spacing=(2.5,) * 3), 2.5 * unit)


def test_distance_of_absent_classes():
    prediction, target = [[0, 1, 0], [0, 0, 0]], [[0, 0, 3], [0, 0, 0]]
    standard = hausdorff_distance_95(prediction, target, 4, spacing=(3, 2))
    reference = hausdorff_distance_95(prediction, target, 4, spacing=(3, 2), convention="reference")
    np.testing.assert_array_equal(standard, [5, math.nan, 5])  # 5 is the diagonal: one step of 3, two of 2
    np.testing.assert_allclose(reference, [0, 0, math.sqrt(5)])


def test_reference_distance_is_in_voxels():
    a, b = mask("#... ...."), mask(".... ...#")
    distance = hausdorff_distance_95(a, b, 2, spacing=(10, 10), convention="reference")
    np.testing.assert_allclose(distance, [math.sqrt(10)])


# Refusals


@pytest.mark.parametrize("function", [dice_score, hausdorff_distance_95])
@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (
            {"prediction": np.zeros((2, 3), int)},
            ValueError,
            r"`prediction` of the shape of `target`, \(2, 2\), got \(2,",
        ),
        ({"num_classes": 1}, ValueError, "`num_classes` of at least 2, got 1"),
        ({"num_classes": 2.0}, TypeError, "`num_classes` to be an integer, got 2.0"),
        ({"convention": "paper"}, ValueError, "`convention` to be one of 'standard', 'reference', got 'paper'"),
    ],
)
def test_bad_input_is_named(function, change, error, message):
    plane = np.zeros((2, 2), int)
    with pytest.raises(error, match=message):
        function(**{"prediction": plane, "target": plane, "num_classes": 2, **change})


@pytest.mark.parametrize(
    "spacing", [(1.0,), (1.0, 1.0, 1.0), (1.0, 0.0), (1.0, -1.0), (1.0, math.nan), (1.0, math.inf)]
)
def test_bad_spacing_is_named(spacing):
    plane = np.eye(3, dtype=int)
    with pytest.raises(ValueError, match="`spacing` with 2 positive entries, one an axis, got"):
        hausdorff_distance_95(plane, plane, 2, spacing=spacing)
