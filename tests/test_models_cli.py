"""`nacl models`, the list of the book, and the page "Choose a network" followed to the letter."""

import re
import shlex
import sys
from contextlib import chdir, redirect_stdout
from io import StringIO
from pathlib import Path

import pytest

from nacl.cli import main
from nacl.models import MODELS

BOOK = Path(__file__).resolve().parents[1] / "book"
TINY = ["--filters", "2", "--size", "64"]


def rows(text):
    """The words of the line of each network."""
    return {line.split()[0]: line for line in text.splitlines() if line.split() and line.split()[0] in MODELS}


def test_all_networks_are_listed_with_what_they_learn(capsys):
    assert main(["models"]) == 0
    out = capsys.readouterr().out
    assert list(rows(out)) == list(MODELS)
    assert "7,846,180" in rows(out)["unet"]
    assert all(re.search(r" \d{1,3}(,\d{3})+ ", row) for name, row in rows(out).items() if name != "smp.DPT")


def test_a_network_that_can_not_be_built_so_says_why_and_the_others_are_listed(capsys):
    assert main(["models", "--encoder", "resnet81", *TINY]) == 0
    out = capsys.readouterr().out
    assert re.search(r"not built: smp.Unet, .*smp.Segformer\n  .*got 'resnet81'\. Did you mean 'resnet", out)
    assert rows(out)["smp.FPN"].split()[2] == "-"
    assert rows(out)["unet"].split()[3] != "-"


def test_networks_for_slices_have_no_number_for_volumes(capsys):
    assert main(["models", "--depth", "8", "--spacing", "10", "1.5", "1.5", *TINY]) == 0
    out = capsys.readouterr().out
    assert rows(out)["smp.Unet"].split()[2] == "-"
    assert rows(out)["monai.DynUNet"].split()[3] != "-"
    assert re.search(r"not built: monai.UNETR\n  .*Use 16 x 64 x 64", out)
    assert "not built: smp" not in out


def test_a_package_that_is_missing_is_named_in_the_list(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "monai", None)
    monkeypatch.setitem(sys.modules, "monai.networks.nets", None)
    assert main(["models", *TINY]) == 0
    assert "pip install 'nacl-calibration[monai]'" in capsys.readouterr().out


def test_one_network_is_run(capsys):
    assert main(["models", "smp.Linknet", "--channels", "2", "--classes", "3", "--device", "cpu", *TINY]) == 0
    out = capsys.readouterr().out
    assert "image       1 x 2 x 64 x 64\nlogits      1 x 3 x 64 x 64\n" in out
    assert float(re.search(r"forward +([\d.]+) ms on cpu", out)[1]) > 0
    assert main(["models", "unet", "--depth", "4", "--device", "cpu", *TINY]) == 0
    assert "logits      1 x 4 x 4 x 64 x 64\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["smp.Fpn2"], "Did you mean 'smp.FPN'"),
        (["smp.FPN", "--depth", "8"], "`model` for 3 axes"),
        (["unet", "--size", "40"], "Use 32 x 32"),
        (["no_such_module:make"], "no module no_such_module"),
        (["unet", "--filters", "0"], "`filters` of at least 1, got 0"),
        (["unet", "--depth", "0"], "`patch` of at least 1, got 0"),
    ],
)
def test_what_can_not_be_is_said_in_a_line(capsys, arguments, message):
    assert main(["models", *arguments]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


def test_the_book_lists_every_network_with_its_parameters(monkeypatch):
    monkeypatch.syspath_prepend(BOOK)
    from tables import models_list

    listed = {line.split("`")[1]: line for line in models_list().splitlines() if line.startswith("| `")}
    assert list(listed) == list(MODELS)
    assert "7,846,180" in listed["unet"]
    assert all(network.description in listed[name] for name, network in MODELS.items())


def test_every_command_and_example_of_the_page_works(tmp_path, monkeypatch):
    page = (BOOK / "models.md").read_text()
    blocks = re.findall(r"^```(bash|python)\n(.*?)^```$", page, flags=re.MULTILINE | re.DOTALL)
    monkeypatch.setenv("NACL_RUNS", str(tmp_path / "runs"))
    printed = {}
    with chdir(tmp_path):
        for kind, block in blocks:
            if "def shallow" in block:
                Path("mynets.py").write_text(block)
            elif kind == "python":
                exec(block, {})
            for command in block.strip().splitlines() if kind == "bash" else ():
                program, *arguments = shlex.split(command)
                assert program == "nacl"
                with redirect_stdout(StringIO()) as out:
                    assert main(arguments) == 0, command
                printed[command] = out.getvalue()
    sys.modules.pop("mynets", None)
    trained = {command for command, text in printed.items() if "mean over" in text}
    assert trained == {command for command in printed if command.startswith("nacl train ")}
    assert "logits" in printed["nacl models mynets:shallow"]
