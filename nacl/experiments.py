"""What does a run: train, test, file."""

import json
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from filelock import FileLock, Timeout
from torch import nn
from tqdm.auto import tqdm

from nacl._checks import expectation
from nacl._files import whole_file, write_text
from nacl.data import SPLITS, Dataset, dataset_fingerprint, load_dataset
from nacl.data.augment import Augmentation
from nacl.data.case import Cases, StoredCase
from nacl.data.splits import share_of
from nacl.evaluation import evaluate, fitted_temperature
from nacl.losses import CombinedLoss, build_loss
from nacl.models import build_model
from nacl.provenance import check_source, provenance, source_hash
from nacl.results import Result, load_result
from nacl.runs import Run
from nacl.training import fit, save_tensors
from nacl.training.checkpoint import processes_of
from nacl.training.distributed import from_first, process_group, rank
from nacl.training.memory import memory_named

log = logging.getLogger(__name__)

CHECKPOINT = "checkpoint.safetensors"


def train_run(run: Run, *, runs: Path | None = None, on_epoch: Callable[[list[dict]], None] | None = None) -> Result:
    """Train, test and file a run, or read it if that was done before.

    A run that was killed goes on from its last epoch. Two processes may ask for the same run: one trains, the other
    waits and reads. `run.json` is written last, so a folder that has it is complete. Processes that torchrun started
    train together (see `nacl.training.fit`) in one folder of runs, to which the first of them writes.

    Args:
        run: what to do.
        runs: the folder of run folders, by default `runs_folder()`.
        on_epoch: called with the history after each epoch trained here.

    Raises:
        FileNotFoundError, ValueError: data or values that can't be used; files of the package that changed since it
            was imported.
        FloatingPointError: the loss is not finite.
        MemoryError: out of memory, with the fields of the run to lower.
        OSError: a file can't be written, or a checkpoint not read.
    """
    made_of = {
        "identity": run.identity(),
        "data_fingerprint": dataset_fingerprint(run.data),
        "source": source_hash(),
    }
    folder = run.folder(runs)
    folder.mkdir(parents=True, exist_ok=True)
    lower = ("batch_size", "patch" if run.patch else "size", "depth", "filters")
    with process_group(run.device), _run_lock(folder), memory_named(**{name: getattr(run, name) for name in lower}):
        if not from_first((folder / "run.json").exists):
            from_first(partial(_remove_leftovers, folder))
            _do(run, folder, made_of, on_epoch)
        return replace(load_result(folder), run=run)


def _do(run: Run, folder: Path, made_of: dict[str, str], on_epoch: Callable[[list[dict]], None] | None) -> None:
    """Train with all processes; test and file with the first one."""
    check_source()
    dataset = load_dataset(run.data, size=run.size)
    _check_splits(dataset)
    train = share_of(dataset.split("train"), run.share, run.seed)
    spacing, checkpoint = _median_spacing(train), folder / CHECKPOINT
    history, model = _train(run, dataset, train, spacing, folder, on_epoch)

    def test_and_file() -> None:
        where = {"device": run.device, "patch": run.patch_shape()}
        temperature = fitted_temperature(model, dataset.split("valid"), **where)
        where |= {"regions": dataset.regions, "temperature": temperature, "penalty_weight": run.biased_by()}
        cases, bins = evaluate(model, dataset.split("test"), dataset.num_classes, **where)
        validation, _ = evaluate(model, dataset.split("valid"), dataset.num_classes, **where)
        tables = {"history": history, "metrics": cases, "validation": validation, "bins": bins}
        for name, table in tables.items():
            _write_csv(folder / f"{name}.csv", table)
        save_tensors(folder / "weights.safetensors", model.state_dict())
        info = {
            "run": asdict(run),
            **made_of,
            "dataset": dataset.name,
            "class_names": dataset.class_names,
            "channel_names": dataset.channel_names,
            "regions": dict(dataset.regions),
            "unit": dataset.unit,
            "spacing": spacing,
            **provenance(run.device),
            "processes": processes_of(checkpoint),
            "temperature": temperature,
            "seconds": round(history["seconds"].sum(), 1),
            "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        write_text(folder / "run.json", json.dumps(info, indent=1))
        checkpoint.unlink()

    from_first(test_and_file)


def _remove_leftovers(folder: Path) -> None:
    for leftover in folder.glob(".writing-*"):  # of a process that was killed
        leftover.unlink()


def _median_spacing(cases: Cases) -> tuple[float, float, float]:
    """Of the cases' voxels, along D, H, W: what a 3D network's kernels are made for."""
    one_slice = slice(0, 1)
    entries = (entry.read(one_slice) if isinstance(entry, StoredCase) else entry for entry in cases.entries)
    return tuple(np.median([entry.spacing for entry in entries], axis=0).tolist())


def _check_splits(dataset: Dataset) -> None:
    empty = [split for split in SPLITS if not dataset.split(split)]
    if empty:
        remedy = "Prepare it again with a --split-file that gives each some patients"
        raise ValueError(
            expectation("data", "with cases in each split", f"none in {', '.join(empty)}", dataset.name, remedy)
        )


@contextmanager
def _run_lock(folder: Path) -> Iterator[None]:
    """The right to write to a run's folder, which the first of several processes holds for all; says so where it has to
    wait for it.
    """
    if rank() > 0:
        yield
        return
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
    title = f"{run.loss} on {Path(run.data).name}"
    with tqdm(total=run.epochs, unit="epoch", desc=title, disable=int(os.environ.get("RANK", 0)) > 0) as bar:

        def show(history: list[dict]) -> None:
            last = history[-1]
            bar.set_postfix(loss=f"{last['loss']:.4f}", valid_dice=f"{last['valid_dice']:.3f}")
            bar.update(last["epoch"] - bar.n)

        yield show


def _train(
    run: Run,
    dataset: Dataset,
    train: Cases,
    spacing: tuple[float, float, float],
    folder: Path,
    on_epoch: Callable[[list[dict]], None] | None,
) -> tuple[pd.DataFrame, nn.Module]:
    channels = len(dataset.channel_names)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(run.seed)
        model = build_model(run.model, channels, dataset.num_classes, **run.model_options(spacing))

    def file_history(history: list[dict]) -> None:
        _write_csv(folder / "history.csv", pd.DataFrame(history))
        if on_epoch is not None:
            on_epoch(history)

    loss = build_loss(run.loss, num_classes=dataset.num_classes, **run.loss_options())
    schedule = run.penalty_schedule()
    weigh = None
    if schedule.kind != "constant" and "penalty_weight" in run.loss_options():
        weigh = lambda epoch: loss.set(penalty_weight=schedule(epoch))  # noqa: E731

    history = fit(
        model,
        _with_auxiliaries(loss, run),
        train,
        dataset.split("valid"),
        dataset.num_classes,
        epochs=run.epochs,
        batch_size=run.batch_size,
        learning_rate=run.learning_rate,
        seed=run.seed,
        augment=Augmentation() if run.augment else None,
        patch=run.patch_shape(),
        engine=run.engine,
        device=run.device,
        checkpoint=folder / CHECKPOINT,
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
