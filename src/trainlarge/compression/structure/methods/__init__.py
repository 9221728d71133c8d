"""One file per kind of method that changes shapes. Importing this folder imports them all: it registers them."""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules

for _module in iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")
