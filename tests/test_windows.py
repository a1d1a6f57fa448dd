"""Sliding windows: exact where they can be, else the blend of a loop by hand; and nothing of the windows shows."""

import math
import sys
from itertools import product

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from nacl.data import Case
from nacl.data.patches import patches_of
from nacl.training.windows import BLENDS, sliding_logits

pytest.importorskip("monai")

CPU = torch.device("cpu")
SHAPE = (6, 11, 9)


def random_case(shape=SHAPE, *, channels: int = 2, seed: int = 0) -> Case:
    rng = np.random.default_rng(seed)
    return Case("a", "test", rng.random((channels, *shape), np.float32), np.zeros(shape, np.uint8), (3.0, 1.0, 1.0))


def pointwise(channels: int = 2, classes: int = 3) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv3d(channels, 5, 1), nn.Tanh(), nn.Conv3d(5, classes, 1))


def small_network(channels: int = 2, classes: int = 3) -> nn.Module:
    """One that sees its neighbours, and so the faces of its window."""
    torch.manual_seed(1)
    layers = [nn.Conv3d(channels, 6, 3, padding=1), nn.ReLU(), nn.Conv3d(6, classes, (1, 5, 5), padding=(0, 2, 2))]
    return nn.Sequential(*layers)


def whole(model: nn.Module, image: np.ndarray) -> Tensor:
    with torch.inference_mode():
        return model.eval()(torch.from_numpy(image)[None])[0].movedim(0, 1)


# What must come out exactly


@pytest.mark.parametrize("overlap", [0, 0.25, 0.5, 0.8])
@pytest.mark.parametrize("patch", [(1, 1, 1), (2, 4, 4), (4, 5, 7), (6, 11, 9), (6, 20, 4), (9, 3, 12), (7, 12, 10)])
def test_a_network_that_sees_one_voxel_gives_what_it_gives_for_the_whole_volume(patch, overlap):
    case, model = random_case(), pointwise()
    overlap = 0 if patch == (1, 1, 1) else overlap
    found = sliding_logits(model, case, patch, CPU, overlap=overlap)
    assert (found.shape, found.dtype) == ((6, 3, 11, 9), torch.float32)
    torch.testing.assert_close(found, whole(model, case.image), atol=2e-6, rtol=1e-5)


@pytest.mark.parametrize("overlap", [0, 0.5])
def test_a_volume_as_large_as_the_window_is_one_forward_pass(overlap):
    case, model = random_case(), small_network()
    found = sliding_logits(model, case, SHAPE, CPU, overlap=overlap)
    torch.testing.assert_close(found, whole(model, case.image), atol=2e-6, rtol=1e-5)


@pytest.mark.parametrize("patch", [(8, 14, 12), (7, 11, 10), (6, 12, 9), (9, 16, 16)])
def test_a_smaller_volume_lies_where_it_lies_in_training(patch):
    """One forward pass over the patch that training draws of it, cut to the volume."""
    case, model = random_case(), small_network()
    ((image, label),) = patches_of([case], CPU, patch).drawn(0).batches(torch.arange(1), 1)
    inside = (label[0] != -100).nonzero()
    low, high = inside.amin(dim=0).tolist(), (inside.amax(dim=0) + 1).tolist()
    with torch.inference_mode():
        logits = model(image)[0].movedim(0, 1)
    wanted = logits[low[0] : high[0], :, low[1] : high[1], low[2] : high[2]]
    torch.testing.assert_close(sliding_logits(model, case, patch, CPU), wanted, atol=2e-6, rtol=1e-5)


def test_windows_without_overlap_that_tile_the_volume_are_laid_side_by_side():
    case, model = random_case((4, 8, 12)), small_network()
    found = sliding_logits(model, case, (2, 4, 6), CPU, overlap=0)
    for z, y, x in product((0, 2), (0, 4), (0, 6)):
        window = (slice(z, z + 2), slice(y, y + 4), slice(x, x + 6))
        wanted = whole(model, case.image[(slice(None), *window)])
        torch.testing.assert_close(found[window[0], :, window[1], window[2]], wanted, atol=2e-6, rtol=1e-5)


