"""PROMISE12: the prostate in 50 labelled T2-weighted MRI scans of several centres.

FOLDER/CaseXX.mhd with CaseXX.raw, FOLDER/CaseXX_segmentation.mhd with its .raw; the three parts of the training set may
also lie in folders of their own. Labels 0 background, 1 prostate. Cases without any segmentation, as those for testing,
are not read.

Source: Litjens et al., Medical Image Analysis 18(2), 2014.
"""

from pathlib import Path

from nacl.data.benchmarks.layout import checked, matching, stem
from nacl.data.benchmarks.raw import Benchmark, RawCase
from nacl.data.benchmarks.volumes import read_volumes
from nacl.data.recipe import Recipe

LAYOUT = "CaseXX.mhd with CaseXX.raw\nCaseXX_segmentation.mhd with CaseXX_segmentation.raw"
ENDING = "_segmentation"


def find(folder: Path) -> list[RawCase]:
    """The cases of `folder` and of the folders in it; one of them that has no image is one that can't be read."""
    return checked(map(_case, _labels(folder)), folder, LAYOUT)


def recognises(folder: Path) -> bool:
    return bool(_labels(folder))


def _labels(folder: Path) -> list[Path]:
    pattern = f"Case[0-9][0-9]{ENDING}.mhd"
    return matching(folder, pattern, f"*/{pattern}")


def _case(label: Path) -> RawCase:
    name = stem(label).removesuffix(ENDING)
    return RawCase(name, name, (label.with_name(f"{name}.mhd"),), label)


BENCHMARK = Benchmark(
    name="promise12",
    title="PROMISE12, the prostate in T2-weighted MRI",
    class_names=("background", "prostate"),
    channel_names=("T2",),
    layout=LAYOUT,
    home="https://promise12.grand-challenge.org",
    licence="the challenge's terms, for research, with citation",
    reference="litjens2014",
    # The papers' crop. Pixels have 0.61 mm in the median; 160 of 0.625 mm see 100 mm, and no prostate is that wide.
    recipe=Recipe(spacing=0.625, size=160, intensity="percentiles", low=0.5, high=99.5),
    find=find,
    recognises=recognises,
    read=read_volumes,
)
