"""The page "Your own data", followed to the letter in an empty place with a folder of NIfTI pairs."""

import json
import re
import shlex
from contextlib import chdir, redirect_stdout
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
from raw_folders import write_nifti

from nacl.cli import main

PAGE = Path(__file__).resolve().parents[1] / "book" / "your-data.md"
BLOCKS = re.findall(r"^```(bash|python|text)\n(.*?)^```$", PAGE.read_text(), flags=re.MULTILINE | re.DOTALL)
CASES = [f"liver{number:02d}" for number in range(1, 11)]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Where a reader stands: a folder with `mydata` as the page lays it out, and a split of their own."""

    folder = tmp_path_factory.mktemp("reader")
    for seed, name in enumerate(CASES):
        rng = np.random.default_rng(seed)
        label = np.zeros((4, 40, 52), np.uint8)
        label[:, 10:30, 8 + seed : 30 + seed] = 1
        label[1:3, 15:22, 14 + seed : 24 + seed] = 2
        image = (100 * label + rng.normal(0, 20, label.shape)).astype(np.int16)
        write_nifti(folder / "mydata" / "images" / f"{name}.nii.gz", image, spacing=(5.0, 1.2, 1.2))
        write_nifti(folder / "mydata" / "labels" / f"{name}.nii.gz", label, spacing=(5.0, 1.2, 1.2))
    splits = ["train"] * 7 + ["valid"] + ["test"] * 2
    lines = [f"{name},{split}" for name, split in zip(CASES, splits, strict=True)]
    (folder / "split.csv").write_text("\n".join(["case,split", *lines]) + "\n")
    return folder


@pytest.fixture(scope="module")
def followed(place):
    """What each command of the page printed, in the page's order."""
    printed = {}
    with pytest.MonkeyPatch.context() as patch, chdir(place):
        patch.setenv("NACL_RUNS", str(place / "runs"))
        for kind, block in BLOCKS:
            if kind == "python":
                exec(block, {})
            for command in block.strip().splitlines() if kind == "bash" else ():
                program, *arguments = shlex.split(command)
                assert program == "nacl"
                with redirect_stdout(StringIO()) as out:
                    assert main(arguments) == 0, command
                printed[command] = out.getvalue()
    return printed


def test_every_command_of_the_page_works(followed):
    assert sum(command.startswith("nacl data prepare") for command in followed) == 2
    assert sum(command.startswith("nacl train") for command in followed) == 3


def test_the_check_tells_what_was_found_and_draws_it(followed, place):
    text = followed["nacl data check mydata --picture mydata.png"]
    assert "10 cases" in text
    assert (place / "mydata.png").read_bytes().startswith(b"\x89PNG")


def test_the_readers_own_split_is_the_one_that_is_used(followed, place):
    index = json.loads((place / "prepared" / "mysplit" / "dataset.json").read_text())
    assert {case["name"]: case["split"] for case in index["cases"]} == dict(
        line.split(",") for line in (place / "split.csv").read_text().splitlines()[1:]
    )


def test_training_on_it_ends_with_numbers(followed):
    tables = [text for command, text in followed.items() if command.startswith("nacl train")]
    assert all("mean over 2 test cases" in text for text in tables)
    assert all("in mm" in text for text in tables)
