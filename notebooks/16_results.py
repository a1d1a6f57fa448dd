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
# # Does NACL keep its promise?
#
# **You need** {doc}`07_nacl`, {doc}`08_family` and {doc}`10_comparing`. **Run time**: seconds; nothing is trained here.
# The page reads finished runs, and each of its numbers is computed from their rows.
#
# The paper promises better calibration without a loss of overlap {cite}`murugesan2025`. We trained the losses of its main
# table, with CRaC, L1-ACE and a Dice loss beside them, on real hearts (ACDC {cite}`bernard2018`), and on the phantom and
# the brain, whose true posteriors are known at every pixel ({doc}`04_phantom`, {doc}`05_brain`). This page says what came
# out, for the claim and against it.

# %% tags=["parameters"]
archive = "results/small"  # what `nacl table --archive results/small` wrote
profile = "small"
seeds = 3  # of those that are there

# %% tags=["hide-input"]
import numpy as np
import pandas as pd
import torch
from IPython.display import Markdown, display
from nacl import plots
from nacl.archive import read_archive
from nacl.data import load_dataset
from nacl.data.load import EMBEDDED, PROJECT_ROOT
from nacl.parameters import check_parameters
from nacl.ranks import cliques, friedman_ranks, nemenyi_critical_difference
from nacl.statistics import non_inferiority
from nacl.tables import compare, scores_of, typeset
from nacl.theory import confidence_ceiling, svls_softening

check_parameters(globals())

# %% [markdown]
# **Predict.** Cross-entropy is the method to beat, and one temperature fitted after training costs nothing. On which of
# the sets will NACL have a better negative log-likelihood than both? And its calibration error over all pixels: will that
# be lower?

# %%
stored = read_archive(PROJECT_ROOT / archive)
found = {}
for of in dict.fromkeys([profile, "memorised"]):
    for name, there in stored.of_grid(
        "main-table", profile=of, seeds=seeds
    ).items():
        found[name if of == profile else f"{name}, {of}"] = there
tables = {name: there.table() for name, there in found.items()}

# %% tags=["hide-input"]
rows = []
for name, table in tables.items():
    one = table.iloc[0]
    rows.append(
        {
            "data": name,
            "runs": table["identity"].nunique(),
            "seeds": table["seed"].nunique(),
            "test cases": table["case"].nunique(),
            "patients": table["patient"].nunique(),
            "network": f"{one['model']}, {one['filters']} filters",
            "pixels": f"{one['size']} x {one['size']}",
            "epochs": one["epochs"],
            "of the training patients": f"{one['share']:.0%}",
            "temperature of CE": table[table["method"] == "ce"]
            .drop_duplicates("identity")["temperature"]
            .astype(float)
            .mean()
            .round(2),
            "seconds a run": table.groupby("identity")["seconds"]
            .first()
            .astype(float)
            .median()
            .round(),
        }
    )
scale = pd.DataFrame(rows).set_index("data")
scale.T
# %% tags=["hide-input"]
least = scale["seeds"].min()
Markdown(
    "**The protocol is a small one**, of minutes a run on one CPU core: small images, a network with instance "
    "normalisation (the papers' has none) that learns fast, and few patients. The papers train their U-Net for 100 epochs at 192 x 192 "
    "pixels on a GPU; the same command with `--profile full` does that. "
    + (
        "*Memorised* is the same protocol with a fifth of the patients and five times the epochs. "
        if any("memorised" in name for name in found)
        else ""
    )
    + "A temperature above 1 says that cross-entropy was too sure on the validation patients, one below 1 that it was too timid. Every method has the "
    "hyper-parameters that its authors chose (the added losses weigh 1), so each had the same budget, none; the next chapter chooses some. The epoch "
    "was chosen, and the temperature fitted, on validation patients. "
    + (
        "**Where there is one seed, intervals speak of patients only**: another seed may turn the order of two methods."
        if least == 1
        else f"There are at least {least} seeds of each, and intervals know of them."
    )
)

