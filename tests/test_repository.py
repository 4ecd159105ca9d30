"""What the repository says about itself is so: the tree, versions, pins, notices, links."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path
from pkgutil import resolve_name

import polars as pl
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import headwater
from headwater import data
from headwater.errors import UnreadableFile

ROOT = Path(__file__).parents[1]


# --- the README's tree ---------------------------------------------------------------------------


def tree(markdown: str) -> set[str]:
    """The paths that the first code block with a line ``headwater/`` draws, folders with a ``/``.

    The drawing starts at the root of the repository, without a line for the root itself. A path's
    depth is where its name begins, after the lines of the drawing.
    """
    for block in re.findall(r"```\w*\n(.*?)```", markdown, re.DOTALL):
        found: set[str] = set()
        parents: list[tuple[int, str]] = []
        for line in block.splitlines():
            name = re.match(r"([\s│├└─|`+-]*)([\w.-]+/?)", line)
            if not name:
                continue
            depth = len(name[1])
            while parents and parents[-1][0] >= depth:
                parents.pop()
            path = (parents[-1][1] if parents else "") + name[2]
            found.add(path)
            if path.endswith("/"):
                parents.append((depth, path))
        if "headwater/" in found:
            return found
    raise AssertionError("no code block has a line for headwater/")


def modules(root: Path) -> set[str]:
    """The modules and packages that a tree has to name: private parts and caches apart."""
    package = root / "headwater"
    found = {f"{path.relative_to(root)}" for path in package.glob("[!_]*.py")}
    return found | {f"{path.parent.relative_to(root)}/" for path in package.rglob("__init__.py")}


def test_the_readme_names_every_module() -> None:
    drawn = tree((ROOT / "README.md").read_text())
    assert modules(ROOT) - drawn == set()


def test_the_readme_names_nothing_that_is_not_there() -> None:
    drawn = tree((ROOT / "README.md").read_text())
    assert {path for path in drawn if not (ROOT / path).exists()} == set()


def test_a_tree_is_read_in_both_ways_of_drawing() -> None:
    indented = "headwater/\n  loop.py     sequences\n  model/\n    tables.py   rows\nMakefile"
    drawn = "headwater/\n├── loop.py   sequences\n├── model/\n│   └── tables.py  rows\nMakefile"
    expected = {"headwater/", "headwater/loop.py", "headwater/model/"}
    expected |= {"headwater/model/tables.py", "Makefile"}
    for block in (indented, drawn):
        assert tree(f"```sh\nmake demo\n```\n\n```\n{block}\n```\n") == expected


def test_a_missing_line_is_noticed(tmp_path: Path) -> None:
    for name in ("__init__.py", "_parts.py", "loop.py", "model/__init__.py", "model/_rows.py"):
        (tmp_path / "headwater" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "headwater" / name).touch()
    assert modules(tmp_path) == {"headwater/", "headwater/loop.py", "headwater/model/"}


# --- versions, pins, notices, links --------------------------------------------------------------


def test_the_changelog_has_the_version() -> None:
    changelog = (ROOT / "CHANGELOG.md").read_text()
    assert f"## [{headwater.__version__}]" in changelog


def test_every_requirement_has_a_pin_that_satisfies_it() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    required = [*project["build-system"]["requires"], *project["project"]["dependencies"]]
    for extra in project["project"]["optional-dependencies"].values():
        required += extra
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = [Requirement(line) for line in lines if line and not line.startswith("#")]
    versions = {canonicalize_name(pin.name): str(pin.specifier).removeprefix("==") for pin in pins}
    for requirement in map(Requirement, required):
        assert versions[canonicalize_name(requirement.name)] in requirement.specifier, requirement


def imports(package: Path) -> dict[str, str]:
    """The top-level modules imported from outside of the package, each with one place that does."""
    found: dict[str, str] = {}
    for path in sorted(package.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            names: list[str] = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names = [node.module]
            for name in names:
                top = name.partition(".")[0]
                if top != "headwater" and top not in sys.stdlib_module_names:
                    found.setdefault(top, f"{path.relative_to(package)}")
    return found


def test_every_import_is_a_declared_dependency() -> None:
    """What comes along by accident with something else goes away by accident too."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    # headwater.testing is for those who test: it may use what tests do.
    declared = [*project["dependencies"], *extras["plot"], *extras["drift"], "pytest", "hypothesis"]
    names = {canonicalize_name(Requirement(line).name) for line in declared}
    distributions = packages_distributions()
    for module, place in imports(ROOT / "headwater").items():
        found = {canonicalize_name(name) for name in distributions.get(module, [])}
        assert found & names, f"{place} imports {module}"


