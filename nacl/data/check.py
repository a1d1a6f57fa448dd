"""What a data set holds, case by case, whatever is broken in it."""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nacl._checks import expectation
from nacl._parallel import in_processes
from nacl.data.benchmarks.jobs import fitting_jobs
from nacl.data.benchmarks.raw import Benchmark, RawCase, Volume
from nacl.data.case import SPLITS, Case, Dataset, StoredCase, check_patients
from nacl.data.manifest import content_checksum, file_format, published, with_checksums
from nacl.data.names import shortened
from nacl.data.prepared.index import read_index
from nacl.data.prepared.store import verify
from nacl.data.prepared.target import differing_axes
from nacl.data.splits import assign_splits

THICK = 2.0  # sides of a voxel that differ by more than that factor in plane, or have slices closest, are doubtful
WIDEST = 20.0  # mm: a pixel of a scan of people has some 0.3 to 5


@dataclass(frozen=True)
class Finding:
    """A case that was read to its end, or why it could not be.

    Attributes:
        name, patient: as in `Case`.
        split: "train", "valid" or "test"; "" where it is left out of all three.
        shape: (M, D, H, W).
        spacing: size of a voxel along D, H, W, in `unit`.
        unit: "mm" or "px".
        axes: where x, y and z of the file point to, as in "RAS"; "" where that is not known.
        voxels: how many of each class.
        checksum: see `content_checksum`.
        problem: why it can't be used; "" where it can. What is above is empty then.
        warnings: what may be meant, and may not.
        plane: the first channel and the label of its slice with the most labelled pixels, (H, W) each.
    """

    name: str
    patient: str
    split: str
    shape: tuple[int, ...] = ()
    spacing: tuple[float, ...] = ()
    unit: str = ""
    axes: str = ""
    voxels: tuple[int, ...] = ()
    checksum: str = ""
    problem: str = ""
    warnings: tuple[str, ...] = ()
    plane: tuple[NDArray, NDArray] | None = field(default=None, repr=False, compare=False)


@dataclass(frozen=True)
class Verdict:
    """What holds of a data set as a whole.

    Attributes:
        problems: why it can't be trained on as it is.
        warnings: what may be meant, and may not.
    """

    problems: tuple[str, ...]
    warnings: tuple[str, ...]


def examine(
    benchmark: Benchmark, folder: Path, *, split_file: Path | None = None, jobs: int | None = None
) -> Iterator[Finding]:
    """A finding for each case of a folder, in the order in which they are read; none ends the others.

    Args:
        benchmark: whose layout the folder has.
        folder: only read.
        split_file: see `assign_splits`.
        jobs: processes; by default as many as `fitting_jobs` allows.

    Raises:
        ValueError, OSError: there are no cases, or `split_file` is not one for them.
    """
    raw = benchmark.find(folder)
    try:
        splits = assign_splits(raw, benchmark.name, split_file=split_file)
    except ValueError:
        if split_file is not None:
            raise
        # the folder has a patient in two splits; `judge` says so once the rest is read
        splits = {case.name: case.split for case in raw if case.split}
    jobs = fitting_jobs(raw) if jobs is None else jobs
    tasks = [(case, splits.get(case.name, ""), benchmark) for case in raw]
    for (case, split, _), result in in_processes(_examine_raw, tasks, jobs, "reading"):
        if isinstance(result, Exception):
            result = Finding(case.name, case.patient, split, problem=_reason(result, case))
        yield result


def examine_dataset(dataset: Dataset) -> Iterator[Finding]:
    """A finding for each case of a data set that `load_dataset` gives; none ends the others."""
    for entry in dataset.cases.entries:
        try:
            case = entry.read(slice(None)) if isinstance(entry, StoredCase) else entry
            yield _found_in(case, dataset.unit, dataset.num_classes)
        except Exception as error:  # what a broken file raises is up to its library
            yield Finding(entry.name, entry.patient, entry.split, problem=str(error) or type(error).__name__)


