from __future__ import annotations

import errno
from pathlib import Path

import pytest
from filelock import Timeout

from trainlarge.errors import UserError
from trainlarge.sweep import files
from trainlarge.sweep.files import (
    create_exclusively,
    file_lock,
    open_to_append,
    remove,
    replacing_folder,
    rows_of,
    write_json,
    write_text,
)


def test_a_full_disk_leaves_the_old_file_and_no_rubbish(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "record.json"
    write_json(path, {"loss": 1.5})

    def no_space(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", no_space)
    with pytest.raises(OSError, match="No space left"):
        write_json(path, {"loss": 0.5})
    assert path.read_text() == '{\n "loss": 1.5\n}\n'
    assert [entry.name for entry in tmp_path.iterdir()] == ["record.json"]


def test_nan_is_refused_and_the_old_file_stays(tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    write_json(path, {"loss": 1.5})
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(path, {"loss": float("nan")})
    assert "1.5" in path.read_text()


def test_only_one_creates(tmp_path: Path) -> None:
    path = tmp_path / "claim"
    assert create_exclusively(path, "first") and not create_exclusively(path, "second")
    assert path.read_text() == "first" and len(list(tmp_path.iterdir())) == 1


def test_a_torn_last_line_is_dropped() -> None:
    assert rows_of(b'{"step": 1}\n{"step": 2}\n{"st') == [{"step": 1}, {"step": 2}]
    assert rows_of(b'{"step": 1}\n{"step": 2}') == [{"step": 1}, {"step": 2}]
    assert rows_of(b"") == []


@pytest.mark.parametrize("damaged", [b'{"st', b'{"step": 2\xff}', b'{"step": 2}}'])
def test_any_other_damaged_line_is_an_error(damaged: bytes) -> None:
    with pytest.raises(ValueError, match=r"JSON|unexpected|UTF-8|utf-8"):
        rows_of(b'{"step": 1}\n' + damaged + b'\n{"step": 3}\n')


@pytest.fixture
def foreign(tmp_path: Path) -> Path:
    """A folder that links lead to; nothing in it may change."""
    folder = tmp_path / "foreign"
    folder.mkdir()
    (folder / "mine").write_text("mine")
    return folder


def test_of_a_link_only_the_link_is_removed(tmp_path: Path, foreign: Path) -> None:
    place = tmp_path / "place"
    (place / "inner").mkdir(parents=True)
    for link, target in {"a": foreign, "b": foreign / "mine", "c": tmp_path / "nowhere", "inner/d": foreign}.items():
        (place / link).symlink_to(target)
    for name in ("a", "b", "c", "not there"):
        remove(place / name)
    assert [path.name for path in place.iterdir()] == ["inner"]
    remove(place)
    assert not place.exists() and (foreign / "mine").read_text() == "mine"


@pytest.mark.parametrize("target", ["foreign", "foreign/mine", "nowhere"])
def test_a_folder_takes_the_place_of_a_link_and_not_of_what_it_leads_to(
    tmp_path: Path, foreign: Path, target: str
) -> None:
    place = tmp_path / "checkpoint"
    for name in ("checkpoint", ".checkpoint.old"):
        (tmp_path / name).symlink_to(tmp_path / target)
    with replacing_folder(place) as temporary:
        temporary.mkdir()
        (temporary / "weights").write_text("new")
    assert not place.is_symlink() and (place / "weights").read_text() == "new"
    assert (foreign / "mine").read_text() == "mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint", "foreign"]


def test_nothing_is_written_through_a_link(tmp_path: Path, foreign: Path) -> None:
    link = tmp_path / "commands.jsonl"
    for target in (foreign / "mine", foreign / "new"):
        link.symlink_to(target)
        with pytest.raises(UserError, match=f"commands.jsonl=a link to {target} is not valid: must be a plain file"):
            open_to_append(link)
        link.unlink()
    link.symlink_to(foreign / "mine")
    write_text(link, "ours")
    assert not link.is_symlink() and [path.read_text() for path in foreign.iterdir()] == ["mine"]


@pytest.mark.parametrize("foreign", [b"1\n2\n", b'[]\n{"step": 1}\n', b'{"step": 1}\n"text"', b"null\n"])
def test_rows_that_are_no_mappings_are_refused(foreign: bytes) -> None:
    with pytest.raises(ValueError, match="no mapping"):
        rows_of(foreign)


def test_a_lock_that_another_process_holds_is_told_of_while_it_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(files, "WAIT_LINE_SECONDS", 0.05)
    caplog.set_level("INFO", "trainlarge")
    path = tmp_path / "lock"
    with file_lock(path):
        with pytest.raises(Timeout), file_lock(path, timeout=0.2):
            raise AssertionError("two hold one lock")
        assert f"waiting for {path}, which another process has locked" in caplog.messages
    with file_lock(path, timeout=0):
        assert path.exists()
