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
# # CE, SVLS or NACL: who is right about being right?
#
# **You need** {doc}`09_train`. **Run time**: seconds once the three runs are there (`nacl sweep main`), else that of
# three trainings.
#
# Three networks that differ in their loss alone: cross-entropy, SVLS with its hidden constraint
# ({doc}`06_svls`), and NACL, which has its constraint in the open {cite}`murugesan2025`; and what one temperature after
# training makes of each.

# %% tags=["parameters"]
data = "phantom"  # or "brain", or a folder that `nacl data prepare` made
profile = "quick"  # or "full": the papers' protocol, for a GPU
seeds = 1
device = "auto"

# %% tags=["hide-input"]
import pandas as pd
from IPython.display import Markdown
from nacl import plots
from nacl.evaluation import SUMMARY
from nacl.experiments import train_run
from nacl.grids import plan
from nacl.parameters import check_parameters
from nacl.results import results_table
from nacl.statistics import non_inferiority
from nacl.tables import compare, scores_of, typeset
from tqdm.auto import tqdm

check_parameters(globals())

# %% [markdown]
# **Predict.** Order the three by their calibration error: over all pixels, and round the predicted border. Is it the
# same order?

# %% tags=["remove-stderr"]
runs = plan(
    "main", profile=profile, data=data, seeds=range(seeds), device=device
)
results = [train_run(run) for run in tqdm(runs)]
table = results_table(results)

# %% tags=["hide-input"]
run, info = runs[0], results[0].info
same = f"{run.size} x {run.size} pixels, {run.filters} filters, {run.epochs} epochs, batches of {run.batch_size}"
text = (
    f"Data: **{info['dataset']}**, {table['case'].nunique()} test cases of {table['patient'].nunique()} patients. "
    f"Profile **{profile}**: {same}. Seeds: {seeds}. Distances in {info['unit']}"
)
if info["dataset"] == "acdc":  # its HDF5 files have lost their spacing
    text += " of the 192 x 192 grid" if info["unit"] == "px" else ""
    text += " (Bernard et al., IEEE TMI 2018)"
Markdown(text + ".")

# %% [markdown]
# ## The table
#
# Means over the patients (and seeds) with their 95% intervals ({doc}`10_comparing`). A degree sign marks what does not
# differ significantly from cross-entropy, a dagger what could not be compared with it; no mark, a significant difference. `ece_reference` and `cece_reference` are the papers' numbers (true foreground,
# one case at a time); `ece_all` and `ece_predicted_border` look at predictions only. `kl_posterior`, where the truth is
# known, is the mean divergence of the forecast from it: 0 is perfect.

# %%
columns = [c for c in (*SUMMARY, "kl_posterior") if c in table]
methods = ["ce", "ce + temperature", "svls", "nacl", "nacl + temperature"]
compared = compare(table[table["method"].isin(methods)], columns)
typeset(compared).loc[methods].T

# %% [markdown]
# The same as differences from cross-entropy, where the patients are paired: each patient is its own control, so these
# intervals are usually narrower than those of the means.

# %%
differences = compared.dropna(subset="difference").drop(
    columns=["mean", "low", "high"]
)
differences = differences.rename(
    columns={
        "difference": "mean",
        "difference_low": "low",
        "difference_high": "high",
        "method": "name",
    }
)
plots.intervals(
    differences[differences["metric"] == "ece_predicted_border"],
    "ECE round the predicted border, less that of CE (below 0 is better)",
)
# %%
plots.intervals(
    differences[differences["metric"] == "nll"],
    "negative log-likelihood, less that of CE (below 0 is better)",
)

# %% [markdown]
# A better calibration that costs overlap is no gain. So: is the Dice of NACL worse than that of cross-entropy by less
# than 0.01? That margin was chosen before the run.

# %%
dice = scores_of(table, "dice")
no_loss = non_inferiority(dice["nacl"], dice["ce"], margin=0.01)
Markdown(str(no_loss))

# %% [markdown]
# ## Case by case

# %%
plots.by_case(
    table[table["method"].isin(methods)],
    {
        "dice": "Dice",
        "hd95": "HD95",
        "ece_predicted_border": "ECE, predicted border",
        "ece_all": "ECE, all pixels",
    },
)
# %%
plots.metric_histograms(
    table[table["method"].isin(methods)],
    "ece_predicted_border",
    "ECE round the predicted border, cases",
)
# %%
values = ["dice", "hd95", "ece_reference", "cece_reference"]
plain = table[table["post_hoc"] == "none"]
plain.pivot_table(
    index="case", columns="loss", values=values, sort=False
).round(3)

# %% [markdown]
# ## Reliability
#
# Over all pixels, in the band round the predicted border, and over the papers' region.

# %%
first = {r.run.loss: r.bins for r in results if r.run.seed == 0}
bins = {
    loss: of_run[of_run["post_hoc"] == "none"]
    for loss, of_run in first.items()
}
bins["ce + temperature"] = first["ce"].query("post_hoc == 'temperature'")
regions = {"all": "all pixels", "predicted_border": "predicted border"}
plots.reliability_diagram(
    bins, {**regions, "true_foreground": "true foreground"}
)

# %% [markdown]
# ## One slice, four outlines

