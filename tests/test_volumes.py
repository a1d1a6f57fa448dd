"""Volumes: read as their formats' own libraries read them, and refused by name where they can't be right."""

import tracemalloc
from dataclasses import replace

import nibabel
import numpy as np
import pytest
import SimpleITK
from raw_folders import SPACING, affine, scan, write_meta, write_nifti

from nacl.data.benchmarks.flare import BENCHMARK as FLARE
from nacl.data.benchmarks.raw import RawCase
from nacl.data.benchmarks.volumes import count_channels, read_volumes, stored_labels

THREE = replace(FLARE, class_names=("background", "a", "b"), label_map=None)
SPARSE = replace(THREE, label_map={0: 0, 3: 2, 40: 1})


def pair(folder, *, suffix=".nii.gz", **options):
    """A case of an image and a label in one format."""
    image, label = scan((0, 1, 2))
    write = write_nifti if suffix.startswith(".nii") else write_meta
    files = write(folder / f"image{suffix}", image[0], **options), write(folder / f"label{suffix}", label, **options)
    return RawCase("a", "a", files[:1], files[1])


def label_file(folder, values, dtype=np.uint8):
    array = np.zeros((2, 4, 5), dtype)
    array.flat[: len(values)] = values
    return write_nifti(folder / "label.nii.gz", array)


def read_label(file, benchmark):
    """The classes of a label beside an image of one value."""
    shape = nibabel.load(file).shape[2::-1]
    image = write_nifti(file.with_name("image.nii.gz"), np.ones(shape, np.uint8))
    return read_volumes(RawCase("a", "a", (image,), file), benchmark).label


def itk(file):
    image = SimpleITK.ReadImage(str(file))
    return SimpleITK.GetArrayFromImage(image), image.GetSpacing()[::-1]


# What is read


@pytest.mark.parametrize("suffix", [".nii.gz", ".nii", ".mha", ".mhd"])
def test_axes_are_those_of_itk(tmp_path, suffix):
    case = pair(tmp_path, suffix=suffix)
    volume = read_volumes(case, THREE)
    voxels, spacing = itk(case.images[0])
    assert np.array_equal(volume.image[0], voxels)
    assert np.array_equal(volume.label, itk(case.label)[0])
    assert volume.spacing == SPACING == pytest.approx(spacing)
    assert (volume.image.dtype, volume.label.dtype, volume.unit) == (np.int16, np.uint8, "mm")


@pytest.mark.parametrize("axes", ["RAS", "LPS", "LAS", "PIR", "SLA", "ALI"])
def test_orientation_is_told_and_voxels_are_not_turned(tmp_path, axes):
    case = pair(tmp_path, axes=axes)
    volume = read_volumes(case, THREE)
    assert volume.axes == axes
    assert volume.spacing == SPACING
    assert np.array_equal(volume.image, scan((0, 1, 2))[0])


def test_both_formats_agree_where_itk_writes_both(tmp_path):
    image = SimpleITK.GetImageFromArray(scan((0, 1, 2))[0][0])
    image.SetSpacing((1.25, 1.5, 5.0))
    image.SetOrigin((10.0, -20.0, 30.0))
    image.SetDirection((0.6, -0.8, 0, 0.8, 0.6, 0, 0, 0, -1))
    for name in ("image.nii.gz", "image.mha"):
        SimpleITK.WriteImage(image, str(tmp_path / name))
    label = SimpleITK.Cast(image * 0, SimpleITK.sitkUInt8)
    SimpleITK.WriteImage(label, str(tmp_path / "label.mhd"))
    first, second = (
        read_volumes(RawCase("a", "a", (tmp_path / name,), tmp_path / "label.mhd"), THREE)
        for name in ("image.nii.gz", "image.mha")
    )
    assert np.array_equal(first.image, second.image)
    assert first.spacing == pytest.approx(second.spacing)
    assert first.axes == second.axes == "PRI"  # x points to (-0.6, -0.8, 0) in RAS, y to (0.8, -0.6, 0)


