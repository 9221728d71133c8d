"""Layers with inputs like those of a trained model."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from trainlarge.compression import Recipe, compress


class Layers(nn.Module):
    """Linear layers of several shapes that all see the same kind of inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.wide, self.tall, self.words = nn.Linear(48, 24), nn.Linear(48, 96), nn.Embedding(20, 48)

    def forward(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        return self.wide(inputs), self.tall(inputs)


@pytest.fixture
def layers() -> nn.Module:
    torch.manual_seed(1)
    return Layers()


@pytest.fixture
def inputs() -> Tensor:
    """[400, 48]: correlated (rank 12 and noise), with features of very different size, as after a trained norm."""
    generator = torch.Generator().manual_seed(0)
    mixed = torch.randn((400, 12), generator=generator) @ torch.randn((12, 48), generator=generator)
    noisy = mixed + 0.5 * torch.randn((400, 48), generator=generator)
    return noisy * torch.randn(48, generator=generator).mul(0.7).exp()


@pytest.fixture
def output_errors(layers: nn.Module, inputs: Tensor) -> Callable[[Recipe], dict[str, float]]:
    """Layer -> squared error of its output on the calibration data, relative to the output, after a recipe."""

    def errors(recipe: Recipe) -> dict[str, float]:
        weights = compress(layers, recipe, calibration=[inputs]).weights
        return {name: _error(layer.weight, weights[f"{name}.weight"], inputs) for name, layer in _linears(layers)}

    return errors


def _linears(layers: nn.Module) -> list[tuple[str, nn.Linear]]:
    return [(name, module) for name, module in layers.named_modules() if isinstance(module, nn.Linear)]


def _error(before: Tensor, after: Tensor, inputs: Tensor) -> float:
    output = inputs @ before.detach().T
    return float((inputs @ after.T - output).square().sum() / output.square().sum())
