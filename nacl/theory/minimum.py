"""What NACL converges to: the prediction at the minimum of its objective, pixel by pixel."""

import math

import torch
from scipy.special import wrightomega
from torch import Tensor

from nacl._checks import expectation
from nacl.theory.gradient import check_penalty

TINY = torch.finfo(torch.float64).tiny


def nacl_minimum(
    q: Tensor, tau: Tensor, *, penalty: str = "l1", penalty_weight: float = 0.1, delta: float = 1.0
) -> Tensor:
    """The prediction p* = softmax(l*) at the minimum of NACL's objective for a pixel whose expected label is q.

    l* minimises F(l) = H(q, softmax(l)) + c sum_k P(l_k - tau_k),  c = penalty_weight / K, and

    p* = argmin KL(p || softmax(tau)) + R(p - q)  over the distributions p, where with r = p - q

    - "l1", P(d) = abs(d): R = 0 if abs(r_k) <= c for every k, else infinite;
    - "l2", P(d) = d^2: R = sum_k r_k^2 / (4 c);
    - "huber", P(d) = d^2 / 2 up to abs(d) = delta, then delta (abs(d) - delta / 2): R = sum_k r_k^2 / (2 c) if
      abs(r_k) <= c delta for every k, else infinite.

    **Proof.** F(l) = lse(l) - q.l + c sum_k P(l_k - tau_k). By Fenchel duality lse(l) = max_p p.l - sum_k p_k log p_k
    over distributions p, and c P(d) = max_u u d - R(u), where R, written above, is the conjugate of c P, and even. The
    l in F then stands in (p - q + u).l only, and the smallest value over l is finite if and only if u = q - p; what is
    left is the maximum over p of -KL(p || softmax(tau)) - R(q - p) + lse(tau) - q.tau. Minimum and maximum change
    places without a gap because F is convex and finite everywhere. F has a minimum because lse(l) - q.l >= 0 and the
    penalty grows without bound in every direction: q a distribution and c > 0 are all that this asks. p* is unique
    because KL is strictly convex in p, and it is positive in every class because softmax(l*) is.
    The two are tied by q - p* in c dP(l* - tau), dP the subdifferential of P.

    **Closed form.** log p_k + (p_k - q_k) / b + nu = tau_k, clipped to q_k -+ r: (r, b) is (c, infinite) for "l1",
    (infinite, 2 c) for "l2", (c delta, c) for "huber", and nu is the number at which p sums to 1. So for "l1"
    p_k = clip(a exp(tau_k), max(q_k - c, 0), q_k + c), where the lower end 0 is never reached since a > 0.

    **Certain label.** With q one-hot in y and "l1", p_y = max(1 - c, softmax(tau)_y). If softmax(tau)_y >= 1 - c the
    other classes have at most c together, so softmax(tau) lies in the box and is p*. Otherwise p_y = 1 - c: were it
    more, the others would have less than c together, no face of the box would be touched, and p* would be softmax(tau).
    The others share c in proportion to exp(tau_k), their logits at tau_k (for K = 2 up to a shift of both, see
    `nacl_minimum_logits`). A label's share of the window is at most 1, so that c <= (K - 1) / (K - 1 + e) makes the
    confidence 1 - c for every tau; for c >= 1 it is softmax(tau)_y.

    **Label noise.** With "l1", p* - q is +c where a exp(tau_k) >= q_k + c, -c where a exp(tau_k) <= q_k - c, and
    between otherwise. It sums to 0, so all K classes lie on faces of the box only if K is even and half of them lie on
    each side: if and only if the half A with the smallest ratios q_k exp(-tau_k) satisfies max_A (q_k + c) exp(-tau_k)
    <= min_rest (q_k - c) exp(-tau_k). For odd K, small c, and different ratios, the class with the middle ratio keeps
    p_k = q_k. So a small weight takes c from each class whose ratio is above the median, for those below it.

    Args:
        q: expected label, distributions (N, K, ...), floating; one-hot where the label is certain.
        tau: class shares of the window, of the same shape. (The theorem holds for every finite tau.)
        penalty: "l1", "l2" or "huber".
        penalty_weight: lambda in the authors' convention, not negative; 0 gives p* = q, the minimum of cross-entropy.
        delta: of the Huber penalty, positive.

    Returns:
        p* (N, K, ...), float64 on the CPU: exact up to rounding for "l1", to about 1e-13 for the others.

    Raises:
        TypeError: `q` or `tau` no floating tensor.
        ValueError: shapes that differ; `q` or `tau` not a distribution over dim 1 to 1e-6; unknown `penalty`;
            `penalty_weight` negative; `delta` not positive.

    Example:
        >>> certain = torch.tensor([[0.0, 1.0, 0.0, 0.0]])
        >>> nacl_minimum(certain, torch.tensor([[0.4, 0.6, 0.0, 0.0]]))
        tensor([[0.0107, 0.9750, 0.0072, 0.0072]], dtype=torch.float64)
    """
    return _solve(q, tau, penalty, penalty_weight, delta)[0].movedim(-1, 1)


