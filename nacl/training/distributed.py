"""Several processes that train one network together, as torchrun starts them; with one, everything here does nothing.

Each process has a copy of the network and takes its share of every batch. Its loss is scaled by its part of the pixels
that count, and the gradients are added up after the backward pass. The step is

- that of the whole batch, but for rounding, for a loss that is a mean over pixels: cross-entropy, NACL, CRaC and the
  like. SyncBatchNorm keeps that so, since its backward pass adds up the same scaled gradients; where a last batch has
  fewer samples than there are processes, it also sees the samples of the processes that have none, which do not count.
- near it, for a loss that is a mean over images (Dice, L1-ACE) where images differ in how many of their pixels count:
  an image's weight is its share's part of the pixels, not one over the number of images. Where none is ignored, it is
  that of the whole batch.
- another one, where batch normalisation sees each process's own share only (not on CUDA), and where dropout and
  augmentation are drawn, which each process does for itself.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from nacl._checks import expectation
from nacl.training.device import resolve_device

T = TypeVar("T")

PATIENCE = timedelta(days=1)  # what the first process does alone (testing a run, waiting for one) may take hours


def rank() -> int:
    """The number of this process, 0 for the first or only one."""
    return dist.get_rank() if _together() else 0


def world_size() -> int:
    """How many processes train together."""
    return dist.get_world_size() if _together() else 1


def _together() -> bool:
    return dist.is_available() and dist.is_initialized()


@contextmanager
def process_group(device: str) -> Iterator[None]:
    """The group of the processes that torchrun started: NCCL on CUDA, else gloo; one that is there already is used.

    Raises:
        ValueError: a device that this machine does not have.
    """
    if _together() or int(os.environ.get("WORLD_SIZE", 1)) == 1:
        yield
        return
    place = resolve_device(device)
    if place.type == "cuda":
        torch.cuda.set_device(place)
    dist.init_process_group("nccl" if place.type == "cuda" else "gloo", timeout=PATIENCE)
    try:
        yield
    finally:
        dist.destroy_process_group()


def from_first(function: Callable[[], T]) -> T:
    """What `function` gives in the first process, in all; the others wait. An error there ends all."""
    return gathered(lambda: function() if rank() == 0 else None)[0]


def gathered(function: Callable[[], T]) -> list[T]:
    """What `function` gives in each process, in all. An error in one ends all.

    Raises:
        RuntimeError: the error of another process; its own error is raised as it is.
    """
    if world_size() == 1:
        return [function()]
    found, error = None, None
    try:
        found = function()
    except Exception as raised:
        error = raised
    everything: list = [None] * world_size()
    dist.all_gather_object(everything, (found, None if error is None else f"{type(error).__name__}: {error}"))
    if error is not None:
        raise error
    for number, (_, message) in enumerate(everything):
        if message is not None:
            raise RuntimeError(f"Process {number} of {world_size()} ended with {message}")
    return [each for each, _ in everything]


class Share:
    """This process's part of each batch: every `world_size`-th sample, from its number on.

    Attributes:
        order: the indices of its samples, one batch after the other.
        batch_size: of them in a batch; the last one may be smaller.
        wholes: the sizes of the whole batches.
        counts: how many of its samples count in each; of a last batch too small for all processes that is 0 of 1.

    Raises:
        ValueError: fewer samples in a batch than processes.

    Example:
        >>> share = Share(torch.arange(5), 4)
        >>> share.order.tolist(), share.batch_size, share.wholes, share.counts
        ([0, 1, 2, 3, 4], 4, [4, 1], [4, 1])
    """

    def __init__(self, order: Tensor, batch_size: int) -> None:
        first, step = rank(), world_size()
        if batch_size < step:
            rule, remedy = f"of at least {step}, a sample for each process", "Raise it, or start fewer processes"
            raise ValueError(expectation("batch_size", rule, batch_size, remedy=remedy))
        wholes = order.split(batch_size)
        parts = [whole[first::step] for whole in wholes]
        self.wholes, self.counts = [len(whole) for whole in wholes], [len(part) for part in parts]
        self.batch_size = len(range(first, batch_size, step))
        self.order = torch.cat([part if len(part) else whole[:1] for part, whole in zip(parts, wholes, strict=True)])


def part_of(weight: Tensor) -> Tensor:
    """This process's weight over the sum of all, without waiting on a GPU; 0 where all are 0.

    To be known before the backward pass: a loss that is scaled by it gives gradients that need only be added up, as
    SyncBatchNorm does within its own.
    """
    weight = weight.float()
    total = weight.clone()
    dist.all_reduce(total)
    return weight / total.clamp(min=1)


def sum_up(parameters: Sequence[nn.Parameter], loss: Tensor, failed: bool) -> tuple[Tensor, Tensor]:
    """Replace each gradient by its sum over the processes, in one exchange without waiting on a GPU.

    Args:
        parameters: the same in all processes.
        loss: of this process's share of the batch, scaled by `part_of`.
        failed: whether this process has no gradients to give, since it raised an error.

    Returns:
        The loss of the whole batch, and how many processes failed.
    """
    grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
    loss = loss.detach().float()
    everything = torch.cat(
        [*(g.float().reshape(-1) for g in grads), loss.view(1), torch.full_like(loss.view(1), failed)]
    )
    dist.all_reduce(everything)
    sizes = [grad.numel() for grad in grads]
    for parameter, grad, total in zip(parameters, grads, everything.split([*sizes, 2]), strict=False):
        parameter.grad = grad.copy_(total.view(grad.shape))
    return everything[-2], everything[-1]


def agree(module: nn.Module) -> None:
    """Give all processes the first one's parameters and buffers."""
    if world_size() > 1:
        with torch.no_grad():
            for tensor in module.state_dict().values():
                whole = tensor.contiguous()
                dist.broadcast(whole, src=0)
                tensor.copy_(whole)


def with_shared_statistics(model: nn.Module, device: torch.device) -> nn.Module:
    """The model with batch normalisation over the whole batch, which PyTorch has on CUDA only; unchanged elsewhere."""
    if world_size() > 1 and device.type == "cuda":
        return nn.SyncBatchNorm.convert_sync_batchnorm(model)
    return model
