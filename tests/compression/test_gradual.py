"""Gradual magnitude pruning: the schedule by its formula, zeros by count, and a resume with the same bits."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

from trainlarge.compression import Gradual, Recipe, Retrain, TrainingData, Uniform, compress
from trainlarge.compression.methods.gradual import RisingSparsity
from trainlarge.config.schema import ImplConfig
from trainlarge.errors import UserError

IMPL = ImplConfig(device="cpu", precision="fp32", threads=1)
DATA = TrainingData(
    lambda step: {
        "input_ids": (ids := torch.randint(4, 60, (4, 8), generator=torch.Generator().manual_seed(step))),
        "labels": ids,
    },
    impl=IMPL,
)
METHOD = Gradual(0.8, warmup=0.25, cooldown=0.25, every=5)


def test_sparsity_rises_along_a_cube_between_both_warm_ups() -> None:
    steps = 40
    assert [METHOD.done_after(done, steps) for done in (0, 1, 10)] == [0.0, 0.0, 0.0]
    # Halfway between the steps 10 and 30, and a quarter of the way.
    assert METHOD.done_after(20, steps) == 1 - 0.5**3
    assert METHOD.done_after(15, steps) == 1 - 0.75**3
    assert [METHOD.done_after(done, steps) for done in (30, 31, 40)] == [1.0, 1.0, 1.0]
    pruning = [done for done in range(steps + 1) if METHOD.prunes_after(done, steps)]
    assert pruning == [15, 20, 25, 30]
    assert Gradual(0.5, warmup=0, cooldown=0, every=7).done_after(9, 9) == 1.0
    uneven = Gradual(0.5, warmup=0.1, cooldown=0.1, every=7)
    assert [done for done in range(24) if uneven.prunes_after(done, 23)] == [9, 16, 21], "and when the sparsity is full"
    for steps in range(1, 12):
        ends = [Gradual(0.5, warmup=share, cooldown=0.99 - share).ramp(steps) for share in (0.0, 0.3, 0.6, 0.99)]
        assert all(0 <= begin < end <= steps for begin, end in ends), "however short the training is"


@pytest.mark.parametrize(
    ("given", "key"),
    [
        ({"warmup": -0.1}, "warmup"),
        ({"warmup": 0.6, "cooldown": 0.4}, "cooldown"),
        ({"cooldown": 1}, "cooldown"),
        ({"every": 0}, "every"),
        ({"scope": "block"}, "scope"),
    ],
)
def test_schedules_longer_than_training_are_refused(given: dict[str, Any], key: str) -> None:
    with pytest.raises(UserError, match=rf"^prune\.{key}="):
        Gradual(0.5, **given)


def test_it_is_refused_without_training_of_a_fixed_length_after_it() -> None:
    with pytest.raises(UserError, match=r"^prune\.name=gradual.*with recover"):
        Recipe(prune=METHOD, quantize=Uniform(4))
    with pytest.raises(UserError, match=r"^recover\.budget=until 0\.9 dense.*a fixed length with prune\.name=gradual"):
        Recipe(prune=METHOD, recover=Retrain("until 0.9 dense", at_most="9 steps"))


def test_zeros_are_as_many_as_asked_for_at_each_step(modern: PreTrainedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    counts: list[int] = []
    after_step = RisingSparsity.after_step

    def counted(modifier: RisingSparsity, step: int, model: PreTrainedModel) -> None:
        after_step(modifier, step, model)
        counts.append(sum(int((model.get_parameter(name) == 0).sum()) for name in modifier.names))

    monkeypatch.setattr(RisingSparsity, "after_step", counted)
    recipe = Recipe(prune=METHOD, recover=Retrain("20 steps", lr=1e-3))
    compressed = compress(modern, recipe, training=DATA)
    names = compressed.left.matrices
    total = sum(compressed.weights[name].numel() for name in names)
    before = sum(int((modern.get_parameter(name) == 0).sum()) for name in names)
    levels = {done: 0.8 * METHOD.done_after(done, 20) for done in range(1, 21) if METHOD.prunes_after(done, 20)}
    assert levels == {10: pytest.approx(0.7), 15: 0.8}
    reached = [max((levels[at] for at in levels if at <= done), default=0.0) for done in range(1, 21)]
    expected = [max(before, round(level * total)) for level in reached]
    assert counts == expected
    assert compressed.sizes.nonzero_parameters < 0.25 * compressed.sizes.parameters
    assert not torch.equal(_kept(compressed.weights, names), _kept(dict(modern.named_parameters()), names))


def _kept(weights: Any, names: frozenset[str]) -> Tensor:
    return torch.cat([weights[name].detach().flatten() for name in sorted(names)])


def test_it_goes_with_training_that_is_aware_of_quantization(modern: PreTrainedModel) -> None:
    recover = Retrain("20 steps", lr=1e-3, quantize_aware=0.5)
    recipe = Recipe(prune=METHOD, recover=recover, quantize=Uniform(4))
    compressed = compress(modern, recipe, training=DATA)
    total = sum(compressed.weights[name].numel() for name in compressed.left.matrices)
    zeros = sum(int((compressed.weights[name] == 0).sum()) for name in compressed.left.matrices)
    assert zeros >= round(0.8 * total)


def test_a_restored_modifier_goes_on_to_the_same_bits(modern: PreTrainedModel) -> None:
    names = frozenset(name for name, tensor in modern.named_parameters() if tensor.ndim == 2)
    first = RisingSparsity(METHOD, names, 100, 40)
    first.start(modern)
    for step in range(101, 121):
        first.after_step(step, modern)
    second = RisingSparsity(METHOD, names, 100, 40)
    second.start(modern)
    second.restore(first.state())
    for name in names:
        modern.get_parameter(name).grad = torch.ones_like(modern.get_parameter(name))
    second.before_step(120, modern)
    for name in names:
        parameter = modern.get_parameter(name)
        assert torch.equal(parameter.grad == 0, parameter == 0) and bool((parameter == 0).any()), name  # type: ignore[operator]
