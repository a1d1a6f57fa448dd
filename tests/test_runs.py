"""One run: its values, what it depends on, its identity and its folder."""

import os
import shutil
import time
from dataclasses import fields, replace
from pathlib import Path

import pytest
import torch

from nacl import provenance
from nacl.data.load import PROJECT_ROOT
from nacl.losses import LAGRANGIANS, LOSSES, PENALTIES, build_loss
from nacl.priors import BORDERS, IMAGE_PRIORS, PRIORS
from nacl.runs import Run, folders, identities, runs_folder

TINY = {"size": 32, "filters": 2, "batch_size": 4, "device": "cpu"}
VOLUME = {"depth": 8, "size": 64}


def tiny_run(data: Path, **values: object) -> Run:
    return Run(**{**TINY, "epochs": 2, "data": str(data), **values})


# Values

BAD_VALUES = [
    ("loss", "nacll", ValueError, "Did you mean 'nacl'"),
    ("loss", "SVLS", ValueError, "Did you mean 'svls'"),
    ("penalty_weight", -0.1, ValueError, "-0.1"),
    ("penalty_weight", float("nan"), ValueError, "nan"),
    ("penalty_weight", "0.1", TypeError, "'0.1'"),
    ("penalty", "L1", ValueError, "Did you mean 'l1'"),
    ("schedule", "cosine", ValueError, "'constant', 'linear', 'step'"),
    ("schedule_end", -1.0, ValueError, "-1.0"),
    ("delta", 0.0, ValueError, "0.0"),
    ("margin", -1.0, ValueError, "-1.0"),
    ("lagrangian", "p4", ValueError, "'phr', 'p2', 'p3'"),
    ("smoothing", 1.5, ValueError, "[0, 1], got 1.5"),
    ("gamma", -2.0, ValueError, "-2.0"),
    ("dice_weight", -1.0, ValueError, "-1.0"),
    ("l1_ace_weight", float("nan"), ValueError, "nan"),
    ("prior", "guassian", ValueError, "Did you mean 'gaussian'"),
    ("kernel_size", 4, ValueError, "Use 3 or 5"),
    ("kernel_size", 3.0, TypeError, "3.0"),
    ("sigma", 0.0, ValueError, "0.0"),
    ("border", "replicat", ValueError, "Did you mean 'replicate'"),
    ("softmax", 1, TypeError, "got 1"),
    ("mixed_only", 0, TypeError, "got 0"),
    ("kernel_depth", 2, ValueError, "Use 1 or 3"),
    ("kernel_depth", 0, ValueError, "at least 1, got 0"),
    ("model", "smp.unet", ValueError, "Did you mean 'smp.Unet'"),
    ("encoder", "", ValueError, "Leave it at 'resnet18'"),
    ("weights", " ", ValueError, "Leave it at 'none'"),
    ("filters", 0, ValueError, "at least 1, got 0"),
    ("filters", True, TypeError, "True"),
    ("data", 3, TypeError, "got 3"),
    ("data", Path("x"), TypeError, "of type str"),
    ("size", 100, ValueError, "Use 96"),
    ("size", 0, ValueError, "at least 1, got 0"),
    ("depth", 0, ValueError, "at least 1, got 0"),
    ("depth", True, TypeError, "got True"),
    ("patch", -32, ValueError, "at least 0, got -32"),
    ("patch", 32, ValueError, "0 where slices are trained on, got 32 (depth=1). Set depth"),
    ("share", 0, ValueError, "(0, 1], got 0.0"),
    ("share", 1.5, ValueError, "(0, 1], got 1.5"),
    ("share", "0.5", TypeError, "'0.5'"),
    ("epochs", 0, ValueError, "at least 1, got 0"),
    ("epochs", 2.5, TypeError, "2.5"),
    ("batch_size", -4, ValueError, "at least 1, got -4"),
    ("learning_rate", 0, ValueError, "got 0"),
    ("learning_rate", float("inf"), ValueError, "got inf"),
    ("augment", 1, TypeError, "got 1"),
    ("seed", -1, ValueError, "at least 0, got -1"),
    ("seed", 2**32, ValueError, "below 2**32, got 4294967296"),
    ("seed", None, TypeError, "None"),
    ("engine", "complie", ValueError, "Did you mean 'compile'"),
    ("device", "gpu", ValueError, "one of 'auto', 'cpu'"),
]


@pytest.mark.parametrize(("name", "value", "kind", "says"), BAD_VALUES)
def test_a_bad_value_is_refused_when_a_run_is_made(name, value, kind, says):
    run = {"prior": "gaussian"} if name == "sigma" else {}
    with pytest.raises(kind) as caught:
        Run(**{**run, name: value})
    assert f"`{name}`" in str(caught.value)
    assert says in str(caught.value)


