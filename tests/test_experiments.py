"""Runs: their values, their identity, their files, and that none is done twice."""

import json
import subprocess
import sys
import textwrap
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from test_files import largest_file

from nacl import provenance
from nacl.data import load_dataset
from nacl.evaluation import SUMMARY, evaluate
from nacl.experiments import train_run
from nacl.grids import GRIDS, PROFILES, plan
from nacl.losses import LOSSES
from nacl.results import COLUMNS, finished
from nacl.runs import Run
from nacl.training import predict_logits

TINY = {"size": 32, "filters": 2, "batch_size": 4, "device": "cpu"}


class StoppedError(Exception):
    """Ends a training from outside."""


def tiny_run(data: Path, **values: object) -> Run:
    return Run(**{**TINY, "epochs": 2, "data": str(data), **values})


def never(history: list[dict]) -> None:
    raise AssertionError("nothing may be trained")


def contents(folder: Path) -> dict[str, tuple[int, bytes]]:
    return {f.name: (f.stat().st_mtime_ns, f.read_bytes()) for f in folder.iterdir() if f.name != ".lock"}


@pytest.fixture(scope="module")
def trained(tiny_acdc, tmp_path_factory):
    """A finished run on the small folder."""
    return train_run(tiny_run(tiny_acdc), runs=tmp_path_factory.mktemp("runs"))


# Plans


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("grid", GRIDS)
def test_every_grid_gives_different_runs_of_its_profile(grid, profile):
    runs = plan(grid, profile=profile, seeds=[0, 1])
    assert len({run.identity() for run in runs}) == len(runs) > 2
    varied = {name for part in GRIDS[grid] for name in part}
    kept = {name: value for name, value in PROFILES[profile]["embedded"].items() if name not in varied}
    for run in runs:
        assert kept.items() <= asdict(run).items()
    assert {run.seed for run in runs} == {0, 1}


def test_a_plan_is_all_combinations():
    runs = plan("kernel-size", seeds=[5])
    assert {(run.loss, run.kernel_size) for run in runs} == {(a, k) for a in ("svls", "nacl") for k in (3, 5, 7, 9)}
    assert {run.seed for run in runs} == {5}


@pytest.mark.parametrize("profile", PROFILES)
def test_a_plan_for_any_embedded_data_has_their_sizes(monkeypatch, profile):
    monkeypatch.setattr("nacl.grids.EMBEDDED", ("phantom", "other"))
    for run in plan("main", profile=profile, data="other"):
        assert PROFILES[profile]["embedded"].items() <= asdict(run).items()


def test_a_plan_for_a_folder_has_the_benchmarks_sizes_and_fixed_fields_win(tiny_acdc):
    runs = plan("main", data=str(tiny_acdc), epochs=3)
    assert {(run.size, run.epochs, run.data) for run in runs} == {(96, 3, str(tiny_acdc))}


def test_the_full_profile_is_the_papers_protocol():
    run = plan("main", profile="full", data="some/folder")[2]
    assert (run.size, run.filters, run.epochs, run.batch_size, run.learning_rate) == (192, 32, 100, 4, 1e-3)
    assert (run.loss, run.penalty_weight, run.kernel_size, run.prior, run.penalty) == ("nacl", 0.1, 3, "mean", "l1")


def test_unknown_names_in_a_plan_are_refused_with_the_nearest():
    for arguments, options, near in [
        (["penalty-wieght"], {}, "penalty-weight"),
        (["main"], {"profile": "quik"}, "quick"),
        (["main"], {"epoch": 3}, "epochs"),
    ]:
        with pytest.raises(ValueError, match=f"Did you mean '{near}'"):
            plan(*arguments, **options)


@pytest.mark.parametrize("fixed", [{"loss": "ce"}, {"seed": 3}])
def test_a_fixed_field_that_the_grid_or_the_seeds_set_is_not_silently_dropped(fixed):
    with pytest.raises(ValueError, match=next(iter(fixed))):
        plan("main", **fixed)


# Files


def test_a_finished_run_leaves_its_files_and_no_others(trained):
    names = {f.name for f in trained.folder.iterdir()} - {".lock"}
    assert names == {f"{name}.csv" for name in COLUMNS} | {"run.json", "weights.safetensors"}
    newest = max(names, key=lambda name: (trained.folder / name).stat().st_mtime_ns)
    assert newest == "run.json"


