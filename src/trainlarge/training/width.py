"""Width transfer beyond the peak rate: what the rule ``optim.lr_rule`` says of each tensor's initial values and rate.

The base model, of width ``optim.base_width`` and heads of 64 channels, is the same under every rule. With the width
multiplier m = width / base_width, muP (Yang et al. 2022, arXiv 2203.03466, for Adam) asks for

=======================================  ====================  ===========  ==========
tensor                                   initial variance      rate         multiplier
=======================================  ====================  ===========  ==========
embeddings, norms, biases                that of the base      that of it   1
hidden matrices                          the base's / m        the base's / m  1
output matrix, tied or not               that of the base      that of it   1 / m
scores of queries and keys               –                     –            8 / d for 1 / sqrt(d)
=======================================  ====================  ===========  ==========

for heads of d channels. A multiplier c in front of a tensor W does, under Adam, what initial values and a rate that are
c times as large do to c W, apart from Adam's epsilon. So the multipliers go into tensors: that of the output into
the norm in front of the output matrix (into that matrix itself where there is no such norm), that of the scores into
the queries. The model stays a plain Hugging Face model with the same forward pass. The variance of hidden matrices
follows from ``arch.init_std``, which is per sqrt(width) already. The decay of a matrix stays what it is at the base
width: rate times decay does not depend on m, as in the authors' package. What is only advised there is left out: zero
initial values of queries and output.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from trainlarge.config.optim import OptimConfig
from trainlarge.models.families import MODEL_CLASSES
from trainlarge.models.layout import UnitLayout
from trainlarge.training.sharding import first_rows_here

HEAD_WIDTH = 64
"""Channels of a head at which muP's scores are the usual ones: 8 / 64 = 1 / sqrt(64)."""


@dataclass(frozen=True)
class WidthScale:
    """What a rule makes of one tensor, against the same tensor without the rule."""

    initial: float = 1.0
    """Factor of the initial values."""
    rate: float = 1.0
    """Factor of the learning rate."""
    queries: float = 1.0
    """One more factor of both for the rows that make queries, where one matrix makes queries, keys and values."""


PLAIN = WidthScale()
"""A tensor that the rule leaves alone."""


def scales(model: PreTrainedModel, optim: OptimConfig) -> dict[str, WidthScale]:
    """Name of each trained parameter -> its scale by the rule ``optim.lr_rule``.

    Args:
        model: one that :func:`trainlarge.models.build.build_model` made.
        optim: the group ``optim``.
    """
    names = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    rule = RULES.get(optim.lr_rule)
    if rule is None:
        return dict.fromkeys(names, PLAIN)
    parts, width, heads = _parts(model), model.config.hidden_size, model.config.num_attention_heads
    return {name: rule(parts[name], width, heads, optim.base_width) for name in names}


@torch.no_grad()
def scale_initial_weights(model: PreTrainedModel, optim: OptimConfig) -> None:
    """Multiply the new weights by what the rule says."""
    parameters = dict(model.named_parameters())
    for name, scale in scales(model, optim).items():
        if scale.initial != 1:
            parameters[name].mul_(scale.initial)
        if scale.queries != 1:
            query_rows(parameters[name]).mul_(scale.queries)


@contextmanager
def query_steps(factors: Sequence[tuple[Tensor, float]], decay: float) -> Iterator[None]:
    """Make the optimizer's step inside the block ``factor`` times as large for the query rows of joint matrices.

    Args:
        factors: joint matrices with their factors.
        decay: share of a weight that the step takes away, which stays as it is.
    """
    before = [query_rows(weight).detach().clone() for weight, _ in factors]
    yield
    with torch.no_grad():
        for (weight, factor), old in zip(factors, before, strict=True):
            rows = query_rows(weight)
            rows.copy_(old.lerp(rows, factor).add_(old, alpha=(factor - 1) * decay))


def query_rows(weight: Tensor) -> Tensor:
    """The rows of a joint matrix [3 * width, width] that make queries, or those of them that this rank has."""
    return first_rows_here(weight, len(weight) // 3)


def _mup(part: str, width: int, heads: int, base_width: int) -> WidthScale:
    m, d = width / base_width, width / heads
    queries = math.sqrt(HEAD_WIDTH / d)
    return {
        "vector": PLAIN,
        # Drawn with the deviation of hidden matrices, which is 1 / sqrt(m) of the base's.
        "embedding": WidthScale(initial=math.sqrt(m)),
        "output norm": WidthScale(initial=1 / m, rate=1 / m),
        "output": WidthScale(initial=1 / math.sqrt(m), rate=1 / m),
        "hidden": WidthScale(rate=1 / m),
        "query": WidthScale(initial=queries, rate=queries / m),
        "query bias": WidthScale(initial=queries, rate=queries),
        "query, key, value": WidthScale(rate=1 / m, queries=queries),
    }[part]


def _parts(model: PreTrainedModel) -> dict[str, str]:
    """Name of each parameter -> its part in the model, as the table of :func:`_mup` names them."""
    family, head = MODEL_CLASSES[type(model).__name__]
    output = model.get_submodule(head.output)
    parts = {id(table.weight): "embedding" for table in model.modules() if isinstance(table, nn.Embedding)}
    if head.output_norm is None:
        parts[id(output.weight)] = "output"
    else:
        # The norm has the output's multiplier, so that the matrix itself is treated like a table of vectors.
        parts[id(output.weight)] = "embedding"
        parts |= {id(parameter): "output norm" for parameter in model.get_submodule(head.output_norm).parameters()}
    return {
        name: parts.get(id(parameter)) or _hidden_part(name, parameter, family.layout.heads)
        for name, parameter in model.named_parameters()
    }


def _hidden_part(name: str, parameter: Tensor, heads: UnitLayout) -> str:
    owner, _, kind = name.rpartition(".")
    if owner.endswith(f".{heads.inputs[0]}"):
        if heads.parts == 3:
            return "query, key, value"
        return "query" if kind == "weight" else "query bias"
    return "hidden" if parameter.ndim == 2 else "vector"


RULES: dict[str, Callable[[str, int, int, int], WidthScale]] = {"mup": _mup}
"""Rule -> scale of a part of a model, by (part, width, heads, base width); rules that are not here change the peak rate
alone."""
