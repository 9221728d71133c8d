"""What a task cannot use is refused before anything starts, in one line that names the key."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from trainlarge.config.schema import TrainConfig
from trainlarge.errors import UserError
from trainlarge.sweep.store import CellFolder
from trainlarge.training.cells import STAGE

Tiny = Callable[..., TrainConfig]
Run = Callable[[str, list[TrainConfig]], list[CellFolder]]
LABELS = "task=classification"


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["task=causal_lm"],
            "^arch.name=modern is not valid: .*a family with the head causal_lm; this one has masked_lm",
        ),
        (["arch=llama"], "^arch.name=llama is not valid: .*a family with the head masked_lm; this one has causal_lm"),
        ([LABELS, "task.labels=1"], "^task.labels=1 is not valid: "),
        ([LABELS, "data=stdlib"], "^data=stdlib is not valid: .*files with a column of labels"),
        (
            [LABELS, "data.files=[]", "data.hub=some/set"],
            "^data.hub=some/set is not valid: .*null with task=classification",
        ),
        (
            [LABELS, "task.second_text_column=b", "data.sequence_length=4"],
            "^data.sequence_length=4 is not valid: .*at least 5",
        ),
        (
            [LABELS, "arch=bert", "impl.forward=fast"],
            "^impl.forward=fast is not valid: .*arch.name=bert has no fast forward pass for this task",
        ),
        (["task=causal_lm", "arch=llama", "task.evaluation_rows=0"], "^task.evaluation_rows=0 is not valid: "),
    ],
    ids=str,
)
def test_before_a_cell_is_frozen(tiny: Tiny, overrides: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        STAGE.resolve(tiny(*overrides))
    assert "\n" not in str(error.value)


def test_another_number_of_labels_than_the_table_has(tiny: Tiny, run_here: Run, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    rows = [{"text": f"row {number}", "label": "abc"[number % 3]} for number in range(200)]
    path.write_text("\n".join(map(json.dumps, rows)))
    with pytest.raises(
        UserError, match=r"^task\.labels=2 is not valid: .*3, the different labels in column label: a, b, c"
    ):
        run_here("train", [tiny(LABELS, f"data.files=[{path}]", "data.vocab_size=262")])
