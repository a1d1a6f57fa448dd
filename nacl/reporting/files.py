"""Predictions and labels in files: four formats, found by the stems of their names, never unpickled."""

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nacl._checks import check_choice, expectation
from nacl.reporting.axes import fitted, reordered
from nacl.reporting.cases import ReportCase

SUFFIXES = (".npz", ".npy", ".nii.gz", ".nii", ".h5", ".hdf5")
"""Of the files that are read, the one to prefer first: nnU-Net leaves CASE.npz, probabilities, by CASE.nii.gz."""

SCORE_KEYS = ("probabilities", "softmax", "probs", "logits")
LABEL_KEYS = ("label", "labels", "mask", "seg", "segmentation", "gt", "target")
IMAGE_KEYS = ("image", "img", "data")
NNUNET_KEYS = ("probabilities", "softmax")
AXIS_ORDERS = ("zyx", "xyz")

PREFIX = re.compile(r"^(pred|prediction|probs?|softmax|logits|gt|label|labels|seg|mask)[_-]", re.IGNORECASE)
SUFFIX = re.compile(
    r"[_-](pred|prediction|predictions|probs?|probabilities|softmax|logits|gt|label|labels|seg|mask|0000)$",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Reading:
    """How files are to be read, where their looks do not say.

    Args:
        key: of the scores in an npz or HDF5 file.
        label_key: of the labels there.
        class_axis: of the scores as they are stored; None finds it by the label's shape.
        axis_order: of arrays beside a NIfTI file, where their shape fits both: "xyz" as nibabel gives them, or "zyx".
        from_logits: whether the scores are logits; None finds out.
        patient: a regular expression whose first group, or whole match, in a case's name is the patient.
    """

    key: str | None = None
    label_key: str | None = None
    class_axis: int | None = None
    axis_order: str | None = None
    from_logits: bool | None = None
    patient: str | None = None

    def __post_init__(self) -> None:
        if self.axis_order is not None:
            check_choice("axis_order", self.axis_order, AXIS_ORDERS)
        if self.patient is not None:
            try:
                re.compile(self.patient)
            except re.error as error:
                raise ValueError(
                    expectation("patient", "to be a regular expression", self.patient, str(error))
                ) from error

    def patient_of(self, name: str) -> str | None:
        """The patient that a case's name tells of; None where no pattern was given.

        Raises:
            ValueError: the pattern is not in the name.
        """
        if self.patient is None:
            return None
        found = re.search(self.patient, name)
        if not found:
            raise ValueError(expectation("patient", "to match every case's name", repr(self.patient), name))
        return found[1] if found.re.groups and found[1] is not None else found[0]


@dataclass(frozen=True)
class CaseFiles:
    """The files of a case, read when asked."""

    name: str
    scores: Path
    label: Path
    image: Path | None = None
    reading: Reading = Reading()

    def load(self) -> ReportCase:
        """Read them; all arrays are then in the order z, y, x, if a NIfTI file told their order.

        Raises:
            ValueError: a file that can't be read, or whose shape does not fit the label's; the message names it.
        """
        reading, patient = self.reading, self.reading.patient_of(self.name)
        label = read_array(self.label, reading.label_key, LABEL_KEYS).flat()
        scores = read_array(self.scores, reading.key, SCORE_KEYS)
        try:
            orders, axis = _orders(scores, label, reading.axis_order), reading.class_axis
            if axis is not None and scores.is_nifti:
                axis = -1 - axis
            probs = fitted(scores.values, label.values, orders, axis)
        except ValueError as error:
            raise ValueError(f"{self.scores}: {error}") from error
        spacing = None if label.spacing is None else label.spacing[: label.values.ndim][::-1]
        image = None
        if self.image is not None:
            stored = read_array(self.image, None, IMAGE_KEYS)
            image = reordered(stored.values, label.values.shape)
            if image is None:
                rule = f"of the label's shape {label.values.shape}"
                raise ValueError(f"{self.image}: {expectation('image', rule, stored.values.shape)}")
        return ReportCase(self.name, probs, label.values, spacing, image, patient, reading.from_logits)


@dataclass(frozen=True)
class Stored:
    """An array from a file, a NIfTI file's with its axes reversed to z, y, x."""

    values: NDArray
    is_nifti: bool
    key: str | None = None
    spacing: tuple[float, ...] | None = None

    def flat(self) -> "Stored":
        """Without the axes of one pixel that make more than three of a label map."""
        shape = list(self.values.shape)
        while len(shape) > 3 and 1 in shape:
            shape.remove(1)
        return replace(self, values=self.values.reshape(shape))


def find_cases(
    predictions: Path,
    labels: Path,
    *,
    images: Path | None = None,
    ignore_unmatched: bool = False,
    reading: Reading = Reading(),
) -> list[CaseFiles]:
    """The pairs of files in two folders (or two files), by the stems of their names.

    A stem is the name without its suffix and, where names are not equal as they are, without a prefix or suffix such
    as `_gt`, `_pred` or `_0000`. Of files of one stem in a folder `SUFFIXES` says which is read.

    Args:
        predictions: folder, or a file.
        labels: folder, or a file.
        images: folder, or a file; cases without an image have pictures without.
        ignore_unmatched: leave out what has no partner, instead of an error.
        reading: how files are to be read.

    Raises:
        FileNotFoundError: no such folder.
        ValueError: nothing to read there, names without a partner or with two.
    """
    if Path(predictions).is_file() and Path(labels).is_file():
        image = Path(images) if images is not None and Path(images).is_file() else None
        return [CaseFiles(_stem(Path(predictions)), Path(predictions), Path(labels), image, reading)]
    if Path(predictions).resolve() == Path(labels).resolve():
        remedy = "Keep predictions and labels in folders of their own"
        raise ValueError(expectation("LABELS", "in another folder than PREDICTIONS", str(labels), remedy=remedy))
    scores, truths = _files(predictions, "PREDICTIONS"), _files(labels, "LABELS")
    if set(scores) != set(truths):
        scores, truths = _with_affixes_off(scores, truths, predictions, labels)
    names = sorted(set(scores) & set(truths))
    if not names or (set(scores) != set(truths) and not ignore_unmatched):
        raise ValueError(_unmatched(scores, truths, predictions, labels))
    of_image = {} if images is None else _shortened(_files(images, "--images"), images, strict=False)
    found = []
    for name in names:
        image = of_image.get(name, of_image.get(_short(name)))
        found.append(CaseFiles(name, scores[name], truths[name], image, reading))
    return found


def nnunet_labels(predictions: Path) -> tuple[list[str] | None, int | None]:
    """The names of the classes and the ignored label, from the dataset.json that nnU-Net leaves by its predictions.

    None for what it does not tell, and where there is no such file.
    """
    try:
        labels = json.loads((Path(predictions) / "dataset.json").read_text(encoding="utf-8"))["labels"]
        numbers = {str(name): int(number) for name, number in labels.items()}
    except (OSError, ValueError, TypeError, KeyError, AttributeError):  # of another program, or labels that overlap
        return None, None
    ignored = numbers.pop("ignore", None)
    names = sorted(numbers, key=numbers.__getitem__)
    return (names if [numbers[name] for name in names] == list(range(len(names))) else None), ignored


def _files(folder: Path, argument: str) -> dict[str, Path]:
    folder = Path(folder)
    if not folder.exists():
        raise FileNotFoundError(f"{argument}: no such folder: {folder}")
    files = [folder] if folder.is_file() else sorted(file for file in folder.iterdir() if file.is_file())
    found: dict[str, Path] = {}
    for suffix in SUFFIXES:
        for file in files:
            if _suffix(file) == suffix and not file.name.startswith("."):
                found.setdefault(_stem(file), file)
    if not found:
        raise ValueError(expectation(argument, f"with files {', '.join(SUFFIXES)}", f"none in {folder}"))
    return found


def _suffix(file: Path) -> str | None:
    return next((suffix for suffix in SUFFIXES if file.name.lower().endswith(suffix)), None)


def _stem(file: Path) -> str:
    return file.name[: -len(_suffix(file) or "")] if _suffix(file) else file.stem


def _short(stem: str) -> str:
    short = SUFFIX.sub("", PREFIX.sub("", stem))
    return short if short in ("", stem) else _short(short)


def _with_affixes_off(
    scores: dict[str, Path], truths: dict[str, Path], predictions: Path, labels: Path
) -> tuple[dict[str, Path], dict[str, Path]]:
    """Both by their short stems, if more of them match then."""
    both = len(set(scores) & set(truths))
    try:
        short = _shortened(scores, predictions), _shortened(truths, labels)
    except ValueError:
        if both:
            return scores, truths
        raise
    return short if len(set(short[0]) & set(short[1])) > both else (scores, truths)


def _shortened(files: dict[str, Path], folder: Path, *, strict: bool = True) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for stem, file in files.items():
        other = found.setdefault(_short(stem) or stem, file)
        if strict and other != file:
            got = f"{other.name} and {file.name}"
            raise ValueError(expectation(str(folder), "with one file a case", got, remedy="Rename or move one"))
    return found


def _unmatched(scores: Iterable[str], truths: Iterable[str], predictions: Path, labels: Path) -> str:
    without_label, without_scores = sorted(set(scores) - set(truths)), sorted(set(truths) - set(scores))
    parts = [
        f"{len(names)} without a {what}: {', '.join(names[:8])}{', ...' if len(names) > 8 else ''}"
        for names, what in (
            (without_label, f"label in {labels}"),
            (without_scores, f"prediction in {predictions}"),
        )
        if names
    ]
    both = len(set(scores) & set(truths))
    remedy = f"Rename them, or say --ignore-unmatched to report the {both} that match" if both else "Rename them"
    return f"Expected a label for every prediction, by file name, got {'; '.join(parts)}. {remedy}."


def read_array(file: Path, key: str | None, keys: Sequence[str]) -> Stored:
    """The array in a file; of several in an npz or HDF5 file `key`, else the first of `keys`, else the only one.

    Raises:
        ValueError: it can't be read; the message names the file.
    """
    readers = {".npy": _npy, ".npz": _npz, ".nii": _nifti, ".nii.gz": _nifti, ".h5": _hdf5, ".hdf5": _hdf5}
    suffix = _suffix(file)
    if suffix is None:
        raise ValueError(expectation("a file", f"named {', '.join('*' + s for s in SUFFIXES)}", str(file)))
    try:
        stored = readers[suffix](file, key, keys)
        if stored.values.dtype.kind not in "buif":
            raise ValueError(expectation("the array", "of numbers", stored.values.dtype))
        return stored
    except ModuleNotFoundError as error:
        raise ValueError(f"{file}: reading it needs {error.name}: pip install 'nacl-calibration[train]'") from error
    except Exception as error:  # four libraries, each with its own errors for a broken file
        reason = str(error).strip() or type(error).__name__
        if "pickle" in reason:  # numpy advises to load it all the same
            reason = "it holds pickled objects, which are never loaded. Save a plain array of numbers."
        raise ValueError(f"{file}: {reason}") from error


def _npy(file: Path, key: str | None, keys: Sequence[str]) -> Stored:
    with file.open("rb") as opened:
        return Stored(np.load(opened, allow_pickle=False), is_nifti=False)


def _npz(file: Path, key: str | None, keys: Sequence[str]) -> Stored:
    with file.open("rb") as opened, np.load(opened, allow_pickle=False) as arrays:  # numpy leaves a broken one open
        name = _chosen(arrays.files, key, keys)
        return Stored(arrays[name], is_nifti=False, key=name)


def _hdf5(file: Path, key: str | None, keys: Sequence[str]) -> Stored:
    import h5py

    with h5py.File(file, "r") as h5:
        names: list[str] = []
        h5.visititems(lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) else None)
        name = _chosen(names, key, keys)
        return Stored(np.asarray(h5[name]), is_nifti=False, key=name)


