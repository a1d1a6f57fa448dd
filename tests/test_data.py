"""Cases: their one shape, the ACDC authors' files, hand-made, real and gone bad, and what a name or a path leads to."""

import shutil
from dataclasses import replace

import h5py
import numpy as np
import pytest
import torch
from conftest import square_case, write_volume
from raw_folders import WRITERS

from nacl.data import (
    SPLITS,
    Case,
    Dataset,
    dataset_fingerprint,
    dataset_name,
    load_dataset,
    resize_case,
    resolve_data,
    stack_slices,
)
from nacl.data.benchmarks import acdc as reader
from nacl.data.benchmarks import detect, name_of
from nacl.data.check import examine
from nacl.data.phantom import generate
from nacl.data.prepared.own_cases import prepare_cases

# Cases


def test_a_patient_is_in_one_split_only():
    cases = (
        replace(square_case("patient1_a", "train"), patient="patient1"),
        replace(square_case("patient1_b", "test"), patient="patient1"),
    )
    with pytest.raises(ValueError, match=r"patient1 in 'train' and 'test'"):
        Dataset("leaky", ("a", "b", "c"), cases, unit="px")


def test_a_case_needs_one_shape_and_a_known_split():
    image = np.zeros((2, 4, 4), np.float32)
    with pytest.raises(ValueError, match=r"\(1, 2, 4, 4\) and \(2, 4, 5\).*case a"):
        Case("a", "train", image, np.zeros((2, 4, 5), np.uint8), (1.0, 1.0, 1.0))
    with pytest.raises(ValueError, match="Did you mean 'train'"):
        Case("a", "trian", image, image.astype(np.uint8), (1.0, 1.0, 1.0))


@pytest.mark.parametrize(
    ("values", "error", "message"),
    [
        ({"label": np.full((2, 4, 4), 300)}, ValueError, r"`label` in \[0, 255\], got \[300, 300\] \(case a\)"),
        ({"label": np.full((2, 4, 4), -1)}, ValueError, r"`label` in \[0, 255\], got \[-1, -1\]"),
        ({"label": np.full((2, 4, 4), 0.5)}, TypeError, "`label` to be an array of integers, got dtype float64"),
        ({"image": np.full((2, 4, 4), "x")}, TypeError, "`image` to be an array of numbers"),
        ({"image": None}, TypeError, "`image` to be an array of numbers, got dtype object"),
        ({"spacing": None}, ValueError, "`spacing` of three finite positive numbers.*got None"),
        ({"spacing": (1.0, 1.0)}, ValueError, r"`spacing`.*got \(1.0, 1.0\)"),
        ({"spacing": (1.0, 0.0, 1.0)}, ValueError, "`spacing`"),
        ({"spacing": (1.0, float("nan"), 1.0)}, ValueError, "`spacing`"),
    ],
)
def test_a_case_refuses_what_cannot_be_a_volume(values, error, message):
    zeros = np.zeros((2, 4, 4))
    right = {"image": zeros, "label": zeros.astype(int), "spacing": (1.0, 1.0, 1.0)}
    with pytest.raises(error, match=message):
        Case("a", "train", **{**right, **values})


def test_a_case_turns_numbers_into_its_own_dtypes_and_copies_only_then():
    image, label = np.ones((2, 4, 4)), np.ones((2, 4, 4), bool)
    case = Case("a", "train", image, label, (1, 1, 1))
    assert (case.image.dtype, case.label.dtype) == (np.float32, np.uint8)
    again = replace(case, name="b")
    assert np.shares_memory(again.image, case.image)
    assert np.shares_memory(again.label, case.label)


def test_a_case_is_found_by_its_name(squares):
    assert squares.split("train").named("train2").name == "train2"
    with pytest.raises(ValueError, match="Did you mean 'train2'"):
        squares.split("train").named("tran2")


def test_split_gives_its_cases_in_order_of_names(squares):
    assert [case.name for case in squares.split("train")] == ["train0", "train1", "train2", "train3"]
    with pytest.raises(ValueError, match="Did you mean 'valid'"):
        squares.split("vaild")


