from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest

from groups import data_group
from trainlarge.data.corpus import corpus
from trainlarge.data.fingerprint import fingerprint
from trainlarge.data.prepare import load_prepared, prepare, prepared_key
from trainlarge.data.text import TextFiles
from trainlarge.data.tokenizer import load_tokenizer
from trainlarge.errors import UserError
from trainlarge.sweep.sealed import read_sealed, write_sealed

BUILDER = """
import json, sys
from pathlib import Path
from trainlarge.config.data import DataConfig
from trainlarge.config.plain import from_plain
from trainlarge.data.prepare import prepare
print("ready", flush=True)
sys.stdin.readline()
folder = prepare(from_plain(DataConfig, json.loads(sys.argv[1])), Path(sys.argv[2])).folder
print((folder / "train.bin").stat().st_ino)
"""


def start_builder(data, root):
    """Process that has imported everything and builds when it is told to."""
    command = [sys.executable, "-c", BUILDER, json.dumps(data.plain), str(root)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "ready\n"
    return process


def go(process):
    process.stdin.write("\n")
    process.stdin.flush()


def test_files_hold_the_corpus_and_meta_describes_them(data, prepared):
    tokenizer, meta = load_tokenizer(prepared.tokenizer_file), json.loads((prepared.folder / "meta.json").read_text())
    for split, ids in (("train", prepared.train), ("validation", prepared.validation)):
        documents = list(corpus(data).documents(split))
        assert tokenizer.decode(ids.tolist(), skip_special_tokens=False) == "".join(
            f"{text}[SEP]" for text in documents
        )
        assert meta[split]["documents"] == len(documents) and meta[split]["tokens"] == len(ids)
        assert meta[split]["sha256"] == hashlib.sha256((prepared.folder / f"{split}.bin").read_bytes()).hexdigest()
    assert prepared.train.dtype == np.uint16 and not prepared.train.flags.writeable
    assert meta["fingerprint"] == prepared.fingerprint == fingerprint(data)
    assert (prepared.pad_id, prepared.cls_id, prepared.sep_id, prepared.mask_id, prepared.first_regular_id) == tuple(
        range(5)
    )


def test_building_twice_gives_the_same_bytes_and_one_folder_each(data, prepared, tmp_path):
    again = prepare(data, tmp_path)
    for name in ("train.bin", "validation.bin", "tokenizer.json", "meta.json"):
        assert (again.folder / name).read_bytes() == (prepared.folder / name).read_bytes()
    other = prepare(replace(data, vocab_size=301), tmp_path)
    assert other.folder != again.folder and other.fingerprint == again.fingerprint


def test_key_is_pinned():
    assert prepared_key("0123456789abcdef", 2048, reader=1) == "dacf5d13079ce9c2"


def test_frozen_fingerprint_needs_no_text_once_prepared(data, text_file, tmp_path):
    shutil.copy(text_file, tmp_path / "a.txt")
    frozen = replace(data, files=(str(tmp_path / "a.txt"),), fingerprint=fingerprint(data))
    built = prepare(frozen, tmp_path / "root")
    (tmp_path / "a.txt").unlink()
    assert prepare(frozen, tmp_path / "root").folder == built.folder


def test_text_that_changed_since_it_was_frozen_is_refused(data, tmp_path):
    with pytest.raises(UserError, match=r"data\.fingerprint=0000 is not valid: .* has changed"):
        prepare(replace(data, fingerprint="0000"), tmp_path)


@pytest.mark.parametrize(("share", "empty"), [(1e-9, "validation"), (1 - 1e-9, "train")])
def test_empty_split(data, tmp_path, share, empty):
    with pytest.raises(UserError, match=f"data.files=.*none is left for {empty}"):
        prepare(replace(data, validation_share=share), tmp_path)


def test_blank_validation_file(data, tmp_path):
    (tmp_path / "blank.txt").write_text("\n \n")
    with pytest.raises(UserError, match="none is left for validation"):
        prepare(replace(data, validation_files=(str(tmp_path / "blank.txt"),)), tmp_path)


def test_a_failed_build_leaves_no_folder(data, tmp_path):
    with pytest.raises(UserError, match=r"data\.vocab_size"):
        prepare(replace(data, vocab_size=100_000), tmp_path)
    assert not [path for path in tmp_path.iterdir() if path.is_dir()]


@pytest.mark.parametrize("damage", ["meta.json", "train.bin", "validation.bin"])
def test_damaged_folder_is_told(prepared, tmp_path, damage):
    folder = shutil.copytree(prepared.folder, tmp_path / "copy")
    (folder / damage).write_bytes((folder / damage).read_bytes()[:-100])
    with pytest.raises(UserError, match="remove this one"):
        load_prepared(folder)


FOREIGN = [
    ({"vocab_size": "300"}, "vocab_size='300' is not valid: must be a whole number"),
    ({"dtype": "<f4"}, "dtype='<f4' is not valid: must be one of <u2, <u4"),
    ({"train": [1]}, "train=[1] is not valid: must be a mapping from keys to values"),
    ({"validation": {"tokens": None}}, "validation.tokens=None is not valid: must be a whole number"),
    ({"overlap": {}}, "overlap.validation_documents=None is not valid: must be there"),
    ({"tokenizer": 1}, "tokenizer=1 is not valid: must be a mapping from keys to values"),
]


@pytest.mark.parametrize(("changes", "message"), FOREIGN)
def test_a_foreign_meta_is_named_and_built_again(data, prepared, tmp_path, caplog, changes, message):
    caplog.set_level("WARNING", "trainlarge")
    folder = shutil.copytree(prepared.folder, tmp_path / prepared.folder.name)
    content = (folder / "meta.json").read_bytes()
    write_sealed(folder / "meta.json", {**read_sealed(folder / "meta.json"), **changes})
    with pytest.raises(UserError, match=re.escape(f"data={folder} is not valid: must be a whole folder")) as caught:
        load_prepared(folder)
    assert f"({message}" in str(caught.value) and "\n" not in str(caught.value)
    assert prepare(data, tmp_path).folder == folder and (folder / "meta.json").read_bytes() == content
    assert message in caplog.text


def test_two_processes_at_once_build_once(data, prepared, tmp_path):
    builders = [start_builder(data, tmp_path) for _ in range(2)]
    for builder in builders:
        go(builder)
    inodes = [builder.communicate(timeout=60)[0] for builder in builders]
    assert [builder.returncode for builder in builders] == [0, 0]
    assert inodes[0] == inodes[1]
    assert (tmp_path / prepared.folder.name / "train.bin").read_bytes() == prepared.train.tobytes()


def test_killed_builder_leaves_nothing_that_is_used(tmp_path):
    (tmp_path / "long.txt").write_text("\n\n".join(f"paragraph {i} " + "word " * 200 for i in range(4000)))
    data = data_group({"name": "text", "files": [str(tmp_path / "long.txt")], "vocab_size": 300})
    folder = tmp_path / prepared_key(fingerprint(data), 300, TextFiles.VERSION)
    partial = folder.with_name(f".{folder.name}.partial")
    builder = start_builder(data, tmp_path)
    go(builder)
    while not partial.is_dir():
        assert builder.poll() is None
        time.sleep(0.002)
    builder.kill()
    builder.wait()
    assert partial.is_dir() and not folder.exists()
    (partial / "train.bin").write_bytes(b"rest of the dead builder")
    built = prepare(data, tmp_path)
    assert built.folder == folder and not partial.exists()
    assert built.train.max() < 300 and len(built.train) > 100_000


@pytest.mark.parametrize("name", ["meta.json", "train.bin", "validation.bin", "tokenizer.json"])
@pytest.mark.parametrize("how", ["changed", "truncated", "gone"])
def test_damaged_data_is_built_again(data, prepared, tmp_path, caplog, name, how):
    caplog.set_level("WARNING", "trainlarge")
    folder = shutil.copytree(prepared.folder, tmp_path / prepared.folder.name)
    content = (folder / name).read_bytes()
    middle = len(content) // 2
    changed = content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
    (folder / name).write_bytes({"changed": changed, "truncated": content[:middle], "gone": b""}[how])
    if how == "gone":
        (folder / name).unlink()
    again = prepare(data, tmp_path)
    assert "prepared data is damaged and is built again: " in caplog.text
    assert again.folder == folder and (folder / name).read_bytes() == content
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == [folder.name]
    caplog.clear()
    prepare(data, tmp_path)
    assert not caplog.text


def test_what_an_older_version_prepared_is_used_as_far_as_it_proves_itself(data, prepared, tmp_path, caplog):
    caplog.set_level("WARNING", "trainlarge")
    folder = shutil.copytree(prepared.folder, tmp_path / prepared.folder.name)
    meta = json.loads((folder / "meta.json").read_text())
    del meta["seal"], meta["tokenizer"]
    (folder / "meta.json").write_text(json.dumps(meta, indent=2) + "\n")
    assert prepare(data, tmp_path).folder == folder and not caplog.text
    (folder / "meta.json").write_text(json.dumps({**meta, "fingerprint": "0" * 16}))
    assert prepare(data, tmp_path).fingerprint == prepared.fingerprint
    assert "meta.json says fingerprint 0000000000000000 and not" in caplog.text


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff", b"[" * 50_000])
def test_a_tokenizer_of_which_no_digest_was_kept_is_made_again_where_it_is_none(
    data, prepared, tmp_path, caplog, content
):
    folder = shutil.copytree(prepared.folder, tmp_path / prepared.folder.name)
    meta = json.loads((folder / "meta.json").read_text())
    del meta["tokenizer"], meta["seal"]
    (folder / "meta.json").write_text(json.dumps(meta))
    (folder / "tokenizer.json").write_bytes(content)
    again = prepare(data, tmp_path)
    assert "tokenizer.json is no tokenizer" in caplog.text
    assert again.tokenizer_file.read_bytes() == prepared.tokenizer_file.read_bytes()


def test_damaged_data_whose_text_is_gone_is_named(data, text_file, tmp_path):
    shutil.copy(text_file, tmp_path / "a.txt")
    frozen = replace(data, files=(str(tmp_path / "a.txt"),), fingerprint=fingerprint(data))
    built = prepare(frozen, tmp_path / "root")
    (tmp_path / "a.txt").write_text("another text\n\n" * 1000)
    (built.folder / "train.bin").unlink()
    with pytest.raises(
        UserError, match=rf"has changed since .* \({built.folder}, which was prepared from it, is damaged"
    ):
        prepare(frozen, tmp_path / "root")
