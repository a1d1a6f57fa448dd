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
# # What does each knob do?
#
# **You need** {doc}`12_penalty`, {doc}`13_window` and {doc}`16_results`. **Run time**: seconds; nothing is trained here.
#
# The chapters {doc}`12_penalty` to {doc}`15_patients` show each ablation with networks of seconds, as a demonstration.
# Here are the same grids, and one of the distance, with the protocol of {doc}`16_results`, from the tables that it reads
# too: one knob is turned, all else stays. Which knobs matter, and which values would validation patients have chosen?

# %% tags=["parameters"]
archive = "results/small"  # what `nacl table --archive results/small` wrote
profile = "small"
seeds = 3  # of those that are there

# %% tags=["hide-input"]
import numpy as np
import pandas as pd
from IPython.display import Markdown, display
from nacl import plots
from nacl.archive import read_archive
from nacl.data.load import PROJECT_ROOT
from nacl.parameters import check_parameters
from nacl.tables import ablation_points, compare, typeset
from nacl.theory import confidence_ceiling

check_parameters(globals())

# %% [markdown]
# **Predict.** Four knobs: the weight of NACL's penalty, the margin of MbLS, the width of NACL's window, the form of its
# prior. Between the values of a grid, two of them move the calibration error over all pixels by more than 0.01, and two by
# less. Which two?

# %%
knobs = {
    "penalty-weight": "penalty_weight",
    "margin": "margin",
    "kernel-size": "kernel_size",
    "prior": "prior",
    "penalty": "distance",
    "model": "model",
    "share": "share",
}
stored = read_archive(PROJECT_ROOT / archive)
options = {"profile": profile, "seeds": seeds}
found = {
    grid: stored.of_grid(grid, **options) for grid in ["main-table", *knobs]
}
tables = {
    grid: {name: there.table() for name, there in sets.items()}
    for grid, sets in found.items()
}
metrics = {
    name: plots.METRICS[name]
    for name in ("dice", "ece_all", "ece_predicted_border", "nll")
}
classes = 4

# %% tags=["hide-input"]
rows = {}
for grid in knobs:
    rows[grid] = dict.fromkeys(tables["main-table"], "-")
    for name, table in tables[grid].items():
        of_grid = table.drop_duplicates("identity")
        many = of_grid["seed"].nunique()
        rows[grid][name] = (
            f"{len(of_grid)} runs, {many} seed{'s'[: many > 1]}"
        )
pd.DataFrame(rows).T

# %% [markdown]
# A dash says that no seed of the grid is in the archive yet; its section below is empty. Where there is one seed, an
# interval speaks of patients only; with more, it knows of seeds, and a band joins the lowest and the highest of them. The
# grey bands are cross-entropy of the same seeds, as trained and with a temperature.

# %%
networks, rivals = {}, {}
for grid in knobs:
    for name, table in tables[grid].items():
        plain = table.query("post_hoc == 'none'")
        plain = plain.assign(method=plain["loss"])
        if grid == "penalty":
            of = plain["softmax"].map({True: "softmax", False: "logits"})
            plain["distance"] = (
                plain["penalty"].str.capitalize() + " of " + of
            )
        networks[grid, name] = plain
        main = tables["main-table"][name]
        same = main["seed"].isin(plain["seed"])
        ce = main["method"].isin(["ce", "ce + temperature"])
        rivals[grid, name] = main[same & ce]

# %%
points, levels = {grid: {} for grid in knobs}, {}
for (grid, name), table in networks.items():
    points[grid][name] = ablation_points(table, knobs[grid], list(metrics))
    levels[grid, name] = compare(rivals[grid, name], list(metrics))

# %% [markdown]
# ## The weight of NACL's penalty
#
# Theory: a pixel that is certain ends at $1 - \lambda / K$ {eq}`nacl-ceiling`, so the error over all pixels should follow
# $\lambda / K$ (dotted), and round the borders the best weight may be another one.

# %%
weights = np.geomspace(0.01, 3, 40)
ceiling = np.array(
    [confidence_ceiling("nacl", classes, penalty_weight=w) for w in weights]
)
theory = {"ece_all": {"nacl": (weights, 1 - ceiling)}}
for name, of_set in points["penalty-weight"].items():
    picture = plots.ablation_curves(
        of_set,
        "penalty_weight",
        metrics,
        x="penalty weight λ",
        baseline=levels["penalty-weight", name],
        theory=theory,
        log_x=True,
        log_y=["ece_all"],
    )
    display(Markdown(f"**{name}**"), picture)

