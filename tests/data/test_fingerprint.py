from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from groups import data_group
from trainlarge.data.fingerprint import _stamped_fingerprint, fingerprint
from trainlarge.data.stdlib import source_files
from trainlarge.errors import UserError
from trainlarge.sweep.digest import _stamped_digest


def text(*files, **more):
    return data_group({"name": "text", "files": [str(file) for file in files], "vocab_size": 300, **more})


@pytest.fixture
def files(tmp_path):
    (tmp_path / "a.txt").write_text("first")
    (tmp_path / "b.jsonl").write_text('{"text": "second"}')
    return tmp_path / "a.txt", tmp_path / "b.jsonl"


def test_independent_of_place_names_order_and_time(files, tmp_path):
    one, two = files
    (tmp_path / "other").mkdir()
    moved = [shutil.copy(one, tmp_path / "other" / "z.txt"), shutil.copy(two, tmp_path / "other" / "c.jsonl")]
    os.utime(moved[0], (0, 0))
    assert fingerprint(text(one, two)) == fingerprint(text(two, one)) == fingerprint(text(*moved))


def test_every_part_of_the_rule_counts(files):
    one, two = files
    variants = [
        text(one),
        text(two),
        text(one, two),
        text(one, validation_files=[str(two)]),
        text(two, validation_files=[str(one)]),
        text(one, two, validation_share=0.3),
        text(one, two, text_column="body"),
    ]
    assert len({fingerprint(variant) for variant in variants}) == len(variants)


def test_what_cannot_change_the_text_does_not_count(files):
    one, two = files
    assert fingerprint(text(one)) == fingerprint(text(one, text_column="body"))
    assert fingerprint(replace(text(one), vocab_size=500, sequence_length=7, fingerprint="0")) == fingerprint(text(one))
    held_out = text(one, validation_files=[str(two)])
    assert fingerprint(held_out) == fingerprint(replace(held_out, validation_share=0.3))


def test_changed_content_is_noticed(files):
    before = fingerprint(text(files[0]))
    files[0].write_text("changed, and longer")
    assert fingerprint(text(files[0])) != before


def test_pinned_value(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"pinned")
    assert fingerprint(text(tmp_path / "a.txt")) == "15f155057c10e1e3"


def of_stdlib(size: int) -> str:
    return fingerprint(data_group({"name": "stdlib", "vocab_size": size}))


def calls_during(run: Callable[[], object]) -> int:
    """Functions that are called, of Python and of C: what a run costs, whatever else the machine does."""
    events: list[str] = []
    sys.setprofile(lambda frame, event, argument: events.append(event))
    try:
        run()
    finally:
        sys.setprofile(None)
    return sum(event in ("call", "c_call") for event in events)


def test_each_file_is_read_once_and_further_calls_are_cheap(monkeypatch):
    _stamped_fingerprint.cache_clear()
    _stamped_digest.cache_clear()
    read, file_digest = [], hashlib.file_digest
    monkeypatch.setattr(hashlib, "file_digest", lambda file, name: read.append(file.name) or file_digest(file, name))
    assert len({of_stdlib(size) for size in range(1000, 2000)}) == 1
    files = source_files(Path(sysconfig.get_path("stdlib")))
    assert len(read) == len(set(read)) == len(files) > 300
    data = data_group({"name": "stdlib", "vocab_size": 2000})
    assert calls_during(lambda: fingerprint(data)) < 100, "a call looks at no file"


def test_no_heavy_import():
    code = "import sys, json, trainlarge.data.fingerprint; print(json.dumps(sorted(sys.modules)))"
    modules = json.loads(subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout)
    assert not {"torch", "datasets", "transformers", "tokenizers"} & set(modules)


def test_missing_file():
    with pytest.raises(UserError, match=r"data\.files"):
        fingerprint(text("/nowhere/a.txt"))
