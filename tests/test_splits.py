"""Splits: published manifests, the rule of the hash, and a user's file; patients never cross."""

import hashlib
import re
from collections import Counter
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from oracles import light

from nacl.data import SPLITS
from nacl.data import manifest as manifests
from nacl.data.benchmarks.raw import RawCase
from nacl.data.manifest import Entry, Manifest, content_checksum, file_format, read_manifest, write_manifest
from nacl.data.splits import assign_splits, patients_by_visits, published_splits, split_by_hash

NAMES = st.text("abcdefghij0123456789_-.", min_size=1, max_size=8)
PATIENTS = st.sets(NAMES, max_size=60)
PUBLISHED = sorted(file.stem for file in manifests.FOLDER.glob("*.csv"))
BY_RULE = {  # names, and how many train, validate and test
    "flare": ([f"train_{i:03d}" for i in range(361)], (241, 40, 80)),
    "brats2020": ([f"BraTS20_Training_{i:03d}" for i in range(1, 370)], (258, 37, 74)),
    "promise12": ([f"Case{i:02d}" for i in range(50)], (35, 5, 10)),
    "mrbrains18": (["1", "4", "5", "7", "14", "070", "148"], (5, 1, 1)),
}


def raw_cases(*names: str, split: str | None = None) -> list[RawCase]:
    """Cases PATIENT_TIME, or PATIENT alone."""
    return [RawCase(n, n.partition("_")[0], (Path(f"{n}.nii.gz"),), Path(f"{n}_seg.nii.gz"), split) for n in names]


def table(folder: Path, text: str | bytes) -> Path:
    file = folder / "my.csv"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return file


# The rule


def test_the_rule_is_an_order_by_hash():
    patients = [f"p{i}" for i in range(20)]
    ordered = sorted(patients, key=lambda p: hashlib.blake2b(f"mine/{p}/3".encode(), digest_size=16).digest())
    expected = dict(zip(ordered, ["train"] * 14 + ["valid"] * 2 + ["test"] * 4, strict=True))
    assert split_by_hash("mine", patients, seed=3) == expected


@light
@given(PATIENTS)
def test_shares_are_70_10_20_and_no_split_is_empty_from_three_patients_on(patients):
    counts = Counter(split_by_hash("x", patients).values())
    n = len(patients)
    assert counts.total() == n
    if n >= 3:
        assert min(counts[split] for split in SPLITS) >= 1
        assert abs(counts["valid"] - n / 10) <= max(0.5, 1 - n / 10)
        assert abs(counts["test"] - n / 5) <= max(0.5, 1 - n / 5)


@pytest.mark.parametrize(("patients", "counts"), [(0, []), (1, ["train"]), (2, ["test", "train"]), (3, sorted(SPLITS))])
def test_few_patients(patients, counts):
    assert sorted(split_by_hash("x", map(str, range(patients))).values()) == counts


def test_seven_subjects_are_split_5_1_1():
    """A threshold on the hash would leave validation or testing empty in half of the draws."""
    for seed in range(20):
        counts = Counter(split_by_hash("x", "1234567", seed=seed).values())
        assert [counts[split] for split in SPLITS] == [5, 1, 1]


@light
@given(PATIENTS.filter(bool), st.integers(0, 3))
def test_one_patient_more_moves_at_most_two_others(patients, seed):
    """One across each border."""
    grown = sorted(patients)
    before = split_by_hash("x", grown[:-1], seed=seed)
    after = split_by_hash("x", grown, seed=seed)
    assert sum(before[patient] != after[patient] for patient in before) <= 2


@light
@given(st.permutations([f"p{i}" for i in range(12)]))
def test_the_order_of_patients_does_not_matter(patients):
    assert split_by_hash("x", patients) == split_by_hash("x", sorted(patients) * 2)


def test_name_and_seed_change_the_split():
    patients = [f"p{i}" for i in range(40)]
    splits = [split_by_hash(name, patients, seed=seed) for name, seed in (("x", 0), ("y", 0), ("x", 1))]
    assert all(a != b for a, b in zip(splits, splits[1:] + splits[:1], strict=True))


