"""Dice and surface distance, by hand, against loops over voxels, and against peers' formulas."""

import math

import numpy as np
import oracles
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from oracles import light
from scipy import ndimage

from nacl.metrics import dice_score, hausdorff_distance_95
from nacl.metrics.segmentation import (
    AVERAGE_DIRECTIONS,
    HD95_DIRECTIONS,
    average_surface_distance,
    surface_distances,
)

C = 3
DISTANCES = [
    *[pytest.param(hausdorff_distance_95, {"directions": d}, id=f"hd95-{d}") for d in HD95_DIRECTIONS],
    *[pytest.param(average_surface_distance, {"directions": d}, id=f"average-{d}") for d in AVERAGE_DIRECTIONS],
]


def volumes(seed, shape=(3, 5, 6)):
    """A random label volume, and one that differs from it in some voxels."""
    rng = np.random.default_rng(seed)
    target = rng.choice(C, shape, p=[0.6, 0.3, 0.1])
    return np.where(rng.random(shape) < 0.3, rng.integers(0, C, shape), target), target


def organs(seed, shape=(6, 24, 28)):
    """Two label volumes of nested blobs, large enough for a search tree of several levels."""
    rng = np.random.default_rng(seed)
    grid = np.indices(shape).reshape(3, -1).T / shape
    centre = rng.uniform(0.3, 0.7, 3)
    radius = np.linalg.norm(grid - centre, axis=1).reshape(shape)
    noise = [ndimage.gaussian_filter(rng.normal(size=shape), 1.5) for _ in range(2)]
    return [np.digitize(-radius - 0.3 * n, [-0.4, -0.2]) for n in noise]


def mask(rows):
    return np.array([[int(c == "#") for c in row] for row in rows.split()])


def directed(a, b, spacing):
    """From each surface voxel of `a` to the nearest of `b`, over all pairs."""
    size = np.array(spacing)
    return [min(math.dist(p * size, q * size) for q in oracles.surface(b)) for p in oracles.surface(a)]


def transformed(a, b, spacing):
    """The same by an erosion and a distance transform of the whole volume."""
    a, b = (m & ~ndimage.binary_erosion(m) for m in (a, b))
    return ndimage.distance_transform_edt(~b, sampling=spacing)[a]


def combined(function, directions, there, back):
    """The formulas of medpy (pooled HD95, mean and one-sided average) and MONAI (larger HD95, pooled average)."""
    both = [*there, *back]
    if function is hausdorff_distance_95:
        return {
            "pooled": np.percentile(both, 95),
            "larger": max(np.percentile(there, 95), np.percentile(back, 95)),
        }[directions]
    return {
        "pooled": sum(both) / len(both),
        "mean": (np.mean(there) + np.mean(back)) / 2,
        "from_prediction": np.mean(there),
    }[directions]


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


def test_reference_dice_has_four_digits():
    """(Of counts without a common binary digit, 3 and 4, which the older scripts score as 1.)"""
    a, b = mask("###. ...."), mask("#### ....")
    assert dice_score(a, b, 2).tolist() == [6 / 7]
    assert dice_score(a, b, 2, convention="reference").tolist() == [0.8571]


# Surface distance against independent formulas


@pytest.mark.parametrize(("function", "options"), DISTANCES)
@light
@given(seed=st.integers(0, 999), spacing=st.tuples(*[st.sampled_from([0.5, 1.0, 1.25, 8.0])] * 3))
def test_distance_matches_the_loop_with_anisotropic_spacing(function, options, seed, spacing):
    prediction, target = volumes(seed)
    found = function(prediction, target, C, spacing=spacing, **options)
    for k in range(1, C):
        a, b = prediction == k, target == k
        if a.any() and b.any():
            expected = combined(function, options["directions"], directed(a, b, spacing), directed(b, a, spacing))
            assert found[k - 1] == pytest.approx(expected, abs=1e-10)


@light
@given(seed=st.integers(0, 999), spacing=st.tuples(*[st.sampled_from([0.7, 1.0, 3.0])] * 2))
def test_distance_of_planes_matches_the_loop(seed, spacing):
    prediction, target = volumes(seed, (7, 8))
    a, b = prediction == 1, target == 1
    found = hausdorff_distance_95(prediction, target, C, spacing=spacing)[0]
    assert found == pytest.approx(oracles.hausdorff_95(a, b, spacing), abs=1e-10)


