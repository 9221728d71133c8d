"""Parameters, FLOPs and sizes of an architecture that is no family, taken off the library's own model.

The model is made without memory for its weights (torch's device ``meta``). FLOPs are those that
``torch.utils.flop_counter`` sees in the forward pass over one row: products of matrices and nothing else, as the
formulas of families count. Architectures whose forward pass asks for values, which such a model has not, are computed
with random weights instead.
"""

from __future__ import annotations

from functools import lru_cache
from typing import cast

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from transformers import PreTrainedModel

from trainlarge.config.model_sizes import ModelSizes
from trainlarge.errors import UserError
from trainlarge.models.build import library_class
from trainlarge.models.family import Head, ParameterCounts
from trainlarge.models.head_names import HeadNames
from trainlarge.models.library import library_config
from trainlarge.models.shape import Shape
from trainlarge.models.sizes import sizes_of_tensors

_PASSES = (("meta", False), ("meta", True), ("cpu", True))
"""Where a forward pass is tried, and whether padding is marked: where it is, most models look for it."""


def body_counts(shape: Shape) -> ParameterCounts:
    """Parameters without those of the head."""
    model = _model(shape.config or "", shape.labels, "meta")
    head, tables = HeadNames(model.base_model_prefix), _tables(model)
    tokens = cast(nn.Embedding, model.get_input_embeddings()).weight.numel()
    sizes = {name: part.numel() for name, part in model.named_parameters() if not head.holds(name)}
    other_tables = sum(size for name, size in sizes.items() if name in tables) - tokens
    return ParameterCounts(
        token_embedding=tokens,
        position_embedding=other_tables,
        encoder=sum(sizes.values()) - tokens - other_tables,
    )


def head_counts(shape: Shape) -> ParameterCounts:
    """Parameters of the head."""
    model = _model(shape.config or "", shape.labels, "meta")
    head = HeadNames(model.base_model_prefix)
    return ParameterCounts(head=sum(part.numel() for name, part in model.named_parameters() if head.holds(name)))


def sizes(shape: Shape) -> ModelSizes:
    """Sizes of its tensors, by which a recipe fits it or not."""
    model = _model(shape.config or "", shape.labels, "meta")
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    return sizes_of_tensors(model.config.model_type, shape.vocab_size, shapes)


@lru_cache(maxsize=4096)
def row_flops(shape: Shape, sequence_length: int) -> int:
    """FLOPs of the forward pass over a row.

    Raises:
        UserError: on ``checkpoint``, when the model gives no label for a row of tokens.
    """
    cause = ""
    for device, has_mask in _PASSES:
        try:
            return _flops(_model(shape.config or "", shape.labels, device), sequence_length, has_mask)
        except UserError:
            raise
        except Exception as error:  # each architecture has its own reasons
            cause = str(error).partition("\n")[0][:200]
    raise _no_labels(shape, cause)


def _flops(model: PreTrainedModel, length: int, has_mask: bool) -> int:
    # Sequence-to-sequence models look for the token that ends a text; token 1 is in every vocabulary.
    ids = torch.ones(1, length, dtype=torch.int64, device=model.device)
    end = model.config.eos_token_id
    if isinstance(end, int):
        ids[:, -1] = end
    mask = {"attention_mask": torch.ones_like(ids)} if has_mask else {}
    with FlopCounterMode(display=False) as counter:
        logits = model(input_ids=ids, **mask).logits
    if logits.shape != (1, model.config.num_labels):
        raise ValueError("its outputs are not those of a row")
    return int(counter.get_total_flops())


@lru_cache(maxsize=4)
def _model(text: str, labels: int, device: str) -> PreTrainedModel:
    config = library_config(text)
    config.num_labels, config.pad_token_id = labels, config.pad_token_id or 0
    config._attn_implementation = "eager"
    with torch.random.fork_rng(devices=[]), torch.device(device):
        model = library_class(config, Head.SEQUENCE_LABEL)(config)
    model.train(False)
    return model


def _tables(model: PreTrainedModel) -> set[str]:
    """Names of the tables of vectors."""
    return {f"{name}.weight" for name, part in model.named_modules() if isinstance(part, nn.Embedding)}


def _no_labels(shape: Shape, cause: str) -> UserError:
    model_type = library_config(shape.config or "").model_type
    return UserError("checkpoint", model_type, f"an architecture whose model labels rows of tokens ({cause})")
