"""Patches: each is the slice of its volume, places are uniform and fixed by the seed, memory and files agree."""

import threading
import time
from contextlib import closing
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

from nacl.data import Case, Cases, load_dataset, prepare_cases
from nacl.data.case import StoredCase
from nacl.data.patches import BEYOND, PatchesInFiles, PatchesInMemory, patches_of

CPU = torch.device("cpu")
PATCH = (3, 4, 5)


def numbered(name: str, shape: tuple[int, int, int], *, channels: int = 1) -> Case:
    """A case whose voxels tell where they are: no two of its image are equal."""
    image = np.arange(channels * np.prod(shape), dtype=np.float32).reshape(channels, *shape)
    label = np.random.default_rng(list(name.encode())).integers(0, 200, shape, np.uint8)
    return Case(name, "train", image / image.size, label, (5.0, 1.0, 1.0))


# Thin and thick, each axis longer than the patch, as long, and shorter by an even and by an odd number.
SHAPES = {"a": (7, 9, 11), "b": (3, 4, 5), "c": (1, 9, 2), "d": (2, 3, 11), "e": (2, 9, 11), "f": (7, 3, 5)}
CASES = [numbered(name, shape) for name, shape in SHAPES.items()]


def stored(cases: list[Case], asked: list | None = None) -> Cases:
    """The same cases as files would hold them; `asked` gets the name, the slices and the thread of each reading."""

    def read(case: Case, planes: slice) -> Case:
        if asked is not None:
            asked.append((case.name, planes, threading.current_thread()))
        return Case(case.name, case.split, case.image[:, planes].copy(), case.label[planes].copy(), case.spacing)

    return Cases(StoredCase(c.name, c.split, c.patient, len(c.label), partial(read, c)) for c in cases)


def all_of(patches, *, seed: int = 0, order=None, batch_size: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    order = torch.arange(len(patches)) if order is None else order
    images, labels = zip(*patches.drawn(seed).batches(order, batch_size), strict=True)
    return torch.cat(images), torch.cat(labels)


def of_thread() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("patches")]


def by_hand(case: Case, start, patch) -> tuple[np.ndarray, np.ndarray]:
    """The patch from a volume that was padded on all sides, far enough."""
    around = [(size, size) for size in patch]
    image = np.pad(case.image, [(0, 0), *around])
    label = np.pad(case.label.astype(np.int64), around, constant_values=BEYOND)
    window = tuple(slice(begin + size, begin + 2 * size) for begin, size in zip(start, patch, strict=True))
    return image[(slice(None), *window)], label[window]


# What a patch is


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("budget", [0, 2**30])
@pytest.mark.parametrize("patch", [PATCH, (1, 1, 1), (1, 9, 11), (8, 2, 12)])
def test_each_patch_is_the_piece_of_its_volume_at_its_place(patch, budget, channels):
    cases = [numbered(case.name, case.label.shape, channels=channels) for case in CASES]
    patches = patches_of(stored(cases), CPU, patch, budget=budget)
    drawn = patches.drawn(3)
    images, labels = all_of(patches, seed=3)
    assert images.shape == (len(patches), channels, *patch)
    assert labels.shape == (len(patches), *patch)
    assert (images.dtype, labels.dtype) == (torch.float32, torch.int64)
    for index, (case, start) in enumerate(zip(patches.cases, drawn.starts, strict=True)):
        image, label = by_hand(cases[case], start, patch)
        assert np.array_equal(images[index], image)
        assert np.array_equal(labels[index], label)


def test_a_short_axis_has_its_volume_in_the_middle_and_the_longer_half_behind():
    """As where windows are predicted; of 3 beyond, 1 lies before the volume and 2 behind it."""
    case = numbered("e", (2, 6, 4))
    images, labels = all_of(patches_of([case], CPU, (5, 6, 6)))
    assert len(images) == 1
    inside = labels[0] != BEYOND
    assert [inside.any(dim=axes).tolist() for axes in ((1, 2), (0, 2), (0, 1))] == [
        [False, True, True, False, False],
        [True] * 6,
        [False, True, True, True, True, False],
    ]
    assert np.array_equal(images[0, :, 1:3, :, 1:5], case.image)
    assert np.array_equal(labels[0, 1:3, :, 1:5], case.label)
    assert (images[0, 0][~inside] == 0).all()
    assert inside.sum() == case.label.size


def test_nothing_lies_beyond_a_volume_that_is_no_shorter_than_the_patch():
    _, labels = all_of(patches_of(CASES[:2], CPU, PATCH))
    assert (labels >= 0).all()


