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
# **You need** {doc}`06_svls`. **Run time**: under a minute with the parameters below on two cores; a few minutes with
# real data. This notebook is one training of {doc}`11_compare`: papermill executes it, with other parameters.
#
# ```bash
# papermill notebooks/09_train.ipynb out.ipynb -p loss nacl -p penalty_weight 0.3 -p kernel_size 5 -p data path/to/acdc
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
kernel_depth = 1  # slices, odd; used where depth is above 1
sigma = 1.0  # pixels
border = "inside"  # or "replicate", "background", "zero"
softmax = False  # constrain the softmax instead of the logits
mixed_only = False  # penalise windows of several classes only (NACL)
margin = 10.0  # of MbLS and CRaC, in logits
lagrangian = "phr"  # of CRaC: or "p2", "p3"
smoothing = 0.1  # of label smoothing
gamma = 3.0  # of the focal loss
dice_weight = 0.0  # of a soft Dice loss that is added
l1_ace_weight = 0.0  # of the L1-ACE loss that is added
model = "unet"  # or another of `nacl models`, or "module:function"
encoder = "resnet18"  # of a network of smp
weights = "none"  # that the encoder begins with; or "imagenet"
filters = 16  # channels at full resolution
data = "phantom"  # or another embedded data set, or the folder of one
size = 64  # pixels, a multiple of 32
depth = 1  # slices in a sample: 1 trains on slices, more on 3D patches
patch = 0  # height and width of a 3D patch in pixels; 0 for the whole slice
share = 1.0  # of the training patients
epochs = 16
batch_size = 4  # slices, or patches
learning_rate = 1e-3  # times 0.1 after half of the epochs
augment = False  # flip, rotate, scale, intensity; off as in the reference
seed = 0
engine = "eager"  # or "compile"
device = "auto"  # or "cpu", "cuda", "mps"

# %% tags=["hide-input"]
import pandas as pd
from IPython.display import Markdown
from nacl import plots
from nacl.evaluation import SUMMARY
from nacl.experiments import epoch_bar, train_run
from nacl.priors import mixed_windows
from nacl.runs import Run

# %% [markdown]
# **Predict.** Where will the network be least sure: inside the organ, on its border, or in the background? And will it
# be right as often as it says?

# %%
run = Run.from_parameters(globals())
pd.Series(run.values(), name="value").astype(str).to_frame()

# %% [markdown]
# ## Training
#
# The papers' protocol: Adam, the learning rate divided by ten after half of the epochs, no augmentation (unless
# `augment` is true); the epoch of the best validation Dice is kept. A run that was finished before is read from its
# folder, and one that was killed goes on from its last epoch.

# %% tags=["remove-output"]
with epoch_bar(run) as show:
    result = train_run(run, on_epoch=show)

# %%
plots.learning_curves(result.history)
# %% tags=["hide-input"]
shape = run.patch_shape() or (run.size, run.size)
samples = f"{'slices' if run.depth == 1 else 'patches'} of {' x '.join(map(str, shape))} pixels"
patients = (
    "" if run.share == 1 else f" ({run.share:.0%} of its training patients)"
)
scale = f"{samples}, {run.filters} filters, {run.epochs} epochs, batches of {run.batch_size}"
Markdown(
    f"`{run.loss}` with the network `{run.model}` on **{result.info['dataset']}**{patients}; {scale}, seed {run.seed}; {result.info['seconds']:.0f} s on "
    f"{result.info['device_name']}; commit `{result.info['commit'][:12]}`, run `{result.info['identity']}`."
)

# %% [markdown]
# ## How good, case by case
#
# Dice and the 95th percentile of the surface distance, means over the classes but the background; calibration errors
# over all pixels, over the band round the predicted border, and over the papers' region (the true foreground); and the
# negative log-likelihood and the Brier score, proper scores: on average they are smallest for the true probabilities,
# and for no others.

# %%
plain = result.cases[result.cases["post_hoc"] == "none"]
plain[["case", *SUMMARY]].style.format(precision=3).hide(axis="index")

