"""The temperature that would help, judged on patients that it was not fitted on."""

import warnings
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from nacl.metrics import calibration_bins, negative_log_likelihood, region_mask
from nacl.reporting.cases import CheckedCase
from nacl.reporting.summary import Estimate, estimate
from nacl.scaling import TemperatureScaling

SAMPLE_NUMBERS = 100_000
"""Logits kept of a case for each of two samples: 25,000 pixels of 4 classes, 0.4 MB."""

LEAST_PATIENTS = 4
JUDGED = {"nll": "NLL", "ece_all": "ECE, all pixels", "ece_predicted_border": "ECE, predicted border"}


class Sample(NamedTuple):
    """Pixels of a case, drawn evenly from all that are valid and from those of the predicted border.

    Logits (1, C, 1, n) in float32 or float64, and labels (1, 1, n).
    """

    patient: str
    everywhere: tuple[Tensor, Tensor]
    border: tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Temperature:
    """What was found.

    Attributes:
        value: T fitted on all patients, the one to use.
        halves: T of each half of the patients; empty where it was judged in sample.
        gains: for each key of `JUDGED`, before, after, and the difference, after less before.
        converged: False where no finite T is best, such as where every pixel is right.
        pixels: largest number of pixels in a case's sample.
    """

    value: float
    halves: tuple[float, ...]
    gains: dict[str, tuple[Estimate, Estimate, Estimate]]
    converged: bool
    pixels: int

    @property
    def is_honest(self) -> bool:
        """Whether the gains are those of patients that T was not fitted on."""
        return bool(self.halves)


def sample_case(case: CheckedCase, *, ignore_index: int, seed: int, numbers: int = SAMPLE_NUMBERS) -> Sample:
    """The pixels of a case that the temperature sees: the same for a name and a seed, whatever the other cases are."""
    rng = np.random.default_rng([seed, zlib.crc32(case.name.encode())])
    scores, target = case.scores.flatten(2)[0], case.target.flatten()
    options = {"from_logits": case.from_logits, "ignore_index": ignore_index}
    border = region_mask(case.scores, case.target, "predicted_border", **options).flatten()
    size = max(1, numbers // case.num_classes)
    parts = []
    for mask in (target != ignore_index, border):
        places = torch.from_numpy(np.flatnonzero(mask.numpy()))
        if len(places) > size:
            places = places[torch.from_numpy(np.sort(rng.choice(len(places), size, replace=False)))]
        kept = scores[:, places][None, :, None]
        logits = CheckedCase("", "", kept, target, case.from_logits, None, None).logits
        parts.append((logits, target[places][None, None]))
    return Sample(case.patient, *parts)


def cross_fit(samples: Sequence[Sample], *, n_bins: int, seed: int) -> Temperature:
    """T of all patients, and what the T of one half of them does for the other half, both ways.

    With fewer than `LEAST_PATIENTS` patients T is judged on the patients that it was fitted on.
    """
    patients = sorted({sample.patient for sample in samples})
    value, converged = _fit(samples)
    halves, used = (), dict.fromkeys(patients, value)
    if len(patients) >= LEAST_PATIENTS:
        shuffled = np.random.default_rng(seed).permutation(patients).tolist()
        sides = set(shuffled[: len(patients) // 2]), set(shuffled[len(patients) // 2 :])
        fitted = [_fit([sample for sample in samples if sample.patient in side]) for side in sides]
        halves, converged = tuple(t for t, _ in fitted), converged and all(well for _, well in fitted)
        used = {patient: halves[patient in sides[0]] for patient in patients}
    before = _scores(samples, dict.fromkeys(patients, 1.0), n_bins)
    after = _scores(samples, used, n_bins)
    gains = {}
    for name in JUDGED:
        differences = estimate(after[name] - before[name])
        gains[name] = (estimate(before[name], low=0), estimate(after[name], low=0), differences)
    return Temperature(value, halves, gains, converged, max(s.everywhere[1].numel() for s in samples))


def _fit(samples: Sequence[Sample]) -> tuple[float, bool]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # that no T is best is said on the page
        scaling = TemperatureScaling().fit([sample.everywhere for sample in samples], ignore_index=-100)
    return scaling.temperature.item(), bool(scaling.last_fit.converged)


def _scores(samples: Sequence[Sample], temperatures: dict[str, float], n_bins: int) -> dict[str, np.ndarray]:
    """For each number that is judged, the mean over the cases of each patient, in the order of `temperatures`."""
    found: dict[str, dict[str, list[float]]] = {name: {patient: [] for patient in temperatures} for name in JUDGED}
    for patient, everywhere, border in samples:
        softer, of_border = (logits.double() / temperatures[patient] for logits, _ in (everywhere, border))
        values = {
            "nll": negative_log_likelihood(softer, everywhere[1], from_logits=True),
            "ece_all": _ece(softer, everywhere[1], n_bins),
            "ece_predicted_border": _ece(of_border, border[1], n_bins) if border[1].numel() else np.nan,
        }
        for name, number in values.items():
            found[name][patient].append(number)
    return {name: np.array([np.mean(x) for x in by_patient.values()]) for name, by_patient in found.items()}


def _ece(logits: Tensor, target: Tensor, n_bins: int) -> float:
    bins = calibration_bins(logits, target, n_bins=n_bins, regions=["all"], from_logits=True)
    return bins["all"].expected.item()