# %% [markdown]
# ## The tables
#
# The losses as they were trained, and cross-entropy with a temperature. Means with 95% intervals; a degree sign marks what does not differ significantly from cross-entropy, after Holm's
# correction for all methods of the column ({doc}`10_comparing`). `ece_reference` and `cece_reference` are the papers'
# numbers, over pixels whose *true* label is foreground ({doc}`03_traps` says why that is no calibration); `ece_all` and
# `ece_predicted_border` look at predictions only; `nll` and `brier` are proper scores. Where the truth is known,
# `kl_posterior` is the divergence of the forecast from it.

# %%
usual = ["dice", "hd95", "ece_reference", "cece_reference"]
honest = ["ece_all", "ece_predicted_border", "nll", "brier", "kl_posterior"]
compared = {}
for name, table in tables.items():
    trained = table["post_hoc"] == "none"
    rival = table["method"] == "ce + temperature"
    known = [
        c for c in usual + honest if c in table and table[c].notna().any()
    ]
    compared[name] = compare(table[trained | rival], known)
    page = typeset(compared[name]).rename(index=plots.label_of)
    display(Markdown(f"**{name}**: overlap, and the papers' calibration"))
    display(page[usual])
    display(
        Markdown(f"**{name}**: calibration that looks at predictions only")
    )
    display(page[[c for c in honest if c in page]])

# %% [markdown]
# And with a temperature for each of them, fitted on validation patients; now the degree sign is about the difference from
# cross-entropy with its temperature. What a loss gives that a temperature can't must be seen here.

# %%
shown = ["ece_reference", "ece_all", "ece_predicted_border", "nll"]
for name, table in tables.items():
    scaled = table[table["post_hoc"] == "temperature"]
    rows = compare(scaled, shown, baseline="ce + temperature")
    page = typeset(rows, digits=4).rename(index=plots.label_of)
    display(Markdown(f"**{name}**"), page)

# %% [markdown]
# ## Overlap against calibration
#
# A method that calibrates better at the price of overlap has moved along a trade, not won. The best place is at the
# lower right. A method whose Dice lies 0.1 below cross-entropy's has not learned the task; it
# is named instead of drawn, since it would stretch the axes.

# %%
for name, comparison in compared.items():
    dice = comparison[comparison["metric"] == "dice"].set_index("method")
    little = dice["mean"] < dice.loc["ce", "mean"] - 0.1
    learned = dice.index[~little].drop("ce + temperature")
    for method in dice.index[little]:
        mean = dice.loc[method, "mean"]
        told = f"Not drawn: {plots.label_of(method)}, whose Dice is {mean:.3f}."
        display(Markdown(told))
    display(
        plots.trade(
            comparison[comparison["method"].isin(learned)],
            ("dice", f"{name}: Dice (higher is better)"),
            (
                "ece_predicted_border",
                "ECE, predicted border (lower is better)",
            ),
        )
    )

# %% [markdown]
# ## Ranks
#
# Each patient ranks the methods by likelihood, which pays for knowledge and for honesty alike. A thick bar joins methods
# that this many patients do not tell apart {cite}`demsar2006`. Ranks are of the trained networks; they know nothing of
# what another seed would do.

# %%
for name, table in tables.items():
    scores = {
        method: of_method.mean(axis=0)
        for method, of_method in scores_of(table, "nll").items()
        if " + " not in method or method == "ce + temperature"
    }
    ranked = friedman_ranks(list(scores.values()), larger_is_better=False)
    critical = nemenyi_critical_difference(len(scores), ranked.blocks)
    names = list(scores)
    groups = [
        [names[i] for i in group]
        for group in cliques(ranked.ranks, critical)
    ]
    display(
        Markdown(
            f"**{name}**: do any two differ? p = {ranked.p_value:.2g} (Iman-Davenport), {ranked.blocks} patients"
        ),
        plots.critical_difference_diagram(
            dict(zip(names, ranked.ranks, strict=True)), critical, groups
        ),
    )

# %% [markdown]
# ## Reliability
#
# All seeds and test cases together.

# %%
regions = {
    "all": "all pixels",
    "predicted_border": "predicted border",
    "true_foreground": "true foreground",
}
chosen = ["ce", "ce + temperature", "svls", "mbls", "nacl"]
for name, there in found.items():
    pooled = there.pooled_bins()
    bins = {method: pooled[method] for method in chosen if method in pooled}
    display(
        Markdown(f"**{name}**"), plots.reliability_diagram(bins, regions)
    )

