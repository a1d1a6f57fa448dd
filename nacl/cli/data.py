"""`nacl data`: what data there is, whether it can be used, and how it becomes what a training run reads."""

import argparse
import shlex
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from numpy.typing import NDArray
from tqdm.auto import tqdm

from nacl._checks import expectation
from nacl._files import whole_file
from nacl.cli import _overview
from nacl.cli._help import Help, add_command
from nacl.data import SPLITS, load_dataset, resolve_data
from nacl.data.benchmarks import OWN, READERS, benchmark_of, detect, folder, name_of
from nacl.data.benchmarks.raw import Benchmark
from nacl.data.check import Finding, compare, examine, examine_dataset, examine_prepared, format_of, judge
from nacl.data.load import EMBEDDED
from nacl.data.manifest import Entry, Manifest, write_manifest
from nacl.data.prepared.index import read_index
from nacl.data.prepared.prepare import prepare
from nacl.data.prepared.store import is_prepared
from nacl.data.prepared.target import is_unfinished
from nacl.data.recipe import INTENSITIES, Recipe
from nacl.data.splits import assign_splits, patients_by_visits

EXAMPLES = """\
examples:
  nacl data list                                        what can be read, and where it is got
  nacl data check path/to/download                      every file, to the last; cases, labels, problems
  nacl data prepare acdc path/to/download prepared/acdc
  nacl train --data prepared/acdc
"""
CHECK_EXAMPLES = """\
examples:
  nacl data check path/to/ACDC                          which benchmark it is, is found out by the names of its files
  nacl data check path/to/ACDC --picture acdc.png       with a picture of six cases
  nacl data check path/to/mine --as folder --class-names background liver tumour --csv cases.csv
  nacl data check path/to/mine --split-file my.csv      columns case,split or patient,split; see below
  nacl data check phantom

A line of --split-file says train, valid or test of a case or patient; an empty split leaves it out of all three.
Nothing is written but what is asked for. The status is 1 where something can't be used.
"""
PREPARE_EXAMPLES = """\
examples:
  nacl data prepare acdc path/to/ACDC prepared/acdc     as the paper's code expects it
  nacl data prepare flare path/to/FLARE prepared/flare --size 256 --jobs 4
  nacl data prepare folder path/to/mine prepared/mine --class-names background liver tumour \\
      --patient-pattern "^[^_]+" --split-file my.csv    your own: images/NAME.nii.gz with labels/NAME.nii.gz

What was prepared before is not done again. SOURCE is only read.
"""
MANIFEST_EXAMPLES = """\
examples:
  nacl data manifest flare path/to/FLARE flare.csv      names, splits and checksums of your copy: no voxel is in it
  nacl data check path/to/another --split-file flare.csv
"""
_MEND = "mend what is named above, or move it away, and check again"
RECIPE = ("size", "spacing", "intensity", "low", "high")
ENDS = ("low", "high")
ENDS_OF = {"percentiles": {"low": 0.5, "high": 99.5}, "minmax": {"low": Recipe.low, "high": Recipe.high}}
PICTURED = 2  # patients of each split
SHOWN = 20  # notes, and problems


def add_commands(commands) -> None:
    """Add data, with its actions, to the parser's commands."""
    data = commands.add_parser("data", help="list, check and prepare data sets", epilog=EXAMPLES, formatter_class=Help)
    actions = data.add_subparsers(required=True, metavar="ACTION")
    add_command(actions, "list", _list, "what can be read, and where it is got", "")

    check = add_command(actions, "check", _check, "read every file of a data set", CHECK_EXAMPLES)
    check.add_argument("data", metavar="PATH", help=f"a folder, or {' or '.join(map(repr, EMBEDDED))}")
    check.add_argument("--as", dest="name", metavar="NAME", help="the benchmark (default: found out by names of files)")
    check.add_argument("--picture", type=Path, metavar="FILE", help="slices of six cases with their outlines")
    check.add_argument("--csv", type=Path, metavar="FILE", help="a row a case")
    check.add_argument("--size", type=int, default=96, metavar="N", help="of an embedded slice (default: 96)")
    _add_reading(check)

    make = add_command(actions, "prepare", _prepare, "turn a data set into what a training run reads", PREPARE_EXAMPLES)
    make.add_argument("name", metavar="NAME", help=f"of `nacl data list`; {OWN!r} is your own")
    make.add_argument("source", type=Path, metavar="SOURCE", help="the folder as you have it")
    make.add_argument("target", type=Path, metavar="TARGET", help="the folder to make")
    make.add_argument("--size", type=int, metavar="N", help="height and width of a slice (default: the benchmark's)")
    make.add_argument("--spacing", type=float, metavar="MM", help="of pixels in plane (default: the benchmark's)")
    make.add_argument(
        "--intensity", metavar="NAME", help=f"one of: {', '.join(INTENSITIES)} (default: the benchmark's)"
    )
    make.add_argument("--low", type=float, metavar="X", help="percentile (0.5), or value of a window, that becomes 0")
    make.add_argument("--high", type=float, metavar="X", help="percentile (99.5), or value of a window, that becomes 1")
    make.add_argument("--skip-bad", action="store_true", help="leave out cases that can't be read")
    _add_reading(make)

    publish = add_command(actions, "manifest", _manifest, "write names, splits and checksums", MANIFEST_EXAMPLES)
    publish.add_argument("name", metavar="NAME", help=f"of `nacl data list`; {OWN!r} is your own")
    publish.add_argument("source", type=Path, metavar="FOLDER", help="the folder as you have it")
    publish.add_argument("out", type=Path, metavar="OUT.csv", help="the manifest to write")
    _add_reading(publish)


