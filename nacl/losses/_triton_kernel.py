"""The kernel that `nacl.losses._triton` starts: labels in, tau in registers, loss and gradient out.

One thread holds one pixel, with all its classes (or `TILE` of them at a time) in registers: sums over the classes then
need no exchange between threads, a warp reads logits and labels in whole cache lines, and tau never has an address.
DRAM sees the logits, the label, the loss and the gradient of a pixel once each. Labels that neighbours read again come
from L1 along a row and from L2 across rows, which is why they keep their dtype: int64 is 8 times the traffic of uint8.
"""

# ruff: noqa: N803 (upper case is Triton's sign of a constant of compilation)
from __future__ import annotations

try:
    import triton.language as tl
    from triton import jit
except ImportError:  # no wheel for this platform: `nacl.losses._triton.available` is False, and nothing here is called
    tl = None

    def jit(function=None, **options):
        return function or jit


# Sizes are not specialised: one compiled kernel serves all images. And were they known to be multiples of 16, the
# compiler would read 16 bytes a thread along the pixels, and to do so spread the classes of a pixel over the warps.
@jit(do_not_specialize=["pixels", "size0", "size1", "size2"])
def pixel_loss_kernel(
    logits,
    target,
    weights,
    loss,
    gradient,
    label_share,
    prior_share,
    uniform_share,
    penalty_weight,
    delta,
    pixels,
    size0,
    size1,
    size2,
    C: tl.constexpr,
    TILE: tl.constexpr,
    BLOCK: tl.constexpr,
    K0: tl.constexpr,
    K1: tl.constexpr,
    K2: tl.constexpr,
    UNROLL: tl.constexpr,
    BITS: tl.constexpr,
    BORDER: tl.constexpr,
    IGNORE: tl.constexpr,
    PENALTY: tl.constexpr,
    MIX_LABEL: tl.constexpr,
    HAS_PRIOR: tl.constexpr,
    HAS_UNIFORM: tl.constexpr,
    IS_3D: tl.constexpr,
    CHANNELS_LAST: tl.constexpr,
):
    """Loss and gradient of BLOCK pixels of one sample.

    The arguments are those of `fused_pixel_loss`, but `uniform_share` and `penalty_weight` are divided by C, an image
    is a volume with size0 = K0 = 1, and K0 = 0 stands for no window.
    """
    sample = tl.program_id(1).to(tl.int64)  # a batch may hold more than 2^31 logits
    pixel = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    live = pixel < pixels
    logits += sample * C * pixels
    target += sample * pixels + pixel

    label = tl.load(target, mask=live, other=0).to(tl.int64)
    top = tl.full([BLOCK], -float("inf"), tl.float32)
    z = tl.zeros([BLOCK], tl.float32)
    for first in range(0, C, TILE):
        k = first + tl.arange(0, TILE)
        at = _offsets(k, pixel, pixels, C, CHANNELS_LAST)
        # Read where the pixel is ignored, too: to wait for its label would add that latency to this one.
        logit = tl.load(logits + at, mask=(k < C)[:, None] & live[None, :], other=-float("inf")).to(tl.float32)
        # The bound, the lowest float32: -inf - -inf in one tile would be a NaN that stays.
        higher = tl.maximum(tl.maximum(top, tl.max(logit, axis=0)), -3.4028234663852886e38)
        z = z * tl.exp(top - higher) + tl.sum(tl.exp(logit - higher[None, :]), axis=0)
        top = higher
    log_z = tl.log(z)

    ignored = label == IGNORE
    usable = (label >= 0) & (label < C) & (label != IGNORE)  # in 64 bits: 2^32 + 1 is not class 1
    blank = tl.where(ignored, 0.0, float("nan"))  # loss and gradient where there is no class
    label = label.to(tl.int32)

    # Unsigned: division is cheaper, and -1 lies beyond every size.
    i1 = pixel.to(tl.uint32) // size2.to(tl.uint32)
    i2 = pixel.to(tl.uint32) - i1 * size2.to(tl.uint32)
    i0 = i1 // size1.to(tl.uint32) if IS_3D else i1 * 0
    i1 -= i0 * size1.to(tl.uint32)
    taps: tl.constexpr = K0 * K1 * K2
    beyond = tl.zeros([BLOCK], tl.float32)
    if BITS > 0:
        # All counts of a pixel in one integer, a field of BITS bits a class: a label costs a shift, not C comparisons.
        # What does not count goes to the field above the classes, which may overflow.
        packed = tl.zeros([BLOCK], tl.int32 if C * BITS < 32 else tl.int64)
        for first in range(0, taps, UNROLL):
            for step in tl.static_range(UNROLL):
                code = _neighbour(
                    first + step, target, live, i0, i1, i2, size0, size1, size2, C, K0, K1, K2, BORDER, IGNORE
                )
                if BORDER == "zero":
                    beyond += tl.where(code > C, 1.0, 0.0)
                    code = tl.minimum(code, C)
                packed += tl.full([BLOCK], 1, packed.dtype) << (code * BITS).to(packed.dtype)

    # Where all classes fit in one tile, the compiler takes logits, and their exponentials, from the registers.
    pixel_loss = tl.zeros([BLOCK], tl.float32)
    for first_class in range(0, C, TILE):
        k = first_class + tl.arange(0, TILE)
        is_class = (k < C)[:, None]
        is_label = k[:, None] == label[None, :]
        at = _offsets(k, pixel, pixels, C, CHANNELS_LAST)
        logit = tl.load(logits + at, mask=is_class & live[None, :], other=-float("inf")).to(tl.float32)
        q = tl.where(is_label, label_share, 0.0)
        q_sum = tl.zeros([BLOCK], tl.float32) + label_share
        if HAS_UNIFORM:
            q += uniform_share
            q_sum += uniform_share * C

        if taps > 0:
            if BITS > 0:
                shift = (k * BITS).to(packed.dtype)[:, None]
                seen = tl.where(is_class, (packed[None, :] >> shift) & ((1 << BITS) - 1), 0).to(tl.float32)
                total = tl.sum(seen, axis=0) + beyond
            else:
                seen = tl.zeros([TILE, BLOCK], tl.float32)
                total = tl.zeros([BLOCK], tl.float32)
                beyond = tl.zeros([BLOCK], tl.float32)
                for first in range(0, taps, UNROLL):
                    for step in tl.static_range(UNROLL):
                        code = _neighbour(
                            first + step, target, live, i0, i1, i2, size0, size1, size2, C, K0, K1, K2, BORDER, IGNORE
                        )
                        weight = 1.0 if weights is None else tl.load(weights + first + step)
                        # A choice of sums becomes an addition under a predicate; a sum of choices stays two steps.
                        seen = tl.where(k[:, None] == code[None, :], seen + weight, seen)
                        total = tl.where(code != C, total + weight, total)
                        if BORDER == "zero":
                            beyond = tl.where(code > C, beyond + weight, beyond)
            # A window in which nothing counts. (The smallest normal number: 1 / total stays finite.)
            lonely = total < 1.1754943508222875e-38
            scale = 1.0 / tl.where(lonely, 1.0, total)
            tau = tl.where(lonely[None, :], is_label.to(tl.float32), seen * scale[None, :])
            if HAS_PRIOR:
                q += prior_share * tau
                q_sum += prior_share * (1.0 - beyond * scale)

        shifted = logit - top[None, :]
        weighs = q > 0 if HAS_PRIOR or HAS_UNIFORM else is_label  # 0 * inf is no term
        terms = tl.where(is_class & weighs, q * (log_z[None, :] - shifted), 0.0)
        slope = tl.exp(shifted) * (q_sum / z)[None, :] - q
        if PENALTY is not None:
            if MIX_LABEL:
                tau = 0.5 * (tau + is_label.to(tl.float32))
            d = logit - tau
            size = tl.abs(d)
            if PENALTY == "l1":
                slope += tl.where(d > 0, penalty_weight, tl.where(d < 0, -penalty_weight, 0.0))
            elif PENALTY == "l2":
                slope += 2 * penalty_weight * d
                size *= size
            else:
                slope += penalty_weight * tl.minimum(tl.maximum(d, -delta), delta)
                near = tl.minimum(size, delta)
                size = near * (size - 0.5 * near)
            terms += tl.where(is_class, penalty_weight * size, 0.0)
        pixel_loss += tl.sum(terms, axis=0)
        if gradient is not None:
            slope = tl.where(usable[None, :], slope, blank[None, :]).to(gradient.dtype.element_ty)
            tl.store(gradient + sample * C * pixels + at, slope, mask=is_class & live[None, :])

    tl.store(loss + sample * pixels + pixel, tl.where(usable, pixel_loss, blank), mask=live)