def examine_prepared(folder: Path) -> Iterator[Finding]:
    """A finding for each case of a folder that `nacl data prepare` made; none ends the others.

    Raises:
        ValueError, OSError: there is something wrong in the folder's index.
    """
    index = read_index(folder)
    for entry, case, problem in verify(folder):
        if case is None:
            yield Finding(entry.name, entry.patient, entry.split, problem=problem)
        else:
            yield _found_in(case, index.unit, len(index.class_names))


def judge(findings: Sequence[Finding], class_names: Sequence[str]) -> Verdict:
    """What the cases say together: splits without a case, one volume under two names, classes that are nowhere."""
    problems, warnings = [], []
    usable = [finding for finding in findings if not finding.problem]
    empty = [split for split in SPLITS if not any(finding.split == split for finding in usable)]
    if empty:
        needs = ", ".join(SPLITS)
        problems.append(f"no case that can be used is for {' or '.join(empty)}, and training needs all of {needs}")
    try:
        check_patients(((finding.patient, finding.split) for finding in findings if finding.split), "all cases")
    except ValueError as error:
        problems.append(str(error))
    problems += _twins(usable, crossing=True)
    warnings += _twins(usable, crossing=False)
    warnings += _absent(usable, class_names)
    warnings += differing_axes({finding.name: finding.axes for finding in usable})
    left_out = [finding.name for finding in findings if not finding.split]
    if left_out:
        warnings.append(f"{_cases(len(left_out))} left out, in none of the splits: {shortened(left_out)}")
    return Verdict(tuple(problems), tuple(warnings))


def compare(findings: Sequence[Finding], name: str, of: str, *, split_file: Path | None = None) -> tuple[str, ...]:
    """What differs from the published manifest of a benchmark: cases that are not there, and other contents.

    Args:
        findings: of a copy of the benchmark.
        name: of the benchmark.
        of: the format of the copy's files, see `file_format`. Where the manifest's checksums are of another format,
            only patients are compared: names of cases may differ between formats too.
        split_file: a manifest to compare with instead, where it has checksums of the copy's format.

    Raises:
        ValueError: a line of `split_file` can't be one of a manifest.
    """
    own = with_checksums(split_file, of) if split_file is not None else None
    manifest = own or published(name)
    if manifest is None:
        return ()
    listed = "the published split" if own is None else str(split_file)
    comparable = manifest.checksums_of in ("", of)
    entries = [entry for entry in manifest.entries if entry.split]
    expected = {(entry.case if comparable else entry.patient) for entry in entries}
    kind = "cases" if comparable else "patients"
    found = {(finding.name if comparable else finding.patient) for finding in findings}
    if not expected & found:
        return (f"nothing of the {len(expected)} {kind} of {listed} is here",)
    notes = []
    missing = sorted(expected - found)
    if missing:
        notes.append(f"{len(missing)} of the {len(expected)} {kind} of {listed} are not here: {shortened(missing)}")
    checksums = {entry.case: entry.checksum for entry in entries} if comparable else {}
    known = [finding for finding in findings if finding.checksum and checksums.get(finding.name)]
    other = sorted(finding.name for finding in known if finding.checksum != checksums[finding.name])
    if other:
        theirs = "the published one" if own is None else f"in {listed}"
        notes.append(f"{_cases(len(other))} with another content than {theirs}: {shortened(other)}")
    if not notes:
        theirs = "the published content" if own is None else "the content that it tells of"
        content = f", with {theirs}" if len(known) == len(expected) else ""
        notes.append(f"all {len(expected)} {kind} of {listed} are here{content}")
    return tuple(notes)


def format_of(benchmark: Benchmark, folder: Path) -> str:
    """The format of a folder's files, see `file_format`."""
    return file_format(benchmark.find(folder)[0])


def _examine_raw(task: tuple[RawCase, str, Benchmark]) -> Finding:
    raw, split, benchmark = task
    return _found(raw.name, raw.patient, split, benchmark.read(raw, benchmark), len(benchmark.class_names))


