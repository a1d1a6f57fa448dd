"""Which priors survive a renumbering of the classes."""

import re

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from oracles import IGNORE, light

from nacl.priors import BORDERS, IMAGE_PRIORS, PRIORS, neighbour_prior
from nacl.theory import COUNTEREXAMPLES, is_equivariant, relabelling_gap

C = 3
present = pytest.mark.parametrize("prior", PRIORS)


def maps(seed, holes=0.2):
    rng = torch.Generator().manual_seed(seed)
    target = torch.randint(0, C, (2, 5, 6), generator=rng)
    target[torch.rand(target.shape, generator=rng) < holes] = IGNORE
    return target, torch.rand(2, 1, 5, 6, generator=rng, dtype=torch.float64)


def image_for(prior, image):
    return {"image": image} if prior in IMAGE_PRIORS else {}


@light
@given(
    prior=st.sampled_from([prior for prior in PRIORS if is_equivariant(prior)]),
    order=st.permutations(range(C)),
    border=st.sampled_from([border for border in BORDERS if border != "background"]),
    kernel_size=st.sampled_from([1, 3, 5]),
    seed=st.integers(0, 999),
)
def test_equivariant_priors_survive_every_renumbering(prior, order, border, kernel_size, seed):
    target, image = maps(seed)
    options = {"border": border, "kernel_size": kernel_size, **image_for(prior, image)}
    assert relabelling_gap(prior, target, order, C, **options) < 1e-12


@present
def test_every_other_prior_has_a_counterexample(prior):
    assert (prior in COUNTEREXAMPLES) is not is_equivariant(prior)
    if prior in COUNTEREXAMPLES:
        labels, order = COUNTEREXAMPLES[prior]
        assert relabelling_gap(prior, torch.tensor([[labels]]), order, len(order)) == 1


@present
def test_no_prior_survives_a_border_of_background(prior):
    assert not is_equivariant(prior, border="background")
    labels, order = COUNTEREXAMPLES.get(prior, ((1, 1), (1, 0)))
    options = {"border": "background", **image_for(prior, torch.tensor([[[[0.0, 1.0]]]], dtype=torch.float64))}
    assert relabelling_gap(prior, torch.tensor([[labels]]), order, len(order), **options) > 0.01


def test_the_mode_survives_where_it_is_unique_and_only_there():
    target, _ = maps(0, holes=0)
    first, second = neighbour_prior(target, C).topk(2, dim=1).values.unbind(dim=1)
    unique = first - second > 0.01  # of at most nine pixels
    order = torch.tensor([2, 0, 1])
    old, new = (neighbour_prior(labels, C, prior="mode") for labels in (target, order[target]))
    same = (new[:, order] == old).all(dim=1)
    assert same[unique].all()
    assert not same[~unique].all()


def test_the_median_of_two_classes_survives_without_ties():
    target = torch.randint(0, 2, (1, 6, 6), generator=torch.Generator().manual_seed(0))
    assert relabelling_gap("median", target, (1, 0), 2, border="replicate") == 0
    labels, order = COUNTEREXAMPLES["median"]
    middle = [neighbour_prior(torch.tensor([[row]]), 3, prior="median")[0, :, 0, 1] for row in (labels, (1, 0, 2))]
    assert not torch.equal(middle[1][list(order)], middle[0])  # a window of three has no tie


def test_gap_by_hand_with_a_prior_of_ones_own():
    def largest(target, num_classes, *, ignore_index):
        top = target.flatten(1).amax(1).view(-1, 1, 1).expand_as(target)
        return torch.nn.functional.one_hot(top, num_classes).movedim(-1, 1).double()

    target = torch.tensor([[[0, 1], [1, 2]]])
    assert relabelling_gap(largest, target, (0, 1, 2), 3) == 0
    assert relabelling_gap(largest, target, (2, 1, 0), 3) == 1


def test_ignored_pixels_do_not_count():
    assert relabelling_gap("mean", torch.full((1, 2, 2), IGNORE), (1, 0), 2) == 0
    assert relabelling_gap("mean", torch.zeros(1, 0, 2).long(), (1, 0), 2) == 0


def test_bad_input_is_named():
    target = torch.zeros(1, 1, 1).long()
    with pytest.raises(ValueError, match=re.escape("`order` to be a permutation of 0 .. 1, got (0, 0)")):
        relabelling_gap("mean", target, (0, 0), 2)
    with pytest.raises(ValueError, match=re.escape("got 'meen'. Did you mean 'mean'")):
        relabelling_gap("meen", target, (1, 0), 2)
    with pytest.raises(ValueError, match=re.escape("got 'meen'. Did you mean 'mean'")):
        is_equivariant("meen")
    with pytest.raises(ValueError, match="`border` to be one of"):
        is_equivariant("mean", border="outside")