@jit
def _offsets(k, pixel, pixels, C: tl.constexpr, CHANNELS_LAST: tl.constexpr):
    """Of the classes k of the pixels, from the first logit of their sample: (TILE, BLOCK), in 64 bits."""
    if CHANNELS_LAST:
        return k[:, None] + pixel.to(tl.int64)[None, :] * C
    return k.to(tl.int64)[:, None] * pixels + pixel[None, :]


@jit
def _neighbour(
    tap,
    target,
    live,
    i0,
    i1,
    i2,
    size0,
    size1,
    size2,
    C: tl.constexpr,
    K0: tl.constexpr,
    K1: tl.constexpr,
    K2: tl.constexpr,
    BORDER: tl.constexpr,
    IGNORE: tl.constexpr,
):
    """The class at one place of the window; C where nothing counts, C + 1 where what counts has no class."""
    d0 = tap // (K1 * K2) - K0 // 2
    d1 = tap // K2 % K1 - K1 // 2
    d2 = tap % K2 - K2 // 2
    j0, j1, j2 = i0.to(tl.int32) + d0, i1.to(tl.int32) + d1, i2.to(tl.int32) + d2
    inside = live
    if BORDER == "replicate":
        d0 += tl.minimum(tl.maximum(j0, 0), size0 - 1) - j0
        d1 += tl.minimum(tl.maximum(j1, 0), size1 - 1) - j1
        d2 += tl.minimum(tl.maximum(j2, 0), size2 - 1) - j2
    else:
        if K0 > 1:
            inside &= j0.to(tl.uint32) < size0.to(tl.uint32)
        if K1 > 1:
            inside &= j1.to(tl.uint32) < size1.to(tl.uint32)
        if K2 > 1:
            inside &= j2.to(tl.uint32) < size2.to(tl.uint32)
    # First the row, then the place in it: the labels of a row are then read from one address. (127: fits every dtype)
    other: tl.constexpr = 0 if BORDER == "background" else 127
    label = tl.load(target + (d0 * size1 + d1) * size2 + d2, mask=inside, other=other)
    # The upper half of the 64 bits once, and not in each of the C comparisons to come.
    code = tl.where((label.to(tl.int64) >> 32) == 0, label.to(tl.int32), C)
    code = tl.minimum(code.to(tl.uint32), C).to(tl.int32)
    if IGNORE >= 0 and IGNORE < C:
        code = tl.where(label == IGNORE, C, code)
    if BORDER == "zero":
        code = tl.where(inside, code, C + 1)
    elif BORDER == "background":
        code = tl.where(inside, code, 0) if IGNORE == 0 else code
    elif C > 127:
        code = tl.where(inside, code, C)
    return code
