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
# # What does the reference code really do?
#
# **You need** {doc}`06_svls`, {doc}`07_nacl` and {doc}`03_traps`; each section also stands alone. **Run time**: a few
# seconds.
#
# **Claim.** The papers on NACL {cite}`murugesan2025` and CRaC {cite}`murugesan2024` come with code, and code decides
# what a number means. In more than a dozen places that code does something other than the papers' formulas, or than a
# user would expect. Nearly every one can be seen on a few pixels.
#
# The code is the repository *Bala93/MarginLoss* on GitHub. It has no licence, so not a line of it is used here, and there
# is no copy of it: it was read for its facts, in November 2026. **Which commit that was, was not recorded**, so what
# the text says of the code cannot be checked here, and another version may differ. What can be checked is the rest: the
# cells do not run the reference, they show each effect with an option of this package that does the same, as we read it. That authors publish their code is why it can be examined at all; most of what
# follows is the kind of slip that tests find. Wherever possible an option gives the papers' numbers, so
# that old results can be compared with new ones.

# %% tags=["parameters"]
size = 30
seed = 0

# %% tags=["hide-input"]
import numpy as np
import pandas as pd
import torch
from IPython.display import Markdown
from nacl.losses import focal_loss, nacl_loss
from nacl.metrics import (
    CalibrationError,
    adaptive_calibration_error,
    brier_score,
    classwise_calibration_error,
    dice_score,
    expected_calibration_error,
    hausdorff_distance_95,
)
from nacl.parameters import check_parameters
from nacl.priors import mixed_windows, neighbour_prior, one_hot
from nacl.theory import (
    COUNTEREXAMPLES,
    confidence_ceiling,
    is_equivariant,
    relabelling_gap,
    svls_band_share,
    svls_softening,
)

check_parameters(globals())

# small tensors: more threads cost more than they bring
torch.set_num_threads(1)

# %% [markdown]
# **Predict.** A network finds nothing: it predicts background everywhere, though the organ is there. Which 95 %
# Hausdorff distance, where 0 is the best, does the evaluation behind the papers give it? Write it down. The answer is
# in section 10.
#
# Each section says what a user observes and asks why. The answers are folded.
#
# ## In training
#
# ### 1. The same weight, another ceiling
#
# You train L1-NACL with a weight of 0.1 on data sets with 2, 4 and 16 classes. The networks stop at different
# confidences. You read the weight as the paper writes it, and they should not.

# %%
rows = {}
for K in (2, 4, 16):
    code = confidence_ceiling("nacl", K, penalty_weight=0.1)
    paper = confidence_ceiling("nacl", K, penalty_weight=0.1 * K)
    rows[f"K = {K}"] = {"0.1 in the code": code, "0.1 in the paper": paper}
weights = pd.DataFrame(rows).T
weights.style.format("{:.4f}")

# %% [markdown]
# ```{exercise}
# :label: exercise-reference-weight
# Why? Which weight do you pass to reproduce the paper's formula?
# ```
#
# ```{solution} exercise-reference-weight
# :class: dropdown
# The paper sums the penalty over the classes; the code takes its mean over pixels *and* classes. So
# $\lambda_\text{paper} = \lambda_\text{code} / K$, and the ceiling $1 - \lambda_\text{code} / K$ depends on $K$. The
# entropy penalty is averaged in the same way. This package keeps the code's convention (`penalty_weight`), to which the
# default of 0.1 belongs, and says so in each docstring. For the formula pass $K$ times the weight.
# ```
#
# ### 2. Background at the edge of the image
#
# A crop lies wholly inside an organ: every label is 2. The prior $\tau$ of its corner pixel is not class 2.

# %%
full = torch.full((1, 4, 4), 2)
corner = {
    border: neighbour_prior(full, 4, border=border)[0, :, 0, 0].tolist()
    for border in ("background", "zero", "inside")
}
columns = [f"class {k}" for k in range(4)]
corner = pd.DataFrame(corner, columns).T.rename_axis("border")
corner.assign(sum=corner.sum(axis=1)).style.format("{:.2f}")

