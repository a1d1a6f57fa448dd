"""Sums of losses, and schedules of their weights."""

import math
import pickle

import pytest
import torch
from loss_cases import C, data, gradient, grey

from nacl.losses import (
    SCHEDULES,
    CombinedLoss,
    CRaCLoss,
    CrossEntropyLoss,
    DiceLoss,
    L1ACELoss,
    NACLLoss,
    Schedule,
    crac_loss,
    cross_entropy_loss,
    dice_loss,
    nacl_loss,
)

# CombinedLoss


def test_combined_loss_is_the_weighted_sum_in_value_and_gradient():
    logits, target = data()
    loss = CombinedLoss(CrossEntropyLoss(), DiceLoss(), weights=(0.5, 2.0))(logits, target)
    expected = 0.5 * cross_entropy_loss(logits, target) + 2 * dice_loss(logits, target)
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(gradient(loss, logits), gradient(expected, logits))


def test_weights_are_one_by_default_and_can_be_zero():
    logits, target = data()
    both = CombinedLoss(CrossEntropyLoss(), L1ACELoss())
    alone = CombinedLoss(CrossEntropyLoss(), L1ACELoss(), weights=(1, 0))
    assert both.weights == (1.0, 1.0)
    assert both(logits, target) > alone(logits, target)
    torch.testing.assert_close(alone(logits, target), cross_entropy_loss(logits, target))


def test_image_goes_to_the_losses_that_read_it_also_through_a_sum_of_sums():
    logits, target = data()
    image = grey(target)
    inner = CombinedLoss(NACLLoss(prior="gradient"), NACLLoss())
    loss = CombinedLoss(inner, DiceLoss())
    assert loss.reads_image
    assert not CombinedLoss(NACLLoss(), DiceLoss()).reads_image
    expected = (
        nacl_loss(logits, target, prior="gradient", image=image) + nacl_loss(logits, target) + dice_loss(logits, target)
    )
    torch.testing.assert_close(loss(logits, target, image=image), expected)
    with pytest.raises(ValueError, match="Expected `image` for prior='gradient', got None"):
        loss(logits, target)


def test_validation_reaches_the_losses_that_learn():
    logits, target = data()
    crac, alone = CRaCLoss(C), CRaCLoss(C)
    loss = CombinedLoss(CombinedLoss(crac, DiceLoss()), CrossEntropyLoss())
    for module in (loss, alone):
        module.observe(logits, target)
        module.update()
    torch.testing.assert_close(crac.multipliers, alone.multipliers)
    value = loss(logits, target)
    expected = crac_loss(logits, target, multipliers=alone.multipliers) + dice_loss(logits, target)
    torch.testing.assert_close(value, expected + cross_entropy_loss(logits, target))


def test_losses_that_do_not_learn_let_validation_pass():
    logits, target = data()
    loss = CombinedLoss(CrossEntropyLoss(), DiceLoss())
    loss.observe(logits, target)
    loss.update()


def test_state_and_copies_keep_what_was_learned():
    logits, target = data()
    loss = CombinedLoss(CRaCLoss(C), DiceLoss(), weights=(1.0, 0.5))
    loss.observe(logits, target)
    loss.update()
    other = CombinedLoss(CRaCLoss(C), DiceLoss(), weights=(1.0, 0.5))
    other.load_state_dict(loss.state_dict())
    for same in (other, pickle.loads(pickle.dumps(loss))):
        torch.testing.assert_close(same(logits, target), loss(logits, target))


def test_repr_names_weights_and_losses():
    text = repr(CombinedLoss(CrossEntropyLoss(), DiceLoss(), weights=(1, 0.5)))
    assert "weights=(1, 0.5)" in text
    assert "CrossEntropyLoss" in text
    assert "DiceLoss" in text


