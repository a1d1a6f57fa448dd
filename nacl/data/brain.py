"""Real anatomy whose true posterior is known at every pixel: brains of the MNI152 template, with no download.

**A patient.** The template's probabilities t (`nacl.data.template`) are mixed over the voxel, as a scanner does, and
carried along by a scaling and rotation A of the head and two smooth displacements d, of wide and of narrow waves. With
the share c of fluid that is this patient's own and the ambiguity a of the case, each place r has

    p_k(r) = (c_k t_k(A r + d(r)))^(1/a) / sum_j (c_j t_j(A r + d(r)))^(1/a),   c = (1, c, 1, 1),

which is the case's posterior. All of it depends on r in mm, so the same patient has the same brain at every size and
slice spacing, up to what a voxel mixes.

**An annotator.** The classes are ordered from outside to inside: background, fluid, grey, white. Let u be a Gaussian
field of mean 0 and variance 1 at every pixel, smooth in three dimensions, U = Phi(u), and P_k = p_0 + ... + p_k. The
label is

    y = the number of k < 3 with U >= P_k.

Since Phi(u) is uniform on [0, 1], P(y <= k) = P(U < P_k) = P_k and hence P(y = k) = P_k - P_(k-1) = p_k: each pixel's
label has exactly the probabilities p. The sets y > k = {U >= P_k} are nested, white within grey within fluid, as the
tissues are, and each border is where a smooth u crosses a smooth threshold: where u is high the annotator draws every
border a bit further out, where it is low, further in. Any order has the same probabilities, but with grey before
fluid, say, an annotator would draw a seam of grey between background and fluid.

**An image.** For each contrast, sum_k p_k m_k with intensities m of the tissues drawn for the case, times a smooth bias
field, as the magnitude of a complex signal with noise (Rician), cut off at 0 and 1. It depends on p and not on the
drawn label: what is ambiguous looks blurred.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation
from scipy.special import ndtr

from nacl._checks import check_integer, check_number, expectation
from nacl.data import template
from nacl.data.case import SPLITS, Case, Dataset
from nacl.data.fields import smooth_field, smooth_field_at

CLASS_NAMES = ("background", *template.TISSUES)
HEAD = (-17.0, 0.0)  # mm: the middle of the template's brain along y and x
REACH = 200.0  # mm from the template's zero that displacements and bias fields span

Range = tuple[float, float]
# Intensities of background, fluid, grey and white. T1 after the template's own (medians 0, 0.26, 0.65, 0.87 of its
# largest value), darker, so that a bias field seldom reaches 1; T2 with the order of the tissues turned round.
T1: tuple[Range, ...] = ((0.0, 0.02), (0.15, 0.28), (0.45, 0.60), (0.70, 0.82))
T2: tuple[Range, ...] = ((0.0, 0.02), (0.74, 0.86), (0.46, 0.58), (0.26, 0.38))


@dataclass(frozen=True)
class Parameters:
    """Numbers of the generator; lengths are in mm, pairs are ranges drawn from uniformly.

    A full volume is `Parameters(slices=80, slice_spacing=2, slice_thickness=2, centre=5)`. Give fewer cases then: at
    96 x 96 pixels each takes 15 MB.

    Attributes:
        cases: how many in each split.
        slices, slice_spacing, slice_thickness, centre: of axial slices, the last the height of their middle.
        field_of_view: width and height of a slice; it holds the whole head.
        scale, turn, shift: of the head along and about each axis, the second in degrees.
        waves: length and standard deviation of each displacement.
        fluid: factor on the fluid's probability.
        ambiguity: 1 is the template's, an average of 152 brains; towards 0 every border is known.
        correlation: length over which an annotator's error is smooth.
        intensities: for each channel of the image, the range of each class; {"t1": T1, "t2": T2} makes two channels.
        bias, bias_length: standard deviation and length of the bias field.
        noise: standard deviation of each of the two parts of the complex noise.
    """

    cases: dict[str, int] = field(default_factory=lambda: {"train": 30, "valid": 8, "test": 12})
    slices: int = 8
    slice_spacing: float = 9.0
    slice_thickness: float = 4.0
    centre: float = 20.0
    field_of_view: float = 208.0
    seed: int = 0
    scale: Range = (0.85, 1.0)
    turn: Range = (-6.0, 6.0)
    shift: Range = (-4.0, 4.0)
    waves: tuple[Range, ...] = ((40.0, 3.0), (14.0, 2.0))
    fluid: Range = (0.6, 1.8)
    ambiguity: Range = (0.25, 0.55)
    correlation: float = 5.0
    intensities: Mapping[str, tuple[Range, ...]] = field(default_factory=lambda: {"t1": T1})
    bias: float = 0.08
    bias_length: float = 60.0
    noise: float = 0.035

    def __post_init__(self) -> None:
        check_integer("slices", self.slices, low=1)
        for name in ("slice_spacing", "slice_thickness", "correlation", "bias_length"):
            check_number(name, getattr(self, name), low=0, open_low=True)
        check_number("field_of_view", self.field_of_view, low=0, high=300, open_low=True)
        for name in ("scale", "fluid", "ambiguity"):
            check_number(name, min(getattr(self, name)), low=0, open_low=True)
        for channel, ranges in self.intensities.items():
            if len(ranges) != len(CLASS_NAMES):
                raise ValueError(expectation("intensities", "with a range for each of 4 classes", ranges, channel))


PARAMETERS = Parameters()


def generate(size: int, parameters: Parameters = PARAMETERS) -> Dataset:
    """The data set at `size` x `size` pixels a slice: always the same cases, each with its posterior.

    Axes are D upwards, H from the front of the head to its back, W from its left to its right.

    Raises:
        ModuleNotFoundError: nilearn, which carries the template, is not installed.
        ValueError: `size` below 1.
    """
    check_integer("size", size, low=1)
    cases = (_case(size, parameters, split, index) for split in SPLITS for index in range(parameters.cases[split]))
    return Dataset("brain", CLASS_NAMES, tuple(cases), unit="mm", channel_names=tuple(parameters.intensities))


def fingerprint() -> str:
    """A hash of what the data set is made from: the parameters, and the template's files."""
    digest = hashlib.blake2b(repr(PARAMETERS).encode(), digest_size=16)
    for name in template.MAPS:
        digest.update(template.file_of(name).read_bytes())
    return digest.hexdigest()


