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
# # How much should the penalty weigh?
#
# **You need** {doc}`07_nacl`, {doc}`08_family` and {doc}`11_compare`. **Run time**: about a minute on one core with the
# parameters below; runs that were finished before are read, not done again.
#
# **Question.** NACL has a weight $\lambda$ {cite}`murugesan2025`, MbLS a margin $m$ {cite}`liu2022,murugesan2023`. Both
# decide how sure a network may become. What does each setting cost, where, and is there one that is best for
# everything?

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
from nacl.grids import grid_rows, plan, profile_note, size_of
from nacl.parameters import check_parameters
from nacl.results import results_table
from nacl.tables import ablation_points, compare, typeset, with_confidence
from nacl.theory import confidence_ceiling
from tqdm.auto import tqdm

check_parameters(globals())

# %% [markdown]
# **Predict.** The weight grows from 0.01 to 3. What happens to the calibration error over all pixels: does it fall, rise,
# or fall first and then rise? And the error round the predicted border: has it the same best weight?
#
# ## The grid
#
# Two grids of `nacl.grids.GRIDS`, as they stand there, and the number of their runs for one seed. Each run differs from
# its neighbours in one number alone. Cross-entropy is trained beside them, as what they are compared with.

# %%
grids = ["penalty-weight", "margin"]
pd.DataFrame(grid_rows(*grids)).fillna("").style.hide(axis="index")

# %% [markdown]
# What is missing is trained here, one run after the other. With real data, make the runs beforehand, several at a time
# or on several machines ({doc}`/book/machines`), and then execute this notebook with the same `data`, `profile` and
# `seeds`: it only reads them.
#
# ```bash
# nacl sweep main --profile full --data prepared/acdc --seeds 3
# nacl sweep penalty-weight --profile full --data prepared/acdc --seeds 3
# nacl sweep margin --profile full --data prepared/acdc --seeds 3
# papermill notebooks/12_penalty.ipynb out.ipynb \
#   -p profile full -p data prepared/acdc -p seeds 3
# ```

# %% tags=["remove-stderr"]
options = {"profile": profile, "data": data, "device": device}
options["seeds"] = range(seeds)
runs = [run for run in plan("main", **options) if run.loss == "ce"]
runs += [run for name in grids for run in plan(name, **options)]
results = [train_run(run) for run in tqdm(runs)]

# %% tags=["hide-input"]
info = results[0].info
num_classes = len(info["class_names"])
Markdown(
    f"Data: **{info['dataset']}**, {num_classes} classes. "
    + profile_note(runs, profile)
)

# %% [markdown]
# ## What the theory expects
#
# A pixel whose label is certain ends with a confidence below 1: for NACL at $1 - \lambda / K$, while $\lambda$ is small,
# see {eq}`nacl-ceiling`; for MbLS where the distance of the logits reaches the margin, or where the penalty's slope
# balances that of cross-entropy, see {eq}`family-mbls-ceiling`. Most pixels of a medical image are easy: their label is as
# good as certain. So the mean confidence over all pixels should lie a little below the ceiling, and the calibration
# error there should be near *one minus the ceiling*.

# %%
table = results_table(results)
table = with_confidence(
    table, {r.info["identity"]: r.bins for r in results}
)
weights = np.geomspace(0.01, 3, 40)
nacl_ceiling = [
    confidence_ceiling("nacl", num_classes, penalty_weight=w)
    for w in weights
]

# %%
margins = np.linspace(3, 15, 40)
mbls_ceiling = [
    confidence_ceiling("mbls", num_classes, margin=m) for m in margins
]

# %% [markdown]
# ## The weight of NACL
#
# Each panel has the mean over the test patients, with its 95% interval; with several seeds the interval knows of them
# ({doc}`10_comparing`), and a band joins the lowest and the highest seed. The grey bands are cross-entropy, as trained
# and with a temperature fitted after training, which is the cheapest remedy. The dotted line is the theory's.

# %%
metrics = {c: name for c, name in plots.METRICS.items() if c in table}
ce = compare(table[table["loss"] == "ce"], list(metrics), baseline="ce")
points = ablation_points(
    table[table["method"] == "nacl"], "penalty_weight", list(metrics)
)

