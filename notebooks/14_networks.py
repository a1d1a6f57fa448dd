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
# # Does it depend on the network?
#
# **You need** {doc}`11_compare`; {doc}`/book/models` has the networks. **Run time**: about a minute on one core with the
# parameters below; runs that were finished before are read, not done again.
#
# **Question.** A loss that helps one architecture may do nothing for another. Five networks, from the plain U-Net {cite}`ronneberger2015` to a
# transformer, each trained with cross-entropy and with NACL {cite}`murugesan2025`: is the difference between the two
# losses the same in all?

# %% tags=["parameters"]
data = "phantom"  # or "brain", or a folder that `nacl data prepare` made
profile = "glance"  # or "quick", or "full": the papers' protocol, for a GPU
seeds = 1
device = "auto"

# %% tags=["hide-input"]
import numpy as np
import pandas as pd
from IPython.display import Markdown
from nacl import plots
from nacl.experiments import train_run
from nacl.grids import GRIDS, grid_rows, plan, profile_note, size_of
from nacl.parameters import check_parameters
from nacl.ranks import holm
from nacl.results import results_table
from nacl.tables import ablation_points, compare, typeset, with_confidence
from nacl.theory import confidence_ceiling
from tqdm.auto import tqdm

check_parameters(globals())

# %% [markdown]
# **Predict.** Will the networks differ more from one another, or the two losses within a network: in Dice, in mean
# confidence, in the calibration error round the predicted border?
#
# ## The grid

# %%
grid = "model"
pd.DataFrame(grid_rows(grid)).fillna("").style.hide(axis="index")

# %% [markdown]
# What is missing is trained here. With real data, make the runs beforehand; this notebook then only reads them. A network
# of your own joins in with `nacl train --model MODULE:FUNCTION` ({doc}`/book/models`).
#
# ```bash
# nacl sweep model --profile full --data prepared/acdc --seeds 3
# papermill notebooks/14_networks.ipynb out.ipynb \
#   -p profile full -p data prepared/acdc -p seeds 3
# ```

# %% tags=["remove-stderr"]
options = {"profile": profile, "data": data, "device": device}
runs = plan(grid, **options, seeds=range(seeds))
results = [train_run(run) for run in tqdm(runs)]

# %% tags=["hide-input"]
info = results[0].info
num_classes = len(info["class_names"])
Markdown(
    f"Data: **{info['dataset']}**, {num_classes} classes. "
    + profile_note(runs, profile)
)

# %% [markdown]
# ## What is trained
#
# All by one protocol: the same optimiser, learning rate, epochs and batches, with random weights at the start. That is
# fair in one sense only, since each network has settings that suit it best.

# %%
sizes = {
    r.run.model: sum(p.numel() for p in r.model().parameters())
    for r in results
}
seconds = pd.Series([r.info["seconds"] for r in results])
by_model = seconds.groupby([r.run.model for r in results]).mean()
pd.DataFrame({"parameters": sizes, "seconds a run": by_model.round(1)}).loc[
    list(sizes)
]

# %% [markdown]
# ## Network by network
#
# Means over the test patients with their 95% intervals. A network whose Dice score stays below 0.5 with one of the
# losses has not learned the task. It would stretch every axis and says nothing about the losses, so the pictures leave it
# out; the table at the end has all. (If none has learned, all are drawn.)

# %%
table = with_confidence(
    results_table(results), {r.info["identity"]: r.bins for r in results}
)
plain = table[table["post_hoc"] == "none"]
metrics = {c: name for c, name in plots.METRICS.items() if c in table}
points = ablation_points(plain, "model", list(metrics))
means = points.pivot_table(
    index="model", columns=["metric", "method"], values="mean", sort=False
)
learned = means["dice"].min(axis=1) >= 0.5
drawn = means.index[learned] if learned.any() else means.index

# %%
plots.ablation_rows(points[points["model"].isin(drawn)], "model", metrics)