def draw_labels(
    posterior: NDArray,
    rng: np.random.Generator,
    *,
    spacing: tuple[float, float, float],
    correlation: float = PARAMETERS.correlation,
) -> NDArray[np.uint8]:
    """One annotator's labels (D, H, W) for a posterior (4, D, H, W), by the module's formula.

    Args:
        posterior: class probabilities, in the order of `CLASS_NAMES`.
        rng: source of the field.
        spacing: size of a voxel along D, H, W in mm.
        correlation: length in mm over which the annotator's error is smooth.

    Example:
        >>> posterior = np.full((4, 1, 8, 8), 0.25)
        >>> draw_labels(posterior, np.random.default_rng(0), spacing=(1.0, 1.0, 1.0)).shape
        (1, 8, 8)
    """
    uniform = ndtr(smooth_field(rng, posterior.shape[1:], tuple(correlation / step for step in spacing)))
    thresholds = np.cumsum(posterior[:-1], axis=0, dtype=np.float64)
    return (uniform >= thresholds).sum(axis=0, dtype=np.uint8)


def _case(size: int, parameters: Parameters, split: str, index: int) -> Case:
    # Streams of their own, so that neither size nor noise changes the patient.
    anatomy, imaging, drawing = (
        np.random.default_rng([parameters.seed, SPLITS.index(split), index, stream]) for stream in range(3)
    )
    pixel = parameters.field_of_view / size
    spacing = (parameters.slice_spacing, pixel, pixel)
    places = _places(size, parameters)
    posterior = _posterior(places, pixel, parameters, anatomy)
    image = _image(posterior, places, parameters, imaging)
    label = draw_labels(posterior, drawing, spacing=spacing, correlation=parameters.correlation)
    return Case(f"{split}{index:03d}", split, image, label, spacing, posterior.astype(np.float32))


