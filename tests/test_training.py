"""Fitting: the same numbers from the same seed; what is learned; and what goes wrong is said."""

import os
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from toy_training import CASES, StoppedError, model_of, same, seeded, stop_after, train

from nacl.losses import CrossEntropyLoss, NACLLoss, Schedule
from nacl.metrics import dice_score
from nacl.training import fit, predict, resolve_device
from nacl.training.device import placed
from nacl.training.memory import memory_named

# The same numbers


def test_the_same_seed_gives_the_same_numbers_to_the_bit_and_another_gives_others():
    history, weights = train(seed=3)
    again, weights_again = train(seed=3)
    other, weights_other = train(seed=4)
    assert history == again
    assert same(weights, weights_again)
    assert history != other
    assert not same(weights, weights_other)


def test_the_seed_alone_orders_the_slices():
    """Two trainings from one model and two seeds differ; the weights are not the only thing that is seeded."""
    histories = [train(seed=seed, model=model_of(0))[0] for seed in (0, 1)]
    assert histories[0] != histories[1]


def test_fit_and_predict_leave_the_global_random_state_alone():
    torch.manual_seed(5)
    np.random.seed(5)
    before, numpy_before = torch.get_rng_state(), np.random.get_state()[1].copy()
    model = model_of(0)
    train(model=model, epochs=1)
    predict(model, CASES["valid"][0], device="cpu")
    assert torch.equal(before, torch.get_rng_state())
    assert np.array_equal(numpy_before, np.random.get_state()[1])


def test_the_global_random_state_does_not_steer_fit():
    histories = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        histories.append(train(epochs=2)[0])
    assert histories[0] == histories[1]


# What is learned


def test_an_easy_problem_is_learned(squares):
    """From about ln 3, the loss of not knowing, to a Dice of 0.9 on cases that were not seen."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 3, 3, padding=1))
    splits, options = (squares.split("train"), squares.split("valid")), {"batch_size": 4, "device": "cpu"}
    history = fit(model, CrossEntropyLoss(), *splits, 3, epochs=15, learning_rate=3e-2, **options)
    losses = [row["loss"] for row in history]
    assert losses[0] == pytest.approx(np.log(3), abs=0.5)
    assert losses[-1] < losses[0] / 4
    for case in squares.split("test"):
        predicted = predict(model, case, device="cpu").argmax(dim=1).numpy()
        assert dice_score(predicted, case.label, 3).mean() > 0.9


class TurnsBad(nn.Module):
    """Cross-entropy for 30 steps, then its opposite, which unlearns."""

    steps = 0

    def forward(self, logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        self.steps += 1
        return CrossEntropyLoss()(logits, target) * (1 if self.steps <= 30 else -1)


def test_the_best_epochs_weights_are_what_is_left():
    weights_then, model = [], model_of(1)
    note = lambda history: weights_then.append({name: t.clone() for name, t in model.state_dict().items()})  # noqa: E731
    history, weights = train(1, model=model, epochs=20, loss=TurnsBad(), on_epoch=note)
    dice = [row["valid_dice"] for row in history]
    assert dice[-1] < max(dice), "the last epoch must not be the best for this test to see anything"
    assert same(weights, weights_then[np.argmax(dice)])


def test_validation_dice_is_the_mean_over_cases_and_foreground_classes():
    model = model_of(0)
    history, _ = train(model=model, epochs=1)
    scores = [
        np.nanmean(dice_score(predict(model, case, device="cpu").argmax(dim=1).numpy(), case.label, 3))
        for case in CASES["valid"]
    ]
    assert history[0]["valid_dice"] == pytest.approx(np.mean(scores))


def test_the_loss_of_an_epoch_is_the_mean_over_slices_when_the_last_batch_is_smaller():
    """With a loss that is its batch's label mean, and 6 slices in batches of 4 and 2."""
    loss = LabelMean()
    history, _ = train(epochs=1, batch_size=4, loss=loss)
    labels = np.concatenate([case.label for case in CASES["train"]])
    assert history[0]["loss"] == pytest.approx(labels.mean(), rel=1e-5)


