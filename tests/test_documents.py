"""README.md and docs/: what they link to is there, and the options and checks that they name exist. So does what the
benchmarks, by which their figures were measured, take from the package."""

from __future__ import annotations

import ast
import importlib
import re
from pathlib import Path

import pytest

from pytest_lkagents.selection import packaged_checks
from pytest_lkagents.settings import OPTIONS

from .conftest import ROOT

DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")), *sorted((ROOT / "examples").rglob("*.md"))]
LINK = re.compile(r"\]\((?!https?:)([^)#\s]*)(?:#([^)\s]*))?\)")
# Of the fixtures, and of the properties in pytest's JUnit file.
OTHERS = {"lk_worker", "lk_wire", "lk_server", "lk_caller", "lk_evidence", "lk_id", "lk_severity", "lk_status", "lk_summary"}
# What is written like a check, and is a file.
FILES = (".md", ".py", ".txt", ".yaml", ".toml", ".json")


def anchors(document: Path) -> set[str]:
    headings = re.findall(r"^#+ +(.*)$", document.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_what_documents_name_exists(document: Path) -> None:
    text = document.read_text()
    for path, anchor in LINK.findall(text):
        target = (document.parent / path).resolve() if path else document
        assert target.exists(), path
        assert not anchor or anchor in anchors(target), f"{path}#{anchor}"
    assert set(re.findall(r"--lk-[a-z-]*[a-z]", text)) <= {option.flag for option in OPTIONS if option.command_line} | {
        "--lk-doctor"
    }
    assert set(re.findall(r"\blk_[a-z_]*[a-z]", text)) <= {option.name for option in OPTIONS} | OTHERS


def test_checks_that_documents_name_exist() -> None:
    checks = packaged_checks()
    known, suites = {check.id for check in checks}, {check.suite for check in checks}
    for document in [*ROOT.glob("docs/*.md"), ROOT / "README.md"]:
        named = set(re.findall(r"`([a-z]+\.[a-z]+(?:-[a-z]+)*)`", document.read_text()))
        wrong = {name for name in named - known if name.partition(".")[0] in suites and not name.endswith(FILES)}
        assert not wrong, document


def test_what_a_command_cannot_show_is_said_in_full() -> None:
    """As the checks' own pages say it, by suite where it is all of one."""
    told = re.search(r"What a process here cannot show.*?\n\n", (ROOT / "README.md").read_text(), re.DOTALL)
    assert told is not None
    skipped = [check for check in packaged_checks() if re.search(r"[Ss]kipped[^.]*with `--lk-command`", check.measured)]
    names = {check.id for check in skipped if f"`{check.suite}.*`" not in told[0]}
    # Which is said in words.
    assert names - set(re.findall(r"`([a-z.-]+)`", told[0])) == {"registration.refuses-incomplete-configuration"}


@pytest.mark.parametrize("benchmark", sorted((ROOT / "benchmarks").glob("*.py")), ids=lambda path: path.name)
def test_what_benchmarks_take_from_the_package_exists(benchmark: Path) -> None:
    tree = ast.parse(benchmark.read_text())
    found: dict[str, object] = {}
    for made in ast.walk(tree):
        if isinstance(made, ast.ImportFrom) and (made.module or "").partition(".")[0] == "pytest_lkagents":
            module = importlib.import_module(str(made.module))
            for name in made.names:
                if not hasattr(module, name.name):
                    importlib.import_module(f"{made.module}.{name.name}")
                found[name.asname or name.name] = getattr(module, name.name)
    for used in ast.walk(tree):
        if isinstance(used, ast.Attribute) and isinstance(used.value, ast.Name) and used.value.id in found:
            assert hasattr(found[used.value.id], used.attr), ast.unparse(used)
