"""The explorer of a finished sweep."""

from pathlib import Path

import traitlets

from nacl._checks import check_choice, expectation
from nacl.explorer._widget import Explorer
from nacl.explorer.sweeps import AXES, check_sweep, read_sweep

EVERY_SEED = "all"


class Training(Explorer):
    """Trained networks under sliders; see `nacl.explorer.training`.

    Attributes:
        sweep: what `nacl.explorer.collect_sweep` gave.
        loss: the method that is shown beside cross-entropy.
        penalty_weight, kernel_size, margin: of that method, one of the sweep's values.
        seed: "all", or one of the sweep's; held as text.
    """

    title = "Trained networks"
    kind = traitlets.Unicode("training").tag(sync=True)
    sweep = traitlets.Dict().tag(sync=True)
    loss = traitlets.Unicode("nacl").tag(sync=True)
    penalty_weight = traitlets.CFloat(0.1).tag(sync=True)
    kernel_size = traitlets.Int(3).tag(sync=True)
    margin = traitlets.CFloat(10.0).tag(sync=True)
    seed = traitlets.CUnicode(EVERY_SEED).tag(sync=True)

    @traitlets.validate("sweep")
    def _sweep(self, proposal: traitlets.Bunch) -> dict:
        if self.sweep and proposal.value is not self.sweep:
            raise ValueError(expectation("sweep", "to stay", "another", remedy="Call nacl.explorer.training for that"))
        return check_sweep(proposal.value)

    @traitlets.validate("loss", "penalty_weight", "kernel_size", "margin", "seed")
    def _value(self, proposal: traitlets.Bunch) -> object:
        name, value = proposal.trait.name, proposal.value
        known = sorted({run[name] for run in self.sweep["runs"] if run[name] is not None})
        if name == "seed":
            check_choice(name, value, [EVERY_SEED, *map(str, known)])
        elif name in ("loss",) or (known and value not in known):
            check_choice(name, value, known if name == "loss" else [f"{number:g}" for number in known])
        return value


def training(source: str | Path | dict, **values: object) -> Training:
    """Slide through the networks of a finished sweep: reliability, Dice and ECE with intervals, logits, confidence.

    Args:
        source: a file that `write_sweep` wrote, or what `collect_sweep` gave.
        **values: where the sliders begin, see `Training`; by default NACL as it comes, or what the sweep has.

    Raises:
        FileNotFoundError: no such file.
        ValueError: no file of a sweep, a value that the sweep does not have.
    """
    sweep = check_sweep(source) if isinstance(source, dict) else read_sweep(source)
    start = {}
    for name, usual in (("loss", "nacl"), *AXES.items()):
        known = [run[name] for run in sweep["runs"] if run[name] is not None]
        if known and usual not in known:
            start[name] = known[-1]
    return Training(sweep=sweep, **{**start, **values})
