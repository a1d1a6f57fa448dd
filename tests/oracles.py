"""Slow, obvious loops that the fast code must agree with, and settings shared by the tests."""

import math
from itertools import product

import numpy as np
import torch
from hypothesis import settings

torch.set_num_threads(1)  # on tensors of a few numbers, threads only wait for one another
IGNORE = -100
light = settings(max_examples=15, deadline=None, derandomize=True)


def mean_weights(kernel_size):
    return np.ones((kernel_size, kernel_size))


def gaussian_weights(kernel_size, sigma):
    """Sum 1, the centre included."""
    r = kernel_size // 2
    weights = np.array(
        [[math.exp(-(i * i + j * j) / (2 * sigma**2)) for j in range(-r, r + 1)] for i in range(-r, r + 1)]
    )
    return weights / weights.sum()


def shares(target, num_classes, weights, border="inside", ignore_index=IGNORE):
    """Class shares (N, C, H, W) of each window; NaN where no pixel of it counts."""
    n, h, w = target.shape
    r = len(weights) // 2
    result = np.full((n, num_classes, h, w), np.nan)
    for b, y, x in np.ndindex(n, h, w):
        total, per_class = 0.0, np.zeros(num_classes)
        for dy, dx in product(range(-r, r + 1), repeat=2):
            i, j, weight = y + dy, x + dx, weights[dy + r, dx + r]
            inside = 0 <= i < h and 0 <= j < w
            if inside:
                label = target[b, i, j]
            elif border == "replicate":
                label = target[b, min(max(i, 0), h - 1), min(max(j, 0), w - 1)]
            else:
                label = {"inside": ignore_index, "background": 0, "zero": None}[border]
            if label == ignore_index:
                continue
            total += weight
            if label is not None:
                per_class[label] += weight
        if total > 0:
            result[b, :, y, x] = per_class / total
    return result


def one_hot(target, num_classes):
    result = np.zeros((target.shape[0], num_classes, *target.shape[1:]))
    for b, y, x in np.ndindex(*target.shape):
        if target[b, y, x] != IGNORE:
            result[b, target[b, y, x], y, x] = 1
    return result


def svls_tau(target, num_classes, kernel_size=3, sigma=1.0, border="inside"):
    """Gaussian shares of the neighbours, or a pixel's own label where it has none."""
    weights = gaussian_weights(kernel_size, sigma)
    weights[kernel_size // 2, kernel_size // 2] = 0
    tau = shares(target, num_classes, weights, border)
    return np.where(np.isnan(tau), one_hot(target, num_classes), tau)


def prior(target, num_classes, name="mean", kernel_size=3, sigma=1.0, border="inside"):
    if name == "mean":
        return shares(target, num_classes, mean_weights(kernel_size), border)
    return (one_hot(target, num_classes) + svls_tau(target, num_classes, kernel_size, sigma, border)) / 2


def log_softmax(logits):
    """Of one pixel's logits (C,)."""
    top = max(logits)
    return logits - (top + math.log(sum(math.exp(v - top) for v in logits)))


def pixel_losses(
    logits, target, loss="nacl", *, prior_name="mean", penalty="l1", penalty_weight=0.1, softmax=False, **window
):
    """The loss of each pixel (N, H, W), 0 where ignored; logits (N, C, H, W)."""
    num_classes = logits.shape[1]
    tau = prior(target, num_classes, "gaussian" if loss == "svls" else prior_name, **window)
    result = np.zeros(target.shape)
    for b, y, x in np.ndindex(*target.shape):
        if target[b, y, x] == IGNORE:
            continue
        log_s = log_softmax(logits[b, :, y, x])
        cross_entropy = -log_s[target[b, y, x]]
        if loss == "svls":
            result[b, y, x] = -sum(tau[b, k, y, x] * log_s[k] for k in range(num_classes))
            continue
        result[b, y, x] = cross_entropy
        if loss == "nacl":
            for k in range(num_classes):
                constrained = math.exp(log_s[k]) if softmax else logits[b, k, y, x]
                d = abs(tau[b, k, y, x] - constrained)
                result[b, y, x] += penalty_weight / num_classes * (d if penalty == "l1" else d * d)
    return result


def bin_of(p, n_bins):
    """The bin (b / n, (b + 1) / n] that holds p, with 0 in the first; None outside [0, 1]."""
    for b in range(n_bins):
        if b / n_bins < p <= (b + 1) / n_bins or (b == 0 and p == 0):
            return b
    return None


def calibration_error(confidence, correct, n_bins=15, *, drop_zeros=False):
    """sum_b n_b / n |accuracy_b - mean confidence_b| of two flat lists."""
    members = [[] for _ in range(n_bins)]
    for p, c in zip(confidence, correct, strict=True):
        if not (drop_zeros and p == 0):
            members[bin_of(p, n_bins)].append((p, c))
    n = len(confidence)
    return sum(len(m) / n * abs(np.mean([c for _, c in m]) - np.mean([p for p, _ in m])) for m in members if m)


def region(probs, target, name):
    """The pixels of a region, bool (N, H, W); probs (N, C, H, W)."""
    n, h, w = target.shape
    predicted = probs.argmax(axis=1)
    result = np.zeros(target.shape, dtype=bool)
    for b, y, x in np.ndindex(n, h, w):
        near = predicted[b, max(y - 2, 0) : y + 3, max(x - 2, 0) : x + 3]
        result[b, y, x] = (
            target[b, y, x] != IGNORE
            and {
                "all": True,
                "predicted_foreground": predicted[b, y, x] != 0,
                "predicted_border": (near != predicted[b, y, x]).any(),
                "true_foreground": target[b, y, x] != 0,
            }[name]
        )
    return result


def surface(mask):
    """Coordinates of the voxels of a mask with a face neighbour outside it; the volume ends outside it."""
    found = []
    for p in np.ndindex(*mask.shape):
        if not mask[p]:
            continue
        for axis, step in product(range(mask.ndim), (-1, 1)):
            q = list(p)
            q[axis] += step
            if not 0 <= q[axis] < mask.shape[axis] or not mask[tuple(q)]:
                found.append(p)
                break
    return found


def hausdorff_95(a, b, spacing):
    """95th percentile of the distances between two surfaces, both directions pooled."""
    size = np.array(spacing)
    surfaces = [np.array(surface(mask)) * size for mask in (a, b)]
    distances = []
    for one, other in (surfaces, surfaces[::-1]):
        distances += [min(math.dist(p, q) for q in other) for p in one]
    return np.percentile(distances, 95)
