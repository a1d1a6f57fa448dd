"""FLARE 2021: liver, kidneys, spleen and pancreas in 361 labelled CT scans of the abdomen.

FOLDER/TrainingImg/train_XXX_0000.nii.gz in Hounsfield units, FOLDER/TrainingMask/train_XXX.nii.gz with the labels 0
background, 1 liver, 2 kidney, 3 spleen, 4 pancreas. The scans for validation have no labels and are not read.

Source: Ma et al., Medical Image Analysis 82, 2022.
"""

from pathlib import Path

from nacl.data.benchmarks.layout import checked, matching, pick, stem
from nacl.data.benchmarks.raw import Benchmark, RawCase
from nacl.data.benchmarks.volumes import read_volumes
from nacl.data.recipe import Recipe

LAYOUT = "TrainingImg/train_XXX_0000.nii.gz\nTrainingMask/train_XXX.nii.gz"


def find(folder: Path) -> list[RawCase]:
    """The cases of `folder`; a scan without a mask, or a mask without a scan, is one that can't be read."""
    scans = {stem(file).removesuffix("_0000") for file in _files(folder, "TrainingImg", "_0000")}
    masks = {stem(file) for file in _files(folder, "TrainingMask", "")}
    return checked((_case(folder, name) for name in scans | masks), folder, LAYOUT)


def recognises(folder: Path) -> bool:
    return bool(_files(folder, "TrainingImg", "_0000"))


def _files(folder: Path, part: str, ending: str) -> list[Path]:
    return matching(folder / part, f"train_[0-9][0-9][0-9]{ending}.nii*")


def _case(folder: Path, name: str) -> RawCase:
    image = pick(folder / "TrainingImg", f"{name}_0000")
    return RawCase(name, name, (image,), pick(folder / "TrainingMask", name))


BENCHMARK = Benchmark(
    name="flare",
    title="FLARE 2021, abdominal organs in CT",
    class_names=("background", "liver", "kidney", "spleen", "pancreas"),
    channel_names=("CT",),
    layout=LAYOUT,
    home="https://flare.grand-challenge.org",
    licence="the challenge's terms, for research; the scans come from the Decathlon (CC BY-SA 4.0) and NIH Pancreas-CT",
    reference="ma2022",
    # 192 pixels of 2 mm see 384 mm, about the width of a body on a table; the window of 400 HU around 40 HU is
    # radiology's for soft tissue of the abdomen.
    recipe=Recipe(spacing=2.0, size=192, intensity="window", low=-160, high=240),
    find=find,
    recognises=recognises,
    read=read_volumes,
)
