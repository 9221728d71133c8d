"""Which layers are known: those whose heads can be cut, and no others; every model can be quantized."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from transformers import (
    ConvBertConfig,
    ConvBertForMaskedLM,
    LongformerConfig,
    LongformerForMaskedLM,
    NystromformerConfig,
    NystromformerForMaskedLM,
    PreTrainedModel,
    RemBertConfig,
    RemBertForMaskedLM,
    RoFormerConfig,
    RoFormerForMaskedLM,
)

from trainlarge.compression import Heads, Neurons, Recipe, Uniform, Weights, compress
from trainlarge.errors import UserError

from .conftest import DEPTH, HEADS, SHAPE

OTHER_ATTENTIONS = [
    # No attention_head_size.
    lambda: LongformerForMaskedLM(LongformerConfig(**SHAPE, attention_window=8)),
    # Half of what the output layer takes in comes from a convolution.
    lambda: ConvBertForMaskedLM(ConvBertConfig(**SHAPE, embedding_size=24)),
    # A convolution over heads.
    lambda: NystromformerForMaskedLM(NystromformerConfig(**SHAPE)),
]
FIXED_NUMBERS = [
    lambda: RoFormerForMaskedLM(RoFormerConfig(**SHAPE)),
    lambda: RemBertForMaskedLM(RemBertConfig(**SHAPE)),
]


@pytest.mark.parametrize("make", OTHER_ATTENTIONS)
def test_layers_that_only_have_the_names_are_not_known(make: Callable[[], PreTrainedModel]) -> None:
    model = make()
    assert Weights.of(model).encoder is None
    assert compress(model, Recipe(quantize=Uniform(8))).sizes.ideal_bytes < 2 * model.num_parameters()
    with pytest.raises(UserError, match=r"^structure.name=heads="):
        compress(model, Recipe(structure=Heads(0.5)))


@pytest.mark.parametrize("make", FIXED_NUMBERS)
@pytest.mark.parametrize("part", [Heads(0.5), Neurons(0.5)], ids=lambda part: part.name)
def test_attentions_that_know_their_number_of_heads_can_be_cut(
    make: Callable[[], PreTrainedModel], part: Heads | Neurons, tokens: Tensor
) -> None:
    torch.manual_seed(0)
    whole = make().eval()
    compressed = compress(whole, Recipe(structure=part))
    if isinstance(part, Heads):
        assert sum(map(len, compressed.left.structure.heads)) == DEPTH * HEADS // 2
    with torch.no_grad():
        found = compressed.model()(tokens).logits
        whole.load_state_dict(compressed.expanded(), strict=False)
        torch.testing.assert_close(found, whole(tokens).logits, atol=1e-5, rtol=1e-5)
