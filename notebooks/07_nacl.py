# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # What does NACL ask for, and what does it get?
#
# **You need** {doc}`06_svls`, softmax, and the derivative of a function. **Run time**: under half a minute.
#
# **Claim.** NACL {cite}`murugesan2025` asks every logit to equal the share of its class among the neighbours. What it
# gets, with its usual penalty, is one ceiling on confidence, $1 - \lambda / K$, the same for every pixel whatever its
# neighbours are. The neighbours only decide how the small rest is shared. The ceiling helps a network that has
# memorised its labels, and is a price for one that knows the truth. This chapter proves it, and measures both sides.

# %% tags=["parameters"]
penalty_weight = 0.1  # lambda, in the convention of the authors' code
size = 96
seed = 0

# %% tags=["hide-input"]
import math
from itertools import product

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from IPython.display import Markdown
from nacl import explorer, nacl_loss, neighbour_prior, plots
from nacl.data import load_dataset
from nacl.parameters import check_parameters
from nacl.priors import one_hot
from nacl.theory import (
    confidence_ceiling,
    nacl_gradient,
    nacl_minimum,
    nacl_minimum_logits,
    svls_minimum,
    svls_weights,
)

check_parameters(globals())

# %% [markdown]
# **Predict.** Four classes, $\lambda = 0.1$. One pixel lies deep inside an object: all its neighbours have its label.
# Another sits on a thin tip: two thirds of its neighbours belong to other classes. How confident may NACL's network
# become at each of the two? Write two numbers down.
#
# ## From the constraint to the loss
#
# Pixel $i$ has the logits $l_i \in \mathbb R^K$, the prediction $s_i = \operatorname{softmax}(l_i)$ and the one-hot
# label $y_i$. Let $\bar\tau_i$ be its **class shares**: how much of each class there is among *all* labels of the
# window $W(i)$, the pixel's own included, each of the same weight. (In {doc}`06_svls`, $\tau_i$ left the centre out.
# What follows holds for any shares.) NACL wants to fit the label, and it states in the open what SVLS only implied:
#
# ```{math}
# :label: nacl-constraint
# \min_{l} \; \sum_i \operatorname{CE}(y_i, s_i) \quad \text{subject to} \quad l_i = \bar\tau_i \ \text{for every pixel } i .
# ```
#
# There are two differences from {eq}`svls-constrained`: the window counts its centre, and the constraint is on the
# *logits*. Taken literally it would again leave no choice, and a bad one at that: shares lie between 0 and 1, and so
# would the logits. Inside an object $l = \bar\tau = y$ gives
#
# ```{math}
# :label: nacl-literal
# \operatorname{softmax}(y)_y = \frac{e}{e + K - 1} ,
# ```
#
# which is below one half for four classes, at the easiest pixel there is. **A logit equal to a share is not a
# probability equal to that share.** So nobody wants this constraint met. It is where a leash is tied, and the length of
# the leash is what matters. As in {doc}`06_svls` the constraint becomes a penalty with a price; leaving out the index
# $i$,
#
# ```{math}
# :label: nacl-loss
# L_\text{NACL} = \operatorname{CE}(y, s) + \frac{\lambda}{K} \sum_k P(l_k - \bar\tau_k) .
# ```
#
# For the penalty $P$ of a distance $d = l_k - \bar\tau_k$ there are three choices, of which L1 is the default. With
# their slopes, which we shall need:
#
# ```{math}
# :label: nacl-penalties
# \begin{aligned}
# \text{L1:} &\quad P(d) = |d| , & P'(d) &= \operatorname{sign} d , \\
# \text{L2:} &\quad P(d) = d^2 , & P'(d) &= 2 d , \\
# \text{Huber:} &\quad P(d) = \tfrac12 d^2 \ \text{up to}\ |d| = \delta, \ \text{then linear,}
#   & P'(d) &= d \ \text{clipped to}\ \pm\delta .
# \end{aligned}
# ```
#
# (Huber is ours; it lies between the two.) **Mind the convention of $\lambda$.** The authors' code averages the penalty
# over the $K$ classes, as this book does; the paper sums over them. So
#
# ```{math}
# :label: nacl-convention
# \lambda_\text{paper} = \frac{\lambda}{K} =: c .
# ```
#
# The number $c$ will do all the work below. Here is one pixel by hand: the middle of a 3 x 3 window in which 3 labels
# are its own class 0, 3 are class 1 and 3 class 2.

# %%
classes, c = 4, penalty_weight / 4
window = torch.tensor([[[1, 1, 1], [0, 0, 0], [2, 2, 2]]])
torch.manual_seed(seed)
logits = 3 * torch.randn(1, classes, 3, 3, dtype=torch.float64)
tau = neighbour_prior(window, classes, dtype=torch.float64)[0, :, 1, 1]
middle = logits[0, :, 1, 1]
by_hand = middle.logsumexp(0) - middle[0] + c * (middle - tau).abs().sum()
options = {"penalty_weight": penalty_weight}
losses = nacl_loss(logits, window, **options, reduction="none")
by_code = losses[0, 1, 1]
pd.DataFrame(
    [[*tau.tolist(), by_hand.item(), by_code.item()]],
    ["the pixel in the middle"],
    [*(f"share {k}" for k in range(classes)), "loss by hand", "by code"],
).style.format("{:.4f}")

