"""Rivals take turns in one process; the figure is the median over the rounds."""

import csv
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile
from tqdm import tqdm

Step = Callable[[], object]


def alternating(steps: Mapping[str, Step], rounds: int, *, device: str = "cpu", title: str = "") -> dict[str, float]:
    """The median seconds of each step."""
    timer = cuda_seconds if device == "cuda" else cpu_seconds
    for step in steps.values():  # compiles, and fills caches
        step()
        step()
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for _ in tqdm(range(rounds), desc=title, unit="round", leave=False):
        for name, step in steps.items():
            seconds[name].append(timer(step))
    return {name: statistics.median(values) for name, values in seconds.items()}


def write_csv(path: Path, rows: Sequence[Mapping[str, object]], facts: Mapping[str, object]) -> None:
    """The rows, each with the facts of how they were made."""
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, [*rows[0], *facts])
        writer.writeheader()
        writer.writerows({**row, **facts} for row in rows)


def cpu_seconds(step: Step) -> float:
    start = time.perf_counter()
    step()
    return time.perf_counter() - start


def cuda_seconds(step: Step) -> float:
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    start.record()
    step()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) / 1e3


def peak_bytes(step: Step, device: str) -> int:
    """The largest sum of what a step holds at one time."""
    if device == "cuda":
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        step()
        return torch.cuda.max_memory_allocated() - before
    with quiet(), profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        step()
    held = peak = 0
    for event in profiler.profiler.kineto_results.events():
        if event.name() == "[memory]":
            held += event.nbytes()
            peak = max(peak, held)
    return peak


@contextmanager
def quiet() -> Iterator[None]:
    """Without the notices that the profiler writes to standard error from C++."""
    sys.stderr.flush()
    kept = os.dup(2)
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def text(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))
