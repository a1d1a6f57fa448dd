"""Files appear whole or not at all, also on a disk that is full."""

import errno
import os
import resource
import stat
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from nacl._files import whole_file, write_text
from nacl.training import save_tensors


def half_written(path: Path) -> None:
    path.write_text("half of the n")
    raise KeyboardInterrupt


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """The kernel refuses to let a file of this process grow beyond `size` bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 KiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(disk)]
    try:
        done = subprocess.run(mount, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("no mount command here")
    if done.returncode:
        pytest.skip(f"no right to mount a small disk here: {done.stderr.strip()}")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_a_file_appears_only_at_the_end(tmp_path):
    path = tmp_path / "new" / "table.csv"
    with whole_file(path) as temporary:
        temporary.write_text("a,b\n")
        assert not path.exists()
        assert temporary.parent == path.parent
        assert temporary.suffix == ".csv"
    assert path.read_text() == "a,b\n"
    assert os.listdir(path.parent) == ["table.csv"]


def test_a_failure_keeps_the_old_file_and_leaves_nothing_else(tmp_path):
    path = tmp_path / "table.csv"
    write_text(path, "old")
    with pytest.raises(KeyboardInterrupt), whole_file(path) as temporary:
        half_written(temporary)
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["table.csv"]


def test_a_file_has_the_rights_that_the_umask_leaves(tmp_path):
    before = os.umask(0o027)
    try:
        write_text(tmp_path / "text", "text")
        save_tensors(tmp_path / "weights.safetensors", {"w": torch.ones(1)})
    finally:
        os.umask(before)
    assert {stat.S_IMODE(file.stat().st_mode) for file in tmp_path.iterdir()} == {0o640}


def test_a_full_disk_names_the_file_and_what_to_do_and_keeps_the_old_one(small_disk):
    path = small_disk / "weights.safetensors"
    save_tensors(path, {"w": torch.ones(100)})
    before = path.read_bytes()
    with pytest.raises(OSError, match=r"(?s)weights\.safetensors.*Free some space") as caught:
        save_tensors(path, {"w": torch.ones(200_000)})
    assert "No space left" in str(caught.value)
    with pytest.raises(OSError, match=r"(?s)text\.txt.*Free some space") as caught:
        write_text(small_disk / "text.txt", "x" * 1_000_000)
    assert caught.value.errno == errno.ENOSPC
    assert path.read_bytes() == before
    assert os.listdir(small_disk) == ["weights.safetensors"]


@pytest.mark.parametrize(
    "writes", [lambda p: write_text(p, "x" * 50_000), lambda p: save_tensors(p, {"w": torch.ones(50_000)})]
)
def test_a_write_that_the_kernel_cuts_short_leaves_nothing(tmp_path, writes):
    with largest_file(10_000), pytest.raises(OSError, match=r"(?s)final\.bin.*Free some space"):
        writes(tmp_path / "final.bin")
    assert os.listdir(tmp_path) == []


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"file/below\.txt.*choose another folder"):
        write_text(tmp_path / "file" / "below.txt", "text")
