"""Cases as 3D patches: at random places, in batches."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import closing
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nacl._checks import check_integer, expectation
from nacl.data.case import Case, Cases, StoredCase
from nacl.data.slices import BUDGET, depth_of, read_ahead, sent

BEYOND = -100
"""The label of what a patch has beyond its volume: the losses' `ignore_index`."""

Shape = tuple[int, int, int]


def patches_of(
    cases: Sequence[Case], device: torch.device, patch: Shape, *, budget: int = BUDGET
) -> "PatchesInMemory | PatchesInFiles":
    """Patches of `cases`, whose volumes may differ in size: the same ones, wherever the cases are kept.

    They are in memory where all of them take at most `budget`; else the slices of each patch are read, while the batch
    before is used. An epoch has as many patches of a case as cover it once,

        ceil(D / d) ceil(H / h) ceil(W / w).

    A place is drawn uniformly from all where the patch lies within the volume, so that voxels near the faces of a
    volume are in fewer patches than those of its middle. Along an axis that is shorter than the patch, the volume lies
    in the patch's middle, as in `nacl.training.windows.sliding_logits`; around it images are 0 and labels `BEYOND`.

    Args:
        cases: with the same channels.
        device: where batches go; cases in memory are kept there too where they take at most half of what is free.
        patch: (d, h, w) in voxels. d counts slices, whatever their thickness: choose it by the number that a case has.
        budget: bytes.

    Raises:
        ValueError: no voxel; cases of different channels; a patch that is not of three sizes of at least 1.
        TypeError: a size that is no integer.

    Example:
        >>> volume = np.zeros((6, 8, 8), np.float32)
        >>> case = Case("a", "train", volume, volume.astype(np.uint8), (1.0, 1.0, 1.0))
        >>> patches = patches_of([case], torch.device("cpu"), (4, 4, 4))
        >>> len(patches)
        8
        >>> images, labels = next(patches.drawn(seed=0).batches(torch.arange(8), 2))
        >>> tuple(images.shape), tuple(labels.shape)
        ((2, 1, 4, 4, 4), (2, 4, 4, 4))
    """
    check_integer("budget", budget, low=0)
    entries = cases.entries if isinstance(cases, Cases) else tuple(cases)
    shapes = _shapes(entries)
    size = sum(depth * height * width * (4 * channels + 1) for channels, depth, height, width in shapes)
    kind = PatchesInMemory if size <= budget else PatchesInFiles
    return kind(entries, shapes, device, check_patch(patch))


def check_patch(patch: object) -> Shape:
    """`patch` as a tuple, once it is found to be three integers of at least 1."""
    if not isinstance(patch, tuple | list) or len(patch) != 3:
        raise ValueError(expectation("patch", "of three sizes, (depth, height, width)", repr(patch)))
    for size in patch:
        check_integer("patch", size, low=1)
    return tuple(map(int, patch))


