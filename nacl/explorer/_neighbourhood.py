"""The explorer of windows and priors."""

import numpy as np
import traitlets
from numpy.typing import ArrayLike

from nacl._checks import check_choice, check_kernel_size, expectation
from nacl._windows import BORDERS
from nacl.explorer._maps import built_in, check_num_classes, class_names_of, own_labels, own_logits, shown_part
from nacl.explorer._widget import Explorer, checked_range, number, whole
from nacl.priors import IMAGE_PRIORS, PRIORS

SHOWN_PRIORS = tuple(prior for prior in PRIORS if prior not in IMAGE_PRIORS)
PAINTED = "painted"
AS_ROWS = {
    "to_json": lambda value, _: None if value is None else value.tolist(),
    "from_json": lambda value, _: None if value is None else np.asarray(value),
}


class Neighbourhood(Explorer):
    """Labels to paint on, their windows, tau, and the label of SVLS; see `nacl.explorer.neighbourhood`.

    Attributes:
        labels: (H, W), classes in [0, num_classes); longer than 96 pixels, they are shown by some of them.
        num_classes, class_names: of the labels.
        logits: (K, H, W) of a network for these labels, or None; to four decimals.
        map: the name of a built-in map, "yours", or "painted" once it was changed; to set it loads that map.
        note: what is to be said of the labels.
        kernel_size: odd, from 1 to 15.
        sigma: of the Gaussian, in pixels, from 0.3 to 5.
        prior, border: as in `nacl.neighbour_prior`; the priors that look at an image are left out.
        shown_class, brush: the class whose shares are shown, and the one to paint with.
        cursor: row and column whose numbers are shown.
    """

    title = "The neighbourhood"
    kind = traitlets.Unicode("neighbourhood").tag(sync=True)
    labels = traitlets.Any().tag(sync=True, **AS_ROWS)
    num_classes = traitlets.Int(2).tag(sync=True)
    class_names = traitlets.List(traitlets.Unicode()).tag(sync=True)
    maps = traitlets.Dict().tag(sync=True)
    map = traitlets.Unicode().tag(sync=True)
    logits = traitlets.Any(None, allow_none=True).tag(sync=True, **AS_ROWS)
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
        labels = own_labels(proposal.value, self.num_classes)
        part, self._of_part = shown_part(labels.shape)
        return labels[part].astype(np.int64)

    @traitlets.validate("logits")
    def _logits(self, proposal: traitlets.Bunch) -> np.ndarray | None:
        if proposal.value is None:
            return None
        logits = own_logits(proposal.value, self.labels.shape)
        if len(logits) != self.num_classes:
            raise ValueError(expectation("logits", f"of {self.num_classes} classes, as the labels", len(logits)))
        return logits

    @traitlets.validate("num_classes")
    def _num_classes(self, proposal: traitlets.Bunch) -> int:
        check_num_classes(proposal.value)
        if self.labels is not None:
            own_labels(self.labels, proposal.value)
        if self.logits is not None and len(self.logits) != proposal.value:
            raise ValueError(expectation("num_classes", f"that of logits, {len(self.logits)}", proposal.value))
        return proposal.value

    @traitlets.validate("class_names")
    def _class_names(self, proposal: traitlets.Bunch) -> list[str]:
        return class_names_of(self.num_classes, proposal.value)

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
        if change.new in self.maps and change.old is not traitlets.Undefined:
            with self.hold_trait_notifications():
                for name, value in _values_of(self.maps[change.new]).items():
                    setattr(self, name, value)

    @traitlets.observe("labels")
    def _follow(self, change: traitlets.Bunch) -> None:
        """Of labels that are no map's: what belonged to others goes."""
        if self.map in self.maps and np.array_equal(self.labels, self.maps[self.map]["labels"]):
            return
        self.map = PAINTED
        if self._of_part or np.shape(change.old) != self.labels.shape:
            self.note, self.logits = self._of_part, None
            self.cursor = _middle(self.labels)

    @traitlets.observe("num_classes")
    def _rename(self, change: traitlets.Bunch) -> None:
        count, last = change.new, change.new - 1
        if len(self.class_names) != count:
            further = class_names_of(count, None)[len(self.class_names) :]
            self.class_names = [*self.class_names[:count], *further]
        self.shown_class, self.brush = min(self.shown_class, last), min(self.brush, last)


def _values_of(found: dict) -> dict[str, object]:
    """What an explorer holds of one of its maps."""
    labels, logits = np.asarray(found["labels"]), found.get("logits")
    return {
        "num_classes": found["num_classes"],
        "class_names": found["class_names"],
        "labels": labels,
        "logits": None if logits is None else np.asarray(logits),
        "note": found.get("note", ""),
        "cursor": _middle(labels),
    }


def _middle(labels: np.ndarray) -> list[int]:
    return [size // 2 for size in labels.shape]


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
        logits: (K, H, W) of a network for these labels, to see their distance from tau at a pixel; without labels,
            those are the classes that the logits rank first.
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
    if labels is None and logits is None:
        for argument, given in {"num_classes": num_classes, "class_names": class_names}.items():
            if given is not None:
                raise ValueError(expectation("labels", f"with {argument}", None))
        name = values.pop("map", "phantom slice")
        check_choice("map", name, maps)
    elif "map" in values:
        raise ValueError(expectation("map", "without labels or logits", repr(values["map"])))
    else:
        name, maps["yours"] = "yours", _taken(labels, logits, num_classes, class_names)
    last = maps[name]["num_classes"] - 1
    start = {"shown_class": last, "brush": last, **_values_of(maps[name])}
    return Neighbourhood(maps=maps, map=name, **{**start, **values})


def _taken(labels, logits, num_classes, class_names) -> dict[str, object]:
    """A user's map as an explorer has it."""
    notes = []
    if labels is None:
        logits = own_logits(logits)
        labels = logits.argmax(axis=0)
        notes.append("The labels are the classes that your logits rank first.")
    own = own_labels(labels)
    if logits is not None:
        logits = own_logits(logits, own.shape)
        num_classes = num_classes or len(logits)
        if num_classes != len(logits):
            raise ValueError(expectation("num_classes", f"that of logits, {len(logits)}", num_classes))
    count = max(2, int(own.max()) + 1) if num_classes is None else num_classes
    check_num_classes(count)
    names = class_names_of(count, class_names)
    own_labels(own, count)
    (rows, columns), of_part = shown_part(own.shape)
    taken = {"labels": own[rows, columns].tolist(), "num_classes": count, "class_names": names}
    if logits is not None:
        taken["logits"] = logits[:, rows, columns].tolist()
    return {**taken, "note": " ".join([*notes, of_part]).strip()}
