"""One step: what the engines compute, that nothing in it waits for a GPU, and which step turned bad."""

import warnings

import numpy as np
import pytest
import torch
from conftest import square_case
from torch import Tensor, nn
from torch._dynamo.utils import counters
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode
from toy_training import CASES, model_of, same, seeded, train

from nacl.data.augment import Augmentation
from nacl.losses import LOSSES, CombinedLoss, DiceLoss, NACLLoss, Schedule, build_loss
from nacl.models import build_model
from nacl.training.step import Step

CPU = torch.device("cpu")


def batch(device: object = CPU, *, size: int = 32, samples: int = 2) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(samples, 1, size, size, generator=generator)
    label = torch.randint(0, 3, (samples, size, size), generator=generator, dtype=torch.uint8)
    return image.to(device), label.to(device)


def step_of(model: nn.Module, loss: nn.Module, device: torch.device = CPU, **options: object) -> Step:
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2, fused=device.type == "cuda" or None)  # as in `fit`
    return Step(model, loss, optimizer, 3, device=device, **options)


# Engines


def test_a_step_is_that_of_the_bare_loop():
    models = [model_of(0), model_of(0)]
    image, label = batch()
    step = step_of(models[0], NACLLoss())
    bare = torch.optim.Adam(models[1].parameters(), lr=1e-2)
    losses = []
    for seed in range(3):
        torch.manual_seed(seed)
        step(image, label)
        torch.manual_seed(seed)
        bare.zero_grad()
        loss = NACLLoss()(models[1](image.to(memory_format=torch.channels_last)), label.long())
        loss.backward()
        bare.step()
        losses.append(loss.item())
    assert same(models[0].state_dict(), models[1].state_dict())
    assert step.finish() == pytest.approx(np.mean(losses), rel=1e-6)


@pytest.mark.parametrize("loss", ["nacl", "crac"])
def test_compiled_a_training_has_the_same_numbers_up_to_rounding(loss):
    options = {"epochs": 2, "batch_size": 4}  # a last batch of another size
    model = lambda: seeded(lambda: build_model("unet", 1, 3, filters=2))  # noqa: E731
    made = lambda: build_loss(loss, num_classes=3)  # noqa: E731
    history, weights = train(model=model(), loss=made(), learning_rate=1e-3, **options)
    compiled, found = train(model=model(), loss=made(), learning_rate=1e-3, engine="compile", **options)
    assert [row["loss"] for row in compiled] == pytest.approx([row["loss"] for row in history], rel=1e-4)
    for name, expected in weights.items():
        torch.testing.assert_close(found[name], expected, rtol=1e-3, atol=1e-4)


def test_compiled_a_weight_that_changes_each_epoch_compiles_nothing_anew():
    """Of one shape of batch the network is one graph; with the loss it would be one an epoch, up to a limit of 8."""
    loss, schedule = NACLLoss(), Schedule(0.1, "linear", end=1.0, epochs=10)
    counters.clear()
    model = seeded(lambda: nn.Conv2d(1, 3, 3, padding=1))
    weigh = lambda epoch: loss.set(penalty_weight=schedule(epoch))  # noqa: E731
    train(model=model, loss=loss, epochs=10, engine="compile", before_epoch=weigh)
    assert counters["stats"]["unique_graphs"] == 1
    assert loss.options["penalty_weight"] == 1


def test_compiled_trainings_do_not_use_up_each_others_recompilations():
    counters.clear()
    with torch._dynamo.config.patch(recompile_limit=2):
        for weight in (0.1, 0.2, 0.3, 0.4):
            model = seeded(lambda: nn.Conv2d(1, 3, 3, padding=1))
            train(model=model, loss=NACLLoss(penalty_weight=weight), epochs=1, engine="compile")
    assert counters["stats"]["unique_graphs"] == 4


# Nothing waits


@pytest.mark.parametrize("name", LOSSES)
def test_a_step_looks_at_no_value(name):
    """On the meta device tensors have shapes only: whatever asks for a value, as `.item()` does, is an error."""
    loss = build_loss(name, num_classes=3)
    with torch.device("meta"):
        model = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Conv2d(4, 3, 1))
    step = step_of(model, loss.to("meta"), torch.device("meta"))
    image, label = (tensor.to("meta") for tensor in batch())
    for _ in range(2):
        step(image, label)
    assert len(step.losses) == 2
    with pytest.raises((RuntimeError, NotImplementedError)):
        step.finish()


