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
# # Why is a network so sure of itself?
#
# **You need** softmax, cross-entropy and derivatives. **Run time**: under half a minute.
#
# **Claim.** Cross-entropy asks for certainty. On a training set that a network can fit, the loss has no minimum at any
# finite weights: it falls as long as the confidence grows. What keeps a network's confidence below 1 is that training
# stops, and a label that was drawn by chance ends up as certain as any other. The accuracy hardly shows it.

# %% tags=["parameters"]
classes = 2
pixels = 400  # to learn from, with one drawn label each
new_pixels = 4000
inputs = 20  # numbers that a network sees of a pixel
features = 1000  # of the network with many weights
contrast = 4.0  # the larger, the surer is the truth
seed = 0

# %% tags=["hide-input"]
import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from IPython.display import Markdown
from nacl import plots
from nacl.parameters import check_parameters
from nacl.theory import fitted_gap, fitting_time, gradient_flow
from scipy.integrate import solve_ivp
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax

check_parameters(globals())

# small tensors: more threads cost more than they bring
torch.set_num_threads(1)

# %% [markdown]
# **Predict.** Two annotators draw the same organ. At a blurred pixel of its border each of them says "organ" with
# probability 0.6. A network has seen the label of one of them only, "organ", and is trained for very long. How
# sure will it be at that pixel? And once its loss on *new* pixels has begun to rise, will it soon be wrong much more often
# there? Write down a number, and a yes or no.
#
# ## One pixel: a pull that never ends
#
# At one pixel a network says $K$ numbers, the *logits* $l \in \mathbb R^K$, one for each class. Softmax makes them
# probabilities, $s_k = e^{l_k} / \sum_j e^{l_j}$, of which the largest is the network's *confidence*. The label is class
# $y$; written one-hot it is a vector that is 1 at class $y$ and 0 elsewhere, which we call $y$ too. The cross-entropy is
# $-\log s_y = \log \sum_j e^{l_j} - l_y$. Its derivative in $l_k$ is $s_k$ from the first term, less 1 from the second if
# $k$ is the label:
#
# ```{math}
# :label: logit-gradient
# \frac{\partial}{\partial l} \left( -\log s_y \right) = s - y .
# ```
#
# Softmax of finite logits is never 0 or 1. So this gradient is never 0: cross-entropy always wants the logit of the label
# higher and all others lower. Autograd agrees, in double precision:

# %%
torch.manual_seed(seed)
logits = 3 * torch.randn(5, 4, dtype=torch.float64)
own = torch.tensor([0, 1, 2, 3, 0])
live = logits.clone().requires_grad_()
loss = F.cross_entropy(live, own, reduction="sum")
(slope,) = torch.autograd.grad(loss, live)
formula = logits.softmax(dim=1) - F.one_hot(own, 4)
pd.Series(
    {
        "largest difference from s - y": (slope - formula)
        .abs()
        .max()
        .item(),
        "smallest gradient": slope.abs().min().item(),
    },
    name="autograd",
).to_frame()

# %% [markdown]
# How fast does it go? *Gradient flow* is gradient descent in steps so small that only their sum counts:
# $l' = -\partial L / \partial l = y - s$, where $'$ is the derivative in the time $t$, the length of a step times the
# number of steps. Start with all logits equal. The other classes are treated alike, so they stay equal to each other, and
# only the *lead* $d = l_y - l_k$ of the label matters. Then $s_y = e^d / (e^d + K - 1)$ and each other class has
# $s_k = 1 / (e^d + K - 1)$, so
#
# ```{math}
# :label: gap-flow
# d' = (1 - s_y) + s_k = \frac{K}{e^d + K - 1} .
# ```
#
# ```{prf:theorem} Certainty takes time, and nothing else
# :label: theorem-flow
#
# From equal logits, gradient flow on the cross-entropy of one pixel has at time $t$ the lead $d$ for which
#
# $$
# e^d + (K - 1)\, d = K t + 1 .
# $$
#
# The lead grows without end, and the doubt that is left, $1 - s_y$, falls like $1/t$:
# $\; (1 - s_y) \cdot \frac{K t}{K - 1} \to 1$.
# ```
#
# ```{prf:proof}
# Multiply {eq}`gap-flow` by its denominator: $(e^d + K - 1)\, d' = K$. The left side is the derivative of
# $e^d + (K - 1)\, d$ in $t$; at $t = 0$, with $d = 0$, this is 1. The left side of the theorem has no bound in $t$, so $d$ has none.
# And $1 - s_y = (K - 1) / (e^d + K - 1)$, where $e^d + K - 1 = K t + K - (K - 1)\, d$ by the theorem. Since
# $e^d \le K t + 1$, $d$ is at most $\log (K t + 1)$; divided by $K t$ it goes to 0, and the sum goes to $K t$.
# ```
#
# So in the end ten times less doubt takes ten times as long. `nacl.theory.fitted_gap` solves the equation; beside it a numeric
# integration of $l' = y - s$ that knows none of this:

