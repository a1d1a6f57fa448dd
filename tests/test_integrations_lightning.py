"""In Lightning: what the callback logs is what nacl.metrics finds by hand, for both packages and in two processes."""

import csv
import json
import math
import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from nacl.data import stack_slices
from nacl.losses import NACLLoss
from nacl.metrics import BrierScore, CalibrationError, NegativeLogLikelihood

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # their imports
    lightning = pytest.importorskip("lightning.pytorch")
    pytorch_lightning = pytest.importorskip("pytorch_lightning")
    from nacl.integrations import lightning as integration
    from nacl.integrations.lightning import ReliabilityCallback

pytestmark = [
    pytest.mark.filterwarnings(f"ignore:{notice}")
    for notice in (
        ".*does not have many workers",  # fine for data in memory
        ".*number of training batches",  # fewer than it logs after
        ".*GPU available but not used",
        ".*isinstance.treespec, LeafSpec.*",  # its own use of PyTorch
    )
]
C = 3
REGIONS = ("all", "predicted_foreground", "predicted_border")
PROJECT = Path(__file__).resolve().parents[1]


def module_of(library, returned=lambda logits, target: {"logits": logits, "target": target}):
    class Segmenter(library.LightningModule):
        def __init__(self):
            super().__init__()
            self.network = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, C, 3, padding=1))
            self.loss = NACLLoss(penalty_weight=0.01)

        def training_step(self, batch, batch_idx):
            image, target = batch
            return self.loss(self.network(image), target)

        def validation_step(self, batch, batch_idx, dataloader_idx=0):
            image, target = batch
            return returned(self.network(image), target)

        test_step = validation_step

        def configure_optimizers(self):
            return torch.optim.Adam(self.parameters(), 2e-2)

    torch.manual_seed(0)
    return Segmenter()


def trainer_of(library, folder, *callbacks, **options):
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
    options = {"max_epochs": 2, "logger": library.loggers.CSVLogger(folder), **quiet, **options}
    return library.Trainer(accelerator="cpu", devices=1, callbacks=list(callbacks), **options)


@pytest.fixture(scope="module")
def data(request):
    squares = request.getfixturevalue("squares")
    return {
        split: TensorDataset(*(torch.as_tensor(x) for x in stack_slices(squares.split(split))))
        for split in ("train", "valid", "test")
    }


def loader(data, split, batch_size=3):
    return DataLoader(data[split], batch_size=batch_size)


def by_hand(model, data, split, ignore_index=-100):
    """The numbers of all images of a split at once."""
    images, labels = data[split].tensors
    with torch.no_grad():
        logits = model.eval().network(images)
    options = {"num_classes": C, "from_logits": True, "ignore_index": ignore_index}
    metrics = [CalibrationError(region=region, **options) for region in REGIONS]
    metrics += [NegativeLogLikelihood(**options), BrierScore(**options)]
    for metric in metrics:
        metric.update(logits, labels.long())
    return {metric.name: metric.compute() for metric in metrics}


def numbers(logged, stage, ending=""):
    kept = {name: float(value) for name, value in logged.items() if name.startswith(f"{stage}_")}
    return {name.removeprefix(f"{stage}_").removesuffix(ending): x for name, x in kept.items() if name.endswith(ending)}


# Numbers


