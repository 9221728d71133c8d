"""Public names of a package that are imported on first use; the package's ``__init__.pyi`` is the only list of them."""

from __future__ import annotations

import ast
from collections.abc import Callable
from importlib import import_module
from pathlib import Path


def attach_stub(package: str, init: str) -> tuple[Callable[[str], object], Callable[[], list[str]], list[str]]:
    """``__getattr__``, ``__dir__`` and ``__all__`` of a package, whose ``__init__.pyi`` names the module of each name.

    The same contract as ``attach_stub`` of Scientific Python's SPEC 1.

    Args:
        package: ``__name__`` of the package.
        init: its ``__file__``.
    """
    stub = ast.parse(Path(init).with_suffix(".pyi").read_text(encoding="utf-8"))
    imports = [node for node in stub.body if isinstance(node, ast.ImportFrom)]
    modules = {alias.name: str(node.module) for node in imports for alias in node.names}

    def get(name: str) -> object:
        if name not in modules:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(import_module(modules[name]), name)

    return get, lambda: sorted({*vars(import_module(package)), *modules}), sorted(modules)
