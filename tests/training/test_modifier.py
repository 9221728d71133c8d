"""What a modifier does to a model while it trains, and that a resume gives the same bits."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel

from trainlarge.config.schema import ImplConfig, OptimConfig
from trainlarge.errors import UserError
from trainlarge.machine.device import choose
from trainlarge.models.build import build_model
from trainlarge.models.shape import Shape
from trainlarge.training.clocks import Seconds
from trainlarge.training.loop import Loop
from trainlarge.training.modifier import HoldZeros, Modifier
from trainlarge.training.module import Objective
from trainlarge.training.resume import TrainState, TrunkStates

VOCABULARY = 32
SHAPE = Shape("modern", 16, 1, 2, 2.0, VOCABULARY, 8)


def nothing(step: int, loss: Tensor) -> None: ...


def constant(step: int) -> float:
    return 1.0


class Recorder:
    """Keeps a running mean of a weight, which it adds to the loss: a state of its own, on which later steps depend."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.mean = torch.zeros(())

    def start(self, model: nn.Module) -> None:
        self.calls.append("start")

    def loss(self, loss: Tensor, model: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
        weight = next(model.parameters())
        return loss + (weight.mean() - self.mean) ** 2 + weight.square().mean()

    def before_step(self, step: int, model: nn.Module) -> None: ...

    def after_step(self, step: int, model: nn.Module) -> None:
        self.calls.append(f"step {step}")
        self.mean = 0.5 * self.mean + 0.5 + next(model.parameters()).detach().mean()

    def finish(self, model: nn.Module) -> None:
        self.calls.append("finish")

    def state(self) -> dict[str, Tensor]:
        return {"mean": self.mean.clone()}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        self.mean = state["mean"].clone()


@pytest.fixture
def model() -> PreTrainedModel:
    return build_model(SHAPE, init_std=0.1, seed=0, attention="eager")


def loop_of(model: PreTrainedModel, *modifiers: Modifier, devices: int = 1, strategy: str = "ddp") -> Loop:
    """Trains a language model on rows that are a function of the step."""

    def batch_of(step: int) -> dict[str, Tensor]:
        ids = torch.randint(VOCABULARY, (4, 8), generator=torch.Generator().manual_seed(step))
        return {"input_ids": ids, "labels": ids.roll(1, 1)}

    def loss(model: Any, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        logits = model(input_ids=batch["input_ids"]).logits
        return cross_entropy(logits.flatten(0, 1), batch["labels"].flatten(), reduction="sum"), weight(batch)

    def weight(batch: dict[str, Tensor]) -> Tensor:
        return torch.tensor(float(batch["labels"].numel()), dtype=torch.float64)

    optim = OptimConfig(peak_lr=1e-2, weight_decay=0.1)
    implementation = choose(ImplConfig(device="cpu", precision="fp32", threads=1))
    return Loop(
        model, Objective(loss, weight), batch_of, optim, replace(implementation, strategy=strategy),
        seed=0, devices=devices, modifiers=modifiers,
    )  # fmt: skip


def weights_of(loop: Loop) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in loop.module.model.state_dict().items()}


def test_the_loop_calls_a_modifier_around_its_steps(model: PreTrainedModel) -> None:
    recorder = Recorder()
    loop = loop_of(model, recorder)
    loop.run(0, 2, constant, nothing)
    loop.run(2, 3, constant, nothing)
    loop.finish()
    assert recorder.calls == ["start", "step 1", "step 2", "step 3", "finish"]


def test_a_modifier_changes_the_loss(model: PreTrainedModel) -> None:
    losses: list[float] = []
    for modifiers in ([], [Recorder()]):
        loop_of(model, *modifiers).run(0, 1, lambda step: 0.0, lambda step, loss: losses.append(float(loss)))
    weight = next(model.parameters()).detach()
    assert losses[1] - losses[0] == pytest.approx(float(weight.mean() ** 2 + weight.square().mean()), abs=1e-6)


def test_two_devices_train_with_modifiers_as_one(two_ranks: Callable[[Sequence[str]], list[str]]) -> None:
    """Each rank runs the modifiers on its whole model; zeros stay, and states are the same on both."""
    first, second = two_ranks([str(Path(__file__).with_name("modified_model.py"))])
    assert first == second != ""


def test_a_divided_model_is_refused(model: PreTrainedModel) -> None:
    with pytest.raises(UserError, match=r"^impl\.strategy=fsdp is not valid: must be ddp"):
        loop_of(model, Recorder(), devices=2, strategy="fsdp")


def test_steps_that_are_timed_leave_no_trace_in_a_modifier(model: PreTrainedModel) -> None:
    recorder = Recorder()
    loop = loop_of(model, recorder)
    loop.run(0, 2, constant, nothing)
    before = recorder.mean.clone()
    loop.timed(3)
    assert torch.equal(recorder.mean, before)


def test_a_run_with_modifiers_goes_on_from_a_saved_state_to_the_same_bits(
    model: PreTrainedModel, tmp_path: Path
) -> None:
    loop = loop_of(model, HoldZeros(frozenset()), Recorder())
    loop.run(0, 6, constant, nothing)
    expected = weights_of(loop)
    first = loop_of(build_model(SHAPE, init_std=0.1, seed=0, attention="eager"), HoldZeros(frozenset()), Recorder())
    first.run(0, 3, constant, nothing)
    TrunkStates(tmp_path).save("trunk", TrainState(3, first.snapshot(), [], torch.empty(0), Seconds(1.0, 2.0)), 3)
    saved = TrunkStates(tmp_path).newest("trunk", at_most=3)
    assert saved and [sorted(state) for state in saved.snapshot.modifiers] == [[], ["mean"]]
    other = loop_of(build_model(SHAPE, init_std=0.1, seed=1, attention="eager"), HoldZeros(frozenset()), Recorder())
    other.restore(saved.snapshot)
    other.run(3, 6, constant, nothing)
    assert all(torch.equal(tensor, expected[name]) for name, tensor in weights_of(other).items())


def test_zeros_that_are_held_stay_zero_in_weights_gradients_and_moments(model: PreTrainedModel) -> None:
    names = frozenset(name for name, parameter in model.named_parameters() if parameter.ndim == 2)
    pruned = {}
    with torch.no_grad():
        for name in names:
            parameter = model.get_parameter(name)
            pruned[name] = torch.rand(parameter.shape, generator=torch.Generator().manual_seed(1)) < 0.5
            parameter.masked_fill_(pruned[name], 0.0)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    loop, seen = loop_of(model, HoldZeros(names)), 0
    backward = loop.module.manual_backward

    def checked(loss: Tensor, *arguments: Any) -> None:
        nonlocal seen
        backward(loss, *arguments)
        for name in names:
            gradient = model.get_parameter(name).grad
            assert gradient is not None and not gradient[pruned[name]].any()
            seen += int(gradient.any())

    loop.module.manual_backward = checked  # type: ignore[method-assign]
    loop.run(0, 5, constant, nothing)
    assert seen >= 5
    state = loop.module.configure_optimizers().state
    for name in names:
        parameter = model.get_parameter(name)
        bits = parameter.detach().view(torch.int32)
        assert not bits[pruned[name]].any(), "+0, and not -0, which a packed file would have to keep"
        assert not torch.equal(parameter[~pruned[name]], before[name][~pruned[name]])
        for moment in ("exp_avg", "exp_avg_sq"):
            assert not state[parameter][moment][pruned[name]].any()


def test_without_a_modifier_zeros_are_trained_like_all_weights(model: PreTrainedModel) -> None:
    name, parameter = next(
        (name, parameter) for name, parameter in model.named_parameters() if name.endswith("Wo.weight")
    )
    with torch.no_grad():
        parameter.zero_()
    loop_of(model).run(0, 2, constant, nothing)
    assert parameter.any(), name


def test_after_training_no_hook_is_left(model: PreTrainedModel) -> None:
    with torch.no_grad():
        next(model.parameters())[0] = 0.0
    loop = loop_of(model, HoldZeros(frozenset(name for name, _ in model.named_parameters())))
    loop.finish()
    loss, _ = loop.module.objective.loss(loop.module.model, loop.batch_of(0))
    loss.backward()
    gradient = next(model.parameters()).grad
    assert gradient is not None and gradient[0].any()