# %% [markdown]
# ```{exercise}
# :label: exercise-reference-border
# Where do 0.56 and 0.44 come from? Which row is the reference's?
# ```
#
# ```{solution} exercise-reference-border
# :class: dropdown
# The window of a corner has $2 \times 2$ of its $3 \times 3$ places inside the image: $4/9 \approx 0.44$. The reference pads the *labels* with 0,
# which is the number of the background, so the other five are background: the first row. (MONAI 1.6.1 pads the
# one-hot labels with 0; its $\tau$, the second row, sums to less than 1.) Here only pixels of the image count, unless you ask for
# `border="background"` or `border="zero"`. The image's edge is mostly background anyway, but that of a crop or patch is
# not.
# ```
#
# ### 3. Rename the classes, and the prior changes
#
# The numbers of classes are names. You renumber them, in labels and network alike, and train again. With
# some priors the loss is another one. Here is how much $\tau$ moves on random labels, renumbered from (0, 1, 2) to (2, 0, 1).

# %%
torch.manual_seed(seed)
labels = torch.randint(3, (1, 8, 8))
priors = ("mean", "gaussian", "max", "min", "median", "mode")
rows = {}
for at_edge in ("inside", "background"):
    for prior in priors:
        options = {"border": at_edge}
        gap = relabelling_gap(prior, labels, (2, 0, 1), 3, **options)
        rows[prior, at_edge] = gap, is_equivariant(prior, **options)
columns = ["largest change of τ", "survives"]
renamed = pd.DataFrame(rows, columns).T.rename_axis(["prior", "border"])
renamed.style.format({columns[0]: "{:.2f}"}, subset=[columns[0]])

# %% [markdown]
# ```{exercise}
# :label: exercise-reference-names
# Which three labels in a row are enough to show it for the median?
# ```
#
# ```{solution} exercise-reference-names
# :class: dropdown
# The labels 0, 1, 2: the median of the window in the middle is 1. Exchange the names 0 and 1: the labels are now
# 1, 0, 2, the median is 1 again, and that is what used to be class 0. `max`, `min` and `median` take names for
# quantities; `mode` only settles ties by the smallest number. `nacl.theory.COUNTEREXAMPLES` holds a smallest map for
# each, `nacl.theory.is_equivariant` says which priors survive. The reference's border breaks them all, since
# what lies outside is class 0, whoever bears that name. We offer the four for comparison, and the mean by default.
# ```
#
# ### 4. A prior that listens to strangers
#
# The bilateral and the gradient prior look at the image, to let pixels of one tissue speak for each other. Take an image with
# a sharp edge, and labels that follow it. Below: one row of $\tau$, for the class on the right, and the sum over both
# classes.

# %%
image = torch.zeros(1, 5, 6)
image[..., 3:] = 1
tissue = image.long()
rows = {}
for prior in ("bilateral", "gradient", "image_proportions_l1"):
    tau = neighbour_prior(tissue, 2, prior=prior, image=image)[0, :, 2]
    rows[prior, "class on the right"] = tau[1].tolist()
    rows[prior, "sum"] = tau.sum(dim=0).tolist()
strangers = pd.DataFrame(rows).T
strangers.columns = [f"x = {x}" for x in range(6)]
strangers.style.format("{:.2f}")

# %% [markdown]
# ```{exercise}
# :label: exercise-reference-strangers
# At $x = 3$, the first pixel of the right tissue, two priors give its own class nothing. And far from the edge they are
# 0 altogether. Why?
# ```
#
# ```{solution} exercise-reference-strangers
# :class: dropdown
# Their weight is the *difference* of the grey values, where one expects something that falls with it. So a pixel's equals
# weigh 0, the pixel itself among them, and only strangers count. The weights are not divided by their sum, so in a flat
# region $\tau = 0$ in every class, and NACL draws all logits to 0 there. The two `image_proportions` priors fall with
# the difference and are normalised. Here `bilateral` and `gradient` are kept as they are, for the record, and the docstring of
# `nacl.priors.neighbour_prior` says what they do.
# ```
#
# ### 5. A kernel that stays 3
#
# You repeat the ablation of SVLS over kernel sizes {cite}`islam2021` with the reference code. Three runs, one seed, one
# result. By the definition a larger window softens more pixels:

