"""What is made of a test case: regions beside classes; and what a run takes from its data set, up to its tables."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import square_case
from torch import nn

from nacl.data import Case, Dataset, prepare_cases
from nacl.evaluation import evaluate
from nacl.experiments import train_run
from nacl.metrics import surface_distances
from nacl.results import load_result
from nacl.runs import Run

REGIONS = {"WT": (1, 2, 3), "TC": (1, 3), "ET": (3,)}  # whole tumour, tumour core, enhancing tumour


class Says(nn.Module):
    """Is sure of the labels that it was told, whatever the image."""

    def __init__(self, label: np.ndarray, num_classes: int) -> None:
        super().__init__()
        self.logits = 10.0 * nn.functional.one_hot(torch.from_numpy(label).long(), num_classes).movedim(-1, 1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.logits[: len(image)].float()


def tumour(seed: int, *, present=(1, 2, 3), spacing=(2.0, 1.0, 0.5)) -> Case:
    """Boxes one in another, as oedema (2), core (1) and enhancing tumour (3) are; `present` of them are labelled."""
    rng = np.random.default_rng(seed)
    label = np.zeros((4, 24, 24), np.uint8)
    for value, half in ((2, 9), (1, 6), (3, 3)):
        row, column = rng.integers(10, 14, 2)
        box = slice(row - half, row + half), slice(column - half, column + half)
        label[:, *box] = value if value in present else label[:, *box]
    return Case(f"case{seed}", "test", np.zeros(label.shape, np.float32), label, spacing)


def of_region(table: pd.DataFrame, region: str) -> list[float]:
    return [table[f"{metric}_{region}"][0] for metric in ("dice", "hd95", "asd")]


def test_regions_are_the_unions_of_their_classes():
    """By sets of voxels, and by distances between the surfaces of the union."""
    case, predicted = tumour(0), tumour(1).label
    table, _ = evaluate(Says(predicted, 4), [case], 4, regions=REGIONS, device="cpu")
    for region, classes in REGIONS.items():
        a, b = (np.isin(label, classes) for label in (predicted, case.label))
        dice = 2 * len(set(zip(*a.nonzero(), strict=True)) & set(zip(*b.nonzero(), strict=True))) / (a.sum() + b.sum())
        (far,) = surface_distances(a.astype(int), b.astype(int), 2, spacing=case.spacing)
        assert of_region(table, region) == pytest.approx([dice, far.hausdorff_95(), far.average()])
    assert of_region(table, "ET") == of_region(table, "3")


def test_the_means_are_over_the_regions_where_there_are_any():
    case, model = tumour(0), Says(tumour(1).label, 4)
    with_regions, bins = evaluate(model, [case], 4, regions=REGIONS, device="cpu")
    without, same_bins = evaluate(model, [case], 4, device="cpu")
    for metric in ("dice", "hd95", "asd"):
        columns = {"regions": [f"{metric}_{r}" for r in REGIONS], "classes": [f"{metric}_{k}" for k in (1, 2, 3)]}
        assert with_regions[metric][0] == pytest.approx(with_regions.loc[0, columns["regions"]].mean())
        assert without[metric][0] == pytest.approx(without.loc[0, columns["classes"]].mean())
        assert with_regions[metric][0] != without[metric][0]
    shared = [column for column in without if column not in ("dice", "hd95", "asd")]
    pd.testing.assert_frame_equal(with_regions[shared], without[shared])
    pd.testing.assert_frame_equal(bins, same_bins)
    assert set(with_regions) - set(without) == {f"{m}_{r}" for m in ("dice", "hd95", "asd") for r in REGIONS}
    assert set(without) == set(evaluate(model, [case], 4, regions={}, device="cpu")[0])


def test_a_region_that_neither_has_says_nothing_and_one_that_only_one_has_is_wrong():
    case, none = tumour(0, present=(2,)), tumour(1, present=(2,)).label
    table, _ = evaluate(Says(none, 4), [case], 4, regions=REGIONS, device="cpu")
    assert np.isnan(of_region(table, "ET")).all()
    assert [table[m][0] for m in ("dice", "hd95", "asd")] == of_region(table, "WT")
    table, _ = evaluate(Says(tumour(1).label, 4), [case], 4, regions=REGIONS, device="cpu")
    assert table["dice_ET"][0] == 0
    assert table["hd95_ET"][0] > 10


@pytest.mark.parametrize(
    ("regions", "message"),
    [
        ({"ET": (4,)}, r"`regions` of classes in \[0, 4\), got \[4\] \(region ET"),
        ({"ET": (-1, 2)}, r"got \[-1, 2\]"),
        ({"ET": ()}, r"got \[\]"),
        ({"1": (1, 2)}, "names that are no numbers, as classes have, got '1'"),
    ],
)
def test_regions_that_cannot_be_are_named(regions, message):
    with pytest.raises(ValueError, match=message):
        evaluate(Says(tumour(0).label, 4), [tumour(0)], 4, regions=regions, device="cpu")


# Runs


def two_channels(case: Case) -> Case:
    """The case with its inverse as a first channel, and noise as what a network for one channel would see."""
    noise = np.random.default_rng(0).random(case.image.shape, np.float32)
    return replace(case, image=np.concatenate([noise, case.image]))


@pytest.fixture
def modalities(monkeypatch) -> Dataset:
    """A data set of two channels and a region, which runs find under the phantom's name."""
    splits = {"train": 2, "valid": 1, "test": 1}
    cases = [two_channels(square_case(f"{split}{i}", split)) for split, count in splits.items() for i in range(count)]
    names = {"class_names": ("background", "bright", "dark"), "channel_names": ("noise", "t1")}
    dataset = Dataset("modalities", cases=cases, unit="mm", regions={"both": (1, 2)}, **names)
    for place in ("experiments", "results"):
        monkeypatch.setattr(f"nacl.{place}.load_dataset", lambda data, size: dataset)
    return dataset


