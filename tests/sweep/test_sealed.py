from __future__ import annotations

import json
from pathlib import Path

import pytest

from trainlarge.sweep.proof import damage, result_digests
from trainlarge.sweep.sealed import check_seal, read_sealed, sealed_text, write_sealed

VALUE = {"cell": "0123456789ab", "loss": 2.5, "files": {"a": "b"}, "big": 2**70, "text": "ü"}


def test_what_is_sealed_comes_back(tmp_path: Path) -> None:
    write_sealed(tmp_path / "x.json", VALUE)
    assert read_sealed(tmp_path / "x.json", json.loads) == VALUE
    assert json.loads((tmp_path / "x.json").read_text())["seal"].startswith("sha256:"), "plain JSON for everybody else"


def test_no_changed_byte_and_no_missing_end_passes(tmp_path: Path) -> None:
    content = sealed_text(VALUE).encode()
    damaged = [content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :] for at in range(len(content))]
    damaged += [content[:length] for length in range(len(content))]
    path = tmp_path / "x.json"
    for bad in damaged:
        path.write_bytes(bad)
        with pytest.raises(ValueError, match=r"."):
            read_sealed(path)


@pytest.mark.parametrize("text", ['{"loss": 1}', '{\n "loss": 1,\n "sha256": "' + "0" * 64 + '"\n}\n'])
def test_a_file_of_an_older_version_is_read_as_it_is(tmp_path: Path, text: str) -> None:
    (tmp_path / "x.json").write_text(text)
    assert not check_seal(text.encode())
    assert read_sealed(tmp_path / "x.json") == json.loads(text)


def test_every_result_in_a_folder_has_a_digest(tmp_path: Path) -> None:
    for name in ("metrics.jsonl", "checkpoint/model.safetensors", "new.json", "config.yaml", "status.json", "log.txt",
                 "lease/000001.json", ".new.json.1.tmp", ".checkpoint.old/model.safetensors"):  # fmt: skip
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    files = result_digests(tmp_path)
    assert sorted(files) == ["checkpoint/model.safetensors", "metrics.jsonl", "new.json"]
    assert not damage(tmp_path, files)
    (tmp_path / "new.json").write_text("new.jsom")
    (tmp_path / "checkpoint" / "model.safetensors").unlink()
    assert damage(tmp_path, files) == {"checkpoint/model.safetensors": "gone", "new.json": "damaged"}
    assert damage(tmp_path, files, below="new") == {"new.json": "damaged"}
    assert not damage(tmp_path, {}), "an older version kept no digests"