# %%
theory = {
    "confidence": {"nacl": (weights, nacl_ceiling)},
    "ece_all": {"nacl": (weights, 1 - np.array(nacl_ceiling))},
}
plots.ablation_curves(
    points, "penalty_weight", metrics, x="penalty weight λ",
    baseline=ce, theory=theory, log_x=True, log_y=["ece_all", "nll"],
)  # fmt: skip

# %% [markdown]
# ## The margin of MbLS
#
# The margin works the other way round: the *smaller*, the tighter. A margin that the logits never reach is no constraint
# at all, and the network is one of cross-entropy.

# %%
of_margin = ablation_points(
    table[table["method"] == "mbls"], "margin", list(metrics)
)
theory = {
    "confidence": {"mbls": (margins, mbls_ceiling)},
    "ece_all": {"mbls": (margins, 1 - np.array(mbls_ceiling))},
}
plots.ablation_curves(
    of_margin, "margin", metrics, x="margin m", baseline=ce, theory=theory
)

# %% [markdown]
# ## The numbers, with intervals
#
# Means over the patients (and seeds) with their 95% intervals. A degree sign marks what does not differ significantly
# from cross-entropy, patient by patient, after Holm's correction for all rows of a column; a dagger marks what could not
# be compared with it. All others without a mark differ significantly.

# %%
plain = table[table["post_hoc"] == "none"]
typed = {"penalty_weight": "NACL, λ = {:g}", "margin": "MbLS, m = {:g}"}
weight, margin = (
    plain[field].map(text.format, na_action="ignore")
    for field, text in typed.items()
)
named = plain.assign(method=margin.fillna(weight).fillna("CE"))
tempered = table[table["method"] == "ce + temperature"]
named = pd.concat([named, tempered.assign(method="CE + temperature")])
shown = ["dice", "ece_all", "ece_predicted_border", "nll"]
typeset(compare(named, shown, baseline="CE")).rename(columns=plots.METRICS)

# %% tags=["hide-input"]
nacl = points.pivot(index="penalty_weight", columns="metric", values="mean")
mbls = of_margin.pivot(index="margin", columns="metric", values="mean")
level = ce.pivot(index="method", columns="metric", values="mean")
nll_best, dice_drop = (
    nacl["nll"].idxmin(),
    nacl["dice"].max() - nacl["dice"],
)
at_one = 1 - confidence_ceiling("nacl", num_classes, penalty_weight=1.0)
best = {
    m: f"at {nacl[m].idxmin():g}" if nacl[m].notna().any() else "at none"
    for m in ("ece_all", "ece_predicted_border")
}
timid = (
    "below 1: it is too timid already, and a ceiling may make that worse"
    if info["temperature"] < 1
    else "not below 1: there is over-confidence that a ceiling can mend"
)
at_least = (
    "; the least weight of the grid, so that the best may lie below it"
    if nll_best == nacl.index.min()
    else ""
)
of_default = 1 - confidence_ceiling("nacl", num_classes)
Markdown(
    f"**What we saw.** From weight {nacl.index.min():g} to {nacl.index.max():g} NACL's mean confidence goes from "
    f"{nacl['confidence'].iloc[0]:.3f} to {nacl['confidence'].iloc[-1]:.3f}, and its calibration error over all pixels "
    f"from {nacl['ece_all'].iloc[0]:.3f} to {nacl['ece_all'].iloc[-1]:.3f}. At weight 1 the error is "
    f"{nacl.loc[1.0, 'ece_all']:.3f}, and the theory says {at_one:.3f} for pixels that are always right; at 0.1, the default, it "
    f"is {nacl.loc[0.1, 'ece_all']:.3f} against {of_default:.3f}. The lowest error over all "
    f"pixels is {best['ece_all']}, round the predicted border {best['ece_predicted_border']}, the lowest negative log-likelihood "
    f"({nacl['nll'].min():.3f}) at {nll_best:g}{at_least}; cross-entropy, which is the weight 0, has {level.loc['ce', 'nll']:.3f}, with a temperature "
    f"{level.loc['ce + temperature', 'nll']:.3f}. Dice loses {dice_drop.iloc[-1]:.3f} between its best weight and the "
    f"largest. For MbLS the error over all pixels goes from {mbls['ece_all'].iloc[0]:.3f} at margin {mbls.index.min():g} to "
    f"{mbls['ece_all'].iloc[-1]:.3f} at {mbls.index.max():g} (cross-entropy: {level.loc['ce', 'ece_all']:.3f}). Why these? The "
    f"temperature that suits cross-entropy's validation cases is {info['temperature']:.2f}, {timid}."
)

