"""From the files of a benchmark to a prepared folder."""

import hashlib
import json
import math
import statistics
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict
from functools import cache, partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nacl._checks import check_choice, check_integer, expectation
from nacl._files import real_path
from nacl._parallel import in_processes
from nacl.data.benchmarks.jobs import fitting_jobs, source_files
from nacl.data.benchmarks.raw import Benchmark, RawCase, Volume
from nacl.data.case import SPLITS, Case, check_patients
from nacl.data.names import check_name, shortened
from nacl.data.prepared.index import check_shared, file_of
from nacl.data.prepared.target import (
    Made,
    Report,
    check_free,
    entry_of,
    finish,
    flat_channels,
    opened_target,
    put_case,
    warnings_of,
    whole_case,
)

DATA = Path(__file__).parents[1]
CODE = (DATA / "recipe.py", *sorted((DATA / "benchmarks").glob("*.py")), Path(__file__))  # what makes a case

FOUND = {  # what is stored of the volume that a case was made from, see `Made`
    "shape": list,
    "spacing": list,
    "unit": str,
    "axes": str,
    "labelled": int,
    "lost": int | float,
    "gone": dict,
    "flat": list,
}


def prepare(
    benchmark: Benchmark,
    source: Path,
    target: Path,
    *,
    splits: Mapping[str, str],
    jobs: int | None = None,
    skip_bad: bool = False,
) -> Report:
    """Prepare the cases of a folder by the recipe of its benchmark; `source` is only read.

    A case that is there already, whole and made from the same bytes by the same code, is not made again, so what was
    interrupted goes on where it was. A case that can't be read does not stop the others. The index is written last:
    until then nothing takes a new `target` for a prepared folder, and one that was prepared before is as it was until
    the first of its files is replaced. Files of cases that are no part of the data set any more are left where they
    are, outside of the index, and named in a warning.

    Args:
        benchmark: what the files are, and the recipe.
        source: folder of its files.
        target: folder to fill, not inside of `source`; what else is in it stays.
        splits: of each case by its name, as `nacl.data.splits.assign_splits` gives it; others are left out.
        jobs: processes. By default one a core, but fewer where the cases are so large that all would take over 2 GiB,
            and one where they are so few and small that the start of others takes longer.
        skip_bad: write the index without the cases that can't be made, as long as one is left.

    Raises:
        ValueError: no cases in `source`, or none of them in `splits`; `target` inside of `source`, a patient in two
            splits, a name that can't name a file, a file in the way that nobody prepared (nothing was done then); or
            spacings in several units.
        BlockingIOError: another process prepares into `target`.
        OSError: a file can't be written, as on a full disk. What was made so far is kept.
    """
    source, target = real_path("source", source), real_path("target", target)
    if target == source or source in target.parents:
        remedy = "Give a folder beside it"
        raise ValueError(expectation("target", "outside of the folder that is read", target, str(source), remedy))
    shared = (benchmark.name, benchmark.class_names, benchmark.channel_names)
    check_shared(*shared, "mm", benchmark.regions)  # not first when all is done: a user may have named the classes
    found = benchmark.find(source)
    plan = _plan(found, splits, target, str(source))
    jobs = fitting_jobs([raw for raw, _ in plan]) if jobs is None else jobs
    check_integer("jobs", jobs, low=1)
    with opened_target(target):
        ends = _ends(benchmark, source, target, plan, jobs)
        made = [end for end in ends.values() if isinstance(end, Made)]
        problems = {name: end for name, end in ends.items() if isinstance(end, str)}
        is_complete = bool(made) and (skip_bad or not problems)
        if is_complete:
            finish(target, made, *shared, _unit(made), benchmark.regions, asdict(benchmark.recipe))
    cases, skipped = (tuple(case.entry.name for case in made if case.is_new is is_new) for is_new in (True, False))
    warnings = warnings_of(target, made, {file_of(split, raw.name) for raw, split in plan})
    warnings = (*warnings, *_of_widths(made))
    left_out = [raw.name for raw in found if raw.name not in splits]
    if left_out:
        counted = "1 case is" if len(left_out) == 1 else f"{len(left_out)} cases are"
        warnings = (f"{counted} left out, in none of the splits: {shortened(left_out)}", *warnings)
    return Report(target, cases, skipped, problems, warnings, is_complete)


Plan = list[tuple[RawCase, str]]


def _plan(found: Sequence[RawCase], splits: Mapping[str, str], target: Path, context: str) -> Plan:
    """The cases to make with their splits, in order of both."""
    unknown = splits.keys() - {raw.name for raw in found}
    if unknown:
        raise ValueError(expectation("splits", "of cases that are there", shortened(unknown), context))
    repeated = [name for name, count in Counter(raw.name for raw in found).items() if count > 1]
    if repeated:
        raise ValueError(expectation("source", "with cases of different names", shortened(repeated), context))
    plan = [(raw, splits[raw.name]) for raw in found if raw.name in splits]
    if not plan:
        raise ValueError(expectation("splits", "with one case at least", "none", context))
    for raw, split in plan:
        check_name("name", raw.name, context)
        check_choice("split", split, SPLITS)
        check_free(target / file_of(split, raw.name))
    check_patients(((raw.patient, split) for raw, split in plan), context)
    return sorted(plan, key=lambda task: (SPLITS.index(task[1]), task[0].name))