def _add_reading(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--split-file",
        type=Path,
        metavar="FILE",
        help="your own split, a CSV file; an empty split leaves a case out (default: the published one)",
    )
    parser.add_argument("--jobs", type=int, metavar="N", help="processes (default: as many as help)")
    parser.add_argument("--class-names", nargs="+", metavar="NAME", help=f"of {OWN!r}, the background's first")
    parser.add_argument(
        "--patient-pattern", metavar="REGEX", help=f"of {OWN!r}: finds a case's patient in its name (default: all)"
    )


def _list(options: argparse.Namespace) -> int:
    for name, text in EMBEDDED.items():
        print(f"{name}: {text}\n  embedded, no download\n")
    for reader in READERS:
        _print_reader(reader.name, reader.title, reader.layout)
        print(f"  classes   {', '.join(reader.class_names)}")
        print(f"  channels  {', '.join(reader.channel_names)}")
        print(f"  from      {reader.home}")
        print(f"  licence   {reader.licence}\n")
    _print_reader(OWN, "your own images and labels", folder.LAYOUT)
    print("\nnext: nacl data check FOLDER")
    return 0


def _print_reader(name: str, title: str, layout: str) -> None:
    print(f"{name}: {title}")
    for k, line in enumerate(layout.splitlines()):
        print(f"  {'' if k else 'files':8}  {line}")


@dataclass(frozen=True)
class _Source:
    """What `check` reads, and what to do with it afterwards."""

    name: str
    title: str
    class_names: Sequence[str]
    channel_names: Sequence[str]
    findings: Iterable[Finding]
    next: str
    format: str = ""
    is_raw: bool = False
    is_own: bool = False


def _check(options: argparse.Namespace) -> int:
    source = _source(options)
    print(f"{source.title} ({source.name})")
    findings, planes = [], {}
    for finding in source.findings:
        findings.append(replace(finding, plane=None))  # most of what it weighs
        if finding.plane and _is_wanted(finding, planes):
            planes[findings[-1]] = finding.plane
    order = (*SPLITS, "")
    findings.sort(key=lambda finding: (order.index(finding.split), finding.name))
    usable = [finding for finding in findings if not finding.problem]
    verdict = judge(findings, source.class_names)
    if usable:
        print()
        print(_overview.splits_table(usable, source.class_names).to_string(float_format="%.4f", na_rep=""))
        print()
        print(_overview.grids(usable, source.channel_names), end="\n\n")
    compared = compare(findings, source.name, source.format, split_file=options.split_file)
    visits = _visits([finding.name for finding in findings], source.is_own, options)
    _print_notes([*visits, *compared, *verdict.warnings, *_overview.warnings_of(usable)])
    of_cases = [finding.problem for finding in findings if finding.problem]
    problems = [*of_cases, *verdict.problems]
    _print_problems(of_cases, "--csv has all")
    for problem in verdict.problems:
        print(f"PROBLEM {problem}", file=sys.stderr)
    print(f"{len(usable)} cases can be used, {len(findings) - len(usable)} can't.")
    if options.csv:
        with whole_file(options.csv) as temporary:
            _overview.cases_table(findings, source.class_names).to_csv(temporary, index=False)
        print(f"{len(findings)} rows in {options.csv}")
    if options.picture and planes:
        _draw(planes, source.class_names, options.picture)
        print(f"picture in {options.picture}")
    print(f"next: {_MEND if problems else source.next}")
    if source.is_raw and len(problems) > len(verdict.problems) == 0:
        print(f"or leave it out: {source.next} --skip-bad")
    return 1 if problems else 0


