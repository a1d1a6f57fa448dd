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
# # Which constraint does each loss hide?
#
# **You need** {doc}`06_svls` (a penalty is the price of a constraint) and {doc}`07_nacl`. **Run time**: under ten
# seconds.
#
# **Claim.** Label smoothing, focal loss, the entropy penalty, MbLS, SVLS, NACL and CRaC are one idea: cross-entropy, and
# a constraint on the logits. They differ in what the logits are compared with, and in whether the pull to be surer ever
# ends. Where it ends is the *ceiling* of the loss, the confidence it asks for. Some have a low one, some one that exists on
# paper only, and some none.

# %% tags=["parameters"]
num_classes = 4
margin = 3.0  # of the example for CRaC
rounds = 10
seed = 0

# %% tags=["hide-input"]
import math

import numpy as np
import pandas as pd
import torch
from IPython.display import Markdown
from nacl import plots
from nacl.losses import (
    CRaCLoss,
    build_loss,
    entropy_penalty_loss,
    focal_loss,
    label_smoothing_loss,
    mbls_loss,
)
from nacl.parameters import check_parameters
from nacl.theory import confidence_ceiling, family_table
from scipy.optimize import minimize

check_parameters(globals())

# small tensors: more threads cost more than they bring
torch.set_num_threads(1)

# %% [markdown]
# **Predict.** One pixel deep inside an object, where all neighbours agree. Its label is certain, there are four classes,
# and the network may say whatever makes the loss smallest. Which of these stop it below a confidence of 0.99, with the
# parameters that their authors' code gives them: cross-entropy, label smoothing, focal loss, the entropy penalty, MbLS, SVLS,
# NACL? Write down the names.
#
# ## Distances between logits
#
# A pixel has the label $y$, the logits $l_1, \dots, l_K$, and the probabilities $s = \operatorname{softmax}(l)$. Softmax
# does not see a number that is added to all logits. It sees how far each lies behind the largest:
#
# ```{math}
# :label: family-distances
# d_k = \max_j l_j - l_k \ge 0 .
# ```
#
# Say the label's logit is the largest, so $d_y = 0$. Then cross-entropy is a function of the other distances,
#
# ```{math}
# :label: family-ce
# \operatorname{CE}(y, s) = -\log s_y = \log \Bigl( 1 + \sum_{k \ne y} e^{-d_k} \Bigr) ,
# ```
#
# and it falls as any of them grows, however large they are: without end. That is what a constraint is for.
#
# Inside an object, at the minimum of each loss below that has one, all other classes share one distance $d$.
# (Cross-entropy, label smoothing, MbLS and NACL are convex in $l$ and there treat the other classes alike. Take the mean of a minimum over all orders of those classes: by
# convexity it is a minimum too. For the entropy penalty, look at a fixed $s_y$: cross-entropy is then fixed, and
# the entropy largest where the other classes are equal.) So the confidence there is
#
# ```{math}
# :label: family-confidence
# p(d) = \frac{1}{1 + (K - 1)\, e^{-d}} , \qquad
# d = \log \frac{(K - 1)\, p}{1 - p} ,
# ```
#
# and a ceiling is a statement about one number, $d$. We write $c = \lambda / K$, since the authors' code averages its
# penalties over the classes.
#
# ## Label smoothing: every distance costs
#
# Label smoothing {cite}`szegedy2016,muller2019` is cross-entropy against the label $(1 - \alpha)\, y + \alpha u$, where $u$ gives
# $1 / K$ to every class.
#
# ```{prf:theorem} Label smoothing is a linear penalty
# :label: theorem-smoothing
#
# For all logits,
#
# $$
# L_\text{LS} = \operatorname{CE}(y, s) + \frac{\alpha}{K} \sum_k d_k \; - \; \alpha\, d_y .
# $$
#
# Where the label's logit is the largest, the last term is 0.
# ```
#
# ```{prf:proof}
# With $\log s_k = l_k - \operatorname{lse}(l)$, $\operatorname{lse}(l) = \log \sum_j e^{l_j}$, and since the label sums to 1,
#
# $$
# L_\text{LS} = \operatorname{lse}(l) - (1 - \alpha)\, l_y - \frac{\alpha}{K} \sum_k l_k
#   = \operatorname{CE}(y, s) + \frac{\alpha}{K} \sum_k (l_y - l_k) .
# $$
#
# And $l_y - l_k = d_k - d_y$.
# ```
#
# The penalty is linear in distances that cannot be negative, so the constraint behind it is $d_k = 0$ for every $k$: all
# logits equal {cite}`liu2022`. Our MbLS with a margin of 0 has this very penalty, and the identity can be tried on random
# logits, right and wrong pixels alike:

