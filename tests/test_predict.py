"""Predicting cases, and how good a network is on the validation cases."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import square_case
from torch import nn
from toy_training import CASES, model_of, train

from nacl.losses import CrossEntropyLoss
from nacl.metrics import dice_score
from nacl.training import predict, predict_logits
from nacl.training.validation import Validation, dice_of, overlap_counts

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


@pytest.mark.parametrize("shape", [(40, 32, 32), (3, 20, 24)])
def test_volumes_are_predicted_by_sliding_windows(shape):
    """Each voxel by itself, whatever windows it is in: a network of 1 x 1 x 1 convolutions gives the same anywhere."""
    rng = np.random.default_rng(0)
    case = replace(CASES["valid"][0], image=rng.random(shape, np.float32), label=np.zeros(shape, np.uint8))
    model = nn.Conv3d(1, 3, 1)
    probs = predict(model, case, device="cpu", patch=(4, 16, 16))
    assert probs.shape == (shape[0], 3, *shape[1:])
    whole = model(torch.from_numpy(case.image)[None])[0].movedim(0, 1)
    torch.testing.assert_close(
        predict_logits(model, case, device="cpu", patch=(4, 16, 16)), whole, rtol=1e-5, atol=1e-5
    )


# Validation


@pytest.mark.parametrize("seed", range(5))
def test_overlap_counts_give_the_dice_of_the_metrics_exactly(seed):
    rng = np.random.default_rng(seed)
    a, b = (rng.integers(0, 6, (5, 7, 9)) * (rng.random((5, 7, 9)) < 0.3) for _ in range(2))
    a[a == 4], b[b >= 4] = 0, 0  # class 4 in neither, class 5 in one only
    found = dice_of(overlap_counts(torch.from_numpy(a), torch.from_numpy(b), 6).numpy())
    np.testing.assert_array_equal(found, dice_score(a, b, 6))
    assert np.isnan(found[3])
    assert found[4] == 0


class Counted(list):
    """Cases that count how often they are asked for."""

    asked = 0

    def __getitem__(self, index):
        self.asked += 1
        return super().__getitem__(index)


@pytest.mark.parametrize(("budget", "again"), [(2**20, False), (0, True)])
def test_few_validation_cases_are_kept_and_many_are_asked_for_anew(budget, again):
    cases, model = Counted([square_case(f"v{i}", "valid") for i in range(2)]), model_of(0)
    validation = Validation(cases, 3, torch.device("cpu"), budget=budget)
    first, before = validation.dice(model, CrossEntropyLoss(), 0), cases.asked
    assert validation.dice(model, CrossEntropyLoss(), 1) == first
    assert (cases.asked > before) == again


def test_labels_of_a_class_that_the_network_does_not_have_are_named():
    case = replace(CASES["valid"][0], label=np.full((4, 32, 32), 7, np.uint8))
    with pytest.raises(ValueError, match=r"`label` values in \[0, 3\), got 7 \(case v0\)"):
        train(cases={**CASES, "valid": [case]}, epochs=1)


def test_a_network_that_gives_more_in_evaluation_is_named():
    class Two(torch.nn.Conv2d):
        def forward(self, image):
            logits = super().forward(image)
            return logits if self.training else (logits, logits)

    with pytest.raises(ValueError, match="`model` to give one tensor of logits, got tuple"):
        predict_logits(Two(1, 3, 1), square_case("a", "test"), device="cpu")
