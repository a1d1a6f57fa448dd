"""The whole state of a training in one file: read only if it is whole, and of this network and optimiser."""

import json
import logging
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from nacl._checks import expectation
from nacl._files import whole_file
from nacl.training.distributed import world_size

log = logging.getLogger(__name__)

TEXTS = ("history", "processes", "optimizer")
"""What a checkpoint has beside its tensors."""


@dataclass
class Progress:
    """What is known beside the states of model, loss and optimiser.

    Attributes:
        history: one row an epoch that is done. The learning rate, the schedule and all that is drawn in an epoch are
            functions of its number and the seed, so that nothing else need be kept of them.
        best: the weights of the best epoch.
        processes: how many processes trained together, each number that there was, in rising order.
    """

    history: list[dict] = field(default_factory=list)
    best: dict[str, Tensor] = field(default_factory=dict)
    processes: list[int] = field(default_factory=list)


def save_checkpoint(
    path: Path, model: nn.Module, loss: nn.Module, optimizer: torch.optim.Optimizer, progress: Progress
) -> None:
    """Write the state of a training, all or nothing.

    Raises:
        OSError: the file can't be written.
    """
    tensors = _named("model/", model.state_dict()) | _named("loss/", loss.state_dict())
    tensors |= _named("best/", progress.best)
    for index, state in optimizer.state_dict()["state"].items():
        tensors |= _named(f"optimizer/{index}/", state)
    tensors = _storable(tensors)
    texts = {
        "history": json.dumps(progress.history),
        "processes": json.dumps(sorted({*progress.processes, world_size()})),
        "optimizer": type(optimizer).__name__,
    }
    save_tensors(path, tensors, {**texts, "crc32": _checksum(tensors, texts)})


def restore_checkpoint(
    path: Path | None, model: nn.Module, loss: nn.Module, optimizer: torch.optim.Optimizer
) -> Progress:
    """Put a checkpoint's state into model, loss and optimiser, on the devices where they are.

    A file that is damaged, or of another network, loss or optimiser, is renamed to `.broken`, and nothing is restored.
    One that another number of processes made is gone on from, with a warning.

    Returns:
        Its history, best weights and numbers of processes; none without a file.

    Raises:
        OSError: the file is there and can't be read; it stays as it is.
    """
    if path is None:
        return Progress()
    try:
        tensors, metadata = _read(path)
        _check_fits(tensors, metadata, model, loss, optimizer)
        history, processes = json.loads(metadata["history"]), json.loads(metadata["processes"])
    except FileNotFoundError:
        return Progress()
    except OSError as error:  # of a server or of permissions: the file may be whole
        remedy = "Try again, or move it away"
        raise OSError(error.errno, expectation("checkpoint", "to be readable", error, str(path), remedy)) from error
    except (SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
        aside = path.with_suffix(".broken")
        path.replace(aside)
        log.warning("Checkpoint %s can't be used (%s); set aside as %s, training starts again.", path, error, aside)
        return Progress()
    if processes != [world_size()]:
        numbers = " and then ".join(map(str, processes))
        log.warning(
            "Checkpoint %s was made by %s process(es) and goes on with %d: not the numbers of either alone.",
            *(path, numbers, world_size()),
        )
    model.load_state_dict(_under("model/", tensors))
    loss.load_state_dict(_under("loss/", tensors))
    state = _laid_out(_optimizer_state(tensors), _parameters(optimizer))
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
    device = next(model.parameters()).device
    best = {name: tensor.to(device) for name, tensor in _under("best/", tensors).items()}
    return Progress(history, best, processes)


def processes_of(path: Path) -> list[int]:
    """How many processes trained what a checkpoint has: each number that there was.

    Raises:
        OSError: no file that can be read.
    """
    with safe_open(path, "pt") as stored:
        return json.loads(stored.metadata()["processes"])


def save_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str] | None = None) -> None:
    """Write named tensors as safetensors, all or nothing.

    Raises:
        OSError: the file can't be written.
    """
    with whole_file(path) as temporary:
        try:
            save_file(_storable(tensors), temporary, metadata)
        except SafetensorError as error:
            raise OSError(None, str(error)) from error


def _storable(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """On the CPU, contiguous, and no two in one memory (tied weights), as the format wants them."""
    found, seen = {}, set()
    for name, tensor in tensors.items():
        stored = tensor.detach().cpu().contiguous()
        if stored.untyped_storage().data_ptr() in seen and stored.numel():
            stored = stored.clone()
        seen.add(stored.untyped_storage().data_ptr())
        found[name] = stored
    return found


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    with safe_open(path, "pt") as stored:
        tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118, not a mapping
        metadata = stored.metadata() or {}
    if not {"crc32", *TEXTS} <= metadata.keys():
        raise ValueError("it is no checkpoint of this version")
    if metadata["crc32"] != _checksum(tensors, metadata):
        raise ValueError("its content is not what was written")
    return tensors, metadata


def _checksum(tensors: Mapping[str, Tensor], texts: Mapping[str, str]) -> str:
    """CRC-32 of texts, names and values: of what the format itself does not notice, a flipped bit for one."""
    found = zlib.crc32("\n".join(texts[name] for name in TEXTS).encode())
    for name in sorted(tensors):
        found = zlib.crc32(name.encode(), found)
        found = zlib.crc32(tensors[name].reshape(-1).view(torch.uint8).numpy(), found)
    return f"{found:08x}"


def _check_fits(
    tensors: Mapping[str, Tensor],
    metadata: Mapping[str, str],
    model: nn.Module,
    loss: nn.Module,
    optimizer: torch.optim.Optimizer,
) -> None:
    if metadata["optimizer"] != type(optimizer).__name__:
        raise ValueError(f"its optimiser is {metadata['optimizer']}")
    for prefix, module in (("model/", model), ("best/", model), ("loss/", loss)):
        wanted = {name: (tensor.shape, tensor.dtype) for name, tensor in module.state_dict().items()}
        if wanted != {name: (tensor.shape, tensor.dtype) for name, tensor in _under(prefix, tensors).items()}:
            raise ValueError(f"its tensors are not those of this {'loss' if module is loss else 'network'}")
    parameters = _parameters(optimizer)
    for index, state in _optimizer_state(tensors).items():
        if index >= len(parameters) or any(t.ndim and t.shape != parameters[index].shape for t in state.values()):
            raise ValueError("its tensors are not those of this optimiser")


def _optimizer_state(tensors: Mapping[str, Tensor]) -> dict[int, dict[str, Tensor]]:
    state: dict[int, dict[str, Tensor]] = {}
    for key, tensor in _under("optimizer/", tensors).items():
        index, name = key.split("/")
        state.setdefault(int(index), {})[name] = tensor
    return state


def _laid_out(state: dict[int, dict[str, Tensor]], parameters: list[Tensor]) -> dict[int, dict[str, Tensor]]:
    """The moments in the memory layout of their parameters: fused Adam walks through both in the order of memory."""

    def like(parameter: Tensor, tensor: Tensor) -> Tensor:
        if not tensor.ndim:
            return tensor
        return torch.empty_like(parameter, dtype=tensor.dtype, device=tensor.device).copy_(tensor)

    return {i: {name: like(parameters[i], tensor) for name, tensor in each.items()} for i, each in state.items()}


def _parameters(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def _named(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {prefix + name: tensor for name, tensor in tensors.items()}


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
