"""A user's own folder of pairs: which cases, classes and channels are found, and what is refused."""

import json
import pickle
import shutil
from dataclasses import replace

import numpy as np
import pytest
import SimpleITK
from raw_folders import scan, write_folder, write_nifti, write_nnunet, write_prostate

from nacl.data import load_dataset
from nacl.data.benchmarks import benchmark_of, detect, name_of
from nacl.data.benchmarks.folder import benchmark, find


@pytest.fixture
def pairs(tmp_path):
    return write_folder(tmp_path / "pairs")


@pytest.fixture
def nnunet(tmp_path):
    return write_nnunet(tmp_path / "nnunet")


def labels_of(folder):
    return {case.name: case.label for case in find(folder)}


def labels_read(own, folder):
    return {case.name: own.read(case, own).label for case in own.find(folder)}


def retell(folder, **facts):
    """The folder with another dataset.json."""
    file = folder / "dataset.json"
    told = json.loads(file.read_text()) if file.exists() else {}
    file.write_text(json.dumps({key: value for key, value in {**told, **facts}.items() if value is not None}))
    return folder


# What is found


@pytest.mark.parametrize("suffix", [".nii.gz", ".nii", ".mha", ".mhd"])
def test_pairs_are_found_in_each_format(tmp_path, suffix):
    folder = write_folder(tmp_path / "liver", suffix=suffix)
    own = detect(folder)
    assert (own.name, own.class_names, own.channel_names) == (
        "liver",
        ("background", "class 1", "class 2"),
        ("image",),
    )
    assert [case.name for case in own.find(folder)] == ["a", "b", "c", "d"]
    for seed, case in enumerate(own.find(folder)):
        volume = own.read(case, own)
        image, label = scan((0, 1, 2), seed=seed)
        assert np.array_equal(volume.image, image)
        assert np.array_equal(volume.label, label)
        assert (case.patient, case.split) == (case.name, None)


def test_an_image_and_its_label_may_be_of_two_formats(pairs):
    label = labels_of(pairs)["b"]
    own = benchmark(pairs)
    before = labels_read(own, pairs)["b"]
    itk = SimpleITK.ReadImage(label)
    label.unlink()
    stored = label.with_name("b.mha")
    SimpleITK.WriteImage(itk, stored)
    assert labels_of(pairs)["b"] == stored
    assert np.array_equal(labels_read(own, pairs)["b"], before)


