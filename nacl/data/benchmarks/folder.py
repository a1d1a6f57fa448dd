"""A user's own pairs of images and labels, in NIfTI or MetaImage.

FOLDER/images/NAME.nii.gz with FOLDER/labels/NAME.nii.gz, or nnU-Net's raw layout: FOLDER/imagesTr/NAME_0000.nii.gz, a
number a channel, with FOLDER/labelsTr/NAME.nii.gz; imagesTs/ and labelsTs/, where labelled, are the test set. Files end
in .nii.gz, .nii, .mha or .mhd, in upper case too. FOLDER/dataset.json may name classes and channels, as nnU-Net or the
Decathlon do.
"""

import functools
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from nacl._checks import expectation
from nacl._files import real_path
from nacl.data.benchmarks.layout import checked, folders, matching, read_table, stem
from nacl.data.benchmarks.metaimage import voxels_beside
from nacl.data.benchmarks.raw import Benchmark, RawCase
from nacl.data.benchmarks.tables import channels_of, classes_of
from nacl.data.benchmarks.volumes import UNKNOWN, count_channels, read_volumes, stored_labels, suffix_of
from nacl.data.names import TABLE, shortened
from nacl.data.recipe import Recipe

PARTS = (("images", "labels", None), ("imagesTr", "labelsTr", None), ("imagesTs", "labelsTs", "test"))
LAYOUT = "images/NAME.nii.gz or imagesTr/NAME_0000.nii.gz\nlabels/NAME.nii.gz or labelsTr/NAME.nii.gz"
LONGEST = 60  # letters of a name that also begins those of runs
MANY = 8  # classes that one file alone may bring: the organs of a few scans differ, by fewer than grey values do
CHANNEL = re.compile(r"(.+)_(\d{4})")


def benchmark(folder: Path, *, class_names: Sequence[str] | None = None, patient: str | None = None) -> Benchmark:
    """The reader of a folder of pairs, which is named as the folder is.

    The name is part of the hash that splits the cases, so a folder of another name is split in another way.

    Args:
        folder: the folder.
        class_names: of the labels 0, 1, ...; by default those of dataset.json; without it the values that occur in the
            files of labels, with names as "class 1". All labels are read for that, once more than the cases are: a
            case can't be made before it is known how many classes there are.
        patient: a regular expression that finds the patient in the name of a case, as its first group or as the whole;
            by default each case is a patient of its own.

    Raises:
        ValueError: no pairs; a file of another format, or without its partner; two files of one name; a dataset.json
            that is none, with an "ignore" label, or with other channels than the files have; labels that look like an
            image; a `patient` that is no regular expression.

    Example: see the book's chapter "Your own data".
    """
    folder = Path(folder)
    cases = find(folder, patient=patient)
    table = read_table(folder / TABLE) if (folder / TABLE).is_file() else {}
    label_map, regions = None, {}
    if class_names is not None:
        _check_class_names(class_names)
    elif "labels" in table:
        class_names, label_map, regions = classes_of(table["labels"], folder / TABLE)
    else:
        class_names, label_map = _found_classes(cases, folder)
    first = cases[0].images
    place = real_path("folder", folder).name
    channels = len(first) if len(first) > 1 else count_channels(first[0])
    return Benchmark(
        name=_name(place),
        title=f"your own pairs in {place}",
        class_names=tuple(class_names),
        channel_names=channels_of(table, channels, folder / TABLE),
        layout=LAYOUT,
        home="",
        licence="yours",
        reference="",
        recipe=Recipe(intensity="percentiles", low=0.5, high=99.5),  # neither field of view nor unit are known
        find=functools.partial(find, patient=patient),
        recognises=recognises,
        read=read_volumes,
        label_map=label_map,
        regions=regions,
    )


def find(folder: Path, *, patient: str | None = None) -> list[RawCase]:
    """The cases of `folder`; one that lacks a channel that others have is one that can't be read."""
    cases = [case for part in PARTS for case in _pairs(folder, *part, patient)]
    if not cases:
        _check_parts(folder)
    return checked(cases, folder, LAYOUT)


def recognises(folder: Path) -> bool:
    """Whether both parts of pairs are there, of whatever format: one that is not read is named when cases are found."""
    return any(_files(folder / images) and _files(folder / labels) for images, labels, _ in PARTS[:2])


