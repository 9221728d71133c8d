"""A plan of all stages of a study before anything of it is trained, and what ``run`` refuses by then."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from trainlarge.cli import main
from trainlarge.commands.ahead import check_stages, look_at_stage
from trainlarge.commands.chain import StageSweep, sweeps_of
from trainlarge.commands.sweep_files import is_path
from trainlarge.config.schema import StageConfig
from trainlarge.errors import UserError
from trainlarge.sweep.store import CellFolder, Study

Run = Callable[[str, list[StageConfig]], list[CellFolder]]
TRAIN = {"blocks": [{"arch.depth": [1, 2], "budget": ["2 steps", "4 steps"]}]}
COMPRESS = {
    "blocks": [
        {"checkpoint": "every", "quantize.bits": [8, 4]},
        {
            "checkpoint": "every",
            "prune.sparsity": 0.5,
            "recover": "retrain",
            "recover.budget": ["0.5 parent", "3 steps"],
        },
    ]
}


@pytest.fixture
def folder(study: Study, tmp_path: Path, tiny_overrides: list[str], monkeypatch: pytest.MonkeyPatch) -> Path:
    """The sweep files of both stages, in a folder that Hydra does not search; no header says where they go."""
    made = tmp_path / "2026 my sweeps"
    made.mkdir()
    (made / "train.yaml").write_text(yaml.safe_dump({"study": study.name, "sweep": TRAIN}))
    (made / "compress.yaml").write_text(yaml.safe_dump({"study": study.name, "sweep": COMPRESS}))
    monkeypatch.chdir(tmp_path)
    return made


@pytest.fixture
def overrides(tiny_overrides: list[str]) -> list[str]:
    return [text for text in tiny_overrides if not text.startswith(("study", "arch.depth", "budget"))]


def planned(arguments: list[str], capfd: pytest.CaptureFixture[str]) -> dict[str, Any]:
    capfd.readouterr()
    assert main(["plan", *arguments, "--json"]) == 0
    return dict(json.loads(capfd.readouterr().out))


def ids(stage: dict[str, Any]) -> set[str]:
    return {cell["cell"] for job in stage["jobs"] for cell in job["cells"]}


def test_it_foresees_the_cells_of_checkpoints_that_are_not_there(
    folder: Path, overrides: list[str], study: Study, run_here: Run, capfd: pytest.CaptureFixture[str]
) -> None:
    before = planned(["./2026 my sweeps", *overrides], capfd)
    assert not study.path.exists()
    train, compress = before["stages"]
    assert (train["cells"], len(train["jobs"]), compress["cells"], len(compress["jobs"])) == (4, 2, 16, 4)
    assert before["total"]["flops"] == train["total"]["flops"] + compress["total"]["flops"]
    sweep = sweeps_of("./2026 my sweeps", overrides)[0]
    run_here("train", [cell.config for cell in look_at_stage("train", sweep.arguments(None)).plan.cells])
    after = planned(["./2026 my sweeps", *overrides], capfd)
    assert after["done"] == 4 and after["stages"][0]["jobs"] == []
    assert ids(after["stages"][1]) == ids(compress), "ids do not depend on whether the parents are trained"
    for name in ("flops", "tokens", "disk_bytes", "state_bytes"):
        assert after["stages"][1]["total"][name] == compress["total"][name], name
    some = planned(["./2026 my sweeps", *overrides, "arch.width=16,32", "sweep.where='arch.width == 32'"], capfd)
    assert (some["stages"][0]["cells"], some["stages"][0]["done"], some["stages"][1]["cells"]) == (8, 4, 16)
    assert main(["plan", "./2026 my sweeps", *overrides]) == 0
    printed = capfd.readouterr().out
    assert printed.splitlines()[-1].startswith("next: trainlarge run './2026 my sweeps' ") and "study" in printed


def test_recipes_that_cannot_work_are_refused_before_anything_is_trained(
    folder: Path, overrides: list[str], study: Study, capfd: pytest.CaptureFixture[str]
) -> None:
    wrong = ["compress.structure=layer_list", "structure.layers=[1]"]
    for verb in ("plan", "run"):
        assert main([verb, str(folder), *overrides, *wrong]) == 2
        [line] = capfd.readouterr().err.strip().splitlines()
        assert line == (
            "error: structure.layers=[1] is not valid: must be numbers from 0 to 0, the layers there are "
            "(8 of 16 cells)"
        )
    assert not study.path.exists()


def test_a_further_folder_of_configurations(
    study: Study,
    tmp_path: Path,
    overrides: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "further" / "sweeps" / "mine").mkdir(parents=True)
    file = tmp_path / "further" / "sweeps" / "mine" / "train.yaml"
    file.write_text("# @package _global_\n" + yaml.safe_dump({"sweep": TRAIN}))
    monkeypatch.chdir(tmp_path)
    for arguments in (["mine", "--config-dir", "further"], ["train", "+sweeps=mine/train", "--config-dir=further"]):
        plan = planned([*arguments, "study=tiny", *overrides], capfd)
        assert plan["cells"] == 4
    assert main(["train", "--config-dir", "further", "+sweeps=mine/train", "--cfg", "job"]) == 0
    assert main(["plan", "mine"]) == 2


def texts(sweeps: list[StageSweep]) -> dict[str, list[str]]:
    return {sweep.stage: list(sweep.given) for sweep in sweeps}


BOTH = ("train", "compress")
OVERRIDES = [
    ("workers=2", BOTH, "workers=2"),
    ("tracking=none", BOTH, "tracking=none"),
    ("hydra.verbose=true", BOTH, "hydra.verbose=true"),
    ("prune.sparsity=0.9", ("compress",), "prune.sparsity=0.9"),
    ("prune=wanda", ("compress",), "prune=wanda"),
    ("++quantize.bits=4", ("compress",), "++quantize.bits=4"),
    ("order=[quantize,prune]", ("compress",), "order=[quantize,prune]"),
    ("checkpoint=every", ("compress",), "checkpoint=every"),
    ("arch.width=64", ("train",), "arch.width=64"),
    ("data.vocab_size=512", ("train",), "data.vocab_size=512"),
    ("sweep.where='seed == 1'", ("compress",), "sweep.where='seed == 1'"),
    ("train.seed=1", ("train",), "seed=1"),
    ("+compress.seed=1", ("compress",), "+seed=1"),
    ("compress.prune.sparsity=0.9", ("compress",), "prune.sparsity=0.9"),
    ("train.task=causal_lm", ("train",), "task=causal_lm"),
]


@pytest.mark.parametrize(("override", "stages", "written"), OVERRIDES, ids=lambda value: str(value)[:30])
def test_an_override_goes_to_the_stages_that_have_its_key(override: str, stages: tuple[str, ...], written: str) -> None:
    assert texts(sweeps_of("quickstart", [override])) == {
        stage: [written] if stage in stages else [] for stage in ("train", "compress")
    }


WRONG = [
    (
        "quickstart",
        "prnue.sparsity=0.9",
        r"^prnue\.sparsity=0\.9 is not valid: no such key .*did you mean prune\?\)$",
    ),
    ("batch_study", "prune.sparsity=0.9", r"^prune\.sparsity=0\.9 is not valid: .*stage train .*only in compress$"),
    ("batch_study", "compress.seed=1", r"^compress\.seed=1 is not valid: must be for a stage of this study: train$"),
    ("nowhere", "seed=1", r"^study=nowhere is not valid: .*quickstart.*or a path: \./nowhere$"),
    ("./nowhere", "seed=1", r"^study=nowhere is not valid: must be a folder of sweep files, or a sweep file"),
    ("nowhere.yaml", "seed=1", r"^study=nowhere\.yaml is not valid: "),
]


@pytest.mark.parametrize(("study_name", "override", "said"), WRONG, ids=lambda value: str(value)[:30])
def test_what_no_stage_can_take_is_refused(study_name: str, override: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        sweeps_of(study_name, [override])


FILES = [
    ({"sweep": {"blocks": [{"arch.width": [16, 32]}]}}, "train"),
    ({"arch": {"width": 16}, "data": {"vocab_size": 300}}, "train"),
    ({"checkpoint": "every", "prune": {"sparsity": 0.5}}, "compress"),
    ({"checkpoint": "some/folder", "data": {"sequence_length": 64}, "quantize": {"bits": 4}}, "compress"),
    ({"seed": 3}, None),
    ({"arch": {"width": 16}, "prune": {"sparsity": 0.5}}, None),
    ("only text", None),
]


@pytest.mark.parametrize(("content", "stage"), FILES, ids=lambda value: str(value)[:30])
def test_the_stage_of_a_file_is_that_of_its_keys(content: object, stage: str | None, tmp_path: Path) -> None:
    path = tmp_path / "study.yaml"
    path.write_text(yaml.safe_dump(content))
    if stage is not None:
        assert list(texts(sweeps_of(str(path), []))) == [stage]
        return
    with pytest.raises(UserError, match=r"study\.yaml(?:=only text)? is not valid: must be a (?:file|mapping) "):
        sweeps_of(str(path), [])


PATHS = [".", "..", "./mine", "../mine", "/mine", "~/mine", "~", "./a=b", "mine.yaml", "my/mine.yaml"]
NO_PATHS = ["mine", "my/mine", "sweeps=./mine.yaml", "~study", ".hidden=1", "checkpoint=/a/b.yaml", "1.5"]


def test_what_is_a_path() -> None:
    assert all(map(is_path, PATHS)) and not any(map(is_path, NO_PATHS))


@pytest.mark.parametrize("name", ["it's $x, a=b [1]", 'quo"te back\\slash größe {2}'])
def test_a_sweep_file_may_be_called_anything(
    name: str, tmp_path: Path, study: Study, overrides: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / name / "train.yaml"
    path.parent.mkdir()
    path.write_text(yaml.safe_dump({"study": study.name, "sweep": TRAIN}))
    for arguments in ([str(path.parent)], [f"sweeps={path}"]):
        assert planned([*arguments, *overrides], capfd)["cells"] == 4


def test_a_sweeper_that_chooses_its_next_cells_is_not_looked_ahead_of(
    folder: Path, overrides: list[str], study: Study
) -> None:
    (folder / "train.yaml").write_text(yaml.safe_dump({"study": study.name, "arch": {"depth": 1}}))
    check_stages(sweeps_of(str(folder), [*overrides, "hydra/sweeper=basic"]))
    assert not study.path.exists()


CHAIN = ("1_train.yaml", "2_train_sst2.yaml", "2_train_mnli.yaml", "10_compress.yaml")


@pytest.fixture
def chain(tmp_path: Path, study: Study, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of ``sweeps/`` with several files of one stage, and one that is there for others."""
    made = tmp_path / "sweeps" / "chain"
    made.mkdir(parents=True)
    for name in CHAIN:
        start = {"checkpoint": "every"} if name[0] != "1" or "compress" in name else {}
        (made / name).write_text(yaml.safe_dump({"study": study.name, **start}))
    (made / "common.yaml").write_text("seed: 1\n")
    monkeypatch.chdir(tmp_path)
    return made


