"""Networks without their weights: on torch's meta device a tensor has a shape and no values."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch.overrides import TorchFunctionMode


@contextmanager
def on_meta() -> Iterator[None]:
    """Networks built inside have no memory for their weights."""
    with torch.device("meta"), _Schedules():
        yield


class _Schedules(TorchFunctionMode):
    """Keeps `linspace` on the CPU: transformers read their rates of dropping paths from it while they are built."""

    def __torch_function__(self, func: Callable, types: tuple, args: tuple = (), kwargs: dict | None = None) -> object:
        kwargs = dict(kwargs or {})
        if func is torch.linspace:
            kwargs.setdefault("device", "cpu")
        return func(*args, **kwargs)
