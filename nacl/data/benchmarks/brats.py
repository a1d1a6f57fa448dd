"""BraTS 2019 and 2020: gliomas in four aligned, skull-stripped MRI sequences of 240 x 240 x 155 voxels of 1 mm.

2019: FOLDER/{HGG,LGG}/BraTS19_NAME/BraTS19_NAME_{flair,t1,t1ce,t2,seg}.nii.gz, 259 cases of high and 76 of low grade.
2020: FOLDER/MICCAI_BraTS2020_TrainingData/BraTS20_Training_XXX/BraTS20_Training_XXX_{...}.nii(.gz), 369 patients.
FOLDER may be the inner one. The label is 0 background, 1 necrotic and non-enhancing core, 2 oedema, 4 enhancing tumour;
there is no 3, so 4 becomes class 3. Overlap is measured on the enhancing tumour (ET), the tumour's core (TC: with the
necrotic part) and the whole tumour (WT).

Source: Menze et al., IEEE TMI 34(10), 2015.
"""

import functools
import re
from pathlib import Path

from nacl.data.benchmarks.layout import checked, folders, matching, pick, stem
from nacl.data.benchmarks.raw import Benchmark, RawCase
from nacl.data.benchmarks.volumes import read_volumes
from nacl.data.recipe import Recipe

MODALITIES = ("flair", "t1", "t1ce", "t2")
PLACES = {  # of the patients' folders
    "2019": (
        "{HGG,LGG}/BraTS19_NAME",
        ("HGG/BraTS19_*", "LGG/BraTS19_*", "*BraTS_2019*/HGG/BraTS19_*", "*BraTS_2019*/LGG/BraTS19_*"),
    ),
    "2020": ("BraTS20_Training_XXX", ("BraTS20_Training_*", "*BraTS2020_TrainingData/BraTS20_Training_*")),
}


def find(folder: Path, *, year: str) -> list[RawCase]:
    """The cases of `folder`; one that lacks a sequence or its label is one that can't be read."""
    return checked(map(_case, _patients(folder, year)), folder, _layout(year))


def recognises(folder: Path, *, year: str) -> bool:
    return bool(_patients(folder, year))


def _patients(folder: Path, year: str) -> list[Path]:
    return [place for pattern in PLACES[year][1] for place in folders(folder, pattern)]


def _case(place: Path) -> RawCase:
    images = tuple(pick(place, f"{place.name}_{modality}") for modality in MODALITIES)
    # BraTS19_2013_10_1 is scan 1 of patient 2013_10
    patient = re.sub(r"_\d+$", "", place.name) if place.name.startswith("BraTS19") else place.name
    return RawCase(place.name, patient, images, _label(place))


def _label(place: Path) -> Path:
    """The segmentation; where it has not the name that it should, the only file that is none of the sequences.

    BraTS20_Training_355 of the official release has W39_1998.09.19_Segm.nii.
    """
    label = pick(place, f"{place.name}_seg")
    images = {f"{place.name}_{modality}" for modality in MODALITIES}
    others = [file for file in matching(place, "*.nii", "*.nii.gz") if stem(file) not in images]
    return others[0] if len(others) == 1 and not label.exists() else label


def _layout(year: str) -> str:
    place, name = PLACES[year][0], PLACES[year][0].rpartition("/")[2]
    return f"{place}/{name}_{{{','.join(MODALITIES)}}}.nii.gz\n{place}/{name}_seg.nii.gz"


def _benchmark(year: str) -> Benchmark:
    return Benchmark(
        name=f"brats{year}",
        title=f"BraTS {year}, gliomas in four MRI sequences",
        class_names=("background", "necrotic core", "oedema", "enhancing tumour"),
        channel_names=MODALITIES,
        layout=_layout(year),
        home=f"https://www.med.upenn.edu/cbica/brats{year}",
        licence="the challenge's terms, for research, after registration",
        reference="menze2015",
        # A brain is some 170 mm long: 192 pixels of 1 mm hold it. The percentiles are of the brain, see `Recipe`.
        recipe=Recipe(size=192, intensity="percentiles", low=0.5, high=99.5),
        find=functools.partial(find, year=year),
        recognises=functools.partial(recognises, year=year),
        read=read_volumes,
        label_map={0: 0, 1: 1, 2: 2, 4: 3},
        regions={"ET": (3,), "TC": (1, 3), "WT": (1, 2, 3)},
    )


BRATS_2019, BRATS_2020 = _benchmark("2019"), _benchmark("2020")
