"""Cases as slices: at one size, one after the other, in batches."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from itertools import chain, pairwise

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from nacl._checks import check_integer, expectation
from nacl.data.case import Case, Cases, StoredCase

BUDGET = 2**30  # bytes; half of what the whole of a training may take on a small machine

Arrays = tuple[NDArray, NDArray]
"""Images (n, M, H, W) and labels (n, H, W) of n slices."""


def resize_case(case: Case, size: int) -> Case:
    """The case at `size` x `size` pixels a slice: images by area mean, labels by the nearest pixel, spacing to match.

    Raises:
        ValueError: `size` below 1; a case that carries a posterior, which has no exact value on another grid.

    Example:
        >>> image = np.zeros((2, 8, 8), np.float32)
        >>> resize_case(Case("a", "train", image, image.astype(np.uint8), (1.0, 1.0, 1.0)), 4).spacing
        (1.0, 2.0, 2.0)
    """
    check_integer("size", size, low=1)
    height, width = case.label.shape[1:]
    if (height, width) == (size, size):
        return case
    if case.posterior is not None:
        context = f"slices of {height} x {width}, asked for at {size} x {size}"
        remedy = "Generate it at this size" + f", or use size={height}, the size of its slices" * (height == width)
        raise ValueError(expectation("case", "without a posterior", case.name, context, remedy))
    image = F.interpolate(torch.from_numpy(case.image), (size, size), mode="area").numpy()
    label = F.interpolate(torch.from_numpy(case.label)[None], (size, size), mode="nearest-exact")[0].numpy()
    spacing = (case.spacing[0], case.spacing[1] * height / size, case.spacing[2] * width / size)
    return replace(case, image=image, label=label, spacing=spacing)


def stack_slices(cases: Sequence[Case]) -> tuple[Tensor, Tensor]:
    """All slices of `cases` as images (S, M, H, W) float32 and labels (S, H, W) uint8.

    Raises:
        ValueError: no cases, or slices of different sizes.
    """
    entries = _entries(cases)
    return _stacked(((entry, slice(0, depth_of(entry))) for entry in entries), count_slices(cases), _first(entries))


def count_slices(cases: Sequence[Case]) -> int:
    """How many slices `cases` have, known without reading one."""
    return sum(map(depth_of, _entries(cases)))


def depth_of(entry: Case | StoredCase) -> int:
    """D of a case, read or not."""
    return entry.slices if isinstance(entry, StoredCase) else len(entry.label)


def slices_of(cases: Sequence[Case], device: torch.device, *, budget: int = BUDGET) -> "SlicesInMemory | SlicesInFiles":
    """The slices of `cases`, to be asked for in batches of any order: the same ones, wherever they are kept.

    They are in memory where all of them take at most `budget`, else they are read for each batch.

    Args:
        cases: all their slices have one size.
        device: where batches go; slices in memory are kept there too where they take at most half of what is free.
        budget: bytes.

    Raises:
        ValueError: no cases, or slices of different sizes; for those that are read, when they are read.
    """
    check_integer("budget", budget, low=0)
    in_files = SlicesInFiles(cases, device)
    return SlicesInMemory(cases, device) if in_files.nbytes <= budget else in_files


class SlicesInMemory:
    """Slices that were all read at once, see `slices_of`."""

    def __init__(self, cases: Sequence[Case], device: torch.device) -> None:
        images, labels = stack_slices(cases)
        if device.type != "cuda" or images.nbytes + labels.nbytes <= torch.cuda.mem_get_info(device)[0] / 2:
            images, labels = images.to(device), labels.to(device)
        self.images, self.labels, self.device = images, labels, device

    def __len__(self) -> int:
        return len(self.images)

    def batches(self, order: Tensor, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Images (B, M, H, W) float32 and labels (B, H, W) uint8 on the device, in the order of the indices `order`."""
        for indices in sent(order, self.images.device).split(batch_size):
            yield sent(self.images[indices], self.device), sent(self.labels[indices], self.device)


