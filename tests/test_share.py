"""A share of the training patients: whole patients, smaller shares within larger ones, nothing read."""

from itertools import pairwise

import numpy as np
import pytest

from nacl.data.case import Case, Cases, StoredCase
from nacl.data.splits import share_of


def unread(planes: slice) -> Case:
    raise AssertionError("no case may be read")


def cases_of(patients: int, visits: int = 2) -> Cases:
    names = [(f"p{patient:03}_v{visit}", f"p{patient:03}") for visit in range(visits) for patient in range(patients)]
    return Cases(StoredCase(name, "train", patient, 5, unread) for name, patient in names)


def names(cases: Cases) -> list[str]:
    return [entry.name for entry in cases.entries]


def patients(cases: Cases) -> set[str]:
    return {entry.patient for entry in cases.entries}


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_smaller_share_lies_within_a_larger_one(seed):
    cases = cases_of(40)
    shares = [patients(share_of(cases, share, seed)) for share in (0.1, 0.25, 0.5, 0.9, 1.0)]
    assert [len(found) for found in shares] == [4, 10, 20, 36, 40]
    assert all(small < large for small, large in pairwise(shares))


def test_patients_come_with_all_of_their_cases_in_the_order_they_had():
    cases = cases_of(20, visits=3)
    found = share_of(cases, 0.3, seed=0)
    assert len(found) == 18
    assert all(names(found).count(f"{patient}_v{visit}") == 1 for patient in patients(found) for visit in range(3))
    assert names(found) == [name for name in names(cases) if name in set(names(found))]


def test_all_is_all_in_the_same_order():
    cases = cases_of(7)
    assert share_of(cases, 1.0, seed=3).entries == cases.entries


def test_another_seed_is_another_subset_and_each_patient_gets_its_turn():
    cases = cases_of(12, visits=1)
    drawn = [patients(share_of(cases, 0.25, seed)) for seed in range(60)]
    assert len(set(map(frozenset, drawn))) > 40
    counts = [sum(patient in found for found in drawn) for patient in patients(cases)]
    assert sum(counts) == 60 * 3
    assert min(counts) > 4, "each is expected 15 times, with a standard deviation of 3.4"


@pytest.mark.parametrize(
    ("count", "share", "kept"),
    [(10, 0.01, 1), (1, 0.1, 1), (10, 0.24, 2), (10, 0.25, 3), (10, 0.34, 3), (10, 0.95, 10), (3, 0.5, 2), (7, 0.7, 5)],
)
def test_the_number_of_patients_is_rounded_a_half_up_and_at_least_one(count, share, kept):
    assert len(patients(share_of(cases_of(count), share, seed=0))) == kept


def test_the_order_of_the_cases_does_not_matter_and_one_patient_more_displaces_one_at_most():
    cases = cases_of(20)
    reverse = Cases(reversed(cases.entries))
    assert patients(share_of(cases, 0.5, 0)) == patients(share_of(reverse, 0.5, 0))
    for seed in range(10):
        before, after = patients(share_of(cases, 0.5, seed)), patients(share_of(cases_of(21), 0.5, seed))
        assert len(before - after) <= 1


def test_cases_in_memory_are_taken_too():
    image = np.zeros((1, 4, 4), np.float32)
    cases = Cases(Case(f"c{i}", "train", image, image.astype(np.uint8), (1.0, 1.0, 1.0)) for i in range(4))
    assert len(share_of(cases, 0.5, seed=0)) == 2


@pytest.mark.parametrize("share", [0, -0.1, 1.01, float("nan")])
def test_a_share_that_is_none_is_refused(share):
    with pytest.raises(ValueError, match=rf"`share` in \(0, 1\], got {share}"):
        share_of(cases_of(3), share, seed=0)


def test_a_seed_that_is_none_is_refused():
    with pytest.raises(ValueError, match="`seed` of at least 0, got -1"):
        share_of(cases_of(3), 0.5, seed=-1)
