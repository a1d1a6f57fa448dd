"""Checkpoints: a training that was stopped or killed goes on to the same numbers; a bad file is set aside."""

import errno
import logging
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pandas as pd
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn
from toy_training import StoppedError, model_of, same, seeded, stop_after, train

from nacl.experiments import train_run
from nacl.losses import CombinedLoss, CRaCLoss, DiceLoss
from nacl.runs import Run
from nacl.training import save_tensors
from nacl.training.checkpoint import Progress, processes_of, restore_checkpoint, save_checkpoint

# Killed and started again


@pytest.mark.parametrize("epoch", [1, 2, 3])
def test_a_training_that_was_stopped_goes_on_to_the_same_numbers(tmp_path, epoch):
    checkpoint, seen = tmp_path / "checkpoint.safetensors", []
    expected = train()
    with pytest.raises(StoppedError):
        train(checkpoint=checkpoint, on_epoch=stop_after(epoch))
    history, weights = train(checkpoint=checkpoint, on_epoch=lambda h: seen.append(len(h)))
    assert history == expected[0]
    assert same(weights, expected[1])
    assert seen == list(range(epoch + 1, 5))


def test_a_loss_that_learns_from_validation_goes_on_from_what_it_knew(tmp_path):
    checkpoint = tmp_path / "checkpoint.safetensors"

    def crac():
        return CombinedLoss(CRaCLoss(3, margin=2.0, rho_every=1), DiceLoss())

    loss = crac()
    expected = train(loss=loss)
    with pytest.raises(StoppedError):
        train(loss=crac(), checkpoint=checkpoint, on_epoch=stop_after(2))
    resumed = crac()
    history, weights = train(loss=resumed, checkpoint=checkpoint)
    assert history == expected[0]
    assert same(weights, expected[1])
    assert same(resumed.state_dict(), loss.state_dict())
    assert (resumed.losses[0].multipliers > 1e-6).any()


def test_a_training_that_was_stopped_starts_from_its_checkpoint_and_not_from_the_models_weights(tmp_path):
    checkpoint = tmp_path / "checkpoint.safetensors"
    expected = train()
    with pytest.raises(StoppedError):
        train(checkpoint=checkpoint, on_epoch=stop_after(2))
    history, weights = train(checkpoint=checkpoint, model=model_of(77))
    assert history == expected[0]
    assert same(weights, expected[1])


def test_a_process_that_was_killed_goes_on_to_the_same_numbers(tmp_path):
    script = """
        import os, signal, sys
        sys.path.insert(0, sys.argv[1])
        from pathlib import Path
        import torch
        from toy_training import train

        def kill(history):
            if len(history) == 2:
                os.kill(os.getpid(), signal.SIGKILL)

        torch.set_num_threads(int(sys.argv[3]))
        train(checkpoint=Path(sys.argv[2]), on_epoch=kill)
    """
    checkpoint, threads = tmp_path / "checkpoint.safetensors", str(torch.get_num_threads())
    arguments = [os.path.dirname(__file__), str(checkpoint), threads]
    killed = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), *arguments], capture_output=True, text=True, check=False
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    seen = []
    history, weights = train(checkpoint=checkpoint, on_epoch=lambda h: seen.append(len(h)))
    expected = train()
    assert seen == [3, 4]
    assert history == expected[0]
    assert same(weights, expected[1])


def test_a_finished_checkpoint_trains_nothing_more(tmp_path):
    checkpoint = tmp_path / "checkpoint.safetensors"
    expected = train(checkpoint=checkpoint)
    history, weights = train(checkpoint=checkpoint, on_epoch=stop_after(4), model=model_of(9))
    assert history == expected[0]
    assert same(weights, expected[1])


# Checkpoints gone bad


def _tensors_of(path):
    with safe_open(path, "pt") as stored:
        return load_file(path), stored.metadata()


def _cut(path):
    path.write_bytes(path.read_bytes()[:-100])


