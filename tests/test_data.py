"""Cases: the phantom against its own formula, the ACDC reader against hand-made and real files, and files gone bad."""

import itertools
import math
import shutil
from dataclasses import replace

import h5py
import numpy as np
import pytest
import torch
from conftest import square_case, write_volume
from scipy.special import ndtri
from scipy.stats import binom

from nacl.data import SPLITS, Case, Dataset, dataset_fingerprint, load_dataset, resize_case, resolve_data, stack_slices
from nacl.data import acdc as reader
from nacl.data.phantom import PARAMETERS, draw_labels, generate

ONE_EACH = {"train": 1, "valid": 1, "test": 1}
PLAIN = replace(
    PARAMETERS,
    cases=ONE_EACH,
    centre=(0.5, 0.5),
    cavity_radius=(0.15, 0.15),
    wall=(0.07, 0.07),
    ellipticity=(0, 0),
    right_radius=(0.18, 0.18),
    ambiguity=(0.02, 0.02),
)


# The phantom


def test_phantom_posterior_is_a_distribution_at_every_pixel():
    for case in generate(32).cases:
        assert case.posterior.min() >= 0
        assert case.posterior.max() <= 1
        np.testing.assert_allclose(case.posterior.sum(axis=0), 1, atol=1e-6)


def test_phantom_has_one_shape_of_case():
    dataset = generate(32)
    assert {split: len(dataset.split(split)) for split in SPLITS} == PARAMETERS.cases
    for case in dataset.cases:
        assert case.image.shape == case.label.shape == case.posterior.shape[1:] == (8, 32, 32)
        assert (case.image.dtype, case.label.dtype, case.posterior.dtype) == (np.float32, np.uint8, np.float32)
        assert np.isfinite(case.image).all()
        assert 0 <= case.image.min() <= case.image.max() <= 1
        assert set(np.unique(case.label)) == {0, 1, 2, 3}


def test_phantom_is_the_same_every_time_and_no_two_cases_are_equal():
    first, second = generate(32).cases, generate(32).cases
    for a, b in zip(first, second, strict=True):
        assert a.name == b.name
        assert all(
            np.array_equal(x, y) for x, y in [(a.image, b.image), (a.label, b.label), (a.posterior, b.posterior)]
        )
    assert len({case.image.tobytes() for case in first}) == len(first)


def test_phantom_splits_share_no_patient():
    patients = {split: {case.patient for case in generate(32).split(split)} for split in SPLITS}
    assert all(not patients[a] & patients[b] for a, b in itertools.combinations(SPLITS, 2))


def test_phantom_posterior_is_its_formula():
    case = generate(64, PLAIN).cases[0]

    def phi(z: float) -> float:
        return (1 + math.erf(z / math.sqrt(2))) / 2

    for plane, row, column in [(0, 32, 32), (0, 32, 41), (0, 20, 44), (3, 40, 30), (5, 28, 28), (7, 33, 36)]:
        depth = plane / 7
        radius = math.hypot((column + 0.5) / 64 - 0.5, (row + 0.5) / 64 - 0.5)
        inner = 0.15 * math.sqrt(1 - 0.8 * depth**2)
        q_in, q_out = phi((inner - radius) / 0.02), phi((inner + 0.07 - radius) / 0.02)
        p = case.posterior[:, plane, row, column]
        assert p[3] == pytest.approx(q_in, abs=1e-6)
        assert p[2] == pytest.approx(q_out - q_in, abs=1e-6)
        assert p[0] + p[1] == pytest.approx(1 - q_out, abs=1e-6)


def test_phantom_without_ambiguity_has_the_areas_of_its_circles():
    case = generate(128, replace(PLAIN, ambiguity=(1e-9, 1e-9))).cases[0]
    area = [(case.label[0] == k).mean() for k in range(4)]
    assert area[3] == pytest.approx(math.pi * 0.15**2, rel=0.02)
    assert area[2] == pytest.approx(math.pi * (0.22**2 - 0.15**2), rel=0.02)
    assert np.array_equal(case.label, case.posterior.argmax(axis=0))


def test_phantom_image_without_noise_is_the_mean_intensity_under_the_posterior():
    case = generate(32, replace(PLAIN, texture=0.0, bias=0.0, noise=0.0)).cases[0]
    expected = sum(m * p for m, p in zip(PLAIN.intensities, case.posterior, strict=True))
    np.testing.assert_allclose(case.image, expected, atol=1e-6)


def test_drawn_labels_have_the_posterior_at_every_pixel():
    """Exact two-sided binomial tests, one a pixel and class, at a family-wise significance of 0.1% (Bonferroni)."""
    draws, posterior = 4000, generate(16).cases[0].posterior[:, 2].astype(np.float64)
    # Slices are independent of each other, so one call with the same posterior in 4000 slices is 4000 draws.
    labels = draw_labels(np.repeat(posterior[:, None], draws, axis=1), np.random.default_rng(1))
    counts = np.stack([(labels == k).sum(axis=0) for k in range(4)])
    p = posterior.clip(0, 1)
    p_value = 2 * np.minimum(binom.cdf(counts, draws, p), binom.sf(counts - 1, draws, p))
    assert p_value.min() > 0.001 / p_value.size
    # The test can see: frequencies of a posterior that is 5 points off fail it.
    off = np.where((p > 0.3) & (p < 0.7), p + 0.05, p)
    assert (2 * np.minimum(binom.cdf(counts, draws, off), binom.sf(counts - 1, draws, off))).min() < 0.001 / p.size