# %%
by_dice = plain.groupby("case")["dice"].mean().sort_values()
middle_case = by_dice.index[len(by_dice) // 2]
case = results[0].dataset().split("test").named(middle_case)
slice_number = len(case.label) // 3
of_seed = {
    r.run.loss: r.predict(case)[slice_number]
    for r in results
    if r.run.seed == 0
}
predictions = {
    plots.LOSS_NAMES[loss]: probs.argmax(dim=0).numpy()
    for loss, probs in of_seed.items()
}
plots.outlines(
    case.image[0, slice_number],
    {"label": case.label[slice_number], **predictions},
    info["class_names"],
)
# %%
confidences = {
    plots.LOSS_NAMES[loss]: probs.max(dim=0).values.numpy()
    for loss, probs in of_seed.items()
}
lowest = 1 / len(info["class_names"])
plots.maps(confidences, label="confidence", limits=(lowest, 1))
# %% tags=["hide-input"]
mean = plain.groupby("loss")[columns].mean()
order = {
    c: [plots.LOSS_NAMES[loss] for loss in mean[c].sort_values().index]
    for c in columns
}
tempered = table[table["method"] == "ce + temperature"]
border, everywhere = order["ece_predicted_border"], order["ece_all"]
top = 1 - runs[-1].penalty_weight / len(info["class_names"])
sums = bins["nacl"].query("region == 'all'").sum(numeric_only=True)
conf, acc = (
    sums[f"{x}_sum"] / sums["count"] for x in ("confidence", "correct")
)
unlike = compared[
    (compared["metric"] == "ece_predicted_border")
    & compared["method"].isin(["svls", "nacl"])
]["significant"].sum()
Markdown(
    f"**What we saw.** From the lowest calibration error to the highest, round the predicted border: "
    f"{', '.join(border)} ({mean['ece_predicted_border'].min():.3f} to {mean['ece_predicted_border'].max():.3f}); over "
    f"all pixels: {', '.join(everywhere)} ({mean['ece_all'].min():.3f} to {mean['ece_all'].max():.3f}). "
    f"{'The same order.' if border == everywhere else 'Not the same order.'} Round the border {unlike} of the other two differ "
    "significantly from CE. The lowest negative log-likelihood is "
    f"{order['nll'][0]}'s ({mean['nll'].min():.3f}); cross-entropy with a temperature has {tempered['nll'].mean():.3f}. "
    f"Dice of NACL no more than 0.01 below that of CE: {'shown' if no_loss.shown else 'not shown'}. NACL's error over all pixels, {mean.loc['nacl', 'ece_all']:.3f}, "
    "stands beside the distance of its ceiling from 1, the penalty weight over the number of classes, "
    f"{1 - top:.3f}. That is the theory's doing only as far as confidence is at the ceiling, {top:.3f}, and accuracy at 1: here "
    f"they are {conf:.3f} and {acc:.3f}. With {seeds} {'seed' if seeds == 1 else 'seeds'} all this is about these networks."
)

# %% [markdown]
# The ceiling is {eq}`nacl-ceiling`, derived in {doc}`07_nacl`. It holds in easy background too, where a network may well
# be sure.
#
# **Where it fails.** With few seeds, a short training and few patients, the order of two methods can turn with the seed.
# Before you believe a difference, train on your data, longer, and several times:
#
# ```bash
# nacl sweep main --profile full --data prepared/acdc --seeds 5
# papermill notebooks/11_compare.ipynb out.ipynb \
#   -p profile full -p data prepared/acdc -p seeds 5
# ```
#
# ```{exercise}
# :label: exercise-compare-overlap
# In the table the intervals of two methods overlap. May one say that the methods do not differ? And if they do not
# overlap?
# ```
#
# ```{solution} exercise-compare-overlap
# :class: dropdown
# The first does not follow. Each interval holds how much the patients differ from one another, which both methods share;
# the difference of the two, patient by patient, is free of it, see {eq}`score-model`, and its interval may well leave out 0.
# If the two do not overlap, the means differ more than the patients' spread explains. Whether that holds after a
# correction for all the comparisons of the table, only the degree sign says.
# ```
#
# ```{exercise}
# :label: exercise-compare-half
# NACL is trained again with half of its penalty weight. What can you say beforehand about its calibration error over all
# pixels, and about that round the predicted border?
# ```
#
# ```{solution} exercise-compare-half
# :class: dropdown
# Most pixels are easy: the network is nearly always right there. If it is as confident as the ceiling {eq}`nacl-ceiling`
# lets it be, their error is $\lambda / K$, which halves, and the error over all pixels falls to little more than half of
# its value. A network that was trained briefly is further below its ceiling than that, and then it falls by less.
# Round the border nobody knows beforehand: there the network is wrong often enough that a lower confidence may be the more
# honest one. {doc}`12_penalty` measures it.
# ```
#
# ## Where these numbers come from

# %%
shown = ["loss", "seed", "identity", "commit", "device_name", "torch"]
made = [{**r.info, "loss": r.run.loss, "seed": r.run.seed} for r in results]
provenance = pd.DataFrame(made)[
    [*shown, "temperature", "seconds", "finished"]
]
provenance["commit"] = provenance["commit"].str[:12]
provenance.style.format(
    {"seconds": "{:.0f}", "temperature": "{:.3f}"}
).hide(axis="index")

# %% tags=["hide-input"]
Markdown(
    f"Command: `nacl sweep main --profile {profile} --seeds {seeds}`, with `--data` the set {info['dataset']} of "
    f"fingerprint `{info['data_fingerprint']}`."
)

# %% [markdown]
# **Take-away.** Ask for a calibration error and you must say *where*. A difference that is there over all pixels need not
# be there round the border.

# %% tags=["hide-cell"]
assert set(table["loss"]) == {"ce", "svls", "nacl"}
assert set(methods) < set(table["method"])
assert not (compared["low"] > compared["mean"]).any()
assert table.groupby("loss")["case"].nunique().nunique() == 1
assert table["dice"].between(0, 1).all()
assert table["ece_all"].between(0, 1).all()
