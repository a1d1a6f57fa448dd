"""`nacl data`: what it prints, what it writes, what it returns, and what it says when it can't."""

import re
import shlex

import h5py
import numpy as np
import pandas as pd
import pytest
from raw_folders import WRITERS, write_acdc, write_flare, write_folder, write_nifti, write_promise

from nacl import plots
from nacl.cli import data, main
from nacl.data.benchmarks import BENCHMARKS
from nacl.data.load import EMBEDDED
from nacl.data.manifest import read_manifest
from nacl.data.prepared.index import read_index
from nacl.data.prepared.target import Report

SPLIT = "case,split\na,train\nb,train\nc,valid\nd,test\n"


@pytest.fixture
def mine(tmp_path):
    """Four of a user's own pairs, and a table that splits them."""
    (tmp_path / "my.csv").write_text(SPLIT)
    return write_folder(tmp_path / "mine")


def rows_of(out):
    """The numbers of patients, cases and slices by split."""
    return {split: tuple(map(int, counts.split())) for split, counts in ROW.findall(out)}


ROW = re.compile(r"^(train|valid|test|left out)((?: +\d+){3}) ", re.MULTILINE)


# list


def test_list_names_every_data_set_with_its_files_its_home_and_its_licence(capsys):
    assert main(["data", "list"]) == 0
    *blocks, after = capsys.readouterr().out.strip().split("\n\n")
    assert after == "next: nacl data check FOLDER"
    blocks = dict(block.split(": ", 1) for block in blocks)
    assert set(blocks) == {*EMBEDDED, "folder", *BENCHMARKS}
    for name, benchmark in BENCHMARKS.items():
        assert benchmark.class_names[-1] in blocks[name]
        assert benchmark.licence in blocks[name]
        assert benchmark.home in blocks[name]
        assert benchmark.layout.splitlines()[-1] in blocks[name] or name == "acdc"


# check


def test_check_counts_what_is_there(tiny_acdc, tmp_path, capsys):
    picture = tmp_path / "new" / "picture.png"
    assert main(["data", "check", str(tiny_acdc), "--picture", str(picture)]) == 0
    out = capsys.readouterr().out
    assert rows_of(out) == {"train": (2, 3, 7), "valid": (1, 1, 3), "test": (2, 2, 5)}
    assert "6 cases can be used, 0 can't." in out
    assert f"next: nacl train --data {tiny_acdc}\n" in out
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_check_prints_shares_shapes_spacings_and_orientations(tmp_path, capsys):
    folder = write_folder(tmp_path / "mine", "abcd", labels=(0, 1))
    for part in ("images", "labels"):
        voxels = np.zeros((5, 10, 12), np.int16)
        voxels[:, 2:4] = 1
        write_nifti(folder / part / "a.nii.gz", voxels, spacing=(3.0, 1.0, 1.0), axes="LPS")
    (tmp_path / "my.csv").write_text("case,split\na,test\nb,train\nc,train\nd,valid\n")
    split = ["--split-file", str(tmp_path / "my.csv")]
    assert main(["data", "check", str(folder), "--class-names", "air", "liver", *split]) == 0
    out = capsys.readouterr().out
    assert "median 3 x 36 x 40 voxels, from 3 x 10 x 12 to 5 x 36 x 40" in out
    assert "median 5 x 1.5 x 1.25 mm, from 3 x 1 x 1 to 5 x 1.5 x 1.25" in out
    assert "3 x RAS, 1 x LPS" in out
    header, *rows = [line.split() for line in out.splitlines() if line.startswith((" ", "train", "valid", "test"))]
    assert header == ["patients", "cases", "slices", "air", "liver"]
    assert all(float(row[4]) + float(row[5]) == pytest.approx(1, abs=1e-4) for row in rows)
    (alone,) = (row for row in rows if row[3] == "5")
    assert alone[4:] == ["0.8000", "0.2000"]


@pytest.mark.parametrize("layout", ["hippocampus", "nnunet"])
def test_a_dataset_json_of_others_is_not_taken_for_that_of_a_prepared_folder(tmp_path, capsys, layout):
    WRITERS[layout](tmp_path)
    assert main(["data", "check", str(tmp_path)]) == 0
    assert "next: nacl data prepare" in capsys.readouterr().out


def test_check_of_embedded_data(capsys):
    assert main(["data", "check", "phantom", "--size", "32"]) == 0
    out = capsys.readouterr().out
    assert "50 cases can be used, 0 can't." in out
    assert "next: nacl train --data phantom\n" in out