# %% tags=["hide-input"]
idle = list(means.index[~learned])
left_out = "; ".join(
    f"`{name}`, Dice {means['dice'].loc[name, 'ce']:.2f} with CE and {means['dice'].loc[name, 'nacl']:.2f} with NACL"
    for name in idle
)
text = f"Of {len(means)} networks {learned.sum()} have learned."
if idle and learned.any():
    text += f" Not drawn here and below: {left_out}."
elif idle:
    text += (
        f" **So these pictures show nothing of the losses**: {left_out}."
    )
Markdown(text)

# %% [markdown]
# ## What NACL changes
#
# In each network drawn the difference NACL less cross-entropy, patient by patient, with its 95% interval. A filled mark
# is significant after Holm's correction for all networks, those not drawn among them ({doc}`10_comparing`).

# %%
chosen = ["dice", "ece_all", "ece_predicted_border", "nll"]
found = [
    compare(of_model, chosen).assign(name=model)
    for model, of_model in plain.groupby("model", sort=False)
]
changes = pd.concat(found).dropna(subset=["difference", "p_value"])
changes = changes.drop(columns=["mean", "low", "high"])

# %%
of_metric = changes.groupby("metric")["p_value"]
changes["p_value"] = of_metric.transform(lambda p: holm(list(p)))
same = changes["difference_low"].le(0) & changes["difference_high"].ge(0)
changes["significant"] = changes["p_value"].le(0.05) & ~same
columns = {"difference": "mean"}
columns |= {f"difference_{end}": end for end in ("low", "high")}
changes = changes.rename(columns=columns)
shown = changes[changes["name"].isin(drawn)]

# %%
plots.intervals(
    shown[shown["metric"] == "ece_predicted_border"],
    "ECE round the predicted border, NACL less CE (below 0 is better)",
)
# %%
plots.intervals(
    shown[shown["metric"] == "nll"],
    "negative log-likelihood, NACL less CE (below 0 is better)",
)

# %% [markdown]
# ## The numbers, with intervals
#
# A degree sign marks what does not differ significantly from DynUNet, the network of nnU-Net {cite}`isensee2021`, with
# cross-entropy; a dagger what could not be compared with it; a dash stands where there is no score, as round a border
# that is never predicted. All others without a mark differ significantly.

# %%
named = plain.assign(
    method=plain["model"] + ", " + plain["loss"].map(plots.LOSS_NAMES)
)
named = named.sort_values("model", kind="stable")
compared = compare(named, chosen, baseline="monai.DynUNet, CE")
typeset(compared).rename(columns=plots.METRICS)

# %% tags=["hide-input"]
ceiling = confidence_ceiling("nacl", num_classes)
able = means.loc[drawn]
between = able["dice"]["ce"].max() - able["dice"]["ce"].min()
within = (able["dice"]["nacl"] - able["dice"]["ce"]).abs().max()
border = shown[shown["metric"] == "ece_predicted_border"]
better = border[border["significant"] & (border["mean"] < 0)]
worse = border[border["significant"] & (border["mean"] > 0)]
text = (
    f"**What we saw.** Of {len(means)} networks {learned.sum()} have learned. With cross-entropy these lie up to "
    f"{between:.3f} apart in Dice; within one of them the two losses lie at most {within:.3f} apart. Round the predicted border NACL's calibration error is significantly lower in "
    f"{len(better)} of {len(border)} networks and significantly higher in {len(worse)}. The mean confidence of NACL goes "
    f"from {able['confidence']['nacl'].min():.3f} to {able['confidence']['nacl'].max():.3f} over these networks, that of "
    f"cross-entropy from {able['confidence']['ce'].min():.3f} to {able['confidence']['ce'].max():.3f}; NACL's ceiling is "
    f"{ceiling:.3f} for every architecture."
)
if idle:
    lazy = means[~learned].iloc[0]
    text += (
        f" Not all have learned: {', '.join(f'`{name}`' for name in idle)} stay below a Dice of 0.5 with one of the losses, and say nothing about NACL. Look at "
        f"the first of them with cross-entropy: Dice {lazy['dice']['ce']:.2f}, and a calibration error over all pixels of "
        f"{lazy['ece_all']['ce']:.3f}, when the lowest of all is {means['ece_all'].min().min():.3f}. A network that "
        "always answers `background`, as surely as background is frequent, is calibrated and useless. A proper score is not "
        f"deceived: here the negative log-likelihood is {lazy['nll']['ce']:.2f}, and the lowest {means['nll'].min().min():.2f}."
    )
