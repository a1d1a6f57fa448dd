"""What a file of a volume holds, whatever its format: voxels, and where they lie."""

from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import numpy as np
from numpy.typing import NDArray

from nacl._checks import expectation

# Of the shortest side of a voxel. Rounding of headers moves a corner by a thousandth of a voxel; a convention mistaken
# (a voxel's corner for its middle) moves it by half of one.
TOLERANCE = 0.1


@dataclass(frozen=True)
class Stored:
    """A file's voxels and their place.

    Attributes:
        file: where they were read.
        voxels: (M, D, H, W) in the dtype of the file; a label has M = 1.
        spacing: millimetres along D, H, W.
        matrix: (4, 4), from indices x, y, z (so W, H, D) to millimetres towards right, anterior and superior; None
            where the file does not tell.
    """

    file: Path
    voxels: NDArray
    spacing: tuple[float, float, float]
    matrix: NDArray[np.float64] | None

    @property
    def shape(self) -> tuple[int, ...]:
        """(D, H, W)."""
        return self.voxels.shape[1:]

    @property
    def axes(self) -> str:
        """Where x, y and z point to, as in "RAS"; "" where the file does not tell."""
        if self.matrix is None:
            return ""
        from nibabel import aff2axcodes

        return "".join(letter or "?" for letter in aff2axcodes(self.matrix))

    def check(self) -> None:
        """Raise ValueError unless these are real numbers, at least one slice of them, in a grid that can be."""
        if self.voxels.dtype.kind not in "buif":
            refuse(
                self.file, "with one real number a voxel", f"voxels of {self.voxels.dtype}", "Export it as grey values"
            )
        if not self.voxels.size:
            refuse(self.file, "with at least one slice", f"shape {self.shape}")
        if not all(0 < length < np.inf for length in self.spacing):
            refuse(self.file, "with voxels of positive lengths", f"spacing {self.spacing}", "Mend the file's header")
        if self.matrix is not None and not np.isfinite(self.matrix).all():
            refuse(self.file, "with a finite affine", self.matrix[:3].tolist(), "Mend the file's header")

    def check_beside(self, other: "Stored") -> None:
        """Raise ValueError unless both volumes lie on one grid: in shape, and in their corners up to `TOLERANCE`."""
        beside = other.file.name
        if self.shape != other.shape:
            refuse(self.file, f"of the shape of {beside}, {other.shape}", self.shape, "Resample it to that grid")
        limit = TOLERANCE * min(other.spacing)
        remedy = "Resample it to that grid, or copy that header if only the header is wrong"
        stretch = max(abs(a - b) * (n - 1) for a, b, n in zip(self.spacing, other.spacing, self.shape, strict=True))
        if stretch > limit:
            refuse(self.file, f"with the spacing of {beside}, {other.spacing}", self.spacing, remedy)
        if self.matrix is None or other.matrix is None:
            return
        corners = np.array([(*np.multiply(corner, self.shape[::-1]), 1) for corner in np.ndindex(2, 2, 2)])
        distance = np.linalg.norm(corners @ (self.matrix - other.matrix).T, axis=1).max()
        if distance > limit:
            got = f"a corner {distance:.3g} mm away (axes {self.axes} and {other.axes})"
            refuse(self.file, f"to lie where {beside} lies, up to {limit:.3g} mm", got, remedy)


def refuse(file: Path, rule: str, got: object, remedy: str = "") -> NoReturn:
    """Raise the ValueError that names `file`."""
    raise ValueError(expectation(str(file), rule, got, remedy=remedy))
