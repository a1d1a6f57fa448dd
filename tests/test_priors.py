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

from nacl.priors import (
    BORDERS,
    PRIORS,
    mixed_windows,
    neighbour_prior,
    neighbour_shares,
    neighbour_window,
    one_hot,
    svls_prior,
)

C = 4
KERNELS = [1, 3, 5, 7]
MAP_SHAPES = array_shapes(min_dims=3, max_dims=3, max_side=6)
label_maps = arrays(np.int64, MAP_SHAPES, elements=st.sampled_from(range(C)))
holed_maps = arrays(np.int64, MAP_SHAPES, elements=st.sampled_from([*range(C), IGNORE]))
windows = st.fixed_dictionaries(
    {
        "prior": st.sampled_from(PRIORS),
        "kernel_size": st.sampled_from(KERNELS),
        "sigma": st.floats(0.5, 5),
        "border": st.sampled_from(BORDERS),
    }
)


def tau_of(target, **options):
    return neighbour_prior(torch.as_tensor(target), C, dtype=torch.float64, **options)


def random_map(*shape, holes=0.2, seed=0):
    rng = np.random.default_rng(seed)
    return np.where(rng.random(shape) < holes, IGNORE, rng.integers(0, C, shape))


@pytest.mark.parametrize("kernel_size", KERNELS)
@pytest.mark.parametrize("border", BORDERS)
@pytest.mark.parametrize("prior", PRIORS)
def test_prior_matches_the_loop_at_valid_pixels(prior, border, kernel_size):
    target = random_map(2, 6, 5)
    tau = tau_of(target, prior=prior, border=border, kernel_size=kernel_size, sigma=1.3)
    slow = oracles.prior(target, C, prior, kernel_size, 1.3, border)
    valid = np.broadcast_to((target != IGNORE)[:, None], slow.shape)
    np.testing.assert_allclose(tau.numpy()[valid], slow[valid], rtol=0, atol=1e-10)


@pytest.mark.parametrize("kernel_size", KERNELS)
@pytest.mark.parametrize("border", BORDERS)
def test_shares_and_seen_match_the_loop_everywhere(border, kernel_size):
    target = random_map(2, 6, 6, holes=0.7)
    weights = np.random.default_rng(1).random((kernel_size, kernel_size))
    fast, seen = neighbour_shares(torch.as_tensor(target), C, torch.as_tensor(weights), border=border)
    slow = oracles.shares(target, C, weights, border)
    np.testing.assert_array_equal(seen[:, 0], ~np.isnan(slow[:, 0]))
    np.testing.assert_allclose(fast, np.nan_to_num(slow), rtol=0, atol=1e-10)


@pytest.mark.parametrize("kernel_size", KERNELS)
@pytest.mark.parametrize("border", BORDERS)
def test_svls_prior_matches_the_loop(border, kernel_size):
    target = random_map(2, 5, 6, holes=0.6)
    options = {"kernel_size": kernel_size, "sigma": 0.8, "border": border}
    fast = svls_prior(torch.as_tensor(target), C, dtype=torch.float64, **options)
    np.testing.assert_allclose(fast, oracles.svls_tau(target, C, **options), rtol=0, atol=1e-10)


def test_authors_construction_of_svls_is_the_gaussian_prior():
    target = random_map(1, 7, 6, holes=0)
    g = oracles.gaussian_weights(3, 1.0)
    g[1, 1] = 1 - g[1, 1]
    g /= g[1, 1]
    channels = [ndimage.correlate(channel, g / g.sum(), mode="nearest") for channel in oracles.one_hot(target, C)[0]]
    tau = tau_of(target, prior="gaussian", kernel_size=3, sigma=1.0, border="replicate")
    np.testing.assert_allclose(tau[0], channels, rtol=0, atol=1e-10)


def test_mean_prior_at_an_image_corner_by_hand():
    target = torch.full((1, 3, 3), 2)
    corner = {border: tau_of(target, border=border)[0, :, 0, 0].mul(9).round(decimals=9).tolist() for border in BORDERS}
    assert corner == {
        "inside": [0, 0, 9, 0],
        "replicate": [0, 0, 9, 0],
        "background": [5, 0, 4, 0],
        "zero": [0, 0, 4, 0],
    }