# %%
times = torch.tensor([1.0, 10, 100, 1000, 10000], dtype=torch.float64)
options = {"t_eval": times, "rtol": 1e-9, "atol": 1e-9}
path = solve_ivp(
    lambda t, now: np.eye(4)[0] - softmax(now), (0, 1e4), [0] * 4, **options
).y
lead = fitted_gap(times, 4)
doubt = 3 / (lead.exp() + 3)
columns = {"lead d": lead, "integrated": path[0] - path[1]}
columns |= {"doubt": doubt, "doubt · Kt / (K − 1)": doubt * times * 4 / 3}
certainty = pd.DataFrame(columns, pd.Index(times.numpy(), name="time t"))
certainty.style.format("{:.4f}").format(
    "{:.2e}", subset=["doubt"]
).format_index("{:g}")

# %% [markdown]
# ## Many pixels: nothing to stop at
#
# A network has one set of weights for all pixels, and cannot move their logits one by one. Does the pull end then? Not if
# it can fit its labels.
#
# ```{prf:theorem} No minimum
# :label: theorem-never
#
# Let the last layer of a network be linear, and let it rank every label of its training set first: the *margin*
# $m = \min_i \min_{k \ne y_i} (l_{i, y_i} - l_{i, k})$ over the pixels $i$ is above 0. Multiply the last layer by $r$.
# Then the mean cross-entropy $L$ is at most $(K - 1)\, e^{-r m}$, and it falls for ever as $r$ grows. So the least lower
# bound of the loss is 0, and no weights reach it.
# ```
#
# ```{prf:proof}
# The logits become $r\, l_i$. A pixel's loss is $\log \left( 1 + \sum_{k \ne y_i} e^{-r (l_{i, y_i} - l_{i, k})} \right)$, and
# $\log (1 + x) \le x$, so it is at most $(K - 1)\, e^{-r m}$. Each exponent falls with $r$, and with it the loss. At finite
# logits each loss is above 0, so $L$ is.
# ```
#
# The theorem says where the loss would like to go. Does training go there? For a network that is linear in all the
# weights it learns, one can prove it. Let $x_i \in \mathbb R^M$ be the features of pixel $i$, $W$ the weights
# ($M \times K$), and $l_i = W^\top x_i$. By {eq}`logit-gradient` and the chain rule, gradient flow is
#
# ```{math}
# :label: weights-flow
# W' = -\frac{\partial L}{\partial W} = \frac1n \sum_{i=1}^n x_i \left( y_i - s_i \right)^\top , \qquad W(0) = 0 .
# ```
#
# ```{prf:theorem} Training finds it
# :label: theorem-training
#
# If some weights $V$ of norm 1 (the root of the sum of squares) fit all $n$ labels with a margin $\gamma > 0$, then for $t > 1$
#
# $$
# L(W(t)) \le \frac{K - 1}{t} + \frac{(\log t)^2}{2 \gamma^2\, t} ,
# $$
#
# and every single training label has $1 - s_{i, y_i} \le n L \to 0$.
# ```
#
# ```{prf:proof}
# Take any fixed weights $U$, and let $D = \tfrac12 \lVert W - U \rVert^2$. Then
# $D' = \langle W - U, W' \rangle$, which is $\langle U - W, \partial L / \partial W \rangle$. Cross-entropy is convex in the logits, and the
# logits are linear in $W$, so $L$ lies above each of its tangents: $L(U) \ge L(W) + \langle U - W, \partial L / \partial W \rangle$.
# Hence $D' \le L(U) - L(W)$. Integrate from 0 to $t$. Along the flow $L' = -\lVert \partial L / \partial W \rVert^2 \le 0$,
# so $L(W)$ is never less than at the end; and $D \ge 0$:
#
# $$
# \begin{aligned}
# t\, L(W(t)) &\le \int_0^t L(W) \\
#   &\le t\, L(U) + D(0) \\
#   &= t\, L(U) + \tfrac12 \lVert U \rVert^2 .
# \end{aligned}
# $$
#
# Choose $U = r V$ with $r = \log (t) / \gamma$. By {prf:ref}`theorem-never`, $L(U) \le (K - 1)\, e^{-\log t} = (K - 1) / t$.
# Last, a pixel's doubt is at most its loss, $1 - s \le -\log s$, and its loss at most the sum of all, $n L$.
# ```
#
# Nothing in the proof asks whether the labels are *right*.
#
# ## Labels drawn by chance
#
# At a blurred border several labels are reasonable. Say pixel $i$ is labelled $k$ with probability $p_{ik}$. Over
# all labels that could be drawn there, the mean loss and its gradient are
#
# ```{math}
# :label: chance-loss
# E = -\sum_k p_k \log s_k , \qquad \frac{\partial E}{\partial l} = s - p ,
# ```
#
# by {eq}`logit-gradient` and $\sum_k p_k = 1$. This one *does* vanish, at $s = p$: with unlimited labels for each pixel,
# cross-entropy would teach the truth, at finite logits. A training set has one label for each pixel, and asks for certainty.
#
# To see both at once we need pixels whose $p$ is known. Here is a small world. What a network sees of a pixel is a row
# of random inputs; $p$ is the softmax of fixed random combinations of them; the training labels are drawn from $p$. The new
# pixels need no labels, since we can average over $p$.

