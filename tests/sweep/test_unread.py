"""A key that nobody reads is refused, and in a grid it makes no second id of one result."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

import made
from trainlarge.cli import main
from trainlarge.commands.hydra_entry import act_on_cells
from trainlarge.commands.rerun import is_refused
from trainlarge.config.arch import ArchConfig
from trainlarge.config.data import DataConfig
from trainlarge.config.launcher import SlurmConfig
from trainlarge.config.optim import OptimConfig
from trainlarge.config.plain import from_plain, to_plain
from trainlarge.config.recipe import Recipe
from trainlarge.config.schedule import ScheduleConfig
from trainlarge.config.schema import CompressConfig, StageConfig, TrainConfig
from trainlarge.config.structure import Heads
from trainlarge.config.task import ClassificationConfig, MaskedLMConfig
from trainlarge.errors import UserError
from trainlarge.sweep.cell import Cell
from trainlarge.sweep.plan import make_cells
from trainlarge.sweep.store import Study
from trainlarge.sweep.unread import refuse_unread


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A train cell of the study ``made`` that is done."""
    study = made.make_study(tmp_path_factory.mktemp("studies") / "made", budgets=(7.5,), compressed=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRAINLARGE_STUDIES", str(study.path.parent))
        yield next(iter(study.folders("train"))).id


UNREAD = [
    (["train", "schedule.horizon='1e15 FLOPs'"], "schedule.horizon", "schedule.name=fixed"),
    (["train", "schedule=matched", "schedule.decay_share=0.1"], "schedule.decay_share", "schedule.name=cooldown"),
    (["train", "optim.batch_lr=[[2048,1e-3]]"], "optim.batch_lr", "optim.batch_rule=table"),
    (["train", "optim.base_batch=1024"], "optim.base_batch", "optim.batch_rule=sqrt or linear"),
    (["train", "optim.lr_rule=constant", "optim.base_width=64"], "optim.base_width", "optim.lr_rule=constant"),
    (["train", "optim.peak_lr=1e-3", "optim.lr=5e-3"], "optim.lr", "optim.peak_lr=0.001"),
    (["train", "optim.lr_rule=mup", "arch.init_std=0.02"], "arch.init_std", "optim.lr_rule=mup"),
    (["train", "data.files=[my.txt]"], "data.files", "data=text"),
    (["train", "launcher=slurm", "workers=2"], "workers", "with launcher=slurm, which does not read it"),
    (["train", "task=classification", "data=text", "arch.tied=false"], "arch.tied", "with task=classification"),
    (["train", "sweep.where=seed"], "sweep.where", "checkpoint=every"),
    (["compress", "data.vocab_size=512"], "data.vocab_size", "4096 in the compress stage"),
    (["compress", "task.evaluations_per_doubling=2"], "task.evaluations_per_doubling", "1 in the compress stage"),
    (["compress", "sweep.where=seed"], "sweep.where", "checkpoint=every"),
    (["compress", "quantize.granularity=tensor"], "quantize.granularity", "quantize.bits=32"),
    (["compress", "prune.scope=row"], "prune.scope", "prune.sparsity=0"),
    (["compress", "prune.embeddings=false"], "prune.embeddings", "prune.sparsity=0"),
    (["compress", "activations=dynamic", "activations.bits=32"], "activations.name", "activations.bits=32"),
    (["compress", "vocabulary=frequent"], "vocabulary.name", "vocabulary.size=0"),
    (["compress", "quantize.bits=4", "quantize.group_size=32"], "quantize.group_size", "quantize.granularity=group"),
    (["compress", "quantize.bits=4", "quantize.percentile=99"], "quantize.percentile", "quantize.range=percentile"),
    (["compress", "quantize.bits=4", "quantize.sigma=2"], "quantize.sigma", "quantize.range=sigma"),
    (
        ["compress", "structure=heads", "structure.keep=0.5", "structure.calibration_rows=8"],
        "structure.calibration_rows", "structure.importance=gradient",
    ),
]  # fmt: skip


@pytest.mark.parametrize("is_sweep", [False, True])
@pytest.mark.parametrize(("given", "key", "needed"), UNREAD, ids=lambda value: " ".join(value[1:]) if value[1:] else "")
def test_a_key_that_nobody_reads_is_refused(
    given: list[str], key: str, needed: str, is_sweep: bool, trained: str, capfd: pytest.CaptureFixture[str]
) -> None:
    stage, *overrides = given
    more = [f"checkpoint={trained}", "study=made"] if stage == "compress" else []
    verb = ["plan", stage] if is_sweep else [stage]
    assert main([*verb, *more, *overrides]) == 2
    [line] = capfd.readouterr().err.splitlines()
    assert line.startswith(f"error: {key}=") and needed in line


@pytest.mark.parametrize("prefix", ["", "+", "++"])
@pytest.mark.parametrize("name", ["blocks=[{seed: 1}]", "exclude=[seed]"])
def test_what_makes_a_sweep_is_refused_without_one(
    prefix: str, name: str, study: Study, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", f"{prefix}sweep.{name}"]) == 2
    assert "-m, which runs a sweep" in capfd.readouterr().err


@pytest.mark.parametrize(
    "key", ["foo", "optim.foo", "arch.foo", "sweep.foo", "launcher.foo", "task.foo", "data.foo.bar"]
)
@pytest.mark.parametrize("prefix", ["", "+", "++"])
def test_an_unknown_key_is_refused(prefix: str, key: str, study: Study, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "train", f"{prefix}{key}=1"]) == 2
    [line] = capfd.readouterr().err.splitlines()
    assert line.startswith(f"error: {key.removesuffix('.bar')}") and "no such key: must be one of" in line


@pytest.mark.parametrize("value", ["bits=32", "bits=4"])
def test_a_value_that_a_key_never_has_is_refused_also_of_a_disabled_method(
    value: str, trained: str, capfd: pytest.CaptureFixture[str]
) -> None:
    given = ["study=made", f"checkpoint={trained}", f"quantize.{value}", "quantize.granularity=nonsense"]
    assert main(["plan", "compress", *given]) == 2
    assert "quantize.granularity=nonsense is not valid: must be one of tensor" in capfd.readouterr().err


def configs(stage: str, *arguments: str) -> list[StageConfig]:
    [found] = act_on_cells(stage, ["-m", *arguments], lambda _, cells: cells)
    return found


def test_a_grid_with_a_disabled_method_has_one_cell_for_it(trained: str) -> None:
    scopes = ["study=made", f"checkpoint={trained}", "prune.sparsity=0,0.5", "prune.scope=global,row"]
    cells = make_cells("compress", configs("compress", *scopes))
    [dense] = make_cells("compress", configs("compress", *scopes[:2]))
    assert len(cells) == 3 and dense in cells


def test_a_grid_of_schedules_leaves_a_key_to_those_that_read_it() -> None:
    found = make_cells("train", configs("train", "schedule=cooldown,matched", "schedule.decay_share=0.1"))
    assert [cell.as_train.schedule.decay_share for cell in found] == [0.1, 0.2]
    assert found[1] == make_cells("train", configs("train", "schedule=matched"))[0]


def test_a_grid_of_tasks_leaves_a_key_of_another_group_to_those_that_read_it() -> None:
    tasks = ["task=causal_lm,classification", "arch=llama", "data=text"]
    found = configs("train", *tasks, "arch.tied=false,true")
    assert [(config.task.name, config.arch.tied) for config in found] == [
        ("causal_lm", False), ("causal_lm", True), ("classification", True), ("classification", True),
    ]  # fmt: skip
    assert found[2] == found[3] == configs("train", *tasks)[1]
    for key in ("arch.tied=false", "arch.tied=true"):
        [only] = configs("train", "task=causal_lm", *tasks[1:], key)
        assert only.arch.tied is (key == "arch.tied=true")


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"launcher": SlurmConfig(), "workers": 2}, "workers"),
        ({"task": ClassificationConfig(), "arch": ArchConfig(tied=False)}, "arch.tied"),
        ({"schedule": ScheduleConfig(horizon="1e15 FLOPs")}, "schedule.horizon"),
        ({"optim": OptimConfig(base_batch=1024)}, "optim.base_batch"),
    ],
)
def test_python_is_refused_too(changes: dict[str, object], key: str) -> None:
    with pytest.raises(UserError, match=f"^{key}="):
        make_cells("train", [replace(TrainConfig(), **changes)])


