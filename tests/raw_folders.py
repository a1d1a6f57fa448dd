"""Tiny data sets in the benchmarks' true layouts, written by the formats' own libraries: NIfTI, MetaImage, HDF5.

Each `write_...` fills a folder with valid files of a few kilobytes and returns it. A voxel has three different lengths,
and a volume three different sizes, so that a reader that confuses two axes is seen.
"""

import json
from collections.abc import Sequence
from pathlib import Path

import nibabel
import numpy as np
import SimpleITK
from conftest import write_volume
from numpy.typing import NDArray

SHAPE = (3, 36, 40)  # (D, H, W)
SPACING = (5.0, 1.5, 1.25)  # along D, H, W
TOWARDS = {"R": (1, 0, 0), "L": (-1, 0, 0), "A": (0, 1, 0), "P": (0, -1, 0), "S": (0, 0, 1), "I": (0, 0, -1)}


def scan(
    labels: Sequence[int], *, shape: tuple[int, int, int] = SHAPE, channels: int = 1, seed: int = 0
) -> tuple[NDArray[np.int16], NDArray[np.uint8]]:
    """An image (channels, D, H, W) of noisy boxes, a grey value each, and the boxes' labels (D, H, W).

    The stored value `labels[0]` is around them; every other one has a column of its own. Channel k is 2000 k brighter.
    """
    rng = np.random.default_rng(seed)
    index = np.zeros(shape, np.int64)
    columns = np.array_split(np.arange(2, shape[2] - 2), max(len(labels) - 1, 1))
    for k, column in enumerate(columns[: len(labels) - 1], start=1):
        top = int(rng.integers(2, shape[1] // 3))
        index[:, top : top + shape[1] // 2, column] = k
    grey = 100 * (1 + index) + rng.integers(0, 30, (channels, *shape)) + 2000 * np.arange(channels)[:, None, None, None]
    return grey.astype(np.int16), np.array(labels, np.uint8)[index]


def affine(spacing: tuple[float, float, float] = SPACING, axes: str = "RAS") -> NDArray:
    """From voxels x, y, z of a file, whose axes point to `axes`, to millimetres; `spacing` is along D, H, W."""
    matrix = np.eye(4)
    matrix[:3, 3] = -10, 20, 5
    for column, (axis, length) in enumerate(zip(axes, spacing[::-1], strict=True)):
        matrix[:3, column] = length * np.array(TOWARDS[axis])
    return matrix


def write_nifti(
    file: Path,
    array: NDArray,
    *,
    spacing: tuple[float, float, float] = SPACING,
    axes: str = "RAS",
    matrix: NDArray | None = None,
) -> Path:
    """`array` (D, H, W) as a NIfTI file of (W, H, D) voxels, or (M, D, H, W) as one of (W, H, D, M)."""
    file.parent.mkdir(parents=True, exist_ok=True)
    matrix = affine(spacing, axes) if matrix is None else matrix
    nibabel.save(nibabel.Nifti1Image(np.ascontiguousarray(array.T), matrix), file)
    return file


def write_meta(file: Path, array: NDArray, *, spacing: tuple[float, float, float] = SPACING) -> Path:
    """`array` (D, H, W) as a MetaImage: .mhd with its .raw beside it, or .mha."""
    file.parent.mkdir(parents=True, exist_ok=True)
    image = SimpleITK.GetImageFromArray(array)
    image.SetSpacing(spacing[::-1])
    SimpleITK.WriteImage(image, str(file))
    return file


def write_acdc(folder: Path, patients: Sequence[int] = (1, 2, 101), *, es: int = 12, frames: int = 14) -> Path:
    """ACDC's official NIfTI folders: patients up to 100 under training/, the others under testing/."""
    for number in patients:
        name = f"patient{number:03d}"
        place = folder / ("training" if number <= 100 else "testing") / name
        for phase, frame in enumerate((1, es)):
            image, label = scan((0, 1, 2, 3), seed=2 * number + phase)
            write_nifti(place / f"{name}_frame{frame:02d}.nii.gz", image[0], axes="LPS")
            write_nifti(place / f"{name}_frame{frame:02d}_gt.nii.gz", label, axes="LPS")
        film = np.repeat(image, frames, axis=0)
        write_nifti(place / f"{name}_4d.nii.gz", film, axes="LPS")
        facts = {"ED": 1, "ES": es, "Group": "DCM", "Height": 184.0, "NbFrame": frames, "Weight": 95.0}
        (place / "Info.cfg").write_text("".join(f"{key}: {value}\n" for key, value in facts.items()))
    return folder


def write_acdc_hdf5(folder: Path) -> Path:
    """The ACDC authors' HDF5: patients 1 to 3, one a split, end-diastole and end-systole."""
    for seed, split in enumerate(("train", "valid", "test")):
        for frame in (1, 2):
            write_volume(folder / split / f"patient{seed + 1:03d}_frame{frame:02d}.h5", depth=2 + frame, seed=seed)
    return folder


def write_flare(folder: Path, cases: int = 3) -> Path:
    """FLARE 2021: abdomen CT in Hounsfield units."""
    for number in range(cases):
        image, label = scan((0, 1, 2, 3, 4), seed=number)
        write_nifti(folder / "TrainingImg" / f"train_{number:03d}_0000.nii.gz", image[0] - 300, spacing=(2.5, 0.8, 0.8))
        write_nifti(folder / "TrainingMask" / f"train_{number:03d}.nii.gz", label, spacing=(2.5, 0.8, 0.8))
    return folder


def write_brats2019(folder: Path, names: Sequence[str] = ("2013_10_1", "CBICA_AAB_1", "TCIA09_141_1")) -> Path:
    """BraTS 2019: the first names under HGG/, the last one under LGG/."""
    for seed, name in enumerate(names):
        grade = "LGG" if seed == len(names) - 1 else "HGG"
        _write_tumour(folder / grade / f"BraTS19_{name}", ".nii.gz", seed)
    return folder


def write_brats2020(folder: Path, numbers: Sequence[int] = (1, 2, 355), *, suffix: str = ".nii") -> Path:
    """BraTS 2020; the segmentation of number 355 has the odd name that it has in the official release."""
    place = folder / "MICCAI_BraTS2020_TrainingData"
    for number in numbers:
        case = place / f"BraTS20_Training_{number:03d}"
        _write_tumour(case, suffix, number)
        if number == 355:
            (case / f"{case.name}_seg{suffix}").rename(case / f"W39_1998.09.19_Segm{suffix}")
    (place / "name_mapping.csv").write_text("Grade,BraTS_2020_subject_ID\n")
    return folder


def _write_tumour(place: Path, suffix: str, seed: int) -> None:
    image, label = scan((0, 1, 2, 4), channels=4, seed=seed)
    image[:, :, :2] = 0  # the skull was stripped
    for modality, channel in zip(("flair", "t1", "t1ce", "t2"), image, strict=True):
        write_nifti(place / f"{place.name}_{modality}{suffix}", channel, spacing=(1.0, 1.0, 1.0), axes="LPS")
    write_nifti(place / f"{place.name}_seg{suffix}", label, spacing=(1.0, 1.0, 1.0), axes="LPS")


def write_mrbrains(folder: Path, subjects: Sequence[str] = ("1", "4", "070")) -> Path:
    """MRBrainS18, with the labels 0 to 10."""
    spacing = (3.0, 0.958, 0.958)
    for seed, subject in enumerate(subjects):
        image, label = scan(tuple(range(11)), channels=3, seed=seed)
        for name, channel in zip(("FLAIR", "reg_T1", "reg_IR"), image, strict=True):
            write_nifti(folder / subject / "pre" / f"{name}.nii.gz", channel.astype(np.float32), spacing=spacing)
        write_nifti(folder / subject / "pre" / "T1.nii.gz", np.zeros((5, 9, 9), np.int16))
        write_nifti(folder / subject / "segm.nii.gz", label, spacing=spacing)
    return folder


def write_promise(folder: Path, cases: int = 3) -> Path:
    """PROMISE12: .mhd with .raw."""
    for number in range(cases):
        image, label = scan((0, 1), seed=number)
        write_meta(folder / f"Case{number:02d}.mhd", image[0], spacing=(3.6, 0.625, 0.625))
        write_meta(folder / f"Case{number:02d}_segmentation.mhd", label, spacing=(3.6, 0.625, 0.625))
    return folder


def write_hippocampus(folder: Path, cases: int = 3) -> Path:
    """Task04_Hippocampus of the Decathlon, with a leftover of macOS."""
    (folder / "imagesTr").mkdir(parents=True, exist_ok=True)
    (folder / "imagesTr" / "._hippocampus_001.nii.gz").write_bytes(b"\0\5\26\7")
    names = ("background", "Anterior", "Posterior")
    return _write_task(folder, "hippocampus", names, ("MRI",), cases, spacing=(1.0, 1.0, 1.0))


def write_prostate(folder: Path, cases: int = 3) -> Path:
    """Task05_Prostate of the Decathlon: T2 and ADC in one 4D file."""
    names = ("background", "PZ", "TZ")
    return _write_task(folder, "prostate", names, ("T2", "ADC"), cases, spacing=(3.6, 0.625, 0.625))


def _write_task(
    folder: Path,
    name: str,
    class_names: Sequence[str],
    channel_names: Sequence[str],
    cases: int,
    *,
    spacing: tuple[float, float, float],
) -> Path:
    training = []
    for number in range(1, cases + 1):
        image, label = scan(range(len(class_names)), channels=len(channel_names), seed=number)
        file = f"{name}_{number:03d}.nii.gz"
        image = (image if len(channel_names) > 1 else image[0]).astype(np.float32)
        write_nifti(folder / "imagesTr" / file, image, spacing=spacing)
        write_nifti(folder / "labelsTr" / file, label, spacing=spacing)
        training.append({"image": f"./imagesTr/{file}", "label": f"./labelsTr/{file}"})
    facts = {
        "name": name.upper(),
        "licence": "CC-BY-SA 4.0",
        "modality": {str(k): channel for k, channel in enumerate(channel_names)},
        "labels": {str(k): of_class for k, of_class in enumerate(class_names)},
        "numTraining": cases,
        "numTest": 1,
        "training": training,
        "test": [f"./imagesTs/{name}_900.nii.gz"],
    }
    (folder / "dataset.json").write_text(json.dumps(facts))
    return folder


def write_folder(
    folder: Path,
    names: Sequence[str] = ("a", "b", "c", "d"),
    *,
    labels: Sequence[int] = (0, 1, 2),
    suffix: str = ".nii.gz",
) -> Path:
    """A user's own pairs: images/NAME and labels/NAME."""
    write = write_nifti if suffix.startswith(".nii") else write_meta
    for seed, name in enumerate(names):
        image, label = scan(labels, seed=seed)
        write(folder / "images" / f"{name}{suffix}", image[0])
        write(folder / "labels" / f"{name}{suffix}", label)
    return folder


def write_nnunet(folder: Path, names: Sequence[str] = ("a", "b", "c"), *, channels: int = 2, test: bool = True) -> Path:
    """nnU-Net's raw layout (version 2) of two classes; with `test`, also one labelled case of imagesTs."""
    parts = [("Tr", name) for name in names] + [("Ts", "z")] * test
    for seed, (part, name) in enumerate(parts):
        image, label = scan((0, 1, 2), channels=channels, seed=seed)
        for k, channel in enumerate(image):
            write_nifti(folder / f"images{part}" / f"{name}_{k:04d}.nii.gz", channel)
        write_nifti(folder / f"labels{part}" / f"{name}.nii.gz", label)
    facts = {
        "channel_names": {str(k): f"channel {k}" for k in range(channels)},
        "labels": {"background": 0, "liver": 1, "spleen": 2},
        "numTraining": len(names),
        "file_ending": ".nii.gz",
    }
    (folder / "dataset.json").write_text(json.dumps(facts))
    return folder


WRITERS = {
    "acdc": write_acdc,
    "acdc_hdf5": write_acdc_hdf5,
    "flare": write_flare,
    "brats2019": write_brats2019,
    "brats2020": write_brats2020,
    "mrbrains18": write_mrbrains,
    "promise12": write_promise,
    "hippocampus": write_hippocampus,
    "prostate": write_prostate,
    "folder": write_folder,
    "nnunet": write_nnunet,
}
