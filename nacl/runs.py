"""A run is a set of plain values; they name the folder in which its results lie."""

import functools
import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path

from nacl._checks import check_choice, check_integer, check_number, expectation
from nacl.data import dataset_fingerprint, dataset_name
from nacl.data.load import EMBEDDED, PROJECT_ROOT
from nacl.losses import LAGRANGIANS, LOSSES, PENALTIES, SCHEDULES, Schedule, build_loss, keywords
from nacl.models import check_model, check_weights, has_encoder, model_source, takes_filters
from nacl.parameters import check_parameters
from nacl.priors import BORDERS, PRIORS
from nacl.provenance import source_hash
from nacl.training import DEVICES, ENGINES

TILE = 32
"""What sizes are multiples of: the stride of the deepest networks, such as the paper's U-Net."""

SEEDS = 2**32
"""How many seeds there are: numpy's SeedSequence splits a larger one into words, which then mean other seeds."""

WINDOWS_OF_SIGMA = ("gaussian", "bilateral")
"""The priors whose window is Gaussian, see `nacl.priors.neighbour_prior`."""


def _parameter(default: object, help: str, **metadata: object):
    return field(default=default, metadata={"help": help, **metadata})


@dataclass(frozen=True)
class Run:
    """Everything that decides the numbers of one training; the parameters of `notebooks/09_train`, name for name.

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
    kernel_depth: int = _parameter(1, "depth of the window in slices, odd; used where depth is above 1")
    sigma: float = _parameter(1.0, "standard deviation of Gaussian windows in pixels (SVLS, NACL)")
    border: str = _parameter("inside", "what counts beyond the image", choices=BORDERS)
    softmax: bool = _parameter(False, "constrain the softmax instead of the logits (NACL)")
    mixed_only: bool = _parameter(False, "penalise windows of several classes only (NACL)")
    margin: float = _parameter(10.0, "by how much logits may differ (MbLS, CRaC)")
    lagrangian: str = _parameter("phr", "penalty whose multipliers CRaC learns", choices=LAGRANGIANS)
    smoothing: float = _parameter(0.1, "alpha of label smoothing")
    gamma: float = _parameter(3.0, "exponent of the focal loss")
    dice_weight: float = _parameter(0.0, "weight of a soft Dice loss that is added")
    l1_ace_weight: float = _parameter(0.0, "weight of the L1-ACE loss that is added")
    model: str = _parameter("unet", "network: see `nacl models`, or MODULE:FUNCTION of your own")
    encoder: str = _parameter("resnet18", "of a network of smp")
    weights: str = _parameter("none", "that the encoder begins with, such as imagenet; none for random ones")
    filters: int = _parameter(16, "channels of the network at full resolution")
    data: str = _parameter("phantom", f"{', '.join(map(repr, EMBEDDED))}, or a folder that `nacl data prepare` made")
    size: int = _parameter(64, "height and width of a slice in pixels, a multiple of 32")
    depth: int = _parameter(1, "slices in a sample: 1 trains on slices, more on 3D patches")
    patch: int = _parameter(0, "height and width of a 3D patch in pixels, a multiple of 32; 0 for the whole slice")
    share: float = _parameter(1.0, "of the training patients, in (0, 1]")
    epochs: int = _parameter(16, "passes over the training slices, or over as many patches")
    batch_size: int = _parameter(4, "slices, or patches, in a step")
    learning_rate: float = _parameter(1e-3, "of Adam; times 0.1 after half of the epochs")
    augment: bool = _parameter(False, "flip, rotate, scale, intensity; off as in the reference")
    seed: int = _parameter(0, "of weights, order of slices, augmentation, and who is in the share")
    engine: str = _parameter("eager", "how a step is executed; compile is faster on a GPU", choices=ENGINES)
    device: str = _parameter("auto", "where to train; not part of the run's identity", choices=DEVICES)

    def __post_init__(self) -> None:
        for f in fields(self):
            value = getattr(self, f.name)
            if f.type is float and isinstance(value, int) and not isinstance(value, bool):
                object.__setattr__(self, f.name, float(value))
            elif type(value) is not f.type:
                raise TypeError(expectation(f.name, f"of type {f.type.__name__}", repr(value)))
        self._check_loss()
        self._check_network()
        self._check_data()
        self._check_training()

    def _check_loss(self) -> None:
        check_choice("loss", self.loss, LOSSES)
        check_integer("kernel_depth", self.kernel_depth, low=1)
        if self.kernel_depth % 2 == 0:
            remedy = f"Use {self.kernel_depth - 1} or {self.kernel_depth + 1}: a window needs a centre"
            raise ValueError(expectation("kernel_depth", "to be odd", self.kernel_depth, remedy=remedy))
        for name in LOSSES:  # also the options that this run's loss does not take: a typing error is one everywhere
            _check_options(name, **_taken(self, name))
        _check_options(self.loss, **self.loss_options())  # where depth is above 1, a window of three axes
        check_number("dice_weight", self.dice_weight, low=0)
        check_number("l1_ace_weight", self.l1_ace_weight, low=0)
        check_number("schedule_end", self.schedule_end, low=0)
        self.penalty_schedule()(0)

    def _check_network(self) -> None:
        check_integer("depth", self.depth, low=1)
        check_model(self.model, axes=2 if self.depth == 1 else 3)
        for name in ("encoder", "weights"):
            if not getattr(self, name).strip():
                remedy = f"Leave it at {getattr(Run, name)!r}"
                raise ValueError(expectation(name, "to be a name", repr(getattr(self, name)), remedy=remedy))
        check_weights(self.model, self.weights)
        check_integer("filters", self.filters, low=1)

    def _check_data(self) -> None:
        check_integer("size", self.size, low=1)
        _check_tiles("size", self.size)
        check_integer("patch", self.patch, low=0)
        if self.patch and self.depth == 1:
            remedy = "Set depth, to 8 for instance, to train on 3D patches"
            raise ValueError(expectation("patch", "to be 0 where slices are trained on", self.patch, "depth=1", remedy))
        if self.patch:
            _check_tiles("patch", self.patch)
        if self.patch > self.size:
            remedy = "Lower it, or raise size"
            raise ValueError(expectation("patch", "of at most size", self.patch, f"size={self.size}", remedy))
        check_number("share", self.share, low=0, high=1, open_low=True)

    def _check_training(self) -> None:
        for name in ("epochs", "batch_size"):
            check_integer(name, getattr(self, name), low=1)
        check_number("learning_rate", self.learning_rate, low=0, open_low=True)
        check_integer("seed", self.seed, low=0)
        if self.seed >= SEEDS:
            raise ValueError(expectation("seed", "below 2**32", self.seed, remedy="Use 0, 1, 2, ..."))
        check_choice("engine", self.engine, ENGINES)
        check_choice("device", self.device, DEVICES)

    @classmethod
    def from_parameters(cls, namespace: Mapping[str, object]) -> "Run":
        """The run that a notebook's parameters describe: `Run.from_parameters(globals())`.

        Raises:
            ValueError: papermill passed a name that is no field (the nearest is suggested); a field without a value.
            ValueError, TypeError: a value that `Run` refuses.
        """
        names = [f.name for f in fields(cls)]
        check_parameters(namespace, known=names)
        missing = [name for name in names if name not in namespace]
        if missing:
            remedy = "Assign them in the cell of parameters"
            raise ValueError(
                expectation("namespace", "with a value for each field of a run", f"no {', '.join(missing)}", "", remedy)
            )
        return cls(**{name: namespace[name] for name in names})

    def loss_options(self) -> dict[str, object]:
        """The keywords of the loss, for data of the run's axes; other fields do not touch it."""
        options = _taken(self, self.loss)
        if "kernel_size" in options and self.depth > 1:
            options["kernel_size"] = (self.kernel_depth, self.kernel_size, self.kernel_size)
        return options

    def patch_shape(self) -> tuple[int, int, int] | None:
        """(depth, height, width) of the 3D patches that are trained on; None for slices."""
        return None if self.depth == 1 else (self.depth, self.patch or self.size, self.patch or self.size)

    def model_options(self, spacing: tuple[float, float, float]) -> dict[str, object]:
        """The keywords of `nacl.models.build_model`, for data of this spacing (D, H, W)."""
        patch = self.patch_shape() or (self.size, self.size)
        return {
            "filters": self.filters,
            "encoder": self.encoder,
            "weights": self.weights,
            "patch": patch,
            "spacing": spacing[-len(patch) :],
        }

    def penalty_schedule(self) -> Schedule:
        """penalty_weight as a function of the epoch."""
        check_choice("schedule", self.schedule, SCHEDULES)
        return Schedule(self.penalty_weight, self.schedule, end=self.schedule_end, epochs=self.epochs)

    def biased_by(self) -> float | None:
        """penalty_weight, where the bias that it leaves has a closed form (`nacl.theory.without_bias`): NACL with L1 on
        the logits, of all windows and at one weight, by itself.
        """
        plain = self.penalty == "l1" and self.schedule == "constant" and not (self.softmax or self.mixed_only)
        alone = self.loss == "nacl" and not (self.dice_weight or self.l1_ace_weight)
        return self.penalty_weight if plain and alone else None

    def label(self) -> str:
        """The loss, and in brackets what of it is not as it comes.

        >>> Run(loss="nacl", penalty_weight=0.03).label(), Run(loss="ce", dice_weight=1).label()
        ('nacl (penalty_weight 0.03)', 'ce (dice_weight 1)')
        """
        mattering = {*_OPTIONS, "schedule", "schedule_end", "dice_weight", "l1_ace_weight"}
        own = {f.name: f.default for f in fields(self) if f.name in mattering}
        other = {name: value for name, value in self.values().items() if name in own and value != own[name]}
        told = (
            name if value is True else f"{name} {value:g}" if type(value) is float else f"{name} {value}"
            for name, value in other.items()
        )
        return f"{self.loss} ({', '.join(told)})" if other else self.loss

    def values(self) -> dict[str, object]:
        """What this run depends on: its fields, but for `device`, the path of the data (its content counts, see
        `identity`) and those that decide nothing, the others being as they are.
        """
        unused = {"device", "data", *self._idle_of_loss(), *self._idle_of_network()}
        values = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in unused}
        return values if self.depth == 1 else {**values, "patch": self.patch or self.size}

    def _idle_of_loss(self) -> set[str]:
        idle = set(_OPTIONS - set(_taken(self, self.loss)))
        if "penalty_weight" in idle:
            idle |= {"schedule", "schedule_end"}
        elif self.schedule == "constant":
            idle.add("schedule_end")
        if self.penalty != "huber":
            idle.add("delta")
        if self.loss == "nacl" and self.prior not in WINDOWS_OF_SIGMA:
            idle.add("sigma")
        if self.loss == "nacl" and self.prior == "max":  # beyond the image there is never a higher label
            idle.add("border")
        if self.depth == 1 or "kernel_size" in idle:
            idle.add("kernel_depth")
        return idle

    def _idle_of_network(self) -> set[str]:
        idle = set() if has_encoder(self.model) else {"encoder", "weights"}
        if not takes_filters(self.model):
            idle.add("filters")
        if self.depth == 1:
            idle.add("patch")
        return idle

    def identity(self) -> str:
        """A hash of the values, the source of the package and of a network of one's own, and the data's content."""
        return identities([self])[0]

    def folder(self, runs: Path | None = None) -> Path:
        """Where this run's files are, under `runs` (by default `runs_folder()`)."""
        return folders([self], runs)[0]