# %%
torch.manual_seed(seed)
torch.set_default_dtype(torch.float64)
x = torch.randn(pixels + new_pixels, inputs)
mix = torch.randn(inputs, classes) / inputs**0.5
truth = (contrast * x @ mix).softmax(dim=1)
train, new = truth.split([pixels, new_pixels])
labels, each = train.multinomial(1)[:, 0], torch.arange(pixels)
agreement = train[each, labels].mean().item()
unlucky = (train.argmax(dim=1) != labels).double().mean().item()
pd.Series(
    {
        "a second annotator agrees, a": agreement,
        "not the likelier class": unlucky,
    },
    name="share of the training labels",
).to_frame()

# %% [markdown]
# The first row is $a = \frac1n \sum_i p_{i, y_i}$, the share of the labels on which a second annotator would agree. The
# second is the share of training labels that are not even the likelier class.
#
# Begin with pure memory: each training pixel has logits of its own, which share nothing.
#
# ```{prf:theorem} When memory should stop
# :label: theorem-stop
#
# Let each pixel follow {prf:ref}`theorem-flow`, and let $a > 1/K$. The mean loss on the labels of a second annotator
# falls while the confidence is below $a$, is least where it is $a$, at the time
#
# $$
# \begin{aligned}
# t^\star &= \frac1K \left( e^{d^\star} - 1 + (K - 1)\, d^\star \right) , \\
# d^\star &= \log \frac{(K - 1)\, a}{1 - a} ,
# \end{aligned}
# $$
#
# and, if $a < 1$, then grows without bound: it is at least $(1 - a)\, d$.
# ```
#
# ```{prf:proof}
# All pixels have the same lead $d$. At pixel $i$ the mean loss over the second label is
# $\log (e^d + K - 1) - p_{i, y_i} d$, by {eq}`chance-loss` with the other logits set to 0. Its mean over the pixels is
# $E = \log (e^d + K - 1) - a d$, with the derivative $s_y - a$ in $d$. As $d$ grows, so does $s_y$, from $1/K$ towards 1. Solve
# $s_y = a$ for $d$, put it into {prf:ref}`theorem-flow`, and use $\log (e^d + K - 1) \ge d$.
# ```
#
# Check it: flow the logits of all training pixels, score them against $p$, and look where the score is least. (The
# loss is a mean over the $n$ pixels, so each of them takes $n$ times as long.)

