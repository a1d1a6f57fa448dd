"""Examining a data set: what each case holds, which are broken, and what they say together."""

import shutil
from collections import Counter
from dataclasses import replace

import nibabel
import numpy as np
import pytest
from raw_folders import (
    SHAPE,
    SPACING,
    WRITERS,
    scan,
    write_acdc,
    write_acdc_hdf5,
    write_brats2020,
    write_folder,
    write_nifti,
    write_promise,
)

from nacl.cli import main
from nacl.data import SPLITS, Case, Dataset, load_dataset
from nacl.data import check as checking
from nacl.data import manifest as manifests
from nacl.data.benchmarks import detect, volumes
from nacl.data.case import Cases, StoredCase
from nacl.data.check import Finding, compare, examine, examine_dataset, examine_prepared, format_of, judge
from nacl.data.manifest import Entry, Manifest, content_checksum, write_manifest
from nacl.data.prepared import store
from nacl.data.prepared.own_cases import prepare_cases


def findings_of(folder, **options):
    return {finding.name: finding for finding in examine(detect(folder), folder, **options)}


def found(name="a", split="train", *, patient=None, voxels=(9, 1), checksum="", problem=""):
    return Finding(
        name, patient or name, split, (1, 2, 3, 4), voxels=voxels, checksum=checksum or name, problem=problem
    )


@pytest.fixture
def publish(tmp_path, monkeypatch):
    """A function that publishes a manifest of ACDC in the place of the package's own."""
    monkeypatch.setattr(manifests, "FOLDER", tmp_path / "manifests")

    def write(*entries, of):
        entries = tuple(Entry(*entry) for entry in entries)
        write_manifest(tmp_path / "manifests" / "acdc.csv", Manifest(entries, (f"checksums: {of}",) if of else ()))

    return write


# One case


def test_a_case_is_described_as_its_files_were_written(tmp_path):
    image, label = scan((0, 1, 2), seed=3)
    label[1] = 0
    write_nifti(tmp_path / "images" / "a.nii.gz", image[0], axes="LPS")
    write_nifti(tmp_path / "labels" / "a.nii.gz", label, axes="LPS")
    (finding,) = examine(detect(tmp_path), tmp_path)
    assert (finding.name, finding.patient, finding.split) == ("a", "a", "train")
    assert finding.shape == (1, *SHAPE)
    assert finding.spacing == pytest.approx(SPACING)
    assert (finding.unit, finding.axes) == ("mm", "LPS")
    assert finding.voxels == tuple(int((label == k).sum()) for k in range(3))
    assert finding.checksum == content_checksum(image, label)
    assert (finding.problem, finding.warnings) == ("", ())


def test_the_picture_is_of_the_slice_with_the_most_labels(tmp_path):
    image, label = scan((0, 1), seed=1)
    label[[0, 1], :, :30], label[2, 0, 0] = 0, 1
    write_nifti(tmp_path / "images" / "a.nii.gz", image[0])
    write_nifti(tmp_path / "labels" / "a.nii.gz", label)
    (finding,) = examine(detect(tmp_path), tmp_path)
    assert np.array_equal(finding.plane[0], image[0, 2])
    assert np.array_equal(finding.plane[1], label[2])


def test_odd_cases_are_warned_of_and_can_be_used(tmp_path):
    empty = write_folder(tmp_path, "ab")
    write_nifti(empty / "images" / "a.nii.gz", np.full((1, 8, 8), 7, np.int16))
    write_nifti(empty / "labels" / "a.nii.gz", np.zeros((1, 8, 8), np.uint8))
    finding = findings_of(tmp_path)["a"]
    assert not finding.problem
    said = " ".join(finding.warnings)
    assert "background everywhere" in said
    assert "a single slice" in said
    assert "channel 0 of the image is 7 everywhere" in said
    assert findings_of(tmp_path)["b"].warnings == ()


