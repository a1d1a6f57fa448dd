"""Penalties on the distance of a logit from where it should be, with their derivatives."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from nacl._checks import check_choice, check_number

PENALTIES = ("l1", "l2", "huber")


class Penalty(NamedTuple):
    """P(d) and P'(d), elementwise."""

    value: Callable[[Tensor], Tensor]
    slope: Callable[[Tensor], Tensor]


def penalty_called(name: str, delta: float = 1.0) -> Penalty:
    """abs(d); d^2; or Huber's, d^2 / 2 up to `delta` and delta (abs(d) - delta / 2) beyond."""
    check_choice("penalty", name, PENALTIES)
    check_number("delta", delta, low=0, open_low=True)
    if name == "l1":
        return Penalty(torch.abs, torch.sign)
    if name == "l2":
        return Penalty(torch.square, lambda d: 2 * d)

    def huber(d: Tensor) -> Tensor:
        inside = d.clamp(-delta, delta)
        return inside * (d - inside / 2)

    return Penalty(huber, lambda d: d.clamp(-delta, delta))
