"""Tables of pages: the right numbers in the right place, and a mark on what is no difference."""

import numpy as np
import pandas as pd
import pytest

from nacl.ranks import holm
from nacl.statistics import mean_interval, paired_difference, sign_flip_test
from nacl.tables import ablation_points, compare, scores_of, typeset, with_confidence

METHODS = ("ce", "nacl", "svls")
PATIENTS, SEEDS = 12, 3


def results(*, seed=0, gains=(0.0, 0.1, 0.001), missing=()):
    """Two cases a patient, `score` = patient + seed + case + gain of the method + noise, in a shuffled order."""
    rng = np.random.default_rng(seed)
    of_patient, of_seed = rng.normal(0.5, 0.1, PATIENTS), rng.normal(0, 0.01, (len(METHODS), SEEDS))
    rows = []
    for m, method in enumerate(METHODS):
        for s in range(SEEDS):
            for p in range(PATIENTS):
                for time in ("ED", "ES"):
                    score = of_patient[p] + of_seed[m, s] + gains[m] + 0.02 * rng.standard_normal()
                    score = np.nan if (method, p) in missing else score
                    rows.append(
                        {"method": method, "seed": s, "patient": f"p{p}", "case": f"p{p}_{time}", "score": score}
                    )
    return pd.DataFrame(rows).sample(frac=1, random_state=seed).sort_values("method", kind="stable")


def by_loop(table, method):
    scores = np.full((SEEDS, PATIENTS), np.nan)
    patients = list(dict.fromkeys(table["patient"]))
    for s in range(SEEDS):
        for j, patient in enumerate(patients):
            rows = table[(table["method"] == method) & (table["seed"] == s) & (table["patient"] == patient)]
            scores[s, j] = np.mean([x for x in rows["score"] if not np.isnan(x)] or [np.nan])
    return scores


def test_scores_are_means_over_cases_with_patients_in_one_order():
    table = results()
    found = scores_of(table, "score")
    assert list(found) == list(METHODS)
    for method in METHODS:
        np.testing.assert_allclose(found[method], by_loop(table, method), rtol=0, atol=1e-14)


def test_every_number_is_that_of_the_statistics():
    table = results()
    found = compare(table, ["score"], baseline="ce").set_index("method")
    scores = {method: by_loop(table, method) for method in METHODS}
    raw = [sign_flip_test(scores[m].mean(axis=0) - scores["ce"].mean(axis=0)) for m in ("nacl", "svls")]
    for method, corrected in zip(("nacl", "svls"), holm(raw), strict=True):
        own, versus = mean_interval(scores[method]), paired_difference(scores[method], scores["ce"])
        row = found.loc[method]
        assert list(row[["mean", "low", "high"]]) == pytest.approx([own.mean, own.low, own.high], abs=1e-12)
        shown = list(row[["difference", "difference_low", "difference_high"]])
        assert shown == pytest.approx([versus.mean, versus.low, versus.high], abs=1e-12)
        assert row["p_value"] == pytest.approx(corrected, abs=1e-12)
    assert found["significant"].to_dict() == {"ce": False, "nacl": True, "svls": False}
    assert found.loc["ce", ["difference", "p_value"]].isna().all()
    assert set(found["patients"]) == {PATIENTS}
    assert set(found["seeds"]) == {SEEDS}


def test_the_p_values_are_corrected_within_a_metric():
    table = results().assign(other=lambda t: t["score"])
    both, one = compare(table, ["score", "other"]), compare(table, ["score"])
    pd.testing.assert_frame_equal(both[both["metric"] == "score"], one)
    assert list(both["metric"]) == ["score"] * 3 + ["other"] * 3


def test_seeds_whose_luck_is_larger_than_the_gain_forbid_a_claim():
    table = results(gains=(0.0, 0.0, 0.0))
    luck = {0: -0.03, 1: 0.08, 2: 0.04}
    table.loc[table["method"] == "nacl", "score"] += table["seed"].map(luck)
    row = compare(table, ["score"]).set_index("method").loc["nacl"]
    assert row["p_value"] < 0.05, "these networks differ"
    assert row["difference_low"] < 0 < row["difference_high"], "the next ones may not"
    assert not row["significant"]


def test_a_patient_without_a_score_is_left_out_of_its_pairs_alone():
    table = results(missing={("nacl", 3)})
    found = compare(table, ["score"]).set_index("method")
    assert found["patients"].to_dict() == {"ce": 12, "nacl": 11, "svls": 12}
    scores = {method: np.delete(by_loop(table, method), list(dict.fromkeys(table["patient"])).index("p3"), axis=1)
              for method in METHODS}  # fmt: skip
    assert found.loc["nacl", "difference"] == pytest.approx((scores["nacl"] - scores["ce"]).mean(), abs=1e-12)


