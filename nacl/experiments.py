"""A run is a set of plain values; what it gives lies in a folder that is named after them."""

import hashlib
import itertools
import json
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd
import torch
from filelock import FileLock, Timeout
from safetensors.torch import load_file
from torch import nn
from tqdm.auto import tqdm

from nacl._checks import check_choice, check_integer, check_number, expectation
from nacl._files import whole_file, write_text
from nacl.data import Case, Dataset, dataset_fingerprint, dataset_name, load_dataset
from nacl.data.load import PROJECT_ROOT
from nacl.evaluation import evaluate
from nacl.losses import LAGRANGIANS, LOSSES, PENALTIES, SCHEDULES, CombinedLoss, Schedule, build_loss, keywords
from nacl.models import MODELS, build_model
from nacl.priors import BORDERS, PRIORS
from nacl.provenance import provenance, source_hash
from nacl.training import DEVICES, fit, predict, save_tensors

log = logging.getLogger(__name__)


def _parameter(default: object, help: str, **metadata: object):
    return field(default=default, metadata={"help": help, **metadata})


@dataclass(frozen=True)
class Run:
    """Everything that decides the numbers of one training; the parameters of `notebooks/02_train`, name for name.

    Raises:
        ValueError: an unknown name (the nearest is suggested) or a number out of range, when it is made.
        TypeError: a value of another type.
    """

    loss: str = _parameter("nacl", "training loss", choices=LOSSES)
    penalty_weight: float = _parameter(
        0.1, "lambda of NACL, MbLS, ECP; lambda_paper = penalty_weight / number of classes"
    )
    schedule: str = _parameter("constant", "of penalty_weight over the epochs", choices=SCHEDULES)
    schedule_end: float = _parameter(0.0, "last penalty_weight of a linear schedule, largest of a step schedule")
    penalty: str = _parameter("l1", "what a distance costs (NACL, MbLS)", choices=PENALTIES)
    delta: float = _parameter(1.0, "where the Huber penalty turns linear (NACL, MbLS)")
    prior: str = _parameter("mean", "what tau is (NACL)", choices=PRIORS)
    kernel_size: int = _parameter(3, "width of the window in pixels, odd (SVLS, NACL, CRaC)")
    sigma: float = _parameter(1.0, "standard deviation of Gaussian windows in pixels (SVLS, NACL)")
    border: str = _parameter("inside", "what counts beyond the image", choices=BORDERS)
    softmax: bool = _parameter(False, "constrain the softmax instead of the logits (NACL)")
    margin: float = _parameter(10.0, "by how much logits may differ (MbLS, CRaC)")
    lagrangian: str = _parameter("phr", "penalty whose multipliers CRaC learns", choices=LAGRANGIANS)
    smoothing: float = _parameter(0.1, "alpha of label smoothing")
    gamma: float = _parameter(3.0, "exponent of the focal loss")
    dice_weight: float = _parameter(0.0, "weight of a soft Dice loss that is added")
    l1_ace_weight: float = _parameter(0.0, "weight of the L1-ACE loss that is added")
    model: str = _parameter("unet", "network", choices=MODELS)
    filters: int = _parameter(16, "channels of the network at full resolution")
    data: str = _parameter("phantom", "'phantom', or the folder of a benchmark")
    size: int = _parameter(64, "height and width of a slice in pixels, a multiple of 32")
    epochs: int = _parameter(16, "passes over the training slices")
    batch_size: int = _parameter(4, "slices in a step")
    learning_rate: float = _parameter(1e-3, "of Adam; times 0.1 after half of the epochs")
    seed: int = _parameter(0, "of weights and order of slices")
    device: str = _parameter("auto", "where to train; not part of the run's identity", choices=DEVICES)

    def __post_init__(self) -> None:
        for f in fields(self):
            value = getattr(self, f.name)
            if f.type is float and isinstance(value, int) and not isinstance(value, bool):
                object.__setattr__(self, f.name, float(value))
            elif type(value) is not f.type:
                raise TypeError(expectation(f.name, f"of type {f.type.__name__}", repr(value)))
        check_choice("loss", self.loss, LOSSES)
        check_choice("model", self.model, MODELS)
        check_choice("device", self.device, DEVICES)
        for name in ("filters", "epochs", "batch_size", "size"):
            check_integer(name, getattr(self, name), low=1)
        check_integer("seed", self.seed, low=0)
        check_number("learning_rate", self.learning_rate, low=0, open_low=True)
        if self.size % 32:
            near = max(32, round(self.size / 32) * 32)
            raise ValueError(expectation("size", "to be a multiple of 32", self.size, remedy=f"Use {near}"))
        check_number("dice_weight", self.dice_weight, low=0)
        check_number("l1_ace_weight", self.l1_ace_weight, low=0)
        for name in LOSSES:  # also the options that this run's loss does not take: a typing error is one everywhere
            build_loss(name, num_classes=2, **self.loss_options(name))
        check_number("schedule_end", self.schedule_end, low=0)
        self.penalty_schedule()(0)

    def loss_options(self, loss: str | None = None) -> dict[str, object]:
        """The fields that a loss takes, by default this run's; the others do not touch it."""
        known = keywords(LOSSES[loss or self.loss])
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name in known}

    def penalty_schedule(self) -> Schedule:
        """penalty_weight as a function of the epoch."""
        check_choice("schedule", self.schedule, SCHEDULES)
        return Schedule(self.penalty_weight, self.schedule, end=self.schedule_end, epochs=self.epochs)

    def values(self) -> dict[str, object]:
        """What this run depends on: its fields, but for `device`, the path of the data (its content counts, see
        `identity`) and the options that its loss does not take.
        """
        values = asdict(self)
        del values["device"], values["data"]
        used = self.loss_options()
        unused = {option for loss in LOSSES.values() for option in keywords(loss)} - set(used)
        if "penalty_weight" not in used:
            unused |= {"schedule", "schedule_end"}
        elif self.schedule == "constant":
            unused.add("schedule_end")
        return {name: value for name, value in values.items() if name not in unused}

    def identity(self) -> str:
        """A hash of the values, the package's source and the data's content (not its path)."""
        values = {**self.values(), "data": dataset_fingerprint(self.data), "source": source_hash()}
        return hashlib.blake2b(json.dumps(values, sort_keys=True).encode(), digest_size=6).hexdigest()

    def folder(self, runs: Path | None = None) -> Path:
        """Where this run's files are, under `runs` (by default `runs_folder()`)."""
        return (runs or runs_folder()) / f"{self.loss}-{dataset_name(self.data)}-{self.identity()}"


