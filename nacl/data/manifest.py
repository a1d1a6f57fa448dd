"""Published splits: tables of names and checksums, with no voxel among them.

A manifest is a CSV file with the columns case, patient, split and checksum, after lines of notes that begin with "#".
One of the notes may say what the checksums are of, as in ``# checksums: nii``: files of the same cases in another
format hold other numbers, so they are not compared with them. A case with an empty split is left out of all three.
"""

import csv
import hashlib
import io
import re
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nacl._checks import check_choice, expectation
from nacl._files import write_text
from nacl.data.benchmarks.raw import RawCase
from nacl.data.case import SPLITS
from nacl.data.names import NAME_RULE, is_name

COLUMNS = ("case", "patient", "split", "checksum")
FOLDER = Path(__file__).parent / "manifests"
LARGEST = 1 << 24  # bytes; a line is some 70, and no data set has 200 000 cases
CHECKSUM = re.compile(r"[0-9a-f]{32}")
CHECKSUMS_OF = re.compile(r"checksums: (\w+)")


@dataclass(frozen=True)
class Entry:
    """A line of a manifest.

    Attributes:
        case, patient: their names.
        split: "train", "valid" or "test"; "" for a case that is left out.
        checksum: see `content_checksum`; "" where no copy of the data was at hand when it was written.
    """

    case: str
    patient: str
    split: str
    checksum: str = ""


@dataclass(frozen=True)
class Manifest:
    """A published split.

    Attributes:
        entries: a line a case.
        notes: what the split is and where it comes from, without the "#".
    """

    entries: tuple[Entry, ...]
    notes: tuple[str, ...] = ()

    @property
    def checksums_of(self) -> str:
        """The format of the files that the checksums are of, see `file_format`; "" where there are none."""
        found = [match[1] for match in map(CHECKSUMS_OF.match, self.notes) if match]
        return found[0] if found else ""


@dataclass(frozen=True)
class Row:
    """A line of a table: its file and number for messages, its values by column."""

    place: str
    values: dict[str, str]


def published(name: str) -> Manifest | None:
    """The manifest that this package holds of a benchmark, or None."""
    files = {file.stem: file for file in FOLDER.glob("*.csv")}
    return read_manifest(files[name]) if name in files else None


def read_manifest(file: Path) -> Manifest:
    """A manifest, once every line was found in order.

    Raises:
        ValueError: no such table; a name that could leave a folder; an unknown split; a case on two lines; a patient
            in two splits. The message names the file and the line.
        OSError: the file can't be read.
    """
    notes, rows = read_rows(file, COLUMNS)
    place_of_case: dict[str, str] = {}
    splits = OneSplit()
    for row in rows:
        case, patient = row.values["case"], row.values["patient"]
        for column, value in (("case", case), ("patient", patient)):
            if not is_name(value):
                remedy = f"A name is {NAME_RULE}"
                raise ValueError(expectation(row.place, f"with the name of a {column}", repr(value), remedy=remedy))
        if place_of_case.setdefault(case, row.place) != row.place:
            raise ValueError(expectation(row.place, "with a case of its own", case, f"also {place_of_case[case]}"))
        splits.add(patient, row)
        checksum = row.values["checksum"]
        if checksum and not CHECKSUM.fullmatch(checksum):
            raise ValueError(expectation(row.place, "with a checksum of 32 hexadecimal digits", repr(checksum)))
    return Manifest(tuple(Entry(**{name: row.values[name] for name in COLUMNS}) for row in rows), notes)


def with_checksums(file: Path, of: str) -> Manifest | None:
    """The manifest in a user's table, where that is one with checksums of files of the format `of`; else None."""
    notes, rows = read_rows(file, ())
    is_manifest = set(COLUMNS) <= set(rows[0].values) and any(row.values["checksum"] for row in rows)
    return read_manifest(file) if is_manifest and Manifest((), notes).checksums_of in ("", of) else None


def write_manifest(file: Path, manifest: Manifest) -> None:
    """Write a manifest, all or nothing; `read_manifest` gives it back."""
    text = io.StringIO()
    text.writelines(f"# {note}\n" for note in manifest.notes)
    table = csv.writer(text, lineterminator="\n")
    table.writerow(COLUMNS)
    table.writerows([getattr(entry, column) for column in COLUMNS] for entry in manifest.entries)
    write_text(file, text.getvalue())


