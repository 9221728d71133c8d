"""FLOPs by formula against what torch counts in the real forward pass and the real training step."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.utils.flop_counter import FlopCounterMode
from transformers import PreTrainedModel

from trainlarge.models.build import build_model
from trainlarge.models.families import FAMILIES
from trainlarge.models.family import Head
from trainlarge.models.flops import executed_training_flops, forward_flops, skipped_flops, training_flops
from trainlarge.models.forward import FORWARDS, library_logits, logits_at
from trainlarge.models.shape import Shape

ROWS, SEQUENCE, PREDICTIONS = 3, 10, 4


def passes(name: str) -> list[str]:
    """The forward passes that the pretraining of a family has."""
    return ["fast", "library"] if FAMILIES[name].head().fast else ["library"]


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize(("width", "depth", "heads", "ffn_ratio"), [(8, 1, 1, 2.0), (24, 3, 3, 1.5), (32, 2, 4, 4.0)])
@pytest.mark.parametrize("name", list(FAMILIES))
def test_formula_equals_torchs_count(
    name: str, width: int, depth: int, heads: int, ffn_ratio: float, tied: bool
) -> None:
    shape = Shape(name, width, depth, heads, ffn_ratio, vocab_size=50, positions=SEQUENCE + 2, tied=tied)
    model = build_model(shape, init_std=0.1, seed=0, attention="eager")
    forward = ROWS * forward_flops(shape, SEQUENCE, PREDICTIONS)
    training = ROWS * training_flops(shape, SEQUENCE, PREDICTIONS)
    assert counted(library_logits, model) == (forward, training)
    skipped = ROWS * skipped_flops(shape, SEQUENCE, PREDICTIONS) if shape.family.head().fast else 0
    assert counted(logits_at, model) == (forward - skipped, training - 3 * skipped)


@pytest.mark.parametrize("name", list(FAMILIES))
def test_formula_equals_torchs_count_where_rows_are_labelled(name: str) -> None:
    shape = Shape(name, 24, 3, 3, 1.5, vocab_size=50, positions=SEQUENCE + 2, labels=5)
    model = build_model(shape, init_std=0.1, seed=0, attention="eager", head=Head.SEQUENCE_LABEL)
    inputs, labels = torch.randint(4, 50, (ROWS, SEQUENCE)), torch.arange(ROWS)
    with FlopCounterMode(display=False) as counter:
        model(input_ids=inputs, labels=labels).loss.backward()
    expected = ROWS * training_flops(shape, SEQUENCE, 1, Head.SEQUENCE_LABEL)
    assert counter.get_total_flops() - of_angles(counter) == expected


def counted(logits_of: Callable[..., Tensor], model: PreTrainedModel) -> tuple[int, int]:
    """FLOPs of a forward pass, and of forward and backward pass."""
    inputs = torch.randint(4, 50, (ROWS, SEQUENCE))
    positions = torch.arange(PREDICTIONS).expand(ROWS, -1)
    with FlopCounterMode(display=False) as forward:
        logits = logits_of(model, inputs, positions)
    with FlopCounterMode(display=False) as backward:
        cross_entropy(logits, inputs.gather(1, positions).flatten()).backward()
    products = forward.get_total_flops() - of_angles(forward)
    return products, products + backward.get_total_flops()


def of_angles(forward: FlopCounterMode) -> int:
    """FLOPs of the rotary angles: positions times frequencies, in some versions of the library a product of matrices.

    They do not grow with the rows, and have no gradient.
    """
    of_modules = forward.get_flop_counts()
    return sum(sum(of_modules[name].values()) for name in of_modules if name.endswith(".rotary_emb"))


@pytest.mark.parametrize(("name", "forward"), [(name, forward) for name in FAMILIES for forward in passes(name)])
def test_executed_flops_are_those_of_the_training_step(name: str, forward: str) -> None:
    """Of the loss that training computes, whose output layer is a function of our own."""
    shape = Shape(name, 24, 3, 3, 1.5, vocab_size=50, positions=SEQUENCE + 2, tied=True)
    model = build_model(shape, init_std=0.1, seed=0, attention="eager")
    inputs = torch.randint(4, 50, (ROWS, SEQUENCE))
    positions = torch.arange(PREDICTIONS).expand(ROWS, -1)
    with FlopCounterMode(display=False) as counter:
        FORWARDS[forward].loss(model, inputs, positions, inputs.gather(1, positions)).backward()
    executed = executed_training_flops(shape, SEQUENCE, PREDICTIONS, forward)
    assert counter.get_total_flops() - of_angles(counter) == ROWS * executed
    assert (executed == training_flops(shape, SEQUENCE, PREDICTIONS)) == (forward == "library")


def test_the_share_that_is_executed() -> None:
    """A third to two thirds of one layer, and next to all of twelve."""
    for depth, share in ((1, 0.346), (2, 0.650), (12, 0.938)):
        shape = Shape("modern", 256, depth, 4, 4.0, vocab_size=4096, positions=130)
        executed = executed_training_flops(shape, 128, 19, "fast") / training_flops(shape, 128, 19)
        assert executed == pytest.approx(share, abs=2e-3)


def test_a_large_model_costs_six_flops_a_parameter_and_token() -> None:
    shape = Shape("roberta", 1024, 24, 16, 4.0, vocab_size=100, positions=130)
    matrices = 12 * 24 * 1024**2
    assert training_flops(shape, 128, 0) / (6 * matrices * 128) == pytest.approx(1, rel=0.03)
