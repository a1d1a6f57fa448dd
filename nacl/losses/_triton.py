"""Loss and gradient of every pixel in one pass over the logits, by a Triton kernel: CE, LS, SVLS and NACL alike."""

import functools
import importlib.util
import math
import os
import warnings
from collections.abc import Sequence
from contextlib import nullcontext

import torch
from torch import Tensor

from nacl._checks import check_choice, expectation
from nacl._penalties import PENALTIES
from nacl.priors import BORDERS

_INSTALLED = importlib.util.find_spec("triton") is not None  # found, not imported: that takes half a second
_INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"  # Triton runs kernels in NumPy, on the CPU: for the tests
_DTYPES = (torch.float16, torch.bfloat16, torch.float32)
# One pixel a thread, whose loads hide one another's latency: at 3x3 and up to 5 classes a thread takes 48 registers or
# fewer (ptxas, sm_90), so that 40 warps of 64 fit on a processor. Fixed: a search would wait for the device.
_BLOCK, _WARPS = 128, 4
_MOST_PIXELS = 2**31 - 2 * _BLOCK  # the kernel counts the pixels of a sample in 32 bits
_MOST_SAMPLES = 2**16 - 1  # CUDA's limit on the second axis of a grid
_MOST_IN_ONE_TILE = 32  # classes; at 33, the registers of a thread (255) would overflow into memory


def available(logits: Tensor) -> bool:
    """Whether `fused_pixel_loss` takes these logits: float16, bfloat16 or float32 (N, C, ...), 2D or 3D, on CUDA.

    (Under TRITON_INTERPRET=1 on any device.) Not float64, which is a plain path's; not inside `torch.func.vmap`; and
    not where Triton cannot be imported or finds no C compiler.
    """
    fits = (
        _INSTALLED
        and (logits.is_cuda or _INTERPRETED)
        and logits.dtype in _DTYPES
        and logits.ndim in (4, 5)
        and logits.shape[0] <= _MOST_SAMPLES
        and math.prod(logits.shape[2:]) <= _MOST_PIXELS
    )
    if not fits or torch.compiler.is_compiling():  # what compiles for CUDA has found Triton to work
        return fits
    return not torch._C._functorch.is_functorch_wrapped_tensor(logits) and _kernel() is not None


def fused_pixel_loss(
    logits: Tensor,
    target: Tensor,
    *,
    gradient: bool,
    label_share: float = 1.0,
    prior_share: float = 0.0,
    uniform_share: float = 0.0,
    penalty: str | None = None,
    penalty_weight: float = 0.0,
    delta: float = 1.0,
    window: Sequence[int] | None = None,
    weights: Tensor | None = None,
    mix_label: bool = False,
    border: str = "inside",
    ignore_index: int = -100,
) -> tuple[Tensor, Tensor | None]:
    """Loss of each pixel, and its gradient in the logits of that pixel.

    loss_i = -sum_k q_ik log s_ik + penalty_weight / C * sum_k P(l_ik - tau_ik),  s = softmax(l)
    q = label_share * y + prior_share * tau + uniform_share / C
    gradient_i = s * sum(q) - q + penalty_weight / C * P'(l - tau)

    with tau the class shares of the window, see `nacl.priors.neighbour_prior`. So cross-entropy is the default; label
    smoothing has shares 1 - alpha and uniform alpha; SVLS shares 1/2 and prior 1/2; NACL a penalty.

    Computed in float32. Labels are not scanned, as that would wait for the device: a label that is neither a class nor
    `ignore_index` gives NaN, loss and gradient, at exactly its pixels, and is nobody's neighbour.

    Args:
        logits: (N, C, ...) with `available(logits)`; contiguous or channels_last without a copy.
        target: labels (N, ...), any integer dtype, on the device of `logits`.
        gradient: whether to compute it.
        label_share: weight of the one-hot label y in the target distribution.
        prior_share: weight of tau in it.
        uniform_share: weight of the uniform distribution in it.
        penalty: P: "l1" abs(d), "l2" d^2, "huber" d^2 / 2 up to `delta` and delta * (abs(d) - delta / 2) beyond.
        penalty_weight: lambda, as averaged over the classes.
        delta: where Huber's parabola ends, positive.
        window: width of the window on each axis in pixels, odd; needed for a prior share or a penalty.
        weights: float32 weights of the window, on the device of `logits`: its places in order, the last axis fastest.
            None is 1 each. Where no pixel with a weight counts, tau is the pixel's own label.
        mix_label: penalise l - (y + tau) / 2 instead.
        border: what counts beyond the image: "inside", "replicate", "background" or "zero".
        ignore_index: label of pixels with loss and gradient 0, whatever their logits, which are nobody's neighbours.

    Returns:
        The loss (N, ...) in float32, and the gradient like `logits`, or None.

    Raises:
        ValueError: unknown `penalty` or `border`; a `window` that is missing or even, or fits neither the image nor
            the weights; a `target` of another shape.
    """
    if tuple(target.shape) != (wanted := (logits.shape[0], *logits.shape[2:])):
        raise ValueError(expectation("target", f"of shape {wanted}", tuple(target.shape)))
    if penalty is not None:
        check_choice("penalty", penalty, PENALTIES)
    check_choice("border", border, BORDERS)
    if penalty is None and not prior_share:
        window = weights = None
    elif window is None or len(window) != logits.ndim - 2 or any(size < 1 or size % 2 == 0 for size in window):
        raise ValueError(
            expectation("window", f"of {logits.ndim - 2} odd sizes", window, "a prior or a penalty is set")
        )
    elif weights is not None and weights.numel() != math.prod(window):
        raise ValueError(expectation("weights", f"of {math.prod(window)} values", weights.numel(), f"window={window}"))
    run = _operator if torch.compiler.is_compiling() else _launch  # an operator costs microseconds for each call
    pixel_loss, slope = run(
        logits,
        target,
        weights,
        list(window or ()),
        gradient,
        float(label_share),
        float(prior_share),
        float(uniform_share),
        penalty,
        float(penalty_weight),
        float(delta),
        mix_label,
        border,
        ignore_index,
    )
    return pixel_loss, slope if gradient else None