def content_checksum(image: NDArray, label: NDArray) -> str:
    """A hash of a volume: blake2b, 16 bytes, of the text of its shape, its labels and its intensities in float32.

    It is of what the files say and not of the files: packed otherwise, the same volume has the same checksum.

    Args:
        image: (M, D, H, W), of any real dtype.
        label: (D, H, W), uint8.

    Example:
        >>> image, label = np.zeros((1, 2, 4, 4)), np.zeros((2, 4, 4), np.uint8)
        >>> content_checksum(image, label) == content_checksum(image.astype(np.int16), label)
        True
    """
    digest = hashlib.blake2b(repr(tuple(map(int, image.shape))).encode(), digest_size=16)
    digest.update(np.ascontiguousarray(label, np.uint8))
    for channel in image:
        for plane in channel:  # one at a time, so that no volume is copied
            digest.update(np.ascontiguousarray(plane, "<f4"))
    return digest.hexdigest()


def file_format(raw: RawCase) -> str:
    """The ending of a case's files: "nii" for .nii and .nii.gz, "h5", "mhd"."""
    endings = [ending for ending in raw.images[0].suffixes if ending != ".gz"]
    return endings[-1][1:].lower() if endings else ""


class OneSplit:
    """The split of each patient, as lines tell it, with the line that told it first."""

    def __init__(self) -> None:
        self.first: dict[str, Row] = {}

    def add(self, patient: str, row: Row) -> None:
        """Raise ValueError unless the split of `row` is empty, or one, and that of the patient's earlier lines."""
        split = row.values["split"]
        if not split:
            return
        check_choice(row.place, split, SPLITS)
        first = self.first.setdefault(patient, row)
        if first.values["split"] != split:
            got = f"{split!r}, and {first.values['split']!r} in {first.place}"
            remedy = "Move all volumes of a patient to one split"
            raise ValueError(expectation(row.place, f"with patient {patient} in one split", got, remedy=remedy))


def read_rows(file: Path, columns: Sequence[str]) -> tuple[tuple[str, ...], list[Row]]:
    """The notes and lines of a table whose header has these columns; commas, semicolons or tabs divide them.

    Raises:
        ValueError: empty, not text, or not such a table; the message names the file and the line.
    """
    lines = _text(file).split("\n")
    start = next((n for n, line in enumerate(lines) if line.strip() and not line.startswith("#")), len(lines))
    notes = tuple(line[1:].strip() for line in lines[:start] if line.startswith("#"))
    rule = f"to be a table with the columns {', '.join(columns)}"
    if start == len(lines):
        raise ValueError(expectation(str(file), rule, "no line of text"))
    table = csv.reader(lines[start:], delimiter=max(",;\t", key=lines[start].count), strict=True)
    rows, header = [], []
    try:
        for fields in table:
            values = [value.strip() for value in fields]
            place = f"{file}, line {start + table.line_num}"
            if not header:
                header = [value.lower() for value in values]
                if not set(columns) <= set(header) or len(set(header)) < len(header):
                    got = f"the columns {', '.join(header)[:200]}"
                    raise ValueError(expectation(str(file), rule, got, f"line {start + table.line_num}"))
            elif any(values):
                if len(values) != len(header):
                    raise ValueError(expectation(place, f"with {len(header)} values", len(values)))
                rows.append(Row(place, dict(zip(header, values, strict=True))))
    except csv.Error as error:
        raise ValueError(expectation(str(file), rule, f"{error} in line {start + table.line_num}")) from error
    if not rows:
        raise ValueError(expectation(str(file), "with a line for each case", "a header alone"))
    return notes, rows


def _text(file: Path) -> str:
    found = file.stat()
    if not stat.S_ISREG(found.st_mode):  # a device or a pipe may have no end
        raise ValueError(expectation(str(file), "to be a file", "a folder, a device or a pipe"))
    with file.open("rb") as stream:
        content = stream.read(LARGEST + 1)
    if len(content) > LARGEST:
        size = max(found.st_size, len(content))
        raise ValueError(expectation(str(file), "to be a table of names", f"a file of {size / 1e6:.0f} MB"))
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(
            expectation(str(file), "to be a table in UTF-8", f"byte {content[error.start]:#04x}")
        ) from error
    if "\0" in text:
        line = text[: text.index("\0")].count("\n") + 1
        raise ValueError(expectation(str(file), "to be a table of text", f"a NUL byte in line {line}"))
    return text.replace("\r\n", "\n").replace("\r", "\n")
