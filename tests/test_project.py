"""The house: who imports whom, what the lock and the environments promise, and the public names."""

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
FLOORS = [
    {"_checks"},
    {"_files", "_parallel", "parameters"},
    {"_windows", "_penalties", "_scores", "_likelihood"},
    {"priors", "statistics", "ranks"},
    {"losses", "theory", "scaling"},
    {"metrics", "data", "models"},
    {"torchmetrics", "training"},
    {"integrations"},
    {"evaluation", "provenance", "reporting", "tables"},
    {"runs"},
    {"results", "grids"},
    {"experiments", "explorer", "archive"},
    {"sweep"},
    {"cli"},
    {"__main__"},
]
FLOOR = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
LOCKED = {
    canonicalize_name(Requirement(line).name)
    for line in (ROOT / "requirements.lock").read_text().splitlines()
    if line.strip()
}
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def _imports(file: Path) -> set[str]:
    """The rooms of nacl that a file imports, at any depth of its code."""
    rooms = set()
    for node in ast.walk(ast.parse(file.read_text())):
        names = []
        if isinstance(node, ast.ImportFrom):
            names = [node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)]
        names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        rooms |= {name.split(".")[1] for name in names if name.startswith("nacl.")}
    return rooms


def _room(file: Path) -> str:
    return file.relative_to(ROOT / "nacl").parts[0].removesuffix(".py")


@pytest.mark.parametrize("file", sorted((ROOT / "nacl").rglob("*.py")), ids=lambda f: str(f.relative_to(ROOT)))
def test_imports_go_down(file):
    room = _room(file)
    if room == "__init__":
        assert _imports(file) <= {"losses", "metrics", "priors", "scaling", "reporting"}
    elif room == "plots":
        assert _imports(file) <= {"plots"}
    else:
        upward = {r for r in _imports(file) - {room} if r != "plots" and FLOOR[r] >= FLOOR[room]}
        assert not upward
        assert "plots" not in _imports(file) or room in ("cli", "explorer", "integrations")


@pytest.mark.parametrize("file", sorted((ROOT / "nacl").rglob("*.py")), ids=lambda f: str(f.relative_to(ROOT)))
def test_no_file_holds_two_ideas(file):
    assert len(file.read_text().splitlines()) <= 400


def test_the_losses_import_without_the_extras():
    extras = ("pandas", "h5py", "matplotlib", "safetensors", "jinja2", "PIL", "nibabel", "torchmetrics")
    code = f"import nacl, sys; print([m for m in {extras} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_command_line_names_the_extra_that_is_missing():
    code = "import sys; sys.modules['pandas'] = None; from nacl.__main__ import main; sys.exit(main())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 2
    assert "needs pandas" in done.stderr
    assert "nacl-calibration[notebooks]" in done.stderr


def test_pynacl_in_the_environment_is_named(tmp_path):
    metadata = tmp_path / "PyNaCl-1.5.0.dist-info" / "METADATA"
    metadata.parent.mkdir()
    metadata.write_text("Metadata-Version: 2.1\nName: PyNaCl\nVersion: 1.5.0\n")
    code = f"import sys; sys.path.append({str(tmp_path)!r}); import nacl"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 1
    assert "PyNaCl is in this environment" in done.stderr


def test_every_dependency_is_locked():
    project = PYPROJECT["project"]
    wanted = [*project["dependencies"], *(d for extra in project["optional-dependencies"].values() for d in extra)]
    names = {canonicalize_name(Requirement(d).name) for d in wanted} - {project["name"]}
    assert names <= LOCKED


def test_what_is_installed_is_what_is_locked():
    from importlib.metadata import version

    for line in (ROOT / "requirements.lock").read_text().splitlines():
        requirement = Requirement(line)
        if requirement.marker is None or requirement.marker.evaluate():
            assert requirement.specifier.contains(version(requirement.name), prereleases=True), line


def test_the_lock_names_versions_and_no_hosts():
    text = (ROOT / "requirements.lock").read_text()
    assert "://" not in text
    assert "--" not in text
    assert all("==" in line for line in text.splitlines())


def test_conda_gets_the_lock():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    (pip,) = (d["pip"] for d in environment["dependencies"] if isinstance(d, dict))
    assert pip == ["-r requirements.lock", "-e ."]
    (python,) = (d for d in environment["dependencies"] if str(d).startswith("python="))
    assert Requirement(f"python{PYPROJECT['project']['requires-python']}").specifier.contains(python.split("=")[1])


def test_every_dependency_has_its_reason():
    text = (ROOT / "pyproject.toml").read_text().split("[project.scripts]")[0]
    for line in re.findall(r'^    "(?!nacl-calibration).*$', text, flags=re.MULTILINE):
        assert "#" in line, line


def test_versions_agree():
    version = PYPROJECT["project"]["version"]
    assert f"version: {version}" in (ROOT / "CITATION.cff").read_text()
    assert f"## {version}" in (ROOT / "CHANGELOG.md").read_text()


def test_citation_is_valid_yaml_with_the_paper():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["preferred-citation"]["doi"] == "10.1016/j.media.2025.103501"


def test_public_names_are_there():
    import nacl

    assert all(hasattr(nacl, name) for name in nacl.__all__)


def test_the_five_lines_of_the_readme_run():
    import torch

    (code,) = re.findall(r"## Five lines\n\n```python\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.DOTALL)
    logits = torch.randn(2, 4, 16, 16, requires_grad=True)
    target = torch.randint(0, 4, (2, 16, 16))
    exec(code, {"logits": logits, "target": target})
    assert logits.grad.abs().sum() > 0


def test_no_result_in_the_repository_is_without_provenance():
    import pandas as pd

    for file in (ROOT / "results").glob("*.csv"):
        table = pd.read_csv(file)
        if file.stem.endswith(("-cases", "-bins")):  # of an archive: each row names its run
            runs = pd.read_csv(file.with_name(f"{file.stem.rpartition('-')[0]}-runs.csv"))
            assert set(table["identity"]) == set(runs["identity"]), file
            continue
        for column in ("loss", "seed", "epochs", "size", "commit", "device_name", "identity", "dataset"):
            assert table[column].notna().all(), (file, column)