def _text(path):
    path.write_text("no tensors")


def _without(prefix):
    def change(path):
        tensors, metadata = _tensors_of(path)
        save_file({name: t for name, t in tensors.items() if not name.startswith(prefix)}, path, metadata)

    return change


def _other_shape(path):
    tensors, metadata = _tensors_of(path)
    save_file({**tensors, "model/layers.4.bias": torch.zeros(7)}, path, metadata)


def _no_history(path):
    save_file(_tensors_of(path)[0], path)


def _flipped(path):
    """One bit of a weight, in the middle of the file, where the format itself sees nothing."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


def _other_history(path):
    tensors, metadata = _tensors_of(path)
    save_file(tensors, path, {**metadata, "history": "[]"})


def _other_processes(path):
    tensors, metadata = _tensors_of(path)
    save_file(tensors, path, {**metadata, "processes": "[2]"})


def _foreign(path):
    save_file({"weight": torch.zeros(3)}, path)


def _of_another_optimiser(path):
    tensors, metadata = _tensors_of(path)
    save_file(tensors, path, {**metadata, "optimizer": "SGD"})


def _of_another_network(path):
    path.unlink()
    with pytest.raises(StoppedError):
        train(model=nn.Conv2d(1, 3, 3, padding=1), checkpoint=path, epochs=2, on_epoch=stop_after(1))


BROKEN = {
    "a bit flipped": _flipped,
    "another history": _other_history,
    "another number of processes": _other_processes,
    "a file of another program": _foreign,
    "another optimiser": _of_another_optimiser,
    "another network": _of_another_network,
    "truncated": _cut,
    "text": _text,
    "empty": lambda path: path.write_bytes(b""),
    "without its history": _no_history,
    "without a weight": _without("model/layers.4.bias"),
    "a weight of another shape": _other_shape,
    "without the optimiser": _without("optimizer/"),
    "without the best weights": _without("best/"),
}


@pytest.mark.parametrize("damage", BROKEN)
def test_a_broken_checkpoint_is_set_aside_with_a_warning_and_training_starts_again(tmp_path, caplog, damage):
    checkpoint, seen = tmp_path / "checkpoint.safetensors", []
    with pytest.raises(StoppedError):
        train(checkpoint=checkpoint, epochs=2, on_epoch=stop_after(1))
    BROKEN[damage](checkpoint)
    content = checkpoint.read_bytes()
    with caplog.at_level(logging.WARNING):
        history, weights = train(checkpoint=checkpoint, epochs=2, on_epoch=lambda h: seen.append(len(h)))
    assert str(checkpoint) in caplog.text
    assert (tmp_path / "checkpoint.broken").read_bytes() == content
    assert seen == [1, 2]
    expected = train(epochs=2)
    assert history == expected[0]
    assert same(weights, expected[1])


# What is in it


class Tied(nn.Module):
    """Two layers of one weight, a transposed one, and batch normalisation, which counts."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.head = nn.Conv2d(1, 1, 1), nn.Conv2d(1, 1, 1), nn.Conv2d(2, 3, 1)
        self.second.weight = self.first.weight
        self.norm = nn.BatchNorm2d(3)
        self.head.weight = nn.Parameter(torch.randn(2, 3, 1, 1).transpose(0, 1))
        self.frozen = nn.Conv2d(3, 3, 1).requires_grad_(False)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        features = torch.cat([self.first(image), self.second(image) ** 2], dim=1)
        return self.frozen(self.norm(self.head(features)))


def test_tied_transposed_and_frozen_weights_are_kept(tmp_path):
    checkpoint = tmp_path / "checkpoint.safetensors"
    with torch.random.fork_rng():
        torch.manual_seed(0)
        models = [Tied() for _ in range(2)]
    models[1].load_state_dict(models[0].state_dict())
    expected = train(model=models[0])
    with pytest.raises(StoppedError):
        train(model=models[1], checkpoint=checkpoint, on_epoch=stop_after(2))
    stored = load_file(checkpoint)
    assert stored["model/norm.num_batches_tracked"] == 6
    assert torch.equal(stored["model/first.weight"], stored["model/second.weight"])
    history, weights = train(model=Tied(), checkpoint=checkpoint)
    assert history == expected[0]
    assert same(weights, expected[1])
    assert not (tmp_path / "checkpoint.broken").exists()