class LabelMean(nn.Module):
    def forward(self, logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return target.float().mean() + 0 * logits.sum()


@pytest.mark.parametrize(("epochs", "full"), [(1, 1), (2, 1), (3, 2), (4, 2)])
def test_the_learning_rate_drops_by_ten_after_half_of_the_epochs(epochs, full):
    rates = [row["learning_rate"] for row in train(epochs=epochs, learning_rate=0.02)[0]]
    assert rates == pytest.approx([0.02] * full + [0.002] * (epochs - full))


def test_a_schedule_acts_before_each_epoch():
    loss, seen = NACLLoss(), []

    def anneal(epoch):
        loss.set(penalty_weight=Schedule(0.1, "linear", end=0.0, epochs=3)(epoch))
        seen.append(loss.options["penalty_weight"])

    train(loss=loss, epochs=3, before_epoch=anneal)
    assert seen == pytest.approx([0.1, 0.05, 0.0])


def test_history_has_one_row_an_epoch():
    model = model_of(0)
    history = fit(model, CrossEntropyLoss(), CASES["train"], CASES["valid"], 3, epochs=2, batch_size=4, device="cpu")
    assert [list(row) for row in history] == [["epoch", "loss", "learning_rate", "valid_dice", "seconds"]] * 2
    assert [row["epoch"] for row in history] == [1, 2]
    assert all(row["seconds"] > 0 for row in history)


# What goes wrong


def nan_cases():
    image = CASES["train"][0].image.copy()
    image[0, 1, 5, 5] = np.nan
    return {**CASES, "train": [replace(CASES["train"][0], image=image), *CASES["train"][1:]]}


def test_nan_in_an_image_is_an_error_that_says_where_to_look_and_the_checkpoint_stays(tmp_path):
    checkpoint = tmp_path / "checkpoint.safetensors"
    with pytest.raises(StoppedError):
        train(checkpoint=checkpoint, on_epoch=stop_after(2))
    before = checkpoint.read_bytes()
    with pytest.raises(FloatingPointError, match=r"got nan \(epoch 3, step \d\)\. .*look for NaN in the images"):
        train(checkpoint=checkpoint, cases=nan_cases())
    assert checkpoint.read_bytes() == before
    assert os.listdir(tmp_path) == [checkpoint.name]


class Overflow(nn.Module):
    def forward(self, logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return (logits**2).mean() * torch.inf


def test_a_loss_that_is_not_finite_is_an_error_and_the_checkpoint_stays(tmp_path):
    checkpoint = tmp_path / "checkpoint.safetensors"
    with pytest.raises(StoppedError):
        train(checkpoint=checkpoint, on_epoch=stop_after(1))
    before = checkpoint.read_bytes()
    with pytest.raises(
        FloatingPointError, match=r"finite, got (inf|nan) \(epoch 2, step 1\)\. Lower learning_rate \(now 0.01\)"
    ):
        train(checkpoint=checkpoint, loss=Overflow())
    assert checkpoint.read_bytes() == before


def test_a_network_that_the_last_step_ruined_is_an_error_and_is_not_kept(tmp_path):
    """One step of a huge learning rate: the loss before it is finite, every prediction after it is NaN."""
    checkpoint = tmp_path / "checkpoint.safetensors"
    with pytest.raises(FloatingPointError, match="Lower learning_rate"):
        train(checkpoint=checkpoint, epochs=1, batch_size=100, learning_rate=1e30)
    assert not checkpoint.exists()


@pytest.mark.parametrize("name", ["cuda", "mps"])
def test_a_device_that_is_not_there_is_named_with_what_to_use(name):
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if there[name]:
        pytest.skip(f"this machine has {name}")
    with pytest.raises(ValueError, match=f"got '{name}'. Use 'auto' or 'cpu'"):
        train(device=name)
    with pytest.raises(ValueError, match=f"got '{name}'"):
        predict(model_of(0), CASES["valid"][0], device=name)


def test_devices_by_name():
    with pytest.raises(ValueError, match="Did you mean 'cuda'"):
        resolve_device("cude")
    assert resolve_device("cpu") == torch.device("cpu")
    if not torch.cuda.is_available() and not torch.backends.mps.is_available():
        assert resolve_device("auto") == torch.device("cpu")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epochs": 0}, "`epochs` of at least 1, got 0"),
        ({"batch_size": 0}, "`batch_size` of at least 1, got 0"),
        ({"seed": -1}, "`seed` of at least 0, got -1"),
        ({"seed": 2**32}, r"`seed` below 2\*\*32, got 4294967296"),
        ({"learning_rate": 0.0}, r"`learning_rate` in \(0, inf\), got 0"),
        ({"learning_rate": float("nan")}, "`learning_rate`"),
        ({"cases": {**CASES, "train": []}}, "`cases`"),
    ],
)
def test_values_out_of_range_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        train(**options)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (
            nn.Conv2d(1, 2, 1),
            r"to give logits of shape \([12], 3, 32, 32\), got \([12], 2, 32, 32\)\. .*num_classes=3",
        ),
        (nn.Conv2d(1, 3, 3), r"got \([12], 3, 30, 30\)\. Bring its output to the size"),
        (
            nn.Conv2d(4, 3, 1),
            r"to take images of shape \([12], 1, 32, 32\), got RuntimeError: .*its in_channels \(1 here\)",
        ),
    ],
)
@pytest.mark.parametrize("engine", ["eager", "compile"])
def test_a_network_that_does_not_fit_the_data_is_named_with_what_to_do(model, message, engine):
    with pytest.raises(ValueError, match=f"(?s){message}"):
        train(model=model, engine=engine)


