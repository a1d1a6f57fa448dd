"""The voxels of a case from the files of its image and label, checked to fit each other."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nacl.data.benchmarks.metaimage import metaimage_channels, read_metaimage
from nacl.data.benchmarks.nifti import nifti_channels, read_nifti
from nacl.data.benchmarks.raw import Benchmark, RawCase, Volume
from nacl.data.benchmarks.stored import Stored, refuse

READERS = {".nii.gz": read_nifti, ".nii": read_nifti, ".mha": read_metaimage, ".mhd": read_metaimage}
CHANNELS = {read_nifti: nifti_channels, read_metaimage: metaimage_channels}
LARGEST = float(np.finfo(np.float32).max)
UNKNOWN = 255  # a uint8 label that no class has: classes are 0 to 254


def read_volumes(raw: RawCase, benchmark: Benchmark) -> Volume:
    """The voxels of a case, on one grid; neither resampled nor turned.

    Args:
        raw: its files: NIfTI (.nii, .nii.gz) or MetaImage (.mhd, .mha). An image of 4 axes has its channels last.
        benchmark: gives the channels and the classes.

    Returns:
        The volume: axes D, H, W are z, y, x of the files, the image is in the dtype of its files, the label in classes.

    Raises:
        ValueError: a file that is missing, empty, truncated or of another format; one without real numbers or without
            slices; NaN or infinite voxels; labels that are no whole numbers or unknown; another number of channels than
            the benchmark's; files that do not lie on one grid (see `stored.TOLERANCE`). The message names the file.
    """
    images = [_read(file) for file in raw.images]
    for image in images:
        _check_finite(image)
    channels = sum(len(image.voxels) for image in images)
    if channels != len(benchmark.channel_names):
        rule = f"with the channels {', '.join(benchmark.channel_names)}"
        refuse(raw.images[0], rule, f"{channels} in {len(images)} file(s)", "Give one file a channel, or one with all")
    label = _read(raw.label)
    for other in (*images[1:], label):
        other.check_beside(images[0])
    voxels = images[0].voxels if len(images) == 1 else np.concatenate([image.voxels for image in images])
    return Volume(voxels, _classes(label, benchmark), images[0].spacing, "mm", images[0].axes)


def stored_labels(path: Path) -> set[int]:
    """The values that occur in a label's file.

    Raises:
        ValueError: as `read_volumes`, or values that are no whole numbers from 0.
    """
    stored = _read(path)
    found: set[float] = set()
    for plane in _label_planes(stored):
        found.update(np.unique(plane).tolist())
    if not all(value >= 0 and float(value).is_integer() for value in found):  # written so that NaN fails
        strange = [value for value in found if not (value >= 0 and float(value).is_integer())]
        refuse(path, "with whole numbers from 0 as labels", sorted(strange)[:5], "Relabel it")
    return {int(value) for value in found}


def count_channels(file: Path) -> int:
    """The channels of an image by its file's header; 1 where that can't be read, which is told when the case is."""
    try:
        return max(1, CHANNELS[READERS[_suffix(file)]](file)) if file.is_file() else 1
    except Exception:  # what a broken header makes a library raise can be anything
        return 1


def suffix_of(file: Path) -> str | None:
    """The key of `READERS` that a file's name ends in, or its upper case; None where it is of another format."""
    return next((suffix for suffix in READERS if file.name.endswith((suffix, suffix.upper()))), None)


def _read(file: Path) -> Stored:
    if not file.is_file():
        refuse(file, "to be a file", "none of that name", "Copy it from its source, or leave the case out")
    stored = READERS[_suffix(file)](file)
    stored.check()
    return stored


def _suffix(file: Path) -> str:
    suffix = suffix_of(file)
    if suffix is None:
        refuse(file, f"to end in {', '.join(READERS)}", file.suffix, "Convert it to NIfTI")
    return suffix


def _check_finite(image: Stored) -> None:
    if image.voxels.dtype.kind == "f":
        low, high = image.voxels.min(), image.voxels.max()
        if not (low >= -LARGEST and high <= LARGEST):  # written so that NaN fails
            refuse(image.file, "with finite voxels", "NaN or beyond float32", "Replace them, or leave the case out")


def _label_planes(label: Stored) -> NDArray:
    if len(label.voxels) != 1:
        refuse(label.file, "with one label a voxel", f"{len(label.voxels)} channels", "Merge them into one label map")
    return label.voxels[0]


def _classes(label: Stored, benchmark: Benchmark) -> NDArray[np.uint8]:
    """Plane by plane, so that no index of a whole volume, of 8 bytes a voxel, is ever made."""
    known = benchmark.label_map or {k: k for k in range(len(benchmark.class_names))}
    table = _table(known)
    planes = _label_planes(label)
    classes = np.empty(planes.shape, np.uint8)
    for plane, result in zip(planes, classes, strict=True):
        inside = plane.min() >= 0 and plane.max() < len(table)  # False for NaN
        whole = plane.astype(np.int64) if inside else None
        if whole is None or (plane.dtype.kind == "f" and (whole != plane).any()) or (table[whole] == UNKNOWN).any():
            strange = np.setdiff1d(plane, list(known))[:5].tolist()
            refuse(label.file, f"with labels {', '.join(map(str, sorted(known)))}", strange, "Remap the labels")
        result[...] = table[whole]
    return classes


def _table(known: Mapping[int, int]) -> NDArray[np.uint8]:
    table = np.full(max(known) + 1, UNKNOWN, np.uint8)
    table[list(known)] = list(known.values())
    return table
