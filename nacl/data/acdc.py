"""ACDC cardiac MRI in the HDF5 layout of the NACL authors' loaders.

FOLDER/{train,valid,test}/patientXXX_frameYY.h5 with `img` and `mask` of shape (H, W, D); labels 0 background, 1 right
ventricle, 2 myocardium, 3 left ventricle. 192 x 192 pixels, or 224 x 224 of which the middle 192 are used, as in the
authors' loader. The layout keeps no spacing, so distances are in pixels of the 192 grid and slices count as 1 apart.

Source of the images: Bernard et al., IEEE TMI 37(11), 2018.
"""

from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from nacl._checks import expectation
from nacl.data.case import SPLITS, Case, Dataset, resize_case

NAME = "acdc"
CLASS_NAMES = ("background", "right ventricle", "myocardium", "left ventricle")
CROP = 192
SIZES = (192, 224)


def read(folder: Path, size: int) -> Dataset:
    """All cases of `folder` at `size` x `size` pixels; the first file that can't be used raises ValueError."""
    cases = tuple(resize_case(read_case(file), size) for file in files(folder))
    return Dataset(NAME, CLASS_NAMES, cases, unit="px")


def files(folder: Path) -> list[Path]:
    """The HDF5 files of the three splits, sorted.

    Raises:
        FileNotFoundError: a split's folder is missing or holds no .h5 file.
    """
    found = []
    for split in SPLITS:
        of_split = sorted((folder / split).glob("*.h5"))
        if not of_split:
            raise FileNotFoundError(
                f"Expected `data` with files {split}/*.h5, got none in {folder / split}. "
                "Give the folder that holds train/, valid/ and test/."
            )
        found += of_split
    return found


def read_case(file: Path) -> Case:
    """One volume, with its intensities scaled to [0, 1] from the minimum and maximum of its middle 192 x 192.

    Raises:
        ValueError: a file that is empty, truncated or no HDF5; a missing key; shapes that differ or are not 192 or
            224 wide; NaN; labels that are not 0 to 3. The message names the file.
    """
    image, label = _read_keys(file, "img", "mask")
    _check_volume(file, image, label)
    margin = (image.shape[0] - CROP) // 2
    middle = slice(margin, margin + CROP)
    image, label = (np.moveaxis(x[middle, middle], 2, 0) for x in (image, label))
    return Case(file.stem, file.parent.name, _scaled(image), np.ascontiguousarray(label, np.uint8), (1.0, 1.0, 1.0))


def _read_keys(file: Path, *keys: str) -> list[NDArray]:
    try:
        with h5py.File(file, "r") as stored:
            found = sorted(stored)
            arrays = {key: stored[key][...] for key in keys if isinstance(stored.get(key), h5py.Dataset)}
    except Exception as error:  # h5py raises errors of many kinds on corrupt files
        empty = file.exists() and file.stat().st_size == 0
        what = "an empty file" if empty else f"an unreadable one: {error}"
        remedy = "Copy it again from its source"
        raise ValueError(expectation(str(file), "to be a whole HDF5 file", what, remedy=remedy)) from error
    missing = [key for key in keys if key not in arrays]
    if missing:
        raise ValueError(
            expectation(str(file), f"with the keys {' and '.join(map(repr, keys))}", found, f"no array {missing}")
        )
    return list(arrays.values())


def check(folder: Path) -> Iterator[tuple[Path, Case | None, str]]:
    """Every file with its case, or with None and what is wrong with it; goes on to the last one."""
    for file in files(folder):
        try:
            yield file, read_case(file), ""
        except ValueError as error:
            yield file, None, str(error)


def _scaled(image: NDArray) -> NDArray[np.float32]:
    image = image.astype(np.float32)
    low, high = image.min(), image.max()
    return (image - low) / (high - low) if high > low else np.zeros_like(image)


def _check_volume(file: Path, image: NDArray, label: NDArray) -> None:
    def refuse(rule: str, got: object, remedy: str) -> None:
        raise ValueError(expectation(str(file), rule, got, remedy=remedy))

    if image.shape != label.shape:
        refuse("with img and mask of one shape", f"{image.shape} and {label.shape}", "Export both on the same grid")
    if image.ndim != 3 or image.shape[0] != image.shape[1] or image.shape[0] not in SIZES or not image.shape[2]:
        refuse("with img of shape (192, 192, D) or (224, 224, D)", image.shape, "Crop or pad the slices, D last")
    for name, array in (("img", image), ("mask", label)):
        if array.dtype.kind not in "uif":
            refuse(f"with numbers in {name}", array.dtype, "Store integers or floats")
        if not (np.abs(array) <= np.finfo(np.float32).max).all():  # written so that NaN fails
            refuse(f"with finite values in {name}", "NaN or beyond float32", "Replace them, or leave the file out")
    strange = np.setdiff1d(label, np.arange(len(CLASS_NAMES)))
    if strange.size:
        refuse("with labels 0, 1, 2, 3 in mask", strange[:5].tolist(), "Remap the labels")
