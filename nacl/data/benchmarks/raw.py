"""What a reader tells of a benchmark: where its cases are, how they are read, what they are turned into."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from numpy.typing import NDArray

from nacl.data.recipe import Recipe


@dataclass(frozen=True)
class RawCase:
    """Where the files of a case are; nothing is read yet.

    Attributes:
        name: unique in its data set; see `nacl.data.names`, since it names a file.
        patient: whose volume it is.
        images: one file a channel, or one that holds them all.
        label: file of the labels.
        split: where the layout of the folder tells it; "" where that puts the case in none of the three.
    """

    name: str
    patient: str
    images: tuple[Path, ...]
    label: Path
    split: str | None = None


@dataclass(frozen=True)
class Volume:
    """The voxels of a case as its files have them, checked to lie on one grid.

    Attributes:
        image: (M, D, H, W), of any real dtype, finite.
        label: (D, H, W) uint8, in classes of the benchmark.
        spacing: size of a voxel along D, H, W.
        unit: of the spacing, "mm" or "px".
        axes: where x, y and z of the file point to, as in "RAS"; "" where the file does not tell.
    """

    image: NDArray
    label: NDArray
    spacing: tuple[float, float, float]
    unit: str = "mm"
    axes: str = ""


@dataclass(frozen=True)
class Benchmark:
    """A data set as people have it.

    Attributes:
        name: of the data set; what `nacl data prepare NAME` takes, but for a user's own, whose folder it is.
        title: its full name, in words.
        class_names: of the labels 0, 1, ... after `label_map`; 0 is the background.
        channel_names: of the image's channels.
        layout: what its folder looks like, a line a pattern.
        home: address of the page where it is got.
        licence: of the data, in words.
        reference: key of its paper in book/references.bib.
        recipe: how its cases are prepared.
        find: the cases of a folder.
        recognises: whether a folder has this layout, by names of files alone.
        read: a case's voxels.
        label_map: from stored labels to classes; others are errors. Without it a label is its class.
        regions: named unions of classes that overlap is measured on, see `Dataset`.
        ready: whether training reads the folder as it is, so that nothing need be prepared.
    """

    name: str
    title: str
    class_names: tuple[str, ...]
    channel_names: tuple[str, ...]
    layout: str
    home: str
    licence: str
    reference: str
    recipe: Recipe
    find: Callable[[Path], list[RawCase]]
    recognises: Callable[[Path], bool]
    read: Callable[[RawCase, "Benchmark"], Volume]
    label_map: Mapping[int, int] | None = None
    regions: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    ready: bool = False