# %% [markdown]
# **Where the theory fails.** The ceiling speaks of the *minimum* for *certain* labels. A network that was not trained to
# its end is below it, and so is one that is rightly unsure; its calibration error is then not one minus the ceiling. With a
# small weight the ceiling is nearly 1, and what the network does not know outweighs it.
#
# **What would change the conclusion.**
# - *Training.* A ceiling can only mend a network that is too sure. One that was trained for seconds is unsure because it
#   has learned little; one that has memorised its labels is over-confident ({doc}`01_overconfident`). So the best weight
#   may move with the length of training.
# - *The region.* A weight that is good round the border may be bad over all pixels; say which one is meant.
# - *Seeds.* With one seed the intervals speak of these networks only.
# - *The data.* The theory has $\lambda / K$: with more classes the same weight presses less.
#
# ```{exercise}
# :label: exercise-penalty-convert
# A paper writes the penalty as a sum over the classes, and uses the weight 0.1 with four classes. Which
# `penalty_weight` is that here, and what is the ceiling?
# ```
#
# ```{solution} exercise-penalty-convert
# :class: dropdown
# The code averages over the classes, so $\lambda_\text{paper} = \lambda / K$ and $\lambda = 0.1 \cdot 4 = 0.4$. The
# ceiling is $1 - 0.4 / 4 = 0.9$, and not the 0.975 of `penalty_weight=0.1`.
# ```
#
# ```{exercise}
# :label: exercise-penalty-margin
# With the weight 0.1 and four classes, from which margin on does the margin alone decide the ceiling of MbLS? What
# decides below it?
# ```
#
# ```{solution} exercise-penalty-margin
# :class: dropdown
# The ceiling {eq}`family-mbls-ceiling` is the larger of $1 / (1 + 3 e^{-m})$ and $1 - 3 \cdot 0.1 / 4 = 0.925$. They are
# equal where $3 e^{-m} = 0.075 / 0.925$, at $m = \log 37 \approx 3.61$. Below that the penalty is too weak to hold the
# logits at the margin, and a smaller margin changes nothing: only a larger weight would.
# ```
#
# **Take-away.** The weight sets a ceiling that you can compute before you train. Choose it where it is rightly unsure, and
# report what it costs where the network could be sure.
#
# ## Where these numbers come from

# %%
made = pd.DataFrame([{**r.info["run"], **r.info} for r in results])
made = made.rename(columns={"device_name": "device"})
fields = ["loss", "penalty_weight", "margin", "seed", "identity"]
made["commit"] = made["commit"].str[:12]
made[[*fields, "commit", "device", "seconds"]].style.format(
    {"penalty_weight": "{:g}", "margin": "{:g}", "seconds": "{:.0f}"}
).hide(axis="index")

# %% tags=["hide-cell"]
assert set(table["method"]) >= {"ce", "ce + temperature", "nacl", "mbls"}
assert len(results) == seeds * (1 + sum(map(size_of, grids)))
assert len(points) == len(metrics) * size_of("penalty-weight")
assert table["dice"].between(0, 1).all()
assert table["ece_all"].between(0, 1).all()
assert table["confidence"].between(1 / num_classes - 1e-9, 1).all()
for (
    weight,
    row,
) in nacl.iterrows():  # .05: what a network may exceed a ceiling by that it never quite reaches
    ceiling = confidence_ceiling("nacl", num_classes, penalty_weight=weight)
    assert row["confidence"] < ceiling + 0.05, (weight, row["confidence"])
assert nacl["confidence"].iloc[-1] < nacl["confidence"].iloc[0] + 0.05
assert confidence_ceiling("nacl", 4, penalty_weight=0.4) == 0.9
assert confidence_ceiling("mbls", 4, margin=3.5) == 0.925
assert np.isclose(confidence_ceiling("mbls", 4, margin=np.log(37)), 0.925)
assert confidence_ceiling("mbls", 4, margin=3.7) > 0.925
