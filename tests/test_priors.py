"""Class shares of a neighbourhood, against loops and under symmetries."""

import numpy as np
import oracles
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from oracles import IGNORE, light
from scipy import ndimage

from nacl._windows import box_sum, ring_sum
from nacl.priors import BORDERS, IMAGE_PRIORS, PRIORS, mixed_windows, neighbour_prior, one_hot, svls_prior

C = 4
KERNELS = [1, 3, 5, 7]
WINDOWS = [
    *(((2, 6, 5), size) for size in (1, 3, 5, 7, (3, 5))),
    *(((1, 4, 3, 3), size) for size in (1, 3, (3, 3, 1), (1, 3, 5))),
]
windows_of_maps = pytest.mark.parametrize(("shape", "kernel_size"), WINDOWS, ids=str)
MAP_SHAPES = array_shapes(min_dims=3, max_dims=4, max_side=5)
label_maps = arrays(np.int64, MAP_SHAPES, elements=st.sampled_from(range(C)))
holed_maps = arrays(np.int64, MAP_SHAPES, elements=st.sampled_from([*range(C), IGNORE]))
windows = st.fixed_dictionaries(
    {
        "prior": st.sampled_from(PRIORS),
        "kernel_size": st.sampled_from(KERNELS[:3]),
        "sigma": st.floats(0.5, 5),
        "border": st.sampled_from(BORDERS),
    }
)
READS_NUMBERS = ("max", "min", "median", "mode")
SUMS_TO_ONE = sorted(set(PRIORS) - {"gradient", "bilateral"})


def grey(target, channels=2):
    """An image for a label map."""
    size = (len(target), channels, *target.shape[1:])
    return torch.as_tensor(np.random.default_rng(7).standard_normal(size))


def tau_of(target, image=None, **options):
    target = torch.as_tensor(target)
    if image is None and options.get("prior") in IMAGE_PRIORS:
        image = grey(target)
    return neighbour_prior(target, C, image=image, dtype=torch.float64, **options)


def random_map(*shape, holes=0.2, seed=0):
    rng = np.random.default_rng(seed)
    return np.where(rng.random(shape) < holes, IGNORE, rng.integers(0, C, shape))


# Against loops


@windows_of_maps
@pytest.mark.parametrize("border", BORDERS)
@pytest.mark.parametrize("prior", PRIORS)
def test_prior_matches_the_loop_at_valid_pixels(prior, border, shape, kernel_size):
    target = random_map(*shape)
    tau = tau_of(target, prior=prior, border=border, kernel_size=kernel_size, sigma=1.3)
    slow = oracles.prior(target, C, prior, kernel_size, 1.3, border, image=grey(target).numpy())
    valid = np.broadcast_to((target != IGNORE)[:, None], slow.shape)
    np.testing.assert_allclose(tau.numpy()[valid], slow[valid], rtol=0, atol=1e-10)


@windows_of_maps
@pytest.mark.parametrize("border", BORDERS)
def test_svls_prior_matches_the_loop_everywhere(border, shape, kernel_size):
    target = random_map(*shape, holes=0.6)
    options = {"kernel_size": kernel_size, "sigma": 0.8, "border": border}
    fast = svls_prior(torch.as_tensor(target), C, dtype=torch.float64, **options)
    np.testing.assert_allclose(fast, oracles.svls_tau(target, C, **options), rtol=0, atol=1e-10)


