"""The terms of a distillation loss, and what it does to a model outside of a study."""

from __future__ import annotations

import copy
import re
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional
from transformers import DistilBertConfig, DistilBertForMaskedLM, PreTrainedModel

from trainlarge.compression import Distill, Heads, LayerList, Recipe, TrainingData, Weights, compress
from trainlarge.compression.distillation import (
    PROJECTION,
    Distillation,
    Teacher,
    hidden_error,
    logits_error,
    probabilities_error,
    scores_error,
)
from trainlarge.compression.layout.encoder import find_encoder
from trainlarge.config.impl import ImplConfig
from trainlarge.config.optim import OptimConfig
from trainlarge.config.quantize import Binary
from trainlarge.errors import UserError
from trainlarge.machine.device import default_attention
from trainlarge.models.build import build_model
from trainlarge.models.capture import AttentionMap, Capture
from trainlarge.models.families import FAMILIES
from trainlarge.models.family import Head
from trainlarge.models.forward import FORWARDS
from trainlarge.models.shape import Shape
from trainlarge.training.compiling import Loss

IMPL = ImplConfig(device="cpu", precision="fp32", threads=1)
ROWS = 6
IDS = torch.randint(4, 60, (ROWS, 10), generator=torch.Generator().manual_seed(0))
PREDICTED = torch.tensor([[1, 4, 7]] * ROWS)
LENGTHS = torch.tensor([10, 3, 7, 5, 10, 2])
TOKENS = {"input_ids": IDS, "predicted": PREDICTED, "labels": IDS.gather(1, PREDICTED)}
LABELLED = {
    "input_ids": IDS,
    "attention_mask": (torch.arange(10) < LENGTHS.unsqueeze(1)).long(),
    "labels": torch.tensor([0, 1, 2, 0, 1, 2]),
}
EVERYTHING = Distill("4 steps", task_weight=0.0, temperature=2.0)


def made(family: str = "modern", head: Head | None = None, seed: int = 0, **sizes: Any) -> PreTrainedModel:
    shape = Shape(family, **{"width": 24, "depth": 2, "heads": 2, "ffn_ratio": 1.5, "vocab_size": 60, "positions": 16,
                             "labels": 3, **sizes})  # fmt: skip
    return build_model(shape, init_std=0.2, seed=seed, attention=default_attention("cpu"), head=head)