@pytest.mark.parametrize(
    ("spacing", "said"),
    [
        ((5.0, 1.0, 2.0), ()),
        ((5.0, 1.0, 2.5), ("a side of its pixels",)),
        ((0.5, 1.0, 1.0), ()),
        ((0.4, 1.0, 1.0), ("slices lie over 2 times closer",)),
        ((100.0, 20.0, 20.0), ()),
        ((100.0, 21.0, 21.0), ("wider than 20 mm",)),
    ],
)
def test_odd_spacings_are_warned_of(tmp_path, spacing, said):
    image, label = scan((0, 1), seed=1)
    write_nifti(tmp_path / "images" / "a.nii.gz", image[0], spacing=spacing)
    write_nifti(tmp_path / "labels" / "a.nii.gz", label, spacing=spacing)
    (finding,) = examine(detect(tmp_path), tmp_path)
    assert len(finding.warnings) == len(said)
    assert all(text in warning for text, warning in zip(said, finding.warnings, strict=True))


# Every layout


@pytest.mark.parametrize("layout", WRITERS)
def test_every_case_of_every_layout_is_described(layout, tmp_path):
    folder = WRITERS[layout](tmp_path)
    benchmark = detect(folder)
    raw = benchmark.find(folder)
    findings = findings_of(folder)
    assert set(findings) == {case.name for case in raw}
    for case in raw:
        finding, volume = findings[case.name], benchmark.read(case, benchmark)
        assert not finding.problem
        assert finding.patient == case.patient
        assert finding.shape == volume.image.shape
        assert finding.spacing == pytest.approx(volume.spacing)
        assert finding.voxels == tuple(np.bincount(volume.label.ravel(), minlength=len(benchmark.class_names)))
    assert format_of(benchmark, folder) == {"acdc_hdf5": "h5", "promise12": "mhd"}.get(layout, "nii")


def test_embedded_cases_are_described():
    dataset = load_dataset("phantom", size=24)
    findings = list(examine_dataset(dataset))
    assert [finding.name for finding in findings] == [case.name for case in dataset.cases]
    assert findings[3].voxels == tuple(np.bincount(dataset.cases[3].label.ravel(), minlength=4))
    assert judge(findings, dataset.class_names).problems == ()


def test_prepared_cases_are_described_from_one_read_of_each_file(squares, tmp_path, monkeypatch):
    prepare_cases(squares.cases, tmp_path / "done", name="squares", class_names=squares.class_names)
    read, files = store.read_file, []
    monkeypatch.setattr(store, "read_file", lambda file, *planes: files.append(file) or read(file, *planes))
    findings = list(examine_prepared(tmp_path / "done"))
    assert len(files) == len(set(files)) == len(findings) == len(squares.cases)
    expected = {case.name: tuple(np.bincount(case.label.ravel(), minlength=3)) for case in squares.cases}
    assert {finding.name: finding.voxels for finding in findings} == expected


def test_a_folder_of_ones_own_has_its_labels_read_twice_and_its_images_once(tmp_path, monkeypatch):
    folder = write_folder(tmp_path, "abc")
    read, files = volumes._read, []
    monkeypatch.setattr(volumes, "_read", lambda file: files.append(file.relative_to(folder).as_posix()) or read(file))
    list(examine(detect(folder), folder, jobs=1))
    assert Counter(files) == {**{f"images/{n}.nii.gz": 1 for n in "abc"}, **{f"labels/{n}.nii.gz": 2 for n in "abc"}}


def test_as_many_processes_read_as_fit_into_memory(tmp_path, monkeypatch):
    folder = write_promise(tmp_path)
    asked = []
    monkeypatch.setattr(checking, "fitting_jobs", lambda cases: len(cases) + 4)
    monkeypatch.setattr(checking, "in_processes", lambda function, tasks, jobs, text: iter(asked.append(jobs) or ()))
    list(examine(detect(folder), folder))
    list(examine(detect(folder), folder, jobs=2))
    assert asked == [7, 2]


# Broken files


def cut(file):
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def test_broken_cases_are_named_and_the_others_read(tmp_path):
    folder = write_brats2020(tmp_path, numbers=range(1, 7), suffix=".nii.gz")
    place = {n: folder / "MICCAI_BraTS2020_TrainingData" / f"BraTS20_Training_{n:03d}" for n in range(1, 7)}
    files = {
        1: place[1] / f"{place[1].name}_t1.nii.gz",
        2: place[2] / f"{place[2].name}_flair.nii.gz",
        3: place[3] / f"{place[3].name}_seg.nii.gz",
        5: place[5] / f"{place[5].name}_t2.nii.gz",
    }
    files[1].unlink()  # a missing modality
    cut(files[2])
    label = np.asarray(nibabel.load(files[3]).dataobj).T.copy()
    label[0, 0, 0] = 7
    write_nifti(files[3], label, spacing=(1.0, 1.0, 1.0), axes="LPS")
    files[5].write_bytes(b"")
    findings = findings_of(folder, jobs=1)
    assert findings_of(folder, jobs=2) == findings
    assert len(findings) == 6
    problems = {finding.name: finding.problem for finding in findings.values() if finding.problem}
    assert set(problems) == {place[n].name for n in files}
    assert all(str(files[n]) in problems[place[n].name] for n in files)
    assert "7" in problems[place[3].name]


