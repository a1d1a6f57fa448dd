"""Networks of the user's own: `package.module:function`."""

import hashlib
import importlib
import importlib.util
import inspect
import os
import re
import sys
import traceback
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from importlib.machinery import ModuleSpec
from pathlib import Path

from torch import nn

from nacl._checks import expectation
from nacl.models._options import Options

_NAME = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*")
_ALWAYS = ("filters",)
_IF_TAKEN = ("encoder", "weights", "patch", "spacing")


def is_own(name: str) -> bool:
    """Whether `name` is meant as a function of the user's own: it has a colon."""
    return ":" in name


def check_own(name: str) -> None:
    """Raise ValueError unless `name` is `package.module:function`; the module is not looked for."""
    if not _NAME.fullmatch(name):
        remedy = "Write it like a Python import, without .py: networks.mine:make"
        raise ValueError(expectation("model", "of the form MODULE:FUNCTION", repr(name), remedy=remedy))


def build(name: str, options: Options) -> nn.Module:
    """What the user's function gives, called with (in_channels, num_classes, filters=...).

    Of `encoder`, `weights`, `patch` and `spacing` it is given those that it names among its arguments. The working
    directory is searched too, for the module and for what it imports.

    Raises:
        ModuleNotFoundError, ImportError: no such module, or it needs one that is not there.
        ValueError: the module has no such function, or raises an error, which is named with its place.
        TypeError: the function can't be called so, or does not give an nn.Module.
    """
    module_name, function_name = name.split(":")
    with _working_directory_on_path():
        module = _imported(module_name, name)
        function = getattr(module, function_name, None)
        if not callable(function):
            names = ", ".join(sorted(key for key, value in vars(module).items() if _is_candidate(value, module)))
            has = f"The module {module_name} ({module.__file__}) has {names or 'no functions of its own'}."
            raise ValueError(expectation("model", f"with a function {function_name!r} in it", repr(name)) + " " + has)
        keywords = _keywords(function, name, options)
        with _blamed(name):
            network = function(options.in_channels, options.num_classes, **keywords)
    if not isinstance(network, nn.Module):
        got, remedy = type(network).__name__, "Return a torch.nn.Module"
        raise TypeError(expectation("model", f"{name!r} to give a network", got, remedy=remedy))
    return network


def source(name: str) -> str:
    """A hash of the module's file; where it lies in a package, of all .py files of the outermost one.

    Nothing is executed for it. What they import from elsewhere does not count.

    Raises:
        ModuleNotFoundError: no such module.
    """
    module_name = name.split(":")[0]
    top, *inner = module_name.split(".")
    with _working_directory_on_path():
        found = importlib.util.find_spec(top)
        if found is None or not _is_in(found, inner):
            raise _missing(module_name, name)
        folders = found.submodule_search_locations
        files = {"": Path(found.origin)} if folders is None else _modules(folders)
    digest = hashlib.blake2b(digest_size=8)
    for place, file in files.items():
        digest.update(place.encode() + b"\0" + hashlib.blake2b(file.read_bytes()).digest())
    return digest.hexdigest()


def _is_in(top: ModuleSpec, inner: Sequence[str]) -> bool:
    """Whether a module is in a package, or for no `inner` names is the top itself; by names, as nothing is executed."""
    if top.submodule_search_locations is None:
        return not inner and top.origin is not None and Path(top.origin).is_file()
    places = [Path(folder, *inner) for folder in top.submodule_search_locations]
    return any(place.is_dir() or any(place.parent.glob(f"{place.name}.*")) for place in places)


def _modules(folders: Iterable[str]) -> dict[str, Path]:
    """The files of a package that can be imported, by their place in it."""
    found = {}
    for folder in reversed([*map(Path, folders)]):  # of two at one place, Python takes the first
        found |= {file.relative_to(folder).with_suffix("").as_posix(): file for file in folder.rglob("*.py")}
    # not what lies in .ipynb_checkpoints or .venv
    return {place: found[place] for place in sorted(found) if all(map(str.isidentifier, place.split("/")))}


@contextmanager
def _working_directory_on_path() -> Iterator[None]:
    """The working directory is where a user's files are; the shell's `nacl` does not search it by itself."""
    here = os.getcwd()
    if {here, ""} & set(sys.path):
        yield
        return
    sys.path.append(here)
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.path.remove(here)


def _imported(module_name: str, name: str) -> object:
    try:
        with _blamed(name):
            return importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name and (module_name + ".").startswith(error.name + "."):
            raise _missing(module_name, name) from error
        raise


@contextmanager
def _blamed(name: str) -> Iterator[None]:
    """Errors of the user's code are said to be of this model, with their place in it."""
    try:
        yield
    except (MemoryError, ModuleNotFoundError):  # of which Python names what is missing
        raise
    except Exception as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        got = f"{type(error).__name__}: {error}"
        raise ValueError(
            expectation("model", f"{name!r} to give a network", got, f"{place.filename}, line {place.lineno}")
        ) from error


def _missing(module_name: str, name: str) -> ModuleNotFoundError:
    remedy = "Go to the folder that it lies in, or put that folder on PYTHONPATH"
    message = expectation("model", "with a module that can be imported", repr(name), f"no module {module_name}", remedy)
    return ModuleNotFoundError(message, name=module_name)


def _is_candidate(value: object, module: object) -> bool:
    return callable(value) and getattr(value, "__module__", None) == module.__name__


def _keywords(function: object, name: str, options: Options) -> dict[str, object]:
    """The keywords that the function is called with, once found to take the call."""
    signature = inspect.signature(function)
    given = asdict(options)
    keywords = {key: given[key] for key in _ALWAYS + tuple(key for key in _IF_TAKEN if key in signature.parameters)}
    try:
        signature.bind(options.in_channels, options.num_classes, **keywords)
    except TypeError as error:
        rule = f"{name!r} to take (in_channels, num_classes, filters=...)"
        raise TypeError(expectation("model", rule, f"{name.split(':')[1]}{signature}", str(error))) from error
    return keywords
