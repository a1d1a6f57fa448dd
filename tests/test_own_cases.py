"""A user's own function of cases: what it gives comes back, and what can't be used is named before it does harm."""

from dataclasses import replace

import numpy as np
import pytest

from nacl.data import Case, load_dataset, prepare_cases
from nacl.data.prepared import store


def content(folder):
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in files}


def own_case(name="a", split="train", **changes):
    rng = np.random.default_rng(list(name.encode()))
    label = rng.integers(0, 3, (2, 8, 8)).astype(np.uint8)
    return replace(Case(name, split, rng.random((1, 2, 8, 8), np.float32), label, (5, 1.5, 1.5)), **changes)


def own(cases, target, **options):
    return prepare_cases(cases, target, **{"name": "mine", "class_names": ("a", "b", "c"), **options})


def test_a_users_cases_come_back(tmp_path):
    cases = [own_case("x", "test", posterior=np.full((3, 2, 8, 8), 1 / 3, np.float32)), own_case("b"), own_case("a")]
    report = own(iter(cases), tmp_path / "out", regions={"all": [1, 2]}, unit="px")
    assert (report.cases, report.is_complete) == (("x", "b", "a"), True)
    dataset = load_dataset(str(tmp_path / "out"), size=8)
    assert (dataset.name, dataset.unit, dataset.regions) == ("mine", "px", {"all": (1, 2)})
    for case in cases:
        found = next(c for c in dataset.cases if c.name == case.name)
        assert np.array_equal(found.image, case.image)
        assert np.array_equal(found.label, case.label)
        assert (found.posterior is None) == (case.posterior is None)
    first = content(tmp_path / "out")
    again = own(cases[::-1], tmp_path / "out", regions={"all": [1, 2]}, unit="px")
    assert content(tmp_path / "out") == first
    assert (again.cases, again.skipped) == ((), ("a", "b", "x"))


def test_whole_numbers_of_any_dtype_are_labels(tmp_path):
    case = own_case()
    for dtype in (np.int64, "u4", ">i2"):
        own([replace(case, label=case.label.astype(dtype))], tmp_path / "out")
        found = load_dataset(str(tmp_path / "out"), size=8).cases[0].label
        assert found.dtype == np.uint8
        assert np.array_equal(found, case.label)


def _with(array, value):
    array = array.astype(np.float64)
    array[(0,) * array.ndim] = value
    return array


THIRDS = np.full((3, 2, 8, 8), 1 / 3)
OFF = np.array([-1, 0, 1]).reshape(3, 1, 1, 1)
OWN = {
    "nothing": ([], "`cases` to be one at least"),
    "no case": ([3], "to be nacl.data.Case objects, got int"),
    "names": ([own_case("a"), own_case("a")], "of different names, got a twice"),
    "a path": ([own_case("../a")], "`name` of 1 to 100 letters"),
    "two splits": (
        [own_case("a", patient="p"), own_case("b", "test", patient="p")],
        r"p in 'train' and 'test' \(case b\)",
    ),
    "NaN": ([own_case(image=_with(own_case().image, np.nan))], r"finite values in \[0, 1\], got \[nan.*case a"),
    "infinity": ([own_case(image=_with(own_case().image, np.inf))], r"got \[.*inf\] \(case a\)"),
    "not scaled": ([own_case(image=own_case().image * 255)], r"in \[0, 1\].*\(case a\)\. Scale it"),
    "label 3": ([own_case(label=own_case().label + 1)], r"`label` of classes in \[0, 3\), got 3 \(case a\)\. Remap"),
    "no voxel": (
        [own_case(image=np.zeros((1, 0, 8, 8)), label=np.zeros((0, 8, 8), int))],
        "one voxel at least.*case a",
    ),
    "channels": ([own_case(image=np.zeros((2, 2, 8, 8)))], "`image` with 1 channels, got 2"),
    "posterior": ([own_case(posterior=np.zeros((2, 2, 8, 8)))], r"`posterior` of numbers, of shape \(3, 2, 8, 8\)"),
    "posterior NaN": ([own_case(posterior=_with(THIRDS, np.nan))], "sum 1 over.* got values from nan.*case a"),
    "posterior infinite": ([own_case(posterior=_with(THIRDS, np.inf))], r"sum 1 over.*inf\].*case a"),
    "posterior below 0": ([own_case(posterior=THIRDS + OFF)], r"values from -0\.6667 and sums in \[1, 1\]"),
    "posterior of 0.998": ([own_case(posterior=_with(THIRDS, 1 / 3 - 2e-3))], r"sums in \[0\.998, 1\]"),
    "not square": (
        [own_case(image=np.zeros((1, 2, 8, 6)), label=np.zeros((2, 8, 6), np.uint8))],
        r"`label` of square slices, got 8 x 6 \(case a\)\. Pad the slices to a square",
    ),
}


