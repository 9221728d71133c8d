"""Runtimes of torch itself, and of torchao."""

from __future__ import annotations

import copy
from importlib import import_module

import torch
from torch import nn

from trainlarge.latency.quiet import quiet_libraries
from trainlarge.latency.runtime import Logits, Ready, Runtime, Subject
from trainlarge.latency.torch_module import module_ready, pass_ready
from trainlarge.machine.environment import keep_compiled_code
from trainlarge.machine.features import BF16, VNNI, has
from trainlarge.training.compiling import compiler_options

ANOTHER_ORDER = 1e-4
"""Relative difference of logits that another order of sums in fp32 makes at most."""
ROUNDED_TO_BF16, ROUNDED_TO_INT8 = 0.05, 0.25
"""Those that rounding makes; beyond them the logits are those of another model."""


def _bf16(subject: Subject) -> Ready:
    return module_ready(copy.deepcopy(subject.model).to(torch.bfloat16), subject)


def _bf16_remark(features: tuple[str, ...]) -> str | None:
    if has(features, BF16, "sm_"):
        return None
    return "no products of bf16 on this processor (AVX512_BF16, AMX_BF16): they are computed in fp32"


def int8_remark(features: tuple[str, ...]) -> str | None:
    """What a processor without int8 products makes of them."""
    if has(features, VNNI, "AMX", "DOTPROD", "I8MM", "sm_"):
        return None
    return "no int8 dot products on this processor (VNNI, AMX): little gain"


def _checkpoint(subject: Subject) -> Ready:
    # Where there is none, `why_not` has said so.
    return module_ready(subject.checkpoint or subject.model, subject)


def _why_no_checkpoint(subject: Subject) -> str | None:
    return None if subject.checkpoint else "the cell has the shapes of its checkpoint, or is a checkpoint itself"


def _int8(subject: Subject) -> Ready:
    with quiet_libraries():
        quantization = import_module("torch.ao.quantization")
        return module_ready(quantization.quantize_dynamic(subject.model, {nn.Linear}, dtype=torch.qint8), subject)


def _why_no_int8(subject: Subject) -> str | None:
    if subject.device != "cpu":
        return "torch has these kernels for the CPU alone"
    if torch.backends.quantized.engine == "none":
        return "this torch was built without int8 kernels"
    try:
        import_module("torch.ao.quantization")
    except ImportError:
        return f"torch {torch.__version__} has torch.ao.quantization no more"
    return None


def _torchao(subject: Subject) -> Ready:
    return module_ready(_with_torchao(subject), subject)


def _with_torchao(subject: Subject) -> nn.Module:
    model = copy.deepcopy(subject.model)
    with quiet_libraries():
        quantization = import_module("torchao.quantization")
        quantization.quantize_(model, quantization.Int8DynamicActivationInt8WeightConfig())
    return model


def _compiled(subject: Subject, model: nn.Module) -> Ready:
    """Its first pass compiles. Compiled code is kept, so that a model costs that once for each shape."""
    keep_compiled_code(subject.cache)
    forward = torch.compile(Logits(model), dynamic=False, options=compiler_options(subject.threads))
    ready = pass_ready(forward, model, subject)
    with quiet_libraries():
        ready.logits()
    return ready


DENSE = Runtime("dense", "torch, fp32, eager", lambda subject: module_ready(subject.model, subject), ANOTHER_ORDER)
"""What the others are compared with."""
CHECKPOINT = Runtime(
    "checkpoint",
    "the checkpoint before compression as dense, beside a model that was cut or factorized",
    _checkpoint,
    # It is another model.
    float("inf"),
    why_not=_why_no_checkpoint,
)
BF16_EAGER = Runtime("bf16", "torch, bf16, eager", _bf16, ROUNDED_TO_BF16, remark=_bf16_remark)
COMPILED = Runtime(
    "compiled",
    "torch.compile, fp32",
    lambda subject: _compiled(subject, subject.model),
    ANOTHER_ORDER,
    is_slow_to_make=True,
)
INT8 = Runtime(
    "int8",
    "torch's dynamic int8 kernels, weights per tensor",
    _int8,
    ROUNDED_TO_INT8,
    why_not=_why_no_int8,
    remark=int8_remark,
)
TORCHAO = Runtime(
    "torchao",
    "torchao's dynamic int8, weights per row, eager",
    _torchao,
    ROUNDED_TO_INT8,
    packages=("torchao",),
    remark=int8_remark,
)
TORCHAO_COMPILED = Runtime(
    "torchao_compiled",
    "the same through torch.compile",
    lambda subject: _compiled(subject, _with_torchao(subject)),
    ROUNDED_TO_INT8,
    packages=("torchao",),
    is_slow_to_make=True,
    remark=int8_remark,
)
