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
# # What would a perfect network say?
#
# **You need** probabilities and the normal distribution. **Run time**: about a minute.
#
# **Claim.** On real images nobody knows how sure a network *should* be at a pixel. So we make images for which we do
# know: a cardiac phantom whose labels are *drawn* from probabilities that we keep. On it, a calibration error has a
# right answer, and we can see which way of measuring one finds it.

# %% tags=["parameters"]
size = 96
draws = 400
seed = 1

# %% tags=["hide-input"]
import numpy as np
import pandas as pd
import torch
from IPython.display import Markdown
from nacl import CalibrationError, plots
from nacl.data import load_dataset
from nacl.data.phantom import CLASS_NAMES, draw_labels
from nacl.evaluation import bins_table
from nacl.parameters import check_parameters

check_parameters(globals())

# %% [markdown]
# The *confidence* of a forecast is its largest probability. To test it, sort the pixels by confidence into 15 bins
# $B_b$; the expected calibration error {cite}`guo2017` is
#
# ```{math}
# :label: ece
# \text{ECE} = \sum_b \frac{|B_b|}{n} \, \big| \text{accuracy}(B_b) - \text{mean confidence}(B_b) \big| .
# ```
#
# It depends on the pixels that are taken: *all*; those *predicted* as heart; the band within 2 pixels of another
# *predicted* class; or, as in the papers on NACL {cite}`murugesan2025`, those whose *true label* is heart.
#
# **Predict.** A network that outputs the true probability at every pixel is perfect. What is its calibration error
# over the predicted border? And over the pixels whose *true label* is heart? Write down two numbers.
#
# ## One slice, its truth, and three annotators
#
# A slice is a left ventricle in a ring of muscle, with a right ventricle beside it. Let $d_\text{in} > d_\text{out}$ be
# the distances to the ring's two borders along the ray from its centre, and $d_\text{rv}$ the distance to the circle of
# the right ventricle, all negative inside and measured in widths of the slice. With the normal distribution function
# $\Phi$ and the ambiguity $a$ of the patient,
#
# ```{math}
# :label: phantom-posterior
# \begin{aligned}
# q_\bullet &= \Phi(-d_\bullet / a) \quad \text{for in, out, rv}, \\
# p_\text{LV} &= q_\text{in}, \\
# p_\text{muscle} &= q_\text{out} - q_\text{in}, \\
# p_\text{RV} &= (1 - q_\text{out})\, q_\text{rv}, \\
# p_\text{background} &= (1 - q_\text{out})(1 - q_\text{rv}) .
# \end{aligned}
# ```
#
# An annotator misplaces the borders *smoothly*: with two independent Gaussian fields $u, v$ of mean 0 and variance 1 at
# every pixel, smooth within a slice, the label is LV where $\Phi(u) < q_\text{in}$, else muscle where
# $\Phi(u) < q_\text{out}$, else RV where $\Phi(v) < q_\text{rv}$. Since $\Phi(u)$ and $\Phi(v)$ are uniform and
# independent, and $q_\text{in} \le q_\text{out}$, every pixel, taken alone, gets its label with exactly the probabilities
# of {eq}`phantom-posterior`. The image is made from $p$, with intensities, bias and noise; it has not seen the annotator.

