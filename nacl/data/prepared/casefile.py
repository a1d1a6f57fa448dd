"""One case in one HDF5 file, of which one slice is one read.

`image` (M, D, H, W) float32 in [0, 1], `label` (D, H, W) uint8 and, where it is known, `posterior` (C, D, H, W)
float32. Attributes: format, version, name, split, patient, spacing, the checksum of all that a case holds, and the
provenance as JSON. The same case gives the same bytes.
"""

import hashlib
import io
import json
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import numpy as np
from numpy.typing import NDArray

from nacl._checks import expectation
from nacl._files import whole_file
from nacl.data.case import SPLITS, Case

if TYPE_CHECKING:
    import h5py

FORMAT, VERSION = "nacl case", 1
DTYPES = {"image": np.dtype("f4"), "label": np.dtype("u1"), "posterior": np.dtype("f4")}
AXES = {"image": 4, "label": 3, "posterior": 4}
TEXTS = ("format", "name", "split", "patient", "checksum", "provenance")
# Measured on 30 volumes of ACDC at 192 x 192: as the authors store them (8 bits), and resampled to 224 x 224 (all bits
# of float32 in use). Size against none, and time to open the file and read one slice of it:
#   none              100 %  0.5 ms    100 %  0.4 ms
#   lzf                36 %  0.7 ms     70 %  0.8 ms
#   lzf, shuffled      56 %  0.8 ms     62 %  0.8 ms
#   gzip 1             24 %  0.7 ms     61 %  1.2 ms
#   gzip 1, shuffled   43 %  1.1 ms     58 %  1.1 ms
# A case is written once and read in every epoch, so the fastest that still saves much of the disk.
COMPRESSION = "lzf"
KEPT_OPEN = 200  # files; macOS allows a process 256


@dataclass(frozen=True)
class CaseFile:
    """What was read of a file.

    Attributes:
        case: with the slices that were asked for.
        checksum: of the whole case, as the file has it; nothing is compared.
        provenance: how the case was made.
        shape: of the whole image, (M, D, H, W).
    """

    case: Case
    checksum: str
    provenance: Mapping[str, object]
    shape: tuple[int, int, int, int]


def write_case(file: Path, case: Case, provenance: Mapping[str, object]) -> str:
    """Write a case, all or nothing; its checksum.

    Raises:
        OSError: the disk is full or the folder can't be written.
    """
    import h5py  # `import nacl` does not wait for it

    digest = checksum(case)
    origin = json.dumps(provenance, sort_keys=True, allow_nan=False)
    texts = (FORMAT, case.name, case.split, case.patient, digest, origin)
    content = io.BytesIO()  # not into the file: HDF5 keeps to itself why a write fails
    with h5py.File(content, "w") as stored:
        for key, array in _arrays(case).items():
            chunks = _one_slice(array.shape)
            stored.create_dataset(key, data=array, chunks=chunks, compression=COMPRESSION, fletcher32=True)
        stored.attrs.update({"version": VERSION, "spacing": np.array(case.spacing, np.float64)})
        # of fixed length: HDF5 can hang on a damaged heap, where it keeps texts of others
        stored.attrs.update({key: np.bytes_(text.encode()) for key, text in zip(TEXTS, texts, strict=True)})
    with whole_file(file) as temporary:
        temporary.write_bytes(content.getbuffer())
    return digest


def read_case(file: Path, planes: slice = slice(None)) -> Case:
    """A case, with only the slices `planes`; the others are not read.

    Raises:
        ValueError: a file that is missing, truncated, damaged, or no case of a prepared folder; the message names it.
    """
    return read_file(file, planes).case


def read_file(file: Path, planes: slice = slice(None)) -> CaseFile:
    """As `read_case`, with what else the file tells."""
    if not file.is_file():
        refuse(file, "to be a file", "something else" if file.exists() else "none")
    stat = file.stat()
    try:
        if planes == slice(None):
            with _open(file) as opened:
                arrays = opened.arrays(planes)
        else:  # one of many: opening and checking take longer than reading
            opened = _kept_open(file, stat.st_ino, stat.st_size, stat.st_mtime_ns)
            arrays = opened.arrays(planes)
    except _StrangeError as error:
        refuse(file, *error.args)
    except Exception as error:  # h5py raises errors of many kinds on corrupt files
        empty = stat.st_size == 0
        refuse(file, "to be a whole HDF5 file", "an empty file" if empty else f"an unreadable one: {error}")
    found = opened.found
    case = Case(found["name"], found["split"], spacing=found["spacing"], patient=found["patient"], **arrays)
    return CaseFile(case, found["checksum"], found["provenance"], opened.shape)


class _Opened:
    """A case's file, open, its attributes read and found in order."""

    def __init__(self, stored: "h5py.File") -> None:
        self.found = _attributes(stored)
        self.sets = _datasets(stored)
        self.shape = self.sets["image"].shape

    def arrays(self, planes: slice) -> dict[str, NDArray]:
        return {key: dataset[..., planes, :, :] for key, dataset in self.sets.items()}


@contextmanager
def _open(file: Path) -> Iterator[_Opened]:
    import h5py  # `import nacl` does not wait for it

    with h5py.File(file, "r", rdcc_nbytes=0) as stored:  # no cache: a chunk is a slice, and read at once
        yield _Opened(stored)