class SlicesInFiles:
    """Slices that are read for each batch, while the one before it is used, see `slices_of`."""

    def __init__(self, cases: Sequence[Case], device: torch.device) -> None:
        self.entries, self.device = _entries(cases), device
        self.first = _first(self.entries)
        self.ends = np.cumsum([depth_of(entry) for entry in self.entries])

    def __len__(self) -> int:
        return int(self.ends[-1])

    @property
    def nbytes(self) -> int:
        """What all slices take in memory."""
        return len(self) * sum(array.nbytes for array in self.first)

    def batches(self, order: Tensor, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """As those of `SlicesInMemory`; an error of reading is raised where its batch is asked for.

        The thread that reads ends with the iteration: close an iterator that is left before its end.
        """
        with closing(read_ahead(self._batch, order, batch_size, "slices")) as batches:
            for images, labels in batches:
                yield sent(images, self.device), sent(labels, self.device)

    def _batch(self, indices: list[int]) -> tuple[Tensor, Tensor]:
        return _stacked(map(self._place, indices), len(indices), self.first)

    def _place(self, index: int) -> tuple[Case | StoredCase, slice]:
        """The case of a slice, and where in it the slice is."""
        of_case = int(np.searchsorted(self.ends, index, side="right"))
        entry = self.entries[of_case]
        plane = index - int(self.ends[of_case]) + depth_of(entry)
        return entry, slice(plane, plane + 1)


def read_ahead(
    read: Callable[[list[int]], tuple[Tensor, Tensor]], order: Tensor, batch_size: int, name: str
) -> Iterator[tuple[Tensor, Tensor]]:
    """What `read` gives for each `batch_size` of the indices `order`, by a thread `name` that is one batch ahead.

    The thread ends with the iteration: close an iterator that is left before its end.
    """
    with ThreadPoolExecutor(1, thread_name_prefix=name) as thread:
        reads = (thread.submit(read, indices.tolist()) for indices in order.split(batch_size))
        for batch, _next in pairwise(chain(reads, [None])):  # the next is on its way before this one is given
            yield batch.result()


def sent(tensor: Tensor, device: torch.device) -> Tensor:
    """A tensor on the device; from pinned memory, so that the copy need not be waited for."""
    if tensor.device.type == "cpu" and device.type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def _entries(cases: Sequence[Case]) -> tuple[Case | StoredCase, ...]:
    return cases.entries if isinstance(cases, Cases) else tuple(cases)


def _first(entries: Sequence[Case | StoredCase]) -> Arrays:
    """The first slice of all: the others have its shape."""
    if not entries:
        raise ValueError(expectation("cases", "with a slice at least", "no case"))
    images, labels = _read(entries[0], slice(0, 1))
    return images.copy(), labels.copy()  # not views, which could keep a whole case


def _stacked(pieces: Iterable[tuple[Case | StoredCase, slice]], count: int, first: Arrays) -> tuple[Tensor, Tensor]:
    """The slices of cases that `pieces` names, `count` in all, each like the first; one piece is read at a time."""
    images, labels = (np.empty((count, *array.shape[1:]), array.dtype) for array in first)
    start = 0
    for entry, planes in pieces:
        rows = slice(start, start + planes.stop - planes.start)
        images[rows], labels[rows] = _read(entry, planes, first)
        start = rows.stop
    return torch.from_numpy(images), torch.from_numpy(labels)


def _read(entry: Case | StoredCase, planes: slice, like: Arrays | None = None) -> Arrays:
    if isinstance(entry, StoredCase):
        case = entry.read(planes)
        images, labels = case.image.swapaxes(0, 1), case.label
    else:
        images, labels = entry.image[:, planes].swapaxes(0, 1), entry.label[planes]
    if like is not None and images.shape[1:] != like[0].shape[1:]:
        got = f"{like[0].shape[1:]} and {images.shape[1:]}"
        context, remedy = f"channels, height, width; case {entry.name}", "Call resize_case"
        raise ValueError(expectation("cases", "with slices of one size", got, context, remedy))
    return images, labels
