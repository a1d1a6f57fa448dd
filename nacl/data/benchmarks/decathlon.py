"""Two tasks of the Medical Segmentation Decathlon: Hippocampus (Task04) and Prostate (Task05).

FOLDER/dataset.json lists pairs imagesTr/NAME_XXX.nii.gz and labelsTr/NAME_XXX.nii.gz under "training"; images under
"test" have no labels and are not read. Hippocampus: MRI of 260 cases, cut out around the hippocampus, about
35 x 50 x 35 voxels of 1 mm; labels 0 background, 1 anterior, 2 posterior. Prostate: 32 cases, T2 and ADC as channels
of one file; labels 0 background, 1 peripheral zone, 2 transition zone.

Source: Antonelli et al., Nature Communications 13, 2022.
"""

import functools
from pathlib import Path

from nacl._checks import expectation
from nacl.data.benchmarks.layout import checked, matching, read_table, stem
from nacl.data.benchmarks.raw import Benchmark, RawCase
from nacl.data.benchmarks.volumes import read_volumes
from nacl.data.names import TABLE
from nacl.data.recipe import Recipe


def find(folder: Path, *, task: str) -> list[RawCase]:
    """The cases that FOLDER/dataset.json lists, or that of the only Task folder in FOLDER.

    Raises:
        ValueError: no list of pairs of names; a name that leads out of the folder, as an absolute one, by ".." or by a
            link.
    """
    root = _root(folder, task)
    facts = read_table(root / TABLE)
    entries = facts.get("training")
    if not isinstance(entries, list):
        raise ValueError(expectation(str(root / TABLE), 'with a list "training"', type(entries).__name__))
    return checked((_case(root, position, entry) for position, entry in enumerate(entries)), root, _layout(task))


def recognises(folder: Path, *, task: str) -> bool:
    root = _root(folder, task)
    images = matching(root / "imagesTr", f"{task}_[0-9][0-9].nii.gz", f"{task}_[0-9][0-9][0-9].nii.gz")
    return bool(images) and (root / TABLE).is_file()


def _root(folder: Path, task: str) -> Path:
    inner = matching(folder, f"Task[0-9][0-9]_{task.title()}")
    return inner[0] if len(inner) == 1 and not (folder / TABLE).exists() else folder


def _case(root: Path, position: int, entry: object) -> RawCase:
    if not isinstance(entry, dict) or not all(isinstance(entry.get(key), str) for key in ("image", "label")):
        rule = f'with names of an image and a label in "training", entry {position}'
        raise ValueError(expectation(str(root / TABLE), rule, repr(entry)[:100]))
    image, label = (_inside(root, position, entry[key]) for key in ("image", "label"))
    return RawCase(stem(image), stem(image), (image,), label)


def _inside(root: Path, position: int, name: str) -> Path:
    place = root / name
    try:
        inside = not Path(name).is_absolute() and ".." not in Path(name).parts
        inside = inside and place.resolve().is_relative_to(root.resolve())
    except (OSError, RuntimeError, ValueError):  # a loop of links, or a NUL byte
        inside = False
    if not inside:
        rule = f'with names inside its folder in "training", entry {position}'
        raise ValueError(expectation(str(root / TABLE), rule, repr(name)[:100], remedy="Copy the file into the folder"))
    return place


def _layout(task: str) -> str:
    return f"dataset.json\nimagesTr/{task}_XXX.nii.gz\nlabelsTr/{task}_XXX.nii.gz"


def _benchmark(task: str, title: str, classes: tuple[str, ...], channels: tuple[str, ...], recipe: Recipe) -> Benchmark:
    return Benchmark(
        name=task,
        title=title,
        class_names=("background", *classes),
        channel_names=channels,
        layout=_layout(task),
        home="http://medicaldecathlon.com",
        licence="CC BY-SA 4.0",
        reference="antonelli2022",
        recipe=recipe,
        find=functools.partial(find, task=task),
        recognises=functools.partial(recognises, task=task),
        read=read_volumes,
    )


HIPPOCAMPUS = _benchmark(
    "hippocampus",
    "Hippocampus of the Medical Segmentation Decathlon",
    ("anterior", "posterior"),
    ("MRI",),
    Recipe(size=64, intensity="percentiles", low=0.5, high=99.5),  # the least multiple of 32 that holds 50 voxels
)
PROSTATE = _benchmark(
    "prostate",
    "Prostate of the Medical Segmentation Decathlon",
    ("peripheral zone", "transition zone"),
    ("T2", "ADC"),
    # The papers' crop. Pixels have 0.62 mm in the median; 160 of 0.625 mm see 100 mm, and no prostate is that wide.
    Recipe(spacing=0.625, size=160, intensity="percentiles", low=0.5, high=99.5),
)
