"""How large a compressed model is, by three measures side by side, each with and without embeddings."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction

import torch
from torch import Tensor

from trainlarge.compression.stored.coded import Coded
from trainlarge.compression.stored.dense_plus_sparse import DensePlusSparse
from trainlarge.compression.stored.packing import Packed
from trainlarge.compression.stored.payload import select
from trainlarge.compression.stored.repaired import Repaired
from trainlarge.compression.stored.stored_tensor import StoredTensor
from trainlarge.compression.weights import Weights


@dataclass(frozen=True)
class Sizes:
    """Sizes of a compressed model; tied matrices count once.

    ``without_embeddings`` leaves out token and position embeddings, and with them a tied output matrix.
    """

    parameters: int
    """All parameters."""

    parameters_without_embeddings: int
    """All parameters outside the embeddings."""

    nonzero_parameters: int
    """Parameters that are not zero after pruning. Weights that quantization rounds to 0 still count, as in Li et al.,
    unless they are pruned afterwards."""

    nonzero_parameters_without_embeddings: int
    """The same outside the embeddings."""

    ideal_bytes: int
    """bits * nonzero / 8 over the matrices (Li et al. 2020, section 4: no scales, no index of the zeros), with 32 bits
    where they are not quantized, plus the vectors in full at 32 bits (16 for a checkpoint in half precision)."""

    ideal_bytes_without_embeddings: int
    """The same outside the embeddings."""

    dense_bytes: int
    """The parameters of the checkpoint before compression, in its own data types: what sizes are relative to."""

    dense_bytes_without_embeddings: int
    """The same outside the embeddings."""

    file_bytes: int
    """Exact bytes of the packed file: with scales, masks, header and configuration."""

    file_bytes_without_embeddings: int
    """The packed file without the payload of the embedding matrices."""

    entropy_bits: float | None = None
    """``entropy_bits`` of its tensors."""

    @classmethod
    def of(cls, weights: Weights, packed: Packed) -> Sizes:
        """Sizes by formula: nothing is encoded."""
        counted = [name for name in packed.stored if name not in weights.buffers]
        body = [name for name in counted if name not in weights.embeddings]
        file_bytes = packed.file_bytes()
        return cls(
            parameters=_parameters(packed, counted),
            parameters_without_embeddings=_parameters(packed, body),
            nonzero_parameters=_nonzero(packed, counted),
            nonzero_parameters_without_embeddings=_nonzero(packed, body),
            ideal_bytes=_ideal_bytes(weights, packed, counted),
            ideal_bytes_without_embeddings=_ideal_bytes(weights, packed, body),
            dense_bytes=weights.dense_bytes,
            dense_bytes_without_embeddings=weights.dense_bytes_without_embeddings,
            file_bytes=file_bytes,
            file_bytes_without_embeddings=file_bytes - sum(map(packed.payload_bytes, weights.embeddings)),
            entropy_bits=entropy_bits(packed.stored.values()),
        )


def entropy_bits(tensors: Iterable[StoredTensor]) -> float | None:
    """Bits per quantized weight that an ideal coder takes which knows how frequent the codes of each tensor are.

    H = -sum p log2 p (Shannon 1948) over the codes, over their differences to the zero point of their group, or over
    those that are not 0 and one for 0, whichever is least. Neither scales nor books nor outliers are in it.

    Returns:
        The mean over all weights of the tensors that are codes; None where there are none.
    """
    bits, weights = 0.0, 0
    for tensor in tensors:
        codes = tensor.body if isinstance(tensor, DensePlusSparse | Repaired) else tensor
        if isinstance(codes, Coded):
            bits += min(map(_total_entropy, _frequencies(codes)))
            weights += codes.codes.numel()
    return bits / weights if weights else None


def _total_entropy(counts: Tensor) -> float:
    """Bits of all codes that occur so often."""
    counts = counts[counts > 0].double()
    return -float((counts * (counts / counts.sum()).log2()).sum())


def _frequencies(tensor: Coded) -> Iterator[Tensor]:
    """How often each code occurs: with 0 as a code of its own, and for each way to write every weight."""
    # As bytes, the sign -1 is 255.
    mask, codes = tensor.mask(), tensor.codes.view(torch.uint8)
    stored = select(codes, mask)
    yield torch.cat([stored.bincount(), torch.tensor([len(mask) - len(stored)])])
    for symbols in tensor.symbols():
        yield symbols.reshape(-1).bincount()


def _parameters(packed: Packed, names: list[str]) -> int:
    return sum(packed.stored[name].shape.numel() for name in names)


def _nonzero(packed: Packed, names: list[str]) -> int:
    return sum(packed.stored[name].nonzero for name in names)


def _ideal_bytes(weights: Weights, packed: Packed, names: list[str]) -> int:
    bits: int | Fraction = 0
    for name in names:
        tensor = packed.stored[name]
        bits += tensor.bits * (tensor.nonzero if name in weights.matrices else tensor.shape.numel())
    return -(-bits // 8)