@pytest.mark.parametrize(
    ("losses", "weights", "error", "message"),
    [
        ((), None, ValueError, "`losses` to be at least one loss, got none"),
        ((cross_entropy_loss,), None, TypeError, "`losses` to be Modules, got <function cross_entropy_loss"),
        ((CrossEntropyLoss(),), (1, 2), ValueError, r"`weights` of 1 numbers, one a loss, got \(1, 2\)"),
        ((CrossEntropyLoss(),), (-1,), ValueError, r"`weights` in \[0, inf\), got -1"),
        ((CrossEntropyLoss(),), (math.nan,), ValueError, r"`weights` in \[0, inf\), got nan"),
        ((CrossEntropyLoss(),), ("1",), TypeError, "`weights` to be a number, got '1'"),
    ],
)
def test_bad_sums_are_named(losses, weights, error, message):
    with pytest.raises(error, match=f"Expected {message}"):
        CombinedLoss(*losses, weights=weights)


# Schedule


@pytest.mark.parametrize(
    ("schedule", "values"),
    [
        (Schedule(0.3), [0.3] * 6),
        (Schedule(0.4, "linear", end=0.0, epochs=5), [0.4, 0.3, 0.2, 0.1, 0.0, 0.0]),
        (Schedule(0.0, "linear", end=1.0, epochs=3), [0.0, 0.5, 1.0, 1.0, 1.0, 1.0]),
        (Schedule(0.5, "linear", end=0.1, epochs=1), [0.5, 0.1, 0.1, 0.1, 0.1, 0.1]),
        (Schedule(0.1, "step", end=0.5, factor=2, every=2), [0.1, 0.1, 0.2, 0.2, 0.4, 0.4]),
        (Schedule(0.1, "step", end=0.3, factor=2, every=1), [0.1, 0.2, 0.3, 0.3, 0.3, 0.3]),
        (Schedule(0.8, "step", end=0.8, factor=0.5, every=3), [0.8, 0.8, 0.8, 0.4, 0.4, 0.4]),
    ],
    ids=str,
)
def test_schedule_by_hand(schedule, values):
    assert [schedule(epoch) for epoch in range(6)] == pytest.approx(values)


def test_schedule_sets_a_weight_each_epoch():
    loss, schedule = NACLLoss(), Schedule(0.2, "linear", end=0.0, epochs=3)
    for epoch, weight in enumerate((0.2, 0.1, 0.0)):
        loss.set(penalty_weight=schedule(epoch))
        assert loss.options["penalty_weight"] == pytest.approx(weight)


@pytest.mark.parametrize("kind", SCHEDULES)
def test_schedule_survives_any_number_of_epochs(kind):
    assert Schedule(0.1, kind, end=0.5, epochs=10, every=1)(10_000) == {"constant": 0.1}.get(kind, 0.5)


@pytest.mark.parametrize(
    ("schedule", "epoch", "error", "message"),
    [
        (Schedule(0.1, "cosine"), 0, ValueError, "`kind` to be one of 'constant', 'linear', 'step', got 'cosine'"),
        (Schedule(-0.1), 0, ValueError, r"`start` in \[0, inf\), got -0.1"),
        (Schedule(0.1, end=-1), 0, ValueError, r"`end` in \[0, inf\), got -1"),
        (Schedule(0.1), -1, ValueError, "`epoch` of at least 0, got -1"),
        (Schedule(0.1), 0.5, TypeError, "`epoch` to be an integer, got 0.5"),
        (Schedule(0.1, "linear", epochs=0), 0, ValueError, "`epochs` of at least 1, got 0"),
        (Schedule(0.1, "step", end=1, every=0), 0, ValueError, "`every` of at least 1, got 0"),
        (Schedule(0.1, "step", end=1, factor=0), 0, ValueError, r"`factor` in \(0, inf\), got 0"),
        (Schedule(0.1, "step"), 0, ValueError, r"`end` in \[0.1, inf\), got 0.0"),
    ],
)
def test_bad_schedules_are_named(schedule, epoch, error, message):
    with pytest.raises(error, match=f"Expected {message}"):
        schedule(epoch)
