"""The paper's ablations as grids of runs."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import fields

from nacl._checks import check_choice, expectation
from nacl.data.load import EMBEDDED
from nacl.runs import Run

GLANCE = {
    "model": "monai.DynUNet",
    "encoder": "tu-test_efficientnet",
    "filters": 8,
    "batch_size": 4,
    "learning_rate": 1e-2,
}

PROFILES = {
    # About 5 seconds a run on one core: whole grids while a reader waits, to see what a page of experiments shows.
    # It ranks no methods. Its network normalises and its steps are large, since the paper's U-Net, which does not
    # normalise, needs many more steps to begin; its encoder is the smallest of timm's that smp's decoders take.
    "glance": {
        "embedded": {**GLANCE, "size": 32, "epochs": 6},
        "benchmark": {**GLANCE, "size": 64, "epochs": 4},
    },
    # minutes a run on one core, for tables of several seeds where there is no GPU: the fast network again, at half of
    # its learning rate, and of a benchmark a quarter of the training patients, whom it sees often enough to memorise
    "small": {
        "embedded": {**GLANCE, "learning_rate": 5e-3, "size": 64, "epochs": 12},
        "benchmark": {**GLANCE, "learning_rate": 5e-3, "size": 64, "epochs": 12, "share": 0.25},
    },
    # "small" with as many steps on a fifth of its patients, each seen five times as often: networks that have memorised
    # their labels are over-confident, and that is what a constraint on confidence is for
    "memorised": {
        "embedded": {**GLANCE, "learning_rate": 5e-3, "size": 64, "epochs": 60, "share": 0.2},
        "benchmark": {**GLANCE, "learning_rate": 5e-3, "size": 64, "epochs": 60, "share": 0.05},
    },
    # minutes on two CPU cores; "embedded" for what comes with the package, "benchmark" for folders
    "quick": {
        "embedded": {"size": 64, "filters": 16, "epochs": 16, "batch_size": 4},
        "benchmark": {"size": 96, "filters": 16, "epochs": 12, "batch_size": 4},
    },
    # the papers' protocol, for a GPU
    "full": {
        "embedded": {"size": 96, "filters": 32, "epochs": 100, "batch_size": 4},
        "benchmark": {"size": 192, "filters": 32, "epochs": 100, "batch_size": 4},
    },
}

GRIDS = {
    # the comparison that the book is built on
    "main": [{"loss": ["ce"]}, {"loss": ["svls"]}, {"loss": ["nacl"]}],
    # the losses of the papers' main table, and with them CRaC, NACL with the label of SVLS as its tau, and what is
    # added to cross-entropy
    "main-table": [
        {"loss": ["ce", "label_smoothing", "focal", "ecp", "svls", "mbls", "nacl", "crac"]},
        {"loss": ["ce"], "dice_weight": [1.0]},
        {"loss": ["ce"], "l1_ace_weight": [1.0]},
        {"loss": ["nacl"], "prior": ["gaussian"]},
    ],
    # NACL without its price on pixels that it should be sure of: a smaller weight, one that ends at 0, borders only
    "ceiling": [
        {"loss": ["ce", "nacl"]},
        {"loss": ["nacl"], "penalty_weight": [0.03]},
        {"loss": ["nacl"], "schedule": ["linear"]},
        {"loss": ["nacl"], "mixed_only": [True]},
    ],
    "penalty-weight": [{"loss": ["nacl"], "penalty_weight": [0.01, 0.03, 0.1, 0.3, 1.0, 3.0]}],
    "margin": [{"loss": ["mbls"], "margin": [3.0, 5.0, 8.0, 10.0, 15.0]}],
    "kernel-size": [{"loss": ["svls", "nacl"], "kernel_size": [3, 5, 7, 9]}],
    "prior": [{"loss": ["nacl"], "prior": ["mean", "gaussian", "max", "min", "median", "mode"]}],
    "penalty": [{"loss": ["nacl"], "penalty": ["l1", "l2", "huber"], "softmax": [False, True]}],
    "model": [
        {
            "loss": ["ce", "nacl"],
            "model": ["unet", "smp.UnetPlusPlus", "smp.Segformer", "monai.AttentionUnet", "monai.DynUNet"],
        }
    ],
    "share": [{"loss": ["ce", "nacl"], "share": [0.05, 0.1, 0.25, 0.5, 1.0]}],
    # what the sliders of the training explorer move over: NACL's weight and window together, and its kin
    "explorer": [
        {"loss": ["ce"]},
        {"loss": ["svls"], "kernel_size": [3, 5, 7, 9]},
        {"loss": ["mbls"], "margin": [3.0, 5.0, 8.0, 10.0, 15.0]},
        {
            "loss": ["nacl"],
            "penalty_weight": [0.01, 0.03, 0.1, 0.3, 1.0, 3.0],
            "kernel_size": [3, 5, 7, 9],
        },
    ],
}
"""Each grid is a list of parts, each part all combinations of the values of some fields of `Run`."""


def size_of(grid: str) -> int:
    """The number of runs of a grid for one seed.

    >>> size_of("kernel-size")
    8
    """
    return sum(math.prod(map(len, part.values())) for part in GRIDS[grid])


def grid_rows(*grids: str) -> list[dict[str, object]]:
    """Grids as the rows of a table, one a part: its name, the values that it varies, and its runs for one seed.

    >>> grid_rows("kernel-size")
    [{'grid': 'kernel-size', 'loss': 'svls, nacl', 'kernel_size': '3, 5, 7, 9', 'runs': 8}]
    """
    rows = []
    for grid in grids:
        for part in GRIDS[grid]:
            values = {field: ", ".join(map(str, of_field)) for field, of_field in part.items()}
            rows.append({"grid": grid, **values, "runs": math.prod(map(len, part.values()))})
    return rows


def plan(
    grid: str, *, profile: str = "quick", data: str = "phantom", seeds: Sequence[int] = (0,), **fixed: object
) -> list[Run]:
    """The runs of a grid: all combinations of its values, for each seed.

    Args:
        grid: a key of `GRIDS`.
        profile: a key of `PROFILES`.
        data: as `Run.data`.
        seeds: one run each.
        fixed: fields of `Run` that override the profile's.

    Raises:
        ValueError: unknown `grid`, `profile` or field, values that `Run` refuses.

    Example:
        >>> [(run.loss, run.seed) for run in plan("main", seeds=[0, 1])]
        [('ce', 0), ('ce', 1), ('svls', 0), ('svls', 1), ('nacl', 0), ('nacl', 1)]
    """
    check_choice("grid", grid, GRIDS)
    check_choice("profile", profile, PROFILES)
    for name in fixed:
        check_choice("field", name, [f.name for f in fields(Run)])
        if name == "seed" or any(name in part for part in GRIDS[grid]):
            remedy = "Choose another grid, or leave it out"
            raise ValueError(expectation("fixed", f"without what the grid {grid!r} varies", name, remedy=remedy))
    base = PROFILES[profile]["embedded" if data in EMBEDDED else "benchmark"]
    base = {**base, "data": data, **fixed}
    runs = []
    for part in GRIDS[grid]:
        for values in itertools.product(*part.values()):
            runs += [Run(**{**base, **dict(zip(part, values, strict=True)), "seed": seed}) for seed in seeds]
    return runs


def profile_note(runs: Sequence[Run], profile: str) -> str:
    """What a page says of the scale of its runs, and of what they can prove, in Markdown.

    Args:
        runs: those of the page, of one profile.
        profile: a key of `PROFILES`.

    Example:
        >>> print(profile_note(plan("share", profile="quick", seeds=range(3)), "quick"))
        30 runs of profile **quick**: network `unet`, 64 x 64 pixels, 16 filters, 16 epochs, batches of 4, learning rate
        0.001, 3 seeds.
    """
    check_choice("profile", profile, PROFILES)
    run, seeds = runs[0], len({run.seed for run in runs})
    models = {run.model for run in runs}
    network = f"network `{run.model}`" if len(models) == 1 else f"{len(models)} networks"
    scale = f"{run.size} x {run.size} pixels, {run.filters} filters, {run.epochs} epochs, batches of {run.batch_size}"
    scale += f", learning rate {run.learning_rate:g}, {seeds} {'seed' if seeds == 1 else 'seeds'}"
    text = f"{len(set(runs))} runs of profile **{profile}**: {network}, {scale}."
    if profile == "glance":
        text += (
            " This profile is **a demonstration**: each network is trained for seconds, so that within minutes one "
            "sees what every picture and table is for; so it takes a network and a learning rate that learn fast (the "
            "papers have a U-Net and 0.001). The order of its methods proves nothing; the commands above, "
            "with `--profile full`, several seeds and real data, are the experiment."
        )
    return text
