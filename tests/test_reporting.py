"""The report: its numbers, its runs on good and bad cases, and the command."""

import re

import numpy as np
import pandas as pd
import pytest
import torch
from test_reporting_cases import made_case, nifti

import nacl
from nacl.cli import main
from nacl.data.phantom import Parameters, generate
from nacl.metrics import (
    REGIONS,
    CalibrationError,
    brier_score,
    classwise_calibration_error,
    dice_score,
    expected_calibration_error,
    hausdorff_distance_95,
    negative_log_likelihood,
)
from nacl.reporting import ReportCase, report
from nacl.reporting.cases import checked_case
from nacl.reporting.summary import Summary, estimate, reliability, score_case
from nacl.reporting.temperature import cross_fit, sample_case
from nacl.scaling import TemperatureScaling
from nacl.statistics import mean_interval

OPTIONS = {"num_classes": None, "ignore_index": -100}


def posterior_cases(power=1.0, *, cases=6, size=40):
    """The phantom's true posterior raised to a power: 1 is calibrated, 2 is twice too sure, and T = 2 mends it."""
    found = generate(size, Parameters(cases={"train": cases, "valid": 0, "test": 0}, slices=3, ambiguity=(0.03, 0.05)))
    for case in found.cases:
        probs = case.posterior.astype(np.float64) ** power
        yield ReportCase(case.name, probs / probs.sum(axis=0), case.label, image=case.image[0])


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A report on six cases that are too sure, with its HTML."""
    found = report(posterior_cases(2.0), tmp_path_factory.mktemp("made") / "report.html")
    return found, found.path.read_text(encoding="utf-8")


def summary_of(cases, **options):
    summary = Summary()
    for case in cases:
        summary.add(score_case(checked_case(case, **OPTIONS), n_bins=15, ignore_index=-100, **options))
    return summary


def samples_of(cases, numbers=10**6):
    return [sample_case(checked_case(c, **OPTIONS), ignore_index=-100, seed=0, numbers=numbers) for c in cases]


# Numbers


def test_a_case_s_numbers_are_those_of_nacl_metrics(made):
    table = made[0].cases.set_index("case")
    for case in posterior_cases(2.0):
        probs, target = torch.from_numpy(case.probs)[None], torch.from_numpy(case.label).long()[None]
        row, predicted = table.loc[case.name], probs.argmax(dim=1)[0].numpy()
        for region in REGIONS:
            assert row[f"ece_{region}"] == pytest.approx(expected_calibration_error(probs, target, region=region))
            assert row[f"cece_{region}"] == pytest.approx(classwise_calibration_error(probs, target, region=region))
            worst = CalibrationError(region=region, error="maximum")
            worst.update(probs, target)
            assert row[f"mce_{region}"] == pytest.approx(worst.compute())
        assert row["nll"] == pytest.approx(negative_log_likelihood(probs, target))
        assert row["brier"] == pytest.approx(brier_score(probs, target))
        assert row["dice"] == pytest.approx(np.nanmean(dice_score(predicted, case.label, 4)))
        assert row["hd95"] == pytest.approx(np.nanmean(hausdorff_distance_95(predicted, case.label, 4)))
        gap = probs.amax(dim=1).mean().item() - (predicted == case.label).mean()
        spaced = ReportCase(case.name, case.probs, case.label, (3.0, 2.0, 1.0))
        found = score_case(checked_case(spaced, **OPTIONS), n_bins=15, ignore_index=-100).row
        hd95 = hausdorff_distance_95(predicted, case.label, 4, spacing=(3.0, 2.0, 1.0))
        assert (found["hd95"], found["unit"], row["unit"]) == (pytest.approx(np.nanmean(hd95)), "mm", "voxels")
        assert row["gap_all"] == pytest.approx(gap, abs=1e-9)


def test_the_page_shows_those_numbers_their_intervals_and_the_pooled_ones(made):
    found, html = made
    pooled = {region: CalibrationError(region=region) for region in REGIONS}
    for case in posterior_cases(2.0):
        for metric in pooled.values():
            metric.update(torch.from_numpy(case.probs)[None], torch.from_numpy(case.label).long()[None])
    for region, name in [("all", "all pixels"), ("predicted_border", "predicted border")]:
        expected = mean_interval(found.cases[f"ece_{region}"])
        cells = [f"{expected.mean:.4f}", f"{expected.low:.4f} to {expected.high:.4f}"]
        cells.append(f"{pooled[region].compute():.4f}")
        assert re.search(rf"ECE, {name}<small>.*?</th><td>{'</td><td>'.join(cells)}</td>", html)
    assert f"<td>{found.cases['nll'].mean():.4f}</td>" in html


def test_intervals_draw_patients_and_not_their_cases():
    cases = [
        ReportCase(str(i), *made_case(i), patient=patient) for i, patient in enumerate(["a", "a", "a", "b", "c", "c"])
    ]
    summary = summary_of(cases)
    nll = np.array([row["nll"] for row in summary.rows])
    by_patient = [nll[:3].mean(), nll[3], nll[4:].mean()]
    assert summary.estimate("nll")[:3] == pytest.approx(mean_interval(by_patient)[:3])
    assert (summary.unit, summary.patients) == ("patient", 3)
    assert np.isnan(estimate(np.array([0.5, np.nan]))[1:3]).all()
    assert estimate(np.array([0.0, 0.0, 1.0]), low=0, high=1)[1:] == (0, 1, 3)


def test_ignored_pixels_count_nowhere():
    probs, label = made_case()
    hole = label.astype(int)
    hole[0] = 255
    whole = score_case(checked_case(("a", probs[:, 1:], label[1:]), **OPTIONS), n_bins=15, ignore_index=-100)
    case = checked_case(("a", probs, hole), num_classes=None, ignore_index=255)
    found = score_case(case, n_bins=15, ignore_index=255)
    for name in ("pixels", "nll", "brier", "ece_all", "dice"):
        assert found.row[name] == pytest.approx(whole.row[name])
    assert np.array_equal(found.labelled, whole.labelled)
    assert sample_case(case, ignore_index=255, seed=0).everywhere[1].numel() == whole.row["pixels"]


def test_a_reliability_curve_by_hand():
    probs = np.array([[0.9, 0.9, 0.6, 0.6], [0.1, 0.1, 0.4, 0.4]])[:, None]
    (bins,) = summary_of([("a", probs, np.array([[0, 1, 0, 0]]))]).bins["all"].values()
    curve = reliability([bins])
    assert curve["confidence"].tolist() == pytest.approx([0.6, 0.9])
    assert curve["accuracy"].tolist() == [1.0, 0.5]
    assert curve["share"].tolist() == [0.5, 0.5]
    assert curve["low"].isna().all()
    band = reliability([bins, bins])
    assert band["low"].tolist() == band["high"].tolist() == [1.0, 0.5]  # all patients alike


# Temperature


def test_the_temperature_of_a_posterior_too_sure_by_a_known_power():
    for power in (2.0, 0.5):
        found = cross_fit(samples_of(posterior_cases(power)), n_bins=15, seed=0)
        assert found.value == pytest.approx(power, rel=0.15)
        assert found.gains["nll"][2].high < 0
        assert found.is_honest


def test_every_patient_is_judged_by_the_half_it_is_not_in():
    samples = samples_of([(f"p{i}", *made_case(i, sharpness=1 + i)) for i in range(7)])
    found = cross_fit(samples, n_bins=15, seed=3)
    nll, sides = [], []
    for i, sample in enumerate(samples):
        logits, target = sample.everywhere
        spoiled = sample._replace(everywhere=(logits, (target + 1) % 3))
        others = cross_fit([*samples[:i], spoiled, *samples[i + 1 :]], n_bins=15, seed=3).halves
        (moved,) = (half for half in (0, 1) if others[half] != found.halves[half])
        sides.append(moved)
        nll.append(negative_log_likelihood(logits.double() / found.halves[1 - moved], target, from_logits=True))
    assert sorted((sides.count(0), sides.count(1))) == [3, 4]
    assert found.gains["nll"][1].mean == pytest.approx(np.mean(nll))
    whole = TemperatureScaling().fit([sample.everywhere for sample in samples]).temperature.item()
    assert found.value == pytest.approx(whole)


def test_frames_of_one_patient_stay_on_one_side_and_few_patients_are_in_sample(tmp_path):
    cases = [ReportCase(f"{i}", *made_case(i), patient=f"p{i % 3}") for i in range(6)]
    found = report(cases, tmp_path / "r.html")
    assert not found.temperature.is_honest
    assert "in-sample" in found.path.read_text()
    own = [ReportCase(case.name, case.probs, case.label) for case in cases]
    assert report(own, tmp_path / "r.html").temperature.is_honest
    assert "out of sample" in found.path.read_text()


def test_a_sample_is_bounded_even_and_the_same_again():
    case = checked_case(("a", *made_case(shape=(40, 50))), **OPTIONS)
    one, two = (sample_case(case, ignore_index=-100, seed=0, numbers=300) for _ in range(2))
    assert one.everywhere[0].shape == (1, 3, 1, 100)
    assert torch.equal(one.everywhere[0], two.everywhere[0])
    other = sample_case(case, ignore_index=-100, seed=1, numbers=300)
    assert not torch.equal(one.everywhere[0], other.everywhere[0])
    all_of_it = sample_case(case, ignore_index=-100, seed=0)
    assert torch.equal(all_of_it.everywhere[0].flatten(2), case.logits.flatten(2))


# Runs


def test_a_generator_is_read_one_case_at_a_time(tmp_path):
    alive = []

    class Probs(np.ndarray):
        def __del__(self):
            alive.remove(self.mark) if hasattr(self, "mark") else None

    def cases():
        for i in range(4):
            assert len(alive) <= 1
            probs, label = made_case(i)
            probs = probs.view(Probs)
            probs.mark = i
            alive.append(i)
            yield f"case {i}", probs, label
            del probs

    assert len(report(cases(), tmp_path / "r.html").cases) == 4


@pytest.mark.parametrize("shape", [(9, 10), (4, 9, 10), (1, 9, 10)])
@pytest.mark.parametrize("count", [1, 2, 5])
def test_any_shape_and_any_number_of_cases(tmp_path, shape, count):
    cases = [(f"{i}", *made_case(i, shape=shape)) for i in range(count)]
    found = report(cases, tmp_path / "r.html", csv=tmp_path / "r.csv", worst=2)
    html = found.path.read_text()
    assert html.count("Map of the errors") == min(2, count)
    assert ("without an interval" in html or "no interval" in html) == (count == 1)
    written = pd.read_csv(tmp_path / "r.csv", dtype={"case": str, "patient": str})
    pd.testing.assert_frame_equal(written, found.cases, check_dtype=False, rtol=1e-6)


def test_all_right_all_ignored_but_one_and_a_class_that_is_never_there(tmp_path):
    label = np.zeros((6, 6), int)
    label[2:4, 2:4] = 1
    sure = np.stack([label == 0, label == 1, label == 2]).astype(np.float32)
    found = report([("a", sure, label), ("b", sure, label)], tmp_path / "r.html")
    assert found.verdict.startswith("Well calibrated")
    assert not found.temperature.converged
    html = found.path.read_text()
    assert "No finite temperature is best" in html
    assert "Do not trust what is said of class 2" in html
    lone = np.full((6, 6), 255)
    lone[0, 0] = 0
    assert report([("a", sure, lone)], tmp_path / "r.html", ignore_index=255).cases["pixels"].tolist() == [1]


def test_what_can_not_be_used_is_named_and_the_others_are_done(tmp_path):
    cases = [("a", *made_case(0)), ("b", *made_case(1, classes=4)), ("a", *made_case(2)), ("d", *made_case(3))]
    with pytest.warns(RuntimeWarning) as warned:
        found = report(cases, tmp_path / "r.html")
    assert len(warned) == 2
    assert found.cases["case"].tolist() == ["a", "d"]
    assert found.unread["b"].startswith("Expected `probs` of 3 classes, got 4")
    assert "of different names" in found.unread["a"]
    html = found.path.read_text()
    assert "2 more could not be read" in html
    with (
        pytest.warns(RuntimeWarning),
        pytest.raises(ValueError, match=r"one at least that can be used, got none of 1\. The first: x: Expected"),
    ):
        report([("x", np.zeros(2), np.zeros(2))], tmp_path / "r.html")
    with pytest.raises(ValueError, match="got none"):
        report([], tmp_path / "r.html")
    with pytest.raises(ValueError, match="`class_names` of 3 names, one a class, got 2 names"):
        report(cases, tmp_path / "r.html", class_names=("a", "b"))


# The command and the door


def test_the_command_on_files(tmp_path, capsys):
    for folder in ("p", "l"):
        (tmp_path / folder).mkdir()
    for i in range(4):
        probs, label = made_case(i)
        np.savez_compressed(tmp_path / "p" / f"c{i}.npz", probabilities=probs.astype(np.float16))
        nifti(tmp_path / "l" / f"c{i}.nii.gz", label.astype(np.float32), spacing=(2.0, 1.0, 1.0))
    out, csv = tmp_path / "new" / "r.html", tmp_path / "cases.csv"
    command = ["report", str(tmp_path / "p"), str(tmp_path / "l"), "--out", str(out)]
    assert main([*command, "--csv", str(csv), "--class-names", "ground", "x y", "z"]) == 0
    printed = capsys.readouterr().out
    assert f"read as probabilities; 4 cases in {out}" in printed
    html = out.read_text()
    assert "x y" in html
    assert "HD95, mm" in html
    assert f"nacl report {tmp_path / 'p'}" in html
    assert printed.splitlines()[0].split(".")[0] in html
    assert len(pd.read_csv(csv)) == 4

    (tmp_path / "p" / "c1.npz").write_bytes(b"PK\x03\x04 broken")
    assert main(command) == 1
    captured = capsys.readouterr()
    assert "3 cases" in captured.out
    assert re.search(r"NOT READ c1: .*c1\.npz: ", captured.err)
    assert "c1.npz" in out.read_text()
    (tmp_path / "p" / "c2.npz").unlink()
    before = out.read_text()
    assert main(command) == 2
    assert "--ignore-unmatched to report the 3" in capsys.readouterr().err
    assert main([*command, "--from-logits", "--ignore-unmatched", "--patient-pattern", "nothing"]) == 2
    assert "`patient` to match every case's name" in capsys.readouterr().err
    assert out.read_text() == before


def test_the_door_is_a_function_and_no_other_name_opens():
    assert nacl.report is report
    with pytest.raises(AttributeError, match="no attribute 'reprot'"):
        _ = nacl.reprot
