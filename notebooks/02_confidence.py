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
# # Is it as often right as it says?
#
# **You need** softmax, and the mean of a list of numbers. **Run time**: under half a minute.
#
# **Claim.** A calibration error asks whether a forecast is *honest*: of the pixels called "90 % sure", are 90 % right?
# It cannot see whether the forecast *knows* anything. A proper score sees both, and comes apart into the two. One
# number, the temperature, can repair the first; nothing that only scales the logits adds more than a trace to the
# second.

# %% tags=["parameters"]
pixels = 200_000
sharpness = 1.5
n_bins = 15
seed = 0

# %% tags=["hide-input"]
import numpy as np
import pandas as pd
import torch
from IPython.display import Markdown
from nacl import CalibrationError, plots
from nacl.evaluation import bins_table
from nacl.metrics import (
    BrierScore,
    CalibrationBins,
    NegativeLogLikelihood,
    calibration_bins,
    classwise_calibration_error,
    expected_calibration_error,
    reliability_curve,
    true_calibration_error,
)
from nacl.parameters import check_parameters
from nacl.scaling import TemperatureScaling

check_parameters(globals())

# small tensors: more threads cost more than they bring
torch.set_num_threads(1)

# %% [markdown]
# **Predict.** A lazy forecaster never looks at the image. It gives every pixel the same four probabilities: the shares
# of the four classes in the data set. What is its calibration error? Write a number down.
#
# ## Confidence and accuracy, by hand
#
# The *confidence* $c_i$ of a pixel is the largest of its probabilities, and its class is the prediction. The pixel is
# *right* if that class is its label. No single pixel can show that "0.9" is wrong; a group can. So put the pixels into
# bins of similar confidence. For bin $b$ with $n_b$ of the $n$ pixels, let $\text{acc}_b$ be the share that is right
# and $\text{conf}_b$ the mean confidence. Everything in this section is made of the gaps
#
# ```{math}
# :label: gap
# g_b = \text{conf}_b - \text{acc}_b , \qquad \text{above 0: too bold}, \quad \text{below 0: too timid} .
# ```
#
# ```{math}
# :label: bin-errors
# \begin{aligned}
# \text{over} &= \sum_{g_b > 0} \frac{n_b}{n}\, |g_b| , \qquad
# \text{under} = \sum_{g_b < 0} \frac{n_b}{n}\, |g_b| , \\
# \text{ECE} &= \sum_b \frac{n_b}{n}\, |g_b| = \text{over} + \text{under} , \\
# \text{MCE} &= \max_b |g_b| , \\
# \text{ACE} &= \text{mean of } |g_b| \text{ over the bins that hold a pixel} .
# \end{aligned}
# ```
#
# The *expected*, the *maximum* {cite}`guo2017` and the *average* calibration error {cite}`neumann2018` differ only in
# how they weigh the bins. Ten pixels: eight with a confidence of 0.9, of which six are right, and two with 0.6, both
# right.

# %%
confidence = torch.tensor([0.9] * 8 + [0.6] * 2)
right = torch.tensor([1] * 6 + [0] * 2 + [1] * 2)
probs = torch.stack([1 - confidence, confidence]).view(1, 2, 1, 10)
few = calibration_bins(probs, right.view(1, 1, 10), regions=["all"])["all"]
ten = {
    "ECE": few.expected,
    "over": few.overconfidence,
    "under": few.underconfidence,
    "MCE": few.maximum,
    "ACE": few.average,
}
pd.Series({name: value.item() for name, value in ten.items()}).to_frame().T

# %% [markdown]
# Check them: the gaps are $0.9 - 0.75 = 0.15$ and $0.6 - 1 = -0.4$, so the ECE is $0.8 \cdot 0.15 + 0.2 \cdot 0.4$. Two
# pixels decide the MCE, and half of the ACE.
#
# These look at the predicted class only. The *classwise* error {cite}`kull2019` does the same with each class's
# probability and the share of pixels that are of this class, and averages over the classes. It sees what the first
# misses. Ten pixels again, each forecast as (0.6, 0.3, 0.1): six are of class 0, one of class 1, three of class 2.

# %%
same = torch.tensor([0.6, 0.3, 0.1]).view(1, 3, 1, 1).expand(1, 3, 1, 10)
label = torch.tensor([0] * 6 + [1] + [2] * 3).view(1, 1, 10)
swapped = {
    "of the predicted class": expected_calibration_error(same, label),
    "classwise": classwise_calibration_error(same, label),
}
pd.Series(swapped).to_frame("error").style.format("{:.3f}")

