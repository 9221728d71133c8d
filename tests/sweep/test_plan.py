from __future__ import annotations

from collections.abc import Callable
from typing import Any

from trainlarge.sweep.plan import look_ahead, make_cells, make_plan
from trainlarge.sweep.status import State, Status
from trainlarge.sweep.store import Study

Tiny = Callable[..., dict[str, Any]]


def test_looking_ahead_gives_the_plan_and_writes_nothing(tiny: Tiny, study: Study) -> None:
    cells = make_cells(
        "train", [tiny(f"seed={seed}", f"budget={steps} steps") for seed in (0, 1) for steps in (20, 40)]
    )
    ahead = look_ahead(study, "train", cells)
    assert not study.path.exists() and len(ahead.jobs) == 2
    assert make_plan(study, "train", cells) == ahead
    first = study.folder("train", cells[0].id)
    first.write_record({"cell": first.id})
    first.write_status(Status(State.DONE))
    assert look_ahead(study, "train", cells).done == 1 and look_ahead(study, "train", cells, redo=True).done == 0


def test_the_sweep_is_no_part_of_its_cells(tiny: Tiny, study: Study) -> None:
    config = tiny()
    [cell] = make_cells("train", [config, {**config, "sweep": {"blocks": [{"seed": list(range(1000))}]}}])
    assert "sweep" not in cell.config