def test_check_writes_a_row_a_case(mine, tmp_path, capsys):
    (mine / "labels" / "b.nii.gz").write_bytes(b"")
    assert main(["data", "check", str(mine), "--csv", str(tmp_path / "new" / "cases.csv")]) == 1
    table = pd.read_csv(tmp_path / "new" / "cases.csv").set_index("case")
    assert sorted(table.index) == ["a", "b", "c", "d"]
    assert table.loc["a", ["slices", "height", "width"]].tolist() == [3, 36, 40]
    assert table.loc["a", [f"voxels of {name}" for name in ("background", "class 1", "class 2")]].sum() == 3 * 36 * 40
    assert "b.nii.gz" in table.loc["b", "problem"]
    assert table["problem"].isna().sum() == 3
    assert "4 rows in" in capsys.readouterr().out


def test_check_names_the_bad_file_checks_the_rest_and_returns_1(tiny_acdc_copy, capsys):
    bad = tiny_acdc_copy / "train" / "patient001_frame01.h5"
    bad.write_bytes(bad.read_bytes()[:1000])
    assert main(["data", "check", str(tiny_acdc_copy)]) == 1
    printed = capsys.readouterr()
    assert printed.err.count("PROBLEM") == 1
    assert str(bad) in printed.err
    assert "5 cases can be used, 1 can't." in printed.out
    assert "next: mend" in printed.out


def test_check_when_no_file_is_good(tiny_acdc_copy, capsys):
    for file in tiny_acdc_copy.rglob("*.h5"):
        file.write_bytes(b"")
    assert main(["data", "check", str(tiny_acdc_copy), "--picture", str(tiny_acdc_copy / "p.png")]) == 1
    assert "0 cases can be used, 6 can't." in capsys.readouterr().out
    assert not (tiny_acdc_copy / "p.png").exists()


def test_check_sees_a_patient_in_two_splits(tiny_acdc_copy, capsys):
    """Training refuses such a folder, so the check must too."""
    (tiny_acdc_copy / "test" / "patient003_frame02.h5").write_bytes(
        (tiny_acdc_copy / "valid" / "patient003_frame01.h5").read_bytes()
    )
    assert main(["data", "check", str(tiny_acdc_copy)]) == 1
    err = capsys.readouterr().err
    assert "patient003 in 'test' and 'valid'" in err or "patient003 in 'valid' and 'test'" in err


