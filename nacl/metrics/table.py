"""Bins of confidence as a table, for files and pictures. It needs pandas, so `nacl.metrics` does not import it."""

from collections.abc import Mapping

import pandas as pd

from nacl.metrics.bins import CalibrationBins


def bins_table(bins: Mapping[str, CalibrationBins]) -> pd.DataFrame:
    """One row a region and bin: `region`, `bin`, `count`, `confidence_sum`, `correct_sum`.

    Args:
        bins: of the predicted class, by region, see `calibration_bins`.
    """
    columns = ("count", "confidence_sum", "correct_sum")
    tables = [
        pd.DataFrame({"region": region, "bin": range(one.n_bins)} | {c: getattr(one, c).cpu().numpy() for c in columns})
        for region, one in bins.items()
    ]
    return pd.concat(tables, ignore_index=True)