def _name(place: str) -> str:
    """The folder's name as one that can name a file."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", place).strip("-.")[:LONGEST] or "folder"


def _files(folder: Path) -> list[Path]:
    return [file for file in matching(folder, "*") if file.suffix.lower() != ".json" and not file.is_dir()]


def _check_parts(folder: Path) -> None:
    """Raise ValueError where folders differ in upper case alone from those of a part."""
    wanted = [name for *part, _ in PARTS for name in part]
    names = {path.name: name for path in folders(folder, "*") for name in wanted if path.name.lower() == name.lower()}
    wrong = {got: name for got, name in names.items() if got not in wanted}
    if wrong:
        remedy = "Rename " + " and ".join(f"{got}/ to {name}/" for got, name in wrong.items())
        got = " and ".join(f"{name}/" for name in wrong)
        raise ValueError(expectation(str(folder), "with images/ and labels/", got, remedy=remedy))


def _volumes(folder: Path) -> list[Path]:
    """The files of volumes.

    Raises:
        ValueError: a file of another format is there, which would else be left out without a word.
    """
    files = _files(folder)
    volumes = [file for file in files if suffix_of(file)]
    others = set(files) - set(volumes)
    if others:  # the voxels of an .mhd lie in another file; of a bad header, in one of its name
        headers = [file for file in volumes if suffix_of(file) in (".mhd", ".mha")]
        others -= {voxels_beside(file) for file in headers}
        others -= {file.with_suffix(end) for file in headers for end in (".raw", ".zraw")}
    if others:
        got = shortened([file.name for file in others])
        remedy = "Convert them, or move them away"
        raise ValueError(expectation(str(folder), "with files in .nii.gz, .nii, .mha or .mhd", got, remedy=remedy))
    return volumes


def _by_stem(folder: Path) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for file in _volumes(folder):
        first = found.setdefault(stem(file), file)
        if first is not file:
            got = f"{first.name} and {file.name}"
            raise ValueError(expectation(str(folder), "with one file a name", got, remedy="Remove one of them"))
    return found


def _pairs(folder: Path, images: str, labels: str, split: str | None, patient: str | None) -> list[RawCase]:
    if split == "test" and not _files(folder / labels):  # images for testing often have no labels
        return []
    files, label_of = _by_stem(folder / images), _by_stem(folder / labels)
    channels: dict[str, dict[int, Path]] = {name: {} for name in label_of}
    alone = []
    for name, file in files.items():
        numbered = CHANNEL.fullmatch(name)
        if name in label_of:
            channels[name][0] = file
        elif numbered and numbered[1] in label_of:
            channels[numbered[1]][int(numbered[2])] = file
        else:
            alone.append(file)
    if split == "test":  # images for testing often have no labels
        alone = []
    alone += [label_of[name] for name, of_case in channels.items() if not of_case]
    if alone:
        names = ", ".join(file.relative_to(folder).as_posix() for file in alone[:5])
        rule = f"with a file in {labels}/ for each image in {images}/, and the other way round"
        got = f"{len(alone)} without a partner: {names}"
        raise ValueError(expectation(str(folder), rule, got, remedy=_partner_remedy(files, label_of)))
    count = 1 + max((max(of_case) for of_case in channels.values()), default=0)
    return [
        RawCase(name, _patient(name, patient), _all_channels(of_case, count, label_of[name]), label_of[name], split)
        for name, of_case in channels.items()
    ]


def _partner_remedy(files: Mapping[str, Path], label_of: Mapping[str, Path]) -> str:
    for name, label in label_of.items():
        image = next((image for image in files if name not in files and name.startswith(f"{image}_")), None)
        if image:
            return f"Name labels as their images: rename {label.name} to {image}{label.name.removeprefix(name)}"
    return "Add the partners, or move these out of the folder"


def _all_channels(found: Mapping[int, Path], count: int, label: Path) -> tuple[Path, ...]:
    """The files of the channels 0 to count - 1; a missing one under the name that it should have."""
    some = next(iter(found.values()))
    ending = some.name.removeprefix(stem(some))
    return tuple(found.get(k, some.with_name(f"{stem(label)}_{k:04d}{ending}")) for k in range(count))


def _patient(name: str, pattern: str | None) -> str:
    if pattern is None:
        return name
    try:
        match = re.search(pattern, name)
    except re.error as error:
        raise ValueError(expectation("patient", "to be a regular expression", repr(pattern), str(error))) from error
    found = match and (match[1] if match.re.groups else match[0])
    if not found:
        rule = "to find a patient in the name of each case"
        raise ValueError(expectation("patient", rule, f"{pattern!r}, which finds none in {name!r}"))
    return found


def _found_classes(cases: Sequence[RawCase], folder: Path) -> tuple[tuple[str, ...], dict[int, int] | None]:
    """The classes that occur; a file that can't be read tells of none, and is named when its case is read."""
    found, problem = {}, None
    for case in cases:
        try:
            found[case.label] = stored_labels(case.label)
        except ValueError as error:
            problem = error
    files_of = Counter(value for of_file in found.values() for value in of_file)
    values = {0, *files_of}
    for file, of_file in found.items():
        alone = sum(files_of[value] == 1 for value in of_file)
        if len(found) > 1 and alone > max(MANY, len(values) / 2):
            got = f"{alone} that no other file has"
            remedy = f"Is it an image? If not, name the classes in {TABLE}"
            raise ValueError(expectation(str(file), "with labels as the other files have", got, remedy=remedy))
    if problem is not None and values == {0}:
        raise problem
    if len(values) > UNKNOWN:
        remedy = "Are these labels, and not images?"
        raise ValueError(expectation(str(folder), f"with at most {UNKNOWN} labels", len(values), remedy=remedy))
    ordered = sorted(values)
    label_map = None if ordered == list(range(len(ordered))) else {value: k for k, value in enumerate(ordered)}
    return ("background", *(f"class {value}" for value in ordered[1:])), label_map


def _check_class_names(names: Sequence[str]) -> None:
    fit = not isinstance(names, str) and all(isinstance(name, str) and name for name in names)
    if not fit or not 2 <= len(set(names)) == len(names) <= UNKNOWN:
        rule = f"to be 2 to {UNKNOWN} different names, the background's first"
        raise ValueError(expectation("class_names", rule, repr(names)))
