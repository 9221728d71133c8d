"""Models without weights, and changing their shapes to what compression left of a checkpoint."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel

from trainlarge.compression.layout.encoder import Block, Encoder, find_encoder
from trainlarge.compression.layout.shapes import Structure, Tokens
from trainlarge.compression.layout.tables import find_tables
from trainlarge.errors import UserError
from trainlarge.models.low_rank import LowRankEmbedding, LowRankLinear, tie

SPECIAL_IDS = tuple(f"{name}_token_id" for name in ("pad", "bos", "eos", "cls", "sep", "mask", "unk"))
"""Keys of a Hugging Face configuration that hold the number of a token."""


def skeleton_of(model: nn.Module) -> nn.Module:
    """A copy of the modules with parameters that have no values (torch's meta device) and buffers on the CPU."""
    empty: dict[int, object] = {
        id(parameter): nn.Parameter(parameter.detach().to("meta"), requires_grad=parameter.requires_grad)
        for parameter in model.parameters()
    }
    buffers = {id(buffer): buffer.detach().to("cpu", copy=True) for buffer in model.buffers()}
    return copy.deepcopy(model, {**empty, **buffers})


def filled(skeleton: nn.Module, structure: Structure, tensors: Mapping[str, Tensor]) -> nn.Module:
    """A new model of these modules and shapes whose parameters are ``tensors`` themselves (tied ones once)."""
    model = copy.deepcopy(skeleton)
    reshape(model, structure)
    shared: dict[int, nn.Parameter] = {}
    first: dict[int, str] = {}
    for name, entry in model.state_dict(keep_vars=True).items():
        owner, leaf = _owner(model, name)
        source = first.setdefault(id(entry), name)
        if isinstance(entry, nn.Parameter):
            given = tensors[source]
            parameter = shared.setdefault(id(entry), nn.Parameter(given, requires_grad=given.is_floating_point()))
            setattr(owner, leaf, parameter)
        else:
            setattr(owner, leaf, tensors[source])
    return model


def reshape(model: nn.Module, structure: Structure) -> None:
    """Give a model with the shapes of its checkpoint those of ``structure``, in place.

    What is cut or factorized is left without values. Raises UserError where the model has no such parts.
    """
    if structure.layers is not None:
        _keep_layers(model, structure.layers)
    for blocks, left in (("heads", structure.heads), ("neurons", structure.neurons)):
        if left is not None:
            counts = [len(kept) if isinstance(kept, tuple) else kept for kept in left]
            _resize_blocks(model, getattr(_encoder(model), blocks), counts)
    if structure.tokens is not None:
        _keep_tokens(model, structure.tokens)
    for name, rank in structure.ranks.items():
        _factorize(model, name, rank)


def _encoder(model: nn.Module) -> Encoder:
    encoder = find_encoder(model)
    if encoder is None:
        raise UserError("packed.structure", type(model).__name__, "of a model with the layers of a known encoder")
    return encoder


def _keep_layers(model: nn.Module, kept: tuple[int, ...]) -> None:
    encoder = _encoder(model)
    if kept[-1] >= encoder.depth:
        raise UserError("packed.structure", f"layer {kept[-1]}", f"of a model with more than {encoder.depth} layers")
    owner, leaf = _owner(model, encoder.layers)
    layers = getattr(owner, leaf)
    left = nn.ModuleList(layers[index] for index in kept)
    setattr(owner, leaf, left)
    for place, layer in enumerate(left):
        for module in layer.modules():
            # A decoder finds the keys and values that it has cached by the number of the layer.
            if hasattr(module, "layer_idx"):
                vars(module)["layer_idx"] = place
    config = getattr(model, "config", None)
    if config is not None:
        types = getattr(config, "layer_types", None)
        config.num_hidden_layers = len(kept)
        if types is not None:
            config.layer_types = [types[index] for index in kept]


def _resize_blocks(model: nn.Module, blocks: tuple[Block, ...], counts: list[int]) -> None:
    if len(blocks) != len(counts):
        raise UserError("packed.structure", f"{len(counts)} layers", f"of a model with {len(blocks)} layers")
    for block, count in zip(blocks, counts, strict=True):
        for name in block.inputs:
            _resize(cast(nn.Linear, model.get_submodule(name)), rows=block.parts * count * block.width)
        _resize(cast(nn.Linear, model.get_submodule(block.output)), columns=count * block.width)
        owner = model.get_submodule(block.inputs[0].rpartition(".")[0])
        # Some attentions (RoFormer's, RemBERT's) read the number of heads from attributes and not from shapes.
        for attribute, value in (
            ("num_attention_heads", count),
            ("n_heads", count),
            ("all_head_size", count * block.width),
        ):
            if hasattr(owner, attribute):
                setattr(owner, attribute, value)


def _resize(layer: nn.Linear, rows: int | None = None, columns: int | None = None) -> None:
    layer.out_features, layer.in_features = rows or layer.out_features, columns or layer.in_features
    layer.weight = _empty(layer.weight, layer.out_features, layer.in_features)
    if layer.bias is not None and rows:
        layer.bias = _empty(layer.bias, rows)


def _keep_tokens(model: nn.Module, tokens: Tokens) -> None:
    tables = find_tables(model)
    if tables is None or tables.size != tokens.size:
        raise UserError("packed.structure", f"{tokens.size} tokens", "of a model with that many tokens")
    entries = dict(model.named_parameters(remove_duplicate=False))
    outputs = [f"{tables.output}.weight"] if tables.output else []
    smaller: dict[int, nn.Parameter] = {}
    for name in (f"{tables.embedding}.weight", *outputs, *tables.vectors):
        old, (owner, leaf) = entries[name], _owner(model, name)
        setattr(owner, leaf, smaller.setdefault(id(old), _empty(old, len(tokens.kept), *old.shape[1:])))
    embedding = cast(nn.Embedding, model.get_submodule(tables.embedding))
    embedding.num_embeddings = len(tokens.kept)
    if tables.padding is not None:
        embedding.padding_idx = tokens.kept.index(tables.padding)
    if tables.output:
        cast(nn.Linear, model.get_submodule(tables.output)).out_features = len(tokens.kept)
    model.register_buffer("kept_tokens", torch.tensor(tokens.kept), persistent=False)
    # Only models of transformers have tables.
    _renumber_config(cast(PreTrainedModel, model).config, tokens)


def _renumber_config(config: PreTrainedConfig, tokens: Tokens) -> None:
    places = {token: place for place, token in enumerate(tokens.kept)}
    config.vocab_size = len(tokens.kept)
    for key in SPECIAL_IDS:
        token = getattr(config, key, None)
        if isinstance(token, int):
            setattr(config, key, places.get(token))


def _factorize(model: nn.Module, name: str, rank: int) -> None:
    owner, leaf = _owner(model, name)
    layer = getattr(owner, leaf)
    if isinstance(layer, nn.Embedding):
        table = LowRankEmbedding(layer, rank)
        setattr(owner, leaf, table)
        for other, output in list(model.named_modules()):
            if isinstance(output, nn.Linear) and output.weight is layer.weight:
                tied = LowRankLinear(output, rank)
                tie(tied, table)
                parent, last = _owner(model, other)
                setattr(parent, last, tied)
    elif isinstance(layer, nn.Linear):
        setattr(owner, leaf, LowRankLinear(layer, rank))
    else:
        raise UserError("packed.structure", name, "a linear layer or an embedding of the model")


def _empty(old: Tensor, *shape: int) -> nn.Parameter:
    return nn.Parameter(torch.empty(shape, dtype=old.dtype, device=old.device), requires_grad=old.requires_grad)


def _owner(model: nn.Module, name: str) -> tuple[nn.Module, str]:
    parent, _, leaf = name.rpartition(".")
    try:
        return model.get_submodule(parent), leaf
    except AttributeError as error:
        raise UserError("packed.structure", name, f"a part of {type(model).__name__}") from error
