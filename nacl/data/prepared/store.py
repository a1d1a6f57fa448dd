"""The prepared folder: dataset.json and {train,valid,test}/NAME.h5, one file a case."""

import hashlib
import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from nacl.data.case import Case, Dataset, StoredCase
from nacl.data.prepared.casefile import checksum, read_file, refuse
from nacl.data.prepared.index import FILE, Entry, Index, has_index, read_index
from nacl.data.slices import resize_case


def is_prepared(folder: Path) -> bool:
    """Whether `folder` is one that `nacl data prepare` wrote to the end."""
    return has_index(folder)


def open_dataset(folder: Path, size: int) -> Dataset:
    """The cases of a prepared folder at `size` x `size` pixels a slice, each read when it is asked for.

    Raises:
        FileNotFoundError: there is no dataset.json.
        ValueError: there is something wrong in it; for a case's file, when that is read.
    """
    index = read_index(folder)
    cases = []
    for entry in index.cases:
        read = partial(_read_resized, folder, index, entry, size)
        cases.append(StoredCase(entry.name, entry.split, entry.patient, entry.slices, read))
    return Dataset(index.name, index.class_names, cases, index.unit, index.channel_names, index.regions)


def fingerprint(folder: Path) -> str:
    """A hash of the content of a prepared folder, from its index; files must be there in the sizes that it names.

    Raises:
        FileNotFoundError: there is no dataset.json.
        ValueError: there is something wrong in it; a file is missing or of another size.
    """
    index = read_index(folder)
    for entry in index.cases:
        _check_size(folder, entry)
    shared = [index.name, index.class_names, index.channel_names, index.unit, sorted(index.regions.items())]
    cases = sorted((entry.name, entry.split, entry.patient, entry.checksum) for entry in index.cases)
    return hashlib.blake2b(json.dumps([shared, cases]).encode(), digest_size=16).hexdigest()


def verify(folder: Path) -> Iterator[tuple[Entry, Case | None, str]]:
    """Each entry with its case, or with None and what is wrong with its file; every voxel of every file is read.

    Raises:
        FileNotFoundError: there is no dataset.json.
        ValueError: there is something wrong in it.
    """
    index = read_index(folder)
    for entry in index.cases:
        try:
            _check_size(folder, entry)
            case = _read_entry(folder, index, entry, slice(None))
        except ValueError as error:
            yield entry, None, str(error)
        else:
            yield entry, case, ""


def _check_size(folder: Path, entry: Entry) -> None:
    file = folder / entry.file
    if not file.is_file():
        refuse(file, f"to be a file, as {FILE} says", "none")
    if file.stat().st_size != entry.bytes:
        refuse(file, f"of {entry.bytes} bytes, as {FILE} says", file.stat().st_size)


def _read_resized(folder: Path, index: Index, entry: Entry, size: int, planes: slice) -> Case:
    return resize_case(_read_entry(folder, index, entry, planes), size)


def _read_entry(folder: Path, index: Index, entry: Entry, planes: slice) -> Case:
    file = folder / entry.file
    found = read_file(file, planes)
    case = found.case
    told = {"name": case.name, "split": case.split, "patient": case.patient, "shape": found.shape}
    for key, value in {**told, "spacing": case.spacing, "checksum": found.checksum}.items():
        if value != getattr(entry, key):
            refuse(file, f"with the {key} that {FILE} names, {getattr(entry, key)}", value)
    every = range(entry.slices)
    if every[planes] == every:  # of slices alone, HDF5 has checksums: an accident is seen, an edit is not
        content = checksum(case)
        if content != entry.checksum:
            refuse(file, f"with content of the checksum {entry.checksum}, as {FILE} says", content)
    if case.label.size and case.label.max() >= len(index.class_names):
        refuse(file, f"with labels below {len(index.class_names)}", case.label.max())
    return case