PROFILES = {
    # minutes on two CPU cores; "embedded" for the phantom, "benchmark" for folders
    "quick": {
        "embedded": {"size": 64, "filters": 16, "epochs": 16, "batch_size": 4},
        "benchmark": {"size": 96, "filters": 16, "epochs": 12, "batch_size": 4},
    },
    # the papers' protocol, for a GPU
    "full": {
        "embedded": {"size": 96, "filters": 32, "epochs": 100, "batch_size": 4},
        "benchmark": {"size": 192, "filters": 32, "epochs": 100, "batch_size": 4},
    },
}

GRIDS = {
    "main": [{"loss": ["ce"]}, {"loss": ["svls"]}, {"loss": ["nacl"]}],
    "penalty-weight": [{"loss": ["nacl"], "penalty_weight": [0.01, 0.03, 0.1, 0.3, 1.0]}],
    "kernel-size": [{"loss": ["svls", "nacl"], "kernel_size": [3, 5, 7, 9]}],
    "family": [
        {"loss": ["ce", "label_smoothing", "focal", "ecp", "svls", "mbls", "nacl", "crac"]},
        {"loss": ["ce"], "dice_weight": [1.0], "l1_ace_weight": [0.0, 1.0]},
    ],
    "margin": [{"loss": ["mbls"], "margin": [3.0, 5.0, 8.0, 10.0, 15.0]}],
    "prior": [{"loss": ["nacl"], "prior": ["mean", "gaussian", "max", "min", "median", "mode"]}],
    "penalty": [{"loss": ["nacl"], "penalty": ["l1", "l2", "huber"], "softmax": [False, True]}],
    "model": [{"loss": ["ce", "svls", "nacl"], "model": ["unet", "smp.Unet"]}],
}


PROVENANCE = ("dataset", "data_fingerprint", "identity", "commit", "device_name")
"""What a row of a table carries from `run.json`, beside the fields of its `Run`."""


