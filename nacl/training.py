"""Fit a network to cases, and predict cases with it."""

import json
import logging
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, nullcontext
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from nacl._checks import check_choice, check_integer, check_number, expectation
from nacl._files import whole_file
from nacl.data import Case
from nacl.data.augment import Augmentation
from nacl.data.slices import SlicesInFiles, SlicesInMemory, slices_of
from nacl.metrics import dice_score

DEVICES = ("auto", "cpu", "cuda", "mps")
LEARNING_RATE_DROP = 0.1  # after half of the epochs: the papers' StepLR(50, 0.1) of 100
PREDICTION_BATCH = 32

log = logging.getLogger(__name__)


def resolve_device(device: str) -> torch.device:
    """The device that `device` names; "auto" is CUDA where there is one, else MPS, else the CPU.

    Raises:
        ValueError: unknown name, or a device that this machine does not have.
    """
    check_choice("device", device, DEVICES)
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if device == "auto":
        device = next(name for name, found in there.items() if found)
    if not there[device]:
        remedy = "Use 'auto' or 'cpu'"
        raise ValueError(expectation("device", "to be one that this machine has", repr(device), remedy=remedy))
    return torch.device(device)


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
    device: str = "auto",
    checkpoint: Path | None = None,
    before_epoch: Callable[[int], None] | None = None,
    on_epoch: Callable[[list[dict]], None] | None = None,
) -> list[dict]:
    """Train `model` in place by the papers' protocol, and leave it with the weights of its best epoch.

    Adam at `learning_rate`, times 0.1 after half of the epochs; slices in a new order each epoch, without augmentation
    unless there is one; the best epoch is the one of highest validation Dice, the mean over classes (not over regions).
    On CUDA the network trains in bfloat16, with the loss in float32; it is evaluated in float32. All randomness of an
    epoch is a function of (seed, epoch), so that a run that was killed and one that was not end with the same numbers
    on one device. Training slices that do not fit in memory are read as they are needed, see `slices_of`; of the
    validation cases one is in memory at a time.

    Args:
        model: maps images (N, M, H, W) to logits (N, num_classes, H, W).
        loss: maps logits and labels (N, H, W) to a number. One with `observe` and `update` (`CRaCLoss`) learns from
            the validation cases after each epoch; one with `reads_image` is given the image too.
        train: cases to learn from; all their slices have one size.
        valid: cases to choose the epoch by.
        num_classes: C.
        epochs: passes over the training slices.
        batch_size: slices in a step.
        learning_rate: of Adam, positive.
        seed: of the order of slices, of what is random in the network, and of the augmentation.
        augment: random changes of the training slices.
        device: one of `DEVICES`.
        checkpoint: file that is read if it exists and written after each epoch.
        before_epoch: called with the number of the epoch, from 0, before it begins; a schedule's place.
        on_epoch: called with the history after each epoch that was trained here.

    Returns:
        One row an epoch: `epoch` (from 1), `loss`, `learning_rate`, `valid_dice`, `seconds`.

    Raises:
        ValueError: a number out of range, NaN in the loss on the CPU, logits of another shape than the labels.
        FloatingPointError: loss or logits of an epoch are not finite; the last checkpoint stays.
        OSError: the checkpoint can't be written.
    """
    check_integer("epochs", epochs, low=1)
    check_integer("batch_size", batch_size, low=1)
    check_number("learning_rate", learning_rate, low=0, open_low=True)
    place = resolve_device(device)
    model.to(place, memory_format=torch.channels_last)
    loss.to(place)
    optimizer = torch.optim.Adam(model.parameters(), lr=learning_rate)
    history, best = _restore(checkpoint, model, loss, optimizer)
    slices = slices_of(train, place)

    tf32 = torch.backends.cudnn.allow_tf32  # the user's choice stays
    exact = torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=tf32)
    with torch.random.fork_rng(devices=[place] if place.type == "cuda" else []), exact:
        for epoch in range(len(history), epochs):
            start = time.perf_counter()
            torch.manual_seed(_epoch_seed(seed, epoch))
            for group in optimizer.param_groups:
                group["lr"] = learning_rate * (LEARNING_RATE_DROP if epoch >= math.ceil(epochs / 2) else 1)
            if before_epoch is not None:
                before_epoch(epoch)
            with closing(_batches(slices, batch_size, augment, _epoch_seed(seed, epoch, 1))) as batches:
                mean_loss = _train_epoch(model, loss, optimizer, batches, place)
            if not math.isfinite(mean_loss):
                raise FloatingPointError(
                    f"Expected a finite loss, got {mean_loss} in epoch {epoch + 1}. "
                    "Lower learning_rate or penalty_weight."
                )
            valid_dice = _validation_dice(model, loss, valid, num_classes, place)
            history.append(
                {
                    "epoch": epoch + 1,
                    "loss": mean_loss,
                    "learning_rate": optimizer.param_groups[0]["lr"],
                    "valid_dice": valid_dice,
                    "seconds": time.perf_counter() - start,
                }
            )
            if valid_dice >= max(row["valid_dice"] for row in history):
                best = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
            if checkpoint is not None:
                _save(checkpoint, model, loss, optimizer, history, best)
            if on_epoch is not None:
                on_epoch(history)
    model.load_state_dict(best)
    return history


