"""Imports go one way: which package may know which, and no module knows itself over others."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src"
ORDER = (
    "config",
    "sweep",
    "machine",
    "data",
    "models",
    "tasks",
    "launch",
    "training",
    "compression",
    "latency",
    "commands",
)
"""A package knows those before it."""
KNOWN = {name: {*ORDER[:place], "errors"} for place, name in enumerate(ORDER)}
KNOWN["results"] = {"config", "sweep", "errors", "lazy_names"}
KNOWN["tracking"] = {"config", "sweep", "machine", "results", "errors"}
KNOWN["commands"] |= {"results", "tracking"}
KNOWN["compression"] |= {"lazy_names"}
KNOWN["errors"] = KNOWN["lazy_names"] = set()


def imported(file: Path, everywhere: bool = True) -> Iterator[str]:
    """Modules of the project that a file imports; without ``everywhere``, only when it is imported itself."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    for node in ast.walk(tree) if everywhere else tree.body:
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names if name.name.startswith("trainlarge"))
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("trainlarge"):
            names = [f"{node.module}.{name.name}" for name in node.names]
            yield from (name if is_module(name) else str(node.module) for name in names)


def is_module(name: str) -> bool:
    path = SOURCE.joinpath(*name.split("."))
    return path.is_dir() or path.with_suffix(".py").exists()


def files_of(package: str) -> list[Path]:
    path = SOURCE / "trainlarge" / package
    return sorted(path.rglob("*.py")) if path.is_dir() else [path.with_suffix(".py")]


def test_the_order_names_every_package() -> None:
    packages = {path.name for path in (SOURCE / "trainlarge").iterdir() if (path / "__init__.py").exists()}
    assert packages | {"errors", "lazy_names"} == KNOWN.keys()


@pytest.mark.parametrize("package", KNOWN)
def test_a_package_imports_only_those_before_it(package: str) -> None:
    wrong = [
        f"{file.relative_to(SOURCE)}: {name}"
        for file in files_of(package)
        for name in imported(file)
        if name.split(".")[1:2] and name.split(".")[1] not in {*KNOWN[package], package}
    ]
    assert not wrong


def test_no_module_is_imported_by_what_it_imports() -> None:
    modules = {
        ".".join(file.relative_to(SOURCE).with_suffix("").parts).removesuffix(".__init__"): file
        for file in (SOURCE / "trainlarge").rglob("*.py")
    }
    graph = {name: set(imported(file, everywhere=False)) - {name} for name, file in modules.items()}
    # Raises CycleError, which names the modules.
    assert len(list(TopologicalSorter(graph).static_order())) >= len(modules)


HYDRA = {
    "commands/hydra_entry.py": "runs it",
    "commands/hydra_keys.py": "which of its own keys may be set",
    "commands/hydra_loader.py": "checks what it composes",
    "commands/overrides.py": "reads overrides one by one",
    "commands/rerun.py": "composes the defaults of today",
    "config/register.py": "tells it the dataclasses",
    "sweep/text_files.py": "how it reads our files",
    "sweep/text_keys.py": "how it reads overrides",
}
"""Files that import Hydra, each with its one reason."""


def test_only_a_few_files_know_hydra_and_one_alone_changes_the_command_line() -> None:
    known, argv = set(), set()
    for file in (SOURCE / "trainlarge").rglob("*.py"):
        tree, name = ast.parse(file.read_text(encoding="utf-8")), file.relative_to(SOURCE / "trainlarge").as_posix()
        for node in ast.walk(tree):
            modules = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            modules += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            known |= {name for module in modules if module.split(".")[0] == "hydra"}
            if isinstance(node, ast.Attribute) and node.attr == "argv" and isinstance(node.ctx, ast.Store):
                argv.add(name)
    assert known == HYDRA.keys()
    assert argv == {"commands/hydra_entry.py"}
