"""A cardiac-like phantom whose true posterior is known at every pixel, since the labels are drawn from it.

A slice is a left ventricle (3) inside a ring of myocardium (2), and a right ventricle (1) behind the ring. With the
distances d_in > d_out to the ring's inner and outer border along the ray from its centre, and d_rv to the circle of the
right ventricle (all negative inside, in widths of the slice), Phi the normal distribution function, and the ambiguity a
of the case:

    q_in = Phi(-d_in / a),  q_out = Phi(-d_out / a),  q_rv = Phi(-d_rv / a)
    p_3 = q_in,  p_2 = q_out - q_in,  p_1 = (1 - q_out) q_rv,  p_0 = (1 - q_out) (1 - q_rv)

An annotator displaces borders smoothly: u and v are independent Gaussian fields of mean 0 and variance 1 at every
pixel, and the label is 3 where Phi(u) < q_in, else 2 where Phi(u) < q_out, else 1 where Phi(v) < q_rv, else 0. Since
Phi(u) is uniform on [0, 1], each pixel's label has exactly the probabilities p; since u is smooth, labels of
neighbours agree, as a drawn outline does.

The image is sum_k p_k m_k, with the intensities m of blood, muscle and surroundings, times a smooth bias field, plus
texture in the background and noise. It depends on p and not on the drawn label: what is ambiguous looks blurred.
"""

import hashlib
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from nacl.data.case import SPLITS, Case, Dataset
from nacl.data.fields import smooth_field

CLASS_NAMES = ("background", "right ventricle", "myocardium", "left ventricle")


@dataclass(frozen=True)
class Parameters:
    """Numbers of the generator; lengths are shares of the width of a slice, pairs are ranges drawn from uniformly."""

    cases: dict[str, int] = field(default_factory=lambda: {"train": 30, "valid": 8, "test": 12})
    slices: int = 8
    seed: int = 0
    centre: tuple[float, float] = (0.44, 0.56)
    cavity_radius: tuple[float, float] = (0.11, 0.17)
    wall: tuple[float, float] = (0.05, 0.085)
    ellipticity: tuple[float, float] = (0.0, 0.12)
    right_radius: tuple[float, float] = (0.15, 0.21)
    ambiguity: tuple[float, float] = (0.006, 0.022)
    correlation: float = 0.035
    intensities: tuple[float, float, float, float] = (0.38, 0.72, 0.22, 0.80)
    texture: float = 0.09
    bias: float = 0.15
    noise: float = 0.05


PARAMETERS = Parameters()


def generate(size: int, parameters: Parameters = PARAMETERS) -> Dataset:
    """The phantom data set at `size` x `size` pixels a slice: always the same cases, each with its posterior."""
    cases = (_case(size, parameters, split, index) for split in SPLITS for index in range(parameters.cases[split]))
    return Dataset("phantom", CLASS_NAMES, tuple(cases), unit="px")


def fingerprint() -> str:
    """A hash of what the data set is made from."""
    return hashlib.blake2b(repr(PARAMETERS).encode(), digest_size=16).hexdigest()


def draw_labels(
    posterior: NDArray, rng: np.random.Generator, *, correlation: float = PARAMETERS.correlation
) -> NDArray[np.uint8]:
    """One annotator's labels (D, H, W) for a posterior (4, D, H, W), by the module's formula.

    Args:
        posterior: class probabilities.
        rng: source of the two fields.
        correlation: length over which the annotator's error is smooth, as a share of the width.
    """
    _, depth, height, width = posterior.shape
    length = correlation * width
    u, v = (ndtr(smooth_field(rng, (depth, height, width), (0, length, length))) for _ in range(2))
    q_in, q_out = posterior[3], posterior[2] + posterior[3]
    # p_1 = (1 - q_out) q_rv, so V < q_rv is V (1 - q_out) < p_1, which needs no division.
    label = np.where(v * (1 - q_out) < posterior[1], 1, 0)
    label = np.where(u < q_out, 2, label)
    return np.where(u < q_in, 3, label).astype(np.uint8)


def _case(size: int, parameters: Parameters, split: str, index: int) -> Case:
    rng = np.random.default_rng([parameters.seed, SPLITS.index(split), index])
    posterior = _posterior(size, parameters, rng)
    image = _image(posterior, parameters, rng)
    label = draw_labels(posterior, rng, correlation=parameters.correlation)
    name = f"{split}{index:03d}"
    return Case(name, split, image, label, (1.0, 1.0, 1.0), posterior.astype(np.float32))


def _posterior(size: int, parameters: Parameters, rng: np.random.Generator) -> NDArray[np.float64]:
    """Class probabilities (4, D, size, size) of one case, from the base (slice 0) to the apex."""
    cx, cy = rng.uniform(*parameters.centre, 2)
    cavity, wall = rng.uniform(*parameters.cavity_radius), rng.uniform(*parameters.wall)
    right, turn = rng.uniform(*parameters.right_radius), rng.uniform(-0.4, 0.4)
    ellipticity, axis = rng.uniform(*parameters.ellipticity), rng.uniform(0, np.pi)
    ambiguity = rng.uniform(*parameters.ambiguity)

    depth = np.linspace(0, 1, parameters.slices)[:, None, None]
    narrowing = np.sqrt(1 - 0.8 * depth**2)
    pixel = (np.arange(size) + 0.5) / size
    x, y = pixel[None, None, :] - cx, pixel[None, :, None] - cy
    radius, angle = np.hypot(x, y), np.arctan2(y, x)
    inner = cavity * narrowing * (1 + ellipticity * np.cos(2 * (angle - axis)))
    d_in, d_out = radius - inner, radius - inner - wall
    reach = (cavity + wall) * narrowing
    d_rv = np.hypot(x + reach * np.cos(turn), y + reach * np.sin(turn)) - right * (1 - 0.9 * depth)

    q_in, q_out, q_rv = (ndtr(-d / ambiguity) for d in (d_in, d_out, d_rv))
    return np.stack([(1 - q_out) * (1 - q_rv), (1 - q_out) * q_rv, q_out - q_in, q_in])


def _image(posterior: NDArray, parameters: Parameters, rng: np.random.Generator) -> NDArray[np.float32]:
    shape, width = posterior.shape[1:], posterior.shape[-1]
    texture, bias = 0.02 * width, 0.25 * width
    image = np.tensordot(parameters.intensities, posterior, axes=1)
    image += parameters.texture * posterior[0] * smooth_field(rng, shape, (0, texture, texture))
    image *= 1 + parameters.bias * smooth_field(rng, shape, (0, bias, bias))
    image += parameters.noise * rng.standard_normal(shape)
    return image.clip(0, 1).astype(np.float32)
