"""What data costs: preparing it, reading it while a network trains, and drawing the embedded sets.

    python benchmarks/data.py path/to/acdc --csv benchmarks/data-cpu.csv

`path/to/acdc` is ACDC as `nacl data prepare` takes it. A measured read is one of all training slices, in a new
order, through `nacl.data.slices`; the papers' way opens the file of each slice and reads its whole volume, as their
loader does.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import ModuleType

import h5py
import nibabel
import numpy as np
import psutil
import torch
from timing import alternating, cpu_seconds, write_csv

from nacl._parallel import available_cores
from nacl.data import brain, load_dataset, phantom
from nacl.data.slices import SlicesInFiles
from nacl.losses import build_loss
from nacl.models import build_model
from nacl.provenance import provenance
from nacl.training import fit

QUICK = {"size": 96, "filters": 16, "batch_size": 4}  # of nacl.grids.PROFILES
CT = (512, 512, 60)  # voxels of a made-up scan, int16
CPU = torch.device("cpu")


def main() -> int:
    """Print what was measured; with --csv, keep it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("acdc", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--csv", type=Path, help="write the figures to this file")
    options = parser.parse_args()
    rows = []

    def tell(what: str, figure: float, unit: str) -> None:
        print(f"{what:70} {figure:10.3g} {unit}", flush=True)
        rows.append({"what": what, "figure": f"{figure:.4g}", "unit": unit})

    with tempfile.TemporaryDirectory() as scratch:
        prepared = Path(scratch) / "acdc"
        prepare("ACDC", "acdc", options.acdc, prepared, tell)
        for count in (6, 24):
            source = made_up_scans(Path(scratch) / f"scans{count}", count)
            title = f"{count} made-up scans of {' x '.join(map(str, CT))}"
            prepare(title, "folder", source, Path(scratch) / f"out{count}", tell)
        reads(options, prepared, tell)
    for generator in (phantom, brain):
        generator.generate(96)  # fills caches
        seconds = statistics.median(cpu_seconds(partial(slices_of, generator)) for _ in range(options.rounds))
        tell(f"{generator.__name__.split('.')[-1]}: 100 slices of 96 x 96", seconds, "s")
    if options.csv:
        write_csv(options.csv, rows, {**provenance("cpu"), "cores": available_cores(), "rounds": options.rounds})
    return 0


Tell = Callable[[str, float, str], None]


def prepare(title: str, name: str, source: Path, target: Path, tell: Tell) -> None:
    """Wall time, how busy the cores were, and the most memory of `nacl data prepare` with all its processes."""
    command = [sys.executable, "-m", "nacl", "data", "prepare", name, str(source), str(target)]
    start, before = time.perf_counter(), psutil.Process().cpu_times()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    peak = 0
    while process.poll() is None:
        peak = max(peak, resident(process.pid))
        time.sleep(0.1)
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {process.returncode}")
    wall, after = time.perf_counter() - start, psutil.Process().cpu_times()
    busy = after.children_user + after.children_system - before.children_user - before.children_system
    tell(f"prepare {title}: wall", wall, "s")
    tell(f"prepare {title}: cores busy", busy / wall, f"of {available_cores()}")
    tell(f"prepare {title}: peak memory of all processes", peak / 2**30, "GiB")


def resident(pid: int) -> int:
    """Bytes of a process and all its children, where the system tells it with shared pages counted once (Linux)."""
    try:
        parent = psutil.Process(pid)
        of_each = [process.memory_full_info() for process in (parent, *parent.children(recursive=True))]
        return sum(getattr(info, "pss", info.rss) for info in of_each)
    except psutil.NoSuchProcess:
        return 0


def made_up_scans(folder: Path, count: int) -> Path:
    """NIfTI pairs of noise with a block, compressed as scanners' exports are."""
    rng = np.random.default_rng(0)
    for part in ("images", "labels"):
        (folder / part).mkdir(parents=True)
    label = np.zeros(CT, np.uint8)
    label[100:300, 150:350, 10:50] = 1
    image = (rng.normal(0, 30, CT) + 100 * label).astype(np.int16)
    affine = np.diag([0.8, 0.8, 2.5, 1])
    for index in range(count):
        nibabel.save(nibabel.Nifti1Image(image, affine), folder / "images" / f"scan{index:02d}.nii.gz")
        nibabel.save(nibabel.Nifti1Image(label, affine), folder / "labels" / f"scan{index:02d}.nii.gz")
    return folder


def reads(options: argparse.Namespace, prepared: Path, tell: Tell) -> None:
    """The reads of an epoch, in turns with the papers' way, beside the quick profile's epoch."""
    dataset = load_dataset(str(prepared), size=QUICK["size"])
    train = dataset.split("train")
    slices = SlicesInFiles(train, CPU)
    files = [prepared / "train" / f"{entry.name}.h5" for entry in train.entries for _ in range(entry.slices)]
    planes = [plane for entry in train.entries for plane in range(entry.slices)]
    order = torch.randperm(len(slices), generator=torch.Generator().manual_seed(0))

    def ours() -> None:
        for _ in slices.batches(order, QUICK["batch_size"]):
            pass

    def papers() -> None:
        for index in order.tolist():
            with h5py.File(files[index]) as stored:
                image, label = stored["image"][:][:, planes[index]], stored["label"][:][planes[index]]
            assert image.shape[1:] == label.shape

    seconds = alternating({"ours": ours, "papers": papers}, options.rounds, title="reads")
    epochs = []
    for _ in range(min(3, options.rounds)):
        torch.manual_seed(0)
        model = build_model("unet", len(dataset.channel_names), dataset.num_classes, filters=QUICK["filters"])
        loss = build_loss("nacl", num_classes=dataset.num_classes)
        of_size = {"epochs": 1, "batch_size": QUICK["batch_size"], "device": "cpu"}
        epochs.append(fit(model, loss, train, dataset.split("valid"), dataset.num_classes, **of_size)[0]["seconds"])
    epoch = statistics.median(epochs)
    tell(f"reads of an epoch, {len(slices)} slices", seconds["ours"], "s")
    tell("reads the papers' way, whole volumes", seconds["papers"], "s")
    tell("times faster than the papers' way", seconds["papers"] / seconds["ours"], "")
    tell("an epoch of the quick profile (slices in memory)", epoch, "s")
    tell("reads' share of the epoch", 100 * seconds["ours"] / epoch, "%")


def slices_of(generator: ModuleType) -> None:
    """A hundred slices or a few more."""
    parameters = generator.PARAMETERS
    cases = -(-100 // parameters.slices)
    generator.generate(96, replace(parameters, cases={"train": cases, "valid": 0, "test": 0}))


if __name__ == "__main__":
    sys.exit(main())
