"""A forecast beside its labels, checked once, and read in slabs that fit a processor's cache."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from nacl._checks import check_forecast
from nacl._windows import narrow_labels

CPU_SLAB, SLAB = 2**16, 2**24  # pixels


@dataclass(frozen=True)
class Forecast:
    """Probabilities or logits (N, C, ...) as they came, and labels (N, ...) in small integers, -1 where ignored."""

    scores: Tensor
    labels: Tensor
    has_ignored: bool
    from_logits: bool

    @classmethod
    def checked(cls, scores: Tensor, target: Tensor, ignore_index: int, *, from_logits: bool = False) -> "Forecast":
        """The forecast, once shapes, dtypes, devices and values were found in order."""
        if isinstance(scores, Tensor) and scores.device.type == "mps":  # which has no float64 to sum in
            scores, target = scores.cpu(), target.cpu()
        labels = check_forecast(scores, target, ignore_index, from_logits=from_logits)
        narrow = narrow_labels(labels, scores.shape[1])
        return cls(scores.detach(), narrow, labels.ignored is not None, from_logits)

    @property
    def num_classes(self) -> int:
        """C."""
        return self.scores.shape[1]

    @cached_property
    def predicted(self) -> Tensor:
        """The class of the largest score (N, ...), the first of several."""
        predicted = torch.empty_like(self.labels, memory_format=torch.contiguous_format)  # so that a slab is a view
        for scores, part in self._slabs(predicted):
            part.copy_(top_score(scores)[1])
        return predicted

    def probs(self, *maps: Tensor | None) -> Iterator[tuple[Tensor, ...]]:
        """Slab by slab: probabilities (n, C, pixels), labels (n, pixels), and the same pixels of `maps` (N, ...)."""
        for scores, *parts in self._slabs(self.labels, *maps):
            yield scores.softmax(dim=1) if self.from_logits else scores, *parts

    def confidence(self, *maps: Tensor | None) -> Iterator[tuple[Tensor, ...]]:
        """Slab by slab: the largest probability (n, pixels), whether its class is right, and the pixels of `maps`."""
        for scores, labels, *parts in self._slabs(self.labels, *maps):
            top, predicted = top_score(scores)
            if self.from_logits:
                top = scores.softmax(dim=1).amax(dim=1)
            yield top, predicted.eq_(labels), *parts

    def cost_of_label(self, floor: float, *maps: Tensor | None) -> Iterator[tuple[Tensor, ...]]:
        """Slab by slab: -log p_y (n, pixels), of probabilities of at least `floor`, and the pixels of `maps`.

        What stands at ignored pixels means nothing.
        """
        for scores, labels, *parts in self._slabs(self.labels, *maps):
            index = labels.clamp(min=0).long().unsqueeze(1)
            if self.from_logits:
                yield scores.log_softmax(dim=1).gather(1, index).squeeze(1).neg_(), *parts
            else:
                yield scores.gather(1, index).squeeze(1).clamp_min(floor).log_().neg_(), *parts

    def _slabs(self, *maps: Tensor | None) -> Iterator[tuple[Tensor, ...]]:
        scores = self.scores.flatten(2)
        flat = [None if part is None else part.flatten(1) for part in maps]
        size = CPU_SLAB if scores.device.type == "cpu" else SLAB
        samples, _, pixels = scores.shape
        rows = max(1, size // max(1, pixels))
        for first in range(0, samples, rows):
            for start in range(0, pixels, size):
                place = slice(first, first + rows), slice(start, start + size)
                part = scores[place[0], :, place[1]]
                parts = (None if one is None else one[place] for one in flat)
                yield part if part.dtype == torch.float64 else part.float(), *parts


def top_score(scores: Tensor) -> tuple[Tensor, Tensor]:
    """The largest of the scores (n, C, pixels) and its class, the first of several, both (n, pixels)."""
    if scores.device.type != "cpu":
        return scores.max(dim=1)
    # class by class in floats: max(dim=1) with its index, and comparisons that give booleans, are not vectorised
    top = scores.amax(dim=1)
    predicted, is_top = torch.zeros_like(top), torch.empty_like(top)
    for k in range(scores.shape[1] - 1, -1, -1):
        predicted.lerp_(torch.full_like(top, k), torch.eq(scores[:, k], top, out=is_top))
    return top, predicted
