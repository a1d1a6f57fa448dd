"""How much of a mask SVLS touches."""

import math

import numpy as np
import oracles
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from oracles import IGNORE, light

from nacl.data import load_dataset
from nacl.theory import svls_band_share


@light
@given(kernel_size=st.sampled_from([1, 3, 5]), seed=st.integers(0, 999))
def test_share_is_that_of_the_labels_that_svls_changes(kernel_size, seed):
    rng = np.random.default_rng(seed)
    target = np.kron(rng.integers(0, 3, (2, 3, 3)), np.ones((1, 3, 3), int))
    target[rng.random(target.shape) < 0.1] = IGNORE
    label = oracles.prior(target, 3, "gaussian", kernel_size, 1.0)
    changed = (label != oracles.one_hot(target, 3)).any(axis=1)[target != IGNORE]
    assert svls_band_share(torch.as_tensor(target), kernel_size=kernel_size) == pytest.approx(changed.mean())


def test_no_valid_pixel_has_no_share():
    assert math.isnan(svls_band_share(torch.full((1, 2, 2), IGNORE)))


def test_svls_is_cross_entropy_on_98_percent_of_real_slices(acdc):
    cases = [case for case in load_dataset(str(acdc), size=192).cases if case.split == "valid"]
    masks = torch.as_tensor(np.concatenate([case.label for case in cases]))
    shares = [svls_band_share(masks, kernel_size=size) for size in (1, 3, 5, 7)]
    assert shares == pytest.approx([0, 0.019, 0.0365, 0.0515], abs=2e-3)
