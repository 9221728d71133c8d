"""Quantization to a codebook found by k-means in one dimension."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from trainlarge.compression.registry import applies_to_each
from trainlarge.compression.stored.codebook import Codebook
from trainlarge.compression.stored.groups import rows_of
from trainlarge.compression.stored.pattern import nonzero_count
from trainlarge.config.quantize import KMeans


@applies_to_each(KMeans)
def cluster(tensor: Tensor, method: KMeans) -> Codebook:
    """Codebook and codes of one matrix, or of each of its rows. A weight of 0 stays 0."""
    values = rows_of(tensor, method.granularity)
    # As it will be stored, and without -0.
    book = find_values(values, method).to(tensor.dtype) + 0.0
    codes = torch.searchsorted(_borders(book), values).to(torch.uint8)
    return Codebook(codes=codes.view(tensor.shape), bits=method.bits, book=book, nonzero=nonzero_count(tensor))


def find_values(values: Tensor, method: KMeans) -> Tensor:
    """float64 [rows, 2^bits], ascending: the values that Lloyd's algorithm finds for weights [rows, n].

    On sorted weights a cluster is an interval, so a round costs a search for its ends and a difference of running sums.
    """
    ordered = torch.from_numpy(np.sort(values.numpy(), axis=1))
    sums = torch.cat([torch.zeros((len(ordered), 1), dtype=torch.float64), ordered.double().cumsum(1)], dim=1)
    count, lowest, highest = 2**method.bits, ordered[:, :1].double(), ordered[:, -1:].double()
    # The middles of equal parts of the range.
    book: Tensor = lowest + (highest - lowest) * (torch.arange(count, dtype=torch.float64) + 0.5) / count
    is_nearest_to_zero = torch.zeros_like(book, dtype=torch.bool).scatter_(1, book.abs().argmin(1, keepdim=True), True)
    fixed = is_nearest_to_zero & (values == 0).any(1, keepdim=True)
    book.masked_fill_(fixed, 0.0)
    for _ in range(method.iterations):
        moved = _moved(book, ordered, sums).masked_fill_(fixed, 0.0)
        if torch.equal(moved, book):
            break
        book = moved
    return book


def _moved(book: Tensor, ordered: Tensor, sums: Tensor) -> Tensor:
    """One round of Lloyd's algorithm; a value without weights stays where it is."""
    rows, count = ordered.shape
    inner = torch.searchsorted(ordered, _borders(book))
    ends = torch.cat([inner.new_zeros((rows, 1)), inner, inner.new_full((rows, 1), count)], dim=1)
    sizes = ends.diff(dim=1)
    return torch.where(sizes > 0, sums.gather(1, ends).diff(dim=1) / sizes.clamp(min=1), book)


def _borders(book: Tensor) -> Tensor:
    """float32 [rows, k - 1]: the middles between neighbours."""
    return ((book[:, 1:].double() + book[:, :-1].double()) / 2).float().contiguous()