@pytest.mark.parametrize("kernel_size", KERNELS)
def test_the_window_of_neighbours_is_the_gaussian_without_its_centre(kernel_size):
    ring = np.array(oracles.gaussian_weights(kernel_size, 0.9))
    ring[kernel_size // 2, kernel_size // 2] = 0
    expected = ring / ring.sum() if kernel_size > 1 else ring
    np.testing.assert_allclose(neighbour_window(kernel_size, 0.9), expected, rtol=0, atol=1e-14)


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


@light
@given(target=label_maps, prior=st.sampled_from(PRIORS), border=st.sampled_from(BORDERS))
def test_kernel_of_one_is_the_one_hot_label(target, prior, border):
    tau = tau_of(target, prior=prior, kernel_size=1, border=border)
    np.testing.assert_array_equal(tau, oracles.one_hot(target, C))


@light
@given(target=holed_maps, options=windows)
def test_tau_sums_to_one_or_less_with_border_zero(target, options):
    tau = tau_of(target, **options)
    total = tau.sum(dim=1)[torch.as_tensor(target != IGNORE)]
    assert (tau >= 0).all()
    assert (total <= 1 + 1e-12).all()
    if options["border"] != "zero":
        torch.testing.assert_close(total, torch.ones_like(total), rtol=0, atol=1e-12)


def test_border_zero_loses_five_ninths_in_the_corner():
    assert tau_of(torch.zeros(1, 4, 4).long(), border="zero").sum(dim=1)[0, 0, 0].item() == pytest.approx(4 / 9)


@light
@given(target=holed_maps, options=windows, order=st.permutations(range(C)))
def test_relabelling_the_classes_permutes_tau(target, options, order):
    if options["border"] == "background":  # names class 0
        order = [0, *(k for k in order if k)]
    renamed = np.where(target == IGNORE, IGNORE, np.array(order)[target.clip(0)])
    torch.testing.assert_close(tau_of(renamed, **options)[:, order], tau_of(target, **options), rtol=0, atol=1e-12)


@light
@given(target=holed_maps, options=windows, dims=st.sampled_from([(1,), (2,), (1, 2)]))
def test_flips_commute_with_tau(target, options, dims):
    flipped = torch.as_tensor(target).flip(dims)
    expected = tau_of(target, **options).flip([d + 1 for d in dims])
    torch.testing.assert_close(tau_of(flipped, **options), expected, rtol=0, atol=1e-12)


@light
@given(target=holed_maps, options=windows)
def test_transposition_commutes_with_tau(target, options):
    transposed = torch.as_tensor(target).mT
    torch.testing.assert_close(tau_of(transposed, **options), tau_of(target, **options).mT, rtol=0, atol=1e-12)


@light
@given(target=holed_maps, options=windows)
def test_images_of_a_batch_do_not_mix(target, options):
    alone = torch.cat([tau_of(target[i : i + 1], **options) for i in range(len(target))])
    torch.testing.assert_close(tau_of(target, **options), alone, rtol=0, atol=1e-12)


@pytest.mark.parametrize("kernel_size", [3, 5])
@pytest.mark.parametrize("prior", PRIORS)
def test_map_with_an_ignored_region_equals_its_crop(prior, kernel_size):
    target = random_map(2, 8, 7, holes=0.1)
    target[:, 5:], target[:, :, :2] = IGNORE, IGNORE
    crop = target[:, :5, 2:]
    valid = torch.as_tensor(crop != IGNORE)[:, None].expand(-1, C, -1, -1)
    whole = tau_of(target, prior=prior, kernel_size=kernel_size)[:, :, :5, 2:]
    torch.testing.assert_close(whole[valid], tau_of(crop, prior=prior, kernel_size=kernel_size)[valid])


@pytest.mark.parametrize("prior", PRIORS)
def test_uint8_label_156_is_not_ignored_for_minus_100(prior):
    target = torch.tensor([[[0, 156, 156]]])
    torch.testing.assert_close(
        neighbour_prior(target.to(torch.uint8), 157, prior=prior), neighbour_prior(target, 157, prior=prior)
    )
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
    assert neighbour_prior(torch.zeros(1, 3, 3, dtype=torch.int16), 2, prior=prior, dtype=dtype).dtype == dtype


@light
@given(target=holed_maps, kernel_size=st.sampled_from(KERNELS))
def test_mixed_windows_are_those_where_tau_is_not_the_label(target, kernel_size):
    mixed = mixed_windows(torch.as_tensor(target), kernel_size=kernel_size).numpy()
    tau = oracles.shares(target, C, oracles.mean_weights(kernel_size))
    softened = np.abs(np.nan_to_num(tau) - oracles.one_hot(target, C)).max(axis=1) > 1e-9
    np.testing.assert_array_equal(mixed, softened & (target != IGNORE))


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"prior": "gausian"}, ValueError, "`prior` to be one of .* got 'gausian'. Did you mean 'gaussian'?"),
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
        ({"target": torch.zeros(3, 3).long()}, ValueError, r"`target` of shape \(N, H, W\), got \(3, 3\)"),
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
    exact = neighbour_prior(target, C, prior=prior, kernel_size=5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        tau = neighbour_prior(target, C, prior=prior, kernel_size=5)
    assert tau.dtype == torch.float32
    assert torch.equal(tau, exact)
