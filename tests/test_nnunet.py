"""The trainers in the real nnU-Net: the page "In nnU-Net" followed on a toy data set, and their losses by hand."""

import json
import multiprocessing
import multiprocessing.dummy
import os
import re
import shlex
import subprocess
import sys
import threading
import tomllib
from contextlib import chdir
from importlib.metadata import entry_points
from pathlib import Path

import matplotlib
import numpy as np
import pytest
import torch
from raw_folders import write_nifti

import nacl
from nacl.cli import main as nacl_main

pytest.importorskip("nnunetv2")

from nnunetv2 import paths
from nnunetv2.experiment_planning.experiment_planners.network_topology import get_pool_and_conv_props
from nnunetv2.inference import data_iterators
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name as trainer_called

from nacl.integrations import nnunet
from nacl.integrations.nnunet import nnUNetTrainerDiceNACL, nnUNetTrainerMbLS, nnUNetTrainerNACL, window

pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit:FutureWarning")

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "book" / "in-nnunet.md"
BLOCKS = re.findall(r"^```(bash|python)\n(.*?)^```$", PAGE.read_text(), flags=re.MULTILINE | re.DOTALL)
COMMANDS = [line for kind, block in BLOCKS if kind == "bash" for line in block.strip().splitlines()]
LABELS = {"background": 0, "bright": 1, "dark": 2, "ignore": 3}
REGIONS = {"background": 0, "both": [1, 2], "dark": [2]}

SHORT = """
from mine import nnUNetTrainerDiceNACL05


class nnUNetTrainerShort(nnUNetTrainerDiceNACL05):
    def on_train_start(self):
        super().on_train_start()
        self.num_epochs, self.num_iterations_per_epoch, self.num_val_iterations_per_epoch = 1, 1, 1

    def perform_actual_validation(self, save_probabilities=False):
        pass
"""


class Threads:
    """Stands in for the context of new processes, each of which would import nnU-Net for ten seconds."""

    Pool = staticmethod(multiprocessing.dummy.Pool)
    Process = staticmethod(threading.Thread)


@pytest.fixture(scope="module")
def environment():
    """A clean process to be changed: threads in the place of processes, nothing of the caller's nnU-Net."""
    context, threads = multiprocessing.get_context, torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(multiprocessing, "get_context", lambda way=None: Threads if way == "spawn" else context(way))
        patch.setattr(data_iterators, "Manager", multiprocessing.dummy.Manager)
        for name in ("nnUNet_compile", "nnUNet_extTrainer", "nnUNet_wandb_enabled"):
            patch.delenv(name, raising=False)
        yield patch
    torch.set_num_threads(threads)


def entry(command: str, *more: str) -> None:
    """Run a console command of nnU-Net in this process."""
    program, *arguments = shlex.split(command)
    [found] = entry_points(group="console_scripts", name=program)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [program, *arguments, *more])
        found.load()()


