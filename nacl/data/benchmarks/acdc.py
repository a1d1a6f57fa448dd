"""ACDC cardiac MRI in the HDF5 layout of the NACL authors' loaders.

FOLDER/{train,valid,test}/patientXXX_frameYY.h5 with `img` and `mask` of shape (H, W, D); labels 0 background, 1 right
ventricle, 2 myocardium, 3 left ventricle. 192 x 192 pixels, or 224 x 224 of which the middle 192 are used, as in the
authors' loader. The layout keeps no spacing, so distances are in pixels of the 192 grid and slices count as 1 apart.

Source of the images: Bernard et al., IEEE TMI 37(11), 2018.
"""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from nacl._checks import expectation
from nacl.data.benchmarks.layout import checked, matching
from nacl.data.benchmarks.nifti import MOST_INFLATION
from nacl.data.benchmarks.raw import Benchmark, RawCase, Volume
from nacl.data.case import SPLITS, Case, Dataset
from nacl.data.names import TABLE
from nacl.data.recipe import Recipe
from nacl.data.slices import resize_case

if TYPE_CHECKING:
    import h5py

NAME = "acdc"
CLASS_NAMES = ("background", "right ventricle", "myocardium", "left ventricle")
CROP = 192
SIZES = (192, 224)
KEYS = ("img", "mask")
LAYOUT = "{train,valid,test}/patientXXX_frameYY.h5"


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
    volume = _read_volume(file)
    patient = file.stem.split("_")[0]
    return Case(file.stem, file.parent.name, _scaled(volume.image), volume.label, volume.spacing, patient=patient)


def find(folder: Path) -> list[RawCase]:
    """The cases of `folder`, split by the folders that they lie in."""
    cases = (RawCase(file.stem, file.stem.split("_")[0], (file,), file, file.parent.name) for file in _stored(folder))
    return checked(cases, folder, LAYOUT)


def recognises(folder: Path) -> bool:
    """Whether such files are there; beside a dataset.json they are prepared cases, which have the same names."""
    return bool(_stored(folder)) and not (folder / TABLE).exists()


def read_volume(raw: RawCase, benchmark: Benchmark) -> Volume:
    """The middle 192 x 192 of a case as its file has it; errors as of `read_case`."""
    return _read_volume(raw.label)


def _stored(folder: Path) -> list[Path]:
    return matching(folder, *(f"{split}/patient[0-9][0-9][0-9]_frame*.h5" for split in SPLITS))


def _read_volume(file: Path) -> Volume:
    image, label = _read_keys(file)
    _check_volume(file, image, label)
    margin = (image.shape[0] - CROP) // 2
    middle = slice(margin, margin + CROP)
    image, label = (np.ascontiguousarray(np.moveaxis(x[middle, middle], 2, 0)) for x in (image, label))
    return Volume(image[None], label.astype(np.uint8, copy=False), (1.0, 1.0, 1.0), "px")


def _read_keys(file: Path) -> list[NDArray]:
    import h5py

    if file.exists() and not file.is_file():  # opening a pipe would wait for ever
        raise ValueError(expectation(str(file), "to be a file", "something else", remedy="Leave it out"))
    try:
        with h5py.File(file, "r") as stored:
            problem = _problem(stored, file)
            arrays = [] if problem else [stored[key][...] for key in KEYS]
    except Exception as error:  # h5py raises errors of many kinds on corrupt files
        empty = file.exists() and file.stat().st_size == 0
        what = "an empty file" if empty else f"an unreadable one: {error}"
        remedy = "Copy it again from its source"
        raise ValueError(expectation(str(file), "to be a whole HDF5 file", what, remedy=remedy)) from error
    if problem:
        raise ValueError(problem)
    return arrays


def _problem(stored: "h5py.File", file: Path) -> str:
    """What is wrong with the arrays, "" for nothing; told before a voxel is read, or memory is taken for one."""
    import h5py

    # a link of another kind may lead out of the file, and of the folder
    kept = [key for key in KEYS if isinstance(stored.get(key, getlink=True), h5py.HardLink)]
    missing = [key for key in KEYS if key not in kept or not isinstance(stored[key], h5py.Dataset)]
    if missing:
        rule = f"with the keys {' and '.join(map(repr, KEYS))}"
        return expectation(str(file), rule, sorted(stored), f"no array {missing}")
    image, label = (stored[key] for key in KEYS)
    for key, array in zip(KEYS, (image, label), strict=True):
        if array.is_virtual or array.external:
            return expectation(str(file), f"with {key} in itself", "one in other files")
        if array.dtype.kind not in "uif":
            return expectation(str(file), f"with numbers in {key}", array.dtype, remedy="Store integers or floats")
    shape = image.shape
    if shape != label.shape:
        got = f"{shape} and {label.shape}"
        return expectation(str(file), "with img and mask of one shape", got, remedy="Export both on the same grid")
    if len(shape) != 3 or shape[0] != shape[1] or shape[0] not in SIZES or not shape[2]:
        rule = "with img of shape (192, 192, D) or (224, 224, D)"
        return expectation(str(file), rule, shape, remedy="Crop or pad the slices, D last")
    for key, array in zip(KEYS, (image, label), strict=True):
        there = min(array.id.get_storage_size(), file.stat().st_size)
        if array.nbytes > MOST_INFLATION * there:
            got = f"{there} of the {array.nbytes} that shape {shape} takes"
            return expectation(str(file), f"with the bytes of {key}", got, remedy="Copy it again from its source")
    return ""


def _scaled(image: NDArray) -> NDArray[np.float32]:
    image = image.astype(np.float32)
    low, high = image.min(), image.max()
    return (image - low) / (high - low) if high > low else np.zeros_like(image)


def _check_volume(file: Path, image: NDArray, label: NDArray) -> None:
    def refuse(rule: str, got: object, remedy: str) -> None:
        raise ValueError(expectation(str(file), rule, got, remedy=remedy))

    for name, array in (("img", image), ("mask", label)):
        if not (np.abs(array) <= np.finfo(np.float32).max).all():  # written so that NaN fails
            refuse(f"with finite values in {name}", "NaN or beyond float32", "Replace them, or leave the file out")
    strange = np.setdiff1d(label, np.arange(len(CLASS_NAMES)))
    if strange.size:
        refuse("with labels 0, 1, 2, 3 in mask", strange[:5].tolist(), "Remap the labels")


BENCHMARK = Benchmark(
    name=NAME,
    title="ACDC, the heart in cine-MRI, in the HDF5 files of the NACL authors' loaders",
    class_names=CLASS_NAMES,
    channel_names=("cine-MRI",),
    layout=LAYOUT,
    home="https://www.creatis.insa-lyon.fr/Challenge/acdc",
    licence="CC BY-NC-SA 4.0",
    reference="bernard2018",
    recipe=Recipe(size=CROP, intensity="minmax"),  # as `read_case`: the files have no spacing to resample by
    find=find,
    recognises=recognises,
    read=read_volume,
    ready=True,
)
