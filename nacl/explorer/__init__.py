"""Explorers: move kernel size and penalty weight and see it happen, in Jupyter, in Voila, and in a page by itself."""

from nacl.explorer._neighbourhood import Neighbourhood, neighbourhood
from nacl.explorer._penalty import Penalty, penalty
from nacl.explorer._training import Training, training
from nacl.explorer._widget import Explorer, save_page
from nacl.explorer.sweeps import collect_sweep, read_sweep, write_sweep

__all__ = [
    "Explorer",
    "Neighbourhood",
    "Penalty",
    "Training",
    "collect_sweep",
    "neighbourhood",
    "penalty",
    "read_sweep",
    "save_page",
    "training",
    "write_sweep",
]