# %%
torch.manual_seed(seed)
label = torch.zeros(2000, 1, 1, dtype=torch.long)
logits = 3 * torch.randn(2000, num_classes, 1, 1, dtype=torch.float64)
behind = logits.amax(dim=1) - logits[:, 0]
each = {"reduction": "none"}
smoothed = label_smoothing_loss(logits, label, smoothing=0.1, **each)
linear = mbls_loss(logits, label, margin=0.0, penalty_weight=0.1, **each)
linear_error = (smoothed - (linear - 0.1 * behind)).abs().max().item()
pd.Series(
    {"largest difference": linear_error}, name="LS and its penalty"
).to_frame()

# %% [markdown]
# The gradient of a cross-entropy is prediction minus label, and 0 at
#
# ```{math}
# :label: family-ls-ceiling
# s_y = 1 - \alpha + \frac{\alpha}{K} .
# ```
#
# ## Focal loss and the entropy penalty: be uncertain
#
# The entropy $H(s) = -\sum_k s_k \log s_k$ is at most $\log K$, and reaches it where all logits are equal. So
# "$H(s) = \log K$" is the same constraint again, $d_k = 0$, measured with another ruler. The explicit confidence
# penalty, ECP {cite}`pereyra2017`, is its Lagrangian with a fixed price; in our convention
#
# ```{math}
# :label: family-ecp
# L_\text{ECP} = \operatorname{CE}(y, s) - c\, H(s) .
# ```
#
# Focal loss {cite}`lin2017`, $L_\text{FL} = -(1 - s_y)^\gamma \log s_y$, was made to count sure pixels less. Mukhoti and
# colleagues {cite}`mukhoti2020` found the same Lagrangian below it:
#
# ```{prf:theorem} Focal loss lies above an entropy penalty
# :label: theorem-focal
#
# For $\gamma \ge 1$ and all logits, $L_\text{FL} \ge \operatorname{CE}(y, s) - \gamma H(s)$.
# ```
#
# ```{prf:proof}
# Bernoulli's inequality says $(1 - s_y)^\gamma \ge 1 - \gamma s_y$ for $\gamma \ge 1$. Multiply it with
# $-\log s_y \ge 0$:
#
# $$
# L_\text{FL} \ge -\log s_y + \gamma\, s_y \log s_y \ge \operatorname{CE}(y, s) + \gamma \sum_k s_k \log s_k ,
# $$
#
# since the terms that the sum adds are not positive.
# ```
#
# The smallest difference of the two sides on the random logits (the right side is ECP with $c = \gamma$):

# %%
slack = {
    g: focal_loss(logits, label, gamma=g, **each)
    - entropy_penalty_loss(
        logits, label, penalty_weight=g * num_classes, **each
    )
    for g in (0.5, 1.0, 2.0, 3.0)
}
slack = {f"gamma = {g:g}": x.min().item() for g, x in slack.items()}
pd.Series(slack).to_frame("smallest difference")