# %% [markdown]
# ## The pull on a logit, and why logits
#
# The derivative of the cross-entropy is $s - y$, as in {eq}`svls-gradient`. With that of the penalty from
# {eq}`nacl-penalties`:
#
# ```{math}
# :label: nacl-gradient
# \frac{\partial L_\text{NACL}}{\partial l_k} = \underbrace{s_k - y_k}_{\text{fit the label}}
#   + \underbrace{c \, P'(l_k - \bar\tau_k)}_{\text{back to the share}} .
# ```
#
# The code also offers `softmax=True`: the penalty acts on $s$ instead of $l$. Then its slope has to pass through the
# softmax, for which $\partial s_j / \partial l_k$ is $s_k (1 - s_k)$ for $j = k$ and $-s_j s_k$ otherwise. With
# $u_j = c \, P'(s_j - \bar\tau_j)$ the pull becomes
#
# ```{math}
# :label: nacl-on-softmax
# \frac{\partial}{\partial l_k} \; c \sum_j P(s_j - \bar\tau_j) = s_k \Big( u_k - \sum_j s_j u_j \Big)
#   = s_k \sum_{j \ne k} s_j (u_k - u_j) .
# ```
#
# `nacl.theory.nacl_gradient` returns the parts in closed form. Against autograd, for every penalty:

# %%
rows = {}
for penalty, softmax in product(("l1", "l2", "huber"), (False, True)):
    how = {"penalty": penalty, "softmax": softmax}
    live = logits.clone().requires_grad_()
    loss = nacl_loss(live, window, **how, reduction="sum")
    (slope,) = torch.autograd.grad(loss, live)
    parts = nacl_gradient(logits, window, **how)
    rows[penalty, softmax] = (slope - parts.total).abs().max().item()
gradient_gap = pd.Series(rows).rename_axis(["penalty", "softmax"])
gradient_gap.unstack().style.format("{:.0e}")

# %% [markdown]
# Why on the logits? Raise the logit of the label, $l_y$, and hold the others at their shares. Cross-entropy pulls it up
# with the force $1 - s_y$, which dies out as the pixel grows sure. What holds it back?

# %%
height = torch.linspace(1.5, 9, 61, dtype=torch.float64)
raised = tau.view(1, 4, 1, 1).repeat(61, 1, 3, 3)
raised[:, 0] = height.view(-1, 1, 1)
forces = {"on the logits": {}, "on the softmax": {}}
for softmax, group in enumerate(forces.values()):
    for name in ("L1", "L2", "Huber"):
        how = {"penalty": name.lower(), "softmax": bool(softmax), **options}
        parts = nacl_gradient(raised, window.expand(61, 3, 3), **how)
        group[f"{name} pulls down"] = height, parts.constraint[:, 0, 1, 1]

# %%
up = -parts.label[:, 0, 1, 1]
for group in forces.values():
    group["label pulls up"] = height, up
plots.curves(forces, "logit of the label", "force", log_y=True)

