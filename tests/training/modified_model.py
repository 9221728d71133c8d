"""What each of two ranks checks of modifiers: ``python modified_model.py`` with the environment of a rank."""

from __future__ import annotations

import hashlib
import os

import torch
from test_modifier import SHAPE, Recorder, constant, loop_of, nothing, weights_of
from torch import Tensor

from trainlarge.models.build import build_model
from trainlarge.training.modifier import HoldZeros
from trainlarge.training.ranks import joined


def trained(devices: int) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Tensor]]:
    """Weights before and after six steps with modifiers, and the state of a modifier."""
    model = build_model(SHAPE, init_std=0.1, seed=0, attention="eager")
    pruned = [name for name, tensor in model.named_parameters() if tensor.ndim == 2]
    with torch.no_grad():
        for name in pruned:
            model.get_parameter(name)[::2] = 0
    recorder = Recorder()
    loop = loop_of(model, HoldZeros(frozenset(pruned)), recorder, devices=devices)
    before = weights_of(loop)
    loop.run(0, 6, constant, nothing)
    loop.finish()
    return before, weights_of(loop), recorder.state()


if __name__ == "__main__":
    torch.set_num_threads(1)
    os.environ |= {"LOCAL_RANK": os.environ["RANK"], "NODE_RANK": "0"}
    before, expected, mean = trained(devices=1)
    with joined():
        _, weights, same_mean = trained(devices=2)
    digest = hashlib.sha256()
    for name, tensor in sorted(weights.items()):
        torch.testing.assert_close(tensor, expected[name], rtol=1e-4, atol=1e-5, msg=name)
        assert not torch.equal(tensor, before[name]), name
        if tensor.ndim == 2:
            assert torch.equal(tensor[::2], torch.zeros_like(tensor[::2])), name
        digest.update(tensor.numpy().tobytes())
    torch.testing.assert_close(same_mean, mean, rtol=1e-5, atol=1e-6)
    digest.update(same_mean["mean"].numpy().tobytes())
    print(digest.hexdigest())
