"""Several losses as one, and weights that change from epoch to epoch."""

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor, nn

from nacl._checks import check_choice, check_integer, check_number, expectation

SCHEDULES = ("constant", "linear", "step")


class CombinedLoss(nn.Module):
    """The weighted sum of losses: sum_j weight_j * loss_j(logits, target).

    Args:
        losses: Modules that map (logits, target) to one number.
        weights: one number a loss, not negative; 1 each by default.

    Raises:
        ValueError: no losses, or not as many weights as losses.

    Example:
        >>> import torch
        >>> from nacl.losses import CrossEntropyLoss, DiceLoss
        >>> loss = CombinedLoss(CrossEntropyLoss(), DiceLoss(), weights=(1.0, 0.5))
        >>> target = torch.tensor([[[0, 0, 1, 1]]])
        >>> loss(torch.zeros(1, 2, 1, 4), target)  # log 2 + 0.5 / 2
        tensor(0.9431)
    """

    def __init__(self, *losses: nn.Module, weights: Sequence[float] | None = None) -> None:
        super().__init__()
        if not losses:
            raise ValueError(expectation("losses", "to be at least one loss", "none"))
        for loss in losses:
            if not isinstance(loss, nn.Module):
                raise TypeError(expectation("losses", "to be Modules", repr(loss)))
        if weights is not None and not isinstance(weights, Sequence):
            raise TypeError(expectation("weights", "to be a sequence, one number a loss", repr(weights)))
        weights = (1.0,) * len(losses) if weights is None else tuple(weights)
        if len(weights) != len(losses):
            raise ValueError(expectation("weights", f"of {len(losses)} numbers, one a loss", weights))
        for weight in weights:
            check_number("weights", weight, low=0)
        self.losses = nn.ModuleList(losses)
        self.weights = weights

    def forward(self, logits: Tensor, target: Tensor, *, image: Tensor | None = None) -> Tensor:
        """`image` goes to the losses that read it."""
        total = 0
        for weight, loss in zip(self.weights, self.losses, strict=True):
            if weight == 0:  # no term at all, also where the loss is infinite
                continue
            data = {"image": image} if getattr(loss, "reads_image", False) else {}
            total = total + weight * loss(logits, target, **data)
        return total

    @property
    def reads_image(self) -> bool:
        """Whether a call needs `image`."""
        return any(getattr(loss, "reads_image", False) for loss in self.losses)

    def observe(self, logits: Tensor, target: Tensor) -> None:
        """Show a validation batch to the losses that learn from it (`CRaCLoss`)."""
        for loss in self._learning():
            loss.observe(logits, target)

    def update(self) -> None:
        """Let these losses learn from what they saw."""
        for loss in self._learning():
            loss.update()

    def _learning(self) -> list[nn.Module]:
        return [loss for loss in self.losses if hasattr(loss, "observe")]

    def extra_repr(self) -> str:
        return f"weights={self.weights}"


class Schedule(NamedTuple):
    """A number that changes with the epoch, for `loss.set(penalty_weight=schedule(epoch))`.

    - "constant": `start`, always.
    - "linear": from `start` at epoch 0 to `end` at the last epoch, in equal steps.
    - "step": `start` times `factor` after every `every` epochs, at most `end`.

    Args:
        start: the value at epoch 0, not negative.
        kind: one of the above.
        end: the last value of "linear"; the largest of "step", which is no less than `start`.
        epochs: the number of epochs of "linear".
        factor: of "step", positive.
        every: of "step", in epochs.

    Example:
        >>> anneal = Schedule(0.1, "linear", end=0.0, epochs=5)
        >>> [round(anneal(epoch), 3) for epoch in range(5)]
        [0.1, 0.075, 0.05, 0.025, 0.0]
    """

    start: float
    kind: str = "constant"
    end: float = 0.0
    epochs: int = 1
    factor: float = 1.2
    every: int = 10

    def __call__(self, epoch: int) -> float:
        """The value at `epoch`, counted from 0."""
        check_choice("kind", self.kind, SCHEDULES)
        check_integer("epoch", epoch, low=0)
        check_number("start", self.start, low=0)
        check_number("end", self.end, low=0)
        if self.kind == "constant":
            return self.start
        if self.kind == "linear":
            check_integer("epochs", self.epochs, low=1)
            done = min(epoch / max(self.epochs - 1, 1), 1.0)
            return (1 - done) * self.start + done * self.end
        check_integer("every", self.every, low=1)
        check_number("factor", self.factor, low=0, open_low=True)
        check_number("end", self.end, low=self.start)
        value = self.start
        for _ in range(epoch // self.every):
            value = min(value * self.factor, self.end)
        return value
