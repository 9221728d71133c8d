"""Attention masks of a batch: which positions count."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import cast

from torch import Tensor, nn
from transformers import PreTrainedModel


class Masks:
    """The masks of the batch that a model computes; an encoder-decoder has one for either side."""

    def __init__(self, encoder: str | None) -> None:
        self.batch: Mapping[str, Tensor] = {}
        """Keyword arguments of the model."""
        self.encoded: Tensor | None = None
        """What the encoder of an encoder-decoder gave for them."""
        self._encoder = encoder

    def of(self, layer: str, inputs: Tensor) -> Tensor | None:
        """The mask [rows, length] of the inputs of a layer; None where all positions count."""
        return self.batch.get("decoder_attention_mask" if self._is_decoded(layer, inputs) else "attention_mask")

    def _is_decoded(self, layer: str, inputs: Tensor) -> bool:
        if self._encoder is None or layer.startswith(f"{self._encoder}."):
            return False
        # Keys and values of cross-attention are made of what the encoder gave.
        return self.encoded is None or inputs.data_ptr() != self.encoded.data_ptr()


@contextmanager
def masks_of(model: nn.Module) -> Iterator[Masks]:
    """The masks of a model, which follow its encoder, where it has one as well as a decoder, until the context ends."""
    if not (isinstance(model, PreTrainedModel) and getattr(model.config, "is_encoder_decoder", False)):
        yield Masks(None)
        return
    encoder = cast(nn.Module, model.get_encoder())
    masks = Masks(next(name for name, module in model.named_modules() if module is encoder))

    def keep(_module: nn.Module, _inputs: tuple[Tensor, ...], output: Sequence[Tensor]) -> None:
        masks.encoded = output[0]

    hook = encoder.register_forward_hook(keep)
    try:
        yield masks
    finally:
        hook.remove()


def counted(values: Tensor, mask: Tensor | None) -> Tensor:
    """[tokens, channels] of values [..., channels], without the positions that the mask [rows, length] leaves out."""
    if mask is not None and values.shape[:-1] == mask.shape:
        return values[mask.to(values.device).bool()]
    return values.reshape(-1, values.shape[-1])