def test_an_annotators_error_is_smooth():
    """At p = 1/2 everywhere neighbours agree far more often than independent labels would (1/2)."""
    posterior = np.zeros((4, 50, 64, 64))
    posterior[[0, 3]] = 0.5
    labels = draw_labels(posterior, np.random.default_rng(0))
    agree = (labels[:, :, 1:] == labels[:, :, :-1]).mean()
    assert agree > 0.8
    independent = draw_labels(posterior, np.random.default_rng(0), correlation=1e-6)
    assert (independent[:, :, 1:] == independent[:, :, :-1]).mean() == pytest.approx(0.5, abs=0.01)


def test_fields_are_standard_normal_at_every_pixel():
    """A class of probability p is drawn in a share p of slices also at corners, for several p."""
    for p in (0.1, 0.5, 0.9):
        posterior = np.zeros((4, 4000, 8, 8))
        posterior[3], posterior[0] = p, 1 - p
        share = (draw_labels(posterior, np.random.default_rng(2)) == 3).mean(axis=0)
        bound = -ndtri(0.0005 / share.size) * math.sqrt(p * (1 - p) / 4000)
        assert np.abs(share - p).max() < bound


# Cases


def test_a_patient_is_in_one_split_only():
    cases = (square_case("patient1_a", "train"), square_case("patient1_b", "test"))
    with pytest.raises(ValueError, match=r"patient1 in 'train' and 'test'"):
        Dataset("leaky", ("a", "b", "c"), cases, unit="px")


def test_a_case_needs_one_shape_and_a_known_split():
    image = np.zeros((2, 4, 4), np.float32)
    with pytest.raises(ValueError, match=r"\(2, 4, 4\) and \(2, 4, 5\).*case a"):
        Case("a", "train", image, np.zeros((2, 4, 5), np.uint8), (1.0, 1.0, 1.0))
    with pytest.raises(ValueError, match="Did you mean 'train'"):
        Case("a", "trian", image, image.astype(np.uint8), (1.0, 1.0, 1.0))


def test_split_gives_its_cases_in_order_of_names(squares):
    assert [case.name for case in squares.split("train")] == ["train0", "train1", "train2", "train3"]
    with pytest.raises(ValueError, match="Did you mean 'valid'"):
        squares.split("vaild")


def test_resize_keeps_lengths_means_and_labels():
    case = square_case("a", "train", size=64)
    small = resize_case(case, 16)
    assert small.image.shape == small.label.shape == (4, 16, 16)
    assert small.spacing == (1.0, 4.0, 4.0)
    blocks = case.image.reshape(4, 16, 4, 16, 4).mean(axis=(2, 4))
    np.testing.assert_allclose(small.image, blocks, atol=1e-6)
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
    assert case.image.shape == case.label.shape == (3, 192, 192)
    assert np.argwhere(case.image).tolist() == [[1, 10, 20]]
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
    assert {case.image.shape[1:] for case in dataset.cases} == {(48, 48)}
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
    assert case.image.shape[1:] == (192, 192)
    assert (case.image.min(), case.image.max()) == (0, 1)
    assert set(np.unique(case.label)) == {0, 1, 2, 3}
    blood, muscle = (case.image[case.label == k].mean() for k in (3, 2))
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
    checked = list(reader.check(folder))
    assert [path for path, case, _ in checked if case is None] == [file]
    assert [path for path, _, _ in checked] == reader.files(folder)
    assert [problem for _, _, problem in checked if problem] == [str(caught.value)]


def test_a_file_with_a_flipped_byte_is_read_or_refused_by_name(tmp_path):
    """No byte of the structure makes the reader fail in a way that `check` would not survive."""
    for split in ("valid", "test"):
        write_volume(tmp_path / split / "good.h5")
    file = write_volume(tmp_path / "train" / "flipped.h5")
    good, problems = file.read_bytes(), []
    for position in range(0, 1500, 11):
        file.write_bytes(good[:position] + bytes([good[position] ^ 0xFF]) + good[position + 1 :])
        problems += [problem for _, _, problem in reader.check(tmp_path) if problem]
    assert len(problems) > 10
    assert all(str(file) in problem for problem in problems)


# Where data is


def test_names_and_paths_are_resolved(tiny_acdc, monkeypatch):
    assert resolve_data("phantom") == "phantom"
    assert resolve_data(str(tiny_acdc)) == tiny_acdc.resolve()
    monkeypatch.chdir(tiny_acdc.parent)
    assert resolve_data("tiny") == tiny_acdc.resolve()
    assert resolve_data("./tiny/") == tiny_acdc.resolve()


def test_a_path_that_is_no_folder_is_named_with_what_to_give(tmp_path):
    (tmp_path / "file.h5").write_text("")
    for path in (tmp_path / "missing", tmp_path / "file.h5"):
        with pytest.raises(FileNotFoundError, match=r"Give the folder that holds train/, valid/ and test/") as caught:
            load_dataset(str(path), size=32)
        assert str(path) in str(caught.value)
    with pytest.raises(ValueError, match="Did you mean 'phantom'"):
        resolve_data("phantm")


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
