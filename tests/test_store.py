"""The prepared folder: what is written comes back, slice by slice, and nothing in it is believed unchecked."""

import json
import re
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from conftest import square_case

from nacl.data import Case, resize_case
from nacl.data.prepared import casefile, store
from nacl.data.prepared.casefile import read_case, write_case
from nacl.data.prepared.index import Entry, Index, read_index, write_index
from nacl.data.prepared.target import entry_of, finish, put_case

CLASSES = ("background", "bright", "dark")


def a_case(name="a", split="train", *, channels=2, posterior=False, **changes):
    case = square_case(name, split, slices=5, size=16)
    rng = np.random.default_rng(0)
    image = np.concatenate([case.image, *(rng.random((channels - 1, 1, *case.label.shape), np.float32))])
    p = rng.random((3, *case.label.shape), np.float32) if posterior else None
    return replace(case, **{"image": image, "spacing": (5.0, 1.25, 0.7), "posterior": p, "patient": "p", **changes})


def same(one, other):
    for key in ("name", "split", "patient", "spacing"):
        assert getattr(one, key) == getattr(other, key)
    for key in ("image", "label", "posterior"):
        assert np.array_equal(getattr(one, key), getattr(other, key)), key
        if getattr(one, key) is not None:
            assert getattr(one, key).dtype == getattr(other, key).dtype


def problems_of(folder):
    return {entry.name: problem for entry, _, problem in store.verify(folder)}


@pytest.fixture
def folder(tmp_path):
    """Three cases, one a split."""
    cases = [
        a_case(name, split, patient=name) for name, split in [("one", "train"), ("two.x", "valid"), ("three-3", "test")]
    ]
    target = tmp_path / "prepared"
    made = [put_case(target, case, {}, {"labelled": 1}) for case in cases]
    finish(target, made, "mine", CLASSES, ("T1", "T2"), "mm", {"both": (1, 2)}, {"size": 16})
    return target


# One file


@pytest.mark.parametrize("posterior", [False, True])
def test_a_case_comes_back_whole_and_in_parts(tmp_path, posterior):
    case, file = a_case(posterior=posterior), tmp_path / "train" / "a.h5"
    digest = write_case(file, case, {"made": "here"})
    same(read_case(file), case)
    assert digest == casefile.checksum(case) == casefile.read_file(file).checksum
    assert casefile.read_file(file).provenance == {"made": "here"}
    for planes in (slice(2, 3), slice(0, 5, 2), slice(-1, None), slice(0, 0)):
        part = read_case(file, planes)
        cut = None if case.posterior is None else case.posterior[:, planes]
        same(part, replace(case, image=case.image[:, planes], label=case.label[planes], posterior=cut))


def test_one_slice_of_all_channels_is_one_chunk_with_a_checksum(tmp_path):
    write_case(tmp_path / "a.h5", a_case(posterior=True), {})
    with h5py.File(tmp_path / "a.h5") as h5:
        assert {key: h5[key].chunks for key in h5} == {
            "image": (2, 1, 16, 16),
            "label": (1, 16, 16),
            "posterior": (3, 1, 16, 16),
        }
        assert all(h5[key].fletcher32 for key in h5)


def test_the_same_case_gives_the_same_bytes_and_any_other_another_checksum(tmp_path):
    case = a_case(posterior=True)
    files = [tmp_path / name for name in ("a", "b")]
    told = {"a": 2, "b": 1}, {"b": 1, "a": 2}
    seen = {write_case(file, case, provenance) for file, provenance in zip(files, told, strict=True)}
    assert files[0].read_bytes() == files[1].read_bytes()
    image, label, posterior = case.image.copy(), case.label.copy(), case.posterior.copy()
    image[1, 4, 15, 15] = np.nextafter(image[1, 4, 15, 15], np.float32(2))
    label[0, 0, 0] ^= 1
    posterior[0, 0, 0, 0] = 1
    others = [{"image": image}, {"label": label}, {"posterior": posterior}, {"posterior": None}, {"spacing": (5, 1, 2)}]
    for change in (*others, {"name": "b"}, {"patient": "q"}, {"split": "test"}):
        seen.add(casefile.checksum(replace(case, **change)))
    assert len(seen) == 9


def _edit(change):
    def act(file):
        with h5py.File(file, "a") as h5:
            change(h5)

    return act


def _put(key, data, **how):
    def change(h5):
        del h5[key]
        h5.create_dataset(key, data=data, **how)

    return _edit(change)


def _half(file):
    with h5py.File(file, "a") as h5:
        del h5["label"]
        h5.create_dataset("label", (5, 16, 16), "u1", chunks=(1, 16, 16))[0] = 1


