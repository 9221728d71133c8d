"""What a recipe takes: bytes of its packed file by formula, and seconds as those that are done in a study took."""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from itertools import islice

from trainlarge.config.method import MatrixMethod, Method
from trainlarge.config.recipe import Recipe
from trainlarge.models.counts import parameter_counts
from trainlarge.models.family import Head
from trainlarge.models.shape import Shape
from trainlarge.sweep.records import CompressRecord
from trainlarge.sweep.store import Study

FLOAT_BYTES = 4
PACKED_HEADER_BYTES = 2500
"""A packed file holds the model's configuration and the names of its tensors."""
LOOKED_AT = 200
"""Compress records that are read to learn how long a recipe takes."""


def packed_bytes(shape: Shape, recipe: Recipe, head: Head | None = None) -> int:
    """About the size of the packed file of a model of ``shape`` with ``head`` that is compressed by ``recipe``.

    The bits of the weights that are left, a bit for each weight where some are pruned, step and zero point of each row
    where rows are quantized on their own, and the header. Embeddings may have bits of their own, or be left alone.
    """
    counts = parameter_counts(shape, head)
    embeddings = counts.embedding - counts.untied_output
    body = _weights_bytes(counts.total - embeddings, shape.width, recipe.prune, recipe.quantize)
    on_embeddings = map(MatrixMethod.on_embeddings, (recipe.prune, recipe.quantize))
    return round(body + _weights_bytes(embeddings, shape.width, *on_embeddings) + PACKED_HEADER_BYTES)


def _weights_bytes(weights: int, width: int, prune: Method | None, quantize: Method | None) -> float:
    sparsity, bits = getattr(prune, "sparsity", 0.0), getattr(quantize, "bits", 8 * FLOAT_BYTES)
    rows = weights / width if getattr(quantize, "granularity", None) == "row" else 0
    return weights * ((1 - sparsity) * bits + (1 if sparsity else 0)) / 8 + 2 * FLOAT_BYTES * rows


def seconds_of_recipes(study: Study) -> dict[int, tuple[float, str]]:
    """Parameters -> seconds of one recipe without recovery, the median of those that are done, and their device."""
    by_parameters: dict[int, list[CompressRecord]] = {}
    for record in _some_records(study):
        if not record.recover_steps:
            by_parameters.setdefault(record.parameters, []).append(record)
    return {
        parameters: (statistics.median(record.seconds for record in records), records[-1].environment.device_name)
        for parameters, records in by_parameters.items()
    }


def _some_records(study: Study) -> Iterable[CompressRecord]:
    """Of cells that are done; damaged ones do not prevent a forecast."""
    done = (folder for folder in study.folders("compress") if folder.is_done() and not folder.damaged_result())
    return islice((folder.compress_record() for folder in done), LOOKED_AT)
