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
# # What does one network learn, and how sure is it?
#
# **You need** {doc}`01_svls`. **Run time**: under a minute with the parameters below on two cores; a few minutes with
# real data. This notebook is one training of {doc}`03_compare`: papermill executes it, with other parameters.
#
# ```bash
# papermill notebooks/02_train.ipynb out.ipynb -p loss nacl -p penalty_weight 0.3 -p kernel_size 5 -p data path/to/acdc
# ```

# %% tags=["parameters"]
loss = "nacl"  # "ce", "label_smoothing", "focal", "ecp", "svls", "mbls", "crac"
penalty_weight = 0.1  # lambda of NACL, MbLS, ECP
schedule = "constant"  # of penalty_weight: or "linear", "step"
schedule_end = 0.0  # last penalty_weight of "linear", largest of "step"
penalty = "l1"  # or "l2", "huber"
delta = 1.0  # where "huber" turns linear
prior = "mean"  # or "gaussian", "max", "min", "median", "mode", ...
kernel_size = 3  # pixels, odd
sigma = 1.0  # pixels
border = "inside"  # or "replicate", "background", "zero"
softmax = False  # constrain the softmax instead of the logits
margin = 10.0  # of MbLS and CRaC, in logits
lagrangian = "phr"  # of CRaC: or "p2", "p3"
smoothing = 0.1  # of label smoothing
gamma = 3.0  # of the focal loss
dice_weight = 0.0  # of a soft Dice loss that is added
l1_ace_weight = 0.0  # of the L1-ACE loss that is added
model = "unet"  # or "smp.Unet"
filters = 16  # channels at full resolution
data = "phantom"  # or the folder of a benchmark
size = 64  # pixels, a multiple of 32
epochs = 16
batch_size = 4  # slices
learning_rate = 1e-3  # times 0.1 after half of the epochs
seed = 0
device = "auto"  # or "cpu", "cuda", "mps"

# %% tags=["hide-input"]
from dataclasses import fields

import pandas as pd
from IPython.display import Markdown
from nacl import plots
from nacl.evaluation import SUMMARY
from nacl.experiments import Run, epoch_bar, train_run
from nacl.priors import mixed_windows

# %% [markdown]
# **Predict.** Where will the network be least sure: inside the heart, on its border, or in the background? And will it
# be right as often as it says?

# %%
run = Run(**{field.name: globals()[field.name] for field in fields(Run)})
run.values()

# %% [markdown]
# ## Training
#
# The papers' protocol: Adam, the learning rate divided by ten after half of the epochs, no augmentation; the epoch of
# the best validation Dice is kept. A run that was finished before is read from its folder, and one that was killed
# goes on from its last epoch.

# %% tags=["remove-output"]
with epoch_bar(run) as show:
    result = train_run(run, on_epoch=show)

# %%
plots.learning_curves(result.history)
# %% tags=["hide-input"]
scale = f"{run.size} x {run.size} pixels, {run.filters} filters, {run.epochs} epochs, batches of {run.batch_size}"
Markdown(
    f"`{run.loss}` on **{result.info['dataset']}** at {scale}, seed {run.seed}; {result.info['seconds']:.0f} s on "
    f"{result.info['device_name']}; commit `{result.info['commit'][:12]}`, run `{result.info['identity']}`."
)

# %% [markdown]
# ## How good, case by case
#
# Dice and the 95th percentile of the surface distance, means over the classes of the heart; calibration errors over
# all pixels, over the band round the predicted border, and over the papers' region (the true foreground); and the
# negative log-likelihood, a proper score: on average it is smallest for the true probabilities, and for no others.

# %%
result.cases[["case", *SUMMARY]].style.format(precision=3).hide(
    axis="index"
)

# %% [markdown]
# ## Is it as often right as it says?

# %%
regions = {
    "all": "all pixels",
    "predicted_border": "predicted border",
    "true_foreground": "true foreground",
}
plots.reliability_diagram({run.loss: result.bins}, regions)
# %% [markdown]
# Below the diagonal the network is over-confident. The dots grow with the pixels in their bin: most pixels are easy,
# and the interesting ones are few.
#
# ## Where is it unsure?

# %%
middle_case = result.cases.sort_values("dice").iloc[len(result.cases) // 2][
    "case"
]
case = next(
    case
    for case in result.dataset().split("test")
    if case.name == middle_case
)
slice_number = len(case.image) // 3
probs = result.predict(case)[slice_number]
confidence, predicted = probs.max(dim=0)
plots.outlines(
    case.image[slice_number],
    {
        f"{case.name}: label": case.label[slice_number],
        "prediction": predicted.numpy(),
    },
    result.info["class_names"],
)
# %%
wrong = predicted.numpy() != case.label[slice_number]
plots.maps(
    {"confidence": confidence, "wrong where bright": wrong},
    label="probability, or 0 and 1",
)

# %%
sums = result.bins.groupby("region")[
    ["count", "confidence_sum", "correct_sum"]
].sum()
gap = (sums["confidence_sum"] - sums["correct_sum"]) / sums["count"]
border = mixed_windows(predicted[None], kernel_size=5)[0]
places = {
    "round the predicted border": border,
    "inside the heart": ~border & (predicted > 0),
    "in the background": ~border & (predicted == 0),
}
surest = {
    name: confidence[place].mean().item() for name, place in places.items()
}
pd.Series(surest, name="mean confidence").round(3).to_frame()

# %% tags=["hide-input"]
mean = result.cases.mean(numeric_only=True)
Markdown(
    f"**What we saw.** On {len(result.cases)} test cases the network reaches a Dice of {mean['dice']:.3f}. On the slice "
    f"above it is least sure {min(surest, key=surest.get)}, with a mean confidence of {min(surest.values()):.2f}. Is it "
    f"right as often as it says? Confidence minus accuracy is {gap['predicted_border']:+.3f} round the predicted border "
    f"and {gap['all']:+.3f} over all pixels (+ is over-confident, - too timid)."
)

# %% [markdown]
# **Where it fails.** One seed and a small test set: a difference between two such runs may be chance.
#
# ```{exercise}
# :label: exercise-train-weight
# Execute this notebook with `penalty_weight` 0 and 1. Before you look: which of the two has the larger calibration
# error over *all* pixels?
# ```
#
# ```{solution} exercise-train-weight
# :class: dropdown
# With weight 0 the loss is cross-entropy. With weight 1 and 4 classes the ceiling {eq}`nacl-ceiling` is
# $1 - 1/4 = 0.75$, also in background that is always right: expect an error near 0.25 there. Whether a *small* weight
# raises or lowers the error is for `nacl sweep penalty-weight` to say.
# ```
#
# **Take-away.** One run, one folder: the executed notebook, the metrics of each case, the weights, and `run.json` with
# everything needed to do it again.

# %% tags=["hide-cell"]
assert result.run.values() == run.values()
assert len(result.history) == run.epochs
assert result.history["loss"].notna().all()
assert result.cases["dice"].between(0, 1).all()
assert result.bins.query("region == 'all'")["count"].sum() == sum(
    c.label.size for c in result.dataset().split("test")
)
