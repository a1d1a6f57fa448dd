"""What the numbers mean, and what to do next, by plain rules."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from nacl.reporting.summary import Estimate, Summary
from nacl.reporting.temperature import Temperature

SMALL = 0.01
"""A gap between confidence and accuracy below one point in a hundred is called small: it changes no decision."""

UNEVEN = 0.03
"""An ECE from here on is told though the gap is small: some confidences are too high, and as many too low."""

FEW_PATIENTS = 10
POOR_DICE = 0.5
TOLD = 5  # classes in a sentence, at most
MOSTLY = 0.5  # of the excess confidence
OUTLIER = 2.0  # times the median case's NLL

PLACES = {
    "all": "over all pixels",
    "predicted_foreground": "in the predicted foreground",
    "predicted_border": "within 2 pixels of the predicted border",
}
"""The regions that verdicts speak of: those that do not look at the answer."""


class Advice(NamedTuple):
    """What to do, and why."""

    title: str
    text: str


def verdict(summary: Summary) -> str:
    """One sentence, or two: over- or under-confident, by how much, and where."""
    gaps = {region: summary.estimate(f"gap_{region}", low=-1, high=1) for region in PLACES}
    gaps = {region: gap for region, gap in gaps.items() if gap.patients}
    clear = {region: gap for region, gap in gaps.items() if direction(gap)}
    if clear:
        region = max(clear, key=lambda name: abs(clear[name].mean))
        return _clear_verdict(summary, region, gaps)
    region = max(gaps, key=lambda name: abs(gaps[name].mean))
    gap = gaps[region]
    if abs(gap.mean) >= SMALL:
        return (
            f"Perhaps {_adverb(gap.mean)}-confident {PLACES[region]}, by {_points(gap)}; that can't be told "
            f"from chance with {count(gap.patients, summary.unit)}."
        )
    errors = {region: summary.estimate(f"ece_{region}", low=0, high=1) for region in gaps}
    region = max(errors, key=lambda name: errors[name].mean)
    error = errors[region]
    if error.mean >= UNEVEN:
        return (
            f"Neither over- nor under-confident on the whole, but not calibrated {PLACES[region]}: some confidences "
            f"are too high and others too low, by {points(error.mean)} on average (ECE{_between(error)})."
        )
    most = f"{points(error.mean)}{_between(error)}"
    return (
        f"Well calibrated, as far as {count(gap.patients, summary.unit)} can tell: mean confidence and accuracy differ "
        f"by less than one point in a hundred in every region, and ECE is at most {most}."
    )


def _clear_verdict(summary: Summary, region: str, gaps: dict[str, Estimate]) -> str:
    gap = gaps[region]
    confidence, accuracy = (summary.estimate(f"{name}_{region}").mean for name in ("confidence", "accuracy"))
    first = (
        f"{_adverb(gap.mean).capitalize()}-confident {PLACES[region]}: the model is {percent(confidence)} sure there "
        f"and right in {percent(accuracy)} of the pixels, {_points(gap)} too {'sure' if gap.mean > 0 else 'modest'}."
    )
    others = [name for name in reversed(gaps) if name != region]
    told = [f"{points(gaps[name].mean, signed=True)} {PLACES[name]}" for name in others]
    return f"{first} The gap is {' and '.join(told)}." if told else first


def direction(gap: Estimate) -> str:
    """ "over", "under", or "" where the gap is small or its interval holds 0."""
    if abs(gap.mean) < SMALL or (gap.has_interval and gap.low <= 0 <= gap.high):
        return ""
    return _adverb(gap.mean)


def tone(summary: Summary) -> str:
    """ "bad" or "good": the colour of the verdict."""
    found = [direction(summary.estimate(f"gap_{region}")) for region in PLACES]
    uneven = [summary.estimate(f"ece_{region}").mean >= UNEVEN for region in PLACES]
    return "bad" if any(found) or any(uneven) else "good"


def advice(summary: Summary, temperature: Temperature, class_names: Sequence[str]) -> list[Advice]:
    """What to do next, the most useful first."""
    ways = {region: direction(summary.estimate(f"gap_{region}")) for region in PLACES}
    found = [
        *_segmentation(summary, class_names),
        _temperature(temperature, summary.unit),
        *_training(summary, ways),
        *_cases(summary),
    ]
    absent = [name for name, n in zip(class_names, summary.labelled, strict=True) if n == 0]
    if absent:
        text = "No pixel of the labels has it, so nothing here says whether its probabilities are right."
        found.append(Advice(f"Do not trust what is said of {', '.join(absent)}", text))
    if summary.patients < FEW_PATIENTS:
        more = "there is no interval at all" if summary.patients < 2 else "the intervals are wide and rough"
        text = (
            f"With {count(summary.patients, summary.unit)} {more}. The pixels of a case err together: "
            f"{summary.pixels:,} pixels are not {summary.pixels:,} trials."
        )
        found.append(Advice("Add cases before you decide", text))
    return found


def _segmentation(summary: Summary, class_names: Sequence[str]) -> list[Advice]:
    dice = {name: summary.estimate(f"dice_{k}").mean for k, name in enumerate(class_names) if k}
    poor = dict(sorted(((name, value) for name, value in dice.items() if value < POOR_DICE), key=lambda x: x[1])[:TOLD])
    if not poor:
        return []
    told = ", ".join(f"{name} {value:.2f}" for name, value in poor.items())
    text = f"Mean Dice is below {POOR_DICE}: {told}. Right confidence in a wrong mask helps little."
    return [Advice("Mend the masks first", text)]


def _temperature(temperature: Temperature, unit: str) -> Advice:
    nll, border = (temperature.gains[name] for name in ("nll", "ece_predicted_border"))
    where = f"on {unit}s that it was {'not ' if temperature.is_honest else ''}fitted on"
    if not temperature.converged:
        text = "No finite temperature is best: every pixel that was looked at is right, or none of the logits helps."
        return Advice("Leave the temperature alone", text)
    if not (nll[2].mean < 0 and (not nll[2].has_interval or nll[2].high < 0)):
        text = (
            f"T = {temperature.value:.2f} fits best, but {where} NLL goes from {nll[0].mean:.4f} to "
            f"{nll[1].mean:.4f}{_difference(nll[2])}: no gain that can be told from chance."
        )
        return Advice("A temperature is not worth it", text)
    kind = "softens" if temperature.value > 1 else "sharpens"
    text = f"It {kind} every confidence and changes no mask. NLL {nll[0].mean:.4f} → {nll[1].mean:.4f} {where}"
    if border[0].patients:
        text += f"; ECE round the predicted border {border[0].mean:.4f} → {border[1].mean:.4f}."
        worse = border[2].mean > 0 and (not border[2].has_interval or border[2].low > 0)
        text += " It costs calibration at the border, where it may matter most: look before you use it." * worse
    return Advice(f"Divide the logits by T = {temperature.value:.2f}", text.rstrip(".") + ".")


def _training(summary: Summary, ways: Mapping[str, str]) -> list[Advice]:
    if ways["all"] == "under":
        text = (
            "Most pixels are easy, and it is less sure of them than it could be. If it was trained with NACL, label "
            "smoothing, MbLS or a focal loss, lower the weight (or gamma); a temperature below 1 does it afterwards."
        )
        text += " Its borders are over-confident all the same, so look at them again after that." * (
            ways["predicted_border"] == "over"
        )
        return [Advice("It is too modest: lower the penalty", text)]
    if "over" not in ways.values():
        return []
    at_border = summary.excess_at_border()
    if ways["predicted_border"] == "over" and not at_border < MOSTLY:
        part = (
            "Its excess confidence" if math.isnan(at_border) else f"{min(1.0, at_border):.0%} of its excess confidence"
        )
        text = (
            f"{part} lies within 2 pixels of the predicted borders, in {percent(summary.share('predicted_border'))} "
            "of the pixels. One temperature moves every pixel alike; a neighbour-aware loss aims there: "
            "nacl.NACLLoss(penalty_weight=0.1), or nacl.SVLSLoss()."
        )
        return [Advice("When you train again, calibrate the borders", text)]
    text = (
        "Its excess confidence lies away from the predicted borders too. Try the temperature first, which costs "
        "nothing. If you train again, a penalty on the logits does it at the source: "
        "nacl.NACLLoss(penalty_weight=0.1), nacl.MbLSLoss() or nacl.LabelSmoothingLoss()."
    )
    return [Advice("It is too sure inside the objects as well", text)]


def _cases(summary: Summary) -> list[Advice]:
    table = summary.table
    if len(table) < 3:
        return []
    worst, median = table.loc[table["nll"].idxmax()], table["nll"].median()
    if not worst["nll"] > OUTLIER * median:
        return []
    text = (
        f"Its NLL is {worst['nll']:.4f}, {worst['nll'] / median if median else math.inf:.1f} times the median "
        f"case's, with a Dice of {worst['dice']:.2f}. A wrong label or another scanner shows itself in this way."
    )
    return [Advice(f"Look at {worst['case']}", text)]


def points(value: float, *, signed: bool = False) -> str:
    """A difference of shares: "2.1 points"."""
    return f"{100 * value:{'+' if signed else ''}.1f} points"


def percent(value: float) -> str:
    """A share: "87.1%"."""
    return f"{100 * value:.1f}%"


def count(number: int, noun: str) -> str:
    """ "1 case", "2 cases"."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _points(gap: Estimate) -> str:
    low, high = sorted((abs(gap.low), abs(gap.high))) if gap.low * gap.high > 0 else (gap.low, gap.high)
    if not gap.has_interval:
        return f"{points(abs(gap.mean))} (of one patient, so without an interval)"
    return f"{points(abs(gap.mean))} (95% interval {100 * low:.1f} to {100 * high:.1f})"


def _between(error: Estimate) -> str:
    return f", 95% interval {100 * error.low:.1f} to {100 * error.high:.1f}" if error.has_interval else ""


def _difference(difference: Estimate) -> str:
    if not difference.has_interval:
        return ""
    return f" (difference {difference.mean:+.4f}, 95% interval {difference.low:+.4f} to {difference.high:+.4f})"


def _adverb(gap: float) -> str:
    return "over" if gap > 0 else "under"
