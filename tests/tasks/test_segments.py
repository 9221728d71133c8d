"""Pairs of texts have two segments where the model knows two, and cells from before have one."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from labelled_tables import finetuning
from trainlarge.config.plain import from_plain, to_plain
from trainlarge.config.schema import StageConfig, TrainConfig
from trainlarge.errors import UserError
from trainlarge.sweep.cell import Cell
from trainlarge.sweep.store import CellFolder, Study
from trainlarge.training.cells import STAGE
from trainlarge.training.context import TrainContext

Compose = Callable[..., StageConfig]
Tiny = Callable[..., TrainConfig]
Run = Callable[[str, Sequence[StageConfig]], list[CellFolder]]
PAIRS = "task.second_text_column=other"
TYPES = "bert.embeddings.token_type_embeddings.weight"


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Pairs of texts whose label is which of them has the word "large"."""
    draw, lines = random.Random(0), []
    for _ in range(400):
        label = draw.randint(0, 1)
        texts = [" ".join(draw.choices(["the", "a", "model", "was"], k=4)) for _ in range(2)]
        texts[label] += " large"
        lines.append(json.dumps({"text": texts[0], "other": texts[1], "label": label}))
    path = tmp_path / "pairs.jsonl"
    path.write_text("\n".join(lines))
    return path


def scratch(table: Path, *more: str) -> list[str]:
    """Overrides of training from initial weights on the pairs."""
    given = finetuning("x", table, PAIRS, "data.vocab_size=270", "arch.width=16", "arch.depth=1", *more)
    return [text for text in given if not text.startswith("checkpoint=")]


def task_of(config: TrainConfig) -> dict[str, object]:
    return dict(config.task.plain)


def test_pairs_have_as_many_segments_as_the_model_knows(compose: Compose, table: Path) -> None:
    def resolved(*more: str) -> TrainConfig:
        return STAGE.resolve(compose("train", *scratch(table, *more)))

    bert, modern = resolved("arch=bert"), resolved()
    assert task_of(bert)["segments"] == 2 and task_of(modern)["segments"] == 1
    assert task_of(resolved("arch=bert", "task.second_text_column=null"))["segments"] == 1
    assert STAGE.resolve(bert) == bert
    before = to_plain(resolved("arch=bert", "task.segments=1"))
    del before["task"]["segments"]  # type: ignore[union-attr, arg-type, call-overload]
    old = from_plain(TrainConfig, before)
    assert task_of(old)["segments"] == 1, "a file from before the key"
    assert Cell("train", old).id == Cell("train", resolved("arch=bert", "task.segments=1")).id
    assert Cell("train", old).id != Cell("train", bert).id
    assert "segments" not in modern.task.identity, "ids of other families stay"
    for more, why in (((), "for a model that knows one segment"), (("task.second_text_column=null",), "for a model")):
        with pytest.raises(UserError, match=rf"^task\.segments=2 is not valid: must be 1 or null {why}"):
            resolved("task.segments=2", *more)
    with pytest.raises(UserError, match=r"^task\.segments=2 is not valid: must be 1 or null without task\.second_text"):
        resolved("task.segments=2", "arch=bert", "task.second_text_column=null")
    with pytest.raises(UserError, match=r"^task\.segments=3 is not valid: must be 1, 2 or null$"):
        compose("train", *scratch(table, "task.segments=3"))


def test_the_second_segment_is_read_and_trained(compose: Compose, run_here: Run, study: Study, table: Path) -> None:
    contexts = {}
    for segments in (1, 2):
        config = STAGE.resolve(compose("train", *scratch(table, "arch=bert", f"task.segments={segments}")))
        contexts[segments] = TrainContext(study, config)
    one, two = (contexts[segments].task.batch(contexts[segments].prepared, 0, 3, 16) for segments in (1, 2))
    types = two.pop("token_type_ids")
    assert all(torch.equal(one[name], two[name]) for name in one) and types.any(1).all()
    prints = {context.evaluation_set.fingerprint for context in contexts.values()}
    assert len(prints) == 1, "models with and without segments compare"
    weights = load_file(folder_of(run_here, contexts[2].config) / "model.safetensors")
    new = contexts[2].first_model().state_dict()[TYPES]
    assert not torch.equal(weights[TYPES][1], new[1]), "trained"
    plain, model = (contexts[segments].loop.module.model.train(False) for segments in (1, 2))
    with torch.no_grad():
        rows = {name: tensor[:4] for name, tensor in contexts[2].evaluation_set.batch.items()}
        losses = [contexts[2].task.loss(model, rows)[0].item()]
        model.get_parameter(TYPES)[1] += torch.arange(16)
        losses.append(contexts[2].task.loss(model, rows)[0].item())
        rows.pop("token_type_ids")
        before = contexts[1].task.loss(plain, rows)[0].item()
        assert losses[0] != losses[1] and contexts[2].task.loss(model, rows)[0].item() == pytest.approx(before)


def folder_of(run_here: Run, config: StageConfig) -> Path:
    """The checkpoint of a cell that is run here."""
    [folder] = run_here("train", [config])
    return folder.checkpoint


@pytest.mark.parametrize("batches", ["padded", "bucketed"])
def test_a_folder_is_evaluated_by_its_segments_too(
    compose: Compose, run_here: Run, table: Path, tmp_path: Path, batches: str
) -> None:
    more = (f"task.batches={batches}", "impl.precision=fp32")
    [cell] = run_here("train", [compose("train", *scratch(table, "arch=bert", "budget=10 steps", *more))])
    folder = cell.checkpoint.rename(tmp_path / "folder")
    rows = ("task=classification", PAIRS, "task.evaluation_rows=64", "data=text", f"data.files=[{table}]")
    given = ("data.sequence_length=16", f"task.batches={batches}", "study=tiny", "tracking=none", "impl.device=cpu")
    config = compose("compress", f"checkpoint={folder}", *rows, *given)
    [compressed] = run_here("compress", [config])
    frozen = compressed.cell().as_compress.task
    assert frozen is not None and frozen.plain["segments"] == 2
    expected = cell.train_record().scores["loss"]
    assert compressed.compress_record().dense_loss == pytest.approx(expected, abs=1e-5)
    old = replace(config, task=replace(frozen, segments=1))  # type: ignore[call-arg]
    [without] = run_here("compress", [old])
    assert without.id != compressed.id and without.compress_record().dense_loss != pytest.approx(expected, abs=1e-5)
