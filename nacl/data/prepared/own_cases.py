"""Cases that a user's own function gives, as a prepared folder."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from nacl._checks import expectation
from nacl._files import real_path
from nacl.data.case import Case, check_patients
from nacl.data.names import check_name
from nacl.data.prepared.casefile import checksum
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

SUM_WITHIN = 1e-3  # of 1: 256 classes rounded to float16 stay below half of it


def prepare_cases(
    cases: Iterable[Case],
    target: Path,
    *,
    name: str,
    class_names: Sequence[str],
    unit: str = "mm",
    channel_names: Sequence[str] = ("image",),
    regions: Mapping[str, Sequence[int]] | None = None,
) -> Report:
    """Write cases that a user's own function gives as a prepared folder; nothing is resampled or scaled.

    A case whose file holds just the same already is not written again. Where `cases` raises an error, what was prepared
    before can still be used, unless one of its files was replaced by then.

    Args:
        cases: in any order; from a generator, one at a time is in memory.
        target: folder to fill; cases of the same names that were prepared into it before are replaced.
        name: of the data set, short.
        class_names: of the labels 0, 1, ...; 0 is the background.
        unit: of the spacing, "mm" or "px".
        channel_names: of the image's channels.
        regions: named unions of classes that overlap is measured on; by default each class but the background.

    Raises:
        ValueError: no cases; a case with a name that another has or that can't name a file, with values that are not
            finite, intensities beyond [0, 1], labels that are no classes, a posterior of no probabilities, other
            channels, or slices that are not square; a patient in two splits; a file in the way that nobody prepared.
            The message names the case.
        TypeError: an argument or a case of another kind.
        BlockingIOError: another process prepares into `target`.
        OSError: a file can't be written, as on a full disk.

    Example:
        >>> import tempfile
        >>> image = np.linspace(0, 1, 64, dtype=np.float32).reshape(1, 8, 8)
        >>> splits = ("train", "valid", "test")
        >>> mine = (Case(f"scan{i}", split, image, image > 0.5, (5, 1, 1)) for i, split in enumerate(splits))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     prepare_cases(mine, folder, name="mine", class_names=["background", "bright"]).cases
        ('scan0', 'scan1', 'scan2')
    """
    target = real_path("target", target)
    _check_kind("cases", cases, Iterable, "to be a list or generator of nacl.data.Case objects")
    _check_kind("class_names", class_names, Iterable, "to be a list of texts")
    _check_kind("channel_names", channel_names, Iterable, "to be a list of texts")
    regions = {} if regions is None else regions
    _check_kind("regions", regions, Mapping, "to be a mapping from names to lists of classes")
    class_names, channel_names = tuple(class_names), tuple(channel_names)
    shared = (class_names, channel_names, unit)
    check_shared(name, *shared, regions)
    made: dict[str, Made] = {}
    split_of: dict[str, str] = {}
    with opened_target(target):
        for given in cases:
            case = _checked(given, len(class_names), len(channel_names))
            if case.name in made:
                raise ValueError(expectation("cases", "of different names", f"{case.name} twice"))
            first = split_of.setdefault(case.patient, case.split)
            check_patients([(case.patient, first), (case.patient, case.split)], f"case {case.name}")
            check_free(target / file_of(case.split, case.name))
            made[case.name] = _put(target, case, channel_names)
        if not made:
            raise ValueError(expectation("cases", "to be one at least", "none"))
        finish(target, list(made.values()), name, *shared, regions, {})
    warnings = warnings_of(target, list(made.values()), {case.entry.file for case in made.values()})
    new, old = (tuple(name for name, case in made.items() if case.is_new is is_new) for is_new in (True, False))
    return Report(target, new, old, warnings=warnings)


def _check_kind(argument: str, value: object, kind: type, rule: str) -> None:
    """Raise TypeError unless `value` is of a kind; a text is a list of its letters, which nobody means."""
    if isinstance(value, str | bytes) or not isinstance(value, kind):
        raise TypeError(expectation(argument, rule, repr(value)))


def _put(target: Path, case: Case, channel_names: Sequence[str]) -> Made:
    """The case in its file, which is left alone where it holds just that."""
    found = {"labelled": int(np.count_nonzero(case.label)), "flat": flat_channels(case.image, channel_names)}
    stored = whole_case(target / file_of(case.split, case.name))
    if stored and stored.checksum == checksum(case) and stored.provenance == {"origin": {}, "found": found}:
        return Made(entry_of(target, case, stored.checksum), found, is_new=False)
    return put_case(target, case, {}, found)


def _checked(case: Case, classes: int, channels: int) -> Case:
    """A user's case in the dtypes that are stored, once all its values were found in order."""
    if not isinstance(case, Case):
        raise TypeError(expectation("cases", "to be nacl.data.Case objects", type(case).__name__))
    check_name("name", case.name)

    def refuse(argument: str, rule: str, got: object, remedy: str = "") -> None:
        raise ValueError(expectation(argument, rule, got, f"case {case.name}", remedy))

    image, label = case.image, case.label
    if not image.size:
        refuse("image", "of one voxel at least", f"shape {image.shape}")
    if len(image) != channels:
        refuse("image", f"with {channels} channels", len(image), "Give their names in `channel_names`")
    low, high = float(image.min()), float(image.max())
    if not (low >= 0 and high <= 1):  # written so that NaN fails
        refuse("image", "with finite values in [0, 1]", f"[{low:.4g}, {high:.4g}]", "Scale it to them")
    if label.max() >= classes:
        remedy = "Remap the labels, or give all `class_names`"
        refuse("label", f"of classes in [0, {classes})", label.max(), remedy)
    if label.shape[1] != label.shape[2]:
        remedy = "Pad the slices to a square: training brings them to one, and would squeeze others"
        refuse("label", "of square slices", f"{label.shape[1]} x {label.shape[2]}", remedy)
    posterior = None if case.posterior is None else np.asarray(case.posterior)
    if posterior is not None and (posterior.shape != (classes, *label.shape) or posterior.dtype.kind not in "fiu"):
        refuse("posterior", f"of numbers, of shape {(classes, *label.shape)}", f"{posterior.dtype}, {posterior.shape}")
    if posterior is not None:
        least, total = float(posterior.min()), posterior.sum(0, dtype=np.float64)
        if not (least >= 0 and np.abs(total - 1).max() <= SUM_WITHIN):  # written so that NaN fails
            got = f"values from {least:.4g} and sums in [{total.min():.4g}, {total.max():.4g}]"
            refuse("posterior", "of values from 0, with the sum 1 over the classes of a voxel", got)
        posterior = posterior.astype(np.float32)
    if not isinstance(case.patient, str) or not 1 <= len(case.patient) <= 100:
        refuse("patient", "to be a text of 1 to 100 characters", repr(case.patient))
    return replace(case, spacing=tuple(map(float, case.spacing)), posterior=posterior)