# %% [markdown]
# (Below $\gamma = 1$ the proof fails, not the bound: here at least it was kept.) But to push down a function is not to
# push down what lies below it. As $s_y \to 1$ both factors of the focal loss go to 0, and both fall all the way: **it
# has no ceiling**. It only pulls less and less. ECP does have one. At $s_y = p$, with the others equal,
# $\partial H / \partial p = -\log p + \log \frac{1 - p}{K - 1} = -d$ by {eq}`family-confidence`; so the slope of the loss
# in $p$ is $-1/p + c\, d$, and it is 0 at
#
# ```{math}
# :label: family-ecp-ceiling
# c\, d = \frac{1}{p(d)} = 1 + (K - 1)\, e^{-d} .
# ```
#
# The left side rises in $d$ and the right side falls, so there is one solution; for small $c$ it is close to
# $d = 1 / c = K / \lambda$. With $K = 4$ and $\lambda = 0.1$ that is a distance of 40 logits. A ceiling in theory.
#
# ## MbLS: distances are free, up to a margin
#
# Margin-based label smoothing {cite}`liu2022,murugesan2023` relaxes $d_k = 0$ to $d_k \le m$. A penalty for an
# inequality charges only the excess, a *hinge*:
#
# ```{math}
# :label: family-mbls
# L_\text{MbLS} = \operatorname{CE}(y, s) + c \sum_k \max(0,\, d_k - m) .
# ```
#
# Up to the margin it is cross-entropy, which pulls on. Beyond it, with all other classes at one distance $d$, the slope in $d$ is
# $-(1 - p(d)) + (K - 1)\, c$. If that is positive at the margin already, $d$ stops there; otherwise it
# goes on until $1 - p = (K - 1)\, c$. So
#
# ```{math}
# :label: family-mbls-ceiling
# s_y = \max \bigl( p(m),\; 1 - (K - 1)\, c \bigr) .
# ```
#
# With $m = 0$ and $\lambda = \alpha$ the second is {eq}`family-ls-ceiling`, as {prf:ref}`theorem-smoothing` demands.
#
# ## SVLS and NACL: be like the neighbours
#
# The constraints so far do not know where a pixel lies. SVLS {cite}`islam2021` has the constraint $s = \tau$, with the
# divergence $\operatorname{KL}(\tau \| s)$ as its penalty and a fixed balance ({prf:ref}`theorem-split`): the ceiling is
# $(1 + \tau_y) / 2$, and none inside an object, where $\tau_y = 1$. NACL {cite}`murugesan2025` has $l = \tau$. With the L1
# penalty its ceiling is $\max(1 - c,\, \operatorname{softmax}(\tau)_y)$, by {prf:ref}`corollary-ceiling`. Like CRaC below,
# and unlike the others, it fixes the logits themselves (with L1 from three classes on) and not only their distances.
#
# ## Ceilings, by formula and by force
#
# `nacl.theory.confidence_ceiling` holds the formulas. To check them, hand the loss of one pixel to an optimiser that
# knows nothing of them, and look at the confidence where it comes to rest:

# %%
asked = {
    "LS": ("label_smoothing", {}),
    "ECP, λ = 1": ("ecp", {"penalty_weight": 1.0}),
    "MbLS, m = 10": ("mbls", {}),
    "MbLS, m = 5": ("mbls", {"margin": 5.0}),
    "MbLS, m = 3": ("mbls", {"margin": 3.0}),
    "NACL": ("nacl", {}),
    "NACL, L2": ("nacl", {"penalty": "l2"}),
}

# %%
one, start = torch.zeros(1, 1, 1, dtype=torch.long), np.eye(num_classes)[0]
shape, powell = (1, -1, 1, 1), {"method": "Powell", "tol": 1e-12}
rows = {}
for name, (key, options) in asked.items():
    found = minimize(
        lambda x, f: f(torch.as_tensor(x).view(shape), one).item(),
        start,
        (build_loss(key, **options),),
        **powell,
    )
    rest = torch.as_tensor(found.x).softmax(dim=0)[0].item()
    rows[name] = rest, confidence_ceiling(key, num_classes, **options)
