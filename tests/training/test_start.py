"""Train cells that start from a checkpoint: of a train cell, or in a Hugging Face folder."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from trainlarge.config.schema import StageConfig, TrainConfig
from trainlarge.models.build import build_model
from trainlarge.models.family import Head
from trainlarge.models.shape import shape_of
from trainlarge.sweep.store import CellFolder, Study
from trainlarge.training.cells import STAGE
from trainlarge.training.context import TrainContext

Tiny = Callable[..., TrainConfig]
Compose = Callable[..., StageConfig]
Run = Callable[[str, Sequence[StageConfig]], list[CellFolder]]
MLM = {"modern": "mlm", "roberta": "mlm", "llama": "causal_lm"}


def table_of(path: Path, labels: Sequence[str] = ("bad", "good"), rows: int = 600) -> Path:
    """Labelled rows of the words of the tiny text, whose label is in one of them."""
    draw = random.Random(0)
    lines = []
    for _ in range(rows):
        label = draw.choice(labels)
        words = draw.choices(["the", "a", "model", "was", "small", "large"], k=draw.randint(2, 8))
        lines.append(json.dumps({"text": " ".join([*words, label]), "label": label}))
    path.write_text("\n".join(lines))
    return path


@pytest.fixture
def table(tmp_path: Path) -> Path:
    return table_of(tmp_path / "rows.jsonl")


def finetuning(checkpoint: str | Path, table: Path, *more: str) -> list[str]:
    """Overrides of a finetuning; the shape and the vocabulary are those of the checkpoint."""
    common = ["study=tiny", "tracking=none", "task=classification", "task.evaluation_rows=64", "data=text"]
    data = [f"data.files=[{table}]", "data.sequence_length=16", "optim.batch=256", "schedule.warmup_steps=4"]
    return [*common, *data, f"checkpoint={checkpoint}", "optim.lr=1e-2", "budget=10 steps", *more]


@pytest.mark.parametrize("arch", MLM)
def test_weights_are_those_of_the_checkpoint_and_a_new_head_that_of_the_seed(
    tiny: Tiny, compose: Compose, run_here: Run, study: Study, table: Path, arch: str
) -> None:
    [parent] = run_here("train", [tiny(f"arch={arch}", f"task={MLM[arch]}", "arch.dropout=0.1", "seed=3")])
    config = STAGE.resolve(compose("train", *finetuning(parent.id, table)))
    assert config.arch == parent.cell().as_train.arch and config.data.vocab_size == 300
    model = TrainContext(study, config).loop.module.model
    trained = load_file(parent.checkpoint / "model.safetensors")
    prefix = f"{model.base_model_prefix}."
    tensors = model.state_dict()
    body = [name for name in tensors if name.startswith(prefix)]
    assert body and all(torch.equal(tensors[name], trained[name]) for name in body)
    assert {name for name in trained if name.startswith(prefix)} == {*body}, "all of the body is taken"
    shape, head = shape_of(config), Head.SEQUENCE_LABEL
    new = build_model(shape, init_std=config.arch.initial_std, seed=0, attention="eager", head=head).state_dict()
    own = [name for name in tensors if name not in body]
    assert own and all(torch.equal(tensors[name], trained.get(name, new[name])) for name in own)


def test_the_same_head_is_kept(
    tiny: Tiny, compose: Compose, run_here: Run, study: Study, table: Path, tmp_path: Path
) -> None:
    [parent] = run_here("train", [tiny()])
    [child] = run_here("train", [STAGE.resolve(compose("train", *finetuning(parent.id, table)))])
    trained = load_file(child.checkpoint / "model.safetensors")
    again = STAGE.resolve(compose("train", *finetuning(child.id, table)))
    model = TrainContext(study, again).loop.module.model.state_dict()
    assert all(torch.equal(model[name], tensor) for name, tensor in trained.items())
    three = table_of(tmp_path / "three.jsonl", ("bad", "good", "odd"))
    other = STAGE.resolve(compose("train", *finetuning(child.id, three, "task.labels=3")))
    model = TrainContext(study, other).loop.module.model.state_dict()
    assert model["classifier.weight"].shape == (3, 16) and torch.equal(
        model["head.dense.weight"], trained["head.dense.weight"]
    )
    # Pretraining that goes on has the whole model, and masks as before.
    further = STAGE.resolve(tiny(f"checkpoint={parent.id}"))
    context = TrainContext(study, further)
    weights = load_file(parent.checkpoint / "model.safetensors")
    assert all(torch.equal(context.loop.module.model.state_dict()[name], weights[name]) for name in weights)
    assert context.evaluation_set.fingerprint == parent.train_record().data.evaluation_fingerprint
