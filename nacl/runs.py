"""A run is a set of plain values; they name the folder in which its results lie."""

import hashlib
import json
import os
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

from nacl._checks import check_choice, check_integer, check_number, expectation
from nacl.data import dataset_fingerprint, dataset_name
from nacl.data.load import EMBEDDED, PROJECT_ROOT
from nacl.losses import LAGRANGIANS, LOSSES, PENALTIES, SCHEDULES, Schedule, build_loss, keywords
from nacl.models import MODELS
from nacl.priors import BORDERS, PRIORS
from nacl.provenance import source_hash
from nacl.training import DEVICES


def _parameter(default: object, help: str, **metadata: object):
    return field(default=default, metadata={"help": help, **metadata})


@dataclass(frozen=True)
class Run:
    """Everything that decides the numbers of one training; the parameters of `notebooks/02_train`, name for name.

    Raises:
        ValueError: an unknown name (the nearest is suggested) or a number out of range, when it is made.
        TypeError: a value of another type.
    """

    loss: str = _parameter("nacl", "training loss", choices=LOSSES)
    penalty_weight: float = _parameter(
        0.1, "lambda of NACL, MbLS, ECP; lambda_paper = penalty_weight / number of classes"
    )
    schedule: str = _parameter("constant", "of penalty_weight over the epochs", choices=SCHEDULES)
    schedule_end: float = _parameter(0.0, "last penalty_weight of a linear schedule, largest of a step schedule")
    penalty: str = _parameter("l1", "what a distance costs (NACL, MbLS)", choices=PENALTIES)
    delta: float = _parameter(1.0, "where the Huber penalty turns linear (NACL, MbLS)")
    prior: str = _parameter("mean", "what tau is (NACL)", choices=PRIORS)
    kernel_size: int = _parameter(3, "width of the window in pixels, odd (SVLS, NACL, CRaC)")
    sigma: float = _parameter(1.0, "standard deviation of Gaussian windows in pixels (SVLS, NACL)")
    border: str = _parameter("inside", "what counts beyond the image", choices=BORDERS)
    softmax: bool = _parameter(False, "constrain the softmax instead of the logits (NACL)")
    margin: float = _parameter(10.0, "by how much logits may differ (MbLS, CRaC)")
    lagrangian: str = _parameter("phr", "penalty whose multipliers CRaC learns", choices=LAGRANGIANS)
    smoothing: float = _parameter(0.1, "alpha of label smoothing")
    gamma: float = _parameter(3.0, "exponent of the focal loss")
    dice_weight: float = _parameter(0.0, "weight of a soft Dice loss that is added")
    l1_ace_weight: float = _parameter(0.0, "weight of the L1-ACE loss that is added")
    model: str = _parameter("unet", "network", choices=MODELS)
    filters: int = _parameter(16, "channels of the network at full resolution")
    data: str = _parameter("phantom", f"{', '.join(map(repr, EMBEDDED))}, or a folder that `nacl data prepare` made")
    size: int = _parameter(64, "height and width of a slice in pixels, a multiple of 32")
    epochs: int = _parameter(16, "passes over the training slices")
    batch_size: int = _parameter(4, "slices in a step")
    learning_rate: float = _parameter(1e-3, "of Adam; times 0.1 after half of the epochs")
    augment: bool = _parameter(False, "flip, rotate, scale, intensity; off as in the reference")
    seed: int = _parameter(0, "of weights, order of slices and augmentation")
    device: str = _parameter("auto", "where to train; not part of the run's identity", choices=DEVICES)

    def __post_init__(self) -> None:
        for f in fields(self):
            value = getattr(self, f.name)
            if f.type is float and isinstance(value, int) and not isinstance(value, bool):
                object.__setattr__(self, f.name, float(value))
            elif type(value) is not f.type:
                raise TypeError(expectation(f.name, f"of type {f.type.__name__}", repr(value)))
        check_choice("loss", self.loss, LOSSES)
        check_choice("model", self.model, MODELS)
        check_choice("device", self.device, DEVICES)
        for name in ("filters", "epochs", "batch_size", "size"):
            check_integer(name, getattr(self, name), low=1)
        check_integer("seed", self.seed, low=0)
        check_number("learning_rate", self.learning_rate, low=0, open_low=True)
        if self.size % 32:
            near = max(32, round(self.size / 32) * 32)
            raise ValueError(expectation("size", "to be a multiple of 32", self.size, remedy=f"Use {near}"))
        check_number("dice_weight", self.dice_weight, low=0)
        check_number("l1_ace_weight", self.l1_ace_weight, low=0)
        for name in LOSSES:  # also the options that this run's loss does not take: a typing error is one everywhere
            build_loss(name, num_classes=2, **self.loss_options(name))
        check_number("schedule_end", self.schedule_end, low=0)
        self.penalty_schedule()(0)

    def loss_options(self, loss: str | None = None) -> dict[str, object]:
        """The fields that a loss takes, by default this run's; the others do not touch it."""
        known = keywords(LOSSES[loss or self.loss])
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name in known}

    def penalty_schedule(self) -> Schedule:
        """penalty_weight as a function of the epoch."""
        check_choice("schedule", self.schedule, SCHEDULES)
        return Schedule(self.penalty_weight, self.schedule, end=self.schedule_end, epochs=self.epochs)

    def values(self) -> dict[str, object]:
        """What this run depends on: its fields, but for `device`, the path of the data (its content counts, see
        `identity`) and the options that its loss does not take.
        """
        values = asdict(self)
        del values["device"], values["data"]
        used = self.loss_options()
        unused = {option for loss in LOSSES.values() for option in keywords(loss)} - set(used)
        if "penalty_weight" not in used:
            unused |= {"schedule", "schedule_end"}
        elif self.schedule == "constant":
            unused.add("schedule_end")
        return {name: value for name, value in values.items() if name not in unused}

    def identity(self) -> str:
        """A hash of the values, the package's source and the data's content (not its path)."""
        values = {**self.values(), "data": dataset_fingerprint(self.data), "source": source_hash()}
        return hashlib.blake2b(json.dumps(values, sort_keys=True).encode(), digest_size=6).hexdigest()

    def folder(self, runs: Path | None = None) -> Path:
        """Where this run's files are, under `runs` (by default `runs_folder()`)."""
        return (runs or runs_folder()) / f"{self.loss}-{dataset_name(self.data)}-{self.identity()}"


def runs_folder() -> Path:
    """$NACL_RUNS, else `runs` beside the package where that is a checkout, else `runs` in the working directory."""
    if "NACL_RUNS" in os.environ:
        return Path(os.environ["NACL_RUNS"]).absolute()
    checkout = (PROJECT_ROOT / "pyproject.toml").exists()
    return (PROJECT_ROOT if checkout else Path.cwd()) / "runs"