# %% [markdown]
# On the logits the forces cross: left of the crossing the pixel is pushed up, right of it back. With L1 the crossing is
# at $1 - s_y = c$, whatever the share. On the softmax the penalty dies out as fast as the cross-entropy does, and stays
# below it. {eq}`nacl-on-softmax` says so for every pixel: L1 has $|u_k| \le c$, so its pull on $l_y$ is at most
# $2 c\, s_y (1 - s_y)$, which is less than $1 - s_y$ as long as $c \le \tfrac12$. The label's logit is then driven up
# without end. (L2 has $|u_k| \le 2 c$, so for it this holds up to $c = \tfrac14$.) With such weights a penalty on the
# probabilities cannot hold a confident pixel; one on the logits can, however small $c$ is. (On the left L1 and Huber are
# one line with the marks of both: all distances exceed Huber's $\delta = 1$ but the first few.)
#
# ## Where the forces balance
#
# Now exactly. From here on a label may be uncertain: let $q$ be the **expected label** of a pixel, $q_k$ the share of
# class $k$ among the labels that the network sees for inputs it cannot tell apart. A network that has memorised its one
# label has $q = y$; one that sees the same border drawn by many annotators has their shares. Cross-entropy is linear in
# the label, so the mean loss has $q$ in the place of $y$. Write $\tau$ for the class shares, whatever the window, and
# $q \cdot l = \sum_k q_k l_k$. With
#
# ```{math}
# :label: lse
# \operatorname{lse}(l) = \log \sum_k e^{l_k} , \qquad \log s_k = l_k - \operatorname{lse}(l) ,
# ```
#
# ("log-sum-exp"), the cross-entropy is $-\sum_k q_k (l_k - \operatorname{lse}(l)) = \operatorname{lse}(l) - q \cdot l$,
# and the loss of the pixel
#
# ```{math}
# :label: nacl-objective
# F(l) = \operatorname{lse}(l) - q \cdot l + c \sum_k P(l_k - \tau_k) .
# ```
#
# We look for the prediction at its minimum. Two small lemmas bound the two curved parts of $F$ from below by something
# *linear* in $l$.
#
# ```{prf:lemma} A floor under lse
# :label: lemma-lse
#
# For all class shares $p$ and all logits $l$,
#
# $$
# \operatorname{lse}(l) \ge p \cdot l - \sum_k p_k \log p_k , \qquad \text{with equality exactly at}\ p = \operatorname{softmax}(l) .
# $$
# ```
#
# ```{prf:proof}
# By {eq}`lse`, $\sum_k p_k \log s_k = p \cdot l - \operatorname{lse}(l)$, since the shares sum to 1. So left side less
# right side is $\sum_k p_k \log p_k - \sum_k p_k \log s_k$, that is $\operatorname{KL}(p \,\|\, s)$, which is never
# negative, and 0 only for $p = s$ (Gibbs, in {doc}`06_svls`).
# ```
#
# ```{prf:lemma} A floor under the penalty
# :label: lemma-penalty
#
# For every number $d$:
#
# $$
# c\,|d| \ge u\, d \quad \text{if}\ |u| \le c , \qquad\qquad c\, d^2 \ge u\, d - \frac{u^2}{4 c} \quad \text{for every}\ u .
# $$
#
# The first is an equality if $d = 0$, and else only at $u = c \operatorname{sign} d$; the second only at $u = 2 c d$.
# ```
#
# ```{prf:proof}
# $u\,d \le |u|\,|d| \le c\,|d|$; and $c\, d^2 - u\, d + \frac{u^2}{4c} = c \left( d - \frac{u}{2c} \right)^2 \ge 0$.
# ```
#
# (In convex analysis: they are the *conjugates* of lse and of the penalty. The name is not needed here.) Now the
# theorem.
#
# ````{prf:theorem} What NACL converges to
# :label: theorem-minimum
#
# Let $c = \lambda / K > 0$. $F$ has a minimum, and at every minimum the prediction is the same. With L1 it is
#
# ```{math}
# :label: nacl-box
# \begin{gathered}
# p^* = \arg\min_p \; \operatorname{KL}\big( p \,\|\, \operatorname{softmax}(\tau) \big) \quad \text{over the class shares } p \\
# \text{in the box}\quad | p_k - q_k | \le \frac{\lambda}{K} \ \text{for every } k ,
# \end{gathered}
# ```
#
# and with L2
#
# ```{math}
# :label: nacl-spring
# p^* = \arg\min_p \; \operatorname{KL}\big( p \,\|\, \operatorname{softmax}(\tau) \big) + \frac{K}{4 \lambda} \sum_k (p_k - q_k)^2 .
# ```
# ````
#
# In words: **within $\lambda / K$ of the expected label in every class, be as near to $\operatorname{softmax}(\tau)$ as
# you can.** L2 replaces the hard wall by a spring.
#
# ````{prf:proof}
# *A minimum exists.* The largest logit is at least the mean $q \cdot l$, and lse is at least the largest logit. So
# $\operatorname{lse}(l) - q \cdot l \ge 0$, and $F(l)$ is at least its penalty, which grows without bound in every
# direction. $F$ is continuous, so it takes its smallest value at some $l^*$.
#
# *A floor under $F$ that does not depend on $l$.* Take any class shares $p$ in the box, and use {prf:ref}`lemma-lse`,
# and {prf:ref}`lemma-penalty` for $d = l_k - \tau_k$ with $u = q_k - p_k$, which the box allows:
#
# $$
# \begin{aligned}
# F(l) &= \operatorname{lse}(l) - q \cdot l + c \sum_k |l_k - \tau_k| \\
#   &\ge \Big[ p \cdot l - \sum_k p_k \log p_k \Big] - q \cdot l + (q - p) \cdot (l - \tau) .
# \end{aligned}
# $$
#
# That $u$ was chosen with care: every $l$ cancels. What is left is
#
# ```{math}
# :label: nacl-dual
# \begin{aligned}
# F(l) \ge D(p) :=&\; (p - q) \cdot \tau - \sum_k p_k \log p_k \\
#   =&\; \operatorname{lse}(\tau) - q \cdot \tau - \operatorname{KL}\big( p \,\|\, \operatorname{softmax}(\tau) \big) .
# \end{aligned}
# ```
#
# (The last step is {prf:ref}`lemma-lse`'s proof once more, with $\tau$ for $l$.)
#
# *The floor is touched.* Let $l^*$ be a minimum and $p = \operatorname{softmax}(l^*)$. Move the one logit $l_k$. Where
# $l_k^* \ne \tau_k$ the derivative {eq}`nacl-gradient` is 0, with $q$ for $y$:
# $q_k - p_k = c \operatorname{sign}(l_k^* - \tau_k)$. Where $l_k^* = \tau_k$ the penalty has a kink, and at a minimum
# the slope to the right is not negative and that to the left not positive: $p_k - q_k + c \ge 0$ and
# $p_k - q_k - c \le 0$. In both cases $|p_k - q_k| \le c$, so $p$ *is in the box*, and in both cases
# {prf:ref}`lemma-penalty` holds with equality at $u = q_k - p_k$; {prf:ref}`lemma-lse` does by the choice of $p$. So
# $F(l^*) = D(p)$.
#
# *Conclusion.* Let $p'$ be any shares in the box. Then $D(p') \le F(l^*) = D(p)$: no $D$ is larger, and by
# {eq}`nacl-dual` no divergence smaller, than at $p = \operatorname{softmax}(l^*)$. The divergence is strictly convex in
# $p$ and the box is convex, so only one $p^*$ does that, and every minimum leads to it.
#
# *L2.* The same with the second half of {prf:ref}`lemma-penalty` and no box: $D$ loses $\sum_k (q_k - p_k)^2 / (4 c)$,
# and the derivative is 0 where $q_k - p_k = 2 c\,(l_k^* - \tau_k)$, which is its case of equality.
# ````
#
# The proof shows $\min_l F = \max_p D$: a minimum over logits is a maximum over probabilities, the *dual* problem. That
# the two may change places is not always true. Here it needs no further theorem, because we named the pair $l^*$,
# $\operatorname{softmax}(l^*)$ at which they meet. It also gives the solution in closed form. Where the box does not
# bind, $l_k^* = \tau_k$; where it does, $l_k^*$ is above its share and $p_k = q_k - c$, or below and $p_k = q_k + c$.
# So there is a number $a > 0$ with
#
# ```{math}
# :label: nacl-clip
# p_k^* = a\, e^{\tau_k} \ \text{clipped to}\ \left[ q_k - \frac{\lambda}{K} ,\; q_k + \frac{\lambda}{K} \right]
# ```
#
# in every class, $a = e^{-\operatorname{lse}(l^*)}$, and it is found from $\sum_k p_k^* = 1$.
# `nacl.theory.nacl_minimum` finds it. For a thousand random pixels, with certain and uncertain labels: how far is it
# outside the box, and how far apart are floor and loss?

