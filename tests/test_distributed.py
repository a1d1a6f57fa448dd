"""Two real processes on the CPU, by torchrun: the numbers of one, files once, and an error in one ends both."""

import json
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file
from two_processes import TRAININGS, a_run, trained

from nacl.experiments import train_run
from nacl.training.distributed import Share, from_first, gathered

SCRIPT = Path(__file__).with_name("two_processes.py")
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]


def together(scenario: str, folder: Path, data: object = "") -> subprocess.CompletedProcess:
    command = [*TORCHRUN, str(SCRIPT), scenario, str(folder), str(data)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=180)


@pytest.fixture(scope="module")
def ways(tiny_acdc, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("ways")
    done = together("ways", folder, tiny_acdc)
    assert done.returncode == 0, done.stderr
    assert "read 6 rows, rank 0" in done.stdout
    assert "read 6 rows, rank 1" in done.stdout
    return folder


@pytest.mark.parametrize("name", TRAININGS)
def test_two_processes_end_with_the_weights_of_one(ways, name):
    history, expected = trained(name)
    found, other = (load_file(ways / f"{name}-{number}.safetensors") for number in (0, 1))
    assert found.keys() == expected.keys()
    for key in expected:
        torch.testing.assert_close(found[key], expected[key], rtol=1e-5, atol=1e-5)
        assert torch.equal(found[key], other[key])
    assert len(history) == 2


def test_a_run_of_two_processes_is_filed_once_and_has_the_numbers_of_one(ways, tiny_acdc, tmp_path):
    (folder,) = (ways / "runs").iterdir()
    assert {f.name for f in folder.iterdir()} - {".lock"} == {
        "run.json",
        "history.csv",
        "metrics.csv",
        "bins.csv",
        "validation.csv",
        "weights.safetensors",
    }
    alone = train_run(a_run(str(tiny_acdc)), runs=tmp_path)
    assert json.loads((folder / "run.json").read_text())["processes"] == [2]
    assert alone.info["processes"] == [1]
    columns = ["epoch", "loss", "learning_rate", "valid_dice"]
    found = pd.read_csv(folder / "history.csv")[columns]
    pd.testing.assert_frame_equal(found, alone.history[columns], rtol=1e-4)


@pytest.mark.parametrize(
    ("scenario", "first", "second"),
    [
        ("nan", *["FloatingPointError: Expected `loss` to be finite, got nan (epoch 1, step 1)"] * 2),
        (
            "output",
            "RuntimeError: Another process ended with an error (epoch 1, step 1)",
            "ValueError: Expected `model` to give logits of shape (1, 3, 32, 32), got (1, 3, 32, 31)",
        ),
        (
            "validation",
            "RuntimeError: Process 1 of 2 ended with FloatingPointError: Expected `logits` to be finite",
            "FloatingPointError: Expected `logits` to be finite, got NaN or infinity (validation after epoch 1",
        ),
    ],
)
def test_an_error_in_one_process_is_one_in_both_and_leaves_no_checkpoint(ways, scenario, first, second):
    for number, message in enumerate((first, second)):
        assert (ways / f"{scenario}-{number}.txt").read_text().startswith(message)
    assert not (ways / f"{scenario}.checkpoint").exists()


def test_processes_that_end_with_an_error_do_not_hang(tmp_path):
    done = together("nan", tmp_path)
    assert done.returncode != 0
    assert "FloatingPointError: Expected `loss` to be finite, got nan (epoch 1, step 1)" in done.stderr
    assert not list(tmp_path.iterdir())


# Without a group


def test_one_process_alone_has_all_samples():
    share = Share(torch.arange(7), 3)
    assert (share.order.tolist(), share.batch_size) == (list(range(7)), 3)
    assert share.wholes == share.counts == [3, 3, 1]
    assert gathered(lambda: 5) == [5]
    assert from_first(lambda: 6) == 6


@pytest.mark.parametrize("samples", [1, 2, 7, 9, 12])
@pytest.mark.parametrize("processes", [2, 3])
def test_shares_are_the_samples_of_each_batch_once(monkeypatch, samples, processes):
    shares = []
    for number in range(processes):
        monkeypatch.setattr("nacl.training.distributed.rank", lambda number=number: number)
        monkeypatch.setattr("nacl.training.distributed.world_size", lambda: processes)
        shares.append(Share(torch.arange(samples), 4))
    for batch, whole in enumerate(torch.arange(samples).split(4)):
        taken = []
        for share in shares:
            part = share.order.split(share.batch_size)[batch].tolist()
            taken += part[: share.counts[batch]]
            assert len(part) >= 1
        assert sorted(taken) == whole.tolist()
        assert shares[0].wholes[batch] == len(whole)


def test_fewer_samples_in_a_batch_than_processes_is_named(monkeypatch):
    monkeypatch.setattr("nacl.training.distributed.world_size", lambda: 3)
    with pytest.raises(ValueError, match=r"`batch_size` of at least 3, a sample for each process, got 2"):
        Share(torch.arange(6), 2)
