"""The folder that is prepared into.

One process at a time writes to it, its index comes last, and no file in it that another program wrote is lost.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nacl._checks import expectation
from nacl.data.case import SPLITS, Case
from nacl.data.names import SHOWN, shortened
from nacl.data.prepared.casefile import FORMAT, CaseFile, checksum, read_file, stored_format, write_case
from nacl.data.prepared.index import FILE, Entry, Index, file_of, has_index, is_damaged, write_index

LOCK = ".lock"
SIGNATURE = b"\x89HDF\r\n\x1a\n"  # of HDF5, at the start of the file


@dataclass(frozen=True)
class Report:
    """What became of a prepare.

    Attributes:
        folder: TARGET.
        cases: names of those that were made.
        skipped: names of those that were there already, whole and made from the same bytes by the same code.
        problems: of each case that could not be made, by its name, why.
        warnings: what a user should look at, a line each.
        is_complete: whether the index was written, so that the folder can be used.
    """

    folder: Path
    cases: tuple[str, ...]
    skipped: tuple[str, ...] = ()
    problems: Mapping[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    is_complete: bool = True


@dataclass(frozen=True)
class Made:
    """A case that lies in its file; `found` is what `warnings_of` looks at: labelled voxels, share of them lost, ..."""

    entry: Entry
    found: Mapping[str, object]
    is_new: bool = True


@contextmanager
def opened_target(target: Path) -> Iterator[None]:
    """The right to write to `target`, which is made if need be; what a killed process left half written is removed.

    An index that is there stays until a file that it may name is replaced: from then on it is no prepared folder, until
    its index is written again.

    Raises:
        ValueError: `target` has a dataset.json of another program.
        BlockingIOError: another process has the right.
        OSError: the folder can't be made.
    """
    from filelock import FileLock, Timeout  # `import nacl` does not wait for it

    is_ours = has_index(target) or (is_damaged(target) and is_unfinished(target))
    if (target / FILE).exists() and not is_ours:
        remedy = "Give an empty folder"
        raise ValueError(
            expectation(str(target / FILE), "of a prepared data set", "that of another program", "", remedy)
        )
    target.mkdir(parents=True, exist_ok=True)
    lock = FileLock(target / LOCK)
    try:
        lock.acquire(blocking=False)
    except Timeout as error:
        remedy = "Wait for its end, or give another folder"
        message = expectation("target", "free", f"{target}, which another process prepares", remedy=remedy)
        raise BlockingIOError(message) from error
    try:
        for folder in (target, *(target / split for split in SPLITS)):
            for leftover in folder.glob(".writing-*"):
                leftover.unlink()
        yield
    finally:
        lock.release()


def is_unfinished(folder: Path) -> bool:
    """Whether `folder` was prepared, but not to its end."""
    formats = (stored_format(file) for split in SPLITS for file in (folder / split).glob("*.h5"))
    return not has_index(folder) and next((told for told in formats if told is not None), None) == FORMAT


def check_free(file: Path) -> None:
    """Raise ValueError where `file` is in the way and not a prepared case, or what a broken disk left of one."""
    if not file.exists():
        return
    got = ""
    if not file.is_file():
        got = "no regular file"
    elif file.stat().st_size and not _is_signed(file):
        got = "a file that is no HDF5"
    elif stored_format(file) not in (FORMAT, None):
        got = "another HDF5 file"
    if got:
        remedy = "Give an empty folder, or move the file away"
        raise ValueError(expectation(str(file), "to be a prepared case", got, remedy=remedy))


def _is_signed(file: Path) -> bool:
    with file.open("rb") as stream:
        return stream.read(len(SIGNATURE)) == SIGNATURE


def whole_case(file: Path) -> CaseFile | None:
    """What an earlier prepare wrote to `file`; None where that is not there, or damaged."""
    try:
        stored = read_file(file)
    except ValueError:
        return None
    return stored if stored.checksum == checksum(stored.case) else None


def put_case(target: Path, case: Case, origin: Mapping[str, object], found: Mapping[str, object]) -> Made:
    """Write a case to its place in `target`; where a file is replaced, the index that may name it goes first.

    Args:
        target: folder that is prepared into.
        case: in the dtypes that are stored.
        origin: all that decides what the case becomes.
        found: see `Made`.
    """
    file = target / file_of(case.split, case.name)
    if file.exists():
        (target / FILE).unlink(missing_ok=True)
    digest = write_case(file, case, {"origin": origin, "found": found})
    return Made(entry_of(target, case, digest), found)


def entry_of(target: Path, case: Case, digest: str) -> Entry:
    """What the index says of a case that lies in its place in `target`."""
    file = file_of(case.split, case.name)
    size = (target / file).stat().st_size
    shape, spacing = case.image.shape, tuple(map(float, case.spacing))
    return Entry(case.name, case.split, case.patient, file, shape[1], shape, spacing, size, digest)


def finish(
    target: Path,
    made: Sequence[Made],
    name: str,
    class_names: tuple[str, ...],
    channel_names: tuple[str, ...],
    unit: str,
    regions: Mapping[str, Sequence[int]],
    recipe: Mapping[str, object],
) -> None:
    """Write the index of the cases `made`, after which `target` is a prepared folder."""
    entries = sorted((case.entry for case in made), key=lambda entry: (SPLITS.index(entry.split), entry.name))
    regions = {region: tuple(classes) for region, classes in regions.items()}
    write_index(target, Index(name, class_names, channel_names, unit, tuple(entries), regions, dict(recipe)))


def warnings_of(target: Path, made: Sequence[Made], wanted: Collection[str]) -> tuple[str, ...]:
    """What a user should look at: in the cases, and in `target` beside the files `wanted`, paths within it."""
    of_cases = [line for case in made for line in _of_case(case)]
    axes_of = {case.entry.name: str(case.found.get("axes") or "") for case in made}
    return (*of_cases, *_of_empty_splits(made), *differing_axes(axes_of), *_of_stale_files(target, wanted))


def _of_case(case: Made) -> Iterator[str]:
    name, lost = case.entry.name, case.found.get("lost", 0)
    if not case.found["labelled"]:
        yield f"{name}: no voxel has a label"
    if lost > 0:
        yield f"{name}: the crop cuts off {lost:.2%} of the labelled voxels"
    gone = case.found.get("gone", {})
    for k, voxels in list(gone.items())[:SHOWN]:
        yield f"{name}: class {k} has {voxels} {'voxel' if voxels == 1 else 'voxels'} in its file and none prepared"
    if len(gone) > SHOWN:
        yield f"{name}: {len(gone) - SHOWN} more classes have voxels in its file and none prepared"
    if case.entry.slices == 1:
        yield f"{name}: one slice only"
    for channel in case.found["flat"]:
        yield f"{name}: the prepared channel {channel} has one value only"


def _of_empty_splits(made: Sequence[Made]) -> Iterator[str]:
    empty = [split for split in SPLITS if not any(case.entry.split == split for case in made)]
    if empty:
        yield f"no case is for {' or '.join(empty)}: training needs all of train, valid and test"


def differing_axes(axes_of: Mapping[str, str]) -> Iterator[str]:
    """What to say where files point to different sides; `axes_of` has the axes of each case, "" where unknown."""
    names: dict[str, list[str]] = {}
    for name, axes in axes_of.items():
        names.setdefault(axes or "unknown", []).append(name)
    if len(names) > 1:
        counted = "; ".join(f"{axes} in {shortened(of)}" for axes, of in sorted(names.items()))
        remedy = "Turn them first, image and label alike, e.g. by nibabel.as_closest_canonical"
        yield f"the axes of the files point to different sides, and nothing is turned: {counted}. {remedy}"


def _of_stale_files(target: Path, wanted: Collection[str]) -> Iterator[str]:
    """Prepared cases that are no part of the data set any more; they are left alone."""
    files = (file for split in SPLITS for file in (target / split).glob("*.h5"))
    stale = {file.relative_to(target).as_posix() for file in files} - set(wanted)
    if stale:
        yield f"{len(stale)} files of an earlier prepare are no part of the data set, delete them: {shortened(stale)}"


def flat_channels(image: NDArray[np.float32], channel_names: Sequence[str]) -> list[str]:
    """The names of the channels of an image (M, D, H, W) that have one value only."""
    return [name for name, channel in zip(channel_names, image, strict=True) if channel.min() == channel.max()]
