"""The data sets as people have them: a reader for each, and which of them a folder is for.

The readers are `acdc` (the authors' HDF5), `acdc_nifti`, `flare`, `brats`, `mrbrains`, `promise`, `decathlon`, and
`folder` for a user's own pairs. They share what a reader tells (`raw`), finding files (`layout`), reading them
(`volumes`, by `nifti` and `metaimage`, as `stored`), what a dataset.json names (`tables`), and how many processes may
read at once (`jobs`).
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from nacl._checks import check_choice, expectation
from nacl.data.benchmarks import acdc, acdc_nifti, brats, decathlon, flare, mrbrains, promise
from nacl.data.benchmarks import folder as own
from nacl.data.benchmarks.raw import Benchmark

READERS = (
    acdc_nifti.BENCHMARK,
    acdc.BENCHMARK,
    flare.BENCHMARK,
    brats.BRATS_2019,
    brats.BRATS_2020,
    mrbrains.BENCHMARK,
    promise.BENCHMARK,
    decathlon.HIPPOCAMPUS,
    decathlon.PROSTATE,
)
BENCHMARKS: dict[str, Benchmark] = {reader.name: reader for reader in READERS if reader is not acdc.BENCHMARK}
OWN = "folder"


def recognise(folder: Path) -> str | None:
    """The name of the data set whose layout a folder has, by names of files alone; None where none is known.

    The name is a key of `BENCHMARKS`, or "folder" for a user's own pairs.

    Raises:
        ValueError: the folder has the layouts of several.
    """
    found = [reader for reader in READERS if reader.recognises(folder)]
    if len(found) > 1:
        names = " and ".join(reader.layout.splitlines()[0] for reader in found)
        remedy = "Give the folder of one of them"
        raise ValueError(expectation(str(folder), "with the files of one data set", names, remedy=remedy))
    if found:
        return found[0].name
    return OWN if own.recognises(folder) else None


def detect(folder: Path) -> Benchmark | None:
    """The reader of the data set whose layout a folder has, see `recognise`; None where it has none that is known.

    For a benchmark, names of files tell all. A user's own pairs have dataset.json read, where there is one, the header
    of an image, and, where no table names the classes, all labels.

    Raises:
        ValueError: the folder has the layouts of several; or it is a user's own, but a bad one.
    """
    name = recognise(folder)
    return None if name is None else benchmark_of(name, folder)


def name_of(benchmark: Benchmark) -> str:
    """What `benchmark_of` and the terminal call a reader: "folder" for a user's own, whose name is its folder's."""
    return benchmark.name if benchmark.name in BENCHMARKS else OWN


def benchmark_of(
    name: str, folder: Path, *, class_names: Sequence[str] | None = None, patient: str | None = None
) -> Benchmark:
    """The reader of the benchmark `name` that fits the files of a folder.

    Args:
        name: a key of `BENCHMARKS`, or "folder" for a user's own pairs.
        folder: where its files are; ACDC is read in two layouts, and a user's own tells its classes and channels.
        class_names, patient: of a user's own, see `nacl.data.benchmarks.folder.benchmark`.

    Raises:
        ValueError: unknown name; `class_names` or `patient` of a benchmark; a user's own folder that is a bad one.
    """
    check_choice("name", name, [*BENCHMARKS, OWN])
    if name == OWN:
        reader = own.benchmark(folder, class_names=class_names, patient=patient)
        # a benchmark's name would be given the split that was published for it
        return replace(reader, name=f"{reader.name}-own") if reader.name.lower() in BENCHMARKS else reader
    for argument, value in {"class_names": class_names, "patient": patient}.items():
        if value is not None:
            raise ValueError(expectation(argument, 'only with "folder"', repr(value), f"name={name!r}"))
    of_name = [reader for reader in READERS if reader.name == name]
    return next((reader for reader in of_name if reader.recognises(folder)), of_name[0])