def _out_of_memory(raw, benchmark):
    raise MemoryError


def test_an_error_that_names_no_file_gets_it(tmp_path):
    folder = write_promise(tmp_path)
    findings = list(examine(replace(detect(folder), read=_out_of_memory), folder))
    assert findings[1].problem == f"{folder / 'Case01.mhd'}: MemoryError"
    assert len(findings) == 3


def test_a_folder_with_a_patient_in_two_splits_is_read_to_its_end(tmp_path):
    write_acdc_hdf5(tmp_path)
    shutil.copy(tmp_path / "test" / "patient003_frame01.h5", tmp_path / "train" / "patient003_frame03.h5")
    findings = list(examine(detect(tmp_path), tmp_path))
    assert [f.split for f in findings if f.patient == "patient003"] == ["test", "test", "train"]
    problems = " ".join(judge(findings, "abcd").problems)
    assert "patient003 in 'test' and 'train'" in problems
    assert "patient003_frame01, patient003_frame03 hold the same volume, in test and train" in problems


def test_a_case_that_cannot_be_read_again_does_not_end_a_data_set():
    def gone(planes):
        raise OSError("gone")

    image = np.zeros((2, 4, 4), np.float32)
    bad_label = Case("b", "train", image, np.full(image.shape, 5, np.uint8), (1.0, 1.0, 1.0))
    good = Case("c", "test", image, image.astype(np.uint8), (1.0, 1.0, 1.0))
    dataset = Dataset("mine", ("x", "y"), Cases([StoredCase("a", "train", "a", 2, gone), bad_label, good]), "mm")
    first, second, third = examine_dataset(dataset)
    assert first == Finding("a", "a", "train", problem="gone")
    assert "classes below 2, got 5 (case b)" in second.problem
    assert third.voxels == (32, 0)


# All cases together


def test_a_whole_data_set_has_no_problem():
    verdict = judge([found(split, split) for split in SPLITS], ("x", "y"))
    assert verdict == checking.Verdict((), ())


def test_a_split_without_a_usable_case_is_a_problem():
    findings = [found("a", "train"), found("b", "valid", problem="cut"), found("c", "")]
    (problem,) = judge(findings, ("x", "y")).problems
    assert "for valid or test" in problem


@pytest.mark.parametrize(
    ("findings", "said"),
    [
        ([found("a", voxels=(9, 1, 0))], ["the class 'z' is in no case"]),
        (
            [found("a", voxels=(9, 1, 0)), found("b", "test", voxels=(9, 0, 1))],
            ["the class 'z' is in no case of train"],
        ),
        ([found("a", "test", voxels=(9, 0, 1))], ["the class 'y' is in no case"]),
        ([], []),
    ],
)
def test_absent_classes_are_named(findings, said):
    assert list(judge(findings, ("x", "y", "z")).warnings) == said


def test_one_volume_under_two_names_is_a_problem_across_splits_and_else_a_warning():
    findings = [found(f"{split}{k}", split, checksum=f"{split}{k // 2}") for split in SPLITS for k in range(3)]
    verdict = judge(findings, ("x", "y"))
    assert verdict.problems == ()
    assert verdict.warnings[0] == "test0, test1 hold the same volume"
    assert len(verdict.warnings) == 3
    crossing = judge([*findings, found("twin", "test", checksum="train1")], ("x", "y"))
    assert crossing.problems == ("train2, twin hold the same volume, in test and train",)


def test_a_case_left_out_may_be_the_twin_of_one_that_is_not():
    verdict = judge([*(found(split, split) for split in SPLITS), found("copy", "", checksum="train")], ("x", "y"))
    assert verdict.problems == ()
    assert verdict.warnings[0] == "copy, train hold the same volume"


