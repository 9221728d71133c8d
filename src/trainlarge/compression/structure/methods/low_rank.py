"""Factorizing linear layers and the token embedding."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn

from trainlarge.compression.registry import Shared, reshapes
from trainlarge.compression.weights import Origin, Weights
from trainlarge.config.factorize import FixedRank, LowRank


class Factors(NamedTuple):
    """A singular value decomposition W = U D, the singular values in both factors by their roots."""

    up: Tensor
    """U [m, k], in the type of W."""

    down: Tensor
    """D [k, n], in the type of W."""

    values: Tensor
    """Singular values [k], falling, float64."""

    def cut(self, rank: int) -> Factors:
        """Copies of what belongs to the largest ``rank`` singular values."""
        up, down = (part.clone(memory_format=torch.contiguous_format) for part in (self.up[:, :rank], self.down[:rank]))
        return Factors(up, down, self.values[:rank])


def factorize(method: LowRank | FixedRank, weights: Weights, shared: Shared) -> Weights:
    """Factorize every matrix that becomes smaller by it."""
    # Remembered only where another recipe of the grid will ask: the factors are larger than the matrix.
    is_shared = sum(isinstance(other, (LowRank, FixedRank)) for other in shared.methods) > 1
    factorized: dict[str, Factors] = {}
    for module in _modules(weights, method.embeddings):
        tensor = weights.tensors[f"{module}.weight"]
        decompose = partial(decomposed, tensor)
        factors = shared.once(("svd", module), decompose) if is_shared else decompose()
        rank = rank_of(method, factors.values, *tensor.shape)
        if rank * sum(tensor.shape) < tensor.numel():
            factorized[module] = factors.cut(rank)
    return _with_products(weights, factorized)


# Once for each class, of which the function takes either.
reshapes(LowRank)(factorize)
reshapes(FixedRank)(factorize)


def decomposed(tensor: Tensor) -> Factors:
    """The decomposition of a matrix [m, n], computed in float64."""
    left, values, right = torch.linalg.svd(tensor.double(), full_matrices=False)
    root = values.sqrt()
    return Factors((left * root).to(tensor.dtype), (root.unsqueeze(1) * right).to(tensor.dtype), values)


def rank_of(method: LowRank | FixedRank, values: Tensor, rows: int, columns: int) -> int:
    """The rank of a matrix [rows, columns] with these singular values (falling)."""
    if isinstance(method, FixedRank):
        return method.rank
    if method.by == "parameters":
        return max(1, int(method.keep * rows * columns / (rows + columns)))
    energy = values.square().cumsum(0)
    return int(torch.count_nonzero(energy < method.keep * energy[-1])) + 1


def _modules(weights: Weights, embeddings: bool) -> list[str]:
    """Names of the linear layers with a matrix of their own that may be factorized, and of the token embedding."""
    modules = dict(weights.reshaped().named_modules())
    linear = [name for name, module in modules.items() if isinstance(module, nn.Linear)]
    table = [weights.tables.embedding] if embeddings and weights.tables else []
    whole = (name for name in (*table, *linear) if f"{name}.weight" in weights.tensors)
    return [name for name in whole if not weights.is_left_alone(name)]


def _with_products(weights: Weights, factorized: dict[str, Factors]) -> Weights:
    """With two factors in the place of each matrix."""
    ranks = {module: len(factors.down) for module, factors in factorized.items()}
    structure = replace(weights.structure, ranks={**weights.structure.ranks, **ranks})
    names = replace(weights, structure=structure).names()
    new: dict[str, Tensor] = {}
    origins: dict[str, Origin] = {}
    for module, factors in factorized.items():
        before = weights.origin(f"{module}.weight")
        for factor, dimension in (("up", 0), ("down", 1)):
            name = f"{module}.{factor}.weight"
            new[name] = getattr(factors, factor)
            origins[name] = replace(before, places={key: at for key, at in before.places.items() if key == dimension})
    # The bias of a factorized layer belongs to its upper factor.
    old = {name: name.replace(".up.bias", ".bias") for name in names if name not in weights.tensors}
    biases = {name: whole for name, whole in old.items() if name not in new}
    origins |= {name: weights.origin(whole) for name, whole in biases.items()}
    tables = {f"{module}.weight": module for module in factorized}
    factors_of = {whole: [f"{module}.up.weight", f"{module}.down.weight"] for whole, module in tables.items()}
    return replace(
        weights,
        tensors={name: new[name] if name in new else weights.tensors[biases.get(name, name)] for name in names},
        matrices=_with_factors(weights.matrices, factors_of),
        embeddings=_with_factors(weights.embeddings, factors_of),
        structure=structure,
        origins={**weights.origins, **origins},
    )


def _with_factors(names: frozenset[str], factors: dict[str, list[str]]) -> frozenset[str]:
    return frozenset(new for name in names for new in factors.get(name, [name]))
