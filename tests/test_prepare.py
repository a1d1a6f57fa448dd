"""From raw folders to prepared ones: what comes out, and that nothing which goes wrong on the way does harm."""

import errno
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from conftest import PROJECT, write_volume
from filelock import FileLock
from raw_folders import WRITERS, scan, write_nifti

from nacl.data import SPLITS, load_dataset
from nacl.data.benchmarks import detect
from nacl.data.prepared import prepare, store
from nacl.data.prepared.casefile import read_file
from nacl.data.prepared.index import read_index
from nacl.data.recipe import Recipe


def plan(benchmark, source):
    """The folder's own splits, or one after the other by patients."""
    cases = benchmark.find(source)
    patients = sorted({raw.patient for raw in cases})
    return {raw.name: raw.split or SPLITS[patients.index(raw.patient) % 3] for raw in cases}


def run(source, target, **options):
    benchmark = detect(source)
    splits = options.pop("splits", None) or plan(benchmark, source)
    benchmark = replace(benchmark, recipe=options.pop("recipe", benchmark.recipe))
    return prepare.prepare(benchmark, source, target, splits=splits, **{"jobs": 1, **options})


def content(folder):
    """Every file with its bytes, but for the lock."""
    files = sorted(file for file in folder.rglob("*") if file.is_file() and file.name != ".lock")
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in files}


@pytest.fixture(scope="module")
def whole(tiny_acdc, tmp_path_factory):
    """The tiny ACDC, prepared without disturbance; only to be read."""
    target = tmp_path_factory.mktemp("whole") / "acdc"
    report = run(tiny_acdc, target)
    assert (len(report.cases), report.skipped, report.problems, report.is_complete) == (6, (), {}, True)
    assert report.warnings == ()
    return target


# What comes out


@pytest.mark.parametrize("size", [192, 48])
def test_prepared_acdc_gives_the_arrays_of_the_authors_files(size, tiny_acdc, whole):
    equal_arrays(load_dataset(str(whole), size=size), load_dataset(str(tiny_acdc), size=size))


def test_prepared_real_acdc_gives_the_arrays_of_the_authors_files(acdc, tmp_path):
    for split in SPLITS:
        (tmp_path / "some" / split).mkdir(parents=True)
        for file in sorted((acdc / split).glob("*.h5"))[:3]:
            shutil.copy(file, tmp_path / "some" / split)
    run(tmp_path / "some", tmp_path / "prepared")
    for size in (192, 96):
        direct, prepared = (load_dataset(str(tmp_path / name), size=size) for name in ("some", "prepared"))
        equal_arrays(prepared, direct)


def equal_arrays(prepared, direct):
    assert (prepared.name, prepared.class_names, prepared.unit) == (direct.name, direct.class_names, direct.unit)
    for split in SPLITS:
        for one, other in zip(prepared.split(split), direct.split(split), strict=True):
            assert (one.name, one.patient, one.spacing) == (other.name, other.patient, other.spacing)
            assert np.array_equal(one.image, other.image)
            assert np.array_equal(one.label, other.label)


@pytest.mark.parametrize("kind", WRITERS)
def test_every_layout_is_prepared_by_its_recipe(kind, tmp_path):
    source = WRITERS[kind](tmp_path / "raw")
    benchmark = detect(source)
    report = run(source, tmp_path / "out")
    assert report.problems == {}
    dataset, index = load_dataset(str(tmp_path / "out"), size=32), read_index(tmp_path / "out")
    for key in ("name", "class_names", "channel_names", "regions"):
        assert getattr(dataset, key) == getattr(benchmark, key)
    assert index.recipe == benchmark.recipe.__dict__
    assert {problem for *_, problem in store.verify(tmp_path / "out")} == {""}
    entries, size = {entry.name: entry for entry in index.cases}, benchmark.recipe.size or 40
    raws = benchmark.find(source)
    assert {raw.name for raw in raws} == entries.keys()
    for raw in raws:
        done = benchmark.recipe.apply(benchmark.read(raw, benchmark))
        case = read_file(tmp_path / "out" / entries[raw.name].file).case
        assert case.image.shape == (len(benchmark.channel_names), len(done.label), size, size)
        assert np.array_equal(case.image, done.image)
        assert np.array_equal(case.label, done.label)
        assert (case.spacing, case.patient) == (done.spacing, raw.patient)
        assert (case.label > 0).any()