def test_counts_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"`counts` that sum to 3 patients, got \(1, 1, 2\)"):
        split_by_hash("x", "abc", counts=(1, 1, 2))


@light
@given(st.sets(NAMES.filter(lambda name: "_" not in name), min_size=1, max_size=20), st.integers(1, 3))
def test_patients_never_cross_splits(patients, times):
    raw = raw_cases(*(f"{patient}_{time}" for patient in patients for time in range(times)))
    splits = assign_splits(raw, "nobody's")
    assert set(splits) == {case.name for case in raw}
    assert len({(case.patient, splits[case.name]) for case in raw}) == len(patients)


# Published manifests


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_manifest_has_each_patient_in_one_split_and_no_split_empty(name):
    entries = manifests.published(name).entries
    assert {entry.split for entry in entries} == set(SPLITS)
    assert len({entry.case for entry in entries}) == len(entries)
    assert len({(entry.patient, entry.split) for entry in entries}) == len({entry.patient for entry in entries})
    assert [entry.case for entry in entries] == sorted(entry.case for entry in entries)


@pytest.mark.parametrize("name", BY_RULE)
def test_manifests_of_names_are_the_rule_s(name):
    patients, counts = BY_RULE[name]
    assert published_splits(name) == split_by_hash(name, patients, counts=counts)
    assert not manifests.published(name).checksums_of


def test_the_manifest_of_acdc_has_90_patients_and_names_the_other_10():
    entries = manifests.published("acdc").entries
    patients = {entry.patient: entry.split for entry in entries}
    assert Counter(patients.values()) == {"train": 70, "valid": 10, "test": 10}
    assert Counter(entry.patient for entry in entries) == dict.fromkeys(patients, 2)
    others = {f"patient{i:03d}" for i in range(1, 101)} - set(patients)
    text = " ".join(manifests.published("acdc").notes)
    assert len(others) == 10
    assert all(patient.removeprefix("patient") in text for patient in others)
    assert all(entry.checksum for entry in entries)


def test_the_manifest_of_acdc_is_that_of_the_real_files(acdc):
    entries = manifests.published("acdc").entries
    assert {(e.split, e.case) for e in entries} == {(file.parent.name, file.stem) for file in acdc.glob("*/*.h5")}
    for entry in entries[::30]:
        with h5py.File(acdc / entry.split / f"{entry.case}.h5") as h5:
            image, label = (np.moveaxis(h5[key][...], 2, 0) for key in ("img", "mask"))
        assert content_checksum(image[None], label) == entry.checksum


def test_a_name_that_is_a_path_gives_no_manifest(tmp_path):
    assert manifests.published("../manifests/acdc") is None
    assert manifests.published(str(manifests.FOLDER / "acdc")) is None
    assert manifests.published("nobody's") is None


def test_a_manifest_is_read_as_it_was_written(tmp_path):
    entries = (Entry("a_1", "a", "train", "0" * 32), Entry("a_2", "a", "train"), Entry("b-1.5", "b", "test"))
    written = Manifest(entries, ("mine, of 2 patients", "checksums: nii (how)"))
    write_manifest(tmp_path / "new" / "m.csv", written)
    assert read_manifest(tmp_path / "new" / "m.csv") == written
    assert written.checksums_of == "nii"


