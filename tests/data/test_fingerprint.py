from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time

import pytest

from trainlarge.data.fingerprint import fingerprint
from trainlarge.errors import UserError


def text(*files, **more):
    return {"name": "text", "files": [str(file) for file in files], "vocab_size": 300, **more}


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
    assert fingerprint(text(one) | {"vocab_size": 500, "sequence_length": 7, "fingerprint": "0"}) == fingerprint(
        text(one)
    )
    held_out = text(one, validation_files=[str(two)])
    assert fingerprint(held_out) == fingerprint(held_out | {"validation_share": 0.3})


def test_changed_content_is_noticed(files):
    before = fingerprint(text(files[0]))
    files[0].write_text("changed, and longer")
    assert fingerprint(text(files[0])) != before


def test_pinned_value(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"pinned")
    assert fingerprint(text(tmp_path / "a.txt")) == "15f155057c10e1e3"


def test_stdlib_is_hashed_fast_and_ten_thousand_calls_are_cheap():
    start = time.process_time()
    assert len({fingerprint({"name": "stdlib", "vocab_size": size}) for size in range(10_000)}) == 1
    assert time.process_time() - start < 5.0


def test_no_heavy_import():
    code = "import sys, json, trainlarge.data.fingerprint; print(json.dumps(sorted(sys.modules)))"
    modules = json.loads(subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout)
    assert not {"torch", "datasets", "transformers", "tokenizers"} & set(modules)


def test_missing_file():
    with pytest.raises(UserError, match="data.files"):
        fingerprint(text("/nowhere/a.txt"))