ceilings = pd.DataFrame(rows, ["minimised", "formula"]).T
ceilings.style.format("{:.6f}")

# %% [markdown]
# ## The pull on a sure pixel
#
# A ceiling is where the pull ends. Here is the pull itself: minus the derivative of the loss in the label's logit, inside
# an object, with the other logits at 0 and the label's at $d$. Above 0 the loss wants the pixel surer, below 0 less
# sure. All parameters are the defaults. (SVLS is cross-entropy here. CRaC moves as it learns, and comes below.) **Some curves
# lie on one another, with the marks of both**: on the left ECP nearly on cross-entropy (how nearly is said below), and all
# three near 0 far out; on the right MbLS on cross-entropy, exactly, up to its margin.

# %%
gap = torch.linspace(-6, 12, 361, dtype=torch.float64)
at = torch.zeros(len(gap), num_classes, 1, 1, dtype=torch.float64)
at[:, 0, 0, 0] = gap
same = torch.zeros(len(gap), 1, 1, dtype=torch.long)
keys, pull = {x: k for k, x in plots.LOSS_NAMES.items()}, {}
for row in family_table()[:-1]:  # all but CRaC
    key = keys[row.name]
    here = at.clone().requires_grad_()
    loss = build_loss(key, reduction="sum")(here, same)
    pull[key] = -torch.autograd.grad(loss, here)[0][:, 0].flatten()

# %%
sure = gap >= 2.5
drawn = {key: (gap[sure], values[sure]) for key, values in pull.items()}
without = ("ce", "focal", "ecp")
ending = ("ce", "label_smoothing", "mbls", "nacl")
plots.curves(
    {
        "no ceiling, or out of reach": {key: drawn[key] for key in without},
        "a ceiling": {key: drawn[key] for key in ending},
    },
    "distance d of the label's logit",
    "pull towards the label",
)

# %%
pulls = pd.DataFrame(
    {plots.LOSS_NAMES[key]: values.numpy() for key, values in pull.items()},
    index=gap.numpy().round(2),
).T
pulls = pulls[[-6.0, 0.0, 3.0, 6.0, 12.0]]
(pulls.round(4) + 0).style.format("{:.4f}").format_index("d = {:g}", axis=1)

# %% tags=["hide-input"]
tops = {
    key: confidence_ceiling(key, num_classes)
    for key in ("label_smoothing", "nacl", "mbls")
}
turns = {
    key: math.log((num_classes - 1) * p / (1 - p))
    for key, p in tops.items()
}
Markdown(
    f"**What we saw.** On a pixel that is sure and wrong (d = −6) all pull alike, by {pulls[-6.0].min():.2f} to "
    f"{pulls[-6.0].max():.2f}. They part on pixels that are right. At d = 3 cross-entropy still pulls by "
    f"{pulls.loc['CE', 3.0]:.4f}, the focal loss by {pulls.loc['FL', 3.0]:.4f}: it loses interest, and never turns round. "
    f"Label smoothing pushes back from d = {turns['label_smoothing']:.2f} on, NACL from {turns['nacl']:.2f}, MbLS from "
    f"{turns['mbls']:.2f}. Far out, at d = 12, label smoothing and MbLS push by {-pulls.loc['MbLS', 12.0]:.3f}, since each of "
    f"the {num_classes - 1} distances pays; NACL by {-pulls.loc['NACL', 12.0]:.3f}, since only the label's logit is out of "
    f"place. The default ECP differs from cross-entropy by at most {(pull['ecp'] - pull['ce']).abs().max():.3f} anywhere."
)