ROUTES = [
    ("workers=2", ("1_train", "2_train_mnli", "2_train_sst2", "10_compress"), "workers=2"),
    ("train.seed=1", ("1_train", "2_train_mnli", "2_train_sst2"), "seed=1"),
    ("sst2.budget='3 epochs'", ("2_train_sst2",), "budget='3 epochs'"),
    ("2_train_mnli.optim.lr=1,2", ("2_train_mnli",), "optim.lr=1,2"),
    ("++1_train.data.files=[a.txt]", ("1_train",), "++data.files=[a.txt]"),
    ("arch.width=16", ("1_train",), "arch.width=16"),
    ("arch=llama", ("1_train",), "arch=llama"),
    ("sweep.where='seed == 1'", ("2_train_mnli", "2_train_sst2", "10_compress"), "sweep.where='seed == 1'"),
    ("data.vocab_size=300", ("1_train", "2_train_mnli", "2_train_sst2"), "data.vocab_size=300"),
    ("checkpoint=every", ("10_compress",), "checkpoint=every"),
    ("10_compress.checkpoint=every", ("10_compress",), "checkpoint=every"),
]


@pytest.mark.parametrize("by_path", [False, True], ids=["by name", "by path"])
@pytest.mark.parametrize(("override", "files", "written"), ROUTES, ids=lambda value: str(value)[:30])
def test_an_override_goes_to_the_files_of_a_name_of_a_stage_or_of_all(
    override: str, files: tuple[str, ...], written: str, by_path: bool, chain: Path
) -> None:
    sweeps = sweeps_of(str(chain) if by_path else "chain", [override])
    assert [sweep.title for sweep in sweeps] == ["1_train", "2_train_mnli", "2_train_sst2", "10_compress"]
    assert {sweep.title: list(sweep.given) for sweep in sweeps if sweep.given} == {name: [written] for name in files}


