"""Text stays the text that was written: on the command line, in files, in conditions."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given, settings
from hypothesis import strategies as st

from trainlarge.cli import main
from trainlarge.commands.hydra_entry import act_on_cells
from trainlarge.config.launcher import SlurmConfig
from trainlarge.config.method import METHODS
from trainlarge.config.schema import TrainConfig
from trainlarge.errors import UserError
from trainlarge.sweep.cell import Cell
from trainlarge.sweep.condition import holds
from trainlarge.sweep.store import Study
from trainlarge.sweep.text_keys import as_written, read_yaml, text_keys

TEXTS = [
    "821e97645060", "123456789012", "000000000012", "0e1234567890", "00012", "2026_11_27", "2026-11-27", "1.1", "1.10",
    "0x10", "0o17", "0b11", "1_000", "1e5", "1E5", "1e+5", ".5", "5.", "-1", "+1", "12:30:45", "12:30", "1.5:30",
    "true", "True", "TRUE", "false", "yes", "no", "on", "off", "y", "n", "inf", "-inf", "nan", ".inf", ".nan", "none",
]  # fmt: skip
"""What Hydra or YAML takes, or might take, for something else."""

ids = st.from_regex(r"[0-9]{1,8}[eE][0-9]{1,4}|[0-9]{12}|[0-9a-f]{12}", fullmatch=True)
parser = OverridesParser.create()


def expanded(stage: str, *arguments: str) -> list[Any]:
    return [config for some in act_on_cells(stage, list(arguments), lambda _, configs: configs) for config in some]


@pytest.mark.parametrize("text", TEXTS)
def test_text_on_the_command_line(text: str) -> None:
    launcher = ("launcher=slurm", f"launcher.account={text}")
    [config] = expanded("train", f"study={text}", f"checkpoint={text}", f"data.files=[{text},'{text}']", *launcher)
    assert isinstance(config.launcher, SlurmConfig)
    assert (config.study, config.checkpoint, config.launcher.account) == (text, text, text)
    assert config.data.files == (text, text)


def test_text_in_a_sweep_on_the_command_line() -> None:
    texts = [text for text in TEXTS if not text.startswith(".") or text == ".5"]
    configs = expanded("train", "-m", f"checkpoint={','.join(texts)}", "study=choice(1.1,1.10)", "seed=1_0")
    assert [(config.checkpoint, config.study) for config in configs] == [
        (text, study) for text in texts for study in ("1.1", "1.10")
    ]
    assert {config.seed for config in configs} == {10}
    blocks = "sweep.blocks=[{checkpoint: 821e97645060, launcher.account: 1_0}]"
    [config] = expanded("train", "-m", "launcher=slurm", blocks)
    assert isinstance(config.launcher, SlurmConfig)
    assert (config.checkpoint, config.launcher.account) == ("821e97645060", "1_0")


@pytest.mark.parametrize("key", sorted(text_keys() - {"sweep"}))
def test_every_text_key(key: str) -> None:
    for text in ("821e97645060", "1.10", "true"):
        for argument in (f"{key}={text}", f"++{key}={text}"):
            assert _value(as_written(argument)) == text
        assert _value(as_written(f"{key}=[{text}, a, '{text}']")) == [text, "a", text]
        assert read_yaml(_nested(key, text)) == read_yaml(_nested(key, f"'{text}'"))
        assert read_yaml(_nested("sweep.blocks", f"[{{{key}: [{text}]}}]"))["sweep"]["blocks"] == [{key: [text]}]


@settings(max_examples=60, deadline=None)
@given(text=ids)
def test_every_id_is_text(text: str) -> None:
    assert _value(as_written(f"checkpoint={text}")) == text
    assert _value(as_written(f"checkpoint=[{text},{text}]")) == [text, text]
    assert read_yaml(f"sweep:\n  blocks: [{{checkpoint: [{text}]}}]")["sweep"]["blocks"][0]["checkpoint"] == [text]


def test_keys_that_the_schema_declares_as_text() -> None:
    expected = {"study", "checkpoint", "data.files", "data.text_column", "launcher.partition", "launcher.memory",
                "launcher.setup", "tracking.project", "schedule.horizon", "sweep.exclude", "quantize.granularity",
                "prune.scope", "structure.choice", "arch", "prune"}  # fmt: skip
    assert expected <= text_keys()
    assert {f"{slot}.name" for slot in METHODS} <= text_keys()
    assert not {"seed", "arch.width", "budget", "quantize.bits", "optim.lr", "redo", "data.vocab_size"} & text_keys()


@pytest.mark.parametrize(
    "argument",
    [
        "seed=1e5", "arch.width=1_000", "redo=true", "study=null", "checkpoint=null", "study='1e5'", 'study="1_0"',
        "study=${seed}", "study=a_${seed}", "study=glob(*)", "study=a", "study=", "data.files=[]", "study=[1", "-m",
        "checkpoint=range(1,3)", "--config-dir=1e5", "~study", "optim.batch_lr=[[1_0, 1e5]]", "study=1e5 steps",
    ],
)  # fmt: skip
def test_what_needs_no_quotes_stays_as_it_is(argument: str) -> None:
    assert as_written(argument) == argument


def test_text_in_the_groups_that_a_user_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = """
data:
  sources: &texts
    wiki: {files: [1.10, 12:30], text_column: 2026, hub: null, weight: 1_0}
    web: {encoding: 037, files: [1e5]}
  evaluations: *texts