def _is_wanted(finding: Finding, pictured: Iterable[Finding]) -> bool:
    of_split = [other.patient for other in pictured if other.split == finding.split]
    return len(of_split) < PICTURED and finding.patient not in of_split


def _source(options: argparse.Namespace) -> _Source:
    place = resolve_data(options.data)
    ready = f"nacl train --data {shlex.quote(options.data)}"
    if isinstance(place, str) or is_prepared(place):
        _refuse_reading(options, "of a folder that was not prepared yet")
    if isinstance(place, str):
        dataset = load_dataset(place, size=options.size)
        findings = tqdm(examine_dataset(dataset), "reading", len(dataset.cases), unit="case")
        return _Source(place, EMBEDDED[place], dataset.class_names, dataset.channel_names, findings, ready)
    if is_prepared(place):
        index = read_index(place)
        findings = tqdm(examine_prepared(place), "reading", len(index.cases), unit="case")
        title = f"prepared cases in {place}"
        return _Source(index.name, title, index.class_names, index.channel_names, findings, ready, "prepared")
    if is_unfinished(place):
        remedy = "Run the same `nacl data prepare` again; it goes on where it was"
        raise ValueError(expectation(str(place), "to be prepared to the end", "a folder without an index", "", remedy))
    benchmark = _benchmark(options, place)
    findings = examine(benchmark, place, split_file=options.split_file, jobs=options.jobs)
    after = ready if benchmark.ready else _prepare_command(options, benchmark)
    names = (benchmark.class_names, benchmark.channel_names)
    form = format_of(benchmark, place)
    name = name_of(benchmark)
    kind = {"format": form, "is_raw": not benchmark.ready, "is_own": name == OWN}
    return _Source(name, benchmark.title, *names, findings, after, **kind)


def _refuse_reading(options: argparse.Namespace, rule: str) -> None:
    for name in ("name", "split_file", "class_names", "patient_pattern"):
        if getattr(options, name) is not None:
            flag = "--" + {"name": "as"}.get(name, name.replace("_", "-"))
            raise ValueError(expectation(flag, rule, options.data))


def _benchmark(options: argparse.Namespace, place: Path) -> Benchmark:
    """The reader that was asked for, or the one whose layout the folder has."""
    if not place.is_dir():
        raise FileNotFoundError(f"Expected a folder, got {place}, which is none.")
    own = {"class_names": options.class_names, "patient": options.patient_pattern}
    if options.name is not None or any(value is not None for value in own.values()):
        return benchmark_of(options.name or OWN, place, **own)
    found = detect(place)
    if found is None:
        remedy = "See `nacl data list` for what each should look like, and say which it is with --as NAME"
        raise ValueError(expectation(str(place), "with the files of a known data set", "others", remedy=remedy))
    return found


def _prepare_command(options: argparse.Namespace, benchmark: Benchmark) -> str:
    words = ["nacl", "data", "prepare", name_of(benchmark), options.data, f"prepared/{benchmark.name}"]
    words += ["--split-file", str(options.split_file)] if options.split_file else []
    words += ["--patient-pattern", options.patient_pattern] if options.patient_pattern else []
    words += ["--class-names", *options.class_names] if options.class_names else []
    return shlex.join(words)


def _print_notes(texts: Sequence[str]) -> None:
    for text in texts[:SHOWN]:
        print(f"note: {text}")
    if len(texts) > SHOWN:
        print(f"note: and {len(texts) - SHOWN} more")


def _print_problems(texts: Sequence[str], where: str) -> None:
    more = [f"and {len(texts) - SHOWN} more; {where}"] if len(texts) > SHOWN else []
    for text in (*texts[:SHOWN], *more):
        print(f"PROBLEM {text}", file=sys.stderr)


def _visits(names: Sequence[str], is_own: bool, options: argparse.Namespace) -> list[str]:
    hint = patients_by_visits(names) if is_own and options.patient_pattern is None else ""
    return [hint] if hint else []


