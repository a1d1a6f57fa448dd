"""What a dataset.json tells of classes and channels, in the ways of nnU-Net and of the Decathlon."""

from collections.abc import Mapping
from pathlib import Path

from nacl._checks import expectation
from nacl.data.benchmarks.stored import refuse
from nacl.data.benchmarks.volumes import UNKNOWN

LARGEST_LABEL = 65535  # a table of this length is made to look labels up


def classes_of(labels: object, file: Path) -> tuple[tuple[str, ...], dict[int, int] | None, dict[str, tuple[int, ...]]]:
    """The names of the classes, the classes of stored labels where they differ, and the regions.

    Args:
        labels: ``{"background": 0, "liver": 1}`` as in nnU-Net, where a name may have several labels, which makes it a
            region; or ``{"0": "background", "1": "liver"}`` as in the Decathlon.
        file: for messages.

    Raises:
        ValueError: another form; a label of two names; no label 0; an "ignore" label, since every pixel has a class.

    Example:
        >>> classes_of({"0": "background", "4": "tumour"}, Path("dataset.json"))
        (('background', 'tumour'), {0: 0, 4: 1}, {})
    """
    named = _named(labels, file)
    if "ignore" in named:
        remedy = "Give those voxels a class, or leave their cases out"
        refuse(file, "without a label to ignore", f'"ignore": {labels["ignore"]}', remedy)
    values = sorted({value for of_name in named.values() for value in of_name})
    if not values or values[0] != 0 or values[-1] > LARGEST_LABEL or not 2 <= len(values) <= UNKNOWN:
        refuse(file, f"with 2 to {UNKNOWN} labels from 0, the background's, to {LARGEST_LABEL}", values[:10])
    names: dict[int, str] = {}
    for name, of_name in named.items():
        if len(of_name) == 1 and names.setdefault(of_name[0], name) != name:
            refuse(file, "with one name a label", f"{names[of_name[0]]!r} and {name!r} for {of_name[0]}")
    names.setdefault(0, "background")
    class_of = {value: k for k, value in enumerate(values)}
    label_map = None if values == list(range(len(values))) else class_of
    regions = {}
    if any(len(of_name) > 1 for of_name in named.values()):
        regions = {name: tuple(class_of[v] for v in of_name) for name, of_name in named.items() if of_name != (0,)}
    return tuple(names.get(value, f"class {value}") for value in values), label_map, regions


def channels_of(table: Mapping[str, object], count: int, file: Path) -> tuple[str, ...]:
    """The names of `count` channels: those under "channel_names" (nnU-Net) or "modality" (Decathlon), or made up.

    Raises:
        ValueError: other channels than 0 to `count` - 1.
    """
    told = table.get("channel_names", table.get("modality"))
    if told is None:
        return ("image",) if count == 1 else tuple(f"channel {k}" for k in range(count))
    if not isinstance(told, dict) or set(told) != {str(k) for k in range(count)}:
        refuse(file, f"with names of the channels 0 to {count - 1}, as the first case has them", repr(told)[:100])
    return tuple(str(told[str(k)]) for k in range(count))


def _named(labels: object, file: Path) -> dict[str, tuple[int, ...]]:
    """The labels of each name."""
    named: dict[str, tuple[int, ...]] = {}
    try:
        for key, value in labels.items():
            name, told = (value, (int(key),)) if isinstance(value, str) and key.isdecimal() else (key, value)
            of_name = tuple(map(_label, told if isinstance(told, list | tuple) else [told]))
            if name in named or not name or not of_name:
                raise ValueError(expectation("labels", "with one entry a name", name))
            named[name] = of_name
    except (AttributeError, TypeError, ValueError) as error:
        rule = 'with labels as in {"background": 0, "liver": 1}'
        raise ValueError(expectation(str(file), rule, repr(labels)[:200])) from error
    return named


def _label(told: object) -> int:
    """A label told as a whole number or as its digits; `int` would make 1 of 1.7 and of true."""
    if isinstance(told, str) and told.isdecimal():
        return int(told)
    if isinstance(told, bool) or not isinstance(told, int):
        raise TypeError(expectation("label", "to be a whole number", repr(told)))
    return told