@pytest.mark.parametrize(
    ("kind", "size", "spacing"),  # of 36 x 40 pixels; see raw_folders for their lengths
    [
        ("acdc", 192, (5, 1.5, 40 * 1.25 / 33)),  # minmax; 33 pixels of 1.5 mm are nearest to 40 of 1.25 mm
        ("flare", 192, (2.5, 36 * 0.8 / 14, 2)),  # window
        ("hippocampus", 64, (1, 1, 1)),  # percentiles
    ],
)
def test_prepared_intensities_sizes_and_spacings_by_hand(kind, size, spacing, tmp_path):
    source = WRITERS[kind](tmp_path / "raw")
    run(source, tmp_path / "out")
    entry = read_index(tmp_path / "out").cases[0]
    image = read_file(tmp_path / "out" / entry.file).case.image
    assert entry.shape == image.shape == (1, 3, size, size)
    assert entry.spacing == pytest.approx(spacing)
    assert image.min() == 0
    if kind == "flare":  # the brightest box is of 200 to 229 Hounsfield units, and 240 would be 1
        assert 360 / 400 <= image.max() <= 389 / 400
    else:
        assert image.max() == 1


def test_a_file_tells_where_it_comes_from(whole, tiny_acdc):
    told = read_file(whole / "train" / "patient001_frame02.h5").provenance
    assert list(told["origin"]["files"]) == ["train/patient001_frame02.h5"]
    assert told["origin"]["recipe"] == replace(detect(tiny_acdc).recipe).__dict__
    assert told["found"]["shape"] == [1, 3, 192, 192]
    assert str(tiny_acdc) not in json.dumps(told)


def test_what_a_user_should_look_at_is_said_now_and_when_nothing_is_left_to_do(tmp_path):
    source = WRITERS["folder"](tmp_path / "raw")
    image, label = scan((0, 1, 2), shape=(1, 36, 40))
    write_nifti(source / "images" / "a.nii.gz", image[0])
    write_nifti(source / "labels" / "a.nii.gz", label * 0)
    for kind in ("images", "labels"):
        array = (image[0] if kind == "images" else label).repeat(2, axis=0)
        write_nifti(source / kind / "b.nii.gz", array, axes="LPS")
    write_nifti(source / "images" / "c.nii.gz", np.full_like(scan((0, 1, 2))[0][0], 7))
    splits = {"a": "train", "b": "valid", "c": "test"}
    first = run(source, tmp_path / "out", splits=splits, recipe=Recipe(size=20))
    told = "\n".join(first.warnings)
    for words in (
        "1 case is left out, in none of the splits: d",
        "c: the prepared channel image has one value only",
        "a: no voxel has a label",
        "a: one slice only",
        "of the labelled voxels",
        "the axes of the files point to different sides, and nothing is turned: LPS in b; RAS in a, c",
    ):
        assert words in told
    again = run(source, tmp_path / "out", splits=splits, recipe=Recipe(size=20))
    assert (again.skipped, again.warnings) == (first.cases, first.warnings)


# Again


def test_what_is_done_is_not_done_again_and_what_changed_is(whole, tiny_acdc_copy, tmp_path):
    target = Path(shutil.copytree(whole, tmp_path / "out"))
    before = content(target)
    times = {file: file.stat().st_mtime_ns for file in target.rglob("*.h5")}
    report = run(tiny_acdc_copy, target)  # the same files elsewhere
    assert (report.cases, len(report.skipped)) == ((), 6)
    assert content(target) == before
    assert {file: file.stat().st_mtime_ns for file in target.rglob("*.h5")} == times
    write_volume(tiny_acdc_copy / "train" / "patient002_frame01.h5", depth=2, seed=50)
    assert run(tiny_acdc_copy, target).cases == ("patient002_frame01",)
    assert len(run(tiny_acdc_copy, target, recipe=Recipe(size=96)).cases) == 6
    assert run(tiny_acdc_copy, target).is_complete
    damaged = target / "test" / "patient005_frame01.h5"
    damaged.write_bytes(damaged.read_bytes()[:-50])
    assert run(tiny_acdc_copy, target).cases == ("patient005_frame01",)
    with h5py.File(damaged, "a") as stored:
        stored["label"][0, 0, 0] = 1
    assert run(tiny_acdc_copy, target).cases == ("patient005_frame01",)


def test_what_other_code_made_is_made_again(whole, tiny_acdc, tmp_path, monkeypatch):
    target = Path(shutil.copytree(whole, tmp_path / "out"))
    assert {"recipe.py", "prepare.py", "volumes.py", "acdc.py"} <= {file.name for file in prepare.CODE}
    for file in prepare.CODE:
        edited = tmp_path / file.name
        edited.write_bytes(file.read_bytes() + b"\n")
        code = tuple(edited if other == file else other for other in prepare.CODE)
        assert prepare.code_hash(code) != prepare.code_hash(prepare.CODE)
    monkeypatch.setattr(prepare, "CODE", code)
    assert len(run(tiny_acdc, target).cases) == 6
    assert len(run(tiny_acdc, target).skipped) == 6