def test_axes_that_differ_are_warned_of_with_a_remedy():
    whole = [replace(found(split, split), axes="LPS") for split in SPLITS]
    assert judge(whole, ("x", "y")).warnings == ()
    (note,) = judge([*whole, replace(found("z"), axes="RAS")], ("x", "y")).warnings
    assert "LPS in test, train, valid; RAS in z" in note
    assert "nibabel.as_closest_canonical" in note


def test_cases_left_out_are_named(tmp_path):
    write_acdc(tmp_path, (1, 2, 3, 7))
    findings = list(examine(detect(tmp_path), tmp_path))
    verdict = judge(findings, detect(tmp_path).class_names)
    assert verdict.problems == ()
    assert "2 cases are left out, in none of the splits: patient007_frame01, patient007_frame12" in verdict.warnings


def test_a_file_leaves_out_what_the_folder_has_in_a_split(tmp_path):
    folder = write_acdc_hdf5(tmp_path / "raw")
    lines = ["patient001,train", "patient002,valid", "patient003,"]
    (tmp_path / "my.csv").write_text("\n".join(["patient,split", *lines]))
    findings = findings_of(folder, split_file=tmp_path / "my.csv").values()
    assert [f.split for f in findings] == ["train", "train", "valid", "valid", "", ""]


# Against the published split


def test_what_a_manifest_leaves_out_is_not_missing(publish):
    publish(("a", "a", "train"), ("b", "b", ""), of="")
    assert compare([found("a")], "acdc", "nii") == ("all 1 cases of the published split are here",)


def test_missing_cases_and_other_contents_are_named(publish):
    publish(("a", "a", "train", "0" * 32), ("b", "b", "train", "1" * 32), ("c", "c", "test", "2" * 32), of="nii")
    findings = [found("a", checksum="0" * 32), found("b", checksum="3" * 32)]
    assert compare(findings, "acdc", "nii") == (
        "1 of the 3 cases of the published split are not here: c",
        "1 case is with another content than the published one: b",
    )
    whole = [found(name, checksum=str(k) * 32) for k, name in enumerate("abc")]
    assert compare(whole, "acdc", "nii") == ("all 3 cases of the published split are here, with the published content",)


def test_files_of_another_format_are_compared_by_patient(publish):
    publish(("a_1", "a", "train", "0" * 32), ("b_1", "b", "test", "1" * 32), of="h5")
    (note,) = compare([found("a_12", patient="a")], "acdc", "nii")
    assert note == "1 of the 2 patients of the published split are not here: b"
    (note,) = compare([found("a_12", patient="a"), found("b_3", patient="b", problem="cut")], "acdc", "nii")
    assert note == "all 2 patients of the published split are here"


def test_a_manifest_of_names_and_a_benchmark_without_one(publish):
    publish(("a", "a", "train"), ("b", "b", "test"), of="")
    assert compare([found("a"), found("b")], "acdc", "nii") == ("all 2 cases of the published split are here",)
    assert compare([found("x")], "acdc", "nii") == ("nothing of the 2 cases of the published split is here",)
    assert compare([found("x")], "nobody's", "nii") == ()


def test_check_compares_with_the_checksums_of_a_split_file(tmp_path, capsys):
    mine = write_folder(tmp_path / "mine")
    table = tmp_path / "m.csv"
    assert main(["data", "manifest", "folder", str(mine), str(table)]) == 0
    command = ["data", "check", str(mine), "--split-file", str(table)]
    assert main(command) == 0
    assert f"note: all 4 cases of {table} are here, with the content that it tells of\n" in capsys.readouterr().out
    write_nifti(mine / "images" / "b.nii.gz", np.ones((3, 36, 40), np.int16))
    assert main(command) == 0
    assert f"note: 1 case is with another content than in {table}: b\n" in capsys.readouterr().out
    table.write_text(table.read_text().replace("checksums: nii", "checksums: mhd"))
    assert main(command) == 0
    assert "content" not in capsys.readouterr().out


def test_real_acdc_is_the_published_one(acdc):
    findings = list(findings_of(acdc).values())
    assert len(findings) == 180
    assert not any(finding.problem or finding.warnings for finding in findings)
    assert judge(findings, detect(acdc).class_names) == checking.Verdict((), ())
    note = "all 180 cases of the published split are here, with the published content"
    assert compare(findings, "acdc", format_of(detect(acdc), acdc)) == (note,)
