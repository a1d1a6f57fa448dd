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
# # How sure can anyone be about a brain?
#
# **You need** {doc}`04_phantom`. **Run time**: under half a minute on two cores.
#
# **Claim.** Two experts who outline the same brain disagree, though neither errs: where grey turns into white there is
# no line to find. So there is a limit to what any network can reach, and it is a number. On real anatomy whose true
# probabilities we keep, we compute it.

# %% tags=["parameters"]
size = 96
draws = 400
seed = 1

# %% tags=["hide-input"]
import numpy as np
import pandas as pd
import torch
from IPython.display import Markdown
from nacl import dice_score, plots
from nacl.data import load_dataset
from nacl.data.brain import CLASS_NAMES, draw_labels
from nacl.metrics import calibration_bins, negative_log_likelihood
from nacl.parameters import check_parameters

check_parameters(globals())

# %% [markdown]
# The MNI152 template {cite}`fonov2011` is the average of 152 adults' scans, brought into one shape: each cubic
# millimetre has a probability of grey and of white matter. What is neither is fluid inside the skull and background
# outside. A *patient* is this template, scaled, turned and smoothly bent, with borders of its own sharpness; its
# probabilities $p$ are the truth that we keep. The image is made from $p$, so that what is ambiguous looks blurred.
#
# **Predict.** A forecaster knows $p$ exactly. Its best guess is compared with one expert's outlines by the Dice score,
# for the fluid, the grey and the white matter. Which of the three does it score worst on, and is that score above 0.95?
#
# ## One slice, its truth, and three annotators

# %%
dataset = load_dataset("brain", size=size)
case = dataset.split("test")[1]
middle = 3
plots.maps(
    dict(zip(CLASS_NAMES, case.posterior[:, middle], strict=True)),
    label="true probability",
)

# %%
rng = np.random.default_rng(seed)
posterior = case.posterior.astype(float)
annotators = {
    f"annotator {i}": draw_labels(posterior, rng, spacing=case.spacing)
    for i in (1, 2, 3)
}
shown = {title: label[middle] for title, label in annotators.items()}
plots.outlines(case.image[0, middle], shown, CLASS_NAMES)

# %% [markdown]
# ## How to draw an outline with the right probabilities
#
# Put the classes in the order in which one meets them on the way into the head: background, fluid, grey, white. Let
# $P_k = p_0 + \dots + p_k$, and let $u$ be a Gaussian field of mean 0 and variance 1 at every voxel, smooth along all
# three axes. The label is the class whose stretch of the unit interval holds $\Phi(u)$:
#
# ```{math}
# :label: brain-label
# y = k \quad \text{where} \quad P_{k-1} \le \Phi(u) < P_k , \qquad P_{-1} = 0 .
# ```
#
# Since $\Phi(u)$ is uniform on $[0, 1]$, the probability of that is the length of the stretch:
#
# ```{math}
# :label: brain-exact
# \mathbb P(y = k) = P_k - P_{k-1} = p_k ,
# ```
#
# exactly, at every voxel. Because $u$ is smooth, neighbours are moved together, within a slice and from one slice to the
# next. And because the classes are in order, where $u$ is high *every* border moves outwards, and white stays inside
# grey, and grey inside fluid. One voxel, by hand:

# %%
p = np.array([0.1, 0.2, 0.4, 0.3])
thresholds = p.cumsum()[:3]
phi = np.array([0.05, 0.25, 0.69, 0.71])
label = (phi[:, None] >= thresholds).sum(axis=1)
pd.DataFrame({"Φ(u)": phi, "label": [CLASS_NAMES[k] for k in label]})

# %% [markdown]
# Now all voxels of the slice. Count the labels of many annotators: each share must be its probability, up to the error of
# counting, $\sqrt{p (1 - p) / n}$.

# %%
one = posterior[:, middle : middle + 1]
classes = np.arange(4)[:, None, None, None]
counts = sum(
    classes == draw_labels(one, rng, spacing=case.spacing)
    for _ in range(draws)
)
ambiguous = (one > 0.05) & (one < 0.95)
error = np.sqrt(one * (1 - one) / draws)[ambiguous]
rms = np.sqrt((((counts / draws - one)[ambiguous] / error) ** 2).mean())