# %%
q = torch.rand(1000, classes, dtype=torch.float64) ** 4
q = q / q.sum(dim=1, keepdim=True)
q[::2] = torch.eye(classes, dtype=torch.float64)[q[::2].argmax(dim=1)]
share = torch.randint(0, 4, (1000, classes)).double() + 1e-9
share = share / share.sum(dim=1, keepdim=True)
p = nacl_minimum(q, share, **options)
at = nacl_minimum_logits(q, share, **options)

# %%
objective = at.logsumexp(1) - (q * at).sum(1)
objective += c * (at - share).abs().sum(1)
floor = ((p - q) * share).sum(1) + torch.special.entr(p).sum(1)
outside = ((p - q).abs().max() - c).item()
gap = (objective - floor).abs().max().item()
a = (-at.logsumexp(1, keepdim=True)).exp()
clipped = (a * share.exp()).clamp(q - c, q + c)
misfit = (clipped - p).abs().max().item()
pd.Series(
    {
        "outside the box by": outside,
        "floor and loss apart by": gap,
        "away from the closed form by": misfit,
    },
    name="at most",
).to_frame()

# %% [markdown]
# The last row is how far $p^*$ is from {eq}`nacl-clip`. With L2 the floor loses the spring:

# %%
p = nacl_minimum(q, share, penalty="l2", **options)
at = nacl_minimum_logits(q, share, penalty="l2", **options)
objective = at.logsumexp(1) - (q * at).sum(1)
objective += c * ((at - share) ** 2).sum(1)
floor = ((p - q) * share).sum(1) + torch.special.entr(p).sum(1)
floor -= ((p - q) ** 2).sum(1) / (4 * c)
gap_l2 = (objective - floor).abs().max().item()
pd.Series({"floor and loss apart by": gap_l2}, name="at most").to_frame()

# %% [markdown]
# ## How sure may a pixel be?
#
# Let the label be certain, $q = y$: a network that has memorised it.
#
# ````{prf:corollary} The ceiling
# :label: corollary-ceiling
#
# With L1 and a certain label, the label's probability at the minimum is
#
# ```{math}
# :label: nacl-ceiling
# p_y^* = \max\left( 1 - \frac{\lambda}{K} ,\; \operatorname{softmax}(\tau)_y \right) .
# ```
#
# It is $1 - \lambda / K$ **for every $\tau$** if and only if
#
# ```{math}
# :label: nacl-condition
# \lambda \le \frac{K (K - 1)}{K - 1 + e} .
# ```
#
# Then it is the largest of all, the confidence, wherever it is above one half; for larger $\lambda$ another class may
# be the largest. As long as $\operatorname{softmax}(\tau)_y \le 1 - \lambda / K$, the rest goes to the other classes in these
# proportions:
#
# ```{math}
# :label: nacl-rest
# p_k^* = \frac{\lambda}{K} \cdot \frac{e^{\tau_k}}{\sum_{j \ne y} e^{\tau_j}} \qquad (k \ne y) .
# ```
# ````
#
# ```{prf:proof}
# Write $\pi = \operatorname{softmax}(\tau)$. Since the others sum to $1 - p_y$, the box around $q = y$ asks for one
# thing only: $p_y \ge 1 - c$.
#
# If $\pi_y \ge 1 - c$, then $\pi$ itself lies in the box, its divergence is 0, and $p^* = \pi$.
#
# If $\pi_y < 1 - c$: for a given $p_y = t$ the divergence is smallest when the others share $1 - t$ in the proportions
# of $\pi$ (Gibbs again, for the shares $p_k / (1 - t)$ of the rest), and is then
# $t \log \frac{t}{\pi_y} + (1 - t) \log \frac{1 - t}{1 - \pi_y}$. Its derivative,
# $\log \frac{t}{1 - t} - \log \frac{\pi_y}{1 - \pi_y}$, is positive for $t > \pi_y$. So the smallest allowed $t$ is
# best: $p_y^* = 1 - c$. The proportions of $\pi$ are those of $e^{\tau_k}$.
#
# Last, $1 / \pi_y = 1 + \sum_{j \ne y} e^{\tau_j - \tau_y}$, and no $\tau_j - \tau_y$ is below $-1$. So the largest
# possible $\pi_y$ is that of {eq}`nacl-literal`, at $\tau = y$, and $1 - \lambda / K \ge \frac{e}{e + K - 1}$ is
# {eq}`nacl-condition`.
# ```
#
# Three windows: all labels agree; three in five do, and the rest is one class; one in three does, and two classes have
# the other thirds.

# %%
windows = {
    "all agree": (1, 0, 0, 0),
    "3 in 5 agree": (0.6, 0.4, 0, 0),
    "1 in 3 agrees": (1 / 3, 1 / 3, 1 / 3, 0),
}
certain = torch.eye(1, classes, dtype=torch.float64).expand(3, -1)
shares = torch.tensor(list(windows.values()), dtype=torch.float64)
parts = nacl_minimum(certain, shares, penalty_weight=penalty_weight)
names = ["label", "class 1", "class 2", "class 3"]
rest = pd.DataFrame(parts, index=list(windows), columns=names)
rest.style.format("{:.4f}")

# %%
limit = classes * (classes - 1) / (classes - 1 + math.e)
kinds = {"L1": ("nacl", options)}
kinds["L2"] = "nacl", {"penalty": "l2", **options}
kinds["SVLS"] = "svls", {}
asked = pd.DataFrame(index=list(windows), columns=list(kinds), dtype=float)
for name, kind in product(windows, kinds):
    loss, how = kinds[kind]
    ceiling = confidence_ceiling(loss, 4, tau=windows[name], **how)
    asked.loc[name, kind] = ceiling
