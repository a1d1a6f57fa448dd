"""Small trainings that several test files share."""

from functools import partial

import torch
from conftest import square_case
from torch import nn

from nacl.losses import CrossEntropyLoss
from nacl.training import fit

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


def seeded(build, seed: int = 0) -> nn.Module:
    """What `build` gives, its random weights by the seed."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return build()


model_of = partial(seeded, Noisy)


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
