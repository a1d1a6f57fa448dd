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
# # Is the best method really better?
#
# **You need** the mean, the standard deviation, and what a p value is. **Run time**: under half a minute.
#
# **Claim.** With twenty patients, a few seeds and several methods, something always looks better. Three habits keep the
# false claims at the rate you promise: compare *patient by patient*, let the *seeds* count, and pay for *every
# comparison* you made. We show it on invented tables of scores, where we know what is true and can count the false
# claims.

# %% tags=["parameters"]
patients = 20
seeds = 3
methods = 7  # 3 to 7
studies = 200
resamples = 2000
seed = 0

# %% tags=["hide-input"]
import numpy as np
import pandas as pd
from IPython.display import Markdown
from nacl import plots
from nacl.parameters import check_parameters
from nacl.ranks import (
    cliques,
    friedman_ranks,
    holm,
    nemenyi_critical_difference,
)
from nacl.statistics import (
    bootstrap_means,
    non_inferiority,
    paired_difference,
    sign_flip_test,
)
from scipy.stats import ttest_1samp

check_parameters(globals())

# %% [markdown]
# **Predict.** Seven methods are equally good. In a study of 20 patients you test six of them against the seventh, each
# at the 5 % level. In how many of 100 such studies does at least one "improve significantly"? And if you compare the
# best of the seven with the worst? Write down two numbers.
#
# ## A table of scores, and what it is made of
#
# Method $m$, trained with seed $s$, gets on patient $p$ the score
#
# ```{math}
# :label: score-model
# x_{msp} = \mu_m + \underbrace{a_p}_{\text{patient}} + \underbrace{b_{ms}}_{\text{luck of the seed}}
#   + \underbrace{c_{mp}}_{\text{taste}} + \underbrace{e_{msp}}_{\text{the rest}} .
# ```
#
# An easy patient is easy for all ($a_p$, by far the largest part, here of standard deviation 0.06). A lucky training is
# lucky on all patients ($b$, 0.004). Some methods suit some patients ($c$, 0.015), and there is a rest ($e$, 0.01).
# First two methods with a true difference of 0.03.

# %%
rng = np.random.default_rng(seed)
easy = 0.8 + 0.06 * rng.normal(size=patients)
a, b = (
    mu
    + easy
    + 0.004 * rng.normal(size=(seeds, 1))
    + 0.015 * rng.normal(size=patients)
    + 0.01 * rng.normal(size=(seeds, patients))
    for mu in (0.03, 0.0)
)
pd.DataFrame({"A": a.mean(axis=0), "B": b.mean(axis=0)}).describe().loc[
    ["mean", "std"]
].style.format("{:.3f}")

# %% [markdown]
# The patients' spread swamps the difference. But the patients are the same for both: in $x_{Asp} - x_{Bsp}$ the part
# $a_p$ is gone. With the variance of the mean difference split into what patients and what seeds bring, $V_P$ and
# $V_S$, the interval is
#
# ```{math}
# :label: paired-interval
# \bar d \;\pm\; \sqrt{\, t_{P-1}^2 \, V_P + t_{S-1}^2 \, V_S \,} ,
# ```
#
# which `paired_difference` computes: each part with the $t$ quantile of its own number of degrees of freedom, $P - 1$ for
# the patients and $S - 1$ for the seeds (and a small correction for skewness). With three seeds the second quantile is
# 4.3: three trainings say little about luck, and the formula knows it. What if we break the pairs, by shuffling the
# patients of B? And with one seed, where $V_S$ cannot be seen?

# %%
kinds = {
    f"{seeds} seeds, paired": paired_difference(a, b),
    f"{seeds} seeds, pairs broken": paired_difference(
        a, rng.permutation(b, axis=1)
    ),
    "1 seed, paired": paired_difference(a[0], b[0]),
}
shown = pd.DataFrame(
    [
        {
            "name": name,
            "mean": one.mean,
            "low": one.low,
            "high": one.high,
            "significant": one.low > 0 or one.high < 0,
        }
        for name, one in kinds.items()
    ]
)
plots.intervals(shown, "A - B; above 0: A is better")

