"""Fitting: the same numbers from the same seed, also when it was killed; and what goes wrong is said."""

import logging
import os
import signal
import subprocess
import sys
import textwrap
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import square_case
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from nacl.losses import CombinedLoss, CRaCLoss, CrossEntropyLoss, DiceLoss, NACLLoss, Schedule
from nacl.metrics import dice_score
from nacl.training import fit, predict, resolve_device

CASES = {"train": [square_case(f"t{i}", "train", slices=2) for i in range(3)], "valid": [square_case("v0", "valid")]}


class StoppedError(Exception):
    """Ends a training from outside."""


class Noisy(nn.Module):
    """A small network with dropout and batch normalisation, so that it draws numbers and has buffers."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(1, 8, 3, padding=1),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Dropout2d(0.3),
            nn.Conv2d(8, 3, 3, padding=1),
        )

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.layers(image)


def model_of(seed: int) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Noisy()


def train(seed=0, *, model=None, epochs=4, loss=None, cases=CASES, **options):
    """A short training; its history without times, and its weights."""
    model = model or model_of(seed)
    options = {"batch_size": 2, "learning_rate": 1e-2, "device": "cpu", **options}
    loss = loss or CrossEntropyLoss()
    history = fit(model, loss, cases["train"], cases["valid"], 3, epochs=epochs, seed=seed, **options)
    return [{k: v for k, v in row.items() if k != "seconds"} for row in history], model.state_dict()


def stop_after(epoch: int):
    def on_epoch(history):
        if len(history) == epoch:
            raise StoppedError

    return on_epoch


def same(a: dict, b: dict) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


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


# Killed and started again


@pytest.mark.parametrize("epoch", [1, 2, 3])
def test_a_training_that_was_stopped_goes_on_to_the_same_numbers(tmp_path, epoch):
    checkpoint, seen = tmp_path / "checkpoint.safetensors", []
    expected = train()
    with pytest.raises(StoppedError):
        train(checkpoint=checkpoint, on_epoch=stop_after(epoch))
    history, weights = train(checkpoint=checkpoint, on_epoch=lambda h: seen.append(len(h)))
    assert history == expected[0]
    assert same(weights, expected[1])
    assert seen == list(range(epoch + 1, 5))


def test_a_loss_that_learns_from_validation_goes_on_from_what_it_knew(tmp_path):
    checkpoint = tmp_path / "checkpoint.safetensors"

    def crac():
        return CombinedLoss(CRaCLoss(3, margin=2.0, rho_every=1), DiceLoss())

    loss = crac()
    expected = train(loss=loss)
    with pytest.raises(StoppedError):
        train(loss=crac(), checkpoint=checkpoint, on_epoch=stop_after(2))
    resumed = crac()
    history, weights = train(loss=resumed, checkpoint=checkpoint)
    assert history == expected[0]
    assert same(weights, expected[1])
    assert same(resumed.state_dict(), loss.state_dict())
    assert (resumed.losses[0].multipliers > 1e-6).any()


def test_a_schedule_acts_before_each_epoch():
    loss, seen = NACLLoss(), []

    def anneal(epoch):
        loss.set(penalty_weight=Schedule(0.1, "linear", end=0.0, epochs=3)(epoch))
        seen.append(loss.options["penalty_weight"])

    train(loss=loss, epochs=3, before_epoch=anneal)
    assert seen == pytest.approx([0.1, 0.05, 0.0])


def test_a_training_that_was_stopped_starts_from_its_checkpoint_and_not_from_the_models_weights(tmp_path):
    checkpoint = tmp_path / "checkpoint.safetensors"
    expected = train()
    with pytest.raises(StoppedError):
        train(checkpoint=checkpoint, on_epoch=stop_after(2))
    history, weights = train(checkpoint=checkpoint, model=model_of(77))
    assert history == expected[0]
    assert same(weights, expected[1])


def test_a_process_that_was_killed_goes_on_to_the_same_numbers(tmp_path):
    script = """
        import os, signal, sys
        sys.path.insert(0, sys.argv[1])
        from pathlib import Path
        import torch
        from test_training import train

        def kill(history):
            if len(history) == 2:
                os.kill(os.getpid(), signal.SIGKILL)

        torch.set_num_threads(int(sys.argv[3]))
        train(checkpoint=Path(sys.argv[2]), on_epoch=kill)
    """
    checkpoint, threads = tmp_path / "checkpoint.safetensors", str(torch.get_num_threads())
    arguments = [os.path.dirname(__file__), str(checkpoint), threads]
    killed = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), *arguments], capture_output=True, text=True, check=False
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    seen = []
    history, weights = train(checkpoint=checkpoint, on_epoch=lambda h: seen.append(len(h)))
    expected = train()
    assert seen == [3, 4]
    assert history == expected[0]
    assert same(weights, expected[1])


def test_a_finished_checkpoint_trains_nothing_more(tmp_path):
    checkpoint = tmp_path / "checkpoint.safetensors"
    expected = train(checkpoint=checkpoint)
    history, weights = train(checkpoint=checkpoint, on_epoch=stop_after(4), model=model_of(9))
    assert history == expected[0]
    assert same(weights, expected[1])


# Checkpoints gone bad


def _tensors_of(path):
    with safe_open(path, "pt") as stored:
        return load_file(path), stored.metadata()


def _cut(path):
    path.write_bytes(path.read_bytes()[:-100])


def _text(path):
    path.write_text("no tensors")


def _without(prefix):
    def change(path):
        tensors, metadata = _tensors_of(path)
        save_file({name: t for name, t in tensors.items() if not name.startswith(prefix)}, path, metadata)

    return change


def _other_shape(path):
    tensors, metadata = _tensors_of(path)
    save_file({**tensors, "model/layers.4.bias": torch.zeros(7)}, path, metadata)


def _no_history(path):
    save_file(_tensors_of(path)[0], path)


BROKEN = {
    "truncated": _cut,
    "text": _text,
    "empty": lambda path: path.write_bytes(b""),
    "without its history": _no_history,
    "without a weight": _without("model/layers.4.bias"),
    "a weight of another shape": _other_shape,
    "without the optimiser": _without("optimizer/"),
    "without the best weights": _without("best/"),
}


@pytest.mark.parametrize("damage", BROKEN)
def test_a_broken_checkpoint_is_set_aside_with_a_warning_and_training_starts_again(tmp_path, caplog, damage):
    checkpoint, seen = tmp_path / "checkpoint.safetensors", []
    with pytest.raises(StoppedError):
        train(checkpoint=checkpoint, epochs=2, on_epoch=stop_after(1))
    BROKEN[damage](checkpoint)
    content = checkpoint.read_bytes()
    with caplog.at_level(logging.WARNING):
        history, weights = train(checkpoint=checkpoint, epochs=2, on_epoch=lambda h: seen.append(len(h)))
    assert str(checkpoint) in caplog.text
    assert (tmp_path / "checkpoint.broken").read_bytes() == content
    assert seen == [1, 2]
    expected = train(epochs=2)
    assert history == expected[0]
    assert same(weights, expected[1])


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


def test_history_has_one_row_an_epoch():
    model = model_of(0)
    history = fit(model, CrossEntropyLoss(), CASES["train"], CASES["valid"], 3, epochs=2, batch_size=4, device="cpu")
    assert [list(row) for row in history] == [["epoch", "loss", "learning_rate", "valid_dice", "seconds"]] * 2
    assert [row["epoch"] for row in history] == [1, 2]
    assert all(row["seconds"] > 0 for row in history)


# Prediction


def test_predictions_are_probabilities_slice_by_slice():
    model, case = model_of(0), square_case("long", "test", slices=40)
    probs = predict(model, case, device="cpu")
    assert (probs.shape, probs.dtype, probs.device.type) == ((40, 3, 32, 32), torch.float32, "cpu")
    assert ((probs >= 0) & (probs <= 1)).all()
    torch.testing.assert_close(probs.sum(dim=1), torch.ones(40, 32, 32))
    assert torch.equal(probs, predict(model, case, device="cpu"))
    alone = replace(case, image=case.image[:, 35:36], label=case.label[35:36])
    torch.testing.assert_close(predict(model, alone, device="cpu"), probs[35:36])


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
    with pytest.raises(ValueError, match="look for NaN in the images"):
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
    with pytest.raises(FloatingPointError, match=r"finite loss, got (inf|nan) in epoch 2\. Lower learning_rate"):
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
        ({"learning_rate": 0.0}, r"`learning_rate` in \(0, inf\), got 0"),
        ({"learning_rate": float("nan")}, "`learning_rate`"),
        ({"cases": {**CASES, "train": []}}, "`cases`"),
    ],
)
def test_values_out_of_range_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        train(**options)


def test_a_network_of_other_classes_than_the_labels_is_an_error():
    with pytest.raises(ValueError, match=r"`target` values in \[0, 2\).*got 2"):
        train(model=nn.Conv2d(1, 2, 1))
