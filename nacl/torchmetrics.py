"""The metrics as torchmetrics, for Lightning: logged, moved, reset and reduced over processes as any other."""

import zlib
from collections.abc import Callable

import torch
from torch import Tensor
from torchmetrics import Metric as TorchMetric

from nacl.metrics import Metric
from nacl.metrics._metric import Sums


class Streamed(TorchMetric):
    """A metric of `nacl.metrics` as a torchmetrics Metric, so that `self.log(name, metric)` does what it should.

    Its states are the metric's sums, which torchmetrics adds over processes. They keep their dtypes whatever the
    module is cast to.

    Args:
        metric: one that knows its `num_classes`; it only lends its arithmetic, and keeps no state here.

    Raises:
        ValueError: a metric without `num_classes`.

    Example:
        >>> from nacl.metrics import CalibrationError
        >>> ece = Streamed(CalibrationError(num_classes=2))
        >>> probs = torch.tensor([0.9, 0.1]).view(1, 2, 1, 1).expand(1, 2, 8, 8)
        >>> ece.update(probs, torch.zeros(1, 8, 8, dtype=torch.long))
        >>> ece.compute()
        tensor(0.1000)
    """

    full_state_update = False
    is_differentiable = False
    higher_is_better = False

    def __init__(self, metric: Metric, **options: object) -> None:
        super().__init__(**options)
        self.metric = metric
        # a MetricCollection takes states of one name and value for one state, so that a region would get another's
        mark = zlib.crc32(repr((type(metric).__name__, sorted(metric.settings.items()))).encode())
        self.state_of: dict[str, str] = {}
        for name, part in metric.empty_sums().items():
            self.state_of[name] = f"{name}_{mark:08x}"
            self.add_state(self.state_of[name], default=part, dist_reduce_fx="sum")

    def update(self, probs: Tensor, target: Tensor) -> None:
        """Add a batch, see the metric's own `update`."""
        for name, part in self.metric.batch_sums(probs, target).items():
            total = getattr(self, self.state_of[name])
            setattr(self, self.state_of[name], total + part.to(total.device))

    def compute(self) -> Tensor:
        """The number, float32, on the device of the states."""
        return torch.tensor(self.metric.result(self.sums), device=self.device)

    @property
    def sums(self) -> Sums:
        """The states under the metric's names; of all processes within torchmetrics' `sync_context`."""
        return {name: getattr(self, state) for name, state in self.state_of.items()}

    def _apply(self, fn: Callable[[Tensor], Tensor], *args: object, **options: object) -> "Streamed":
        return super()._apply(lambda part: part.to(fn(part.new_empty(0)).device), *args, **options)