@pytest.mark.parametrize("library", [lightning, pytorch_lightning], ids=["lightning", "pytorch_lightning"])
def test_what_is_logged_is_what_the_metrics_find_by_hand(library, data, tmp_path):
    model = module_of(library)
    trainer = trainer_of(library, tmp_path, ReliabilityCallback(C, picture_every=2))
    trainer.fit(model, loader(data, "train"), loader(data, "valid"))
    wanted = by_hand(model, data, "valid")
    assert numbers(trainer.callback_metrics, "val") == pytest.approx(wanted, abs=1e-6, nan_ok=True)
    assert not math.isnan(wanted["ece_predicted_border"])

    with open(Path(trainer.log_dir) / "metrics.csv") as file:
        rows = [row for row in csv.DictReader(file) if row.get("val_ece_all")]
    assert [row["epoch"] for row in rows] == ["0", "1"]  # not the check before the first epoch
    assert float(rows[1]["val_ece_all"]) == pytest.approx(wanted["ece_all"], abs=1e-6)
    assert rows[0]["val_ece_all"] != rows[1]["val_ece_all"]
    pictures = sorted(path.relative_to(trainer.log_dir) for path in Path(trainer.log_dir).rglob("*.png"))
    assert [str(path) for path in pictures] == ["val_reliability/epoch0001.png"]

    (logged,) = trainer.test(model, loader(data, "test"), verbose=False)
    assert numbers(logged, "test") == pytest.approx(by_hand(model, data, "test"), abs=1e-6, nan_ok=True)
    (picture,) = (Path(trainer.log_dir) / "test_reliability").iterdir()
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_validating_alone_twice_adds_nothing_up(data, tmp_path):
    model = module_of(lightning)
    trainer = trainer_of(lightning, tmp_path, ReliabilityCallback(C, picture_every=0))
    first, second = (trainer.validate(model, loader(data, "valid"), verbose=False)[0] for _ in range(2))
    assert first == second
    assert numbers(first, "val") == pytest.approx(by_hand(model, data, "valid"), abs=1e-6, nan_ok=True)


def test_several_loaders_are_told_apart(data, tmp_path):
    model = module_of(lightning)
    trainer = trainer_of(lightning, tmp_path, ReliabilityCallback(C))
    trainer.validate(model, [loader(data, "valid"), loader(data, "test")], verbose=False)
    for index, split in enumerate(("valid", "test")):
        found = numbers(trainer.callback_metrics, "val", f"/dataloader_idx_{index}")
        assert found == pytest.approx(by_hand(model, data, split), abs=1e-6, nan_ok=True)
        folder = Path(trainer.log_dir) / "val_reliability" / f"dataloader_idx_{index}"
        assert [path.name for path in folder.iterdir()] == ["epoch0000.png"]


def test_checkpoints_and_early_stopping_can_monitor_it(data, tmp_path):
    model = module_of(lightning)
    best = lightning.callbacks.ModelCheckpoint(tmp_path / "best", monitor="val_nll_all", filename="{val_nll_all:.3f}")
    stop = lightning.callbacks.EarlyStopping("val_ece_all", patience=0, min_delta=10.0)  # no epoch is that much better
    callbacks = (ReliabilityCallback(C, picture_every=0), best, stop)
    trainer = trainer_of(lightning, tmp_path, *callbacks, max_epochs=5, enable_checkpointing=True)
    trainer.fit(model, loader(data, "train"), loader(data, "valid"))
    assert trainer.current_epoch == 2
    assert best.best_model_score.item() == pytest.approx(by_hand(model, data, "valid")["nll_all"], abs=1e-6)
    assert Path(best.best_model_path).is_file()


WAYS = {
    "a tuple": (lambda logits, target: (logits, target), {}),
    "probabilities": (
        lambda logits, target: {"probs": logits.softmax(dim=1), "target": target, "loss": 0},
        {"from_logits": False},
    ),
    "a function": (
        lambda logits, target: [logits],
        {"forecast": lambda outputs, batch: (outputs[0], batch[1])},
    ),
}


@pytest.mark.parametrize("way", WAYS)
def test_what_a_step_may_return(way, data, tmp_path):
    returned, options = WAYS[way]
    model = module_of(lightning, returned)
    trainer = trainer_of(lightning, tmp_path, ReliabilityCallback(C, picture_every=0, **options))
    (logged,) = trainer.validate(model, loader(data, "valid"), verbose=False)
    assert numbers(logged, "val") == pytest.approx(by_hand(model, data, "valid"), abs=1e-6, nan_ok=True)


