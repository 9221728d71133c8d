"""The model on which recipes are evaluated: a large one has memory for its weights only while one is."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace

from torch import nn

from trainlarge.compression.model_tensors import entries_of, load_stored
from trainlarge.compression.stored.mapped_tensors import release, zeros_in_pages
from trainlarge.compression.stored.stored_tensor import StoredTensor
from trainlarge.compression.weights import Weights

LARGE_BYTES = 1 << 26
"""Weights from which on memory is saved: to get it back from the system takes a few hundredths of an evaluation."""


def is_large(model: nn.Module) -> bool:
    """Whether the weights are so large that copies of them are to be avoided."""
    return sum(parameter.nbytes for parameter in model.parameters()) >= LARGE_BYTES


class EvaluatedModel:
    """A model that takes the weights of one recipe after the other.

    Args:
        model: of the checkpoint. Where it is large and on the CPU, another one with the same modules takes its place.
        weights: its snapshot.
        device: where it is evaluated.
    """

    def __init__(self, model: nn.Module, weights: Weights, device: str) -> None:
        self._is_large = is_large(model)
        self._pages = None
        if self._is_large and device == "cpu":
            self._pages, tensors = zeros_in_pages(entries_of(model))
            model = replace(weights, tensors=tensors).model()
        self.model = model.to(device)

    @contextmanager
    def holding(self, stored: Mapping[str, StoredTensor]) -> Iterator[None]:
        """With the float weights of ``stored`` in the model. A large one on the CPU has none afterwards."""
        self._trim_heap()
        load_stored(self.model, stored)
        self._trim_heap()
        try:
            yield
        finally:
            if self._pages is not None:
                release(self._pages)

    def _trim_heap(self) -> None:
        """Give the system back what is free within the heap: what is still in use between freed blocks keeps all of it.

        Nothing happens where the C library has no such call.
        """
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if self._is_large and trim is not None:
            trim(0)