sweep: {blocks: [{data.evaluations.books.text_column: [1e5]}]}
"""
    found = read_yaml(text)
    wiki = {"files": ["1.10", "12:30"], "text_column": "2026", "hub": None, "weight": 10}
    assert found["data"]["sources"]["wiki"] == found["data"]["evaluations"]["wiki"] == wiki
    assert found["data"]["sources"]["web"] == {"encoding": "037", "files": ["1e5"]}
    assert found["sweep"]["blocks"] == [{"data.evaluations.books.text_column": ["1e5"]}]
    folder = tmp_path / "1.10.jsonl"
    folder.write_text('{"2026": "text"}\n')
    monkeypatch.chdir(tmp_path)
    sources = "data.sources={wiki: {files: [1.10.jsonl], text_column: 2026, encoding: 037, weight: 1_0}}"
    [config] = expanded("train", "data=text", sources, "+data.evaluations.books.files=[1e5]")
    source = config.data.sources["wiki"]
    assert (source.files, source.text_column, source.encoding, source.weight) == (("1.10.jsonl",), "2026", "037", 10.0)
    assert config.data.evaluations["books"].files == ("1e5",)
    [config] = expanded("train", "data=text", sources, "data.sources.wiki.text_column=1_0")
    assert config.data.sources["wiki"].text_column == "1_0"


def test_text_in_files_and_what_is_no_text() -> None:
    text = """
study: 2026_11_27
checkpoint: ~
redo: yes
seed: 1_0
data: &data {files: [00012, 12:30:45, off], text_column: 1.10, vocab_size: 1_000, validation_share: 1e-1}
tracking: {mode: off, project: 2026-11-27}
launcher: {time: 4:00:00, cpus: 2}
sweep:
  where: true
  exclude: [1]
  blocks:
    - {checkpoint: [123456789012, 1e5], optim.lr: [1e-3], arch: {name: 1e5, width: 1_6}}
    - {<<: {study: 1.10}, seed: [1, 2]}