class Mixed(nn.Conv3d):
    """A 3D network with a 2D part and a matrix."""

    def __init__(self) -> None:
        super().__init__(2, 3, 1)
        self.plane, self.matrix = nn.Conv2d(1, 2, 3, padding=1), nn.Linear(2, 2)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        planes = self.plane(image.movedim(2, 1).flatten(0, 1)).unflatten(0, (len(image), -1)).movedim(1, 2)
        return super().forward(self.matrix(planes.movedim(1, -1)).movedim(-1, 1))


def test_a_network_with_weights_of_other_ranks_is_placed_and_trained():
    model = seeded(Mixed)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    assert same(placed(model, torch.device("cpu"), (2, 16, 16)).state_dict(), before)
    assert model.weight.stride() == torch.empty(3, 2, 1, 1, 1).to(memory_format=torch.channels_last_3d).stride()
    history, _ = train(model=model, patch=(2, 16, 16), epochs=2)
    assert len(history) == 2


def test_slices_are_placed_as_torch_does_it():
    models = [nn.Sequential(model_of(0), nn.Conv2d(3, 3, 1), nn.Linear(2, 2)) for _ in range(2)]
    placed(models[0], torch.device("cpu"), None)
    models[1].to(memory_format=torch.channels_last)
    for a, b in zip(*(model.parameters() for model in models), strict=True):
        assert a.stride() == b.stride()


@pytest.mark.parametrize("engine", ["eager", "compile"])
@pytest.mark.parametrize(("batch_size", "step"), [(1, 1), (5, 2)])
def test_a_batch_of_one_that_batch_normalisation_refuses_names_batch_size(engine, batch_size, step):
    layers = [nn.AdaptiveAvgPool2d(1), nn.BatchNorm2d(1), nn.Upsample(32), nn.Conv2d(1, 3, 1)]
    message = rf"`batch_size` to leave .* got a batch of 1 \(epoch 1, step {step}: .*Choose another batch_size"
    with pytest.raises(ValueError, match=message):
        train(model=nn.Sequential(*layers), batch_size=batch_size, engine=engine)


class Many(nn.Conv2d):
    """Gives two outputs, as deep supervision does."""

    def forward(self, image: torch.Tensor) -> list[torch.Tensor]:
        return [super().forward(image)] * 2


def test_a_network_of_several_outputs_is_named():
    with pytest.raises(ValueError, match=r"one tensor of logits \(2, 3, 32, 32\), got list\. Return its main output"):
        train(model=Many(1, 3, 1))


class Hungry(nn.Conv2d):
    """Asks for more memory than there is."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return super().forward(image) + torch.empty(2**62 // 100, dtype=torch.uint8).sum()


def test_memory_that_runs_out_names_what_to_lower():
    with pytest.raises(MemoryError, match=r"Out of memory with batch_size=2, size=32 x 32\. Lower batch_size first"):
        train(model=Hungry(1, 3, 1))


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried"),
        MemoryError(),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
        RuntimeError("CUDA error: out of memory"),
        RuntimeError("MPS backend out of memory (MPS allocated: 9 GB)"),
    ],
)
def test_other_allocators_are_understood_and_the_widest_block_names_its_parameters(error):
    with (
        pytest.raises(
            MemoryError, match=r"with batch_size=4, size=192, filters=32\. Lower batch_size first, then size or"
        ),
        memory_named(batch_size=4, size=192, filters=32),
        memory_named(batch_size=4),
    ):
        raise error


def test_other_errors_are_left_as_they_are():
    with pytest.raises(RuntimeError, match=r"^something else$"), memory_named(batch_size=4):
        raise RuntimeError("something else")