# %% [markdown]
# Mistrust the last one, however narrow it may be: it speaks of these two networks, and not of the two methods. How much
# that matters can be counted. Make many studies in which *nothing* differs, and test in five ways. Each should claim a
# difference in 5 of 100:
#
# - a *t test* on all seeds and patients as if they were so many independent numbers;
# - the *sign-flip test*: average each patient's difference over the seeds, flip the signs of the patients' differences
#   at random, and ask how often the mean is as far from 0 as the one that was seen; with one seed, and
# - with all seeds;
# - the *bootstrap* {cite}`owen2007`: draw patients and seeds with replacement, and look whether 95 % of the means
#   exclude 0;
# - the interval {eq}`paired-interval`.

# %%
shape = (studies, methods, seeds, patients)
null = (
    0.8
    + 0.06 * rng.normal(size=(studies, 1, 1, patients))
    + 0.015 * rng.normal(size=(studies, methods, 1, patients))
    + 0.01 * rng.normal(size=shape)
)
luck = 0.004 * rng.normal(size=(studies, methods, seeds, 1))
rows = []
for study in null + luck:
    d = study[0] - study[1]
    means = bootstrap_means(d, resamples=resamples)
    low, high = np.quantile(means, [0.025, 0.975])
    interval = paired_difference(study[0], study[1])
    rows.append(
        {
            "t test, all as independent": ttest_1samp(d.ravel(), 0).pvalue
            < 0.05,
            "sign flips, 1 seed": sign_flip_test(d[0], resamples=resamples)
            < 0.05,
            f"sign flips, {seeds} seeds": sign_flip_test(
                d, resamples=resamples
            )
            < 0.05,
            "bootstrap of patients and seeds": low > 0 or high < 0,
            "interval": interval.low > 0 or interval.high < 0,
        }
    )
false_claims = pd.DataFrame(rows).mean()
false_claims.to_frame("false claims").style.format("{:.1%}")

# %% tags=["hide-input"]
paired, broken, single = (shown.high - shown.low) / 2
counting_error = np.sqrt(0.05 * 0.95 / studies)
Markdown(
    f"**What we saw.** Pairing cut the half-width from {broken:.3f} to {paired:.3f}. Where nothing differs, the t test on "
    f"all numbers claimed something in {false_claims.iloc[0]:.1%} of {studies} studies, a single seed in {false_claims.iloc[1]:.1%}, "
    f"{seeds} seeds without their own variance in {false_claims.iloc[2]:.1%}, the bootstrap in {false_claims.iloc[3]:.1%}, the interval in "
    f"{false_claims.iloc[4]:.1%} (5 % were promised; the error of counting is {counting_error:.1%}). The sign-flip test is not "
    "wrong: its question is whether *these networks* differ, and they do."
)

# %% [markdown]
# ## Seven methods, nothing to find
#
# From here on let the seeds' luck be averaged out, so that only the number of comparisons can deceive. Each test at 5 %
# is a ticket; six tickets win more often than one. *Holm's* steps {cite}`holm1979` pay for them: sort the $m$ p values,
# and multiply the smallest by $m$, the next by $m - 1$, and so on, never letting one fall below the one before,
#
# ```{math}
# :label: holm
# p^\text{Holm}_{(i)} = \max_{j \le i} \; \min\!\big( 1, \; (m - j + 1)\, p_{(j)} \big) .
# ```
#
# Then the chance of *any* false claim stays below 5 %, whatever the tests have to do with one another. If not a
# baseline but all pairs matter, rank the methods on each patient, 1 the best. Friedman's test asks whether the mean
# ranks differ at all, and Nemenyi's critical difference {cite}`demsar2006`, by how much two of them must differ,
#
# ```{math}
# :label: nemenyi
# \text{CD} = q \sqrt{\frac{k (k + 1)}{6 P}} , \qquad k \text{ methods}, \; P \text{ patients},
# ```
#
# with $q$ the quantile for the largest of all differences.

