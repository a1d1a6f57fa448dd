"""The MNI ICBM152 brain: what each cubic millimetre of an average adult's head is, from files inside PyPI's nilearn.

The template is the average of 152 young adults' scans, brought into one shape (symmetric, non-linear, release 2009a).
Nilearn carries it at 1 mm: the T1-weighted average, zero outside the brain, and the probabilities g and w of grey and
white matter. Nothing is downloaded, and nilearn is not imported.

It has no map of the cerebrospinal fluid (CSF). What is neither grey nor white is fluid inside the skull and background
outside, so with the probability h of being inside the skull

    p_csf = h (1 - g - w),   p_background = (1 - h) (1 - g - w).

The skull's inside is the brain (T1 above 0, or g + w > 1/2), grown by a ball of `SULCI` mm, which fills the sulci and
the cleft between the hemispheres, and shrunk again by all but `RIM` mm, the fluid between brain and skull; h is that
set, blurred by 1 mm. It makes 0.4 litres of fluid beside the template's 1.0 of grey and 0.7 of white matter (its brain
is larger than most).

Copyright (C) 1993-2009 Louis Collins, McConnell Brain Imaging Centre, Montreal Neurological Institute, McGill
University: free to use, copy, modify and distribute for any purpose, provided that this notice appears in all copies;
as is, without warranty.

References:
    Fonov, Evans, Botteron, Almli, McKinstry, Collins: Unbiased average age-appropriate atlases for pediatric studies.
    NeuroImage 54(1), 2011. Fonov, Evans, McKinstry, Almli, Collins: Unbiased nonlinear average age-appropriate brain
    templates from birth to adulthood. NeuroImage 47, 2009.
"""

import functools
import importlib.util
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt, gaussian_filter

MAPS = ("t1", "gm", "wm")
FILE = "mni_icbm152_{}_tal_nlin_sym_09a_converted.nii.gz"
TISSUES = ("cerebrospinal fluid", "grey matter", "white matter")
SULCI = 8.0  # mm: fills the widest sulci and the cleft between the hemispheres, and leaves the brain's outer shape
RIM = 2.0  # mm of fluid outside the brain; 1 mm more or less is 0.1 litres
MARGIN = 4  # voxels kept round the skull's inside, so that a blur fades to 0
FWHM = 2.355  # full width at half maximum of a Gaussian, in standard deviations


@dataclass(frozen=True)
class Template:
    """Probabilities on a grid of 1 mm.

    Attributes:
        tissues: (3, Z, Y, X) float32, the probabilities of `TISSUES`; what is left of 1 is background.
        origin: z, y, x of the first voxel's centre in mm: up, forward and to the right of the template's own zero.
    """

    tissues: NDArray[np.float32]
    origin: tuple[float, float, float]


def folder() -> Path:
    """Where the installed nilearn keeps its files.

    Raises:
        ModuleNotFoundError: nilearn is not installed.
    """
    spec = importlib.util.find_spec("nilearn")
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError(
            "The data set 'brain' needs the files of nilearn: pip install 'nacl-calibration[train]'", name="nilearn"
        )
    return Path(spec.submodule_search_locations[0]) / "datasets" / "data"


def read_map(name: str) -> NDArray[np.uint8]:
    """One map of the template, "t1", "gm" or "wm", (189, 233, 197) along z, y, x; 255 is a probability of 1.

    Raises:
        ModuleNotFoundError: nilearn is not installed.
        FileNotFoundError: this nilearn has other files.
    """
    import nibabel

    return np.asarray(nibabel.load(file_of(name)).dataobj).T


def file_of(name: str) -> Path:
    """The file of a map.

    Raises:
        ModuleNotFoundError, FileNotFoundError: as `read_map`.
    """
    file = folder() / FILE.format(name)
    if not file.is_file():
        raise FileNotFoundError(
            f"Expected nilearn's template at {file}, got no such file. Install nilearn 0.10 or later: "
            "pip install 'nacl-calibration[train]'."
        )
    return file


@functools.cache
def read() -> Template:
    """The template's tissues, by the module's formulas, cut to the head; read once."""
    grey, white = (read_map(name).astype(np.float32) / 255 for name in ("gm", "wm"))
    brain = (read_map("t1") > 0) | (grey + white > 0.5)
    box = _box(brain, MARGIN + int(SULCI))
    near = distance_transform_edt(~brain[box]) <= SULCI
    inside = distance_transform_edt(near) > SULCI - RIM
    skull = gaussian_filter(inside.astype(np.float32), 1.0)
    grey, white = grey[box], white[box]
    tissues = np.stack([skull * (1 - grey - white).clip(0), grey, white])  # rounding leaves -1e-7 otherwise
    return Template(tissues, tuple(float(part.start + zero) for part, zero in zip(box, (-72, -134, -98), strict=True)))


@functools.lru_cache(maxsize=2)  # 60 MB each
def at_resolution(thickness: float, pixel: float) -> Template:
    """The template as a scanner with slices of `thickness` and pixels of `pixel`, in mm, sees it: mixed over a voxel.

    The voxel is taken as a Gaussian whose full width at half maximum is its size.
    """
    template = read()
    blur = (thickness / FWHM, pixel / FWHM, pixel / FWHM)
    mixed = [gaussian_filter(tissue, blur, mode="nearest", truncate=3) for tissue in template.tissues]
    return Template(np.stack(mixed), template.origin)


def _box(mask: NDArray[np.bool_], margin: int) -> tuple[slice, ...]:
    """The smallest box that holds a mask with a margin, within the array."""
    box = []
    for axis in range(mask.ndim):
        others = tuple(other for other in range(mask.ndim) if other != axis)
        found = np.flatnonzero(mask.any(axis=others))
        box.append(slice(max(found[0] - margin, 0), min(found[-1] + margin + 1, mask.shape[axis])))
    return tuple(box)
