"""Metrics whose data lie in two processes give what one process would find, also where one of them has no data."""

import warnings
from datetime import timedelta

import pytest
import torch
from oracles import forecast
from torch import distributed

from nacl.metrics import AdaptiveCalibrationError, BrierScore, CalibrationError, NegativeLogLikelihood

C = 4
METRICS = {
    "border": lambda: CalibrationError(num_classes=C, region="predicted_border"),
    "classwise": lambda: CalibrationError(num_classes=C, classwise=True, convention="reference"),
    "cases": lambda: CalibrationError(num_classes=C, aggregation="cases"),
    "adaptive": lambda: AdaptiveCalibrationError(num_classes=C),
    "nll": lambda: NegativeLogLikelihood(num_classes=C),
    "brier": lambda: BrierScore(num_classes=C),
}
STREAMED = ("border", "cases", "brier")
DATA = {"both": ((0,), (1, 2)), "first": ((0, 1, 2), ()), "second": ((), (0, 1, 2)), "none": ((), ())}


def batches(seeds):
    return [forecast((2, 6, 5), C, seed=seed) for seed in seeds]


def filled(metric, seeds):
    for batch in batches(seeds):
        metric.update(*batch)
    return metric


def work(rank, folder):
    from nacl.torchmetrics import Streamed

    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # that a process without data computes
    meet = {"init_method": f"file://{folder}/meet", "rank": rank, "world_size": 2}
    distributed.init_process_group("gloo", timeout=timedelta(seconds=200), **meet)
    found = {}
    for who, seeds in DATA.items():
        for name, make in METRICS.items():
            metric = filled(make(), seeds[rank])
            metric.reduce()
            found[name, who, "reduced"] = metric.compute()
            if name in STREAMED:
                metric = filled(Streamed(make()), seeds[rank])
                found[name, who, "streamed"] = metric.compute().item()
    torch.save(found, f"{folder}/{rank}.pt")
    distributed.destroy_process_group()


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """The numbers that each of two processes found."""
    pytest.importorskip("torchmetrics")
    folder = tmp_path_factory.mktemp("processes")
    torch.multiprocessing.spawn(work, (str(folder),), nprocs=2)
    return [torch.load(folder / f"{rank}.pt") for rank in range(2)]


@pytest.mark.parametrize("who", ["both", "first", "second"])
@pytest.mark.parametrize(
    ("name", "way"), [(name, "reduced") for name in METRICS] + [(name, "streamed") for name in STREAMED]
)
def test_every_process_finds_what_one_would(found, name, way, who):
    alone = filled(METRICS[name](), (0, 1, 2)).compute()
    for of_rank in found:
        assert of_rank[name, who, way] == pytest.approx(alone, abs=1e-12 if way == "reduced" else 1e-6)


def test_no_data_anywhere_is_nan_in_every_process(found):
    for of_rank in found:
        assert all(value != value for (_, who, _), value in of_rank.items() if who == "none")
