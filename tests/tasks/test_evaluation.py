"""What an evaluation gives does not depend on how its rows are grouped."""

from __future__ import annotations

import pytest
import torch

from trainlarge.config.arch import ArchConfig
from trainlarge.config.data import DataConfig
from trainlarge.config.task import MaskedLMConfig
from trainlarge.models.build import build_model
from trainlarge.models.forward import FORWARDS
from trainlarge.models.shape import Shape
from trainlarge.tasks import evaluation
from trainlarge.tasks.evaluation import EvaluationSet, batch_rows
from trainlarge.tasks.masked_lm import MaskedLM


@pytest.mark.parametrize("name", ["modern", "roberta"])
def test_losses_are_the_same_whatever_the_grouping_of_rows(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    arch = {"name": name, "width": 32, "depth": 2, "heads": 2, "ffn_ratio": 2.0, "positions": 40}
    model = build_model(Shape.from_config(ArchConfig(**arch), 101), init_std=0.2, seed=0, attention="eager")
    draw = torch.Generator().manual_seed(0)
    inputs = torch.randint(5, 101, (13, 32), generator=draw)
    positions = torch.rand((13, 32), generator=draw).argsort(1)[:, :5].sort(1).values
    batch = {"input_ids": inputs, "predicted": positions, "labels": inputs.gather(1, positions)}
    data, task = EvaluationSet(batch, fingerprint=""), MaskedLM(MaskedLMConfig(), DataConfig(), FORWARDS["fast"])
    found = []
    for tokens in (1, 64, 96, 10**6):
        monkeypatch.setitem(evaluation.BATCH_TOKENS, "cpu", tokens)
        found.append(task.evaluate(model, data))
    for other in found[1:]:
        torch.testing.assert_close(other.row_losses, found[0].row_losses, rtol=1e-5, atol=1e-6)
        assert (
            other.loss == pytest.approx(found[0].loss, rel=1e-6)
            and other.metrics["accuracy"] == found[0].metrics["accuracy"]
        )


@pytest.mark.parametrize(("width", "tokens"), [(64, 2048), (384, 2048), (768, 1024), (1024, 768)])
def test_wide_models_take_fewer_tokens(width: int, tokens: int) -> None:
    arch = {"name": "modern", "width": width, "depth": 1, "heads": width // 64, "ffn_ratio": 0.25, "positions": 64}
    model = build_model(Shape.from_config(ArchConfig(**arch), 101), init_std=0.02, seed=0, attention="eager")
    assert batch_rows(model, 64) == tokens // 64
    assert batch_rows(model, 4096) == 1