# %% [markdown]
# ## What a temperature would have done
#
# The cheapest calibration comes after training: divide all logits by one number $T$, chosen on the validation cases by
# their likelihood ({doc}`02_confidence`). It changes no label. A loss that does not beat *cross-entropy and a
# temperature* has not earned its place, so {doc}`11_compare` and {doc}`12_penalty` have that row.
# It is one number for all pixels: what mends one region may spoil another. (NACL with L1 has a third row, "unbiased": its
# known bias undone, see {doc}`18_ceiling`.)

# %%
numbers = [c for c in SUMMARY if c not in ("dice", "hd95")]
result.cases.groupby("post_hoc")[numbers].mean().T.style.format(precision=4)

# %% [markdown]
# ## Is it as often right as it says?

# %%
regions = {
    "all": "all pixels",
    "predicted_border": "predicted border",
    "true_foreground": "true foreground",
}
after = dict(list(result.bins.groupby("post_hoc")))
bins = {
    run.loss: after["none"],
    f"{run.loss} + temperature": after["temperature"],
}
plots.reliability_diagram(bins, regions)
# %% [markdown]
# Below the diagonal the network is over-confident. Beneath each panel, on a logarithmic scale, the share of its pixels
# in each bin: most pixels are easy, and the interesting ones are few. The bands come from drawing the test cases anew.
#
# ## Where is it unsure?

# %%
middle_case = plain.sort_values("dice").iloc[len(plain) // 2]["case"]
case = result.dataset().split("test").named(middle_case)
slice_number = len(case.label) // 3
probs = result.predict(case)[slice_number]
confidence, predicted = probs.max(dim=0)
plots.outlines(
    case.image[0, slice_number],
    {
        f"{case.name}: label": case.label[slice_number],
        "prediction": predicted.numpy(),
    },
    result.info["class_names"],
)
# %%
plots.error_maps(
    case.image[0, slice_number],
    case.label[slice_number],
    {run.loss: (predicted.numpy(), confidence.numpy())},
    result.info["class_names"],
)

# %%
columns = ["count", "confidence_sum", "correct_sum"]
sums = after["none"].groupby("region")[columns].sum()
gap = (sums["confidence_sum"] - sums["correct_sum"]) / sums["count"]
border = mixed_windows(predicted[None], kernel_size=5)[0]
places = {
    "round the predicted border": border,
    "inside the organ": ~border & (predicted > 0),
    "in the background": ~border & (predicted == 0),
}
surest = {
    name: confidence[place].mean().item() for name, place in places.items()
}
pd.Series(surest, name="mean confidence").round(3).to_frame()

# %% tags=["hide-input"]
mean = plain.mean(numeric_only=True)
Markdown(
    f"**What we saw.** On {len(plain)} test cases the network reaches a Dice of {mean['dice']:.3f}. On the slice "
    f"above it is least sure {min(surest, key=surest.get)}, with a mean confidence of {min(surest.values()):.2f}. Is it "
    f"right as often as it says? Confidence minus accuracy is {gap['predicted_border']:+.3f} round the predicted border "
    f"and {gap['all']:+.3f} over all pixels (+ is over-confident, - too timid). The temperature that suits the "
    f"validation cases is {result.info['temperature']:.2f}: {'above 1, so the network is too sure of itself' if result.info['temperature'] > 1 else 'not above 1, so the network is not too sure of itself'}."
)

# %% [markdown]
# ## Other networks, volumes, fewer patients
#
# Each line of the first cell is a parameter: of this notebook, of papermill (`-p NAME VALUE`), and of the shell
# (`nacl train --name value`).
#
# | To train | say |
# |---|---|
# | another network | `model`, a name that `nacl models` lists: `-p model smp.FPN -p encoder resnet34` |
# | your own network | `-p model mine:make` calls `make(in_channels, num_classes, filters=16)` of your `mine.py` |
# | on 3D patches | `depth`, their slices, with a network for three axes: `-p depth 8 -p patch 64`; `kernel_depth` is the depth of the loss's window |
# | on fewer patients | `share`: with 0.25 a quarter of the training patients, each with all of their images |
# | faster on a GPU | `-p engine compile` |
#
# Training on 3D patches asks for more memory and time; whole volumes are then predicted by sliding windows. A name that
# is no parameter is refused, and the nearest is suggested: `-p kernel_sise 5` is no run with a window of 3.
#
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
counted = after["none"].query("region == 'all'")["count"].sum()
assert counted == sum(c.label.size for c in result.dataset().split("test"))