# %%
own_time = torch.linspace(0.5, 10, 400)
table = torch.eye(pixels)
free = gradient_flow(table, labels, own_time * pixels, classes)
second = -(train * free.log_softmax(dim=2)).sum(dim=2).mean(dim=1)
best = second.argmin()
confidence = free[best].softmax(dim=1).amax(dim=1).mean().item()
star = torch.tensor(agreement).logit() + np.log(classes - 1)
stop = fitting_time(star, classes).item()
pd.DataFrame(
    {
        "time": [own_time[best].item(), stop],
        "confidence": [confidence, agreement],
    },
    ["found", "by theory: t*, a"],
)

# %% [markdown]
# ## Networks
#
# Memory says nothing about new pixels. A network does, because pixels share its weights. Take two that see the same
# pixels and are trained by {eq}`weights-flow` on the same labels for the same time. One has *few weights*: it is linear in the inputs, as the
# truth is, so the truth is within its reach. The other has *many*: a hidden layer of random units whose outputs are its features, more than
# enough to fit any labels of so few pixels.

# %%
hidden = torch.randn(inputs, features) / inputs**0.5
many_features = (x @ hidden).relu() * (2 / features) ** 0.5
seen = {"few weights": x / inputs**0.5, "many weights": many_features}
time = torch.logspace(0, 5, 31)
weights = {
    name: gradient_flow(f[:pixels], labels, time, classes)
    for name, f in seen.items()
}
said = {n: (f @ weights[n]).log_softmax(dim=2) for n, f in seen.items()}

# %% [markdown]
# The accuracy on new pixels is the probability that the predicted class is drawn; the loss there is {eq}`chance-loss`.

# %%
own = {name: s[:, each, labels] for name, s in said.items()}
means = {}
for name, s in said.items():
    there = s[:, pixels:]
    right = new.gather(1, there.argmax(dim=2).T)
    columns = {"loss, its own pixels": -own[name].mean(dim=1)}
    columns["loss, new pixels"] = -(new * there).sum(dim=2).mean(dim=1)
    columns["accuracy, new pixels"] = right.mean(dim=0)
    columns["confidence, new pixels"] = there.exp().amax(2).mean(dim=1)
    means[name] = pd.DataFrame(columns, time.numpy())

# %%
panels = {
    name: {what: (time, frame[what]) for what in frame}
    for name, frame in means.items()
}
plots.curves(panels, "training time t", "share, or loss", log_x=True)

# %% tags=["hide-input"]
few, many = means["few weights"], means["many weights"]
turn = many["loss, new pixels"].idxmin()
at, end = many.loc[turn], many.iloc[-1]
floor = -torch.xlogy(new, new).sum(dim=1).mean().item()
few_gap, turn_gap, end_gap = (
    row["confidence, new pixels"] - row["accuracy, new pixels"]
    for row in (few.iloc[-1], at, end)
)
change = end - at
Markdown(
    f"**What we saw.** The network with many weights drives the loss on its own pixels to {end['loss, its own pixels']:.3f}. On "
    f"new pixels its loss is least, {at['loss, new pixels']:.3f}, at t = {turn:.0f}; the truth itself would have {floor:.3f}. "
    f"From there to the end it grows to {end['loss, new pixels']:.3f}. The labels that were learned by heart cost "
    f"{-100 * change['accuracy, new pixels']:.1f} points of accuracy, which ends at {end['accuracy, new pixels']:.3f}; "
    f"meanwhile the confidence grows by {100 * change['confidence, new pixels']:.1f} points, to "
    f"{end['confidence, new pixels']:.3f}. Confidence less accuracy was {turn_gap:.3f} at the "
    f"turn and is {end_gap:.3f} at the end. The network with few weights cannot fit its labels: its loss on them stays at "
    f"{few['loss, its own pixels'].iloc[-1]:.3f}, a minimum at finite weights, and it ends {few_gap:.3f} too sure."
)

# %% [markdown]
# Guo et al. {cite}`guo2017` saw the same disconnect in large image classifiers: the loss on held-out images can rise in training while
# the error there still falls.
#
# Are {eq}`weights-flow`, {eq}`chance-loss` and the bound of {prf:ref}`theorem-training` right? Ask autograd for the gradients
# at the end. The weights there, divided by their norm, fit all labels with a margin, so they will do for $V$.

