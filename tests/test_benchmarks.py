"""Readers of the benchmarks, on tiny data sets in their true formats, and on the real ACDC where it is there."""

import json
import pickle
import shutil

import h5py
import nibabel
import numpy as np
import pytest
from conftest import write_volume
from raw_folders import WRITERS, scan, write_acdc, write_brats2020, write_mrbrains, write_nifti

from nacl.data.benchmarks import BENCHMARKS, READERS, acdc, acdc_nifti, benchmark_of, detect
from nacl.data.benchmarks.decathlon import HIPPOCAMPUS

NAMES = {
    "acdc": [f"patient{patient}_frame{frame}" for patient in ("001", "002", "101") for frame in ("01", "12")],
    "acdc_hdf5": [f"patient00{patient}_frame0{frame}" for patient in (1, 2, 3) for frame in (1, 2)],
    "flare": ["train_000", "train_001", "train_002"],
    "brats2019": ["BraTS19_2013_10_1", "BraTS19_CBICA_AAB_1", "BraTS19_TCIA09_141_1"],
    "brats2020": ["BraTS20_Training_001", "BraTS20_Training_002", "BraTS20_Training_355"],
    "mrbrains18": ["070", "1", "4"],
    "promise12": ["Case00", "Case01", "Case02"],
    "hippocampus": ["hippocampus_001", "hippocampus_002", "hippocampus_003"],
    "prostate": ["prostate_001", "prostate_002", "prostate_003"],
}
SPACINGS = {
    "acdc": (5.0, 1.5, 1.25),
    "acdc_hdf5": (1.0, 1.0, 1.0),
    "flare": (2.5, 0.8, 0.8),
    "brats2019": (1.0, 1.0, 1.0),
    "brats2020": (1.0, 1.0, 1.0),
    "mrbrains18": (3.0, 0.958, 0.958),
    "promise12": (3.6, 0.625, 0.625),
    "hippocampus": (1.0, 1.0, 1.0),
    "prostate": (3.6, 0.625, 0.625),
}
AXES = {"acdc": "LPS", "acdc_hdf5": "", "brats2019": "LPS", "brats2020": "LPS", "promise12": "LPS"}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A folder of each layout; only to be read."""
    base = tmp_path_factory.mktemp("raw")
    return {layout: write(base / layout) for layout, write in WRITERS.items()}


@pytest.fixture
def changed(folders, tmp_path):
    """Gives a copy of a layout's folder, to be changed."""
    return lambda layout: shutil.copytree(folders[layout], tmp_path / layout)


def read_all(benchmark, folder):
    return [benchmark.read(case, benchmark) for case in benchmark.find(folder)]


# All of them


@pytest.mark.parametrize("layout", WRITERS)
def test_a_layout_is_recognised_by_its_own_reader_alone(layout, folders):
    by_layout = dict(zip(NAMES, READERS, strict=True))
    recognised = [name for name, reader in by_layout.items() if reader.recognises(folders[layout])]
    assert recognised == [layout] * (layout in NAMES)
    found = detect(folders[layout])
    assert found is by_layout[layout] if layout in NAMES else found.name == layout


@pytest.mark.parametrize("layout", NAMES)
def test_cases_are_found_with_classes_spacing_and_orientation(layout, folders):
    benchmark = detect(folders[layout])
    assert benchmark_of(benchmark.name, folders[layout]) is benchmark
    cases = benchmark.find(folders[layout])
    assert [case.name for case in cases] == NAMES[layout]
    for case in cases:
        volume = benchmark.read(case, benchmark)
        assert volume.image.shape == (len(benchmark.channel_names), *volume.label.shape)
        assert volume.label.dtype == np.uint8
        assert set(np.unique(volume.label)) == set(range(len(benchmark.class_names)))
        assert volume.spacing == SPACINGS[layout]
        assert volume.unit == ("px" if layout == "acdc_hdf5" else "mm")
        assert volume.axes == AXES.get(layout, "RAS")