def test_run_json_says_what_where_and_with_what(trained):
    info = json.loads((trained.folder / "run.json").read_text())
    assert Run(**info["run"]) == trained.run
    assert info["identity"] == trained.run.identity()
    assert info["identity"] in trained.folder.name
    assert info["source"] == provenance.source_hash()
    assert info["torch"] == torch.__version__
    assert info["device_name"].startswith("cpu")
    assert info["dataset"] == "acdc"
    assert set(info) >= {"commit", "python", "numpy", "data_fingerprint", "seconds", "finished", "class_names", "unit"}
    assert info["processes"] == [1]
    assert (info["channel_names"], info["regions"]) == (["image"], {})


def test_the_commit_is_that_of_the_checkout():
    git = ["git", "-C", str(provenance.PACKAGE)]
    head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=False).stdout.strip()
    commit = provenance.provenance("cpu")["commit"]
    assert commit == "unknown" if not head else commit.removesuffix("-dirty") == head


def test_a_finished_run_is_read_and_not_trained_again(trained, tiny_acdc_copy):
    before = contents(trained.folder)
    again = train_run(trained.run, runs=trained.folder.parent, on_epoch=never)
    assert contents(trained.folder) == before
    pd.testing.assert_frame_equal(again.cases, trained.cases)
    pd.testing.assert_frame_equal(again.history, trained.history)
    assert finished(trained.run, trained.folder.parent).info == trained.info


def test_the_stored_weights_give_the_stored_metrics(trained):
    dataset = trained.dataset()
    options = {"temperature": trained.info["temperature"], "penalty_weight": trained.run.biased_by(), "device": "cpu"}
    cases, bins = evaluate(trained.model(), dataset.split("test"), dataset.num_classes, **options)
    validation, _ = evaluate(trained.model(), dataset.split("valid"), dataset.num_classes, **options)
    pd.testing.assert_frame_equal(trained.cases, cases, rtol=1e-9)
    pd.testing.assert_frame_equal(trained.validation, validation, rtol=1e-9)
    pd.testing.assert_frame_equal(trained.bins, bins, rtol=1e-9)
    case = dataset.split("test")[0]
    assert torch.equal(trained.predict(case), trained.predict(case))
    assert list(trained.cases["post_hoc"]) == ["none", "temperature", "unbiased"] * len(dataset.split("test"))


def test_metrics_have_the_columns_of_the_summary_and_the_right_spacing(trained):
    assert set(SUMMARY) <= set(trained.cases)
    plain = trained.cases[trained.cases["post_hoc"] == "none"]
    assert list(plain["case"]) == ["patient004_frame01", "patient005_frame01"]
    assert list(plain["patient"]) == ["patient004", "patient005"]
    assert "kl_posterior" not in trained.cases
    foreground = trained.cases[[f"dice_{k}" for k in (1, 2, 3)]].mean(axis=1)
    pd.testing.assert_series_equal(trained.cases["dice"], foreground, check_names=False)
    # Pixels of the 192 grid: what is found at 32 x 32 is 6 pixels a step.
    assert load_dataset(trained.run.data, size=32).cases[0].spacing == (1.0, 6.0, 6.0)


def test_the_temperature_is_that_of_the_validation_cases_and_changes_no_label(trained):
    dataset, temperature = trained.dataset(), trained.info["temperature"]
    logits, labels = [], []
    for case in dataset.split("valid"):
        logits.append(predict_logits(trained.model(), case, device="cpu"))
        labels.append(torch.from_numpy(case.label).long())
    x, y = torch.cat(logits).double(), torch.cat(labels)
    cost = [F.cross_entropy(x / t, y).item() for t in (temperature, temperature * 0.99, temperature * 1.01, 1.0)]
    assert cost[0] == min(cost)
    plain, scaled = (trained.cases[trained.cases["post_hoc"] == name] for name in ("none", "temperature"))
    assert list(plain["dice"]) == list(scaled["dice"])
    assert list(plain["nll"]) != list(scaled["nll"])
    case = dataset.split("test")[0]
    assert torch.equal(trained.predict(case).argmax(dim=1), trained.predict(case, post_hoc="temperature").argmax(dim=1))
    with pytest.raises(ValueError, match="`post_hoc`"):
        trained.predict(case, post_hoc="temprature")


def test_a_run_on_the_phantom_is_compared_with_its_posterior(squares):
    case = load_dataset("phantom", size=32).split("test")[0]
    exact = PosteriorOf(case)
    cases, _ = evaluate(exact, [case], 4, device="cpu")
    assert cases["kl_posterior"][0] == pytest.approx(0, abs=1e-5)
    assert cases["dice"][0] > 0.8


class PosteriorOf(torch.nn.Module):
    """Knows the answer: logits are the log of the case's posterior, whatever the image."""

    def __init__(self, case) -> None:
        super().__init__()
        self.logits = torch.from_numpy(case.posterior).movedim(0, 1).clamp_min(1e-12).log()

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.logits[: len(image)]


