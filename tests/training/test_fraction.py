"""A part of the training data: the same evaluation, fewer blocks, and the gap that they leave."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from trainlarge.config.schema import TrainConfig
from trainlarge.errors import UserError
from trainlarge.results.frames import load_study
from trainlarge.sweep.store import CellFolder, Study

Tiny = Callable[..., TrainConfig]
Run = Callable[[str, list[dict[str, Any]]], list[CellFolder]]
FIT = ("impl.threads=1", "budget=400 steps", "arch.width=64", "optim.lr=6e-3", "task.evaluation_rows=1000")


@pytest.mark.long
def test_few_data_are_learnt_by_heart_and_the_gap_says_so(tiny: Tiny, run_here: Run, study: Study) -> None:
    whole, part = run_here("train", [tiny(*FIT, f"data.fraction={fraction}") for fraction in (1.0, 0.0012)])
    cells = load_study(study).cells.set_index("cell")
    assert cells["evaluation_fingerprint"].nunique() == 1, "the validation set is that of the whole"
    assert cells.loc[part.id, "train_validation_gap"] < cells.loc[whole.id, "train_validation_gap"] - 1
    assert cells.loc[part.id, "loss"] > cells.loc[whole.id, "loss"]
    data = [folder.record_data()["data"] for folder in (whole, part)]
    assert data[1]["train_tokens"] == 16 * round(0.0012 * data[0]["train_tokens"] / 16)
    assert data[1]["epochs"] * data[1]["train_tokens"] == pytest.approx(400 * 256)


def test_less_than_a_batch_is_refused_in_one_line(tiny: Tiny, run_here: Run) -> None:
    with pytest.raises(
        UserError, match=r"^data.fraction=0.01 is not valid: must be at least 0\.\d+: a batch has 1024 rows"
    ) as error:
        run_here("train", [tiny("data.fraction=0.01", "optim.batch=16384")])
    assert "\n" not in str(error.value)
