"""Tables for the terminal, and plain columns where the output goes to a file or a program."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from rich import box
from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from trainlarge.commands.shown import visible

PLAIN_WIDTH = 10_000
"""Columns where the output is no terminal: no line is folded there."""


class _VisibleConsole(Console):
    """A console whose texts are made ``visible`` before they get colours and places, which are control characters."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """The parts of what is printed."""
        for part in super().render(renderable, options):
            yield part if part.control else Segment(visible(part.text), part.style)


def console() -> Console:
    """Standard output: as wide as the terminal; where it is none, every line is whole. Texts are no markup."""
    # The stream itself: where bars are drawn, rich puts a stream of its own before the one that makes texts visible.
    stream = getattr(sys.stdout, "rich_proxied_file", sys.stdout)
    standard = _VisibleConsole(file=stream, highlight=False, markup=False)
    if standard.is_terminal:
        return standard
    return _VisibleConsole(file=stream, highlight=False, markup=False, width=PLAIN_WIDTH)


def path_in_words(path: Path | str) -> str:
    """A path as it is written from the working directory; in full where it is not below that."""
    here = Path.cwd()
    return str(Path(path).relative_to(here) if Path(path).is_relative_to(here) else path)


def columns(header: Sequence[str], rows: Sequence[Sequence[str]], texts: int) -> str:
    """Plain columns whose rows are never folded: fast enough for ten thousand.

    Args:
        texts: the first columns that hold words; the others hold numbers and stand right.
    """
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    lines = (
        "  ".join(
            text.ljust(width) if place < texts else text.rjust(width)
            for place, (text, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in [header, *rows]
    )
    return "\n".join(lines)


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
