"""The paper's ablations as grids of runs, and what does a run: train, test, file."""

import itertools
import json
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, fields, replace
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd
import torch
from filelock import FileLock, Timeout
from torch import nn
from tqdm.auto import tqdm

from nacl._checks import check_choice, expectation
from nacl._files import whole_file, write_text
from nacl.data import SPLITS, Dataset, dataset_fingerprint, load_dataset
from nacl.data.augment import Augmentation
from nacl.data.load import EMBEDDED
from nacl.evaluation import evaluate, fitted_temperature
from nacl.losses import CombinedLoss, build_loss
from nacl.models import build_model
from nacl.provenance import provenance, source_hash
from nacl.results import Result, load_result
from nacl.runs import Run
from nacl.training import fit, save_tensors

log = logging.getLogger(__name__)


PROFILES = {
    # minutes on two CPU cores; "embedded" for what comes with the package, "benchmark" for folders
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
    base = PROFILES[profile]["embedded" if data in EMBEDDED else "benchmark"]
    base = {**base, "data": data, **fixed}
    runs = []
    for part in GRIDS[grid]:
        for values in itertools.product(*part.values()):
            runs += [Run(**{**base, **dict(zip(part, values, strict=True)), "seed": seed}) for seed in seeds]
    return runs


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
        _check_splits(dataset)
        history, model = _train(run, dataset, folder, on_epoch)
        temperature = fitted_temperature(model, dataset.split("valid"), device=run.device)
        cases, bins = evaluate(
            model,
            dataset.split("test"),
            dataset.num_classes,
            regions=dataset.regions,
            temperature=temperature,
            device=run.device,
        )
        for name, table in (("history", history), ("metrics", cases), ("bins", bins)):
            _write_csv(folder / f"{name}.csv", table)
        save_tensors(folder / "weights.safetensors", model.state_dict())
        info = {
            "run": asdict(run),
            "identity": identity,
            "dataset": dataset.name,
            "class_names": dataset.class_names,
            "channel_names": dataset.channel_names,
            "regions": dict(dataset.regions),
            "unit": dataset.unit,
            "data_fingerprint": fingerprint,
            "source": source,
            **provenance(run.device),
            "temperature": temperature,
            "seconds": round(history["seconds"].sum(), 1),
            "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        write_text(folder / "run.json", json.dumps(info, indent=1))
        (folder / "checkpoint.safetensors").unlink(missing_ok=True)
        return replace(load_result(folder), run=run)


def _check_splits(dataset: Dataset) -> None:
    empty = [split for split in SPLITS if not dataset.split(split)]
    if empty:
        remedy = "Prepare it again with a --split-file that gives each some patients"
        raise ValueError(
            expectation("data", "with cases in each split", f"none in {', '.join(empty)}", dataset.name, remedy)
        )


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
        model = build_model(run.model, len(dataset.channel_names), dataset.num_classes, filters=run.filters)

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
        augment=Augmentation() if run.augment else None,
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


def _write_csv(path: Path, table: pd.DataFrame) -> None:
    with whole_file(path) as temporary:
        table.to_csv(temporary, index=False)