def identities(runs: Iterable[Run]) -> list[str]:
    """The identity of each run. What they share, such as a folder of data, is looked at once for all of them."""
    data, model, package = functools.cache(dataset_fingerprint), functools.cache(model_source), source_hash()
    found = []
    for run in runs:
        sources = {"data": data(run.data), "source": package, "model_source": model(run.model)}
        text = json.dumps({**run.values(), **sources}, sort_keys=True)
        found.append(hashlib.blake2b(text.encode(), digest_size=6).hexdigest())
    return found


def folders(runs: Iterable[Run], root: Path | None = None) -> list[Path]:
    """The folder of each run under `root`, by default `runs_folder()`; as `Run.folder`, for thousands at once."""
    runs, root, name = list(runs), root or runs_folder(), functools.cache(dataset_name)
    return [
        root / f"{run.loss}-{name(run.data)}-{identity}" for run, identity in zip(runs, identities(runs), strict=True)
    ]


@functools.cache
def _keywords(loss: str) -> frozenset[str]:
    return frozenset(keywords(LOSSES[loss]))


_OPTIONS = frozenset[str]().union(*map(_keywords, LOSSES))
"""What some loss takes."""


def _taken(run: Run, loss: str) -> dict[str, object]:
    """The fields that a loss has a keyword for."""
    return {f.name: getattr(run, f.name) for f in fields(run) if f.name in _keywords(loss)}


@functools.cache
def _check_options(loss: str, **options: object) -> None:
    """Refuse options as the loss does; once for each, since thousands of runs share them and a loss is slow to make."""
    build_loss(loss, num_classes=2, **options)


def _check_tiles(name: str, value: int) -> None:
    if value % TILE:
        near = max(TILE, round(value / TILE) * TILE)
        raise ValueError(expectation(name, f"to be a multiple of {TILE}", value, remedy=f"Use {near}"))


def runs_folder() -> Path:
    """$NACL_RUNS, else `runs` beside the package where that is a checkout, else `runs` in the working directory."""
    if "NACL_RUNS" in os.environ:
        return Path(os.environ["NACL_RUNS"]).absolute()
    checkout = (PROJECT_ROOT / "pyproject.toml").exists()
    return (PROJECT_ROOT if checkout else Path.cwd()) / "runs"
