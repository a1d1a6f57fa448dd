"""Finished runs in three small tables, to keep where their folders can't be kept: NAME-runs, -cases and -bins.csv."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import pandas as pd

from nacl._checks import expectation
from nacl._files import whole_file
from nacl.data.load import EMBEDDED
from nacl.evaluation import SUMMARY
from nacl.grids import plan
from nacl.results import PROVENANCE, Result
from nacl.runs import Run

TABLES = ("runs", "cases", "bins")
FIELDS = [f.name for f in fields(Run) if f.name not in ("data", "device")]
MADE = (*PROVENANCE, "torch", "seconds", "temperature", "finished")
LEFT_OUT = ("over_", "mce_", "asd_", "cece_")
DIGITS = "%.5g"


@dataclass(frozen=True)
class Archive:
    """Runs by their identity.

    Attributes:
        runs: one row a run, all texts: the fields of `Run` that decide something (the others are empty), where and when
            it was made, and with `valid_` before its name the mean of each metric of a summary over the validation
            cases, of the network as it is.
        cases: one row a run, test case and post-hoc calibration, with most metrics of `nacl.evaluation.evaluate`.
        bins: one row a run, post-hoc calibration, region and bin: sums over the test cases.
    """

    runs: pd.DataFrame
    cases: pd.DataFrame
    bins: pd.DataFrame

    def of(self, runs: Sequence[Run], dataset: str) -> "Archive":
        """What is there of some runs on a data set, whatever version of the package made it; the newest of each.

        Args:
            runs: as `nacl.grids.plan` gives them; the path of their data does not count.
            dataset: the name of the data.
        """
        known = self._known(dataset)
        wanted = dict.fromkeys(_key(_texts(run)) for run in runs)
        return self._with([known[key] for key in wanted if key in known])

    def of_grid(self, grid: str, *, profile: str, seeds: int) -> dict[str, "Archive"]:
        """For each data set, what is there of a grid: the runs of those seeds of which it has all.

        Args:
            grid, profile: as in `nacl.grids.plan`.
            seeds: how many at most, from 0.

        Returns:
            The data sets that have the grid of a seed, by name, in the order in which they came.
        """
        found = {}
        for name in self.runs["dataset"].unique():
            known, data = self._known(name), name if name in EMBEDDED else f"a folder of {name}"
            each = [plan(grid, profile=profile, data=data, seeds=[seed]) for seed in range(seeds)]
            keys = [[_key(_texts(run)) for run in runs] for runs in each]
            whole = dict.fromkeys(known[key] for of_seed in keys if known.keys() >= set(of_seed) for key in of_seed)
            if whole:
                found[name] = self._with(list(whole))
        return found

    def _known(self, dataset: str) -> dict[tuple[str, ...], str]:
        """The identity of each run on a data set by its values, of two versions the newer."""
        rows = self.runs[self.runs["dataset"] == dataset].sort_values("finished", kind="stable")
        return {_key(row): row["identity"] for row in rows.to_dict("records")}

    def _with(self, identities: Sequence[str]) -> "Archive":
        """Of these runs only, in this order."""
        place = {identity: number for number, identity in enumerate(identities)}
        kept = (table[table["identity"].isin(place)] for table in (self.runs, self.cases, self.bins))
        return Archive(*(t.sort_values("identity", key=lambda x: x.map(place), kind="stable") for t in kept))

    def table(self) -> pd.DataFrame:
        """One row a test case, post-hoc calibration and run, as `nacl.results.results_table` has it, with the method's
        name from `Run.label`.
        """
        runs = self.runs.set_index("identity").to_dict("index")
        made = {identity: _run(row) for identity, row in runs.items()}
        used = {identity: run.values() for identity, run in made.items()}
        table = self.cases.copy()
        for name in FIELDS:
            table[name] = table["identity"].map({identity: values.get(name) for identity, values in used.items()})
        for name in MADE:
            if name != "identity":
                table[name] = table["identity"].map({identity: row[name] for identity, row in runs.items()})
        after = table["post_hoc"].map(lambda how: "" if how == "none" else f" + {how}")
        table["method"] = table["identity"].map({identity: run.label() for identity, run in made.items()}) + after
        return table

    def pooled_bins(self) -> dict[str, pd.DataFrame]:
        """For each method, its bins summed over its runs, as `nacl.plots.reliability_diagram` takes them."""
        names = self.runs.set_index("identity").apply(lambda row: _run(row).label(), axis=1)
        after = self.bins["post_hoc"].map(lambda how: "" if how == "none" else f" + {how}")
        method = self.bins["identity"].map(names) + after
        sums = self.bins.groupby([method.rename("method"), "region", "bin"], sort=False)
        pooled = sums[["count", "confidence_sum", "correct_sum"]].sum().reset_index()
        return {name: rows.drop(columns="method") for name, rows in pooled.groupby("method", sort=False)}


def archive_of(results: Sequence[Result]) -> Archive:
    """What an archive keeps of finished runs."""
    runs, cases, bins = [], [], []
    for result in results:
        plain = result.validation[result.validation["post_hoc"] == "none"]
        valid = {f"valid_{name}": DIGITS % plain[name].mean() for name in SUMMARY}
        runs.append({**_texts(result.run), **{name: str(result.info.get(name, "")) for name in MADE}, **valid})
        named = {"identity": result.info["identity"]}
        kept = [c for c in result.cases if not c.startswith(LEFT_OUT) or c == "cece_reference"]
        cases.append(result.cases[kept].assign(**named))
        sums = result.bins.groupby(["post_hoc", "region", "bin"], sort=False)
        bins.append(sums[["count", "confidence_sum", "correct_sum"]].sum().reset_index().assign(**named))
    return Archive(pd.DataFrame(runs), *(pd.concat(tables, ignore_index=True) for tables in (cases, bins)))


def read_archive(stem: str | Path) -> Archive:
    """What `add_to_archive` wrote.

    Raises:
        FileNotFoundError: no such files.
        ValueError: a file that is none of an archive; the message names it.
    """
    files = _files(stem)
    for file in files:
        if not file.is_file():
            how = f"Make it: nacl sweep GRID, then nacl table --archive {stem}"
            raise FileNotFoundError(f"Expected an archive of runs, got no file {file}. {how}.")
    names = {"identity": str, "case": str, "patient": str}
    runs, cases, bins = (_read(file, dtype) for file, dtype in zip(files, (str, names, names), strict=True))
    return Archive(runs.fillna(""), cases, bins)


def add_to_archive(archive: Archive, stem: str | Path) -> Archive:
    """Write an archive to `STEM-runs.csv`, `-cases.csv` and `-bins.csv`, each whole or not at all, and give what is
    there now: what was there before stays, but for runs that are in both.
    """
    files = _files(stem)
    if any(file.exists() for file in files):
        before = read_archive(stem)
        new = set(archive.runs["identity"])
        pairs = zip((before.runs, before.cases, before.bins), (archive.runs, archive.cases, archive.bins), strict=True)
        archive = Archive(*(pd.concat([old[~old["identity"].isin(new)], now], ignore_index=True) for old, now in pairs))
        archive = Archive(archive.runs.fillna(""), archive.cases, archive.bins)
    for file, table in zip(files, (archive.runs, archive.cases, archive.bins), strict=True):
        first = ["identity", *(name for name in table if name != "identity")]
        with whole_file(file) as temporary:
            table[first].to_csv(temporary, index=False, float_format=DIGITS)
    return archive


def _files(stem: str | Path) -> list[Path]:
    return [Path(f"{stem}-{name}.csv") for name in TABLES]


def _read(file: Path, dtype: object) -> pd.DataFrame:
    try:
        table = pd.read_csv(file, dtype=dtype, keep_default_na=False, na_values=[""])
    except (ValueError, OSError) as error:
        raise ValueError(expectation("archive", "of readable tables", file, str(error))) from error
    if "identity" not in table:
        raise ValueError(expectation("archive", "of tables with a column identity", file))
    return table


def _texts(run: Run) -> dict[str, str]:
    """The values of a run as a table of texts has them."""
    used = run.values()
    return {name: str(used[name]) if name in used else "" for name in FIELDS}


def _key(row: dict[str, str]) -> tuple[str, ...]:
    return tuple(row.get(name, "") for name in FIELDS)


def _run(row: pd.Series | dict[str, str]) -> Run:
    """The run of a row; what the row leaves empty has its default."""
    values = {name: _typed[type(getattr(Run, name))](row[name]) for name in FIELDS if row.get(name, "")}
    return Run(**{**asdict(Run()), **values})


_typed: dict[type, Callable[[str], object]] = {int: int, float: float, str: str, bool: lambda text: text == "True"}