def _found_in(case: Case, unit: str, num_classes: int) -> Finding:
    volume = Volume(case.image, case.label, case.spacing, unit)
    return _found(case.name, case.patient, case.split, volume, num_classes)


def _found(name: str, patient: str, split: str, volume: Volume, num_classes: int) -> Finding:
    label = volume.label
    if label.max() >= num_classes:
        raise ValueError(expectation("label", f"with classes below {num_classes}", label.max(), f"case {name}"))
    counts = np.zeros((len(label), num_classes), np.int64)
    for plane, count in zip(label, counts, strict=True):  # bincount makes int64 of all that it is given
        count += np.bincount(plane.ravel(), minlength=num_classes)
    best = int(counts[:, 1:].sum(axis=1).argmax()) if counts[:, 1:].any() else len(label) // 2
    return Finding(
        name,
        patient,
        split,
        tuple(volume.image.shape),
        tuple(map(float, volume.spacing)),
        volume.unit,
        volume.axes,
        tuple(counts.sum(axis=0).tolist()),
        content_checksum(volume.image, label),
        warnings=tuple(_oddities(volume, counts)),
        plane=(np.array(volume.image[0, best], np.float32), label[best].copy()),
    )


def _oddities(volume: Volume, counts: NDArray[np.int64]) -> Iterator[str]:
    if not counts[:, 1:].any():
        yield "the label is background everywhere"
    if len(volume.label) == 1:
        yield "it is a single slice: a prior over the volume has no neighbours above and below"
    for k, channel in enumerate(volume.image):
        if channel.min() == channel.max():
            yield f"channel {k} of the image is {channel.flat[0]} everywhere"
    yield from _odd_spacings(tuple(map(float, volume.spacing)), volume.unit)


def _odd_spacings(spacing: tuple[float, ...], unit: str) -> Iterator[str]:
    across, *in_plane = spacing
    if max(in_plane) > THICK * min(in_plane):
        yield f"a side of its pixels is over {THICK:g} times the other: are its slices those of the scanner?"
    if THICK * across < min(in_plane):
        yield f"its slices lie over {THICK:g} times closer than its pixels: are they cut across thick slices?"
    if unit == "mm" and max(in_plane) > WIDEST:
        yield f"its pixels are wider than {WIDEST:g} mm: is its spacing in another unit?"


def _reason(error: Exception, raw: RawCase) -> str:
    """The message, with the case's file where the message does not name one."""
    text = str(error) or type(error).__name__
    files = (*raw.images, raw.label)
    return text if any(str(file) in text for file in files) else f"{raw.images[0]}: {text}"


def _twins(findings: Sequence[Finding], *, crossing: bool) -> list[str]:
    """Cases of one content; `crossing` takes those in two splits, else the others."""
    by_content = sorted(findings, key=lambda finding: (finding.checksum, finding.name))
    texts = []
    for _, group in itertools.groupby(by_content, key=lambda finding: finding.checksum):
        twins = list(group)
        splits = {finding.split for finding in twins}
        if len(twins) > 1 and (len(splits - {""}) > 1) == crossing:
            where = f", in {' and '.join(sorted(splits - {''}))}" if crossing else ""
            texts.append(f"{shortened([finding.name for finding in twins])} hold the same volume{where}")
    return texts


def _absent(findings: Sequence[Finding], class_names: Sequence[str]) -> list[str]:
    texts: dict[str, str] = {}
    for splits, place in ((("train",), "no case of train"), (("", *SPLITS), "no case")):
        counts = [finding.voxels for finding in findings if finding.split in splits]
        if counts:
            seen = zip(class_names, np.sum(counts, axis=0), strict=True)
            texts |= {name: f"the class {name!r} is in {place}" for name, count in seen if not count}
    return list(texts.values())


def _cases(count: int) -> str:
    return f"{count} case{'s are' if count != 1 else ' is'}"