def test_a_prepared_folder_is_one_until_a_file_of_it_is_replaced(whole, tiny_acdc_copy, tmp_path):
    target = Path(shutil.copytree(whole, tmp_path / "out"))
    before = content(target)
    (tiny_acdc_copy / "train" / "patient001_frame02.h5").write_bytes(b"")
    assert not run(tiny_acdc_copy, target).is_complete
    assert content(target) == before
    write_volume(tiny_acdc_copy / "train" / "patient002_frame01.h5", depth=2, seed=50)
    assert not run(tiny_acdc_copy, target).is_complete
    assert not store.is_prepared(target)


def test_splits_without_a_case_are_named(tiny_acdc, tmp_path):
    splits = dict.fromkeys(plan(detect(tiny_acdc), tiny_acdc), "train")
    told = "no case is for valid or test: training needs all of train, valid and test"
    assert run(tiny_acdc, tmp_path / "out", splits=splits).warnings == (told,)


def test_no_cases_are_an_error(tmp_path):
    benchmark = detect(WRITERS["flare"](tmp_path / "raw"))
    for folder in ("empty", "nowhere"):
        with pytest.raises(ValueError, match="with cases, got none"):
            prepare.prepare(benchmark, tmp_path / folder, tmp_path / "out", splits={})
    assert not (tmp_path / "out").exists()


def test_a_case_that_moved_is_in_its_new_split_only_and_the_old_file_is_named(tiny_acdc, whole, tmp_path):
    target = Path(shutil.copytree(whole, tmp_path / "out"))
    splits = plan(detect(tiny_acdc), tiny_acdc) | {"patient002_frame01": "test"}
    report = run(tiny_acdc, target, splits=splits)
    assert report.cases == ("patient002_frame01",)
    assert load_dataset(str(target), size=32).split("test")[0].name == "patient002_frame01"
    assert (target / "train" / "patient002_frame01.h5").exists()
    assert any("delete them: train/patient002_frame01.h5" in line for line in report.warnings)


SLOW = """
import sys, time
from dataclasses import replace
from pathlib import Path
from nacl.data.benchmarks import detect
from nacl.data.prepared.prepare import prepare

def read(raw, benchmark):
    time.sleep(0.5)
    return FOUND.read(raw, FOUND)

source, target = map(Path, sys.argv[1:])
FOUND = detect(source)
splits = {raw.name: raw.split for raw in FOUND.find(source)}
prepare(replace(FOUND, read=read), source, target, splits=splits, jobs=1)
"""


