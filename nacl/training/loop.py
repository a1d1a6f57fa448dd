"""The training of a network, epoch by epoch."""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from nacl._checks import check_choice, check_integer, check_number, expectation
from nacl.data import Case
from nacl.data.augment import Augmentation
from nacl.data.patches import Patches, patches_of
from nacl.data.slices import SlicesInFiles, SlicesInMemory, slices_of
from nacl.training import distributed
from nacl.training.checkpoint import Progress, restore_checkpoint, save_checkpoint
from nacl.training.device import placed, resolve_device
from nacl.training.memory import memory_named
from nacl.training.step import ENGINES, Step
from nacl.training.validation import Validation

LEARNING_RATE_DROP = 0.1  # after half of the epochs: the papers' StepLR(50, 0.1) of 100


def fit(
    model: nn.Module,
    loss: nn.Module,
    train: Sequence[Case],
    valid: Sequence[Case],
    num_classes: int,
    *,
    epochs: int,
    batch_size: int,
    learning_rate: float = 1e-3,
    seed: int = 0,
    augment: Augmentation | None = None,
    patch: tuple[int, int, int] | None = None,
    engine: str = "eager",
    device: str = "auto",
    checkpoint: Path | None = None,
    before_epoch: Callable[[int], None] | None = None,
    on_epoch: Callable[[list[dict]], None] | None = None,
) -> list[dict]:
    """Train `model` in place by the papers' protocol, and leave it with the weights of its best epoch.

    Adam at `learning_rate`, times 0.1 after half of the epochs; slices in a new order each epoch, without augmentation
    unless there is one; the best epoch is the one of highest validation Dice, the mean over classes (not over regions).
    With `patch` the network is a 3D one: it trains on patches at random places, as many in an epoch as cover the
    volumes once, and validates by sliding windows.

    On CUDA the network trains in bfloat16, with the loss in float32; it is evaluated in float32. All randomness of an
    epoch is a function of (seed, epoch), so that a run that was killed and one that was not end with the same numbers,
    with one device and one number of processes; a checkpoint of another number is gone on from with a warning. Training
    slices that do not fit in memory are read as they are needed, see `slices_of`; of the validation cases, unless they
    are small, one is in memory at a time.

    In a process group of torch.distributed each process takes its share of every batch, and all end with the same
    weights; `on_epoch` is called, and the checkpoint read and written, in the first one only. Of a loss that is a mean
    over pixels, each step is that of the whole batch but for rounding; of one that is a mean over images (Dice, L1-ACE)
    only where the images have equally many pixels that count, else it is near it. Batch normalisation sees the whole
    batch on CUDA; elsewhere each process its own share. Augmentation and dropout draw for each process alone.

    Args:
        model: maps images (N, M, H, W) to logits (N, num_classes, H, W), or with `patch` (N, M, d, h, w) to
            (N, num_classes, d, h, w).
        loss: maps logits and labels (N, H, W) to a number. One with `observe` and `update` (`CRaCLoss`) learns from
            the validation cases after each epoch; one with `reads_image` is given the image too.
        train: cases to learn from; all their slices have one size, unless there is a `patch`.
        valid: cases to choose the epoch by.
        num_classes: C.
        epochs: passes over the training slices.
        batch_size: slices, or patches, in a step; in all processes together.
        learning_rate: of Adam, positive.
        seed: from 0 to 2**32 - 1; of the order of slices, of what is random in the network, and of the augmentation.
        augment: random changes of the training slices.
        patch: (d, h, w) in voxels; None for slices.
        engine: one of `ENGINES`: "compile" is torch.compile, on CUDA with CUDA graphs; its numbers differ in rounding.
        device: one of `DEVICES`.
        checkpoint: file that is read if it exists and written after each epoch.
        before_epoch: called with the number of the epoch, from 0, before it begins; a schedule's place.
        on_epoch: called with the history after each epoch that was trained here.

    Returns:
        One row an epoch: `epoch` (from 1), `loss`, `learning_rate`, `valid_dice`, `seconds`.

    Raises:
        ValueError: a number out of range; a model that does not take the images, or gives logits of another shape
            than the labels.
        FloatingPointError: a loss or a validation logit is not finite, at which epoch and step; the last checkpoint
            stays.
        MemoryError: out of memory, with the parameters to lower.
        OSError: the checkpoint can't be read or written.
        RuntimeError: another process ended with an error.
    """
    check_integer("epochs", epochs, low=1)
    check_integer("batch_size", batch_size, low=1)
    check_number("learning_rate", learning_rate, low=0, open_low=True)
    check_integer("seed", seed, low=0)
    if seed >= 2**32:  # NumPy's SeedSequence takes it as two words, as it takes a seed and an epoch
        raise ValueError(expectation("seed", "below 2**32", seed))
    check_choice("engine", engine, ENGINES)
    place = resolve_device(device)
    depends_on = {"batch_size": batch_size, "size" if patch is None else "patch": _shape(train, patch)}
    with memory_named(**depends_on), _reproducible(place):
        model = distributed.with_shared_statistics(placed(model, place, patch), place)
        loss.to(place)
        optimizer = torch.optim.Adam(model.parameters(), lr=learning_rate, fused=place.type == "cuda" or None)
        progress = _resumed(checkpoint, model, loss, optimizer)
        options = {"patch": patch, "engine": engine, "scheduled": before_epoch is not None, "device": place}
        step = Step(model, loss, optimizer, num_classes, **options)
        validation = Validation(valid, num_classes, place, patch)
        source = slices_of(train, place) if patch is None else patches_of(train, place, patch)
        history = progress.history
        for epoch in range(len(history), epochs):
            start = time.perf_counter()
            torch.manual_seed(_epoch_seed(seed, epoch))
            for group in optimizer.param_groups:
                group["lr"] = learning_rate * (LEARNING_RATE_DROP if epoch >= math.ceil(epochs / 2) else 1)
            if before_epoch is not None:
                before_epoch(epoch)
            step.start_epoch(epoch)
            _train_epoch(step, source, batch_size, augment, seed)
            row = {"epoch": epoch + 1, "loss": step.finish(), "learning_rate": optimizer.param_groups[0]["lr"]}
            distributed.agree(model)  # of batch normalisation, each process has statistics of its own
            row["valid_dice"] = validation.dice(model, loss, epoch)
            distributed.agree(loss)
            history.append({**row, "seconds": time.perf_counter() - start})
            if row["valid_dice"] >= max(past["valid_dice"] for past in history):
                progress.best = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
            distributed.from_first(lambda: _keep(checkpoint, model, loss, optimizer, progress, on_epoch))
    model.load_state_dict(progress.best)
    return history


