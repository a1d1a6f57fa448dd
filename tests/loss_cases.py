"""The losses in their variants, and small data for them: shared by the tests of the losses."""

from typing import NamedTuple

import numpy as np
import pytest
import torch
from oracles import IGNORE

from nacl import losses
from nacl.losses import LOSSES
from nacl.priors import IMAGE_PRIORS

C = 4
FUNCTIONS = {name: losses.crac_loss if name == "crac" else loss_class.function for name, loss_class in LOSSES.items()}
OF_IMAGES = ("dice", "l1_ace")  # one value an image and class; the others have one a pixel
PER_CLASS = torch.tensor([[0.3, 0.1, 0.2, 0.05], [0.01, 0.4, 0.2, 0.1]])


class Variant(NamedTuple):
    """A loss and its options."""

    name: str
    options: dict

    def __call__(self, logits, target, image=None, **more):
        return FUNCTIONS[self.name](logits, target, **self.data(target, image), **{**self.options, **more})

    def data(self, target, image=None):
        """What a call needs beside logits and labels."""
        return {"image": grey(target) if image is None else image} if self.reads_image else {}

    @property
    def reads_image(self):
        return self.options.get("prior") in IMAGE_PRIORS

    @property
    def has_window(self):
        return self.name in ("svls", "nacl", "crac")

    @property
    def draws_logits(self):
        """Whether a constant added to all logits of a pixel counts."""
        return self.name in ("nacl", "crac") and not self.options.get("softmax")

    @property
    def knows_class_numbers(self):
        """Whether another numbering of the classes gives another loss."""
        return (
            self.options.get("prior") in ("max", "min", "median", "mode")
            or isinstance(self.options.get("multipliers"), torch.Tensor)
            or (self.name in OF_IMAGES and not self.options.get("include_background", self.name == "l1_ace"))
        )


VARIANTS = {
    "ce": Variant("ce", {}),
    "label_smoothing": Variant("label_smoothing", {}),
    "label_smoothing 1": Variant("label_smoothing", {"smoothing": 1.0}),
    "focal": Variant("focal", {}),
    "focal 0.7": Variant("focal", {"gamma": 0.7}),
    "focal flsd": Variant("focal", {"gamma": 3.3, "gamma_unsure": 5.1, "threshold": 0.25}),
    "ecp": Variant("ecp", {}),
    "ecp 2": Variant("ecp", {"penalty_weight": 2.0}),
    "mbls": Variant("mbls", {"margin": 1.0}),
    "mbls l2": Variant("mbls", {"margin": 0.5, "penalty": "l2", "penalty_weight": 0.7}),
    "mbls huber": Variant("mbls", {"margin": 0.3, "penalty": "huber", "delta": 0.8}),
    "svls": Variant("svls", {}),
    "svls wide": Variant("svls", {"kernel_size": 5, "sigma": 0.7}),
    "nacl": Variant("nacl", {}),
    "nacl l2": Variant("nacl", {"penalty": "l2", "penalty_weight": 0.3}),
    "nacl huber": Variant("nacl", {"penalty": "huber", "delta": 0.6, "penalty_weight": 0.5}),
    "nacl gaussian": Variant("nacl", {"prior": "gaussian", "kernel_size": 5, "sigma": 2.0, "penalty_weight": 1.0}),
    "nacl max": Variant("nacl", {"prior": "max"}),
    "nacl min": Variant("nacl", {"prior": "min"}),
    "nacl median": Variant("nacl", {"prior": "median", "kernel_size": 5}),
    "nacl mode": Variant("nacl", {"prior": "mode"}),
    "nacl bilateral": Variant("nacl", {"prior": "bilateral", "sigma": 1.5}),
    "nacl gradient": Variant("nacl", {"prior": "gradient"}),
    "nacl image l1": Variant("nacl", {"prior": "image_proportions_l1"}),
    "nacl image l2": Variant("nacl", {"prior": "image_proportions_l2", "penalty": "l2"}),
    "nacl softmax": Variant("nacl", {"softmax": True, "kernel_size": 7}),
    "nacl softmax l2": Variant("nacl", {"softmax": True, "penalty": "l2", "penalty_weight": 2.0}),
    "nacl softmax huber": Variant("nacl", {"softmax": True, "penalty": "huber", "delta": 0.2}),
    "nacl mixed": Variant("nacl", {"mixed_only": True, "kernel_size": 5}),
    "nacl softmax mixed": Variant("nacl", {"softmax": True, "mixed_only": True, "penalty": "l2"}),
    "crac": Variant("crac", {"multipliers": 0.2, "rho": 0.7, "margin": 3.0}),
    "crac p2": Variant("crac", {"multipliers": PER_CLASS, "rho": 2 * PER_CLASS, "lagrangian": "p2"}),
    "crac p3": Variant("crac", {"multipliers": PER_CLASS, "lagrangian": "p3", "kernel_size": 5}),
    "dice": Variant("dice", {}),
    "dice batch": Variant("dice", {"batch": True, "include_background": True, "smooth": 0.5}),
    "l1_ace": Variant("l1_ace", {}),
    "l1_ace 7": Variant("l1_ace", {"n_bins": 7, "include_background": False}),
}
ONE_EACH = {name: VARIANTS[name] for name in LOSSES}
OF_PIXELS = {key: v for key, v in VARIANTS.items() if v.name not in OF_IMAGES}
SPACES = {"2d": (2, 5, 4), "3d": (2, 3, 2, 4)}


def over(table, argument):
    """One test for each row of a table."""
    return pytest.mark.parametrize(argument, table.values(), ids=table)


variants = over(VARIANTS, "loss")
pixel_variants = over(OF_PIXELS, "loss")
each_loss = over(ONE_EACH, "loss")
spaces = over(SPACES, "shape")


def data(shape=(2, 5, 4), *, holes=0.2, seed=0, num_classes=C, ignore_index=IGNORE):
    """Logits in float64 with gradient, and labels of which some are ignored."""
    rng = np.random.default_rng(seed)
    target = np.where(rng.random(shape) < holes, ignore_index, rng.integers(0, num_classes, shape))
    logits = torch.as_tensor(2 * rng.standard_normal((shape[0], num_classes, *shape[1:])))
    return logits.requires_grad_(), torch.as_tensor(target)


def grey(target, channels=2):
    """An image for a label map, always the same one."""
    size = (len(target), channels, *target.shape[1:])
    return torch.as_tensor(np.random.default_rng(7).standard_normal(size))


def gradient(loss, logits):
    return torch.autograd.grad(loss.sum(), logits)[0]


def by_pixel(values):
    """(N, C, ...) -> (N, ..., C)."""
    return values.movedim(1, -1)
