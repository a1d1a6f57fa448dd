"""Prepared folders that were edited, damaged or mistaken for others: each is named, and the way out of it works."""

import json
import os
from dataclasses import replace

import h5py
import numpy as np
import pytest
from raw_folders import WRITERS
from test_own_cases import own, own_case
from test_prepare import content, plan

from nacl.data import SPLITS, load_dataset
from nacl.data.benchmarks import detect
from nacl.data.benchmarks.raw import Volume
from nacl.data.prepared import prepare, store
from nacl.data.prepared.casefile import read_file
from nacl.data.prepared.index import has_index, read_index
from nacl.data.prepared.target import check_free, is_unfinished, opened_target
from nacl.data.recipe import Recipe


@pytest.fixture
def source(tmp_path):
    """A folder of four cases a to d, a benchmark of the user's own."""
    return WRITERS["folder"](tmp_path / "raw")


def run(source, target, **changes):
    benchmark = replace(detect(source), **changes)
    return prepare.prepare(benchmark, source, target, splits=plan(benchmark, source), jobs=1)


@pytest.fixture
def folder(source, tmp_path):
    """The same, prepared."""
    assert run(source, tmp_path / "out").is_complete
    return tmp_path / "out"


# Made again where it must be


def test_other_numbers_of_classes_and_channels_are_other_cases(source, folder):
    classes = detect(source).class_names
    report = run(source, folder, class_names=(*classes, "one more"))
    assert (len(report.cases), report.skipped) == (4, ())
    report = run(source, folder, class_names=classes[:1])
    assert (report.cases, report.skipped, len(report.problems)) == ((), (), 4)
    assert all("with labels below 1" in told or "class" in told for told in report.problems.values())


@pytest.mark.parametrize("provenance", ["{}", '{"found": {}}', '{"found": 3}', "no found", "no unit", "a text as lost"])
def test_a_case_without_what_was_found_in_it_is_made_again(provenance, source, folder):
    file = folder / read_index(folder).cases[0].file
    with h5py.File(file, "a") as h5:
        told = json.loads(h5.attrs["provenance"])
        if provenance.startswith("{"):
            told = {"origin": told["origin"], **json.loads(provenance)}
        elif provenance == "no found":
            del told["found"]
        elif provenance == "no unit":
            del told["found"]["unit"]
        else:
            told["found"]["lost"] = "a text"
        h5.attrs["provenance"] = np.bytes_(json.dumps(told).encode())
    report = run(source, folder)
    assert (report.cases, len(report.skipped), report.is_complete) == ((file.stem,), 3, True)


@pytest.mark.parametrize("provenance", [b"[]", b"3", b"null"])
def test_a_provenance_that_is_no_object_is_a_damaged_file(provenance, source, folder):
    file = folder / read_index(folder).cases[0].file
    with h5py.File(file, "a") as h5:
        h5.attrs["provenance"] = np.bytes_(provenance)
    with pytest.raises(ValueError, match="with an object as its provenance"):
        read_file(file)
    assert run(source, folder).cases == (file.stem,)


# Content that was edited


def test_edited_content_of_the_same_size_is_refused_wherever_a_whole_case_is_read(tmp_path, monkeypatch):
    own([own_case(split, split) for split in SPLITS], tmp_path)
    file = tmp_path / "train" / "train.h5"
    with h5py.File(file, "a") as h5:
        h5["label"][...] = 0
    entry = load_dataset(str(tmp_path), size=8).split("train").entries[0]
    for planes in (slice(None), slice(0, 2), slice(-2, None)):
        with pytest.raises(ValueError, match=r"train\.h5` with content of the checksum"):
            entry.read(planes)
    assert entry.read(slice(0, 1)).label.shape == (1, 8, 8)
    hashed = []
    monkeypatch.setattr(store, "checksum", lambda case, count=store.checksum: hashed.append(case.name) or count(case))
    problems = {entry.name: problem for entry, _, problem in store.verify(tmp_path)}
    assert sorted(hashed) == sorted(SPLITS)
    assert [name for name, problem in problems.items() if problem] == ["train"]


# dataset.json


def _sorted(text):
    return json.dumps(json.loads(text), sort_keys=True).encode()


