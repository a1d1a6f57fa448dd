"""ACDC cardiac MRI in its official NIfTI folders: 100 patients to train on, 50 to test on, at two times each.

FOLDER/{training,testing}/patientXXX/ holds Info.cfg, patientXXX_4d.nii.gz (the film, not read), and
patientXXX_frameYY.nii.gz with patientXXX_frameYY_gt.nii.gz for end-diastole and end-systole, whose frames Info.cfg
names as ED and ES. FOLDER may hold the patients' folders itself. Labels as in `nacl.data.benchmarks.acdc`; the spacing
is in the headers.

The published split has 90 of the 100 patients under training/. The other 10, and the 50 under testing/, are left out,
so that all test on the same patients, with or without testing/. A split file of one's own may include them.

Source: Bernard et al., IEEE TMI 37(11), 2018.
"""

import re
from pathlib import Path

from nacl.data.benchmarks import acdc
from nacl.data.benchmarks.layout import checked, folders, matching, pick
from nacl.data.benchmarks.raw import Benchmark, RawCase
from nacl.data.benchmarks.stored import refuse
from nacl.data.benchmarks.volumes import read_volumes
from nacl.data.recipe import Recipe

LAYOUT = (
    "{training,testing}/patientXXX/Info.cfg\n"
    "{training,testing}/patientXXX/patientXXX_frameYY.nii.gz\n"
    "{training,testing}/patientXXX/patientXXX_frameYY_gt.nii.gz"
)
PATIENT = "patient[0-9][0-9][0-9]"
PARTS = ("training", "testing", "database/training", "database/testing", ".")
LABEL = re.compile(r"patient\d+_frame(\d+)_gt\.nii(\.gz)?")


def find(folder: Path) -> list[RawCase]:
    """The cases of `folder`: both times of each patient; one whose image or label is missing is one that can't be read.

    Patients under testing/ are in no split, and no cases where they have no labels (they were secret once).

    Raises:
        ValueError: no patients; one with neither a readable Info.cfg nor labels. The message names the file.
    """
    cases = []
    for patient in _patients(folder):
        testing = patient.parent.name == "testing"
        frames = _labelled(patient)
        if frames or not testing:
            frames |= _told(patient / "Info.cfg", needed=not frames)
        cases += [_case(patient, frame, "" if testing else None) for frame in sorted(frames)]
    return checked(cases, folder, LAYOUT)


def recognises(folder: Path) -> bool:
    return any((patient / "Info.cfg").is_file() or _labelled(patient) for patient in _patients(folder))


def _patients(folder: Path) -> list[Path]:
    return [patient for part in PARTS for patient in folders(folder / part, PATIENT)]


def _labelled(patient: Path) -> set[str]:
    found = (LABEL.fullmatch(file.name) for file in matching(patient, "*_gt.nii*"))
    return {match[1] for match in found if match}


def _told(file: Path, *, needed: bool) -> set[str]:
    """The frames ED and ES of Info.cfg; none where it is unreadable and not needed, since the names of files tell."""
    try:
        text = file.read_text(encoding="utf-8", errors="replace")
    except OSError:
        text = ""
    frames = {int(number) for _, number in re.findall(r"^(ED|ES)\s*:\s*(\d{1,4})\s*$", text, re.MULTILINE)}
    if needed and not frames:
        got = "none, and no label beside it tells them" if text else "no such file or an empty one"
        refuse(file, "with the frames ED and ES", got, "Copy it from its source")
    return {f"{frame:02d}" for frame in frames}


def _case(patient: Path, frame: str, split: str | None) -> RawCase:
    name = f"{patient.name}_frame{frame}"
    return RawCase(name, patient.name, (pick(patient, name),), pick(patient, f"{name}_gt"), split)


BENCHMARK = Benchmark(
    name=acdc.NAME,
    title="ACDC, the heart in cine-MRI",
    class_names=acdc.CLASS_NAMES,
    channel_names=("cine-MRI",),
    layout=LAYOUT,
    home="https://www.creatis.insa-lyon.fr/Challenge/acdc",
    licence="CC BY-NC-SA 4.0",
    reference="bernard2018",
    # The papers' crop. Pixels are 0.7 to 1.9 mm, 1.5 about their median, and 288 mm of a chest hold any heart.
    recipe=Recipe(spacing=1.5, size=192, intensity="minmax"),
    find=find,
    recognises=recognises,
    read=read_volumes,
)
