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
# **You need** probabilities and the normal distribution. **Run time**: under a minute on two cores.
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
import torch
from IPython.display import Markdown
from nacl import expected_calibration_error, plots
from nacl.data import load_dataset
from nacl.data.phantom import CLASS_NAMES, draw_labels

# %% [markdown]
# **Predict.** A network that outputs the true probability at every pixel is perfect. What is its calibration error
# (ECE) over all pixels? And over the pixels whose *true label* is heart, the region of the papers? Write down two
# numbers.
#
# ## One slice, its truth, and three annotators
#
# A slice is a left ventricle in a ring of muscle, with a right ventricle beside it. With signed distances
# $d_\text{in}$, $d_\text{out}$, $d_\text{rv}$ to the three borders (negative inside), the normal distribution function
# $\Phi$, and the ambiguity $s$ of the patient,
#
# ```{math}
# :label: phantom-posterior
# q_\bullet = \Phi(-d_\bullet / s), \qquad
# p_\text{LV} = q_\text{in}, \quad
# p_\text{muscle} = q_\text{out} - q_\text{in}, \quad
# p_\text{RV} = (1 - q_\text{out})\, q_\text{rv}, \quad
# p_\text{background} = (1 - q_\text{out})(1 - q_\text{rv}).
# ```
#
# An annotator misplaces the borders *smoothly*: with two Gaussian fields $u, v$, smooth in space and of variance 1 at
# every pixel, the label is LV where $\Phi(u) < q_\text{in}$, else muscle where $\Phi(u) < q_\text{out}$, else RV where
# $\Phi(v) < q_\text{rv}$. Since $\Phi(u)$ is uniform, every pixel gets its label with exactly the probabilities of
# {eq}`phantom-posterior`. The image shows $p$ through intensities, bias and noise; it has not seen the annotator.

# %%
case = load_dataset("phantom", size=size).split("test")[0]
middle = case.posterior[:, 2]
plots.maps(dict(zip(CLASS_NAMES, middle, strict=True)), label="true probability")
# %%
rng = np.random.default_rng(seed)
annotators = {
    f"annotator {i}": draw_labels(case.posterior.astype(float), rng)[2]
    for i in (1, 2, 3)
}
plots.outlines(case.image[2], annotators, CLASS_NAMES)
# %% [markdown]
# Three annotators, one image: the outlines differ most where the wall is blurred, and nobody is wrong.
#
# ## Are the labels really drawn from the posterior?
#
# Draw many annotators and count. If the formula is right, the share of each label at each pixel is its probability,
# up to the error of counting, $\sqrt{p (1 - p) / n}$.

# %%
posterior = case.posterior[:, 2:3].astype(float)
counts = sum(
    np.arange(4)[:, None, None, None] == draw_labels(posterior, rng)
    for _ in range(draws)
)
share = counts / draws
ambiguous = (posterior > 0.05) & (posterior < 0.95)
z = (share - posterior)[ambiguous] / np.sqrt(posterior * (1 - posterior) / draws)[
    ambiguous
]
Markdown(
    f"Over {ambiguous.sum()} ambiguous probabilities and {draws} annotators, the standardised differences have mean "
    f"{z.mean():.2f} and root mean square {np.sqrt((z**2).mean()):.2f} (expected: 0 and 1)."
)

# %% [markdown]
# ## Now score the truth itself
#
# Give the true probabilities to the metric as if a network had said them, with one drawn label map a case. The test
# patients, pooled case by case:

# %%
cases = load_dataset("phantom", size=size).split("test")
truths = [
    (torch.from_numpy(c.posterior).movedim(0, 1), torch.from_numpy(c.label).long())
    for c in cases
]
regions = ("all", "predicted_foreground", "predicted_border", "true_foreground")
errors = {
    r: np.mean([expected_calibration_error(p, y, region=r) for p, y in truths])
    for r in regions
}
errors

# %% tags=["hide-input"]
Markdown(
    f"**What we saw.** The truth scores {errors['all']:.4f} over all pixels, but {errors['true_foreground']:.3f} over "
    f"the pixels that the *true label* calls heart: {errors['true_foreground'] / errors['all']:.0f} times as much, "
    "for a forecast that cannot be improved. What is left elsewhere is chance: one annotator, whose error is the same "
    "for a whole stretch of border."
)

# %% [markdown]
# Why? Choose a pixel with $p_\text{heart} = 0.9$ and look only at the times when the label *was* heart: then it was
# heart 10 times in 10, and the forecast of 0.9 looks too timid. Pixels that are forecast as background and turn out to
# be heart are kept too, and all count as errors. A region may look at images and predictions; one that looks at the
# answer is no test of calibration. We report the papers' region, so that numbers can be compared, and never alone.
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
# **Take-away.** Keep the truth and you can test the measuring stick. Choose pixels by their true label, and even the
# truth fails.

# %% tags=["hide-cell"]
assert np.abs(posterior.sum(axis=0) - 1).max() < 1e-6
assert abs(z.mean()) < 0.35
assert 0.6 < np.sqrt((z**2).mean()) < 1.4
assert errors["true_foreground"] > 4 * errors["all"]