# %% [markdown]
# ## The margin of MbLS
#
# Theory: a margin that the logits never reach is none. Only the smallest should make a network timid (dotted).

# %%
margins = np.linspace(3, 15, 40)
ceiling = np.array(
    [confidence_ceiling("mbls", classes, margin=m) for m in margins]
)
theory = {"ece_all": {"mbls": (margins, 1 - ceiling)}}
for name, of_set in points["margin"].items():
    picture = plots.ablation_curves(
        of_set,
        "margin",
        metrics,
        x="margin m",
        baseline=levels["margin", name],
        theory=theory,
    )
    display(Markdown(f"**{name}**"), picture)

# %% [markdown]
# ## The width of the window
#
# Theory: with $\sigma = 1$ most of the weight stays near the pixel, so that SVLS should change a little from 3 to 5 pixels and
# then no more ({doc}`13_window`), and NACL's ceiling knows no window.

# %%
for name, of_set in points["kernel-size"].items():
    picture = plots.ablation_curves(
        of_set,
        "kernel_size",
        metrics,
        x="width, pixels",
        baseline=levels["kernel-size", name],
    )
    display(Markdown(f"**{name}**"), picture)

# %% [markdown]
# ## The form of the prior
#
# Theory: with L1 on the logits the ceiling is the same for each.

# %%
for name, of_set in points["prior"].items():
    level = levels["prior", name]
    picture = plots.ablation_rows(of_set, "prior", metrics, baseline=level)
    display(Markdown(f"**{name}**"), picture)

# %% [markdown]
# ## The distance, and what it is taken of
#
# Theory: at one weight L2 holds the logits much tighter than L1, and a penalty on the softmax hardly at all
# ({doc}`07_nacl`).

# %%
for name, of_set in points["penalty"].items():
    level = levels["penalty", name]
    picture = plots.ablation_rows(
        of_set, "distance", metrics, baseline=level
    )
    display(Markdown(f"**{name}**"), picture)

# %% [markdown]
# ## The network
#
# A network that did not learn has no confidence worth the name: look at Dice first.

# %%
for name, of_set in points["model"].items():
    level = levels["model", name]
    picture = plots.ablation_rows(of_set, "model", metrics, baseline=level)
    display(Markdown(f"**{name}**"), picture)

# %% [markdown]
# ## Fewer patients
#
# For as many epochs, so that fewer patients are fewer steps too ({doc}`15_patients`).

# %%
for name, of_set in points["share"].items():
    picture = plots.ablation_curves(
        of_set,
        "share",
        metrics,
        x="share of the training patients",
        baseline=levels["share", name],
        log_x=True,
    )
    display(Markdown(f"**{name}**"), picture)

# %% [markdown]
# ## How far each knob moves a network
#
# The largest less the smallest mean over the values of a knob. The first row is what chance does: the largest less the
# smallest *seed* of cross-entropy.

# %%
rows = {}
for name, table in tables["main-table"].items():
    of_seed = table[table["method"] == "ce"].groupby("seed")[list(metrics)]
    rows[name, "CE, its seeds"] = of_seed.mean().agg(np.ptp)
for (grid, name), table in networks.items():
    for loss, of_loss in table.groupby("loss"):
        means = of_loss.groupby(knobs[grid])[list(metrics)].mean()
        shown = f"{plots.LOSS_NAMES[loss]}: {grid}"
        rows[name, shown] = means.agg(np.ptp)
moved = (
    pd.DataFrame(rows)
    .T.rename_axis(["data", "knob"])
    .sort_index(level=0, sort_remaining=False)
)
moved.rename(columns=plots.METRICS).style.format("{:.4f}")

# %% [markdown]
# ## Chosen on validation patients
#
# Each loss with the value of its knob that has the lowest negative log-likelihood on the *validation* patients of the
# same seeds, and what that gives on the test patients. NACL had six weights to choose from, MbLS five margins, SVLS
# four widths; cross-entropy none, and a temperature. The degree sign marks what does not differ significantly from
# cross-entropy with a temperature.

