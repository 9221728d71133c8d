"""A batch is divided by the weights of its parts: masked LM keeps the bits of the plain mean over the batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from unittest.mock import patch

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from trainlarge.config.schema import TrainConfig
from trainlarge.data.blocks import Blocks, step_seed
from trainlarge.models.build import build_model
from trainlarge.models.forward import loss_at
from trainlarge.models.shape import shape_of
from trainlarge.sweep.store import Study
from trainlarge.tasks.masked_lm import mask_tokens
from trainlarge.training import context as training_context
from trainlarge.training import module as training_module
from trainlarge.training.cells import STAGE
from trainlarge.training.context import TrainContext
from trainlarge.training.module import Objective, TaskModule, make_optimizer

Tiny = Callable[..., TrainConfig]
COMMON = ("impl.precision=fp32", "impl.threads=1", "arch.dropout=0.1", "optim.batch=240", "task.mask_rate=0.2")
STEPS = 5


def weights_by_the_mean(config: dict[str, Any], context: TrainContext) -> tuple[dict[str, Tensor], list[Tensor]]:
    """Weights and losses of a plain loop over the mean loss of each micro-batch, weighted by its share of the rows."""
    arch, optim, size = config.arch, config.optim, config.impl.micro_batch_rows
    model = build_model(shape_of(config), init_std=arch.init_std, seed=config.seed, attention="eager")
    blocks = Blocks(context.prepared.train, config.data.sequence_length, config.seed)
    optimizer, prepared, losses = make_optimizer(model, optim), context.prepared, []
    for step in range(STEPS):
        ids = torch.from_numpy(blocks.batch(step, context.step.rows))
        masked = mask_tokens(
            ids, context.step.predictions, torch.Generator().manual_seed(step_seed(config.seed, step)),
            mask_id=prepared.mask_id, vocab_size=prepared.vocab_size, first_regular_id=prepared.first_regular_id,
        )  # fmt: skip
        torch.manual_seed(step_seed(config.seed, step) + 1)
        total = torch.zeros(())
        for part in zip(*(tensor.split(size) for tensor in masked.values()), strict=True):
            loss = loss_at(model, *part) * (len(part[0]) / len(ids))
            loss.backward()
            total += loss.detach()
        torch.nn.utils.clip_grad_norm_(model.parameters(), optim.clip)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        losses.append(total)
    return {name: tensor.detach() for name, tensor in model.state_dict().items()}, losses


@pytest.mark.parametrize("arch", ["modern", "roberta"])
@pytest.mark.parametrize("size", [15, 7], ids="micro-batches of {} rows".format)
def test_masked_lm_trains_to_the_bits_of_the_mean_loss(
    tiny: Tiny, study: Study, monkeypatch: pytest.MonkeyPatch, arch: str, size: int
) -> None:
    monkeypatch.setattr(training_context, "settle", lambda *arguments, **options: 0.01)
    positions = 16 if arch == "modern" else 17
    overrides = (f"arch={arch}", f"arch.positions={positions}", f"impl.micro_batch_rows={size}")
    config = STAGE.resolve(tiny(*COMMON, *overrides))
    context = TrainContext(study, config)
    seen: list[Tensor] = []
    context.loop.run(0, STEPS, lambda step: 1.0, lambda step, loss: seen.append(loss))
    expected, losses = weights_by_the_mean(config, context)
    own = context.loop.module.model.state_dict()
    assert all(torch.equal(own[name], tensor) for name, tensor in expected.items())
    assert torch.equal(torch.stack(seen), torch.stack(losses))


class Scores(nn.Module):
    """A model of two classes per token."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 2, dtype=torch.float64)
        self.dtype = torch.float64


def losses_of(model: Any, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Sum over the positions with a label, of which each row may have another number, and some none."""
    logits = model.layer(batch["inputs"]).flatten(0, 1)
    return cross_entropy(logits, batch["labels"].flatten(), reduction="sum"), weight_of(batch)


def weight_of(batch: dict[str, Tensor]) -> Tensor:
    return (batch["labels"] != -100).sum().double()


def gradients(batch: dict[str, Tensor], rows: int, ranks: int) -> list[Tensor]:
    """Loss and gradients in parts of so many rows: the mean over ranks, as DDP makes it."""
    torch.manual_seed(0)
    model, values = Scores(), []
    with patch.object(training_module, "scales", lambda *arguments: {}):
        module = TaskModule(model, Objective(losses_of, weight_of), {}, 0, rows)  # type: ignore[arg-type]
    module.manual_backward = lambda loss: loss.backward()  # type: ignore[method-assign]
    for rank in range(ranks):
        with patch.object(training_module, "rank_and_count", lambda rank=rank: (rank, ranks)):
            of_rank = {name: tensor.chunk(ranks)[rank] for name, tensor in batch.items()}
            values.append(module._gradient(0, of_rank, weight_of(batch)))
    return [torch.stack(values).mean(), *(parameter.grad / ranks for parameter in model.parameters())]


@given(st.integers(1, 5), st.sampled_from([1, 2, 3]), st.lists(st.integers(0, 4), min_size=6, max_size=6), st.data())
def test_any_split_of_a_batch_gives_its_gradient_however_many_predictions_a_row_has(
    rows: int, ranks: int, counts: list[int], data: st.DataObject
) -> None:
    draw = torch.Generator().manual_seed(data.draw(st.integers(0, 1000)))
    labels = torch.full((6, 4), -100)
    for row, count in enumerate(counts):
        labels[row, :count] = torch.randint(0, 2, (count,), generator=draw)
    batch = {"inputs": torch.randn(6, 4, 3, dtype=torch.float64, generator=draw), "labels": labels}
    whole, parts = gradients(batch, 0, 1), gradients(batch, rows, ranks)
    for one, other in zip(whole, parts, strict=True):
        torch.testing.assert_close(other, one, rtol=1e-12, atol=1e-12)
    torch.manual_seed(0)
    model = Scores()
    total, weight = losses_of(model, batch)
    (total / weight.clamp(min=1)).backward()
    torch.testing.assert_close(whole[1], model.layer.weight.grad, rtol=1e-12, atol=1e-12)