asked.style.format("{:.4f}")

# %% tags=["hide-input"]
Markdown(
    f"**What we saw.** With L1 the three windows ask for the same confidence, {asked.L1.iloc[0]:.4f} = 1 - "
    f"{penalty_weight:g}/4. With L2 they ask for {asked.L2.iloc[0]:.3f}, {asked.L2.iloc[1]:.3f} and "
    f"{asked.L2.iloc[2]:.3f}: different, and yet much less so than SVLS with the same shares among the neighbours, whose "
    f"{asked.SVLS.iloc[0]:.2f} (no ceiling), {asked.SVLS.iloc[1]:.2f} and {asked.SVLS.iloc[2]:.2f} follow them. For four "
    f"classes the ceiling of L1 is blind to the neighbours up to λ = 12 / (3 + e), about {limit:.3f}."
)

# %% [markdown]
# ## What the neighbours decide, and what they do not
#
# The papers set out from the remark that other calibration losses treat each pixel alone and leave out the structure
# round it; the constraint is to bring that structure in {cite}`murugesan2025`. The picture that comes to mind is that a
# pixel becomes as sure as its neighbours agree. SVLS does just that: its minimum $(1 + \tau_y) / 2$ rises with the
# agreement. **NACL with the L1 penalty does not.** {eq}`nacl-ceiling` has no $\tau$ in it, as long as
# {eq}`nacl-condition` holds, and the usual $\lambda$ is far below that limit. The reason can be read off
# {eq}`nacl-gradient`: a confident pixel's logit stands well above its share, be that share 1 or $\tfrac13$, and the
# slope of $|d|$ is the same however far $d$ is from 0. It pulls with $c$, here as there.
#
# What $\tau$ decides is {eq}`nacl-rest`: who gets the rest. And only mildly, since it enters as $e^{\tau_k}$. In a 3 x
# 3 window the neighbours hold at most 8 of 9 labels, so a class that is *all* the neighbours gets at most $e^{8/9}$
# times what a class gets that is nowhere near:

# %%
tip = torch.tensor([[1.0, 0, 0, 0]], dtype=torch.float64)
around = torch.tensor([[1 / 9, 8 / 9, 0, 0]], dtype=torch.float64)
lone = nacl_minimum(tip, around, penalty_weight=penalty_weight)[0]
pd.Series(
    {
        "own class": lone[0].item(),
        "class of all neighbours": lone[1].item(),
        "each other class": lone[2].item(),
        "ratio of the last two": (lone[1] / lone[2]).item(),
        "exp(8/9)": math.exp(8 / 9),
    },
    name="at the minimum",
).to_frame()

# %% [markdown]
# So what restrains confidence under L1 is not the neighbours. It is that *every* logit has a price, inside objects too,
# where SVLS restrains nothing. With **L2** the pull grows with the distance, so the share does move the confidence, and
# in the direction of the picture; but weakly. By {eq}`nacl-gradient`, $1 - s_y = 2 c \, (l_y - \tau_y)$ at the minimum:
# even if the logit stayed where it is, a share smaller by 1 would cost only $2 c$ of confidence, and the logit gives
# way. What the papers claim of the method's form stands: the constraint is in the open, its target can be chosen, and
# its price too.
#
# The whole range of $\lambda$, for both penalties, for L1 on the softmax, and for SVLS, which has no $\lambda$. **Where
# marks of three kinds sit on one line, three curves coincide**: with L1 all three windows up to {eq}`nacl-condition`, and
# with L1 on the softmax all three at 1, until they part one by one.

# %%
weights = np.geomspace(0.01, 10, 61)
hows = {"NACL, L1": {}, "NACL, L2": {"penalty": "l2"}}
hows["NACL, L1 on the softmax"] = {"softmax": True}
drawn = {title: {} for title in hows}
for title, name in product(hows, windows):
    how = {"tau": windows[name], **hows[title]}
    y = [
        confidence_ceiling("nacl", 4, penalty_weight=w, **how)
        for w in weights
    ]
    drawn[title][name] = weights, y

# %%
drawn["SVLS"] = {
    name: (weights, np.full(61, x)) for name, x in asked.SVLS.items()
}
axes = "penalty weight λ", "label's probability at the minimum"
plots.curves(drawn, *axes, log_x=True)

# %% [markdown]
# **Move it.** At which $\lambda$ do two windows first ask for different confidences under L1, and which window leaves
# the common line first? Where does L2 separate them most? And is there any $\lambda$ at which L1-NACL does what SVLS
# does, at all three windows?
#
# The next one needs the sliders. Below is one pixel under six losses: its loss over the logit of its label, the two
# parts of NACL's gradient {eq}`nacl-gradient`, and how sure each loss lets it be. Raise *label noise*, which makes the
# label another class now and then. Cross-entropy then rests at the truth. Where does NACL rest, below it or above? Take
# two classes, and look again.

# %%
explorer.penalty(penalty_weight=penalty_weight)