# %% [markdown]
# So a network that is trained with cross-entropy or SVLS spends part of its steps on pixels that have been right for
# long. Focal loss saves these steps, and label smoothing, NACL and MbLS undo them.
#
# ## The ceiling against the parameter
#
# What is left to the other classes at the ceiling, $1 - s_y$, against $\alpha$ or $\lambda$, for MbLS with its default
# margin of 10 and with a margin of 5. (MbLS with a margin of 5 begins on the line of label smoothing, and its marks sit
# there: up to the margin's ceiling the two formulas are the same, {eq}`family-mbls-ceiling` and {eq}`family-ls-ceiling`.)

# %%
weight = np.logspace(-3, 1, 81)
of = {"nacl": {}, "ecp": {}, "mbls": {"margin": 10.0}}
of |= {"mbls + margin 5": {"margin": 5.0}, "label_smoothing": {}}
left = {f"K = {K}": {} for K in (4, 16)}
for key, K in ((key, K) for key in of for K in (4, 16)):
    name = "penalty_weight" if key != "label_smoothing" else "smoothing"
    x = weight[weight <= 1] if name == "smoothing" else weight
    each = [{name: w, **of[key]} for w in x]
    y = [1 - confidence_ceiling(key.split(" ")[0], K, **e) for e in each]
    left[f"K = {K}"][key] = x, np.where(np.array(y) > 1e-6, y, np.nan)

# %%
plots.curves(
    left,
    "α of label smoothing, λ of the others",
    "left to the other classes, $1 - s_y$",
    log_x=True,
    log_y=True,
)

# %% [markdown]
# Label smoothing and NACL are dials: the share that is left is proportional to the parameter. (NACL's ends where
# $\operatorname{softmax}(\tau)_y$ takes over.) MbLS with a small weight is one too, and then a
# switch: once the hinges outweigh cross-entropy at the margin, $\lambda$ has no more say, and the margin sets the ceiling. ECP is a cliff: nothing for small $\lambda$, and
# then, within one decade, a large part. And the same $\lambda$ is another ceiling for another $K$: with $K = 16$ NACL leaves a quarter of
# what it leaves with $K = 4$, while label smoothing leaves a little more.
#
# ## CRaC: let the price be found
#
# A penalty with a fixed weight keeps its constraint more or less. CRaC {cite}`murugesan2024` wants to keep it, and so
# learns the weight. Its constraints are MbLS's and NACL's in one: $l = m \tau$ inside an object (all neighbours agree,
# $\tau$ is one-hot, the distance is $m$) and $l = \tau$ at borders. With the distances $h_k = |l_k - m \tau_k|$ (at borders
# $|l_k - \tau_k|$) and a weight $\rho > 0$ of the square (1 here), it adds
# to cross-entropy an **augmented Lagrangian** {cite}`birgin2005`,
#
# ```{math}
# :label: family-crac
# \begin{gathered}
# L_\text{CRaC} = \operatorname{CE}(y, s) + \frac1K \sum_k P_k , \\
# P_k = \mu_k h_k + \tfrac12 \rho\, h_k^2 , \\
# \mu_k \leftarrow \mu_k + \rho\, h_k .
# \end{gathered}
# ```
#
# The square alone, however large $\rho$, leaves some $h_k > 0$: at the minimum its pull $\rho h_k$ holds the pull of
# cross-entropy. The second formula takes up exactly this pull into the *multiplier* $\mu_k$. At the next minimum the
# square has less to hold, and so $h_k$ shrinks, round after round. It is 0 when $\mu_k$ alone does the work:
#
# ```{math}
# :label: family-crac-price
# \mu_k = K \left| s_k - y_k \right| \quad \text{at } l = m \tau .
# ```
#
# There the confidence is $p(m)$. So the price is not chosen but found: it is the pull of cross-entropy at the place where the constraint
# holds. One pixel, a margin of 3, and in each round: minimise, observe, update.

# %%
crac, steps = CRaCLoss(num_classes, margin=margin).double(), []
x = start
for _ in range(rounds):
    x = minimize(
        lambda x: crac(torch.as_tensor(x).view(shape), one).item(),
        x,
        **powell,
    ).x
    rest = torch.as_tensor(x).view(shape)
    p = rest.softmax(dim=1)[0, 0].item()
    steps.append([*crac.multipliers[0, :2].tolist(), x[0], p])
    crac.observe(rest, one)
    crac.update()