# %%
case = load_dataset("phantom", size=size).split("test")[0]
one = case.posterior[:, 2]
plots.maps(
    dict(zip(CLASS_NAMES, one, strict=True)), label="true probability"
)
# %%
rng = np.random.default_rng(seed)
annotators = {
    f"annotator {i}": draw_labels(case.posterior.astype(float), rng)[2]
    for i in (1, 2, 3)
}
plots.outlines(case.image[0, 2], annotators, CLASS_NAMES)
# %% [markdown]
# Three annotators, one image: each border is moved by about $a$, here to one side, there to the other, and nobody is
# wrong. Patients with a larger $a$ have blurred borders, and annotators who differ more.
#
# ## Are the labels really drawn from the posterior?
#
# Draw many annotators and count. If the formula is right, the share of each label at each pixel is its probability,
# up to the error of counting, $\sqrt{p (1 - p) / n}$. In units of it the differences have a mean square of 1, on average
# over all ways the annotators could have drawn. How far may it be from 1 by chance?
#
# That depends on how many of the differences are independent, and few are: an annotator errs the same way along a
# stretch of border, and the probabilities of one pixel sum to 1. Let $d_a$ be annotator $a$'s label less its probability,
# over $\sqrt{p (1 - p)}$, at all $N$ ambiguous probabilities. The $d_a$ have mean 0 and correlations $R$, and two
# annotators are independent, so $\mathbb E\,(d_a \cdot d_b)^2 = \sum_{ij} R_{ij}^2$. It would be $N$ if all were
# independent; so they count as
#
# ```{math}
# :label: independent-pixels
# N_\text{eff} = \frac{N^2}{\mathbb E\,(d_a \cdot d_b)^2} ,
# ```
#
# and the mean square varies by about $\sqrt{2 / N_\text{eff}}$.

# %%
posterior = case.posterior.astype(float)
ambiguous = (posterior > 0.05) & (posterior < 0.95)
p = posterior[ambiguous]
classes = np.arange(4)[:, None, None, None]
labels = [
    (classes == draw_labels(posterior, rng))[ambiguous]
    for _ in range(draws)
]
d = (np.array(labels) - p) / np.sqrt(p * (1 - p))

# %%
mean_square = draws * (d.mean(axis=0) ** 2).mean()
products = (d @ d.T)[np.triu_indices(draws, 1)]
independent = len(p) ** 2 / (products**2).mean()
error = np.sqrt(2 / independent)
Markdown(
    f"{len(p)} ambiguous probabilities, which count as {independent:.0f} independent ones, and {draws} annotators: the mean square "
    f"is {mean_square:.2f}, where 1 ± {error:.2f} is expected."
)

# %% [markdown]
# ## Now score the truth itself
#
# Give the true probabilities to the metric as if a network had said them; the labels are drawn from them. Once one
# annotator labels the test patients, once thirty do.

# %%
regions = (
    "all",
    "predicted_foreground",
    "predicted_border",
    "true_foreground",
)
many = 30
metrics = {
    (n, r): CalibrationError(region=r) for n in (1, many) for r in regions
}
for case in load_dataset("phantom", size=size).split("test"):
    probs = torch.from_numpy(case.posterior).movedim(0, 1)
    for i in range(many):
        label = torch.from_numpy(
            draw_labels(case.posterior.astype(float), rng)
        )
        for n, region in metrics:
            if i < n:
                metrics[n, region].update(probs, label.long())

# %%
errors = pd.Series(
    {key: m.compute() for key, m in metrics.items()}
).unstack()
errors[list(regions)].rename_axis("annotators").style.format("{:.4f}")

# %% [markdown]
# How much of that is chance? Here we can say it without any annotator. Over a region that looks at images and predictions
# only, the expected accuracy of every pixel is its confidence, so the gap of each bin is 0. Over the true foreground a pixel
# is kept with the chance $1 - p_\text{background}$, and is right with the chance of its largest probability, but only
# if that is not the background's. The sums over a bin give its gap with infinitely many annotators.

# %%
test = load_dataset("phantom", size=size).split("test")
truth = np.concatenate([c.posterior.reshape(4, -1) for c in test], axis=1)
kept, sure = 1 - truth[0].astype(float), truth.max(axis=0).astype(float)
right = np.where(truth.argmax(axis=0) > 0, sure, 0)
sums = {"count": kept, "confidence": kept * sure, "accuracy": right}
bin_of = np.ceil(15 * sure).astype(int) - 1
exact = pd.DataFrame(sums).groupby(bin_of).sum()
limit = (exact["accuracy"] - exact["confidence"]).abs().sum()
limit /= exact["count"].sum()

# %%
names = {"predicted_border": "predicted border"}
names["true_foreground"] = "true foreground"
gaps = {title: {} for title in names.values()}
for (n, region), metric in metrics.items():
    if region in names:
        table = bins_table({region: metric.bins})
        table = table[table["count"] > 0.01 * table["count"].sum()]
        confidence = table["confidence_sum"] / table["count"]
        gap = table["correct_sum"] / table["count"] - confidence
        who = "1 annotator" if n == 1 else f"{n} annotators"
        gaps[names[region]][who] = confidence, gap