def test_settings_reach_the_metrics(data, tmp_path):
    model = module_of(lightning)
    callback = ReliabilityCallback(
        C, regions=("true_foreground", "true_foreground"), n_bins=5, ignore_index=2, picture_every=0
    )
    trainer = trainer_of(lightning, tmp_path, callback)
    trainer.validate(model, loader(data, "valid"), verbose=False)
    images, labels = data["valid"].tensors
    error = CalibrationError(region="true_foreground", n_bins=5, ignore_index=2, from_logits=True)
    error.update(model.network(images).detach(), labels.long())
    logged = numbers(trainer.callback_metrics, "val")
    assert list(logged) == ["ece_true_foreground", "nll_all", "brier_all"]
    assert logged["ece_true_foreground"] == pytest.approx(error.compute(), abs=1e-6)


# Pictures


class Sink(lightning.loggers.Logger):
    """A logger that keeps the pictures it is given."""

    name, version, experiment = "sink", 0, None

    def __init__(self, taken):
        super().__init__()
        self.taken = taken

    def log_hyperparams(self, *args, **options):
        pass

    def log_metrics(self, metrics, step=None):
        pass


class WithImages(Sink):
    def log_image(self, key, images, step=None):
        self.taken.append((key, len(images[0].axes), step))


class WithFigures(Sink):
    @property
    def experiment(self):
        return self

    def add_figure(self, key, figure, step):
        self.taken.append((key, len(figure.axes), step))


@pytest.mark.parametrize("kind", [WithImages, WithFigures])
def test_a_logger_that_takes_pictures_gets_them_and_no_file_is_written(kind, data, tmp_path):
    taken = []
    loggers = [lightning.loggers.CSVLogger(tmp_path), kind(taken)]
    trainer = trainer_of(lightning, tmp_path, ReliabilityCallback(C), logger=loggers)
    trainer.fit(module_of(lightning), loader(data, "train"), loader(data, "valid"))
    steps = len(loader(data, "train"))
    assert [(key, step) for key, _, step in taken] == [("val_reliability", steps), ("val_reliability", 2 * steps)]
    assert {count for _, count, _ in taken} == {len(REGIONS)}
    assert not list(tmp_path.rglob("*.png"))


def test_without_a_logger_the_picture_lies_in_the_root_folder(data, tmp_path):
    trainer = trainer_of(lightning, tmp_path, ReliabilityCallback(C), logger=False, default_root_dir=tmp_path)
    trainer.validate(module_of(lightning), loader(data, "valid"), verbose=False)
    assert [path.name for path in tmp_path.rglob("*.*")] == ["epoch0000.png"]


