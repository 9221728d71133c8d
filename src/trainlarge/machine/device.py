"""What ``impl: auto`` means on this machine."""

from __future__ import annotations

import platform
from pathlib import Path

import psutil
import torch

from trainlarge.config.impl import ImplConfig
from trainlarge.errors import UserError
from trainlarge.machine.cores import cores_here
from trainlarge.machine.devices import graphs_without_cuda, no_cuda
from trainlarge.machine.implementation import Implementation
from trainlarge.machine.precision import faster_precision

BUSY_LOAD = 0.5
"""Load of other programs from which the machine counts as shared."""


def choose(impl: ImplConfig, measured: Path | None = None, cores: int | None = None) -> Implementation:
    """Resolve the group ``impl`` for this machine.

    Args:
        impl: the group.
        measured: folder in which measured precisions are kept: ``precision=auto`` is measured where the hardware claims
            bf16, see :func:`trainlarge.machine.precision.faster_precision`. None: the claim is taken as it is.
        cores: CPU cores that this process may use; None: all that it can run on.

    Raises:
        UserError: for devices that are not there, or CUDA graphs without one.
    """
    has_cuda = torch.cuda.is_available()
    if impl.device == "cuda" and not has_cuda:
        raise no_cuda(impl.device)
    device = ("cuda" if has_cuda else "cpu") if impl.device == "auto" else impl.device
    if impl.compile == "graphs" and device == "cpu":
        raise graphs_without_cuda()
    if device == "cuda" and impl.devices > torch.cuda.device_count():
        raise UserError("impl.devices", impl.devices, f"at most {torch.cuda.device_count()}, the GPUs of this machine")
    threads = impl.threads or max(1, (cores or cores_here()) // impl.devices)
    return Implementation(
        device=device,
        device_name=device_name(device),
        precision=_auto_precision(device, threads, measured) if impl.precision == "auto" else impl.precision,
        attention=default_attention(device) if impl.attention == "auto" else impl.attention,
        forward=impl.chosen_forward,
        threads=threads,
        compile=impl.compile,
        strategy=impl.chosen_strategy,
    )


def default_attention(device: torch.device | str) -> str:
    """The library's faster attention on a device.

    On the CPU that is ``eager``: at rows of 64 tokens the backward pass of the fused CPU kernel makes a training step
    17 to 47 % slower than plain batched products.
    """
    return "eager" if torch.device(device).type == "cpu" else "sdpa"


def device_name(device: str) -> str:
    """Name of the processor that a device stands for."""
    if device == "cuda":
        return torch.cuda.get_device_name()
    capabilities = torch.cpu.get_capabilities()
    return str(capabilities.get("cpu_name") or platform.processor() or platform.machine())


def is_shared(threads: int, jobs_per_device: int = 1) -> bool:
    """Whether other jobs may run on this job's device, or other programs kept this machine busy in the last minute.

    Args:
        threads: CPU threads of our own.
        jobs_per_device: jobs that may share this job's device.
    """
    return jobs_per_device > 1 or psutil.getloadavg()[0] - threads > BUSY_LOAD


def _auto_precision(device: str, threads: int, measured: Path | None) -> str:
    claimed = default_precision(device)
    if claimed == "fp32" or measured is None:
        return claimed
    return faster_precision(measured, device, device_name(device), threads)


def default_precision(device: str) -> str:
    """bf16 where the hardware claims it; with AVX512-bf16 or AMX it was 1.5 to 2 times faster from width 128 up."""
    if device == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    capabilities = torch.cpu.get_capabilities()
    return "bf16" if capabilities.get("avx512_bf16") or capabilities.get("amx_bf16") else "fp32"
