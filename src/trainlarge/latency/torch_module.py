"""Passes of a torch module: what its weights take, and which operation takes most of the time."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from trainlarge.latency.runtime import Logits, Ready, Subject

PROFILED_PASSES = 5
"""Passes over which times of operations are summed, so that one pause of the machine does not decide."""


def module_ready(module: nn.Module, subject: Subject) -> Ready:
    """A torch module that stands for the model of ``subject``."""
    return pass_ready(Logits(module), module, subject)


def pass_ready(forward: Callable[[Tensor], Tensor], module: nn.Module, subject: Subject) -> Ready:
    """A function ``tokens -> logits`` that computes with the weights of ``module``."""

    def logits() -> Tensor:
        with torch.inference_mode():
            return forward(subject.tokens)

    return Ready(logits, held_bytes(module), lambda: slowest_operation(logits, subject.device))


def held_bytes(module: nn.Module) -> int:
    """Memory of the weights and buffers of a module, shared ones once, in the form in which it holds them."""
    tensors = {id(tensor): tensor for tensor in (*module.parameters(), *module.buffers())}
    return sum(map(_bytes, tensors.values())) + sum(_packed_bytes(part) for part in module.modules())


def _bytes(tensor: Tensor) -> int:
    if hasattr(tensor, "__tensor_flatten__"):
        # A tensor made of others, as those of torchao are: its own size is that of what it stands for.
        names, _ = tensor.__tensor_flatten__()
        return sum(_bytes(getattr(tensor, name)) for name in names)
    if tensor.layout == torch.sparse_csr:
        parts = (tensor.values(), tensor.crow_indices(), tensor.col_indices())
        return sum(part.nbytes for part in parts)
    return tensor.nbytes


def _packed_bytes(part: nn.Module) -> int:
    """What a layer holds in the packed form of torch's int8 kernels, which is neither parameter nor buffer."""
    unpack: Callable[[], tuple[Tensor, Tensor | None]] | None = getattr(part, "_weight_bias", None)
    if unpack is None:
        return 0
    weight, bias = unpack()
    return weight.numel() * weight.element_size() + (0 if bias is None else bias.nbytes)


def slowest_operation(run: Callable[[], object], device: str) -> str:
    """The operation that takes most of a pass, such as ``aten::addmm (71 %)``, by torch's profiler."""
    on_gpu = device == "cuda"
    with profile(activities=[ProfilerActivity.CUDA if on_gpu else ProfilerActivity.CPU]) as seen:
        for _ in range(PROFILED_PASSES):
            run()
        if on_gpu:
            torch.cuda.synchronize()
    times = {
        event.key: event.self_device_time_total if on_gpu else event.self_cpu_time_total
        for event in seen.key_averages()
    }
    return most_of(times)


def most_of(times: dict[str, float]) -> str:
    """The name with the largest time, and its share of all; empty without any."""
    whole = sum(times.values())
    if not whole:
        return ""
    name = max(times, key=times.__getitem__)
    return f"{name} ({times[name] / whole:.0%})"
