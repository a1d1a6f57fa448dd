"""For Lightning: a callback that logs how far a network's confidence can be trusted, in numbers and as a picture.

It works with `lightning` and with `pytorch_lightning`: it is a Callback of the one that the program has imported, and
in a list of callbacks a Trainer of the other takes it too.
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

from torch import Tensor

from nacl._checks import check_choice, check_flag, check_integer, expectation, extra_needed
from nacl._files import whole_file
from nacl.metrics import REGIONS, BrierScore, CalibrationBins, CalibrationError, NegativeLogLikelihood
from nacl.torchmetrics import Streamed

LIBRARIES = ("lightning.pytorch", "pytorch_lightning")
DRAWING = ("matplotlib", "pandas", "seaborn")  # what nacl.plots imports

_loaded = [name for name in LIBRARIES if name in sys.modules]
_found = _loaded or [name for name in LIBRARIES if find_spec(name.split(".")[0])]
with extra_needed("lightning", "nacl.integrations.lightning", extra="lightning"):
    Callback = import_module((_found or LIBRARIES)[0]).Callback


class ReliabilityCallback(Callback):
    """Logs calibration errors, NLL and Brier score of each validation and test, and draws reliability diagrams.

    The numbers are of all pixels of the epoch, of all processes, from sums that do not grow. They are logged as
    `val_ece_REGION`, `val_nll_all` and `val_brier_all`, and `test_...`, for ModelCheckpoint or EarlyStopping to
    monitor; with several data loaders, each name ends in `/dataloader_idx_0`, ..., as Lightning's do. What Lightning
    runs to check the program before the first epoch is not logged.

    The picture goes to each logger that takes one: by `log_image` (W&B) or its experiment's `add_figure`
    (TensorBoard). If none does, it is a file in the logger's folder, `val_reliability/epoch0000.png`.

    Args:
        num_classes: C, the channels of the network's output.
        regions: the pixels over which calibration errors are taken, of `nacl.metrics.REGIONS`.
        n_bins: number of bins of equal width on [0, 1].
        forecast: `forecast(outputs, batch)` gives (logits or probabilities (N, C, ...), labels (N, ...)) from what the
            step returned and its batch. By default the step must return a dict with "logits" (or "probs", see
            `from_logits`) and "target", or a tuple of the two.
        from_logits: the forecast is logits, not probabilities.
        ignore_index: label of the pixels that never count.
        picture_every: a picture after every so many epochs, and of each test; 0 for none.

    Raises:
        ValueError: an unknown region, or a number out of range; later a step that returned something else.
        ModuleNotFoundError: a picture is asked for, and what draws it is not installed.

    Example:
        >>> callback = ReliabilityCallback(num_classes=4, picture_every=0)
        >>> callback.names
        ['ece_all', 'ece_predicted_foreground', 'ece_predicted_border', 'nll_all', 'brier_all']
    """

    def __init__(
        self,
        num_classes: int,
        *,
        regions: Sequence[str] = ("all", "predicted_foreground", "predicted_border"),
        n_bins: int = 15,
        forecast: Callable[[object, object], tuple[Tensor, Tensor]] | None = None,
        from_logits: bool = True,
        ignore_index: int = -100,
        picture_every: int = 1,
    ) -> None:
        super().__init__()
        if isinstance(regions, str):
            raise TypeError(expectation("regions", "to be a list of names", repr(regions)))
        for region in regions:
            check_choice("regions", region, REGIONS)
        check_flag("from_logits", from_logits)
        check_integer("picture_every", picture_every, low=0)
        missing = [name for name in DRAWING if find_spec(name) is None] if picture_every else []
        if missing:
            raise ModuleNotFoundError(f"A picture needs {', '.join(missing)}. Install it, or pass picture_every=0.")
        self.regions, self.n_bins, self.picture_every = tuple(dict.fromkeys(regions)), n_bins, picture_every
        self.options = {"num_classes": num_classes, "from_logits": from_logits, "ignore_index": ignore_index}
        self.forecast = forecast
        self._loaders: list[list[Streamed]] = []
        self.names = [streamed.metric.name for streamed in self._metrics()]

    def on_validation_start(self, trainer: object, pl_module: object) -> None:
        """Begin anew."""
        self._start(pl_module, trainer.num_val_batches)

    def on_test_start(self, trainer: object, pl_module: object) -> None:
        """Begin anew."""
        self._start(pl_module, trainer.num_test_batches)

    def on_validation_batch_end(
        self,
        trainer: object,
        pl_module: object,
        outputs: object,
        batch: object,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Add a batch."""
        self._add("validation_step", outputs, batch, dataloader_idx)

    def on_test_batch_end(
        self,
        trainer: object,
        pl_module: object,
        outputs: object,
        batch: object,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Add a batch."""
        self._add("test_step", outputs, batch, dataloader_idx)

    def on_validation_epoch_end(self, trainer: object, pl_module: object) -> None:
        """Log, and draw."""
        if trainer.sanity_checking:  # what a step returns was looked at, and is no result
            self._loaders = []
            return
        due = self.picture_every > 0 and (trainer.current_epoch + 1) % self.picture_every == 0
        self._finish(trainer, pl_module, "val", due=due)

    def on_test_epoch_end(self, trainer: object, pl_module: object) -> None:
        """Log, and draw."""
        self._finish(trainer, pl_module, "test", due=self.picture_every > 0)

    def _metrics(self) -> list[Streamed]:
        errors = [CalibrationError(region=region, n_bins=self.n_bins, **self.options) for region in self.regions]
        return [Streamed(m) for m in (*errors, NegativeLogLikelihood(**self.options), BrierScore(**self.options))]

    def _start(self, pl_module: object, batches: Sequence[int | float]) -> None:
        self._loaders = [[metric.to(pl_module.device) for metric in self._metrics()] for _ in batches]

    def _add(self, step: str, outputs: object, batch: object, dataloader_idx: int) -> None:
        if self.forecast is not None:
            pair = self.forecast(outputs, batch)
        else:
            pair = _returned(step, outputs, "logits" if self.options["from_logits"] else "probs")
        for metric in self._loaders[dataloader_idx]:
            metric.update(*pair)

    def _finish(self, trainer: object, pl_module: object, stage: str, *, due: bool) -> None:
        several = len(self._loaders) > 1
        for index, metrics in enumerate(self._loaders):
            ending = f"/dataloader_idx_{index}" if several else ""
            bins = {}
            for name, streamed in zip(self.names, metrics, strict=True):
                with streamed.sync_context():  # the sums of all processes, in each of them
                    value = streamed.metric.result(streamed.sums)
                    if isinstance(streamed.metric, CalibrationError):
                        bins[streamed.metric.region] = CalibrationBins(**streamed.sums)
                # the mean over processes of a number that they share: without it, Lightning warns
                options = {"sync_dist": True, "add_dataloader_idx": False, "batch_size": 1}
                pl_module.log(f"{stage}_{name}{ending}", value, **options)
            if due and bins:
                self._draw(trainer, type(pl_module).__name__, f"{stage}_reliability{ending}", bins)
        self._loaders = []

    def _draw(self, trainer: object, model: str, key: str, bins: Mapping[str, CalibrationBins]) -> None:
        """The diagram, by the first process, to the loggers that take it, or else to a file."""
        folder = Path(trainer.log_dir or trainer.default_root_dir)  # which every process must ask for
        if not trainer.is_global_zero:
            return
        figure = _diagram(model, bins)
        taken = [_sent(logger, key, figure, trainer.global_step) for logger in trainer.loggers]
        if not any(taken):
            with whole_file(folder / key / f"epoch{trainer.current_epoch:04d}.png") as file:
                figure.savefig(file)


def _returned(step: str, outputs: object, kind: str) -> tuple[Tensor, Tensor]:
    """The forecast and the labels in what a step returned."""
    if isinstance(outputs, Mapping) and {kind, "target"} <= outputs.keys():
        return outputs[kind], outputs["target"]
    if isinstance(outputs, tuple | list) and len(outputs) == 2:
        return tuple(outputs)
    got = f"a dict with {sorted(map(str, outputs))}" if isinstance(outputs, Mapping) else type(outputs).__name__
    rule = f'to return a dict with "{kind}" and "target", or a tuple of the two'
    other = 'from_logits=False for "probs"' if kind == "logits" else 'from_logits=True for "logits"'
    remedy = f"Return them, or make the ReliabilityCallback with forecast=, a function of (outputs, batch), or {other}"
    raise ValueError(expectation(step, rule, got, remedy=remedy))


def _diagram(model: str, bins: Mapping[str, CalibrationBins]) -> object:
    from nacl.metrics.table import bins_table  # needs pandas
    from nacl.plots import reliability_diagram

    titles = {region: region.replace("_", " ") for region in bins}
    return reliability_diagram({model: bins_table(bins)}, titles)


def _sent(logger: object, key: str, figure: object, step: int) -> bool:
    """Whether the logger took the picture."""
    if hasattr(logger, "log_image"):
        logger.log_image(key, [figure], step=step)
        return True
    if hasattr(logger.experiment, "add_figure"):
        logger.experiment.add_figure(key, figure, step)
        return True
    return False
