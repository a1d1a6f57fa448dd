"""Predictions and labels of any model: formats, names, axes, and what can't be used."""

import pickle
from pathlib import Path

import h5py
import nibabel
import numpy as np
import pytest
import torch

from nacl.reporting import CaseFiles, Reading, ReportCase, find_cases, nnunet_labels
from nacl.reporting.cases import checked_case

SHAPE = (5, 6, 7)  # z, y, x: no two alike, so that a wrong order can't fit


def made_case(seed=0, *, shape=SHAPE, classes=3, sharpness=2.0):
    """Probabilities (C, ...) in float32 and labels drawn from them."""
    rng = np.random.default_rng(seed)
    logits = sharpness * rng.standard_normal((classes, *shape))
    probs = np.exp(logits) / np.exp(logits).sum(axis=0)
    label = (rng.random(shape) < probs.cumsum(axis=0)).argmax(axis=0)
    return probs.astype(np.float32), label.astype(np.uint8)


def nifti(path: Path, array, *, spacing=(1.0, 1.0, 1.0)):
    """An array (z, y, x) or (C, z, y, x) as nibabel writes it: x, y, z, and the classes last."""
    image = nibabel.Nifti1Image(np.ascontiguousarray(array.T), np.diag([*spacing[::-1], 1.0]))
    image.header.set_zooms((*spacing[::-1], 1.0)[: array.ndim])
    nibabel.save(image, path)


def hdf5(path: Path, **arrays):
    with h5py.File(path, "w") as h5:
        for key, array in arrays.items():
            h5[key] = array


def checked(item, **options):
    return checked_case(item, **{"num_classes": None, "ignore_index": -100, **options})


# Formats

WRITE = {
    "npy": lambda file, probs: np.save(file, probs),
    "npz": lambda file, probs: np.savez_compressed(file, probabilities=probs),
    "h5": lambda file, probs: hdf5(file, softmax=probs, other=probs[0]),
    "hdf5": lambda file, probs: hdf5(file, anything=probs),
    "nii": nifti,
    "nii.gz": nifti,
}


def write_label(file: Path, label):
    if file.name.endswith((".nii", ".nii.gz")):
        nifti(file, label, spacing=(3.0, 2.0, 1.0))
    elif file.suffix == ".h5":
        hdf5(file, image=label.astype(np.float32), mask=label)
    else:
        WRITE[file.suffix[1:]](file, label)


@pytest.mark.parametrize("of_label", WRITE)
@pytest.mark.parametrize("of_scores", WRITE)
def test_every_format_beside_every_other(tmp_path, of_scores, of_label):
    probs, label = made_case()
    file, truth = tmp_path / f"a_pred.{of_scores}", tmp_path / f"a_gt.{of_label}"
    WRITE[of_scores](file, probs)
    write_label(truth, label)
    case = checked(CaseFiles("a", file, truth))
    assert torch.equal(case.scores, torch.from_numpy(probs)[None])
    assert torch.equal(case.target, torch.from_numpy(label).long()[None])
    assert case.spacing == ((3.0, 2.0, 1.0) if of_label.startswith("nii") else None)
    assert not case.from_logits


class Bomb:
    """Leaves a file behind where it is unpickled."""

    def __init__(self, file):
        self.file = file

    def __reduce__(self):
        return Path.touch, (self.file,)


def test_nnunet_s_folder_is_read_without_its_pickle(tmp_path):
    probs, label = made_case()
    for folder in ("predicted", "labelsTr", "imagesTr"):
        (tmp_path / folder).mkdir()
    for name in ("case_001", "case_002"):
        np.savez_compressed(tmp_path / "predicted" / f"{name}.npz", probabilities=probs)
        (tmp_path / "predicted" / f"{name}.pkl").write_bytes(pickle.dumps(Bomb(tmp_path / "exploded")))
        nifti(tmp_path / "predicted" / f"{name}.nii.gz", probs.argmax(axis=0).astype(np.uint8))
        nifti(tmp_path / "labelsTr" / f"{name}.nii.gz", label, spacing=(8.0, 1.5, 1.25))
        nifti(tmp_path / "imagesTr" / f"{name}_0000.nii.gz", label.astype(np.float32))
    (tmp_path / "predicted" / "dataset.json").write_text('{"labels": {"background": 0, "b": 2, "a": 1, "ignore": 3}}')
    found = find_cases(tmp_path / "predicted", tmp_path / "labelsTr", images=tmp_path / "imagesTr")
    assert [files.name for files in found] == ["case_001", "case_002"]
    case = checked(found[0])
    assert np.array_equal(case.scores[0].numpy(), probs)
    assert np.array_equal(case.image, label)
    assert case.spacing == (8.0, 1.5, 1.25)
    assert nnunet_labels(tmp_path / "predicted") == (["background", "a", "b"], 3)
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize("text", ["", "[]", '{"labels": {"whole": [1, 2]}}', '{"labels": {"background": "x"}}'])
def test_a_dataset_json_of_something_else_says_nothing(tmp_path, text):
    (tmp_path / "dataset.json").write_text(text)
    assert nnunet_labels(tmp_path) == nnunet_labels(tmp_path / "none") == (None, None)


