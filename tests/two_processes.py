"""What test_distributed.py runs by torchrun, in each of two processes: `two_processes.py SCENARIO FOLDER`."""

import sys
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from toy_training import CASES, seeded, train

from nacl.data import Case
from nacl.experiments import train_run
from nacl.losses import CRaCLoss, NACLLoss
from nacl.models import build_model
from nacl.runs import Run
from nacl.training.checkpoint import save_tensors
from nacl.training.distributed import process_group, rank, world_size

UNET = {"filters": 2}
TRAININGS = {
    "even": {"batch_size": 2, "epochs": 2},
    "uneven": {"batch_size": 5, "epochs": 2},  # of 6 slices: 3 and 2, then 1 and none
    "shared": {"batch_size": 3, "epochs": 2, "model": lambda: normalised()},  # of 3 slices: 2 and 1
    "crac": {"batch_size": 4, "epochs": 2, "loss": lambda: CRaCLoss(3, margin=2.0, rho_every=1)},
}


class Total(torch.autograd.Function):
    """The sum over the processes, and of its gradients."""

    @staticmethod
    def forward(ctx: object, x: torch.Tensor) -> torch.Tensor:
        total = x.clone()
        if world_size() > 1:
            dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: object, grad: torch.Tensor) -> torch.Tensor:
        return Total.forward(ctx, grad)


class SharedNorm(torch.nn.Module):
    """What SyncBatchNorm computes in training, which PyTorch has on CUDA only; else each process for itself."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        axes, total = (0, 2, 3), Total.apply if self.training else torch.clone
        count = total(torch.tensor(float(x[:, 0].numel())))
        mean = total(x.sum(dim=axes, keepdim=True)) / count
        variance = total(((x - mean) ** 2).sum(dim=axes, keepdim=True)) / count
        return (x - mean) / (variance + 1e-5).sqrt()


def normalised() -> torch.nn.Module:
    conv = torch.nn.Conv2d
    # no bias before the normalisation: its gradient is 0, and Adam would make steps of the rounding
    return torch.nn.Sequential(
        conv(1, 4, 3, padding=1, bias=False), SharedNorm(), torch.nn.ReLU(), conv(4, 3, 3, padding=1)
    )


def trained(name: str, **more: object) -> tuple[list[dict], dict[str, torch.Tensor]]:
    """The history and the tensors that a training of the table ends with."""
    options = dict(TRAININGS[name])
    loss = options.pop("loss", lambda: NACLLoss(penalty_weight=0.3))()
    build = options.pop("model", lambda: build_model("unet", 1, 3, **UNET))
    model = seeded(build, seed=7 * rank())  # the first one's weights are taken
    history, weights = train(model=model, loss=loss, learning_rate=1e-3, **options, **more)
    return history, weights | {f"loss/{key}": value for key, value in loss.state_dict().items()}


def a_run(data: str) -> Run:
    return Run(data=data, size=32, filters=2, epochs=2, batch_size=4, device="cpu")


class Crops(torch.nn.Conv2d):
    """Gives logits of another size than the image's in the second process."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return super().forward(image)[..., rank() :]


def with_nan(case: Case) -> Case:
    return replace(case, image=np.full_like(case.image, np.nan)) if rank() == 1 else case


ERRORS = {
    "nan": lambda: {"cases": {**CASES, "train": [with_nan(case) for case in CASES["train"]]}},
    "output": lambda: {"model": Crops(1, 3, 1)},
    "validation": lambda: {"cases": {**CASES, "valid": [*CASES["valid"], with_nan(CASES["valid"][0])]}},
}


def main(scenario: str, folder: Path, data: str) -> None:
    if scenario == "nan":
        train(checkpoint=folder / "checkpoint", **ERRORS["nan"]())
    for name in TRAININGS:
        history, tensors = trained(name, checkpoint=folder / f"{name}.checkpoint")
        save_tensors(folder / f"{name}-{rank()}.safetensors", tensors, {"history": repr(history)})
    resumed, _ = trained("even", checkpoint=folder / "even.checkpoint", on_epoch=lambda history: 1 / 0)
    assert len(resumed) == 2
    for name, options in ERRORS.items():
        try:
            train(checkpoint=folder / f"{name}.checkpoint", **options())
        except Exception as error:
            (folder / f"{name}-{rank()}.txt").write_text(f"{type(error).__name__}: {error}")
    result = train_run(a_run(data), runs=folder / "runs")
    print(f"read {len(result.cases)} rows, rank {rank()}")


if __name__ == "__main__":
    torch.set_num_threads(1)
    warnings.simplefilter("error")
    with process_group("cpu"):
        main(sys.argv[1], Path(sys.argv[2]), sys.argv[3])