def test_a_recipe_of_python_is_refused_too(trained: str) -> None:
    config = replace(made.default_config("compress"), study="made", checkpoint=trained, data=None, task=None)
    with pytest.raises(UserError, match=r"^structure\.calibration_rows=8 "):
        make_cells("compress", [replace(config, recipe=Recipe(structure=Heads(0.5, calibration_rows=8)))])


def test_the_model_of_a_checkpoint_keeps_its_output_matrix_whatever_the_task() -> None:
    refuse_unread(TrainConfig(task=ClassificationConfig(), arch=ArchConfig(tied=False), checkpoint="0" * 12))


OLD = [
    TrainConfig(schedule=ScheduleConfig(name="matched", decay_share=0.1)),
    TrainConfig(task=ClassificationConfig(), arch=ArchConfig(tied=False)),
    CompressConfig(checkpoint="/some/folder", data=DataConfig(vocab_size=512), task=MaskedLMConfig()),
]


@pytest.mark.parametrize("config", OLD, ids=lambda config: type(config).__name__)
def test_a_frozen_configuration_from_before_stays_readable(config: StageConfig) -> None:
    assert from_plain(type(config), to_plain(config)) == config
    assert is_refused(Cell("compress" if isinstance(config, CompressConfig) else "train", config))


@pytest.mark.parametrize("key", ["schedule.decay_share", "optim.lr"])
def test_redo_runs_a_cell_from_before_and_show_says_so(
    key: str, tiny: Callable[..., TrainConfig], study: Study, capfd: pytest.CaptureFixture[str]
) -> None:
    (cell,) = make_cells("train", [tiny("schedule=matched", "budget=3 steps")])
    # As an older version let a command set them: nobody reads the one, and nothing follows from the other.
    name = {"schedule.decay_share": "schedule", "optim.lr": "optim"}[key]
    group = replace(getattr(cell.config, name), **{key.rpartition(".")[2]: 0.1})
    old = Cell("train", replace(cell.config, **{name: group}))
    folder = study.folder("train", old.id)
    folder.freeze(old)
    assert main(["show", old.id]) == 0
    command = capfd.readouterr().out.splitlines()[-1].split()
    assert command == ["trainlarge", "redo", old.id, "--study", study.name]
    assert main(command[1:]) == 0
    assert folder.is_done() and folder.cell() == old and old != cell