# %%
at_margin = 1 / (1 + (num_classes - 1) * math.exp(-margin))
price = num_classes * (1 - at_margin)
steps.append([price, price / (num_classes - 1), margin, at_margin])
names = ["μ, label", "μ, others", "label's logit", "confidence"]
index = [*range(1, rounds + 1), "limit"]
crac_steps = pd.DataFrame(steps, index, names).rename_axis("round")
crac_steps.style.format("{:.4f}")

# %% [markdown]
# The last row is {eq}`family-crac-price`. In training the rounds are epochs, the multipliers come from validation pixels,
# and each class has two, one inside and one at borders.
#
# ## The family
#
# The table of `nacl.theory.family_table`, with the ceilings inside an object at the default parameters.

# %%
table = family_table()
family = pd.DataFrame(table)
family["default"] = [
    "none" if "none" in row.ceiling else "learned" for row in table
]
for place, row in enumerate(table):
    if row.name in ("LS", "ECP", "MbLS", "NACL"):
        ceiling = confidence_ceiling(keys[row.name], num_classes)
        family.loc[place, "default"] = f"{ceiling:.4f}"

# %% tags=["hide-input"]
family = family.drop(columns="source")
signs = {"alpha": "α", "gamma": "γ", "lambda": "λ", "tau": "τ"}
signs |= {
    "-1": "−1",
    "<=": "≤",
    ">=": "≥",
    r"\|\|": "‖",
    " - ": " − ",
    r"\(-": "(−",
}
signs |= {"sum_": "Σ_", r"_(\w)": r"<sub>\1</sub>"}
for letters, sign in signs.items():
    family = family.replace(letters, sign, regex=True)
family.columns = ["loss", "constraint", "enforced by", "ceiling", "default"]
family.style.hide(axis="index").set_properties(
    **{"text-align": "left", "white-space": "normal"}
)

# %% [markdown]
# (ECP's 1.0000 is rounded, and so would sixteen digits be.) Of the seven in the question above two stop below 0.99: label smoothing and NACL.
#
# **Where it fails.** A ceiling is the minimum for *one* pixel whose label is *certain*. A network that cannot tell two
# pixels apart must answer for both, and stops before any minimum. "Constraint" is a reading, too, and not for
# every loss an equally good one: {prf:ref}`theorem-smoothing` and {eq}`family-mbls` are identities, but focal loss only lies above
# its Lagrangian, and does not share its ceiling. And no ceiling here knows whether 0.975 is *right*; that depends on
# the labels, see {doc}`07_nacl`.
#
# ## Exercises
#
# ```{exercise}
# :label: exercise-family-margin
# MbLS with four classes and $\lambda = 0.1$. From which margin on does the hinge hold, so that the ceiling is $p(m)$? And how small
# must $\lambda$ be before it fails at a margin of 10?
# ```
#
# ```{solution} exercise-family-margin
# :class: dropdown
# By {eq}`family-mbls-ceiling` it holds if $1 - p(m) \le (K - 1)\, c$. With {eq}`family-confidence` this is
# $e^m + K - 1 \ge 1 / c$, or $m \ge \log (K / \lambda - K + 1) = \log 37 \approx 3.61$. That is why the margin 3 was
# given 0.925 above, and not $p(3)$. At $m = 10$ it holds as long as $\lambda \ge K / (e^{10} + 3) \approx 0.00018$.
# ```
#
# ```{exercise}
# :label: exercise-family-smoothing
# Which $\alpha$ gives label smoothing the ceiling of L1-NACL? What then still tells the two apart?
# ```
#
# ```{solution} exercise-family-smoothing
# :class: dropdown
# $\alpha (K - 1) / K = \lambda / K$, so $\alpha = \lambda / (K - 1)$; for $K = 4$ and $\lambda = 0.1$ it is $1/30$. Inside
# an object the two then ask for the same probabilities. At a border NACL keeps its ceiling and gives the
# classes of the window more of the rest than the others, as their $e^{\tau_k}$; label smoothing gives all the same.
# And NACL fixes the level of the logits, which label smoothing leaves free.
# ```
#
# ```{exercise}
# :label: exercise-family-ecp
# Which $\lambda$ gives ECP a ceiling of 0.975 with four classes? Why is it so much larger than NACL's 0.1?
# ```
#
# ```{solution} exercise-family-ecp
# :class: dropdown
# By {eq}`family-confidence` $d = \log (3 \cdot 0.975 / 0.025) = \log 117 \approx 4.76$, and by {eq}`family-ecp-ceiling`
# $c = 1 / (p\, d) \approx 0.215$, so $\lambda = K c \approx 0.86$. The entropy of a sure pixel is nearly flat in the
# logits (its slope there is $-p\,(1 - p)\, d$), while $|l - \tau|$ has slope 1 everywhere. At a confidence of 0.975 it
# takes a larger price to make so small a slope count.
# ```
#
# **Take-away.** Ask of a loss: which distance does it charge for, from where on, and does its charge outlast the pull of
# cross-entropy? Label smoothing and NACL turn round early and MbLS late; focal loss only tires, and SVLS does neither
# inside an object. CRaC finds its price by itself.

