"""Models of other architectures than the families: what their configurations may say, and how they count positions."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from trainlarge.models.families import FAMILIES
from trainlarge.models.layout import LayerLayout, UnitLayout

POSITIONS_FROM_PADDING = frozenset(
    [
        "camembert",
        "data2vec-text",
        "ibert",
        "longformer",
        "luke",
        "mpnet",
        "roberta",
        "xlm-roberta",
        "xlm-roberta-xl",
        "xmod",
    ]
)
"""Other architectures (``model_type``) that count positions from the padding token on."""
_DISTILBERT = LayerLayout(
    attention="attention",
    head_width="attention_head_size",
    heads=UnitLayout(("attention.q_lin", "attention.k_lin", "attention.v_lin"), 1, "attention.out_lin"),
    neurons=UnitLayout(("ffn.lin1",), 1, "ffn.lin2"),
)
LAYOUTS = tuple(dict.fromkeys([*(family.layout for family in FAMILIES.values()), _DISTILBERT]))
"""Layers that are known: those of every family, which many other architectures share, and DistilBERT's."""
ATTENTIONS = ("eager", "sdpa")
"""Implementations that are part of the libraries. Others may be fetched: a name with a slash is a kernel of the Hub."""
MOST_LAYERS = 1024
"""Layers, blocks or experts of a model: a module is made for each before any weight is."""
MOST_EXPERTS = 1 << 16
"""Experts of all layers together; DeepSeek-V3 has 15,616."""
MOST_COUNTED = 1 << 16
"""Heads, classes and the like, of which lists are made."""
MOST_SIZE = 1 << 31
"""Any other whole number, such as entries of the vocabulary."""
_ATTENTION = "attn_implementation"
_CODE = "auto_map"
"""The key that leads to Python files of a model."""
_LAYERS = re.compile(r"(layers?|experts?|blocks?|block_sizes|repeats?|depths?|groups|group_num)$")
_EXPERTS = re.compile(r"experts?$")
_COUNTED = re.compile(r"(heads?|labels|classes|buckets|stages|queries)$")
_PRETRAINED = ("backbone", "use_pretrained_backbone", "use_timm_backbone")


def counts_from_padding(model_type: str | None) -> bool:
    """Whether an architecture counts positions from the padding id + 1 and not from 0."""
    families = (family for family in FAMILIES.values() if family.model_type == model_type)
    return model_type in POSITIONS_FROM_PADDING or any(family.positions_from_padding for family in families)


def without_code(config: Mapping[str, object]) -> dict[str, object]:
    """A Hugging Face configuration (JSON data) without the keys that lead to Python files.

    Raises:
        ValueError: for an attention, a part or a size that is not allowed here; the message says which.
    """
    layers, experts = 1, 1
    for key, value in _entries(config):
        _check(key, value)
        if isinstance(value, int) and _EXPERTS.search(key):
            experts = max(experts, value)
        elif isinstance(value, int) and _LAYERS.search(key):
            layers = max(layers, value)
    if layers * experts > MOST_EXPERTS:
        raise ValueError(f"{experts} experts in {layers} layers: must be at most {MOST_EXPERTS} together")
    return {key: _without_code(value) for key, value in config.items() if key != _CODE}


def _check(key: str, value: object) -> None:
    if key.endswith(_ATTENTION) and value not in (None, *ATTENTIONS) and not isinstance(value, Mapping):
        raise ValueError(f"{key} {value}: must be {' or '.join(ATTENTIONS)}")
    if key in _PRETRAINED and value:
        raise ValueError(f"{key} {value}: must be a model that fetches no other")
    most = MOST_LAYERS if _LAYERS.search(key) else MOST_COUNTED if _COUNTED.search(key) else MOST_SIZE
    if isinstance(value, int) and abs(value) > most:
        raise ValueError(f"{key} {value}: must be at most {most}")


def _entries(value: object, key: str = "") -> Iterator[tuple[str, object]]:
    """Every value of nested data with the nearest key above it."""
    yield key, value
    if isinstance(value, Mapping):
        # One for each part of a model stands under the names of the parts.
        names = {name: key if key.endswith(_ATTENTION) else str(name) for name in value}
        for name, item in value.items():
            yield from _entries(item, names[name])
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _entries(item, key)


def _without_code(value: object) -> object:
    if isinstance(value, Mapping):
        return {key: _without_code(item) for key, item in value.items() if key != _CODE}
    return [_without_code(item) for item in value] if isinstance(value, list) else value
