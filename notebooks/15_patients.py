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
# # What if there are fewer patients?
#
# **You need** {doc}`11_compare`. **Run time**: under a minute on one core with the parameters below; runs that were
# finished before are read, not done again.
#
# **Question.** Labelled patients are expensive. Does the confidence of a network still mean something when it was trained
# on a tenth or a twentieth of them, and does NACL {cite}`murugesan2025` help there?

# %% tags=["parameters"]
data = "phantom"  # or "brain", or a folder that `nacl data prepare` made
profile = "glance"  # or "quick", or "full": the papers' protocol, for a GPU
seeds = 1
device = "auto"

# %% tags=["hide-input"]
from dataclasses import replace

import pandas as pd
from IPython.display import Markdown
from nacl import plots
from nacl.data.splits import share_of
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
# **Predict.** A network sees a tenth of the patients, for as many *epochs* as before. Will it be more over-confident, or
# less? And if it sees them for as many *steps* as before?
#
# ## The grid

# %%
grid = "share"
pd.DataFrame(grid_rows(grid)).fillna("").style.hide(axis="index")

# %% [markdown]
# A share counts patients, not slices, and a smaller share lies within a larger one of the same seed. Validation and test
# patients are always all of them. What is missing is trained here; with real data, make the runs beforehand. (The
# second line makes those of a tenth of the patients with as many steps, see below, and some that are not needed.)
#
# ```bash
# nacl sweep share --profile full --data prepared/acdc --seeds 3
# nacl sweep main --profile full --data prepared/acdc --seeds 3 \
#   --set share=0.1 epochs=1000
# papermill notebooks/15_patients.ipynb out.ipynb \
#   -p profile full -p data prepared/acdc -p seeds 3
# ```
#
# Fewer patients also mean fewer steps: an epoch is one pass over what there is. So a tenth of the patients differs from
# all of them in *two* respects, how much there is to learn from and how long it is learned. To tell the two apart,
# train the share of a tenth once more, for ten times as many epochs.

# %% tags=["remove-stderr"]
options = {"profile": profile, "data": data, "device": device}
runs = plan(grid, **options, seeds=range(seeds))
longer = [
    replace(run, epochs=round(run.epochs / run.share))
    for run in runs
    if run.share == 0.1
]
results = {run: train_run(run) for run in tqdm([*runs, *longer])}

# %% tags=["hide-input"]
first = results[runs[0]]
num_classes = len(first.info["class_names"])
Markdown(
    f"Data: **{first.info['dataset']}**, {num_classes} classes. "
    + profile_note(runs, profile)
    + f" Besides, {len(longer)} runs of {longer[0].epochs} epochs."
)

