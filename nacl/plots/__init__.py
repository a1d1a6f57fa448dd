"""Tables and arrays to Axes, in Wong's colours (Nature Methods 2011), which colour-blind readers can tell apart.

Methods differ in their markers too, as a print in grey needs. One called "A + B" or "A (B)" is a relative of A: of the
same colour and marker, but dashed and hollow. No figure is wider than the book's column.
"""

from nacl.plots._style import BOOK_WIDTH, CLASS_COLOURS, LOSS_COLOURS, LOSS_MARKERS, LOSS_NAMES, label_of
from nacl.plots.ablation import METRICS, ablation_curves, ablation_rows
from nacl.plots.confidence import reliability_curves, reliability_diagram
from nacl.plots.curves import curves
from nacl.plots.methods import (
    by_case,
    critical_difference_diagram,
    intervals,
    learning_curves,
    metric_histograms,
    trade,
)
from nacl.plots.slices import WRONG, confidence_panels, contact_sheet, error_maps, maps, outlines

__all__ = [
    "BOOK_WIDTH",
    "CLASS_COLOURS",
    "LOSS_COLOURS",
    "LOSS_MARKERS",
    "LOSS_NAMES",
    "METRICS",
    "WRONG",
    "ablation_curves",
    "ablation_rows",
    "by_case",
    "confidence_panels",
    "contact_sheet",
    "critical_difference_diagram",
    "curves",
    "error_maps",
    "intervals",
    "label_of",
    "learning_curves",
    "maps",
    "metric_histograms",
    "outlines",
    "reliability_curves",
    "reliability_diagram",
    "trade",
]
