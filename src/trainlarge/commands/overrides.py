"""The overrides of a command line, each read alone, so that an error names the one that is wrong."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from functools import cache

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, RangeSweep
from hydra.errors import HydraException

from trainlarge.config.group import BEYOND_WHOLE_NUMBERS, WHOLE_NUMBERS
from trainlarge.config.recipe import SLOTS
from trainlarge.config.share import choices_of, share_folder
from trainlarge.errors import LONGEST, UserError
from trainlarge.sweep.grid import MOST_CELLS

LONGEST_VALUE = 100_000
"""Characters of a value: Hydra's parser takes seconds for more."""
DEEPEST = 30
"""Brackets within brackets of a value, for which Hydra's parser takes a stack of Python calls."""
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")
_UNREADABLE = (HydraException, ValueError, ArithmeticError, RecursionError, AttributeError, AssertionError, TypeError)
"""What Hydra's parser and the functions of its grammar raise."""


def read_overrides(arguments: Iterable[str]) -> list[Override]:
    """The overrides that the arguments of a command line are.

    Raises:
        UserError: for one that cannot be read, that is too long, that removes a key, or whose range has no end.
    """
    parser = OverridesParser.create()
    return [_read(parser, argument) for argument in arguments]


def key_in(argument: str) -> str:
    """The key, or group, that an override sets."""
    return argument.partition("=")[0].lstrip("+~")


def _read(parser: OverridesParser, argument: str) -> Override:
    key, value = key_in(argument), argument.partition("=")[2]
    if "=" not in argument and not argument.startswith("~"):
        raise UserError(argument, "", "must be followed by = and a value, without spaces around the =")
    try:
        override = parser.parse_override(argument)
    except _UNREADABLE as error:
        reason = str(error).partition("\n")[0].partition(" See https")[0]
        allowed = f"what Hydra can read, in quotes where it has signs such as = [ {{ ' ({reason})"
        raise UserError(key, value, allowed) from error
    _check_range(key, value, override)
    is_name = override.is_sweep_override() or override.is_delete() or isinstance(override.value(), str)
    if key in _groups() and (not is_name or len(value) > LONGEST):
        raise UserError(key, value, f"one of {', '.join(choices_of(key))}")
    if key in _groups() and argument.startswith("+"):
        # Hydra refuses some of them in words of its own, and loses others without a word.
        raise UserError(f"+{key}", value, f"must be written without the +: {key}={value} replaces what is chosen")
    if override.is_delete() and key not in SLOTS and not override.is_hydra_override():
        raise UserError(argument, "removed", f"must not be removed: set {key}=VALUE")
    return override


def check_text(argument: str) -> None:
    """Refuse a value that is too long or too deep for a parser, or that is no text.

    Raises:
        UserError: naming its key.
    """
    key, value = key_in(argument), argument.partition("=")[2]
    if len(value) > LONGEST_VALUE:
        raise UserError(
            key, value, f"at most {LONGEST_VALUE:,} characters on a command line: a sweep file may be longer"
        )
    if max(value.count(bracket) for bracket in "[{(") > DEEPEST and _depth(value) > DEEPEST:
        raise UserError(key, value, f"at most {DEEPEST} brackets within brackets")
    if _CONTROL.search(argument):
        raise UserError(key, value, "text without control characters")
    try:
        f"{key}{value}".encode()
    except UnicodeEncodeError:
        raise UserError(key, value, "text in UTF-8") from None


@cache
def _groups() -> frozenset[str]:
    """The groups that are chosen by the name of a file."""
    return frozenset(path.name for path in (share_folder() / "conf").iterdir() if path.is_dir())


def _depth(value: str) -> int:
    deepest = depth = 0
    for sign in value:
        depth += (sign in "[{(") - (sign in ")}]")
        deepest = max(deepest, depth)
    return deepest


def _check_range(key: str, text: str, override: Override) -> None:
    """Refuse a range that would be counted out before anybody could say that it is too long."""
    values = override.value()
    if isinstance(values, RangeSweep):
        start, stop, step = values.start or 0, values.stop or 0, values.step
        length = (stop - start) / step if step else math.inf
        if not length <= MOST_CELLS:
            raise UserError(key, text, f"a range of at most {MOST_CELLS:,} values with a step other than 0")
        if length <= 0:
            raise UserError(key, text, "must have at least one value: a range ends before its second number")
    elif isinstance(values, int) and values not in WHOLE_NUMBERS:
        raise UserError(key, values, BEYOND_WHOLE_NUMBERS)
