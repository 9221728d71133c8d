"""Magnitude pruning: weights that are ranked together are ranked once for all sparsities of a grid."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainlarge.compression.ranking import zero_small_in_rows
from trainlarge.compression.registry import Shared, applies
from trainlarge.compression.stored.dense import Dense
from trainlarge.compression.stored.stored_tensor import StoredTensor
from trainlarge.config.prune import Magnitude

_LEADING = 1 << 15
"""Values of the 16 leading bits of a magnitude, of which the first, the sign, is 0."""
_PIECE = 1 << 20
"""Weights that are processed at a time."""


Floats = NDArray[np.floating]
"""[n] magnitudes in float32 or float64."""


@dataclass(frozen=True)
class Cut:
    """Where the ranking of a group of weights by (magnitude, position) is cut: weights before it become zero."""

    threshold: float
    """Every weight of a smaller magnitude is before the cut."""

    ties: int
    """How many weights of exactly this magnitude are before the cut, too: the first ones by position."""

    @classmethod
    def of(cls, ordered: Floats, count: int) -> Cut:
        """The cut with ``count`` of the sorted magnitudes before it."""
        threshold = ordered[count - 1]
        return cls(threshold=float(threshold), ties=count - int(np.searchsorted(ordered, threshold)))


Cuts = dict[float, list[Cut]]
"""Sparsity -> the cut of each group."""


@applies(Magnitude)
def magnitude(method: Magnitude, tensors: Mapping[str, Tensor], shared: Shared) -> dict[str, StoredTensor]:
    """Zero round(sparsity * n) weights of smallest magnitude among the n of each group."""
    if method.scope in ("row", "block"):
        return {name: zero_small_in_rows(name, tensor, method.sparsity, method.m) for name, tensor in tensors.items()}
    if method.scope == "global":
        # Not copied into a dictionary: each tensor is made when it is used, and none is kept.
        groups = [tensors] if tensors else []
    else:
        groups = [{name: tensor} for name, tensor in tensors.items()]

    def cuts_of_all() -> Cuts:
        sparsities = _sparsities(method, shared)
        by_group = [find_cuts(group.values(), sparsities) for group in groups]
        return {sparsity: [cuts[i] for cuts in by_group] for i, sparsity in enumerate(sparsities)}

    cuts = shared.once(method.without("sparsity"), cuts_of_all)
    return {
        name: pruned
        for group, cut in zip(groups, cuts[method.sparsity], strict=True)
        for name, pruned in zero_before(cut, group).items()
    }


def find_cuts(tensors: Collection[Tensor], sparsities: Iterable[float]) -> list[Cut]:
    """The cut of each sparsity in the common ranking of all weights of ``tensors``, in one go and without a copy.

    A radix selection: weights are counted by the leading bits of their magnitude, which order them as the magnitudes
    do, and only those that share the leading bits of a cut are sorted.
    """
    total = sum(tensor.numel() for tensor in tensors)
    counts = [round(sparsity * total) for sparsity in sparsities]
    dtype = _comparable(tensors)
    histogram = np.zeros(_LEADING, dtype=np.int64)
    for piece in _pieces(tensors, dtype):
        histogram += np.bincount(_leading(piece), minlength=_LEADING)
    ends = histogram.cumsum()
    bins = {count: int(np.searchsorted(ends, count)) for count in counts if count}
    ordered = _sorted_bins(_pieces(tensors, dtype), sorted(set(bins.values())))
    before = {number: int(ends[number - 1]) if number else 0 for number in ordered}
    cuts = {count: Cut.of(ordered[number], count - before[number]) for count, number in bins.items()}
    return [cuts.get(count, Cut(0.0, 0)) for count in counts]


def zero_before(cut: Cut, tensors: Mapping[str, Tensor]) -> dict[str, Dense]:
    """``tensors`` with the weights before the cut set to +0; positions run through the tensors in order."""
    pruned, ties, dtype = {}, cut.ties, _comparable(tensors.values())
    for name, tensor in tensors.items():
        magnitudes = tensor.to(dtype).abs().reshape(-1).numpy()
        before = magnitudes < cut.threshold
        if ties:
            tied = np.flatnonzero(magnitudes == cut.threshold)[:ties]
            before[tied] = True
            ties -= len(tied)
        pruned[name] = Dense.pruned(tensor, torch.from_numpy(before))
    return pruned


def _sparsities(method: Magnitude, shared: Shared) -> list[float]:
    """The sparsities of all methods of the grid that differ from ``method`` in nothing else."""
    others = (other for other in shared.methods if isinstance(other, Magnitude))
    alike = {other.sparsity for other in others if other.without("sparsity") == method.without("sparsity")}
    return sorted({method.sparsity, *alike})


def _pieces(tensors: Iterable[Tensor], dtype: torch.dtype) -> Iterator[Floats]:
    """The magnitudes of all weights, ``_PIECE`` of them at a time."""
    for tensor in tensors:
        for piece in torch.split(tensor.reshape(-1), _PIECE):
            yield piece.to(dtype).abs().numpy()


def _leading(magnitudes: Floats) -> NDArray[np.signedinteger]:
    """The 16 leading bits of each: bits of numbers that are not negative are ordered as the numbers are."""
    bits = 8 * magnitudes.itemsize
    return magnitudes.view(f"i{magnitudes.itemsize}") >> (bits - 16)


def _sorted_bins(pieces: Iterable[Floats], bins: Sequence[int]) -> dict[int, Floats]:
    """Leading bits -> all magnitudes that begin with them, sorted."""
    is_wanted = np.zeros(_LEADING, dtype=bool)
    is_wanted[bins] = True
    wanted = np.sort(np.concatenate([piece[is_wanted[_leading(piece)]] for piece in pieces]))
    edges = np.searchsorted(_leading(wanted), [*bins, _LEADING])
    return {number: wanted[begin:end] for number, (begin, end) in zip(bins, pairwise(edges), strict=True)}


def _comparable(tensors: Iterable[Tensor]) -> torch.dtype:
    """A data type that holds all of them, and that NumPy knows: it has no bfloat16."""
    return reduce(torch.promote_types, (tensor.dtype for tensor in tensors), torch.float32)
