"""The one shape of data: a case is one patient's volume at one time."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import overload

import numpy as np
from numpy.typing import NDArray

from nacl._checks import check_choice, expectation

SPLITS = ("train", "valid", "test")


@dataclass(frozen=True)
class Case:
    """One patient's volume at one time.

    Attributes:
        name: unique in its data set.
        split: "train", "valid" or "test".
        image: (M, D, H, W) float32 in [0, 1], without NaN, M channels; (D, H, W) is taken as one channel, and other
            numbers are turned into float32.
        label: (D, H, W) uint8; other integers and booleans are turned into it.
        spacing: size of a voxel along D, H, W, in the data set's unit.
        posterior: the true class probabilities (C, D, H, W) float32, where the labels were drawn from known ones.
        patient: whose volume it is; by default each case is a patient of its own.

    Raises:
        ValueError: an unknown split; shapes that do not fit; labels beyond [0, 255]; a spacing that is not three finite
            positive numbers.
        TypeError: an image that is no array of numbers, a label that is none of integers.
    """

    name: str
    split: str
    image: NDArray[np.float32]
    label: NDArray[np.uint8]
    spacing: tuple[float, float, float]
    posterior: NDArray[np.float32] | None = None
    patient: str = ""

    def __post_init__(self) -> None:
        check_choice("split", self.split, SPLITS)
        object.__setattr__(self, "image", _numbers("image", self.image, "fiub", np.float32, self.name))
        object.__setattr__(self, "label", _numbers("label", self.label, "iub", np.uint8, self.name))
        _check_spacing(self.spacing, self.name)
        if self.image.ndim == 3:
            object.__setattr__(self, "image", self.image[None])
        if self.image.ndim != 4 or self.image.shape[1:] != self.label.shape:
            got = f"{self.image.shape} and {self.label.shape}"
            rule = "of shape (M, D, H, W) and `label` of shape (D, H, W)"
            raise ValueError(expectation("image", rule, got, f"case {self.name}"))
        object.__setattr__(self, "patient", self.patient or self.name)


def _numbers(argument: str, values: object, kinds: str, dtype: type, name: str) -> NDArray:
    """`values` as an array of `dtype`, once they are known to fit into it."""
    array = np.asarray(values)
    if array.dtype.kind not in kinds:
        what = "integers" if "f" not in kinds else "numbers"
        raise TypeError(expectation(argument, f"to be an array of {what}", f"dtype {array.dtype}", f"case {name}"))
    if dtype is np.uint8 and array.dtype not in (np.uint8, np.bool_) and array.size:
        low, high = int(array.min()), int(array.max())
        if low < 0 or high > 255:
            raise ValueError(expectation(argument, "in [0, 255]", f"[{low}, {high}]", f"case {name}"))
    return array.astype(dtype, copy=False)


def _check_spacing(spacing: object, name: str) -> None:
    try:
        right = len(spacing) == 3 and all(0 < float(size) < np.inf for size in spacing)
    except (TypeError, ValueError):
        right = False
    if not right:
        rule = "of three finite positive numbers, along D, H, W"
        raise ValueError(expectation("spacing", rule, repr(spacing), f"case {name}"))


@dataclass(frozen=True)
class StoredCase:
    """What is known of a case before its arrays are read.

    Attributes:
        name, split, patient: as in `Case`.
        slices: D.
        read: gives the case, with only those slices that it is told.
    """

    name: str
    split: str
    patient: str
    slices: int
    read: Callable[[slice], Case]


class Cases(Sequence[Case]):
    """Cases in order; those that lie in files are read when they are asked for, and not kept.

    Attributes:
        entries: a `Case` or a `StoredCase` each.
    """

    def __init__(self, entries: Iterable[Case | StoredCase]) -> None:
        self.entries = tuple(entries)

    def __len__(self) -> int:
        return len(self.entries)

    @overload
    def __getitem__(self, index: int) -> Case: ...
    @overload
    def __getitem__(self, index: slice) -> "Cases": ...
    def __getitem__(self, index: int | slice) -> "Case | Cases":
        found = self.entries[index]
        if isinstance(found, tuple):
            return Cases(found)
        return found.read(slice(None)) if isinstance(found, StoredCase) else found

    def named(self, name: str) -> Case:
        """The case of that name.

        Raises:
            ValueError: there is none (the nearest is suggested).
        """
        names = [entry.name for entry in self.entries]
        check_choice("name", name, names)
        return self[names.index(name)]

    def __iter__(self) -> Iterator[Case]:
        return (self[index] for index in range(len(self)))


@dataclass(frozen=True)
class Dataset:
    """Cases with what they share.

    Attributes:
        name: short, used in names of folders.
        class_names: of the labels 0, 1, ...; 0 is the background.
        cases: all of them, turned into `Cases`; a patient is in one split only.
        unit: of the spacing, "mm" or "px".
        channel_names: of the image's channels.
        regions: named unions of classes that overlap is measured on; by default each class but the background.

    Raises:
        ValueError: a patient in two splits; a region of no class, of an unknown one, or with a number for its name.
    """

    name: str
    class_names: tuple[str, ...]
    cases: Sequence[Case]
    unit: str
    channel_names: tuple[str, ...] = ("image",)
    regions: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not isinstance(self.cases, Cases):
            object.__setattr__(self, "cases", Cases(self.cases))
        check_patients(((entry.patient, entry.split) for entry in self.cases.entries), self.name)
        check_regions(self.regions, self.num_classes)

    @property
    def num_classes(self) -> int:
        """C, background included."""
        return len(self.class_names)

    def split(self, name: str) -> Cases:
        """The cases of one split, in order of their names.

        Raises:
            ValueError: unknown split.
        """
        check_choice("split", name, SPLITS)
        of_split = (entry for entry in self.cases.entries if entry.split == name)
        return Cases(sorted(of_split, key=lambda entry: entry.name))


def check_patients(splits: Iterable[tuple[str, str]], context: str) -> None:
    """Raise ValueError where a patient is in two splits; `splits` has a (patient, split) for each case."""
    split_of: dict[str, str] = {}
    for patient, split in splits:
        first = split_of.setdefault(patient, split)
        if first != split:
            got = f"{patient} in {first!r} and {split!r}"
            remedy = "Move all volumes of a patient to one split"
            raise ValueError(expectation("cases", "with each patient in one split", got, context, remedy))


def check_regions(regions: Mapping[str, Sequence[int]], num_classes: int) -> None:
    """Raise ValueError unless each region has a name and known classes; numbers are the names of classes in tables."""
    for name, classes in regions.items():
        if name.isdecimal():
            raise ValueError(expectation("regions", "with names that are no numbers, as classes have", repr(name)))
        if not classes or not all(0 <= k < num_classes for k in classes):
            rule = f"of classes in [0, {num_classes})"
            raise ValueError(expectation("regions", rule, list(classes), f"region {name}, num_classes={num_classes}"))