# %% [markdown]
# ## The label smoothing that it equals, and where it does not
#
# Ordinary label smoothing (LS) trains on $(1 - \alpha)\, q + \alpha / K$, and its minimum is $s$ equal to that label.
# Inside an object the shares of the other classes are equal, all 0, so by {eq}`nacl-rest` each gets
# $\frac{\lambda}{K (K - 1)}$; LS gives each $\alpha / K$.
#
# ````{prf:corollary} The smoothing that it equals
# :label: corollary-smoothing
#
# For a certain label, other classes with equal shares, and $\lambda$ within {eq}`nacl-condition`, the minimum of
# L1-NACL is that of label smoothing with
#
# ```{math}
# :label: nacl-smoothing
# \alpha = \frac{\lambda}{K - 1} .
# ```
# ````
#
# That is the prediction at the minimum, and no more. **Not equal** are:
#
# - *the rest* in a mixed window: the confidence is the same there, but {eq}`nacl-rest` favours the neighbours' classes;
# - *the logits*: LS fixes their differences, NACL with three or more classes also their level, $l_k = \tau_k$ for $k \ne y$;
# - *the way there*: beside cross-entropy, both pull a leading label's logit down with the same $c$; but LS pushes every
#   other logit up by $c / (K - 1)$ wherever it stands, and NACL pulls it with $c$ towards its share;
# - *uncertain labels*: LS draws every class towards $1 / K$, in proportion to its distance; NACL shifts it by $c$, as follows.

# %%
alpha = penalty_weight / (classes - 1)
pixels = {
    "inside": ((1, 0, 0, 0), (1, 0, 0, 0)),
    "certain, mixed": ((1, 0, 0, 0), (0.6, 0.4, 0, 0)),
    "uncertain": ((0.55, 0.30, 0.15, 0), (0.55, 0.30, 0.15, 0)),
}
pairs = torch.tensor(list(pixels.values()), dtype=torch.float64)
label, share = pairs.unbind(1)
two = {"NACL": nacl_minimum(label, share, **options)}
two["LS"] = (1 - alpha) * label + alpha / classes
frames = {n: pd.DataFrame(p, list(pixels), names) for n, p in two.items()}
smoothing = pd.concat(frames).swaplevel().loc[list(pixels)]
smoothing.style.format("{:.4f}")

# %% [markdown]
# ## A bias, for the one who knows
#
# Now a network that saw so many annotators that $q$ is the true probability. Cross-entropy would give $s = q$, which is
# calibrated. NACL moves it. By {eq}`nacl-clip` the classes are shifted by at most $c$, and for small $\lambda$ they use
# it up:
#
# ```{math}
# :label: nacl-noise
# p_k^* = q_k + \begin{cases}
#   -\lambda / K & \text{where}\ q_k e^{-\tau_k}\ \text{is above its median over the classes,} \\
#   +\lambda / K & \text{where it is below.}
# \end{cases}
# ```
#
# (Let the ratios $q_k e^{-\tau_k}$ differ. As $c \to 0$ the clip in {eq}`nacl-clip` ends at $q_k - c$ where the ratio
# is above $a$ and at $q_k + c$ where it is below. The shifts sum to 0, so as many classes lie above as below. If $K$ is
# odd, the class in the middle keeps $q_k$.) The last pixel of the table shows it: two of four classes lose
# $\lambda / K$, two gain it. The forecast of one who knew the truth is now wrong by up to that much in every class, in
# easy background too, and no amount of data mends it.
#
# ## The trade, on data whose truth is known
#
# So the ceiling is paid by the one who knows, and helps the one who has memorised. How do the two weigh up? On the
# phantom ({doc}`04_phantom`) the true probability $p$ of every pixel is known, and no training is needed. Take two
# extreme networks:
#
# - the **memoriser** has $q = y$: it saw one annotator's label of each pixel, and $\tau$ comes from that;
# - the **knower** has $q = p$, with the expected shares as $\tau$.
#
# Each goes to its minimum for every $\lambda$. The distance from the truth is $\operatorname{KL}(p \,\|\, p^*)$: how
# much worse than the truth its forecast will be on *new* labels, in negative log-likelihood. *Ambiguous* pixels are
# those where no class has a true probability above 0.99. At the largest weights the
# two curves run into one: both networks then say nearly $\operatorname{softmax}(\tau)$, whatever $q$ is.

# %%
test = load_dataset("phantom", size=size).split("test")
truth = torch.from_numpy(np.stack([case.posterior[:, 2] for case in test]))
truth = truth.double() / truth.double().sum(dim=1, keepdim=True)
target = torch.from_numpy(np.stack([case.label[2] for case in test])).long()
ambiguous = truth.amax(dim=1) < 0.99
seen = neighbour_prior(target, 4, dtype=torch.float64)
expected = F.avg_pool2d(truth, 3, 1, 1, count_include_pad=False)
networks = {
    "memoriser": (one_hot(target, 4, dtype=torch.float64), seen),
    "knower": (truth, expected),
}

# %%
rows = []
for weight in np.geomspace(0.003, 3, 19):
    for network, (q, tau) in networks.items():
        p = nacl_minimum(q, tau, penalty_weight=weight)
        distance = (torch.xlogy(truth, truth) - truth * p.log()).sum(1)
        row = {"network": network, "weight": weight}
        row["all pixels"] = distance.mean().item()
        row["ambiguous pixels"] = distance[ambiguous].mean().item()
        rows.append(row)
trade = pd.DataFrame(rows).pivot(index="weight", columns="network")

# %%
panels = {
    where: {name: (trade.index, trade[where, name]) for name in networks}
    for where in ("all pixels", "ambiguous pixels")
}
plots.curves(
    panels, "penalty weight λ", "KL from the truth", log_x=True, log_y=True
)

# %% tags=["hide-input"]
best = trade.xs("memoriser", axis=1, level="network").idxmin()
lowest = trade.xs("memoriser", axis=1, level="network").min()
price = trade["all pixels", "knower"]
Markdown(
    f"**What we saw.** The memoriser's curve has a bottom: without the penalty its distance is infinite, since it calls impossible "
    f"what then happens; the best weight on the grid is {best['all pixels']:.2f} over all pixels (distance {lowest['all pixels']:.3f}) and "
    f"{best['ambiguous pixels']:.2f} where the truth is ambiguous ({lowest['ambiguous pixels']:.3f}). The knower's curve only rises from 0: "
    f"at the memoriser's best weight it pays {price[best['all pixels']]:.3f} over all pixels. The two regions "
    f"want different weights: {ambiguous.double().mean().item():.0%} of the pixels are ambiguous and gain; the others are easy and pay."
)