def _launch(
    logits: Tensor,
    target: Tensor,
    weights: Tensor | None,
    window: list[int],
    gradient: bool,
    label_share: float,
    prior_share: float,
    uniform_share: float,
    penalty: str | None,
    penalty_weight: float,
    delta: float,
    mix_label: bool,
    border: str,
    ignore_index: int,
) -> tuple[Tensor, Tensor]:
    """Start the kernel; a gradient that nobody wants is an empty tensor."""
    pixel_loss, slope = _outputs(logits, gradient)
    samples, classes, *sizes = logits.shape
    pixels = math.prod(sizes)
    if pixel_loss.numel() == 0:
        return pixel_loss, slope
    channels_last = _is_channels_last(logits)
    logits = logits if channels_last else logits.contiguous()
    sizes = [1] * (3 - len(sizes)) + sizes
    k0, k1, k2 = [1] * (3 - len(window)) + window if window else (0, 0, 0)
    taps = k0 * k1 * k2
    one_tile = classes <= _MOST_IN_ONE_TILE
    # A count needs bits for all taps; its field has to begin below bit 32 or 64, and one more above the classes, too.
    bits = taps.bit_length()
    if weights is not None or not one_tile or bits * classes > 63:
        bits = 0
    with torch.cuda.device(logits.device) if logits.is_cuda else nullcontext():
        _kernel()[(-(-pixels // _BLOCK), samples)](
            logits,
            target.contiguous(),
            None if weights is None else weights.float().contiguous(),
            pixel_loss,
            slope if gradient else None,
            label_share,
            prior_share,
            uniform_share / classes,
            penalty_weight / classes,
            delta,
            pixels,
            *sizes,
            C=classes,
            TILE=1 << (classes - 1).bit_length() if one_tile else 16,  # 16 and not 32: half the registers, more warps
            BLOCK=_BLOCK,
            K0=k0,
            K1=k1,
            K2=k2,
            # Straight line up to some 1000 instructions, with all labels read ahead; beyond it, row by row.
            UNROLL=taps if taps <= (64 if bits else 256 // classes) else k2,
            BITS=bits,
            BORDER=border,
            IGNORE=ignore_index,
            PENALTY=penalty,
            MIX_LABEL=mix_label,
            HAS_PRIOR=prior_share != 0,
            HAS_UNIFORM=uniform_share != 0,
            IS_3D=logits.ndim == 5,
            CHANNELS_LAST=channels_last,
            num_warps=_WARPS,
            enable_fp_fusion=True,  # said, because Triton 3.9 warns where it is not
        )
    return pixel_loss, slope


def _outputs(logits: Tensor, gradient: bool) -> tuple[Tensor, Tensor]:
    pixel_loss = logits.new_empty((logits.shape[0], *logits.shape[2:]), dtype=torch.float32)
    if not gradient:
        return pixel_loss, logits.new_empty(0)
    if not _is_channels_last(logits):
        return pixel_loss, torch.empty_like(logits, memory_format=torch.contiguous_format)
    return pixel_loss, torch.empty_like(logits)


def _is_channels_last(logits: Tensor) -> bool:
    last = torch.channels_last if logits.ndim == 4 else torch.channels_last_3d
    return logits.is_contiguous(memory_format=last) and not logits.is_contiguous()


# For torch.compile, which neither looks into the launch nor has to.
_operator = torch.library.custom_op("nacl::fused_pixel_loss", _launch, mutates_args=())
_operator.register_fake(lambda logits, target, weights, window, gradient, *rest: _outputs(logits, gradient))


@functools.cache
def _kernel() -> object | None:
    """The kernel, or None where Triton does not work. (The first that it does is to build its driver, in C.)"""
    try:
        import triton

        from nacl.losses._triton_kernel import pixel_loss_kernel

        if not _INTERPRETED:
            triton.runtime.driver.active.get_current_target()
            if torch.version.hip is None and torch.cuda.get_device_capability() < (7, 0):
                raise RuntimeError("the GPU is older than Volta")
    except Exception as error:
        message = f"The losses take their plain path: Triton does not work here ({type(error).__name__}: {error})."
        warnings.warn(message, RuntimeWarning, stacklevel=3)
        return None
    return pixel_loss_kernel