WRONG_NAMES = [
    ("3_tain.yaml", r"^sweeps=\S*3_tain\.yaml is not valid: must be called \[NUMBER_\]STAGE\[_NAME\]\.yaml, "),
    ("compress.yaml", r"^sweeps=\S*/compress\.yaml is not valid: must be called with a number first, "),
    ("3_train_data.yaml", r"^sweeps=\S*3_train_data\.yaml is not valid: must be called otherwise: data is the name "),
    ("3_train_compress.yaml", r"^sweeps=\S* is not valid: must be called otherwise: compress is the name of a key"),
]


@pytest.mark.parametrize(("name", "said"), WRONG_NAMES, ids=[name for name, _ in WRONG_NAMES])
def test_names_that_say_no_order_are_refused(name: str, said: str, chain: Path) -> None:
    (chain / name).write_text("seed: 1\n")
    for place in (str(chain), "chain"):
        with pytest.raises(UserError, match=said):
            sweeps_of(place, [])


def test_files_without_numbers_run_by_stage_then_name(chain: Path) -> None:
    for name in CHAIN:
        (chain / name).rename(chain / name.partition("_")[2])
    assert [sweep.title for sweep in sweeps_of("chain", [])] == ["train", "train_mnli", "train_sst2", "compress"]


def test_a_folder_stands_for_its_one_file_of_the_stage(chain: Path, overrides: list[str]) -> None:
    assert look_at_stage("train", ["-m", f"sweeps={chain / '1_train.yaml'}", *overrides, "arch.depth=1,2"]).left
    with pytest.raises(UserError, match=r"several of the stage train: 1_train\.yaml, 2_train_mnli\.yaml"):
        look_at_stage("train", ["-m", f"sweeps={chain}", *overrides])
    with pytest.raises(UserError, match=r"used in a study with finished train cells"):
        look_at_stage("compress", ["-m", f"sweeps={chain}"])
    assert main(["plan", "+sweeps=chain/1_train", *overrides]) == 0


