"""Distillation in a study: who teaches, what it costs, that it resumes bit by bit and depends on no company."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from labelled_tables import finetuning, table_of
from trainlarge.compression.cells import recovery_id
from trainlarge.config.recipe import Recipe
from trainlarge.config.recover import Distill, Retrain
from trainlarge.errors import UserError
from trainlarge.launch.job import RunningJob
from trainlarge.results.frames import load_study
from trainlarge.sweep.causes import Causes
from trainlarge.sweep.cell import Cell
from trainlarge.sweep.plan import make_cells
from trainlarge.sweep.planned import PlannedCell
from trainlarge.sweep.stages import stage_named
from trainlarge.sweep.store import CellFolder, Study

Run = Callable[..., list[CellFolder]]
Compose = Callable[..., Any]
EXACT = ("impl.threads=1", "impl.precision=fp32")
DISTILL = (*EXACT, "recover=distill", "recover.budget=12 steps", "recover.lr=0.003")
STUDENT = (*DISTILL, "structure=layer_list", "structure.layers=[1,3]", "recover.layer_map=kept")
XTC = (*STUDENT, "recover.quantize_aware=true", "quantize=binary", "activations=dynamic", "activations.symmetric=true")


@pytest.fixture
def parent(tiny: Callable[..., Any], run_here: Run) -> CellFolder:
    [folder] = run_here("train", [tiny("impl.precision=fp32", "budget=60 steps", "arch.depth=4")])
    return folder


@pytest.fixture
def other(tiny: Callable[..., Any], run_here: Run) -> CellFolder:
    """Wider than the parent, with another number of heads and of layers."""
    shape = ("arch.width=32", "arch.heads=4", "arch.depth=2")
    [folder] = run_here("train", [tiny("impl.precision=fp32", "budget=30 steps", *shape)])
    return folder


@pytest.fixture
def config(compose: Compose, parent: CellFolder) -> Compose:
    """Composes a compress configuration of a trained checkpoint, with more overrides."""
    return lambda *overrides: compose(
        "compress", "study=tiny", f"checkpoint={parent.id}", "tracking=none", "impl.device=cpu", *overrides
    )


def packed(folder: CellFolder) -> bytes:
    return folder.packed.read_bytes()


def forget(study: Study) -> None:
    shutil.rmtree(study.path / "compress")
    shutil.rmtree(study.path / "trunks", ignore_errors=True)


def test_the_record_has_the_teacher_its_cost_and_the_layer_map(
    config: Compose, run_here: Run, parent: CellFolder, other: CellFolder, study: Study
) -> None:
    by_other = (*DISTILL, f"recover.teacher={other.id}", "recover.attention_weight=0", "recover.task_weight=1")
    recipes = [(*EXACT, "recover=retrain", "recover.budget=12 steps"), STUDENT, by_other]
    run_here("compress", [config(*recipe) for recipe in recipes])
    frame = load_study(study).compression.set_index("recover_teacher")
    step = parent.record_data()["flops"] / parent.record_data()["step"]
    plain, own, others = frame.loc[""], frame.loc[parent.id], frame.loc[other.id]
    assert (plain["recover_flops"], plain["recover_teacher_flops"], plain["recover_layer_map"]) == (12 * step, 0, "")
    assert own["recover_teacher_flops"] == 12 * step // 3
    assert own["recover_flops"] == 12 * step + 12 * step // 3
    assert (own["recover_layer_map"], others["recover_layer_map"]) == ("0-1 1-3", "0-0 1-0 2-1 3-1")
    teacher_step = other.record_data()["flops"] / other.record_data()["step"]
    assert others["recover_teacher_flops"] == 12 * teacher_step // 3
    assert "recover_teacher" not in study.folder("compress", plain["cell"]).record_data()


@pytest.mark.parametrize(("recipe", "step"), [((*XTC, "recover.stages=2"), 7), (DISTILL, 3)])
def test_a_stopped_distillation_goes_on_to_the_same_bits(
    config: Compose,
    run_here: Run,
    study: Study,
    other: CellFolder,
    monkeypatch: pytest.MonkeyPatch,
    recipe: tuple[str, ...],
    step: int,
) -> None:
    """With the stage that it was in, and with the matrix that maps hidden states to those of a wider teacher."""
    by_other = () if "structure=layer_list" in recipe else (f"recover.teacher={other.id}", "recover.attention_weight=0")
    configs = [config(*recipe, *by_other, "impl.save_seconds=0")]
    [folder] = run_here("compress", configs)
    expected = packed(folder)
    forget(study)
    check, checked = RunningJob.check, []

    def die(job: RunningJob) -> None:
        check(job)
        checked.append(1)
        if len(checked) == step:
            raise InterruptedError

    with monkeypatch.context() as patched:
        patched.setattr(RunningJob, "check", die)
        with pytest.raises(InterruptedError):
            run_here("compress", configs)
    assert [path.name for path in sorted((study.path / "trunks").glob("*/recover-*"))][-1] == f"recover-{step:09d}"
    [folder] = run_here("compress", configs)
    assert packed(folder) == expected


def test_a_result_depends_on_no_company(config: Compose, run_here: Run, study: Study, other: CellFolder) -> None:
    recipes = [
        XTC,
        (*STUDENT, "quantize.bits=4"),
        (*STUDENT, "quantize.bits=3"),
        (*DISTILL, "recover.hidden_weight=0", "recover.attention_weight=0", "recover.temperature=2"),
        (*DISTILL, f"recover.teacher={other.id}", "recover.attention_weight=0"),
    ]
    configs = [config(*recipe) for recipe in recipes]
    together = [packed(folder) for folder in run_here("compress", configs)]
    assert len(list((study.path / "trunks").glob("*/recover-*"))) == 4, "two of them share a training"
    for place in (0, 4):
        forget(study)
        assert [packed(folder) for folder in run_here("compress", [configs[place]])] == [together[place]]


def test_micro_batches_come_to_the_same(config: Compose, run_here: Run, study: Study) -> None:
    losses = []
    for rows in (0, 4):
        [folder] = run_here("compress", [config(*STUDENT, f"impl.micro_batch_rows={rows}")])
        losses.append(folder.metrics()[-1]["train_loss"])
        forget(study)
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_rows_that_are_labelled(tmp_path: Path, compose: Compose, parent: CellFolder, run_here: Run) -> None:
    """A classifier teaches its smaller self; batches of like lengths have their own FLOPs."""
    overrides = finetuning(parent.id, table_of(tmp_path / "rows.jsonl"), "impl.device=cpu", *EXACT)
    [classifier] = run_here("train", [compose("train", *overrides, "task.batches=bucketed")])
    common = ("study=tiny", f"checkpoint={classifier.id}", "tracking=none", "impl.device=cpu", *EXACT)
    cut = ("structure=layers", "structure.keep=0.5")
    training = ("recover.budget=5 steps", "recover.lr=0.003")
    plain, taught = run_here(
        "compress",
        [compose("compress", *common, *cut, f"recover={name}", *training) for name in ("retrain", "distill")],
    )
    flops = [folder.record_data()["recover_flops"] for folder in (plain, taught)]
    assert flops[1] == flops[0] + flops[0] // 3 == flops[0] + taught.record_data()["recover_teacher_flops"]


def test_a_condition_names_the_one_cell_that_meets_it(
    config: Compose, parent: CellFolder, other: CellFolder, tiny: Callable[..., Any]
) -> None:
    weights = ("recover.attention_weight=0",)
    both = [config(*DISTILL, *weights, f"recover.teacher='{text}'") for text in (other.id, "arch.width == 32")]
    [cell] = make_cells("compress", both)
    assert cell.as_compress.recipe.recover.teacher == other.id, "they are one cell"
    [cell] = make_cells("compress", [config(*DISTILL), config(*DISTILL, "recover.teacher='arch.depth == 4'")])
    assert cell.as_compress.recipe.recover.teacher == "parent", "and so are these"
    [planned] = make_cells("train", [tiny("arch.depth=3")])
    ahead = {planned.id: PlannedCell(planned.as_train, 40)}
    [cell] = make_cells("compress", [config(*DISTILL, "recover.teacher='arch.depth == 3'")], ahead)
    assert cell.as_compress.recipe.recover.teacher == planned.id


def test_the_training_is_another_with_another_teacher() -> None:
    recipes = [Distill(), Distill(teacher="0123456789ab"), Distill(temperature=2), Retrain()]
    ids = {recovery_id("821e97645060", [method], True) for method in recipes}
    assert len(ids) == 4
    # Pinned: a training from before there were teachers, and the first one with a teacher.
    assert recovery_id("821e97645060", [Retrain()], True) == "032b814295f5"
    assert recovery_id("821e97645060", [Distill()], True) == "dc432bf62bf3"
    assert Recipe(recover=Retrain()).to_json()["recover"] == {
        "name": "retrain", "version": 1, "budget": "0.1 parent", "lr": None
    }  # fmt: skip


@pytest.mark.parametrize(
    ("keys", "line"),
    [
        (["recover.teacher=0123456789ab"], "recover.teacher=0123456789ab is not valid: must be the id of a finished"),
        (["recover.teacher='arch.width == 999'"], "recover.teacher=arch.width == 999 is not valid: must be parent, the "
         "id of a train cell of the study that is done, or a condition that one of them meets, such as arch.depth == "
         "12; of those of tiny with that task, none does"),
        (["recover.teacher='arch.depth > 1'"], "with that task, 2 do: "),
        (["recover.teacher='arch.colour == 1'"], "recover.teacher=arch.colour == 1 is not valid: must be a valid cond"),
        (["recover.teacher=nobody"], "recover.teacher=nobody is not valid: must be"),
    ],
)  # fmt: skip
def test_a_teacher_that_is_not_there(config: Compose, other: CellFolder, keys: list[str], line: str) -> None:
    with pytest.raises(UserError, match=re.escape(line)) as error:
        make_cells("compress", [config(*DISTILL, *keys)])
    assert "\n" not in str(error.value)


def test_a_teacher_of_another_task_or_vocabulary_is_refused(
    tmp_path: Path, compose: Compose, config: Compose, parent: CellFolder, tiny: Callable[..., Any], run_here: Run
) -> None:
    table = table_of(tmp_path / "rows.jsonl")
    classifier, vocabulary, shorter = (
        run_here("train", [one])[0]
        for one in (
            compose("train", *finetuning(parent.id, table, "impl.device=cpu", *EXACT)),
            tiny("data.vocab_size=290", "budget=4 steps"),
            tiny("data.sequence_length=8", "budget=4 steps"),
        )
    )
    for teacher, what in ((classifier, "task"), (vocabulary, "vocabulary"), (shorter, "length of rows, or a longer")):
        line = f"recover.teacher={teacher.id} is not valid: must be parent, or a train cell with the same {what}"
        with pytest.raises(UserError, match=re.escape(line)):
            make_cells("compress", [config(*DISTILL, f"recover.teacher={teacher.id}")])


@pytest.mark.parametrize(
    ("keys", "line"),
    [
        (["recover.layer_map=[1,4,5,6]"], "recover.layer_map=[1, 4, 5, 6] is not valid: must be made of student"),
        (["structure=layers", "structure.keep=0.5", "recover.layer_map=[1,2,3,3]"], "must be a list of 2 numbers, one"),
        (["recover.teacher='arch.width == 32'"], "recover.attention_weight=1.0 is not valid: must be 0 where a "),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_known_before_it_runs(
    config: Compose, other: CellFolder, study: Study, keys: list[str], line: str
) -> None:
    looked_at(study, make_cells("compress", [config(*DISTILL, *keys)]), line)


def test_a_teacher_whose_weights_are_gone_is_refused(config: Compose, other: CellFolder, study: Study) -> None:
    keys = (f"recover.teacher={other.id}", "recover.attention_weight=0")
    cells = make_cells("compress", [config(*DISTILL, *keys)])
    (other.checkpoint / "model.safetensors").unlink()
    looked_at(study, cells, f"recover.teacher={other.id} is not valid: must be a train cell whose weights are still")


def looked_at(study: Study, cells: list[Cell], line: str) -> None:
    """What a plan says of cells before they run."""
    causes = Causes(len(cells))
    stage_named("compress").look(study, cells, causes, {})
    with pytest.raises(UserError, match=re.escape(line)):
        causes.raise_any()