# The blend


def blended_by_hand(model: nn.Module, case: Case, patch, overlap: float, blend: str) -> np.ndarray:
    """Window after window, voxel weights from the formula, float64; (C, D, H, W)."""
    begins, weights = [], []
    for size, length in zip(patch, case.label.shape, strict=True):
        step = size if size == length else max(1, int(size * (1 - overlap)))
        count = math.ceil((length - size) / step) + 1
        begins.append([min(index * step, length - size) for index in range(count)])
        weights.append([math.exp(-((i - (size - 1) / 2) ** 2) / (2 * (size / 8) ** 2)) for i in range(size)])
    weight = np.einsum("i,j,k->ijk", *weights).clip(min=1e-3)  # MONAI's least weight
    total, count = np.zeros((3, *case.label.shape)), np.zeros(case.label.shape)
    for begin in product(*begins):
        window = tuple(slice(first, first + size) for first, size in zip(begin, patch, strict=True))
        logits = whole(model, case.image[(slice(None), *window)]).movedim(0, 1).double().numpy()
        exponentials = np.exp(logits)
        total[(slice(None), *window)] += weight * (logits if blend == "logits" else exponentials / exponentials.sum(0))
        count[window] += weight
    return total / count if blend == "logits" else np.log(total / count)


@pytest.mark.parametrize("blend", ["logits", "probs"])
@pytest.mark.parametrize("overlap", [0, 0.25, 0.5, 0.7])
@pytest.mark.parametrize("patch", [(2, 4, 4), (4, 5, 7), (6, 8, 5), (3, 11, 4)])
def test_windows_are_blended_by_their_weights(patch, overlap, blend):
    case, model = random_case(), small_network()
    found = sliding_logits(model, case, patch, CPU, overlap=overlap, blend=blend)
    wanted = blended_by_hand(model, case, patch, overlap, blend)
    assert np.abs(found.movedim(1, 0).numpy() - wanted).max() < 1e-5


def test_blended_probabilities_are_the_softmax_of_what_is_given():
    case, model = random_case(), small_network()
    found = sliding_logits(model, case, (4, 6, 6), CPU, blend="probs")
    torch.testing.assert_close(found.exp().sum(dim=1), torch.ones(6, 11, 9))
    torch.testing.assert_close(found.softmax(dim=1), found.exp())
    assert not torch.allclose(found.exp(), sliding_logits(model, case, (4, 6, 6), CPU).softmax(dim=1), atol=1e-5)


def test_probabilities_that_vanish_have_finite_logits_and_nan_stays_nan():
    class Sure(nn.Module):
        def forward(self, image: Tensor) -> Tensor:
            return torch.cat([image[:, :1], image[:, :1] + 1000], dim=1)

    case = random_case()
    found = sliding_logits(Sure(), case, (4, 6, 6), CPU, blend="probs")
    assert found.isfinite().all()
    assert (found[:, 0] < -87).all()
    lost = sliding_logits(Output(lambda z: z * torch.nan), case, (4, 6, 6), CPU, blend="probs")
    assert lost.isnan().all()


def test_two_windows_that_disagree_are_blended_to_less_confidence_by_probabilities():
    """Of equal weight, logits of 9 and -1: their mean is 4, a probability of 0.982; of probabilities, 0.634."""

    class Sides(nn.Module):
        """The logit is the image where the window begins."""

        def forward(self, image: Tensor) -> Tensor:
            first = image[..., :1].expand_as(image)
            return torch.cat([torch.zeros_like(first), first], dim=1)

    image = np.array([9, -1, 0], np.float32).reshape(1, 1, 1, 3)
    case = Case("a", "test", image, np.zeros((1, 1, 3), np.uint8), (1, 1, 1))
    logits, probs = (sliding_logits(Sides(), case, (1, 1, 2), CPU, blend=blend)[0, :, 0, 1] for blend in BLENDS)
    assert logits.tolist() == pytest.approx([0, 4], abs=1e-5)
    assert logits.softmax(dim=0)[1].item() == pytest.approx(0.982, abs=5e-4)
    assert probs.exp()[1].item() == pytest.approx((1 / (1 + math.exp(-9)) + 1 / (1 + math.exp(1))) / 2, abs=1e-6)
    assert probs.exp()[1].item() == pytest.approx(0.634, abs=5e-4)


