"""Finding files by their names."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

from nacl._checks import expectation
from nacl.data.benchmarks.raw import RawCase
from nacl.data.benchmarks.volumes import suffix_of
from nacl.data.names import NAME_RULE, is_name, shortened

NIFTI = (".nii.gz", ".nii")


def matching(folder: Path, *patterns: str) -> list[Path]:
    """The paths of `folder` that match one of the glob patterns, in order of their names; hidden ones are left out.

    (Where macOS unpacks, a hidden "._scan.nii.gz" of a few bytes lies beside each "scan.nii.gz".)
    """
    found = {path for pattern in patterns for path in folder.glob(pattern)}
    return sorted(path for path in found if not path.name.startswith("."))


def folders(folder: Path, pattern: str) -> list[Path]:
    """As `matching`, but folders alone."""
    return [path for path in matching(folder, pattern) if path.is_dir()]


def pick(folder: Path, stem: str) -> Path:
    """The NIfTI file `stem` of `folder`, compressed or not; where neither is there, the name that it should have."""
    candidates = [folder / f"{stem}{suffix}" for suffix in NIFTI]
    return next((file for file in candidates if file.exists()), candidates[0])


def stem(file: Path) -> str:
    """The name of a volume's file without its ending, which may be of two parts.

    >>> stem(Path("labelsTr/liver.1.nii.gz"))
    'liver.1'
    """
    return file.name[: -len(suffix_of(file) or file.suffix) or None]


def checked(cases: Iterable[RawCase], folder: Path, layout: str) -> list[RawCase]:
    """The cases in order of their names.

    Raises:
        ValueError: none was found; a name that can't be a file's everywhere; two that differ in upper case alone.
    """
    ordered = sorted(cases, key=lambda case: case.name)
    if not ordered:
        remedy = f"Give the folder that holds {' and '.join(layout.splitlines())}"
        raise ValueError(expectation(str(folder), "with cases", "none", remedy=remedy))
    bad = [repr(case.name) for case in ordered if not is_name(case.name)]
    if bad:
        remedy = "Rename their files"
        raise ValueError(expectation(str(folder), f"with names {NAME_RULE}", shortened(bad), remedy=remedy))
    seen: dict[str, str] = {}
    for name in (case.name for case in ordered):
        if name.lower() in seen:
            raise ValueError(expectation(str(folder), "with one case a name", f"{seen[name.lower()]!r} and {name!r}"))
        seen[name.lower()] = name
    return ordered


def read_table(file: Path) -> Mapping[str, object]:
    """The content of a dataset.json.

    Raises:
        ValueError: missing, or not an object in JSON.
    """
    rule = "to be an object in JSON"
    if not file.is_file():
        raise ValueError(expectation(str(file), rule, "no such file", remedy="Copy it from its source"))
    try:
        facts = json.loads(file.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise ValueError(expectation(str(file), rule, error, remedy="Copy it from its source")) from error
    if not isinstance(facts, dict):
        raise ValueError(expectation(str(file), rule, type(facts).__name__))
    return facts
