"""Runtimes that leave out zeros: compressed sparse rows (CSR) for any pattern, and 2:4 on GPUs that multiply it."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn

from trainlarge.latency.quiet import quiet_libraries
from trainlarge.latency.runtime import Ready, Runtime, Subject
from trainlarge.latency.torch_module import module_ready
from trainlarge.latency.torch_runtimes import ANOTHER_ORDER, ROUNDED_TO_BF16

LEAST_ZEROS = 0.5
"""Share of zeros from which on a matrix is made sparse: below it CSR takes more memory than dense."""
_GPU = (8, 0)
"""Compute capability from which on GPUs multiply 2:4 sparse matrices."""


class CsrLinear(nn.Module):
    """A linear layer y = W x + b whose matrix W [outputs, inputs] is held as compressed sparse rows."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        self.weight: Tensor
        self.register_buffer("weight", csr(weight), persistent=False)
        self.bias = bias

    def forward(self, x: Tensor) -> Tensor:
        """The outputs [..., outputs] of inputs [..., inputs]."""
        y: Tensor = (self.weight @ x.flatten(0, -2).t()).t()
        return (y if self.bias is None else y + self.bias).reshape(*x.shape[:-1], -1)


def csr(matrix: Tensor) -> Tensor:
    """A matrix as compressed sparse rows."""
    # Torch calls it a beta feature.
    with quiet_libraries():
        return matrix.detach().to_sparse_csr()


def zeros_of(matrix: Tensor) -> float:
    """The share of zeros of a matrix."""
    return 1 - float(torch.count_nonzero(matrix)) / max(1, matrix.numel())


def _with_csr(subject: Subject) -> Ready:
    def made_of(layer: nn.Linear) -> nn.Module | None:
        return CsrLinear(layer.weight, layer.bias) if zeros_of(layer.weight) >= LEAST_ZEROS else None

    return module_ready(_replaced(subject.model, made_of), subject)


def _why_no_csr(subject: Subject) -> str | None:
    most = max((zeros_of(layer.weight) for layer in subject.linears.values()), default=0.0)
    if most >= LEAST_ZEROS:
        return None
    return f"no linear layer has {LEAST_ZEROS:.0%} zeros or more, the most is {most:.0%}: CSR would take more memory"


def _replaced(model: nn.Module, made_of: Callable[[nn.Linear], nn.Module | None]) -> nn.Module:
    """A copy of the model with other modules in the places of linear layers, where there is one."""
    copied = copy.deepcopy(model)
    for name, layer in list(copied.named_modules()):
        if isinstance(layer, nn.Linear) and (made := made_of(layer)) is not None:
            parent, _, leaf = name.rpartition(".")
            setattr(copied.get_submodule(parent), leaf, made)
    return copied


def _with_2_4(subject: Subject) -> Ready:
    model = copy.deepcopy(subject.model).to(torch.bfloat16)
    for layer in model.modules():
        if isinstance(layer, nn.Linear) and is_2_4(layer.weight):
            sparse = torch.sparse.to_sparse_semi_structured(layer.weight.detach())
            layer.weight = nn.Parameter(sparse, requires_grad=False)
    return module_ready(model, subject)


def _why_no_2_4(subject: Subject) -> str | None:
    if subject.device != "cuda" or torch.cuda.get_device_capability() < _GPU:
        return "kernels for 2:4 sparsity are those of CUDA GPUs of compute capability 8.0 and later"
    if not any(is_2_4(layer.weight) for layer in subject.linears.values()):
        return "no linear layer has two zeros in every four weights of a row, and rows and columns in multiples of 64"
    return None


def is_2_4(matrix: Tensor) -> bool:
    """Whether of every four weights in a row two at most are not zero, and the sizes are those that kernels take."""
    if any(size % 64 for size in matrix.shape):
        return False
    return bool((matrix.reshape(len(matrix), -1, 4).count_nonzero(-1) <= 2).all())


CSR = Runtime(
    "csr",
    "torch's sparse products: linear layers with half zeros or more as compressed sparse rows",
    _with_csr,
    ANOTHER_ORDER,
    why_not=_why_no_csr,
    remark=lambda _features: "unstructured zeros pay off above a break-even sparsity alone: --break-even measures it",
)
SEMI_SPARSE = Runtime(
    "semi_sparse",
    "torch's 2:4 sparse products in bf16",
    _with_2_4,
    ROUNDED_TO_BF16,
    why_not=_why_no_2_4,
)