# %% [markdown]
# ## What the theory expected
#
# A ceiling on confidence is a statement about every pixel that the label is certain of. If a network is as confident as
# its loss allows and nearly always right, its calibration error over all pixels is the distance of the ceiling from 1:
# $\lambda / K$ for NACL {eq}`nacl-ceiling`, $\alpha - \alpha / K$ for label smoothing. Cross-entropy has no ceiling.

# %%
classes = 4
ceilings = {
    "ce": confidence_ceiling("ce", classes),
    "label_smoothing": confidence_ceiling("label_smoothing", classes),
    "mbls": confidence_ceiling("mbls", classes),
    "svls": confidence_ceiling("svls", classes),
    "nacl": confidence_ceiling("nacl", classes),
}
rows = []
for name, there in found.items():
    pooled = there.pooled_bins()
    for method, ceiling in ceilings.items():
        if method in pooled:
            sums = (
                pooled[method]
                .query("region == 'all'")
                .sum(numeric_only=True)
            )
            rows.append(
                {
                    "data": name,
                    "method": method,
                    "ceiling": ceiling,
                    "mean confidence": sums["confidence_sum"]
                    / sums["count"],
                    "accuracy": sums["correct_sum"] / sums["count"],
                }
            )
theory = pd.DataFrame(rows)
theory["confidence - accuracy"] = (
    theory["mean confidence"] - theory["accuracy"]
)
theory["ceiling - 1"] = theory["ceiling"] - 1
shown = theory.assign(method=theory["method"].map(plots.label_of))
shown.set_index(["data", "method"]).style.format("{:.3f}")

# %% [markdown]
# SVLS has no ceiling inside an object: its labels are soft within a pixel of a border and nowhere else ({doc}`06_svls`). A
# network that has learned them by heart is less sure than that of cross-entropy by the share that the labels give away,
# on average over all pixels; one that was unsure at borders already, by less. On the sets that we can generate here:

# %%
rows = {}
for name, there in found.items():
    kind = name.split(",")[0]
    if kind in EMBEDDED:
        size = int(there.runs["size"].iloc[0])
        labels = [
            torch.from_numpy(case.label).long()
            for case in load_dataset(kind, size=size).split("test")
        ]
        soft = [svls_softening(label, classes) for label in labels]
        sure = theory[theory["data"] == name].set_index("method")
        sure = sure["mean confidence"]
        rows[name] = {
            "given away by the labels of SVLS": np.mean(soft).item(),
            "confidence, CE less SVLS": sure["ce"] - sure["svls"],
        }
pd.DataFrame(rows).T.style.format("{:.4f}")

# %% [markdown]
# ## What held up, what did not
#
# Each line is a claim, and what the rows above say of it; the words follow from the numbers.

# %% tags=["hide-input"]
questions = {
    "papers' ECE of NACL, against CE": "ece_reference",
    "ECE over all pixels": "ece_all",
    "ECE, predicted border": "ece_predicted_border",
    "NLL": "nll",
}
verdicts = {}
for name, comparison in compared.items():
    by = comparison.set_index(["metric", "method"])
    means = by["mean"]
    words = {}
    for question, metric in questions.items():
        row = by.loc[(metric, "nacl")]
        words[question] = "lower" if row["difference"] < 0 else "higher"
        words[question] += f" by {abs(row['difference']):.4f}"
        words[question] += (
            "" if row["significant"] else " (not significant)"
        )
    scaled = means["nll", "ce + temperature"]
    words["NLL, against CE + temperature"] = (
        "lower" if means["nll", "nacl"] < scaled else "higher"
    )
    dice = scores_of(tables[name], "dice")
    trial = non_inferiority(dice["nacl"], dice["ce"], margin=0.01)
    loss = by.loc[("dice", "nacl"), "difference"]
    words["Dice at most 0.01 below CE's"] = (
        "shown" if trial.shown else f"not shown ({loss:+.3f})"
    )
    best = means["dice"].idxmax()
    words["highest Dice, and its ECE at the border"] = (
        f"{plots.label_of(best)}, {means['ece_predicted_border', best]:.3f}"
    )
    lowest = {
        "lowest NLL of all": "nll",
        "lowest ECE, predicted border": "ece_predicted_border",
    }
    for question, metric in lowest.items():
        words[question] = plots.label_of(means[metric].idxmin())
    verdicts[name] = words