# %%
final = weights["many weights"][-1].clone().requires_grad_()
logits = many_features @ final
loss = F.cross_entropy(logits[:pixels], labels)
(slope_own,) = torch.autograd.grad(loss, final, retain_graph=True)
residual = logits[:pixels].softmax(dim=1) - F.one_hot(labels, classes)
error_own = slope_own - many_features[:pixels].T @ residual / pixels
chance = F.cross_entropy(logits[pixels:], new, reduction="sum")
(slope_new,) = torch.autograd.grad(chance, logits)
error_new = slope_new[pixels:] - (logits[pixels:].softmax(dim=1) - new)
pd.Series(
    {
        "gradient of the weights, training pixels": error_own.abs()
        .max()
        .item(),
        "gradient of the logits, new pixels": error_new.abs().max().item(),
    },
    name="largest difference from the formula",
).to_frame()

# %%
logits = logits.detach()
unit = logits[:pixels] / final.norm().item()
rival = unit.scatter(1, labels[:, None], -torch.inf).amax(dim=1)
margin = (unit[each, labels] - rival).min()
bound = (classes - 1) / time + time.log() ** 2 / (2 * margin**2 * time)
own_loss = -own["many weights"].mean(dim=1)
pd.Series(
    {
        "margin": margin.item(),
        "largest ratio of the loss to its bound": (own_loss / bound)[1:]
        .max()
        .item(),
        "bound at the end": bound[-1].item(),
    },
    name="many weights",
).to_frame()

# %% [markdown]
# It is, with much room. The bound knows the margin of these data and nothing else, and says little at such times. The theorem is about the limit.
#
# And what became of the labels that were drawn by chance? Sort the training pixels by the true probability of the label
# that they happened to get, and ask what the networks give to it.

# %%
happened = train[each, labels]
place = many.index.get_loc(turn)
given = pd.DataFrame(
    {
        "truth": happened,
        "few, end": own["few weights"][-1].exp(),
        "many, turn": own["many weights"][place].exp(),
        "many, end": own["many weights"][-1].exp(),
    }
)

# %%
luck = pd.cut(happened.numpy(), [0, 0.25, 0.5, 0.75, 1])
groups = given.groupby(luck, observed=True)
memory = groups.mean().rename_axis("true probability")
memory.insert(0, "pixels", groups.size())
memory.style.format("{:.3f}", subset=list(given))

# %% tags=["hide-input"]
worst, blurred = memory.iloc[0], memory.iloc[-2]
Markdown(
    f"**What we saw.** {worst.pixels:.0f} labels were drawn although their probability is at most {worst.name.right:g}; a second "
    f"annotator would repeat them in {worst.truth:.0%} of the cases. The network with few weights gives them "
    f"{worst['few, end']:.2f}. The one with many gave them {worst['many, turn']:.2f} when its loss on new pixels turned, and "
    f"gives them {worst['many, end']:.2f} at the end: it has learned them by heart. The pixels of the prediction above are in the "
    f"row {blurred.name}: it says {blurred['many, end']:.2f} where {blurred.truth:.2f} is true."
)

# %% [markdown]
# ## Why being more often right does not help
#
# The prediction is the largest logit. Multiply all logits by $r > 0$: the largest stays the largest, so no
# prediction changes, and no accuracy. The loss does. Differentiate $-\log \operatorname{softmax}(r l)_y$ in $r$, and average
# over a set of pixels:
#
# ```{math}
# :label: scaled-slope
# \frac{\mathrm d L}{\mathrm d r} = \frac1n \sum_i \Big( \sum_k s_{ik}\, l_{ik} \; - \; l_{i, y_i} \Big) , \qquad s_i = \operatorname{softmax}(r\, l_i) .
# ```
#
# The first term is the logit that the network *expects* at its own probabilities, the second the one that it meets. The
# slope rises with $r$, as $s_i$ moves towards the largest logit. Where every label is ranked first, as on its own pixels, the
# first term is always less: the slope is negative for every $r$ ({prf:ref}`theorem-never` once more). Where some
# are not, the slope is above 0 for large $r$, since then the first term is the largest logit; and at $r = 0$, where it is the plain mean
# of the logits, it is below 0 if the logits of the labels are above it on average. In between it is 0. So its own pixels ask for a larger scale
# where new ones ask for a smaller one, and accuracy takes no side. Take the network with many weights as it is at the end:

