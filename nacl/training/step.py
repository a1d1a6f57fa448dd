"""One step of training: forward, loss, backward, and the optimiser's move; nothing in it waits for a GPU."""

import inspect
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn

from nacl._checks import expectation
from nacl.training import distributed
from nacl.training.device import autocast, memory_format
from nacl.training.memory import is_out_of_memory

ENGINES = ("eager", "compile")
IGNORED = -100  # the losses' own ignore_index
OF_A_DEVICE = ("CUDA", "CUDNN", "cuDNN", "CUBLAS", "cuBLAS", "out of memory")  # words of errors, of no image's shape


class Step:
    """Moves a network by one batch after the other, and keeps the losses of an epoch where they were computed.

    With the engine "compile", network and loss are one program of torch.compile, on CUDA as CUDA graphs. A loss whose
    keywords change from epoch to epoch stays out of it, since each of their values would be compiled anew.

    Args:
        model: on `device`.
        loss: maps logits and labels to a number.
        optimizer: of the model's parameters.
        num_classes: C, that the model's logits must have.
        patch: of 3D patches; None for slices.
        engine: one of `ENGINES`.
        scheduled: whether keywords of the loss change.
        device: where all is.
    """

    def __init__(
        self,
        model: nn.Module,
        loss: nn.Module,
        optimizer: torch.optim.Optimizer,
        num_classes: int,
        *,
        patch: tuple[int, int, int] | None = None,
        engine: str = "eager",
        scheduled: bool = False,
        device: torch.device,
    ) -> None:
        self.model, self.loss, self.optimizer, self.device = model, loss, optimizer, device
        self.num_classes, self.layout, self.compiled = num_classes, memory_format(patch), engine == "compile"
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        self.network, self.forward = model, self._forward
        if self.compiled and scheduled:
            self.network = compiled(model, device)
        elif self.compiled:
            self.forward = compiled(self._forward, device)
        self.tried = False
        self.start_epoch(0)

    def start_epoch(self, epoch: int) -> None:
        """Forget the losses of the epoch before this one, counted from 0."""
        self.model.train()
        self.epoch = epoch
        self.losses: list[Tensor] = []
        self.sizes: list[int] = []

    @contextmanager
    def before(self) -> Iterator[None]:
        """For what is done before a step: an error there must reach the other processes, which wait for this one."""
        try:
            yield
        except Exception:
            if distributed.world_size() > 1:
                nothing = torch.zeros((), device=self.device)
                distributed.sum_up(self.parameters, distributed.part_of(nothing), failed=True)
            raise

    def __call__(self, image: Tensor, label: Tensor, *, counts: int | None = None, whole: int | None = None) -> None:
        """One step.

        Args:
            image: (B, M, ...) float32.
            label: (B, ...) integer, -100 where it does not count.
            counts: how many of the samples count; all by default. (A process without a sample has one that does not.)
            whole: samples of the batch in all processes; by default those of this one.

        Raises:
            ValueError: images that the model does not take, or logits of another shape than the labels.
            FloatingPointError: on the CPU, a loss that is not finite. (On a GPU `finish` tells.)
        """
        image, label = image.to(memory_format=self.layout), label.long()
        self.optimizer.zero_grad(set_to_none=True)
        if self.compiled and self.device.type == "cuda":
            torch.compiler.cudagraph_mark_step_begin()
        if distributed.world_size() > 1:
            batch_loss = self._together(image, label, len(image) if counts is None else counts)
        else:
            batch_loss = self._backward(image, label)
        self.losses.append(batch_loss)
        self.sizes.append(whole or len(image))
        if self.device.type == "cpu" and not math.isfinite(batch_loss.item()):
            raise self._not_finite(len(self.losses), batch_loss.item())
        self.optimizer.step()

    def finish(self) -> float:
        """The mean loss of the epoch over its samples; here, once an epoch, a GPU is waited for.

        Raises:
            FloatingPointError: a loss was not finite; the first such step is named.
        """
        losses = torch.stack(self.losses).cpu().numpy()
        bad = np.flatnonzero(~np.isfinite(losses))
        if len(bad):
            raise self._not_finite(int(bad[0]) + 1, float(losses[bad[0]]))
        sums = losses * np.array(self.sizes, losses.dtype)
        return float(np.add.accumulate(sums, dtype=np.float32)[-1]) / sum(self.sizes)

    def _backward(self, image: Tensor, label: Tensor, part: Tensor | None = None) -> Tensor:
        """The loss of a batch, with its gradients in the parameters; both times `part`, of several processes."""
        try:
            batch_loss = self._first(image, label) if not self.tried else self.forward(image, label)
        except (ValueError, RuntimeError) as error:  # the latter of the compiler
            if "more than 1 value per channel" in str(error):  # PyTorch's word for it
                raise self._too_small(len(image)) from error
            if "a loss of NaN" not in str(error):  # the losses' own word for it, on the CPU
                raise
            return torch.full((), torch.nan)
        self.tried = True
        if part is not None:
            batch_loss = batch_loss * part
        batch_loss.backward()
        # The memory of a CUDA graph's result is its next run's.
        return batch_loss.detach().clone() if self.compiled else batch_loss.detach()

    def _first(self, image: Tensor, label: Tensor) -> Tensor:
        """The first batch shows whether the model takes such images."""
        if self.compiled:  # where a shape that does not fit would be an error of the compiler
            self._probe(image[:1], label[:1])
        return self.forward(image, label)

    def _logits(self, network: Callable[[Tensor], Tensor], image: Tensor) -> Tensor:
        """What the network gives for images; the first time, an error of its own is taken as one of their shape."""
        if torch.compiler.is_compiling() or self.tried:
            return network(image)
        try:
            return network(image)
        except ValueError:  # of its own words
            raise
        except Exception as error:
            if is_out_of_memory(error) or any(words in str(error) for words in OF_A_DEVICE):
                raise
            if self.compiled and _is_of_the_compiler(error):
                raise
            got = f"{type(error).__name__}: {error}"
            remedy = f"Look at its forward, its in_channels ({image.shape[1]} here) and the sizes that it can halve"
            rule = f"to take images of shape {tuple(image.shape)}"
            raise ValueError(expectation("model", rule, got, remedy=remedy)) from error

    @torch.no_grad()
    def _probe(self, image: Tensor, label: Tensor) -> None:
        self.model.eval()  # which draws nothing and changes no statistics
        with autocast(self.device):
            check_output(self._logits(self.model, image), label, self.num_classes)
        self.model.train()

    def _forward(self, image: Tensor, label: Tensor) -> Tensor:
        with autocast(self.device):
            logits = self._logits(self.network, image)
        if not torch.compiler.is_compiling():
            check_output(logits, label, self.num_classes)
        if getattr(self.loss, "reads_image", False):
            return self.loss(logits, label, image=image)
        return self.loss(logits, label)

    def _together(self, image: Tensor, label: Tensor, counts: int) -> Tensor:
        """The same with other processes, each with its share of the batch."""
        part = distributed.part_of((label != IGNORED).sum() * (counts / len(label)))
        batch_loss, failure = torch.zeros((), device=self.device), None
        try:
            batch_loss = self._backward(image, label, part)
        except Exception as error:  # the others wait for this process's part
            failure = error
        batch_loss, failures = distributed.sum_up(self.parameters, batch_loss, failure is not None)
        if failure is not None:
            raise failure
        if self.device.type == "cpu" and failures.item():
            place = f"epoch {self.epoch + 1}, step {len(self.losses) + 1}"
            raise RuntimeError(f"Another process ended with an error ({place}); see its message.")
        return batch_loss

    def _too_small(self, samples: int) -> ValueError:
        rule = "to leave each step and process 2 samples, which the network's batch normalisation needs"
        context = (
            f"epoch {self.epoch + 1}, step {len(self.losses) + 1}: batch_size is 1, or a last batch of one is left"
        )
        remedy = "Choose another batch_size, that does not leave 1 over when it divides the number of samples"
        return ValueError(expectation("batch_size", rule, f"a batch of {samples}", context, remedy))

    def _not_finite(self, step: int, value: float) -> FloatingPointError:
        lower = f"Lower learning_rate (now {self.optimizer.param_groups[0]['lr']:g}) or the weights of the loss"
        stays = "; the last checkpoint stays" if self.epoch else ""
        remedy = f"{lower}, or look for NaN in the images{stays}"
        context = f"epoch {self.epoch + 1}, step {step}"
        return FloatingPointError(expectation("loss", "to be finite", value, context, remedy))