@pytest.mark.parametrize("dtype", ["u1", "<i2", ">i2", "<u2", ">f4", "<f8", "<i4"])
def test_an_image_keeps_its_dtype_in_native_order(tmp_path, dtype):
    array = scan((0, 1, 2))[0][0] // 4
    case = pair(tmp_path)
    header = nibabel.Nifti1Header(endianness=">" if dtype[0] == ">" else "<")
    header.set_data_dtype(dtype)
    nibabel.save(nibabel.Nifti1Image(array.T.astype(dtype), affine(), header), case.images[0])
    image = read_volumes(case, THREE).image
    assert image.dtype == np.dtype(dtype).newbyteorder("=")
    assert image.dtype.isnative
    assert np.array_equal(image[0], array.astype(dtype))


def test_a_scale_is_applied_in_float32(tmp_path):
    case = pair(tmp_path)
    stored = nibabel.Nifti1Image(np.asfortranarray(scan((0, 1, 2))[0][0].T), affine())
    stored.header.set_slope_inter(0.25, -100.0)
    nibabel.save(stored, case.images[0])
    volume = read_volumes(case, THREE)
    expected = nibabel.load(case.images[0]).get_fdata().T
    assert volume.image.dtype == np.float32
    np.testing.assert_allclose(volume.image[0], expected, rtol=1e-6)
    assert nibabel.load(case.images[0]).dataobj.slope == 0.25


@pytest.mark.parametrize("shape", [(6, 5), (6, 5, 1), (6, 5, 1, 1)])
def test_one_slice_is_a_volume(tmp_path, shape):
    array = np.arange(30, dtype=np.int16).reshape(shape)
    for name in ("image", "label"):
        matrix = np.diag([2.0, 3.0, 4.0, 1.0])
        nibabel.save(nibabel.Nifti1Image(array * (name == "image"), matrix), tmp_path / f"{name}.nii.gz")
    volume = read_volumes(RawCase("a", "a", (tmp_path / "image.nii.gz",), tmp_path / "label.nii.gz"), THREE)
    assert volume.image.shape == (1, 1, 5, 6)
    assert volume.label.shape == (1, 5, 6)
    assert volume.image[0, 0, 3, 4] == array.reshape(6, 5)[4, 3]
    assert volume.spacing[1:] == (3.0, 2.0)
    assert volume.spacing[0] > 0


def test_one_slice_need_not_tell_how_thick_it_is(tmp_path):
    case = pair(tmp_path, suffix=".nii")
    for file in (*case.images, case.label):
        write_nifti(file, np.zeros((1, 4, 5), np.uint8))
        raw = bytearray(file.read_bytes())
        raw[88:92] = bytes(4)  # pixdim[3]
        file.write_bytes(raw)
    assert read_volumes(case, THREE).spacing == (1.0, 1.5, 1.25)


def test_one_slice_of_two_axes_in_metaimage(tmp_path):
    array = np.arange(30, dtype=np.int16).reshape(5, 6)
    for name in ("image", "label"):
        image = SimpleITK.GetImageFromArray(array * (name == "image"))
        image.SetSpacing((2.0, 3.0))
        SimpleITK.WriteImage(image, str(tmp_path / f"{name}.mha"))
    volume = read_volumes(RawCase("a", "a", (tmp_path / "image.mha",), tmp_path / "label.mha"), THREE)
    assert np.array_equal(volume.image[0, 0], array)
    assert volume.spacing == (1.0, 3.0, 2.0)


@pytest.mark.parametrize("how", ["files", "4D", "ITK's 5D", "mha"])
def test_channels_come_in_order_from_one_file_or_several(tmp_path, how):
    image, label = scan((0, 1, 2), channels=3)
    two = replace(THREE, channel_names=("T2", "ADC", "b"))
    if how == "files":
        files = tuple(write_nifti(tmp_path / f"{k}.nii.gz", channel) for k, channel in enumerate(image))
    elif how == "mha":
        stored = SimpleITK.GetImageFromArray(np.moveaxis(image, 0, -1), isVector=True)
        stored.CopyInformation(SimpleITK.ReadImage(str(write_nifti(tmp_path / "grid.nii", label))))
        files = (tmp_path / "all.mha",)
        SimpleITK.WriteImage(stored, str(files[0]))
    else:
        files = (write_nifti(tmp_path / "all.nii.gz", image if how == "4D" else image[:, None]),)
    case = RawCase("a", "a", files, write_nifti(tmp_path / "label.nii.gz", label))
    assert np.array_equal(read_volumes(case, two).image, image)
    assert count_channels(files[0]) == (1 if how == "files" else 3)
    with pytest.raises(ValueError, match=r"with the channels CT, got 3"):
        read_volumes(case, THREE)


