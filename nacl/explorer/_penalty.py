"""The explorer of one pixel's loss."""

import traitlets

from nacl._checks import check_choice
from nacl._penalties import PENALTIES
from nacl.explorer._widget import Explorer, checked_range, number, whole
from nacl.plots import LOSS_NAMES

LOSSES = ("ce", "label_smoothing", "focal", "svls", "mbls", "nacl")


class Penalty(Explorer):
    """One pixel whose label is sometimes wrong, under six losses; see `nacl.explorer.penalty`.

    Attributes:
        penalty_weight: lambda of NACL and MbLS, from 0.001 to 10.
        penalty: "l1", "l2" or "huber"; `delta` is where Huber's turns linear.
        num_classes: K, from 2 to 20.
        noise: how often the label is one of the other classes, from 0 to 0.5.
        tau: share of the label's class among the neighbours, in [0, 1].
        margin: of MbLS, from 0 to 15.
        gamma: of focal loss, from 0 to 5.
        smoothing: alpha of label smoothing, from 0 to 0.5.
    """

    title = "The penalty"
    kind = traitlets.Unicode("penalty").tag(sync=True)
    loss_names = traitlets.Dict({name: LOSS_NAMES[name] for name in LOSSES}).tag(sync=True)
    penalty_weight = number(0.1, 0.001, 10.0, "lambda of NACL and MbLS")
    penalty = traitlets.Unicode("l1").tag(sync=True)
    num_classes = whole(4, 2, 20, "K")
    noise = number(0.0, 0.0, 0.5, "how often the label is another class")
    tau = number(1.0, 0.0, 1.0, "share of the label's class among the neighbours")
    margin = number(10.0, 0.0, 15.0, "of MbLS")
    gamma = number(3.0, 0.0, 5.0, "of focal loss")
    smoothing = number(0.1, 0.0, 0.5, "of label smoothing")
    delta = number(1.0, 0.1, 10.0, "where the Huber penalty turns linear")

    @traitlets.validate("penalty_weight", "num_classes", "noise", "tau", "margin", "gamma", "smoothing", "delta")
    def _number(self, proposal: traitlets.Bunch) -> float:
        return checked_range(proposal)

    @traitlets.validate("penalty")
    def _penalty(self, proposal: traitlets.Bunch) -> str:
        check_choice("penalty", proposal.value, PENALTIES)
        return proposal.value


def penalty(**values: object) -> Penalty:
    """One pixel's loss over its logit, the two parts of NACL's gradient, and how sure each loss lets a network be.

    Args:
        **values: where the sliders begin, see `Penalty`.

    Raises:
        ValueError: a value beyond its slider, an unknown penalty.
        TypeError: an unknown value.

    Example:
        >>> explorer = penalty(penalty_weight=0.4, num_classes=2)
        >>> explorer.penalty_weight
        0.4
    """
    return Penalty(**values)
