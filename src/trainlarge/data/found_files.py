"""The files that a path, a folder or a pattern names, among a bounded number of entries of folders."""

from __future__ import annotations

import fnmatch
import glob
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from trainlarge.errors import UserError

MOST_ENTRIES = 200_000
"""Entries of folders that one pattern may look at, which takes some seconds; ``/**/*.x`` would take hours."""


def files_named(key: str, pattern: str) -> list[Path]:
    """The files at a path, below a folder, or that a pattern matches (``*``, ``?``, ``[...]``, ``**``; ``~`` allowed).

    Hidden files and folders are left out, unless the pattern names them; pipes and devices are no files.

    Args:
        key: key of the configuration, for errors.

    Raises:
        UserError: it cannot be looked at, or has more than ``MOST_ENTRIES`` entries.
    """
    try:
        named = Path(pattern).expanduser().absolute()
        if named.is_file():
            return [named]
        search = _Search(key, pattern)
        paths = search.below(named) if named.is_dir() else search.matches(Path("/"), named.parts[1:])
        return [path for path in paths if os.path.isfile(path)]  # noqa: PTH113 - what cannot be asked is none
    except (OSError, RuntimeError, ValueError) as error:
        if isinstance(error, UserError):
            raise
        # The home of a user that there is not, a name that is too long, one with a zero byte.
        reason = error.strerror if isinstance(error, OSError) else error
        raise UserError(
            key, pattern, f"an existing file or folder, or a pattern that matches files ({reason})"
        ) from error


@dataclass
class _Search:
    key: str
    pattern: str
    looked: int = 0
    """Entries so far."""
    visited: set[tuple[str, ...]] = field(default_factory=set)
    """Folders below ``**`` by their real path and the pattern that is left: links may lead in circles."""

    def below(self, folder: Path) -> Iterator[Path]:
        """Files in a folder and in those in it; links to folders are not followed."""
        for entry in self._entries(folder):
            if entry.name.startswith("."):
                continue
            if _is_folder(entry, follows_links=False):
                yield from self.below(Path(entry.path))
            else:
                yield Path(entry.path)

    def matches(self, folder: Path, parts: tuple[str, ...]) -> Iterator[Path]:
        """What the parts of a pattern match below a folder; a path may come more than once."""
        if not parts:
            yield folder
            return
        part, *rest = parts
        if part == "**":
            yield from self._matches_below(folder, parts)
        elif not glob.has_magic(part):
            yield from self.matches(folder / part, tuple(rest))
        else:
            for entry in self._entries(folder):
                is_shown = part.startswith(".") or not entry.name.startswith(".")
                if is_shown and fnmatch.fnmatch(entry.name, part) and (not rest or _is_folder(entry)):
                    yield from self.matches(Path(entry.path), tuple(rest))

    def _matches_below(self, folder: Path, parts: tuple[str, ...]) -> Iterator[Path]:
        place = (os.path.realpath(folder), *parts)
        if place in self.visited:
            return
        self.visited.add(place)
        rest = parts[1:]
        # At the end, ``**`` matches files too.
        yield from self.matches(folder, rest or ("*",))
        for entry in self._entries(folder):
            if _is_folder(entry) and not entry.name.startswith("."):
                yield from self._matches_below(Path(entry.path), parts)

    def _entries(self, folder: Path) -> Iterator[os.DirEntry[str]]:
        """Entries of a folder; none where it is no folder or cannot be read."""
        try:
            entries = os.scandir(folder)
        except OSError:
            return
        with entries:
            for entry in entries:
                self.looked += 1
                if self.looked > MOST_ENTRIES:
                    allowed = (
                        f"a pattern or folder with at most {MOST_ENTRIES:,} files to look at: name one further down"
                    )
                    raise UserError(self.key, self.pattern, allowed)
                yield entry


def _is_folder(entry: os.DirEntry[str], follows_links: bool = True) -> bool:
    try:
        return entry.is_dir(follow_symlinks=follows_links)
    except OSError:
        return False
