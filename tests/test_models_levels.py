"""Kernels and strides of levels: worked examples, nnU-Net's own planner, and the U-Net for volumes against slices."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nacl.models import build_model
from nacl.models.levels import plan_levels
from nacl.models.unet import UNet, volume_levels


def test_thick_slices_are_left_alone_until_the_plane_is_as_coarse():
    kernels, strides = plan_levels((8, 96, 96), (10.0, 1.5, 1.5))
    # spacing 10, 1.5 -> 10, 3 -> 10, 6 (less than twice as far apart) -> 20, 12, with 4 slices left -> 20, 24
    assert strides == ((1, 1, 1), (1, 2, 2), (1, 2, 2), (2, 2, 2), (1, 2, 2))
    assert kernels == ((1, 3, 3), (1, 3, 3), (3, 3, 3), (3, 3, 3), (3, 3, 3))


def test_a_cube_is_halved_along_all_axes():
    kernels, strides = plan_levels((64, 64, 64), (1.0, 1.0, 1.0))
    assert strides == ((1, 1, 1), *[(2, 2, 2)] * 4)
    assert set(kernels) == {(3, 3, 3)}


def test_a_shallow_patch_keeps_its_slices():
    kernels, strides = plan_levels((4, 64, 64), (1.0, 1.0, 1.0))
    assert strides == ((1, 1, 1), *[(1, 2, 2)] * 4)
    assert set(kernels) == {(3, 3, 3)}


def test_one_slice_has_kernels_of_one():
    kernels, strides = plan_levels((1, 64, 64), (1.0, 1.0, 1.0))
    assert {kernel[0] for kernel in kernels} == {stride[0] for stride in strides} == {1}
    flat = plan_levels((64, 64), (1.0, 1.0))
    assert [kernel[1:] for kernel in kernels] == list(flat.kernels)
    assert [stride[1:] for stride in strides] == list(flat.strides)


def test_an_odd_axis_stays_and_does_not_hold_up_the_others():
    assert plan_levels((9, 32, 32), (1.0, 1.0, 1.0)).strides == ((1, 1, 1), *[(1, 2, 2)] * 3)


def test_the_thick_axis_may_be_any():
    turned = plan_levels((96, 8, 96), (1.5, 10.0, 1.5))
    straight = plan_levels((8, 96, 96), (10.0, 1.5, 1.5))
    assert [(b, a, c) for a, b, c in turned.strides] == list(straight.strides)
    assert [(b, a, c) for a, b, c in turned.kernels] == list(straight.kernels)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 8), st.sampled_from([0.5, 0.8, 1, 1.9, 2, 3.7, 10])), min_size=2, max_size=3))
def test_patches_of_powers_of_two_are_planned_as_by_nnunet(axes):
    topology = pytest.importorskip("nnunetv2.experiment_planning.experiment_planners.network_topology")
    patch, spacing = [2**power for power, _ in axes], [float(distance) for _, distance in axes]
    _, strides, kernels, _, _ = topology.get_pool_and_conv_props(spacing, patch, 4, 999)
    assert plan_levels(patch, spacing) == (tuple(kernels), tuple(strides))


@given(st.lists(st.tuples(st.integers(1, 200), st.floats(0.1, 20)), min_size=2, max_size=3), st.floats(0.1, 10))
def test_a_plan_fits_its_patch_and_does_not_know_the_unit(axes, unit):
    patch, spacing = zip(*axes, strict=True)
    kernels, strides = plan_levels(patch, spacing)
    assert len(kernels) == len(strides)
    for axis, size in enumerate(patch):
        product = 1
        for stride in strides:
            product *= stride[axis]
        assert size % product == 0
        assert product == 1 or size // product >= 4
        widths = [kernel[axis] for kernel in kernels]
        assert set(widths) <= {1, 3}
        assert widths == sorted(widths)
    if all(a == b or abs(max(a, b) / min(a, b) - 2**k) > 1e-6 for a in spacing for b in spacing for k in range(-9, 10)):
        assert plan_levels(patch, [unit * distance for distance in spacing]) == (kernels, strides)


@pytest.mark.parametrize(
    ("patch", "spacing", "error", "message"),
    [
        ((8, 8.5), (1, 1), TypeError, "`patch` to be an integer, got 8.5"),
        ((8, 8), (1, float("nan")), ValueError, "`spacing` in .*got nan"),
        ("88", (1, 1), ValueError, "`patch` of 2 or 3 numbers"),
        ((8, 8, 8), (1, 1), ValueError, "`spacing` of 3 numbers"),
    ],
)
def test_bad_patch_or_spacing_is_named(patch, spacing, error, message):
    with pytest.raises(error, match=message):
        plan_levels(patch, spacing)


# the U-Net for volumes


def test_levels_of_the_unet_by_worked_examples():
    paper = ((1, 1, 1), (2, 2, 2), (2, 2, 2), (2, 2, 2), (4, 4, 4))
    assert volume_levels(64, 1.0) == (((3, 3, 3),) * 5, paper)
    kernels, strides = volume_levels(8, 10 / 1.5)
    assert strides == ((1, 1, 1), (1, 2, 2), (1, 2, 2), (2, 2, 2), (4, 4, 4))
    assert [kernel[0] for kernel in kernels] == [1, 1, 3, 3, 1]  # one slice is left at the lowest level
    kernels, strides = volume_levels(6, 1.0)
    assert [stride[0] for stride in strides] == [1, 2, 1, 1, 1]
    assert [kernel[0] for kernel in kernels] == [3, 3, 3, 3, 3]
    assert [stride[0] for stride in volume_levels(16, 100.0).strides] == [1, 1, 1, 1, 1]


def test_the_unet_of_one_slice_is_the_unet_for_slices():
    torch.manual_seed(0)
    flat = build_model("unet", 2, 3, filters=4, patch=(64, 32))
    deep = build_model("unet", 2, 3, filters=4, patch=(1, 64, 32), spacing=(1.0, 1.0, 1.0))
    deep.load_state_dict({name: t.unsqueeze(2) if t.ndim == 4 else t for name, t in flat.state_dict().items()})
    images = torch.randn(2, 2, 64, 32)
    torch.testing.assert_close(deep(images.unsqueeze(2)).squeeze(2), flat(images))


def test_the_unet_of_very_thick_slices_sees_each_slice_alone():
    torch.manual_seed(0)
    flat = build_model("unet", 1, 3, filters=4, patch=(32, 32))
    deep = build_model("unet", 1, 3, filters=4, patch=(4, 32, 32), spacing=(100.0, 1.0, 1.0))
    deep.load_state_dict({name: t.unsqueeze(2) if t.ndim == 4 else t for name, t in flat.state_dict().items()})
    volume = torch.randn(2, 1, 4, 32, 32)
    slices = volume.transpose(1, 2).flatten(0, 1)
    torch.testing.assert_close(deep(volume).transpose(1, 2).flatten(0, 1), flat(slices))


def test_slices_that_are_not_thick_see_each_other():
    torch.manual_seed(0)
    model = build_model("unet", 1, 2, filters=4, patch=(8, 32, 32), spacing=(3.0, 1.0, 1.0))
    volume = torch.randn(1, 1, 8, 32, 32)
    other = volume.clone()
    other[:, :, 0] += 1
    with torch.no_grad():
        changed = (model(volume) - model(other)).abs().amax(dim=(0, 1, 3, 4)) > 0
    assert changed[1:].any()


def test_a_volume_of_another_depth_is_refused_where_it_can_not_be_halved():
    model = UNet(1, 2, filters=1, levels=volume_levels(8, 1.0))
    assert model(torch.zeros(1, 1, 16, 32, 32)).shape == (1, 2, 16, 32, 32)
    with pytest.raises(ValueError, match=r"`image` with a depth multiple of 8, got \(1, 1, 12, 32, 32\)\. Pad"):
        model(torch.zeros(1, 1, 12, 32, 32))
    with pytest.raises(ValueError, match=r"`image` of shape \(N, C, D, H, W\), got \(1, 1, 32, 32\)"):
        model(torch.zeros(1, 1, 32, 32))


@pytest.mark.parametrize("name", ["monai.DynUNet", "monai.AttentionUnet"])
def test_networks_of_monai_get_the_planned_strides(name):
    patch, spacing = (8, 96, 96), (10.0, 1.5, 1.5)
    levels = plan_levels(patch, spacing)
    model = build_model(name, 1, 3, filters=2, patch=patch, spacing=spacing)
    convolutions = [module for module in model.modules() if type(module) is torch.nn.Conv3d]
    found = [c.stride for c in convolutions if c.stride != (1, 1, 1)]
    assert found == list(levels.strides[1:])
    if name == "monai.DynUNet":
        firsts = [c.kernel_size for c in convolutions if c.stride != (1, 1, 1)]
        assert firsts == list(levels.kernels[1:])
    assert model(torch.randn(1, 1, *patch)).shape == (1, 3, *patch)