def test_half_is_the_overlap_by_default():
    case, model = random_case(), small_network()
    found = sliding_logits(model, case, (4, 6, 6), CPU)
    assert torch.equal(found, sliding_logits(model, case, (4, 6, 6), CPU, overlap=0.5))
    assert not torch.equal(found, sliding_logits(model, case, (4, 6, 6), CPU, overlap=0.25))


def test_a_temperature_before_the_blend_is_one_after_it():
    """What blended probabilities do not have."""

    class Cooler(nn.Module):
        def __init__(self, model: nn.Module) -> None:
            super().__init__()
            self.model = model

        def forward(self, image: Tensor) -> Tensor:
            return self.model(image) / 2.5

    case, model = random_case(), small_network()
    after = sliding_logits(model, case, (4, 6, 6), CPU) / 2.5
    torch.testing.assert_close(sliding_logits(Cooler(model), case, (4, 6, 6), CPU), after)


@pytest.mark.parametrize("blend", BLENDS)
def test_the_blend_is_at_most_as_wrong_as_its_windows(blend):
    """The mean negative log-likelihood of windows bounds the blend's, since log-sum-exp and -log are convex."""
    target = torch.randint(0, 3, (1, 1, 8), generator=torch.Generator().manual_seed(0))

    class Moody(nn.Module):
        """Other logits for each window, the same for all of its voxels."""

        def __init__(self) -> None:
            super().__init__()
            self.seen = []

        def forward(self, image: Tensor) -> Tensor:
            generator = torch.Generator().manual_seed(len(self.seen))
            logits = 4 * torch.randn(len(image), 3, 1, 1, 1, generator=generator)
            self.seen.append(logits)
            return logits.expand(-1, -1, *image.shape[2:]).clone()

    model, case = Moody(), random_case((1, 1, 8))
    found = sliding_logits(model, case, (1, 1, 4), CPU, blend=blend)
    nll = nn.functional.cross_entropy(found.movedim(1, 0)[None], target[None], reduction="none")[0, 0, 0]
    windows = torch.cat(model.seen).flatten(1)
    of_windows = torch.stack(
        [nn.functional.cross_entropy(z.expand(8, 3), target.flatten(), reduction="none") for z in windows]
    )
    weight = torch.tensor([math.exp(-((i - 1.5) ** 2) / (2 * 0.5**2)) for i in range(4)]).double()
    mean = torch.zeros(8, dtype=torch.float64)
    count = torch.zeros(8, dtype=torch.float64)
    for index, begin in enumerate((0, 2, 4)):
        mean[begin : begin + 4] += weight * of_windows[index, begin : begin + 4]
        count[begin : begin + 4] += weight
    assert (nll <= mean / count + 1e-5).all()


# How it is computed


def test_the_same_numbers_each_time_without_gradients_in_evaluation_mode():
    class Noted(nn.Module):
        """Dropout, which acts in training mode only, and notes of each call."""

        def __init__(self) -> None:
            super().__init__()
            self.inner, self.calls = nn.Sequential(small_network(), nn.Dropout(0.5)), []

        def forward(self, image: Tensor) -> Tensor:
            self.calls.append((tuple(image.shape), self.training, torch.is_inference_mode_enabled(), image.dtype))
            return self.inner(image)

    case, model = random_case(), Noted().train()
    first, second = (sliding_logits(model, case, (4, 6, 6), CPU) for _ in range(2))
    assert torch.equal(first, second)
    assert not first.requires_grad
    assert first.is_contiguous()
    for shape, training, inference, dtype in model.calls:
        assert shape[1:] == (2, 4, 6, 6)
        assert shape[0] <= 8
        assert (training, inference, dtype) == (False, True, torch.float32)


def test_a_network_can_be_trained_after_a_prediction():
    """Even one whose weights the prediction put into another layout."""
    case, model = random_case(), small_network()
    sliding_logits(model, case, (4, 6, 6), CPU)
    optimizer = torch.optim.Adam(model.parameters())
    model.train()(torch.from_numpy(case.image)[None]).mean().backward()
    optimizer.step()
    assert all(weight.grad is not None for weight in model.parameters())