# %% [markdown]
# The predicted class is right as often as it says. Its two rivals were swapped, and only the classwise error knows.
#
# ## Four forecasters
#
# Now many pixels, whose true probabilities $q$ we know because the labels are drawn from them, each pixel on its own.
# Half of them are for testing; the other half is kept for later. The *honest* forecaster says $q$. The *bold* one
# multiplies the honest logits by 1.5, as networks do that were trained for long; the *timid* one divides them by 1.5.
# The *lazy* one says the shares of the classes.

# %%
torch.manual_seed(seed)
level = torch.tensor([3.0, 0.0, 0.0, 0.0]).view(1, 4, 1, 1)
honest = level + 2 * torch.randn(2, 4, 100, pixels // 200)
labels = torch.distributions.Categorical(
    logits=honest.movedim(1, -1)
).sample()
shares = labels.flatten().bincount(minlength=4) / labels.numel()
logits = {
    "honest": honest,
    "bold": sharpness * honest,
    "timid": honest / sharpness,
    "lazy": shares.log().view(1, 4, 1, 1).expand_as(honest),
}
tests = {name: x[1:] for name, x in logits.items()}
target = labels[1:]

# %%
bins = {
    name: calibration_bins(
        x, target, n_bins=n_bins, regions=["all"], from_logits=True
    )["all"]
    for name, x in tests.items()
}
errors = pd.DataFrame(
    {
        "accuracy": {
            n: (x.argmax(1) == target).double().mean().item()
            for n, x in tests.items()
        },
        "ECE": {n: b.expected.item() for n, b in bins.items()},
        "over": {n: b.overconfidence.item() for n, b in bins.items()},
        "under": {n: b.underconfidence.item() for n, b in bins.items()},
        "MCE": {n: b.maximum.item() for n, b in bins.items()},
        "ACE": {n: b.average.item() for n, b in bins.items()},
        "classwise": {
            n: classwise_calibration_error(
                x, target, n_bins=n_bins, from_logits=True
            )
            for n, x in tests.items()
        },
    }
)
errors.style.format("{:.4f}")

# %% [markdown]
# The same bins as a picture, the *reliability diagram*: a dot for each bin, larger where it holds more pixels. On the
# dashed line confidence is accuracy; below it the forecast is too bold. On the right the probability of class 1,
# whether it is the predicted class or not: one of the four pictures behind the classwise error.

# %%
tables = {}
for name in ("honest", "bold", "timid"):
    of_class = calibration_bins(
        tests[name],
        target,
        n_bins=n_bins,
        regions=["all"],
        classwise=True,
        from_logits=True,
    )["all"]
    first = CalibrationBins(of_class.counts[1], of_class.confidences[1])
    tables[name] = bins_table({"predicted": bins[name], "class 1": first})
titles = {
    "predicted": "predicted class",
    "class 1": "class 1",
}
plots.reliability_diagram(tables, titles)

# %% tags=["hide-input"]
gaps = (bins["honest"].accuracy - bins["honest"].confidence).abs()
lonely = bins["honest"].count[gaps.nan_to_num(-1).argmax()].item()
Markdown(
    f"**What we saw.** The bold forecaster has an ECE of {errors.ECE.bold:.3f}, all of it over-confidence; the timid one "
    f"{errors.ECE.timid:.3f}, all of it under-confidence; the honest one {errors.ECE.honest:.3f}. The three predict the "
    f"same classes and are right at the same {errors.accuracy.bold:.1%} of the pixels: calibration is not accuracy. And the lazy "
    f"one, which never looked, has the least ECE of all: {errors.ECE.lazy:.4f}. (Beware of the MCE: the honest one's, "
    f"{errors.MCE.honest:.2f}, comes from {lonely} pixels of {target.numel()}.)"
)

# %% [markdown]
# ## Scores that cannot be pleased by laziness
#
# A *proper score* is one that nobody can better, on average, by saying anything but the truth. The two in use are
#
# ```{math}
# :label: proper-scores
# \text{NLL} = -\frac1n \sum_i \log p_{i, y_i} , \qquad
# \text{Brier} = \frac1n \sum_i \sum_k \left( p_{ik} - y_{ik} \right)^2 ,
# ```
#
# with $y_{ik}$ 1 for the label of pixel $i$ and 0 otherwise {cite}`brier1950`. Small is good. Murphy {cite}`murphy1973`
# took the second apart. Sort the pixels by the probability of class $k$ into bins; let $p_{bk}$ be the mean probability
# in bin $b$, $a_{bk}$ the share of pixels there that are of class $k$, and $a_k$ that share among all pixels. Then
#
# ```{math}
# :label: murphy
# \begin{aligned}
# \text{Brier} \;\approx\;
#   & \underbrace{\sum_k \sum_b \frac{n_{bk}}{n} \left( p_{bk} - a_{bk} \right)^2}_{\text{reliability}} \\
# - & \underbrace{\sum_k \sum_b \frac{n_{bk}}{n} \left( a_{bk} - a_k \right)^2}_{\text{resolution}}
# + \underbrace{\sum_k a_k (1 - a_k)}_{\text{uncertainty}} .
# \end{aligned}
# ```
#
# *Reliability* is squared gaps: is it honest? (A small number is good, in spite of the name.) *Resolution*: do pixels
# that are forecast differently turn out differently? That is knowledge, and it is subtracted. *Uncertainty* belongs to
# the data set. The $\approx$ is what happens within a bin, where forecasts differ a little; it is exact if they do not,
# and we show the rest in its own column.

# %%
scores = {}
for name, x in tests.items():
    brier = BrierScore(n_bins=n_bins, from_logits=True)
    brier.update(x, target)
    nll = NegativeLogLikelihood(from_logits=True)
    nll.update(x, target)
    scores[name] = {"NLL": nll.compute(), **vars(brier.parts)}
scores = pd.DataFrame(scores).T.rename(columns={"score": "Brier"})
(scores.round(4) + 0).style.format("{:.4f}")

# %% tags=["hide-input"]
Markdown(
    f"**What we saw.** The lazy forecaster's reliability is {abs(scores.reliability.lazy):.4f}: nothing to reproach. Its resolution is "
    f"{abs(scores.resolution.lazy):.4f} too, so its Brier score is the whole uncertainty, {scores.Brier.lazy:.3f}, against "
    f"{scores.Brier.honest:.3f} for the honest one. The bold forecaster knows as much as the honest one (resolution "
    f"{scores.resolution.bold:.3f} and {scores.resolution.honest:.3f}) and pays "
    f"{scores.reliability.bold:.4f} for its tone. NLL agrees: {scores.NLL.honest:.3f} honest, {scores.NLL.bold:.3f} bold, "
    f"{scores.NLL.lazy:.3f} lazy."
)

# %% [markdown]
# ## One number that repairs the tone
#
# Divide all logits by one temperature $T$ {cite}`guo2017`, the one for which the labels of *other* pixels are most
# likely:
#
# ```{math}
# :label: temperature
# p_i = \operatorname{softmax}(l_i / T) , \qquad
# T = \operatorname{arg\,min}_{T > 0} \; -\sum_i \log \operatorname{softmax}(l_i / T)_{y_i} .
# ```
#
# The order of a pixel's logits stays, and with it the prediction, the accuracy, and every Dice score. Here we know what
# the bold forecaster did: it multiplied by 1.5. Its temperature is found on the half that was kept.

# %%
scaling = TemperatureScaling().fit([(logits["bold"][:1], labels[:1])])
temperature = scaling.state()["temperature"]
pd.Series({"temperature": temperature}, name="bold").to_frame()

# %% [markdown]
# What does a temperature do to each number? Walk past the best one. The last two columns need no bins. *CORP*
# {cite}`dimitriadis2021` lets the data choose the groups: of all curves that only rise, it takes the share of right
# pixels that fits best, and averages its distance from the diagonal. The column *true* uses $q$ itself, which only we
# have.

# %%
rows = {}
truth = honest[1:].softmax(dim=1)
for t in (0.75, 1.0, temperature, 2.0, 3.0):
    now = (tests["bold"] / t).softmax(dim=1)
    error, brier = (
        CalibrationError(n_bins=n_bins),
        BrierScore(n_bins=n_bins),
    )
    nll = NegativeLogLikelihood()
    for metric in (error, brier, nll):
        metric.update(now, target)
    curve = reliability_curve(now, target)
    rows[t] = {
        "accuracy": (now.argmax(1) == target).double().mean().item(),
        "NLL": nll.compute(),
        "Brier": brier.compute(),
        "reliability": brier.parts.reliability,
        "resolution": brier.parts.resolution,
        "MCE": error.bins.maximum.item(),
        "ECE": error.compute(),
        "CORP": curve.calibration_error,
        "true": true_calibration_error(now, truth),
    }
walk = pd.DataFrame(rows).T.rename_axis("T")
walk.style.format("{:.3f}").format_index("{:.2f}")

# %%
repaired = {"bold": tests["bold"]}
repaired["after temperature"] = tests["bold"] / temperature
curves = {
    name: reliability_curve(x, target, from_logits=True)
    for name, x in repaired.items()
}
plots.reliability_curves(
    {name: (c.confidence, c.accuracy) for name, c in curves.items()}
)

# %% tags=["hide-input"]
before, best = walk.loc[1.0], walk.loc[temperature]
Markdown(
    f"**What we saw.** The temperature is {temperature:.3f} where {sharpness:g} was hidden. The ECE falls from "
    f"{before.ECE:.3f} to {best.ECE:.3f}, the Brier score's reliability from {before.reliability:.4f} to "
    f"{best.reliability:.4f}, NLL from {before.NLL:.3f} to {best.NLL:.3f}. Accuracy stays "
    f"{best.accuracy:.3f}, and resolution between {walk.resolution.min():.3f} and {walk.resolution.max():.3f}: a temperature changes "
    "the tone and not the knowledge. Without bins, CORP finds "
    f"{before.CORP:.3f} where the truth is {before['true']:.3f}, before; afterwards "
    f"{best.CORP:.4f} where it is {best['true']:.4f}, and the ECE {best.ECE:.4f}."
)

# %% [markdown]
# (Resolution moves a little: with more than two classes a temperature keeps the order of the classes at a pixel, not that
# of the pixels by one class's probability, and pixels change bins.)
#
# After the repair nearly nothing is left to find, and what the ECE and CORP still show is mostly chance: they measure
# from labels that were drawn. How much of it there is, and what else can deceive, is {doc}`03_traps`.
#
# **Where it fails.** The temperature was perfect because the fault was one: every logit too large by the same factor. A
# network too bold at its borders and too timid inside needs another cure than one number. And pixels here were
# independent, which the pixels of an image are not.
#
# ```{exercise}
# :label: exercise-confidence-weather
# It rains on 3 days in 10. One forecaster says "0.3" every day. Another says "1" on the days of rain and "0" on the
# others. Give the reliability, resolution and uncertainty of both (count the two classes, rain and no rain).
# ```
#
# ```{solution} exercise-confidence-weather
# :class: dropdown
# Uncertainty, for both: $0.3 \cdot 0.7$ for each class, together 0.42. The first has reliability 0 and resolution 0,
# and a Brier score of 0.42. The second has reliability 0; its bins have the shares 1 and 0, so for each class the
# resolution is $0.3 \cdot 0.7^2 + 0.7 \cdot 0.3^2 = 0.21$, together 0.42, and the Brier score is 0. Both are
# calibrated; one is of use.
# ```
#
# ```{exercise}
# :label: exercise-confidence-cancel
# In one bin, half of the pixels say 0.88 and are right at 0.92; the other half say 0.92 and are right at 0.88. What
# does the ECE of the bin see? And CORP?
# ```
#
# ```{solution} exercise-confidence-cancel
# :class: dropdown
# The means agree, 0.90 and 0.90: the gap is 0, and so is the ECE. CORP may use a group for each confidence, but its
# curve must not fall, so it pools the two at 0.90, and finds a distance of 0.02 at each. A larger confidence that is
# less often right is a fault which it cannot draw, but sees.
# ```
#
# **Take-away.** ECE, MCE and ACE weigh the same gaps differently, and none of them sees knowledge. Report a proper
# score beside them, and take it apart: reliability is what a temperature can mend, resolution is what only learning can
# add.

# %% tags=["hide-cell"]
assert np.isclose(few.expected, 0.20)
assert np.isclose(few.overconfidence, 0.12)
assert np.isclose(few.maximum, 0.4)
assert np.isclose(few.average, 0.275)
assert np.isclose(swapped["of the predicted class"], 0, atol=1e-6)
assert np.isclose(swapped["classwise"], 0.4 / 3)
assert errors.under.bold < 0.01 * errors.over.bold
assert errors.over.timid < 0.01 * errors.under.timid
assert errors.accuracy[["honest", "bold", "timid"]].nunique() == 1
assert errors.ECE.idxmin() == "lazy"
assert errors.ECE.honest < 0.1 * errors.ECE.bold
assert abs(scores.resolution.lazy) < 1e-6
assert abs(scores.resolution.bold - scores.resolution.honest) < 0.01
assert scores.NLL.idxmin() == scores.Brier.idxmin() == "honest"
parts = scores.reliability - scores.resolution + scores.uncertainty
assert np.allclose(scores.Brier, parts + scores.within_bins)
assert abs(temperature - sharpness) < 0.05
assert walk.NLL.idxmin() == walk.Brier.idxmin() == temperature
assert walk.resolution.max() - walk.resolution.min() < 0.05
assert best.ECE / before.ECE < 0.1