# %%
at = torch.arange(size) - size / 2
disc = (at**2 + at[:, None] ** 2 < (size / 3) ** 2).long()[None]
rows = {}
for k in (3, 5, 7):
    taken = svls_softening(disc, 2, kernel_size=k).mean().item()
    rows[k] = svls_band_share(disc, kernel_size=k), taken
columns = ["pixels softened", "mean softening"]
svls = pd.DataFrame(rows, columns).T.rename_axis("k")
svls.style.format("{:.1%}")

# %% [markdown]
# ```{exercise}
# :label: exercise-reference-kernel
# What must the code do for all three runs to agree? Why did no one see an error?
# ```
#
# ```{solution} exercise-reference-kernel
# :class: dropdown
# Two things, as we read it. The loss hard-codes the size 3 where it makes its window, so the parameter has no effect. And
# the function that builds the window would not be right for another size either: it takes the centre's weight from the
# index [1, 1], where only a $3 \times 3$ window has its centre. So at $k = 3$ that code and the definition agree, and a
# run that asks for another size is a run at 3. A parameter that is accepted and not used raises nothing. A test that two sizes give two
# losses would have shown it. Here the weights follow their definition for every odd size (`nacl.theory.svls_weights`),
# and an even one is refused. (MONAI 1.6.1 has a relative of this: its gaussian prior ignores `kernel_size`.)
# ```
#
# ### 6. Pixels to be ignored
#
# Your annotators marked unsure pixels with 255. You pass `ignore_index=255` to NACL. Below is what you expect, and what
# our loss does: no gradient at the unsure pixel, and no change of the loss whatever the network says there.

# %%
unsure = torch.tensor([[[0, 0, 255, 1, 1]]])
logits = torch.randn(1, 2, 1, 5, requires_grad=True)
loss = nacl_loss(logits, unsure, ignore_index=255)
(slope,) = torch.autograd.grad(loss, logits)
changed = logits.detach().clone()
changed[..., 2] = 99
same = nacl_loss(changed, unsure, ignore_index=255)
columns = [f"label {k}" for k in unsure.flatten().tolist()]
gradient = pd.DataFrame(slope[:, 0, 0].tolist(), ["gradient"], columns)
gradient.assign(**{"change of the loss": (same - loss).item()})

# %% [markdown]
# ```{exercise}
# :label: exercise-reference-ignore
# The reference takes the argument. What else must a loss with neighbours do with it, beyond leaving out a pixel's own
# term?
# ```
#
# ```{solution} exercise-reference-ignore
# :class: dropdown
# The reference's NACL stores the number and never reads it, so nothing is ignored. (MONAI 1.6.1 raises an
# error for labels of −100 or 255.) Three places need it: the pixel's own term, its vote in the windows of its neighbours
# (their $\tau$ must be divided by the votes that are left), and the number by which the mean is divided.
# ```
#
# ### 7. A sum where others take the mean
#
# You replace cross-entropy by the focal loss, keep the learning rate, and training blows up. In another run it is well
# until a patch comes that has no valid pixel.

# %%
scores = torch.zeros(4, 4, 192, 192)
target = torch.zeros(4, 192, 192, dtype=torch.long)
nothing = torch.full_like(target, -100)
in_torch = torch.nn.functional.cross_entropy(scores, nothing).item()
focal = {
    "sum": focal_loss(scores, target, reduction="sum").item(),
    "mean": focal_loss(scores, target).item(),
    "mean of no pixel": focal_loss(scores, nothing).item(),
    "mean of no pixel, PyTorch's cross-entropy": in_torch,
}
pd.Series(focal).to_frame("loss").style.format("{:.4f}")

