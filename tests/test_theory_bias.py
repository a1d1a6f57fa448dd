"""NACL's bias undone: exact where the module says so, and harmless where it can't be."""

import math

import pytest
import torch
import torch.nn.functional as F

from nacl.theory import nacl_minimum, nacl_minimum_logits, without_bias

TINY = 1e-12  # a doubt that shows the formula itself


def taught(q, tau, weight, doubt=TINY):
    """What is read off the network that minimises NACL for labels q and a window tau, both (N, K)."""
    logits = nacl_minimum_logits(q, tau, penalty_weight=weight)
    return without_bias(logits.view(*logits.shape, 1, 1), penalty_weight=weight, doubt=doubt).softmax(dim=1).flatten(1)


@pytest.mark.parametrize("weight", [0.01, 0.1, 0.5])
@pytest.mark.parametrize("classes", [2, 3, 4, 9])
def test_inside_an_object_a_certain_label_comes_back(classes, weight):
    certain = torch.eye(classes, dtype=torch.float64)
    assert nacl_minimum(certain, certain, penalty_weight=weight).amax() == pytest.approx(1 - weight / classes)
    torch.testing.assert_close(taught(certain, certain, weight), certain, atol=1e-9, rtol=0)


@pytest.mark.parametrize("weight", [0.03, 0.1, 0.3])
def test_labels_that_two_of_four_classes_share_come_back(weight):
    generator = torch.Generator().manual_seed(0)
    c = weight / 4
    share = 3 * c + 0.01 + (0.98 - 6 * c) * torch.rand(200, generator=generator, dtype=torch.float64)
    q = torch.stack([share, 1 - share, *[torch.zeros_like(share)] * 2], dim=1)
    tau = torch.tensor([[0.5, 0.5, 0, 0]], dtype=torch.float64).expand_as(q)
    pushed = (nacl_minimum(q, tau, penalty_weight=weight)[:, 2:] - c).abs().amax(dim=1) < 1e-12
    assert pushed.sum() > 50  # where the others are pushed up by c, which the module asks for
    torch.testing.assert_close(taught(q, tau, weight)[pushed], q[pushed], atol=1e-9, rtol=0)


@pytest.mark.parametrize("weight", [0.03, 0.1, 0.3])
def test_it_moves_no_class_by_more_than_the_bias_and_leaves_none_farther_from_what_was_taught_than_that(weight):
    generator = torch.Generator().manual_seed(1)
    q, tau = torch.rand(2, 500, 5, generator=generator, dtype=torch.float64).pow(6).add(1e-9)
    q, tau = (shares / shares.sum(dim=1, keepdim=True) for shares in (q, tau))
    s = nacl_minimum(q, tau, penalty_weight=weight)
    back = taught(q, tau, weight)
    c = weight / 5
    torch.testing.assert_close(back.sum(dim=1), torch.ones(500, dtype=torch.float64))
    assert (back - s).abs().amax() <= 4 * c + 1e-9  # clipping at 0 hands what is left to the others
    top = q.amax(dim=1) > 0.9
    gap = lambda p: (p - q)[top].abs().sum(dim=1).mean()  # noqa: E731
    assert gap(back) < gap(s)


def test_the_order_of_the_classes_stays_and_no_class_is_impossible():
    logits = 8 * torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    changed = without_bias(logits, penalty_weight=0.2)
    assert changed.isfinite().all()
    assert torch.equal(changed.argmax(dim=1), logits.argmax(dim=1))
    assert (changed.softmax(dim=1) >= 0.01 * logits.softmax(dim=1) - 1e-15).all()


def test_without_a_penalty_or_with_all_doubt_nothing_changes():
    logits = torch.randn(2, 4, 3, 3, generator=torch.Generator().manual_seed(3))
    for options in ({"penalty_weight": 0.0}, {"penalty_weight": 0.4, "doubt": 1.0}, {"penalty_weight": 4.0}):
        torch.testing.assert_close(without_bias(logits, **options).softmax(dim=1), logits.softmax(dim=1))


def test_a_renumbering_of_the_classes_renumbers_the_result():
    logits = 3 * torch.randn(2, 4, 5, 5, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    order = [2, 0, 3, 1]
    changed = without_bias(logits, penalty_weight=0.3)
    torch.testing.assert_close(without_bias(logits[:, order], penalty_weight=0.3), changed[:, order])


def test_it_lowers_the_error_of_a_network_that_sits_at_its_ceiling():
    labels = torch.zeros(1, 8, 8, dtype=torch.long)
    at_ceiling = nacl_minimum(torch.eye(1, 4).expand(64, 4), torch.eye(1, 4).expand(64, 4))
    logits = at_ceiling.log().T.reshape(1, 4, 8, 8)
    assert F.cross_entropy(logits, labels).item() == pytest.approx(-math.log(0.975))
    assert F.cross_entropy(without_bias(logits, penalty_weight=0.1), labels) < 1e-3


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"penalty_weight": -0.1}, ValueError, "`penalty_weight` in [0, inf), got -0.1"),
        ({"penalty_weight": math.nan}, ValueError, "`penalty_weight` in [0, inf), got nan"),
        ({"penalty_weight": 0.1, "doubt": 0}, ValueError, "`doubt` in (0, 1], got 0"),
        ({"penalty_weight": 0.1, "doubt": "no"}, TypeError, "`doubt` to be a number, got 'no'"),
    ],
)
def test_bad_options_are_named(options, error, message):
    with pytest.raises(error) as raised:
        without_bias(torch.zeros(1, 2, 1, 1), **options)
    assert message in str(raised.value)


def test_labels_instead_of_logits_are_refused():
    with pytest.raises(TypeError, match="logits"):
        without_bias(torch.zeros(1, 2, 1, 1, dtype=torch.long), penalty_weight=0.1)