@pytest.mark.parametrize("patch", [PATCH, (1, 1, 1), (2, 3, 4), (7, 9, 11), (20, 2, 20)])
def test_an_epoch_has_as_many_patches_of_a_case_as_cover_it(patch):
    patches = patches_of(CASES, CPU, patch)
    wanted = [
        np.prod([len(range(0, size, step)) for size, step in zip(case.label.shape, patch, strict=True)])
        for case in CASES
    ]
    assert np.bincount(patches.cases).tolist() == wanted
    assert len(patches) == len(patches.drawn(0)) == sum(wanted)


def test_a_patch_as_large_as_the_volume_is_the_volume():
    case = CASES[0]
    images, labels = all_of(patches_of([case], CPU, case.label.shape))
    assert np.array_equal(images, case.image[None])
    assert np.array_equal(labels, case.label[None])


@pytest.mark.parametrize("budget", [0, 2**30])
def test_patches_of_one_voxel_have_the_mean_of_the_volume(budget):
    """Ten thousand voxels drawn one by one: the means agree with the volume's to five of their standard errors."""
    case = numbered("f", (10, 10, 10))
    patches = patches_of([case], CPU, (1, 1, 1), budget=budget)
    labels = torch.cat([all_of(patches, seed=seed, batch_size=1000)[1] for seed in range(10)]).flatten().double()
    error = case.label.std() / np.sqrt(len(labels))
    assert len(labels) == 10_000
    assert abs(labels.mean() - case.label.mean()) < 5 * error


def test_the_patches_may_be_written_to_without_a_change_of_the_case():
    case = numbered("g", PATCH)
    patches = patches_of([case], CPU, PATCH)
    images, labels = all_of(patches, batch_size=1)
    images += 1
    labels += 1
    again = all_of(patches, batch_size=1)
    assert np.array_equal(again[0], case.image[None])
    assert np.array_equal(again[1], case.label[None])


@pytest.mark.parametrize("step", [1, -1])
@pytest.mark.parametrize("budget", [0, 2**30])
def test_arrays_that_cannot_be_written_to_or_run_backwards_will_do(budget, step):
    case = numbered("h", (4, 5, 6))
    image, label = case.image[:, ::step, :, ::step], case.label[::step, :, ::step]
    image.flags.writeable = label.flags.writeable = False
    odd, plain = Case("h", "train", image, label, (1, 1, 1)), Case("h", "train", image.copy(), label.copy(), (1, 1, 1))
    found, wanted = (all_of(patches_of([one], CPU, PATCH, budget=budget)) for one in (odd, plain))
    assert all(torch.equal(a, b) for a, b in zip(found, wanted, strict=True))


# Places


def test_places_are_uniform_over_all_where_the_patch_fits():
    """Chi-square over the 5 x 6 x 7 = 210 places of one case: 209 degrees of freedom, 20 standard deviations apart."""
    case = numbered("i", (7, 9, 11))
    patches = patches_of([case], CPU, PATCH)
    starts = np.concatenate([patches.drawn(seed).starts for seed in range(700)])
    counts = np.zeros((5, 6, 7))
    np.add.at(counts, tuple(starts.T), 1)
    assert len(starts) == 700 * 27
    expected = len(starts) / counts.size
    chi_square = ((counts - expected) ** 2 / expected).sum()
    assert 209 - 4 * np.sqrt(2 * 209) < chi_square < 209 + 4 * np.sqrt(2 * 209)


def test_places_are_those_of_the_seed():
    patches = patches_of(CASES, CPU, PATCH)
    starts = [patches.drawn(seed).starts for seed in (5, 5, 6, 2**63 - 1)]
    assert np.array_equal(starts[0], starts[1])
    assert not np.array_equal(starts[0], starts[2])
    before = torch.get_rng_state()
    patches.drawn(7)
    assert torch.equal(torch.get_rng_state(), before), "no draw of the global generator"


@pytest.mark.parametrize("budget", [0, 2**30])
def test_any_order_in_batches_of_any_size_and_on_any_process_has_the_same_patches(budget):
    wanted = all_of(patches_of(CASES, CPU, PATCH), seed=4, batch_size=100)
    patches = patches_of(stored(CASES), CPU, PATCH, budget=budget)
    order = torch.randperm(len(patches), generator=torch.Generator().manual_seed(0))
    for part in (order, order[::2], order[1::2], order[:1], torch.tensor([5, 5, 0])):
        for batch_size in (1, 3, 1000):
            found = all_of(patches, seed=4, order=part, batch_size=batch_size)
            assert all(torch.equal(a, b[part]) for a, b in zip(found, wanted, strict=True))


