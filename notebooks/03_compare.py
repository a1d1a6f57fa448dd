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
# **You need** {doc}`02_train`. **Run time**: seconds once the three runs are there (`nacl sweep main`), else that of
# three trainings.
#
# Three networks that differ in their loss alone: cross-entropy, SVLS with its hidden constraint
# ({doc}`01_svls`), and NACL, which has its constraint in the open {cite}`murugesan2025`.

# %% tags=["parameters"]
data = "phantom"  # or the folder of a benchmark
profile = "quick"  # or "full": the papers' protocol, for a GPU
seeds = 1
device = "auto"

# %% tags=["hide-input"]
import pandas as pd
from IPython.display import Markdown
from nacl import plots
from nacl.evaluation import SUMMARY
from nacl.experiments import plan, results_table, train_run
from tqdm.auto import tqdm

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
scaled = {
    "acdc": f" of the 192 x 192 grid, read at {run.size} x {run.size} (Bernard et al., IEEE TMI 2018)"
}
Markdown(text + scaled.get(info["dataset"], "") + ".")

# %% [markdown]
# ## The table
#
# Means over the test cases (and seeds), with the standard deviation between them: how much cases differ, which is no
# interval for the mean. `ece_reference` and `cece_reference` are the papers' numbers (true foreground, one case at a time);
# `ece_all` and `ece_predicted_border` look at predictions only. `kl_posterior`, where the truth is known, is the mean
# divergence of the forecast from it: 0 is perfect.

# %%
columns = [c for c in (*SUMMARY, "kl_posterior") if c in table]
short = table.groupby("loss", sort=False)[columns].agg(["mean", "std"])
cells = {
    c: [f"{m:.3f} ± {s:.3f}" for m, s in short[c].itertuples(index=False)]
    for c in columns
}
pd.DataFrame(cells, index=short.index).T

# %% [markdown]
# ## Case by case

# %%
plots.by_case(
    table,
    {
        "dice": "Dice",
        "hd95": "HD95",
        "ece_predicted_border": "ECE, predicted border",
        "ece_all": "ECE, all pixels",
    },
)
# %%
values = ["dice", "hd95", "ece_reference", "cece_reference"]
table.pivot_table(
    index="case", columns="loss", values=values, sort=False
).round(3)

# %% [markdown]
# ## Reliability
#
# Over all pixels, in the band round the predicted border, and over the papers' region.

# %%
bins = {r.run.loss: r.bins for r in results if r.run.seed == 0}
regions = {"all": "all pixels", "predicted_border": "predicted border"}
plots.reliability_diagram(
    bins, {**regions, "true_foreground": "true foreground"}
)

# %% [markdown]
# ## One slice, four outlines

# %%
cases = {case.name: case for case in results[0].dataset().split("test")}
by_dice = table.groupby("case")["dice"].mean().sort_values()
case = cases[by_dice.index[len(by_dice) // 2]]
slice_number = len(case.image) // 3
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
    case.image[slice_number],
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
mean = short.xs("mean", axis=1, level=1)
order = {
    c: [plots.LOSS_NAMES[loss] for loss in mean[c].sort_values().index]
    for c in columns
}
border, everywhere = order["ece_predicted_border"], order["ece_all"]
Markdown(
    f"**What we saw.** From the lowest calibration error to the highest, round the predicted border: "
    f"{', '.join(border)} ({mean['ece_predicted_border'].min():.3f} to {mean['ece_predicted_border'].max():.3f}); over "
    f"all pixels: {', '.join(everywhere)} ({mean['ece_all'].min():.3f} to {mean['ece_all'].max():.3f}). "
    f"{'The same order.' if border == everywhere else 'Not the same order.'} The lowest negative log-likelihood is "
    f"{order['nll'][0]}'s ({mean['nll'].min():.3f}). NACL's error over all pixels, {mean.loc['nacl', 'ece_all']:.3f}, "
    "stands beside the distance of its ceiling from 1, the penalty weight over the number of classes: "
    f"{runs[-1].penalty_weight / len(info['class_names']):.3f}."
)

# %% [markdown]
# The ceiling is {eq}`nacl-ceiling`, derived in {doc}`01_svls`. It holds in easy background too, where a network may well
# be sure.
#
# **Where it fails.** With few seeds, a short training and few patients, the order of two methods can turn with the seed.
# Run `nacl sweep main --profile full --seeds 5` before you believe a difference.
#
# ## Where these numbers come from

# %%
columns = ["loss", "seed", "identity", "commit", "device_name", "torch"]
made = [{**r.info, "loss": r.run.loss, "seed": r.run.seed} for r in results]
provenance = pd.DataFrame(made)[[*columns, "seconds", "finished"]]
provenance["commit"] = provenance["commit"].str[:12]
provenance.style.format({"seconds": "{:.0f}"}).hide(axis="index")

# %% tags=["hide-input"]
Markdown(
    f"Command: `nacl sweep main --profile {profile} --seeds {seeds}`, with `--data` the set {info['dataset']} of "
    f"fingerprint `{info['data_fingerprint']}`."
)

# %% [markdown]
# **Take-away.** Ask for a calibration error and you must say *where*. The order of methods can depend on it.

# %% tags=["hide-cell"]
assert set(table["loss"]) == {"ce", "svls", "nacl"}
assert table.groupby("loss")["case"].nunique().nunique() == 1
assert table["dice"].between(0, 1).all()
assert table["ece_all"].between(0, 1).all()