def test_a_fast_run_for_development_writes_nothing(data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    trainer = trainer_of(lightning, tmp_path, ReliabilityCallback(C), fast_dev_run=True)
    trainer.fit(module_of(lightning), loader(data, "train"), loader(data, "valid"))
    assert not list(tmp_path.rglob("*.png"))


# Two packages, two processes


SCRIPT = """
import json, sys
import pytorch_lightning as L
import torch
from nacl.integrations.lightning import ReliabilityCallback

assert issubclass(ReliabilityCallback, L.Callback)
assert "lightning" not in sys.modules

class Oracle(L.LightningModule):
    def validation_step(self, batch, batch_idx):
        return {"logits": batch[0], "target": batch[1]}

class Keep(L.Callback):
    def on_validation_end(self, trainer, pl_module):
        logged = {name: float(x) for name, x in trainer.callback_metrics.items()}
        with open(f"{sys.argv[1]}/rank{trainer.global_rank}.json", "w") as file:
            json.dump(logged, file)

torch.set_num_threads(1)
data = torch.utils.data.TensorDataset(*torch.load(f"{sys.argv[1]}/data.pt"))
loader = torch.utils.data.DataLoader(data, batch_size=2)
trainer = L.Trainer(accelerator="cpu", devices=2, strategy="ddp_fork", logger=False, default_root_dir=sys.argv[1],
                    enable_progress_bar=False, callbacks=[ReliabilityCallback(3), Keep()])
trainer.validate(Oracle(), loader, verbose=False)
"""


def test_two_processes_that_import_the_other_package_only_log_what_one_would(tmp_path):
    generator = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(8, C, 9, 7, generator=generator)
    logits[4:] *= 3  # so that the mean of two processes' errors is not the error of all
    labels = torch.randint(0, C, (8, 9, 7), generator=generator)
    labels[:2, :4] = -100  # nor do both have as many pixels
    torch.save((logits, labels), tmp_path / "data.pt")
    (tmp_path / "script.py").write_text(SCRIPT)
    environment = {
        **os.environ,
        "PYTHONPATH": str(PROJECT),
        "OMP_NUM_THREADS": "1",
        "PYTHONWARNINGS": "always::UserWarning",
    }
    command = [sys.executable, str(tmp_path / "script.py"), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=300)
    assert done.returncode == 0, done.stderr
    metrics = [CalibrationError(region=region, from_logits=True) for region in REGIONS]
    for metric in (*metrics, NegativeLogLikelihood(from_logits=True), BrierScore(from_logits=True)):
        metric.update(logits, labels)
        for rank in range(2):
            logged = json.loads((tmp_path / f"rank{rank}.json").read_text())
            assert logged[f"val_{metric.name}"] == pytest.approx(metric.compute(), abs=1e-6)
    assert [path.name for path in (tmp_path / "val_reliability").iterdir()] == ["epoch0000.png"]
    assert "sync_dist" not in done.stderr


# Refusals


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"num_classes": 1}, ValueError, "`num_classes` of at least 2, got 1"),
        ({"regions": ("al",)}, ValueError, "`regions` to be one of .* got 'al'. Did you mean 'all'"),
        ({"regions": "all"}, TypeError, "`regions` to be a list of names, got 'all'"),
        ({"n_bins": 0}, ValueError, "`n_bins` of at least 1, got 0"),
        ({"picture_every": -1}, ValueError, "`picture_every` of at least 0, got -1"),
        ({"from_logits": "yes"}, TypeError, "`from_logits` to be True or False"),
    ],
)
def test_bad_options_are_named(options, error, message):
    with pytest.raises(error, match=message):
        ReliabilityCallback(**{"num_classes": C, **options})


def test_what_draws_is_missed_when_the_callback_is_made(monkeypatch):
    monkeypatch.setattr(integration, "find_spec", lambda name: None if name == "seaborn" else name)
    with pytest.raises(ModuleNotFoundError, match=r"A picture needs seaborn\. Install it, or pass picture_every=0"):
        ReliabilityCallback(C)
    ReliabilityCallback(C, picture_every=0)


@pytest.mark.parametrize(
    ("returned", "options", "message"),
    [
        (
            lambda logits, target: None,
            {},
            '`validation_step` to return a dict with "logits" and "target".* got NoneType',
        ),
        (lambda logits, target: {"probs": logits, "target": target}, {}, r"got a dict with \['probs', 'target'\]"),
        (lambda logits, target: {"logits": logits}, {"from_logits": False}, r'dict with "probs" and "target"'),
        (lambda logits, target: (logits, target), {"from_logits": False}, r"`probs` values in \[0, 1\]"),
        (lambda logits, target: (logits[:, :2], target.clamp(max=1)), {}, "classes, got 2|with 3 classes|size"),
    ],
)
def test_a_step_that_returns_something_else_is_named_before_the_first_epoch(returned, options, message, data, tmp_path):
    trainer = trainer_of(lightning, tmp_path, ReliabilityCallback(C, picture_every=0, **options))
    model = module_of(lightning, returned)
    with pytest.raises(ValueError, match=message):
        trainer.fit(model, loader(data, "train"), loader(data, "valid"))
    assert trainer.global_step == 0
