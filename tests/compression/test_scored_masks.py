"""Masks by learned scores: gradients by definition, exact counts, and weights that never move."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from trainlarge.compression import (
    Adapt,
    Compressed,
    Magnitude,
    Movement,
    Recipe,
    Retrain,
    SoftMovement,
    TrainingData,
    Weights,
    compress,
)
from trainlarge.compression.registry import Shared, TrainingStart
from trainlarge.compression.scored_masks import AboveThreshold, Highest, ScoredMasks
from trainlarge.config.prune import Scored
from trainlarge.config.schema import ImplConfig, OptimConfig
from trainlarge.errors import UserError

RECOVER = Retrain("12 steps", lr=3e-3)
DATA = TrainingData(
    lambda step: {
        "input_ids": (ids := torch.randint(4, 60, (4, 8), generator=torch.Generator().manual_seed(step))),
        "labels": ids,
    },
    optim=OptimConfig(weight_decay=0.5),
    impl=ImplConfig(device="cpu", precision="fp32", threads=1),
)


class Two(nn.Module):
    """Two matrices and a vector."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(5, 4), nn.Linear(4, 3, bias=False)

    def forward(self, rows: Tensor) -> Tensor:
        return self.second(self.first(rows).tanh()).square().mean()  # type: ignore[no-any-return]


@pytest.fixture
def two() -> Two:
    torch.manual_seed(0)
    return Two()


def masks_of(model: nn.Module, method: Scored, rule: Any, trains_weights: bool = True, steps: int = 8) -> ScoredMasks:
    """A modifier that has started."""
    start = TrainingStart(RECOVER, Weights.of(model), Shared(), (method,), 100, steps, lambda _step: 1.0)
    modifier = ScoredMasks(method, start, rule, trains_weights)
    modifier.start(model)
    return modifier


def test_gradients_are_those_of_the_mask_and_of_the_weights_that_take_part(two: Two) -> None:
    rows = torch.randn((7, 5), generator=torch.Generator().manual_seed(1))
    method = Movement(0.5, warmup=0, cooldown=0.5)
    modifier, names = masks_of(two, method, Highest(0.5, "global")), ("first.weight", "second.weight")
    two(rows).backward()
    modifier.before_step(100, two)
    two.zero_grad()
    modifier.after_step(104, two)
    before = modifier.state()
    whole = [before[f"weights.{name}"] for name in names]
    masks = [(~before[f"zeros.{name}"]).float().requires_grad_(True) for name in names]
    assert sum(int(mask.sum()) for mask in masks) == 16
    for name, weight, mask in zip(names, whole, masks, strict=True):
        assert torch.equal(two.get_parameter(name), weight * mask), "the model computes with masked weights"
    by_hand = torch.func.functional_call(
        two, {name: weight * mask for name, weight, mask in zip(names, whole, masks, strict=True)}, (rows,)
    )
    of_masks = torch.autograd.grad(by_hand, masks)
    two(rows).backward()
    of_masked = {name: two.get_parameter(name).grad.clone() for name in names}  # type: ignore[union-attr]
    modifier.before_step(104, two)
    after = modifier.state()
    torch.testing.assert_close(
        (after["adam.exp_avg"] - 0.9 * before["adam.exp_avg"]) / 0.1,
        torch.cat([gradient.view(-1) for gradient in of_masks]),
    )
    for name, weight, mask in zip(names, whole, masks, strict=True):
        parameter = two.get_parameter(name)
        assert torch.equal(parameter, weight), "the optimizer steps the whole matrix"
        assert torch.equal(parameter.grad, of_masked[name] * mask)  # type: ignore[arg-type]


@pytest.mark.parametrize("scope", ["global", "tensor"])
def test_zeros_are_as_many_as_asked_for_whatever_ties(scope: str) -> None:
    scores = [torch.tensor([3.0, 0.0, 0.0, 1.0]), torch.tensor([0.0, -1.0, 0.0, 0.0, 0.0, 2.0])]
    for done in (0.1, 0.5, 0.9, 1.0):
        counts = [int(zeros.sum()) for zeros in Highest(0.6, scope).zeros(scores, done)]
        if scope == "global":
            assert sum(counts) == round(0.6 * done * 10)
        else:
            assert counts == [round(0.6 * done * 4), round(0.6 * done * 6)]
    zeros = torch.cat(list(Highest(0.2, "global").zeros(scores, 1.0)))
    assert zeros.tolist() == [False, True, False, False, False, True, False, False, False, False]


def test_the_penalty_of_soft_movement_is_the_gradient_of_a_mean_of_sigmoids() -> None:
    scores = torch.linspace(-4, 4, 9).requires_grad_(True)
    (0.5 * 80 * scores.sigmoid().mean()).backward()
    rule = AboveThreshold(0.1, 80.0)
    torch.testing.assert_close(rule.penalty(scores.detach(), 0.5), scores.grad)
    [zeros] = rule.zeros([scores.detach()], 1.0)
    assert zeros.tolist() == [True, True] + 7 * [False], "sigmoid(-3) is below 0.1, sigmoid(-2) is not"
    assert not AboveThreshold(0.1, 80.0).zeros([scores.detach()], 1e-3)[0].any()