@light
@given(seed=st.integers(0, 999))
def test_every_distance_is_in_its_place(seed):
    prediction, target = volumes(seed)
    for k, found in enumerate(surface_distances(prediction, target, C, spacing=(3, 1, 2)), start=1):
        a, b = prediction == k, target == k
        if a.any() and b.any():
            np.testing.assert_allclose(found.from_prediction, directed(a, b, (3, 1, 2)), atol=1e-12)
            np.testing.assert_allclose(found.from_target, directed(b, a, (3, 1, 2)), atol=1e-12)


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (8.0, 1.4, 1.3)])
@light
@given(seed=st.integers(0, 999))
def test_large_surfaces_match_the_distance_transform(spacing, seed):
    prediction, target = organs(seed)
    for k, found in enumerate(surface_distances(prediction, target, C, spacing=spacing), start=1):
        a, b = prediction == k, target == k
        assert len(found.from_prediction) > 100
        np.testing.assert_allclose(found.from_prediction, transformed(a, b, spacing), atol=1e-12)
        np.testing.assert_allclose(found.from_target, transformed(b, a, spacing), atol=1e-12)


@pytest.mark.filterwarnings("ignore:.*always_return_as_numpy:FutureWarning")
@pytest.mark.parametrize("spacing", [None, (8.0, 1.4, 1.3), (8.0, 1.4)])
def test_larger_hd95_and_pooled_average_are_monais(spacing):
    monai = pytest.importorskip("monai.metrics")
    prediction, target = organs(1) if spacing is None or len(spacing) == 3 else (v[3] for v in organs(1))
    one_hot = [torch.nn.functional.one_hot(torch.from_numpy(v), C).movedim(-1, 0)[None] for v in (prediction, target)]
    hd95 = monai.compute_hausdorff_distance(*one_hot, percentile=95, spacing=spacing)[0]
    pooled = monai.compute_average_surface_distance(*one_hot, symmetric=True, spacing=spacing)[0]
    one_sided = monai.compute_average_surface_distance(*one_hot, spacing=spacing)[0]
    volumes = (prediction, target, C)
    ours = hausdorff_distance_95(*volumes, directions="larger", spacing=spacing)
    np.testing.assert_allclose(ours, hd95, rtol=1e-6)
    np.testing.assert_allclose(average_surface_distance(*volumes, spacing=spacing), pooled, rtol=1e-6)
    ours = average_surface_distance(*volumes, spacing=spacing, directions="from_prediction")
    np.testing.assert_allclose(ours, one_sided, rtol=1e-6)


# Surface distance by hand


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
@pytest.mark.parametrize(("function", "options"), DISTANCES)
def test_distance_of_drawn_masks(function, options, a, b, spacing, distance):
    assert function(mask(a), mask(b), 2, spacing=spacing, **options).tolist() == [distance]


@pytest.mark.parametrize(("function", "options"), DISTANCES)
def test_distance_of_two_voxels_is_that_of_their_centres(function, options):
    a, b = np.zeros((2, 4, 5, 6), int)
    a[0, 0, 0] = b[3, 4, 5] = 1
    assert function(a, b, 2, spacing=(2, 1, 4), **options)[0] == pytest.approx(math.hypot(6, 4, 20))


def test_rim_of_a_hole_is_surface_and_the_interior_is_not():
    full, holed = mask("##### ##### ##### ##### #####"), mask("##### ##### ##.## ##### #####")
    distances = [0] * 16 + [0] * 16 + [1] * 4  # both outer rims; the rim of the hole is 1 from the outer one
    assert hausdorff_distance_95(holed, full, 2)[0] == np.percentile(distances, 95) == 1
    assert average_surface_distance(holed, full, 2)[0] == pytest.approx(4 / 36)


def test_the_end_of_the_volume_is_the_end_of_a_mask():
    full = np.ones((3, 5, 5), int)
    (found,) = surface_distances(full, np.pad(np.ones((1, 3, 3), int), 1), 2)
    assert len(found.from_prediction) == full.size - 9  # all but the 3 x 3 inner ones
    corners, edges, faces = 8 * [math.sqrt(3)], (4 + 4 * 6) * [math.sqrt(2)], (2 * 9 + 3 * 4) * [1]
    assert sorted(found.from_prediction) == pytest.approx(sorted([*corners, *edges, *faces]))
    assert found.from_target.tolist() == [1] * 9


