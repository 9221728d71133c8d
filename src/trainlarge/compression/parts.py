"""What a recipe leaves of the parts of a model: it may take nearly all of one while the whole looks well."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from trainlarge.compression.stored.pattern import nonzero_count
from trainlarge.compression.stored.stored_tensor import StoredTensor
from trainlarge.compression.weights import Weights
from trainlarge.config.recipe import Recipe

NEARLY_NOTHING = 0.05
"""Share of the weights of a part that are left, below which it is told."""
UNEVEN = 0.25
"""And by how much less that is than what is left of all matrices: a recipe that takes 97 % of each is as asked for."""
_PRUNE_HINT = (
    "prune.scope=tensor or row takes the same share of each matrix, prune.embeddings=false leaves the embeddings as "
    "they are"
)
_QUANTIZE_HINT = "quantize.granularity=row has a range of its own for each row"
SHOWN = 3
"""Names of matrices in one line."""


def left_by_matrix(weights: Weights, stored: Mapping[str, StoredTensor]) -> dict[str, float]:
    """Name of a matrix -> share of its weights that are not zero in the compressed model.

    Args:
        weights: what is left of the checkpoint.
        stored: how its tensors are stored.
    """
    return {name: stored[name].pattern.count / stored[name].shape.numel() for name in weights.all_matrices}


def nearly_lost(weights: Weights, stored: Mapping[str, StoredTensor]) -> list[str]:
    """Matrices of which nearly nothing is left, and far less than of the rest, from the emptiest on.

    Args:
        weights: what is left of the checkpoint; a matrix that was zero before is not lost.
        stored: how its tensors are stored.
    """
    left = left_by_matrix(weights, stored)
    limit = min(NEARLY_NOTHING, UNEVEN * _share(left, stored, left))
    lost = [name for name in left if left[name] < limit and left[name] < UNEVEN * _share_before(weights, name)]
    return sorted(lost, key=left.__getitem__)


def loss_of_parts(weights: Weights, stored: Mapping[str, StoredTensor], recipe: Recipe) -> str | None:
    """One line about the matrices of ``nearly_lost``; None without any.

    Args:
        weights: what is left of the checkpoint.
        stored: how its tensors are stored.
        recipe: what was done.
    """
    lost = nearly_lost(weights, stored)
    if not lost:
        return None
    left = left_by_matrix(weights, stored)
    body = [name for name in left if name not in weights.embeddings]
    whole, of_body = (_percent(_share(names, stored, left)) for names in (left, body))
    names = ", ".join(f"{_percent(left[name])} of {name}" for name in lost[:SHOWN])
    more = f" and as little of {len(lost) - SHOWN} more" if len(lost) > SHOWN else ""
    return (
        f"{recipe.describe()} leaves {whole} of the weights of all matrices, {of_body} of those outside the "
        f"embeddings, and only {names}{more}; {_PRUNE_HINT if recipe.prune else _QUANTIZE_HINT}"
    )


def _share(names: Iterable[str], stored: Mapping[str, StoredTensor], left: Mapping[str, float]) -> float:
    """The share that is left of several matrices together; 0 where they have no weights."""
    sizes = {name: stored[name].shape.numel() for name in names}
    return sum(left[name] * size for name, size in sizes.items()) / max(1, sum(sizes.values()))


def _share_before(weights: Weights, name: str) -> float:
    tensor = weights.tensors[name]
    return nonzero_count(tensor) / tensor.numel()


def _percent(share: float) -> str:
    return f"{100 * share:.2g} %"
