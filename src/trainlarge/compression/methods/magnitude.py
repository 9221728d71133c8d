"""Magnitude pruning: weights that are ranked together are ranked once for all sparsities of a grid."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from trainlarge.compression.forms import Form, Plain
from trainlarge.compression.ranking import zero_in_rows
from trainlarge.compression.registry import Shared, applies
from trainlarge.config.prune import Magnitude


@dataclass(frozen=True)
class Cut:
    """Where the ranking of a group of weights by (magnitude, position) is cut: weights before it become zero."""

    threshold: float
    """Every weight of a smaller magnitude is before the cut."""

    ties: int
    """How many weights of exactly this magnitude are before the cut, too: the first ones by position."""


Cuts = dict[float, list[Cut]]
"""Sparsity -> the cut of each group."""


@applies(Magnitude)
def magnitude(method: Magnitude, tensors: Mapping[str, Tensor], shared: Shared) -> dict[str, Form]:
    """Zero round(sparsity * n) weights of smallest magnitude among the n of each group."""
    if method.scope in ("row", "block"):
        return {name: Plain(_pruned_rows(name, tensor, method)) for name, tensor in tensors.items()}
    groups = _groups(method, tensors)
    cuts = shared.once(replace(method, sparsity=0.0), lambda: _cuts(groups, _sparsities(method, shared)))
    return {
        name: Plain(values)
        for group, cut in zip(groups, cuts[method.sparsity], strict=True)
        for name, values in zero_before(cut, group).items()
    }


def find_cuts(tensors: Iterable[Tensor], sparsities: Iterable[float]) -> list[Cut]:
    """The cut of each sparsity in the common ranking of all weights of ``tensors``, in one go."""
    magnitudes = _wide(torch.cat([tensor.flatten() for tensor in tensors])).abs_().numpy()
    counts = [round(sparsity * magnitudes.size) for sparsity in sparsities]
    # In place and only as far as needed: a full sort takes five times as long, torch.sort three times the memory.
    magnitudes.partition(np.array(sorted({count - 1 for count in counts if count}), dtype=np.int64))
    return [_cut(magnitudes, count) for count in counts]


def zero_before(cut: Cut, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copies of ``tensors`` with the weights before the cut set to +0; positions run through the tensors in order."""
    pruned, ties = {}, cut.ties
    for name, tensor in tensors.items():
        magnitudes = _wide(tensor).abs()
        before = magnitudes < cut.threshold
        if ties:
            tied = (magnitudes == cut.threshold).flatten().nonzero().flatten()[:ties]
            before.view(-1)[tied] = True
            ties -= len(tied)
        pruned[name] = tensor.masked_fill(before, 0.0)
    return pruned


def _pruned_rows(name: str, tensor: Tensor, method: Magnitude) -> Tensor:
    scores = _wide(tensor).abs().reshape(len(tensor), -1)
    return zero_in_rows(name, tensor, scores, method.sparsity, method.m)


def _groups(method: Magnitude, tensors: Mapping[str, Tensor]) -> list[dict[str, Tensor]]:
    singles = [{name: tensor} for name, tensor in tensors.items()]
    return {"global": [dict(tensors)] if tensors else [], "tensor": singles}[method.scope]


def _sparsities(method: Magnitude, shared: Shared) -> list[float]:
    """The sparsities of all methods of the grid that differ from ``method`` in nothing else."""
    alike = [
        other.sparsity
        for other in (method, *shared.methods)
        if isinstance(other, Magnitude) and replace(other, sparsity=method.sparsity) == method
    ]
    return sorted(set(alike))


def _cuts(groups: list[dict[str, Tensor]], sparsities: list[float]) -> Cuts:
    by_group = [find_cuts(group.values(), sparsities) for group in groups]
    return {sparsity: [cuts[i] for cuts in by_group] for i, sparsity in enumerate(sparsities)}


def _cut(partitioned: np.ndarray, count: int) -> Cut:
    """The cut before which ``count`` weights lie; the magnitude of that rank is in its place."""
    if count == 0:
        return Cut(threshold=0.0, ties=0)
    threshold = partitioned[count - 1]
    smaller = int(np.count_nonzero(partitioned[:count] < threshold))
    return Cut(threshold=float(threshold), ties=count - smaller)


def _wide(tensor: Tensor) -> Tensor:
    """In float32 or wider: NumPy has no bfloat16."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))