def test_a_run_that_was_stopped_has_no_result_and_goes_on(trained, tmp_path):
    run, seen = trained.run, []

    def stop(history):
        raise StoppedError

    with pytest.raises(StoppedError):
        train_run(run, runs=tmp_path, on_epoch=stop)
    assert finished(run, tmp_path) is None
    assert (run.folder(tmp_path) / "checkpoint.safetensors").exists()
    result = train_run(run, runs=tmp_path, on_epoch=lambda history: seen.append(len(history)))
    assert seen == [2]
    assert_same_numbers(result, trained)
    assert not (run.folder(tmp_path) / "checkpoint.safetensors").exists()


def assert_same_numbers(a, b):
    pd.testing.assert_frame_equal(a.history.drop(columns="seconds"), b.history.drop(columns="seconds"), rtol=0)
    pd.testing.assert_frame_equal(a.cases, b.cases, rtol=0)
    assert (a.folder / "weights.safetensors").read_bytes() == (b.folder / "weights.safetensors").read_bytes()


def test_a_disk_that_fills_up_is_named_and_the_run_goes_on_when_there_is_room(trained, tmp_path):
    run, seen = trained.run, []
    with largest_file(5_000), pytest.raises(OSError, match=r"checkpoint\.safetensors\. Free some space"):
        train_run(run, runs=tmp_path)
    assert {f.name for f in run.folder(tmp_path).iterdir()} == {".lock"}
    result = train_run(run, runs=tmp_path, on_epoch=lambda history: seen.append(len(history)))
    assert seen == [1, 2]
    assert_same_numbers(result, trained)


def test_a_process_that_wants_a_run_in_training_elsewhere_waits_and_reads(trained, tmp_path):
    script = """
        import json, sys, time
        from pathlib import Path
        from nacl.experiments import train_run
        from nacl.runs import Run

        def on_epoch(history):
            print("epoch", len(history), flush=True)
            time.sleep(1)

        print(train_run(Run(**json.loads(sys.argv[1])), runs=Path(sys.argv[2]), on_epoch=on_epoch).info["seconds"])
    """
    command = [sys.executable, "-c", textwrap.dedent(script), json.dumps(asdict(trained.run)), str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "epoch 1\n"
        result = train_run(trained.run, runs=tmp_path, on_epoch=never)
        rest = other.communicate(timeout=60)[0].splitlines()
    assert rest == ["epoch 2", str(result.info["seconds"])]
    pd.testing.assert_frame_equal(result.cases, trained.cases)


def test_data_that_cannot_be_used_leaves_no_result(tiny_acdc_copy, tmp_path):
    file = tiny_acdc_copy / "test" / "patient005_frame01.h5"
    file.write_bytes(b"")
    run = tiny_run(tiny_acdc_copy)
    with pytest.raises(ValueError, match=r"patient005_frame01\.h5"):
        train_run(run, runs=tmp_path)
    assert finished(run, tmp_path) is None


# What a run's values reach


@pytest.mark.parametrize("loss", sorted(set(LOSSES) - {"crac"}))
def test_every_loss_trains(loss, tiny_acdc, tmp_path):
    result = train_run(tiny_run(tiny_acdc, loss=loss, epochs=3, learning_rate=3e-3), runs=tmp_path)
    assert result.history["loss"].iloc[-1] < result.history["loss"].iloc[0]


def test_crac_trains_to_another_objective_each_epoch(tiny_acdc, tmp_path):
    result = train_run(tiny_run(tiny_acdc, loss="crac", epochs=3, margin=1.0), runs=tmp_path)
    assert np.isfinite(result.history["loss"]).all()


@pytest.mark.parametrize(
    "values",
    [
        {"loss": "nacl", "schedule": "linear", "schedule_end": 0.0},
        {"loss": "nacl", "prior": "image_proportions_l1"},
        {"loss": "crac", "dice_weight": 1.0},
        {"loss": "ce", "dice_weight": 1.0, "l1_ace_weight": 0.5},
        {"loss": "ce", "augment": True},
    ],
)
def test_schedules_images_auxiliary_losses_and_augmentation_reach_the_training(values, tiny_acdc, tmp_path):
    plain = train_run(tiny_run(tiny_acdc, loss=values["loss"], epochs=2), runs=tmp_path)
    other = train_run(tiny_run(tiny_acdc, **values, epochs=2), runs=tmp_path)
    assert plain.run.identity() != other.run.identity()
    assert plain.history["loss"].iloc[-1] != other.history["loss"].iloc[-1]
