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
# # What does SVLS really ask of a network?
#
# **You need** softmax and cross-entropy; nothing of constrained optimisation. **Run time**: under a minute.
#
# **Claim.** Spatially varying label smoothing (SVLS) {cite}`islam2021` looks like a softer label. It is cross-entropy
# under a hidden constraint, "predict what your neighbours are", at a balance of exactly 1 : 1 that none of its
# parameters can move. That observation is where NACL begins {cite}`murugesan2025`. This chapter derives it line by
# line, and checks its results in numbers.

# %% tags=["parameters"]
data = "phantom"  # or "brain", or a folder that `nacl data prepare` made
size = 96
seed = 0

# %% tags=["hide-input"]
import math

import numpy as np
import pandas as pd
import torch
from IPython.display import Markdown
from nacl import explorer, neighbour_prior, plots, svls_loss
from nacl.data import load_dataset, stack_slices
from nacl.data.phantom import draw_labels
from nacl.parameters import check_parameters
from nacl.priors import svls_prior
from nacl.theory import (
    svls_band_share,
    svls_minimum,
    svls_price,
    svls_softening,
    svls_split,
    svls_weights,
)

check_parameters(globals())

# %% [markdown]
# **Predict.** SVLS has two parameters, the window's size $k$ and its width $\sigma$. Make both large, and the label of
# a pixel on a border is blurred over many neighbours. What weight has the pixel's own label in the blur? Write a number
# down.
#
# ## The label of SVLS
#
# Let pixel $i$ have the one-hot label $y_i \in \{0, 1\}^K$ and the window $W(i)$ of $k \times k$ pixels, $k$ odd. SVLS
# takes a Gaussian $g$ over the window, with sum 1 and centre weight $g_c$. It replaces the centre weight by $1 - g_c$,
# divides all weights by $1 - g_c$, and then by their sum. The label is the weighted mean of the one-hot labels in the
# window. Its steps hide a simple result.
#
# ```{prf:theorem} Half and half
# :label: theorem-half
#
# For every odd $k \ge 3$ and every $\sigma > 0$, the label of SVLS is
#
# $$
# \tilde y_i = \tfrac12 \left( y_i + \tau_i \right), \qquad
# \tau_i = \sum_{j \in W(i),\, j \ne i} w_j\, y_j, \qquad w_j = \frac{g_j}{1 - g_c}, \qquad \sum_{j \ne i} w_j = 1 .
# $$
# ```
#
# ```{prf:proof}
# The weights of $g$ sum to 1, so the neighbours together weigh $1 - g_c$. The centre now weighs $1 - g_c$ too. Divided
# by $1 - g_c$, the centre weighs 1, neighbour $j$ weighs $w_j = g_j / (1 - g_c)$, and the neighbours together weigh 1.
# The sum of all is 2. Divided by 2, the centre weighs $\tfrac12$ and the neighbours $\tfrac12 w_j$.
# ```
#
# (At the edge of the image only the neighbours inside count here, and their weights are divided by their sum; the half
# stays.) So $\tau_i$ is a set of *class shares*: how much of each class the neighbours are. It is not negative and sums
# to 1. And the answer to the question above is: the own label weighs **one half, always**. Since neighbours may agree
# with it, the pixel keeps $(1 + \tau_{y}) / 2 \ge \tfrac12$ of its class. `nacl.theory.svls_weights` follows the
# authors' steps:

# %%
weights = {
    (k, s): svls_weights(k, s) for k in (3, 7, 15) for s in (0.3, 1, 4)
}
together = {
    key: (w.centre, w.neighbours.sum().item()) for key, w in weights.items()
}
index = pd.MultiIndex.from_tuples(together, names=["k", "sigma"])
pd.DataFrame(together.values(), index, ["centre", "neighbours together"])

# %% [markdown]
# See it on one slice, close up: the share of the last class, in the phantom the left ventricle, among the neighbours, and
# the label that SVLS makes of it.