def plan(
    grid: str, *, profile: str = "quick", data: str = "phantom", seeds: Sequence[int] = (0,), **fixed: object
) -> list[Run]:
    """The runs of a grid: all combinations of its values, for each seed.

    Args:
        grid: a key of `GRIDS`.
        profile: a key of `PROFILES`.
        data: as `Run.data`.
        seeds: one run each.
        fixed: fields of `Run` that override the profile's.

    Raises:
        ValueError: unknown `grid`, `profile` or field, values that `Run` refuses.

    Example:
        >>> [(run.loss, run.seed) for run in plan("main", seeds=[0, 1])]
        [('ce', 0), ('ce', 1), ('svls', 0), ('svls', 1), ('nacl', 0), ('nacl', 1)]
    """
    check_choice("grid", grid, GRIDS)
    check_choice("profile", profile, PROFILES)
    for name in fixed:
        check_choice("field", name, [f.name for f in fields(Run)])
        if name == "seed" or any(name in part for part in GRIDS[grid]):
            remedy = "Choose another grid, or leave it out"
            raise ValueError(expectation("fixed", f"without what the grid {grid!r} varies", name, remedy=remedy))
    base = PROFILES[profile]["embedded" if data == "phantom" else "benchmark"]
    base = {**base, "data": data, **fixed}
    runs = []
    for part in GRIDS[grid]:
        for values in itertools.product(*part.values()):
            runs += [Run(**{**base, **dict(zip(part, values, strict=True)), "seed": seed}) for seed in seeds]
    return runs


def runs_folder() -> Path:
    """$NACL_RUNS, else `runs` beside the package where that is a checkout, else `runs` in the working directory."""
    if "NACL_RUNS" in os.environ:
        return Path(os.environ["NACL_RUNS"]).absolute()
    checkout = (PROJECT_ROOT / "pyproject.toml").exists()
    return (PROJECT_ROOT if checkout else Path.cwd()) / "runs"


@dataclass(frozen=True)
class Result:
    """What a finished run left in its folder.

    Attributes:
        run: its values.
        folder: where it lies.
        info: `run.json`: values, identity, commit, versions, device, times.
        history: one row an epoch.
        cases: one row a test case, with its metrics.
        bins: one row a region and bin, summed over the test cases.
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
        model = build_model(self.run.model, 1, len(self.info["class_names"]), filters=self.run.filters)
        model.load_state_dict(load_file(self.folder / "weights.safetensors"))
        return model.eval()

    def predict(self, case: Case) -> torch.Tensor:
        """Class probabilities (D, C, H, W) of a case."""
        return predict(self.model(), case, device=self.run.device)


def finished(run: Run, runs: Path | None = None) -> Result | None:
    """The result of a run that was finished, or None."""
    folder = run.folder(runs)
    return replace(load_result(folder), run=run) if (folder / "run.json").exists() else None


def load_result(folder: Path) -> Result:
    """The result in a finished run's folder.

    Raises:
        FileNotFoundError: no finished run there.
    """
    if not (folder / "run.json").exists():
        raise FileNotFoundError(f"Expected a finished run in {folder}, got no run.json. Train it with `nacl train`.")
    info = json.loads((folder / "run.json").read_text())
    tables = (pd.read_csv(folder / f"{name}.csv") for name in ("history", "metrics", "bins"))
    return Result(Run(**info["run"]), folder, info, *tables)


def train_run(run: Run, *, runs: Path | None = None, on_epoch: Callable[[list[dict]], None] | None = None) -> Result:
    """Train, test and file a run, or read it if that was done before.

    A run that was killed goes on from its last epoch. Two processes may ask for the same run: one trains, the other
    waits and reads. `run.json` is written last, so a folder that has it is complete.

    Args:
        run: what to do.
        runs: the folder of run folders, by default `runs_folder()`.
        on_epoch: called with the history after each epoch trained here.

    Raises:
        FileNotFoundError, ValueError: data or values that can't be used.
        FloatingPointError: the loss is not finite.
        OSError: a file can't be written.
    """
    identity, source, fingerprint = run.identity(), source_hash(), dataset_fingerprint(run.data)
    folder = run.folder(runs)
    folder.mkdir(parents=True, exist_ok=True)
    with _run_lock(folder):
        if (folder / "run.json").exists():
            return replace(load_result(folder), run=run)
        for leftover in folder.glob(".writing-*"):  # of a process that was killed
            leftover.unlink()
        dataset = load_dataset(run.data, size=run.size)
        history, model = _train(run, dataset, folder, on_epoch)
        cases, bins = evaluate(model, dataset.split("test"), dataset.num_classes, device=run.device)
        for name, table in (("history", history), ("metrics", cases), ("bins", bins)):
            _write_csv(folder / f"{name}.csv", table)
        save_tensors(folder / "weights.safetensors", model.state_dict())
        info = {
            "run": asdict(run),
            "identity": identity,
            "dataset": dataset.name,
            "class_names": dataset.class_names,
            "unit": dataset.unit,
            "data_fingerprint": fingerprint,
            "source": source,
            **provenance(run.device),
            "seconds": round(history["seconds"].sum(), 1),
            "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        write_text(folder / "run.json", json.dumps(info, indent=1))
        (folder / "checkpoint.safetensors").unlink(missing_ok=True)
        return replace(load_result(folder), run=run)


@contextmanager
def _run_lock(folder: Path) -> Iterator[None]:
    """The right to write to a run's folder; says so where another process has it."""
    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(blocking=False)
    except Timeout:
        log.warning("Another process does the run in %s; waiting for it.", folder)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