def predict(model: nn.Module, case: Case, *, device: str = "auto") -> Tensor:
    """Class probabilities (D, C, H, W) of a case, float32 on the CPU.

    Raises:
        ValueError: unknown or missing device.
    """
    return predict_logits(model, case, device=device).softmax(dim=1)


def predict_logits(model: nn.Module, case: Case, *, device: str = "auto") -> Tensor:
    """Logits (D, C, H, W) of a case, float32 on the CPU.

    Raises:
        ValueError: unknown or missing device.
    """
    place = resolve_device(device)
    model.to(place, memory_format=torch.channels_last)
    return torch.cat([logits.cpu() for logits in _logits(model, case, place)])


def _batches(
    slices: SlicesInMemory | SlicesInFiles, batch_size: int, augment: Augmentation | None, seed: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """All slices in a random order of torch's global generator; the augmentation draws from its own, by `seed`."""
    generator = torch.Generator().manual_seed(seed)
    with closing(slices.batches(torch.randperm(len(slices)), batch_size)) as batches:
        for image, label in batches:
            yield (image, label) if augment is None else augment(image, label, generator)


def _train_epoch(
    model: nn.Module,
    loss: nn.Module,
    optimizer: torch.optim.Optimizer,
    batches: Iterator[tuple[Tensor, Tensor]],
    device: torch.device,
) -> float:
    model.train()
    loss_reads_image = getattr(loss, "reads_image", False)
    total, count = torch.zeros((), device=device), 0
    for image, label in batches:
        image, label = image.to(memory_format=torch.channels_last), label.long()
        optimizer.zero_grad(set_to_none=True)
        with _autocast(device):
            logits = model(image)
        batch_loss = loss(logits, label, image=image) if loss_reads_image else loss(logits, label)
        batch_loss.backward()
        optimizer.step()
        total += batch_loss.detach() * len(image)
        count += len(image)
    return total.item() / count


@torch.inference_mode()
def _logits(model: nn.Module, case: Case, device: torch.device) -> list[Tensor]:
    model.eval()
    images = torch.from_numpy(case.image).movedim(0, 1)
    batches = []
    for image in images.split(PREDICTION_BATCH):
        batches.append(model(image.to(device, memory_format=torch.channels_last)))
    return batches


def _validation_dice(
    model: nn.Module, loss: nn.Module, cases: Sequence[Case], num_classes: int, device: torch.device
) -> float:
    """Mean over cases of the mean Dice of the foreground classes that the case or its prediction has.

    A loss that learns from validation sees the same logits.
    """
    learns = hasattr(loss, "observe")

    def scores_of(case: Case) -> NDArray:
        logits = torch.cat(_logits(model, case, device))
        if not logits.isfinite().all():
            raise FloatingPointError("Expected finite logits in validation, got NaN or infinity. Lower learning_rate.")
        if learns:
            loss.observe(logits, torch.from_numpy(case.label).to(device))
        return dice_score(logits.argmax(dim=1).cpu().numpy(), case.label, num_classes)

    per_class = np.array([*map(scores_of, cases)])  # map lets a case go before it asks for the next
    if learns and len(cases):
        loss.update()
    per_case = [np.nanmean(row) for row in per_class if not np.isnan(row).all()]
    return float(np.mean(per_case)) if per_case else 0.0


def _autocast(device: torch.device) -> torch.autocast | nullcontext:
    return torch.autocast("cuda", dtype=torch.bfloat16) if device.type == "cuda" else nullcontext()


def _epoch_seed(*numbers: int) -> int:
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> 1)


