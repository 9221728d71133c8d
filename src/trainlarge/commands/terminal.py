"""Tables for the terminal, and plain columns where the output goes to a file or a program."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

PLAIN_WIDTH = 200
"""Columns of a line that is not folded."""


def console() -> Console:
    """Standard output: as wide as the terminal, or wide enough for any table where it is none."""
    standard = Console(highlight=False)
    return standard if standard.is_terminal else Console(highlight=False, width=PLAIN_WIDTH)


def table(header: Sequence[str], rows: Iterable[Sequence[str]], is_terminal: bool, texts: int = 1) -> Table:
    """A table of texts.

    Args:
        is_terminal: draw lines; otherwise plain columns.
        texts: the first columns that hold words; the others hold numbers and stand right.
    """
    made = Table(box=box.SIMPLE_HEAD if is_terminal else None, pad_edge=False, header_style="bold")
    for index, name in enumerate(header):
        made.add_column(name, justify="left" if index < texts else "right", overflow="fold")
    for row in rows:
        # As Text, so that a bracket in a message is no markup.
        made.add_row(*(Text(cell) for cell in row))
    return made
