"""Predict a volume by windows that overlap: what a 3D network, trained on patches, takes at a time."""

import torch
from torch import Tensor, nn

from nacl._checks import check_choice, check_number, expectation, extra_needed
from nacl.data import Case
from nacl.data.patches import check_patch
from nacl.training.device import memory_format, placed

BLENDS = ("logits", "probs")
SLICES_AT_ONCE = 32
"""Of all windows of a batch together: what a prediction of slices takes at a time."""


def sliding_logits(
    model: nn.Module,
    case: Case,
    patch: tuple[int, int, int],
    device: torch.device,
    *,
    overlap: float = 0.5,
    blend: str = "logits",
) -> Tensor:
    """Logits (D, C, H, W) of a case, float32 on the device, by windows of the size of the patches of the training.

        z(x) = sum_w g(x - c_w) z_w(x) / sum_w g(x - c_w)

    with z_w the logits of window w and c_w its centre. The weight g is Gaussian, of an eighth of the window's width
    along each axis, since a network knows less at the faces of a window than in its middle. It is MONAI's
    `sliding_window_inference`. A volume that is shorter than the window gets zeros on both sides, as in
    `nacl.data.patches.patches_of`, and what lies there is cut off again.

    With `blend` "probs" it is log sum_w g p_w / sum_w g, of the probabilities p_w, so that its softmax is their mean;
    the softmax of blended logits is their geometric mean, set to sum 1. Either is at most as wrong, by its negative
    log-likelihood, as the windows in the mean. Where a sure window and an unsure one disagree, the mean of
    probabilities is the less confident: a small ensemble.

    Measured for patches of 4 x 32 x 32 of the phantom at 64 x 64, with a small U-Net trained on 4 cases for 300 epochs,
    one seed: without overlap, with half of it and logits, and with probabilities, cross-entropy has an ECE of 2.55,
    2.51 and 2.26 % and a negative log-likelihood of 0.171, 0.148 and 0.136; NACL 2.05, 2.23 and 2.28 %, and 0.147,
    0.138 and 0.135. After temperature scaling probabilities still win, 0.131 to 0.138 and 0.129 to 0.133; with 30 cases
    the two are equal to 1 %. So probabilities give the better forecast where data are few, and cover the difference
    that a loss makes. Logits are the default, because here confidence is to be the network's own; because dividing them
    by a temperature before or after the blend is the same; and because nnU-Net blends so.

    Args:
        model: maps images (N, M, d, h, w) to logits (N, C, d, h, w); it is left in evaluation mode.
        case: of any size.
        patch: (d, h, w) in voxels.
        device: where to compute.
        overlap: share of a window's width that the next one covers again, in [0, 1).
        blend: what is blended, "logits" or "probs".

    Raises:
        ValueError: an overlap, a blend or a patch that is none; a model that gives something else than logits for each
            voxel.
        ModuleNotFoundError: MONAI is not installed.

    References:
        Isensee et al., nnU-Net, Nature Methods 18, 2021: windows overlap by half, with a Gaussian of an eighth.
    """
    patch = check_patch(patch)
    check_number("overlap", overlap, low=0)
    if overlap >= 1:
        raise ValueError(expectation("overlap", "in [0, 1)", overlap))
    check_choice("blend", blend, BLENDS)
    inference = _sliding_window_inference()
    placed(model, device, patch).eval()  # not in inference mode: weights that are moved there can't be trained

    def forecast(windows: Tensor) -> Tensor:
        logits = model(windows.to(memory_format=memory_format(patch)))
        _check(logits, windows)
        return logits.float() if blend == "logits" else logits.float().softmax(dim=1)

    at_once = max(1, SLICES_AT_ONCE // patch[0])
    with torch.inference_mode(), torch.autocast(device.type, enabled=False):
        image = torch.from_numpy(case.image).to(device).unsqueeze(0)
        blended = inference(image, patch, at_once, forecast, overlap=overlap, mode="gaussian", sigma_scale=0.125)
        if blend == "probs":
            blended = blended.clamp_min(torch.finfo(blended.dtype).tiny).log()  # -87 at least, and no infinite logits
        return blended[0].movedim(0, 1).contiguous()


def _sliding_window_inference():
    with extra_needed("monai", "the sliding windows of 3D patches", extra="monai"):
        from monai.inferers import sliding_window_inference  # slow to import
    return sliding_window_inference


def _check(logits: object, windows: Tensor) -> None:
    """MONAI would take several outputs, and stretch those of another size."""
    if not isinstance(logits, Tensor):
        rule, remedy = "to give one tensor of logits", "Return its main output only"
        raise ValueError(expectation("model", rule, type(logits).__name__, remedy=remedy))
    if (logits.shape[:1], logits.shape[2:]) != (windows.shape[:1], windows.shape[2:]):
        rule = f"to give logits of shape ({len(windows)}, C, {', '.join(map(str, windows.shape[2:]))})"
        remedy = "Bring its output to the size of the image"
        raise ValueError(expectation("model", rule, tuple(logits.shape), f"images {tuple(windows.shape)}", remedy))