@pytest.mark.parametrize("suffix", [".nii.gz", ".nii", ".mha", ".mhd"])
def test_channels_are_counted_by_the_header_alone(tmp_path, suffix, monkeypatch):
    image = pair(tmp_path, suffix=suffix).images[0]
    monkeypatch.setattr(nibabel.arrayproxy.ArrayProxy, "__array__", None)
    monkeypatch.setattr(SimpleITK, "ReadImage", None)
    assert count_channels(image) == 1
    image.write_bytes(b"")
    assert count_channels(image) == 1  # which is told when the case is read
    assert count_channels(tmp_path / "none.nii") == count_channels(tmp_path / "notes.txt") == 1


@pytest.mark.parametrize(("unit", "length"), [("mm", 1.0), ("micron", 1e-3), ("meter", 1e3), ("unknown", 1.0)])
def test_lengths_are_in_millimetres(tmp_path, unit, length):
    case = pair(tmp_path)
    for file in (*case.images, case.label):
        stored = nibabel.load(file)
        stored.header.set_xyzt_units(unit)
        nibabel.save(nibabel.Nifti1Image(np.asarray(stored.dataobj), stored.affine, stored.header), file)
    assert read_volumes(case, THREE).spacing == pytest.approx(np.multiply(SPACING, length))


def test_files_of_one_place_in_two_units_are_of_one_grid(tmp_path):
    case = pair(tmp_path)
    stored = nibabel.load(case.images[0])
    stored.header.set_xyzt_units("micron")
    matrix = np.diag([1e3, 1e3, 1e3, 1]) @ stored.affine
    nibabel.save(nibabel.Nifti1Image(np.asarray(stored.dataobj), matrix, stored.header), case.images[0])
    assert read_volumes(case, THREE).spacing == pytest.approx(SPACING)


def test_a_large_scan_is_not_copied(tmp_path):
    """A 512 x 512 x 600 CT in int16 is 0.3 GB, and its label half of that: the peak is not much more than the two."""
    array = np.random.default_rng(0).integers(0, 3, (40, 256, 256))
    image = write_nifti(tmp_path / "image.nii", array.astype(np.int16))
    case = RawCase("a", "a", (image,), write_nifti(tmp_path / "label.nii", array.astype(np.uint8)))
    tracemalloc.start()
    volume = read_volumes(case, THREE)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert np.array_equal(volume.label, array)
    assert peak < 1.15 * (volume.image.nbytes + 2 * volume.label.nbytes)  # the label as stored, and in classes


# Labels


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int32, np.float32, np.float64])
def test_labels_of_any_dtype_become_classes(tmp_path, dtype):
    file = label_file(tmp_path, [0, 40, 3, 3, 0, 40], dtype)
    classes = read_label(file, SPARSE)
    assert classes.dtype == np.uint8
    assert classes.flat[:8].tolist() == [0, 1, 2, 2, 0, 1, 0, 0]
    assert stored_labels(file) == {0, 3, 40}


def test_an_empty_mask_is_a_label(tmp_path):
    assert not read_label(label_file(tmp_path, []), THREE).any()


@pytest.mark.parametrize(
    ("value", "dtype"),
    [
        (3, "u1"),
        (256, "i2"),
        (258, "i4"),
        (-1, "i2"),
        (-1, "f4"),
        (1.5, "f4"),
        (1e-3, "f8"),
        (np.nan, "f4"),
        (np.inf, "f4"),
    ],
)
def test_a_strange_label_is_told(tmp_path, value, dtype):
    file = label_file(tmp_path, [0, 1, value], dtype)
    with pytest.raises(ValueError, match=r"with labels 0, 1, 2, got \[") as caught:
        read_label(file, THREE)
    assert str(file) in str(caught.value)
    assert repr([np.array(value, dtype).item()]) in str(caught.value)
    if not (value >= 0 and float(value).is_integer()):
        with pytest.raises(ValueError, match="whole numbers from 0 as labels"):
            stored_labels(file)


