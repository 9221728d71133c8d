"""Texts of a study that hold escape sequences: no verb gives them to the terminal."""

from __future__ import annotations

import io
import json
import logging
import os
import pty
import sys
import threading
import warnings
from contextlib import suppress
from pathlib import Path

import pytest
from rich.console import Console
from rich.live import Live
from rich.text import Text

import made
from trainlarge.cli import main
from trainlarge.commands.shown import visible, visible_streams
from trainlarge.commands.terminal import console
from trainlarge.sweep.status import State, Status
from trainlarge.sweep.store import CellFolder, Study

EVIL = "\x1b]0;owned\x07\x1b[2J\x9b31m\rerror\x08\x7f\u202eabc\u2028"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CellFolder:
    """A cell of the study ``s`` whose texts hold escape sequences everywhere."""
    monkeypatch.setenv("TRAINLARGE_STUDIES", str(tmp_path))
    study = Study(tmp_path / "s")
    done = made.make_train_cell(study, (64, 1), 7.5)
    record = done.record_data()
    for group, key in (("environment", "device_name"), ("provenance", "host"), ("provenance", "command")):
        record[group][key] = EVIL  # type: ignore[call-overload, index]
    done.write_record_data(record)
    done.log.write_text(EVIL)
    failed = made.train_cell("s", (64, 2), "9 s")
    waiting = study.folder("train", failed.id)
    waiting.freeze(failed)
    waiting.write_status(Status(State.FAILED, error=EVIL))
    (study.path / "commands.jsonl").write_text(
        json.dumps({"time": 1.0, "stage": "train", "command": f"trainlarge {EVIL}", "folder": EVIL}) + "\n"
    )
    return done


def has_escapes(printed: str) -> bool:
    return any(not (" " <= letter < "\x7f" or letter in "\n\t" or letter > "\xa0") for letter in printed) or any(
        letter in printed for letter in "\u202e\u2028"
    )


@pytest.mark.parametrize(
    "command",
    [
        ["status", "s"], ["status", "s", "--json"], ["ls"], ["ls", "s"], ["report", "s"],
        ["show", "ID", "--study", "s"],
        ["show", EVIL], ["status", EVIL], ["train", f"arch.{EVIL}=3"], ["plan", "train", f"study={EVIL}"], [EVIL],
        ["clean", "s"], ["export", EVIL, "x"], ["redo", EVIL], ["train", f"data.files=['{EVIL}']", "data=text"],
    ],
    ids=lambda command: " ".join(command).encode("ascii", "backslashreplace").decode()[:40],
)  # fmt: skip
def test_no_verb_prints_an_escape_sequence(
    folder: CellFolder, command: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trainlarge.results.report.section.drawings", lambda frames: [])
    with suppress(SystemExit):
        main([folder.id if word == "ID" else word for word in command])
    printed = "".join(capsys.readouterr())
    assert printed.strip() and not has_escapes(printed), printed


def test_on_a_terminal_the_program_has_colours_and_the_study_has_none(folder: CellFolder) -> None:
    """Through a real terminal, where rich writes escape sequences of its own."""
    master, slave = pty.openpty()
    read = bytearray()

    def collect() -> None:
        try:
            while piece := os.read(master, 1 << 16):
                read.extend(piece)
        except OSError:
            pass

    reader = threading.Thread(target=collect)
    reader.start()
    with os.fdopen(slave, "w") as terminal, pytest.MonkeyPatch.context() as patched:
        patched.setenv("TERM", "xterm-256color")
        patched.setattr(sys, "stdout", terminal)
        assert main(["status", "s"]) in (0, 1)
    reader.join(timeout=20)
    printed = read.decode()
    assert "\x1b[" in printed, "its own colours"
    assert not any(part in printed for part in ("\x1b]0;", "\x1b[2J", "\x9b", "\x07", "\u202e"))
    assert "\\x1b]0" in printed


def test_everything_that_is_written_is_visible_and_all_letters_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    out, err = io.StringIO(), io.StringIO()
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    with visible_streams():
        print("Zürich 東京 עברית \t ± →", EVIL)
        console().print(EVIL)
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            warnings.showwarning(EVIL, UserWarning, "file", 1)
        logging.StreamHandler(sys.stderr).emit(logging.makeLogRecord({"msg": EVIL}))
        sys.stderr.writelines([EVIL, "\udc80"])
    assert out.getvalue().startswith("Zürich 東京 עברית \t ± →")
    assert not has_escapes(out.getvalue()) and "\\x1b" in out.getvalue()
    assert not has_escapes(err.getvalue()) and "\\udc80" in err.getvalue()
    assert sys.stdout is out and sys.stderr is err


def test_a_progress_bar_may_return_to_the_start_of_its_line(monkeypatch: pytest.MonkeyPatch) -> None:
    err = io.StringIO()
    monkeypatch.setattr(sys, "stderr", err)
    with visible_streams():
        for text in ("\r10 %", "\r     \r", "\rtwo\rlines"):
            sys.stderr.write(text)
    assert err.getvalue() == "\r10 %\r     \r\rtwo\\rlines"


def test_text_without_control_characters_is_as_it_was() -> None:
    text = "arch.heads=5 is not valid: must divide arch.width=64 (1, 2, 4, 8, ...)\n"
    assert visible(text) == text
    assert visible("\x1b[31m") == "\\x1b[31m"


def test_a_console_is_made_in_one_place() -> None:
    assert type(console()) is not Console


def test_bars_are_drawn_and_not_spelled_out(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    shown = Terminal()
    monkeypatch.setattr(sys, "stdout", shown)
    monkeypatch.setenv("TERM", "xterm")
    with visible_streams(), Live(console=console(), auto_refresh=False) as live:
        for text in ("one\x1b[2J", "two"):
            live.update(Text(text, style="bold"), refresh=True)
        print("three\x1b[2J")
    assert "\x1b[1mtwo" in shown.getvalue() and "\\x1b[1m" not in shown.getvalue()
    assert "one\\x1b[2J" in shown.getvalue() and "\x1b[2J" not in shown.getvalue()
