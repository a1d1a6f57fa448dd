"""Files of volumes gone bad: each is refused by name, and none breaks the reader in another way."""

import gzip
import os
from dataclasses import replace
from pathlib import Path

import h5py
import nibabel
import numpy as np
import pytest
import SimpleITK
from raw_folders import affine, scan, write_meta, write_nifti

from nacl.data.benchmarks import acdc
from nacl.data.benchmarks.flare import BENCHMARK as FLARE
from nacl.data.benchmarks.jobs import source_files
from nacl.data.benchmarks.raw import RawCase
from nacl.data.benchmarks.volumes import count_channels, read_volumes

THREE = replace(FLARE, class_names=("background", "a", "b"))
SHAPE = (2, 9, 11)


def pair(folder, suffix):
    image, label = scan((0, 1, 2), shape=SHAPE)
    write = write_nifti if suffix.startswith(".nii") else write_meta
    files = write(folder / f"image{suffix}", image[0]), write(folder / f"label{suffix}", label)
    return RawCase("a", "a", files[:1], files[1])


def cut(share):
    return lambda file: file.write_bytes(file.read_bytes()[: int(share * file.stat().st_size)])


def text(file):
    file.write_text("not a volume\n" * 50)


def voxel(value, dtype=np.float32):
    def spoil(file):
        array = np.zeros(SHAPE, dtype)
        array[1, 3, 4] = value
        write_nifti(file, array)

    return spoil


def stored(array):
    return lambda file: nibabel.save(nibabel.Nifti1Image(array, affine()), file)


def header(**fields):
    """The header of a .nii with other values, around the same voxels."""

    def spoil(file):
        raw = file.read_bytes()
        head = np.frombuffer(raw[:348], nibabel.nifti1.header_dtype).copy()
        for name, value in fields.items():
            head[name] = value
        file.write_bytes(head.tobytes() + raw[348:])

    return spoil


def line(key, value):
    """The header of a MetaImage with another line."""

    def spoil(file):
        lines = file.read_bytes().split(b"\n")
        file.write_bytes(b"\n".join(f"{key} = {value}".encode() if x.startswith(key.encode()) else x for x in lines))

    return spoil


def of_raw(spoil):
    return lambda file: spoil(file.with_suffix(".raw"))