def test_nothing_is_unpickled(tmp_path):
    bomb = np.array([Bomb(tmp_path / "exploded")], dtype=object)
    np.save(tmp_path / "a.npy", bomb, allow_pickle=True)
    np.savez(tmp_path / "a.npz", label=bomb)
    (tmp_path / "b.npy").write_bytes(pickle.dumps(Bomb(tmp_path / "exploded")))
    for name in ("a.npy", "a.npz", "b.npy"):
        with pytest.raises(ValueError, match=rf"{name}: it holds pickled objects, which are never loaded"):
            CaseFiles("a", tmp_path / name, tmp_path / name).load()
    assert not (tmp_path / "exploded").exists()


def test_a_big_endian_label_of_floats_and_half_precision(tmp_path):
    probs, label = made_case(sharpness=6)
    np.save(tmp_path / "p.npy", probs.astype(np.float16))
    np.save(tmp_path / "l.npy", label.astype(">f8"))
    case = checked(CaseFiles("a", tmp_path / "p.npy", tmp_path / "l.npy"))
    assert case.scores.dtype == torch.float32
    assert (case.scores[0].numpy() - probs).max() < 1e-3
    assert np.array_equal(case.target[0].numpy(), label)


# Keys


def test_keys_by_rank_by_wish_and_alone(tmp_path):
    probs, label = made_case()
    np.savez(tmp_path / "p.npz", logits=np.log(probs), mine=probs, probs=probs[::-1])
    np.savez(tmp_path / "l.npz", other=label, seg=label)
    files = CaseFiles("a", tmp_path / "p.npz", tmp_path / "l.npz")
    assert np.array_equal(files.load().probs, probs[::-1])
    wished = CaseFiles("a", tmp_path / "p.npz", tmp_path / "l.npz", reading=Reading(key="mine", label_key="other"))
    assert np.array_equal(wished.load().probs, probs)
    np.savez(tmp_path / "p.npz", one=probs, two=probs)
    with pytest.raises(ValueError, match=r"p\.npz: .*\['one', 'two'\].*--key"):
        files.load()
    with pytest.raises(ValueError, match=r"Did you mean 'one'"):
        CaseFiles("a", tmp_path / "p.npz", tmp_path / "l.npz", reading=Reading(key="on")).load()


# Axes


def axes_case(tmp_path, scores, label, *, key="p", **reading):
    np.savez(tmp_path / "p.npz", **{key: scores})
    if isinstance(label, Path):
        return CaseFiles("a", tmp_path / "p.npz", label, reading=Reading(**reading))
    np.save(tmp_path / "l.npy", label)
    return CaseFiles("a", tmp_path / "p.npz", tmp_path / "l.npy", reading=Reading(**reading))


def test_the_class_axis_is_found_by_the_label_s_shape_or_said(tmp_path):
    probs, label = made_case()
    for axis in range(4):
        stored = np.moveaxis(probs, 0, axis)
        assert np.array_equal(axes_case(tmp_path, stored, label).load().probs, probs)
    probs, label = made_case(shape=(3, 3, 3))
    last = np.moveaxis(probs, 0, -1)
    assert np.array_equal(axes_case(tmp_path, last, label, class_axis=-1).load().probs, probs)
    assert np.array_equal(axes_case(tmp_path, last, label).load().probs, last)  # the first, where all fit
    with pytest.raises(ValueError, match="`class_axis` below the number of axes, 4, got 4"):
        axes_case(tmp_path, last, label, class_axis=4).load()


def test_a_class_axis_of_a_nifti_file_is_meant_as_stored(tmp_path):
    probs, label = made_case()
    nifti(tmp_path / "p.nii.gz", probs)
    nifti(tmp_path / "l.nii.gz", label)
    for axis in (3, -1):
        files = CaseFiles("a", tmp_path / "p.nii.gz", tmp_path / "l.nii.gz", reading=Reading(class_axis=axis))
        assert np.array_equal(files.load().probs, probs)


def test_axes_of_one_pixel_come_and_go(tmp_path):
    probs, label = made_case(shape=(6, 7))
    for stored in (probs, probs[:, None], probs[None], probs[:, :, None]):
        assert np.array_equal(axes_case(tmp_path, stored, label).load().probs, probs)
    assert np.array_equal(axes_case(tmp_path, probs, label[None]).load().probs, probs[:, None])


