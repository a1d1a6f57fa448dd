"""The pictures of a report: maps as small PNGs in the pixels of the data, outlines and charts as paths of SVG."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib import colormaps
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from nacl.reporting.cases import CheckedCase

CLASS_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9")
"""Wong's (Nature Methods 2011), which colour-blind readers can tell apart; of the foreground classes in turn."""

MARGIN = 0.35  # of the object's size, shown round it
LEAST_VIEW = 48  # pixels
RIGHT, IGNORED = (0.93, 0.93, 0.93), (1.0, 1.0, 1.0)


@dataclass(frozen=True)
class Slice:
    """The slice of a case with the most errors, cut to what is of interest.

    Attributes:
        number, depth: which of how many; None, 1 in 2D.
        confidence, image: (H, W), the latter None where there was none.
        label, predicted: (H, W).
        valid: bool (H, W).
        aspect: height of a pixel over its width.
    """

    number: int | None
    depth: int
    label: NDArray
    predicted: NDArray
    confidence: NDArray
    valid: NDArray
    image: NDArray | None
    aspect: float

    @property
    def errors(self) -> int:
        """Wrong pixels."""
        return int(((self.label != self.predicted) & self.valid).sum())


def worst_slice(case: CheckedCase, *, ignore_index: int) -> Slice:
    """The slice of a case in which most pixels are wrong; across the first axis, unless another is far shorter."""
    confidence, predicted = (x[0].numpy() for x in case.probs.max(dim=1))
    label = case.target[0].numpy()
    maps = {"label": label, "predicted": predicted, "confidence": confidence, "image": case.image}
    number, depth, spacing = None, 1, case.spacing or (1.0,) * label.ndim
    if label.ndim == 3:
        shape = label.shape
        axis = 0 if 2 * min(shape) > shape[0] else int(np.argmin(shape))
        wrong = (label != predicted) & (label != ignore_index)
        number = int(wrong.sum(axis=tuple(a for a in range(3) if a != axis)).argmax())
        maps = {name: None if x is None else x.take(number, axis=axis) for name, x in maps.items()}
        spacing, depth = spacing[:axis] + spacing[axis + 1 :], shape[axis]
    valid = maps["label"] != ignore_index
    maps["label"] = np.where(valid, maps["label"], 0)
    view = _view((maps["label"] != 0) | (maps["predicted"] != 0))
    cut = {name: None if x is None else np.array(x[view]) for name, x in maps.items()}
    return Slice(number, depth, valid=valid[view].copy(), aspect=spacing[0] / spacing[1], **cut)


def _view(inside: NDArray) -> tuple[slice, slice]:
    """The box of an object with a margin, within the picture; all of it where there is no object."""
    if not inside.any():
        return slice(None), slice(None)
    cuts = []
    for axis in (0, 1):
        places = np.flatnonzero(inside.any(axis=1 - axis))
        first, last, length = places[0], places[-1] + 1, inside.shape[axis]
        size = min(length, max(LEAST_VIEW, int((last - first) * (1 + 2 * MARGIN))))
        start = int(np.clip((first + last - size) // 2, 0, length - size))
        cuts.append(slice(start, start + size))
    return cuts[0], cuts[1]


def image_png(shown: Slice) -> str:
    """The image between its 1st and 99th percentile, or a flat grey."""
    if shown.image is None:
        return _png(np.full((*shown.label.shape, 3), 0.25))
    image = np.nan_to_num(shown.image.astype(np.float64), posinf=0, neginf=0)
    low, high = np.percentile(image, [1, 99])
    grey = ((image - low) / (high - low if high > low else 1)).clip(0, 1)
    return _png(np.repeat(grey[..., None], 3, axis=-1))


def confidence_png(shown: Slice, num_classes: int) -> str:
    """Confidence from 1 / C to 1 in cividis."""
    least = 1 / num_classes
    return _png(colormaps["cividis"](((shown.confidence - least) / (1 - least)).clip(0, 1))[..., :3])


def error_png(shown: Slice, num_classes: int) -> str:
    """Right pixels grey, wrong ones from yellow to dark red, the darker the surer; ignored ones white."""
    least = 1 / num_classes
    sure = ((shown.confidence - least) / (1 - least)).clip(0, 1)
    colours = colormaps["YlOrRd"](0.25 + 0.75 * sure)[..., :3]
    colours[shown.label == shown.predicted] = RIGHT
    colours[~shown.valid] = IGNORED
    return _png(colours)


def _png(colours: NDArray) -> str:
    """Colours (H, W, 3) in [0, 1] as a data address."""
    buffer = io.BytesIO()
    image = Image.fromarray((255 * colours).round().astype(np.uint8))
    image.quantize(128, dither=Image.Dither.NONE).save(buffer, format="png", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def colour_bar(name: str, *, start: float = 0.0) -> str:
    """A strip of a colour map, from `start` to its end, as a data address."""
    return _png(np.repeat(colormaps[name](np.linspace(start, 1, 128))[None, :, :3], 2, axis=0))


def outline(mask: NDArray) -> str:
    """The edges between the pixels inside and outside a mask, as the path of an SVG in pixels.

    Example:
        >>> outline(np.array([[False, True]]))
        'M1 0H2M1 1H2M1 0V1M2 0V1'
    """
    padded = np.pad(mask, 1)
    found = []
    for axis in (0, 1):
        edges = np.diff(padded.astype(np.int8), axis=axis) != 0
        lines = edges[:, 1:-1] if axis == 0 else edges[1:-1].T
        for at, line in enumerate(lines):
            turns = np.flatnonzero(np.diff(np.pad(line.astype(np.int8), 1)))
            for start, stop in turns.reshape(-1, 2).tolist():
                found.append(f"M{start} {at}H{stop}" if axis == 0 else f"M{at} {start}V{stop}")
    return "".join(found)


def outlines(labels: NDArray, num_classes: int) -> list[tuple[str, str]]:
    """For each foreground class that is there its colour and its outline."""
    present = [k for k in range(1, num_classes) if (labels == k).any()]
    return [(class_colour(k), outline(labels == k)) for k in present]


def class_colour(k: int) -> str:
    """Of a foreground class."""
    return CLASS_COLOURS[(k - 1) % len(CLASS_COLOURS)]


# Charts: coordinates in a square of SIDE units, whose y axis points down

SIDE = 200
BARS = 36
LEAST_SHARE = 1e-4  # of the pixels: where the bars, on a logarithmic scale, begin


def line(x: ArrayLike, y: ArrayLike) -> str:
    """The points of a polyline through (x, y) in [0, 1]."""
    return " ".join(f"{SIDE * a:.1f},{SIDE * (1 - b):.1f}" for a, b in zip(x, y, strict=True))


def band(x: Sequence[float], low: Sequence[float], high: Sequence[float]) -> str:
    """The points of the polygon between two lines; empty where they are not known."""
    known = ~(np.isnan(low) | np.isnan(high))
    x, low, high = (np.asarray(values)[known] for values in (x, low, high))
    return f"{line(x, high)} {line(x[::-1], low[::-1])}" if len(x) > 1 else ""


def bar_height(share: float) -> float:
    """Of a share of the pixels, on a logarithmic scale from `LEAST_SHARE` to 1."""
    return BARS * max(0.02, 1 + np.log10(max(share, LEAST_SHARE)) / -np.log10(LEAST_SHARE))
