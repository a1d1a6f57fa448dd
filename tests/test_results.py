"""What a finished run left: read back, from other versions too, and set in one table."""

import json
import shutil
from dataclasses import asdict, fields, replace
from pathlib import Path

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from nacl.evaluation import SUMMARY
from nacl.experiments import train_run
from nacl.results import COLUMNS, INFO, finished, load_result, results_table
from nacl.runs import Run

TINY = {"size": 32, "filters": 2, "epochs": 1, "device": "cpu"}


@pytest.fixture(scope="module")
def trained(tiny_acdc, tmp_path_factory):
    """A finished run on the small folder."""
    return train_run(Run(data=str(tiny_acdc), **TINY), runs=tmp_path_factory.mktemp("runs"))


@pytest.fixture
def folder(trained, tmp_path):
    """A copy of that run's folder, to be changed."""
    return Path(shutil.copytree(trained.folder, tmp_path / "copy"))


def rewrite(folder: Path, **changes: object) -> None:
    """Change what is in run.json; `...` takes a name away."""
    file = folder / "run.json"
    info = {**json.loads(file.read_text()), **changes}
    file.write_text(json.dumps({name: value for name, value in info.items() if value is not ...}))


# What is there


def test_a_result_is_what_was_trained(trained):
    again = load_result(trained.folder)
    assert (again.run, again.info) == (trained.run, trained.info)
    for name in ("history", "cases", "validation", "bins"):
        pd.testing.assert_frame_equal(getattr(again, name), getattr(trained, name))
    assert set(INFO) <= set(again.info)
    assert set(COLUMNS["metrics"]) <= set(again.cases)


def test_the_network_has_the_stored_weights_and_leaves_the_random_numbers_alone(trained):
    state = torch.random.get_rng_state()
    model = trained.model()
    assert torch.equal(torch.random.get_rng_state(), state)
    assert not model.training
    stored = load_file(trained.folder / "weights.safetensors")
    assert all(torch.equal(value, stored[name]) for name, value in model.state_dict().items())


@pytest.mark.filterwarnings("ignore:`torch.jit:FutureWarning")  # timm's, when smp imports it
def test_a_network_with_an_encoder_is_built_again_without_its_first_weights(tiny_acdc, tmp_path, monkeypatch):
    import segmentation_models_pytorch as smp

    result = train_run(Run(data=str(tiny_acdc), model="smp.FPN", batch_size=8, **TINY), runs=tmp_path)
    began = replace(result, run=replace(result.run, weights="imagenet"))
    asked = []
    original = smp.FPN
    monkeypatch.setattr(smp, "FPN", lambda **options: asked.append(options["encoder_weights"]) or original(**options))
    case = result.dataset().split("test")[0]
    assert torch.equal(began.predict(case), result.predict(case))
    assert asked == [None, None]


@pytest.mark.filterwarnings("ignore:Calibration:RuntimeWarning")  # a network that learned nothing has no temperature
def test_a_network_for_volumes_is_built_for_their_spacing_and_predicts_by_windows(tiny_acdc, tmp_path):
    result = train_run(Run(data=str(tiny_acdc), depth=2, batch_size=2, **TINY), runs=tmp_path)
    assert result.info["spacing"] == [1.0, 6.0, 6.0]
    case = result.dataset().split("test")[1]
    probs = load_result(result.folder).predict(case)
    assert probs.shape == (len(case.label), 4, 32, 32)
    assert torch.allclose(probs.sum(dim=1), torch.ones(()))
    thick = replace(result, info={**result.info, "spacing": [10.0, 1.0, 1.0]})
    with pytest.raises(ValueError, match="of the network 'unet'"):
        thick.model()


@pytest.mark.parametrize(("case", "patient"), [("001", "007"), ("NA", "None"), ("1e3", "nan")])
def test_names_stay_the_texts_that_they_are(folder, case, patient):
    table = pd.read_csv(folder / "metrics.csv").assign(case=case, patient=patient)
    table.to_csv(folder / "metrics.csv", index=False)
    found = load_result(folder).cases
    assert set(found["case"]) == {case}
    assert set(found["patient"]) == {patient}


def test_a_metric_that_was_not_defined_stays_so(folder):
    table = pd.read_csv(folder / "metrics.csv").assign(hd95=float("nan"))
    table.to_csv(folder / "metrics.csv", index=False)
    assert load_result(folder).cases["hd95"].isna().all()


# Other versions, damage


def test_a_run_of_a_version_with_fewer_fields_gets_the_defaults(trained, folder):
    later = ("depth", "patch", "share", "engine", "encoder", "weights", "kernel_depth")
    older = {name: value for name, value in asdict(trained.run).items() if name not in later}
    rewrite(folder, run=older, spacing=..., channel_names=..., regions=...)
    result = load_result(folder)
    assert result.run == trained.run
    case = trained.dataset().split("test")[0]
    assert torch.equal(result.predict(case), trained.predict(case))


def bad_fields(folder):
    rewrite(folder, run={**json.loads((folder / "run.json").read_text())["run"], "dropout": 0.1, "alpha": 1})


def bad_value(folder):
    rewrite(folder, run={**json.loads((folder / "run.json").read_text())["run"], "loss": "dice_ce"})


