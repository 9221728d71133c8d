"""The checkpoints that ``checkpoint=every`` stands for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import made
from trainlarge.config.plain import to_plain
from trainlarge.config.schema import TrainConfig
from trainlarge.config.sweep import SweepConfig
from trainlarge.errors import UserError
from trainlarge.sweep.cell import Cell
from trainlarge.sweep.every import every_checkpoint
from trainlarge.sweep.plan import make_cells, make_plan
from trainlarge.sweep.planned import PlannedCell
from trainlarge.sweep.status import State, Status
from trainlarge.sweep.store import Study

Tiny = Callable[..., TrainConfig]


def finish(study: Study, config: dict[str, Any], diverged: bool) -> str:
    [cell] = make_cells("train", [config])
    make_plan(study, "train", [cell])
    folder = study.folder("train", cell.id)
    folder.write_record_data(made.bare_record(cell.id, diverged=diverged))
    folder.write_status(Status(State.DONE))
    return cell.id


def test_an_error_tells_diverged_cells_from_those_that_do_not_meet_the_condition(tiny: Tiny, study: Study) -> None:
    diverged = finish(study, tiny("seed=1"), diverged=True)
    with pytest.raises(UserError, match=rf"has 1, 1 diverged \({diverged}\)$"):
        every_checkpoint("compress", study, SweepConfig())
    good = finish(study, tiny("seed=2"), diverged=False)
    assert every_checkpoint("compress", study, SweepConfig()) == [good]
    with pytest.raises(UserError, match=r"has 2, 1 diverged .*, 1 do not meet sweep.where: seed == 3$"):
        every_checkpoint("compress", study, SweepConfig(where="seed == 3"))


def scored(study: Study, config: TrainConfig, accuracy: float | None, **more: float) -> str:
    """A finished train cell with scores on the part that is held out to choose by."""
    [cell] = make_cells("train", [config])
    make_plan(study, "train", [cell])
    selection = {} if accuracy is None else {"selection": {"loss": 1.0, "accuracy": accuracy, **more}}
    folder = study.folder("train", cell.id)
    folder.write_record_data({**made.bare_record(cell.id, **selection), "config": to_plain(cell.config)})
    folder.write_status(Status(State.DONE))
    return cell.id


@pytest.fixture
def labelled(tiny: Tiny, tmp_path: Path) -> Tiny:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(f'{{"text": "row {number}", "label": {number % 2}}}\n' for number in range(40)))
    return lambda *more: tiny("task=classification", f"data.files=[{path}]", *more)


BEST = SweepConfig(best_of=("optim.lr", "budget"))


def test_of_each_group_the_best_score_stays(labelled: Tiny, study: Study) -> None:
    scores = {("1e-3", 10): 0.7, ("1e-3", 20): 0.9, ("2e-3", 10): 0.8, ("2e-3", 20): 0.9}
    loss = {("2e-3", 20): 0.5}
    cells = {
        (seed, *at): scored(
            study,
            labelled(f"seed={seed}", f"optim.lr={at[0]}", f"budget={at[1]} steps"),
            score - 0.1 * seed,
            loss=loss.get(at, 1.0),
        )
        for seed in (0, 1)
        for at, score in scores.items()
    }
    expected = sorted(cells[seed, "2e-3", 20] for seed in (0, 1))
    assert every_checkpoint("compress", study, BEST) == expected, "the smaller loss where scores are equal"
    with_seeds = SweepConfig(best_of=(*BEST.best_of, "seed"))
    assert every_checkpoint("compress", study, with_seeds) == [cells[0, "2e-3", 20]]
    by_rate = SweepConfig(best_of=("optim.lr",), where="seed == 0")
    assert every_checkpoint("compress", study, by_rate) == sorted(cells[0, "2e-3", steps] for steps in (10, 20))


def test_of_cells_that_are_to_be_trained_the_first_of_a_group_stands_for_it(labelled: Tiny, study: Study) -> None:
    rates = ("1e-3", "2e-3", "3e-3")
    cells = make_cells("train", [labelled(f"optim.lr={rate}", f"seed={seed}") for seed in (0, 1) for rate in rates])
    planned = {cell.id: PlannedCell(cell.as_train, 40) for cell in cells}
    assert every_checkpoint("compress", study, BEST, planned) == sorted((cells[0].id, cells[3].id))


def test_a_choice_without_scores_or_by_no_key_is_refused(labelled: Tiny, study: Study) -> None:
    cell = scored(study, labelled(), None)
    line = rf"^sweep\.best_of=\[optim\.lr, budget\] is not valid: .*selection_share.*{cell}$"
    with pytest.raises(UserError, match=line):
        every_checkpoint("compress", study, BEST)
    with pytest.raises(UserError, match=r"^sweep\.best_of=optim\.rate is not valid: must be made of keys"):
        every_checkpoint("compress", study, SweepConfig(best_of=("optim.rate",)))


def test_of_a_group_with_a_candidate_that_is_not_done_nothing_is_chosen(
    labelled: Tiny, study: Study, caplog: pytest.LogCaptureFixture
) -> None:
    best = scored(study, labelled("optim.lr=2e-3"), 0.8)
    scored(study, labelled("optim.lr=1e-3"), 0.7)
    alone = scored(study, labelled("seed=1"), 0.6)
    cells = make_cells("train", [labelled("optim.lr=3e-3"), labelled("optim.lr=4e-3")])
    make_plan(study, "train", cells)
    study.folder("train", cells[0].id).write_status(Status(State.FAILED, attempts=1, error="out of memory"))
    with caplog.at_level("WARNING", logger="trainlarge"):
        assert every_checkpoint("compress", study, BEST) == [alone]
    [line] = [record.getMessage() for record in caplog.records]
    assert line.startswith("left out: 1 of 2 groups of sweep.best_of, whose candidates are not all done: ")
    assert f"{cells[0].id} (failed)" in line and f"{cells[1].id} (queued)" in line and "sweep.where" in line
    less = SweepConfig(best_of=BEST.best_of, where="seed == 0 and optim.lr < 0.0025")
    assert every_checkpoint("compress", study, less) == [best], "the condition leaves them out"
    planned = {cell.id: PlannedCell(cell.as_train, 40) for cell in cells}
    assert set(every_checkpoint("compress", study, BEST, planned)) == {cells[0].id, alone}, "as they will be done"
    with pytest.raises(
        UserError, match=rf"^sweep\.best_of=.* when every candidate is done, .*{cells[0].id} \(failed\)"
    ):
        every_checkpoint("compress", study, SweepConfig(best_of=BEST.best_of, where="seed == 0"))


def test_a_candidate_whose_record_is_damaged_may_be_the_best(
    labelled: Tiny, study: Study, caplog: pytest.LogCaptureFixture
) -> None:
    damaged, _, alone = (
        scored(study, labelled(*more), 0.8) for more in (["optim.lr=2e-3"], ["optim.lr=1e-3"], ["seed=1"])
    )
    record = study.folder("train", damaged).path / "record.json"
    record.write_text(record.read_text().replace("0.8", "0.1"))
    with caplog.at_level("WARNING", logger="trainlarge"):
        assert every_checkpoint("compress", study, BEST) == [alone]
    assert f"{damaged} (damaged)" in caplog.text


def test_a_candidate_that_diverged_is_named_and_the_choice_is_made(
    labelled: Tiny, study: Study, caplog: pytest.LogCaptureFixture
) -> None:
    best = scored(study, labelled("optim.lr=1e-3"), 0.7)
    [cell] = make_cells("train", [labelled("optim.lr=2e-3")])
    make_plan(study, "train", [cell])
    folder = study.folder("train", cell.id)
    folder.write_record_data({**made.bare_record(cell.id, diverged=True), "config": to_plain(cell.config)})
    folder.write_status(Status(State.DONE))
    with caplog.at_level("WARNING", logger="trainlarge"):
        assert every_checkpoint("compress", study, BEST) == [best]
    assert [record.getMessage() for record in caplog.records] == [
        f"never chosen by sweep.best_of, since they diverged: {cell.id}"
    ]


def test_in_the_train_stage_every_stands_for_cells_from_initial_weights(tiny: Tiny, study: Study) -> None:
    [cell] = make_cells("train", [tiny()])
    child = replace(cell.as_train, checkpoint=cell.id)
    planned = {cell.id: PlannedCell(cell.as_train, 40), Cell("train", child).id: PlannedCell(child, 40)}
    assert every_checkpoint("train", study, SweepConfig(), planned) == [cell.id]
    assert every_checkpoint("compress", study, SweepConfig(), planned) == sorted(planned)
    only_child = {key: one for key, one in planned.items() if key != cell.id}
    with pytest.raises(UserError, match=r"finished train cells; .* has 0, 1 started from a checkpoint themselves$"):
        every_checkpoint("train", study, SweepConfig(), only_child)
