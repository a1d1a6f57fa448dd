"""What was found in a data set, in words and tables for a terminal."""

from collections import Counter, defaultdict
from collections.abc import Sequence

import numpy as np
import pandas as pd

from nacl.data import SPLITS
from nacl.data.check import Finding
from nacl.data.names import shortened

LEFT_OUT = "left out"


def splits_table(findings: Sequence[Finding], class_names: Sequence[str]) -> pd.DataFrame:
    """One row a split: patients, cases, slices, and the share of voxels of each class."""
    rows = {}
    for split in (*SPLITS, ""):
        of_split = [finding for finding in findings if finding.split == split]
        if of_split or split:
            rows[split or LEFT_OUT] = _row(of_split, class_names)
    return pd.DataFrame(rows).T.astype({"patients": int, "cases": int, "slices": int})


def _row(findings: Sequence[Finding], class_names: Sequence[str]) -> dict[str, float]:
    counts = np.sum([finding.voxels for finding in findings], axis=0)
    shares = counts / counts.sum() if findings else np.full(len(class_names), np.nan)
    return {
        "patients": len({finding.patient for finding in findings}),
        "cases": len(findings),
        "slices": sum(finding.shape[1] for finding in findings),
        **dict(zip(class_names, shares, strict=True)),
    }


def grids(findings: Sequence[Finding], channel_names: Sequence[str]) -> str:
    """Shapes, spacings and orientations over all cases, a line each."""
    lines = [
        f"channels  {', '.join(channel_names)}",
        f"shape     {_ranges([finding.shape[1:] for finding in findings], 'voxels')} (slices x height x width)",
    ]
    for unit in sorted({finding.unit for finding in findings}):
        lines.append(f"spacing   {_ranges([finding.spacing for finding in findings if finding.unit == unit], unit)}")
    axes = Counter(finding.axes for finding in findings if finding.axes)
    if axes:
        lines.append(f"axes      {', '.join(f'{count} x {letters}' for letters, count in axes.most_common())}")
    return "\n".join(lines)


def _ranges(values: Sequence[tuple[float, ...]], unit: str) -> str:
    """The median along each axis, and from where to where."""
    array = np.array(values, float)
    if (array == array[0]).all():
        return f"{_by(array[0])} {unit}"
    return f"median {_by(np.median(array, axis=0))} {unit}, from {_by(array.min(axis=0))} to {_by(array.max(axis=0))}"


def _by(values: Sequence[float]) -> str:
    return " x ".join(f"{value:.4g}" for value in values)


def warnings_of(findings: Sequence[Finding]) -> list[str]:
    """The warnings of cases, those of one text together."""
    cases_of = defaultdict(list)
    for finding in findings:
        for text in finding.warnings:
            cases_of[text].append(finding.name)
    return [f"{shortened(names)}: {text}" for text, names in cases_of.items()]


def cases_table(findings: Sequence[Finding], class_names: Sequence[str]) -> pd.DataFrame:
    """One row a case, with all that is known of it."""
    rows = []
    for finding in findings:
        known = dict(zip(("channels", "slices", "height", "width"), finding.shape, strict=False))
        known |= dict(zip(("spacing_d", "spacing_h", "spacing_w"), finding.spacing, strict=False))
        known |= {f"voxels of {name}": count for name, count in zip(class_names, finding.voxels, strict=False)}
        rows.append(
            {
                "case": finding.name,
                "patient": finding.patient,
                "split": finding.split or LEFT_OUT,
                **known,
                "unit": finding.unit,
                "axes": finding.axes,
                "checksum": finding.checksum,
                "problem": finding.problem,
                "warnings": "; ".join(finding.warnings),
            }
        )
    counts = ["channels", "slices", "height", "width", *(f"voxels of {name}" for name in class_names)]
    table = pd.DataFrame(rows)
    return table.astype({column: "Int64" for column in counts if column in table})
