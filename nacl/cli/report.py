"""`nacl report`: one page on the predictions of any model."""

import argparse
import sys
import warnings
from pathlib import Path

from nacl.cli._help import add_command

REPORT_EXAMPLES = """\
examples:
  nacl report predictions labelsTr                      what nnU-Net's --save_probabilities left, beside its labels
  nacl report probs labels --images imagesTr --class-names background liver tumour --csv cases.csv
  nacl report logits.npy labels.npy --from-logits --out one.html
  nacl report predictions labels --patient-pattern "^[^_]+" --ignore-index 255 --ignore-unmatched

A case is a file of each folder, paired by name: npy, npz, nii, nii.gz, h5, hdf5; probabilities or logits (classes
first, or last in NIfTI) and a label map. The page is one file that asks for no other. Files that can't be read are
named on it, the others are reported, and the status is 1.
"""


def add_commands(commands) -> None:
    """Add report to the parser's commands."""
    report = add_command(
        commands, "report", _report, "is your model calibrated? one page on its predictions", REPORT_EXAMPLES
    )
    report.add_argument("predictions", type=Path, metavar="PREDICTIONS", help="folder of probabilities or logits")
    report.add_argument("labels", type=Path, metavar="LABELS", help="folder of label maps")
    report.add_argument("--out", type=Path, default=Path("report.html"), metavar="FILE", help="default: report.html")
    report.add_argument("--csv", type=Path, metavar="FILE", help="the numbers of each case")
    report.add_argument("--images", type=Path, metavar="FOLDER", help="images, shown with the worst cases")
    report.add_argument(
        "--class-names", nargs="+", metavar="NAME", help="background first (default: as in nnU-Net's dataset.json)"
    )
    report.add_argument("--title", default="Is this model calibrated?", help="of the page")
    report.add_argument("--ignore-index", type=int, metavar="N", help="label that never counts (default: -100)")
    report.add_argument("--ignore-unmatched", action="store_true", help="leave out files without a partner")
    report.add_argument("--patient-pattern", metavar="REGEX", help="finds a case's patient in its name (default: all)")
    report.add_argument("--key", metavar="NAME", help="of the scores in npz and HDF5 files")
    report.add_argument("--label-key", metavar="NAME", help="of the labels there")
    report.add_argument("--class-axis", type=int, metavar="N", help="of the classes, in the array as it is stored")
    report.add_argument(
        "--axis-order", metavar="ORDER", help="of arrays beside NIfTI files: zyx, xyz (default: by shape)"
    )
    kind = report.add_mutually_exclusive_group()
    kind.add_argument("--from-logits", action="store_true", default=None, help="they are logits (default: found out)")
    kind.add_argument(
        "--from-probs", dest="from_logits", action="store_false", default=None, help="they are probabilities"
    )
    report.add_argument("--n-bins", type=int, default=15, metavar="N", help="bins of confidence (default: 15)")
    report.add_argument("--worst", type=int, default=3, metavar="N", help="cases to picture (default: 3)")
    report.add_argument("--seed", type=int, default=0, metavar="N", help="of the samples and halves (default: 0)")


def _report(options: argparse.Namespace) -> int:
    from nacl.reporting import (
        Reading,
        find_cases,
        nnunet_labels,
        report,
    )  # jinja2 and matplotlib's colours are slow to import

    reading = Reading(
        key=options.key,
        label_key=options.label_key,
        class_axis=options.class_axis,
        axis_order=options.axis_order,
        from_logits=options.from_logits,
        patient=options.patient_pattern,
    )
    cases = find_cases(
        options.predictions,
        options.labels,
        images=options.images,
        ignore_unmatched=options.ignore_unmatched,
        reading=reading,
    )
    class_names, ignored = nnunet_labels(options.predictions)
    if options.ignore_index is None:
        options.ignore_index = -100 if ignored is None else ignored
    options.class_names = options.class_names or class_names
    names = ("class_names", "n_bins", "ignore_index", "worst", "csv", "title", "seed")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # what is left out is said below
        found = report(cases, options.out, command=options.typed, **{name: getattr(options, name) for name in names})
    print(found.verdict)
    print(f"read as {', '.join(sorted(set(found.cases['scores'])))}; {len(found.cases)} cases in {found.path}")
    for name, reason in found.unread.items():
        print(f"NOT READ {name}: {reason}", file=sys.stderr)
    return 1 if found.unread else 0
