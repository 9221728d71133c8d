"""What is kept of a forward pass is what the library's own outputs say, and keeping it changes nothing."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

from trainlarge.compression.layout.encoder import find_encoder
from trainlarge.machine.device import default_attention
from trainlarge.models.build import build_model
from trainlarge.models.capture import Capture, Watched
from trainlarge.models.families import FAMILIES
from trainlarge.models.family import Head
from trainlarge.models.forward import FORWARDS, library_row_logits, logits_at
from trainlarge.models.shape import Shape

PREDICTED = torch.tensor([[1, 4], [0, 9]])
IDS = torch.randint(4, 60, (2, 10), generator=torch.Generator().manual_seed(0))


def made(family: str, head: Head | None = None) -> PreTrainedModel:
    shape = Shape(family, width=32, depth=3, heads=2, ffn_ratio=1.5, vocab_size=60, positions=16, labels=3)
    return build_model(shape, init_std=0.2, seed=0, attention=default_attention("cpu"), head=head).eval()


def watching(model: PreTrainedModel) -> Capture:
    encoder = find_encoder(model)
    assert encoder is not None
    return Capture(Watched(encoder.layers, frozenset({0, 1, 3}), frozenset({0, 2})))


@pytest.mark.parametrize("family", list(FAMILIES))
def test_it_keeps_what_the_library_gives(family: str) -> None:
    model = made(family)
    capture = watching(model)
    logits = capture.over(FORWARDS["fast"]).logits(model, IDS, PREDICTED)
    torch.testing.assert_close(logits, logits_at(model, IDS, PREDICTED))
    assert capture.logits is logits
    before, model.config._attn_implementation = model.config._attn_implementation, "eager"
    whole = model(input_ids=IDS, output_hidden_states=True, output_attentions=True)
    model.config._attn_implementation = before
    assert set(capture.hidden) == {0, 1, 3} and set(capture.attention) == {0, 2}
    # The last one that the library gives is behind the final norm.
    for state in (0, 1):
        torch.testing.assert_close(capture.hidden[state], whole.hidden_states[state])
    assert capture.hidden[3].shape == capture.hidden[0].shape
    for layer in (0, 2):
        attention = capture.attention[layer]
        torch.testing.assert_close(attention.with_mask().softmax(-1), whole.attentions[layer])
        assert attention.scores.shape == (2, 2, 10, 10)
        seen = attention.is_seen().expand_as(attention.scores)
        assert seen.all() if not FAMILIES[family].is_causal else torch.equal(seen[0, 0], torch.ones(10, 10).tril() > 0)


@pytest.mark.parametrize("family", list(FAMILIES))
def test_rows_with_padding(family: str) -> None:
    model = made(family, Head.SEQUENCE_LABEL)
    mask = torch.ones_like(IDS)
    mask[1, 6:] = 0
    capture = watching(model)
    logits = capture.over(FORWARDS["fast"]).row_logits(model, IDS, mask)
    torch.testing.assert_close(logits, library_row_logits(model, IDS, mask))
    seen = capture.attention[0].is_seen().expand(2, 1, 10, 10)
    assert not seen[1, :, :, 6:].any() and seen[1, :, 6:, 0].all()


def test_nothing_is_left_behind() -> None:
    model, plain = made("modern"), made("modern")
    capture = watching(model)
    capture.over(FORWARDS["fast"]).logits(model, IDS, PREDICTED)
    assert torch.equal(logits_at(model, IDS, PREDICTED), logits_at(plain, IDS, PREDICTED))
    assert model.config.to_dict() == plain.config.to_dict()
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert [sorted(vars(module)) for module in model.modules()] == [sorted(vars(other)) for other in plain.modules()]
    capture.clear()
    assert (capture.logits, capture.hidden, capture.attention) == (None, {}, {})


def test_logits_alone_take_the_fast_path() -> None:
    model, capture = made("modern"), Capture(None)
    labels = torch.randint(4, 60, (2, 2))
    loss: Tensor = capture.over(FORWARDS["fast"]).loss(model, IDS, PREDICTED, labels)
    assert capture.logits is not None and torch.equal(capture.logits, logits_at(model, IDS, PREDICTED))
    torch.testing.assert_close(loss, torch.nn.functional.cross_entropy(capture.logits, labels.flatten()))
