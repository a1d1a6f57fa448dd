"""What numbers were made with: source, commit, versions, device."""

import hashlib
import platform
import subprocess
from pathlib import Path

import numpy as np
import torch

from nacl._checks import expectation
from nacl.training import resolve_device

PACKAGE = Path(__file__).resolve().parent


def _hash_of(package: Path) -> str:
    digest = hashlib.blake2b(digest_size=8)
    for file in sorted(package.rglob("*.py")):
        digest.update(file.relative_to(package).as_posix().encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()


IMPORTED = _hash_of(PACKAGE)
"""Taken when the process imports the package: what it runs is what it imported, whatever becomes of the files."""


def source_hash() -> str:
    """A hash of the package's Python source, so that numbers of another version are never taken for this one's."""
    return IMPORTED


def check_source() -> None:
    """Refuse to make numbers where the package's files changed since this process imported them.

    Modules that are loaded late, or anew, would be of another version than `source_hash` says.

    Raises:
        ValueError: they changed.
    """
    if _hash_of(PACKAGE) != IMPORTED:
        remedy = "Restart the kernel, or the command"
        raise ValueError(expectation("nacl", "as this process imported it", "changed files", str(PACKAGE), remedy))


def provenance(device: str) -> dict[str, str]:
    """The commit, the versions and the device that numbers were made with, as of the end of a run."""
    place = resolve_device(device)
    name = (
        torch.cuda.get_device_name(place)
        if place.type == "cuda"
        else f"{place.type}, {torch.get_num_threads()} threads"
    )
    return {
        "commit": _commit(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "device_name": name,
    }


def _commit() -> str:
    """The checkout's commit, with "-dirty" where the package differs from it; "unknown" outside a checkout."""
    git = ["git", "-C", str(PACKAGE)]
    try:
        top = subprocess.run([*git, "rev-parse", "--show-toplevel"], capture_output=True, text=True, check=True).stdout
        if Path(top.strip()) != PACKAGE.parent:
            return "unknown"  # another project's checkout, in which this package is installed
        head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
        changed = subprocess.run(
            [*git, "status", "--porcelain", "."], capture_output=True, text=True, check=True
        ).stdout
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return head + ("-dirty" if changed.strip() else "")
