"""How good a network is on the validation cases, after each epoch."""

from collections.abc import Iterable, Iterator, Sequence
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from nacl._checks import expectation
from nacl.data import Case
from nacl.data.slices import BUDGET, count_slices
from nacl.training import distributed
from nacl.training.prediction import case_logits

KEPT = BUDGET // 4  # bytes that validation cases may take between epochs, beside the training slices


class Validation:
    """Validation cases, read again for each epoch where they are many, and kept where they are few.

    Args:
        cases: to choose the epoch by.
        num_classes: C.
        device: where the network is.
        patch: the size of the windows of a 3D network.
        budget: bytes of cases that are kept.
    """

    def __init__(
        self,
        cases: Sequence[Case],
        num_classes: int,
        device: torch.device,
        patch: tuple[int, int, int] | None = None,
        *,
        budget: int = KEPT,
    ) -> None:
        self.cases, self.num_classes, self.device, self.patch = cases, num_classes, device, patch
        if len(cases) and count_slices(cases) * _bytes_of_a_slice(cases[0]) <= budget:
            self.cases = list(cases)

    def dice(self, model: nn.Module, loss: nn.Module, epoch: int) -> float:
        """Mean over cases of the mean Dice of the foreground classes that the case or its prediction has.

        `epoch` counts from 0. A loss that learns from validation sees the same logits. Several processes share the
        cases, unless the loss learns: to stay the same in all, it must see all of them in each.

        Raises:
            FloatingPointError: logits that are not finite.
        """
        self.epoch, learns = epoch, hasattr(loss, "observe")
        first, step = (0, 1) if learns else (distributed.rank(), distributed.world_size())
        parts = distributed.gathered(lambda: list(self._counts(self._some(first, step), model, loss, learns)))
        counts = parts[0] if learns else [parts[i % step][i // step] for i in range(len(self.cases))]
        if learns and counts:
            loss.update()
        rows = [dice_of(count) for count in counts]
        per_case = [np.nanmean(row) for row in rows if not np.isnan(row).all()]
        return float(np.mean(per_case)) if per_case else 0.0

    def _some(self, first: int, step: int) -> Iterator[Case]:
        return (self.cases[index] for index in range(first, len(self.cases), step))

    def _counts(self, cases: Iterable[Case], model: nn.Module, loss: nn.Module, learns: bool) -> Iterator[NDArray]:
        count = partial(self._count, model=model, loss=loss, learns=learns)
        return map(count, cases)  # map lets a case go before it asks for the next

    def _count(self, case: Case, model: nn.Module, loss: nn.Module, learns: bool) -> NDArray:
        if case.label.max(initial=0) >= self.num_classes:
            rule = f"values in [0, {self.num_classes})"
            raise ValueError(expectation("label", rule, case.label.max(), f"case {case.name}"))
        logits = case_logits(model, case, self.device, self.patch)
        label = torch.from_numpy(case.label).to(self.device)
        counts = overlap_counts(logits.argmax(dim=1), label, self.num_classes)
        finite, *counts = torch.cat([logits.isfinite().all().view(1).long(), counts.flatten()]).tolist()
        if not finite:
            context = f"validation after epoch {self.epoch + 1}, case {case.name}"
            remedy = "Lower learning_rate"
            raise FloatingPointError(expectation("logits", "to be finite", "NaN or infinity", context, remedy))
        if learns:
            loss.observe(logits, label)
        return np.array(counts).reshape(3, -1)


def overlap_counts(prediction: Tensor, target: Tensor, num_classes: int) -> Tensor:
    """(3, C - 1): of each foreground class, its pixels in both, in the prediction, and in the target."""
    classes = torch.arange(1, num_classes, device=target.device).view(-1, 1)
    a, b = (labels.reshape(1, -1) == classes for labels in (prediction, target))
    return torch.stack([(a & b).sum(dim=1), a.sum(dim=1), b.sum(dim=1)])


def dice_of(counts: NDArray) -> NDArray[np.float64]:
    """Dice (C - 1,) from `overlap_counts`, equal to `nacl.metrics.dice_score`: NaN for a class that neither has."""
    both, of_prediction, of_target = counts
    size = of_prediction + of_target
    return np.divide(2 * both, size, out=np.full(len(size), np.nan), where=size > 0)


def _bytes_of_a_slice(case: Case) -> float:
    return (case.image.nbytes + case.label.nbytes) / max(len(case.label), 1)
