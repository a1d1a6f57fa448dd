"""Batches of slices: the same from memory and from files, one ahead; and never two stored cases in memory."""

import threading
import time
import weakref
from contextlib import closing
from functools import partial

import numpy as np
import pytest
import torch
from conftest import square_case
from torch import nn

from nacl.data import Case, Cases, stack_slices
from nacl.data.case import StoredCase
from nacl.data.slices import SlicesInFiles, SlicesInMemory, count_slices, slices_of
from nacl.evaluation import evaluate, fitted_temperature
from nacl.losses import CRaCLoss, CrossEntropyLoss
from nacl.training import fit
from nacl.training.validation import Validation

CPU = torch.device("cpu")


def random_case(name: str, depth: int, *, channels: int = 2, size: int = 6) -> Case:
    rng = np.random.default_rng(list(name.encode()))
    image = rng.random((channels, depth, size, size), np.float32)
    label = rng.integers(0, 3, (depth, size, size), np.uint8)
    return Case(name, "train", image, label, (1.0, 1.0, 1.0))


class Shelf:
    """Cases as files would hold them: fresh arrays for each read; notes what was asked for, and what still lives."""

    def __init__(self, cases: list[Case]) -> None:
        self.asked, self.threads, self.alive, self.most = [], set(), [], 0
        self.cases = Cases(StoredCase(c.name, c.split, c.patient, len(c.label), partial(self.read, c)) for c in cases)

    def read(self, case: Case, planes: slice) -> Case:
        self.alive = [image for image in self.alive if image() is not None]
        self.asked.append((case.name, planes))
        self.threads.add(threading.current_thread())
        image, label = case.image[:, planes].copy(), case.label[planes].copy()
        self.alive.append(weakref.ref(image))
        self.most = max(self.most, len(self.alive))
        return Case(case.name, case.split, image, label, case.spacing, patient=case.patient)


CASES = [random_case("a", 3), random_case("b", 1), random_case("c", 4)]
PLANES = [(case, plane) for case in CASES for plane in range(len(case.label))]


def of_thread() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("slices")]


# The same batches, wherever the slices are


@pytest.mark.parametrize("batch_size", [1, 3, 8, 20])
@pytest.mark.parametrize("order", [range(8), [7, 3, 0, 3, 5], [2]])
def test_batches_are_those_of_a_loop_over_the_cases_from_memory_and_from_files(order, batch_size):
    order = torch.tensor(list(order))
    ways = [slices_of(CASES, CPU), slices_of(Shelf(CASES).cases, CPU), slices_of(Shelf(CASES).cases, CPU, budget=0)]
    assert [type(way) for way in ways] == [SlicesInMemory, SlicesInMemory, SlicesInFiles]
    for slices in ways:
        assert len(slices) == 8
        batches = list(slices.batches(order, batch_size))
        for indices, (images, labels) in zip(order.split(batch_size), batches, strict=True):
            assert (images.dtype, labels.dtype) == (torch.float32, torch.uint8)
            expected = [PLANES[index] for index in indices]
            assert np.array_equal(images, [case.image[:, plane] for case, plane in expected])
            assert np.array_equal(labels, [case.label[plane] for case, plane in expected])


def test_slices_are_kept_in_memory_up_to_the_budget():
    shelf = Shelf(CASES)
    needed = sum(case.image.nbytes + case.label.nbytes for case in CASES)
    assert isinstance(slices_of(shelf.cases, CPU, budget=needed), SlicesInMemory)
    assert isinstance(slices_of(shelf.cases, CPU, budget=needed - 1), SlicesInFiles)
    for budget, error in ((-1, ValueError), (1e9, TypeError)):
        with pytest.raises(error, match="`budget`"):
            slices_of(CASES, CPU, budget=budget)


def test_slices_are_counted_without_reading():
    shelf = Shelf(CASES)
    assert count_slices(shelf.cases) == count_slices(CASES) == 8
    assert not shelf.asked


# Reading


