"""Wanda, SparseGPT and GPTQ: exact shares, exact special cases, and a smaller error of the output than without data."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from trainlarge.compression import Magnitude, Recipe, Weights, compress
from trainlarge.compression.calibration import inverse_factor
from trainlarge.compression.methods.gptq import correct
from trainlarge.compression.methods.sparsegpt import prune
from trainlarge.compression.methods.uniform import quantize
from trainlarge.config.prune import SparseGPT, Wanda
from trainlarge.config.quantize import GPTQ, Uniform

from ..structure.conftest import made

Errors = Callable[[Recipe], dict[str, float]]
SPARSITIES = [0.25, 0.5, 0.75]


def _all_smaller(one: dict[str, float], other: dict[str, float], factor: float = 1.0) -> bool:
    return bool(one) and all(one[name] < factor * other[name] for name in other)


@pytest.mark.parametrize("scope", ["global", "tensor", "row"])
@pytest.mark.parametrize("sparsity", SPARSITIES)
def test_wanda_beats_magnitude_on_every_layer(output_errors: Errors, sparsity: float, scope: str) -> None:
    assert _all_smaller(output_errors(Recipe(Wanda(sparsity))), output_errors(Recipe(Magnitude(sparsity, scope))))  # type: ignore[arg-type]


@pytest.mark.parametrize("sparsity", SPARSITIES)
def test_sparsegpt_beats_wanda_on_every_layer(output_errors: Errors, sparsity: float) -> None:
    assert _all_smaller(output_errors(Recipe(SparseGPT(sparsity))), output_errors(Recipe(Wanda(sparsity))))


@pytest.mark.parametrize("m", [4, 8])
def test_the_same_order_holds_in_blocks(output_errors: Errors, m: int) -> None:
    magnitude, wanda, sparsegpt = (
        output_errors(Recipe(method)) for method in (Magnitude(0.5, "block", m), Wanda(0.5, m=m), SparseGPT(0.5, m=m))
    )
    assert _all_smaller(wanda, magnitude)
    assert _all_smaller(sparsegpt, wanda)


@pytest.mark.parametrize("granularity", ["tensor", "row", "group"])
@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_gptq_beats_rounding_to_nearest(output_errors: Errors, bits: int, granularity: str) -> None:
    nearest, corrected = (
        output_errors(Recipe(quantize=kind(bits, granularity, group_size=16)))  # type: ignore[arg-type]
        for kind in (Uniform, GPTQ)
    )
    assert _all_smaller(corrected, nearest, factor=0.7)


@pytest.mark.parametrize("bits", [2, 4])
def test_gptq_corrects_a_tied_table_by_the_inputs_of_the_output_layer(bits: int) -> None:
    model, tokens = made("modern"), torch.randint(4, 60, (16, 16), generator=torch.Generator().manual_seed(1))
    weights = Weights.of(model).tensors
    seen: list[Tensor] = []
    model.get_output_embeddings().register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].flatten(0, -2)))
    with torch.no_grad():
        model(input_ids=tokens)
    [table] = Weights.of(model).embeddings
    nearest, tied = (
        compress(made("modern"), Recipe(quantize=GPTQ(bits, tied=tied)), calibration=[{"input_ids": tokens}]).weights
        for tied in (False, True)
    )
    errors = [float((seen[0] @ (each[table] - weights[table]).T).square().sum()) for each in (nearest, tied)]
    assert errors[1] < 0.9 * errors[0]
    assert all(torch.equal(nearest[name], tied[name]) for name in nearest if name != table)


@pytest.mark.parametrize("method", [Wanda(0.25), SparseGPT(0.25), SparseGPT(0.25, block_size=16)])
def test_exactly_the_share_becomes_zero(layers: nn.Module, inputs: Tensor, method: Wanda | SparseGPT) -> None:
    weights = compress(layers, Recipe(method), calibration=[inputs]).weights
    for name in ("wide.weight", "tall.weight", "words.weight"):
        assert int((weights[name] == 0).sum()) == round(0.25 * weights[name].numel())


@pytest.mark.parametrize("method", [Wanda(0.5, m=4), SparseGPT(0.5, m=4), SparseGPT(0.5, m=4, block_size=8)])
def test_two_of_every_four_are_left(layers: nn.Module, inputs: Tensor, method: Wanda | SparseGPT) -> None:
    weights = compress(layers, Recipe(method), calibration=[inputs]).weights
    for name in ("wide.weight", "tall.weight", "words.weight"):
        assert bool(((weights[name].view(-1, 4) == 0).sum(1) == 2).all())


def test_wanda_is_the_formula(layers: nn.Module, inputs: Tensor) -> None:
    weight = layers.wide.weight.detach()  # type: ignore[union-attr]
    found = compress(layers, Recipe(Wanda(0.5, calibration_rows=400)), calibration=[inputs]).weights["wide.weight"]
    scores = weight.abs() * inputs.norm(dim=0)
    for row, values, own in zip(found, weight, scores, strict=True):
        smallest = own.argsort()[:24]
        assert torch.equal(row, values.index_fill(0, smallest, 0.0))


def test_wanda_masks_are_nested(layers: nn.Module, inputs: Tensor) -> None:
    less, more = (
        compress(layers, Recipe(Wanda(sparsity)), calibration=[inputs]).weights["tall.weight"]
        for sparsity in (0.3, 0.6)
    )
    assert bool(((less != 0) | (more == 0)).all())


def test_uncorrelated_inputs_of_one_size_make_all_three_their_plain_counterparts() -> None:
    matrix = torch.randn((8, 16), generator=torch.Generator().manual_seed(0))
    factor = inverse_factor(torch.eye(16, dtype=torch.float64), 0.01)
    assert torch.equal(correct(matrix, factor, GPTQ(3)).dense(), quantize(matrix, Uniform(3)).dense())
    pruned = prune(matrix, factor, SparseGPT(0.5))
    torch.testing.assert_close(pruned, compress(_layer(matrix), Recipe(Magnitude(0.5))).weights["weight"])


def test_sparsegpt_gives_the_best_weights_for_one_pruned_column() -> None:
    """With the first column pruned, what is left is the least-squares solution (damped as the Hessian)."""
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn((200, 6), generator=generator) @ torch.randn((6, 6), generator=generator)
    matrix = torch.randn((3, 6), generator=generator)
    matrix[:, 0] = 1e-4
    hessian = (inputs.T @ inputs / 200).double()
    damped = hessian + 0.01 * hessian.diagonal().mean() * torch.eye(6)
    pruned = prune(matrix, inverse_factor(hessian, 0.01), SparseGPT(1 / 6))
    assert bool((pruned[:, 0] == 0).all())
    best = torch.linalg.solve(damped[1:, 1:], damped[1:] @ matrix.double().T).T
    torch.testing.assert_close(pruned[:, 1:].double(), best, rtol=1e-4, atol=1e-6)


def test_gptq_in_blocks_is_gptq_column_by_column(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn((300, 20), generator=generator) @ torch.randn((20, 20), generator=generator)
    matrix = torch.randn((5, 20), generator=generator)
    factor = inverse_factor((inputs.T @ inputs / 300).double(), 0.01)
    whole = correct(matrix, factor, GPTQ(6)).codes
    monkeypatch.setattr("trainlarge.compression.methods.gptq.BLOCK", 7)
    assert (correct(matrix, factor, GPTQ(6)).codes.int() - whole.int()).abs().max() <= 1


@pytest.mark.parametrize("granularity", ["tensor", "row", "group"])
def test_pruned_weights_stay_zero_under_gptq(layers: nn.Module, inputs: Tensor, granularity: str) -> None:
    pruned = compress(layers, Recipe(SparseGPT(0.5)), calibration=[inputs]).weights
    both = compress(layers, Recipe(SparseGPT(0.5), GPTQ(4, granularity)), calibration=[inputs]).weights  # type: ignore[arg-type]
    assert all(bool((both[name][pruned[name] == 0] == 0).all()) for name in pruned)


def _layer(matrix: Tensor) -> nn.Linear:
    layer = nn.Linear(matrix.shape[1], matrix.shape[0], bias=False)
    layer.weight = nn.Parameter(matrix.clone())
    return layer
