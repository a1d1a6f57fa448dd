"""Where memory runs out, the parameters that it depends on are named."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

WORDS = (
    *("not enough memory", "can't allocate memory", "DefaultCPUAllocator"),
    *("CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED", "CUDA error: out of memory"),
    "MPS backend out of memory",
)
"""What PyTorch's RuntimeErrors say of memory, on the CPU, on CUDA and on MPS."""


@contextmanager
def memory_named(**parameters: object) -> Iterator[None]:
    """Turn the errors of allocators into one that says what to lower.

    Args:
        parameters: what memory depends on, by name, the first the easiest to lower.

    Raises:
        MemoryError: memory ran out, on the CPU or on a GPU.

    Example:
        >>> with memory_named(batch_size=4, size=192):
        ...     raise torch.OutOfMemoryError("CUDA out of memory")
        Traceback (most recent call last):
        MemoryError: Out of memory with batch_size=4, size=192. Lower batch_size first, then size. (CUDA out of memory)
    """
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        first, *others = parameters
        then = f" first, then {' or '.join(others)}" if others else ""
        values = ", ".join(f"{name}={value}" for name, value in parameters.items())
        while error.__cause__ is not None:  # of a block within a block, whose names are fewer
            error = error.__cause__
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise MemoryError(f"Out of memory with {values}. Lower {first}{then}. ({reason})") from error


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out; some allocators say so in words only."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in WORDS)