def test_nnunet_has_channels_in_order_classes_and_a_test_set(nnunet):
    own = benchmark_of("folder", nnunet)
    assert own.class_names == ("background", "liver", "spleen")
    assert own.channel_names == ("channel 0", "channel 1")
    cases = own.find(nnunet)
    assert [(case.name, case.split) for case in cases] == [("a", None), ("b", None), ("c", None), ("z", "test")]
    for case in cases:
        assert [file.name for file in case.images] == [f"{case.name}_0000.nii.gz", f"{case.name}_0001.nii.gz"]
        assert [channel.max() // 2000 for channel in own.read(case, own).image] == [0, 1]
    assert pickle.loads(pickle.dumps(own)).find(nnunet) == cases


def test_images_for_testing_need_no_labels(nnunet):
    shutil.rmtree(nnunet / "labelsTs")
    assert list(labels_of(nnunet)) == ["a", "b", "c"]


def test_another_task_of_the_decathlon_is_a_folder_of_pairs(tmp_path):
    folder = write_prostate(tmp_path)
    for file in [*folder.rglob("*.nii.gz")]:
        file.rename(file.with_name(file.name.replace("prostate", "brats")))
    own = detect(folder)
    assert own.class_names == ("background", "PZ", "TZ")
    assert own.channel_names == ("T2", "ADC")
    assert own.read(own.find(folder)[0], own).image.shape[0] == 2


def test_a_name_that_ends_in_four_digits_is_a_case_where_a_label_has_it(tmp_path):
    folder = write_folder(tmp_path, names=("scan_2019", "scan_2020"))
    assert list(labels_of(folder)) == ["scan_2019", "scan_2020"]


def test_patients_are_found_by_a_regular_expression(tmp_path):
    folder = write_folder(tmp_path, names=("p1_day1", "p1_day2", "p2_day1"))
    for pattern in (r"(p\d+)_", r"^p\d+"):
        own = benchmark(folder, patient=pattern)
        assert [case.patient for case in own.find(folder)] == ["p1", "p1", "p2"]
    with pytest.raises(ValueError, match="finds none in 'p1_day1'"):
        benchmark(folder, patient="q")
    with pytest.raises(ValueError, match=r"regular expression, got '\('"):
        benchmark(folder, patient="(")


# Classes


def test_classes_are_the_values_that_occur(tmp_path):
    folder = write_folder(tmp_path, labels=(0, 5, 200))
    own = benchmark(folder)
    assert own.class_names == ("background", "class 5", "class 200")
    assert set(np.unique(labels_read(own, folder)["a"])) == {0, 1, 2}


def test_a_label_that_occurs_once_is_a_class_and_an_unreadable_file_stops_nothing(pairs):
    labels = labels_of(pairs)
    write_nifti(labels["d"], scan((0, 1, 2, 7))[1])
    labels["b"].write_bytes(b"")
    own = benchmark(pairs)
    assert own.class_names == ("background", "class 1", "class 2", "class 7")
    with pytest.raises(ValueError, match="an empty file"):
        own.read(own.find(pairs)[1], own)
    for file in labels.values():
        file.write_bytes(b"")
    with pytest.raises(ValueError, match="an empty file"):
        benchmark(pairs)


def test_given_names_come_before_the_table_and_labels_beyond_them_are_strange(nnunet):
    assert benchmark_of("folder", nnunet, class_names=["back", "a", "b"]).class_names == ("back", "a", "b")
    own = benchmark(nnunet, class_names=("back", "a"))
    with pytest.raises(ValueError, match=r"with labels 0, 1, got \[2\]"):
        own.read(own.find(nnunet)[0], own)


@pytest.mark.parametrize("names", ["ab", ["one"], ["a", "a"], ["a", ""], ["a", 1], [str(k) for k in range(256)]])
def test_names_that_are_none_are_refused(pairs, names):
    with pytest.raises(ValueError, match="`class_names` to be 2 to 255 different names"):
        benchmark(pairs, class_names=names)


def test_more_values_than_classes_can_be_are_refused(pairs):
    file = labels_of(pairs)["a"]
    write_nifti(file, np.arange(3 * 36 * 40, dtype=np.int16).reshape(3, 36, 40))
    with pytest.raises(ValueError, match=r"a\.nii\.gz` with labels as the other .*got 4317 that no.*Is it an image"):
        benchmark(pairs)
    for other in "bcd":
        labels_of(pairs)[other].unlink()
        (pairs / "images" / f"{other}.nii.gz").unlink()
    with pytest.raises(ValueError, match=r"at most 255 labels, got 4320.*not images"):
        benchmark(pairs)


TOLD = {
    "nnU-Net": ({"background": 0, "liver": 1, "spleen": 2}, ("background", "liver", "spleen"), None, {}),
    "Decathlon": ({"0": "background", "1": "liver", "2": "spleen"}, ("background", "liver", "spleen"), None, {}),
    "gaps": ({"background": 0, "core": 1, "rim": 4}, ("background", "core", "rim"), {0: 0, 1: 1, 4: 2}, {}),
    "text": ({"background": "0", "liver": "1"}, ("background", "liver"), None, {}),
    "other background": ({"nothing": 0, "liver": 1}, ("nothing", "liver"), None, {}),
    "regions": (
        {"background": 0, "whole": [1, 2, 3], "core": [2, 3], "enhancing": [3]},
        ("background", "class 1", "class 2", "enhancing"),
        None,
        {"whole": (1, 2, 3), "core": (2, 3), "enhancing": (3,)},
    ),
}


@pytest.mark.parametrize("kind", TOLD)
def test_a_table_names_classes_and_regions(nnunet, kind):
    labels, names, label_map, regions = TOLD[kind]
    own = benchmark(retell(nnunet, labels=labels))
    assert (own.class_names, own.label_map, own.regions) == (names, label_map, regions)


WRONG = {
    "ignore": ({"background": 0, "liver": 1, "ignore": 2}, 'without a label to ignore, got "ignore": 2'),
    "no background": ({"liver": 1, "spleen": 2}, "2 to 255 labels from 0"),
    "one class": ({"background": 0}, "2 to 255 labels"),
    "negative": ({"background": 0, "liver": -1}, "2 to 255 labels"),
    "huge": ({"background": 0, "liver": 10**9}, "to 65535"),
    "two names": ({"background": 0, "liver": 1, "hepar": 1}, "'liver' and 'hepar' for 1"),
    "list": (["background", "liver"], "with labels as in"),
    "infinite": ({"background": 0, "liver": float("inf")}, "with labels as in"),
    "a fraction": ({"background": 0, "liver": 1.7}, "with labels as in"),
    "true": ({"background": 0, "liver": True}, "with labels as in"),
    "a fraction of a region": ({"background": 0, "liver": [1, 2.5]}, "with labels as in"),
    "words": ({"background": 0, "liver": "two"}, "with labels as in"),
    "none": ({"background": 0, "liver": []}, "with labels as in"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_a_table_of_other_classes_is_refused(nnunet, kind):
    labels, message = WRONG[kind]
    with pytest.raises(ValueError, match=message) as caught:
        benchmark(retell(nnunet, labels=labels))
    assert str(nnunet / "dataset.json") in str(caught.value)


@pytest.mark.parametrize("told", [{"0": "CT"}, {"0": "a", "2": "b"}, ["a", "b"], "CT"])
def test_a_table_of_other_channels_is_refused(nnunet, told):
    with pytest.raises(ValueError, match="channels 0 to 1"):
        benchmark(retell(nnunet, channel_names=told))


def test_channels_have_names_without_a_table(nnunet):
    (nnunet / "dataset.json").unlink()
    assert benchmark(nnunet).channel_names == ("channel 0", "channel 1")


# What is refused


def test_images_alone_are_no_folder_of_pairs(pairs):
    shutil.rmtree(pairs / "labels")
    assert detect(pairs) is None


def test_no_voxel_is_read_to_say_that_a_folder_is_to_be_prepared(pairs):
    for file in pairs.rglob("*.nii.gz"):
        file.write_bytes(b"")
    with pytest.raises(ValueError, match="Prepare it first: nacl data prepare folder"):
        load_dataset(str(pairs), size=32)


def test_files_without_partner_are_named(pairs):
    (pairs / "labels" / "b.nii.gz").unlink()
    (pairs / "images" / "c.nii.gz").unlink()
    with pytest.raises(ValueError, match=r"2 without a partner: images/b\.nii\.gz, labels/c\.nii\.gz") as caught:
        benchmark(pairs)
    assert str(pairs) in str(caught.value)


def test_two_files_of_one_name_are_named(pairs):
    write_nifti(pairs / "labels" / "b.nii", scan((0, 1, 2))[1])
    with pytest.raises(ValueError, match=r"one file a name, got b\.nii and b\.nii\.gz") as caught:
        benchmark(pairs)
    assert str(pairs / "labels") in str(caught.value)


def test_a_case_in_both_parts_is_named(nnunet):
    for part, name in (("images", "a_0000"), ("images", "a_0001"), ("labels", "a")):
        shutil.copy(nnunet / f"{part}Tr" / f"{name}.nii.gz", nnunet / f"{part}Ts")
    with pytest.raises(ValueError, match="one case a name, got 'a' and 'a'"):
        benchmark(nnunet)


def test_a_name_that_can_be_no_file_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"with names of 1 to 100 letters, digits.*got 'my scan'"):
        benchmark(write_folder(tmp_path, names=("good", "my scan")))


def test_a_missing_channel_is_named_when_its_case_is_read(nnunet):
    (nnunet / "imagesTr" / "b_0001.nii.gz").unlink()
    own = benchmark(nnunet)
    problems = {}
    for case in own.find(nnunet):
        try:
            own.read(case, own)
        except ValueError as error:
            problems[case.name] = str(error)
    assert list(problems) == ["b"]
    assert str(nnunet / "imagesTr" / "b_0001.nii.gz") in problems["b"]


def test_an_empty_folder_is_told_what_to_hold(tmp_path):
    for part in ("", "images", "labels"):
        (tmp_path / part).mkdir(exist_ok=True)
        with pytest.raises(ValueError, match=r"with cases, got none.*images/NAME.nii.gz"):
            benchmark(tmp_path)
    assert detect(tmp_path) is None


def test_leftovers_and_other_files_are_no_cases(pairs):
    for name in ("images/._a.nii.gz", "labels/._q.nii.gz", "images/info.json", "labels/.DS_Store"):
        (pairs / name).write_bytes(b"\0")
    assert list(labels_of(pairs)) == ["a", "b", "c", "d"]


@pytest.mark.parametrize("suffix", [".NII.GZ", ".NII", ".MHA", ".MHD"])
def test_endings_may_be_in_upper_case(pairs, suffix):
    before = labels_read(benchmark(pairs), pairs)["b"]
    lower = write_folder(pairs.parent / "other", suffix=suffix.lower())
    for part in ("images", "labels"):
        (pairs / part / "b.nii.gz").unlink()
        for file in (lower / part).glob("b.*"):
            new = file.name.replace(suffix.lower(), suffix)
            shutil.copy(file, pairs / part / new)
    assert np.array_equal(labels_read(benchmark(pairs), pairs)["b"], before)


@pytest.mark.parametrize("part", ["images", "labels"])
def test_files_of_other_formats_are_named(pairs, part):
    (pairs / part / "q.nrrd").write_bytes(b"NRRD")
    (pairs / part / "r.Nii").touch()
    with pytest.raises(ValueError, match=r"got q\.nrrd, r\.Nii\. Convert them, or move them away") as caught:
        detect(pairs)
    assert str(pairs / part) in str(caught.value)


def test_voxels_beside_a_header_are_no_file_of_another_format(tmp_path):
    folder = write_folder(tmp_path, suffix=".mhd")
    header = folder / "images" / "b.mhd"
    header.with_suffix(".raw").rename(header.with_name("vox0.bin"))
    header.write_text(header.read_text().replace("b.raw", "vox0.bin"))
    assert list(labels_of(folder)) == ["a", "b", "c", "d"]
    (folder / "images" / "vox1.bin").write_bytes(b"0")
    with pytest.raises(ValueError, match=r"got vox1\.bin\."):
        find(folder)


@pytest.mark.parametrize(
    ("place", "name"),
    [
        ("my liver (2)", "my-liver-2"),
        ("..%", "folder"),
        ("acdc", "acdc-own"),
        ("FLARE", "FLARE-own"),
        ("a_b.c", "a_b.c"),
    ],
)
def test_the_name_is_that_of_the_folder_and_none_of_a_benchmark(tmp_path, place, name):
    own = detect(write_folder(tmp_path / place))
    assert (own.name, name_of(own)) == (name, "folder")
    assert name_of(replace(own, name="flare")) == "flare"


def test_an_image_among_the_labels_is_named(pairs):
    _, label = scan(range(9))
    write_nifti(labels_of(pairs)["c"], np.where(label > 2, label + 20, label))  # 6 classes of its own may be
    assert len(benchmark(pairs).class_names) == 9
    write_nifti(labels_of(pairs)["c"], np.arange(3 * 36 * 40, dtype=np.int16).reshape(3, 36, 40) % 40)
    with pytest.raises(ValueError, match=r"c\.nii\.gz` with labels as .*got 37 that no other file has.*an image"):
        benchmark(pairs)


def test_folders_and_labels_that_are_to_be_renamed_are_told(pairs):
    label = pairs / "labels" / "b.nii.gz"
    label.rename(label.with_name("b_seg.nii.gz"))
    with pytest.raises(ValueError, match=r"without a partner.*rename b_seg\.nii\.gz to b\.nii\.gz"):
        benchmark(pairs)
    for part in ("images", "labels"):
        (pairs / part).rename(pairs / "between")
        (pairs / "between").rename(pairs / part.title())
    with pytest.raises(ValueError, match=r"got Images/ and Labels/\. Rename Images/ to images/ and Labels/ to labels/"):
        benchmark(pairs)
