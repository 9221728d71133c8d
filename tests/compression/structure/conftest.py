"""Encoders and a decoder of several layers and heads, with biases that are not zero."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import lru_cache, partial

import pytest
import torch
from torch import Tensor
from transformers import (
    DistilBertConfig,
    DistilBertForMaskedLM,
    PreTrainedModel,
)

from trainlarge.compression.layout.encoder import find_encoder
from trainlarge.compression.layout.tokens import TokenFacts
from trainlarge.models.build import build_model
from trainlarge.models.families import FAMILIES
from trainlarge.models.shape import Shape

VOCABULARY, WIDTH, DEPTH, HEADS, NEURONS = 60, 24, 4, 4, 40
SHAPE = {
    "vocab_size": VOCABULARY,
    "hidden_size": WIDTH,
    "intermediate_size": NEURONS,
    "num_hidden_layers": DEPTH,
    "num_attention_heads": HEADS,
    "max_position_embeddings": 40,
    "pad_token_id": 0,
    "bos_token_id": None,
    "eos_token_id": None,
    "initializer_range": 0.3,
}


def _family(name: str, depth: int, tied: bool = True) -> PreTrainedModel:
    """The model with which a family is pretrained."""
    shape = Shape(name, WIDTH, depth, HEADS, NEURONS / WIDTH, vocab_size=VOCABULARY, positions=40, tied=tied)
    return build_model(shape, init_std=0.3, seed=0, attention="sdpa")


MODELS: dict[str, Callable[[int], PreTrainedModel]] = {
    **{name: partial(_family, name) for name in FAMILIES},
    "untied": partial(_family, "roberta", tied=False),
    "untied llama": partial(_family, "llama", tied=False),
    "distilbert": lambda depth: DistilBertForMaskedLM(
        DistilBertConfig(
            vocab_size=VOCABULARY, dim=WIDTH, hidden_dim=NEURONS, n_layers=depth, n_heads=HEADS, initializer_range=0.3
        )
    ),
}


def made(name: str, depth: int = DEPTH) -> PreTrainedModel:
    """A model with fixed random weights, biases too."""
    return copy.deepcopy(_built(name, depth))


@lru_cache
def _built(name: str, depth: int) -> PreTrainedModel:
    torch.manual_seed(0)
    model = MODELS[name](depth)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(torch.randn_like(parameter) * 0.2)
    return model.eval()


def make_idle(model: PreTrainedModel, layers: list[int]) -> None:
    """These layers hand on what they are given, as a hook of the whole model."""
    name = find_encoder(model).layers
    for layer in layers:
        model.get_submodule(f"{name}.{layer}").register_forward_hook(lambda module, inputs, output: inputs[0])


@pytest.fixture(params=list(MODELS))
def encoder(request: pytest.FixtureRequest) -> PreTrainedModel:
    """Each kind of encoder in turn."""
    return made(request.param)


@pytest.fixture
def tokens() -> Tensor:
    """Token ids [rows, sequence], none of them special."""
    return torch.randint(4, VOCABULARY, (3, 16), generator=torch.Generator().manual_seed(0))


@pytest.fixture
def facts() -> TokenFacts:
    """Token 3 is the mask token; of the others the higher the number, the more frequent."""
    return TokenFacts(torch.arange(VOCABULARY), special=frozenset(range(4)), unknown=3)