# %%
r = torch.tensor([0.125, 0.25, 0.5, 1, 2])
s = (r.view(-1, 1, 1) * logits).log_softmax(dim=2)
there = s[:, pixels:]
columns = {
    "accuracy, new": new.gather(1, there.argmax(dim=2).T).mean(dim=0),
    "confidence, new": there.exp().amax(dim=2).mean(dim=1),
    "loss, new": -(new * there).sum(dim=2).mean(dim=1),
    "loss, own": -s[:, each, labels].mean(dim=1),
}
scales = pd.DataFrame(columns, pd.Index(r.numpy(), name="scale r"))
scales.style.format("{:.4f}").format_index("{:g}")

# %% [markdown]
# Which scale would suit the new pixels best? There {eq}`scaled-slope`, averaged over the labels that could be drawn, is 0:

# %%
there = logits[pixels:].numpy()
p = new.numpy()
fit = minimize_scalar(
    lambda r: -(p * log_softmax(r * there, axis=1)).sum(1).mean(),
    bounds=(0.01, 2),
    method="bounded",
)
s = softmax(fit.x * there, axis=1)
balance = ((s - p) * there).sum(axis=1).mean()
right_scale = {"r": fit.x, "loss, new": fit.fun, "slope": balance}
pd.Series(right_scale).to_frame().T

# %% [markdown]
# (The scale was found with the truth about the new pixels, which nobody has; {doc}`02_confidence` finds it from
# labelled pixels that were kept aside.)
#
# ## Four places to act
#
# The chain is: one-hot labels, a loss that wants ever larger logits, a network able to follow, and the
# scale at which it was left. It can be cut in four places, and each has its chapter.
#
# | where | what is done | in this book |
# | --- | --- | --- |
# | the training | stop before the labels are learned by heart | {doc}`09_train`: the epoch that is kept is the best one on other patients, by overlap, which is as blind to the scale as accuracy |
# | the label | soften it, so that the loss has a minimum at finite logits | {doc}`06_svls`: soft at the borders only; {doc}`08_family`: label smoothing |
# | the logits | constrain them, or charge for their size | {doc}`07_nacl`, its weight in {doc}`12_penalty`, its relatives in {doc}`08_family` |
# | afterwards | divide all logits by one number | {doc}`02_confidence`: temperature |
#
# To judge any of them we must first measure how wrong a confidence is: {doc}`02_confidence`, {doc}`03_traps`,
# {doc}`04_phantom`.
#
# **Where it fails.** {prf:ref}`theorem-training` is about networks that are linear in what they learn; a U-Net is not, and
# Adam is not gradient flow. {prf:ref}`theorem-never` holds for it, if it fits all its labels, which on large sets it need
# not. Here the pixels were few and drawn one by one. A real network has seen far more of them, neighbours are alike, and it may stop long before. How
# sure it then is must be measured.
#
# ## Exercises
#
# ```{exercise}
# :label: exercise-overconfident-stop
# Two classes, logits of their own for each pixel, and a second annotator who agrees at nine pixels in ten. When should
# training stop, and what is the loss on the second annotator's labels then? What is it at $t = 1000$? Compare with a
# network that knows nothing and says one half.
# ```
#
# ```{solution} exercise-overconfident-stop
# :class: dropdown
# By {prf:ref}`theorem-stop`, $d^\star = \log 9 \approx 2.197$ and $t^\star = (9 - 1 + 2.197) / 2 \approx 5.10$. The loss is
# $\log (9 + 1) - 0.9 \cdot 2.197 \approx 0.325$. At $t = 1000$, $e^d + d = 2001$ gives $d \approx 7.598$ and a loss of
# about $0.1 \cdot 7.598 \approx 0.760$. Saying one half costs $\log 2 \approx 0.693$: memory that is right nine times in ten has become
# worse, as a forecast, than no knowledge at all.
# ```
#
# ```{exercise}
# :label: exercise-overconfident-twins
# Four training pixels look exactly alike, so their features are the same. Three are labelled 0, one is labelled 1. What does the
# loss ask for now? Does it have a minimum?
# ```
#
# ```{solution} exercise-overconfident-twins
# :class: dropdown
# They get the same logits, so no weights fit all four and {prf:ref}`theorem-never` does not apply. Their mean loss
# is {eq}`chance-loss` with $p = (\tfrac34, \tfrac14)$: it is least at a confidence of 0.75, a lead of
# $\log 3 \approx 1.099$. Contradicting labels teach doubt, if the network cannot tell their pixels apart.
# ```
#
# ```{exercise}
# :label: exercise-overconfident-soft
# Give the label only 0.9, and share the rest equally among the other three of four classes. Which lead does the loss ask for? When
# does gradient flow on the hard label pass it?
# ```
#
# ```{solution} exercise-overconfident-soft
# :class: dropdown
# By {eq}`chance-loss` with the softened label for $p$, the minimum is $s_y = 0.9$ and $s_k = 0.1 / 3$, a lead of
# $d = \log 27 \approx 3.296$. The hard label passes it at $t = (27 - 1 + 3 \cdot 3.296) / 4 \approx 8.97$, and goes on.
# ```
#
# **Take-away.** Cross-entropy on labels that can be fitted has no minimum, only a direction. Confidence measures how
# long a network was trained as much as what it knows, and accuracy cannot tell the two apart. The next chapter measures the difference.