# %% tags=["hide-input"]
Markdown(
    f"**What we saw.** Over {ambiguous.sum()} ambiguous probabilities and {draws} annotators, the differences in units of "
    f"their expected error have a root mean square of {rms:.2f} (expected: 1). The labels have the posterior that we keep."
)

# %% [markdown]
# ## Which tissue is the least sure?
#
# Of two annotators, each calls a voxel $k$ with probability $p_k$, and both do with $p_k^2$. Summed over many voxels, the
# Dice score of two annotators is twice the second over twice the first:
#
# ```{math}
# :label: brain-agreement
# \text{Dice}_k \;\approx\; \frac{\sum p_k^2}{\sum p_k} ,
# ```
#
# which is 1 only where every $p_k$ is 0 or 1. It is the mean of $p_k$ over the voxels that somebody called $k$: how likely
# it is that the other one agrees.
#
# A forecaster who knows $p$ is right most often if it guesses the most probable class. For the Dice score of one class $k$
# alone, it does better to call a voxel $k$ wherever $p_k$ is above *half the Dice score it reaches*, which is below 1/2:
# leaving out a voxel costs more than adding one.

# %%
truths = [c.posterior.astype(float) for c in dataset.split("test")]
spacing = case.spacing
pairs = [
    [draw_labels(q, rng, spacing=spacing) for _ in (1, 2)] for q in truths
]
agreement = [(q**2).sum((1, 2, 3)) / q.sum((1, 2, 3)) for q in truths]
drawn = [dice_score(first, second, 4) for first, second in pairs]

# %%
best, tuned = [], []
for q, (y, _) in zip(truths, pairs, strict=True):
    best.append(dice_score(q.argmax(axis=0), y, 4))
    called = [q[k] > best[-1][k - 1] / 2 for k in (1, 2, 3)]
    tuned.append(
        [
            dice_score(1 * c, 1 * (y == k), 2)[0]
            for k, c in enumerate(called, 1)
        ]
    )

# %%
table = pd.DataFrame(
    {
        "two annotators, by the formula": np.mean(agreement, axis=0)[1:],
        "two annotators, drawn": np.mean(drawn, axis=0),
        "the truth's best guess": np.mean(best, axis=0),
        "a guess made for Dice": np.mean(tuned, axis=0),
    },
    index=CLASS_NAMES[1:],
)
table.style.format("{:.3f}")

# %% tags=["hide-input"]
formula, sampled, guess, for_dice = (table[name] for name in table)
worst = guess.idxmin()
Markdown(
    f"**What we saw.** The formula and the draws agree to {(formula - sampled).abs().max():.3f}. The least sure is the "
    f"{worst}: two annotators agree to a Dice score of {sampled[worst]:.3f}, and who knows all probabilities reaches "
    f"{guess[worst]:.3f}. For white matter it is {guess['white matter']:.3f}. No guess is right at more voxels, but by luck, "
    f"and the one made for Dice gains {(for_dice - guess).max():.3f} at most: these scores are the ceiling, for anybody."
)
# %% [markdown]
# Why the fluid? A border is ambiguous over a millimetre or two, whatever it is the border of. A sheet of fluid between
# brain and skull is hardly thicker than that, so that nearly all of it is border; the white matter has an inside. Here is
# the largest of the four probabilities, the most that anyone can be sure, for four patients:

# %%
surest = {
    c.name: c.posterior[:, middle].max(axis=0)
    for c in dataset.split("test")[:4]
}
plots.maps(surest, label="largest probability", limits=(0.25, 1))

# %% [markdown]
# ## What does the truth score?
#
# Three forecasters say something about the same brains, and one annotator each is the judge: the *truth* says $p$; a
# *bold* one has the same best guess everywhere but says $p_k^3 / \sum_j p_j^3$; a *second annotator* says its own outlines,
# as if they were certain. The calibration error is over the pixels that the forecaster itself calls brain or fluid.