def without_column(folder):
    pd.read_csv(folder / "metrics.csv").drop(columns=["post_hoc", "brier"]).to_csv(folder / "metrics.csv", index=False)


DAMAGE = {
    "a field of another version": (bad_fields, "fields of another version: alpha, dropout"),
    "a value of another version": (bad_value, "values of another version: Expected `loss` .* got 'dice_ce'"),
    "a column of another version": (without_column, "a metrics.csv without the columns post_hoc, brier"),
    "no temperature": (lambda f: rewrite(f, temperature=...), "a run.json with none for 'temperature'"),
    "no commit": (lambda f: rewrite(f, commit=3), "a run.json with 3 for 'commit'"),
    "no values": (lambda f: rewrite(f, run=[1]), r"a run.json with \[1\] for 'run'"),
    "half a run.json": (
        lambda f: (f / "run.json").write_text((f / "run.json").read_text()[:99]),
        "a run.json that can't be read: .*line",
    ),
    "zeros": (lambda f: (f / "run.json").write_bytes(b"\0" * 99), "a run.json that can't be read"),
    "no text": (lambda f: (f / "run.json").write_bytes(b"\xff\xfe\xfa"), "a run.json that can't be read"),
    "a list": (lambda f: (f / "run.json").write_text("[]"), "a run.json without names"),
    "an empty table": (lambda f: (f / "bins.csv").write_text(""), "a bins.csv that can't be read: No columns"),
    "a torn table": (
        lambda f: (f / "history.csv").write_text('epoch,loss\n1,"0.'),
        "a history.csv that can't be read: .*EOF",
    ),
    "no table": (lambda f: (f / "metrics.csv").unlink(), "a metrics.csv that can't be read: .*No such file"),
    "another table": (lambda f: (f / "bins.csv").write_text("a,b\n1,2\n"), "a bins.csv without the columns case, "),
}


@pytest.mark.parametrize(("damage", "says"), DAMAGE.values(), ids=DAMAGE)
def test_a_folder_that_cannot_be_used_is_named_with_what_is_wrong_and_what_to_do(folder, damage, says):
    damage(folder)
    with pytest.raises(ValueError, match=says) as caught:
        load_result(folder)
    assert str(caught.value).startswith("Expected `folder` with a whole run of this version, got ")
    assert str(folder) in str(caught.value)
    assert str(caught.value).endswith("Move the folder away and train the run again.")


def test_a_damaged_folder_is_not_taken_for_a_run_that_is_still_to_do(trained, tmp_path):
    shutil.copytree(trained.folder, tmp_path / trained.folder.name)
    assert finished(trained.run, tmp_path).info == trained.info
    (tmp_path / trained.folder.name / "run.json").write_text("{")
    with pytest.raises(ValueError, match=r"a run\.json that can't be read"):
        finished(trained.run, tmp_path)


@pytest.mark.parametrize("damage", ["torn", "gone", "of another network"])
def test_weights_that_do_not_fit_are_named(folder, damage):
    file = folder / "weights.safetensors"
    if damage == "torn":
        file.write_bytes(file.read_bytes()[:100])
    elif damage == "gone":
        file.unlink()
    result = load_result(folder)
    if damage == "of another network":
        result = replace(result, run=replace(result.run, filters=3))
    with pytest.raises(
        ValueError, match=r"of the network 'unet', got .*copy/weights\.safetensors .*train the run again"
    ):
        result.model()


def test_a_folder_without_a_result_says_how_to_get_one(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no run\.json\. Train it with `nacl train`"):
        load_result(tmp_path)


# Tables


def test_the_table_has_a_row_a_case_with_its_run_and_where_it_was_made(trained, tiny_acdc, tmp_path):
    other = train_run(Run(data=str(tiny_acdc), loss="ce", **TINY), runs=tmp_path)
    table = results_table([trained, other])
    assert len(table) == 10
    assert {f.name for f in fields(Run)} - set(table) == {"data", "device"}, "paths and wishes are of one machine"
    assert {"identity", "commit", "device_name", "dataset", "data_fingerprint", "case"} <= set(table)
    assert set(trained.cases) <= set(table)
    assert list(table["loss"]) == ["nacl"] * 6 + ["ce"] * 4
    assert (
        list(table["method"]) == ["nacl", "nacl + temperature", "nacl + unbiased"] * 2 + ["ce", "ce + temperature"] * 2
    )
    assert list(table["identity"]) == [trained.run.identity()] * 6 + [other.run.identity()] * 4
    assert list(table["dice"]) == [*trained.cases["dice"], *other.cases["dice"]]
    assert set(SUMMARY) <= set(table)


def test_what_does_not_act_is_empty_in_the_table(trained):
    slices = trained
    volume = replace(trained, run=replace(trained.run, depth=8, kernel_depth=3, share=0.5))
    encoder = replace(trained, run=replace(trained.run, model="smp.Unet"))
    table = results_table([slices, volume, encoder]).iloc[::6].reset_index()
    assert list(table["depth"]) == [1, 8, 1]
    assert list(table["share"]) == [1.0, 0.5, 1.0]
    assert list(table["patch"].isna()) == [True, False, True]
    assert list(table["kernel_depth"].isna()) == [True, False, True]
    assert table["patch"][1] == 32
    assert list(table["encoder"].isna()) == [True, True, False]
