"""The one shape of data: a case is one patient's volume at one time."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from nacl._checks import check_choice, check_integer, expectation

SPLITS = ("train", "valid", "test")


@dataclass(frozen=True)
class Case:
    """One patient's volume at one time.

    Attributes:
        name: unique in its data set, "PATIENT" or "PATIENT_TIME".
        split: "train", "valid" or "test".
        image: (D, H, W) float32 in [0, 1], without NaN.
        label: (D, H, W) uint8.
        spacing: size of a voxel along D, H, W, in the data set's unit.
        posterior: the true class probabilities (C, D, H, W) float32, where the labels were drawn from known ones.
    """

    name: str
    split: str
    image: NDArray[np.float32]
    label: NDArray[np.uint8]
    spacing: tuple[float, float, float]
    posterior: NDArray[np.float32] | None = None

    def __post_init__(self) -> None:
        check_choice("split", self.split, SPLITS)
        if self.image.ndim != 3 or self.image.shape != self.label.shape:
            got = f"{self.image.shape} and {self.label.shape}"
            raise ValueError(expectation("image", "and `label` of one shape (D, H, W)", got, f"case {self.name}"))

    @property
    def patient(self) -> str:
        """The part of the name before the first underscore."""
        return self.name.split("_")[0]


@dataclass(frozen=True)
class Dataset:
    """Cases with what they share.

    Attributes:
        name: short, used in names of folders.
        class_names: of the labels 0, 1, ...; 0 is the background.
        cases: all of them; a patient is in one split only.
        unit: of the spacing, "mm" or "px".
    """

    name: str
    class_names: tuple[str, ...]
    cases: tuple[Case, ...]
    unit: str

    def __post_init__(self) -> None:
        split_of: dict[str, str] = {}
        for case in self.cases:
            first = split_of.setdefault(case.patient, case.split)
            if first != case.split:
                got = f"{case.patient} in {first!r} and {case.split!r}"
                remedy = "Move all volumes of a patient to one split"
                raise ValueError(expectation("cases", "with each patient in one split", got, self.name, remedy))

    @property
    def num_classes(self) -> int:
        """C, background included."""
        return len(self.class_names)

    def split(self, name: str) -> list[Case]:
        """The cases of one split, in order of their names.

        Raises:
            ValueError: unknown split.
        """
        check_choice("split", name, SPLITS)
        return sorted((case for case in self.cases if case.split == name), key=lambda case: case.name)


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
    _, height, width = case.image.shape
    if (height, width) == (size, size):
        return case
    if case.posterior is not None:
        raise ValueError(expectation("case", "without a posterior", case.name, remedy="Generate it at this size"))
    image = F.interpolate(torch.from_numpy(case.image)[None], (size, size), mode="area")[0].numpy()
    label = F.interpolate(torch.from_numpy(case.label)[None], (size, size), mode="nearest-exact")[0].numpy()
    spacing = (case.spacing[0], case.spacing[1] * height / size, case.spacing[2] * width / size)
    return replace(case, image=image, label=label, spacing=spacing)


def stack_slices(cases: Sequence[Case]) -> tuple[Tensor, Tensor]:
    """All slices of `cases` as images (S, 1, H, W) float32 and labels (S, H, W) uint8.

    Raises:
        ValueError: no cases, or slices of different sizes.
    """
    sizes = {case.image.shape[1:] for case in cases}
    if len(sizes) != 1:
        raise ValueError(expectation("cases", "with slices of one size", sorted(sizes), remedy="Call resize_case"))
    images = torch.from_numpy(np.concatenate([case.image for case in cases]))
    labels = torch.from_numpy(np.concatenate([case.label for case in cases]))
    return images.unsqueeze(1), labels
