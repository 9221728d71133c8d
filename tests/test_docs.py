"""The pages for users: links lead somewhere, imports of examples work, and every verb and flag is named."""

from __future__ import annotations

import argparse
import ast
import importlib
import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from trainlarge.commands.launch_flags import flags
from trainlarge.commands.verbs import VERBS

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files_and_headings_that_exist(page: Path) -> None:
    targets = re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8"))
    for target in targets:
        if target.startswith("http"):
            continue
        name, _, heading = target.partition("#")
        file = page.parent / name if name else page
        assert file.exists(), target
        if heading:
            assert heading in set(_headings(file)), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_python_examples_import_is_there(page: Path) -> None:
    for block in re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom) and node.module:
                module = importlib.import_module(node.module)
                for alias in node.names:
                    assert hasattr(module, alias.name), f"{node.module}.{alias.name}"


def test_the_page_of_keys_is_that_of_the_dataclasses() -> None:
    spec = importlib.util.spec_from_file_location("make_configuration", ROOT / "docs" / "make_configuration.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.PAGE.read_text(encoding="utf-8") == module.page(), "run `make docs`"


def test_the_page_of_commands_names_every_verb_and_every_flag() -> None:
    page = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    for name in [*VERBS, *_flags()]:
        assert re.search(rf"`{re.escape(name)}[ `]", page), name


def test_to_add_something_takes_three_files_and_a_test_at_most() -> None:
    page = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    rows = [line.split("|")[1:-1] for line in page.splitlines() if line.startswith("| a ")]
    assert len(rows) >= 10
    for what, files, test in rows:
        assert 1 <= files.count("](") <= 3 or "config/" in files, what
        assert test.strip(), what


@pytest.mark.parametrize("package", ["trainlarge", "trainlarge.compression"])
def test_the_page_of_the_interface_names_every_public_name(package: str) -> None:
    page = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    module = importlib.import_module(package)
    for name in module.__all__:
        assert getattr(module, name) is not None
        assert re.search(rf"`{name}[`(]", page), name


def _headings(page: Path) -> Iterator[str]:
    """Anchors of a page, as GitHub names them."""
    for heading in re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE):
        yield re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def _flags() -> set[str]:
    names = {verb.module for verb in VERBS.values()}
    modules = [importlib.import_module(f"trainlarge.commands.{name}") for name in names]
    parsers = [flags(), *(module.parser() for module in modules if hasattr(module, "parser"))]
    actions = [action for parser in parsers for action in parser._actions if action.help != argparse.SUPPRESS]
    options = {option for action in actions for option in action.option_strings}
    return {option for option in options if option.startswith("--")} - {"--help"}
