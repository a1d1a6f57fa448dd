"""What every loss Module shares: the keywords of its function, kept and checked."""

import inspect
from collections.abc import Callable

import torch
from torch import Tensor, nn

from nacl._checks import check_choice

PER_CALL = ("image",)
"""Keywords that are data of the step, not options."""


class Loss(nn.Module):
    """Keeps the keywords of `function` and calls it."""

    function: Callable[..., Tensor]

    def __init_subclass__(cls) -> None:
        parameters = inspect.signature(cls.function).parameters.values()
        kept = [p for p in parameters if p.kind is p.KEYWORD_ONLY and p.name not in PER_CALL]
        cls.__signature__ = inspect.Signature(kept)

    def __init__(self, **options: object) -> None:
        super().__init__()
        self.options = keywords(type(self))
        self.set(**options)

    def set(self, **options: object) -> None:
        """Change keywords, in the course of a schedule for instance. What the loss would refuse is refused here.

        Under torch.compile each new value compiles anew, and PyTorch gives up after 8: a schedule of more values wants
        `torch._dynamo.config.recompile_limit` raised, or the loss left out of what is compiled.
        """
        for name in options:
            check_choice("keyword", name, self.options)
        changed = {**self.options, **options}
        # A call on the smallest input refuses a bad keyword where it is written, not at the first step.
        size = changed.get("kernel_size")
        space = [1] * (len(size) if isinstance(size, tuple | list) else 2)
        data = {"image": torch.zeros(1, *space)} if "image" in inspect.signature(self.function).parameters else {}
        type(self).function(torch.zeros(1, 2, *space), torch.zeros(1, *space, dtype=torch.long), **changed, **data)
        self.options = changed

    def forward(self, logits: Tensor, target: Tensor, **data: Tensor) -> Tensor:
        return type(self).function(logits, target, **self.options, **data)

    def extra_repr(self) -> str:
        return ", ".join(f"{name}={value!r}" for name, value in self.options.items())


def keywords(loss: type[nn.Module]) -> dict[str, object]:
    """The keywords of a loss Module and their defaults."""
    parameters = inspect.signature(loss).parameters.values()
    return {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}
