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
# # How wrong can a calibration error be?
#
# **You need** {doc}`02_confidence`: bins, gaps, proper scores. **Run time**: under half a minute.
#
# **Claim.** Before it says anything of a network, a calibration error says how many pixels there were, which ones were
# taken, and who wrote the code. We show it on forecasters that are perfect: whatever error they are given is the
# measuring stick's own.

# %% tags=["parameters"]
repeats = 20
pixels = 100_000
louder = 2.0
annotators = 5
size = 96
seed = 0

# %% tags=["hide-input"]
import numpy as np
import pandas as pd
import torch
from IPython.display import Markdown
from nacl import CalibrationError, plots
from nacl.data import load_dataset
from nacl.data.phantom import draw_labels
from nacl.evaluation import bins_table
from nacl.metrics import (
    adaptive_calibration_error,
    calibration_bins,
    classwise_calibration_error,
    negative_log_likelihood,
    reliability_curve,
)
from nacl.parameters import check_parameters
from scipy.integrate import quad
from scipy.stats import beta

check_parameters(globals())

# small tensors: more threads cost more than they bring
torch.set_num_threads(1)

# %% [markdown]
# **Predict.** A forecaster says the true probability at every pixel. You have 100 pixels and 15 bins. What is its ECE?
# And if you take only the pixels whose true label is "organ", a rare one? Write down two numbers.
#
# ## Trap 1: chance looks like an error
#
# In a bin of $n_b$ pixels whose true accuracy is $a$, the share that is right misses $a$ by about $\sqrt{a (1 - a) /
# n_b}$. The ECE takes absolute values, so that the misses of the bins add up instead of cancelling. The mean absolute
# value of a normal variable is $\sqrt{2 / \pi}$ of its standard deviation. So with $B$ bins in use, equally full, a
# *perfect* forecaster is given
#
# ```{math}
# :label: chance-ece
# \mathbb E\, \text{ECE} \;\approx\; \sqrt{\frac{2 B}{\pi n}} \;\; \overline{\sqrt{c\,(1 - c)}} ,
# ```
#
# where the bar is the mean over its confidences $c$. More bins, more error; fewer pixels, more error. Here is such a
# forecaster: two classes, confidences uniform between 0.5 and 1, each label drawn from its own forecast. Since the bins
# below 0.5 are empty, $B = 7.5$, and the mean is $\pi / 8$.
#
# *Debiased* {cite}`kumar2019` takes from each squared gap the part that chance is expected to give, which leaves nearly
# nothing where there is nothing; it belongs to the root of the mean squared gap, RMS.
#
# The last row has as many pixels as the row above, but each draw fills a block of 25 pixels with the same confidence
# and label, as in an image, where a border that is misplaced is misplaced over many pixels.