class Patches(ABC):
    """Patches of cases, of which it is known how many there are and where each may be; see `patches_of`."""

    def __init__(
        self,
        entries: Sequence[Case | StoredCase],
        shapes: Sequence[tuple[int, ...]],
        device: torch.device,
        patch: Shape,
    ) -> None:
        self.entries, self.device, self.patch = entries, device, patch
        self.home = torch.device("cpu")  # where batches are made
        self.channels, self.shapes = shapes[0][0], np.array(shapes)[:, 1:]
        self.is_longer = (self.shapes < patch).any(axis=1)  # than the volume of a case, along some axis
        covering = np.prod(-(-self.shapes // patch), axis=1)
        self.cases = np.repeat(np.arange(len(entries)), covering)
        if not len(self.cases):
            raise ValueError(expectation("cases", "with a voxel at least", f"shapes {shapes}"))

    def __len__(self) -> int:
        """How many patches an epoch has."""
        return len(self.cases)

    def drawn(self, seed: int) -> "DrawnPatches":
        """The patches of one epoch: the place of each is a function of `seed` and its index alone."""
        return DrawnPatches(self, self._starts(seed))

    def _starts(self, seed: int) -> NDArray:
        """(n, 3): where each patch begins, before the volume along an axis where the patch is the longer one."""
        check_integer("seed", seed, low=0)
        room = self.shapes[self.cases] - self.patch
        generator = torch.Generator().manual_seed(seed)
        drawn = torch.rand(room.shape, dtype=torch.float64, generator=generator).numpy()
        return np.where(room < 0, -(-room // 2), np.floor(drawn * (room + 1))).astype(np.int64)

    @abstractmethod
    def batches(self, starts: NDArray, order: Tensor, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Batches of the patches that begin at `starts`, in the order of the indices `order`."""

    @abstractmethod
    def _volume(self, case: int, start: int) -> tuple[Tensor, Tensor, int]:
        """Image and label of a case with the slices of a patch that begins at slice `start`, and where it begins in
        these.
        """

    def _batch(self, indices: list[int], starts: NDArray) -> tuple[Tensor, Tensor]:
        images = torch.empty(len(indices), self.channels, *self.patch, dtype=torch.float32, device=self.home)
        labels = torch.empty(len(indices), *self.patch, dtype=torch.int64, device=self.home)
        for row, index in enumerate(indices):
            start, *in_plane = starts[index].tolist()
            image, label, start = self._volume(self.cases[index], start)
            source, target = _overlap((start, *in_plane), self.patch, label.shape)
            if self.is_longer[self.cases[index]]:
                images[row].zero_()
                labels[row].fill_(BEYOND)
            images[(row, slice(None), *target)] = image[(slice(None), *source)]
            labels[(row, *target)] = label[source]
        return images, labels


class DrawnPatches:
    """The patches of one epoch at their places, see `Patches.drawn`."""

    def __init__(self, patches: Patches, starts: NDArray) -> None:
        self.patches, self.starts = patches, starts

    def __len__(self) -> int:
        return len(self.starts)

    def batches(self, order: Tensor, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Images (B, M, d, h, w) float32 and labels (B, d, h, w) int64 on the device, in the order of the indices
        `order`, which is on the CPU.

        Where slices are read, an error of reading is raised where its batch is asked for, and the thread that reads
        ends with the iteration: close an iterator that is left before its end.
        """
        return self.patches.batches(self.starts, order, batch_size)


class PatchesInMemory(Patches):
    """Patches of cases that were all read at once."""

    def __init__(self, *args: object) -> None:
        super().__init__(*args)
        volumes = [_tensors(entry, slice(None)) for entry in self.entries]
        size = sum(image.nbytes + label.nbytes for image, label in volumes)
        if self.device.type != "cuda" or size <= torch.cuda.mem_get_info(self.device)[0] / 2:
            self.home = self.device
            volumes = [(image.to(self.home), label.to(self.home)) for image, label in volumes]
        self.volumes = volumes

    def batches(self, starts: NDArray, order: Tensor, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        for indices in order.split(batch_size):
            images, labels = self._batch(indices.tolist(), starts)
            yield sent(images, self.device), sent(labels, self.device)

    def _volume(self, case: int, start: int) -> tuple[Tensor, Tensor, int]:
        return *self.volumes[case], start


class PatchesInFiles(Patches):
    """Patches whose slices are read for each batch, while the one before it is used."""

    def batches(self, starts: NDArray, order: Tensor, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        read = partial(self._batch, starts=starts)
        with closing(read_ahead(read, order, batch_size, "patches")) as batches:
            for images, labels in batches:
                yield sent(images, self.device), sent(labels, self.device)

    def _volume(self, case: int, start: int) -> tuple[Tensor, Tensor, int]:
        entry = self.entries[case]
        planes = slice(max(start, 0), min(start + self.patch[0], depth_of(entry)))
        return *_tensors(entry, planes), min(start, 0)


def _shapes(entries: Sequence[Case | StoredCase]) -> list[tuple[int, ...]]:
    """(M, D, H, W) of each case; of one in a file, by its first slice."""
    shapes = []
    for entry in entries:
        (channels, _, height, width), _ = (tensor.shape for tensor in _tensors(entry, slice(0, 1)))
        shapes.append((channels, depth_of(entry), height, width))
        if channels != shapes[0][0]:
            got, context = f"{shapes[0][0]} and {channels}", f"cases {entries[0].name} and {entry.name}"
            raise ValueError(expectation("cases", "with the same number of channels", got, context))
    if not shapes:
        raise ValueError(expectation("cases", "with a voxel at least", "no case"))
    return shapes


def _tensors(entry: Case | StoredCase, planes: slice) -> tuple[Tensor, Tensor]:
    """Image (M, slices, H, W) and label (slices, H, W); of a case in a file, only the slices `planes` are read."""
    if isinstance(entry, StoredCase):
        case = entry.read(planes)
        arrays = case.image, case.label
    else:
        arrays = entry.image[:, planes], entry.label[planes]
    image, label = (torch.from_numpy(np.require(array, requirements=("C", "W"))) for array in arrays)
    return image, label


def _overlap(start: Shape, patch: Shape, volume: Sequence[int]) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """What a volume and a patch that begins at `start` have in common, in the volume and in the patch."""
    common = [(max(begin, 0), min(begin + size, end)) for begin, size, end in zip(start, patch, volume, strict=True)]
    source = tuple(slice(low, high) for low, high in common)
    target = tuple(slice(low - begin, high - begin) for (low, high), begin in zip(common, start, strict=True))
    return source, target