RGB = np.zeros((11, 9, 2), np.dtype([(c, "u1") for c in "RGB"]))
BAD = {
    "empty": (".nii.gz", Path.touch, "an empty file"),
    "empty mhd": (".mhd", Path.touch, "an empty file"),
    "missing": (".nii.gz", Path.unlink, "to be a file, got none of that name"),
    "a folder": (".nii", Path.mkdir, "to be a file, got none of that name"),
    "cut in the gzip header": (".nii.gz", cut(0.02), "whole NIfTI file"),
    "cut": (".nii.gz", cut(0.6), "whole NIfTI file"),
    "cut, not compressed": (".nii", cut(0.9), "whole NIfTI file"),
    "cut in the header": (".nii", cut(0.3), "whole NIfTI file"),
    "text": (".nii", text, "whole NIfTI file"),
    "text, compressed": (".nii.gz", lambda file: file.write_bytes(gzip.compress(b"x" * 999)), "whole NIfTI file"),
    "not compressed": (".nii.gz", lambda file: file.write_bytes(b"\x5c\x01\0\0" * 200), "whole NIfTI file"),
    "complex": (".nii", stored(np.zeros((11, 9, 2), np.complex64)), "one real number a voxel, got voxels of complex64"),
    "colours": (".nii", stored(RGB), "one real number a voxel, got voxels of"),
    "NaN": (".nii.gz", voxel(np.nan), "finite voxels, got NaN or beyond float32"),
    "infinite": (".nii.gz", voxel(-np.inf), "finite voxels"),
    "beyond float32": (".nii.gz", voxel(1e300, np.float64), "finite voxels"),
    "no slices": (".nii", header(dim=(3, 11, 9, 0, 1, 1, 1, 1)), "at least one slice"),
    "a film of two": (".nii", stored(np.zeros((11, 9, 2, 2), np.int16)), "with the channels CT, got 2 in 1"),
    "five axes": (
        ".nii",
        stored(np.zeros((11, 9, 2, 2, 2), np.int16)),
        r"or \(X, Y, Z, channels\), got \(11, 9, 2, 2, 2\)",
    ),
    "asks for 2**45 bytes": (".nii", header(dim=(3, 32767, 32767, 16384, 1, 1, 1, 1)), "asks for .* bytes"),
    "no lengths": (".nii", header(pixdim=(1, 1, 0, 1, 1, 1, 1, 1)), "voxels of positive lengths"),
    "lengths NaN": (".nii", header(pixdim=(1, 1, np.nan, 1, 1, 1, 1, 1)), "positive lengths|whole NIfTI file"),
    "affine NaN": (".nii", header(srow_x=(np.nan, 0, 0, 0)), "finite affine"),
    "mhd without raw": (".mhd", of_raw(Path.unlink), "whole MetaImage"),
    "mhd with short raw": (".mhd", of_raw(cut(0.5)), "198 bytes of voxels where its header tells of 396"),
    "mha cut": (".mha", cut(0.9), "whole MetaImage"),
    "mha cut in the header": (".mha", cut(0.2), "whole MetaImage"),
    "mhd of text": (".mhd", text, "whole MetaImage"),
    "raw elsewhere": (".mhd", line("ElementDataFile", "/etc/passwd"), "'/etc/passwd', not in a file beside it"),
    "raw above": (".mhd", line("ElementDataFile", "../image.raw"), "not in a file beside it"),
    "raw is none": (".mhd", line("ElementDataFile", "other.raw"), "should be in other.raw, which is no file"),
    "raw is a list of files": (".mhd", line("ElementDataFile", "LIST 3"), "'LIST 3', not in a file beside it"),
    "raw is a pattern": (".mhd", line("ElementDataFile", "image%d.raw 1 2 1"), "not in a file beside it"),
    "raw is not told": (".mhd", line("ElementDataFile", ""), "not in a file beside it"),
    "raw is a list": (".mhd", line("ElementDataFile", "LIST"), "whole MetaImage"),
    "mhd of NaN lengths": (".mhd", line("ElementSpacing", "1 nan 1"), "whole MetaImage|positive lengths"),
    "mhd of no type": (".mhd", line("ElementType", "MET_NONE"), "whole MetaImage"),
    "mhd of size 0": (".mhd", line("DimSize", "11 9 0"), "whole MetaImage|at least one slice"),
    "another format": (".nii", lambda file: None, "to end in .nii.gz, .nii, .mha, .mhd, got .png"),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_file_is_named_with_what_is_wrong(kind, tmp_path, capfd):
    suffix, spoil, message = BAD[kind]
    case = pair(tmp_path, suffix)
    read_volumes(case, THREE)
    file = case.images[0]
    if kind == "another format":
        case = replace(case, images=(file.rename(file.with_suffix(".png")),))
    elif spoil in (Path.touch, Path.mkdir):
        file.unlink()
    spoil(file)
    with pytest.raises(ValueError, match=message) as caught:
        read_volumes(case, THREE)
    assert str(case.images[0]) in str(caught.value)
    assert str(caught.value).startswith("Expected `")
    assert capfd.readouterr().err == ""  # nor does a library's C++ complain beside it


@pytest.mark.parametrize("kind", ["empty", "missing", "cut", "NaN", "complex", "no slices", "mhd with short raw"])
def test_a_bad_label_is_named_too(kind, tmp_path):
    suffix, spoil, _ = BAD[kind]
    case = pair(tmp_path, suffix)
    if spoil is Path.touch:
        case.label.unlink()
    spoil(case.label)
    with pytest.raises(ValueError, match="Expected `") as caught:
        read_volumes(case, THREE)
    assert str(case.label) in str(caught.value)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".mhd", ".mha"])
@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")  # numpy's, of a length that became NaN
def test_a_file_with_a_flipped_byte_is_read_or_refused_by_name(suffix, tmp_path):
    case = pair(tmp_path, suffix)
    file = case.images[0]
    good, problems = file.read_bytes(), []
    for position in range(0, min(len(good), 360), 2):
        file.write_bytes(good[:position] + bytes([good[position] ^ 0xFF]) + good[position + 1 :])
        try:
            read_volumes(case, THREE)
        except ValueError as error:
            problems.append(str(error))
    assert len(problems) > 10
    assert all(str(file) in problem or str(case.label) in problem for problem in problems)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".mha"])
def test_a_file_of_any_shorter_length_is_refused(suffix, tmp_path, capfd):
    case = pair(tmp_path, suffix)
    file = case.images[0]
    good = file.read_bytes()
    for length in range(0, len(good) - 8, 7):
        file.write_bytes(good[:length])
        with pytest.raises(ValueError, match=r"whole|empty") as caught:
            read_volumes(case, THREE)
        assert str(file) in str(caught.value)
    assert capfd.readouterr().err == ""