@pytest.mark.parametrize("loss", [{"loss": "ce"}, {"loss": "nacl", "prior": "image_proportions_l1"}])
def test_a_run_has_the_channels_and_the_regions_of_its_data(modalities, tmp_path, loss):
    run = Run(**loss, size=32, filters=4, epochs=8, learning_rate=5e-3, device="cpu")
    result = train_run(run, runs=tmp_path)
    info = json.loads((result.folder / "run.json").read_text())
    assert (info["channel_names"], info["regions"]) == (["noise", "t1"], {"both": [1, 2]})
    assert list(result.cases["dice"]) == list(result.cases["dice_both"])
    case = modalities.split("test")[0]
    probs = result.predict(case)
    assert probs.shape == (4, 3, 32, 32)
    other = replace(case, image=case.image[::-1].copy())
    assert not torch.equal(result.predict(other), probs)


def test_a_run_from_before_channels_were_named_has_one(tiny_acdc, tmp_path):
    result = train_run(Run(data=str(tiny_acdc), size=32, filters=2, epochs=1, device="cpu"), runs=tmp_path)
    older = {name: value for name, value in result.info.items() if name not in ("channel_names", "regions")}
    older["run"] = {name: value for name, value in older["run"].items() if name != "augment"}
    (result.folder / "run.json").write_text(json.dumps(older))
    again, case = load_result(result.folder), result.dataset().split("test")[0]
    assert again.run == result.run
    assert torch.equal(again.predict(case), result.predict(case))


def test_a_data_set_with_an_empty_split_is_refused_before_anything_is_trained(tmp_path):
    cases = (square_case(f"{split}{i}", split) for split in ("train", "test") for i in range(2))
    prepare_cases(cases, tmp_path / "data", name="mine", class_names=("background", "bright", "dark"))
    run = Run(data=str(tmp_path / "data"), size=32, filters=2, epochs=1, device="cpu")
    with pytest.raises(ValueError, match=r"cases in each split, got none in valid \(mine\).*--split-file"):
        train_run(run, runs=tmp_path / "runs")
    assert not list((tmp_path / "runs").rglob("history.csv"))