# %% [markdown]
# What an easy pixel pays is simple. Where $p$ is one-hot the distance is $-\log(1 - \lambda / K) \approx \lambda / K$,
# and so is the calibration error: always right, and only $1 - \lambda / K$ sure.
#
# The logarithm is hard on the memoriser. Is the answer the same in squared distance, $\sum_k (p_k - p_k^*)^2$, which is
# what the *Brier score* charges above the truth's own ({doc}`02_confidence`)? And where does SVLS stand? Its memoriser
# says $\tilde y$; its knower the truth, half of it blurred.

# %%
near = svls_weights(3, 1.0).neighbours.expand(4, 1, 3, 3)
blurred = F.conv2d(truth, near, padding=1, groups=4)
blurred /= F.conv2d(torch.ones_like(truth), near, padding=1, groups=4)
says = {("memoriser", "CE"): networks["memoriser"][0]}
says["memoriser", "SVLS"] = svls_minimum(target, 4)
says["memoriser", "NACL"] = nacl_minimum(*networks["memoriser"], **options)
says["knower", "CE"] = truth
says["knower", "SVLS"] = (truth + blurred) / 2
says["knower", "NACL"] = nacl_minimum(*networks["knower"], **options)

# %%
rows = {}
for who, p in says.items():
    kl = (torch.xlogy(truth, truth) - torch.xlogy(truth, p)).sum(1)
    squares = ((p - truth) ** 2).sum(1)
    rows[who] = {
        "KL": kl.mean().item(),
        "squared": squares.mean().item(),
        "squared, ambiguous": squares[ambiguous].mean().item(),
    }
distances = pd.DataFrame(rows).T.rename_axis(["network", "loss"])
distances.style.format("{:.4f}")

# %% tags=["hide-input"]
squared = distances["squared"]
gain = 1 - squared["memoriser"] / squared["memoriser", "CE"]
Markdown(
    f"**What we saw.** In squared distance NACL at λ = {penalty_weight:g} takes {gain['NACL']:.0%} off the memoriser's "
    f"error, and SVLS {gain['SVLS']:.0%}: it softens more, and only where labels are mixed, which is where the truth is "
    f"likely to be ambiguous. It also costs the knower less, {squared['knower', 'SVLS']:.4f} against "
    f"{squared['knower', 'NACL']:.4f}. By KL the memoriser with SVLS is infinitely far off, as with CE: somewhere it "
    "calls impossible what has a chance. The two losses guard against different faults: SVLS against being too "
    "sure beside a border, NACL against being certain and wrong anywhere."
)

# %% [markdown]
# **Where it fails.** A trained network is neither of the two. It shares its weights between pixels, cannot memorise
# everything, and stops before the minimum; where on the line it stands is a question for experiments ({doc}`09_train`,
# {doc}`12_penalty`). The phantom's borders are softer or sharper than those of your data, and the best weights above
# belong to it. And $\tau$ was held fixed; {ref}`exercise-nacl-random` asks what is left if it is drawn anew with every
# label.
#
# ## Exercises
#
# ```{exercise}
# :label: exercise-nacl-paper
# A paper sums the penalty over the classes and reports $\lambda_\text{paper} = 0.1$ on four classes. Which
# `penalty_weight` is that here, and what is the ceiling? What would it be for 16 classes, and what if you set
# `penalty_weight=0.1` there?
# ```
#
# ```{solution} exercise-nacl-paper
# :class: dropdown
# By {eq}`nacl-convention` $c = 0.1$, so `penalty_weight` is $K c = 0.4$, and the ceiling $1 - c = 0.9$. For 16 classes
# it is 1.6, with the same ceiling of 0.9: the sum's convention keeps the ceiling when classes are added. With
# `penalty_weight=0.1` the ceiling is $1 - 0.1 / 16 = 0.99375$.
# ```
#
# ```{exercise}
# :label: exercise-nacl-square
# Two classes, L2, a certain label. Let $m = l_y - l_k$ be the gap of the logits at the minimum and
# $\delta = \tau_y - \tau_k$ that of the shares. Find an equation for $m$, and say from it whether a torn window makes
# the pixel less sure.
# ```
#
# ```{solution} exercise-nacl-square
# :class: dropdown
# The derivatives {eq}`nacl-gradient` are $s_y - 1 + 2c\,(l_y - \tau_y) = 0$ and $s_k + 2c\,(l_k - \tau_k) = 0$. Since
# $1 - s_y = s_k$, half the difference of the two is
#
# $$
# 1 - s_y = c\,(m - \delta), \qquad \text{that is} \qquad \frac{1}{1 + e^m} = \frac{\lambda}{2}\,(m - \delta) .
# $$
#
# The left side falls in $m$ and the right side rises, so there is one solution; a smaller $\delta$ raises the right
# side, and the solution moves to a smaller $m$: less sure, yes. With $\lambda = 0.1$ the confidence goes from about
# 0.925 at $\delta = 1$ to about 0.894 at $\delta = 0$.
# ```
#
# ```{exercise}
# :label: exercise-nacl-random
# With every new annotator the shares $\tau$ change too, so the mean loss has $\mathbb E\, |l_k - \tau_k|$ in it. Does
# the box of {prf:ref}`theorem-minimum` survive? Does the ceiling, for a label that is the same with all annotators?
# ```
#
# ```{solution} exercise-nacl-random
# :class: dropdown
# Each drawn $|l_k - \tau_k|$ has slopes between $-1$ and $1$, and so has their mean. So at a minimum
# $|q_k - p_k| \le c$, as in the third step of the proof: the box survives. Inside it things change, since the mean has
# its bend spread out over all drawn shares. The ceiling survives too, under {eq}`nacl-condition`. By the box
# $p_y \ge 1 - c$. Suppose $p_y > 1 - c$. Then the slope of the mean at $l_y$ is below 1, so $l_y$ does not exceed all
# drawn shares: $l_y \le 1$. The others have less than $c$ together, so their slopes are above $-1$, and no $l_k$ lies
# below all drawn shares: $l_k \ge 0$. But then $p_y \le e / (e + K - 1) \le 1 - c$, a contradiction. So $p_y = 1 - c$.
# ```
#
# ```{exercise}
# :label: exercise-nacl-noise
# In the explorer of this chapter, set $K = 2$, $\tau_y = 1$ and $\lambda = 0.1$, and raise the label noise from 0 to
# 0.5. At first NACL is less sure than cross-entropy. At which noise does that turn round, and why there?
# ```
#
# ```{solution} exercise-nacl-noise
# :class: dropdown
# At a noise of 0.27. By {prf:ref}`theorem-minimum` the prediction is as near to $\operatorname{softmax}(\tau)$ as it
# can be within $c = 0.05$ of the truth $q$, and $\operatorname{softmax}(\tau)_y = e / (e + 1) \approx 0.731$. While
# $q_y$ is larger than that, NACL pulls it down; once $q_y < 0.731$, that is at a noise above $1 / (e + 1) \approx
# 0.269$, it pulls it up, to $q_y + c$ at most: under much noise NACL is surer than the truth. The constraint says "as
# the neighbours", and not "less sure".
# ```
#
# **Take-away.** NACL asks for $l = \tau$ and gets: within $\lambda / K$ of the label, as near to
# $\operatorname{softmax}(\tau)$ as possible. With L1 that is the confidence $1 - \lambda / K$ at every certain pixel,
# whatever its neighbours say. It is a ceiling against memorised labels, and a bias where the network knows better.
# {doc}`08_family` sets it beside its relatives.

