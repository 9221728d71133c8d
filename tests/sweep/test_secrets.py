"""Secrets of a configuration stay in it: nothing that others get to see has them."""

from __future__ import annotations

import json
import warnings
from dataclasses import replace
from pathlib import Path

import pytest

import made
from trainlarge.commands.call import Call
from trainlarge.config.launcher import SlurmConfig
from trainlarge.config.tracking import CsvConfig, WandbConfig
from trainlarge.results.frames import load_study
from trainlarge.sweep.cell import Cell
from trainlarge.sweep.history import commands_of, remember_command
from trainlarge.sweep.sealed import write_sealed
from trainlarge.sweep.secrets import text_without_secrets, without_secrets
from trainlarge.sweep.status import State, Status
from trainlarge.sweep.store import Study
from trainlarge.tracking.mirror import mirror_study, runs_of

SECRET = "correct-horse-battery"


@pytest.mark.parametrize(
    "text, shown",
    [
        (f"export API_KEY={SECRET}", "export API_KEY=***"),
        (f"export FOO={SECRET} BAR='b c'", "export FOO=*** BAR=***"),
        (f'HF_TOKEN="{SECRET}" python x', "HF_TOKEN=*** python x"),
        (r'export A="x\"y" && module load b', "export A=*** && module load b"),
        (f"trainlarge train 'launcher.setup=[export KEY={SECRET},module load x]' seed=1",
         "trainlarge train 'launcher.setup=[export KEY=***,module load x]' seed=1"),
        (f"--export=ALL,DB_PASSWORD={SECRET}", "--export=ALL,DB_PASSWORD=***"),
        ("module load cuda/12", "module load cuda/12"),
        ("trainlarge train data.vocab_size=512 'budget=10M tokens' arch.width=64", None),
        ("vocabulary=tokens vocabulary.tokens=[1,2] keys=3", None),
        ("a" * 100_000 + "=", None),
        ("export " + "A=" * 20_000, "export A=***"),
    ],
)  # fmt: skip
def test_what_a_shell_line_assigns_to_a_secret_is_masked(text: str, shown: str | None) -> None:
    assert text_without_secrets(text) == (shown or text)


@pytest.mark.parametrize(
    "name", ["TOKEN", "WANDB_API_KEY", "hf_token", "DB_PASSWORD", "AWS_SECRET_ACCESS_KEY", "GITHUB_PAT"]
)
def test_a_value_of_the_environment_is_masked_where_its_name_says_secret(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(name, SECRET)
    assert without_secrets({"a": [f"x{SECRET}y", 3, None], SECRET: {"b": SECRET}}) == {
        "a": ["x***y", 3, None],
        SECRET: {"b": "***"},
    }


def test_other_variables_and_short_values_are_no_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PWD", "/home/somebody")
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "false-or-true")
    monkeypatch.setenv("API_KEY", "true")
    assert text_without_secrets("/home/somebody false-or-true true") == "/home/somebody false-or-true true"


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Study:
    """A study of one cell with secrets wherever a configuration or a command line can have them."""
    monkeypatch.setenv("TRAINLARGE_STUDIES", str(tmp_path))
    monkeypatch.setenv("MY_TOKEN", SECRET)
    study = Study(tmp_path / "s")
    cell = made.train_cell("s", (64, 1), "7.5 s")
    launcher = SlurmConfig(setup=(f"export A={SECRET}", "module load b"), sbatch=(f"--comment=KEY={SECRET}",))
    config = replace(cell.config, launcher=launcher, tracking=WandbConfig(entity=SECRET))
    folder = made.finish_train_cell(study, Cell("train", config), (64, 1), 7.5)
    made.make_compress_cell(study, folder, 0.5, 4)
    command = Call("train", (f"launcher.setup=[export A={SECRET}]", f"tracking.entity={SECRET}")).command
    remember_command(study, "train", command)
    assert commands_of(study, "train", {folder.id}) == ([command], set())
    return study


def holding(study: Study, secret: str) -> set[str]:
    files = (path for path in study.path.rglob("*") if path.is_file())
    return {path.name for path in files if secret.encode() in path.read_bytes()}


def test_only_the_frozen_configuration_has_a_secret(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    from trainlarge.results.report.page import write_report

    monkeypatch.setattr("trainlarge.results.report.section.drawings", lambda frames: [])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        write_report(study)
    mirror_study(study, CsvConfig())
    [folder] = study.folders("train")
    folder.write_status(Status(State.FAILED, error=f"data.files={SECRET} is not valid"))
    assert holding(study, SECRET) == {"config.yaml"} and folder.status().error == "data.files=*** is not valid"
    setup = folder.record_data()["config"]["launcher"]["setup"]  # type: ignore[index, call-overload]
    assert setup == ["export A=***", "module load b"]
    assert folder.cell().config.launcher.setup[0] == f"export A={SECRET}", "a worker needs it"


def test_a_record_of_before_with_a_secret_does_not_leave_the_study(study: Study) -> None:
    [folder] = study.folders("train")
    record = folder.record_data()
    record["provenance"]["command"] = f"trainlarge train 'launcher.setup=[export A={SECRET}]'"  # type: ignore[call-overload, index]
    record["config"]["launcher"]["setup"] = [f"export A={SECRET}"]  # type: ignore[call-overload, index]
    write_sealed(folder.record_path, record)
    assert SECRET not in str(load_study(study).cells.to_dict())
    for run in runs_of(study):
        assert SECRET not in json.dumps([run.config, run.summary], default=str)