def test_a_sweep_file_may_nest_keys_and_needs_no_package(
    tmp_path: Path, study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sweeps" / "x").mkdir(parents=True)
    text = "arch: {depth: 3}\nsweep: {blocks: [{arch: {width: [16, 32]}, seed: 2}]}\n"
    (tmp_path / "sweeps" / "x" / "train.yaml").write_text(text)
    monkeypatch.chdir(tmp_path)
    shapes = [(config.arch.width, config.arch.depth, config.seed) for config in configs("train", "+sweeps=x/train")]
    assert shapes == [(16, 3, 2), (32, 3, 2)]


BOUNDS = ["arch.width=1000000000", "arch.depth=1000000000", "arch.width=range(1,1e9)", "seed=range(0,1e6)",
          "workers=99999999999999999999", "impl.save_seconds=inf", "optim.lr=nan", "arch.init_std=1e400",
          "budget='1e30 steps'", "data.vocab_size=9000000000000000000", "launcher.retries=1e30"]  # fmt: skip


@pytest.mark.parametrize("override", BOUNDS)
def test_what_is_beyond_all_bounds_is_refused_at_once(
    override: str, study: Study, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["plan", "train", override]) == 2
    [line] = capfd.readouterr().err.splitlines()
    assert line.startswith(f"error: {override.partition('=')[0]}=")