def tokens_loss(capture: Capture) -> Loss:
    """As the task of masked tokens computes it."""

    def loss(model: PreTrainedModel, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        mean = capture.over(FORWARDS["fast"]).loss(model, batch["input_ids"], batch["predicted"], batch["labels"])
        return mean.double() * batch["labels"].numel(), torch.tensor(float(batch["labels"].numel()))

    return loss


def rows_loss(capture: Capture) -> Loss:
    """As the tasks of labelled rows compute it."""

    def loss(model: PreTrainedModel, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        logits = capture.over(FORWARDS["fast"]).row_logits(model, batch["input_ids"], batch["attention_mask"])
        return functional.cross_entropy(logits, batch["labels"], reduction="sum"), torch.tensor(float(len(logits)))

    return loss


def taught(method: Distill, student: PreTrainedModel, teacher: PreTrainedModel, is_labelled: bool) -> Distillation:
    loss = rows_loss if is_labelled else tokens_loss
    one = Teacher("parent", teacher.eval(), find_encoder(teacher))
    return Distillation(method, Weights.of(student), one, loss, first_step=0, steps=4)


def loss_of(modifier: Distillation, model: PreTrainedModel, batch: dict[str, Tensor]) -> Tensor:
    total, weight = modifier.student_loss(model, batch)
    return modifier.loss((total / weight).float(), model, batch)


@pytest.mark.parametrize("attention", ["scores", "probabilities"])
@pytest.mark.parametrize("head", [None, Head.SEQUENCE_LABEL], ids=["tokens", "rows"])
@pytest.mark.parametrize("family", list(FAMILIES))
def test_identical_networks_have_loss_0_and_gradient_0(family: str, head: Head | None, attention: Any) -> None:
    student = made(family, head).train()
    method = replace(EVERYTHING, attention=attention)
    modifier = taught(method, student, copy.deepcopy(student), is_labelled=head is not None)
    loss = loss_of(modifier, student, TOKENS if head is None else LABELLED)
    loss.backward()
    assert float(loss.detach()) == 0
    gradients = [parameter.grad for parameter in student.parameters() if parameter.grad is not None]
    assert len(gradients) > 10 and not any(gradient.any() for gradient in gradients)


def test_identical_networks_teach_nothing_by_logits_on_the_fast_path() -> None:
    student = made().train()
    method = Distill("4 steps", hidden_weight=0, attention_weight=0)
    modifier = taught(method, student, copy.deepcopy(student), is_labelled=False)
    assert (modifier.map, modifier.of_student.watched) == (None, None)
    loss = loss_of(modifier, student, TOKENS)
    loss.backward()
    assert float(loss.detach()) == 0
    assert not any(one.grad.any() for one in student.parameters() if one.grad is not None)


def test_the_error_of_logits_is_the_papers_and_its_gradient_keeps_its_size() -> None:
    """Hinton et al. 2015, equation 4: for large T the gradient of T^2 KL is (z - v) / N, of logits with mean 0."""
    generator = torch.Generator().manual_seed(0)
    student, teacher = (torch.randn((5, 7), generator=generator, dtype=torch.float64) for _ in range(2))
    for temperature in (1.0, 2.5):
        own, wanted = ((logits / temperature).softmax(-1) for logits in (student, teacher))
        expected = temperature**2 * (wanted * (wanted / own).log()).sum(-1).mean()
        torch.testing.assert_close(logits_error(student, teacher, temperature).double(), expected, rtol=1e-5, atol=0)
    student = (student - student.mean(-1, keepdim=True)).requires_grad_()
    teacher = teacher - teacher.mean(-1, keepdim=True)
    logits_error(student, teacher, 300.0).backward()
    torch.testing.assert_close(student.grad, (student.detach() - teacher) / 7 / 5, rtol=0.02, atol=1e-4)


def test_one_output_has_a_squared_error() -> None:
    student, teacher = torch.tensor([[1.0], [3.0]]), torch.tensor([[2.0], [5.0]])
    assert float(logits_error(student, teacher, 4.0)) == 2.5


def test_padding_counts_nowhere() -> None:
    generator = torch.Generator().manual_seed(0)
    mask = LABELLED["attention_mask"]
    student, teacher = (torch.randn((ROWS, 10, 8), generator=generator) for _ in range(2))
    expected = torch.stack(
        [(student[row, :size] - teacher[row, :size]).square().mean() for row, size in enumerate(LENGTHS)]
    ).mean()
    torch.testing.assert_close(hidden_error(student, teacher, mask), expected)
    added = torch.zeros((ROWS, 1, 1, 10)).masked_fill_(mask[:, None, None] == 0, torch.finfo(torch.float32).min)
    maps = [AttentionMap(torch.randn((ROWS, 2, 10, 10), generator=generator), added) for _ in range(2)]
    squares, divergences = [], []
    for row, size in enumerate(LENGTHS):
        own, other = (one.scores[row, :, :size, :size] for one in maps)
        squares.append((own - other).square().mean())
        kl = (other.softmax(-1) * (other.log_softmax(-1) - own.log_softmax(-1))).sum(-1)
        divergences.append(kl.mean())
    torch.testing.assert_close(scores_error(*maps, mask), torch.stack(squares).mean())
    torch.testing.assert_close(probabilities_error(*maps, mask), torch.stack(divergences).mean())


@pytest.mark.parametrize("head", [None, Head.SEQUENCE_LABEL], ids=["tokens", "rows"])
@pytest.mark.parametrize("attention", ["scores", "probabilities"])
def test_parts_of_a_batch_average_to_the_whole(head: Head | None, attention: Any) -> None:
    student, teacher = made(head=head).eval(), made(head=head, seed=1)
    modifier = taught(replace(EVERYTHING, task_weight=0.5, attention=attention), student, teacher, head is not None)
    batch = TOKENS if head is None else LABELLED
    whole = loss_of(modifier, student, batch)
    assert float(whole.detach()) > 0.1
    parts = [loss_of(modifier, student, {name: tensor[place:place + 2] for name, tensor in batch.items()})
             for place in (0, 2, 4)]  # fmt: skip
    torch.testing.assert_close(torch.stack(parts).mean(), whole)


def test_terms_are_weighted_and_summed_over_the_layers_of_the_student() -> None:
    student, teacher = made(depth=2).eval(), made(depth=3, seed=1)
    alone = {}
    for term in ("task", "logits", "hidden", "attention"):
        weights = {f"{name}_weight": float(name == term) for name in ("task", "logits", "hidden", "attention")}
        weights["logits_weight"] += 1e-30 if term == "task" else 0
        maps = {} if term in ("task", "logits") else {"layer_map": [[0, 0], [1, 1], [1, 2]]}
        alone[term] = loss_of(taught(Distill(**weights, **maps), student, teacher, False), student, TOKENS)
    every = Distill(
        task_weight=0.5, logits_weight=2, hidden_weight=3, attention_weight=4, layer_map=[[0, 0], [1, 1], [1, 2]]
    )
    total = 0.5 * alone["task"] + 2 * alone["logits"] + 3 * alone["hidden"] + 4 * alone["attention"]
    torch.testing.assert_close(loss_of(taught(every, student, teacher, False), student, TOKENS), total)
    pairs = {}
    for student_layer, teacher_layer in ((0, 0), (1, 1), (1, 2)):
        only = Distill(logits_weight=0, hidden_weight=0, layer_map=[[student_layer, teacher_layer]])
        pairs[student_layer, teacher_layer] = loss_of(taught(only, student, teacher, False), student, TOKENS)
    torch.testing.assert_close(alone["attention"], pairs[0, 0] + (pairs[1, 1] + pairs[1, 2]) / 2)


def test_the_teacher_has_no_dropout_and_does_not_train() -> None:
    student, teacher = made(dropout=0.5).train(), made(dropout=0.5, seed=1)
    modifier = taught(Distill(logits_weight=1, hidden_weight=0, attention_weight=0), student, teacher, False)
    captured = []
    for _ in range(2):
        modifier._teacher_loss(teacher, TOKENS)
        captured.append(modifier.of_teacher.logits)
    assert torch.equal(*captured)
    loss_of(modifier, student, TOKENS).backward()
    assert all(parameter.grad is None for parameter in teacher.parameters())


def batch_of(step: int) -> dict[str, Tensor]:
    ids = torch.randint(4, 60, (8, 10), generator=torch.Generator().manual_seed(step))
    return {"input_ids": ids, "labels": ids}


DATA = TrainingData(batch_of, optim=OptimConfig(), impl=IMPL, step_flops=30)


def test_a_student_comes_nearer_to_its_teacher() -> None:
    teacher = made(depth=4).eval()
    cut = LayerList((1, 3))
    before = compress(teacher, Recipe(structure=cut)).model()
    after = compress(teacher, Recipe(structure=cut, recover=Distill("60 steps", lr=3e-3)), training=DATA)
    ids = batch_of(1000)["input_ids"]
    with torch.no_grad():
        wanted = teacher(input_ids=ids).logits.softmax(-1)
        far, near = (
            float(functional.kl_div(model(input_ids=ids).logits.log_softmax(-1), wanted, reduction="batchmean"))
            for model in (before, after.model())
        )
    assert near < 0.5 * far
    assert after.training is not None and after.training.teacher is not None
    assert (after.training.flops, after.training.teacher.flops) == (60 * 40, 60 * 10)
    assert after.training.teacher.layer_map == "0-1 1-3"


@pytest.mark.parametrize("stages", [1, 2, 3])
def test_a_training_that_is_aware_of_quantization_may_have_a_teacher(stages: int) -> None:
    recipe = Recipe(recover=Distill("6 steps", lr=1e-3, quantize_aware=1.0, stages=stages), quantize=Binary())
    first, second = (compress(made(), recipe, training=DATA) for _ in range(2))
    assert all(torch.equal(tensor, second.weights[name]) for name, tensor in first.weights.items())
    assert not any(PROJECTION in name for name in first.weights)


def test_a_wider_teacher_is_met_through_a_matrix_that_trains() -> None:
    student, teacher = made().train(), made(width=48, heads=2, seed=1)
    modifier = taught(EVERYTHING, student, teacher, is_labelled=False)
    names = set(student.state_dict())
    modifier.start(student)
    assert set(student.state_dict()) - names == {PROJECTION}
    projection = student.get_parameter(PROJECTION)
    assert projection.shape == (48, 24)
    loss_of(modifier, student, TOKENS).backward()
    assert projection.grad is not None and float(projection.grad.abs().max()) > 0
    modifier.finish(student)
    assert set(student.state_dict()) == names


def test_a_saved_state_knows_the_stage() -> None:
    student = made().train()
    method = Distill("4 steps", stages=2)
    first, second = (taught(method, student, made(seed=1), is_labelled=False) for _ in range(2))
    early = loss_of(first, student, TOKENS)
    first.after_step(2, student)
    second.restore(first.state())
    late = [loss_of(one, student, TOKENS) for one in (first, second)]
    assert torch.equal(*late) and not torch.equal(early, late[0])


def distilbert() -> PreTrainedModel:
    shape = {"dim": 24, "n_layers": 2, "n_heads": 2, "hidden_dim": 36, "vocab_size": 60, "max_position_embeddings": 16}
    return DistilBertForMaskedLM(DistilBertConfig(**shape))


@pytest.mark.parametrize(
    ("student", "teacher", "method", "line"),
    [
        (made, lambda: made(heads=3), Distill(),
         "recover.attention_weight=1.0 is not valid: must be 0 where a layer of the student has 2 heads and that of "),
        (made, made, Distill(layer_map=(1, 2)), "recover.layer_map=[1, 2] is not valid: must be made of student"),
        (distilbert, distilbert, Distill(), "recover.attention_weight=1.0 is not valid: must be 0 with DistilBert"),
        (lambda: torch.nn.Linear(3, 3), made, Distill(), "recover.hidden_weight=Linear is not valid: must be 0, as"),
    ],
)  # fmt: skip
def test_models_that_do_not_go_together(student: Any, teacher: Any, method: Distill, line: str) -> None:
    with pytest.raises(UserError, match=re.escape(line)):
        taught(method, student(), teacher(), is_labelled=False)


def test_outputs_that_do_not_go_together() -> None:
    modifier = taught(Distill(hidden_weight=0, attention_weight=0), made(), made(vocab_size=90), is_labelled=False)
    with pytest.raises(UserError, match="must be a teacher of 60 outputs, as many as the student has"):
        loss_of(modifier, made(), TOKENS)


def test_layers_that_are_known_teach_without_their_attention() -> None:
    student = distilbert().train()
    modifier = taught(Distill(logits_weight=0, attention_weight=0), student, distilbert(), is_labelled=False)
    modifier.student_loss, modifier._teacher_loss = (
        (lambda model, batch, keeper=keeper: (keeper.loss_of(model, batch), torch.ones(())))
        for keeper in (modifier.of_student, modifier.of_teacher)
    )
    assert float(loss_of(modifier, student, batch_of(0)).detach()) > 0


def test_outside_of_a_study_the_checkpoint_teaches() -> None:
    recipe = Recipe(recover=Distill("2 steps", teacher="0123456789ab", lr=1e-3))
    with pytest.raises(UserError, match=re.escape("recover.teacher=0123456789ab is not valid: must be parent outside")):
        compress(made(), recipe, training=DATA)


def test_heads_that_were_removed_are_not_compared() -> None:
    recipe = Recipe(structure=Heads(0.5), recover=Distill("2 steps", lr=1e-3))
    with pytest.raises(UserError, match=re.escape("recover.attention_weight=1.0")):
        compress(made(), recipe, training=DATA)
    compress(made(), replace(recipe, recover=Distill("2 steps", lr=1e-3, attention_weight=0)), training=DATA)
