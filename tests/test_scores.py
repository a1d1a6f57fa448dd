"""Proper scores, by hand, against loops, and at the truth."""

import math

import numpy as np
import oracles
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from oracles import IGNORE, light

from nacl.losses import cross_entropy_loss
from nacl.metrics import REGIONS, BrierScore, brier_score, negative_log_likelihood, posterior_divergence, region_mask


def data(seed=0, shape=(2, 4, 3), num_classes=3):
    rng = np.random.default_rng(seed)
    logits = torch.as_tensor(2 * rng.standard_normal((shape[0], num_classes, *shape[1:])))
    target = torch.as_tensor(np.where(rng.random(shape) < 0.2, IGNORE, rng.integers(0, num_classes, shape)))
    return logits, target


@light
@given(seed=st.integers(0, 999))
def test_likelihood_matches_the_loop_and_the_loss(seed):
    logits, target = data(seed)
    score = negative_log_likelihood(logits.softmax(dim=1), target)
    losses = oracles.pixel_losses(logits.numpy(), target.numpy(), "ce")
    assert score == pytest.approx(losses.sum() / (target != IGNORE).sum().item(), abs=1e-10)
    assert score == pytest.approx(cross_entropy_loss(logits, target).item(), abs=1e-10)


def test_impossible_label_costs_the_floor():
    probs = torch.tensor([1.0, 0.0]).view(1, 2, 1, 1)
    assert negative_log_likelihood(probs, torch.ones(1, 1, 1).long()) == pytest.approx(-math.log(1e-12))
    assert negative_log_likelihood(probs, torch.zeros(1, 1, 1).long()) == 0


def test_likelihood_of_nothing_is_nan():
    assert math.isnan(negative_log_likelihood(torch.full((1, 2, 3, 3), 0.5), torch.full((1, 3, 3), IGNORE)))


def test_uint8_label_156_is_not_ignored_for_minus_100():
    target = torch.tensor([[[0, 156]]], dtype=torch.uint8)
    assert negative_log_likelihood(torch.full((1, 157, 1, 2), 1 / 157), target) == pytest.approx(math.log(157))


def test_likelihood_is_best_at_the_share_of_the_label():
    target = torch.tensor([1] * 3 + [0] * 7).view(1, 10, 1)

    def score(p):
        return negative_log_likelihood(torch.tensor([1 - p, p]).view(1, 2, 1, 1).expand(1, 2, 10, 1), target)

    assert min(np.arange(5, 100, 5) / 100, key=score) == 0.3


@light
@given(seed=st.integers(0, 999))
def test_divergence_matches_the_loop(seed):
    probs, posterior = (data(s)[0].softmax(dim=1) for s in (seed, seed + 1))
    pairs = zip(posterior.flatten().tolist(), probs.flatten().tolist(), strict=True)
    slow = sum(p * math.log(p / q) for p, q in pairs) / (2 * 4 * 3)
    assert posterior_divergence(probs, posterior) == pytest.approx(slow, abs=1e-10)
    assert slow > 0


def test_divergence_of_the_truth_is_zero_also_where_it_is_certain():
    posterior = torch.tensor([1.0, 0.0, 0.0]).view(1, 3, 1, 1)
    assert posterior_divergence(posterior, posterior) == 0
    assert posterior_divergence(posterior.roll(1, dims=1), posterior) == pytest.approx(-math.log(1e-12))


@light
@given(seed=st.integers(0, 999))
def test_divergence_is_expected_likelihood_less_entropy(seed):
    probs, posterior = (data(s)[0].softmax(dim=1) for s in (seed, seed + 1))
    likelihood, entropy = (
        sum((posterior[:, k] * -q[:, k].log()).mean().item() for k in range(3)) for q in (probs, posterior)
    )
    assert posterior_divergence(probs, posterior) == pytest.approx(likelihood - entropy, abs=1e-10)


# Brier


def brier_by_loop(probs, target, where):
    pairs = zip(probs.movedim(1, -1)[where].tolist(), target[where].tolist(), strict=True)
    return np.mean([sum((p - (k == y)) ** 2 for k, p in enumerate(pixel)) for pixel, y in pairs])


def parts_by_loop(p, y, n_bins):
    """(reliability, resolution, uncertainty, within) of one class, from its probabilities and 0 or 1 of each pixel."""
    mean, found = np.mean(y), np.zeros(4)
    found[2] = mean * (1 - mean)
    numbers = [oracles.bin_of(v, n_bins) for v in p]
    for b in set(numbers):
        inside = [n == b for n in numbers]
        u, v = np.array(p)[inside], np.array(y)[inside]
        covariance = np.mean((u - u.mean()) * (v - v.mean()))
        share = len(u) / len(p)
        found[0] += share * (u.mean() - v.mean()) ** 2
        found[1] += share * (v.mean() - mean) ** 2
        found[3] += share * (u.var() - 2 * covariance)
    return found


