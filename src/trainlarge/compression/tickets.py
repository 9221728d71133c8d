"""Lottery tickets: the weights that pruning leaves, back at their values of before, and what they are compared with.

Source: Frankle and Carbin 2019 (arXiv 1803.03635); early steps instead of initial weights: Frankle et al. 2020 (arXiv
1912.05671), and random masks and reinitialized weights as the controls of both.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from trainlarge.compression.ranking import smallest
from trainlarge.compression.training import Trainer
from trainlarge.compression.weights import Weights
from trainlarge.config.method import Method
from trainlarge.config.recover import Recovery
from trainlarge.training.modifier import HoldZeros


def ticket(
    recover: Recovery, pruned: Weights, trainer: Trainer, done: tuple[Method, ...], ahead: tuple[Method, ...]
) -> tuple[Weights, HoldZeros]:
    """The weights that train, and the modifier that holds the zeros of their mask.

    Args:
        recover: where they go back to, and as which control.
        pruned: weights whose zeros are the mask.
        trainer: knows the weights of before.
        done: steps of the recipe, in their order, up to the training.
        ahead: later steps that take part in it.
    """
    first = trainer.early(recover.first_step, pruned, recover.control == "reinitialized", done, ahead)
    zeros = {name: pruned.tensors[name] == 0 for name in pruned.selected(embeddings=True)}
    if recover.control == "random_mask":
        zeros = at_random(zeros, trainer.seed)
    tensors = {
        name: tensor.masked_fill(zeros[name], 0.0) if name in zeros else tensor
        for name, tensor in first.tensors.items()
    }
    return replace(pruned, tensors=tensors), HoldZeros(frozenset(zeros), zeros)


def at_random(zeros: Mapping[str, Tensor], seed: int) -> dict[str, Tensor]:
    """Masks with as many zeros in each matrix, at places that are drawn; one stream of numbers runs through them."""
    # Not the seed itself: weights that were drawn from it would decide where the zeros are.
    digest = hashlib.sha256(f"random mask {seed}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))
    drawn = {}
    for name, mask in zeros.items():
        scores = torch.rand((1, mask.numel()), generator=generator)
        drawn[name] = smallest(scores, int(mask.sum())).view(mask.shape)
    return drawn
