"""Predict cases with a network: slice by slice, or by sliding windows over the volume."""

import torch
from torch import Tensor, nn

from nacl._checks import expectation
from nacl.data import Case
from nacl.training.device import memory_format, placed, resolve_device

PREDICTION_BATCH = 32


def predict(model: nn.Module, case: Case, *, device: str = "auto", patch: tuple[int, int, int] | None = None) -> Tensor:
    """Class probabilities (D, C, H, W) of a case, float32 on the CPU.

    Args:
        model: maps images (N, M, H, W) to logits (N, C, H, W), or with `patch` (N, M, d, h, w) to (N, C, d, h, w).
        case: of any size that the model takes, or with `patch` of any size.
        device: one of `DEVICES`.
        patch: the size of the windows of a 3D network.

    Raises:
        ValueError: unknown or missing device.
    """
    return predict_logits(model, case, device=device, patch=patch).softmax(dim=1)


def predict_logits(
    model: nn.Module, case: Case, *, device: str = "auto", patch: tuple[int, int, int] | None = None
) -> Tensor:
    """Logits (D, C, H, W) of a case, float32 on the CPU; arguments as in `predict`.

    Raises:
        ValueError: unknown or missing device.
    """
    place = resolve_device(device)
    return case_logits(placed(model, place, patch), case, place, patch).cpu()


def case_logits(
    model: nn.Module, case: Case, device: torch.device, patch: tuple[int, int, int] | None = None
) -> Tensor:
    """Logits (D, C, H, W) of a case, on the device, by a model that is there."""
    model.eval()
    if patch is not None:
        from nacl.training.windows import sliding_logits  # needs the extra monai

        return sliding_logits(model, case, patch, device)
    layout, images = memory_format(None), torch.from_numpy(case.image).movedim(0, 1)
    with torch.inference_mode():
        batches = [model(some.to(device, memory_format=layout)) for some in images.split(PREDICTION_BATCH)]
    for logits in batches:
        if not isinstance(logits, Tensor):  # such as a network that gives more in evaluation than in training
            rule, remedy = "to give one tensor of logits", "Return its main output only"
            raise ValueError(expectation("model", rule, type(logits).__name__, "in evaluation", remedy))
    return torch.cat(batches)