@lru_cache(KEPT_OPEN)
def _kept_open(file: Path, *_identity: int) -> _Opened:
    """A file that is closed when `KEPT_OPEN` others were read since; one that was replaced is opened anew."""
    import h5py

    stored = h5py.File(file, "r", rdcc_nbytes=0)
    try:
        return _Opened(stored)
    except BaseException:
        stored.close()
        raise


def checksum(case: Case) -> str:
    """A hash of all that a case holds: names, spacing, arrays with their shapes.

    Example:
        >>> empty = np.zeros((1, 2, 2), np.float32)
        >>> checksum(Case("a", "train", empty, empty.astype(np.uint8), (1, 1, 1)))[:8]
        '8248d138'
    """
    digest = hashlib.blake2b(digest_size=32)
    digest.update(json.dumps([case.name, case.split, case.patient, *map(float, case.spacing)]).encode())
    for key, array in _arrays(case).items():
        digest.update(f"{key} {array.shape}".encode())
        for part in array:
            digest.update(np.ascontiguousarray(part).data)
    return digest.hexdigest()


def stored_format(file: Path) -> str | None:
    """The format that an HDF5 file tells, "" where it tells none; None for what can't be read."""
    import h5py

    if not file.is_file():  # opening a pipe waits for who writes to it
        return None
    try:
        with h5py.File(file, "r") as stored:
            return _text(stored, "format") or ""
    except Exception:  # h5py raises errors of many kinds on corrupt files
        return None


def refuse(file: Path, rule: str, got: object, remedy: str = "Prepare the data set again") -> NoReturn:
    """Raise the ValueError of a file that is not what it should be."""
    raise ValueError(expectation(str(file), rule, got, remedy=remedy))


class _StrangeError(Exception):
    """A rule that a file breaks, and what it has instead."""


def _arrays(case: Case) -> dict[str, NDArray]:
    """In little-endian bytes, so that a checksum is the same on every machine."""
    found = {key: getattr(case, key) for key in DTYPES}
    return {key: np.asarray(x, DTYPES[key].newbyteorder("<")) for key, x in found.items() if x is not None}


def _one_slice(shape: tuple[int, ...]) -> tuple[int, ...]:
    return (*shape[:-3], 1, *shape[-2:])


def _attributes(stored: "h5py.File") -> dict[str, object]:
    found = {key: _text(stored, key) for key in TEXTS}
    told = {"format": (FORMAT, found["format"]), "version": (VERSION, stored.attrs.get("version"))}
    for key, (wanted, value) in told.items():
        if value != wanted:
            raise _StrangeError(f"with the {key} {wanted!r}", repr(value))
    for key, value in found.items():
        if not value:
            raise _StrangeError(f"with a text as its {key}", repr(stored.attrs.get(key)))
    if found["split"] not in SPLITS:
        raise _StrangeError(f"with a split among {', '.join(SPLITS)}", repr(found["split"]))
    spacing = np.asarray(stored.attrs.get("spacing"))
    if spacing.shape != (3,) or spacing.dtype != np.float64 or not ((spacing > 0) & (spacing < math.inf)).all():
        raise _StrangeError("with a spacing of three finite numbers above 0", repr(spacing))
    try:
        provenance = json.loads(found["provenance"])
    except ValueError as error:
        raise _StrangeError("with its provenance in JSON", str(error)) from error
    if not isinstance(provenance, dict):
        raise _StrangeError("with an object as its provenance in JSON", type(provenance).__name__)
    return {**found, "spacing": tuple(spacing.tolist()), "provenance": provenance}


def _text(stored: "h5py.File", key: str) -> str | None:
    if key not in stored.attrs or stored.attrs.get_id(key).dtype.kind != "S":
        return None
    value = stored.attrs[key]
    return value.decode() if isinstance(value, bytes) else None


def _datasets(stored: "h5py.File") -> "dict[str, h5py.Dataset]":
    import h5py

    found = {}
    for key in DTYPES:
        link = stored.get(key, getlink=True)
        if link is None and key == "posterior":
            continue
        if not isinstance(link, h5py.HardLink) or not isinstance(stored[key], h5py.Dataset):
            # a link of another kind may lead out of the file, and of the folder
            raise _StrangeError(f"with an array {key!r}", f"the keys {sorted(stored)}")
        array = found[key] = stored[key]
        if array.is_virtual or array.external:
            raise _StrangeError(f"with {key} in itself", "one in other files")
        if array.dtype != DTYPES[key] or array.ndim != AXES[key] or not array.size:
            rule = f"with {key} of {AXES[key]} axes and dtype {DTYPES[key]}"
            raise _StrangeError(rule, f"shape {array.shape} and dtype {array.dtype}")
        if array.shape[-3:] != found["image"].shape[-3:]:
            raise _StrangeError(f"with {key} on the grid of image", f"{array.shape} and {found['image'].shape}")
        # all that is read was written: a damaged shape could ask for more memory than there is
        if array.chunks != _one_slice(array.shape) or array.id.get_num_chunks() != array.shape[-3]:
            raise _StrangeError(f"with {key} whole, a slice in a chunk", f"chunks of {array.chunks}")
    return found