def _places(size: int, parameters: Parameters) -> tuple[NDArray, NDArray, NDArray]:
    """z, y and x of the middles of slices, rows and columns, in mm of the template."""
    steps = np.arange(parameters.slices) - (parameters.slices - 1) / 2
    pixels = parameters.field_of_view * ((np.arange(size) + 0.5) / size - 0.5)
    return parameters.centre + parameters.slice_spacing * steps, HEAD[0] - pixels, HEAD[1] + pixels


def _posterior(
    places: tuple[NDArray, NDArray, NDArray], pixel: float, parameters: Parameters, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Class probabilities (4, D, H, W) of one patient."""
    tissues = _sample(template.at_resolution(parameters.slice_thickness, pixel), _moved(places, parameters, rng))
    probabilities = np.concatenate([(1 - tissues.sum(axis=0, keepdims=True)).clip(0), tissues])
    probabilities[1] *= rng.uniform(*parameters.fluid)
    sharpened = probabilities ** (1 / rng.uniform(*parameters.ambiguity))
    return sharpened / sharpened.sum(axis=0)


def _moved(
    places: tuple[NDArray, NDArray, NDArray], parameters: Parameters, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Where in the template each voxel lies: z, y, x in mm, (3, D, H, W)."""
    scale, shift = rng.uniform(*parameters.scale, 3), rng.uniform(*parameters.shift, 3)
    turn = Rotation.from_euler("zyx", rng.uniform(*parameters.turn, 3), degrees=True).as_matrix()
    head = np.array([0, *HEAD]).reshape(3, 1, 1, 1)
    grid = np.stack(np.meshgrid(*places, indexing="ij")) - head - shift.reshape(3, 1, 1, 1)
    moved = head + np.tensordot(turn / scale, grid, axes=1)
    for length, deviation in parameters.waves:
        for axis in moved:
            axis += deviation * smooth_field_at(rng, places, length, reach=REACH)
    return moved


def _sample(head: template.Template, at: NDArray) -> NDArray[np.float64]:
    """The probabilities of the tissues (3, D, H, W) at places in mm, linear between voxels and 0 outside."""
    sizes = np.array(head.tissues.shape[1:]).reshape(3, 1, 1, 1)
    index = at - np.reshape(head.origin, (3, 1, 1, 1))
    # torch counts from -1 at the first voxel's centre to 1 at the last one's, and in the order x, y, z.
    grid = torch.from_numpy((2 * index / (sizes - 1) - 1)[::-1].astype(np.float32)).movedim(0, -1)
    return F.grid_sample(torch.from_numpy(head.tissues)[None], grid[None], align_corners=True)[0].double().numpy()


def _image(
    posterior: NDArray, places: tuple[NDArray, NDArray, NDArray], parameters: Parameters, rng: np.random.Generator
) -> NDArray[np.float32]:
    """One channel for each contrast, (M, D, H, W)."""
    signals = []
    for ranges in parameters.intensities.values():
        signal = np.tensordot([rng.uniform(*ends) for ends in ranges], posterior, axes=1)
        signal *= 1 + parameters.bias * smooth_field_at(rng, places, parameters.bias_length, reach=REACH)
        signals.append(signal)
    # The noise last: the size decides how many numbers it draws, and must not decide the next channel's contrast.
    noisy = []
    for signal in signals:
        real, imaginary = parameters.noise * rng.standard_normal((2, *signal.shape))
        noisy.append(np.hypot(signal + real, imaginary).clip(0, 1).astype(np.float32))
    return np.stack(noisy)
