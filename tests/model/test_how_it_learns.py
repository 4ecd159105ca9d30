"""docs/how-it-learns.md names modules and tests that are there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "how-it-learns.md"


def missing(page: str) -> list[str]:
    """The modules and tests that a page names and that don't exist."""
    found = []
    for name in re.findall(r"`((?:headwater|tests)/[\w/.:]+)`", page):
        path, _, test = name.partition("::")
        file = ROOT / path
        if not file.is_file() or (test and not re.search(rf"def {test}\b", file.read_text())):
            found.append(name)
    return found


def test_every_module_and_test_that_the_page_names_is_there():
    assert missing(PAGE.read_text()) == []


@pytest.mark.parametrize(
    "name",
    [
        "headwater/model/transformer.py",
        "tests/model/test_tables.py::test_a_step_is_row_wise",
        "tests/model/test_nothing.py::test_a_step_is_row_wise_adagrad",
    ],
)
def test_a_name_of_nothing_is_noticed(name):
    assert missing(f"- `{name}`") == [name]


def test_every_formula_has_a_module_and_a_test():
    sections = re.split(r"^## ", PAGE.read_text(), flags=re.MULTILINE)[1:]
    with_formulas = [section for section in sections if "```" in section]
    assert len(with_formulas) >= 7
    for section in with_formulas:
        assert "`headwater/" in section, section[:40]
        assert "`tests/" in section, section[:40]


def test_every_module_that_learns_is_on_the_page():
    page = PAGE.read_text()
    modules = sorted((ROOT / "headwater" / "model").glob("*.py"))
    assert [m.name for m in modules if f"`headwater/model/{m.name}`" not in page] == []