# %%
critical = nemenyi_critical_difference(methods, patients)
rows, tables = [], []
for study in null.mean(axis=2):
    p = [
        sign_flip_test(x - study[0], resamples=resamples) for x in study[1:]
    ]
    order = study.mean(axis=1).argsort()
    picked = study[order[-1]] - study[order[0]]
    ranks = friedman_ranks(study)
    rows.append(
        {
            "six against one, uncorrected": min(p) < 0.05,
            "six against one, Holm": holm(p).min() < 0.05,
            "best against worst, uncorrected": sign_flip_test(
                picked, resamples=resamples
            )
            < 0.05,
            "Friedman": ranks.p_value < 0.05,
            "Nemenyi, any pair": np.ptp(ranks.ranks) > critical,
        }
    )
    tables.append((study, p))
family = pd.DataFrame(rows)
family.mean().to_frame("false claims").style.format("{:.1%}")

# %% [markdown]
# One of those studies, the first in which an uncorrected test would have been published:

# %%
study, p = tables[family["six against one, uncorrected"].argmax()]
names = [f"method {k}" for k in "ABCDEFG"]
baseline = [paired_difference(x, study[0]) for x in study[1:]]
against = pd.DataFrame(baseline)[["mean", "low", "high"]]
against.insert(0, "name", names[1:methods])
plots.intervals(
    against.assign(significant=holm(p) < 0.05),
    "difference from method A; above 0: better",
)

# %% tags=["hide-input"]
rate = family.mean()
tempting = against.assign(p=p, holm=holm(p)).sort_values("p").iloc[0]
Markdown(
    f"**What we saw.** Nothing differs, and yet one of six tests succeeds in {rate.iloc[0]:.1%} of the studies, and the best beats the worst "
    f"in {rate.iloc[2]:.1%}. With Holm it is {rate.iloc[1]:.1%}, with Friedman {rate.iloc[3]:.1%}, with Nemenyi {rate.iloc[4]:.1%}. In "
    f"the study shown, {tempting['name']} has p = {tempting.p:.3f}, its interval excludes 0; after Holm, p = {tempting.holm:.2f}."
)

# %% [markdown]
# ## Seven methods, something to find
#
# Now a calibration error (small is good) with true means from 0.050 (A) down to 0.029 (G), on the same number of
# patients.

# %%
truth = np.array([0.050, 0.049, 0.048, 0.040, 0.038, 0.030, 0.029])
errors = truth[:methods, None] + 0.01 * rng.normal(size=patients)
errors = errors + 0.008 * rng.normal(size=(methods, patients))
ranks = friedman_ranks(errors, larger_is_better=False)
groups = cliques(ranks.ranks, critical)
plots.critical_difference_diagram(
    dict(zip(names, ranks.ranks, strict=False)),
    critical,
    [[names[i] for i in group] for group in groups],
)

# %% [markdown]
# A bar joins methods that this study cannot tell apart. It does *not* say that they are equal: all seven differ in
# truth. "No significant difference" is no evidence of none. A better calibrated method must still show that it segments
# as well, and for this there is a test that puts the burden the right way round. *Non-inferiority* {cite}`piaggio2012`:
# choose, before looking, a margin of Dice that does not matter, here 0.01. The claim is allowed only if the lower end
# of a one-sided 95 % interval of the difference lies above minus the margin. Count again, over many studies of Dice
# against a baseline:

# %%
rates = {}
for loss, few in ((0.0, 6), (0.0, 120), (0.02, 6), (0.02, 120)):
    verdicts = []
    for _ in range(studies):
        difference = -loss + 0.025 * rng.normal(size=few)
        baseline = 0.8 + 0.06 * rng.normal(size=few)
        trial = non_inferiority(
            baseline + difference, baseline, margin=0.01
        )
        p_value = sign_flip_test(difference, resamples=resamples)
        verdicts.append((p_value >= 0.05, trial.shown))
    rates[loss, few] = np.mean(verdicts, axis=0)