def test_scores_fall_at_their_own_rate_and_where_training_moves_weights_to_zero(two: Two) -> None:
    modifier = masks_of(two, Movement(0.5, scores_lr=0.25), Highest(0.5, "global"))
    for name in ("first.weight", "second.weight"):
        # The loss falls where the weight does: its gradient has its sign.
        two.get_parameter(name).grad = two.get_parameter(name).detach().clone()
    modifier.before_step(100, two)
    torch.testing.assert_close(modifier.state()["scores"], torch.full((32,), -0.25), rtol=1e-2, atol=0)


def compressed_by(model: PreTrainedModel, method: Any, **others: Any) -> Compressed:
    return compress(model, Recipe(prune=method, recover=RECOVER, **others), training=DATA)


def test_movement_reaches_its_sparsity_exactly_and_moves_the_weights(modern: PreTrainedModel) -> None:
    compressed = compressed_by(modern, Movement(0.7))
    names = compressed.left.matrices
    total = sum(compressed.weights[name].numel() for name in names)
    assert sum(int((compressed.weights[name] == 0).sum()) for name in names) == round(0.7 * total)
    assert compressed.pruned_share == pytest.approx(0.7, abs=1e-4)
    by_magnitude = compress(modern, Recipe(prune=Magnitude(0.7)))
    assert any(not torch.equal(by_magnitude.weights[name] == 0, compressed.weights[name] == 0) for name in names), (
        "it is not the magnitude that decides"
    )


def test_soft_movement_prunes_more_with_more_regularization(modern: PreTrainedModel) -> None:
    found = [
        compressed_by(modern, SoftMovement(0.1, regularization=strength, scores_lr=0.5, warmup=0.1)).pruned_share or 0.0
        for strength in (0.0, 30.0)
    ]
    assert found[0] < found[1] < 1
    with pytest.raises(UserError, match=r"^prune\.regularization=1000000\.0 .*a number that leaves weights"):
        compressed_by(modern, SoftMovement(0.1, regularization=1e6, scores_lr=1.0, warmup=0))


def test_adapting_by_pruning_leaves_every_weight_that_stays_as_it_was(modern: PreTrainedModel) -> None:
    before = {name: tensor.clone() for name, tensor in modern.state_dict().items()}
    compressed = compressed_by(modern, Adapt(0.3))
    names, zeros = compressed.left.matrices, 0
    for name, tensor in compressed.weights.items():
        is_zero = tensor == 0 if name in names else torch.zeros_like(tensor, dtype=torch.bool)
        zeros += int(is_zero.sum())
        assert torch.equal(tensor[~is_zero].view(torch.int32), before[name][~is_zero].view(torch.int32)), name
    assert zeros == round(0.3 * sum(before[name].numel() for name in names))
    one_shot = compress(modern, Recipe(prune=Magnitude(0.3)))
    with torch.no_grad():
        rows = DATA.batch_of(99)
        losses = [float(one.model()(**rows).loss) for one in (compressed, one_shot)]
    assert losses[0] < losses[1], "masks have learned something"
    # Where scores hardly move, the mask is the one they start from.
    by_start = compressed_by(modern, Adapt(0.3, scores_lr=1e-12))
    assert all(map(torch.equal, by_start.weights.values(), one_shot.weights.values()))


@pytest.mark.parametrize("method", [Movement(0.5), Adapt(0.5), SoftMovement(0.1)], ids=lambda method: method.name)
def test_what_masks_cannot_be_learned_in_is_refused(method: Scored) -> None:
    with pytest.raises(UserError, match=rf"^prune\.name={method.name} .* used with recover"):
        Recipe(prune=method)
    with pytest.raises(UserError, match=rf"^recover\.trains=norms_and_biases .* all with prune\.name={method.name}"):
        Recipe(prune=method, recover=Retrain("5 steps", trains="norms_and_biases"))
    with pytest.raises(UserError, match=rf"^recover\.budget=until .* a fixed length with prune\.name={method.name}"):
        Recipe(prune=method, recover=Retrain("until 0.9 dense", at_most="9 steps"))


@pytest.mark.parametrize(
    ("make", "key"),
    [
        (lambda: Movement(0.5, scores_lr=0), "scores_lr"),
        (lambda: Movement(0.5, scope="row"), "scope"),  # type: ignore[arg-type]
        (lambda: SoftMovement(0.5), "threshold"),
        (lambda: SoftMovement(0.1, regularization=-1), "regularization"),
        (lambda: Adapt(1.0), "sparsity"),
    ],
)
def test_values_out_of_range_are_refused(make: Any, key: str) -> None:
    with pytest.raises(UserError, match=rf"^prune\.{key}="):
        make()