# %%
dataset = load_dataset(data, size=size)
volume = torch.from_numpy(dataset.split("test")[0].label).long()
target = volume[len(volume) // 3][None]
classes, last = dataset.num_classes, dataset.num_classes - 1
tau = svls_prior(target, classes, kernel_size=7, sigma=2.0)
label = neighbour_prior(
    target, classes, prior="gaussian", kernel_size=7, sigma=2.0
)

# %%
panels = {"label y": target[0] == last, "neighbours τ": tau[0, last]}
plots.maps(
    {**panels, "SVLS (y + τ) / 2": label[0, last]},
    label=f"share of {dataset.class_names[last]}",
    around=target[0] == last,
)

# %% [markdown]
# ## The split: a penalty appears
#
# For class shares $p$ (not negative, sum 1) and a prediction $s = \operatorname{softmax}(l)$, write
#
# ```{math}
# :label: divergences
# \operatorname{CE}(p, s) = -\sum_k p_k \log s_k, \qquad
# H(p) = \operatorname{CE}(p, p), \qquad
# \operatorname{KL}(p \,\|\, s) = \sum_k p_k \log \frac{p_k}{s_k} = \operatorname{CE}(p, s) - H(p) ,
# ```
#
# with $0 \log 0 = 0$: cross-entropy, entropy and divergence. The loss of SVLS is the cross-entropy against its label;
# leaving out the index $i$,
#
# ```{math}
# :label: svls-loss
# L_\text{SVLS} = -\sum_k \tilde y_k \log s_k .
# ```
#
# ```{prf:theorem} The split
# :label: theorem-split
#
# $$
# L_\text{SVLS} = \tfrac12 \Big[\; \underbrace{\operatorname{CE}(y, s)}_{\text{fit the label}}
#   + \underbrace{\operatorname{KL}(\tau \,\|\, s)}_{\text{be like the neighbours}}
#   + \underbrace{H(\tau)}_{\text{constant in } l} \;\Big] .
# $$
# ```
#
# ```{prf:proof}
# Put $\tilde y = \tfrac12 (y + \tau)$ into {eq}`svls-loss`. The sum is linear in the label, so it falls into two:
#
# $$
# L_\text{SVLS} = \tfrac12 \Big( -\sum_k y_k \log s_k \Big) + \tfrac12 \Big( -\sum_k \tau_k \log s_k \Big) .
# $$
#
# The first bracket is $\operatorname{CE}(y, s)$. In the second, write $\log s_k = \log \tau_k - \log (\tau_k / s_k)$
# where $\tau_k > 0$ (the other terms are 0):
#
# $$
# -\sum_k \tau_k \log s_k = -\sum_k \tau_k \log \tau_k + \sum_k \tau_k \log \frac{\tau_k}{s_k}
#   = H(\tau) + \operatorname{KL}(\tau \,\|\, s) .
# $$
# ```
#
# In numbers, at random logits, pixel by pixel and in double precision:

# %%
torch.manual_seed(seed)
logits = 3 * torch.randn(1, classes, *target.shape[1:], dtype=torch.float64)
split = svls_split(logits, target)
loss = svls_loss(logits, target, reduction="none")
difference = (split.loss - loss).abs().max().item()
pd.Series(
    {
        "the loss itself, on average": loss.mean().item(),
        "largest difference of the split": difference,
    },
    name="pixel by pixel",
).to_frame()

# %% [markdown]
# ## From a constraint to a penalty, and back
#
# Why call $\operatorname{KL}(\tau \| s)$ a *constraint*? Suppose we want two things at once: fit the label, and predict
# the class shares of the neighbours.
#
# ```{math}
# :label: svls-constrained
# \min_l \; \operatorname{CE}(y, s) \quad \text{subject to} \quad s = \tau .
# ```
#
# Taken literally this leaves no choice: $s$ is $\tau$, whatever the label. And on a border the two wishes contradict
# each other: $y$ is one class and $\tau$ several. So the constraint is relaxed. The divergence
# $\operatorname{KL}(\tau \| s)$ is never negative, and 0 only where $s = \tau$. (This is Gibbs' inequality:
# $\log x \le x - 1$, with equality at $x = 1$ only. So, summed where $\tau_k > 0$,
# $-\operatorname{KL}(\tau \| s) = \sum_k \tau_k \log (s_k / \tau_k)$ is at most $\sum_k (s_k - \tau_k)$, which is at most 0.)
# So "$s = \tau$" says the same as "$\operatorname{KL}(\tau \| s) \le 0$". Allow a tolerance $\varepsilon > 0$ instead
# of 0:
#
# ```{math}
# :label: svls-tolerance
# \min_l \; \operatorname{CE}(y, s) \quad \text{subject to} \quad \operatorname{KL}(\tau \,\|\, s) \le \varepsilon .
# ```
#
# The classical way to solve such a problem is to charge a price $\lambda \ge 0$ for each unit by which the limit is
# passed {cite}`boyd2004`. The function with the price in it is the **Lagrangian**,
#
# ```{math}
# :label: svls-lagrangian
# \mathcal L(l, \lambda) = \operatorname{CE}(y, s) + \lambda \left( \operatorname{KL}(\tau \,\|\, s) - \varepsilon \right) ,
# ```
#
# and at the solution the price is just high enough: either the limit is met exactly, or the price is 0. (Inside an
# object, where $\tau = y$, keeping the limit costs nothing. On a border it always binds.) The tolerance is a constant,
# so for a *given* price we minimise $\operatorname{CE} + \lambda \operatorname{KL}$: a **penalty**.
# {prf:ref}`theorem-split` says that SVLS is this penalty at the price **$\lambda = 1$**, times one half. Nobody chose
# the price. It came out of the half and half of {prf:ref}`theorem-half`.
#
# ```{prf:theorem} What a price buys
# :label: theorem-price
#
# For $\lambda > 0$, $\operatorname{CE}(y, s) + \lambda \operatorname{KL}(\tau \| s)$ is smallest at
#
# $$
# s^\star = \frac{y + \lambda \tau}{1 + \lambda} .
# $$
#
# So the price $\lambda$ solves {eq}`svls-tolerance` for the tolerance
# $\varepsilon(\lambda) = \operatorname{KL}(\tau \,\|\, s^\star) \le \log \frac{1 + \lambda}{\lambda}$. For SVLS,
# $s^\star = \tilde y$ and $\varepsilon \le \log 2$.
# ```
#
# ```{prf:proof}
# Cross-entropy is linear in its first argument, and $s^\star$ is a set of class shares. So the sum is
#
# $$
# \begin{aligned}
# \operatorname{CE}(y, s) + \lambda \operatorname{KL}(\tau \,\|\, s)
#   &= \operatorname{CE}(y, s) + \lambda \operatorname{CE}(\tau, s) - \lambda H(\tau) \\
#   &= (1 + \lambda) \operatorname{CE}(s^\star, s) - \lambda H(\tau) \\
#   &= (1 + \lambda) \operatorname{KL}(s^\star \,\|\, s) + \text{a constant} ,
# \end{aligned}
# $$
#
# which by Gibbs is smallest at $s = s^\star$ and nowhere else. (Where $s^\star_k = 0$, no finite logit reaches it; the
# value is a limit.) Now let another $s$ keep the limit, $\operatorname{KL}(\tau \| s) \le \varepsilon(\lambda)$. Since
# $s^\star$ is best for the sum,
#
# $$
# \operatorname{CE}(y, s) \ge \operatorname{CE}(y, s^\star)
#   + \lambda \left[ \varepsilon(\lambda) - \operatorname{KL}(\tau \,\|\, s) \right] \ge \operatorname{CE}(y, s^\star) ,
# $$
#
# so $s^\star$ solves {eq}`svls-tolerance`. Last, $s^\star_k \ge \frac{\lambda}{1 + \lambda} \tau_k$ in every class, so
# $\operatorname{KL}(\tau \| s^\star) = \sum_k \tau_k \log (\tau_k / s^\star_k) \le \log \frac{1 + \lambda}{\lambda}$.
# ```
#
# A small example: one row of five pixels. Put the formula's answer into the loss and ask autograd which way is down.
# Nowhere:

# %%
tiny = torch.tensor([[[0, 1, 0, 0, 1]]])
minimum = svls_minimum(tiny, 2)
at_minimum = minimum.log().requires_grad_()
(slope,) = torch.autograd.grad(svls_loss(at_minimum, tiny), at_minimum)
pd.Series(
    {
        "share of the own class at pixel 1": minimum[0, 1, 0, 1].item(),
        "steepest slope": slope.abs().max().item(),
    },
    name="at the minimum",
).to_frame()

# %% [markdown]
# ## Why the balance is locked
#
# Since $\operatorname{CE}(p, s) = \log \sum_j e^{l_j} - \sum_k p_k l_k$ for any class shares $p$, its gradient in the
# logits is $s - p$. So the gradient of SVLS shows both wishes at work, side by side:
#
# ```{math}
# :label: svls-gradient
# \frac{\partial L_\text{SVLS}}{\partial l} = \tfrac12 (s - y) + \tfrac12 (s - \tau) .
# ```
#
# The parameters $k$ and $\sigma$ occur in $\tau$ only. They choose *what* the neighbours say; the price of not
# listening stays 1. Here is the same slice under very different windows: *softening* is
# $1 - \tilde y_y = (1 - \tau_y) / 2$, what a pixel gives up of its own label, averaged over the pixels, and the *price*
# is measured, as the $\lambda$ for which autograd's gradient of the loss is proportional to
# $(s - y) + \lambda (s - \tau)$.

# %%
rows = []
live = logits.clone().requires_grad_()
for k, sigma in [(3, 0.5), (3, 1.0), (7, 2.0), (15, 4.0)]:
    window = {"kernel_size": k, "sigma": sigma}
    (gradient,) = torch.autograd.grad(
        svls_loss(live, target, **window), live
    )
    price = svls_price(gradient, logits, target, **window)
    softening = svls_softening(target, classes, **window).mean().item()
    rows.append({**window, "softening": softening, "price": price})
balance = pd.DataFrame(rows)
balance.style.format(
    {"softening": "{:.4f}", "price": "{:.6f}", "sigma": "{:g}"}
)

# %% [markdown]
# The neighbours change with the window. The price does not.
#
# ## What that costs: nothing happens inside
#
# Inside an object all neighbours agree, $\tau = y$, and the label of SVLS is one-hot. There SVLS *is* cross-entropy:
# its loss falls towards 0 only as the gap between logits runs to infinity, and nothing bounds the network's confidence.
# Only a band of $(k - 1)/2$ pixels on either side of a border is softened at all, and there the network is told to say
# $\tilde y$, whether the border is sharp or blurred.

# %%
softening = {}
for k in (3, 7, 15):
    window = {"kernel_size": k, "sigma": k / 3}
    softening[f"k = {k}"] = svls_softening(target, classes, **window)[0]
plots.maps(
    softening,
    label="taken from the own label",
    limits=(0, 0.5),
    around=target[0] > 0,
)

# %% [markdown]
# **Move it.** Widen the window from $k = 3$ to 15, and $\sigma$ with it. How wide must it be before the pixel in the
# middle of the left ventricle feels a border at all? Paint single pixels, lines, a chessboard: does any pixel, under any
# $k$ and $\sigma$, give up more than one half of its own label?

# %%
explorer.neighbourhood(kernel_size=3, sigma=1.0)

# %% [markdown]
# How much of a data set is softened at all? That depends on its shapes: the phantom has a few round organs; `brain`
# ({doc}`05_brain`) has a folded cortex, with far more border.

# %%
rows = {}
for name in dict.fromkeys(("phantom", "brain", data)):
    loaded = load_dataset(name, size=size)
    _, all_labels = stack_slices(loaded.split("test"))
    rows[loaded.name] = {
        f"k = {k}": svls_band_share(all_labels, kernel_size=k)
        for k in (3, 5, 7, 15)
    }
band = pd.DataFrame(rows).T.rename_axis("softened pixels")
band.style.format("{:.1%}")

# %% tags=["hide-input"]
usual = band["k = 3"]
Markdown(
    f"**What we saw.** With the usual window, k = 3, SVLS changes the label of {usual['phantom']:.1%} of the phantom's "
    f"pixels and of {usual['brain']:.1%} of brain's, in test slices of {size} x {size}. For the others it is cross-entropy, and "
    f"confidence has no ceiling. Whatever the window, the price of its constraint was "
    f"{balance['price'].mean():.4f}, and the two ways to write its loss differed by at most {difference:.0e}."
)

# %% [markdown]
# ## Is the softer label a better one?
#
# On the phantom we can ask. Averaged over annotators, a one-hot label is the true probability $p_i$. The label of SVLS
# is then $\tfrac12 (p_i + \sum_j w_j p_j)$: the truth, half of it blurred. So with unlimited labels cross-entropy
# learns the truth and SVLS a blurred one. What softening can help with is a network that has *memorised* the one label
# it was shown.

# %%
phantom = load_dataset("phantom", size=size).split("test")[0]
rng = np.random.default_rng(seed)
several = [
    draw_labels(phantom.posterior.astype(float), rng)[2] for _ in range(50)
]
drawn = torch.from_numpy(np.stack(several)).long()
wide = {"kernel_size": 7, "sigma": 2.0, "prior": "gaussian"}
soft = neighbour_prior(drawn, 4, **wide)[:, 3]
plots.maps(
    {
        "one label": drawn[0] == 3,
        "its SVLS label": soft[0],
        "SVLS, mean of 50": soft.mean(dim=0),
        "true probability": phantom.posterior[3, 2],
    },
    label="left ventricle",
    around=drawn[0] == 3,
)

# %% [markdown]
# ## Where this leads
#
# If a constraint is what helps, put it in the open: choose what is constrained, how a deviation is measured, and what
# it costs. That is the step from SVLS to NACL {cite}`murugesan2025`. It constrains the *logits* instead of the
# probabilities, takes a penalty with a bend instead of the divergence, and gives it a price $\lambda$ that one can set.
# Inside an object too, where SVLS bounds nothing, that puts a ceiling on confidence, {eq}`nacl-ceiling`. {doc}`07_nacl`
# derives it, and asks what the neighbours still have to say.
#
# **Where it fails.** The theorems say what a loss asks for at its minimum, one pixel at a time. A network shares its
# weights between all pixels and stops before the minimum; how far it follows is a question for experiments.
#
# ## Exercises
#
# ```{exercise}
# :label: exercise-svls-edge
# A straight edge between two classes along the grid, $K = 2$, $k = 3$, and $\sigma$ so large that all neighbours weigh
# the same. What does SVLS ask of a pixel at the edge, and how far apart does it want the two logits?
# ```
#
# ```{solution} exercise-svls-edge
# :class: dropdown
# Three of the eight neighbours lie across the edge, so $\tau$ gives 3/8 to the other class and $\tilde y$ gives it
# 3/16. The minimum is $s = \tilde y$, so the logits differ by $\log(13/3) \approx 1.47$.
# ```
#
# ```{exercise}
# :label: exercise-svls-price
# You want a confidence of 0.9 at that pixel. Which price $\lambda$ would buy it?
# ```
#
# ```{solution} exercise-svls-price
# :class: dropdown
# By {prf:ref}`theorem-price`, $s^\star_y = (1 + \lambda \tau_y) / (1 + \lambda)$ with $\tau_y = 5/8$. From
# $0.9\,(1 + \lambda) = 1 + \tfrac58 \lambda$ follows $\lambda = 0.1 / 0.275 = 4/11$. SVLS cannot be set to it. Nor
# would a smaller $\sigma$ do: the side across the edge then weighs less, but never less than 1/4, so
# $\tilde y_y \le 7/8$.
# ```
#
# ```{exercise}
# :label: exercise-svls-uniform
# Ordinary label smoothing gives every class the share $\alpha / K$ everywhere. Write it as a split like
# {prf:ref}`theorem-split`. What takes the place of $\tau$, and what is the price?
# ```
#
# ```{solution} exercise-svls-uniform
# :class: dropdown
# Its label is $(1 - \alpha) y + \alpha u$ with $u = 1/K$ in every class, so the loss is
# $(1 - \alpha) \operatorname{CE}(y, s) + \alpha\, [\operatorname{KL}(u \| s) + H(u)]$: the constraint is $s = u$, blind
# to the neighbours, and the price is $\lambda = \alpha / (1 - \alpha)$, which one can choose.
# ```
#
# ```{exercise}
# :label: exercise-svls-vessel
# In the explorer above, take the map *thin vessel*, $k = 3$ and $\sigma = 1$. Which of the two classes gives up more of
# its own label, on average over its pixels? (Its last table tells it class by class.) Now widen the window to $k = 15$
# and $\sigma = 5$. What becomes of the vessel's label, and what would a network say of the vessel that learns it?
# ```
#
# ```{solution} exercise-svls-vessel
# :class: dropdown
# The vessel: all its pixels lie at a border, and they keep 0.74 of their class on average, while most of the background
# keeps all. In the wide window the vessel is a small minority of every neighbourhood: it keeps 0.57 on average, not far
# above the half that cannot be taken away. Its minimum is that label, so the network is told to be unsure of every
# pixel of the vessel, wherever its border is; SVLS is hardest on what is thin.
# ```
#
# **Take-away.** SVLS = cross-entropy + the constraint "predict your neighbours", at a price of 1 that is not for sale,
# in a thin band, and nowhere else.

# %% tags=["hide-cell"]
edge = torch.tensor([[0, 0, 1, 1]] * 4)[None]
at_edge = svls_minimum(edge, 2, sigma=1e6)[0, :, 1, 1]
assert all(abs(w.centre - 0.5) < 1e-12 for w in weights.values())
assert difference < 1e-12
assert slope.abs().max() < 1e-12
assert (band.diff(axis=1).iloc[:, 1:] > 0).all(axis=None)
assert usual["brain"] > 2 * usual["phantom"]
assert (balance["price"] - 1).abs().max() < 1e-9
assert balance["softening"].is_monotonic_increasing
assert abs(at_edge[1].item() - 3 / 16) < 1e-9
assert abs((at_edge[0] / at_edge[1]).log().item() - math.log(13 / 3)) < 1e-6
bought = svls_minimum(edge, 2, sigma=1e6, price=4 / 11)[0, 0, 1, 1]
assert abs(bought.item() - 0.9) < 1e-9
vessel = explorer.neighbourhood(map="thin vessel").labels
vessel = torch.from_numpy(vessel)[None]
kept = {}
for k, sigma in [(3, 1.0), (15, 5.0)]:
    own = 1 - svls_softening(vessel, 2, kernel_size=k, sigma=sigma)
    kept[k] = [round(own[vessel == c].mean().item(), 2) for c in (0, 1)]
assert [kept[3][1], kept[15][1]] == [0.74, 0.57]
assert kept[3][0] > 0.9