@pytest.mark.parametrize("region", REGIONS)
@pytest.mark.parametrize("n_bins", [1, 4, 15])
def test_brier_score_and_its_parts_match_the_loop(region, n_bins):
    probs, target = oracles.forecast((2, 6, 5), 3)
    where = region_mask(probs, target, region)
    metric = BrierScore(region=region, n_bins=n_bins)
    for n in range(2):
        metric.update(probs[n : n + 1], target[n : n + 1])
    where[0] = region_mask(probs[:1], target[:1], region)[0]
    rows = [(probs[:, k][where].tolist(), (target == k)[where].double().tolist()) for k in range(3)]
    reliability, resolution, uncertainty, within = sum(parts_by_loop(*row, n_bins) for row in rows)
    parts = metric.parts
    assert metric.compute() == pytest.approx(brier_by_loop(probs, target, where), abs=1e-12)
    assert brier_score(probs, target, region=region) == pytest.approx(parts.score, abs=1e-12)
    assert parts.score == metric.compute()
    assert parts.reliability == pytest.approx(reliability, abs=1e-12)
    assert parts.resolution == pytest.approx(resolution, abs=1e-12)
    assert parts.uncertainty == pytest.approx(uncertainty, abs=1e-12)
    assert parts.within_bins == pytest.approx(within, abs=1e-12)


def test_brier_score_of_the_certain_and_of_nothing():
    certain = torch.tensor([1.0, 0.0]).view(1, 2, 1, 1)
    assert brier_score(certain, torch.zeros(1, 1, 1).long()) == 0
    assert brier_score(certain, torch.ones(1, 1, 1).long()) == 2
    metric = BrierScore()
    metric.update(certain, torch.full((1, 1, 1), IGNORE))
    assert math.isnan(metric.compute())
    assert all(math.isnan(part) for part in vars(metric.parts).values())


@pytest.mark.parametrize("region", REGIONS)
def test_likelihood_of_a_region_matches_the_loop(region):
    probs, target = oracles.forecast((2, 6, 5), 3)
    where = region_mask(probs, target, region)
    pairs = zip(probs.movedim(1, -1)[where].tolist(), target[where].tolist(), strict=True)
    slow = np.mean([-math.log(p[y]) for p, y in pairs])
    assert negative_log_likelihood(probs, target, region=region) == pytest.approx(slow, abs=1e-12)
    assert negative_log_likelihood(probs.log(), target, region=region, from_logits=True) == pytest.approx(
        slow, abs=1e-9
    )


def test_logits_have_no_floor():
    logits = torch.tensor([100.0, 0.0]).view(1, 2, 1, 1)
    target = torch.ones(1, 1, 1).long()
    assert negative_log_likelihood(logits, target, from_logits=True) == 100
    assert negative_log_likelihood(logits.softmax(dim=1), target) == pytest.approx(-math.log(1e-12))


# Refusals


@pytest.mark.parametrize(
    ("probs", "target", "error", "message"),
    [
        (torch.ones(2, 2, 2), torch.zeros(2, 2).long(), ValueError, r"`probs` of shape \(N, C, H, W\)"),
        (torch.ones(1, 2, 1, 1).int(), torch.zeros(1, 1, 1).long(), TypeError, "`probs` of a floating dtype"),
        (torch.ones(1, 2, 1, 1), torch.zeros(1, 1, 1), TypeError, "`target` of an integer dtype, got torch.float32"),
        (torch.ones(1, 2, 1, 1), torch.full((1, 1, 1), 2), ValueError, r"`target` values in \[0, 2\) .* got 2"),
        (torch.ones(1, 2, 1, 1), torch.zeros(1, 1, 2).long(), ValueError, r"`target` of shape \(1, 1, 1\), got"),
    ],
)
def test_bad_input_is_named(probs, target, error, message):
    with pytest.raises(error, match=message):
        negative_log_likelihood(probs, target)


def test_divergence_refuses_other_shapes():
    with pytest.raises(ValueError, match=r"`posterior` of the shape of `probs`, \(1, 2, 1, 1\), got \(1, 3, 1, 1\)"):
        posterior_divergence(torch.ones(1, 2, 1, 1), torch.ones(1, 3, 1, 1))


@pytest.mark.parametrize("value", [math.nan, 1.5, -0.5])
def test_what_is_no_probability_is_refused(value):
    probs, target = torch.full((1, 2, 1, 1), value), torch.zeros(1, 1, 1).long()
    with pytest.raises(ValueError, match=r"`probs` values in \[0, 1\]"):
        negative_log_likelihood(probs, target)
    with pytest.raises(ValueError, match=r"`probs` values in \[0, 1\]"):
        posterior_divergence(probs, torch.full((1, 2, 1, 1), 0.5))