@pytest.fixture(scope="module")
def place(environment, tmp_path_factory):
    """Where a reader stands: a small data set 4, planned and preprocessed, and images to predict."""
    folder = tmp_path_factory.mktemp("reader")
    for name in ("raw", "preprocessed", "results"):
        environment.setenv(f"nnUNet_{name}", str(folder / name))
    raw = folder / "raw" / "Dataset004_Toy"
    for seed in range(7):
        rng = np.random.default_rng(seed)
        label = np.zeros((8, 32, 32), np.uint8)
        label[1:7, 4:16, 3 + seed : 14 + seed] = 1
        label[2:6, 18:28, 16:28] = 2
        image = 100 * label + rng.normal(0, 20, label.shape)
        label[:2, :, 28:] = LABELS["ignore"]
        images, labels = (
            (raw / "imagesTr", raw / "labelsTr") if seed < 5 else (folder / "imagesTs", folder / "labelsTs")
        )
        write_nifti(images / f"toy_{seed}_0000.nii.gz", image.astype(np.float32), spacing=(4.0, 1.0, 1.0))
        write_nifti(labels / f"toy_{seed}.nii.gz", label, spacing=(4.0, 1.0, 1.0))
    table = {"channel_names": {"0": "MRI"}, "labels": LABELS, "numTraining": 5, "file_ending": ".nii.gz"}
    (raw / "dataset.json").write_text(json.dumps(table))
    environment.setenv("nnUNet_n_proc_DA", "1")  # the planner refuses 0
    entry("nnUNetv2_plan_and_preprocess -d 4 -c 2d 3d_fullres")
    file = folder / "preprocessed" / "Dataset004_Toy" / "nnUNetPlans.json"
    plans = json.loads(file.read_text())
    for configuration in plans["configurations"].values():  # eight times as narrow as planned: seconds
        configuration["architecture"]["arch_kwargs"]["features_per_stage"] = [4, 8, 16, 32]
    file.write_text(json.dumps(plans))
    environment.setenv("nnUNet_n_proc_DA", "0")  # augmentation in this process
    environment.setenv("nnUNet_extTrainer", str(nnunet.TRAINERS))
    return folder


@pytest.fixture(scope="module")
def followed(place, environment):
    """The folder after all commands of the page, in their order, with trainings of two batches."""
    start, epochs = nnUNetTrainer.on_train_start, []

    def short(trainer):
        start(trainer)
        epochs.append(trainer.current_epoch)
        trainer.num_epochs, trainer.num_iterations_per_epoch = trainer.current_epoch + 1, 2
        trainer.num_val_iterations_per_epoch = 1

    environment.setattr(nnUNetTrainer, "on_train_start", short)
    for kind, block in BLOCKS:
        if kind == "python":
            file = place / block.splitlines()[0].removeprefix("# ")
            file.parent.mkdir()
            file.write_text(block)
    with chdir(place), matplotlib.rc_context():  # nnU-Net sets the size of every later figure's letters
        for command in COMMANDS:
            if command.startswith("nnUNetv2_"):
                entry(command, "-device", "cpu")
            elif command.startswith("nacl "):
                assert nacl_main(shlex.split(command)[1:]) == 0
            elif command.endswith("my_trainers"):
                environment.setenv("nnUNet_extTrainer", f"{nnunet.TRAINERS}:{place / 'my_trainers'}")
    return place, epochs


def results(place: Path, trainer: str, configuration: str = "3d_fullres") -> Path:
    return place / "results" / "Dataset004_Toy" / f"{trainer}__nnUNetPlans__{configuration}" / "fold_0"


def test_the_commands_of_the_page_train_and_go_on_with_a_training(followed):
    place, epochs = followed
    assert epochs == [0, 1, 0]
    logs = [file.read_text() for file in results(place, "nnUNetTrainerDiceNACL").glob("training_log_*.txt")]
    assert sum("Epoch 1" in log for log in logs) == 1
    assert all("penalty_weight=0.1" in log and "ignore_index=3" in log for log in logs)


def test_a_subclass_of_two_lines_changes_the_penalty_weight(followed):
    told = json.loads((results(followed[0], "nnUNetTrainerDiceNACL05Short", "2d") / "debug.json").read_text())
    assert "penalty_weight=0.5" in told["loss"]


def test_the_probabilities_reach_the_report(followed):
    place, _ = followed
    with np.load(place / "predictions" / "toy_5.npz") as stored:
        probs = stored["probabilities"]
    assert probs.shape == (3, 8, 32, 32)
    np.testing.assert_allclose(probs.sum(axis=0, dtype=np.float64), 1, atol=1e-3)
    page = (place / "nnunet.html").read_text()
    assert "bright" in page
    assert "dark" in page


def test_the_page_lists_every_trainer_and_the_extra_exists():
    assert set(re.findall(r"`(nnUNetTrainer\w+)`", PAGE.read_text())) == {*nnunet.__all__, "nnUNetTrainerCELoss"}
    wanted = re.fullmatch(r"pip install -e 'path/to/this\[(\w+),(\w+)\]'", COMMANDS[0]).groups()
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert {*wanted} <= {*extras}