def test_cubes_follow_the_rule_of_the_format_or_the_user(tmp_path):
    probs, label = made_case(shape=(4, 4, 4), sharpness=0.1)  # no order finds clearly more
    nifti(tmp_path / "l.nii.gz", label)
    turned = probs.transpose(0, 3, 2, 1)
    for key, reading, expected in [
        ("probabilities", {}, probs),
        ("p", {}, turned),
        ("p", {"axis_order": "zyx"}, probs),
        ("softmax", {"axis_order": "xyz"}, turned),
    ]:
        files = axes_case(tmp_path, probs, tmp_path / "l.nii.gz", key=key, **reading)
        assert np.array_equal(files.load().probs, expected)
    with pytest.raises(ValueError, match=r"`axis_order` to be one of 'zyx', 'xyz', got 'xzy'"):
        Reading(axis_order="xzy")


def test_a_cube_in_the_order_that_is_plainly_wrong_is_refused(tmp_path):
    probs, label = made_case(shape=(8, 8, 8), sharpness=9)
    nifti(tmp_path / "l.nii.gz", label)
    with pytest.raises(ValueError, match=r"p\.npz: .*order x, y, z.*--axis-order zyx"):
        axes_case(tmp_path, probs, tmp_path / "l.nii.gz").load()
    turned = probs.transpose(0, 3, 2, 1)
    with pytest.raises(ValueError, match=r"--axis-order xyz"):
        axes_case(tmp_path, turned, tmp_path / "l.nii.gz", key="softmax").load()
    assert np.array_equal(axes_case(tmp_path, turned, tmp_path / "l.nii.gz").load().probs, probs)


def test_shapes_that_do_not_fit_are_both_named(tmp_path):
    probs, label = made_case()
    with pytest.raises(ValueError, match=r"p\.npz: .*\(5, 6, 7\).*got \(3, 5, 6, 6\)"):
        axes_case(tmp_path, probs[..., :-1], label).load()


# Pairs


def touch(folder: Path, *names):
    folder.mkdir()
    for name in names:
        (folder / name).touch()
    return folder


@pytest.mark.parametrize(
    ("scores", "labels", "names"),
    [
        (["a.npy", "b.npz"], ["b.nii.gz", "a.h5"], ["a", "b"]),
        (["a_0000.npy", "pred_b.npz"], ["a_gt.nii.gz", "b-mask.nii"], ["a", "b"]),
        (["x_pred.npy", "y_pred.npy", "notes.txt", "x.pkl"], ["x.npy", "y.npy"], ["x", "y"]),
        (["frame_1.npy", "frame_10.npy"], ["frame_1.npy", "frame_10.npy"], ["frame_1", "frame_10"]),
        (["a.npz", "a.nii.gz", ".b.npz"], ["a.nii.gz"], ["a"]),
    ],
)
def test_pairs_by_name(tmp_path, scores, labels, names):
    found = find_cases(touch(tmp_path / "p", *scores), touch(tmp_path / "l", *labels))
    assert [files.name for files in found] == names
    assert all(files.scores.parent.name == "p" and files.label.parent.name == "l" for files in found)
    assert not any(files.scores.name == "a.nii.gz" for files in found)


def test_names_without_a_partner_are_listed_on_both_sides(tmp_path):
    scores = touch(tmp_path / "p", "a.npy", "b.npy", "only_here.npy")
    labels = touch(tmp_path / "l", "a.npy", "b.npy", *(f"more{i}.npy" for i in range(10)))
    with pytest.raises(ValueError, match="1 without a label") as error:
        find_cases(scores, labels)
    for part in ("only_here", "10 without a prediction", "more7, ...", "--ignore-unmatched to report the 2"):
        assert part in str(error.value)
    assert [files.name for files in find_cases(scores, labels, ignore_unmatched=True)] == ["a", "b"]


def test_nothing_in_common_is_an_error_even_if_unmatched_are_ignored(tmp_path):
    scores, labels = touch(tmp_path / "p", "a.npy"), touch(tmp_path / "l", "b.npy")
    with pytest.raises(ValueError, match=r"without a label in .*: a; .*: b\. Rename them\."):
        find_cases(scores, labels, ignore_unmatched=True)


def test_two_files_of_one_case_are_an_error(tmp_path):
    scores, labels = touch(tmp_path / "p", "a_pred.npy", "a_gt.npy"), touch(tmp_path / "l", "a.npy")
    with pytest.raises(ValueError, match=r"one file a case, got a_gt\.npy and a_pred\.npy"):
        find_cases(scores, labels)
    assert [f.name for f in find_cases(scores, touch(tmp_path / "k", "a_gt.npy"), ignore_unmatched=True)] == ["a_gt"]


