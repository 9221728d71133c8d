"""A model divided among the devices of a job: fully sharded data parallelism (Zhao et al. 2023, arXiv 2304.11277).

Each device keeps its share of every weight, gradient and optimizer state. torch's ``fully_shard`` gathers a layer's
weights when its forward or backward pass begins and lets them go when that ends; what is left (embeddings, last norm,
head) is gathered for the whole pass. In the weights' place the model has ``DTensor`` parameters of the same shape.

States and checkpoints are written whole, as those of one device, so that any number of devices can resume from them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import cast

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from transformers import PreTrainedModel

from trainlarge.models.forward import Forward
from trainlarge.training.ranks import rank_and_count


class _Root(nn.Module):
    """Calls a function of the model inside a forward pass, during which the model's weights are whole."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, compute: Callable[..., Tensor], *tensors: Tensor) -> Tensor:
        return compute(self.model, *tensors)


def shard(model: PreTrainedModel, forward: Forward, device: str) -> Forward:
    """Divide ``model`` among the ranks, in place; its weights must be the same on all of them.

    Args:
        model: one that :func:`trainlarge.models.build.build_model` made.
        forward: passes that call the model's layers as modules, as those of ``library`` do.
        device: ``cpu`` or ``cuda``, to which this rank's share is moved.

    Returns:
        The passes to use in place of ``forward``, which all ranks must call together.
    """
    mesh = init_device_mesh(device, (rank_and_count()[1],))
    layers = [layer for part in model.modules() if isinstance(part, nn.ModuleList) for layer in part]
    for layer in layers:
        fully_shard(layer, mesh=mesh)
    # By default weights stay whole after a pass without gradients, where shares are expected.
    root = _Root(model)
    fully_shard(root, mesh=mesh, reshard_after_forward=True)
    return Forward(*(_inside(root, run) for run in (forward.loss, forward.logits, forward.row_logits)))


def device_of_rank(kind: str) -> torch.device:
    """The device of this rank among those of a kind: ``cpu`` or ``cuda``."""
    return torch.device(kind, rank_and_count()[0]) if kind == "cuda" else torch.device(kind)


def kept_copy(tensor: Tensor) -> Tensor:
    """A copy to come back to, on the CPU: the GPU may have no room for all twice. Shares stay where they are."""
    if isinstance(tensor, DTensor):
        return tensor.detach().clone()
    return tensor.detach().to("cpu", copy=True)


def whole(tensor: Tensor) -> Tensor:
    """A tensor of which each rank may have a share: on rank 0 all of it, on the CPU; on the others an empty one.

    All ranks must call it together. A tensor that is not divided is returned as it is.
    """
    if not isinstance(tensor, DTensor):
        return tensor
    gathered: Tensor = cast(DTensor, tensor.detach()).full_tensor()
    return gathered.cpu() if rank_and_count()[0] == 0 else gathered.new_empty(0)


def whole_weights(model: PreTrainedModel) -> dict[str, Tensor]:
    """Name -> :func:`whole` value of everything in a model's state; tied weights share memory."""
    named = model.state_dict(keep_vars=True)
    values = {id(tensor): whole(tensor.detach()) for tensor in named.values()}
    return {name: values[id(tensor)] for name, tensor in named.items()}


def placed_like(tensor: Tensor, parameter: Tensor) -> Tensor:
    """This rank's share of ``tensor``, divided as ``parameter`` is; what is not of its shape stays as it is."""
    if not isinstance(parameter, DTensor) or isinstance(tensor, DTensor) or tensor.shape != parameter.shape:
        return tensor
    on_device = tensor.to(parameter.device)
    # Every rank has read the same file, so nothing is broadcast.
    return distribute_tensor(on_device, parameter.device_mesh, parameter.placements, src_data_rank=None)


def weights_like(tensors: Mapping[str, Tensor], model: PreTrainedModel) -> dict[str, Tensor]:
    """Each of ``tensors`` divided as the model's weight of that name is."""
    targets = model.state_dict()
    return {name: placed_like(tensor, targets[name]) for name, tensor in tensors.items()}


def first_rows_here(tensor: Tensor, count: int) -> Tensor:
    """Those of the first ``count`` rows that this rank has, as a view."""
    if not isinstance(tensor, DTensor):
        return tensor[:count]
    rank, ranks = rank_and_count()
    first = rank * -(-len(tensor) // ranks)
    return cast(DTensor, tensor.detach()).to_local()[: max(0, count - first)]


def _inside(root: nn.Module, compute: Callable[..., Tensor]) -> Callable[..., Tensor]:
    return lambda _model, *tensors: root(compute, *tensors)