def test_every_field_has_a_bad_value_above_and_a_help():
    assert {name for name, *_ in BAD_VALUES} == {f.name for f in fields(Run)}
    assert all(f.metadata["help"] for f in fields(Run))


def test_whole_numbers_are_taken_for_floats():
    assert Run(penalty_weight=1) == Run(penalty_weight=1.0)
    assert Run(penalty_weight=1).identity() == Run(penalty_weight=1.0).identity()


# Identity


def test_what_the_loss_does_not_take_is_no_part_of_a_run():
    assert Run(loss="ce").identity() == Run(loss="ce", penalty_weight=9.0, kernel_size=7, prior="gaussian").identity()
    assert Run(loss="svls").identity() == Run(loss="svls", penalty_weight=9.0, penalty="l2").identity()
    assert "penalty_weight" not in Run(loss="svls").values()
    assert Run(loss="ce").loss_options() == {}
    assert set(Run(loss="svls").loss_options()) == {"kernel_size", "sigma", "border"}


OTHERS = {
    "penalty_weight": (0.3,),
    "penalty": PENALTIES,
    "delta": (0.3, 2.0),
    "prior": ("mean", "mode"),
    "kernel_size": (5, 7),
    "sigma": (0.5, 2.0),
    "border": BORDERS,
    "softmax": (True, False),
    "mixed_only": (True, False),
    "margin": (1.0,),
    "lagrangian": LAGRANGIANS,
    "smoothing": (0.3,),
    "gamma": (1.0,),
}


def computed(run):
    """The loss of some logits as wide as a margin of 10, in float64."""
    random = torch.Generator().manual_seed(0)
    logits = 20 * torch.randn(1, 3, 12, 12, generator=random, dtype=torch.float64)
    target = torch.randint(3, (1, 4, 4), generator=random).repeat_interleave(3, dim=1).repeat_interleave(3, dim=2)
    image = (
        {"image": torch.rand(1, 12, 12, generator=random)} if run.prior in IMAGE_PRIORS and run.loss == "nacl" else {}
    )
    return build_loss(run.loss, num_classes=3, **run.loss_options())(logits, target, **image).item()


@pytest.mark.parametrize(
    "values",
    [
        *({"loss": loss} for loss in LOSSES),
        *({"prior": prior, "border": "background"} for prior in PRIORS),
        *({"loss": loss, "penalty": penalty} for loss in ("nacl", "mbls") for penalty in PENALTIES),
        {"penalty": "huber", "softmax": True},
    ],
    ids=lambda values: "-".join(map(str, values.values())),
)
def test_an_option_is_part_of_a_run_if_and_only_if_the_loss_changes_with_it(values):
    run = Run(**values)
    before = computed(run)
    acts = {name: any(computed(replace(run, **{name: other})) != before for other in OTHERS[name]) for name in OTHERS}
    assert acts == {name: name in run.values() for name in OTHERS}