# %%
rng = np.random.default_rng(seed)
samples = {"100": (100, 1), "1,000": (1000, 1), "10,000": (10_000, 1)}
samples["10,000 in blocks of 25"] = (10_000, 25)
rows, last = [], {}
for name, (n, block) in samples.items():
    for _ in range(repeats):
        c = rng.uniform(0.5, 1, n // block)
        is_right = (rng.uniform(size=len(c)) < c).repeat(block)
        target = torch.from_numpy(is_right).long().view(1, 1, n)
        probs = torch.from_numpy(np.stack([1 - c, c]).repeat(block, axis=1))
        probs = probs.view(1, 2, 1, n)
        last[name] = calibration_bins(probs, target, regions=["all"])["all"]
        row = {
            "pixels": name,
            "ECE": last[name].expected.item(),
            "formula": np.sqrt(15 / np.pi / n) * np.pi / 8,
            "equal mass": adaptive_calibration_error(probs, target),
            "CORP": reliability_curve(probs, target).calibration_error,
            "RMS": last[name].rms.item(),
            "RMS, debiased": last[name].debiased.item(),
        }
        rows.append(row)
chance = pd.DataFrame(rows).groupby("pixels", sort=False).mean()
chance.style.format("{:.3f}")

# %%
titles = {"100": "100 pixels", "10,000": "10,000 pixels"}
titles["10,000 in blocks of 25"] = "10,000, blocks of 25"
plots.reliability_diagram({"perfect": bins_table(last)}, titles)

# %% tags=["hide-input"]
dependent = chance.loc["10,000 in blocks of 25"]
Markdown(
    f"**What we saw.** The perfect forecaster has an ECE of {chance.ECE['100']:.3f}, {chance.ECE['1,000']:.3f} and "
    f"{chance.ECE['10,000']:.3f} on a hundred, a thousand and ten thousand pixels (means of {repeats} draws). Bins of equal mass "
    f"({chance['equal mass']['100']:.3f} at a hundred) and CORP ({chance.CORP['100']:.3f}) do not cure it. Taking the expected "
    f"chance away does most: RMS {chance.RMS['1,000']:.3f} becomes {chance['RMS, debiased']['1,000']:.3f} at a thousand. (Not 0, since "
    "a negative rest is cut at 0.) But it counts pixels as independent. In blocks of 25, ten thousand pixels are worth four "
    f"hundred: the ECE is {dependent.ECE:.3f} where the formula says {dependent.formula:.3f}, and the debiased error is still "
    f"{dependent['RMS, debiased']:.3f}, nearly all of its {dependent.RMS:.3f}."
)

# %% [markdown]
# So an ECE of 0.03 on one small case is nothing, until you know what chance gives there. The count that matters is
# nearer to the number of *patients* than to that of pixels; {doc}`10_comparing` reckons by patients for that reason.
#
# ## Trap 2: pixels chosen by the answer
#
# Let there be two classes, and let a pixel's true probability $p$ of "organ" follow Beta(0.3, 3): mostly background,
# now and then a real doubt. The label is drawn from $p$, and the forecaster says $p$. Now take only the pixels whose
# *label* is organ. With $p > \frac12$ they are right, at confidence $p$; with $p < \frac12$ they are wrong, at
# confidence $1 - p$. If $f$ is the density of $p$, a bin at confidence $c$ holds organ pixels of the first kind with
# weight $c f(c)$ and gap $c - 1$, and of the second with weight $(1 - c) f(1 - c)$ and gap $c$. Together, and over all
# bins:
#
# ```{math}
# :label: foreground-trap
# \text{ECE}_\text{true foreground} = \frac{1}{\mathbb E\, p} \int_{1/2}^1 c\,(1 - c)\, \big| f(1 - c) - f(c) \big| \, dc .
# ```
#
# It is 0 if $f(c) = f(1 - c)$, when organ is exactly as common and as doubtful as background. Otherwise the region
# invents an error for the truth itself. And it rewards a liar: beside the honest forecaster stands a *louder* one, who
# adds 2 to the log-odds of "organ" everywhere.

# %%
p = rng.beta(0.3, 3, pixels).clip(1e-12, 1 - 1e-12)
organ = torch.from_numpy(rng.uniform(size=pixels) < p).long()
organ = organ.view(1, 1, pixels)
odds = {
    "honest": p / (1 - p),
    "louder": p / (1 - p) * np.exp(louder),
}
regions = ("all", "predicted_foreground", "true_foreground")
says, table = {}, {}
for name, odd in odds.items():
    stack = np.stack([1 / (1 + odd), odd / (1 + odd)])
    says[name] = torch.from_numpy(stack).view(1, 2, 1, pixels)
    bins = calibration_bins(says[name], organ, regions=regions)
    table[name] = {r: bins[r].expected.item() for r in regions}
    table[name]["NLL"] = negative_log_likelihood(says[name], organ)
oracle = pd.DataFrame(table).T
oracle.style.format("{:.3f}")

# %%
f = beta(0.3, 3).pdf
inside = quad(lambda c: c * (1 - c) * abs(f(1 - c) - f(c)), 0.5, 1)[0]
exact = inside / beta(0.3, 3).mean()
tables = {
    name: bins_table(calibration_bins(x, organ, regions=regions))
    for name, x in says.items()
}
plots.reliability_diagram(tables, {r: r.replace("_", " ") for r in regions})

# %% tags=["hide-input"]
called = int((says["honest"].argmax(dim=1) == 1).sum())
Markdown(
    f"**What we saw.** By the formula the truth has a true-foreground error of {exact:.3f}; the run gave "
    f"{oracle.true_foreground.honest:.3f}. Over all pixels it has {oracle['all'].honest:.3f}, over the predicted foreground "
    f"{oracle.predicted_foreground.honest:.3f} (trap 1: the forecast is organ at {called:,} pixels only). The louder forecaster is worse wherever the question is fair: NLL "
    f"{oracle.NLL.louder:.3f} against {oracle.NLL.honest:.3f}, predicted foreground {oracle.predicted_foreground.louder:.3f}. "
    f"Over the true foreground it *wins*, with {oracle.true_foreground.louder:.3f}."
)

# %% [markdown]
# So a method can improve the papers' number by painting more organ. On images with borders the two wrongs (too timid
# inside, too bold outside) partly cancel, and what is left depends on the shape; {doc}`04_phantom` tells that story.
# Here only its test. On the phantom we add a small number to the log-odds of the three organs. Each region says which
# forecaster it likes best.

# %%
cases = load_dataset("phantom", size=size).split("test")
organs = torch.tensor([0.0, 1, 1, 1]).view(1, 4, 1, 1)
found = {}
for case in cases:
    truth = torch.from_numpy(case.posterior).movedim(0, 1)
    drawn = [
        torch.from_numpy(draw_labels(case.posterior.astype(float), rng))
        for _ in range(annotators)
    ]
    for added in (0.0, 0.3, 1.0):
        lied = (truth.clamp_min(1e-12).log() + added * organs).softmax(
            dim=1
        )
        for label in drawn:
            bins = calibration_bins(lied, label.long(), regions=regions)
            for r in regions:
                found.setdefault((added, r), []).append(bins[r])
on_phantom = pd.Series(
    {
        key: sum(bins[1:], bins[0]).expected.item()
        for key, bins in found.items()
    }
).unstack()[list(regions)]
on_phantom.rename_axis("added").style.format("{:.4f}").format_index(
    "{:.1f}"
).highlight_min(props="font-weight: bold")

# %% tags=["hide-input"]
favourite = on_phantom.true_foreground.idxmin()
Markdown(
    f"All pixels and the predicted foreground like the truth best. The true foreground likes the liar who adds "
    f"{favourite:g}: {on_phantom.true_foreground[favourite]:.4f}, against {on_phantom.true_foreground[0.0]:.4f} for the truth."
)

# %% [markdown]
# ## Trap 3: the same name, another number
#
# Four conventions that a paper may not mention. Each example is small enough to work out by hand.
#
# **Which classes are in the mean?** The classwise error of the code behind the papers on NACL averages over the classes
# 0 to the *largest label present*, and class 0 is among them though its region holds no pixel of that label. A hundred
# pixels of class 1, all forecast (0.05, 0.94, 0.005, 0.005). Then one more pixel appears, of class 3.

# %%
forecast = torch.tensor([0.05, 0.94, 0.005, 0.005]).view(1, 4, 1, 1)
region = {"region": "true_foreground"}
classwise = {}
for added in ([], [3]):
    label = torch.tensor([1] * 100 + added).view(1, 1, -1)
    probs = forecast.expand(1, 4, *label.shape[1:])
    classwise[f"{len(label[0, 0])} pixels"] = {
        c: classwise_calibration_error(probs, label, convention=c, **region)
        for c in ("reference", "standard")
    }
classwise = pd.DataFrame(classwise).T
classwise.style.format("{:.3f}")

# %% [markdown]
# The first is divided by 2 classes, the second by 4. Neither choice is free of trouble: over all classes, the ones that
# are absent and rightly ignored bring errors near 0 and *dilute* the mean. Say which it is, and show the classes one by
# one.
#
# **Where does the first bin begin?** The same code's bins of equal mass {cite}`nixon2019` leave out the smallest confidence, and all
# pixels that share it. Every pixel is certain, and every pixel is wrong:

# %%
certain = torch.tensor([1.0, 0.0]).view(1, 2, 1, 1).expand(1, 2, 8, 8)
wrong = torch.ones(1, 8, 8, dtype=torch.long)
adaptive = {
    c: adaptive_calibration_error(certain, wrong, convention=c)
    for c in ("reference", "standard")
}
pd.DataFrame([adaptive], index=["all certain, all wrong"])

# %% [markdown]
# **One pot, or case by case?** Two cases, both forecast with 0.85: in the first 70 % is right, in the second all is.
# And twenty cases of 500 pixels of the perfect forecaster of trap 1.

# %%
pots = {}
for how in ("pooled", "cases"):
    two, many = (CalibrationError(aggregation=how) for _ in range(2))
    for correct in (14, 20):
        label = torch.tensor([0] * correct + [1] * (20 - correct))
        probs = torch.tensor([0.85, 0.15]).view(1, 2, 1, 1)
        two.update(probs.expand(1, 2, 1, 20), label.view(1, 1, 20))
    for case in range(20):
        c = np.random.default_rng([seed, case]).uniform(0.5, 1, (2, 500))
        label = torch.from_numpy(2 * c[1] - 1 < c[0]).long().view(1, 1, 500)
        probs = torch.from_numpy(np.stack([1 - c[0], c[0]]))
        many.update(probs.view(1, 2, 1, 500), label)
    pots[how] = {
        "two, opposite faults": two.compute(),
        "twenty, no fault": many.compute(),
    }
pots = pd.DataFrame(pots)
pots.style.format("{:.3f}")

# %% [markdown]
# The pot hides faults that cancel between patients; the mean over cases counts each small case's chance as a fault.
# Both are answers, to different questions.
#
# **What does it count with?** A float32 has 24 binary digits. Some libraries add up pixels in it, one at a time, and a
# few CT volumes hold more than $2^{24} \approx 16.8$ million:

# %%
full = np.float32(2**24)
half_full = np.float32(2**23)
one, confidence = np.float32(1), np.float32(0.9)
counting = {
    "2^24 + 1": full + one,
    "2^23 + 0.9": half_full + confidence,
    "2^24 + 0.9": full + confidence,
}
pd.Series(
    {name: f"{value:,.1f}" for name, value in counting.items()}
).to_frame("float32 says")

# %% tags=["hide-input"]
Markdown(
    "**What we saw.** One pixel of another class took the reference's classwise error from "
    f"{classwise.reference.iloc[0]:.3f} to {classwise.reference.iloc[1]:.3f}. A forecast that is always certain and always wrong got "
    f"{adaptive['reference']:.1f} from its adaptive error. Two opposite faults made {pots['pooled'].iloc[0]:.3f} in one pot and "
    f"{pots['cases'].iloc[0]:.3f} by case; no fault at all {pots['pooled'].iloc[1]:.3f} and {pots['cases'].iloc[1]:.3f}. And a counter in float32 "
    f"stops at {full:,.0f}; its sum of confidences of 0.9 grows by 1 at a time from half of that on, and stops at the same "
    "number. Then the mean confidence of the bin reads 1. (`nacl` counts in int64 and sums in float64.)"
)

# %% [markdown]
# ## Which number, then?
#
# | you ask | look at | beware |
# | --- | --- | --- |
# | Is the forecast better, all in all? | NLL, Brier | does not say why: take it apart |
# | Is it honest, and in which direction? | ECE over *all*, with its parts over and under | easy background outweighs the rest |
# | Is it honest where it matters? | ECE over the *predicted border* or *predicted foreground* | fewer pixels, more chance |
# | Is each class's probability honest? | classwise ECE, class by class | absent classes dilute the mean |
# | Could a temperature repair it? | NLL before and after one; reliability and resolution | one temperature, one kind of fault |
# | How bad can it get? | MCE, *with* the count of its bin | often a handful of pixels |
# | Is it honest for a typical patient? | `aggregation="cases"` | chance in small cases |
# | How does it compare with the papers? | `convention="reference"`, true foreground | never alone |
#
# **Where it fails.** We knew the truth, and so could name each error. On real images one sees only the sum: a gap may
# be the network's, or chance, or the region's. The known remedies are many patients, regions that do not look at the
# label, and two numbers that would have to be wrong together.
#
# ```{exercise}
# :label: exercise-traps-chance
# Your test set has 50 patients whose errors are perfectly alike within a patient: one draw each. A forecaster with
# confidences uniform between 0.5 and 1 is reported with an ECE of 0.10, over millions of pixels. Is it miscalibrated?
# ```
#
# ```{solution} exercise-traps-chance
# :class: dropdown
# By {eq}`chance-ece` with $n = 50$ and $B = 7.5$, chance alone gives $\sqrt{15 / (50 \pi)} \cdot \pi / 8 \approx 0.12$
# to a perfect forecaster. Nothing is shown.
# ```
#
# ```{exercise}
# :label: exercise-traps-symmetric
# For which Beta$(a, b)$ does the true foreground give the truth an error of 0?
# ```
#
# ```{solution} exercise-traps-symmetric
# :class: dropdown
# The density must satisfy $f(c) = f(1 - c)$: $a = b$. Half of all pixels are then organ. No organ fills half of its
# image.
# ```
#
# **Take-away.** Ask of every calibration error: how many independent pixels, chosen by whom, pooled how, over which
# classes, counted with what? No single number is calibration.

# %% tags=["hide-cell"]
independent = chance.loc[["100", "1,000", "10,000"]]
assert independent.ECE.is_monotonic_decreasing
assert np.allclose(independent.ECE, independent.formula, rtol=0.25)
assert (chance["RMS, debiased"] < chance.RMS)["1,000"]
assert dependent.ECE / independent.ECE.iloc[-1] > 3
assert dependent["RMS, debiased"] > 0.8 * dependent.RMS
assert abs(oracle.true_foreground.honest - exact) < 0.04
assert oracle.loc["honest", ["all", "predicted_foreground"]].max() < 0.03
assert oracle.true_foreground.louder < oracle.true_foreground.honest / 2
assert oracle.NLL.louder > oracle.NLL.honest
assert (on_phantom.drop(columns="true_foreground").idxmin() == 0).all()
assert favourite > 0
assert np.isclose(classwise.reference.iloc[0], 0.055, atol=1e-6)
assert classwise.reference.iloc[1] < 0.6 * classwise.reference.iloc[0]
assert np.ptp(classwise.standard) < 0.01
assert list(adaptive.values()) == [0, 1]
assert np.allclose(pots.iloc[0], [0, 0.15], atol=1e-6)
assert pots["cases"].iloc[1] > 2 * pots["pooled"].iloc[1]
assert counting["2^24 + 1"] == counting["2^24 + 0.9"] == full
assert counting["2^23 + 0.9"] == half_full + 1
assert np.sqrt(15 / (50 * np.pi)) * np.pi / 8 > 0.1