# %% [markdown]
# ```{exercise}
# :label: exercise-reference-focal
# By what factor do the gradients of the two conventions differ for an ACDC batch of 4 slices of $192 \times 192$ pixels? Why NaN?
# ```
#
# ```{solution} exercise-reference-focal
# :class: dropdown
# By the number of pixels, $4 \cdot 192^2 = 147{,}456$: the reference's focal loss sums by default, its other losses
# average. (Adam, which divides by the size of the gradient, hides most of it; gradient clipping, weight decay and a sum with
# another loss do not.) Where every pixel is ignored, a mean is $0 / 0$; the reference's focal loss gives NaN there, and so
# does PyTorch's cross-entropy above. Here the default is the mean, and the mean of no pixel is 0, with a gradient of 0.
# ```
#
# ### 8. A border that is never found
#
# CRaC treats borders and insides differently. Its code calls a pixel a border if $\sum_j (\bar y - y_j) \ne 0$ over
# the window, $\bar y$ being the mean label there. Count what that finds on a straight edge:

# %%
edge = torch.zeros(1, size, size, dtype=torch.long)
edge[:, :, size // 2 :] = 1
padded = torch.nn.functional.pad(edge[None].double(), [1] * 4, "replicate")
windows = torch.nn.functional.unfold(padded, 3)
deviation = (windows.mean(dim=1, keepdim=True) - windows).sum(dim=1).abs()
borders = {
    "the sum is not 0 (to 12 digits)": (deviation > 1e-12).sum().item(),
    "the window is mixed": mixed_windows(edge).sum().item(),
}
pd.Series(borders).to_frame("border pixels")

# %% [markdown]
# ```{exercise}
# :label: exercise-reference-edge
# Why none? Which one-word change to the sum would have worked?
# ```
#
# ```{solution} exercise-reference-edge
# :class: dropdown
# The deviations from a mean sum to 0: $\sum_j (\bar y - y_j) = n \bar y - \sum_j y_j = 0$, always. Their absolute
# values or squares would not. So all pixels are "inside", whatever their neighbours are, and the border half of CRaC's constraints is never used. (In
# float32 the sum can be $10^{-7}$ instead of 0, and then the rounding decides; that is why the cell counts in float64 and to 12 digits.) `nacl.losses.crac_loss` calls a pixel
# a border if its window holds two classes; also if those are 1 and 3, whose mean could be a label.
# ```
#
# ## In measuring
#
# ### 9. A perfect forecast with an error of 0.7
#
# All pixels look the same, and three in ten are organ. The forecast says exactly that: 0.7 background, 0.3 organ. The
# papers' ECE counts only the pixels whose true label is not background.

# %%
perfect = torch.tensor([0.7, 0.3]).view(1, 2, 1, 1).expand(1, 2, 10, 10)
drawn = torch.tensor([0] * 70 + [1] * 30).view(1, 10, 10)
ece = {
    region: expected_calibration_error(perfect, drawn, region=region)
    for region in ("all", "true_foreground")
}
pd.Series(ece).to_frame("ECE").style.format("{:.3f}")

# %% [markdown]
# ```{exercise}
# :label: exercise-reference-region
# Take the second number apart: which confidence, which accuracy?
# ```
#
# ```{solution} exercise-reference-region
# :class: dropdown
# Every pixel is called background with a confidence of 0.7. Among the pixels that *are* organ, that is right at none:
# accuracy 0, gap 0.7. Pixels were chosen by the answer, and the forecast cannot know the answer. {doc}`03_traps` has the formula, and a
# liar who wins. In the reference the error is taken over each volume by itself, with 15 bins, and these errors
# are averaged; the pixels of all patients are never in one bin. Here `region="true_foreground"` and
# `aggregation="cases"` give that number. (A case is one volume. Where a patient has two, as in ACDC, we did not note
# whether the reference takes them apart, as we do.) Beside it stand regions that a forecast can know:
# `"all"`, `"predicted_foreground"`, `"predicted_border"`.
# ```
#
# ### 10. Nothing found, nothing wrong
#
# The truth holds class 1 in a few slices, and no class 2. One prediction finds nothing. Another finds class 1
# exactly and paints half of the volume with class 2. A third has class 1 one slice too high; a slice is 10 mm thick, and a
# pixel 1 mm wide.

# %%
truth = np.zeros((6, 8, 8), dtype=int)
truth[1:4, 2:6, 2:6] = 1
painted = truth.copy()
painted[:, :, 6:], painted[:, 6:, :], painted[:, :2, :] = 2, 2, 2
shifted = np.roll(truth, 1, axis=0)
found = {
    "finds nothing": 0 * truth,
    "class 2 too": painted,
    "shifted": shifted,
}
spacing = {"reference": None, "standard": (10.0, 1.0, 1.0)}

# %%
rows = {}
for convention, mm in spacing.items():
    how = {"convention": convention}
    for name, mask in found.items():
        distance = hausdorff_distance_95(mask, truth, 3, spacing=mm, **how)
        dice = dice_score(mask, truth, 3, **how)
        rows[name, convention] = [*dice, *distance]
columns = ["Dice 1", "Dice 2", "HD95 1", "HD95 2"]
masks = pd.DataFrame(rows, columns).T.sort_index()
masks.style.format("{:.2f}", na_rep="no say")

# %% [markdown]
# ```{exercise}
# :label: exercise-reference-absent
# Find the four entries of the reference that make a fault look better than it is.
# ```
#
# ```{solution} exercise-reference-absent
# :class: dropdown
# A network that finds *nothing* has an HD95 of 0 for class 1: a class that the *prediction* lacks gets the best of all
# distances. A class that the *truth* lacks gets Dice 1 and HD95 0, whatever was painted. And a slice of 10 mm counts
# 1, since distances are in voxels. (Dice is also rounded to four digits before it is averaged.) The documentation of
# `nacl.metrics.segmentation` lists all this under `convention="reference"`. The standard here: NaN where neither
# mask has the class, since the case has nothing to say of it; Dice 0 and the diagonal of the volume where only one
# has it; millimetres where `spacing` is given. Which of them to report, and with what, is the subject of
# {cite}`maierhein2024`.
# ```
#
# ### 11. One pixel more
#
# Ten thousand pixels of class 1, all forecast alike. Then one more pixel appears, of class 3, and the classwise
# calibration error falls to little more than half.

# %%
alike = torch.tensor([0.028, 0.958, 0.007, 0.007]).view(1, 4, 1, 1)
means = ("reference", "standard")
region = {"region": "true_foreground"}
classwise = {}
for extra in ([], [3]):
    label = torch.tensor([1] * 10_000 + extra).view(1, 1, -1)
    says = alike.expand(1, 4, *label.shape[1:])
    classwise[f"{label.numel()} pixels"] = [
        classwise_calibration_error(says, label, convention=c, **region)
        for c in means
    ]
classwise = pd.DataFrame(classwise, means).T
classwise.style.format("{:.3f}")

# %% [markdown]
# ```{exercise}
# :label: exercise-reference-classes
# How many classes are in each of the four means? Which of them cannot occur in the region?
# ```
#
# ```{solution} exercise-reference-classes
# :class: dropdown
# The reference takes the number of classes from the *largest label* in the volume: 2 without the pixel (the classes 0 and 1), 4 with
# it. The standard always has 4. Class 0 is among them though no pixel of the region has that label: its column
# measures only how much probability the forecast gives away. Errors of classes that hardly occur are near 0, so counting them
# *dilutes* the mean. (By how much depends on the forecast; ours was chosen to show it well.) Here `convention="reference"` gives the papers' number, and
# `nacl.metrics.calibration_bins(..., classwise=True)` each class's own.
# ```
#
# ### 12. All certain, all wrong, no error
#
# The adaptive calibration error sorts the pixels by confidence into bins that hold equally many. Every pixel says 1,
# every pixel is wrong.

# %%
certain = torch.tensor([1.0, 0.0]).view(1, 2, 1, 1).expand(1, 2, 8, 8)
all_wrong = torch.ones(1, 8, 8, dtype=torch.long)
adaptive = {
    c: adaptive_calibration_error(certain, all_wrong, convention=c)
    for c in means
}
pd.Series(adaptive).to_frame("adaptive ECE").style.format("{:.1f}")

# %% [markdown]
# ```{exercise}
# :label: exercise-reference-smallest
# Bins are half open, $(a, b]$, and the first edge is the smallest confidence. Who is in no bin?
# ```
#
# ```{solution} exercise-reference-smallest
# :class: dropdown
# The smallest confidence, and all pixels that share it: $x > a$ fails for $x = a$. Usually that is one pixel. Here it
# is every one, and so it is where a network says exactly 1 nearly everywhere, as float32 does above logit distances of about 17. By default our first bin is closed on both sides.
# ```
#
# ### 13. Counting to sixteen million
#
# This one is not the authors'. It concerns any metric that counts in float32, one pixel at a time; by our measurements
# that includes the calibration metrics of MONAI 1.6.1 and torchmetrics. Every one of 33.5 million voxels is right, at a
# confidence of 0.9. The error is 0.1.

# %%
place = torch.zeros(2**20, dtype=torch.long)
count, confidence = torch.zeros(1), torch.zeros(1)  # float32
for _ in range(32):
    count.index_add_(0, place, torch.ones(2**20))
    confidence.index_add_(0, place, torch.full((2**20,), 0.9))
float32_error = (confidence / count - 1).abs().item()  # all right
counted = {
    "pixels": count.item(),
    "sum of confidences": confidence.item(),
    "error": float32_error,
}
pd.Series(counted, name="in float32").to_frame().style.format("{:,.1f}")

# %%
exact = CalibrationError()
nine = torch.tensor([0.9, 0.1]).view(1, 2, 1, 1).expand(1, 2, 1024, 1024)
right = torch.zeros(1, 1024, 1024, dtype=torch.uint8)
for _ in range(32):
    exact.update(nine, right)
counted = {"pixels": exact.bins.total.item(), "error": exact.compute()}
pd.Series(counted, name="by nacl").to_frame().style.format("{:,.1f}")

# %% [markdown]
# ```{exercise}
# :label: exercise-reference-float
# The counter stopped at 16,777,216. Why there? Why did the sum of 0.9 stop at the same number?
# ```
#
# ```{solution} exercise-reference-float
# :class: dropdown
# It is $2^{24}$: float32 has 24 binary digits, and from there on its neighbours are 2 apart, so adding 1 is rounded away.
# Between $2^{23}$ and $2^{24}$ they are 1 apart, and adding 0.9 adds 1; beyond, nothing. Both sums stop at one number, the
# mean confidence reads 1, and the error 0. `nacl.metrics` counts in int64 and sums in float64.
# ```
#
# ### 14. A score that prefers the blurred
#
# The evaluation of CRaC reports a Brier score. Two forecasters: one says the label itself, with certainty, and is
# right everywhere. The other says the label blurred over a $3 \times 3$ window, which is NACL's $\tau$.

# %%
tau = neighbour_prior(disc, 2, dtype=torch.float64)
hard = one_hot(disc, 2, dtype=torch.float64)
brier = {
    name: {
        "against the label": brier_score(says, disc),
        "against τ": (says - tau).square().sum(dim=1).mean().item(),
    }
    for name, says in {"says the label": hard, "says τ": tau}.items()
}
brier = pd.DataFrame(brier).T
brier.style.format("{:.4f}")

# %% [markdown]
# ```{exercise}
# :label: exercise-reference-brier
# Which column is the code's, and whom does it favour?
# ```
#
# ```{solution} exercise-reference-brier
# :class: dropdown
# The second: the squared distance to $\tau$, the goal of NACL's and CRaC's own constraint, instead of the one-hot
# label. A proper score asks what happened, and what happened is the label. Distance to $\tau$ asks how well the constraint is
# kept, so it favours the methods that have it. `nacl.metrics.brier_score` is against the label.
# ```

# %% tags=["hide-input"]
empty = masks.loc[("finds nothing", "reference")]
Markdown(
    f"**What we saw.** A corner inside an organ was {corner.loc['background', 'class 0']:.0%} background. Renaming classes moved τ by up to "
    f"{renamed.iloc[:, 0].max():.0f}. Of {borders['the window is mixed']} border pixels {borders['the sum is not 0 (to 12 digits)']} were found. A perfect forecast "
    f"had an error of {ece['true_foreground']:.1f}, and one that was always sure and wrong {adaptive['reference']:.1f}. One pixel took the classwise "
    f"error from {classwise.reference.iloc[0]:.3f} to {classwise.reference.iloc[1]:.3f}. And the network that found nothing had a Dice score of "
    f"{empty['Dice 1']:.0f} and an HD95 of {empty['HD95 1']:.0f}, the best there is."
)

# %% [markdown]
# ## All of it, in one table
#
# | the reference | what it changes | here | look at |
# | --- | --- | --- | --- |
# | averages penalties over classes too | $\lambda$ means another thing for each $K$ | the same, and said | {py:obj}`nacl_loss <nacl.losses.nacl_loss>` |
# | pads labels with background | $\tau$ at every edge of a crop | only pixels inside count | {py:obj}`neighbour_prior <nacl.priors.neighbour_prior>` |
# | max, min, median on class numbers | loss depends on names | kept, marked | {py:obj}`is_equivariant <nacl.theory.symmetry.is_equivariant>` |
# | bilateral, gradient: no norm, no centre | $\tau$ tells of strangers, or nothing | kept, marked | {py:obj}`neighbour_prior <nacl.priors.neighbour_prior>` |
# | SVLS window always 3 | the ablation over sizes | by definition | {py:obj}`svls_weights <nacl.theory.svls.svls_weights>` |
# | `ignore_index` not read by NACL | unsure pixels train | no loss, no vote | {py:obj}`nacl_loss <nacl.losses.nacl_loss>` |
# | focal loss sums; NaN if all ignored | learning rate; training stops | mean; 0 | {py:obj}`focal_loss <nacl.losses.focal_loss>` |
# | schedules of NACL's weight fail (an attribute is never set) | cannot be used | work | {py:obj}`Schedule <nacl.losses.Schedule>` |
# | CRaC's border test is always 0 | no border has its constraint | mixed windows | {py:obj}`crac_loss <nacl.losses.crac_loss>` |
# | ECE on true foreground | truth has an error | four regions | {py:obj}`region_mask <nacl.metrics.regions.region_mask>` |
# | a class absent: Dice 1, HD95 0 | means are too good | NaN, 0 or diagonal | {py:obj}`dice_score <nacl.metrics.segmentation.dice_score>` |
# | distances in voxels | thick slices look near | `spacing` | {py:obj}`hausdorff_distance_95 <nacl.metrics.segmentation.hausdorff_distance_95>` |
# | classes up to the largest label | classwise error jumps | all $K$ | {py:obj}`classwise_calibration_error <nacl.metrics.calibration.classwise_calibration_error>` |
# | the smallest confidence left out | adaptive error of 0 | closed first bin | {py:obj}`adaptive_calibration_error <nacl.metrics.adaptive.adaptive_calibration_error>` |
# | Brier score against $\tau$ (CRaC) | favours NACL and CRaC | against the label | {py:obj}`brier_score <nacl.metrics.scores.brier_score>` |
#
# And a few defaults, to compare with: focal $\gamma = 3$; label smoothing 0.1; entropy penalty 0.1; MbLS margin 10 (the
# repository's description says 5) and weight 0.1; SVLS $\sigma = 1$; NACL weight 0.1, $k = 3$, mean prior, L1, on the logits.
# Adam with a rate of $10^{-3}$, ten times less after 50 of 100 epochs, seed 1, no augmentation. There are no tests,
# splits or preprocessing in the repository, so its published numbers cannot be had again from it alone.
#
# **Where it fails.** We read the code, at a commit that we did not note, and ran small examples of our own. How much each point moved a published number we cannot
# say: that would take the authors' splits and networks. Some may have moved nothing. Nor is this package free of
# error; its tests say what was looked for.
#
# **Take-away.** A parameter that changes nothing, a perfect score for an empty answer, a name that acts as a number: each
# falls to one test on a few pixels. Before you compare two numbers, run the code that made them on a case
# whose answer you know.

# %% tags=["hide-cell"]
assert np.allclose(weights["0.1 in the code"], [0.95, 0.975, 0.99375])
assert np.allclose(weights["0.1 in the paper"], 0.9)
assert np.allclose(corner.loc["background"], [5 / 9, 0, 4 / 9, 0])
assert np.allclose(corner.loc["zero"], [0, 0, 4 / 9, 0])
assert np.allclose(corner.loc["inside"], [0, 0, 1, 0])
survives = renamed.survives.astype(bool)
assert (renamed.iloc[:, 0].astype(float)[survives] < 1e-12).all()
assert (renamed.iloc[:, 0].astype(float)[~survives] > 0.1).all()
alive = [("mean", "inside"), ("gaussian", "inside")]
assert list(survives.index[survives]) == alive
assert COUNTEREXAMPLES["median"] == ((0, 1, 2), (1, 0, 2))
row = torch.tensor([[COUNTEREXAMPLES["median"].labels]])
assert relabelling_gap("median", row, (1, 0, 2), 3) == 1
for prior in ("bilateral", "gradient"):
    assert strangers.loc[(prior, "class on the right"), "x = 3"] == 0
    assert strangers.loc[(prior, "sum"), "x = 3"] > 0
    assert strangers.loc[(prior, "sum"), "x = 0"] == 0
assert np.allclose(strangers.loc[("image_proportions_l1", "sum")], 1)
assert svls["pixels softened"].is_monotonic_increasing
assert svls["mean softening"].is_monotonic_increasing
assert (slope[..., 2] == 0).all()
assert (slope[..., :2] != 0).all()
assert abs((same - loss).item()) < 1e-6
assert np.isclose(focal["sum"] / focal["mean"], 147_456, rtol=1e-4)
assert focal["mean of no pixel"] == 0
assert np.isnan(in_torch)
assert list(borders.values()) == [0, 2 * size]
assert np.allclose(list(ece.values()), [0, 0.7], atol=1e-6)
assert empty["Dice 1"] == empty["HD95 1"] == empty["HD95 2"] == 0
standard = masks.xs("standard", level=1)
reference = masks.xs("reference", level=1)
assert reference.loc["class 2 too"].tolist() == [1, 1, 0, 0]
assert standard.loc["class 2 too", "Dice 2"] == 0
diagonal = np.linalg.norm([50, 7, 7])
assert np.isclose(standard.loc["class 2 too", "HD95 2"], diagonal)
assert np.isclose(standard.loc["finds nothing", "HD95 1"], diagonal)
assert standard.loc["finds nothing", ["Dice 2", "HD95 2"]].isna().all()
assert reference.loc["shifted", "HD95 1"] == 1
assert standard.loc["shifted", "HD95 1"] > 1
assert np.allclose(classwise.reference, [0.035, 0.021], atol=1e-4)
assert np.allclose(classwise.standard, 0.021, atol=1e-4)
assert list(adaptive.values()) == [0, 1]
assert torch.tensor([17.0, 0]).softmax(dim=0)[0] == 1
assert torch.tensor([16.0, 0]).softmax(dim=0)[0] < 1
assert count.item() == confidence.item() == 2**24
assert float32_error == 0
assert exact.bins.total.item() == 2**25
assert abs(exact.compute() - 0.1) < 1e-6
assert brier.loc["says the label", "against the label"] == 0
assert brier.loc["says the label", "against τ"] > 0
assert brier.loc["says τ", "against τ"] == 0
