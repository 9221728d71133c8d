"""Which files a path, a folder or a pattern names; what is no file, or has no end, is told with its key."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from trainlarge.config.data import DataConfig
from trainlarge.config.group import with_values
from trainlarge.data import found_files
from trainlarge.data.corpus import corpus
from trainlarge.data.found_files import files_named
from trainlarge.errors import UserError


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name in ("a.txt", "b.md", ".c.txt", "d/e.txt", "d/f/g.txt", ".h/i.txt", "d/.j.txt", "k[1].txt"):
        path = tmp_path / "tree" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    return tmp_path / "tree"


@pytest.mark.parametrize(
    "pattern, names",
    [
        ("", {"a.txt", "b.md", "k[1].txt", "d/e.txt", "d/f/g.txt"}),
        ("a.txt", {"a.txt"}),
        ("k[1].txt", {"k[1].txt"}),
        ("*.txt", {"a.txt", "k[1].txt"}),
        ("?.*", {"a.txt", "b.md"}),
        ("[ab].*", {"a.txt", "b.md"}),
        ("*/*.txt", {"d/e.txt"}),
        ("**/*.txt", {"a.txt", "k[1].txt", "d/e.txt", "d/f/g.txt"}),
        ("**", {"a.txt", "b.md", "k[1].txt", "d/e.txt", "d/f/g.txt"}),
        ("d/**/g.txt", {"d/f/g.txt"}),
        ("**/f/**/*.txt", {"d/f/g.txt"}),
        (".*.txt", {".c.txt"}),
        (".h/*", {".h/i.txt"}),
        ("*.x", set()),
        ("none/*.txt", set()),
    ],
)
def test_a_pattern_names_what_a_shell_would(tree: Path, pattern: str, names: set[str]) -> None:
    found = files_named("data.files", str(tree / pattern))
    assert {path.relative_to(tree).as_posix() for path in found} == names


def test_links_in_a_circle_are_followed_once(tree: Path) -> None:
    for name in ("x", "y", "z"):
        (tree / "d" / name).symlink_to(tree)
    started = time.monotonic()
    found = {path.resolve() for path in files_named("data.files", f"{tree}/**/*.txt")}
    assert found == {tree / name for name in ("a.txt", "k[1].txt", "d/e.txt", "d/f/g.txt")}
    assert time.monotonic() - started < 5


@pytest.mark.parametrize("pattern", ["/**/*.x", "/*/*/*/*/*/*/*.x", "/**/**/**/*.x", "/", "/proc"])
def test_a_search_without_end_is_refused(pattern: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(found_files, "MOST_ENTRIES", 2_000)
    with pytest.raises(UserError, match=r"data\.files=/.*at most 2,000 files to look at: name one further down"):
        files_named("data.files", pattern)


@pytest.mark.parametrize(
    "name", ["/dev/zero", "/dev/null", "pipe.txt", "~nobody-here/a.txt", "x" * 300, "a\0b", "gone.txt"]
)
def test_what_is_no_file_is_told_with_its_key(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    os.mkfifo("pipe.txt")
    data = with_values(DataConfig(name="text"), files=(name,))
    with pytest.raises(UserError, match=r"data\.files=.* is not valid: must be an existing file or folder"):
        corpus(data)


def test_a_pipe_in_a_folder_of_text_is_left_out(tree: Path) -> None:
    os.mkfifo(tree / "pipe.txt")
    assert tree / "pipe.txt" not in files_named("data.files", str(tree))