"""
    found = read_yaml(text)
    assert (found["study"], found["checkpoint"], found["redo"], found["seed"]) == ("2026_11_27", None, True, 10)
    assert found["data"] == {
        "files": ["00012", "12:30:45", "off"], "text_column": "1.10", "vocab_size": 1000, "validation_share": 0.1
    }  # fmt: skip
    assert (found["tracking"], found["launcher"]) == (
        {"mode": "off", "project": "2026-11-27"}, {"time": "4:00:00", "cpus": 2}
    )  # fmt: skip
    assert found["sweep"] == {
        "where": "true", "exclude": ["1"], "blocks": [
            {"checkpoint": ["123456789012", "1e5"], "optim.lr": [1e-3], "arch": {"name": "1e5", "width": 16}},
            {"study": "1.10", "seed": [1, 2]},
        ],
    }  # fmt: skip
    assert read_yaml("scope: 1e5\nsparsity: 1e-1", package="prune") == {"scope": "1e5", "sparsity": 0.1}
    assert read_yaml("study: &x 1e5\nseed: *x") == {"study": "1e5", "seed": 1e5}


@pytest.mark.parametrize("text", ["821e97645060", "2026_11_27", "1.10", "true", "12:30:45", "00012", "2026-11-27"])
def test_a_sweep_file_names_its_study_and_checkpoints(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "sweeps" / text.replace(":", "_")
    folder.mkdir(parents=True)
    (folder / "train.yaml").write_text(
        f"# @package _global_\nstudy: {text}\nlauncher: {{account: {text}}}\n"
        f"sweep:\n  blocks:\n    - {{checkpoint: [{text}, 1e5], seed: 1_0}}\n"
    )
    monkeypatch.chdir(tmp_path)
    configs = expanded("train", "-m", "launcher=slurm", f"+sweeps={folder.name}/train")
    assert [(config.study, config.checkpoint, config.seed) for config in configs] == [
        (text, text, 10), (text, "1e5", 10)
    ]  # fmt: skip
    assert isinstance(configs[0].launcher, SlurmConfig) and configs[0].launcher.account == text


def test_a_folder_of_configurations_of_ones_own(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "12.yaml").write_text("name: text\nfiles: [1e5]\ntext_column: 1_0\n")
    for arguments in (["data=12"], ["-m", "data=12"], ["-m", "sweep.blocks=[{data: 12}]"]):
        [config] = expanded("train", "--config-dir", str(tmp_path), *arguments)
        assert (config.data.files, config.data.text_column) == (("1e5",), "1_0")


CONFIG = {"study": "2026_11_27", "checkpoint": "821e97645060", "seed": 100000, "data": {"text_column": "1.10"}}


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        ("checkpoint == 821e97645060", True),
        ("checkpoint == 821e97645061", False),
        ("821e97645060 != checkpoint", False),
        ("checkpoint in [1e5, 821e97645060]", True),
        ("checkpoint not in (821e97645060,)", False),
        ("study == 2026_11_27", True),
        ("study == 20261127", False),
        ("study == '2026_11_27'", True),
        ("data.text_column == 1.10 and data.text_column != 1.1", True),
        ("seed == 1e5 and seed == 1_00_000", True),
    ],
)
def test_text_in_conditions(condition: str, expected: bool) -> None:
    assert holds(condition, CONFIG) is expected


@pytest.mark.parametrize("condition", ["checkpoint == 000000000012", "checkpoint == 12ab34cd56ef"])
def test_an_id_that_needs_quotes_is_refused(condition: str) -> None:
    with pytest.raises(UserError, match=r"^where="):
        holds(condition, CONFIG)


def test_studies_with_names_like_numbers_are_apart(
    study: Study, tiny_overrides: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    fixed = [text for text in tiny_overrides if not text.startswith(("study=", "budget="))]
    assert main(["train", *fixed, "budget=4 steps", "study=1.10"]) == 0
    assert {path.name for path in study.path.parent.glob("[!.]*")} == {"1.10"}
    capfd.readouterr()
    for name, done in (("1.10", 1), ("1.1", 0)):
        assert main(["plan", "train", *fixed, "budget=4 steps", f"study={name}"]) == 0
        assert f"1 cell, {done} done" in capfd.readouterr().out
    [folder] = (study.path.parent / "1.10" / "train").iterdir()
    for verb in (["status", "1.10"], ["clean", "1.10"], ["show", folder.name, "--study", "1.10"]):
        assert main(verb) == 0, verb
    assert main(["status", "1.1"]) == 2


def test_ids_of_cells_stay(tiny: Callable[..., TrainConfig]) -> None:
    """A value that was read rightly is read as before."""
    common = ("arch=roberta", "launcher=slurm")
    [config] = expanded("train", "data.text_column=text", "launcher.gpus=2", "tracking.project=2026", *common)
    quoted = expanded("train", "data.text_column='text'", "launcher.gpus='2'", "tracking.project='2026'", *common)
    assert [config] == quoted and Cell("train", config).id == Cell("train", quoted[0]).id


def _value(argument: str) -> Any:
    value = parser.parse_override(argument).value()
    return [getattr(item, "text", item) for item in value] if isinstance(value, list) else getattr(value, "text", value)


def _nested(key: str, value: str) -> str:
    names = key.split(".")
    lines = [f"{'  ' * depth}{name}:" for depth, name in enumerate(names)]
    return "\n".join(lines) + f" {value}"