def _nifti(file: Path, key: str | None, keys: Sequence[str]) -> Stored:
    import nibabel

    image = nibabel.load(file)
    spacing = tuple(float(size) for size in image.header.get_zooms()[:3])
    return Stored(np.asanyarray(image.dataobj).T, is_nifti=True, spacing=spacing)


def _chosen(names: Sequence[str], key: str | None, keys: Sequence[str]) -> str:
    if key is not None:
        check_choice("key", key, names)
        return key
    for wanted in keys:
        if wanted in names:
            return wanted
    if len(names) != 1:
        rule = f"one of {', '.join(keys)}, or a single array"
        raise ValueError(
            expectation("the keys", f"to have {rule}", list(names), remedy="Say which with --key, or --label-key")
        )
    return names[0]


def _orders(scores: Stored, label: Stored, axis_order: str | None) -> tuple[bool, ...]:
    """Whether the scores' axes are the label's reversed: what to try, the format's rule first.

    Arrays beside a NIfTI file: nnU-Net writes z, y, x, and who reads with nibabel has x, y, z.
    """
    if scores.is_nifti == label.is_nifti:
        return (False,)
    plain = scores if label.is_nifti else label
    if axis_order is not None:
        return (axis_order == "xyz",)
    return (False, True) if plain.key in NNUNET_KEYS else (True, False)