@pytest.mark.parametrize("window", [(1, 1), (3, 3), (7, 7), (3, 5), (17, 1), (3, 3, 3), (1, 5, 3)])
def test_sums_over_windows_match_a_correlation(window):
    values = np.random.default_rng(0).integers(0, 50, (2, *(size + 3 for size in window)))
    inside = (slice(None), *(slice(size // 2, size // 2 + 4) for size in window))
    expected = np.stack([ndimage.correlate(x, np.ones(window, int), mode="constant") for x in values])
    assert (box_sum(torch.as_tensor(values), window).numpy() == expected[inside]).all()
    ring = oracles.gaussian_weights(window, 0.9, len(window))
    ring[tuple(size // 2 for size in window)] = 0
    if ring.any():
        ring /= ring.max()  # the nearest neighbours weigh 1
    expected = np.stack([ndimage.correlate(x.astype(float), ring, mode="constant") for x in values])
    got = ring_sum(torch.as_tensor(values), window, 0.9, torch.float64)
    np.testing.assert_allclose(got, expected[inside], rtol=0, atol=1e-10)


@pytest.mark.parametrize(("shape", "kernel_size"), [((1, 20, 20), 17), ((1, 8, 8, 8), 7)])
@pytest.mark.parametrize("prior", ["mean", "median", "mode", "gaussian"])
def test_windows_of_more_than_255_pixels_are_counted_right(prior, shape, kernel_size):
    target = torch.ones(shape).long()
    target[0, 0, 0] = 2
    middle = (0, slice(None), *(size // 2 for size in shape[1:]))
    tau = tau_of(target, prior=prior, kernel_size=kernel_size)[middle]
    assert tau.sum().item() == pytest.approx(1, abs=1e-12)
    assert tau[1] > 0.9
    whole = tau_of(torch.ones(shape).long(), prior=prior, kernel_size=kernel_size, border="replicate")
    assert (whole[:, 1] == 1).all()


def test_authors_construction_of_svls_is_the_gaussian_prior():
    target = random_map(1, 7, 6, holes=0)
    g = oracles.gaussian_weights(3, 1.0)
    g[1, 1] = 1 - g[1, 1]
    g /= g[1, 1]
    channels = [ndimage.correlate(channel, g / g.sum(), mode="nearest") for channel in oracles.one_hot(target, C)[0]]
    tau = tau_of(target, prior="gaussian", kernel_size=3, sigma=1.0, border="replicate")
    np.testing.assert_allclose(tau[0], channels, rtol=0, atol=1e-10)


# By hand


def test_mean_prior_at_an_image_corner_by_hand():
    target = torch.full((1, 3, 3), 2)
    corner = {border: tau_of(target, border=border)[0, :, 0, 0].mul(9).round(decimals=9).tolist() for border in BORDERS}
    assert corner == {
        "inside": [0, 0, 9, 0],
        "replicate": [0, 0, 9, 0],
        "background": [5, 0, 4, 0],
        "zero": [0, 0, 4, 0],
    }


@pytest.mark.parametrize(("prior", "label"), [("max", 3), ("min", 0), ("median", 1), ("mode", 1)])
def test_elected_class_by_hand(prior, label):
    target = torch.tensor([[[0, 0, 1], [1, IGNORE, 3], [1, 2, 3]]])  # 0 0 1 1 1 2 3 3
    tau = tau_of(torch.where(target == IGNORE, 1, target), prior=prior)[0, :, 1, 1]
    assert tau.argmax() == label
    assert tau.sum() == 1


@pytest.mark.parametrize(("prior", "label"), [("median", 0), ("mode", 0)])
def test_of_two_that_tie_the_lower_is_elected(prior, label):
    assert tau_of(torch.tensor([[[2, 0]]]), prior=prior)[0, label, 0].tolist() == [1, 1]


def test_image_proportions_by_hand():
    target, image = torch.tensor([[[0, 1]]]), torch.tensor([[[0.0, 2.0]]])
    for prior, near in (("image_proportions_l1", np.exp(-2)), ("image_proportions_l2", np.exp(-4))):
        tau = tau_of(target, image, prior=prior)[0, :, 0, 0]
        assert tau.tolist() == pytest.approx([1 / (1 + near), near / (1 + near), 0, 0])


def test_gradient_and_bilateral_by_hand():
    target, image = torch.tensor([[[0, 1]]]), torch.tensor([[[0.0, 2.0]]])
    assert tau_of(target, image, prior="gradient")[0, :, 0, 0].tolist() == pytest.approx([0, 2 / 9, 0, 0])
    weight = oracles.gaussian_weights(3, 1.0)[1, 2]
    assert tau_of(target, image, prior="bilateral")[0, 1, 0, 0].item() == pytest.approx(2 * weight / 9)


# Faults of the reference code, kept for the record or mended


@pytest.mark.parametrize("prior", ["gradient", "bilateral"])
def test_tau_of_bilateral_and_gradient_is_zero_in_a_flat_image(prior):
    target = torch.as_tensor(random_map(1, 5, 5, holes=0))
    assert (tau_of(target, torch.full((1, 5, 5), 0.7), prior=prior)[:, :, 1:-1, 1:-1] == 0).all()


@pytest.mark.parametrize("prior", ["gradient", "bilateral"])
def test_centre_of_bilateral_and_gradient_weighs_nothing(prior):
    target = torch.ones(1, 3, 3).long()
    target[0, 1, 1] = 2
    tau = tau_of(target, prior=prior)[0, :, 1, 1]
    assert tau[2] == 0
    assert tau[1] > 0


@pytest.mark.parametrize("prior", PRIORS)
def test_one_renumbering_moves_the_elected_class_and_no_other_prior(prior):
    target, order = torch.as_tensor(random_map(2, 6, 6, holes=0)), torch.tensor([2, 0, 3, 1])
    image = grey(target)
    moved = tau_of(order[target], image, prior=prior)[:, order]
    same = torch.allclose(moved, tau_of(target, image, prior=prior), rtol=0, atol=1e-12)
    assert same == (prior not in READS_NUMBERS)


@pytest.mark.parametrize("kernel_size", [5, 7])
def test_gaussian_prior_follows_its_kernel_size(kernel_size):
    target = random_map(1, 9, 9)
    wide, narrow = (tau_of(target, prior="gaussian", kernel_size=k) for k in (kernel_size, 3))
    assert not torch.allclose(wide, narrow)


# Windows


def test_huge_sigma_weighs_all_neighbours_alike():
    target = random_map(1, 5, 5)
    ring = np.ones((5, 5))
    ring[2, 2] = 0
    tau = svls_prior(torch.as_tensor(target), C, kernel_size=5, sigma=1e6, dtype=torch.float64)
    np.testing.assert_allclose(tau, oracles.shares(target, C, ring), rtol=0, atol=1e-10)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("sigma", [0.1, 0.05, 0.02, 1e-3])
def test_tiny_sigma_weighs_only_the_four_nearest_neighbours(sigma, dtype):
    target = torch.tensor([[[1, 0, 2], [0, 3, 0], [2, 3, 1]]])
    tau = svls_prior(target, C, sigma=sigma, dtype=dtype)[0, :, 1, 1]
    torch.testing.assert_close(tau, torch.tensor([0.75, 0, 0, 0.25], dtype=dtype))


@pytest.mark.parametrize("shape", [(0, 3, 3), (1, 1, 1), (1, 1, 1, 1), (0, 2, 2, 2)])
@pytest.mark.parametrize("border", BORDERS)
@pytest.mark.parametrize("prior", PRIORS)
def test_empty_batches_and_single_pixels(prior, border, shape):
    tau = tau_of(torch.full(shape, 2), prior=prior, border=border, kernel_size=5)
    assert tau.shape == (shape[0], C, *shape[1:])
    assert tau.isfinite().all()


@pytest.mark.parametrize("num_classes", [2, 127, 128, 200])
@pytest.mark.parametrize("border", BORDERS)
def test_highest_class_of_any_number_is_seen(num_classes, border):
    target = torch.full((1, 3, 3), num_classes - 1)
    tau = neighbour_prior(target, num_classes, border=border)
    assert tau[0, num_classes - 1, 1, 1] == 1
    assert tau[0, num_classes - 1, 0, 0] == (1 if border in ("inside", "replicate") else np.float32(4 / 9))


# Invariants


@light
@given(target=label_maps, prior=st.sampled_from(SUMS_TO_ONE), border=st.sampled_from(BORDERS))
def test_kernel_of_one_is_the_one_hot_label(target, prior, border):
    tau = tau_of(target, prior=prior, kernel_size=1, border=border)
    np.testing.assert_array_equal(tau, oracles.one_hot(target, C))


@light
@given(target=holed_maps, options=windows)
def test_tau_sums_to_one_or_less_with_border_zero(target, options):
    tau = tau_of(target, **options)
    total = tau.sum(dim=1)[torch.as_tensor(target != IGNORE)]
    assert (tau >= 0).all()
    if options["prior"] in SUMS_TO_ONE:
        assert (total <= 1 + 1e-12).all()
    if options["prior"] in SUMS_TO_ONE and (options["border"] != "zero" or options["prior"] in READS_NUMBERS):
        torch.testing.assert_close(total, torch.ones_like(total), rtol=0, atol=1e-12)


def test_border_zero_loses_five_ninths_in_the_corner():
    assert tau_of(torch.zeros(1, 4, 4).long(), border="zero").sum(dim=1)[0, 0, 0].item() == pytest.approx(4 / 9)


@light
@given(target=holed_maps, options=windows, order=st.permutations(range(C)))
def test_relabelling_the_classes_permutes_tau(target, options, order):
    if options["prior"] in READS_NUMBERS:
        options = {**options, "prior": "mean"}
    if options["border"] == "background":  # names class 0
        order = [0, *(k for k in order if k)]
    renamed = np.where(target == IGNORE, IGNORE, np.array(order)[target.clip(0)])
    torch.testing.assert_close(tau_of(renamed, **options)[:, order], tau_of(target, **options), rtol=0, atol=1e-12)


@light
@given(target=holed_maps, options=windows, dims=st.sampled_from([(-1,), (-2,), (-2, -1)]))
def test_flips_commute_with_tau(target, options, dims):
    flipped, image = torch.as_tensor(target).flip(dims), grey(target).flip(dims)
    expected = tau_of(target, **options).flip(dims)
    torch.testing.assert_close(tau_of(flipped, image, **options), expected, rtol=0, atol=1e-12)


@light
@given(target=holed_maps, options=windows)
def test_transposition_commutes_with_tau(target, options):
    transposed, image = torch.as_tensor(target).mT, grey(target).mT
    torch.testing.assert_close(tau_of(transposed, image, **options), tau_of(target, **options).mT, rtol=0, atol=1e-12)


@light
@given(target=holed_maps, options=windows)
def test_images_of_a_batch_do_not_mix(target, options):
    images = grey(target).split(1)
    alone = torch.cat([tau_of(target[i : i + 1], images[i], **options) for i in range(len(target))])
    torch.testing.assert_close(tau_of(target, **options), alone, rtol=0, atol=1e-12)


@pytest.mark.parametrize("kernel_size", [3, 5])
@pytest.mark.parametrize("prior", PRIORS)
def test_map_with_an_ignored_region_equals_its_crop(prior, kernel_size):
    target = random_map(2, 8, 7, holes=0.1)
    target[:, 5:], target[:, :, :2] = IGNORE, IGNORE
    crop = target[:, :5, 2:]
    valid = torch.as_tensor(crop != IGNORE)[:, None].expand(-1, C, -1, -1)
    image = grey(target)
    whole = tau_of(target, image, prior=prior, kernel_size=kernel_size)[:, :, :5, 2:]
    part = tau_of(crop, image[:, :, :5, 2:], prior=prior, kernel_size=kernel_size)
    torch.testing.assert_close(whole[valid], part[valid])


@pytest.mark.parametrize("prior", PRIORS)
def test_uint8_label_156_is_not_ignored_for_minus_100(prior):
    target = torch.tensor([[[0, 156, 156]]])
    narrow, wide = (neighbour_prior(t, 157, prior=prior, image=grey(target)) for t in (target.to(torch.uint8), target))
    assert torch.equal(narrow, wide)
    assert one_hot(target.to(torch.uint8), 157)[0, 156, 0].tolist() == [0, 1, 1]
    assert mixed_windows(target.to(torch.uint8)).tolist() == [[[True, True, False]]]


def test_ignore_index_can_be_255_or_a_class():
    with_holes = torch.tensor([[[0, 1, 255]]], dtype=torch.uint8)
    assert neighbour_prior(with_holes, 2, ignore_index=255)[0, :, 0, 1].tolist() == [0.5, 0.5]
    no_background = neighbour_prior(torch.tensor([[[0, 1, 2]]]), 3, ignore_index=0)
    assert no_background[0, :, 0, 1].tolist() == [0, 0.5, 0.5]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("prior", PRIORS)
def test_result_has_the_dtype_asked_for(prior, dtype):
    target = torch.zeros(1, 3, 3, dtype=torch.int16)
    assert neighbour_prior(target, 2, prior=prior, image=grey(target), dtype=dtype).dtype == dtype


@light
@given(target=holed_maps, kernel_size=st.sampled_from(KERNELS[:3]))
def test_mixed_windows_are_those_where_tau_is_not_the_label(target, kernel_size):
    mixed = mixed_windows(torch.as_tensor(target), kernel_size=kernel_size).numpy()
    tau = oracles.shares(target, C, oracles.mean_weights(kernel_size, target.ndim - 1))
    softened = np.abs(np.nan_to_num(tau) - oracles.one_hot(target, C)).max(axis=1) > 1e-9
    np.testing.assert_array_equal(mixed, softened & (target != IGNORE))


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"prior": "gausian"}, ValueError, "`prior` to be one of .* got 'gausian'. Did you mean 'gaussian'?"),
        ({"prior": "neighbours"}, ValueError, "`prior` to be one of .* got 'neighbours'"),
        ({"prior": "gradient"}, ValueError, "`image` for prior='gradient', got None. Pass image="),
        (
            {"prior": "gradient", "image": torch.zeros(1, 3, 3).int()},
            TypeError,
            "`image` to be a floating torch.Tensor",
        ),
        ({"prior": "gradient", "image": torch.zeros(1, 4, 3)}, ValueError, r"`image` of shape .* got \(1, 1, 4, 3\)"),
        ({"kernel_size": (3, 3, 3)}, ValueError, r"`kernel_size` of one number, or 2, one an axis, got \(3, 3, 3\)"),
        ({"border": "reflect"}, ValueError, "`border` to be one of .* got 'reflect'"),
        ({"kernel_size": 4}, ValueError, "`kernel_size` to be odd, got 4"),
        ({"kernel_size": -3}, ValueError, "`kernel_size` of at least 1, got -3"),
        ({"kernel_size": 3.0}, TypeError, "`kernel_size` to be an integer, got 3.0"),
        ({"kernel_size": True}, TypeError, "`kernel_size` to be an integer, got True"),
        ({"prior": "gaussian", "sigma": 0}, ValueError, r"`sigma` in \(0, inf\), got 0"),
        ({"prior": "gaussian", "sigma": float("nan")}, ValueError, "`sigma` .* got nan"),
        ({"prior": "gaussian", "sigma": float("inf")}, ValueError, "`sigma` .* got inf"),
        ({"prior": "gaussian", "sigma": True}, TypeError, "`sigma` to be a number, got True"),
        ({"num_classes": 1}, ValueError, "`num_classes` of at least 2, got 1"),
        ({"num_classes": True}, TypeError, "`num_classes` to be an integer, got True"),
        (
            {"target": torch.zeros(3, 3).long()},
            ValueError,
            r"`target` of shape \(N, H, W\) or \(N, D, H, W\), got \(3, 3\)",
        ),
        ({"target": torch.zeros(1, 3, 3)}, TypeError, "`target` of an integer dtype, got torch.float32"),
        ({"target": torch.zeros(1, 3, 3).bool()}, TypeError, "`target` of an integer dtype, got torch.bool"),
        ({"target": np.zeros((1, 3, 3), int)}, TypeError, "`target` to be a torch.Tensor, got ndarray"),
        ({"target": torch.full((1, 3, 3), 4)}, ValueError, r"`target` values in \[0, 4\) .* got 4"),
        ({"target": torch.full((1, 3, 3), -1)}, ValueError, r"`target` values in \[0, 4\) .* got -1"),
    ],
)
def test_bad_input_is_named(change, error, message):
    with pytest.raises(error, match=message):
        neighbour_prior(**{"target": torch.zeros(1, 3, 3).long(), "num_classes": C, **change})


def test_window_of_mixed_windows_is_odd():
    with pytest.raises(ValueError, match="`kernel_size` to be odd, got 2"):
        mixed_windows(torch.zeros(1, 3, 3).long(), kernel_size=2)


@pytest.mark.parametrize("prior", PRIORS)
def test_autocast_does_not_round_tau(prior):
    target = torch.as_tensor(random_map(2, 9, 9))
    options = {"prior": prior, "kernel_size": 5, "image": grey(target).float()}
    exact = neighbour_prior(target, C, **options)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        tau = neighbour_prior(target, C, **options)
    assert tau.dtype == torch.float32
    assert torch.equal(tau, exact)