# %% tags=["hide-cell"]
assert linear_error < 1e-12
assert min(slack.values()) >= 0
assert (ceilings.minimised - ceilings.formula).abs().max() < 1e-6
assert (pull["svls"] - pull["ce"]).abs().max() < 1e-12
assert all((pull[key] > 0).all() for key in ("ce", "focal", "ecp"))
slopes = {key: np.interp(d, gap, pull[key]) for key, d in turns.items()}
assert max(abs(slopes["nacl"]), abs(slopes["label_smoothing"])) < 1e-4
same_pull = (pull["mbls"] - pull["ce"])[gap < 10]
assert same_pull.abs().max() < 1e-12
assert (pull["mbls"][gap > turns["mbls"] + 0.01] < 0).all()
assert turns["label_smoothing"] < turns["nacl"] < turns["mbls"]
assert (pull["ecp"] - pull["ce"]).abs().max() < 0.02
leaves = {K: 1 - confidence_ceiling("nacl", K) for K in (4, 16)}
assert np.isclose(leaves[16] / leaves[4], 1 / 4)
leaves = {K: 1 - confidence_ceiling("label_smoothing", K) for K in (4, 16)}
assert 1.2 < leaves[16] / leaves[4] < 1.3
assert 1 - confidence_ceiling("ecp", 4) < 1e-15
off = (crac_steps.iloc[:-1] - crac_steps.iloc[-1]).abs()
assert (off.iloc[-1] < 0.01 * off.iloc[0]).all()
assert (off.diff().iloc[1:] < 0).all(axis=None)
assert crac_steps["label's logit"].is_monotonic_decreasing
below = {key for key in pull if confidence_ceiling(key, 4) < 0.99}
assert below == {"label_smoothing", "nacl"}
assert abs(math.log(4 / 0.1 - 3) - 3.61) < 0.005
assert confidence_ceiling("mbls", 4, margin=3.0) == 0.925
assert abs(4 / (math.exp(10) + 3) - 0.00018) < 5e-6
alike = confidence_ceiling("label_smoothing", 4, smoothing=1 / 30)
assert np.isclose(alike, confidence_ceiling("nacl", 4))
wanted = 4 / (0.975 * math.log(117))
assert abs(wanted - 0.86) < 0.005
reached = confidence_ceiling("ecp", 4, penalty_weight=wanted)
assert abs(reached - 0.975) < 1e-9
