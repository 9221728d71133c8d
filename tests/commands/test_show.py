from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path

import pytest

import made
from trainlarge.commands.rerun import compose_config, hydra_text, overrides
from trainlarge.commands.show import show_cell
from trainlarge.errors import UserError
from trainlarge.sweep.cell import Cell
from trainlarge.sweep.expand import read_config
from trainlarge.sweep.plan import make_cells
from trainlarge.sweep.status import State, Status
from trainlarge.sweep.store import Study


@pytest.fixture
def here(made_study: Study, monkeypatch: pytest.MonkeyPatch) -> Study:
    monkeypatch.setenv("TRAINLARGE_STUDIES", str(made_study.path.parent))
    return made_study


@pytest.mark.parametrize("stage", ["train", "compress"])
def test_the_command_makes_the_same_cell(here: Study, stage: str) -> None:
    for folder in list(here.folders(stage))[:30:7]:
        line = show_cell(folder.id, here.name).splitlines()[-1].strip()
        program, verb, *arguments = shlex.split(line)
        assert (program, verb) == ("trainlarge", stage)
        assert make_cells(stage, [read_config(stage, compose_config(stage, arguments))])[0].id == folder.id
        assert len(arguments) < 12, "what follows from rules and defaults is left out"


def test_everything_about_a_cell_is_shown(here: Study) -> None:
    folder = next(here.folders("train"))
    text = show_cell(folder.id[:8])
    for part in (
        f"train cell {folder.id} of study made: done",
        "width: ",
        "loss: ",
        "device_name: Test CPU",
        "step 100",
        "trainlarge train study=made",
    ):
        assert part in text
    assert len(text[text.index("log (") : text.index("run it again")].splitlines()) <= 23


def test_numbers_have_units_and_sensible_digits(here: Study) -> None:
    folder = here.folder("train", made.train_cell("made", (64, 1), "7.5 s").id)
    lines = show_cell(folder.id).splitlines()
    for line in (
        "step: 620 steps",
        "wall_seconds: 11 s",
        "step_seconds: 0.0121 s",
        "train_tokens: 5,230,716",
        "token_frequency_loss: 5.9 nats",
        "epochs: 0.24275",
        "dirty: no",
    ):
        assert f"  {line}" in lines


def test_a_failed_cell_shows_its_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRAINLARGE_STUDIES", str(tmp_path))
    cell = made.train_cell("some", (64, 1), "7.5 s")
    folder = Study(tmp_path / "some").folder("train", cell.id)
    folder.freeze(cell)
    folder.write_status(Status(State.FAILED, attempts=2, error="out of memory"))
    text = show_cell(cell.id)
    assert "failed (attempts: 2)\n  error: out of memory" in text
    assert "none: the cell is not done" in text and "redo" not in text


@pytest.mark.parametrize("study", [None, "made"])
def test_a_cell_that_is_not_there_is_refused(here: Study, study: str | None) -> None:
    with pytest.raises(UserError, match="cell=ffffffffffff is not valid: must be a cell id of"):
        show_cell("ffffffffffff", study)


def test_a_start_that_fits_two_cells_is_refused(here: Study) -> None:
    with pytest.raises(UserError, match="one cell id"):
        show_cell("")


@pytest.mark.parametrize(
    "value",
    [
        "60 s",
        'say "hi"',
        "back\\slash",
        'both \\" ',
        "a,b",
        "true",
        "123456789012",
        "12e456789012",
        "${x}",
        "end\\",
        "",
        None,
        True,
        1e-6,
        3,
        ["a b", "c", 1],
    ],
)
def test_hydra_reads_back_what_is_written(value: object) -> None:
    from hydra.core.override_parser.overrides_parser import OverridesParser

    (override,) = OverridesParser.create().parse_overrides([f"key={hydra_text(value)}"])
    found = override.value()
    assert (list(map(_plain, found)) if isinstance(value, list) else _plain(found)) == value


def _plain(found: object) -> object:
    return getattr(found, "text", found)


def test_another_group_and_files_with_spaces_are_named() -> None:
    cell = made.train_cell("some", (64, 1), "7.5 s")
    data = replace(cell.as_train.data, name="text", files=("/some where/a.txt",))
    arguments = overrides(Cell("train", replace(cell.as_train, data=data)))
    assert arguments[0] == "data=text"
    assert 'data.files=["/some where/a.txt"]' in arguments
    assert compose_config("train", arguments)["data"]["files"] == ["/some where/a.txt"]
