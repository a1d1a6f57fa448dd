"""What every metric over batches shares: sums that add over batches, chunks of a volume, and processes."""

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor, distributed

from nacl._checks import check_choice, check_flag, check_integer, expectation
from nacl.metrics.regions import REGIONS

AGGREGATIONS = ("pooled", "cases")
Sums = dict[str, Tensor]


class Metric(ABC):
    """A number from any number of batches, in memory that does not grow with them.

    Its state is a dict of sums, so that two halves of the data can be added (`merge`), and the processes of
    torch.distributed too (`reduce`). It has the methods of a torchmetrics Metric; `nacl.torchmetrics` makes it one.

    Args:
        region: the pixels that count, see `region_mask`.
        aggregation: "pooled": all pixels of all updates; "cases": each update is a case, and the result is the mean
            over those that have a pixel in the region.
        num_classes: C; needed only before the first update, by `reduce` and by torchmetrics.
        from_logits: updates bring logits instead of probabilities.
        ignore_index: label of the pixels that never count.
    """

    def __init__(
        self, *, region: str, aggregation: str, num_classes: int | None, from_logits: bool, ignore_index: int
    ) -> None:
        check_choice("region", region, REGIONS)
        check_choice("aggregation", aggregation, AGGREGATIONS)
        check_flag("from_logits", from_logits)
        check_integer("ignore_index", ignore_index, low=-(2**63))
        if num_classes is not None:
            check_integer("num_classes", num_classes, low=2)
        self.region, self.aggregation, self.num_classes = region, aggregation, num_classes
        self.from_logits, self.ignore_index = from_logits, ignore_index
        self.reset()

    @property
    @abstractmethod
    def name(self) -> str:
        """Short name of the number, with its region, fit for a column or a log."""

    @abstractmethod
    def pixel_sums(self, probs: Tensor, target: Tensor) -> Sums:
        """The sums of one batch."""

    @abstractmethod
    def value(self, sums: Sums) -> float:
        """The number that sums over pixels stand for; NaN for no pixel."""

    def reset(self) -> None:
        """Forget everything."""
        self._sums: Sums | None = None
        self._classes = self.num_classes

    def update(self, probs: Tensor, target: Tensor) -> None:
        """Add a batch: `probs` (N, C, ...) in [0, 1], or logits, and `target` (N, ...).

        Raises:
            ValueError: shapes or devices that do not fit, labels or probabilities out of range, NaN, a changed number
                of classes.
            TypeError: dtypes that do not fit.
        """
        self._add(self.batch_sums(probs, target))

    def merge(self, other: "Metric") -> None:
        """Add what another metric of the same settings has seen.

        Raises:
            ValueError: a setting that differs, or another number of classes.
            TypeError: another kind of metric.
        """
        if type(other) is not type(self):
            raise TypeError(expectation("other", f"to be a {type(self).__name__}", type(other).__name__))
        for key, value in self.settings.items():
            if key != "num_classes" and other.settings[key] != value:
                raise ValueError(expectation("other", f"with {key}={value!r}", repr(other.settings[key])))
        if other.sums is not None:
            self._learn_classes("other", other._classes)
            self._add(other.sums)

    def reduce(self, group: distributed.ProcessGroup | None = None) -> None:
        """Add the sums of all processes of torch.distributed, in each of them; once, after the last update.

        Raises:
            ValueError: a process that has seen no batch, and no `num_classes` to know its shape by.
        """
        sums = self.sums if self.sums is not None else self.empty_sums()
        for part in sums.values():
            distributed.all_reduce(part, group=group)
        self._sums = sums

    def compute(self) -> float:
        """The number; NaN if no pixel was in the region.

        Raises:
            RuntimeError: no update yet.
        """
        if self._sums is None:
            raise RuntimeError("Expected `update` before `compute`, got no data. Call update(probs, target).")
        return self.result(self._sums)

    @property
    def settings(self) -> dict[str, object]:
        """What the metric was made with."""
        return {key: value for key, value in vars(self).items() if not key.startswith("_")}

    @property
    def sums(self) -> Sums | None:
        """The state: None before the first update."""
        return self._sums

    def pooled_sums(self, wanted: str) -> Sums:
        """The state, of which `wanted` is made.

        Raises:
            RuntimeError: no update yet, or an aggregation by cases, which keeps their results only.
        """
        if self._sums is None or self.aggregation != "pooled":
            got = "no data" if self._sums is None else "an aggregation by cases"
            raise RuntimeError(f"Expected `update` and pooled pixels before `{wanted}`, got {got}.")
        return self._sums

    def batch_sums(self, probs: Tensor, target: Tensor) -> Sums:
        """What a batch adds to the state."""
        sums = self.pixel_sums(probs, target)
        self._learn_classes("probs", probs.shape[1])
        if self.aggregation == "pooled":
            return sums
        value = self.value(sums)
        known = not math.isnan(value)
        device = next(iter(sums.values())).device
        of_cases = torch.tensor(value if known else 0.0, dtype=torch.float64, device=device)
        return {"cases": torch.tensor(int(known), device=device), "of_cases": of_cases}

    def result(self, sums: Sums) -> float:
        """The number that a state stands for."""
        if self.aggregation == "pooled":
            return self.value(sums)
        return (sums["of_cases"] / sums["cases"]).item()

    def empty_sums(self) -> Sums:
        """The state before any pixel.

        Raises:
            ValueError: no `num_classes`, by which its shape is known.
        """
        if self.num_classes is None:
            remedy = "Pass num_classes when the metric is made"
            raise ValueError(expectation("num_classes", "to be known before the first update", None, remedy=remedy))
        sums = self.pixel_sums(torch.zeros(0, self.num_classes, 1, 1), torch.zeros(0, 1, 1, dtype=torch.long))
        if self.aggregation == "pooled":
            return sums
        return {"cases": torch.tensor(0), "of_cases": torch.tensor(0.0, dtype=torch.float64)}

    def _learn_classes(self, argument: str, num_classes: int) -> None:
        if self._classes not in (None, num_classes):
            raise ValueError(expectation(argument, f"with {self._classes} classes", num_classes))
        self._classes = num_classes

    def _add(self, sums: Sums) -> None:
        if self._sums is None:
            self._sums = {name: part.clone() for name, part in sums.items()}
            return
        for name, part in sums.items():
            total = self._sums[name]
            total += part.to(total.device)