# %% tags=["hide-cell"]
knower, memoriser = (
    trade["all pixels", n] for n in ("knower", "memoriser")
)
assert abs(by_hand - by_code) < 1e-12
assert gradient_gap.max() < 1e-14
assert outside < 1e-12
assert gap < 1e-12
assert misfit < 1e-12
assert gap_l2 < 1e-11
held, loose = ({n: y for n, (_, y) in g.items()} for g in forces.values())
assert held["L1 pulls down"][-1] > held["label pulls up"][-1]
assert (loose["L1 pulls down"] < loose["label pulls up"]).all()
assert np.ptp(asked.L1) < 1e-12
assert asked.L2.is_monotonic_decreasing
assert np.ptp(asked.L2) < 2 * c * (1 - 1 / 3)
assert asked.SVLS.is_monotonic_decreasing
assert abs(lone[1] / lone[2] - math.exp(8 / 9)) < 1e-9
l1 = np.array([y for _, y in drawn["NACL, L1"].values()])
below = weights <= limit
assert np.abs(l1[:, below] - (1 - weights[below] / 4)).max() < 1e-12
assert np.ptp(l1[:, ~below], axis=0).min() > 1e-3
same, mixed, noisy = (two["NACL"] - two["LS"]).abs().amax(dim=1)
assert same < 1e-12
assert min(mixed, noisy) > 1e-3
assert abs(two["NACL"][1, 0] - two["LS"][1, 0]) < 1e-12
shift = (two["NACL"] - label)[2]
assert (shift.abs() - c).abs().max() < 1e-12
assert (shift > 0).sum() == 2
assert knower.is_monotonic_increasing
assert abs(knower.iloc[-1] / memoriser.iloc[-1] - 1) < 0.05
assert not memoriser.is_monotonic_decreasing
assert not memoriser.is_monotonic_increasing
assert best["all pixels"] < best["ambiguous pixels"]
assert math.isinf(distances["KL"]["memoriser", "SVLS"])
assert math.isinf(distances["KL"]["memoriser", "CE"])
assert squared["memoriser", "SVLS"] < squared["memoriser", "NACL"]
assert squared["memoriser", "NACL"] < squared["memoriser", "CE"]
assert squared["knower", "SVLS"] < squared["knower", "NACL"]
noise = torch.tensor([0.2, 0.26, 0.28, 0.4], dtype=torch.float64)
noisy_label = torch.stack([1 - noise, noise], dim=1)
inside = torch.tensor([[1.0, 0.0]], dtype=torch.float64).expand(4, 2)
rests = nacl_minimum(noisy_label, inside, penalty_weight=0.1)[:, 0]
assert (rests > 1 - noise).tolist() == [False, False, True, True]
assert abs(rests[3].item() - 0.65) < 1e-9
for k, weight, ceiling in (
    (4, 0.4, 0.9),
    (16, 1.6, 0.9),
    (16, 0.1, 0.99375),
):
    found = confidence_ceiling("nacl", k, penalty_weight=weight)
    assert abs(found - ceiling) < 1e-12
for own, sure in ((1.0, 0.925), (0.5, 0.894)):
    how = {"penalty": "l2", "penalty_weight": 0.1, "tau": (own, 1 - own)}
    found = confidence_ceiling("nacl", 2, **how)
    gap_of_logits = math.log(found / (1 - found))
    right = 0.05 * (gap_of_logits - (2 * own - 1))
    assert abs(1 - found - right) < 1e-9
    assert abs(found - sure) < 5e-4