verdict = pd.DataFrame(verdicts)
verdict
# %% tags=["hide-input"]
better = [n for n in tables if verdict.loc["NLL", n].startswith("lower")]
papers_better = [
    n
    for n in tables
    if verdict.loc["papers' ECE of NACL, against CE", n].startswith("lower")
]
worse_all = [
    n
    for n in tables
    if verdict.loc["ECE over all pixels", n].startswith("higher")
]
beats = [
    n
    for n in tables
    if verdict.loc["NLL, against CE + temperature", n] == "lower"
]
of_nacl = theory[theory["method"] == "nacl"]
said = {
    claim: f"on {len(names)} of {len(tables)} sets"
    + (f" ({', '.join(names)})" if names else "")
    for claim, names in {
        "papers": papers_better,
        "all": worse_all,
        "nll": better,
        "scaled": beats,
    }.items()
}
Markdown(
    f"**What we saw.** By the papers' number NACL is better calibrated than cross-entropy {said['papers']}; over all pixels "
    f"it is worse {said['all']}: its confidence lies {-of_nacl['confidence - accuracy'].max():.3f} to "
    f"{-of_nacl['confidence - accuracy'].min():.3f} below its accuracy, and the ceiling's price is {0.1 / classes:.3f}. By likelihood it is "
    f"better than cross-entropy {said['nll']}, and better than cross-entropy with a temperature {said['scaled']}. These are means; the "
    "table says which of the differences are significant."
)

# %% [markdown]
# **What would change the conclusion.** More seeds, where there is one; the papers' protocol, whose networks are larger and
# train longer; a weight chosen on validation patients instead of the authors' 0.1 ({doc}`17_ablations` does that).
#
# ## What a step costs
#
# The seconds above are of whole runs, several at a time, on a shared machine; the losses by themselves are measured in
# {doc}`/book/speed`, time and memory.

# %%
seconds = pd.concat(tables.values()).drop_duplicates("identity")
seconds = seconds.assign(seconds=seconds["seconds"].astype(float))
seconds.pivot_table(
    index="method",
    columns=["dataset", "epochs"],
    values="seconds",
    aggfunc="median",
).rename(plots.label_of).style.format("{:.0f}", na_rep="-")

# %% [markdown]
# ## Where these numbers come from
#
# One row a run; the files in `results/` have every parameter. To do one again: `nacl sweep main-table --profile small
# --seeds 3`, or `--profile memorised`, with `--data` for another set than the phantom.

# %%
made = pd.concat(there.runs for there in found.values())
made = made.assign(commit=made["commit"].str[:12])
made[
    [
        "loss",
        "dataset",
        "share",
        "epochs",
        "seed",
        "identity",
        "commit",
        "device_name",
        "torch",
        "temperature",
        "finished",
    ]
].style.hide(axis="index")

# %% [markdown]
# ```{exercise}
# :label: exercise-results-region
# The papers' number is lower for NACL than for cross-entropy, and the error over all pixels is higher. Both are right.
# Which pixels make the difference?
# ```
#
# ```{solution} exercise-results-region
# :class: dropdown
# Those whose true label is background, most of an image. There the network is right nearly always; NACL keeps its
# confidence at $1 - \lambda / K$ all the same, and each such pixel adds $\lambda / K$ to the error over all pixels. The
# papers' region leaves every one of them out.
# ```
#
# **Take-away.** Ask of a calibrated network: better than what, where, and at what price? Here the answers differ from
# region to region, and a temperature is the rival to beat.

# %% tags=["hide-cell"]
assert all(len(table) for table in tables.values())
for table in tables.values():
    assert (
        table.groupby(["method", "seed"])["case"].nunique().nunique() == 1
    )
    assert table["dice"].between(0, 1).all()
assert (theory["mean confidence"] <= theory["ceiling"] + 0.01).all()
