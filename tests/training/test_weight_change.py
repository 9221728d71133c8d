"""A cell that starts from a checkpoint says how far it moved each matrix."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from safetensors.torch import load_file

from trainlarge.config.schema import StageConfig, TrainConfig
from trainlarge.models.weight_error import WeightError, total_relative_squared_error
from trainlarge.results.frames import load_study
from trainlarge.results.weight_changes import by_module
from trainlarge.sweep.store import CellFolder, Study
from trainlarge.training.cells import STAGE

Run = Callable[[str, Sequence[StageConfig]], list[CellFolder]]


def test_the_change_is_that_between_both_checkpoints(
    tiny: Callable[..., TrainConfig], compose: Callable[..., StageConfig], run_here: Run, study: Study, tmp_path: Path
) -> None:
    words = ("bad", "good") * 300
    rows = [{"text": f"the model number {place} was {word}", "label": word} for place, word in enumerate(words)]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    [parent] = run_here("train", [tiny()])
    assert not parent.weight_errors.exists() and parent.train_record().weight_change is None
    task = ["study=tiny", "tracking=none", "task=classification", "task.evaluation_rows=16", "data=text"]
    data = [f"data.files=[{tmp_path / 'rows.jsonl'}]", "data.sequence_length=16", "optim.batch=256", "optim.lr=1e-2"]
    config = compose("train", *task, *data, f"checkpoint={parent.id}", "schedule.warmup_steps=4", "budget=10 steps")
    [child] = run_here("train", [STAGE.resolve(config)])

    before, after = (load_file(cell.checkpoint / "model.safetensors") for cell in (parent, child))
    body = [name for name in after if name.startswith("model.") and after[name].ndim == 2]
    told = json.loads(child.weight_errors.read_text())
    expected = {name: WeightError.between(before[name], after[name]) for name in body}
    for name, error in expected.items():
        assert told[name]["mean_absolute_change"] == pytest.approx(error.mean_absolute_change) and error.weights
        assert error.mean_absolute_change > 0
    assert {"classifier.weight"} <= {*told} - {*body}, "the head is there too, moved from its initial values"
    total = total_relative_squared_error(expected.values())
    assert child.train_record().weight_change == pytest.approx(total)

    frames = load_study(study)
    assert frames.cells.set_index("cell")["weight_change"].dropna().to_dict() == {child.id: pytest.approx(total)}
    modules = by_module(frames.weights.of("train", [parent.id, child.id]))
    assert set(modules["cell"]) == {child.id}
    assert {"attention in", "attention out", "feed-forward in", "feed-forward out"} <= set(modules["module"])
    child.weight_errors.write_text("{}")
    with pytest.warns(UserWarning, match=r"weight_errors\.json"):
        assert frames.weights.of("train", [child.id]).empty