@pytest.mark.parametrize("kind", OWN)
def test_a_users_case_that_cannot_be_used_is_named(kind, tmp_path):
    cases, message = OWN[kind]
    own([own_case("z")], tmp_path / "out")
    before = content(tmp_path / "out")
    with pytest.raises((ValueError, TypeError), match=message):
        own(cases, tmp_path / "out")
    assert before.items() <= content(tmp_path / "out").items()
    with pytest.raises((ValueError, TypeError), match=message):
        own(cases, tmp_path / "new")
    assert not store.is_prepared(tmp_path / "new")


def _ends_badly(*cases):
    yield from cases
    raise RuntimeError("of the user's own")


def test_a_generator_that_raises_leaves_what_was_prepared_until_a_file_is_replaced(tmp_path):
    target, old = tmp_path / "out", [own_case("y", "valid"), own_case("z")]
    own(old, target)
    before, times = content(target), {file: file.stat().st_mtime_ns for file in target.rglob("*.h5")}
    for drawn in ([], old, [own_case("a"), *old]):  # the same again, and one beside them
        with pytest.raises(RuntimeError, match="own"):
            own(_ends_badly(*drawn), target)
        assert before.items() <= content(target).items()
        assert {file: file.stat().st_mtime_ns for file in times} == times
        assert {case.name for case in load_dataset(str(target), size=8).cases} == {"y", "z"}
    with pytest.raises(RuntimeError, match="own"):
        own(_ends_badly(own_case("z", spacing=(5, 1, 1))), target)
    assert not store.is_prepared(target)
    assert own(old, target).skipped == ("y",)
    assert store.is_prepared(target)


def test_what_training_needs_and_what_is_flat_is_said(tmp_path):
    flat = own_case("a", image=np.stack([own_case().image[0], np.full((2, 8, 8), 0.5)]))
    full = own_case("b", image=flat.image[[0, 0]])
    told = own([flat, full], tmp_path / "out", channel_names=("T1", "T2")).warnings
    assert told == (
        "a: the prepared channel T2 has one value only",
        "no case is for valid or test: training needs all of train, valid and test",
    )
    again = own([flat, full], tmp_path / "out", channel_names=("T1", "T2"))
    assert (again.skipped, again.warnings) == (("a", "b"), told)
    assert own([own_case(split, split) for split in ("train", "valid", "test")], tmp_path / "all").warnings == ()


def test_a_posterior_up_to_rounding_is_taken(tmp_path):
    posterior = np.random.default_rng(0).dirichlet((1, 1, 1), (2, 8, 8)).transpose(3, 0, 1, 2)
    own([own_case(posterior=posterior.astype(np.float16))], tmp_path / "out")
    found = load_dataset(str(tmp_path / "out"), size=8).cases[0].posterior
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, posterior, atol=1e-3)
    with pytest.raises(ValueError, match=r"slices of 8 x 8.*or use size=8, the size of its slices"):
        load_dataset(str(tmp_path / "out"), size=4).cases[0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "my/data"}, "`name` of 1 to 100"),
        ({"class_names": ["a", "a"]}, "`class_names` to be a list of different texts"),
        ({"unit": "cm"}, "`unit` to be 'mm' or 'px', got 'cm'"),
        ({"channel_names": []}, "`channel_names`"),
        ({"regions": {"all": [3]}}, r"`regions` of classes in \[0, 3\)"),
    ],
)
def test_what_cases_share_is_checked_before_the_first_is_drawn(options, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        own((pytest.fail("drawn") for _ in range(1)), tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()
