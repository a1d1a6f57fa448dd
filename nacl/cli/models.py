"""`nacl models`: what networks there are, how large, and how fast one is."""

import argparse
import statistics
import time
from collections import defaultdict
from collections.abc import Callable

import torch

from nacl.cli._help import add_command
from nacl.models import MODELS, build_model, count_parameters
from nacl.training import resolve_device
from nacl.training.step import check_output

EXAMPLES = """\
examples:
  nacl models                                           all, with what each learns
  nacl models --depth 16 --spacing 10 1.5 1.5           those for 3D patches of thick slices
  nacl models smp.FPN --encoder resnet34                one: its size, and the time of one slice
  nacl models mynets:make                               your own, of mynets.py in this folder

The same names are the --model of `nacl train`. Encoders are smp's, or tu-NAME for the models of timm.
"""
ENOUGH = 0.5
"""For how many seconds a forward pass is timed, at least."""


def add_commands(commands) -> None:
    """Add models to the parser's commands."""
    models = add_command(commands, "models", _models, "list the networks, or look at one", EXAMPLES)
    models.add_argument("name", nargs="?", metavar="NAME", help="of a network, or MODULE:FUNCTION (default: all)")
    models.add_argument("--filters", type=int, default=32, metavar="N", help="width (default: 32)")
    models.add_argument("--channels", type=int, default=1, metavar="N", help="of the image (default: 1)")
    models.add_argument("--classes", type=int, default=4, metavar="N", help="with the background (default: 4)")
    models.add_argument("--encoder", default="resnet18", metavar="NAME", help="of smp's networks (default: resnet18)")
    models.add_argument("--size", type=int, default=192, metavar="N", help="height and width (default: 192)")
    models.add_argument("--depth", type=int, default=1, metavar="N", help="slices in a 3D patch (default: 1, for 2D)")
    models.add_argument(
        "--spacing", type=float, nargs=3, default=(1, 1, 1), metavar=("D", "H", "W"), help="of voxels (default: 1 1 1)"
    )
    models.add_argument("--device", default="auto", metavar="NAME", help="where one is timed: auto, cpu, cuda, mps")


def _models(options: argparse.Namespace) -> int:
    patch = (options.depth, options.size, options.size)[options.depth == 1 :]
    keywords = {
        "filters": options.filters,
        "encoder": options.encoder,
        "patch": patch,
        "spacing": tuple(options.spacing)[-len(patch) :],
    }
    if options.name:
        return _one(options, keywords)
    shape = " x ".join(map(str, patch))
    print(f"{options.channels} channel(s), {options.classes} classes, {options.filters} filters, {shape} pixels,")
    print(f"encoder {options.encoder} (smp)\n")
    print(f"{'network':20} {'axes':7} {'parameters':>12}  ")
    reasons = defaultdict(list)
    for name, network in MODELS.items():
        count = "-"
        if len(patch) in network.axes:
            try:
                count = f"{count_parameters(name, options.channels, options.classes, **keywords):,}"
            except (ValueError, TypeError, ImportError) as error:
                reasons[str(error)].append(name)
        print(f"{name:20} {_axes(network.axes):7} {count:>12}  {network.description}")
    for reason, names in reasons.items():
        print(f"\nnot built: {', '.join(names)}\n  {reason}")
    print("\nMODULE:FUNCTION is a network of your own, called with (in_channels, num_classes, filters=...).")
    return 0


def _axes(axes: tuple[int, ...]) -> str:
    return ", ".join(f"{n}D" for n in axes)


def _one(options: argparse.Namespace, keywords: dict) -> int:
    device = resolve_device(options.device)
    network = build_model(options.name, options.channels, options.classes, **keywords).to(device).eval()
    image = torch.zeros(1, options.channels, *keywords["patch"], device=device)
    with torch.inference_mode():
        logits = network(image)  # a first pass is slower
        check_output(logits, image[:, 0], options.classes)
        seconds = _median_seconds(lambda: network(image), device)
    if options.name in MODELS:
        known = MODELS[options.name]
        print(f"{options.name}: {known.description}\naxes        {_axes(known.axes)}\nfilters     {known.filters}")
    print(f"parameters  {sum(parameter.numel() for parameter in network.parameters()):,}")
    print(f"image       {_by(image.shape)}\nlogits      {_by(logits.shape)}")
    print(f"forward     {1000 * seconds:.1f} ms on {device.type}, {torch.get_num_threads()} thread(s)")
    return 0


def _median_seconds(function: Callable[[], object], device: torch.device) -> float:
    seconds = []
    while sum(seconds) < ENOUGH or len(seconds) < 3:
        start = time.perf_counter()
        function()
        if device.type != "cpu":
            torch.accelerator.synchronize()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def _by(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))