@pytest.mark.parametrize(
    "change",
    [
        {"loss": "svls"},
        {"penalty_weight": 0.2},
        {"penalty": "l2"},
        {"prior": "gaussian"},
        {"kernel_size": 5},
        {"border": "zero"},
        {"softmax": True},
        {"mixed_only": True},
        {"model": "smp.Unet"},
        {"filters": 8},
        {"size": 96},
        {"epochs": 21},
        {"batch_size": 8},
        {"learning_rate": 2e-3},
        {"augment": True},
        {"seed": 1},
        {"share": 0.5},
        {"depth": 8},
        {"engine": "compile"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_what_changes_the_numbers_changes_the_identity(change):
    assert replace(Run(), **change).identity() != Run().identity()


def test_the_device_is_no_part_of_a_run():
    assert Run(device="cpu").identity() == Run(device="cuda").identity()
    assert "device" not in Run().values()


def test_the_same_data_elsewhere_is_the_same_run(tiny_acdc, tiny_acdc_copy):
    assert tiny_run(tiny_acdc).identity() == tiny_run(tiny_acdc_copy).identity()


@pytest.mark.parametrize("way", [".", "link", "copy", "tiny/"])
def test_however_the_data_is_named_the_run_has_one_folder(tiny_acdc, tiny_acdc_copy, tmp_path, monkeypatch, way):
    """A sweep hands the resolved path to its notebooks and looks for the files where the run as given has them."""
    (tiny_acdc_copy / "link").symlink_to(tiny_acdc)
    (tiny_acdc_copy / "tiny").symlink_to(tiny_acdc)
    (tiny_acdc_copy / "copy").symlink_to(".")
    monkeypatch.chdir(tiny_acdc if way == "." else tiny_acdc_copy)
    assert tiny_run(way).folder(tmp_path) == tiny_run(tiny_acdc).folder(tmp_path)


def test_other_data_is_another_run(tiny_acdc_copy):
    run = tiny_run(tiny_acdc_copy)
    before = run.identity()
    next((tiny_acdc_copy / "test").glob("*.h5")).unlink()
    assert run.identity() != before != Run(**TINY).identity()


def test_the_source_is_that_which_was_imported_and_another_is_another_run(tmp_path, monkeypatch):
    (tmp_path / "losses.py").write_text("a = 1")
    monkeypatch.setattr(provenance, "PACKAGE", tmp_path)
    before = Run().identity()
    monkeypatch.setattr(provenance, "IMPORTED", provenance._hash_of(tmp_path))
    after = Run().identity()
    provenance.check_source()
    (tmp_path / "losses.py").write_text("a = 2")
    assert before != after == Run().identity(), "what this process imported does not change under it"
    with pytest.raises(ValueError, match=r"`nacl` as this process imported it, got changed files .*Restart the kernel"):
        provenance.check_source()


def test_the_hash_is_of_every_file_its_name_and_its_content(tmp_path):
    folders = [Path(shutil.copytree(provenance.PACKAGE, tmp_path / str(k))) for k in range(4)]
    (folders[1] / "new.py").write_text("")
    (folders[2] / "runs.py").rename(folders[2] / "ruins.py")
    with (folders[3] / "losses" / "neighbour.py").open("a") as file:
        file.write("# changed")
    assert len({provenance._hash_of(folder) for folder in folders}) == 4
    (folders[1] / "new.py").unlink()
    assert provenance._hash_of(folders[0]) == provenance._hash_of(folders[1])


def test_the_folder_of_runs(tmp_path, monkeypatch):
    monkeypatch.setenv("NACL_RUNS", str(tmp_path / "elsewhere"))
    assert runs_folder() == tmp_path / "elsewhere"
    assert Run().folder().parent == tmp_path / "elsewhere"
    assert Run().folder(tmp_path).parent == tmp_path
    monkeypatch.delenv("NACL_RUNS")
    assert runs_folder() == PROJECT_ROOT / "runs"


def test_a_schedule_is_part_of_a_run_only_where_there_is_a_weight_to_change():
    assert Run(loss="ce", schedule="linear").identity() == Run(loss="ce").identity()
    assert Run(schedule_end=3.0).identity() == Run().identity()
    assert Run(schedule="linear", schedule_end=3.0).identity() != Run(schedule="linear").identity()


# 3D, encoders


def test_a_window_has_a_depth_in_3d_and_none_on_slices():
    assert Run(loss="nacl", kernel_size=5, kernel_depth=3).loss_options()["kernel_size"] == 5
    for loss in ("nacl", "svls", "crac"):
        options = Run(loss=loss, kernel_size=5, kernel_depth=3, **VOLUME).loss_options()
        assert options["kernel_size"] == (3, 5, 5)
        build_loss(loss, num_classes=3, **options)
    assert "kernel_size" not in Run(loss="mbls", **VOLUME).loss_options()


@pytest.mark.parametrize("loss", LOSSES)
def test_every_loss_can_be_asked_for_on_patches(loss):
    run = Run(loss=loss, kernel_depth=3, **VOLUME)
    assert ("kernel_depth" in run.values()) == ("kernel_size" in run.loss_options())


def test_patches_are_whole_slices_unless_it_is_said():
    assert Run().patch_shape() is None
    assert "patch" not in Run().values()
    assert Run(**VOLUME).patch_shape() == (8, 64, 64)
    assert Run(patch=32, **VOLUME).patch_shape() == (8, 32, 32)


@pytest.mark.parametrize(
    ("patch", "says"),
    [
        (40, "to be a multiple of 32, got 40. Use 32"),
        (96, r"of at most size, got 96 \(size=64\)\. Lower it, or raise size"),
    ],
)
def test_a_patch_that_does_not_fit_is_refused_with_its_value(patch, says):
    with pytest.raises(ValueError, match=f"`patch` {says}"):
        Run(patch=patch, **VOLUME)


def test_the_options_of_a_network_are_those_of_its_axes():
    spacing = (10.0, 1.5, 1.25)
    flat, deep = Run(size=96).model_options(spacing), Run(patch=32, **VOLUME).model_options(spacing)
    assert (flat["patch"], flat["spacing"]) == ((96, 96), (1.5, 1.25))
    assert (deep["patch"], deep["spacing"]) == ((8, 32, 32), spacing)
    assert {**flat, "patch": 0, "spacing": 0} == {**deep, "patch": 0, "spacing": 0}


@pytest.mark.parametrize(
    ("run", "idle"),
    [
        ({}, {"encoder": "resnet34", "kernel_depth": 3}),
        ({"model": "smp.Unet"}, {"kernel_depth": 3}),
        ({"model": "smp.Linknet"}, {"filters": 7}),
        ({"loss": "ce", **VOLUME}, {"kernel_depth": 3, "kernel_size": 5, "encoder": "resnet34"}),
        (VOLUME, {"patch": 64}),
    ],
    ids=["slices", "smp", "widths of the encoder", "no window", "the whole slice"],
)
def test_what_does_not_act_is_no_part_of_a_run(run, idle):
    assert Run(**run, **idle).identity() == Run(**run).identity()
    assert Run(**run, **idle).values() == Run(**run).values()


@pytest.mark.parametrize(
    ("run", "change"),
    [
        ({"model": "smp.Unet"}, {"encoder": "resnet34"}),
        ({"model": "smp.Unet"}, {"weights": "imagenet"}),
        (VOLUME, {"kernel_depth": 3}),
        (VOLUME, {"patch": 32}),
        (VOLUME, {"depth": 16}),
    ],
    ids=lambda change: next(iter(change)),
)
def test_what_acts_only_with_something_else_changes_the_identity_there(run, change):
    assert Run(**{**run, **change}).identity() != Run(**run).identity()


def test_weights_of_an_encoder_that_is_not_there_are_refused():
    with pytest.raises(ValueError, match=r"`weights` 'none', got 'imagenet' \(model='unet'\)\. Networks of smp have"):
        Run(weights="imagenet")


def test_a_network_for_slices_is_refused_for_patches_with_those_that_can():
    with pytest.raises(ValueError, match=r"`model` for 3 axes: 'unet', .*got 'smp\.Unet'.*depth=1"):
        Run(model="smp.Unet", **VOLUME)


def test_a_change_in_the_file_of_ones_own_network_is_another_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "network_of_mine.py"
    file.write_text("raise AssertionError('it is not executed')")
    run, seen = Run(model="network_of_mine:make"), []
    for text in ("a = 1", "a = 2", "a = 1"):
        file.write_text(text)
        seen.append(run.identity())
    assert seen[0] == seen[2] != seen[1]
    assert replace(run, encoder="resnet34").identity() != run.identity(), "its function may take an encoder"
    file.unlink()
    with pytest.raises(ModuleNotFoundError, match="no module network_of_mine"):
        run.identity()


# Notebooks


def test_a_run_is_made_of_a_notebooks_parameters():
    given = {f.name: f.default for f in fields(Run)} | {"penalty_weight": 0.3, "In": [""], "pd": os, "run": None}
    assert Run.from_parameters(given) == Run(penalty_weight=0.3)


def test_a_parameter_that_is_no_field_gets_the_nearest():
    given = {f.name: f.default for f in fields(Run)} | {"kernel_sise": 5, "In": ["", "# Parameters\nkernel_sise = 5\n"]}
    with pytest.raises(ValueError, match=r"got 'kernel_sise'\. Did you mean 'kernel_size'"):
        Run.from_parameters(given)


def test_a_field_that_the_notebook_lost_is_named():
    given = {f.name: f.default for f in fields(Run) if f.name not in ("gamma", "seed")}
    with pytest.raises(ValueError, match=r"got no gamma, seed\. Assign them in the cell of parameters"):
        Run.from_parameters(given)


# Thousands


def test_many_runs_have_the_identities_and_folders_that_each_has(tiny_acdc, tmp_path):
    runs = [Run(seed=1), tiny_run(tiny_acdc), Run(loss="svls"), Run(seed=1)]
    assert identities(runs) == [run.identity() for run in runs]
    assert folders(runs, tmp_path) == [run.folder(tmp_path) for run in runs]
    assert len(set(folders(runs, tmp_path))) == 3
    assert folders([]) == []


def test_ten_thousand_runs_are_made_and_identified_in_seconds(tiny_acdc):
    """Far from the limit: it took 1.2 s of one core of a small machine."""
    start = time.process_time()
    runs = [tiny_run(tiny_acdc, seed=seed, penalty_weight=weight / 10) for seed in range(1000) for weight in range(10)]
    found = identities(runs)
    assert time.process_time() - start < 10
    assert len(set(found)) == 10_000