# %% tags=["hide-cell"]
assert (slope - formula).abs().max() < 1e-12
assert slope.abs().min() > 0
assert np.allclose(lead, certainty["integrated"], rtol=1e-6)
assert abs(certainty.iloc[-1, -1] - 1) < 0.01
assert (lead.diff() > 0).all()
assert abs(own_time[best] - stop) < 0.05
assert abs(confidence - agreement) < 0.001
assert end["loss, its own pixels"] < 0.02
assert unlucky > 0.05
assert many["loss, its own pixels"].is_monotonic_decreasing
assert 1 < turn < time[-1] / 10
assert end["loss, new pixels"] > 1.5 * at["loss, new pixels"]
assert 0 < -change["accuracy, new pixels"] < 0.04
assert (
    change["confidence, new pixels"] > -2 * change["accuracy, new pixels"]
)
assert max(error_own.abs().max(), error_new.abs().max()) < 1e-12
assert slope_own.abs().max() > 1e-6
assert end_gap > 2 * few_gap
assert few["loss, its own pixels"].iloc[-10:].std() < 1e-3
assert margin > 0
assert (own_loss <= bound)[1:].all()
assert worst["many, end"] > 0.9 > 0.5 > worst["few, end"]
assert scales["accuracy, new"].nunique() == 1
assert scales["loss, own"].is_monotonic_decreasing
assert fit.x < 1
assert abs(balance) < 1e-4
assert blurred["many, end"] > 0.9 > 0.75 > blurred.truth
nine = fitting_time(torch.tensor(9.0).log(), 2).item()
late = fitted_gap(torch.tensor(1000.0), 2)
assert np.allclose(
    [nine, np.log(10) - 0.9 * np.log(9)], [5.10, 0.325], 2e-3
)
late_loss = (late.exp() + 1).log() - 0.9 * late
assert np.allclose([late, late_loss], [7.598, 0.760], 1e-3)
assert late_loss > np.log(2)
alike = torch.tensor([0, 0, 0, 1])
twins = gradient_flow(torch.ones(4, 1), alike, [1e3], 2)[0, 0]
assert np.allclose(
    [twins.softmax(0)[0], twins[0] - twins[1]], [0.75, 1.099], 1e-3
)
hard = fitting_time(torch.tensor(27.0).log(), 4).item()
assert np.allclose([np.log(27), hard], [3.296, 8.97], 1e-3)
softened = torch.tensor([[0.9, 0.1 / 3, 0.1 / 3, 0.1 / 3]])
asked = torch.tensor([[np.log(27), 0, 0, 0]], requires_grad=True)
F.cross_entropy(asked, softened).backward()
assert asked.grad.abs().max() < 1e-12