def _ends(benchmark: Benchmark, source: Path, target: Path, plan: Plan, jobs: int) -> dict[str, Made | str]:
    """What became of each case: made, or why not."""
    ends: dict[str, Made | str] = {}
    make = partial(_make, benchmark, source, target)
    with closing(in_processes(make, plan, jobs, f"preparing {benchmark.name}")) as results:
        for (raw, _), result in results:
            if isinstance(result, OSError):  # of writing, which would fail for all others too
                raise result
            ends[raw.name] = _words(raw, result) if isinstance(result, Exception) else result
    return {raw.name: ends[raw.name] for raw, _ in plan}


def _make(benchmark: Benchmark, source: Path, target: Path, task: tuple[RawCase, str]) -> Made | str:
    """One case, or why it can't be made; an OSError is of writing it."""
    raw, split = task
    try:
        origin = _origin(benchmark, source, raw)
        kept = _kept(target, raw, split, origin)
        if kept is not None:
            return kept
        volume = benchmark.read(raw, benchmark)
        _check_volume(benchmark, raw, volume)
        done = benchmark.recipe.apply(volume)
        case = Case(raw.name, split, done.image, done.label, done.spacing, patient=raw.patient)
        gone = _gone(volume.label, done.label, len(benchmark.class_names))
    except Exception as error:  # what a broken file makes a library raise can be anything
        return _words(raw, error)
    found = {
        "shape": list(volume.image.shape),
        "spacing": list(volume.spacing),
        "unit": volume.unit,
        "axes": volume.axes,
        "labelled": int(np.count_nonzero(volume.label)),
        "lost": done.lost,
        "gone": gone,
        "flat": flat_channels(done.image, benchmark.channel_names),
    }
    return put_case(target, case, origin, found)


def _origin(benchmark: Benchmark, source: Path, raw: RawCase) -> dict[str, object]:
    """All that decides what a case becomes."""
    files = {}
    for file in source_files(raw):
        with file.open("rb") as stream:
            name = file.relative_to(source).as_posix() if file.is_relative_to(source) else file.name
            files[name] = hashlib.file_digest(stream, "blake2b").hexdigest()[:64]
    label_map = {str(key): value for key, value in (benchmark.label_map or {}).items()}
    counts = {"classes": len(benchmark.class_names), "channels": len(benchmark.channel_names)}
    recipe = {"recipe": asdict(benchmark.recipe), "label_map": label_map, **counts}
    return {"benchmark": benchmark.name, "files": files, **recipe, "nacl": _version(), "code": code_hash(CODE)}


def _gone(before: NDArray[np.uint8], after: NDArray[np.uint8], classes: int) -> dict[str, int]:
    """Voxels before, by class, of each but the background that resampling and cropping leave no voxel of."""
    old, new = (sum(np.bincount(plane.ravel(), minlength=classes) for plane in label) for label in (before, after))
    return {str(k): int(old[k]) for k in range(1, classes) if old[k] and not new[k]}


@cache
def code_hash(files: tuple[Path, ...]) -> str:
    """A hash of the content of source files, so that an edit shows where the version stays."""
    digest = hashlib.blake2b(digest_size=16)
    for file in files:
        digest.update(hashlib.blake2b(file.read_bytes()).digest())
    return digest.hexdigest()


def _version() -> str:
    try:
        return version("nacl-calibration")
    except PackageNotFoundError:
        return "not installed"


def _kept(target: Path, raw: RawCase, split: str, origin: Mapping[str, object]) -> Made | None:
    """The case that an earlier prepare made, where it is what would be made now."""
    stored = whole_case(target / file_of(split, raw.name))
    if stored is None:
        return None
    case, provenance = stored.case, stored.provenance
    told = (case.name, case.split, case.patient, provenance.get("origin"))
    found = provenance.get("found")
    if told != (raw.name, split, raw.patient, json.loads(json.dumps(origin))) or not _is_found(found):
        return None
    return Made(entry_of(target, case, stored.checksum), found, is_new=False)


def _is_found(found: object) -> bool:
    if not isinstance(found, dict) or found.keys() != FOUND.keys():
        return False
    return all(isinstance(found[key], kind) for key, kind in FOUND.items())


def _check_volume(benchmark: Benchmark, raw: RawCase, volume: Volume) -> None:
    channels, classes = len(benchmark.channel_names), len(benchmark.class_names)
    if len(volume.image) != channels:
        raise ValueError(expectation(str(raw.images[0]), f"with {channels} channels", len(volume.image)))
    if volume.label.size and volume.label.max() >= classes:
        raise ValueError(expectation(str(raw.label), f"with labels below {classes}", volume.label.max()))


def _unit(made: Sequence[Made]) -> str:
    units = {case.found["unit"]: case.entry.name for case in made}
    if len(units) > 1:
        got = " and ".join(f"{unit!r} in {name}" for unit, name in sorted(units.items()))
        raise ValueError(expectation("source", "with spacings in one unit", got))
    return next(iter(units))


def _of_widths(made: Sequence[Made]) -> Iterator[str]:
    widths = [case.entry.shape[-1] for case in made]
    if len(set(widths)) > 1:
        size = 32 * math.ceil(statistics.median(widths) / 32)  # five halvings, as of a U-Net
        yield (
            f"slices are {min(widths)} to {max(widths)} pixels wide; training at one size gives each its own "
            f"resolution: add --size {size}"
        )


def _words(raw: RawCase, error: Exception) -> str:
    """Why a case can't be made, with its file or its name."""
    told = str(error)
    if not told or not isinstance(error, ValueError | OSError):
        told = f"{type(error).__name__}: {told}".removesuffix(": ")
    is_named = any(str(file) in told for file in (*raw.images, raw.label))
    return told if is_named else f"{raw.name}: {told}"
