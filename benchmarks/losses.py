"""Time and memory of every loss, forward and backward, beside PyTorch's cross-entropy, MONAI's NACL and a plain copy.

All rivals take turns in one process; the figure is the median over the rounds. Memory is the most that a step holds at
one time, less what was there before, in units of the logits. A copy of the logits is what the machine's memory allows
at best.

    python benchmarks/losses.py --csv benchmarks/losses-cpu.csv
"""

import argparse
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
import torch._dynamo
import torch.nn.functional as F
from timing import Step, alternating, peak_bytes, text, write_csv
from torch import Tensor

from nacl.losses import LOSSES, NACLLoss, SVLSLoss, build_loss
from nacl.provenance import provenance

SHAPES = {
    "cpu": [(4, 4, 192, 192), (16, 4, 192, 192), (16, 5, 256, 256), (1, 4, 96, 96, 96)],
    "cuda": [
        (4, 4, 192, 192),
        (16, 4, 192, 192),
        (64, 4, 192, 192),
        (16, 5, 256, 256),
        (1, 4, 96, 96, 96),
        (2, 5, 160, 160, 160),
    ],
}
CROSS_ENTROPY = "F.cross_entropy"


def main() -> int:
    """Print a table for each shape; with --csv, keep them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu", choices=SHAPES)
    parser.add_argument("--shape", nargs="*", help="such as 16,4,192,192; by default those of the book's table")
    parser.add_argument("--rounds", type=int, default=31)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--no-compile", action="store_true", help="leave torch.compile out")
    parser.add_argument("--csv", type=Path, help="write the figures to this file")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch._dynamo.config.recompile_limit = 64  # one process compiles for every shape and loss
    shapes = [tuple(map(int, s.split(","))) for s in options.shape] if options.shape else SHAPES[options.device]
    rows = []
    for shape in shapes:
        rows += list(measure(shape, options.device, options.rounds, compiled=not options.no_compile))
        print_table(shape, [row for row in rows if row["shape"] == text(shape)])
    if options.csv:
        write_csv(options.csv, rows, {**provenance(options.device), "rounds": options.rounds})
    return 0


def measure(shape: tuple[int, ...], device: str, rounds: int, *, compiled: bool) -> Iterator[dict[str, object]]:
    """A row for each rival."""
    torch.manual_seed(0)
    logits = torch.randn(shape, device=device, requires_grad=True)
    target = label_map(shape).to(device)
    steps = rivals(logits, target, compiled=compiled)
    medians = alternating(steps, rounds, device=device, title=text(shape))
    for name, step in steps.items():
        logits.grad = None
        yield {
            "shape": text(shape),
            "loss": name,
            "ms": round(1e3 * medians[name], 3),
            "of_cross_entropy": round(medians[name] / medians[CROSS_ENTROPY], 2),
            "memory_in_logits": round(peak_bytes(step, device) / (logits.numel() * logits.element_size()), 2),
        }


def rivals(logits: Tensor, target: Tensor, *, compiled: bool) -> dict[str, Step]:
    """By name, one forward and backward pass each; the copy is one copy."""
    classes = logits.shape[1]
    modules = {name: build_loss(name, num_classes=classes) for name in LOSSES}
    modules |= {"nacl, kernel_size=7": NACLLoss(kernel_size=7), "svls, kernel_size=7": SVLSLoss(kernel_size=7)}
    modules |= {"nacl, l2": NACLLoss(penalty="l2"), "nacl, softmax": NACLLoss(softmax=True)}
    modules |= {"nacl, gaussian": NACLLoss(prior="gaussian"), "nacl, mode": NACLLoss(prior="mode")}
    losses = {CROSS_ENTROPY: F.cross_entropy, "MONAI NACLLoss": monai_nacl(classes, logits.ndim - 2), **modules}
    if compiled:
        losses["F.cross_entropy, compiled"] = torch.compile(F.cross_entropy, fullgraph=True)
        losses |= {f"{name}, compiled": torch.compile(modules[name], fullgraph=True) for name in ("ce", "nacl")}

    def step(loss: Callable[[Tensor, Tensor], Tensor]) -> Step:
        def run() -> None:
            logits.grad = None
            loss(logits, target).backward()

        return run

    steps = {name: step(loss.to(logits.device) if hasattr(loss, "to") else loss) for name, loss in losses.items()}
    return {"a copy of the logits": lambda: logits.detach().clone(), **steps}


def monai_nacl(classes: int, axes: int) -> Callable[[Tensor, Tensor], Tensor]:
    """MONAI's loss at its defaults, which are ours: mean prior, 3 pixels, L1, 0.1."""
    from monai.losses import NACLLoss as MonaiNACLLoss

    return MonaiNACLLoss(classes=classes, dim=axes)


def label_map(shape: tuple[int, ...]) -> Tensor:
    """Blobs of about 16 pixels."""
    images, classes, *space = shape
    coarse = torch.randn(images, classes, *(-(-length // 16) for length in space))
    mode = "bilinear" if len(space) == 2 else "trilinear"
    return F.interpolate(coarse, tuple(space), mode=mode).argmax(dim=1)


def print_table(shape: tuple[int, ...], rows: list[dict[str, object]]) -> None:
    print(f"\n{text(shape)}\n{'':28}{'ms':>10}{'x CE':>8}{'memory':>9}")
    for row in rows:
        print(f"{row['loss']:28}{row['ms']:10.2f}{row['of_cross_entropy']:8.2f}{row['memory_in_logits']:9.2f}")


if __name__ == "__main__":
    sys.exit(main())