# %%
train = first.dataset().split("train")
shares = GRIDS[grid][0]["share"]
taken = {share: share_of(train, share, seed=0) for share in shares}
slices = {s: sum(len(c.label) for c in cases) for s, cases in taken.items()}
steps = {s: -(-n // runs[0].batch_size) for s, n in slices.items()}
size = pd.DataFrame({"slices": slices, "steps an epoch": steps})
size.insert(
    0, "patients", {s: len({c.patient for c in taken[s]}) for s in shares}
)
size.rename_axis("share")

# %% [markdown]
# ## From few patients to all
#
# Means over the test patients with their 95% intervals; with several seeds, each draws other patients, and the band
# joins the lowest and the highest seed. Dotted, the ceiling of NACL.

# %%
bins = {r.info["identity"]: r.bins for r in results.values()}
table = results_table([results[run] for run in runs])
table = with_confidence(table, bins)
plain = table[table["post_hoc"] == "none"]
metrics = {c: name for c, name in plots.METRICS.items() if c in table}
points = ablation_points(plain, "share", list(metrics))
ceiling = confidence_ceiling("nacl", num_classes)

# %%
limit = (shares, [ceiling] * len(shares))
plots.ablation_curves(
    points, "share", metrics, x="share of the training patients",
    theory={"confidence": {"nacl": limit}}, log_x=True,
)  # fmt: skip

# %% [markdown]
# ## Fewer patients, or fewer steps?
#
# A tenth of the patients for as many epochs, a tenth for as many steps, and all of them. The gap is confidence minus
# accuracy, see {eq}`gap`, over all pixels and round the predicted border: above 0 is over-confident, below 0 too timid.

# %%
names = {0.1: "a tenth, as many epochs", 1.0: "all"}
kinds = {run: names[run.share] for run in runs if run.share in names}
kinds |= dict.fromkeys(longer, "a tenth, as many steps")
columns = ["confidence_sum", "correct_sum", "count"]
rows = []

# %%
for run, kind in kinds.items():
    of_run = results[run].bins.query("post_hoc == 'none'")
    sums = of_run.groupby("region")[columns].sum()
    gap = (sums["confidence_sum"] - sums["correct_sum"]) / sums["count"]
    row = {"patients": kind, "loss": plots.LOSS_NAMES[run.loss]}
    row |= {"gap": gap["all"], "border gap": gap["predicted_border"]}
    row["training loss"] = results[run].history["loss"].iloc[-1]
    own = results[run].cases.query("post_hoc == 'none'")
    rows.append(
        {**row, "NLL": own["nll"].mean(), "Dice": own["dice"].mean()}
    )

# %%
control = (
    pd.DataFrame(rows).groupby(["patients", "loss"], sort=False).mean()
)
control.sort_index().round(3)

# %% [markdown]
# ## The numbers, with intervals
#
# A degree sign marks what does not differ significantly from cross-entropy on all patients, a dagger what could not be
# compared with it. All others without a mark differ significantly.

# %%
named = plain.assign(
    method=plain["loss"].map(plots.LOSS_NAMES)
    + plain["share"].map(", {:.0%}".format)
)
shown = ["dice", "ece_all", "ece_predicted_border", "nll"]
compared = compare(named, shown, baseline="CE, 100%")
typeset(compared).rename(columns=plots.METRICS)

# %% [markdown]
# And does NACL help where patients are few? The difference NACL less cross-entropy at each share, patient by patient,
# with its 95% interval; below 0 is better. A filled mark is significant after Holm's correction for the shares.

# %%
found = [
    compare(of_share, ["nll"], baseline="ce").assign(name=f"{share:.0%}")
    for share, of_share in plain.groupby("share")
]
changes = pd.concat(found).dropna(subset=["difference", "p_value"])
changes = changes.drop(columns=["mean", "low", "high"])
changes["significant"] = holm(list(changes["p_value"])) <= 0.05
columns = {"difference": "mean"}
columns |= {f"difference_{end}": end for end in ("low", "high")}
changes = changes.rename(columns=columns)

# %%
plots.intervals(changes, "negative log-likelihood, NACL less CE")

# %% tags=["hide-input"]
means = points.pivot_table(
    index="share", columns=["metric", "method"], values="mean"
)
less, more = means.iloc[0], means.iloc[-1]
few, many = (
    control.loc[(f"a tenth, as many {unit}", "CE")]
    for unit in ("epochs", "steps")
)
Markdown(
    f"**What we saw.** From {shares[0]:.0%} of the patients to all, Dice goes from {less['dice']['ce']:.3f} to "
    f"{more['dice']['ce']:.3f} with cross-entropy and from {less['dice']['nacl']:.3f} to {more['dice']['nacl']:.3f} with NACL; "
    f"the mean confidence over all pixels from {less['confidence']['ce']:.3f} to {more['confidence']['ce']:.3f}, and from "
    f"{less['confidence']['nacl']:.3f} to {more['confidence']['nacl']:.3f}. With a tenth of the patients and as many epochs "
    f"({size.loc[0.1, 'steps an epoch']} steps each instead of {size.loc[1.0, 'steps an epoch']}) the gap of cross-entropy is "
    f"{few['gap']:+.3f} over all pixels and {few['border gap']:+.3f} round the predicted border; with as many steps it is "
    f"{many['gap']:+.3f} and {many['border gap']:+.3f}. Its likelihood tells what it has memorised: the last training loss is "
    f"{many['training loss']:.3f}, the negative log-likelihood on the test patients {many['NLL']:.3f}, and "
    f"{control.loc[('all', 'CE'), 'NLL']:.3f} after training on all patients. With NACL and as many steps the gaps are "
    f"{control.loc[('a tenth, as many steps', 'NACL'), 'gap']:+.3f} and "
    f"{control.loc[('a tenth, as many steps', 'NACL'), 'border gap']:+.3f}. In negative log-likelihood NACL is significantly "
    f"better than cross-entropy at {(changes['significant'] & (changes['mean'] < 0)).sum()} of {len(changes)} shares, and "
    f"significantly worse at {(changes['significant'] & (changes['mean'] > 0)).sum()}."
)

# %% [markdown]
# **Where it fails.** The grid holds the epochs and not the steps. With the few epochs of a short profile the
# smallest shares are simply not trained: their networks are unsure because they know nothing, and that is neither
# over-confidence nor the lack of patients. The two runs with as many steps are the fairer question.
#
# **What would change the conclusion.**
# - *Steps.* Train every share for as many steps, by `epochs`, and the left ends of the curves can move far.
# - *Which patients.* One seed draws one small set. Three seeds are three sets, and the bands show how they differ.
# - *Augmentation* (`augment=True`): the papers' protocol has none, and it may count most where patients are few.
# - *Validation.* It has all of its patients here. Who has few to train on has few to choose the epoch and the temperature
#   by, too.
#
# ```{exercise}
# :label: exercise-patients-steps
# A set has 80 training patients of 10 slices, and batches of 4. How many steps has an epoch with all of them, and with a
# share of 5%? For how many epochs must the share be trained to take as many steps as 100 epochs of all?
# ```
#
# ```{solution} exercise-patients-steps
# :class: dropdown
# 800 slices make 200 steps. 5% are 4 patients, 40 slices and 10 steps. So 100 epochs of all are 20000 steps, which are
# 2000 epochs of the share: `epochs / share`, as in this notebook.
# ```
#
# ```{exercise}
# :label: exercise-patients-band
# The interval of a curve at a share of 5% is narrow, but with three seeds the band is wide. What does each of them say?
# ```
#
# ```{solution} exercise-patients-band
# :class: dropdown
# With one seed the interval asks how the score would vary with other *test* patients, for this one network. The band
# asks how it varies with the *training*: other weights at the start, and at a small share other patients to learn from. A
# narrow interval does not promise that another set of four patients gives the same network. With several seeds the
# interval itself counts both ({doc}`10_comparing`).
# ```
#
# **Take-away.** When you take patients away, say what you held: epochs or steps. A network that took few steps is unsure,
# whatever it was shown.
#
# ## Where these numbers come from

# %%
made = [{**r.info["run"], **r.info} for r in results.values()]
made = pd.DataFrame(made)
fields = ["loss", "share", "epochs", "seed", "identity", "commit"]
made = made.rename(columns={"device_name": "device"})
made["commit"] = made["commit"].str[:12]
made[[*fields, "device", "seconds"]].style.format(
    {"seconds": "{:.0f}", "share": "{:g}"}
).hide(axis="index")

# %% tags=["hide-cell"]
assert len(runs) == seeds * size_of(grid)
assert len(longer) == 2 * seeds
assert len(points) == len(metrics) * size_of(grid)
assert table["dice"].between(0, 1).all()
assert table["confidence"].between(1 / num_classes - 1e-9, 1).all()
# .05: what a network may exceed a ceiling by that it never quite reaches
assert means["confidence"]["nacl"].max() < ceiling + 0.05
assert size["patients"].is_monotonic_increasing
assert size["steps an epoch"].is_monotonic_increasing
assert len(control) == 6
assert control["gap"].between(-1, 1).all()
assert -(-80 * 10 // 4) == 200
assert -(-round(80 * 0.05) * 10 // 4) == 10
assert 100 * 200 / 10 == 100 / 0.05 == 2000
