"""Networks of the user's own: `module:function`."""

import os
import subprocess
import sys

import pytest
import torch

from nacl.models import build_model, check_model, count_parameters, model_source

CODE = """
import torch

def make(in_channels, num_classes, filters):
    return torch.nn.Conv2d(in_channels, num_classes, filters)

def full(in_channels, num_classes, *, filters, patch, spacing, encoder, weights="x"):
    network = torch.nn.Conv3d(in_channels, num_classes, 1)
    network.told = (filters, patch, spacing, encoder, weights)
    return network

def few(in_channels, num_classes):
    return torch.nn.Conv2d(in_channels, num_classes, 1)

def number(in_channels, num_classes, filters):
    return 7

def lazy(in_channels, num_classes, filters):
    import mynets_helper
    return mynets_helper.network(in_channels, num_classes)

class Net(torch.nn.Conv2d):
    def __init__(self, in_channels, num_classes, *, filters):
        super().__init__(in_channels, num_classes, 1)

def broken(in_channels, num_classes, filters):
    raise KeyError("mine")

VALUE = 3
"""


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A working directory with modules of a user's, which Python does not search by itself."""
    (tmp_path / "mynets.py").write_text(CODE)
    (tmp_path / "mynets_helper.py").write_text("import torch\ndef network(a, b): return torch.nn.Conv2d(a, b, 1)\n")
    (tmp_path / "mypackage").mkdir()
    (tmp_path / "mypackage" / "__init__.py").write_text("")
    (tmp_path / "mypackage" / "nets.py").write_text(CODE)
    (tmp_path / "needy.py").write_text("import no_such_package_at_all\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path not in ("", os.getcwd())])
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if name.startswith(("mynets", "mypackage", "needy")):
            del sys.modules[name]


@pytest.mark.parametrize("module", ["mynets", "mypackage.nets"])
def test_a_module_of_the_working_directory_is_found_and_the_path_left_as_it_was(place, module):
    path = list(sys.path)
    network = build_model(f"{module}:make", 2, 3, filters=5)
    assert network.weight.shape == (3, 2, 5, 5)
    assert sys.path == path


def test_a_class_does_too_and_what_a_function_imports_is_found(place):
    assert type(build_model("mynets:Net", 2, 3)).__name__ == "Net"
    assert build_model("mynets:lazy", 2, 3).out_channels == 3


def test_a_function_gets_the_keywords_that_it_names(place):
    network = build_model(
        "mynets:full", 1, 2, filters=4, patch=(8, 32, 32), spacing=(5, 1, 1), encoder="e", weights="w"
    )
    assert network.told == (4, (8, 32, 32), (5, 1, 1), "e", "w")


def test_its_parameters_are_counted(place):
    assert count_parameters("mynets:make", 2, 3, filters=5) == 3 * 2 * 25 + 3


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("mynets:nothing", ValueError, r"function 'nothing' in it, got 'mynets:nothing'.* has Net, broken, few, full"),
        ("mynets:VALUE", ValueError, "`model` with a function 'VALUE'"),
        ("mynet:make", ModuleNotFoundError, r"`model` .*'mynet:make' \(no module mynet\)\. Go to the folder"),
        ("mypackage.no:make", ModuleNotFoundError, r"no module mypackage\.no"),
        ("needy:make", ModuleNotFoundError, "no_such_package_at_all"),
        (
            "mynets:few",
            TypeError,
            r"'mynets:few' to take .*filters=.*got few\(in_channels, num_classes\) \(.*'filters'",
        ),
        ("mynets:number", TypeError, "'mynets:number' to give a network, got int"),
        ("mynets:broken", ValueError, "KeyError: .mine."),
        ("mynets.py:make2:x", ValueError, r"MODULE:FUNCTION, got 'mynets.py:make2:x'.* without \.py"),
        ("folder/mynets:make", ValueError, "MODULE:FUNCTION, got 'folder/mynets:make'"),
    ],
)
def test_errors_name_module_and_function(place, name, error, message):
    path = list(sys.path)
    with pytest.raises(error, match=message):
        build_model(name, 1, 2)
    assert sys.path == path


def test_checking_a_name_looks_at_its_form_only():
    check_model("some.where:else_", 3)
    for name in (":make", "mynets:", "a b:make", "9:make"):
        with pytest.raises(ValueError, match=f"MODULE:FUNCTION, got '{name}'"):
            check_model(name, 2)


def test_the_source_is_that_of_the_file_and_changes_with_it(place):
    one = model_source("mynets:make")
    assert len(one) == 16
    assert model_source("mynets:full") == one
    (place / "mynets_helper.py").write_text("# changed\n")
    assert model_source("mynets:make") == one  # what it imports does not count
    (place / "mynets.py").write_text(CODE + "# changed\n")
    assert model_source("mynets:make") != one
    assert "mynets" not in sys.modules  # it was read, and not executed


@pytest.mark.parametrize("top", ["__init__.py", "nothing.txt"], ids=["a package", "a plain folder"])
def test_the_source_of_a_package_is_that_of_all_its_modules(place, top):
    package = place / "mypackage"
    (package / "__init__.py").unlink()
    (package / top).write_text("from .deep.net import make\n")
    (package / "deep").mkdir()
    (package / "deep" / "net.py").write_text(CODE)
    names = ["mypackage:make", "mypackage.nets:make", "mypackage.deep.net:make"]
    (one,) = {model_source(name) for name in names}
    (package / "deep" / "net.py").write_text(CODE + "# changed\n")
    (two,) = {model_source(name) for name in names}
    (package / "deep" / "net.py").rename(package / "deep" / "other.py")
    three = model_source("mypackage.nets:make")
    (package / "notes.txt").write_text("no module")
    (package / ".ipynb_checkpoints").mkdir()
    (package / ".ipynb_checkpoints" / "net.py").write_text("what Jupyter keeps")
    assert model_source("mypackage.nets:make") == three
    assert len({one, two, three}) == 3
    assert "mypackage" not in sys.modules


@pytest.mark.parametrize(
    "name", ["nowhere:make", "nowhere.deep:make", "mypackage.no:make", "mynets.no:make", "sys:exit"]
)
def test_a_source_that_is_not_there_is_named(place, name):
    with pytest.raises(ModuleNotFoundError, match=f"`model` .*got '{name}'"):
        model_source(name)


def test_a_fresh_process_in_that_folder_finds_it(place):
    command = [sys.executable, "-P", "-c", "from nacl.models import build_model as b; print(b('mynets:make', 1, 2))"]
    assert b"Conv2d(1, 2" in subprocess.run(command, capture_output=True, check=True).stdout


def test_the_network_runs(place):
    assert build_model("mynets:Net", 1, 2)(torch.zeros(1, 1, 8, 8)).shape == (1, 2, 8, 8)


def test_an_error_of_the_users_code_is_said_to_be_the_models_with_its_place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mybad.py").write_text("def make(in_channels, num_classes, filters):\n    return {}['x']\n")
    with pytest.raises(ValueError, match=r"`model` 'mybad:make' .*KeyError: 'x' \(.*mybad.py, line 2\)"):
        build_model("mybad:make", 1, 2)
    (tmp_path / "myworse.py").write_text("1 / 0\n")
    with pytest.raises(ValueError, match=r"'myworse:make' .*ZeroDivisionError.*myworse.py, line 1"):
        build_model("myworse:make", 1, 2)
