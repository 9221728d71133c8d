"""Choices that installed packages add: each names a dataclass in its entry points, as pytest's plugins name modules.

    [project.entry-points."trainlarge.tasks"]
    line_order = "line_order:LineOrderConfig"

Every process of one Python environment finds the same ones, so jobs know what the command knew.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from dataclasses import is_dataclass
from functools import cache
from importlib.metadata import EntryPoint, entry_points

from trainlarge.config.choices import ChosenGroup

log = logging.getLogger(__name__)

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")


@cache
def installed(group: str, base: type[ChosenGroup], taken: frozenset[str]) -> Mapping[str, type[ChosenGroup]]:
    """Name -> dataclass, of the choices that installed packages add to a group of the configuration.

    One that cannot be used is left out, with a warning that says why: a package that has nothing to do with this
    command must not stop it.

    Args:
        group: of entry points, such as ``trainlarge.tasks``.
        base: what each must be a subclass of.
        taken: names of our own choices.
    """
    found: dict[str, type[ChosenGroup]] = {}
    for point in sorted(entry_points(group=group)):
        try:
            found[point.name] = _loaded(point, base, taken | found.keys())
        except Exception as error:  # whatever a foreign module raises while it is imported
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            log.warning("%s=%s is left out: %s (%s)", base.key, point.name, point.value, reason)
    return found


def _loaded(point: EntryPoint, base: type[ChosenGroup], taken: frozenset[str]) -> type[ChosenGroup]:
    if not _NAME.fullmatch(point.name) or point.name in taken:
        raise ValueError("the name must be one word of letters, digits and _ that no other choice has")
    kind: object = point.load()
    if not (isinstance(kind, type) and issubclass(kind, base) and is_dataclass(kind)):
        raise TypeError(f"must be a dataclass that inherits from {base.__module__}.{base.__name__}")
    if kind.name != point.name:
        raise ValueError(f"its field name has the default {kind.name!r}, which must be {point.name!r}")
    return kind
