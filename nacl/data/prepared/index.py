"""dataset.json of a prepared folder: what it holds, believed in nothing that is not checked."""

import json
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import NoReturn

from nacl._checks import expectation
from nacl._files import write_text
from nacl.data.case import SPLITS, check_patients, check_regions
from nacl.data.names import NAME_RULE, is_name
from nacl.data.names import TABLE as FILE

FORMAT, VERSION = "nacl data set", 1
MOST_BYTES = 2**28  # of dataset.json: over half a million cases
MOST_CASE_BYTES = 2**40  # of a case's file
LZF_RATIO = 88  # 264 bytes in 3 at best, which bounds what a compressed file can hold
MOST_CLASSES = 256  # labels are uint8
LONGEST_TEXT, LONGEST_SHOWN = 1000, 80
PREPARE_AGAIN = "Prepare the data set again, with `nacl data prepare`"


@dataclass(frozen=True)
class Entry:
    """A case of a prepared folder.

    Attributes:
        name, split, patient: as in `Case`.
        file: within the folder, always SPLIT/NAME.h5.
        slices: D.
        shape: of the image, (M, D, H, W).
        spacing: size of a voxel along D, H, W.
        bytes: size of the file.
        checksum: of the content, see `nacl.data.prepared.casefile.checksum`.
    """

    name: str
    split: str
    patient: str
    file: str
    slices: int
    shape: tuple[int, int, int, int]
    spacing: tuple[float, float, float]
    bytes: int
    checksum: str


@dataclass(frozen=True)
class Index:
    """What a prepared folder holds; see `nacl.data.Dataset` for what is shared by its cases.

    Attributes:
        name, class_names, channel_names, unit, regions: of the data set.
        recipe: how it was prepared, field for field; empty where a user's own function made the cases.
        cases: in order of split and name.
    """

    name: str
    class_names: tuple[str, ...]
    channel_names: tuple[str, ...]
    unit: str
    cases: tuple[Entry, ...]
    regions: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    recipe: Mapping[str, object] = field(default_factory=dict)


def check_shared(
    name: str,
    class_names: tuple[str, ...],
    channel_names: tuple[str, ...],
    unit: str,
    regions: Mapping[str, Sequence[int]],
) -> None:
    """Raise ValueError unless an index can hold what the cases of a data set share."""
    given = {"name": name, "class_names": list(class_names), "channel_names": list(channel_names), "unit": unit}
    given["regions"] = {key: list(of) if isinstance(of, Iterable) else of for key, of in regions.items()}
    for key, value in given.items():
        rule, holds = OF_INDEX[key]
        if not holds(value):
            raise ValueError(expectation(key, rule, repr(value)))
    check_regions(regions, len(class_names))


def file_of(split: str, name: str) -> str:
    """Where the file of a case is within its folder."""
    return f"{split}/{name}.h5"


def has_index(folder: Path) -> bool:
    """Whether there is a dataset.json that this module wrote; nnU-Net and the Decathlon have others of that name."""
    try:
        stored = _stored(folder / FILE)
    except (ValueError, OSError):
        return False
    return isinstance(stored, dict) and stored.get("format") == FORMAT


def is_damaged(folder: Path) -> bool:
    """Whether there is a dataset.json that is no JSON, so that it does not tell whose it was."""
    try:
        _stored(folder / FILE)
    except (ValueError, OSError):
        return (folder / FILE).is_file()
    return False


