"""What is printed shows as text, whatever is in it: names, messages and logs of a study may come from strangers.

A terminal obeys control characters: they can hide a line, rename a window, or write what the user seems to have typed.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TextIO, cast

_UNSEEN = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""Control characters but for tab and line end, marks that turn the direction of text, and what no encoding can hold."""


def visible(text: str) -> str:
    r"""The text with ``\x1b`` and the like spelled out; all else, letters of every script, stays."""
    return _UNSEEN.sub(lambda found: repr(found[0])[1:-1], text)


@contextmanager
def visible_streams() -> Iterator[None]:
    """While the block runs, what is written to standard output and standard error is made ``visible``.

    A ``rich`` console writes past it, since its own colours are control characters: see ``terminal.console``.
    """
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = (cast(TextIO, _VisibleStream(stream)) for stream in before)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before


class _VisibleStream:
    """A stream that takes the place of another."""

    def __init__(self, stream: TextIO) -> None:
        self.rich_proxied_file = stream
        """What ``rich`` writes to in the place of this stream: it looks for this name."""

    def write(self, text: str) -> int:
        """Write a text as it can be shown."""
        # Progress bars of libraries return to the start of their line.
        start = "\r" if text.startswith("\r") else ""
        end = "\r" if text.endswith("\r") and len(text) > 1 else ""
        inner = text[len(start) : len(text) - len(end)]
        return self.rich_proxied_file.write(f"{start}{visible(inner)}{end}")

    def writelines(self, lines: Iterable[str]) -> None:
        """Write each text."""
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> object:
        return getattr(self.rich_proxied_file, name)