def test_each_slice_is_read_alone_in_the_order_given_one_batch_ahead_by_one_other_thread():
    shelf, order = Shelf(CASES), torch.tensor([7, 0, 3, 4, 2, 1, 6, 5])
    slices = slices_of(shelf.cases, CPU, budget=0)
    shelf.asked.clear()
    shelf.threads.clear()
    with closing(slices.batches(order, 2)) as batches:
        for number, _ in enumerate(batches):
            time.sleep(0.02)  # in which a thread that reads on would read all
            assert 2 * (number + 1) <= len(shelf.asked) <= 2 * (number + 2)
    names = {"a": 0, "b": 3, "c": 4}
    assert [names[name] + planes.start for name, planes in shelf.asked] == order.tolist()
    assert all(planes.stop == planes.start + 1 for _, planes in shelf.asked)
    (thread,) = shelf.threads
    assert thread is not threading.main_thread()
    assert not of_thread()


def test_the_next_batch_is_read_while_the_last_one_is_used():
    shelf, began = Shelf(CASES), threading.Event()
    slices = slices_of(shelf.cases, CPU, budget=0)
    read = shelf.read

    def noticed(case: Case, planes: slice) -> Case:
        if len(shelf.asked) == 3:  # the first slice of all, for the sizes, and the two of the first batch
            began.set()
        return read(case, planes)

    slices.entries = [StoredCase(c.name, c.split, c.patient, len(c.label), partial(noticed, c)) for c in CASES]
    with closing(slices.batches(torch.arange(8), 2)) as batches:
        next(batches)
        assert began.wait(timeout=5)


def test_the_thread_ends_when_the_loop_is_left():
    slices = slices_of(Shelf(CASES).cases, CPU, budget=0)
    with closing(slices.batches(torch.arange(8), 1)) as batches:
        next(batches)
        assert len(of_thread()) == 1
    assert not of_thread()


def broken(name: str, depth: int) -> StoredCase:
    def read(planes: slice) -> Case:
        raise ValueError(f"Expected `{name}.h5` to be a whole file, got 3 bytes.")

    return StoredCase(name, "train", name, depth, read)


def test_an_error_of_reading_is_raised_where_its_batch_is_asked_for():
    cases = Cases([*Shelf(CASES).cases.entries, broken("torn", 2)])
    seen = []
    with (
        pytest.raises(ValueError, match=r"torn\.h5"),
        closing(slices_of(cases, CPU, budget=0).batches(torch.arange(10), 4)) as batches,
    ):
        seen.extend(len(images) for images, _ in batches)
    assert seen == [4, 4]
    assert not of_thread()
    with pytest.raises(ValueError, match=r"torn\.h5"):
        stack_slices(cases)


@pytest.mark.parametrize("other", [random_case("odd", 2, size=8), random_case("odd", 2, channels=1)])
def test_slices_of_different_sizes_are_refused_by_the_name_of_their_case(other):
    message = rf"slices of one size, got \(2, 6, 6\) and \({other.image.shape[0]}, .* case odd\)\. Call resize_case"
    for cases in ([*CASES, other], Shelf([*CASES, other]).cases):
        with pytest.raises(ValueError, match=message):
            slices_of(cases, CPU)
        slices = slices_of(cases, CPU, budget=0)
        with pytest.raises(ValueError, match=message):
            list(slices.batches(torch.arange(len(slices)), 4))


def test_no_case_is_an_error():
    for budget in (0, 100):
        with pytest.raises(ValueError, match="`cases` with a slice at least, got no case"):
            slices_of(Cases([]), CPU, budget=budget)


# Training


