from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

import chained
import made
from trainlarge.commands.ahead import Ahead
from trainlarge.config.plain import to_plain
from trainlarge.config.schema import TrainConfig
from trainlarge.errors import UserError
from trainlarge.launch.check import launcher_for
from trainlarge.sweep.expand import read_config
from trainlarge.sweep.plan import look_ahead, make_cells, make_plan
from trainlarge.sweep.planned import NOTHING_PLANNED
from trainlarge.sweep.status import State, Status
from trainlarge.sweep.store import Study

Tiny = Callable[..., TrainConfig]


def test_looking_ahead_gives_the_plan_and_writes_nothing(tiny: Tiny, study: Study) -> None:
    cells = make_cells(
        "train", [tiny(f"seed={seed}", f"budget={steps} steps") for seed in (0, 1) for steps in (20, 40)]
    )
    ahead = look_ahead(study, "train", cells)
    assert not study.path.exists() and len(ahead.jobs) == 2
    assert make_plan(study, "train", cells) == ahead
    first = study.folder("train", cells[0].id)
    first.write_record_data(made.bare_record(first.id))
    first.write_status(Status(State.DONE))
    assert look_ahead(study, "train", cells).done == 1 and look_ahead(study, "train", cells, redo=True).done == 0


def test_redo_also_runs_cells_that_never_ran(tiny: Tiny, study: Study) -> None:
    cells = make_cells("train", [tiny()])
    assert make_plan(study, "train", cells, redo=True) == make_plan(study, "train", cells)
    assert study.folder("train", cells[0].id).status().state is State.QUEUED


def test_the_sweep_is_no_part_of_its_cells(tiny: Tiny, study: Study) -> None:
    composed = {**to_plain(tiny()), "sweep": {"blocks": [{"seed": list(range(1000))}]}}
    [cell] = make_cells("train", [tiny(), read_config("train", composed)])
    assert "sweep" not in to_plain(cell.config)


def test_an_axis_that_is_no_identity_is_refused_and_one_cell_asked_for_twice_is_one(tiny: Tiny, study: Study) -> None:
    assert (
        len(make_cells("train", [tiny("impl.threads=1"), tiny("seed=1", "impl.threads=2"), tiny("impl.threads=1")]))
        == 2
    )
    with pytest.raises(UserError, match=r"impl\.threads=1,2 is not valid: must be one value per cell"):
        make_cells("train", [tiny("impl.threads=1"), tiny("seed=1", "impl.threads=2"), tiny("impl.threads=2")])


def test_what_was_made_of_a_checkpoint_that_is_trained_on_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = Study(tmp_path / "studies" / "chain")
    pretrained, other = (made.make_train_cell(study, (64, 1), 7.5, seed) for seed in (0, 1))
    tuned, of_other = (chained.finetune(study, parent, chained.Finetuned()) for parent in (pretrained, other))
    compressed, untouched = (made.make_compress_cell(study, parent, 0.5, 4) for parent in (tuned, of_other))
    monkeypatch.setattr("trainlarge.sweep.plan.budgets_missed", lambda _study: {pretrained.id: 2.0})
    make_plan(study, "train", [pretrained.cell()])
    assert not any(folder.is_done() for folder in (pretrained, tuned, compressed))
    assert all(folder.is_done() for folder in (other, of_other, untouched))


def test_a_look_ahead_counts_what_was_made_of_a_checkpoint_that_is_trained_on_as_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = Study(tmp_path / "studies" / "chain")
    pretrained, other = (made.make_train_cell(study, (64, 1), 7.5, seed) for seed in (0, 1))
    tuned, of_other = (chained.finetune(study, parent, chained.Finetuned()) for parent in (pretrained, other))
    compressed, untouched = (made.make_compress_cell(study, parent, 0.5, 4) for parent in (tuned, of_other))
    sweeps = (("train", (pretrained, other)), ("train", (tuned, of_other)), ("compress", (compressed, untouched)))
    for missed, left in (({}, [[], [], []]), ({pretrained.id: 2.0}, [[pretrained.id], [tuned.id], [compressed.id]])):
        monkeypatch.setattr("trainlarge.sweep.plan.budgets_missed", lambda _study, missed=missed: missed)
        planned, found = NOTHING_PLANNED, []
        for stage, folders in sweeps:
            plan = look_ahead(study, stage, [folder.cell() for folder in folders], planned=planned)
            found.append([cell_id for job in plan.jobs for cell_id in job.cell_ids])
            first = plan.cells[0].config
            planned = Ahead(study, plan, launcher_for([first]), first, planned).planned_after({})
        assert found == left
    assert all(folder.is_done() for _, folders in sweeps for folder in folders), "a look ahead writes nothing"
