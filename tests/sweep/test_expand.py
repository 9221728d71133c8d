"""The checkpoints that ``checkpoint=every`` stands for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import made
from trainlarge.config.schema import TrainConfig
from trainlarge.errors import UserError
from trainlarge.sweep.expand import finished_checkpoints
from trainlarge.sweep.plan import make_cells, make_plan
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


def every(where: str | None) -> dict[str, Any]:
    return {"study": "tiny", "checkpoint": "every", "sweep": {"where": where}}


def test_an_error_tells_diverged_cells_from_those_that_do_not_meet_the_condition(tiny: Tiny, study: Study) -> None:
    diverged = finish(study, tiny("seed=1"), diverged=True)
    with pytest.raises(UserError, match=rf"has 1, 1 diverged \({diverged}\)$"):
        finished_checkpoints(every(None))
    good = finish(study, tiny("seed=2"), diverged=False)
    assert finished_checkpoints(every(None)) == [good]
    with pytest.raises(UserError, match=r"has 2, 1 diverged .*, 1 do not meet sweep.where: seed == 3$"):
        finished_checkpoints(every("seed == 3"))