def test_a_plan_has_a_part_for_each_file_and_counts_a_cell_once(
    chain: Path, overrides: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    """The second file asks for the cells of the first, and more."""
    for path in chain.glob("2_*.yaml"):
        path.unlink()
    common = yaml.safe_load((chain / "1_train.yaml").read_text())
    for name, depths in (("1_train", [1]), ("2_train_deep", [1, 2])):
        blocks = [{"arch.depth": depths, "budget": "2 steps"}]
        (chain / f"{name}.yaml").write_text(yaml.safe_dump({**common, "sweep": {"blocks": blocks}}))
    plan = planned(["chain", *overrides, "quantize.bits=8,4"], capfd)
    parts = {part["file"]: (part["stage"], part["cells"], part["done"], len(part["jobs"])) for part in plan["stages"]}
    assert parts == {
        "1_train": ("train", 1, 0, 1),
        "2_train_deep": ("train", 2, 1, 1),
        "10_compress": ("compress", 4, 0, 2),
    }
    assert main(["plan", "chain", *overrides]) == 0
    assert "\n2_train_deep: 2 cells, 1 done, 1 job to run in " in capfd.readouterr().out
    assert main(["plan", "chain", *overrides, "deep.arch.heads=5"]) == 2
    assert capfd.readouterr().err.strip().splitlines()[-1].endswith(" (2 of 2 cells) (in 2_train_deep.yaml)")


def test_steps_of_cells_whose_checkpoint_is_not_there_yet_are_not_timed(
    study: Study, tmp_path: Path, overrides: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    own = {"study": study.name, "budget": "3 steps"}
    made = tmp_path / "chained"
    made.mkdir()
    (made / "1_train.yaml").write_text(yaml.safe_dump({**own, "data": {"vocab_size": 300}}))
    (made / "2_train.yaml").write_text(yaml.safe_dump({**own, "checkpoint": "every", "seed": 1}))
    given = [text for text in overrides if not text.startswith("data.vocab_size")]
    assert main(["plan", str(made), *given, "--calibrate"]) == 0
    printed = capfd.readouterr()
    assert "is not valid" not in printed.err + printed.out and "timed on" in printed.out


def test_a_study_without_train_cells_times_no_steps(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (folder / "train.yaml").unlink()
    assert main(["plan", str(folder), "--calibrate"]) == 2
    assert "error: --calibrate=compress is not valid: must be used for a study with train" in capfd.readouterr().err