def _draw(planes: dict[Finding, tuple[NDArray, NDArray]], class_names: Sequence[str], file: Path) -> None:
    from nacl.plots import contact_sheet  # matplotlib is slow to import

    order = sorted(planes, key=lambda finding: ((*SPLITS, "").index(finding.split), finding.name))
    titles = {f"{finding.name} ({finding.split or _overview.LEFT_OUT})": finding for finding in order}
    slices = {title: planes[finding] for title, finding in titles.items()}
    aspects = {title: finding.spacing[1] / finding.spacing[2] for title, finding in titles.items()}
    figure = contact_sheet(slices, len(class_names), class_names=class_names, aspects=aspects)
    with whole_file(file) as temporary:
        figure.savefig(temporary, dpi=120, format=file.suffix[1:] or "png")


def _prepare(options: argparse.Namespace) -> int:
    benchmark = _benchmark(options, options.source)
    benchmark = replace(benchmark, recipe=_recipe(options, benchmark.recipe))
    raw = benchmark.find(options.source)
    splits = assign_splits(raw, benchmark.name, split_file=options.split_file)
    done = prepare(
        benchmark, options.source, options.target, splits=splits, jobs=options.jobs, skip_bad=options.skip_bad
    )
    there = f", {len(done.skipped)} were there already" if done.skipped else ""
    print(f"{len(done.cases)} cases prepared{there}, in {done.folder}")
    _print_notes([*_visits([case.name for case in raw], name_of(benchmark) == OWN, options), *done.warnings])
    problems = [text if name in text else f"{name}: {text}" for name, text in done.problems.items()]
    _print_problems(problems, "`nacl data check` with --csv has all")
    if not done.is_complete:
        print("next: mend what is named above, and give the same command; or leave it out with --skip-bad")
        return 1
    print(f"next: nacl train --data {shlex.quote(str(options.target))}")
    return 0


def _recipe(options: argparse.Namespace, of_benchmark: Recipe) -> Recipe:
    """The benchmark's recipe with what was asked for; the ends of one kind of intensity are not taken for another's."""
    given = {name: getattr(options, name) for name in RECIPE if getattr(options, name) is not None}
    intensity = given.get("intensity", of_benchmark.intensity)
    ends = [f"--{name} {given[name]}" for name in ENDS if name in given]
    if intensity == "percentiles" and any(not 0 <= given[name] <= 100 for name in ENDS if name in given):
        remedy = "Add --intensity window where they are values of the files"
        rule = "in [0, 100], since they are percentiles"
        raise ValueError(expectation("--low and --high", rule, " ".join(ends), remedy=remedy))
    if intensity == "minmax" and ends:
        remedy = "Leave them out, or give --intensity window or percentiles"
        raise ValueError(expectation("--low and --high", "without --intensity minmax", " ".join(ends), remedy=remedy))
    if intensity == of_benchmark.intensity:
        return replace(of_benchmark, **given)
    if intensity == "window" and len(ends) < len(ENDS):
        remedy = "Give the values of the files that become 0 and 1"
        got = " ".join(ends) or "neither"
        raise ValueError(expectation("--low and --high", "both with --intensity window", got, remedy=remedy))
    return replace(of_benchmark, **{**ENDS_OF.get(intensity, {}), **given})


def _manifest(options: argparse.Namespace) -> int:
    benchmark = _benchmark(options, options.source)
    found = examine(benchmark, options.source, split_file=options.split_file, jobs=options.jobs)
    findings = sorted((replace(finding, plane=None) for finding in found), key=lambda finding: finding.name)
    problems = [finding.problem for finding in findings if finding.problem]
    _print_problems(problems, "`nacl data check` with --csv has all")
    if problems:
        print(f"nothing is written to {options.out}: a manifest is of a whole data set", file=sys.stderr)
        return 1
    listed = [finding for finding in findings if finding.split]
    counts = Counter(split for _, split in {(finding.patient, finding.split) for finding in listed})
    notes = (
        f"{benchmark.title}: {', '.join(f'{counts[split]} {split}' for split in SPLITS)} patients.",
        f"checksums: {format_of(benchmark, options.source)} (nacl.data.manifest.content_checksum)",
    )
    entries = tuple(Entry(finding.name, finding.patient, finding.split, finding.checksum) for finding in findings)
    write_manifest(options.out, Manifest(entries, notes))
    left_out = f", and {len(findings) - len(listed)} left out" if len(findings) > len(listed) else ""
    print(f"{len(listed)} cases of {sum(counts.values())} patients{left_out}, in {options.out}")
    print(f"next: publish it; others split as you do with --split-file {shlex.quote(str(options.out))}")
    return 0