def test_resize_keeps_lengths_means_and_labels():
    case = square_case("a", "train", size=64)
    small = resize_case(case, 16)
    assert small.image.shape[1:] == small.label.shape == (4, 16, 16)
    assert small.spacing == (1.0, 4.0, 4.0)
    blocks = case.image.reshape(4, 16, 4, 16, 4).mean(axis=(2, 4))
    np.testing.assert_allclose(small.image[0], blocks, atol=1e-6)
    assert small.label.dtype == np.uint8
    assert set(np.unique(small.label)) <= set(np.unique(case.label))
    assert (small.label == 1).mean() == pytest.approx((case.label == 1).mean(), abs=0.05)
    assert resize_case(case, 64) is case


def test_resize_of_labels_takes_a_pixel_near_the_middle():
    label = np.arange(64, dtype=np.uint8).reshape(1, 8, 8)
    small = resize_case(Case("a", "train", np.zeros((1, 8, 8), np.float32), label, (1.0, 1.0, 1.0)), 4).label[0]
    rows, columns = np.divmod(small, 8)
    assert (np.abs(rows - (np.arange(4)[:, None] * 2 + 0.5)) <= 0.5).all()
    assert (np.abs(columns - (np.arange(4)[None, :] * 2 + 0.5)) <= 0.5).all()


def test_resize_refuses_a_posterior_and_no_size():
    with pytest.raises(ValueError, match="without a posterior, got train000"):
        resize_case(generate(16).cases[0], 8)
    with pytest.raises(ValueError, match="`size` of at least 1, got 0"):
        resize_case(square_case("a", "train"), 0)


def test_stack_gives_every_slice_once(squares):
    images, labels = stack_slices(squares.split("train"))
    assert (images.shape, images.dtype) == ((16, 1, 32, 32), torch.float32)
    assert (labels.shape, labels.dtype) == ((16, 32, 32), torch.uint8)
    assert np.array_equal(labels[4:8], squares.split("train")[1].label)
    with pytest.raises(ValueError, match="slices of one size"):
        stack_slices([square_case("a", "train"), square_case("b", "train", size=64)])
    with pytest.raises(ValueError, match="cases"):
        stack_slices([])


# The ACDC reader


def test_acdc_case_is_depth_height_width(tmp_path):
    img = np.zeros((192, 192, 3), np.uint8)
    mask = np.zeros_like(img)
    img[10, 20, 1], mask[30, 40, 2] = 200, 3
    case = reader.read_case(write_volume(tmp_path / "valid" / "patient007_frame01.h5", img=img, mask=mask))
    assert (case.name, case.patient, case.split) == ("patient007_frame01", "patient007", "valid")
    assert case.image.shape[1:] == case.label.shape == (3, 192, 192)
    assert np.argwhere(case.image[0]).tolist() == [[1, 10, 20]]
    assert np.argwhere(case.label).tolist() == [[2, 30, 40]]
    assert case.spacing == (1.0, 1.0, 1.0)


def test_acdc_224_is_cropped_to_the_middle_192(tmp_path):
    rng = np.random.default_rng(0)
    img, mask = rng.random((224, 224, 2)).astype(np.float32), rng.integers(0, 4, (224, 224, 2)).astype(np.uint8)
    wide = reader.read_case(write_volume(tmp_path / "train" / "wide.h5", img=img, mask=mask))
    crop = {"img": img[16:208, 16:208], "mask": mask[16:208, 16:208]}
    narrow = reader.read_case(write_volume(tmp_path / "train" / "narrow.h5", **crop))
    assert np.array_equal(wide.image, narrow.image)
    assert np.array_equal(wide.label, narrow.label)


def test_acdc_intensities_span_0_to_1_whatever_the_storage(tmp_path):
    levels = np.random.default_rng(0).integers(0, 256, (192, 192, 2))
    levels[0, 0], levels[0, 1] = 0, 255
    as_bytes = reader.read_case(write_volume(tmp_path / "train" / "a.h5", img=levels.astype(np.uint8)))
    for array in (levels * 3.7 - 120, (levels * 0.01).astype(np.float32), (levels * 16).astype(np.uint16)):
        other = reader.read_case(write_volume(tmp_path / "train" / "b.h5", img=array))
        np.testing.assert_allclose(other.image, as_bytes.image, atol=1e-6)
    assert (as_bytes.image.min(), as_bytes.image.max()) == (0, 1)