# %%
one_hot = [(np.arange(4)[:, None, None, None] == b) for _, b in pairs]
forecasts = {
    "the truth": truths,
    "bold": [q**3 / (q**3).sum(axis=0) for q in truths],
    "a second annotator": one_hot,
}
judge = torch.from_numpy(np.concatenate([y for y, _ in pairs])).long()

# %%
rows, inside = {}, ("predicted_foreground",)
for name, said in forecasts.items():
    stacked = np.concatenate(said, axis=1).astype(np.float32)
    probs = torch.from_numpy(stacked).movedim(1, 0)
    bins = calibration_bins(probs, judge, regions=inside)[inside[0]]
    scores = dice_score(stacked.argmax(0), judge.numpy(), 4).mean()
    nll = negative_log_likelihood(probs, judge)
    rows[name] = {"Dice": scores, "ECE": bins.expected.item(), "NLL": nll}
scores = pd.DataFrame(rows).T
scores.style.format("{:.3f}")

# %% tags=["hide-input"]
truth, bold = scores.loc["the truth"], scores.loc["bold"]
second = scores.loc["a second annotator"]
Markdown(
    f"**What we saw.** Bold and true make the same guess, so that their Dice scores are one number, {truth.Dice:.3f}: it "
    f"cannot tell them apart. Their calibration errors can, {bold.ECE:.3f} against {truth.ECE:.3f}. And the expert's own "
    f"colleague, an honest draw from the truth, scores a Dice of {second.Dice:.3f} and a calibration error of "
    f"{second.ECE:.3f}: whoever is certain where nobody can be is wrong as often as people disagree."
)

# %% [markdown]
# A network is trained on such outlines, one annotator for each patient, as if they were certain; {doc}`06_svls` and the
# chapters after it ask what keeps it from becoming as sure as they look.
#
# **Where it fails.** The template is an average of people, and its blur is how much people differ after they were brought
# into one shape; we use it, sharpened, as how much annotators differ about one. Its folds are fewer than those of any
# single brain. And a real scan may show a border more clearly, or less, than annotators agree about it; here the two go
# together by construction.
#
# ```{exercise}
# :label: exercise-brain-order
# A voxel on the way from fluid to white matter has $p = (0, 0.5, 0, 0.5)$, and the next one $p = (0, 0.4, 0.2, 0.4)$. The
# field has $\Phi(u) = 0.45$ at both. Which labels do they get, and which would they get if the order were background,
# grey, fluid, white?
# ```
#
# ```{solution} exercise-brain-order
# :class: dropdown
# In our order the thresholds are 0, 0.5, 0.5 and 0, 0.4, 0.6: fluid, then grey. In the other order they are 0, 0, 0.5
# and 0, 0.2, 0.6: fluid, then fluid. The probabilities are the same in both; which labels meet in an outline is not. Only
# the first order draws grey between fluid and white, where it is in the head.
# ```
#
# ```{exercise}
# :label: exercise-brain-dice
# A tissue covers 100 voxels that are certain ($p = 1$) and 100 at which $p = 1/2$. By {eq}`brain-agreement`, what is the
# Dice score of two annotators? What is it for a sheet of 100 voxels at $p = 1/2$ alone?
# ```
#
# ```{solution} exercise-brain-dice
# :class: dropdown
# $(100 + 25) / (100 + 50) = 0.83$, and $25 / 50 = 0.5$. The ambiguity is the same; what differs is how much inside there
# is to the border.
# ```
#
# **Take-away.** How sure one can be is a property of the image, and it has a number for each pixel. A score of 1 is not
# the aim; the aim is to say $p$, and overlap cannot see whether you do.

# %% tags=["hide-cell"]
assert 0.6 < rms < 1.4
assert (formula - sampled).abs().max() < 0.05
assert worst == "cerebrospinal fluid"
assert guess[worst] < 0.95
assert (for_dice - guess).min() > -0.005
assert (for_dice - guess).max() < 0.03
assert truth.Dice > second.Dice
assert abs(truth.Dice - bold.Dice) < 1e-6
assert truth.ECE < bold.ECE / 2 < second.ECE
