"""Small data that several test files share; nothing acts unless a test asks for it, but for the backend of plots."""

import os
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest

from nacl.data import Case, Dataset

os.environ["MPLBACKEND"] = "Agg"  # no window, here and in the processes that tests start

PROJECT = Path(__file__).resolve().parents[1]
VOLUMES = {
    "train": ("patient001_frame01", "patient001_frame02", "patient002_frame01"),
    "valid": ("patient003_frame01",),
    "test": ("patient004_frame01", "patient005_frame01"),
}


def square_case(name: str, split: str, *, slices: int = 4, size: int = 32) -> Case:
    """A case that a network learns in seconds: class 1 is a bright square, class 2 a dark one, on grey with noise."""
    rng = np.random.default_rng(list(name.encode()))
    label = np.zeros((slices, size, size), np.uint8)
    for plane in label:
        row, left, right = rng.integers(2, size // 2 - 2), rng.integers(1, 4), rng.integers(size // 2, size // 2 + 4)
        plane[row : row + 12, left : left + 10] = 1
        plane[row : row + 12, right : right + 10] = 2
    image = np.choose(label, (0.5, 0.9, 0.1)) + 0.03 * rng.standard_normal(label.shape)
    return Case(name, split, image.clip(0, 1).astype(np.float32), label, (1.0, 1.0, 1.0))


def write_volume(file: Path, *, width: int = 192, depth: int = 2, seed: int = 0, **arrays: np.ndarray) -> Path:
    """An HDF5 file in the ACDC authors' layout: rings of the three structures; `img` and `mask` may be given."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:width, :width] - (width - 1) / 2
    radius, behind = np.hypot(x, y), np.hypot(x + 50, y)
    plane = np.select([radius < 20 + seed % 5, radius < 32, behind < 26], [3, 2, 1], 0)
    mask = np.repeat(plane[..., None], depth, axis=2).astype(np.uint8)
    noise = rng.integers(0, 20, mask.shape)
    stored = {"img": (np.choose(mask, (90, 180, 50, 200)) + noise).astype(np.uint8), "mask": mask, **arrays}
    file.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(file, "w") as h5:
        for key, array in stored.items():
            h5[key] = array
    return file


@pytest.fixture(scope="session")
def squares() -> Dataset:
    """An easy data set of three classes, 32 x 32 pixels."""
    names = [("train", 4), ("valid", 2), ("test", 2)]
    cases = tuple(square_case(f"{split}{i}", split) for split, count in names for i in range(count))
    return Dataset("squares", ("background", "bright", "dark"), cases, unit="px")


@pytest.fixture(scope="session")
def tiny_acdc(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of six small volumes in the ACDC authors' layout; only to be read."""
    folder = tmp_path_factory.mktemp("data") / "tiny"
    names = [(split, name) for split, of_split in VOLUMES.items() for name in of_split]
    for seed, (split, name) in enumerate(names):
        write_volume(folder / split / f"{name}.h5", depth=2 + seed % 2, seed=seed)
    return folder


@pytest.fixture
def tiny_acdc_copy(tiny_acdc: Path, tmp_path: Path) -> Path:
    """The same folder, to be changed."""
    return Path(shutil.copytree(tiny_acdc, tmp_path / "copy"))


@pytest.fixture
def acdc() -> Path:
    """The real ACDC volumes that lie beside some checkouts."""
    folder = PROJECT.parent / "shared" / "data" / "acdc"
    if not folder.is_dir():
        pytest.skip(f"the ACDC volumes are not at {folder}; their licence keeps them out of the repository")
    return folder


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder of runs, which $NACL_RUNS names."""
    monkeypatch.setenv("NACL_RUNS", str(tmp_path / "runs"))
    return tmp_path / "runs"