def write_index(folder: Path, index: Index) -> None:
    """Write dataset.json, all or nothing; read back it is `index` again.

    Raises:
        ValueError: an index that could not be read back.
        OSError: it can't be written.
    """
    stored = {"format": FORMAT, "version": VERSION, **asdict(index)}
    text = json.dumps(stored, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    _index(json.loads(text), folder / FILE)
    write_text(folder / FILE, text)


def read_index(folder: Path) -> Index:
    """The checked content of FOLDER/dataset.json.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is of another format or version, or anything in it is not what it should be. The message names
            the file and the place in it.
    """
    file = folder / FILE
    try:
        stored = _stored(file)
    except FileNotFoundError:
        raise
    except (ValueError, OSError) as error:
        raise ValueError(expectation(str(file), "to be JSON", str(error), remedy=PREPARE_AGAIN)) from error
    return _index(stored, file)


def _stored(file: Path) -> object:
    """The JSON in a regular file, in any encoding of Unicode; ValueError where it holds none."""
    if file.exists() and not file.is_file():  # opening a pipe waits for who writes to it
        raise ValueError("no regular file")
    if file.stat().st_size > MOST_BYTES:
        raise ValueError(f"a file of over {MOST_BYTES} bytes")
    try:
        return json.loads(file.read_bytes())
    except RecursionError as error:
        raise ValueError("lists in lists without end") from error


def _is_text(value: object) -> bool:
    return isinstance(value, str) and 1 <= len(value) <= LONGEST_TEXT


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _is_size(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < math.inf


def _list_of(holds: Callable[[object], bool], *, length: int | None = None) -> Callable[[object], bool]:
    return lambda value: isinstance(value, list) and len(value) == (length or len(value)) and all(map(holds, value))


def _is_set_of_names(value: object) -> bool:
    return _list_of(_is_text)(value) and 1 <= len(value) == len(set(value)) <= MOST_CLASSES


def _is_regions(value: object) -> bool:
    classes = _list_of(lambda k: k == 0 or _is_count(k))
    return isinstance(value, dict) and all(_is_text(key) and classes(of) and of for key, of in value.items())


Rules = Mapping[str, tuple[str, Callable[[object], bool]]]
HEADER: Rules = {
    "format": (f"to be {FORMAT!r}", lambda value: value == FORMAT),
    "version": (f"to be {VERSION}, the one that this version of nacl reads", lambda value: value == VERSION),
}
OF_INDEX: Rules = {
    "name": (NAME_RULE, is_name),
    "class_names": ("to be a list of different texts", _is_set_of_names),
    "channel_names": ("to be a list of different texts", _is_set_of_names),
    "unit": ("to be 'mm' or 'px'", lambda value: value in ("mm", "px")),
    "regions": ("to be an object of lists of classes", _is_regions),
    "recipe": ("to be an object", lambda value: isinstance(value, dict)),
    "cases": ("to be a list of objects, one at least", lambda value: bool(value) and isinstance(value, list)),
}
OF_ENTRY: Rules = {
    "name": (NAME_RULE, is_name),
    "split": ("to be 'train', 'valid' or 'test'", lambda value: isinstance(value, str) and value in SPLITS),
    "patient": (f"to be a text of 1 to {LONGEST_TEXT} characters", _is_text),
    "file": ("to be a text", _is_text),
    "slices": ("to be an integer of at least 1", _is_count),
    "shape": ("to be a list of 4 integers of at least 1", _list_of(_is_count, length=4)),
    "spacing": ("to be a list of 3 finite numbers above 0", _list_of(_is_size, length=3)),
    "bytes": (f"to be an integer from 1 to {MOST_CASE_BYTES}", lambda n: _is_count(n) and n <= MOST_CASE_BYTES),
    "checksum": ("to be 64 hexadecimal digits", lambda value: isinstance(value, str) and _is_digest(value)),
}


def _is_digest(value: str) -> bool:
    return re.fullmatch(r"[0-9a-f]{64}", value) is not None


def _refuse(file: Path, place: str, rule: str, got: object) -> NoReturn:
    shown = got if isinstance(got, str) else repr(got)
    shown = shown if len(shown) <= LONGEST_SHOWN else f"{shown[:LONGEST_SHOWN]}..."
    raise ValueError(expectation(str(file), f"with {place} {rule}" if place else rule, shown, remedy=PREPARE_AGAIN))


def _follow(rules: Rules, stored: object, file: Path, place: str = "") -> dict[str, object]:
    """The values that `rules` name, in tuples where they are lists."""
    if not isinstance(stored, dict):
        _refuse(file, place, "to be an object", stored)
    for key, (rule, holds) in rules.items():
        if key not in stored:
            _refuse(file, place, f"to have the key {key!r}", sorted(stored))
        if not holds(stored[key]):
            _refuse(file, f"{place}.{key}".lstrip("."), rule, stored[key])
    return {key: tuple(stored[key]) if isinstance(stored[key], list) else stored[key] for key in rules}


def _index(stored: object, file: Path) -> Index:
    _follow(HEADER, stored, file)
    values = _follow(OF_INDEX, stored, file)
    classes, channels = len(values["class_names"]), len(values["channel_names"])
    cases = tuple(_entry(case, channels, file, f"cases[{i}]") for i, case in enumerate(values["cases"]))
    names = Counter(case.name for case in cases)
    if len(names) < len(cases):
        _refuse(file, "cases", "of different names", names.most_common(1)[0][0])
    check_patients(((case.patient, case.split) for case in cases), str(file))
    beyond = [name for name, of in values["regions"].items() if max(of) >= classes]
    if beyond:
        _refuse(file, f"regions.{beyond[0]}", f"of classes below {classes}", values["regions"][beyond[0]])
    regions = {name: tuple(of) for name, of in values["regions"].items()}
    return Index(**{**values, "cases": cases, "regions": regions})


def _entry(stored: object, channels: int, file: Path, place: str) -> Entry:
    case = Entry(**_follow(OF_ENTRY, stored, file, place))
    if case.file != file_of(case.split, case.name):  # so that no path can leave the folder
        _refuse(file, f"{place}.file", f"to be {file_of(case.split, case.name)!r}", repr(case.file))
    if case.shape[:2] != (channels, case.slices):
        _refuse(file, f"{place}.shape", f"to begin with {channels} channels and {case.slices} slices", case.shape)
    if 4 * math.prod(case.shape) > LZF_RATIO * case.bytes:  # float32; or memory would be asked for what is nowhere
        _refuse(file, f"{place}.shape", f"of voxels that a file of {case.bytes} bytes can hold", case.shape)
    return case
