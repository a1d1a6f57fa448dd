"""Slow, obvious loops that the fast code must agree with, and settings shared by the tests.

Arrays are numpy's, with any number of axes of space: labels (N, *space), logits and class shares (N, C, *space).
"""

import math
from collections import Counter
from itertools import chain, product

import numpy as np
import torch
from hypothesis import settings

torch.set_num_threads(1)  # on tensors of a few numbers, threads only wait for one another
IGNORE = -100
light = settings(max_examples=15, deadline=None, derandomize=True)


# Windows


def window_of(kernel_size, axes):
    return kernel_size if isinstance(kernel_size, tuple) else (kernel_size,) * axes


def offsets(window):
    """Every place of a window, as steps from its centre."""
    return list(product(*(range(-(size // 2), size // 2 + 1) for size in window)))


def mean_weights(kernel_size, axes=2):
    return np.ones(window_of(kernel_size, axes))


def gaussian_weights(kernel_size, sigma, axes=2):
    """Sum 1, the centre included."""
    window = window_of(kernel_size, axes)
    weights = [math.exp(-sum(step * step for step in offset) / (2 * sigma**2)) for offset in offsets(window)]
    return np.array(weights).reshape(window) / sum(weights)


def look(array, at, border, beyond):
    """What stands at a place of an image, of which some lie beyond it."""
    if all(0 <= i < length for i, length in zip(at, array.shape, strict=True)):
        return array[at]
    if border == "replicate":
        return array[tuple(min(max(i, 0), length - 1) for i, length in zip(at, array.shape, strict=True))]
    return beyond


def members(target, place, window, border="inside", ignore_index=IGNORE):
    """(offset, label) of all that counts in the window at a place (n, *space); the label is None for no class."""
    image, found = target[place[0]], []
    beyond = {"inside": ignore_index, "background": 0, "zero": None}.get(border)
    for offset in offsets(window):
        label = look(image, tuple(i + step for i, step in zip(place[1:], offset, strict=True)), border, beyond)
        if label is None or label != ignore_index:
            found.append((offset, label))
    return found


# Priors


def shares(target, num_classes, weights, border="inside", ignore_index=IGNORE):
    """Class shares (N, C, *space) of each window; NaN where no pixel of it counts."""
    result = np.full((target.shape[0], num_classes, *target.shape[1:]), np.nan)
    middle = [size // 2 for size in weights.shape]
    for place in np.ndindex(*target.shape):
        total, per_class = 0.0, np.zeros(num_classes)
        for offset, label in members(target, place, weights.shape, border, ignore_index):
            weight = weights[tuple(m + step for m, step in zip(middle, offset, strict=True))]
            total += weight
            if label is not None:
                per_class[label] += weight
        if total > 0:
            result[(place[0], slice(None), *place[1:])] = per_class / total
    return result


def one_hot(target, num_classes, ignore_index=IGNORE):
    result = np.zeros((target.shape[0], num_classes, *target.shape[1:]))
    for place in np.ndindex(*target.shape):
        if target[place] != ignore_index:
            result[(place[0], target[place], *place[1:])] = 1
    return result


def svls_tau(target, num_classes, kernel_size=3, sigma=1.0, border="inside", ignore_index=IGNORE):
    """Gaussian shares of the neighbours, or a pixel's own label where it has none."""
    weights = gaussian_weights(kernel_size, sigma, target.ndim - 1)
    weights[tuple(size // 2 for size in weights.shape)] = 0
    tau = shares(target, num_classes, weights, border, ignore_index)
    return np.where(np.isnan(tau), one_hot(target, num_classes, ignore_index), tau)


def elected(target, num_classes, choose, kernel_size=3, border="inside", ignore_index=IGNORE):
    """One-hot in the label that `choose` picks from the sorted labels of a window; 0 where there is none."""
    window = window_of(kernel_size, target.ndim - 1)
    result = np.zeros((target.shape[0], num_classes, *target.shape[1:]))
    for place in np.ndindex(*target.shape):
        labels = sorted(k for _, k in members(target, place, window, border, ignore_index) if k is not None)
        if labels:
            result[(place[0], choose(labels), *place[1:])] = 1
    return result


def most_frequent(labels):
    """The smallest of several."""
    count = Counter(labels)
    return min(k for k in count if count[k] == max(count.values()))


ELECTIONS = {"max": max, "min": min, "median": lambda labels: labels[(len(labels) - 1) // 2], "mode": most_frequent}
NEARNESS = {
    "image_proportions_l1": lambda x, z: math.exp(-np.mean(np.abs(x - z))),
    "image_proportions_l2": lambda x, z: math.exp(-np.mean((x - z) ** 2)),
    "gradient": lambda x, z: np.mean(np.abs(x - z)),
    "bilateral": lambda x, z: np.mean(np.abs(x - z)),
}


def image_shares(target, num_classes, name, image, kernel_size=3, sigma=1.0, border="inside", ignore_index=IGNORE):
    """Shares weighed by grey values; image (N, channels, *space), 0 beyond its edge unless that is replicated."""
    window = window_of(kernel_size, target.ndim - 1)
    result = np.zeros((target.shape[0], num_classes, *target.shape[1:]))
    gaussian = gaussian_weights(kernel_size, sigma, target.ndim - 1)
    for place in np.ndindex(*target.shape):
        channels = image[place[0]]
        here = channels[(slice(None), *place[1:])]
        total, per_class = 0.0, np.zeros(num_classes)
        for offset, label in members(target, place, window, border, ignore_index):
            at = tuple(i + step for i, step in zip(place[1:], offset, strict=True))
            weight = NEARNESS[name](here, np.array([look(channel, at, border, 0.0) for channel in channels]))
            if name == "bilateral":
                weight *= gaussian[tuple(size // 2 + step for size, step in zip(window, offset, strict=True))]
            total += weight
            if label is not None:
                per_class[label] += weight
        if not name.startswith("image_proportions"):
            total = math.prod(window)
        result[(place[0], slice(None), *place[1:])] = per_class / total if total > 0 else 0
    return result


def prior(target, num_classes, name="mean", kernel_size=3, sigma=1.0, border="inside", image=None, ignore_index=IGNORE):
    axes, where = target.ndim - 1, {"border": border, "ignore_index": ignore_index}
    if name == "mean":
        return shares(target, num_classes, mean_weights(kernel_size, axes), **where)
    if name == "gaussian":
        tau = svls_tau(target, num_classes, kernel_size, sigma, **where)
        return (one_hot(target, num_classes, ignore_index) + tau) / 2
    if name in ELECTIONS:
        return elected(target, num_classes, ELECTIONS[name], kernel_size, **where)
    return image_shares(target, num_classes, name, image, kernel_size, sigma, **where)


# Losses of a pixel: logits l (C,), its label y, its class shares tau (C,)


def log_softmax(logits):
    """Of one pixel's logits (C,)."""
    top = max(logits)
    return logits - (top + math.log(sum(math.exp(v - top) for v in logits)))


def cross_entropy(logits, label):
    return -log_softmax(logits)[label]


def label_smoothing(logits, label, smoothing=0.1):
    log_s, n = log_softmax(logits), len(logits)
    return -sum(((1 - smoothing) * (k == label) + smoothing / n) * log_s[k] for k in range(n))


def focal(logits, label, gamma=3.0, gamma_unsure=None, threshold=0.2):
    p = math.exp(log_softmax(logits)[label])
    power = gamma_unsure if gamma_unsure is not None and p < threshold else gamma
    return -((1 - p) ** power) * math.log(p)


def entropy_penalty(logits, label, penalty_weight=0.1):
    entropy = -sum(math.exp(v) * v for v in log_softmax(logits))
    return cross_entropy(logits, label) - penalty_weight / len(logits) * entropy


def distance_penalty(d, penalty="l1", delta=1.0):
    d = abs(d)
    if penalty == "huber":
        return d * d / 2 if d <= delta else delta * (d - delta / 2)
    return {"l1": d, "l2": d * d}[penalty]


def mbls(logits, label, margin=10.0, penalty="l1", penalty_weight=0.1, delta=1.0):
    excess = [max(0.0, max(logits) - v - margin) for v in logits]
    return cross_entropy(logits, label) + penalty_weight * np.mean(
        [distance_penalty(e, penalty, delta) for e in excess]
    )


def svls(logits, tau):
    return -sum(share * log_s for share, log_s in zip(tau, log_softmax(logits), strict=True))


def nacl(logits, label, tau, penalty="l1", penalty_weight=0.1, delta=1.0, softmax=False, mixed_only=False):
    if mixed_only and sum(t > 0 for t in tau) < 2:
        return cross_entropy(logits, label)
    constrained = [math.exp(v) for v in log_softmax(logits)] if softmax else logits
    distances = [distance_penalty(v - t, penalty, delta) for v, t in zip(constrained, tau, strict=True)]
    return cross_entropy(logits, label) + penalty_weight * np.mean(distances)


LAGRANGIANS = {
    "phr": lambda h, m, rho: m * h + rho * h**2 / 2,
    "p2": lambda h, m, rho: m * h + m * rho * h**2 + rho**2 * h**3 / 6,
    "p3": lambda h, m, rho: m * h + m * rho * h**2,
}


def crac_distances(logits, tau, margin=10.0):
    """The region of a pixel, 0 inside and 1 on a border, and how far each logit is from where it should be."""
    border = int(sum(t > 0 for t in tau) > 1)
    return border, [abs(v - (1 if border else margin) * t) for v, t in zip(logits, tau, strict=True)]


def crac(logits, label, tau, multipliers=1e-6, rho=1.0, margin=10.0, lagrangian="phr"):
    n = len(logits)
    m, strength = (np.broadcast_to(np.asarray(x, dtype=float), (2, n)) for x in (multipliers, rho))
    r, distances = crac_distances(logits, tau, margin)
    pays = [LAGRANGIANS[lagrangian](distances[k], m[r][k], strength[r][k]) for k in range(n)]
    return cross_entropy(logits, label) + np.mean(pays)


def pixel_losses(logits, target, loss="nacl", *, prior_name="mean", image=None, ignore_index=IGNORE, **options):
    """The loss of each pixel (N, *space), 0 where ignored; the window's options are among `options`."""
    prior_name = options.pop("prior", prior_name)
    window = {key: options.pop(key) for key in ("kernel_size", "sigma", "border") if key in options}
    tau = None
    if loss in ("svls", "nacl", "crac"):
        name = {"svls": "gaussian", "nacl": prior_name, "crac": "mean"}[loss]
        tau = prior(target, logits.shape[1], name, image=image, ignore_index=ignore_index, **window)
    formula = {
        "ce": cross_entropy,
        "label_smoothing": label_smoothing,
        "focal": focal,
        "ecp": entropy_penalty,
        "mbls": mbls,
        "svls": lambda logits, label, tau: svls(logits, tau),
        "nacl": nacl,
        "crac": crac,
    }[loss]
    result = np.zeros(target.shape)
    for place in np.ndindex(*target.shape):
        if target[place] != ignore_index:
            classes = (place[0], slice(None), *place[1:])
            around = () if tau is None else (tau[classes],)
            result[place] = formula(logits[classes], target[place], *around, **options)
    return result


# Losses of an image and a class


def class_lists(logits, target, ignore_index=IGNORE):
    """Of each image and class, the (probability, whether it is the label) of every valid pixel: lists [n][k]."""
    found = [[[] for _ in range(logits.shape[1])] for _ in target]
    for place in np.ndindex(*target.shape):
        if target[place] != ignore_index:
            for k, v in enumerate(log_softmax(logits[(place[0], slice(None), *place[1:])])):
                found[place[0]][k].append((math.exp(v), float(target[place] == k)))
    return found


def dice(pairs, smooth=1e-5):
    overlap, total = sum(p * y for p, y in pairs), sum(p + y for p, y in pairs)
    return 1 - (2 * overlap + smooth) / (total + smooth)


def l1_ace(pairs, n_bins=20):
    bins = [[(p, y) for p, y in pairs if bin_of(p, n_bins) == b] for b in range(n_bins)]
    gaps = [abs(np.mean([p for p, _ in m]) - np.mean([y for _, y in m])) for m in bins if m]
    return np.mean(gaps) if gaps else 0.0


def image_losses(logits, target, loss, *, include_background=None, batch=False, ignore_index=IGNORE, **options):
    """The loss of each image and class (N, C), or (1, C) with `batch`."""
    lists = class_lists(logits, target, ignore_index)
    if batch:
        lists = [[list(chain(*of_class)) for of_class in zip(*lists, strict=True)]]
    formula = {"dice": dice, "l1_ace": l1_ace}[loss]
    first = 0 if (loss == "l1_ace" if include_background is None else include_background) else 1
    return np.array([[formula(pairs, **options) for pairs in of_image[first:]] for of_image in lists])


# Metrics


def forecast(shape=(2, 9, 8), num_classes=4, *, seed=0, holes=0.2):
    """Probabilities (N, C, *space) in float64 with a corner of class 1, and labels of which some are ignored."""
    rng = np.random.default_rng(seed)
    logits = 2 * rng.standard_normal((shape[0], num_classes, *shape[1:]))
    logits[:, 0] += 2
    logits[(slice(None), 1, *(slice(length // 2) for length in shape[1:]))] += 6
    labels = np.where(rng.random(shape) < holes, IGNORE, rng.integers(0, num_classes, shape))
    return torch.as_tensor(logits).softmax(dim=1), torch.as_tensor(labels)


def two_classes(p, labels, dtype=torch.float64):
    """A column of pixels with P(class 1) = p."""
    p = torch.as_tensor(p, dtype=dtype).view(1, 1, -1, 1)
    return torch.cat([1 - p, p], dim=1), torch.as_tensor(labels).long().view(1, -1, 1)


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