Markdown(text)

# %% [markdown]
# **Where it fails.** One learning rate and one number of epochs for all networks is a decision in favour of those that
# learn fast with it. The plain U-Net is the only one here that does not normalise its features; in {doc}`11_compare`, with
# more and smaller steps, it learns what it may not learn in a demonstration, whose learning rate is ten times the papers'.
#
# **What would change the conclusion.**
# - *Training to the end.* After a few epochs a difference between networks may be one of speed.
# - *Weights to start from.* All begin at random here; encoders of smp also take weights that were learned on photographs
#   (`weights="imagenet"`).
# - *The size.* In image classifiers, over-confidence grew with depth and width {cite}`guo2017`; `filters` and `encoder`
#   set them.
# - *Seeds.* One network of each kind says nothing of how much a kind varies.
#
# ```{exercise}
# :label: exercise-networks-background
# A network gives every pixel the same probabilities: the share of each class in the data. What are its Dice, and its
# calibration error over all pixels of a data set with these shares?
# ```
#
# ```{solution} exercise-networks-background
# :class: dropdown
# It always answers with the most frequent class, the background, so that its Dice is 0 for every other class. Its
# confidence is the share of the background, and so is its accuracy: the calibration error is 0. Calibration asks for
# honesty, not for knowledge; a proper score asks for both, see {eq}`proper-scores`.
# ```
#
# ```{exercise}
# :label: exercise-networks-ceiling
# Can a larger network break through NACL's ceiling?
# ```
#
# ```{solution} exercise-networks-ceiling
# :class: dropdown
# Not by fitting better: the ceiling is the confidence at the minimum of the loss, pixel by pixel, and no architecture
# appears in it. A network that could give every pixel any logits would end exactly there, at 0.975 for four classes and
# the weight 0.1. On pixels that were never trained on it may lie above.
# ```
#
# **Take-away.** A loss has a minimum, and that is the same for every network. How near a network comes to it, and what it
# does on the way, is its own.
#
# ## Where these numbers come from

# %%
made = pd.DataFrame([{**r.info["run"], **r.info} for r in results])
fields = ["loss", "model", "seed", "identity", "commit", "device"]
made = made.rename(columns={"device_name": "device"})
made["commit"] = made["commit"].str[:12]
made[[*fields, "seconds"]].style.format({"seconds": "{:.0f}"}).hide(
    axis="index"
)

# %% tags=["hide-cell"]
assert len(results) == seeds * size_of(grid)
assert set(means.index) == set(GRIDS[grid][0]["model"])
assert table["dice"].between(0, 1).all()
assert table["ece_all"].between(0, 1).all()
assert all(count > 0 for count in sizes.values())
# .05: what a network may exceed a ceiling by that it never quite reaches
assert means["confidence"]["nacl"].max() < ceiling + 0.05
assert (changes["low"] <= changes["high"]).all()
assert confidence_ceiling("nacl", 4) == 0.975
shares = np.array([0.7, 0.2, 0.1])  # of the exercise: confidence = accuracy
drawn = np.random.default_rng(0).choice(3, 100_000, p=shares)
assert abs(shares.max() - (drawn == shares.argmax()).mean()) < 0.01