def _shape(train: Sequence[Case], patch: tuple[int, int, int] | None) -> str:
    """Of a slice or patch, for a message."""
    shape = tuple(patch) if patch is not None else train[0].label.shape[1:] if len(train) else ()
    return " x ".join(map(str, shape))


@contextmanager
def _reproducible(device: torch.device) -> Iterator[None]:
    """The same numbers from the same seeds, and the caller's random state and settings as they were."""
    tf32 = torch.backends.cudnn.allow_tf32  # the user's choice stays
    exact = torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=tf32)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []), exact:
        yield


def _resumed(checkpoint: Path | None, model: nn.Module, loss: nn.Module, optimizer: torch.optim.Optimizer) -> Progress:
    """What the checkpoint has, in all processes."""
    if distributed.world_size() == 1:
        return restore_checkpoint(checkpoint, model, loss, optimizer)

    def restored() -> tuple[list[dict], list[int], dict[str, Tensor], dict]:
        progress = restore_checkpoint(checkpoint, model, loss, optimizer)
        tensors = tree_map_only(Tensor, Tensor.cpu, (progress.best, optimizer.state_dict()))
        return progress.history, progress.processes, *tensors

    history, processes, best, state = distributed.from_first(restored)
    for module in (model, loss):
        distributed.agree(module)
    optimizer.load_state_dict(state)
    device = next(model.parameters()).device
    return Progress(history, {name: tensor.to(device) for name, tensor in best.items()}, processes)


def _train_epoch(
    step: Step,
    source: SlicesInMemory | SlicesInFiles | Patches,
    batch_size: int,
    augment: Augmentation | None,
    seed: int,
) -> None:
    """Every sample once, in a random order of torch's global generator; the augmentation draws from its own."""
    mine = [distributed.rank()] if distributed.rank() else []  # the first draws what an only process would
    share = distributed.Share(torch.randperm(len(source)), batch_size)
    if mine:
        torch.manual_seed(_epoch_seed(seed, step.epoch, 3, *mine))
    generator = torch.Generator().manual_seed(_epoch_seed(seed, step.epoch, 1, *mine))
    epochs_source = source.drawn(_epoch_seed(seed, step.epoch, 2)) if isinstance(source, Patches) else source
    with closing(epochs_source.batches(share.order, share.batch_size)) as batches:
        for counts, whole in zip(share.counts, share.wholes, strict=True):
            with step.before():
                image, label = next(batches)
                if augment is not None:
                    image, label = augment(image, label, generator)
            step(image, label, counts=counts, whole=whole)


def _keep(
    checkpoint: Path | None,
    model: nn.Module,
    loss: nn.Module,
    optimizer: torch.optim.Optimizer,
    progress: Progress,
    on_epoch: Callable[[list[dict]], None] | None,
) -> None:
    if checkpoint is not None:
        save_checkpoint(checkpoint, model, loss, optimizer, progress)
    if on_epoch is not None:
        on_epoch(progress.history)


def _epoch_seed(*numbers: int) -> int:
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> 1)