def test_a_place_depends_on_the_index_and_not_on_how_many_patches_there_are():
    few, many = (patches_of([CASES[0]] * count, CPU, PATCH) for count in (1, 3))
    assert np.array_equal(many.drawn(9).starts[: len(few)], few.drawn(9).starts)


def test_batches_are_of_the_size_asked_for_but_the_last():
    patches = patches_of(CASES, CPU, PATCH)
    for count, wanted in ((10, [4, 4, 2]), (8, [4, 4]), (0, [0])):  # none, as a process without a share has
        assert [len(images) for images, _ in patches.drawn(0).batches(torch.arange(count), 4)] == wanted


# Memory and files


def test_cases_are_kept_in_memory_up_to_the_budget():
    needed = sum(case.image.nbytes + case.label.nbytes for case in CASES)
    assert isinstance(patches_of(stored(CASES), CPU, PATCH, budget=needed), PatchesInMemory)
    assert isinstance(patches_of(stored(CASES), CPU, PATCH, budget=needed - 1), PatchesInFiles)


def test_cases_that_are_in_memory_are_not_copied():
    patches = patches_of(CASES, CPU, PATCH)
    assert patches.volumes[0][0].data_ptr() == CASES[0].image.ctypes.data


def test_of_a_file_the_slices_of_the_patch_are_read_and_no_others():
    asked: list = []
    patches = patches_of(stored(CASES, asked), CPU, PATCH, budget=0)
    assert [(name, planes) for name, planes, _ in asked] == [(case.name, slice(0, 1)) for case in CASES]
    asked.clear()
    drawn = patches.drawn(1)
    order = torch.arange(len(patches)).flip(0)
    list(drawn.batches(order, 3))
    for index, (name, planes, thread) in zip(order.tolist(), asked, strict=True):
        case = CASES[patches.cases[index]]
        depth, start = len(case.label), int(drawn.starts[index, 0])
        assert name == case.name
        assert planes == (slice(start, start + 3) if depth >= 3 else slice(0, depth))
        assert thread is not threading.main_thread()


def test_one_batch_is_read_ahead_and_no_more():
    asked: list = []
    patches = patches_of(stored(CASES, asked), CPU, PATCH, budget=0)
    asked.clear()
    with closing(patches.drawn(0).batches(torch.arange(20), 2)) as batches:
        for number, _ in enumerate(batches):
            time.sleep(0.02)  # in which a thread that reads on would read all
            assert 2 * (number + 1) <= len(asked) <= 2 * (number + 2)
    assert not of_thread()


@pytest.mark.parametrize("count", [0, 1, 2])
def test_an_iterator_that_is_closed_early_leaves_no_thread(count):
    patches = patches_of(stored(CASES), CPU, PATCH, budget=0)
    with closing(patches.drawn(0).batches(torch.arange(20), 2)) as batches:
        for _ in range(count):
            next(batches)
        assert len(of_thread()) == min(count, 1)
    assert not of_thread()


def test_an_error_of_reading_is_raised_where_its_batch_is_asked_for():
    def read(planes: slice) -> Case:
        if planes != slice(0, 1):
            raise ValueError("Expected `torn.h5` to be a whole file, got 3 bytes.")
        return CASES[1]

    cases = Cases([*CASES[:1], StoredCase("torn", "train", "torn", 3, read)])
    patches = patches_of(cases, CPU, PATCH, budget=0)
    assert len(patches) == 28
    seen: list = []
    with (
        pytest.raises(ValueError, match=r"torn\.h5"),
        closing(patches.drawn(0).batches(torch.arange(28), 9)) as batches,
    ):
        seen.extend(len(images) for images, _ in batches)
    assert seen == [9, 9, 9]
    assert not of_thread()
    with pytest.raises(ValueError, match=r"torn\.h5"):
        patches_of(cases, CPU, PATCH)


def test_a_prepared_folder_gives_the_same_patches_from_its_files_as_from_memory(tmp_path):
    depths = {"train": (5, 12, 2), "valid": (3,), "test": (3,)}
    cases = [
        replace(
            numbered(f"{split}{depth}", (depth, 20, 20), channels=2), split=split, label=np.ones((depth, 20, 20)) > 0
        )
        for split, of_split in depths.items()
        for depth in of_split
    ]
    prepare_cases(cases, tmp_path / "prepared", name="p", class_names=("a", "b"), channel_names=("x", "y"))
    train = load_dataset(str(tmp_path / "prepared"), size=16).split("train")
    memory, files = (patches_of(train, CPU, (4, 8, 8), budget=budget) for budget in (2**30, 0))
    assert (type(memory), type(files)) == (PatchesInMemory, PatchesInFiles)
    assert len(files) == (2 + 3 + 1) * 4
    found, wanted = (all_of(patches, seed=2, batch_size=5) for patches in (files, memory))
    assert all(torch.equal(a, b) for a, b in zip(found, wanted, strict=True))