def _save(
    path: Path,
    model: nn.Module,
    loss: nn.Module,
    optimizer: torch.optim.Optimizer,
    history: list[dict],
    best: dict[str, Tensor],
) -> None:
    tensors = {f"model/{name}": tensor for name, tensor in model.state_dict().items()}
    tensors |= {f"loss/{name}": tensor for name, tensor in loss.state_dict().items()}
    tensors |= {f"best/{name}": tensor for name, tensor in best.items()}
    for index, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer/{index}/{name}": tensor for name, tensor in state.items()}
    save_tensors(path, tensors, {"history": json.dumps(history)})


def save_tensors(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str] | None = None) -> None:
    """Write named tensors as safetensors, all or nothing."""
    with whole_file(path) as temporary:
        try:
            save_file({name: t.detach().cpu().contiguous() for name, t in tensors.items()}, temporary, metadata)
        except SafetensorError as error:
            raise OSError(None, str(error)) from error


def _restore(
    path: Path | None, model: nn.Module, loss: nn.Module, optimizer: torch.optim.Optimizer
) -> tuple[list[dict], dict[str, Tensor]]:
    """Put a checkpoint's state into model, loss and optimiser; its history and best weights, none without a file."""
    if path is None or not path.exists():
        return [], {}
    try:
        with safe_open(path, "pt") as stored:
            tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118, not a mapping
            history = json.loads(stored.metadata()["history"])
        shapes = {name: tensor.shape for name, tensor in tensors.items()}
        if shapes != _checkpoint_shapes(model, loss):
            raise ValueError("its tensors are not those of this network")
    except (SafetensorError, OSError, KeyError, TypeError, ValueError, RuntimeError) as error:
        aside = path.with_suffix(".broken")
        path.replace(aside)
        log.warning("Checkpoint %s can't be used (%s); set aside as %s, training starts again.", path, error, aside)
        return [], {}
    model.load_state_dict(_under("model/", tensors))
    loss.load_state_dict(_under("loss/", tensors))
    state: dict[int, dict[str, Tensor]] = {}
    for key, tensor in _under("optimizer/", tensors).items():
        index, name = key.split("/")
        state.setdefault(int(index), {})[name] = tensor
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
    device = next(model.parameters()).device
    return history, {name: tensor.to(device) for name, tensor in _under("best/", tensors).items()}


def _checkpoint_shapes(model: nn.Module, loss: nn.Module) -> dict[str, torch.Size]:
    """The names and shapes of the tensors in a whole checkpoint of `model` and `loss`."""
    shapes = {f"loss/{name}": tensor.shape for name, tensor in loss.state_dict().items()}
    for name, tensor in model.state_dict().items():
        shapes |= {f"model/{name}": tensor.shape, f"best/{name}": tensor.shape}
    for index, parameter in enumerate(model.parameters()):
        adam = {"step": torch.Size(), "exp_avg": parameter.shape, "exp_avg_sq": parameter.shape}
        shapes |= {f"optimizer/{index}/{name}": shape for name, shape in adam.items()}
    return shapes


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
