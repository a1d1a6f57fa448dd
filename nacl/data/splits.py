"""Which cases are for training, for validation and for testing."""

import difflib
import hashlib
import re
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

from nacl._checks import check_integer, check_number, expectation
from nacl.data.benchmarks.layout import stem
from nacl.data.benchmarks.raw import RawCase
from nacl.data.case import SPLITS, Cases, check_patients
from nacl.data.manifest import OneSplit, Row, published, read_rows
from nacl.data.names import shortened

BEFORE_A_VISIT = r"^.+?(?=[_-](?i:ses|session|visit|v|t|frame|scan)[_-]?[0-9]|$)"


def patients_by_visits(names: Collection[str]) -> str:
    """A hint where names of cases look like several visits of a patient; "" where they do not.

    Args:
        names: of cases that are taken for a patient each.

    Example:
        >>> patients_by_visits(["p1_v1", "p1_v2", "p2_v1"]).partition(",")[0]
        '3 names look like 2 patients'
        >>> patients_by_visits(["p1", "p2", "p3"])
        ''
    """
    patients = {match[0] for match in (re.search(BEFORE_A_VISIT, name) for name in names) if match}
    if not 1 < len(patients) < len(names):  # one only: "liver_scan1" and "liver_scan2" may be of two
        return ""
    counted = f"{len(names)} names look like {len(patients)} patients"
    return f"{counted}, who may be in two splits: give --patient-pattern '{BEFORE_A_VISIT}'"


def assign_splits(
    raw: Sequence[RawCase], benchmark_name: str, *, split_file: Path | None = None, seed: int = 0
) -> dict[str, str]:
    """The split of each case by its name; a case that is left out of all splits is not in it.

    The first of these that speaks of a patient decides: the user's file, the folder that a case lies in, the published
    manifest of the benchmark, and, where that knows none of the patients or there is none, `split_by_hash`. Cases of
    patients that the manifest has in no split, or a folder of its own keeps out, are left out. (It decides by
    patients since copies of a benchmark number the frames of one patient in different ways.) Where a folder has a test
    set of its own, the hash splits the others 7 to 1 into training and validation.

    Args:
        raw: the cases that were found.
        benchmark_name: the key of the published manifest, and part of the hash.
        split_file: a CSV file with the columns case and split, or patient and split; it must name all of `raw`, with an
            empty split for what is left out. A manifest is such a file.
        seed: of the hash; files and manifests do not depend on it.

    Raises:
        ValueError: the file is no such table, does not name a case, or has an unknown one; a patient in two splits.
    """
    if split_file is not None:
        return _from_file(raw, Path(split_file))
    splits = {case.name: case.split for case in raw if case.split}
    others = [case for case in raw if case.split is None]
    listed = published_splits(benchmark_name)
    if not any(case.patient in listed for case in raw):
        patients = {case.patient for case in others}
        counts = _without_test(len(patients)) if "test" in splits.values() else None
        listed = split_by_hash(benchmark_name, patients, counts=counts, seed=seed)
    splits |= {case.name: listed[case.patient] for case in others if case.patient in listed}
    check_patients(((case.patient, splits[case.name]) for case in raw if case.name in splits), benchmark_name)
    return splits


def published_splits(benchmark_name: str) -> dict[str, str]:
    """The split of each patient whom the published manifest puts in one; empty where there is no manifest."""
    manifest = published(benchmark_name)
    return {} if manifest is None else {entry.patient: entry.split for entry in manifest.entries if entry.split}