@pytest.mark.parametrize("change", [_sorted, lambda text: text.encode("utf-16"), lambda text: text.encode("utf-8-sig")])
def test_an_index_rewritten_by_another_tool_is_one(change, source, folder):
    file, before = folder / "dataset.json", read_index(folder)
    file.write_bytes(change(file.read_text()))
    assert has_index(folder)
    assert read_index(folder) == before
    assert len(run(source, folder).skipped) == 4


@pytest.mark.parametrize("damage", [lambda text: b"", lambda text: text.encode()[:-9], lambda text: b"\0" * 99])
def test_a_damaged_index_is_written_again_by_the_same_prepare(damage, source, folder):
    before, file = content(folder), folder / "dataset.json"
    file.write_bytes(damage(file.read_text()))
    assert is_unfinished(folder)
    with pytest.raises(ValueError, match="Run the same `nacl data prepare` again"):
        load_dataset(str(folder), size=8)
    assert len(run(source, folder).skipped) == 4
    assert content(folder) == before


@pytest.mark.parametrize("theirs", [b"", b"{", b'{"name": "a task"}', b"[]"])
def test_an_index_of_another_program_stays(theirs, source, folder, tmp_path):
    new = tmp_path / "new"
    new.mkdir()
    for place in [new] if theirs in (b"", b"{") else [new, folder]:
        (place / "dataset.json").write_bytes(theirs)
        with pytest.raises(ValueError, match="that of another program"):
            run(source, place)
        assert (place / "dataset.json").read_bytes() == theirs


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"slices": 10**30, "shape": [1, 10**30, 8, 8]}, r"shape of voxels that a file of \d+ bytes can hold"),
        ({"slices": 10**10, "shape": [1, 10**10, 8, 8]}, "can hold"),
        ({"shape": [1, 2, 10**6, 10**6]}, "can hold"),
        ({"bytes": 10**13}, "bytes to be an integer from 1 to"),
    ],
)
def test_an_index_can_ask_for_no_more_than_its_files_hold(change, message, tmp_path):
    own([own_case(split, split) for split in SPLITS], tmp_path)
    stored = json.loads((tmp_path / "dataset.json").read_text())
    stored["cases"][0] |= change
    (tmp_path / "dataset.json").write_text(json.dumps(stored))
    with pytest.raises(ValueError, match=message):
        load_dataset(str(tmp_path), size=8)


def test_a_case_that_compresses_best_is_within_that_bound(tmp_path):
    empty = own_case("a", image=np.zeros((1, 2, 1024, 1024), "f4"), label=np.zeros((2, 1024, 1024), "u1"))
    assert own([empty], tmp_path).is_complete
    entry = read_index(tmp_path).cases[0]
    assert 40 < 4 * np.prod(entry.shape) / entry.bytes < 88


# Files of others, and what is no file


@pytest.mark.parametrize("size", [1, 100_000])
def test_a_users_text_in_the_place_of_a_case_stays(size, source, tmp_path):
    mine = tmp_path / "out" / "train" / "a.h5"
    mine.parent.mkdir(parents=True)
    mine.write_text("x" * size)
    with pytest.raises(ValueError, match=r"a\.h5` to be a prepared case, got a file that is no HDF5\..*move the file"):
        run(source, tmp_path / "out")
    assert mine.read_text() == "x" * size
    mine.write_bytes(b"")
    assert run(source, tmp_path / "out").is_complete


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="pipes with a name are of POSIX")
def test_a_pipe_is_not_waited_for(source, folder):
    for file in (folder / "dataset.json", folder / read_index(folder).cases[0].file):
        file.unlink()
        os.mkfifo(file)
    assert not has_index(folder)
    assert is_unfinished(folder)
    with pytest.raises(ValueError, match="no regular file"):
        read_index(folder)
    with pytest.raises(ValueError, match="to be a prepared case, got no regular file"):
        check_free(file)
    with pytest.raises(ValueError, match="that of another program"), opened_target(folder):
        pass


# What a user is told


def test_what_no_index_can_hold_is_said_before_the_first_case(source, tmp_path):
    with pytest.raises(ValueError, match=r"`channel_names` to be a list of different texts, got \['MR', 'MR'\]"):
        run(source, tmp_path / "out", channel_names=("MR", "MR"))
    assert not (tmp_path / "out").exists()