def test_the_case_stays_as_it_is_even_for_a_network_that_gives_its_image():
    case = random_case(channels=2)
    before = case.image.copy()
    found = sliding_logits(nn.Identity(), case, (6, 6, 6), CPU)
    assert np.array_equal(case.image, before)
    assert np.allclose(found.movedim(1, 0), before, atol=1e-6)


def test_a_network_under_autocast_still_predicts_in_float32():
    case, model = random_case(), small_network()
    wanted = sliding_logits(model, case, (4, 6, 6), CPU)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = sliding_logits(model, case, (4, 6, 6), CPU)
    assert torch.equal(found, wanted)


def test_a_network_with_instance_norm_of_monai_gives_finite_logits():
    from monai.networks.nets import DynUNet

    torch.manual_seed(0)
    kernels, strides = [(1, 3, 3), (3, 3, 3), (3, 3, 3)], [1, (1, 2, 2), 2]
    model = DynUNet(3, 2, 4, kernels, strides, strides[1:], filters=[4, 6, 8], deep_supervision=True)
    found = sliding_logits(model, random_case((7, 20, 30)), (4, 16, 16), CPU)
    assert found.shape == (7, 4, 20, 30)
    assert found.isfinite().all()


# What is refused


class Output(nn.Module):
    """Gives what it was told, made from the logits."""

    def __init__(self, change) -> None:
        super().__init__()
        self.model, self.change = pointwise(), change

    def forward(self, image: Tensor) -> object:
        return self.change(self.model(image))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda z: (z, z), "`model` to give one tensor of logits, got tuple.*main output"),
        (lambda z: {"out": z}, "`model` to give one tensor of logits, got dict"),
        (lambda z: z[:, :, :, ::2], r"`model` to give logits of shape \(8, C, 4, 6, 6\), got \(8, 3, 4, 3, 6\)"),
        (lambda z: z[:, :, 0], r"`model` to give logits of shape \(8, C, 4, 6, 6\), got \(8, 3, 6, 6\)"),
        (lambda z: z[:1], r"`model` to give logits of shape \(8, C, 4, 6, 6\), got \(1, 3, 4, 6, 6\)"),
    ],
)
def test_a_network_that_gives_something_else_is_named(change, message):
    with pytest.raises(ValueError, match=message):
        sliding_logits(Output(change), random_case(), (4, 6, 6), CPU)


@pytest.mark.parametrize(
    ("overlap", "error", "message"),
    [
        (1, ValueError, r"`overlap` in \[0, 1\), got 1"),
        (1.5, ValueError, r"`overlap` in \[0, 1\), got 1.5"),
        (-0.1, ValueError, "`overlap`.*got -0.1"),
        (math.nan, ValueError, "`overlap`.*got nan"),
        ("half", TypeError, "`overlap` to be a number, got 'half'"),
        (None, TypeError, "`overlap`"),
    ],
)
def test_overlaps_that_are_none_are_named(overlap, error, message):
    with pytest.raises(error, match=message):
        sliding_logits(pointwise(), random_case(), (4, 6, 6), CPU, overlap=overlap)


def test_blends_that_are_none_are_named():
    with pytest.raises(ValueError, match=r"`blend` to be one of 'logits', 'probs', got 'prob'\. Did you mean 'probs'"):
        sliding_logits(pointwise(), random_case(), (4, 6, 6), CPU, blend="prob")


@pytest.mark.parametrize("patch", [(4, 6), (0, 6, 6), 6, None])
def test_patches_that_are_none_are_named(patch):
    with pytest.raises(ValueError, match="`patch`"):
        sliding_logits(pointwise(), random_case(), patch, CPU)


def test_without_monai_its_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "monai.inferers", None)
    with pytest.raises(
        ModuleNotFoundError, match=r"`monai` .*sliding windows.*pip install 'nacl-calibration\[monai\]'"
    ):
        sliding_logits(pointwise(), random_case(), (4, 6, 6), CPU)