def check_output(logits: object, label: Tensor, num_classes: int) -> None:
    """Raise unless a model's output is one tensor of logits that fits the labels."""
    wanted = (label.shape[0], num_classes, *label.shape[1:])
    if not isinstance(logits, Tensor):
        rule = f"to give one tensor of logits {wanted}"
        raise ValueError(expectation("model", rule, type(logits).__name__, remedy="Return its main output only"))
    if tuple(logits.shape) != wanted:
        remedy = "Bring its output to the size of the image"
        if logits.ndim > 1 and logits.shape[1] != num_classes:
            remedy = f"Give it num_classes={num_classes}, background included"
        raise ValueError(expectation("model", f"to give logits of shape {wanted}", tuple(logits.shape), "", remedy))


def _is_of_the_compiler(error: RuntimeError) -> bool:
    """Whether torch.compile failed, and not what it compiled."""
    from torch._dynamo.exc import TorchDynamoException, TorchRuntimeError  # slow to import

    return isinstance(error, TorchDynamoException) and not isinstance(error, TorchRuntimeError)


def compiled(function: Callable, device: torch.device) -> Callable:
    """`function` by torch.compile, for one shape after the other; on CUDA as CUDA graphs."""
    options = {"dynamic": False, "mode": "reduce-overhead" if device.type == "cuda" else None}
    if "isolate_recompiles" in inspect.signature(torch.compile).parameters:  # else trainings share a count of 8
        options["isolate_recompiles"] = True
    return torch.compile(function, **options)
