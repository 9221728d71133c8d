"""Rows labelled by their first token or by the mean of all of them: ``task.pooling``."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from torch.nn.functional import cross_entropy
from torch.utils.flop_counter import FlopCounterMode

from trainlarge.cli import main
from trainlarge.models.build import load_model
from trainlarge.models.family import Head
from trainlarge.models.forward import library_row_logits, row_logits
from trainlarge.sweep.store import Study

COMMAND = (
    *("train", "-m", "study=tiny", "task=classification", "data=text", "data.files=[train.jsonl]"),
    "data.validation_files=[validation.jsonl]",
    *("data.vocab_size=280", "data.sequence_length=16", "optim.batch=64", "schedule.warmup_steps=1"),
    *("arch.width=16", "arch.depth=1", "impl.device=cpu", "launcher=inline", "tracking=none", "budget=3 steps"),
)


@pytest.fixture
def rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name, start in (("train", 0), ("validation", 80)):
        lines = [
            {"text": f"row {place} is {'very ' * (place % 5)}good", "label": place % 2}
            for place in range(start, start + 80)
        ]
        Path(f"{name}.jsonl").write_text("\n".join(map(json.dumps, lines)))


@pytest.mark.usefixtures("rows", "inline")
def test_each_pooling_is_a_cell_of_its_own_and_the_library_reads_it_from_the_folder(study: Study) -> None:
    assert main([*COMMAND, "task.pooling=null,first,mean"]) == 0
    folders = {folder.cell().as_train.task.row_pooling: folder for folder in study.folders("train")}
    assert set(folders) == {None, "first", "mean"}
    models = {name: load_model(folder.checkpoint, head=Head.SEQUENCE_LABEL) for name, folder in folders.items()}
    assert {name: model.config.classifier_pooling for name, model in models.items()} == {
        **{None: "cls", "first": "cls", "mean": "mean"}
    }
    state = {name: model.state_dict() for name, model in models.items()}
    same = [torch.equal(state[None][key], state["first"][key]) for key in state[None]]
    assert all(same), "null is the first token"
    assert not all(torch.equal(state[None][key], state["mean"][key]) for key in state[None])
    records = {name: folder.record_data() for name, folder in folders.items()}
    assert records["first"]["executed_flops"] < records["first"]["flops"]
    assert records["mean"]["executed_flops"] == records["mean"]["flops"] == records["first"]["flops"]
    inputs, mask = torch.tensor([[1, 40, 41, 2], [1, 42, 2, 0]]), torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0]])
    with torch.no_grad():
        mean = [forward(models["mean"], inputs, mask) for forward in (row_logits, library_row_logits)]
    torch.testing.assert_close(*mean)


@pytest.mark.usefixtures("rows", "inline")
def test_executed_flops_of_a_folder_that_pools_by_itself_are_those_of_its_steps(study: Study) -> None:
    assert main([*COMMAND, "task.pooling=mean"]) == 0
    [first] = study.folders("train")
    shutil.copytree(first.checkpoint, "folder")
    assert main([*COMMAND, "checkpoint=folder"]) == 0
    [tuned] = [folder for folder in study.folders("train") if folder.id != first.id]
    # The counter does not know the fused attention of CPUs.
    model = load_model(tuned.checkpoint, attention="eager", head=Head.SEQUENCE_LABEL)
    assert tuned.cell().as_train.task.row_pooling is None and model.config.classifier_pooling == "mean"
    inputs, labels = torch.randint(5, 280, (4, 16)), torch.tensor([0, 1, 0, 1])
    with FlopCounterMode(display=False) as counter:
        cross_entropy(row_logits(model.train(), inputs, torch.ones_like(inputs)), labels).backward()
    assert tuned.record_data()["executed_flops"] == 3 * counter.get_total_flops()


@pytest.mark.usefixtures("rows", "inline")
@pytest.mark.parametrize("arch", ["roberta", "llama", "bert"])
def test_an_architecture_without_the_choice_refuses_it(arch: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*COMMAND, f"arch={arch}", "task.pooling=mean"]) == 2
    expected = f"task.pooling=mean is not valid: must be null: rows are labelled in one way with arch.name={arch}"
    assert expected in capsys.readouterr().err


@pytest.mark.usefixtures("rows", "inline")
def test_another_word_is_refused_with_those_that_are_allowed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*COMMAND, "task.pooling=max"]) == 2
    assert "error: task.pooling=max is not valid: must be" in capsys.readouterr().err
