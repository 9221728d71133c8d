"""How many parameters a shape has, by formula, part by part."""

from __future__ import annotations

from functools import lru_cache

from trainlarge.models.family import Head, ParameterCounts
from trainlarge.models.shape import Shape


# A plan of ten thousand cells asks once per job, of a few shapes.
@lru_cache(maxsize=1024)
def parameter_counts(shape: Shape, head: Head | None = None) -> ParameterCounts:
    """Parameters of the model that :func:`trainlarge.models.build.build_model` makes of a shape.

    Args:
        shape: the architecture.
        head: what the model predicts; None: what its family is pretrained with.

    Raises:
        UserError: on ``arch.name``, when the family has no such head.
    """
    return shape.family.counts(shape) + shape.family.head(head).counts(shape)