def test_weights_in_one_memory_are_written_each_by_itself(tmp_path):
    weights = torch.arange(6.0).view(2, 3)
    save_tensors(tmp_path / "w", {"a": weights, "b": weights, "c": weights.T, "d": weights[1], "e": torch.empty(0)})
    found = load_file(tmp_path / "w")
    for name, expected in (("a", weights), ("b", weights), ("c", weights.T), ("d", weights[1])):
        assert torch.equal(found[name], expected)


def test_the_state_of_model_loss_and_optimiser_comes_back(tmp_path):
    model, loss = model_of(0), CRaCLoss(3)
    optimizer = torch.optim.Adam(model.parameters())
    loss(model(torch.rand(2, 1, 8, 8)), torch.zeros(2, 8, 8, dtype=torch.long)).backward()
    optimizer.step()
    loss.multipliers += 3
    best = {name: tensor + 1 for name, tensor in model.state_dict().items()}
    save_checkpoint(tmp_path / "c", model, loss, optimizer, Progress([{"epoch": 1}], best))
    again, loss_again = model_of(1), CRaCLoss(3)
    optimizer_again = torch.optim.Adam(again.parameters())
    progress = restore_checkpoint(tmp_path / "c", again, loss_again, optimizer_again)
    assert (progress.history, same(progress.best, best)) == ([{"epoch": 1}], True)
    assert same(again.state_dict(), model.state_dict())
    assert same(loss_again.state_dict(), loss.state_dict())
    for index, state in optimizer.state_dict()["state"].items():
        assert same(optimizer_again.state_dict()["state"][index], state)


def test_moments_come_back_in_the_layout_of_their_weights_as_fused_adam_needs_them(tmp_path):
    def made() -> tuple[nn.Module, torch.optim.Optimizer]:
        model = seeded(lambda: nn.Conv2d(3, 4, 3)).to(memory_format=torch.channels_last)
        return model, torch.optim.Adam(model.parameters(), lr=1e-2, fused=True)

    def move(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        optimizer.zero_grad()
        image = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))
        (model(image.to(memory_format=torch.channels_last)) ** 2).mean().backward()
        optimizer.step()

    unbroken, again = made(), made()
    move(*unbroken)
    progress = Progress([], unbroken[0].state_dict())
    save_checkpoint(tmp_path / "c", unbroken[0], nn.Identity(), unbroken[1], progress)
    restore_checkpoint(tmp_path / "c", again[0], nn.Identity(), again[1])
    for parameter in again[0].parameters():
        state = again[1].state[parameter]
        assert state["exp_avg"].stride() == state["exp_avg_sq"].stride() == parameter.stride()
    for both in (unbroken, again):
        move(*both)
    assert same(again[0].state_dict(), unbroken[0].state_dict())


def test_a_file_that_cannot_be_read_for_now_is_named_and_stays(tmp_path, monkeypatch):
    checkpoint = tmp_path / "checkpoint.safetensors"
    expected = train(checkpoint=checkpoint, epochs=2)
    content = checkpoint.read_bytes()

    def stale(*_: object) -> None:
        raise OSError(errno.ESTALE, "Stale file handle")

    with monkeypatch.context() as patched:
        patched.setattr("nacl.training.checkpoint.safe_open", stale)
        with pytest.raises(OSError, match=r"Stale file handle.*checkpoint\.safetensors.*Try again, or move it away"):
            train(checkpoint=checkpoint, epochs=2)
    assert [file.name for file in tmp_path.iterdir()] == [checkpoint.name]
    assert checkpoint.read_bytes() == content
    assert train(checkpoint=checkpoint, epochs=2, on_epoch=stop_after(2))[0] == expected[0]


