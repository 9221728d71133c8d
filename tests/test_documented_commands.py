"""The commands that README and docs show are ones that the command line takes: verbs, flags, groups, keys, values."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest

from trainlarge.commands.chain import sweeps_of
from trainlarge.commands.hydra_entry import act_on_cells
from trainlarge.commands.launch_flags import with_keys
from trainlarge.commands.verbs import VERBS
from trainlarge.errors import UserError
from trainlarge.sweep.stages import STAGES
from trainlarge.sweep.store import Study

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted(page for page in (ROOT / "docs").glob("*.md") if page.name != "own_task.md")]
"""All but the page whose own test runs what it shows."""
README = PAGES[0].read_text(encoding="utf-8")
BLOCK = re.compile(r"^```(?:\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def documented() -> Iterator[str]:
    """Each command line of a code block, without its comment; lines that end with a backslash go on."""
    for page in PAGES:
        for block in BLOCK.findall(page.read_text(encoding="utf-8")):
            for line in block.replace("\\\n", " ").splitlines():
                command = line.removeprefix("$ ").strip()
                if command.startswith("trainlarge ") and "VERB" not in command:
                    yield command


COMMANDS = sorted(set(documented()))


@pytest.fixture
def folder(tmp_path: Path, made_study: Study, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with the sweep of the README, its two files side by side, and a study of that name."""
    (block,) = re.findall(r"```yaml\n(# sweeps/mine/train.yaml.*?)```", README, re.DOTALL)
    first = block.splitlines()[0]
    middle = first.index("# sweeps/mine/compress.yaml")
    sweeps = tmp_path / "sweeps" / "mine"
    sweeps.mkdir(parents=True)
    for name, columns in (("train", slice(None, middle)), ("compress", slice(middle, None))):
        (sweeps / f"{name}.yaml").write_text("\n".join(line[columns].rstrip() for line in block.splitlines()))
    studies = tmp_path / "studies"
    studies.mkdir()
    (studies / "mine").symlink_to(made_study.path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TRAINLARGE_STUDIES", str(studies))
    return tmp_path


def test_there_are_commands_of_most_verbs() -> None:
    assert len(COMMANDS) > 15
    assert {command.split()[1] for command in COMMANDS} >= {"train", "compress", "run", "plan", "status", "ls"}


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_is_one_that_is_taken(command: str, folder: Path) -> None:
    _, verb, *arguments = shlex.split(command, comments=True)
    if verb.startswith("-"):
        return
    assert verb in VERBS
    if verb == "run":
        study, *overrides = with_keys(arguments)
        for sweep in sweeps_of(study, overrides):
            assert taken(sweep.stage, sweep.arguments(None))
    elif verb in STAGES:
        assert taken(verb, arguments)
    elif verb == "plan" and any("sweeps=" in argument for argument in arguments):
        assert taken("train", ["-m", *arguments])
    else:
        import_module(f"trainlarge.commands.{VERBS[verb].module}").parser().parse_args(arguments)


def taken(stage: str, arguments: list[str]) -> bool:
    """Whether a stage takes the arguments; that an example's checkpoint or data is not there is no fault."""
    try:
        cells = act_on_cells(stage, with_keys(arguments), lambda _, configs: configs)
    except UserError as error:
        print(error)
        return error.key in ("checkpoint", "sweep.data_folder") or (
            stage == "compress" and error.key in ("sweep", "study")
        )
    return all(cells)