# %%
exact = exact[exact["count"] > 0.01 * exact["count"].sum()]
confidence = exact["confidence"] / exact["count"]
gap = exact["accuracy"] / exact["count"] - confidence
every = "infinitely many annotators"
gaps["predicted border"][every] = confidence, 0 * confidence
gaps["true foreground"][every] = confidence, gap
plots.curves(gaps, "confidence", "accuracy less confidence")

# %% tags=["hide-input"]
border = errors["predicted_border"]
largest = max(
    abs(g).max() for group in gaps.values() for _, g in group.values()
)
Markdown(
    f"**What we saw.** With one annotator even the truth scores {border[1]:.4f} round the predicted border. That is chance, "
    f"since one annotator errs the same way along a whole stretch of border: with {many} it is {border[many]:.4f}, and with "
    f"infinitely many 0. Over the true foreground it is {errors.loc[1, 'true_foreground']:.4f}, then "
    f"{errors.loc[many, 'true_foreground']:.4f}, and with infinitely many {limit:.4f}: this is no chance, and more annotators do "
    f"not remove it. None of this is large. No gap in the picture is above {largest:.3f}, so that on a reliability diagram, where "
    "accuracy goes from 0 to 1, every line would lie on the diagonal. (Left out of the picture are bins with less than 1% of "
    "their region's pixels. Over all pixels every number is small, because most are easy.)"
)

# %% [markdown]
# Why? The label chooses, twice. Of the pixels with $p_\text{heart} = 0.9$ only the times when the label *was* heart are
# kept: accuracy 1 at a confidence of 0.9, too timid. Of the pixels forecast as background only those that turn out to be
# heart are kept, and all of them are errors: too bold. What is left of the two depends on the shape of the organ and not
# on the forecast. A region may look at images and predictions; one that looks at the answer is no test of calibration.
# We report the papers' region, so that numbers can be compared, and never alone.
#
# **Where it fails.** $p$ is what someone says who knows the borders and their ambiguity. A network sees a noisy image and
# can at best say the mean of $p$ given the image: calibrated too, and a little less sharp. And $p$ describes one pixel at
# a time; the labels of neighbours are drawn together.
#
# ```{exercise}
# :label: exercise-phantom-region
# A forecaster says "heart: 0.9" for 100 pixels, and 90 of them are heart. What is the accuracy among the pixels whose
# true label is heart, and the calibration error over them?
# ```
#
# ```{solution} exercise-phantom-region
# :class: dropdown
# Only the 90 pixels of heart are kept. Each was predicted as heart, so the accuracy is 1, at a confidence of 0.9: a
# calibration error of 0.1, for a perfect forecast.
# ```
#
# ```{exercise}
# :label: exercise-phantom-cancel
# Now 100 pixels have $p_\text{heart} = 0.9$ and 100 have 0.1, and each is forecast with confidence 0.9. What is the
# accuracy over the pixels whose true label is heart?
# ```
#
# ```{solution} exercise-phantom-cancel
# :class: dropdown
# Of the first hundred 90 are heart, and right. Of the second 10 are heart, and were forecast as background: wrong. The
# accuracy is 90 in 100, equal to the confidence. Here an error is hidden that {ref}`exercise-phantom-region` invented.
# ```
#
# **Take-away.** Keep the truth and you can test the measuring stick. Choose pixels by their true label, and the error of
# even a perfect forecast depends on the shape of the object.

# %% tags=["hide-cell"]
assert np.abs(posterior.sum(axis=0) - 1).max() < 1e-6
assert independent < len(p) / 4
assert abs(mean_square - 1) < 4 * error
assert border[many] < 0.7 * border[1]
assert errors.loc[many, "true_foreground"] > 1.5 * border[many]
assert abs(errors.loc[many, "true_foreground"] - limit) < 0.003
assert (gap < 0).all()