@pytest.mark.parametrize("layout", [layout for layout in NAMES if not layout.startswith("acdc")])
def test_each_channel_is_its_own_file(layout, folders):
    """`scan` adds 2000 k to channel k."""
    benchmark = detect(folders[layout])
    for volume in read_all(benchmark, folders[layout]):
        assert [channel.max() // 2000 for channel in volume.image] == list(range(len(volume.image)))


@pytest.mark.parametrize("benchmark", READERS, ids=list(NAMES))
def test_a_benchmark_tells_all_that_preparing_and_the_book_need(benchmark):
    assert benchmark.home.startswith("http")
    assert benchmark.title
    assert benchmark.licence
    assert benchmark.reference
    assert benchmark.class_names[0] == "background"
    assert benchmark.recipe.size % 32 == 0
    assert BENCHMARKS[benchmark.name].class_names == benchmark.class_names
    used = set(benchmark.label_map.values()) if benchmark.label_map else set(range(len(benchmark.class_names)))
    assert used == set(range(len(benchmark.class_names)))
    assert all(0 < k < len(benchmark.class_names) for region in benchmark.regions.values() for k in region)
    assert pickle.loads(pickle.dumps(benchmark)).layout == benchmark.layout  # it goes to other processes


def test_names_are_those_of_the_docs():
    names = ["acdc", "flare", "brats2019", "brats2020", "mrbrains18", "promise12", "hippocampus", "prostate"]
    assert list(BENCHMARKS) == names
    with pytest.raises(ValueError, match="Did you mean 'flare'"):
        benchmark_of("flair", "")


@pytest.mark.parametrize("name", BENCHMARKS)
def test_an_empty_folder_has_no_layout_and_is_named(name, tmp_path):
    assert detect(tmp_path) is None
    assert benchmark_of(name, tmp_path) is BENCHMARKS[name]
    with pytest.raises(ValueError, match="Expected") as caught:
        BENCHMARKS[name].find(tmp_path)
    assert str(tmp_path) in str(caught.value)


def test_two_data_sets_in_one_folder_are_told(folders, changed):
    folder = changed("flare")
    shutil.copytree(folders["promise12"], folder, dirs_exist_ok=True)
    with pytest.raises(ValueError, match=r"files of one data set, got TrainingImg.* and CaseXX"):
        detect(folder)


def test_class_names_are_for_a_folder_of_ones_own(folders):
    with pytest.raises(ValueError, match=r"`class_names` only with \"folder\", got \['a', 'b'\] \(name='flare'\)"):
        benchmark_of("flare", folders["flare"], class_names=["a", "b"])
    with pytest.raises(ValueError, match=r"`patient` only with \"folder\", got 'x' \(name='flare'\)"):
        benchmark_of("flare", folders["flare"], patient="x")


def test_the_authors_hdf5_alone_is_trained_on_as_it_is():
    assert [reader.title for reader in READERS if reader.ready] == [acdc.BENCHMARK.title]


@pytest.mark.parametrize("layout", NAMES)
def test_leftovers_of_macos_are_no_cases(layout, changed):
    folder = changed(layout)
    for file in [path for path in folder.rglob("*") if path.is_file()]:
        file.with_name(f"._{file.name}").write_bytes(b"\0\5\26\7")
    assert [case.name for case in detect(folder).find(folder)] == NAMES[layout]
    read_all(detect(folder), folder)


@pytest.mark.parametrize("layout", NAMES)
def test_a_missing_file_is_named_and_the_other_cases_are_read(layout, changed):
    """Of the middle case, each file in turn: a channel of the image, or the label."""
    folder = changed(layout)
    benchmark = detect(folder)
    case = benchmark.find(folder)[1]
    for file in dict.fromkeys((*case.images, case.label)):
        content = file.read_bytes()
        file.unlink()
        problems = {}
        for one in benchmark.find(folder):
            try:
                benchmark.read(one, benchmark)
            except ValueError as error:
                problems[one.name] = str(error)
        file.write_bytes(content)
        if layout == "acdc_hdf5" or (layout == "promise12" and file == case.label):
            assert not problems  # a file that nothing else tells of
        else:
            assert list(problems) == [case.name]
            assert str(file) in problems[case.name]


# ACDC


def test_acdc_takes_the_patients_folders_themselves_and_knows_the_test_part(tmp_path):
    folder = write_acdc(tmp_path)
    splits = [case.split for case in acdc_nifti.find(folder)]
    assert splits == [None] * 4 + [""] * 2
    assert [case.patient for case in acdc_nifti.find(folder / "training")] == ["patient001"] * 2 + ["patient002"] * 2
    assert {case.split for case in acdc_nifti.find(folder / "testing")} == {""}
    assert detect(folder / "training") is acdc_nifti.BENCHMARK


def test_acdc_frames_are_those_of_info_or_else_of_the_files(tmp_path):
    folder = write_acdc(tmp_path, (1,), es=9)
    info = folder / "training" / "patient001" / "Info.cfg"
    names = ["patient001_frame01", "patient001_frame09"]
    for text in (info.read_text(), "ED: ?\nES:\n", ""):
        info.write_text(text)
        assert [case.name for case in acdc_nifti.find(folder)] == names
    for file in info.parent.glob("*_gt.nii.gz"):
        file.unlink()
    with pytest.raises(ValueError, match=r"frames ED and ES, got no such file or an empty one") as caught:
        acdc_nifti.find(folder)
    assert str(info) in str(caught.value)
    info.write_text("ED: 1\nES: 9\n")
    assert [case.name for case in acdc_nifti.find(folder)] == names  # and reading them names the missing labels


def test_acdc_patients_for_testing_without_labels_are_left_out(tmp_path):
    folder = write_acdc(tmp_path)
    for file in (folder / "testing").rglob("*_gt.nii.gz"):
        file.unlink()
    assert {case.patient for case in acdc_nifti.find(folder)} == {"patient001", "patient002"}


def test_acdc_film_is_not_a_case_and_frames_are_its_images(folders):
    case = acdc_nifti.find(folders["acdc"])[1]
    volume = acdc_nifti.BENCHMARK.read(case, acdc_nifti.BENCHMARK)
    assert case.images[0].name == "patient001_frame12.nii.gz"
    assert np.array_equal(volume.image[0], nibabel.load(case.images[0]).get_fdata().T)
    assert np.array_equal(volume.label, nibabel.load(case.label).get_fdata().T)


def test_acdc_hdf5_has_splits_and_voxels_as_stored(folders):
    cases = acdc.find(folders["acdc_hdf5"])
    assert [case.split for case in cases] == ["train", "train", "valid", "valid", "test", "test"]
    with h5py.File(cases[0].label) as stored:
        image, label = stored["img"][...], stored["mask"][...]
    volume = acdc.read_volume(cases[0], acdc.BENCHMARK)
    assert volume.image.dtype == image.dtype
    assert np.array_equal(volume.image[0], image.transpose(2, 0, 1))
    assert np.array_equal(volume.label, label.transpose(2, 0, 1))


def test_a_prepared_folder_is_none_of_the_authors(changed):
    folder = changed("acdc_hdf5")
    (folder / "dataset.json").write_text("{}")
    assert detect(folder) is None


def test_acdc_hdf5_in_two_splits_is_refused(tmp_path):
    for split in ("train", "test"):
        write_volume(tmp_path / split / "patient001_frame01.h5")
    with pytest.raises(ValueError, match="one case a name, got 'patient001_frame01'"):
        acdc.find(tmp_path)


def test_real_acdc_is_found_and_read(acdc):
    benchmark = detect(acdc)
    cases = benchmark.find(acdc)
    assert benchmark.title.endswith("authors' loaders")
    assert {split: sum(case.split == split for case in cases) for split in ("train", "valid", "test")} == {
        "train": 140,
        "valid": 20,
        "test": 20,
    }
    assert len({case.patient for case in cases}) == 90
    volumes = [benchmark.read(case, benchmark) for case in cases if case.split == "train"]
    assert sum(len(volume.label) for volume in volumes) == 1312
    assert {volume.image.dtype for volume in volumes} == {np.dtype(np.uint8)}


# The others


@pytest.mark.parametrize("year", ["2019", "2020"])
def test_brats_label_4_is_class_3_and_regions_are_nested(year, folders):
    folder = folders[f"brats{year}"]
    benchmark = BENCHMARKS[f"brats{year}"]
    for case, volume in zip(benchmark.find(folder), read_all(benchmark, folder), strict=True):
        stored = nibabel.load(case.label).get_fdata().T
        assert np.array_equal(volume.label == 3, stored == 4)
        whole = {name: np.isin(volume.label, classes) for name, classes in benchmark.regions.items()}
        assert np.array_equal(whole["ET"], stored == 4)
        assert np.array_equal(whole["TC"], np.isin(stored, (1, 4)))
        assert np.array_equal(whole["WT"], stored > 0)


def test_brats_label_3_is_unknown(changed):
    folder = changed("brats2020")
    case = BENCHMARKS["brats2020"].find(folder)[0]
    write_nifti(case.label, scan((0, 1, 2, 3))[1], spacing=(1.0, 1.0, 1.0), axes="LPS")
    with pytest.raises(ValueError, match=r"with labels 0, 1, 2, 4, got \[3\]"):
        BENCHMARKS["brats2020"].read(case, BENCHMARKS["brats2020"])


def test_brats_names_a_patient_by_all_but_the_scan(folders):
    patients = [case.patient for case in BENCHMARKS["brats2019"].find(folders["brats2019"])]
    assert patients == ["BraTS19_2013_10", "BraTS19_CBICA_AAB", "BraTS19_TCIA09_141"]
    assert BENCHMARKS["brats2020"].find(folders["brats2020"])[1].patient == "BraTS20_Training_002"


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_brats_2020_number_355_has_another_name(tmp_path, suffix):
    folder = write_brats2020(tmp_path, (354, 355), suffix=suffix) / "MICCAI_BraTS2020_TrainingData"
    assert detect(folder) is BENCHMARKS["brats2020"]
    labels = [case.label.name for case in BENCHMARKS["brats2020"].find(folder)]
    assert labels == [f"BraTS20_Training_354_seg{suffix}", f"W39_1998.09.19_Segm{suffix}"]
    odd = folder / "BraTS20_Training_355" / labels[1]
    shutil.copy(odd, odd.with_name(f"another{suffix}"))  # of two odd names, none is taken
    assert BENCHMARKS["brats2020"].find(folder)[1].label.name.startswith("BraTS20_Training_355_seg")


def test_mrbrains_merges_structures_to_tissues(tmp_path):
    folder = write_mrbrains(tmp_path / "training", ("5",))
    benchmark = detect(tmp_path)
    (case,) = benchmark.find(tmp_path)
    stored = nibabel.load(folder / "5" / "segm.nii.gz").get_fdata().T
    label = benchmark.read(case, benchmark).label
    tissue = {0: (0, 7, 8, 9, 10), 1: (1, 2), 2: (3, 4), 3: (5, 6)}
    assert all(np.array_equal(label == k, np.isin(stored, of_tissue)) for k, of_tissue in tissue.items())
    assert [file.name for file in case.images] == ["FLAIR.nii.gz", "reg_T1.nii.gz", "reg_IR.nii.gz"]


def test_promise_takes_parts_in_folders_of_their_own(folders, tmp_path):
    for part, number in (("Part2", "02"), ("Part1", "01")):
        shutil.copytree(
            folders["promise12"],
            tmp_path / part,
            ignore=lambda _, names, keep=number: [name for name in names if keep not in name],
        )
    benchmark = detect(tmp_path)
    assert [case.name for case in benchmark.find(tmp_path)] == ["Case01", "Case02"]
    assert len(read_all(benchmark, tmp_path)) == 2


# A table from outside


def entries(*names):
    return lambda facts: facts.update(training=[{"image": name, "label": "./labelsTr/a.nii.gz"} for name in names])


TABLES = {
    "absolute": (entries("/etc/passwd"), "inside its folder .* entry 0`?, got '/etc/passwd'"),
    "above": (entries("./imagesTr/hippocampus_001.nii.gz", "../secret.nii.gz"), "entry 1, got '../secret.nii.gz'"),
    "there and back": (entries("imagesTr/../imagesTr/a.nii.gz"), "entry 0"),
    "by a link": (entries("./imagesTr/out/a.nii.gz"), "entry 0, got './imagesTr/out/a.nii.gz'"),
    "a loop": (entries("imagesTr/loop"), "entry 0, got 'imagesTr/loop'"),
    "NUL": (entries("a\0.nii.gz"), "entry 0"),
    "a number": (entries(7), "names of an image and a label"),
    "twice": (entries("aB.nii.gz", "AB.nii.gz"), "one case a name, got 'AB' and 'aB'"),
    "an odd name": (entries("a b.nii.gz"), "letters, digits"),
    "no list": (lambda facts: facts.update(training="all"), 'list "training"'),
    "no label": (lambda facts: facts["training"][1].pop("label"), "entry 1"),
    "none": (lambda facts: facts["training"].clear(), "with cases, got none"),
}


@pytest.mark.parametrize("kind", TABLES)
def test_a_table_cannot_name_files_outside_its_folder(kind, changed, tmp_path):
    folder = changed("hippocampus")
    (tmp_path / "elsewhere").mkdir()
    (folder / "imagesTr" / "out").symlink_to(tmp_path / "elsewhere")
    (folder / "imagesTr" / "loop").symlink_to(folder / "imagesTr" / "loop")
    facts = json.loads((folder / "dataset.json").read_text())
    change, message = TABLES[kind]
    change(facts)
    (folder / "dataset.json").write_text(json.dumps(facts))
    with pytest.raises(ValueError, match=message) as caught:
        HIPPOCAMPUS.find(folder)
    assert str(folder) in str(caught.value)


@pytest.mark.parametrize("text", ["", "{", "[1]", "\xff", "[" * 100000])
def test_a_table_that_is_none_is_named(text, changed):
    file = changed("hippocampus") / "dataset.json"
    file.write_bytes(text.encode("latin-1"))
    with pytest.raises(ValueError, match="object in JSON") as caught:
        HIPPOCAMPUS.find(file.parent)
    assert str(file) in str(caught.value)


def test_decathlon_takes_the_folder_around_its_task(folders, tmp_path):
    shutil.copytree(folders["prostate"], tmp_path / "Task05_Prostate")
    assert detect(tmp_path) is BENCHMARKS["prostate"]
    assert len(read_all(BENCHMARKS["prostate"], tmp_path)) == 3