def test_names_of_the_directions():
    """Distances 0 from the prediction, 0 and 39 from the target; the two directions differ in size."""
    a, b = np.zeros((2, 1, 40), int)
    a[0, 0] = b[0, 0] = b[0, 39] = 1
    hd95 = [hausdorff_distance_95(a, b, 2, directions=d)[0] for d in ("pooled", "larger")]
    assert hd95 == pytest.approx([np.percentile([0, 0, 39], 95), np.percentile([0, 39], 95)])
    assert hausdorff_distance_95(a, b, 2)[0] == hd95[0] != hd95[1]
    averages = [average_surface_distance(a, b, 2, directions=d)[0] for d in ("pooled", "mean", "from_prediction")]
    assert averages == [13, 39 / 4, 0]
    assert average_surface_distance(b, a, 2, directions="from_prediction").tolist() == [39 / 2]
    assert average_surface_distance(a, b, 2).tolist() == [13]


# Invariants


@light
@given(seed=st.integers(0, 999))
def test_dice_and_distance_do_not_change_when_the_masks_are_swapped(seed):
    prediction, target = volumes(seed)
    for function, options in [
        (dice_score, {}),
        *[(hausdorff_distance_95, {"directions": d}) for d in ("pooled", "larger")],
        *[(average_surface_distance, {"directions": d}) for d in ("pooled", "mean")],
    ]:
        np.testing.assert_allclose(
            function(target, prediction, C, **options), function(prediction, target, C, **options)
        )


@light
@given(seed=st.integers(0, 999), shift=st.tuples(*[st.integers(0, 4)] * 3))
def test_translation_changes_neither_dice_nor_distance(seed, shift):
    pair = volumes(seed, (3, 4, 4))
    options = {"spacing": (5.0, 1.0, 1.5)}
    here = [np.pad(v, [(1, 5)] * 3) for v in pair]
    there = [np.pad(v, [(1 + s, 5 - s) for s in shift]) for v in pair]
    np.testing.assert_array_equal(dice_score(*there, C), dice_score(*here, C))
    for function in (hausdorff_distance_95, average_surface_distance):
        np.testing.assert_allclose(function(*there, C, **options), function(*here, C, **options), rtol=1e-12)


@light
@given(seed=st.integers(0, 999), axes=st.permutations(range(3)), flips=st.sets(st.integers(0, 2)))
def test_turning_the_volume_with_its_spacing_changes_nothing(seed, axes, flips):
    pair, spacing = volumes(seed), (5.0, 1.0, 1.5)
    turned = [np.flip(v.transpose(axes), tuple(flips)) for v in pair]
    for function in (hausdorff_distance_95, average_surface_distance):
        here = function(*pair, C, spacing=spacing)
        np.testing.assert_allclose(function(*turned, C, spacing=[spacing[axis] for axis in axes]), here, rtol=1e-12)


@light
@given(seed=st.integers(0, 999), order=st.permutations([1, 2]))
def test_renumbering_the_classes_moves_their_results(seed, order):
    prediction, target = volumes(seed)
    new = np.array([0, *order])
    for function in (dice_score, hausdorff_distance_95, average_surface_distance):
        before, after = function(prediction, target, C), function(new[prediction], new[target], C)
        np.testing.assert_array_equal(after[np.array(order) - 1], before)


@pytest.mark.parametrize(("function", "options"), DISTANCES)
def test_distance_scales_with_the_spacing(function, options):
    prediction, target = volumes(0)
    unit = function(prediction, target, C, **options)
    np.testing.assert_allclose(function(prediction, target, C, spacing=(2.5,) * 3, **options), 2.5 * unit)


@pytest.mark.parametrize("dtype", ["uint8", "int16", ">i2", "uint64", "int64"])
def test_layout_and_dtype_of_the_labels_do_not_matter(dtype):
    prediction, target = volumes(3)
    others = np.asfortranarray(prediction.astype(dtype)), np.repeat(target.astype(dtype), 2, axis=1)[:, ::2]
    for function in (dice_score, hausdorff_distance_95, average_surface_distance):
        np.testing.assert_array_equal(function(*others, C), function(prediction, target, C))
    assert target.dtype == np.int64


def test_one_search_gives_both_metrics_and_leaves_the_labels():
    prediction, target = volumes(4)
    before = prediction.copy(), target.copy()
    found = surface_distances(prediction, target, C, spacing=(8, 1, 1))
    options = {"spacing": (8, 1, 1)}
    assert [d.hausdorff_95() for d in found] == hausdorff_distance_95(prediction, target, C, **options).tolist()
    assert [d.average() for d in found] == average_surface_distance(prediction, target, C, **options).tolist()
    np.testing.assert_array_equal((prediction, target), before)


# Absent classes