def test_acdc_constant_image_is_0_and_float_labels_of_whole_numbers_are_taken(tmp_path):
    img, mask = np.full((192, 192, 2), 7.0), np.full((192, 192, 2), 2.0)
    case = reader.read_case(write_volume(tmp_path / "train" / "a.h5", img=img, mask=mask))
    assert not case.image.any()
    assert case.label.dtype == np.uint8
    assert (case.label == 2).all()


def test_acdc_folder_is_read_at_any_size(tiny_acdc):
    dataset = load_dataset(str(tiny_acdc), size=48)
    assert [len(dataset.split(split)) for split in SPLITS] == [3, 1, 2]
    assert {case.image.shape[2:] for case in dataset.cases} == {(48, 48)}
    assert {case.spacing for case in dataset.cases} == {(1.0, 4.0, 4.0)}
    assert (dataset.name, dataset.num_classes, dataset.unit) == ("acdc", 4, "px")


def test_real_acdc_has_its_published_numbers(acdc):
    dataset = load_dataset(str(acdc), size=32)
    assert {s: len({case.patient for case in dataset.split(s)}) for s in SPLITS} == {
        "train": 70,
        "valid": 10,
        "test": 10,
    }
    assert {split: len(dataset.split(split)) for split in SPLITS} == {"train": 140, "valid": 20, "test": 20}
    assert len(stack_slices(dataset.split("train"))[0]) == 1312
    assert all(case.image.min() >= 0 and case.image.max() <= 1 for case in dataset.cases)


def test_real_acdc_is_anatomy(acdc):
    case = reader.read_case(acdc / "test" / "patient001_frame01.h5")
    assert case.image.shape[2:] == (192, 192)
    assert (case.image.min(), case.image.max()) == (0, 1)
    assert set(np.unique(case.label)) == {0, 1, 2, 3}
    blood, muscle = (case.image[0][case.label == k].mean() for k in (3, 2))
    assert blood > muscle + 0.1


# Files gone bad


def _cut(file):
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def _rewrite(**arrays):
    return lambda file: write_volume(file, **arrays)


def _without(key):
    def change(file):
        with h5py.File(file, "a") as h5:
            del h5[key]

    return change


def _group_as_image(file):
    with h5py.File(file, "a") as h5:
        del h5["img"]
        h5.create_group("img")


def _empty_image(file):
    with h5py.File(file, "a") as h5:
        del h5["img"]
        h5["img"] = h5py.Empty("f4")


def _broken_link(file):
    file.unlink()
    file.symlink_to(file.parent / "gone.h5")


def _with_value(value, *, key):
    array = np.zeros((192, 192, 2), np.float32)
    array[100, 100, 1] = value
    return _rewrite(**{key: array})


BAD = {
    "empty": (lambda file: file.write_bytes(b""), "an empty file"),
    "truncated": (_cut, "whole HDF5 file"),
    "text": (lambda file: file.write_text("not HDF5"), "whole HDF5 file"),
    "broken link": (_broken_link, "whole HDF5 file"),
    "no mask": (_without("mask"), "keys 'img' and 'mask'"),
    "img is a group": (_group_as_image, "img"),
    "img is null": (_empty_image, "img"),
    "shapes differ": (_rewrite(img=np.zeros((192, 192, 2)), mask=np.zeros((192, 192, 3))), "one shape"),
    "200 wide": (_rewrite(img=np.zeros((200, 200, 2)), mask=np.zeros((200, 200, 2))), r"\(192, 192, D\)"),
    "not square": (_rewrite(img=np.zeros((192, 224, 2)), mask=np.zeros((192, 224, 2))), r"\(192, 192, D\)"),
    "no slices": (_rewrite(img=np.zeros((192, 192, 0)), mask=np.zeros((192, 192, 0))), r"\(192, 192, D\)"),
    "one slice, flat": (_rewrite(img=np.zeros((192, 192)), mask=np.zeros((192, 192))), r"\(192, 192, D\)"),
    "NaN": (_with_value(np.nan, key="img"), "finite values in img"),
    "infinity": (_with_value(-np.inf, key="img"), "finite values in img"),
    "beyond float32": (_rewrite(img=np.linspace(0, 1e300, 192 * 192 * 2).reshape(192, 192, 2)), "img"),
    "label 7": (_with_value(7, key="mask"), r"labels 0, 1, 2, 3 in mask, got \[7"),
    "label -1": (_with_value(-1, key="mask"), r"labels 0, 1, 2, 3 in mask, got \[-1"),
    "label 1.5": (_with_value(1.5, key="mask"), r"labels 0, 1, 2, 3 in mask, got \[1\.5"),
    "label NaN": (_with_value(np.nan, key="mask"), "finite values in mask"),
    "text as image": (_rewrite(img=np.full((192, 192, 2), b"x")), "numbers in img"),
}