def nacl_minimum_logits(
    q: Tensor, tau: Tensor, *, penalty: str = "l1", penalty_weight: float = 0.1, delta: float = 1.0
) -> Tensor:
    """Logits l* = log p* + nu at which NACL's objective is smallest; arguments and errors as in `nacl_minimum`.

    Every class that lies inside the box sits at l_k = tau_k + (q_k - p_k) / b, so with "l1" at tau_k. l* is unique with
    "l2", and where at least one class lies inside the box. Otherwise any two minimisers differ by one shift common to
    all classes, in a closed interval, of which this is an end: with "l1" and two classes for every certain label with
    softmax(tau)_y < 1 - c.

    Returns:
        l* (N, K, ...), float64 on the CPU; finite for every positive weight, since p* is positive. At weight 0 it
        is log q, which minimises cross-entropy if q is positive; where q_k = 0 the infimum is approached as the logit
        goes to -infinity, which is then the value given.

    Example:
        >>> certain = torch.tensor([[0.0, 1.0, 0.0, 0.0]])
        >>> nacl_minimum_logits(certain, torch.tensor([[0.4, 0.6, 0.0, 0.0]]))
        tensor([[0.4000, 4.9140, 0.0000, 0.0000]], dtype=torch.float64)
    """
    p, nu = _solve(q, tau, penalty, penalty_weight, delta)
    return (p.log() + nu).movedim(-1, 1)


def _solve(q: Tensor, tau: Tensor, penalty: str, penalty_weight: float, delta: float) -> tuple[Tensor, Tensor]:
    """p* with the classes last, and nu with a last axis of one."""
    check_penalty(penalty, penalty_weight, delta)
    q, tau = checked_shares(q, "q"), checked_shares(tau, "tau")
    if q.shape != tau.shape:
        raise ValueError(expectation("tau", f"of the shape of q, {tuple(q.shape)}", tuple(tau.shape)))
    q, tau = q.movedim(1, -1), tau.movedim(1, -1)
    q = q.clamp(min=0) / q.clamp(min=0).sum(dim=-1, keepdim=True)
    c = penalty_weight / q.shape[-1]
    radius, softness = {"l1": (c, math.inf), "l2": (math.inf, 2 * c), "huber": (c * delta, c)}[penalty]
    if min(radius, softness) < TINY:  # weight 0, or so near that its inverse overflows
        return q, torch.zeros_like(q[..., :1])
    return _project(q, tau, c) if penalty == "l1" else _bisect(q, tau, radius, softness)


def _project(q: Tensor, tau: Tensor, c: float) -> tuple[Tensor, Tensor]:
    """p = clip(a exp(tau), max(q - c, 0), q + c), which sums to 1 at one a, found on a polygonal line.

    g(a) = sum_k p_k - q_k is 0 there. It rises, and bends only at the a where a class leaves its lower end, after
    which exp(tau_k) is part of the slope, or reaches its upper one, after which it is not.
    """
    c = min(c, 1.0)  # a wider box binds no more
    weight = tau.exp()
    lower, upper = q - q.clamp(max=c), q + c
    bends, order = torch.cat([lower / weight, upper / weight], dim=-1).sort(dim=-1)
    slope = torch.cat([weight, -weight], dim=-1).gather(-1, order).cumsum(dim=-1)
    start = -q.clamp(max=c).sum(dim=-1, keepdim=True)
    g = torch.cat([start, start + (slope[..., :-1] * bends.diff(dim=-1)).cumsum(dim=-1)], dim=-1)
    piece = (g < 0).sum(dim=-1, keepdim=True).clamp(1, bends.shape[-1] - 1)  # the one that ends at this bend
    left, below, steep = (values.gather(-1, piece - 1) for values in (bends, g, slope))
    # on a level piece every class is on a face, and the clip picks one of its ends
    a = (left - below / steep.clamp(min=TINY)).clamp(left, bends.gather(-1, piece))
    return (a * weight).clamp(lower, upper), -a.log()


def _bisect(q: Tensor, tau: Tensor, radius: float, softness: float) -> tuple[Tensor, Tensor]:
    """p(nu) = the root of log p + (p - q) / softness + nu = tau, clipped to q -+ radius, at the nu where it sums to 1.

    The root is softness * omega(q / softness + tau - nu - log(softness)), where omega(z) + log(omega(z)) = z (Wright's
    omega function). Its sum falls in nu. At min tau no p_k is below q_k. At the upper end the largest q_k >= 1/K has
    lost at least `step`, and the others together have gained at most K exp(max tau - nu), which is less.
    """
    step = min(radius, softness, 1 / (2 * q.shape[-1]))
    low = tau.amin(dim=-1, keepdim=True)
    high = tau.amax(dim=-1, keepdim=True) + 1 + math.log(q.shape[-1] / step)
    fixed = q / softness + tau - math.log(softness)

    def p(nu: Tensor) -> Tensor:
        root = softness * torch.as_tensor(wrightomega((fixed - nu).numpy()))
        return root.clamp((q - radius).clamp(min=0), q + radius)

    for _ in range(64):  # from a width of at most 750 to below the rounding of nu
        middle = (low + high) / 2
        above = p(middle).sum(dim=-1, keepdim=True) > 1
        low, high = torch.where(above, middle, low), torch.where(above, high, middle)
    return p(high), high


def checked_shares(shares: Tensor, argument: str) -> Tensor:
    """`shares` in float64 on the CPU, once found to be distributions over dim 1."""
    if not isinstance(shares, Tensor) or not shares.is_floating_point():
        got = shares.dtype if isinstance(shares, Tensor) else type(shares).__name__
        raise TypeError(expectation(argument, "to be a floating torch.Tensor", got))
    if shares.ndim < 2 or shares.shape[1] < 2:
        raise ValueError(expectation(argument, "of shape (N, K, ...) with K of at least 2", tuple(shares.shape)))
    shares = shares.detach().cpu().double()
    total = shares.sum(dim=1)
    wrong = ~((total - 1).abs() <= 1e-6) | ~(shares >= -1e-6).all(dim=1)  # written so that NaN is wrong
    if wrong.any():
        got = [round(value, 6) for value in shares.movedim(1, -1)[wrong][0].tolist()]
        remedy = "Pass class shares or softmax(logits), the classes in dim 1"
        raise ValueError(expectation(argument, "not negative and of sum 1 over dim 1", got, remedy=remedy))
    return shares