def test_compressed_metaimages_are_read_and_refused_when_cut(tmp_path, capfd):
    case = pair(tmp_path, ".mha")
    file = case.images[0]
    SimpleITK.WriteImage(SimpleITK.ReadImage(str(file)), str(file), useCompression=True)
    assert np.array_equal(read_volumes(case, THREE).image, scan((0, 1, 2), shape=SHAPE)[0])
    cut(0.9)(file)
    with pytest.raises(ValueError, match="whole MetaImage"):
        read_volumes(case, THREE)
    assert capfd.readouterr().err == ""


def test_the_file_of_the_voxels_is_the_one_that_the_header_names(tmp_path):
    case = pair(tmp_path, ".mhd")
    file = case.images[0]
    voxels = file.with_suffix(".raw").rename(tmp_path / "vox0.bin")
    line("ElementDataFile", "vox0.bin")(file)
    file.with_suffix(".zraw").write_bytes(b"of another")
    assert source_files(case) == [file, case.label, voxels, case.label.with_suffix(".raw")]
    assert np.array_equal(read_volumes(case, THREE).image, scan((0, 1, 2), shape=SHAPE)[0])


def test_a_comment_may_speak_of_the_header(tmp_path):
    case = pair(tmp_path, ".mha")
    file = case.images[0]
    head, rest = file.read_bytes().split(b"\n", 1)
    file.write_bytes(head + b"\nComment = see ElementDataFile = LIST\n" + rest)
    assert np.array_equal(read_volumes(case, THREE).image, scan((0, 1, 2), shape=SHAPE)[0])


@pytest.mark.parametrize("suffix", [".nii", ".mha", ".mhd"])
def test_a_pipe_is_no_file_and_is_not_waited_for(suffix, tmp_path):
    case = pair(tmp_path, suffix)
    file = case.images[0] if suffix != ".mhd" else case.images[0].with_suffix(".raw")
    file.unlink()
    os.mkfifo(file)
    assert count_channels(case.images[0]) == 1
    assert file not in source_files(case)
    with pytest.raises(ValueError, match=r"to be a file|is no file") as caught:
        read_volumes(case, THREE)
    assert str(case.images[0]) in str(caught.value)


# The authors' HDF5


def kept_elsewhere(stored, other):
    stored["img"] = h5py.ExternalLink(other, "img")


def linked(stored, other):
    stored["copy"] = np.zeros((192, 192, 2), np.uint8)
    stored["img"] = h5py.SoftLink("/copy")


def external(stored, other):
    stored.create_dataset("img", (192, 192, 2), "u1", external=[(other, 0, h5py.h5f.UNLIMITED)])


def virtual(stored, other):
    layout = h5py.VirtualLayout((192, 192, 2), "u1")
    layout[...] = h5py.VirtualSource(other, "img", (192, 192, 2))
    stored.create_virtual_dataset("img", layout)


def huge(stored, other):
    del stored["mask"]
    for key in ("img", "mask"):
        array = stored.create_dataset(key, (192, 192, 3000), "u1", chunks=(192, 192, 1), compression="gzip")
        array[..., 0] = 1


STRANGE = {
    kept_elsewhere: "keys 'img' and 'mask'",
    linked: "keys 'img' and 'mask'",
    external: "img in itself, got one in other files",
    virtual: "img in itself, got one in other files",
    huge: r"bytes of img, got \d+ of the 110592000 that shape \(192, 192, 3000\) takes",
}


@pytest.mark.parametrize("change", STRANGE)
def test_acdc_hdf5_gives_nothing_of_other_files_and_no_more_than_it_holds(change, tmp_path):
    file, other = tmp_path / "train" / "patient001_frame01.h5", tmp_path / "other.h5"
    with h5py.File(other, "w") as stored:
        stored["img"] = np.zeros((192, 192, 2), np.uint8)
    file.parent.mkdir()
    with h5py.File(file, "w") as stored:
        stored["mask"] = np.zeros((192, 192, 2), np.uint8)
        change(stored, str(other))
    with pytest.raises(ValueError, match=STRANGE[change]) as caught:
        acdc.read_case(file)
    assert str(file) in str(caught.value)


def test_acdc_hdf5_that_is_a_pipe_is_not_waited_for(tmp_path):
    file = tmp_path / "patient001_frame01.h5"
    os.mkfifo(file)
    with pytest.raises(ValueError, match=r"frame01\.h5` to be a file"):
        acdc.read_case(file)
