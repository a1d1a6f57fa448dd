"""What finished runs left in their folders, and tables of it."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

import pandas as pd
import torch
from safetensors.torch import load_file
from torch import nn

from nacl._checks import check_choice, expectation
from nacl.data import Case, Dataset, load_dataset
from nacl.evaluation import POST_HOC
from nacl.models import build_model
from nacl.runs import Run
from nacl.training import predict_logits

PROVENANCE = ("dataset", "data_fingerprint", "identity", "commit", "device_name")
"""What a row of a table carries from `run.json`, beside the fields of its `Run`."""


@dataclass(frozen=True)
class Result:
    """What a finished run left in its folder.

    Attributes:
        run: its values.
        folder: where it lies.
        info: `run.json`: values, identity, commit, versions, device, times.
        history: one row an epoch.
        cases: one row a test case and post-hoc calibration ("none", "temperature": the column `post_hoc`), with its
            metrics.
        bins: one row a post-hoc calibration, case, region and bin.
    """

    run: Run
    folder: Path
    info: dict
    history: pd.DataFrame
    cases: pd.DataFrame
    bins: pd.DataFrame

    def dataset(self) -> Dataset:
        """The data of this run, at its size."""
        return load_dataset(self.run.data, size=self.run.size)

    def model(self) -> nn.Module:
        """The network with the weights of its best epoch, on the CPU."""
        channels = len(self.info.get("channel_names", ["image"]))  # runs from before it was written had one
        model = build_model(self.run.model, channels, len(self.info["class_names"]), filters=self.run.filters)
        model.load_state_dict(load_file(self.folder / "weights.safetensors"))
        return model.eval()

    def predict(self, case: Case, *, post_hoc: str = "none") -> torch.Tensor:
        """Class probabilities (D, C, H, W) of a case, as they are, or after temperature scaling.

        Raises:
            ValueError: unknown `post_hoc`.
        """
        check_choice("post_hoc", post_hoc, POST_HOC)
        temperature = self.info["temperature"] if post_hoc == "temperature" else 1.0
        return (predict_logits(self.model(), case, device=self.run.device) / temperature).softmax(dim=1)


def finished(run: Run, runs: Path | None = None) -> Result | None:
    """The result of a run that was finished, or None."""
    folder = run.folder(runs)
    return replace(load_result(folder), run=run) if (folder / "run.json").exists() else None


def load_result(folder: Path) -> Result:
    """The result in a finished run's folder.

    Raises:
        FileNotFoundError: no finished run there.
        ValueError: a run from before each was tested with a temperature too.
    """
    if not (folder / "run.json").exists():
        raise FileNotFoundError(f"Expected a finished run in {folder}, got no run.json. Train it with `nacl train`.")
    info = json.loads((folder / "run.json").read_text())
    history, cases, bins = (pd.read_csv(folder / f"{name}.csv") for name in ("history", "metrics", "bins"))
    if "post_hoc" not in cases:
        got, remedy = f"an older one in {folder}", "Train it again, or move its folder away"
        raise ValueError(expectation("folder", "with a run of this version", got, remedy=remedy))
    return Result(Run(**info["run"]), folder, info, history, cases, bins)


def results_table(results: Sequence[Result]) -> pd.DataFrame:
    """One row a test case, post-hoc calibration and run: the fields of `Run`, the metrics, and where they come from.

    `method` names the loss and what was done after training, such as "ce" and "ce + temperature". The path of the data
    is left out: `dataset` and `data_fingerprint` say which they were, on any machine. A field that the run's loss does
    not take is empty. Two runs of one table may differ in any field; nothing is averaged here.
    """
    tables = []
    for result in results:
        used = result.run.values()
        values = {f.name: used.get(f.name) for f in fields(Run) if f.name not in ("data", "device")}
        scaled = result.cases["post_hoc"].map({"none": ""}).fillna(" + " + result.cases["post_hoc"])
        made = {name: result.info[name] for name in PROVENANCE}
        tables.append(result.cases.assign(method=result.run.loss + scaled, **values, **made))
    return pd.concat(tables, ignore_index=True)