def _reads(label, shape=(3, 40, 40), spacing=(1, 1, 1)):
    image = np.random.default_rng(0).random((1, *shape))
    return lambda raw, benchmark: Volume(image, label, spacing)


def test_a_class_that_vanishes_is_said(source, tmp_path):
    label = np.zeros((3, 40, 40), np.uint8)
    label[1, 2:4, 2:6] = 1
    changes = {"read": _reads(label), "recipe": Recipe(size=20), "class_names": ("a", "b", "c")}
    told = run(source, tmp_path / "out", **changes).warnings
    assert "a: class 1 has 8 voxels in its file and none prepared" in told
    assert not any("class 2" in line for line in told)
    assert run(source, tmp_path / "out", **changes).warnings == told
    label[...] = np.arange(40) // 4
    label[:, :, 8:32] = 0
    label[0, 0, :20] = np.arange(20)
    changes = {**changes, "class_names": tuple("abcdefghijklmnopqrst")}
    told = [line for line in run(source, tmp_path / "more", **changes).warnings if line.startswith("a: ")]
    assert sum("class" in line for line in told) == 6
    assert any("more classes have voxels in its file and none prepared" in line for line in told)


def test_slices_of_different_widths_are_said_with_the_way_out(source, tmp_path):
    sizes = dict(zip("abcd", (43, 90, 100, 111), strict=True))

    def read(raw, benchmark):
        shape = (3, sizes[raw.name], sizes[raw.name])
        return _reads(np.ones(shape, np.uint8), shape)(raw, benchmark)

    told = run(source, tmp_path / "out", read=read, recipe=Recipe()).warnings
    assert any("slices are 43 to 111 pixels wide; training" in line and "add --size 96" in line for line in told)
    told = run(source, tmp_path / "out", read=read, recipe=Recipe(size=96)).warnings
    assert not any("wide" in line for line in told)


def test_a_problem_names_its_case(source, tmp_path):
    def read(raw, benchmark):
        if raw.name == "b":
            raise MemoryError
        return _reads(np.ones((3, 40, 40), np.uint8), spacing=(1, 625, 625 if raw.name == "a" else 1))(raw, benchmark)

    problems = run(source, tmp_path / "out", read=read, recipe=Recipe(spacing=1.0)).problems
    assert problems["b"] == "b: MemoryError"
    words = (
        "a: Expected `volume` of at most 4096 pixels a side, got 25000 (40 pixels with a spacing of 625 mm, at 1 mm)"
    )
    assert problems["a"].startswith(words)


def test_a_grid_of_too_many_pixels_is_refused():
    volume = Volume(np.zeros((1, 1, 4, 4)), np.zeros((1, 4, 4), np.uint8), (1, 1, 1024))
    assert Recipe(spacing=1.0, size=4).apply(volume).image.shape == (1, 1, 4, 4)
    for spacing in (1025, 1e308):
        with pytest.raises(ValueError, match=r"at most 4096 pixels a side.*wrong spacing"):
            Recipe(spacing=0.9).apply(replace(volume, spacing=(1, 1, spacing)))
    assert Recipe(size=4096).size == 4096
    with pytest.raises(ValueError, match="`size` of at most 4096, got 4097"):
        Recipe(size=4097)


@pytest.mark.parametrize(
    ("options", "argument"),
    [
        ({"class_names": "bg"}, "class_names"),
        ({"class_names": None}, "class_names"),
        ({"class_names": [1, 2]}, "class_names"),
        ({"channel_names": "i"}, "channel_names"),
        ({"cases": 5}, "cases"),
        ({"cases": own_case()}, "cases"),
        ({"cases": [own_case(patient=5)]}, "patient"),
        ({"regions": [1]}, "regions"),
        ({"regions": {"all": 1}}, "regions"),
        ({"regions": {"all": "12"}}, "regions"),
    ],
)
def test_an_argument_of_the_wrong_kind_is_named(options, argument, tmp_path):
    with pytest.raises((TypeError, ValueError), match=f"^Expected `{argument}` to be "):
        own(**{"cases": [own_case()], "target": tmp_path / "out", **options})
