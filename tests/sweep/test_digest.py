from __future__ import annotations

import hashlib
import os

from trainlarge.sweep.digest import file_digest


def test_digest_follows_the_content(tmp_path):
    path = tmp_path / "a"
    for content in (b"one", b"two, longer"):
        path.write_bytes(content)
        assert file_digest(path) == hashlib.sha256(content).hexdigest()


def test_same_size_and_later_time_is_read_again(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"one")
    first = file_digest(path)
    path.write_bytes(b"two")
    os.utime(path, ns=(0, path.stat().st_mtime_ns + 1))
    assert file_digest(path) != first