def test_a_checkpoint_of_another_number_of_processes_goes_on_with_a_warning_and_keeps_both(
    tmp_path, monkeypatch, caplog
):
    checkpoint = tmp_path / "checkpoint.safetensors"
    with monkeypatch.context() as patched:
        patched.setattr("nacl.training.checkpoint.world_size", lambda: 4)
        with pytest.raises(StoppedError):
            train(checkpoint=checkpoint, on_epoch=stop_after(1))
    assert (processes_of(checkpoint), caplog.text) == ([4], "")
    train(checkpoint=checkpoint)
    assert processes_of(checkpoint) == [1, 4]
    assert f"{checkpoint} was made by 4 process(es) and goes on with 1" in caplog.text


# Killed


def test_a_process_killed_while_it_writes_a_checkpoint_goes_on_from_the_one_before(tmp_path):
    script = """
        import os, signal, sys
        sys.path.insert(0, sys.argv[1])
        from pathlib import Path
        import torch
        from nacl.training import checkpoint
        from toy_training import train

        written, whole = [], checkpoint.save_file

        def half(tensors, path, metadata):
            whole(tensors, path, metadata)
            written.append(path)
            if len(written) == 3:
                os.truncate(path, os.path.getsize(path) // 2)
                os.kill(os.getpid(), signal.SIGKILL)

        checkpoint.save_file = half
        torch.set_num_threads(int(sys.argv[3]))
        train(checkpoint=Path(sys.argv[2]))
    """
    path, seen = tmp_path / "checkpoint.safetensors", []
    arguments = [os.path.dirname(__file__), str(path), str(torch.get_num_threads())]
    command = [sys.executable, "-c", textwrap.dedent(script), *arguments]
    killed = subprocess.run(command, capture_output=True, text=True, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    history, weights = train(checkpoint=path, on_epoch=lambda h: seen.append(len(h)))
    expected = train()
    assert seen == [3, 4]
    assert history == expected[0]
    assert same(weights, expected[1])


def run_in_a_process(run: Run, runs: Path, *, kill_after: float | None = None) -> int:
    """The exit status of a process that trains; it is killed so many seconds after it began."""
    context = multiprocessing.get_context("forkserver")  # whose children need not import all anew
    context.set_forkserver_preload(["nacl.experiments"])
    process = context.Process(target=train_run, args=(run,), kwargs={"runs": runs})
    process.start()
    process.join(kill_after)
    if process.exitcode is None:
        process.kill()
        process.join()
    return process.exitcode


def test_a_run_killed_at_random_moments_ends_with_the_same_numbers_to_the_bit(tiny_acdc, tmp_path):
    """Its checkpoints are large beside its steps, so that some moments fall into a write."""
    run = Run(data=str(tiny_acdc), size=32, filters=12, epochs=8, batch_size=4, loss="crac", margin=1.0, device="cpu")
    start = time.perf_counter()
    assert run_in_a_process(run, tmp_path / "whole") == 0
    duration = time.perf_counter() - start
    moments = random.Random(int(os.environ.get("NACL_TEST_SEED", "0")))
    for _ in range(5):
        run_in_a_process(run, tmp_path / "killed", kill_after=moments.uniform(0.1, 0.6) * duration)
    assert run_in_a_process(run, tmp_path / "killed") == 0
    (whole,), (killed,) = ((tmp_path / name).iterdir() for name in ("whole", "killed"))
    histories = [pd.read_csv(folder / "history.csv").drop(columns="seconds") for folder in (whole, killed)]
    pd.testing.assert_frame_equal(*histories, rtol=0, atol=0)
    for name in ("weights.safetensors", "metrics.csv", "bins.csv"):
        assert (killed / name).read_bytes() == (whole / name).read_bytes(), name
    assert {f.name for f in killed.iterdir()} == {f.name for f in whole.iterdir()}
