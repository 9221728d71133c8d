"""Plain flags of ``train``, ``compress`` and ``run`` that stand for keys of the launcher."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import NoReturn

from trainlarge.errors import UserError


def flags() -> argparse.ArgumentParser:
    """The flags, as the parent of other parsers."""
    parser = _Parser(add_help=False, allow_abbrev=False)
    parser.add_argument("--retries", metavar="N", help="try a failed cell again so often")
    parser.add_argument("--max-failures", metavar="N", help="start no further job once N cells have failed")
    parser.add_argument(
        "--fail-fast", action="store_true", help="stop at the first failed cell; running jobs save their state"
    )
    parser.add_argument("--no-wait", action="store_true", help="do not wait for cells that another command runs")
    return parser


def with_keys(arguments: list[str]) -> list[str]:
    """The arguments of a verb with its flags replaced by the overrides that they stand for.

    Raises:
        UserError: for a flag without its number.
    """
    given, rest = flags().parse_known_args(arguments)
    return [*rest, *(override(value) for name, override in _OVERRIDES.items() if (value := getattr(given, name)))]


_OVERRIDES: dict[str, Callable[[str], str]] = {
    "retries": lambda value: f"launcher.retries={value}",
    "max_failures": lambda value: f"launcher.max_failures={value}",
    "fail_fast": lambda _: "launcher.fail_fast=true",
    "no_wait": lambda _: "launcher.wait=false",
}


class _Parser(argparse.ArgumentParser):
    """Reports a mistake like all others, in one line."""

    def error(self, message: str) -> NoReturn:
        flag, _, complaint = message.removeprefix("argument ").partition(": ")
        raise UserError(flag, "", f"must be followed by a whole number, as in {flag} 3 ({complaint})")