def test_a_step_of_the_unet_on_a_pretended_gpu_looks_at_no_value(monkeypatch):
    """Tensors without memory that say they are on CUDA. Backward is left out: autograd's engine asks the driver."""
    backward = lambda loss: [setattr(p, "grad", torch.empty_like(p)) for p in step.parameters]  # noqa: E731
    monkeypatch.setattr(Tensor, "backward", backward)
    monkeypatch.setattr("nacl.losses._pixelwise._triton.available", lambda logits: False)
    place, loss = torch.device("cuda"), CombinedLoss(NACLLoss(), DiceLoss())
    with FakeTensorMode(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="CUDA is not available")  # autocast
        with place:
            model = build_model("unet", 1, 3, filters=2)
        step = step_of(model, loss, place)
        image = torch.empty(2, 1, 32, 32, device=place)
        label = torch.zeros(2, 32, 32, dtype=torch.uint8, device=place)
        for _ in range(2):
            step(image, label)
        assert step.losses[0].device.type == "cuda"
        with pytest.raises(DataDependentOutputException):
            step.losses[0].item()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine")
@pytest.mark.parametrize("engine", ["eager", "compile"])
def test_on_a_gpu_the_steps_of_an_epoch_wait_for_nothing(engine):
    place = torch.device("cuda")
    model = build_model("unet", 1, 3, filters=4).to(place, memory_format=torch.channels_last)
    step = step_of(model, NACLLoss(), place, engine=engine)
    image, label = batch(place)
    for _ in range(5):  # kernels are loaded and graphs recorded, which waits
        step(image, label)
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(3):
            changed = Augmentation()(image, label, torch.Generator().manual_seed(0))
            step(*changed)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert np.isfinite(step.finish())


# Who is blamed


class Fails(nn.Module):
    def __init__(self, message: str) -> None:
        super().__init__()
        self.message = message

    def forward(self, *_: Tensor) -> Tensor:
        raise RuntimeError(self.message)


@pytest.mark.parametrize(
    ("model", "loss"),
    [
        (model_of(0), Fails("sizes differ")),
        *((nn.Sequential(nn.Conv2d(1, 3, 1), Fails(words)), NACLLoss()) for words in ("CUDA error: x", "cuDNN error")),
    ],
)
def test_errors_of_the_loss_and_of_the_device_are_not_blamed_on_the_images(model, loss):
    with pytest.raises(RuntimeError, match=r"^(sizes differ|CUDA error: x|cuDNN error)$"):
        step_of(model, loss)(*batch())


# The first bad step


class TurnsNaN(nn.Module):
    """Without a word, as a loss does on a GPU."""

    def __init__(self, at: int) -> None:
        super().__init__()
        self.steps, self.at = 0, at

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        self.steps += 1
        return logits.mean() * (torch.nan if self.steps == self.at else 1)


def test_the_first_bad_step_is_named_and_the_optimiser_does_not_move():
    model = model_of(0)
    step = step_of(model, TurnsNaN(2))
    step.start_epoch(4)
    step(*batch())
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    with pytest.raises(FloatingPointError, match=r"got nan \(epoch 5, step 2\)\. Lower learning_rate \(now 0.01\)"):
        step(*batch())
    assert same(before, dict(model.named_parameters()))


def test_where_values_are_not_looked_at_the_end_of_the_epoch_names_the_first_bad_step():
    step = step_of(model_of(0), NACLLoss())
    step.losses = [torch.tensor(value) for value in (1.0, 2.0, torch.inf, 3.0, torch.nan)]
    step.sizes = [1] * 5
    with pytest.raises(FloatingPointError, match=r"got inf \(epoch 1, step 3\)"):
        step.finish()


# Layouts


def test_patches_are_trained_on_where_labels_beyond_the_volume_do_not_count():
    train_cases = [square_case(f"t{i}", "train", slices=3) for i in range(2)]
    model = seeded(lambda: nn.Sequential(nn.Conv3d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv3d(4, 3, 1)))
    cases = {"train": train_cases, "valid": CASES["valid"]}
    for loss in ("ce", "nacl", "dice"):
        history, _ = train(model=model, loss=build_loss(loss), cases=cases, epochs=3, patch=(4, 16, 16))
        assert history[-1]["loss"] < history[0]["loss"]
    again = seeded(lambda: nn.Conv3d(1, 3, 3, padding=1)), seeded(lambda: nn.Conv3d(1, 3, 3, padding=1))
    runs = [train(model=model, cases=cases, epochs=2, patch=(4, 16, 16)) for model in again]
    assert runs[0][0] == runs[1][0]