# %%
choices = {
    "penalty-weight": "nacl",
    "margin": "mbls",
    "kernel-size": "svls",
}
chosen = {}
for name in tables["main-table"]:
    grids = [grid for grid in choices if name in tables[grid]]
    parts = [rivals[grid, name] for grid in grids[:1]]
    for grid in grids:
        runs = found[grid][name].runs
        runs = runs[runs["loss"] == choices[grid]]
        value = runs[knobs[grid]].astype(float)
        nll = runs["valid_nll"].astype(float).groupby(value).mean()
        table = networks[grid, name].query(f"loss == '{choices[grid]}'")
        best = table[table[knobs[grid]].astype(float) == nll.idxmin()]
        label = f"{choices[grid]} ({knobs[grid]} {nll.idxmin():g})"
        parts.append(best.assign(method=label))
    if grids:
        rows = compare(
            pd.concat(parts), list(metrics), baseline="ce + temperature"
        )
        chosen[name] = rows
        page = typeset(rows, digits=4).rename(index=plots.label_of)
        display(Markdown(f"**{name}**"), page.rename(columns=plots.METRICS))

# %% tags=["hide-input"]
lines = []
for name, rows in chosen.items():
    if ("penalty-weight", name) not in networks:
        continue
    table = networks["penalty-weight", name]
    weight = table.groupby("penalty_weight")[list(metrics)].mean()
    excess = weight["ece_all"] - weight.index / classes
    better = rows[
        (rows["metric"] == "nll")
        & rows["significant"]
        & (rows["difference"] < 0)
    ]["method"]
    lines.append(
        f"On **{name}**, from weight {weight.index.min():g} to {weight.index.max():g} the error over all pixels goes from "
        f"{weight['ece_all'].iloc[0]:.4f} to {weight['ece_all'].iloc[-1]:.4f}; up to weight 0.3 it lies "
        f"{excess[:0.3].min():+.4f} to {excess[:0.3].max():+.4f} from λ/K. Round the predicted border the lowest error is at "
        f"{weight['ece_predicted_border'].idxmin():g} ({weight['ece_predicted_border'].min():.4f}), the lowest likelihood loss at "
        f"{weight['nll'].idxmin():g} ({weight['nll'].min():.4f}). Chosen on validation patients, "
        f"{', '.join(map(plots.label_of, better)) or 'none of the losses'} had a significantly lower likelihood loss than cross-entropy with a "
        "temperature."
    )
Markdown("**What we saw.** " + "\n\n".join(lines))

# %% [markdown]
# **Where it fails.** One knob at a time: two that matter only together are not seen. The grids are those of the papers,
# and a loss whose best value lies beyond its grid is judged by the grid's end.
#
# **What would change the conclusion.** More seeds, where there is one; a longer training on fewer patients (the profile
# `memorised`), whose networks are more over-confident.
#
# ```{exercise}
# :label: exercise-ablations-follow
# Read off the curve of the weight: at $\lambda = 1$ and $K = 4$, how much of the error over all pixels is the ceiling's, and
# how much the network's own?
# ```
#
# ```{solution} exercise-ablations-follow
# :class: dropdown
# The ceiling's part is $\lambda / K = 0.25$, the dotted line; nearly all of the error. What is left between the line and
# the mark is what the network does not know and says too loudly, or too timidly.
# ```
#
# **Take-away.** Turn the knob that theory says can matter, choose it on patients who are not the judges, and report
# what chance alone would have moved.
#
# ## Where these numbers come from
#
# To do a grid again: `nacl sweep penalty-weight --profile small --seeds 3`, with `--data` for ACDC; so for the others.

# %% tags=["hide-output"]
made = pd.concat(
    there.runs for sets in found.values() for there in sets.values()
).drop_duplicates("identity")
made = made.assign(commit=made["commit"].str[:12])
fields = ["loss", *knobs.values(), "penalty", "softmax"]
fields.remove("distance")
told = ["dataset", "seed", "identity", "commit", "device_name", "finished"]
made[[*fields, *told]].style.hide(axis="index")

# %% tags=["hide-cell"]
assert chosen, "no ablation is in the archive"
assert len(made) == made["identity"].nunique()
for name, of_set in points["penalty-weight"].items():
    assert len(of_set) == len(metrics) * 6, name
    error = of_set[of_set["metric"] == "ece_all"]
    error = error.set_index("penalty_weight")["mean"]
    assert error[1.0] * 0.9 < 1 / classes, name  # of the exercise
for rows in chosen.values():
    assert rows["mean"].notna().all()
for name in chosen:  # what the prediction asks for
    of_knob = moved.loc[name, "ece_all"]
    if not all((grid, name) in networks for grid in list(knobs)[:4]):
        continue
    assert (
        min(of_knob["NACL: penalty-weight"], of_knob["MbLS: margin"]) > 0.01
    )
    assert max(of_knob["NACL: kernel-size"], of_knob["NACL: prior"]) < 0.01