def _link(h5):
    del h5["label"]
    h5["label"] = h5py.ExternalLink("/etc/hostname", "label")


def _external(h5):
    del h5["label"]
    h5.create_dataset("label", (5, 16, 16), "u1", external=[("/etc/hostname", 0, 1280)])


def _virtual(h5):
    del h5["label"]
    h5.create_virtual_dataset("label", h5py.VirtualLayout((5, 16, 16), "u1"))


def _flip(file):
    """One byte in the chunk of the last slice of the labels."""
    with h5py.File(file) as h5:
        chunk = h5["label"].id.get_chunk_info(4)
    content = bytearray(file.read_bytes())
    content[chunk.byte_offset + 3] ^= 0x10
    file.write_bytes(content)


BAD = {
    "missing": (lambda file: file.unlink(), "to be a file, .*got none"),
    "a folder": (lambda file: (file.unlink(), file.mkdir()), "to be a file"),
    "empty": (lambda file: file.write_bytes(b""), "an empty file"),
    "truncated": (lambda file: file.write_bytes(file.read_bytes()[:-100]), "whole HDF5 file"),
    "text": (lambda file: file.write_text("x" * 5000), "whole HDF5 file"),
    "a flipped byte": (_flip, "whole HDF5 file"),
    "another version": (_edit(lambda h5: h5.attrs.update(version=99)), "the version 1, got .*99"),
    "another format": (
        _edit(lambda h5: h5.attrs.update(format=np.bytes_("other"))),
        "the format 'nacl case', got 'other'",
    ),
    "no label": (_edit(lambda h5: h5.pop("label")), "an array 'label', got the keys"),
    "a group": (_edit(lambda h5: (h5.pop("label"), h5.create_group("label"))), "an array 'label'"),
    "label of int64": (_put("label", np.zeros((5, 16, 16), np.int64)), "label of 3 axes and dtype uint8"),
    "image of float64": (_put("image", np.zeros((2, 5, 16, 16))), "image of 4 axes and dtype float32"),
    "an axis less": (_put("image", np.zeros((5, 16, 16), "f4")), "image of 4 axes"),
    "other grids": (_put("label", np.zeros((4, 16, 16), "u1")), "label on the grid of image"),
    "of other chunks": (
        _put("label", np.zeros((5, 16, 16), "u1"), chunks=(5, 16, 16)),
        "label whole, a slice in a chunk",
    ),
    "half written": (_half, "label whole, a slice in a chunk"),
    "no slices": (_put("image", np.zeros((2, 0, 16, 16), "f4")), "image of 4 axes"),
    "a link out": (_edit(_link), "an array 'label'"),
    "data elsewhere": (_edit(_external), "label in itself"),
    "virtual data": (_edit(_virtual), "label in itself"),
    "a name elsewhere": (_edit(lambda h5: h5.attrs.update(name="one")), "a text as its name"),
    "no name": (_edit(lambda h5: h5.attrs.pop("name")), "a text as its name"),
    "a number as name": (_edit(lambda h5: h5.attrs.update(name=3)), "a text as its name"),
    "a strange split": (_edit(lambda h5: h5.attrs.update(split=np.bytes_("tran"))), "a split among train, valid, test"),
    "spacing 0": (_edit(lambda h5: h5.attrs.update(spacing=[1.0, 0.0, 1.0])), "three finite numbers above 0"),
    "spacing NaN": (_edit(lambda h5: h5.attrs.update(spacing=[1.0, np.nan, 1.0])), "three finite numbers above 0"),
    "spacing as text": (_edit(lambda h5: h5.attrs.update(spacing="1 1 1")), "three finite numbers above 0"),
    "provenance": (_edit(lambda h5: h5.attrs.update(provenance=np.bytes_("{"))), "provenance in JSON"),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_file_is_named_with_what_is_wrong_and_the_others_are_verified(kind, folder):
    spoil, message = BAD[kind]
    file = folder / "train" / "one.h5"
    spoil(file)
    with pytest.raises(ValueError, match=message) as caught:
        casefile.read_file(file)
    assert str(file) in str(caught.value)
    problems = problems_of(folder)
    assert [name for name, problem in problems.items() if problem] == ["one"]
    assert str(file) in problems["one"]


def test_no_flipped_byte_of_a_file_is_taken_for_its_content(folder):
    """Each is refused by name, or changes nothing that is read."""
    file = folder / "train" / "one.h5"
    good, content = read_case(file), file.read_bytes()
    refused = 0
    for position in range(0, len(content), 61):
        file.write_bytes(content[:position] + bytes([content[position] ^ 0xFF]) + content[position + 1 :])
        problem = problems_of(folder)["one"]
        refused += bool(problem)
        assert not problem or str(file) in problem
        if not problem:
            same(read_case(file), good)
    assert refused > 10


# The folder


def test_the_index_opens_as_a_lazy_data_set(folder):
    dataset = store.open_dataset(folder, 16)
    assert (dataset.name, dataset.class_names, dataset.channel_names) == ("mine", CLASSES, ("T1", "T2"))
    assert (dataset.unit, dataset.regions) == ("mm", {"both": (1, 2)})
    for split, name in (("train", "one"), ("valid", "two.x"), ("test", "three-3")):
        same(dataset.split(split)[0], a_case(name, split, patient=name))
    entry = dataset.cases.entries[0]
    assert (entry.name, entry.patient, entry.slices) == ("one", "one", 5)
    assert entry.read(slice(1, 3)).image.shape == (2, 2, 16, 16)
    (folder / "valid" / "two.x.h5").unlink()
    same(store.open_dataset(folder, 16).split("test")[0], a_case("three-3", "test", patient="three-3"))


def test_cases_are_resized_as_they_are_read(folder):
    case = store.open_dataset(folder, 8).split("train")[0]
    same(case, resize_case(a_case("one", patient="one"), 8))
    assert case.spacing == (5.0, 2.5, 1.4)


def test_a_file_that_is_not_the_one_of_the_index_is_refused(folder):
    file = folder / "train" / "one.h5"
    for change, message in [
        ({"label": np.zeros((5, 16, 16), np.uint8)}, "the checksum that dataset.json names"),
        ({"patient": "q"}, "the patient that dataset.json names, one, got q"),
        ({"spacing": (1.0, 1.0, 1.0)}, "the spacing that"),
    ]:
        write_case(file, replace(a_case("one", patient="one"), **change), {})
        with pytest.raises(ValueError, match=message) as caught:
            store.open_dataset(folder, 16).split("train")[0]
        assert str(file) in str(caught.value)


def test_labels_beyond_the_classes_are_refused(folder):
    case = a_case("one", patient="one", label=np.full((5, 16, 16), 3, np.uint8))
    made = put_case(folder, case, {}, {"labelled": 1})
    finish(folder, [made], "mine", CLASSES, ("T1", "T2"), "mm", {}, {})
    with pytest.raises(ValueError, match="labels below 3, got 3"):
        store.open_dataset(folder, 16).cases[0]


def test_fingerprint_is_of_content_and_sees_what_is_missing(folder, tmp_path):
    first = store.fingerprint(folder)
    assert store.fingerprint(Path(folder).rename(tmp_path / "moved")) == first
    folder = tmp_path / "moved"
    file = folder / "train" / "one.h5"
    content = file.read_bytes()
    file.write_bytes(content[:-1])
    with pytest.raises(ValueError, match=rf"of {len(content)} bytes, as dataset.json says, got {len(content) - 1}"):
        store.fingerprint(folder)
    file.unlink()
    with pytest.raises(ValueError, match=r"to be a file, as dataset\.json says, got none"):
        store.fingerprint(folder)
    made = put_case(folder, a_case("one", patient="one", spacing=(5.0, 1.0, 1.0)), {}, {})
    entries = [entry for entry in read_index(folder).cases if entry.name != "one"]
    write_index(folder, replace(read_index(folder), cases=(made.entry, *entries)))
    assert store.fingerprint(folder) != first


# dataset.json


def _set(*path, to):
    def change(stored):
        *inner, last = path
        for key in inner:
            stored = stored[key]
        stored[last] = to

    return change


def _drop(*path):
    def change(stored):
        *inner, last = path
        for key in inner:
            stored = stored[key]
        del stored[last]

    return change


STRANGE = {
    "format": (_set("format", to="else"), "with format to be 'nacl data set', got else"),
    "version": (_set("version", to=2), "with version to be 1, .*got 2"),
    "no cases": (_set("cases", to=[]), "with cases to be a list of objects, one at least"),
    "cases as text": (_set("cases", to="one"), "with cases to be a list"),
    "a case as text": (_set("cases", 1, to="one"), r"with cases\[1\] to be an object"),
    "no name": (_drop("cases", 0, "name"), r"with cases\[0\] to have the key 'name'"),
    "no classes": (_drop("class_names"), "to have the key 'class_names'"),
    "classes as text": (_set("class_names", to="abc"), "with class_names to be a list of different texts"),
    "classes twice": (_set("class_names", to=["a", "a"]), "with class_names to be a list of different texts"),
    "unit": (_set("unit", to="inch"), "with unit to be 'mm' or 'px', got inch"),
    "unit of a list": (_set("unit", to=["mm"]), "with unit to be 'mm' or 'px'"),
    "recipe": (_set("recipe", to=None), "with recipe to be an object"),
    "regions": (_set("regions", to={"a": ["1"]}), "with regions to be an object of lists of classes"),
    "region of none": (_set("regions", to={"a": []}), "with regions to be an object of lists"),
    "region beyond": (_set("regions", to={"a": [3]}), "with regions.a of classes below 3"),
    "absolute path": (_set("cases", 0, "file", to="/etc/passwd"), r"cases\[0\].file to be 'train/one.h5'"),
    "path out": (_set("cases", 0, "file", to="train/../../one.h5"), r"cases\[0\].file to be 'train/one.h5'"),
    "name out": (_set("cases", 0, "name", to="../one"), r"cases\[0\].name of 1 to 100 letters"),
    "name ..": (_set("cases", 0, "name", to=".."), r"cases\[0\].name of 1 to 100 letters"),
    "name with a line": (_set("cases", 0, "name", to="one\n"), r"cases\[0\].name of 1 to 100 letters"),
    "name of a number": (_set("cases", 0, "name", to=1), r"cases\[0\].name"),
    "data set's name": (_set("name", to="a/b"), "with name of 1 to 100 letters"),
    "split": (_set("cases", 0, "split", to="tran"), r"cases\[0\].split to be 'train', 'valid' or 'test'"),
    "split of a list": (_set("cases", 0, "split", to=["train"]), r"cases\[0\].split"),
    "slices": (_set("cases", 0, "slices", to=0), r"cases\[0\].slices to be an integer of at least 1, got 0"),
    "slices of a bool": (_set("cases", 0, "slices", to=True), r"cases\[0\].slices"),
    "slices and shape": (_set("cases", 0, "slices", to=4), r"cases\[0\].shape to begin with 2 channels and 4 slices"),
    "shape": (_set("cases", 0, "shape", to=[2, 5, 16]), r"cases\[0\].shape to be a list of 4 integers"),
    "spacing": (_set("cases", 0, "spacing", to=[1, -1, 1]), r"cases\[0\].spacing to be a list of 3 finite"),
    "spacing NaN": (_set("cases", 0, "spacing", to=[1, float("nan"), 1]), r"cases\[0\].spacing"),
    "bytes": (_set("cases", 0, "bytes", to=1.5), r"cases\[0\].bytes to be an integer"),
    "checksum": (_set("cases", 0, "checksum", to="abc"), r"cases\[0\].checksum to be 64 hexadecimal digits"),
    "twice": (lambda stored: stored["cases"].append(stored["cases"][0]), "with cases of different names, got one"),
    "two splits": (_set("cases", 0, "patient", to="two.x"), "two.x in 'train' and 'valid'"),
}


@pytest.mark.parametrize("kind", STRANGE)
def test_an_index_with_a_strange_value_is_refused_by_its_place(kind, folder):
    change, message = STRANGE[kind]
    file = folder / "dataset.json"
    stored = json.loads(file.read_text())
    change(stored)
    file.write_text(json.dumps(stored))
    with pytest.raises(ValueError, match=message) as caught:
        store.open_dataset(folder, 16)
    assert str(file) in str(caught.value)
    with pytest.raises(ValueError, match=re.escape(str(file))):
        store.fingerprint(folder)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b"\xff\xfe", b'"text"', b"[" * 100_000])
