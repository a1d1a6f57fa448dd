"""Where to compute, and in which layout and precision."""

import os
from contextlib import nullcontext

import torch
from torch import nn

from nacl._checks import check_choice, expectation

DEVICES = ("auto", "cpu", "cuda", "mps")


def resolve_device(device: str) -> torch.device:
    """The device that `device` names; "auto" is CUDA where there is one, else MPS, else the CPU.

    Of several GPUs it is the one of this process's number on its machine, which torchrun gives as $LOCAL_RANK.

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
    local = int(os.environ.get("LOCAL_RANK", 0))
    if device != "cuda" or not local:
        return torch.device(device)
    if local >= torch.cuda.device_count():
        rule, remedy = "to be a GPU for each process", f"Use --nproc-per-node {torch.cuda.device_count()}"
        raise ValueError(expectation("device", rule, f"{torch.cuda.device_count()} GPUs", f"process {local}", remedy))
    return torch.device("cuda", local)


def placed(model: nn.Module, device: torch.device, patch: tuple[int, int, int] | None) -> nn.Module:
    """The model on the device, in the layout that its convolutions are fastest in."""
    model.to(device)
    axes, layout = 4 if patch is None else 5, memory_format(patch)
    for tensor in (*model.parameters(), *model.buffers()):
        if tensor.ndim == axes:  # a network may have others beside them, which no other layout fits
            tensor.data = tensor.data.to(memory_format=layout)
    return model


def memory_format(patch: tuple[int, int, int] | None) -> torch.memory_format:
    """Channels last, of slices or of 3D patches."""
    return torch.channels_last if patch is None else torch.channels_last_3d


def autocast(device: torch.device) -> torch.autocast | nullcontext:
    """bfloat16 on CUDA, float32 elsewhere."""
    return torch.autocast("cuda", dtype=torch.bfloat16) if device.type == "cuda" else nullcontext()
