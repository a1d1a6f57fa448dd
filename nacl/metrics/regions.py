"""The pixels over which a calibration error is taken."""

import torch
from torch import Tensor

from nacl._checks import check_choice
from nacl.metrics._forecast import Forecast
from nacl.priors import mixed_windows

REGIONS = ("all", "predicted_foreground", "predicted_border", "true_foreground")
BORDER_WIDTH = 2  # pixels on either side of the predicted border


def region_mask(
    probs: Tensor, target: Tensor, region: str = "all", *, from_logits: bool = False, ignore_index: int = -100
) -> Tensor:
    """The pixels over which a calibration error is taken.

    "all": every valid pixel. "predicted_foreground": the predicted class is not 0. "predicted_border": within
    2 pixels of another predicted class. "true_foreground": the true label is not 0, as in the papers; this chooses
    pixels by the answer, so even the true posterior has an error there. For a region of your own, give the
    pixels outside it the label `ignore_index`.

    Args:
        probs: softmax output (N, C, ...), in 2D or 3D.
        target: labels (N, ...), integers in [0, C) or `ignore_index`.
        region: one of `REGIONS`.
        from_logits: `probs` are logits.
        ignore_index: label of pixels that are in no region.

    Returns:
        bool (N, ...).

    Raises:
        ValueError: unknown `region`, shapes that do not fit, values out of range.
        TypeError: dtypes that do not fit.

    Example:
        >>> probs = torch.tensor([[0.9, 0.2, 0.8], [0.1, 0.8, 0.2]]).view(1, 2, 1, 3)
        >>> region_mask(probs, torch.zeros(1, 1, 3, dtype=torch.long), "predicted_foreground")
        tensor([[[False,  True, False]]])
    """
    forecast = Forecast.checked(probs, target, ignore_index, from_logits=from_logits)
    mask = mask_of(forecast, region)
    return torch.ones_like(forecast.labels, dtype=torch.bool) if mask is None else mask


def mask_of(forecast: Forecast, region: str) -> Tensor | None:
    """bool (N, ...), or None for every pixel."""
    check_choice("region", region, REGIONS)
    valid = forecast.labels >= 0 if forecast.has_ignored else None
    if region == "all":
        return valid
    if region == "true_foreground":
        return forecast.labels > 0
    if region == "predicted_foreground":
        inside = forecast.predicted != 0
    elif not forecast.labels.numel():  # which pooling refuses
        inside = torch.zeros_like(forecast.labels, dtype=torch.bool)
    else:
        inside = mixed_windows(forecast.predicted, kernel_size=2 * BORDER_WIDTH + 1)
    return inside if valid is None else inside & valid
