"""What each of two ranks checks of divided models: ``python divided_model.py`` with the environment of a rank."""

from __future__ import annotations

import os
from typing import Any

import torch
from torch.distributed.tensor import DTensor

from trainlarge.config.arch import ArchConfig
from trainlarge.models.build import build_model
from trainlarge.models.forward import FORWARDS
from trainlarge.models.shape import Shape
from trainlarge.training.ranks import as_rank_0_says, joined
from trainlarge.training.sharding import first_rows_here, placed_like, shard, weights_like, whole_weights

POSITIONS = {"modern": 64, "roberta": 66}


def model_of(name: str) -> Any:
    arch = {"name": name, "width": 32, "depth": 2, "heads": 2, "ffn_ratio": 2.0, "positions": POSITIONS[name]}
    return build_model(Shape.from_config(ArchConfig(**arch), 101), init_std=0.1, seed=0, attention="eager")


def batch() -> tuple[torch.Tensor, ...]:
    draw = torch.Generator().manual_seed(0)
    inputs = torch.randint(5, 101, (4, 16), generator=draw)
    return inputs, torch.arange(3).expand(4, 3), torch.randint(5, 101, (4, 3), generator=draw)


def passes(rank: int, name: str) -> None:
    """Logits, and gradients of a batch of which each rank takes half, are those of the whole model."""
    library, reference, model = FORWARDS["library"], model_of(name), model_of(name)
    forward = shard(model, library, "cpu")
    inputs, positions, labels = batch()
    with torch.no_grad():
        expected = library.logits(reference, inputs, positions)
        torch.testing.assert_close(forward.logits(model, inputs, positions), expected, rtol=1e-5, atol=1e-6)
    assert all(isinstance(parameter, DTensor) for parameter in model.parameters()), "shares again after a pass"
    library.loss(reference, inputs, positions, labels).backward()
    forward.loss(model, *(tensor.chunk(2)[rank] for tensor in (inputs, positions, labels))).backward()
    for (key, whole), (_, part) in zip(reference.named_parameters(), model.named_parameters(), strict=True):
        assert isinstance(part, DTensor) and isinstance(part.grad, DTensor), key
        torch.testing.assert_close(part.grad.full_tensor(), whole.grad, rtol=1e-4, atol=1e-6, msg=key)


def shares(rank: int, name: str) -> None:
    """Every tensor is divided by rows, and whole again on rank 0."""
    whole, model = model_of(name), model_of(name)
    shard(model, FORWARDS["library"], "cpu")
    tensors, divided = whole.state_dict(), model.state_dict()
    gathered, parts = whole_weights(model), weights_like(tensors, model)
    for key, tensor in tensors.items():
        rows = -(-len(tensor) // 2)
        own = tensor[:rows] if rank == 0 else tensor[rows:]
        assert torch.equal(divided[key].to_local(), own) and torch.equal(parts[key].to_local(), own), key
        assert torch.equal(gathered[key], tensor) if rank == 0 else not gathered[key].numel()
        for count in (len(tensor) // 3, 2 * len(tensor) // 3):
            assert torch.equal(first_rows_here(divided[key], count), own[: max(0, count - rank * rows)])
    tied = [key for key in gathered if gathered[key] is gathered[next(iter(gathered))]]
    assert len(tied) == 2, "embedding and output matrix"
    scalar = torch.tensor(3.0)
    assert placed_like(scalar, next(model.parameters())) is scalar
    assert as_rank_0_says(rank == 0) and not as_rank_0_says(rank == 1)


if __name__ == "__main__":
    torch.set_num_threads(1)
    checks = [(check, name) for name in POSITIONS for check in (passes, shares)]
    with joined():
        for check, name in checks:
            check(int(os.environ["RANK"]), name)
    print(len(checks), "checks held")