def test_the_real_command_trains_in_a_process_of_its_own(followed):
    place, _ = followed
    (place / "my_trainers" / "short.py").write_text(SHORT)
    search = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    commands = [COMMANDS[1], COMMANDS[-2], "nnUNetv2_train 4 2d 0 -tr nnUNetTrainerShort -device cpu"]
    done = subprocess.run(
        ["bash", "-ec", "\n".join(commands)],
        cwd=place,
        env={**os.environ, "PYTHONPATH": search, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "Epoch 0" in done.stdout
    weights = torch.load(results(place, "nnUNetTrainerShort", "2d") / "checkpoint_final.pth", weights_only=False)
    assert weights["trainer_name"] == "nnUNetTrainerShort"


@pytest.mark.parametrize("name", nnunet.__all__)
def test_nnunet_finds_every_trainer_by_name(place, name):
    assert trainer_called(name) is getattr(nnunet, name)


def trainer_of(
    kind: type[nnUNetTrainer], place: Path, configuration: str = "3d_fullres", *, labels=LABELS, spacing=None
) -> nnUNetTrainer:
    """A trainer with the toy's plans, and other labels or another spacing if wanted."""
    planned = place / "preprocessed" / "Dataset004_Toy"
    plans = json.loads((planned / "nnUNetPlans.json").read_text())
    if spacing is not None:
        plans["configurations"][configuration]["spacing"] = list(spacing)
    table = json.loads((planned / "dataset.json").read_text()) | {"labels": labels, "regions_class_order": [1, 2]}
    return kind({**plans, "continue_training": False}, configuration, 0, table, torch.device("cpu"))


def loss_of(kind: type[nnUNetTrainer], place: Path, configuration: str = "3d_fullres", **changed) -> torch.nn.Module:
    return trainer_of(kind, place, configuration, **changed)._build_loss()


def batch(shape: tuple[int, ...], *, ignored: bool = True, seed: int = 0) -> tuple[list, list]:
    """Logits and labels (2, 1, ...) at three resolutions, each half as fine in the last two axes, as from nnU-Net."""
    draw = torch.Generator().manual_seed(seed)
    logits, targets = [], []
    for level in range(3):
        here = (*shape[:-2], *(size // 2**level for size in shape[-2:]))
        logits.append((3 * torch.randn(2, 3, *here, generator=draw)).requires_grad_())
        targets.append(torch.randint(0, 4 if ignored else 3, (2, 1, *here), generator=draw).to(torch.int16))
    return logits, targets


@pytest.mark.parametrize(
    ("configuration", "spacing", "windows"),
    [
        ("2d", None, [(3, 3), (3, 3)]),
        ("3d_fullres", (4.0, 1.0, 1.0), [(1, 3, 3), (1, 3, 3)]),  # at half resolution 4 mm are still twice 2 mm
        ("3d_fullres", (3.0, 1.0, 1.0), [(1, 3, 3), (3, 3, 3)]),
        ("3d_fullres", (1.0, 1.0, 1.0), [(3, 3, 3), (3, 1, 1)]),
    ],
)
@pytest.mark.parametrize("ignored", [True, False])
def test_the_loss_is_the_sum_over_resolutions_by_hand(place, configuration, spacing, windows, ignored):
    labels = {name: value for name, value in LABELS.items() if ignored or name != "ignore"}
    logits, targets = batch((32, 32) if configuration == "2d" else (8, 32, 32), ignored=ignored)
    index = 3 if ignored else -100
    alone = with_dice = 0.0
    for weight, x, y, kernel in zip((2 / 3, 1 / 3), logits, targets, windows, strict=False):
        y = y[:, 0].long()
        pixels = nacl.nacl_loss(x, y, kernel_size=kernel, ignore_index=index)
        dice = nacl.dice_loss(x, y, batch=configuration == "2d", ignore_index=index) - 1  # nnU-Net leaves the 1 out
        alone, with_dice = alone + weight * pixels, with_dice + weight * (pixels + dice)
    for kind, wanted in ((nnUNetTrainerNACL, alone), (nnUNetTrainerDiceNACL, with_dice)):
        loss = loss_of(kind, place, configuration, labels=labels, spacing=spacing)
        torch.testing.assert_close(loss(logits, targets), wanted, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("labels", [LABELS, {name: LABELS[name] for name in ("background", "bright", "dark")}])
@pytest.mark.parametrize("configuration", ["2d", "3d_fullres"])
def test_without_a_penalty_it_is_nnunet_s_own_loss(place, configuration, labels):
    class Unpenalised(nnUNetTrainerDiceNACL):
        penalty_weight = 0.0

    logits, targets = batch((32, 32) if configuration == "2d" else (8, 32, 32), ignored="ignore" in labels)
    found = []
    for kind in (Unpenalised, nnUNetTrainer):
        loss = loss_of(kind, place, configuration, labels=labels)(logits, targets)
        found.append([loss, *torch.autograd.grad(loss, logits[:2])])
    torch.testing.assert_close(*found, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("kind", [getattr(nnunet, name) for name in nnunet.__all__])
def test_ignored_voxels_give_no_gradient_and_others_do(place, kind):
    logits, targets = batch((8, 32, 32))
    loss = loss_of(kind, place)
    loss(logits, targets).backward()
    for x, y in list(zip(logits, targets, strict=True))[:2]:
        ignored = (y == LABELS["ignore"]).expand_as(x)
        assert (x.grad[ignored] == 0).all()
        assert (x.grad[~ignored] != 0).float().mean() > 0.9
    with torch.no_grad():
        moved = [
            torch.where(y == LABELS["ignore"], x + 7 * torch.randn_like(x), x)
            for x, y in zip(logits, targets, strict=True)
        ]
    torch.testing.assert_close(loss(moved, targets), loss(logits, targets))


def test_a_batch_without_a_label_has_no_loss(place):
    logits, targets = batch((32, 32))
    nothing = [torch.full_like(y, LABELS["ignore"]) for y in targets]
    assert loss_of(nnUNetTrainerNACL, place, "2d")(logits, nothing) == 0


def test_the_window_is_where_the_planner_s_convolutions_are():
    for spacing in [(5.0, 1.25, 1.25), (4.0, 1.0, 1.0), (3.0, 0.8, 0.7), (1.5, 0.8, 0.8), (1.0, 1.0, 1.0), (0.5, 0.5)]:
        patch = (16, 128, 128)[-len(spacing) :]
        _, strides, kernels, patch, _ = get_pool_and_conv_props(spacing, patch, 4, 99)
        here, lengths = np.ones(len(spacing)), np.array(spacing)
        for stride, kernel in list(zip(strides, kernels, strict=True))[:3]:
            here *= stride
            assert window(3, lengths * here) == tuple(kernel), (spacing, here)
    assert window((3, 5, 5), (4.0, 1.0, 1.0)) == (3, 5, 5)


def test_half_precision_logits_have_the_loss_of_the_same_numbers(place):
    logits, targets = batch((8, 32, 32))
    halves = [x.detach().half().requires_grad_() for x in logits]
    with torch.autocast("cpu"):
        loss = loss_of(nnUNetTrainerNACL, place)(halves, targets)
    (2**16 * loss).backward()  # as a gradient scaler does
    exact = loss_of(nnUNetTrainerNACL, place)([x.detach().float().requires_grad_() for x in halves], targets)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, exact)
    assert halves[0].grad.dtype == torch.float16
    assert halves[0].grad.isfinite().all()


def test_what_nnunet_compiles_is_its_dice_not_our_term(place, monkeypatch):
    compiled = []
    monkeypatch.setattr(torch, "compile", lambda module: compiled.append(module) or module)
    monkeypatch.setattr(nnUNetTrainerDiceNACL, "_do_i_compile", lambda self: True)
    both = loss_of(nnUNetTrainerDiceNACL, place).loss
    assert compiled == [both.dc]
    assert isinstance(both.ce, nnunet.PixelTerm)


def test_dice_is_gathered_over_processes(place):
    logits, targets = batch((32, 32))
    single = trainer_of(nnUNetTrainerDiceNACL, place, "2d")
    spread = trainer_of(nnUNetTrainerDiceNACL, place, "2d")
    spread.is_ddp = True
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    try:
        # nnU-Net gives its coarsest output 1e-6 of the weight under DDP, and none otherwise
        loss = spread._build_loss()
        assert loss.loss.dc.ddp
        torch.testing.assert_close(loss(logits, targets), single._build_loss()(logits, targets), atol=1e-4, rtol=1e-4)
    finally:
        torch.distributed.destroy_process_group()


def test_another_parent_changes_the_rest(place):
    class Flat(nnUNetTrainerDiceNACL, trainer_called("nnUNetTrainerNoDeepSupervision")):
        penalty_weight, dice_weight = 0.3, 2.0

    [x, *_], [y, *_] = batch((8, 32, 32))
    y = y.clamp(max=2)
    wanted = nacl.nacl_loss(x, y[:, 0], penalty_weight=0.3, kernel_size=(1, 3, 3))
    wanted = wanted + 2 * (nacl.dice_loss(x, y[:, 0]) - 1)
    torch.testing.assert_close(loss_of(Flat, place)(x, y), wanted, atol=1e-5, rtol=1e-5)


def test_a_parent_with_a_loss_of_its_own_is_refused(place):
    class Both(nnUNetTrainerDiceNACL, trainer_called("nnUNetTrainerCELoss")):
        pass

    with pytest.raises(TypeError, match="parents to be nnU-Net's DC_and_CE_loss, got RobustCrossEntropyLoss"):
        loss_of(Both, place)


def test_regions_are_refused(place):
    with pytest.raises(ValueError, match=r"`dataset.json` .* got regions that may overlap.* train nnUNetTrainer"):
        loss_of(nnUNetTrainerNACL, place, labels=REGIONS)


def test_a_misspelt_attribute_is_refused_where_it_is_written():
    with pytest.raises(ValueError, match=r"nnUNetTrainerMine.*'penalty_wieght'. Did you mean 'penalty_weight'"):
        type("nnUNetTrainerMine", (nnUNetTrainerNACL,), {"penalty_wieght": 0.3})
    with pytest.raises(ValueError, match="'kernel_size'"):  # MbLS has no window
        type("nnUNetTrainerMine", (nnUNetTrainerMbLS,), {"kernel_size": 3})


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"prior": "bilateral"}, "`prior` to need labels only, got 'bilateral'"),
        ({"kernel_size": 4}, "`kernel_size` to be odd, got 4"),
        ({"kernel_size": (3, 3)}, "`kernel_size` of one number, or 3, one an axis"),
        ({"penalty_weight": -1.0}, "`penalty_weight` in"),
        ({"dice_weight": -1.0}, "`dice_weight` in"),
    ],
)
def test_a_value_that_does_not_fit_is_refused_before_the_training(place, attributes, message):
    with pytest.raises(ValueError, match=message):
        loss_of(type("nnUNetTrainerMine", (nnUNetTrainerDiceNACL,), attributes), place)


def test_an_older_nnunet_is_told_what_to_copy(monkeypatch, capsys):
    assert nnunet.main() == 0
    assert Path(capsys.readouterr().out.strip()) == nnunet.TRAINERS
    monkeypatch.delattr(paths, "nnUNet_extTrainer")
    assert nnunet.main() == 1
    told = capsys.readouterr()
    assert told.out == ""
    assert "nacl_trainers.py" in told.err
    assert "variants" in told.err