columns = ["no significant difference", "non-inferiority shown"]
verdicts = pd.DataFrame(rates, index=columns).T
verdicts.rename_axis(["true loss", "patients"]).style.format(
    "{:.1%}"
).format_index("{:g}")

# %% tags=["hide-input"]
told = (abs(ranks.ranks[:, None] - ranks.ranks) > critical).sum() // 2
pairs = methods * (methods - 1) // 2
same, shown_in = (verdicts[column] for column in columns)
Markdown(
    f"**What we saw.** Friedman's p is {ranks.p_value:.1g}; with a critical difference of {critical:.2f} ranks, {told} of "
    f"the {pairs} pairs can be told apart, though all of them differ. With six patients a loss of 0.02, twice the margin, gives no "
    f'significant difference in {same[0.02, 6]:.1%} of the studies: whoever reads that as "as good" is wrong as often. '
    f"Non-inferiority is then shown in {shown_in[0.02, 6]:.1%}. Where nothing is lost it is shown in {shown_in[0.0, 6]:.1%} with six patients and in "
    f"{shown_in[0.0, 120]:.1%} with 120: the claim has to be paid for with patients."
)

# %% [markdown]
# **Where it fails.** No test knows what was tried and not reported: the seeds that were thrown away, the eighth method,
# the margin chosen after the fact. Patients of one hospital stand for that hospital. And here all parts were normal and
# of known size; real scores have outliers, for which ranks are kinder than means.
#
# ```{exercise}
# :label: exercise-comparing-four
# You have four patients, and method A is better on each. What is the smallest two-sided p value that a sign-flip test
# can give? What follows?
# ```
#
# ```{solution} exercise-comparing-four
# :class: dropdown
# There are $2^4 = 16$ patterns of signs; the one that was seen and its mirror image are the most extreme: $p = 2/16 =
# 0.125$. With four patients nothing can be significant at 5 %; six are needed (2/64), and more if there are several
# comparisons.
# ```
#
# ```{exercise}
# :label: exercise-comparing-holm
# Three comparisons gave p = 0.04, 0.01 and 0.02. Adjust them by Holm. Multiply each by three (Bonferroni) instead.
# ```
#
# ```{solution} exercise-comparing-holm
# :class: dropdown
# Sorted: $3 \cdot 0.01 = 0.03$, $2 \cdot 0.02 = 0.04$, $1 \cdot 0.04 = 0.04$. All three stand at 5 %. With Bonferroni,
# 0.03, 0.06 and 0.12: only one. Both keep the promise, and Holm never claims less.
# ```
#
# **Take-away.** Pair by patient, let seeds count, correct for what you compared, and state the margin first. The claim
# that is left is smaller, and it is yours.

# %% tags=["hide-cell"]
assert broken > 1.2 * paired
assert false_claims.iloc[0] > 0.15
assert false_claims.iloc[1] > 0.08
assert false_claims["interval"] < 0.05 + 3 * counting_error
assert rate["six against one, uncorrected"] > 0.10
assert rate["best against worst, uncorrected"] > 0.25
assert rate["six against one, Holm"] < 0.05 + 3 * counting_error
assert rate["Friedman"] < 0.05 + 3 * counting_error
assert rate["Nemenyi, any pair"] < 0.05 + 3 * counting_error
assert tempting.p < 0.05
assert tempting.holm > tempting.p
assert 0 < told < pairs
assert ranks.p_value < 0.001
assert tempting.low > 0 or tempting.high < 0
assert same[0.02, 6] > 0.3
assert shown_in[0.02].max() < 0.05 + 3 * counting_error
assert shown_in[0.0, 120] > 0.9
assert shown_in[0.0, 120] > shown_in[0.0, 6]
assert sign_flip_test([1, 2, 1, 3]) == 0.125
assert np.allclose(holm([0.04, 0.01, 0.02]), [0.04, 0.03, 0.04])