def test_after_a_kill_it_goes_on_and_ends_with_the_same_bytes(tiny_acdc, whole, tmp_path):
    target = tmp_path / "out"
    environment = {**os.environ, "PYTHONPATH": str(PROJECT)}
    process = subprocess.Popen(
        [sys.executable, "-c", SLOW, str(tiny_acdc), str(target)], env=environment, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 60
    while len(list(target.rglob("*.h5"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    with pytest.raises(BlockingIOError, match="which another process prepares"):
        run(tiny_acdc, target)
    process.send_signal(signal.SIGKILL)
    process.wait()
    done = len(list(target.rglob("*.h5")))
    assert 2 <= done < 6
    assert not store.is_prepared(target)
    with pytest.raises(ValueError, match=r"to be prepared to the end.*Run the same"):
        load_dataset(str(target), size=32)
    (target / "train" / ".writing-abc.h5").write_bytes(b"half")  # what a kill within a write leaves
    report = run(tiny_acdc, target)
    assert (len(report.cases), len(report.skipped)) == (6 - done, done)
    assert content(target) == content(whole)


def test_processes_make_the_same_bytes(tiny_acdc, whole, tmp_path):
    run(tiny_acdc, tmp_path / "out", jobs=2)
    assert content(tmp_path / "out") == content(whole)


def test_one_prepare_at_a_time(tiny_acdc, whole, tmp_path):
    target = Path(shutil.copytree(whole, tmp_path / "out"))
    before = content(target)
    with (
        FileLock(target / ".lock"),
        pytest.raises(BlockingIOError, match=f"{target}, which another process prepares") as caught,
    ):
        run(tiny_acdc, target)
    assert "give another folder" in str(caught.value)
    assert content(target) == before


# Bad cases and full disks


def test_a_bad_case_is_named_and_the_rest_is_done(tiny_acdc_copy, whole, tmp_path):
    good = (tiny_acdc_copy / "train" / "patient001_frame02.h5").read_bytes()
    (tiny_acdc_copy / "train" / "patient001_frame02.h5").write_bytes(good[:3000])
    target = tmp_path / "out"
    report = run(tiny_acdc_copy, target)
    assert list(report.problems) == ["patient001_frame02"]
    assert str(tiny_acdc_copy / "train" / "patient001_frame02.h5") in report.problems["patient001_frame02"]
    assert (len(report.cases), report.is_complete, store.is_prepared(target)) == (5, False, False)
    report = run(tiny_acdc_copy, target, skip_bad=True)
    assert (report.cases, len(report.skipped), report.is_complete) == ((), 5, True)
    assert [case.name for case in load_dataset(str(target), size=32).split("train")] == [
        "patient001_frame01",
        "patient002_frame01",
    ]
    (tiny_acdc_copy / "train" / "patient001_frame02.h5").write_bytes(good)
    assert run(tiny_acdc_copy, target).cases == ("patient001_frame02",)
    assert content(target) == content(whole)


def test_nothing_but_bad_cases_is_no_data_set(tmp_path):
    write_volume(tmp_path / "raw" / "train" / "patient001_frame01.h5", mask=np.full((192, 192, 2), 9))
    report = run(tmp_path / "raw", tmp_path / "out", skip_bad=True)
    assert (report.is_complete, store.is_prepared(tmp_path / "out")) == (False, False)


def test_a_full_disk_ends_it_and_what_is_done_stays(tiny_acdc, whole, tmp_path, monkeypatch):
    target, written = tmp_path / "out", Path.write_bytes

    def write_bytes(path, data):
        if len(list(target.rglob("patient*.h5"))) == 3:
            written(path, bytes(data)[:1000])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return written(path, data)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", write_bytes)
        with pytest.raises(OSError, match=r"No space left on device while writing .*Free some space") as caught:
            run(tiny_acdc, target)
    assert caught.value.errno == errno.ENOSPC
    done = content(target)
    assert len(done) == 3
    assert done.items() <= content(whole).items()
    assert len(run(tiny_acdc, target).skipped) == 3
    assert content(target) == content(whole)


def test_a_limit_of_the_size_of_files_is_a_full_disk_too(tiny_acdc, tmp_path):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
        with pytest.raises(OSError, match=r"File too large while writing .*patient001_frame01\.h5"):
            run(tiny_acdc, tmp_path / "out")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert content(tmp_path / "out") == {}


# Refused before any work


def test_folders_inside_each_other_are_refused(tiny_acdc_copy):
    before = content(tiny_acdc_copy)
    for target in (tiny_acdc_copy, tiny_acdc_copy / "prepared", tiny_acdc_copy / "train" / ".." / "out"):
        with pytest.raises(ValueError, match="`target` outside of the folder that is read"):
            run(tiny_acdc_copy, target)
    assert content(tiny_acdc_copy) == before


def test_a_wrong_plan_is_refused_before_any_work(tiny_acdc, whole, tmp_path):
    target = Path(shutil.copytree(whole, tmp_path / "out"))
    before = content(target)
    right = plan(detect(tiny_acdc), tiny_acdc)
    for splits, message in [
        (right | {"patient001_frame02": "test"}, "patient001 in 'train' and 'test'"),
        (right | {"patient009_frame01": "test"}, "`splits` of cases that are there, got patient009_frame01"),
        (right | {"patient002_frame01": "tran"}, "Did you mean 'train'"),
    ]:
        with pytest.raises(ValueError, match=message):
            run(tiny_acdc, target, splits=splits)
    with pytest.raises(ValueError, match="`jobs` of at least 1, got 0"):
        run(tiny_acdc, target, jobs=0)
    benchmark = detect(tiny_acdc)
    out = [replace(raw, name="../" + raw.name) for raw in benchmark.find(tiny_acdc)]
    leaving = replace(benchmark, find=lambda folder: out)
    with pytest.raises(ValueError, match=r"`name` of 1 to 100 letters.*'\.\./patient"):
        prepare.prepare(leaving, tiny_acdc, target, splits={raw.name: "train" for raw in out})
    assert content(target) == before


def test_files_of_others_are_not_written_over(tiny_acdc, tiny_acdc_copy, tmp_path):
    before = content(tiny_acdc_copy)
    with pytest.raises(ValueError, match="to be a prepared case, got another HDF5 file"):
        run(tiny_acdc, tiny_acdc_copy)
    assert content(tiny_acdc_copy) == before
    task = WRITERS["hippocampus"](tmp_path / "task")
    before = content(task)
    with pytest.raises(ValueError, match=r"dataset\.json` of a prepared data set, got that of another program"):
        run(tiny_acdc, task)
    assert content(task) == before