HEAD = "case,patient,split,checksum\n"
BAD_MANIFESTS = {
    "path up": (HEAD + "../../etc/passwd,a,train,\n", r"line 2` with the name of a case, got '../../etc/passwd'"),
    "absolute": (HEAD + "a,/etc,train,\n", r"line 2` with the name of a patient, got '/etc'"),
    "dots": (HEAD + "..,a,train,\n", r"line 2` with the name of a case, got '\.\.'"),
    "backslash": (HEAD + "a\\b,a,train,\n", "line 2` with the name of a case"),
    "no name": (HEAD + ",a,train,\n", "line 2` with the name of a case, got ''"),
    "twice": (HEAD + "a,a,train,\na,a,train,\n", r"line 3` with a case of its own, got a \(also .*line 2\)"),
    "crossing": (HEAD + "a_1,a,train,\na_2,a,test,\n", r"line 3` with patient a in one split, got 'test', and 'train'"),
    "checksum": (HEAD + "a,a,train,12\n", "line 2` with a checksum of 32 hexadecimal digits, got '12'"),
    "split": ("# note\n" + HEAD + "a,a,val,\n", r"line 3` to be one of 'train', 'valid', 'test', got 'val'.*'valid'\?"),
    "columns": ("case,split\na,train\n", "the columns case, patient, split, checksum, got the columns case, split"),
}


@pytest.mark.parametrize("bad", BAD_MANIFESTS)
def test_a_bad_manifest_is_refused_by_file_and_line(tmp_path, bad):
    text, message = BAD_MANIFESTS[bad]
    file = table(tmp_path, text)
    with pytest.raises(ValueError, match=message) as caught:
        read_manifest(file)
    assert str(file) in str(caught.value)


def test_a_checksum_is_of_content_and_not_of_storage():
    image, label = np.arange(24).reshape(1, 2, 3, 4), np.arange(24).reshape(2, 3, 4) % 3
    label = label.astype(np.uint8)
    same = {content_checksum(image.astype(dtype), label) for dtype in ("u1", "i2", ">f4", "f8")}
    same.add(content_checksum(np.asfortranarray(image), np.asfortranarray(label)))
    assert len(same) == 1
    others = [(image + 1, label), (image, label[..., ::-1]), (image.reshape(1, 2, 4, 3), label.reshape(2, 4, 3))]
    assert not same & {content_checksum(*other) for other in others}


def test_the_format_of_a_file_is_its_ending_without_the_packing():
    names = ("a.nii.gz", "a.nii", "b.1.mhd", "c.H5", "d")
    assert [file_format(RawCase("a", "a", (Path(n),), Path(n))) for n in names] == ["nii", "nii", "mhd", "h5", ""]


def test_a_manifest_keeps_whom_it_leaves_out(tmp_path, monkeypatch):
    entries = (Entry("a_1", "a", "train"), Entry("a_2", "a", ""), Entry("b_1", "b", ""))
    monkeypatch.setattr(manifests, "FOLDER", tmp_path)
    write_manifest(tmp_path / "mine.csv", Manifest(entries))
    assert read_manifest(tmp_path / "mine.csv").entries == entries
    raw = raw_cases("a_1", "a_2", "b_1")
    assert assign_splits(raw, "mine", split_file=tmp_path / "mine.csv") == {"a_1": "train"}
    assert published_splits("mine") == {"a": "train"}


# Visits


@pytest.mark.parametrize(
    ("names", "patients"),
    [
        ("sub-00_ses-1 sub-00_ses-2 sub-01_ses-1", "sub-00 sub-01"),
        ("pat10_v2 pat10_V1 pat1_v1 alone", "pat10 pat1 alone"),
        ("p1_frame03 p1-frame12 p_2_t0 p_2_visit1", "p1 p_2"),
    ],
)
def test_names_of_visits_are_joined_by_the_pattern_of_the_hint(names, patients):
    hint = patients_by_visits(names.split())
    assert hint.startswith(f"{len(names.split())} names look like {len(patients.split())} patients")
    pattern = re.search("'(.*)'", hint)[1]
    assert {re.search(pattern, name)[0] for name in names.split()} == set(patients.split())


@pytest.mark.parametrize("names", ["", "a b c", "liver_scan1 liver_scan2", "v1 v2", "p_1 p_2", "a_vessel b_tumour"])
def test_names_that_tell_of_no_visits_give_no_hint(names):
    assert patients_by_visits(names.split()) == ""


# Who decides


