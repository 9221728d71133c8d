"""One file per family, each with its ``FAMILY``; the registry is what this folder holds."""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules

from trainlarge.models.family import Family, FamilyHead

_FOUND: list[Family] = [import_module(f"{__name__}.{module.name}").FAMILY for module in iter_modules(__path__)]

FAMILIES: dict[str, Family] = {family.name: family for family in _FOUND}
"""Every family by the name that ``arch.name`` gives it."""

MODEL_CLASSES: dict[str, tuple[Family, FamilyHead]] = {
    head.model_class: (family, head) for family in _FOUND for head in family.heads.values() if head.model_class
}
"""Family and head of each class of transformers that a family builds."""