def test_a_class_is_no_label_where_a_map_gives_the_labels(tmp_path):
    with pytest.raises(ValueError, match=r"with labels 0, 3, 40, got \[1, 2, 39\]"):
        read_label(label_file(tmp_path, [0, 1, 2, 39]), SPARSE)


def test_a_label_of_several_channels_is_refused(tmp_path):
    file = write_nifti(tmp_path / "label.nii.gz", np.zeros((2, 3, 4, 5), np.uint8))
    with pytest.raises(ValueError, match="one label a voxel, got 2 channels"):
        read_label(file, THREE)


# One grid


def moved(by):
    matrix = affine()
    matrix[:3, 3] += by
    return {"matrix": matrix}


def turned():
    matrix = affine(axes="LAS")
    matrix[0, 3] += 39 * 1.25  # the same box of space, seen from the other side
    return {"matrix": matrix}


OTHER_GRIDS = {
    "moved by a fifth of a pixel": (moved((0.25, 0, 0)), "corner 0.25 mm away"),
    "moved by a slice": (moved((0, 0, 5)), "corner 5 mm away"),
    "turned": (turned(), "axes LAS and RAS"),
    "spacing": ({"spacing": (5.0, 1.5, 1.3)}, r"spacing of image.nii.gz, \(5.0, 1.5, 1.25\), got \(5.0, 1.5, 1.3\)"),
    "slices apart": ({"spacing": (6.0, 1.5, 1.25)}, "spacing"),
}


@pytest.mark.parametrize("kind", OTHER_GRIDS)
@pytest.mark.parametrize("which", ["label", "second image"])
def test_files_of_other_grids_are_refused(tmp_path, kind, which):
    options, message = OTHER_GRIDS[kind]
    image, label = scan((0, 1, 2), channels=2)
    files = tuple(
        write_nifti(tmp_path / name, channel) for name, channel in zip(("image.nii.gz", "b.nii"), image, strict=True)
    )
    case = RawCase("a", "a", files, write_nifti(tmp_path / "label.nii.gz", label))
    two = replace(THREE, channel_names=("a", "b"))
    read_volumes(case, two)
    bad = case.label if which == "label" else files[1]
    write_nifti(bad, label if which == "label" else image[1], **options)
    with pytest.raises(ValueError, match=message) as caught:
        read_volumes(case, two)
    assert str(bad) in str(caught.value)


def test_another_shape_is_refused(tmp_path):
    case = pair(tmp_path)
    write_nifti(case.label, np.zeros((3, 36, 41), np.uint8))
    with pytest.raises(ValueError, match=r"shape of image.nii.gz, \(3, 36, 40\), got \(3, 36, 41\)"):
        read_volumes(case, THREE)


@pytest.mark.parametrize("by", [(0.1, 0, 0), (0, 0.05, 0.05), (-1e-4, 1e-4, 1e-4)])
def test_rounded_headers_are_of_one_grid(tmp_path, by):
    case = pair(tmp_path)
    write_nifti(case.label, scan((0, 1, 2))[1], **moved(by))
    read_volumes(case, THREE)


def test_a_file_without_a_place_is_compared_by_shape_and_spacing(tmp_path):
    case = pair(tmp_path)
    for spacing in (SPACING, (5.0, 1.5, 2.0)):
        stored = nibabel.Nifti1Image(np.asfortranarray(scan((0, 1, 2))[1].T), None)
        stored.header.set_zooms(spacing[::-1])
        nibabel.save(stored, case.label)
        if spacing == SPACING:
            assert read_volumes(case, THREE).axes == "RAS"
            assert read_volumes(replace(case, images=(case.label,)), THREE).axes == ""
        else:
            with pytest.raises(ValueError, match="spacing of image"):
                read_volumes(case, THREE)