def test_a_folder_may_keep_cases_out_of_the_splits():
    """As the part for testing of ACDC: the test set stays the manifest's, and nobody's hash is moved by it."""
    extra = raw_cases("patient101_frame01", split="")
    assert assign_splits([*raw_cases("patient001_frame01"), *extra], "acdc") == {"patient001_frame01": "test"}
    assert assign_splits(extra, "acdc") == {}
    others = raw_cases(*(f"p{i}" for i in range(10)))
    assert assign_splits([*others, *raw_cases("x", split="")], "mine") == assign_splits(others, "mine")


def test_the_manifest_decides_by_patient_and_leaves_out_whom_it_does_not_name():
    """The official files of ACDC number frames otherwise than the manifest's: patient001_frame12."""
    raw = raw_cases("patient001_frame12", "patient002_frame01", "patient003_frame01", "patient007_frame01")
    expected = {"patient001_frame12": "test", "patient002_frame01": "valid", "patient003_frame01": "train"}
    assert assign_splits(raw, "acdc") == expected


def test_the_folder_decides_over_the_manifest_and_a_file_over_both(tmp_path):
    raw = [*raw_cases("patient001_frame01", split="train"), *raw_cases("patient003_frame01")]
    assert assign_splits(raw, "acdc") == {"patient001_frame01": "train", "patient003_frame01": "train"}
    file = table(tmp_path, "patient,split\npatient001,valid\npatient003,test\n")
    expected = {"patient001_frame01": "valid", "patient003_frame01": "test"}
    assert assign_splits(raw, "acdc", split_file=file) == expected


def test_names_that_the_manifest_does_not_know_are_split_by_the_rule():
    raw = raw_cases(*(f"mine{i}" for i in range(10)))
    assert Counter(assign_splits(raw, "acdc").values()) == {"train": 7, "valid": 1, "test": 2}
    assert assign_splits(raw, "acdc", seed=0) != assign_splits(raw, "acdc", seed=1)


@pytest.mark.parametrize(("others", "counts"), [(1, (1, 0)), (2, (1, 1)), (8, (7, 1)), (16, (14, 2)), (19, (17, 2))])
def test_beside_a_test_set_of_the_folder_the_others_are_split_7_to_1(others, counts):
    raw = [*raw_cases("x", "y", split="test"), *raw_cases(*(f"p{i}" for i in range(others)))]
    found = Counter(assign_splits(raw, "mine").values())
    assert (found["train"], found["valid"], found["test"]) == (*counts, 2)


def test_a_patient_whom_the_folder_and_the_manifest_put_in_two_splits_is_refused():
    raw = [*raw_cases("patient003_frame01", split="test"), *raw_cases("patient003_frame02")]
    with pytest.raises(ValueError, match="patient003 in 'test' and 'train'"):
        assign_splits(raw, "acdc")


def test_a_patient_in_two_folders_of_splits_is_refused():
    raw = [*raw_cases("a_1", split="train"), *raw_cases("a_2", split="test")]
    with pytest.raises(ValueError, match="a in 'train' and 'test'"):
        assign_splits(raw, "mine")


# A user's file


@pytest.mark.parametrize(
    "text",
    [
        "case,split\na_1,train\na_2,train\nb,test\n",
        "patient,split\na,train\nb,test\n",
        "\ufeffPatient;Split\r\nb;test\r\n\r\na;train\r\n",
        '# mine\n\nsplit\tage\tpatient\n"train"\t3\t a \ntest\t4\tb',
        "case,patient,split,checksum\na_1,a,train,\na_2,a,train,\nb,b,test,\n",
    ],
)
def test_a_file_of_cases_or_patients_decides(tmp_path, text):
    splits = assign_splits(raw_cases("a_1", "a_2", "b"), "mine", split_file=table(tmp_path, text))
    assert splits == {"a_1": "train", "a_2": "train", "b": "test"}


