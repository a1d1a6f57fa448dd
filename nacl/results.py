"""What finished runs left in their folders, and tables of it."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

import pandas as pd
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from nacl._checks import check_choice, expectation
from nacl.data import Case, Dataset, load_dataset
from nacl.evaluation import SUMMARY, post_hoc_logits
from nacl.models import build_model
from nacl.runs import Run
from nacl.training import predict_logits

PROVENANCE = ("dataset", "data_fingerprint", "identity", "commit", "device_name")
"""What a row of a table carries from `run.json`, beside the fields of its `Run`."""

INFO = {"run": dict, "class_names": list, "temperature": float, "unit": str, **dict.fromkeys(PROVENANCE, str)}
"""What `run.json` must hold; versions before this one wrote less of other things, which have defaults."""

OF_CASES = ("case", "patient", "post_hoc", *SUMMARY)

COLUMNS = {
    "history": ("epoch", "loss"),
    "metrics": OF_CASES,
    "validation": OF_CASES,
    "bins": ("case", "post_hoc", "region", "bin", "count", "confidence_sum", "correct_sum"),
}
"""The tables of a run's folder, and columns that they must have."""


@dataclass(frozen=True)
class Result:
    """What a finished run left in its folder.

    Attributes:
        run: its values.
        folder: where it lies.
        info: `run.json`: values, identity, commit, versions, device, times.
        history: one row an epoch.
        cases: one row a test case and post-hoc calibration (the column `post_hoc`, of `nacl.evaluation.POST_HOC`), with
            its metrics.
        validation: the same of the validation cases, by which one chooses among runs.
        bins: one row a post-hoc calibration, case, region and bin.
    """

    run: Run
    folder: Path
    info: dict
    history: pd.DataFrame
    cases: pd.DataFrame
    validation: pd.DataFrame
    bins: pd.DataFrame

    def dataset(self) -> Dataset:
        """The data of this run, at its size."""
        return load_dataset(self.run.data, size=self.run.size)

    def model(self) -> nn.Module:
        """The network with the weights of its best epoch, on the CPU.

        Raises:
            ValueError: no weights in the folder that fit the network.
        """
        channels = len(self.info.get("channel_names", ["image"]))  # runs from before it was written had one
        spacing = tuple(self.info.get("spacing", (1.0, 1.0, 1.0)))  # nor did they have networks that ask for it
        options = {**self.run.model_options(spacing), "weights": "none"}  # what it began with need not be fetched
        with torch.random.fork_rng(devices=[]):
            model = build_model(self.run.model, channels, len(self.info["class_names"]), **options)
        file = self.folder / "weights.safetensors"
        try:
            model.load_state_dict(load_file(file))
        except (SafetensorError, RuntimeError, OSError) as error:
            rule, remedy = f"of the network {self.run.model!r}", "Move the folder away and train the run again"
            raise ValueError(expectation(file.name, rule, file, str(error).splitlines()[0], remedy)) from error
        return model.eval()

    def predict(self, case: Case, *, post_hoc: str = "none") -> torch.Tensor:
        """Class probabilities (D, C, H, W) of a case, as they are, or after a post-hoc calibration.

        Raises:
            ValueError: unknown `post_hoc`, or one that this run does not have.
        """
        logits = predict_logits(self.model(), case, device=self.run.device, patch=self.run.patch_shape())
        changed = post_hoc_logits(logits, temperature=self.info["temperature"], penalty_weight=self.run.biased_by())
        check_choice("post_hoc", post_hoc, changed)
        return changed[post_hoc].softmax(dim=1)


def finished(run: Run, runs: Path | None = None) -> Result | None:
    """The result of a run that was finished, or None."""
    folder = run.folder(runs)
    return replace(load_result(folder), run=run) if (folder / "run.json").exists() else None


def load_result(folder: Path) -> Result:
    """The result in a finished run's folder. Fields that an older version did not have get their defaults.

    Raises:
        FileNotFoundError: no finished run there.
        ValueError: a run of another version, or a damaged file; the message names the folder and what is wrong.
    """
    if not (folder / "run.json").exists():
        raise FileNotFoundError(f"Expected a finished run in {folder}, got no run.json. Train it with `nacl train`.")
    info = _read_info(folder)
    tables = {name: _read_table(folder, name) for name in COLUMNS}
    cases = (tables[name] for name in ("metrics", "validation", "bins"))
    return Result(_run(info["run"], folder), folder, info, tables["history"], *cases)


def _read_info(folder: Path) -> dict:
    try:
        info = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise _unusable(folder, f"a run.json that can't be read: {error}") from error
    if not isinstance(info, dict):
        raise _unusable(folder, "a run.json without names")
    for name, kind in INFO.items():
        if not isinstance(info.get(name), kind):
            got = repr(info[name]) if name in info else "none"
            raise _unusable(folder, f"a run.json with {got} for {name!r}")
    return info


def _run(values: dict, folder: Path) -> Run:
    unknown = sorted(set(values) - {f.name for f in fields(Run)})
    if unknown:
        raise _unusable(folder, f"a run.json with fields of another version: {', '.join(unknown)}")
    try:
        return Run(**values)
    except (ValueError, TypeError) as error:
        raise _unusable(folder, f"a run.json with values of another version: {error}") from error


def _read_table(folder: Path, name: str) -> pd.DataFrame:
    file = folder / f"{name}.csv"
    names = {"case": str, "patient": str}  # else patient 007 would be 7, and a case NA would be missing
    try:
        table = pd.read_csv(file, dtype=names, keep_default_na=False, na_values=[""])
    except (ValueError, OSError) as error:
        raise _unusable(folder, f"a {file.name} that can't be read: {error}") from error
    missing = [column for column in COLUMNS[name] if column not in table]
    if missing:
        raise _unusable(folder, f"a {file.name} without the columns {', '.join(missing)}")
    return table


def _unusable(folder: Path, got: str) -> ValueError:
    remedy = "Move the folder away and train the run again"
    return ValueError(expectation("folder", "with a whole run of this version", got, str(folder), remedy))


def results_table(results: Sequence[Result]) -> pd.DataFrame:
    """One row a test case, post-hoc calibration and run: the fields of `Run`, the metrics, and where they come from.

    `method` names the loss and what was done after training, such as "ce" and "ce + temperature". The path of the data
    is left out: `dataset` and `data_fingerprint` say which they were, on any machine. A field that decides nothing for
    the run is empty. Two runs of one table may differ in any field; nothing is averaged here.
    """
    tables = []
    for result in results:
        used = result.run.values()
        values = {f.name: used.get(f.name) for f in fields(Run) if f.name not in ("data", "device")}
        scaled = result.cases["post_hoc"].map({"none": ""}).fillna(" + " + result.cases["post_hoc"])
        made = {name: result.info[name] for name in PROVENANCE}
        tables.append(result.cases.assign(method=result.run.loss + scaled, **values, **made))
    return pd.concat(tables, ignore_index=True)
