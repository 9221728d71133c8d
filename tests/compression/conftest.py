"""Small real models to compress."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from transformers import (
    BertConfig,
    BertForMaskedLM,
    LlamaConfig,
    LlamaForCausalLM,
    ModernBertConfig,
    ModernBertForMaskedLM,
    PreTrainedModel,
    RobertaPreLayerNormConfig,
    RobertaPreLayerNormForMaskedLM,
)

from trainlarge.models.families import FAMILIES

SHAPE = {
    "vocab_size": 120,
    "hidden_size": 24,
    "intermediate_size": 40,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": 40,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}


@pytest.fixture
def modern() -> PreTrainedModel:
    """Tied token embedding, no biases, no learned positions."""
    torch.manual_seed(0)
    return ModernBertForMaskedLM(ModernBertConfig(**SHAPE, cls_token_id=1, sep_token_id=2)).eval()


@pytest.fixture
def roberta() -> PreTrainedModel:
    """Learned positions, biases, a padding row of zeros, tied biases."""
    torch.manual_seed(0)
    return RobertaPreLayerNormForMaskedLM(RobertaPreLayerNormConfig(**SHAPE)).eval()


@pytest.fixture
def llama() -> PreTrainedModel:
    """A decoder; tied token embedding, no biases, no learned positions."""
    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(**SHAPE, tie_word_embeddings=True)).eval()


@pytest.fixture
def bert() -> PreTrainedModel:
    """Learned positions, norms after each block, biases, tied biases."""
    torch.manual_seed(0)
    return BertForMaskedLM(BertConfig(**SHAPE)).eval()


@pytest.fixture(params=list(FAMILIES))
def model(request: pytest.FixtureRequest) -> PreTrainedModel:
    """Each of the model families in turn."""
    return request.getfixturevalue(request.param)


class Plainest(nn.Module):
    """No Hugging Face model: tied and untied matrices, a convolution, a vector, a persistent buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(13, 5)
        self.filter = nn.Conv1d(5, 7, 3)
        self.norm = nn.BatchNorm1d(7)
        self.out = nn.Linear(5, 13)
        self.out.weight = self.words.weight


@pytest.fixture
def plainest() -> nn.Module:
    """The model above with fixed weights."""
    torch.manual_seed(0)
    return Plainest()
