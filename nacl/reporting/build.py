"""`nacl.report`: any model's cases to a page."""

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from tqdm.auto import tqdm

from nacl._checks import check_integer, expectation
from nacl._files import whole_file, write_text
from nacl.reporting import words
from nacl.reporting.cases import CheckedCase, Loadable, ReportCase, checked_case, name_of
from nacl.reporting.page import Making, WorstCase, render
from nacl.reporting.pictures import worst_slice
from nacl.reporting.summary import Summary, score_case
from nacl.reporting.temperature import Sample, Temperature, cross_fit, sample_case


@dataclass(frozen=True)
class Report:
    """What a report came to.

    Attributes:
        path: of the page.
        verdict: its first sentence.
        cases: one row a case, the numbers of the CSV.
        temperature: what divides the logits best, and what that gains.
        unread: for each case that could not be used, why.
    """

    path: Path
    verdict: str
    cases: pd.DataFrame
    temperature: Temperature
    unread: dict[str, str]


def report(
    cases: Iterable[ReportCase | Loadable | tuple],
    out: str | Path = "report.html",
    *,
    class_names: Sequence[str] | None = None,
    n_bins: int = 15,
    ignore_index: int = -100,
    worst: int = 3,
    csv: str | Path | None = None,
    title: str = "Is this model calibrated?",
    seed: int = 0,
    command: str | None = None,
) -> Report:
    """Is my model calibrated? One self-contained HTML page on the predictions of any model.

    The cases are read once and one at a time, so that a generator will do; what is kept of each is a row of numbers,
    its bins, at most `temperature.SAMPLE_NUMBERS` logits for each of two random samples of its pixels, and the
    slices of the worst cases. A case that can't be used is left out, with a warning, and named on the page.

    Args:
        cases: `ReportCase`, or tuples (name, probs, label[, spacing[, image]]), or what `find_cases` returns.
        out: the page to write.
        class_names: C names, the background first; by default "background", "class 1", ...
        n_bins: number of bins of confidence.
        ignore_index: label of the pixels that never count.
        worst: number of cases to picture, those with the largest NLL.
        csv: a file for the numbers of each case.
        title: of the page.
        seed: of the samples, of the halves for the temperature, and of the bands of the diagrams.
        command: what the user typed, for the foot of the page.

    Returns:
        The numbers, see `Report`.

    Raises:
        ValueError: no case that can be used, names of another number than classes, values out of range.
        OSError: the page can't be written.

    Example:
        >>> import tempfile, numpy as np
        >>> probs = np.array([0.9, 0.1]).reshape(2, 1, 1) * np.ones((2, 8, 8))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     found = report([("a", probs, np.zeros((8, 8), int))], f"{folder}/report.html")
        >>> found.verdict[:33]
        'Under-confident over all pixels: '
    """
    check_integer("n_bins", n_bins, low=1)
    check_integer("worst", worst, low=0)
    check_integer("seed", seed, low=0)
    gathered = _Gathered(n_bins=n_bins, ignore_index=ignore_index, worst=worst, seed=seed, names=class_names)
    for position, item in enumerate(tqdm(cases, unit="case", disable=None), start=1):
        gathered.add(item, position)
    gathered.check_some()
    summary, temperature = gathered.summary, cross_fit(gathered.samples, n_bins=n_bins, seed=seed)
    names = tuple(class_names or ("background", *(f"class {k}" for k in range(1, gathered.num_classes))))
    making = Making(title, names, n_bins, seed, ignore_index, command)
    write_text(Path(out), render(summary, temperature, gathered.pictured, gathered.unread, making))
    if csv is not None:
        with whole_file(Path(csv)) as temporary:
            summary.table.to_csv(temporary, index=False, float_format="%.8g")
    return Report(Path(out), words.verdict(summary), summary.table, temperature, gathered.unread)


class _Gathered:
    """What is kept of the cases so far."""

    def __init__(self, *, n_bins: int, ignore_index: int, worst: int, seed: int, names: Sequence[str] | None) -> None:
        self.n_bins, self.ignore_index, self.worst, self.seed, self.names = n_bins, ignore_index, worst, seed, names
        self.summary = Summary()
        self.samples: list[Sample] = []
        self.pictured: list[WorstCase] = []
        self.unread: dict[str, str] = {}
        self.num_classes: int | None = None

    def add(self, item: object, position: int) -> None:
        """Count a case in, or among those that can't be used."""
        name = name_of(item, position)
        try:
            if name in self.unread or any(name == row["case"] for row in self.summary.rows):
                raise ValueError(expectation("cases", "of different names", repr(name), f"case {position}"))
            case = checked_case(item, num_classes=self.num_classes, ignore_index=self.ignore_index)
        except (ValueError, TypeError, OSError) as error:
            self.unread[name if name not in self.unread else f"{name} (case {position})"] = str(error)
            warnings.warn(f"{name} is left out: {error}", RuntimeWarning, stacklevel=3)
            return
        self._check_names(case.num_classes)
        self.num_classes = case.num_classes
        self._keep(case)

    def check_some(self) -> None:
        """Raise where nothing could be used."""
        if not self.summary.rows:
            got = f"none of {len(self.unread)}" if self.unread else "none"
            first = next((f"{name}: {reason}" for name, reason in self.unread.items()), "")
            message = expectation("cases", "with one at least that can be used", got)
            raise ValueError(f"{message} The first: {first}" if first else message)

    def _check_names(self, num_classes: int) -> None:
        if self.names is not None and len(self.names) != num_classes:
            got = f"{len(self.names)} names"
            remedy = "The background needs a name too"
            raise ValueError(expectation("class_names", f"of {num_classes} names, one a class", got, remedy=remedy))

    def _keep(self, case: CheckedCase) -> None:
        scores = score_case(case, n_bins=self.n_bins, ignore_index=self.ignore_index)
        self.summary.add(scores)
        self.samples.append(sample_case(case, ignore_index=self.ignore_index, seed=self.seed))
        least = self.pictured[-1].row["nll"] if len(self.pictured) >= self.worst > 0 else float("-inf")
        if self.worst and scores.row["nll"] > least:
            self.pictured.append(WorstCase(scores.row, worst_slice(case, ignore_index=self.ignore_index)))
            self.pictured.sort(key=lambda kept: -kept.row["nll"])
            del self.pictured[self.worst :]