class Interrupt(nn.Module):
    """Cross-entropy for two steps, then an error."""

    steps = 0

    def forward(self, logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        self.steps += 1
        if self.steps > 2:
            raise RuntimeError("enough")
        return CrossEntropyLoss()(logits, target)


@pytest.fixture
def from_files(monkeypatch):
    monkeypatch.setattr("nacl.training.loop.slices_of", partial(slices_of, budget=0))


def easy() -> tuple[list[Case], list[Case]]:
    train = [square_case(f"t{index}", "train", slices=2 + index) for index in range(3)]
    return train, [square_case(f"v{index}", "valid") for index in range(3)]


def trained(train, valid, loss=None) -> tuple[list[float], dict]:
    torch.manual_seed(0)
    model = nn.Conv2d(1, 3, 3, padding=1)
    history = fit(model, loss or CrossEntropyLoss(), train, valid, 3, epochs=2, batch_size=4, device="cpu")
    return [(row["loss"], row["valid_dice"]) for row in history], model.state_dict()


def test_training_from_files_gives_the_numbers_of_training_from_memory(monkeypatch):
    train, valid = easy()
    history, weights = trained(train, valid)
    monkeypatch.setattr("nacl.training.loop.slices_of", partial(slices_of, budget=0))
    again, others = trained(Shelf(train).cases, Shelf(valid).cases)
    assert history == again
    assert all(torch.equal(weights[name], others[name]) for name in weights)


@pytest.mark.usefixtures("from_files")
def test_a_training_that_fails_leaves_no_thread():
    train, valid = easy()
    with pytest.raises(RuntimeError, match="enough") as caught:
        trained(Shelf(train).cases, valid, loss=Interrupt())
    assert caught.traceback  # which holds the frames that hold the iterators: they were closed none the less
    assert not of_thread()


# One case at a time


def test_stacking_holds_one_case_at_a_time():
    shelf = Shelf(CASES)
    images, _ = stack_slices(shelf.cases)
    assert len(images) == 8
    assert shelf.most == 1


@pytest.mark.parametrize("loss", [CrossEntropyLoss(), CRaCLoss(3)], ids=["ce", "crac"])
def test_training_holds_one_validation_case_at_a_time(loss, monkeypatch):
    """Where they are too many to be kept; the first is read once more, to know."""
    monkeypatch.setattr("nacl.training.loop.Validation", partial(Validation, budget=0))
    train, valid = easy()
    shelf = Shelf(valid)
    trained(train, shelf.cases, loss)
    assert [name for name, _ in shelf.asked] == ["v0", *["v0", "v1", "v2"] * 2]
    assert shelf.most == 1


def test_testing_holds_one_case_at_a_time_and_reads_it_once():
    shelf = Shelf(easy()[1])
    cases, _ = evaluate(nn.Conv2d(1, 3, 1), shelf.cases, 3, temperature=2.0, device="cpu")
    assert list(cases["case"]) == ["v0", "v0", "v1", "v1", "v2", "v2"]
    assert [name for name, _ in shelf.asked] == ["v0", "v1", "v2"]
    assert shelf.most == 1


def test_the_temperature_is_the_same_when_logits_are_too_many_for_memory():
    train, valid = easy()
    model = nn.Conv2d(1, 3, 3, padding=1)
    fit(model, CrossEntropyLoss(), train, valid, 3, epochs=6, batch_size=2, learning_rate=0.05, device="cpu")
    needed = sum(case.label.size * (3 * 4 + 1) for case in valid)
    shelves = {budget: Shelf(valid) for budget in (needed, needed - 1)}
    once, anew = (
        fitted_temperature(model, shelf.cases, device="cpu", budget=budget) for budget, shelf in shelves.items()
    )
    assert once == anew != 1
    assert [shelf.most for shelf in shelves.values()] == [1, 1]
    assert len(shelves[needed].asked) == 1 + 3  # one to know how many bytes there will be
    assert len(shelves[needed - 1].asked) > 1 + 2 * 3


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine")
@pytest.mark.parametrize("budget", [0, 2**30])
def test_batches_on_a_gpu_wait_for_nothing(budget):
    place = torch.device("cuda")
    slices = slices_of(Shelf(CASES).cases, place, budget=budget)
    order = torch.arange(8)
    list(slices.batches(order, 3))
    torch.cuda.set_sync_debug_mode("error")
    try:
        batches = list(slices.batches(order, 3))
    finally:
        torch.cuda.set_sync_debug_mode("default")
    expected = slices_of(CASES, CPU).batches(order, 3)
    for found, wanted in zip(batches, expected, strict=True):
        assert all(torch.equal(a.cpu(), b) for a, b in zip(found, wanted, strict=True))