@pytest.mark.parametrize("patients", [0, 1])
def test_too_few_patients_give_no_interval_and_no_claim(patients):
    missing = {(method, p) for method in METHODS for p in range(patients, PATIENTS)}
    found = compare(results(missing=missing), ["score"])
    assert found[["low", "high", "difference", "p_value"]].isna().all(axis=None)
    assert found["mean"].isna().all() == (patients == 0)
    assert not found["significant"].any()


def test_the_page_marks_what_is_no_difference():
    page = typeset(compare(results(), ["score"]), digits=2)
    assert list(page.index) == list(METHODS)
    cell = compare(results(), ["score"]).iloc[0]
    assert page.loc["ce", "score"] == f"{cell['mean']:.2f} [{cell['low']:.2f}, {cell['high']:.2f}]"
    assert page.loc["svls", "score"].endswith(" °")
    assert not page.loc["nacl", "score"].endswith("°")


@pytest.mark.parametrize("patients", [1, 2])
def test_the_page_tells_what_was_not_compared_from_what_differs(patients):
    table = results(missing={("svls", p) for p in range(patients, PATIENTS)})
    page = typeset(compare(table, ["score"]))["score"]
    assert page["svls"].endswith(" †" if patients < 2 else " °")
    assert page[["ce", "nacl"]].str.endswith("]").all(), "the baseline, and what differs from it, have no mark"


def test_columns_that_are_missing_are_named():
    with pytest.raises(ValueError, match=r"`metric`.*'scores'"):
        compare(results(), ["scores"])
    with pytest.raises(ValueError, match=r"`baseline`.*'cee'"):
        compare(results(), ["score"], baseline="cee")
    with pytest.raises(ValueError, match=r"`table column`.*'patient'"):
        scores_of(results().drop(columns="patient"), "score")


def test_two_runs_of_one_method_and_seed_are_refused():
    table = results()
    with pytest.raises(ValueError, match="one row a method, seed and case"):
        scores_of(pd.concat([table, table.iloc[:1]]), "score")


def test_a_method_without_scores_has_a_dash():
    table = results(missing={("svls", p) for p in range(PATIENTS)})
    shown = typeset(compare(table, ["score"], baseline="ce"))["score"]
    assert [text == "-" for text in shown] == [False, False, True]


# Ablations


def test_a_point_has_the_interval_of_its_runs_and_the_range_of_its_seeds():
    table = results().assign(weight=lambda t: t["method"].map({"nacl": 0.1, "svls": 0.3}), method=lambda t: "nacl")
    found = ablation_points(table, "weight", ["score"]).set_index("weight")
    assert sorted(found.index) == [0.1, 0.3]  # the rows of ce have none
    for name, weight in (("nacl", 0.1), ("svls", 0.3)):
        scores, row = by_loop(results(), name), found.loc[weight]
        own = mean_interval(scores)
        assert list(row[["mean", "low", "high"]]) == pytest.approx([own.mean, own.low, own.high], abs=1e-12)
        by_seed = [np.mean(of_seed) for of_seed in scores]
        assert list(row[["lowest", "highest"]]) == pytest.approx([min(by_seed), max(by_seed)], abs=1e-12)
        assert (row["patients"], row["seeds"]) == (PATIENTS, SEEDS)


def test_a_point_without_scores_is_there_and_empty():
    table = results(missing={("nacl", p) for p in range(PATIENTS)}).assign(prior="mean")
    found = ablation_points(table, "prior", ["score"]).set_index("method")
    assert found.loc["nacl", ["mean", "low", "high", "lowest", "highest"]].isna().all()
    assert found.loc["ce", "patients"] == PATIENTS
    with pytest.raises(ValueError, match=r"`field` to be one of .* got 'pryor'. Did you mean 'prior'"):
        ablation_points(table, "pryor", ["score"])


def test_confidence_is_that_of_the_region_case_by_case_and_run_by_run():
    rows = [("a", "none"), ("a", "temperature"), ("b", "none")]
    table = pd.DataFrame([{"identity": i, "case": c, "post_hoc": p} for i in ("1", "2") for c, p in rows])
    rng, bins, wanted = np.random.default_rng(0), {}, {}
    for i in ("1", "2"):
        of_run = []
        for case, post_hoc in rows:
            for region in ("all", "true_foreground"):
                counts = rng.integers(1, 9, 3) * (case == "a" or region == "all")
                sums = counts * rng.uniform(0.3, 1, 3)
                of_run += [
                    {"case": case, "post_hoc": post_hoc, "region": region, "count": n, "confidence_sum": s}
                    for n, s in zip(counts, sums, strict=True)
                ]
                wanted[i, case, post_hoc, region] = sums.sum() / counts.sum() if counts.sum() else np.nan
        bins[i] = pd.DataFrame(of_run)
    for region in ("all", "true_foreground"):
        found = with_confidence(table, bins, region=region)
        assert found[["identity", "case", "post_hoc"]].equals(table)
        keys = zip(table["identity"], table["case"], table["post_hoc"], strict=True)
        np.testing.assert_allclose(found["confidence"], [wanted[*key, region] for key in keys], rtol=1e-12)
