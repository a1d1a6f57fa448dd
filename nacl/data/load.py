"""From a name or a path to a data set."""

import functools
import hashlib
import shlex
from importlib import import_module
from pathlib import Path
from types import ModuleType

from nacl._checks import check_choice, check_integer, expectation
from nacl._files import real_path
from nacl.data import phantom
from nacl.data.benchmarks import acdc, recognise
from nacl.data.case import SPLITS, Dataset
from nacl.data.prepared.index import FILE, read_index
from nacl.data.prepared.store import fingerprint, is_prepared, open_dataset
from nacl.data.prepared.target import is_unfinished

PROJECT_ROOT = Path(__file__).resolve().parents[2]
EMBEDDED = {
    "phantom": "a cardiac-like short axis, drawn from a posterior that is known at every pixel",
    "brain": "the MNI152 brain's fluid, grey and white matter, drawn from a posterior that is known at every pixel",
}
GIVE = "Give a folder that `nacl data prepare` made, or one of the NACL authors with train/, valid/ and test/."


def resolve_data(data: str) -> str | Path:
    """`data` itself where it names an embedded data set, else the folder that it means.

    A relative path is looked for from the working directory, then from the project's root.

    Raises:
        FileNotFoundError: no such folder; the message says where it was looked for.
        ValueError: neither the name of an embedded data set nor a path.
    """
    if data in EMBEDDED:
        return data
    if not data.strip():
        raise ValueError(expectation("data", "to be the name of a data set or a path", repr(data)))
    if "/" not in data and "." not in data and not Path(data).exists() and not (PROJECT_ROOT / data).exists():
        check_choice("data", data, [*EMBEDDED, "a path to a folder"])
    tried = [real_path("data", data), PROJECT_ROOT / data]
    for path in tried:
        if path.is_dir():
            return path.resolve()
    places = " or ".join(dict.fromkeys(str(path) for path in tried))
    names = " or ".join(map(repr, EMBEDDED))
    raise FileNotFoundError(f"Expected `data` to be {names} or a folder, got {data!r} (no folder {places}). {GIVE}")


def dataset_name(data: str) -> str:
    """The short name of a data set, whatever path it is given by.

    Raises:
        FileNotFoundError, ValueError: as `load_dataset`, where the folder is not one that can be loaded.
    """
    source = resolve_data(data)
    if isinstance(source, str):
        return source
    return read_index(source).name if is_prepared(source) else _authors(source).NAME


def load_dataset(data: str, *, size: int) -> Dataset:
    """A data set at `size` x `size` pixels a slice; the cases of a prepared folder are read when they are asked for.

    Args:
        data: "phantom", "brain", a folder that `nacl data prepare` made, or one in the layout of the NACL authors (see
            `nacl.data.benchmarks.acdc`), which is read into memory.
        size: height and width of a slice in pixels.

    Raises:
        FileNotFoundError: no such folder, or nothing known in it.
        ValueError: a folder that must be prepared first; a file that can't be used. The message names it.
    """
    check_integer("size", size, low=1)
    source = resolve_data(data)
    if isinstance(source, str):
        return _embedded(source).generate(size)
    if is_prepared(source):
        return open_dataset(source, size)
    return _authors(source).read(source, size)


def dataset_fingerprint(data: str) -> str:
    """A hash of the content of a data set: of its cases, or of what its generator makes them from.

    The same data elsewhere, or under other dates, has the same fingerprint.
    """
    source = resolve_data(data)
    if isinstance(source, str):
        return _embedded(source).fingerprint()
    if is_prepared(source):
        return fingerprint(source)
    stats = ((file, file.stat()) for file in _authors(source).files(source))
    return _hash_of_files(source, tuple((file, stat.st_size, stat.st_mtime_ns) for file, stat in stats))


def _embedded(name: str) -> ModuleType:
    """The module of an embedded data set; the brain's reads the files of nilearn, so it is not loaded before."""
    return phantom if name == "phantom" else import_module("nacl.data.brain")


def _authors(folder: Path) -> ModuleType:
    """The module that reads the authors' layout, once `folder` has it as far as names tell."""
    if is_unfinished(folder):
        remedy = "Run the same `nacl data prepare` again; it goes on where it was"
        raise ValueError(
            expectation("data", "to be prepared to the end", str(folder), f"no whole {FILE} in it", remedy)
        )
    if not any(file for split in SPLITS for file in (folder / split).glob("*.h5")):
        name = recognise(folder)
        if name is not None:
            remedy = f"Prepare it first: nacl data prepare {name} {shlex.quote(str(folder))} TARGET"
            raise ValueError(expectation("data", "to be a prepared folder", folder, remedy=remedy))
        raise FileNotFoundError(f"Expected `data` with files train/*.h5, got none in {folder}. {GIVE}")
    return acdc


@functools.cache
def _hash_of_files(folder: Path, listing: tuple[tuple[Path, int, int], ...]) -> str:
    """Sizes and times are in `listing` only so that files that changed are read again within one process."""
    digest = hashlib.blake2b(digest_size=16)
    for file, _, _ in listing:
        digest.update(file.relative_to(folder).as_posix().encode() + b"\0")
        with file.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "blake2b").digest())
    return digest.hexdigest()
