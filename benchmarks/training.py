"""What a training costs beside the bare loop, where the rest goes, and how long the papers' protocol takes on a GPU.

    python benchmarks/training.py --csv benchmarks/training-cpu.csv
    python benchmarks/training.py --data path/to/prepared/acdc --threads 2

The bare loop is forward, loss, backward and step on tensors in memory, in the layout that `fit` trains in. Both run
in turns on the same slices, from the same weights; the figures are medians. The data are made-up cases of ACDC's shape,
or a folder that `nacl data prepare` made.
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch
from timing import alternating, cpu_seconds, write_csv
from torch import Tensor, nn

from nacl._parallel import available_cores
from nacl.data import Case, load_dataset
from nacl.data.slices import stack_slices
from nacl.losses import build_loss
from nacl.models import build_model
from nacl.provenance import provenance
from nacl.training import fit, loop
from nacl.training.step import Step

QUICK = {"size": 96, "filters": 16, "batch_size": 4}  # of nacl.grids.PROFILES
FULL = {"size": 192, "filters": 32, "batch_size": 4}
AIM = 1.3  # times the bare loop
SLICES_OF_A_CASE = 10  # about as many as ACDC's cases have
FULL_SLICES, FULL_EPOCHS = 1312, 100  # of ACDC's training split, and of the papers
CLASSES = 4

Tell = Callable[[str, float, str], None]


def main() -> int:
    """Print what was measured; with --csv, keep it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="a prepared folder instead of made-up cases")
    parser.add_argument("--cases", type=int, default=20, help="made-up training cases (default: 20)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=available_cores())
    parser.add_argument("--losses", nargs="+", default=["ce", "nacl"])
    parser.add_argument("--csv", type=Path, help="write the figures to this file")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rows = []

    def tell(what: str, figure: float, unit: str) -> None:
        print(f"{what:70} {figure:10.3g} {unit}", flush=True)
        rows.append({"what": what, "figure": f"{figure:.4g}", "unit": unit})

    for loss in options.losses:
        on_the_cpu(loss, options, tell)
    if torch.cuda.is_available():
        for engine in ("eager", "compile"):
            on_a_gpu(engine, tell)
    else:
        print("There is no GPU here: the papers' protocol is not timed.")
    if options.csv:
        facts = {"cores": available_cores(), "threads": options.threads, "rounds": options.rounds}
        write_csv(options.csv, rows, {**provenance("auto"), **facts})
    return 0


def on_the_cpu(loss_name: str, options: argparse.Namespace, tell: Tell) -> None:
    """The quick profile's epoch against the bare loop, and where the rest of it goes."""
    train, valid = cases_of(options, QUICK["size"])
    images, labels = stack_slices(train)
    spent = Spent()

    def with_fit() -> None:
        epoch_of_fit(train, valid, loss_name, "cpu")

    def bare() -> None:
        bare_epoch(images, labels, loss_name)

    plain = partial(bare_epoch, images, labels, "ce")
    seconds = alternating({"fit": with_fit, "bare": bare, "plain": plain}, options.rounds, title=loss_name)
    with spent.measured():
        whole = cpu_seconds(with_fit)
    title = f"{loss_name}, {len(images)} slices of {QUICK['size']} x {QUICK['size']}"
    tell(f"{title}: bare loop", seconds["bare"], "s an epoch")
    tell(f"{title}: fit", seconds["fit"], "s an epoch")
    tell(f"{title}: fit over the bare loop (aim: {AIM} at most)", seconds["fit"] / seconds["bare"], "times")
    tell(
        f"{title}: the loss beyond cross-entropy",
        100 * (seconds["bare"] - seconds["plain"]) / seconds["fit"],
        "% of fit",
    )
    for name, took in spent.seconds.items():
        tell(f"{title}: {name}", 100 * took / whole, "% of fit")
    tell(f"{title}: the steps, and all else", 100 * (whole - sum(spent.seconds.values())) / whole, "% of fit")


def on_a_gpu(engine: str, tell: Tell) -> None:
    """The papers' protocol, from the epochs after the first two, in which kernels are loaded and graphs recorded."""
    size = FULL["size"]
    train = [*made_up("train", FULL_SLICES // SLICES_OF_A_CASE, size), made_up_case("rest", "train", 2, size)]
    valid = made_up("valid", 20, size)
    torch.cuda.reset_peak_memory_stats()
    times = []
    stamps = lambda history: times.append(time.perf_counter())  # noqa: E731
    model, loss = seeded_model(FULL["filters"]), build_loss("nacl")
    of_size = {"epochs": 6, "batch_size": FULL["batch_size"], "engine": engine, "device": "cuda", "on_epoch": stamps}
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as scratch:
        fit(model, loss, train, valid, CLASSES, checkpoint=Path(scratch) / "checkpoint.safetensors", **of_size)
    epoch = statistics.median(np.diff(times[1:]))
    total = times[1] - start + (FULL_EPOCHS - 2) * epoch
    tell(f"{engine}: an epoch of {FULL_SLICES} slices of {size} x {size}", epoch, "s")
    tell(f"{engine}: a run of {FULL_EPOCHS} epochs (aim: 180 at most)", total, "s")
    tell(f"{engine}: peak memory", torch.cuda.max_memory_allocated() / 2**30, "GiB")
    tell(f"{engine}: steps that wait for the GPU", waits(engine), "of 20")


def waits(engine: str) -> int:
    """Of twenty steps after a warm-up, how many made Python wait."""
    place = torch.device("cuda")
    model = seeded_model(FULL["filters"]).to(place, memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(model.parameters(), fused=True)
    step = Step(model, build_loss("nacl"), optimizer, CLASSES, engine=engine, device=place)
    image = torch.rand(FULL["batch_size"], 1, FULL["size"], FULL["size"], device=place)
    label = torch.zeros(image[:, 0].shape, dtype=torch.uint8, device=place)
    for _ in range(5):
        step(image, label)
    found = 0
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(20):
            try:
                step(image, label)
            except RuntimeError:
                found += 1
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return found


def epoch_of_fit(train: Sequence[Case], valid: Sequence[Case], loss_name: str, device: str) -> None:
    """An epoch with all that belongs to one: batches, validation, a checkpoint, a history."""
    model, loss = seeded_model(QUICK["filters"]), build_loss(loss_name, num_classes=CLASSES)
    with tempfile.TemporaryDirectory() as scratch:
        options = {"epochs": 1, "batch_size": QUICK["batch_size"], "device": device}
        fit(model, loss, train, valid, CLASSES, checkpoint=Path(scratch) / "checkpoint.safetensors", **options)


def bare_epoch(images: Tensor, labels: Tensor, loss_name: str) -> None:
    """Forward, loss, backward, step."""
    model = seeded_model(QUICK["filters"]).to(memory_format=torch.channels_last).train()
    loss, optimizer = build_loss(loss_name, num_classes=CLASSES), torch.optim.Adam(model.parameters(), lr=1e-3)
    for image, label in zip(images.split(QUICK["batch_size"]), labels.long().split(QUICK["batch_size"]), strict=True):
        optimizer.zero_grad(set_to_none=True)
        loss(model(image), label).backward()
        optimizer.step()


@dataclass
class Spent:
    """Seconds in the parts of `fit` that the bare loop has not."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def measured(self) -> Iterator[None]:
        """While this lasts."""
        parts = {
            "batches": (loop, "slices_of", self._batches),
            "validation": (loop.Validation, "dice", self._timed),
            "checkpoint and history": (loop, "_keep", self._timed),
        }
        with ExitStack() as stack:
            for name, (place, attribute, wrap) in parts.items():
                stack.enter_context(patch.object(place, attribute, wrap(name, getattr(place, attribute))))
            yield

    def _add(self, name: str, seconds: float) -> None:
        self.seconds[name] = self.seconds.get(name, 0.0) + seconds

    def _timed(self, name: str, function: Callable) -> Callable:
        def timed(*args, **kwargs):
            start = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                self._add(name, time.perf_counter() - start)

        return timed

    def _batches(self, name: str, slices_of: Callable) -> Callable:
        def source(*args, **kwargs):
            slices = self._timed(name, slices_of)(*args, **kwargs)
            batches = slices.batches

            def timed_batches(*order):
                iterator = batches(*order)
                get = self._timed(name, partial(next, iterator, None))
                yield from iter(get, None)

            slices.batches = timed_batches
            return slices

        return source


def seeded_model(filters: int) -> nn.Module:
    """The papers' network, the same each time."""
    torch.manual_seed(0)
    return build_model("unet", 1, CLASSES, filters=filters)


def cases_of(options: argparse.Namespace, size: int) -> tuple[Sequence[Case], Sequence[Case]]:
    """Training and validation cases."""
    if options.data is not None:
        dataset = load_dataset(str(options.data), size=size)
        return dataset.split("train"), dataset.split("valid")
    return made_up("train", options.cases, size), made_up("valid", max(1, options.cases // 7), size)


def made_up(split: str, count: int, size: int) -> list[Case]:
    """Cases of ACDC's shape. Its split has about seven training cases to one for validation."""
    return [made_up_case(f"{split}{index}", split, SLICES_OF_A_CASE, size) for index in range(count)]


def made_up_case(name: str, split: str, slices: int, size: int) -> Case:
    """Rings in noise."""
    rng = np.random.default_rng(list(name.encode()))
    y, x = np.mgrid[:size, :size] - (size - 1) / 2
    radius = np.hypot(x, y) / size
    label = np.repeat(np.select([radius < 0.1, radius < 0.17, radius < 0.25], [3, 2, 1], 0)[None], slices, axis=0)
    image = np.choose(label, (0.3, 0.6, 0.2, 0.8)) + 0.1 * rng.random(label.shape)
    return Case(name, split, image.astype(np.float32), label.astype(np.uint8), (10.0, 1.4, 1.4))


if __name__ == "__main__":
    sys.exit(main())