def test_check_by_the_published_split_says_what_is_missing_and_left_out(tmp_path, capsys):
    write_acdc(tmp_path, (1, 2, 3, 7))
    assert main(["data", "check", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert rows_of(out) == {"train": (1, 2, 6), "valid": (1, 2, 6), "test": (1, 2, 6), "left out": (1, 2, 6)}
    assert "87 of the 90 patients of the published split are not here: patient004, patient005" in out
    assert "2 cases are left out, in none of the splits: patient007_frame01" in out


def test_check_by_a_file_leads_to_prepare_by_it(mine, tmp_path, capsys):
    file = tmp_path / "my.csv"
    assert main(["data", "check", str(mine), "--split-file", str(file)]) == 0
    out = capsys.readouterr().out
    assert rows_of(out) == {"train": (2, 2, 6), "valid": (1, 1, 3), "test": (1, 1, 3)}
    assert f"next: nacl data prepare folder {mine} prepared/mine --split-file {file}\n" in out
    file.write_text(SPLIT.replace("d,test", "e,test"))
    assert main(["data", "check", str(mine), "--split-file", str(file)]) == 2
    assert f"{file}, line 5` with one of the 4 cases" in capsys.readouterr().err


def test_check_groups_the_patients_of_a_pattern(tmp_path, capsys):
    write_folder(tmp_path, ["p1_a", "p1_b", "p2_a", "p3_a"])
    assert main(["data", "check", str(tmp_path), "--patient-pattern", "^[^_]+"]) == 0
    out = capsys.readouterr().out
    assert sum(counts[0] for counts in rows_of(out).values()) == 3
    assert "--patient-pattern '^[^_]+'" in out


def test_check_and_prepare_hint_at_visits_with_a_pattern_that_joins_them(tmp_path, capsys):
    folder = write_folder(tmp_path / "my scans", ["p1_v1", "p1_v2", "sub-2_ses-1", "sub-2_ses-2", "p3", "p4"])
    assert main(["data", "check", str(folder)]) == 0
    out = capsys.readouterr().out
    assert shlex.split(out.split("next: ")[1])[-1] == "prepared/my-scans"
    (pattern,) = re.findall(r"6 names look like 4 patients.*: give --patient-pattern '(.*)'\n", out)
    assert main(["data", "prepare", "folder", str(folder), str(tmp_path / "done")]) == 0
    assert pattern in capsys.readouterr().out
    for command in (["check", str(folder)], ["prepare", "folder", str(folder), str(tmp_path / "again")]):
        assert main(["data", *command, "--patient-pattern", pattern]) == 0
        out = capsys.readouterr().out
        assert "look like" not in out
    assert {case.patient for case in read_index(tmp_path / "again").cases} == {"p1", "sub-2", "p3", "p4"}


def test_an_empty_split_has_no_shares(mine, tmp_path, capsys):
    (tmp_path / "my.csv").write_text(SPLIT.replace("valid", "train"))
    assert main(["data", "check", str(mine), "--split-file", str(tmp_path / "my.csv")]) == 1
    (line,) = re.findall(r"^valid .*$", capsys.readouterr().out, re.MULTILINE)
    assert line.split() == ["valid", "0", "0", "0"]


def test_no_more_problems_are_printed_than_can_be_read(tmp_path, capsys):
    folder = write_folder(tmp_path / "mine", [f"c{k:02d}" for k in range(25)])
    for k in range(2, 25):
        (folder / "images" / f"c{k:02d}.nii.gz").write_bytes(b"")
    for command, hint in ((["check"], "--csv has all"), (["prepare", "folder"], "`nacl data check` with --csv")):
        target = [str(tmp_path / "done")] * (command[0] == "prepare")
        assert main(["data", *command, str(folder), *target, "--class-names", "a", "b", "c", "--jobs", "1"]) == 1
        err = capsys.readouterr().err
        assert len(re.findall(r"^PROBLEM .*c\d\d\.nii", err, re.MULTILINE)) == 20
        assert f"PROBLEM and 3 more; {hint}" in err


def test_a_picture_has_the_pixels_proportions_and_names_the_classes(mine, tmp_path, monkeypatch):
    figures, draw = [], plots.contact_sheet
    monkeypatch.setattr(plots, "contact_sheet", lambda *a, **k: figures.append(draw(*a, **k)) or figures[-1])
    names = ["--class-names", "background", "liver", "spleen"]
    assert main(["data", "check", str(mine), *names, "--picture", str(tmp_path / "p.png")]) == 0
    (figure,) = figures
    assert [text.get_text() for text in figure.legends[0].get_texts()] == names[2:]
    assert [ax.get_aspect() for ax in figure.axes] == pytest.approx([1.5 / 1.25] * 4)
    assert not draw({"a": (np.eye(3), np.eye(3))}, 1, class_names=["background"]).legends


# prepare


def test_a_problem_that_names_no_case_gets_its_name(mine, tmp_path, monkeypatch, capsys):
    problems = {"a": "its process ended", "b": "b.nii.gz is cut"}
    report = Report(tmp_path, (), problems=problems, is_complete=False)
    monkeypatch.setattr(data, "prepare", lambda *args, **options: report)
    assert main(["data", "prepare", "folder", str(mine), str(tmp_path / "done")]) == 1
    assert capsys.readouterr().err.splitlines() == ["PROBLEM a: its process ended", "PROBLEM b.nii.gz is cut"]


def run(command):
    return main(shlex.split(command)[1:])


def test_from_check_to_prepare_to_train_by_the_commands_that_are_printed(mine, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    command = "nacl data check mine --split-file my.csv --class-names background liver spleen"
    for words in ("nacl data prepare", "nacl train"):
        assert run(command) == 0
        (command,) = re.findall(r"^next: (.*)$", capsys.readouterr().out, re.MULTILINE)
        assert command.startswith(words)
    assert command == "nacl train --data prepared/mine"
    assert run("nacl data check prepared/mine --picture p.png") == 0
    out = capsys.readouterr().out
    assert rows_of(out) == {"train": (2, 2, 6), "valid": (1, 1, 3), "test": (1, 1, 3)}
    assert "background" in out
    assert "spleen" in out
    assert "next: nacl train --data prepared/mine\n" in out


def test_prepare_takes_a_size_and_a_spacing_and_does_nothing_twice(tmp_path, capsys):
    write_acdc(tmp_path / "raw", (1, 2, 3, 7))
    command = ["data", "prepare", "acdc", str(tmp_path / "raw"), str(tmp_path / "done"), "--size", "24"]
    assert main([*command, "--spacing", "2"]) == 0
    out = capsys.readouterr().out
    assert "6 cases prepared, in" in out
    assert out.count("patient007_frame12") == 1
    assert "note: 2 cases are left out, in none of the splits: patient007_frame01, patient007_frame12" in out
    assert main([*command, "--spacing", "2"]) == 0
    assert "0 cases prepared, 6 were there already, in" in capsys.readouterr().out
    assert main(["data", "check", str(tmp_path / "done")]) == 0
    out = capsys.readouterr().out
    assert "shape     3 x 24 x 24 voxels" in out
    assert "spacing   5 x 2 x 2" in out


@pytest.mark.parametrize(
    ("source", "words", "wanted"),
    [
        ("promise12", "", ("percentiles", 0.5, 99.5)),
        ("promise12", "--low 2", ("percentiles", 2, 99.5)),
        ("promise12", "--intensity window --low 90 --high 400", ("window", 90, 400)),
        ("promise12", "--intensity minmax", ("minmax", 0, 100)),
        ("flare", "--intensity percentiles", ("percentiles", 0.5, 99.5)),
        ("flare", "--intensity percentiles --high 98", ("percentiles", 0.5, 98)),
        ("flare", "--intensity window --low -100", ("window", -100, 240)),
        ("promise12", "--intensity window", r"`--low and --high` both with --intensity window, got neither"),
        ("promise12", "--intensity window --low 0", r"both with --intensity window, got --low 0\.0"),
        ("promise12", "--intensity minmax --high 3", r"`--low and --high` without --intensity minmax, got --high 3\.0"),
        ("promise12", "--low -160 --high 240", r"percentiles, got --low -160.0 --high 240.0. Add --intensity window"),
        ("acdc", "--low 3", "without --intensity minmax, got --low 3"),
        ("acdc", "--intensity windo", "Did you mean 'window'"),
    ],
)
def test_the_ends_of_one_intensity_are_not_taken_for_those_of_another(source, words, wanted, tmp_path, capsys):
    WRITERS[source](tmp_path / "raw")
    done = main(["data", "prepare", source, str(tmp_path / "raw"), str(tmp_path / "done"), *words.split()])
    if isinstance(wanted, str):
        assert done == 2
        assert re.search(wanted, capsys.readouterr().err)
        assert not (tmp_path / "done").exists()
    else:
        assert done == 0
        recipe = read_index(tmp_path / "done").recipe
        assert (recipe["intensity"], recipe["low"], recipe["high"]) == wanted


def test_prepare_with_a_bad_file_says_how_to_go_on(mine, tmp_path, capsys):
    (mine / "labels" / "b.nii.gz").write_bytes(b"")
    command = ["data", "prepare", "folder", str(mine), str(tmp_path / "done"), "--split-file", str(tmp_path / "my.csv")]
    assert main(command) == 1
    printed = capsys.readouterr()
    assert "b.nii.gz" in printed.err
    assert "--skip-bad" in printed.out
    assert main([*command, "--skip-bad"]) == 0
    assert "next: nacl train" in capsys.readouterr().out
    assert main(["data", "check", str(tmp_path / "done")]) == 0
    assert "3 cases can be used" in capsys.readouterr().out


def test_check_of_a_folder_that_is_half_prepared_says_to_go_on(mine, tmp_path, capsys):
    (mine / "labels" / "b.nii.gz").write_bytes(b"")
    assert main(["data", "prepare", "folder", str(mine), str(tmp_path / "done")]) == 1
    assert main(["data", "check", str(tmp_path / "done")]) == 2
    assert "Run the same `nacl data prepare` again" in capsys.readouterr().err


def test_check_of_a_prepared_folder_names_the_damaged_file(mine, tmp_path, capsys):
    assert main(["data", "prepare", "folder", str(mine), str(tmp_path / "done")]) == 0
    file = sorted((tmp_path / "done").rglob("*.h5"))[0]
    with h5py.File(file, "a") as stored:
        stored["label"][0, 0, 0] ^= 1
    assert main(["data", "check", str(tmp_path / "done")]) == 1
    printed = capsys.readouterr()
    assert str(file) in printed.err
    assert "3 cases can be used, 1 can't." in printed.out


# manifest


def test_a_manifest_has_the_names_splits_and_checksums_of_a_copy(tmp_path, capsys):
    write_promise(tmp_path / "one", 6)
    out = tmp_path / "new" / "m.csv"
    assert main(["data", "manifest", "promise12", str(tmp_path / "one"), str(out)]) == 0
    manifest = read_manifest(out)
    assert [entry.case for entry in manifest.entries] == [f"Case{k:02d}" for k in range(6)]
    assert all(entry.checksum for entry in manifest.entries)
    assert manifest.checksums_of == "mhd"
    assert f"--split-file {out}" in capsys.readouterr().out


def test_a_manifest_of_a_copy_with_cases_left_out_splits_as_it_says(tmp_path, capsys):
    """The command that is printed, on the same copy: 1 to 3 are published, 7 is not, 101 is of the part for testing."""
    write_acdc(tmp_path / "one", (1, 2, 3, 7, 101))
    out = tmp_path / "m.csv"
    assert main(["data", "manifest", "acdc", str(tmp_path / "one"), str(out)]) == 0
    printed = capsys.readouterr().out
    assert f"6 cases of 3 patients, and 4 left out, in {out}" in printed
    (option,) = re.findall(r"(--split-file .*)$", printed, re.MULTILINE)
    assert main(["data", "check", str(tmp_path / "one"), *shlex.split(option)]) == 0
    expected = {"train": (1, 2, 6), "valid": (1, 2, 6), "test": (1, 2, 6), "left out": (2, 4, 12)}
    assert rows_of(capsys.readouterr().out) == expected
    out.write_text(out.read_text().replace("patient101,,", "patient101,test,"))
    assert main(["data", "check", str(tmp_path / "one"), *shlex.split(option)]) == 0
    assert rows_of(capsys.readouterr().out)["test"] == (2, 4, 12)


def test_a_manifest_of_a_broken_copy_is_not_written(tmp_path, capsys):
    write_flare(tmp_path / "one")
    (tmp_path / "one" / "TrainingMask" / "train_001.nii.gz").write_bytes(b"")
    assert main(["data", "manifest", "flare", str(tmp_path / "one"), str(tmp_path / "m.csv")]) == 1
    assert "train_001.nii.gz" in capsys.readouterr().err
    assert not (tmp_path / "m.csv").exists()


# What can't be used


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["check", "{mine}", "--as", "fodler"], "Did you mean 'folder'?"),
        (["check", "{mine}", "--as", "acdc"], "with cases, got none"),
        (["check", "{mine}", "--as", "acdc", "--patient-pattern", "x"], '`patient` only with "folder", got'),
        (["check", "{mine}", "--as", "acdc", "--class-names", "x", "y"], "class_names"),
        (["check", "{mine}", "--patient-pattern", "("], "regular expression"),
        (["check", "{mine}", "--jobs", "0"], "`jobs` of at least 1, got 0"),
        (["check", "{mine}", "--split-file", "{mine}/none.csv"], "none.csv"),
        (["check", "phantom", "--as", "acdc"], "--as"),
        (["check", "{mine}/images"], "nacl data list"),
        (["check", "phantm"], "Did you mean 'phantom'?"),
        (["prepare", "fodler", "{mine}", "{mine}2"], "Did you mean 'folder'?"),
        (["prepare", "folder", "{mine}/none", "{mine}2"], "/none"),
        (["prepare", "folder", "{mine}", "{mine}"], "outside"),
        (["prepare", "folder", "{mine}", "{mine}2", "--size", "0"], "size"),
        (["prepare", "folder", "{mine}", "{mine}2", "--spacing", "-1"], "spacing"),
        (["manifest", "folder", "{mine}/none", "{mine}2/m.csv"], "/none"),
    ],
)
def test_what_cannot_be_done_is_said_in_a_line(mine, tmp_path, capsys, words, says):
    assert main(["data", *(word.format(mine=mine) for word in words)]) == 2
    err = capsys.readouterr().err
    assert says in err
    assert "Traceback" not in err
    assert not (tmp_path / "mine2").exists()


@pytest.mark.parametrize("action", ["check", "prepare", "manifest"])
def test_help_has_examples(action, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["data", action, "--help"])
    assert ended.value.code == 0
    assert f"  nacl data {action} " in capsys.readouterr().out
