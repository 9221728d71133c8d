"""A digest is that of the bytes that are there now."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from trainlarge.sweep.digest import file_digest


def test_digest_follows_the_content(tmp_path: Path) -> None:
    path = tmp_path / "a"
    for content in (b"one", b"two, longer"):
        path.write_bytes(content)
        assert file_digest(path) == hashlib.sha256(content).hexdigest()


def test_same_size_and_later_time_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"one")
    first = file_digest(path)
    path.write_bytes(b"two")
    os.utime(path, ns=(0, path.stat().st_mtime_ns + 1))
    assert file_digest(path) != first


def test_a_file_replaced_within_one_tick_by_one_of_its_size_has_its_own_digest(tmp_path: Path) -> None:
    path, other = tmp_path / "file", tmp_path / "other"
    path.write_bytes(b"before")
    state = path.stat()
    file_digest(path)
    other.write_bytes(b"behind")
    os.utime(other, ns=(state.st_atime_ns, state.st_mtime_ns))
    other.replace(path)
    assert path.stat().st_mtime_ns == state.st_mtime_ns
    assert file_digest(path) == hashlib.sha256(b"behind").hexdigest()