@pytest.mark.parametrize("key", ["case", "patient"])
def test_an_empty_split_leaves_out_over_the_folder(tmp_path, key):
    raw = [*raw_cases("a", "b", split="train"), *raw_cases("c"), *raw_cases("d", split="")]
    file = table(tmp_path, f"{key},split\na,\nb,test\nc,\nd,valid\n")
    assert assign_splits(raw, "mine", split_file=file) == {"b": "test", "d": "valid"}


def test_one_volume_of_a_patient_may_be_left_out(tmp_path):
    file = table(tmp_path, "case,split\na_1,\na_2,train\na_3,\n")
    assert assign_splits(raw_cases("a_1", "a_2", "a_3"), "mine", split_file=file) == {"a_2": "train"}


BAD_FILES = {
    "unknown case": (
        "case,split\na_1,train\na_3,train\n",
        r"line 3` with one of the 3 cases .* 'a_3'. Did you mean 'a_",
    ),
    "file": ("case,split\na_1.nii.gz,train\n", r"got 'a_1.nii.gz'. Did you mean 'a_1'\?"),
    "unknown patient": ("patient,split\nzoe,train\n", "line 2` with one of the 2 patients that were found, got 'zoe'."),
    "case left out": (
        "case,split\na_1,train\na_2,train\n",
        "with a line for each case, got none for 1: b. .* or with an empty split to leave them out",
    ),
    "patient left out": ("patient,split\nb,train\n", "with a line for each patient, got none for 1: a. Add them"),
    "crossing": (
        "case,split\na_1,train\nb,test\na_2,test\n",
        r"line 4` with patient a in one split.*'train' in .*line 2",
    ),
    "twice": ("patient,split\na,train\nb,test\nb,test\n", "line 4` with a patient of its own, got b"),
    "split": ("case,split\n\na_1,traning\n", r"line 3` to be one of .* got 'traning'. Did you mean 'train'\?"),
    "no split": ("case,fold\na,0\n", "with the columns split, got the columns case, fold"),
    "no name": ("subject,split\na,train\n", "the column case or patient beside split, got the columns subject, split"),
    "column twice": ("case,split,split\na_1,train,test\n", "columns split, got the columns case, split, split"),
    "values": ("case,split\na_1,train,x\n", "line 2` with 2 values, got 3"),
    "quote": ('case,split\n"a_1,train\n', "got unexpected end of data in line 3"),
    "empty": ("", "got no line of text"),
    "notes alone": ("# nothing\n\n", "got no line of text"),
    "header alone": ("case,split\n", "with a line for each case, got a header alone"),
    "NUL": ("case,split\na_1,tr\0ain\n", "got a NUL byte in line 2"),
    "not text": (b"\x1f\x8b\x08\x00case,split", "to be a table in UTF-8, got byte 0x8b"),
    "path": ("case,split\n../../a_1,train\n", "line 2` with one of the 3 cases that were found, got '../../a_1'"),
}


@pytest.mark.parametrize("bad", BAD_FILES)
def test_a_bad_file_is_refused_by_name_and_line(tmp_path, bad):
    text, message = BAD_FILES[bad]
    file = table(tmp_path, text)
    with pytest.raises(ValueError, match=message) as caught:
        assign_splits(raw_cases("a_1", "a_2", "b"), "mine", split_file=file)
    assert str(file) in str(caught.value)


def test_a_file_that_is_no_table_of_names_is_not_read_whole(tmp_path):
    file = tmp_path / "scan.nii"
    with file.open("wb") as stream:
        stream.truncate(manifests.LARGEST + 1)
    with pytest.raises(ValueError, match=r"scan\.nii` to be a table of names, got a file of 17 MB"):
        assign_splits(raw_cases("a"), "mine", split_file=file)
    for endless in ("/dev/zero", str(tmp_path)):
        with pytest.raises(ValueError, match=f"`{endless}` to be a file, got a folder, a device"):
            assign_splits(raw_cases("a"), "mine", split_file=endless)
    with pytest.raises(OSError, match="none"):
        assign_splits(raw_cases("a"), "mine", split_file=tmp_path / "none.csv")