def test_folders_that_are_empty_missing_or_the_same(tmp_path):
    full = touch(tmp_path / "full", "a.npy")
    with pytest.raises(ValueError, match="`PREDICTIONS` with files"):
        find_cases(touch(tmp_path / "empty", "notes.txt"), full)
    with pytest.raises(FileNotFoundError, match=r"LABELS: no such folder: .*missing"):
        find_cases(full, tmp_path / "missing")
    with pytest.raises(ValueError, match="`LABELS` in another folder"):
        find_cases(full, full)


def test_the_patient_is_read_from_the_name():
    assert Reading(patient="^[^_]+").patient_of("p01_frame2") == "p01"
    assert Reading(patient="_(f.)").patient_of("p01_frame2") == "fr"
    assert Reading().patient_of("p01_frame2") is None
    with pytest.raises(ValueError, match=r"`patient` to match every case's name, got 'x' \(p01\)"):
        Reading(patient="x").patient_of("p01")
    with pytest.raises(ValueError, match="`patient` to be a regular expression"):
        Reading(patient="(")


# Probabilities or logits


def test_logits_and_probabilities_are_told_apart():
    probs, label = made_case()
    logits = np.log(probs)
    for scores, wish, expected in [
        (probs, None, False),
        (logits, None, True),
        (probs, True, True),
        (probs, False, False),
    ]:
        case = checked(ReportCase("a", scores, label, from_logits=wish))
        assert case.from_logits is expected
        assert np.array_equal(case.scores[0].numpy(), scores)
    assert torch.allclose(checked(("a", logits, label)).probs, torch.from_numpy(probs)[None])
    with pytest.raises(ValueError, match="from_logits=False"):
        checked(ReportCase("a", logits, label, from_logits=False))


def test_the_foreground_alone_makes_two_classes():
    probs, label = made_case(classes=2)
    for scores in (probs[1], probs[1:]):
        assert np.allclose(checked(("a", scores, label)).scores[0].numpy(), probs, atol=1e-6)
    logit = np.log(probs[1] / probs[0])
    assert np.allclose(checked(("a", logit, label)).probs[0].numpy(), probs, atol=1e-6)


def test_sigmoid_outputs_get_a_remedy_and_a_forced_sum_is_mended():
    probs, label = made_case()
    with pytest.raises(ValueError, match=r"sum to 1 within 0\.001.*Sigmoid outputs.*--from-logits"):
        checked(("a", 0.7 * probs, label))
    case = checked(ReportCase("a", (0.99 * probs).astype(np.float32), label, from_logits=False))
    assert np.allclose(case.scores[0].numpy(), probs, atol=1e-6)
    with pytest.raises(ValueError, match=r"within 0\.05"):
        checked(ReportCase("a", 0.7 * probs, label, from_logits=False))


# What can't be used


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda p, y: (np.where(p == p.max(), np.nan, p), y), "`probs` of finite values"),
        (lambda p, y: (np.where(p == p.max(), -np.inf, p), y), "`probs` of finite values"),
        (lambda p, y: (p.argmax(axis=0), y), "A label map has no confidence"),
        (lambda p, y: (p.argmax(axis=0).astype(float), y), "A label map has no confidence"),
        (lambda p, y: (p, y + 1), r"`label` in \[0, 3\) or ignore_index=-100, got 3.*--ignore-index 3"),
        (lambda p, y: (p, y - 0.5), r"`label` of whole numbers"),
        (lambda p, y: (p, np.where(y == 1, np.nan, y)), r"`label` of whole numbers, got nan"),
        (lambda p, y: (p, y.astype(str)), "`label` of numbers"),
        (lambda p, y: (p, y[0, 0]), "`label` of shape"),
        (lambda p, y: (p[:, :0], y[:0]), "not empty"),
        (lambda p, y: (p, y[1:]), r"`probs` of shape \(C, 4, 6, 7\), got \(3, 5, 6, 7\)"),
        (lambda p, y: (p, y, (1.0, 1.0)), "`spacing` of 3 positive numbers"),
        (lambda p, y: (p, y, (1.0, 1.0, 0.0)), "`spacing` of 3 positive numbers"),
        (lambda p, y: (p, y, None, y[0]), "`image` of the label's shape"),
        (lambda p, y: (p, np.full(y.shape, -100)), "`label` with a pixel that counts"),
    ],
)
def test_what_is_wrong_with_a_case_is_said(change, match):
    with pytest.raises((ValueError, TypeError), match=match):
        checked(("a", *change(*made_case())))


def test_a_case_of_another_kind_or_number_of_classes():
    probs, label = made_case()
    with pytest.raises(TypeError, match="`cases` of ReportCase"):
        checked("a")
    with pytest.raises(ValueError, match="`probs` of 4 classes, got 3"):
        checked(("a", probs, label), num_classes=4)