@pytest.fixture(params=BAD)
def bad(request, tiny_acdc_copy):
    """A folder whose second file is bad in one way, that file, and what its error must say."""
    spoil, message = BAD[request.param]
    file = tiny_acdc_copy / "train" / "patient001_frame02.h5"
    spoil(file)
    return tiny_acdc_copy, file, message


def test_a_bad_file_is_named_with_what_is_wrong_and_the_check_goes_on(bad):
    folder, file, message = bad
    with pytest.raises(ValueError, match=message) as caught:
        load_dataset(str(folder), size=32)
    assert str(file) in str(caught.value)
    findings = list(examine(reader.BENCHMARK, folder))
    assert len(findings) == len(reader.files(folder))
    assert {f.name: f.problem for f in findings if f.problem} == {file.stem: str(caught.value)}


def test_a_file_with_a_flipped_byte_is_read_or_refused_by_name(tmp_path):
    """No byte of the structure makes the reader raise anything but a ValueError."""
    file = write_volume(tmp_path / "train" / "flipped.h5")
    good, problems = file.read_bytes(), []
    for position in range(0, 1500, 11):
        file.write_bytes(good[:position] + bytes([good[position] ^ 0xFF]) + good[position + 1 :])
        try:
            reader.read_case(file)
        except ValueError as error:
            problems.append(str(error))
    assert len(problems) > 10
    assert all(str(file) in problem for problem in problems)


# Where data is


def test_names_and_paths_are_resolved(tiny_acdc, monkeypatch):
    assert [resolve_data(name) for name in ("phantom", "brain")] == ["phantom", "brain"]
    assert resolve_data(str(tiny_acdc)) == tiny_acdc.resolve()
    monkeypatch.chdir(tiny_acdc.parent)
    assert resolve_data("tiny") == tiny_acdc.resolve()
    assert resolve_data("./tiny/") == tiny_acdc.resolve()


def test_a_path_that_is_no_folder_is_named_with_what_to_give(tmp_path):
    (tmp_path / "file.h5").write_text("")
    for path in (tmp_path / "missing", tmp_path / "file.h5"):
        with pytest.raises(FileNotFoundError, match=r"Give a folder that `nacl data prepare` made") as caught:
            load_dataset(str(path), size=32)
        assert str(path) in str(caught.value)
    with pytest.raises(ValueError, match="Did you mean 'phantom'"):
        resolve_data("phantm")


@pytest.mark.parametrize("name", ["phantom", "brain"])
def test_embedded_data_sets_are_made_at_any_size(name):
    dataset = load_dataset(name, size=16)
    assert dataset.name == dataset_name(name) == name
    assert dataset.cases[0].image.shape[2:] == (16, 16)


