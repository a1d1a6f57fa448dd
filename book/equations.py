"""The index of equations: which function computes what a numbered equation or theorem says."""

from importlib import import_module

PROVEN = ("theorem-", "lemma-", "corollary-")
NO_FUNCTION = "–"  # book/equations.md says what it means

EQUATIONS: dict[str, tuple[str, tuple[str, ...]]] = {
    "logit-gradient": ("cross-entropy's pull on the logits", ()),
    "gap-flow": ("how fast the lead of the label grows", ("nacl.theory.flow.fitted_gap",)),
    "theorem-flow": (
        "certainty takes time, and nothing else",
        ("nacl.theory.flow.fitted_gap", "nacl.theory.flow.fitting_time"),
    ),
    "theorem-never": ("labels that can be fitted leave no minimum", ()),
    "weights-flow": ("training as a flow of the weights", ("nacl.theory.flow.gradient_flow",)),
    "theorem-training": ("the flow goes where the loss would like to go", ("nacl.theory.flow.gradient_flow",)),
    "chance-loss": ("the loss over labels drawn by chance", ()),
    "theorem-stop": ("when memory should stop", ("nacl.theory.flow.fitting_time",)),
    "scaled-slope": ("the loss against the scale of the logits", ()),
    "gap": ("confidence less accuracy, in a bin", ("nacl.metrics.bins.CalibrationBins",)),
    "bin-errors": ("ECE, MCE and ACE from the gaps", ("nacl.metrics.bins.CalibrationBins",)),
    "proper-scores": (
        "NLL and Brier score",
        ("nacl.metrics.scores.NegativeLogLikelihood", "nacl.metrics.scores.BrierScore"),
    ),
    "murphy": ("the Brier score in three parts", ("nacl.metrics.scores.BrierScore", "nacl.metrics.scores.BrierParts")),
    "temperature": ("logits divided by one number", ("nacl.scaling.TemperatureScaling",)),
    "chance-ece": ("the ECE of a perfect forecaster", ()),
    "foreground-trap": ("the ECE of the truth over the true foreground", ()),
    "ece": (
        "expected calibration error",
        ("nacl.metrics.calibration.expected_calibration_error", "nacl.metrics.calibration.CalibrationError"),
    ),
    "phantom-posterior": (
        "the phantom's true probabilities",
        ("nacl.data.phantom.generate", "nacl.data.load.load_dataset"),
    ),
    "independent-pixels": ("how many of N differences are independent", ()),
    "brain-label": ("a label drawn with smooth errors", ("nacl.data.brain.draw_labels",)),
    "brain-exact": ("its probabilities are the template's", ("nacl.data.brain.draw_labels",)),
    "brain-agreement": ("the Dice score of two annotators", ()),
    "theorem-half": ("the own label weighs one half", ("nacl.theory.svls.svls_weights",)),
    "divergences": ("cross-entropy, entropy, divergence", ()),
    "svls-loss": ("the loss of SVLS", ("nacl.losses.svls_loss",)),
    "theorem-split": ("SVLS is cross-entropy and a penalty", ("nacl.theory.svls.svls_split",)),
    "svls-constrained": ("fit the label, be like the neighbours", ()),
    "svls-tolerance": ("the same with a tolerance", ()),
    "svls-lagrangian": ("its Lagrangian", ()),
    "theorem-price": ("what a price buys", ("nacl.theory.svls.svls_minimum",)),
    "svls-gradient": (
        "both wishes in the gradient",
        ("nacl.theory.svls.svls_gradient", "nacl.theory.svls.svls_price"),
    ),
    "nacl-constraint": ("fit the label, logits equal to shares", ()),
    "nacl-literal": ("the confidence if the constraint held", ()),
    "nacl-loss": ("the loss of NACL", ("nacl.losses.nacl_loss",)),
    "nacl-penalties": ("L1, L2 and Huber, with their slopes", ("nacl.losses.nacl_loss",)),
    "nacl-convention": ("the paper's weight and the code's", ("nacl.losses.nacl_loss",)),
    "nacl-gradient": ("both pulls on a logit", ("nacl.theory.gradient.nacl_gradient",)),
    "nacl-on-softmax": ("the pull of a penalty on the softmax", ("nacl.theory.gradient.nacl_gradient",)),
    "lse": ("log-sum-exp", ()),
    "nacl-objective": ("the loss of one pixel", ()),
    "lemma-lse": ("a floor under log-sum-exp", ()),
    "lemma-penalty": ("a floor under the penalty", ()),
    "theorem-minimum": ("what NACL converges to", ("nacl.theory.minimum.nacl_minimum",)),
    "nacl-box": ("with L1", ("nacl.theory.minimum.nacl_minimum",)),
    "nacl-spring": ("with L2", ("nacl.theory.minimum.nacl_minimum",)),
    "nacl-dual": ("the floor that does not depend on the logits", ("nacl.theory.minimum.nacl_minimum",)),
    "nacl-clip": ("the minimum in closed form", ("nacl.theory.minimum.nacl_minimum_logits",)),
    "corollary-ceiling": ("one ceiling, whatever the neighbours are", ("nacl.theory.family.confidence_ceiling",)),
    "nacl-ceiling": ("the ceiling of confidence", ("nacl.theory.family.confidence_ceiling",)),
    "nacl-condition": ("the weights for which it holds", ("nacl.theory.family.confidence_ceiling",)),
    "nacl-rest": ("how the rest is shared", ("nacl.theory.minimum.nacl_minimum",)),
    "corollary-smoothing": ("the smoothing that it equals", ("nacl.theory.minimum.nacl_minimum",)),
    "nacl-smoothing": ("its parameter", ("nacl.theory.minimum.nacl_minimum",)),
    "nacl-noise": ("the bias of one who knows the truth", ("nacl.theory.minimum.nacl_minimum",)),
    "family-distances": ("how far a logit lies behind the largest", ()),
    "family-ce": ("cross-entropy as a function of distances", ()),
    "family-confidence": ("one distance, one confidence", ()),
    "theorem-smoothing": (
        "label smoothing is a linear penalty",
        ("nacl.losses.label_smoothing_loss", "nacl.losses.mbls_loss"),
    ),
    "family-ls-ceiling": ("the ceiling of label smoothing", ("nacl.theory.family.confidence_ceiling",)),
    "family-ecp": ("the entropy penalty", ("nacl.losses.entropy_penalty_loss", "nacl.losses.build_loss")),
    "theorem-focal": ("focal loss lies above an entropy penalty", ("nacl.losses.focal_loss",)),
    "family-ecp-ceiling": ("the ceiling of the entropy penalty", ("nacl.theory.family.confidence_ceiling",)),
    "family-mbls": ("the loss of MbLS", ("nacl.losses.mbls_loss",)),
    "family-mbls-ceiling": ("the ceiling of MbLS", ("nacl.theory.family.confidence_ceiling",)),
    "family-crac": ("the loss of CRaC and its multipliers", ("nacl.losses.CRaCLoss",)),
    "family-crac-price": ("the price that CRaC finds", ("nacl.losses.CRaCLoss",)),
    "score-model": ("what a score is made of", ()),
    "paired-interval": ("the interval of a paired difference", ("nacl.statistics.paired_difference",)),
    "holm": ("Holm's corrected p values", ("nacl.ranks.holm",)),
    "nemenyi": ("the critical difference of mean ranks", ("nacl.ranks.nemenyi_critical_difference",)),
    "ceiling-bias": ("what NACL bends a forecast by", ("nacl.theory.minimum.nacl_minimum",)),
    "ceiling-inverse": ("the forecast unbent", ("nacl.theory.bias.without_bias",)),
}
"""In the order of the book: for each label what it says, and the functions, as the API names them."""


def equations_list() -> str:
    """The index as Markdown, a row an equation, linked to its place and to its functions."""
    rows = ["| | what it says | in code |", "| --- | --- | --- |"]
    for label, (says, names) in EQUATIONS.items():
        role = "prf:ref" if label.startswith(PROVEN) else "eq"
        functions = ", ".join(f"{{py:obj}}`{short(name)} <{name}>`" for name in names)
        rows.append(f"| {{{role}}}`{label}` | {says} | {functions or NO_FUNCTION} |")
    return "\n".join(rows) + "\n"


def short(name: str) -> str:
    """The shortest name under which a function, class or attribute can be imported.

    >>> short("nacl.theory.svls.svls_split")
    'nacl.theory.svls_split'
    """
    parts = name.split(".")
    for end in range(1, len(parts)):
        try:
            found = import_module(".".join(parts[:end]))
        except ModuleNotFoundError:
            break
        if hasattr(found, parts[-1]):
            return ".".join([*parts[:end], parts[-1]])
    return name