@contextmanager
def epoch_bar(run: Run) -> Iterator[Callable[[list[dict]], None]]:
    """A progress bar over the epochs of a run; what it gives is the `on_epoch` of `train_run`."""
    with tqdm(total=run.epochs, unit="epoch", desc=f"{run.loss} on {Path(run.data).name}") as bar:

        def show(history: list[dict]) -> None:
            last = history[-1]
            bar.set_postfix(loss=f"{last['loss']:.4f}", valid_dice=f"{last['valid_dice']:.3f}")
            bar.update(last["epoch"] - bar.n)

        yield show


def _train(
    run: Run, dataset: Dataset, folder: Path, on_epoch: Callable[[list[dict]], None] | None
) -> tuple[pd.DataFrame, nn.Module]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(run.seed)
        model = build_model(run.model, 1, dataset.num_classes, filters=run.filters)

    def file_history(history: list[dict]) -> None:
        _write_csv(folder / "history.csv", pd.DataFrame(history))
        if on_epoch is not None:
            on_epoch(history)

    loss = build_loss(run.loss, num_classes=dataset.num_classes, **run.loss_options())
    schedule = run.penalty_schedule()

    def weigh(epoch: int) -> None:
        if "penalty_weight" in run.loss_options():
            loss.set(penalty_weight=schedule(epoch))

    history = fit(
        model,
        _with_auxiliaries(loss, run),
        dataset.split("train"),
        dataset.split("valid"),
        dataset.num_classes,
        epochs=run.epochs,
        batch_size=run.batch_size,
        learning_rate=run.learning_rate,
        seed=run.seed,
        device=run.device,
        checkpoint=folder / "checkpoint.safetensors",
        before_epoch=weigh,
        on_epoch=file_history,
    )
    return pd.DataFrame(history), model


def _with_auxiliaries(loss: nn.Module, run: Run) -> nn.Module:
    """The loss of a run, and what is added to it."""
    added = {name: weight for name, weight in (("dice", run.dice_weight), ("l1_ace", run.l1_ace_weight)) if weight}
    if not added:
        return loss
    return CombinedLoss(loss, *(build_loss(name) for name in added), weights=(1.0, *added.values()))


def results_table(results: Sequence[Result]) -> pd.DataFrame:
    """One row a test case and run: the fields of `Run`, the case's metrics, and where the numbers come from.

    The path of the data is left out: `dataset` and `data_fingerprint` say which they were, on any machine. A field that
    the run's loss does not take is empty. Two runs of one table may differ in any field; nothing is averaged here.
    """
    tables = []
    for result in results:
        used = result.run.values()
        values = {f.name: used.get(f.name) for f in fields(Run) if f.name not in ("data", "device")}
        tables.append(result.cases.assign(**values, **{name: result.info[name] for name in PROVENANCE}))
    return pd.concat(tables, ignore_index=True)


def _write_csv(path: Path, table: pd.DataFrame) -> None:
    with whole_file(path) as temporary:
        table.to_csv(temporary, index=False)