def split_by_hash(
    name: str, patients: Iterable[str], *, counts: tuple[int, int, int] | None = None, seed: int = 0
) -> dict[str, str]:
    """A split that needs no list: patients in the order of a hash, the first for training, the last for testing.

    The hash is blake2b, 16 bytes, of the text "NAME/PATIENT/SEED", so the same names give the same split everywhere.
    One patient more moves at most two of the others, one across each border. A threshold on the hash would move none,
    but then the shares would hold only on average: 7 patients would be left without validation in 48% of the draws.

    Args:
        name: of the benchmark.
        patients: their names, in any order.
        counts: how many to train, validate and test on; by default 70%, 10% and 20%, at least one of each from
            three patients on.
        seed: another gives another split.

    Raises:
        ValueError: `counts` do not sum to the number of patients.

    Example:
        >>> split_by_hash("mine", ["anna", "ben", "chloe"])
        {'anna': 'test', 'ben': 'valid', 'chloe': 'train'}
    """
    ordered = sorted(set(patients), key=lambda patient: (_hash(f"{name}/{patient}/{seed}"), patient))
    train, valid, test = counts or _shares(len(ordered))
    if train + valid + test != len(ordered):
        raise ValueError(expectation("counts", f"that sum to {len(ordered)} patients", counts))
    splits = [split for split, count in zip(SPLITS, (train, valid, test), strict=True) for _ in range(count)]
    return dict(sorted(zip(ordered, splits, strict=True)))


def share_of(cases: Cases, share: float, seed: int) -> Cases:
    """The cases of a share of the patients, each patient with all of theirs; no file is read.

    Patients are taken in the order of a hash of the seed and their name, so that a smaller share lies within a larger
    one of the same seed, and one patient more in the data displaces at most one.

    Args:
        cases: of one split.
        share: of the patients, in (0, 1]. Their number is rounded, a half up, and is at least one.
        seed: another gives other patients.

    Returns:
        The cases in the order that they had.

    Raises:
        ValueError: `share` outside (0, 1], `seed` below 0.

    Example:
        >>> from nacl.data import load_dataset
        >>> train = load_dataset("phantom", size=32).split("train")
        >>> len(train), len(share_of(train, 0.25, seed=0))
        (30, 8)
    """
    check_number("share", share, low=0, high=1, open_low=True)
    check_integer("seed", seed, low=0)
    patients = sorted({entry.patient for entry in cases.entries}, key=lambda name: (_hash(f"{seed}/{name}"), name))
    taken = set(patients[: max(1, int(share * len(patients) + 0.5))])
    return Cases(entry for entry in cases.entries if entry.patient in taken)


def _hash(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def _shares(patients: int) -> tuple[int, int, int]:
    """70%, 10% and 20%, rounded so that one patient more never adds to both of the smaller splits."""
    if patients < len(SPLITS):
        return (patients > 0) * 1, 0, (patients > 1) * 1
    valid, test = max(1, (patients + 5) // 10), max(1, (2 * patients + 5) // 10)
    return patients - valid - test, valid, test


def _without_test(patients: int) -> tuple[int, int, int]:
    valid = max(1, (patients + 4) // 8) if patients > 1 else 0
    return patients - valid, valid, 0


def _from_file(raw: Sequence[RawCase], file: Path) -> dict[str, str]:
    _, rows = read_rows(file, ("split",))
    key = next((column for column in ("case", "patient") if column in rows[0].values), None)
    if key is None:
        got = f"the columns {', '.join(rows[0].values)}"
        raise ValueError(expectation(str(file), "with the column case or patient beside split", got))
    patient_of = {case.name if key == "case" else case.patient: case.patient for case in raw}
    one_split, splits = OneSplit(), {}
    for row in rows:
        name = row.values[key]
        _check_known(name, key, patient_of, row)
        if name in splits:
            raise ValueError(expectation(row.place, f"with a {key} of its own", name, "it is on an earlier line too"))
        one_split.add(patient_of[name], row)
        splits[name] = row.values["split"]
    missing = [name for name in patient_of if name not in splits]
    if missing:
        got = f"none for {len(missing)}: {shortened(missing)}"
        remedy = "Add them, with train, valid or test, or with an empty split to leave them out"
        raise ValueError(expectation(str(file), f"with a line for each {key}", got, remedy=remedy))
    of_case = {case.name: splits[case.name if key == "case" else case.patient] for case in raw}
    return {name: split for name, split in of_case.items() if split}


def _check_known(name: str, key: str, known: Collection[str], row: Row) -> None:
    if name in known:
        return
    bare = stem(Path(name))
    near = [bare] if bare in known else difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    remedy = f"Did you mean {near[0]!r}? " if near else ""
    message = expectation(row.place, f"with one of the {len(known)} {key}s that were found", repr(name))
    raise ValueError(f"{message} {remedy}".rstrip())