def test_an_index_that_is_no_json_object_is_named(content, folder):
    (folder / "dataset.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"dataset\.json` to be .*Prepare the data set again"):
        store.open_dataset(folder, 16)


def test_what_cannot_be_read_back_is_not_written(tmp_path):
    case = a_case("one")
    write_case(tmp_path / "train" / "one.h5", case, {})
    entry = entry_of(tmp_path, case, casefile.checksum(case))
    with pytest.raises(ValueError, match="with unit to be 'mm' or 'px', got cm"):
        write_index(tmp_path, Index("mine", CLASSES, ("a", "b"), "cm", (entry,)))
    with pytest.raises(ValueError, match=r"cases\[0\]\.file"):
        write_index(tmp_path, Index("mine", CLASSES, ("a", "b"), "mm", (replace(entry, file="x.h5"),)))
    assert not store.is_prepared(tmp_path)
    write_index(tmp_path, Index("mine", CLASSES, ("a", "b"), "mm", (entry,)))
    assert store.is_prepared(tmp_path)
    assert isinstance(read_index(tmp_path).cases[0], Entry)


def test_a_case_needs_no_file_to_be_one():
    """A case written in another byte order has the checksum of the same numbers."""
    case = a_case()
    turned = Case("a", "train", case.image.astype(">f4"), case.label, case.spacing, patient="p")
    assert casefile.checksum(turned) == casefile.checksum(case)
