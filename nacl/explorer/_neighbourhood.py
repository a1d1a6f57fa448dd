"""The explorer of windows and priors."""

import numpy as np
import traitlets
from numpy.typing import ArrayLike

from nacl._checks import check_choice, check_kernel_size, expectation
from nacl._windows import BORDERS
from nacl.explorer._maps import built_in, class_names_of, own_labels, own_logits, step_for
from nacl.explorer._widget import Explorer, checked_range, number, whole
from nacl.priors import IMAGE_PRIORS, PRIORS

SHOWN_PRIORS = tuple(prior for prior in PRIORS if prior not in IMAGE_PRIORS)
PAINTED = "painted"
AS_ROWS = {"to_json": lambda value, _: value.tolist(), "from_json": lambda value, _: np.asarray(value)}


class Neighbourhood(Explorer):
    """Labels to paint on, their windows, tau, and the label of SVLS; see `nacl.explorer.neighbourhood`.

    Attributes:
        labels: (H, W), classes in [0, num_classes).
        num_classes, class_names: of the labels.
        map: the name of a built-in map, "yours", or "painted" once it was changed; to set it loads that map.
        kernel_size: odd, from 1 to 15.
        sigma: of the Gaussian, in pixels, from 0.3 to 5.
        prior, border: as in `nacl.neighbour_prior`; the priors that look at an image are left out.
        shown_class, brush: the class whose shares are shown, and the one to paint with.
        cursor: row and column whose numbers are shown.
    """

    title = "The neighbourhood"
    labels = traitlets.Any().tag(sync=True, **AS_ROWS)
    num_classes = traitlets.Int(2).tag(sync=True)
    class_names = traitlets.List(traitlets.Unicode()).tag(sync=True)
    maps = traitlets.Dict().tag(sync=True)
    map = traitlets.Unicode().tag(sync=True)
    logits = traitlets.Any(None, allow_none=True).tag(sync=True)
    note = traitlets.Unicode("").tag(sync=True)
    kernel_size = whole(3, 1, 15, "width of the window in pixels, odd")
    sigma = number(1.0, 0.3, 5.0, "standard deviation of the Gaussian in pixels")
    prior = traitlets.Unicode("mean").tag(sync=True)
    border = traitlets.Unicode("inside").tag(sync=True)
    shown_class = traitlets.Int(0).tag(sync=True)
    brush = traitlets.Int(0).tag(sync=True)
    cursor = traitlets.List(traitlets.Int(), minlen=2, maxlen=2).tag(sync=True)

    @traitlets.validate("labels")
    def _labels(self, proposal: traitlets.Bunch) -> np.ndarray:
        return own_labels(proposal.value, self.num_classes)

    @traitlets.validate("kernel_size")
    def _kernel_size(self, proposal: traitlets.Bunch) -> int:
        check_kernel_size(proposal.value)
        return checked_range(proposal)

    @traitlets.validate("sigma")
    def _sigma(self, proposal: traitlets.Bunch) -> float:
        return checked_range(proposal)

    @traitlets.validate("map", "prior", "border")
    def _name(self, proposal: traitlets.Bunch) -> str:
        allowed = {"map": [*self.maps, PAINTED], "prior": SHOWN_PRIORS, "border": BORDERS}[proposal.trait.name]
        check_choice(proposal.trait.name, proposal.value, allowed)
        return proposal.value

    @traitlets.validate("shown_class", "brush")
    def _class(self, proposal: traitlets.Bunch) -> int:
        if not 0 <= proposal.value < self.num_classes:
            raise ValueError(expectation(proposal.trait.name, f"in [0, {self.num_classes})", proposal.value))
        return proposal.value

    @traitlets.validate("cursor")
    def _cursor(self, proposal: traitlets.Bunch) -> list[int]:
        if not all(0 <= place < size for place, size in zip(proposal.value, self.labels.shape, strict=True)):
            raise ValueError(expectation("cursor", f"inside the map of {self.labels.shape}", proposal.value))
        return proposal.value

    @traitlets.observe("map")
    def _load(self, change: traitlets.Bunch) -> None:
        if change.new not in self.maps or change.old is traitlets.Undefined:
            return
        found = self.maps[change.new]
        labels, last = np.asarray(found["labels"]), found["num_classes"] - 1
        with self.hold_trait_notifications():
            self.num_classes, self.class_names = found["num_classes"], found["class_names"]
            self.labels, self.cursor = labels, [size // 2 for size in labels.shape]
            self.shown_class, self.brush = min(self.shown_class, last), min(self.brush, last)


def neighbourhood(
    labels: ArrayLike | None = None,
    logits: ArrayLike | None = None,
    *,
    num_classes: int | None = None,
    class_names: list[str] | None = None,
    **values: object,
) -> Neighbourhood:
    """Labels to paint on: move the window, and see tau, the label of SVLS and the band that it touches.

    Args:
        labels: (H, W), an array or tensor of classes; by default a slice of the phantom. Longer than 96 pixels, it is
            shown at every second, third, ... pixel, and the page says so.
        logits: (K, H, W) of a network for these labels, to see their distance from tau at a pixel.
        num_classes: by default that of `logits`, else the largest label and one, at least 2.
        class_names: by default numbers.
        **values: where the sliders begin, see `Neighbourhood`.

    Raises:
        ValueError: labels that are not whole numbers in [0, num_classes), wrong shapes, NaN, values beyond a slider.
        TypeError: arrays of no numbers, an unknown value.

    Example:
        >>> explorer = neighbourhood([[0, 0, 1], [0, 1, 1]], kernel_size=5)
        >>> explorer.kernel_size, explorer.map
        (5, 'yours')
    """
    maps = built_in()
    if labels is None:
        if logits is not None:
            raise ValueError(expectation("labels", "with logits", None, remedy="Pass the labels of the same slice"))
        name, note = values.pop("map", "phantom slice"), ""
        check_choice("map", name, maps)
    else:
        name, logits, note = _take(maps, labels, logits, num_classes, class_names)
    found = maps[name]
    shape, last = (len(found["labels"]), len(found["labels"][0])), found["num_classes"] - 1
    start = {"shown_class": last, "brush": last, "cursor": [size // 2 for size in shape], **found}
    start["labels"] = np.asarray(found["labels"])
    return Neighbourhood(kind="neighbourhood", maps=maps, map=name, note=note, logits=logits, **{**start, **values})


def _take(maps, labels, logits, num_classes, class_names) -> tuple[str, list | None, str]:
    """Put a user's map among `maps`; its name, its logits as rows, and what to say of it."""
    own = own_labels(labels)
    if logits is not None:
        logits = own_logits(logits, own.shape)
        num_classes = num_classes or len(logits)
        if num_classes != len(logits):
            raise ValueError(expectation("num_classes", f"that of logits, {len(logits)}", num_classes))
    count = num_classes or max(2, int(own.max()) + 1)
    names = class_names_of(count, class_names)
    own_labels(own, count)
    step, note = step_for(own.shape), ""
    if step > 1:
        shown = own[::step, ::step]
        note = f"Your map of {own.shape[0]} × {own.shape[1]} pixels is shown at every {step}th, "
        note += f"{shown.shape[0]} × {shown.shape[1]}: windows are {step} times as wide as they seem."
        own, logits = shown, None if logits is None else logits[:, ::step, ::step]
    maps["yours"] = {"labels": own.tolist(), "num_classes": count, "class_names": names}
    return "yours", None if logits is None else logits.tolist(), note