@pytest.mark.parametrize(("function", "options"), DISTANCES)
def test_distance_of_absent_classes(function, options):
    prediction, target = [[0, 1, 0], [0, 0, 0]], [[0, 0, 3], [0, 0, 0]]  # 1 only predicted, 2 nowhere, 3 only true
    found = function(prediction, target, 4, spacing=(3, 2), **options)
    np.testing.assert_array_equal(found, [5, math.nan, 5])  # 5 is the diagonal: one step of 3, two of 2
    assert np.isnan(function(np.zeros((2, 2), int), np.zeros((2, 2), int), 4, **options)).all()


def test_reference_distance_is_0_for_a_class_that_either_lacks():
    prediction, target = [[0, 1, 0], [4, 0, 0]], [[0, 0, 3], [0, 0, 4]]
    found = hausdorff_distance_95(prediction, target, 5, spacing=(3, 2), convention="reference")
    np.testing.assert_array_equal(found, [0, 0, 0, 2])


def test_reference_distance_is_in_voxels():
    a, b = mask("#... ...."), mask(".... ...#")
    distance = hausdorff_distance_95(a, b, 2, spacing=(10, 10), convention="reference")
    np.testing.assert_allclose(distance, [math.sqrt(10)])


# Refusals


@pytest.mark.parametrize("function", [dice_score, surface_distances, hausdorff_distance_95, average_surface_distance])
@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (
            {"prediction": np.zeros((2, 3), int)},
            ValueError,
            r"`prediction` of the shape of `target`, \(2, 2\), got \(2,",
        ),
        ({"prediction": np.eye(2)}, TypeError, "`prediction` of an integer dtype, got float64"),
        ({"target": np.eye(2, dtype=bool)}, TypeError, "`target` of an integer dtype, got bool"),
        ({"target": 2 * np.eye(2, dtype=int)}, ValueError, r"`target` labels in \[0, 2\), got \[0, 2\]"),
        ({"prediction": -np.eye(2, dtype=int)}, ValueError, r"`prediction` labels in \[0, 2\), got \[-1, 0\]"),
        ({"num_classes": 1}, ValueError, "`num_classes` of at least 2, got 1"),
        ({"num_classes": 2.0}, TypeError, "`num_classes` to be an integer, got 2.0"),
    ],
)
def test_bad_input_is_named(function, change, error, message):
    plane = np.zeros((2, 2), int)
    with pytest.raises(error, match=message):
        function(**{"prediction": plane, "target": plane, "num_classes": 2, **change})


@pytest.mark.parametrize(
    ("function", "options", "message"),
    [
        *[
            (f, {"convention": "paper"}, "`convention` to be one of 'standard', 'reference', got 'paper'")
            for f in (dice_score, surface_distances, hausdorff_distance_95)
        ],
        (hausdorff_distance_95, {"directions": "mean"}, "`directions` to be one of 'pooled', 'larger', got 'mean'"),
        (average_surface_distance, {"directions": "larger"}, "`directions` to be one of 'pooled', 'mean', 'from_pred"),
        (
            hausdorff_distance_95,
            {"directions": "larger", "convention": "reference"},
            "`directions` to be 'pooled' in the reference's convention, got 'larger'",
        ),
    ],
)
def test_bad_choice_is_named(function, options, message):
    plane = np.eye(3, dtype=int)
    with pytest.raises(ValueError, match=message):
        function(plane, plane, 2, **options)


@pytest.mark.parametrize("shape", [(4,), (1, 2, 2, 2)])
def test_distance_refuses_a_batch(shape):
    labels = np.zeros(shape, int)
    with pytest.raises(ValueError, match=r"`target` of shape \(H, W\) or \(D, H, W\), got .* Call it once a case"):
        surface_distances(labels, labels, 2)


@pytest.mark.parametrize(
    "spacing", [1.0, (1.0,), (1.0, 1.0, 1.0), (1.0, 0.0), (1.0, -1.0), (1.0, math.nan), (1.0, math.inf)]
)
@pytest.mark.parametrize("function", [surface_distances, hausdorff_distance_95, average_surface_distance])
def test_bad_spacing_is_named(function, spacing):
    plane = np.eye(3, dtype=int)
    with pytest.raises(ValueError, match="`spacing` with 2 positive entries, one an axis, got"):
        function(plane, plane, 2, spacing=spacing)


def test_spacing_of_words_is_named():
    plane = np.eye(3, dtype=int)
    with pytest.raises(TypeError, match="`spacing` of numbers, got"):
        hausdorff_distance_95(plane, plane, 2, spacing=("1 mm", "1 mm"))
