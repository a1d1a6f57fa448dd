"""MRBrainS18: tissues of the brain in three aligned MRI sequences of 7 subjects.

FOLDER/SUBJECT/pre/{FLAIR,reg_T1,reg_IR}.nii.gz, corrected for the bias field, and FOLDER/SUBJECT/segm.nii.gz; the
subjects are 1, 4, 5, 7, 14, 070 and 148; voxels of 0.958 x 0.958 x 3 mm. The labels 0 to 10 are background, cortical
grey matter, basal ganglia, white matter, lesions of the white matter, fluid around the brain, ventricles, cerebellum,
brain stem, infarction and other.

The papers segment three tissues. They are merged as the organisers told users of three tissues to in the challenge
before (https://mrbrains13.isi.uu.nl/data): 1 and 2 are grey matter, 3 and 4 white matter, 5 and 6 fluid. The rest is
none of the three and becomes background: cerebellum and brain stem (7, 8), and infarctions and other lesions (9, 10),
which the organisers leave out of every score.

Source: https://mrbrains18.isi.uu.nl/data; Mendrik et al., Computational Intelligence and Neuroscience, 2015.
"""

from pathlib import Path

from nacl.data.benchmarks.layout import checked, folders, pick
from nacl.data.benchmarks.raw import Benchmark, RawCase
from nacl.data.benchmarks.volumes import read_volumes
from nacl.data.recipe import Recipe

SEQUENCES = ("FLAIR", "reg_T1", "reg_IR")
LAYOUT = "SUBJECT/pre/{FLAIR,reg_T1,reg_IR}.nii.gz\nSUBJECT/segm.nii.gz"
TISSUES = {0: 0, 1: 1, 2: 1, 3: 2, 4: 2, 5: 3, 6: 3, 7: 0, 8: 0, 9: 0, 10: 0}


def find(folder: Path) -> list[RawCase]:
    """The cases of `folder` or of FOLDER/training; one that lacks a sequence or its label is one that can't be read."""
    return checked(map(_case, _subjects(folder)), folder, LAYOUT)


def recognises(folder: Path) -> bool:
    return any(pick(subject / "pre", "reg_IR").exists() for subject in _subjects(folder))


def _subjects(folder: Path) -> list[Path]:
    return [pre.parent for pre in folders(folder, "[0-9]*/pre") or folders(folder, "training/[0-9]*/pre")]


def _case(subject: Path) -> RawCase:
    images = tuple(pick(subject / "pre", name) for name in SEQUENCES)
    return RawCase(subject.name, subject.name, images, pick(subject, "segm"))


BENCHMARK = Benchmark(
    name="mrbrains18",
    title="MRBrainS18, tissues of the brain in three MRI sequences",
    class_names=("background", "grey matter", "white matter", "cerebrospinal fluid"),
    channel_names=("FLAIR", "T1", "IR"),
    layout=LAYOUT,
    home="https://mrbrains18.isi.uu.nl",
    licence="the challenge's terms, for research, with citation",
    reference="mendrik2015",
    # The papers' crop; 192 pixels are 184 mm. Heads are not stripped, and fat and vessels are far brighter than tissue.
    recipe=Recipe(size=192, intensity="percentiles", low=0.5, high=99.5),
    find=find,
    recognises=recognises,
    read=read_volumes,
    label_map=TISSUES,
)