def test_a_prepared_folder_is_known_by_its_index(tiny_acdc, tmp_path):
    case = square_case("a", "train")
    prepare_cases([case], tmp_path / "mine", name="squares", class_names=("a", "b", "c"))
    assert dataset_name(str(tmp_path / "mine")) == "squares"
    assert dataset_name(str(tiny_acdc)) == "acdc"
    dataset = load_dataset(str(tmp_path / "mine"), size=32)
    assert np.array_equal(dataset.cases[0].image, case.image)
    shutil.copytree(tmp_path / "mine", tmp_path / "copy")
    first = dataset_fingerprint(str(tmp_path / "copy"))
    assert dataset_fingerprint(str(tmp_path / "mine")) == first
    prepare_cases([replace(case, label=1 - case.label // 2)], tmp_path / "mine", name="squares", class_names=("a", "b"))
    assert dataset_fingerprint(str(tmp_path / "mine")) != first


@pytest.mark.parametrize("kind", [kind for kind in WRITERS if kind != "acdc_hdf5"])
def test_a_raw_folder_is_to_be_prepared_first(kind, tmp_path):
    folder = WRITERS[kind](tmp_path / "my raw")
    name = name_of(detect(folder))
    for call in (lambda: load_dataset(str(folder), size=32), lambda: dataset_fingerprint(str(folder))):
        with pytest.raises(ValueError, match=rf"Prepare it first: nacl data prepare {name} '.*my raw' TARGET"):
            call()


def test_a_folder_of_nothing_known_is_told_what_is_looked_for(tmp_path):
    (tmp_path / "notes.txt").write_text("")
    for call in (lambda: load_dataset(str(tmp_path), size=32), lambda: dataset_fingerprint(str(tmp_path))):
        with pytest.raises(FileNotFoundError, match=r"train/\*\.h5.*nacl data prepare") as caught:
            call()
        assert str(tmp_path) in str(caught.value)


def test_a_split_without_files_is_named(tiny_acdc_copy):
    shutil.rmtree(tiny_acdc_copy / "valid")
    with pytest.raises(FileNotFoundError, match=r"valid/\*\.h5") as caught:
        load_dataset(str(tiny_acdc_copy), size=32)
    assert str(tiny_acdc_copy / "valid") in str(caught.value)


def test_a_patient_in_two_splits_is_refused_when_data_is_loaded(tiny_acdc_copy):
    shutil.copy(tiny_acdc_copy / "train" / "patient001_frame01.h5", tiny_acdc_copy / "test")
    with pytest.raises(ValueError, match="patient001 in 'train' and 'test'"):
        load_dataset(str(tiny_acdc_copy), size=32)


# Fingerprints


def test_fingerprint_is_of_content_and_not_of_place(tiny_acdc, tiny_acdc_copy):
    (tiny_acdc_copy / "README").write_text("no part of the data")
    assert dataset_fingerprint(str(tiny_acdc_copy)) == dataset_fingerprint(str(tiny_acdc))
    assert dataset_fingerprint("phantom") == dataset_fingerprint("phantom") != dataset_fingerprint(str(tiny_acdc))


def test_fingerprint_of_the_phantom_is_the_one_of_finished_runs():
    assert dataset_fingerprint("phantom") == "e65193a35474ac3c5fe43d8749ec1886"
    assert dataset_fingerprint("brain") != dataset_fingerprint("phantom")


def test_fingerprint_sees_a_changed_byte_and_a_changed_name(tiny_acdc_copy):
    seen = [dataset_fingerprint(str(tiny_acdc_copy))]
    file = tiny_acdc_copy / "test" / "patient004_frame01.h5"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    seen.append(dataset_fingerprint(str(tiny_acdc_copy)))
    file.rename(file.with_name("patient009_frame01.h5"))
    seen.append(dataset_fingerprint(str(tiny_acdc_copy)))
    (tiny_acdc_copy / "test" / "patient009_frame01.h5").unlink()
    seen.append(dataset_fingerprint(str(tiny_acdc_copy)))
    assert len(set(seen)) == len(seen)


def test_regions_have_names_and_known_classes():
    cases = (square_case("a", "train"),)
    bad = [({"1": (1,)}, "no numbers"), ({"WT": (1, 3)}, r"classes in \[0, 3\).*WT"), ({"ET": ()}, "ET")]
    for regions, message in bad:
        with pytest.raises(ValueError, match=message):
            Dataset("regions", ("a", "b", "c"), cases, unit="px", regions=regions)
