"""The tree is the architecture: imports go one way, torch stays in the model, nothing is pickled.

The layers are a contract in ``pyproject.toml``, which ``lint-imports`` checks; here it is run over
the package, and over one with every kind of fault in it.
"""

from __future__ import annotations

import ast
import json
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

import headwater

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "headwater"

PICKLERS = {"_pickle", "cloudpickle", "dill", "joblib", "marshal", "pickle", "shelve"}


# --- imports point one way -----------------------------------------------------------------------

# module -> (an import that the contract forbids it, what the report says)
FORBIDDEN = {
    "types": ("import headwater.errors\nimport headwater.config", "types -> headwater.config"),
    "config": ("def load():\n    import headwater.log", "config -> headwater.log"),
    "model": ("from headwater.log import sqlite", "model -> headwater.log"),
    "train": ("from headwater import deploy", "train -> headwater.deploy"),
    "optimize": ("from headwater.loop import Learner", "optimize -> headwater.loop"),
    "loop": (
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from headwater.api import app",
        "loop -> headwater.api",
    ),
    "api": ("import headwater.roles", "api -> headwater.roles"),
    "replay": ("import headwater.demo", "replay -> headwater.demo"),
    "cli": ("import headwater.testing", "cli -> headwater.testing"),
}


LINT_IMPORTS = "from importlinter.cli import lint_imports_command as run; run()"


def lint_imports(folder: Path) -> tuple[int, str]:
    """Checks the contract of ``folder/pyproject.toml`` over ``folder/headwater``."""
    done = subprocess.run(
        [sys.executable, "-c", LINT_IMPORTS, "--no-cache", "--no-logo"],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
    )
    return done.returncode, done.stdout + done.stderr


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A folder with the project's contract and a package of empty modules that keeps it."""
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    package = tmp_path / "headwater"
    package.mkdir()
    contract = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    layers = " ".join(contract["contracts"][0]["layers"])
    for name in ["__init__", *re.findall(r"\w+", layers)]:
        (package / f"{name}.py").touch()
    return tmp_path


def test_imports_point_one_way() -> None:
    code, report = lint_imports(ROOT)
    assert code == 0, report


def test_a_package_that_keeps_the_contract_passes(small: Path) -> None:
    (small / "headwater" / "loop.py").write_text("from headwater import log, model, train, types")
    code, report = lint_imports(small)
    assert code == 0, report


def test_every_import_against_the_direction_is_reported(small: Path) -> None:
    for name, (forbidden, _) in FORBIDDEN.items():
        (small / "headwater" / f"{name}.py").write_text(forbidden)
    code, report = lint_imports(small)
    assert code == 1
    missing = [said for _, said in FORBIDDEN.values() if f"headwater.{said}" not in report]
    assert not missing, report


def test_a_module_without_a_layer_is_reported(small: Path) -> None:
    (small / "headwater" / "helpers.py").touch()
    code, report = lint_imports(small)
    assert code == 1
    assert "helpers" in report


# --- what a module may import and call -----------------------------------------------------------


def faults(package: Path) -> list[str]:
    """Uses of torch outside the model, of pickle, and of the lazy root, as ``file:line what``."""
    found = []
    modules = {path.stem for path in package.iterdir()}
    for path in sorted(package.rglob("*.py")):
        place = path.relative_to(package)
        in_model = place.parts[0] in ("model", "model.py")
        for line, what in _faults(ast.parse(path.read_text()), in_model, modules):
            found.append(f"{place}:{line} {what}")
    return found


def _faults(tree: ast.Module, in_model: bool, modules: set[str]) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        for name in names:
            assert isinstance(node, ast.Import | ast.ImportFrom)
            top, _, rest = name.partition(".")
            if top in PICKLERS:
                yield node.lineno, f"imports {top}"
            if top == "torch" and not in_model:
                yield node.lineno, "imports torch"
            if name in ("torch.save", "torch.load"):
                yield node.lineno, f"imports {name}"
            from_root = isinstance(node, ast.ImportFrom) and node.module == "headwater"
            if from_root and rest not in modules | {"__version__"}:
                yield node.lineno, f"imports {rest} from the root"
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            if called in ("torch.save", "torch.load"):
                yield node.lineno, f"calls {called}"
            for keyword in node.keywords:
                if keyword.arg == "allow_pickle" and ast.unparse(keyword.value) != "False":
                    yield node.lineno, f"calls {called} with allow_pickle"


def test_torch_stays_in_the_model_and_nothing_is_pickled() -> None:
    assert faults(PACKAGE) == []


@pytest.mark.parametrize(
    ("file", "code", "what"),
    [
        ("loop.py", "import torch", "imports torch"),
        ("train/_step.py", "def step():\n    from torch import nn", "imports torch"),
        ("deploy.py", "import pickle", "imports pickle"),
        ("deploy.py", "from joblib import dump", "imports joblib"),
        ("model/tables.py", "import torch\ntorch.save({}, 'x')", "calls torch.save"),
        ("model/tables.py", "from torch import load", "imports torch.load"),
        ("deploy.py", "np.load(path, allow_pickle=True)", "calls np.load with allow_pickle"),
        ("log.py", "from headwater import Learner", "imports Learner from the root"),
    ],
)
def test_a_forbidden_use_is_found(tmp_path: Path, file: str, code: str, what: str) -> None:
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).write_text(code)
    assert faults(tmp_path) == [f"{file}:{len(code.splitlines())} {what}"]


def test_allowed_uses_are_not_found(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "tables.py").write_text("import torch\ntorch.zeros(1)")
    (tmp_path / "cli.py").write_text("from headwater import __version__, model\nmodel.load()")
    (tmp_path / "deploy.py").write_text("np.load(path, allow_pickle=False)")
    assert faults(tmp_path) == []


# --- the public root -----------------------------------------------------------------------------


def heavy_after(code: str) -> list[str]:
    """Which of the slow imports a fresh interpreter holds after running ``code``."""
    ask = "import json, sys; print(json.dumps([m for m in ('numba', 'torch') if m in sys.modules]))"
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\n{ask}"],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    loaded: list[str] = json.loads(done.stdout)
    return loaded


def test_the_nouns_and_the_settings_are_light() -> None:
    nouns = "from headwater import Config, Event, Item, Recommendations, Request, load_config"
    assert heavy_after(f"import headwater, headwater.types, headwater.log\n{nouns}") == []


def test_a_heavy_import_is_noticed() -> None:
    assert "torch" in heavy_after("from headwater import Learner")


def test_every_public_name_loads() -> None:
    for name in headwater.__all__:
        assert getattr(headwater, name) is not None
        assert name in dir(headwater)
    with pytest.raises(AttributeError, match="Lerner"):
        headwater.Lerner  # noqa: B018