def test_every_pin_is_exact_and_installs_anywhere() -> None:
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        # A local version such as +cpu, or an address, exists on one index only.
        assert line.startswith("#") or re.fullmatch(r"[\w.-]+==[\w.]+", line), line


def test_shipped_data_has_its_licence_and_its_notice() -> None:
    notice = (ROOT / "NOTICE").read_text()
    for name in data.names():
        assert f"headwater/data/{name}/" in notice
        owner = re.search(r"Copyright \(c\) .*", (data.path(name) / "LICENSE.txt").read_text())
        assert owner
        assert owner[0] in notice


def test_nothing_is_committed_that_git_ignores() -> None:
    """Caches hold what benchmarks download, and some of that may not be passed on."""
    if not (ROOT / ".git").exists() or not shutil.which("git"):
        pytest.skip("no git checkout, or no git: what is committed can't be told")
    # The checkout may be another user's.
    git = ["git", "-c", "safe.directory=*"]
    listing = [*git, "ls-files", "--cached", "--ignored", "--exclude-standard"]
    found = subprocess.run(listing, cwd=ROOT, capture_output=True, text=True, check=True)
    assert found.stdout == ""


PAGES = sorted(f"{path.relative_to(ROOT)}" for path in ROOT.glob("*.md"))
PAGES += sorted(f"{path.relative_to(ROOT)}" for path in ROOT.glob("docs/**/*.md"))


@pytest.mark.parametrize("name", PAGES)
def test_pages_name_only_what_exists(name: str) -> None:
    page = ROOT / name
    text = page.read_text()
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"(?:`|^)make ([a-z-]+)", text, re.MULTILINE)) <= targets
    links = re.findall(r"\]\((?!\w+:|#)([^)#\s]+)", text)
    assert [link for link in links if not (page.parent / link.partition("#")[0]).exists()] == []
    for dotted in set(re.findall(r"`(headwater(?:\.\w+)+)`", text)) - {"headwater.toml"}:
        resolve_name(dotted)
    files = set(re.findall(r"`((?:headwater|tests|docs|benchmarks)/[\w./-]+)`", text))
    # A stage is spoken of as headwater/optimize, whether it is a file or a package today.
    there = {file for file in files for end in ("", ".py") if Path(f"{ROOT / file}{end}").exists()}
    assert files - there == set()


# --- the shipped stream --------------------------------------------------------------------------


def test_the_shipped_stream_is_whole() -> None:
    folder = data.path("movietweetings-100k")
    events = pl.read_parquet(folder / "interactions.parquet")
    items = pl.read_parquet(folder / "items.parquet")
    assert events.columns == ["user_id", "item_id", "rating", "timestamp"]
    assert items.columns == ["item_id", "title", "genres", "year"]
    assert events.height == 100_000
    assert events["user_id"].n_unique() == 16_554
    assert items["item_id"].n_unique() == items.height == 10_506
    assert set(events["item_id"]) == set(items["item_id"])
    assert events.null_count().sum_horizontal().item() == 0
    assert events["timestamp"].is_sorted()


def test_an_unknown_stream_is_refused_with_the_names_of_the_known() -> None:
    with pytest.raises(UnreadableFile, match=r"'movietweetings'.*movietweetings-100k"):
        data.path("movietweetings")