# What is refused


@pytest.mark.parametrize(
    ("patch", "error", "message"),
    [
        ((4, 4), ValueError, r"`patch` of three sizes, \(depth, height, width\), got \(4, 4\)"),
        ((4, 4, 4, 4), ValueError, "`patch` of three sizes"),
        (4, ValueError, "`patch` of three sizes.*got 4"),
        ("444", ValueError, "`patch` of three sizes.*got '444'"),
        (None, ValueError, "`patch` of three sizes.*got None"),
        ((0, 4, 4), ValueError, "`patch` of at least 1, got 0"),
        ((4, -1, 4), ValueError, "`patch` of at least 1, got -1"),
        ((4, 4, 4.0), TypeError, "`patch` to be an integer, got 4.0"),
        ((4, True, 4), TypeError, "`patch` to be an integer, got True"),
        ((4, 4, float("nan")), TypeError, "`patch` to be an integer, got nan"),
    ],
)
def test_patches_that_are_none_are_named(patch, error, message):
    for budget in (0, 2**30):
        with pytest.raises(error, match=message):
            patches_of(CASES, CPU, patch, budget=budget)


def test_sizes_of_numpy_and_lists_are_taken():
    assert patches_of(CASES, CPU, list(np.array(PATCH))).patch == PATCH


@pytest.mark.parametrize("budget", [0, 2**30])
def test_cases_of_other_channels_are_refused_by_name(budget):
    cases = [*CASES, numbered("odd", (3, 4, 5), channels=2)]
    for kept in (cases, stored(cases)):
        with pytest.raises(
            ValueError, match=r"`cases` with the same number of channels, got 1 and 2 \(cases a and odd"
        ):
            patches_of(kept, CPU, PATCH, budget=budget)


@pytest.mark.parametrize("cases", [[], (), Cases([])])
def test_no_case_is_an_error(cases):
    with pytest.raises(ValueError, match="`cases` with a voxel at least, got no case"):
        patches_of(cases, CPU, PATCH)


def test_cases_without_a_voxel_are_an_error_alone_and_beside_others_none():
    empty = Case("empty", "train", np.zeros((1, 0, 4, 4), np.float32), np.zeros((0, 4, 4), np.uint8), (1, 1, 1))
    with pytest.raises(ValueError, match=r"`cases` with a voxel at least, got shapes .*0, 4, 4"):
        patches_of([empty], CPU, PATCH)
    assert len(patches_of([empty, CASES[1]], CPU, PATCH)) == 1


@pytest.mark.parametrize(("seed", "error"), [(-1, ValueError), (0.5, TypeError), ("1", TypeError), (None, TypeError)])
def test_seeds_that_are_none_are_named(seed, error):
    with pytest.raises(error, match="`seed`"):
        patches_of(CASES, CPU, PATCH).drawn(seed)


@pytest.mark.parametrize(("budget", "error"), [(-1, ValueError), (1e9, TypeError)])
def test_budgets_that_are_none_are_named(budget, error):
    with pytest.raises(error, match="`budget`"):
        patches_of(CASES, CPU, PATCH, budget=budget)


def test_an_index_beyond_the_epoch_is_an_error():
    patches = patches_of(CASES, CPU, PATCH)
    with pytest.raises(IndexError):
        list(patches.drawn(0).batches(torch.tensor([len(patches)]), 1))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine")
@pytest.mark.parametrize("budget", [0, 2**30])
def test_batches_on_a_gpu_wait_for_nothing(budget):
    place = torch.device("cuda")
    patches = patches_of(stored(CASES), place, PATCH, budget=budget)
    order = torch.arange(len(patches))
    list(patches.drawn(0).batches(order, 3))
    torch.cuda.set_sync_debug_mode("error")
    try:
        batches = list(patches.drawn(0).batches(order, 3))
    finally:
        torch.cuda.set_sync_debug_mode("default")
    expected = patches_of(CASES, CPU, PATCH).drawn(0).batches(order, 3)
    for found, wanted in zip(batches, expected, strict=True):
        assert all(torch.equal(a.cpu(), b) for a, b in zip(found, wanted, strict=True))
