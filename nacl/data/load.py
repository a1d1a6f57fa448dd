"""From a name or a path to a data set."""

import functools
import hashlib
from pathlib import Path

from nacl._checks import check_choice, check_integer, expectation
from nacl.data import acdc, phantom
from nacl.data.case import Dataset

PROJECT_ROOT = Path(__file__).resolve().parents[2]
EMBEDDED = ("phantom",)


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
    tried = [Path(data).expanduser().absolute(), PROJECT_ROOT / data]
    for path in tried:
        if path.is_dir():
            return path.resolve()
    places = " or ".join(dict.fromkeys(str(path) for path in tried))
    raise FileNotFoundError(
        f"Expected `data` to be {' or '.join(map(repr, EMBEDDED))} or a folder, got {data!r} (no folder {places}). "
        "Give the folder that holds train/, valid/ and test/."
    )


def dataset_name(data: str) -> str:
    """The short name of a data set, whatever path it is given by."""
    source = resolve_data(data)
    return source if isinstance(source, str) else acdc.NAME


def load_dataset(data: str, *, size: int) -> Dataset:
    """All cases of a data set, at `size` x `size` pixels a slice, in memory.

    Args:
        data: "phantom", or a folder in the layout of the NACL authors (see `nacl.data.acdc`).
        size: height and width of a slice in pixels.

    Raises:
        FileNotFoundError: no such folder.
        ValueError: a file that can't be used; the message names it.
    """
    check_integer("size", size, low=1)
    source = resolve_data(data)
    return phantom.generate(size) if source == "phantom" else acdc.read(source, size)


def dataset_fingerprint(data: str) -> str:
    """A hash of the content of a data set: of the bytes and names of its files, or of the generator's parameters.

    The same data elsewhere, or under other dates, has the same fingerprint.
    """
    source = resolve_data(data)
    if source == "phantom":
        return hashlib.blake2b(repr(phantom.PARAMETERS).encode(), digest_size=16).hexdigest()
    stats = ((file, file.stat()) for file in acdc.files(source))
    return _hash_of_files(source, tuple((file, stat.st_size, stat.st_mtime_ns) for file, stat in stats))


@functools.cache
def _hash_of_files(folder: Path, listing: tuple[tuple[Path, int, int], ...]) -> str:
    """Sizes and times are in `listing` only so that files that changed are read again within one process."""
    digest = hashlib.blake2b(digest_size=16)
    for file, _, _ in listing:
        digest.update(file.relative_to(folder).as_posix().encode() + b"\0")
        with file.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "blake2b").digest())
    return digest.hexdigest()
