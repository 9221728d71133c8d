"""OpenVINO, with weights in fp32 and with static int8."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from trainlarge.latency.exported import TOKENS, exported, why_not_on_gpu
from trainlarge.latency.onnx_runtimes import MULTIPLIED, PACKAGE
from trainlarge.latency.quiet import quiet_libraries
from trainlarge.latency.runtime import Ready, Runtime, Subject
from trainlarge.latency.torch_module import PROFILED_PASSES, most_of
from trainlarge.latency.torch_runtimes import ANOTHER_ORDER, ROUNDED_TO_INT8, int8_remark


def _ready(path: Path, subject: Subject) -> Ready:
    request, tokens = _compiled(path, subject).create_infer_request(), subject.tokens.numpy()

    def logits() -> Tensor:
        # Without copies: the next pass writes to the same place.
        return torch.from_numpy(request.infer([tokens], share_inputs=True, share_outputs=True)[0])

    return Ready(logits, path.stat().st_size, lambda: _slowest(path, subject))


def _compiled(path: Path, subject: Subject, **more: str) -> Any:
    core = import_module("openvino").Core()
    settings = {
        "INFERENCE_NUM_THREADS": subject.threads,
        "PERFORMANCE_HINT": "LATENCY",
        # Or else processors with bf16 round what is asked for in fp32.
        "INFERENCE_PRECISION_HINT": "f32",
        **more,
    }
    return core.compile_model(core.read_model(path), "CPU", settings)


def _slowest(path: Path, subject: Subject) -> str:
    """The kernel that takes most of a pass, by the counters of the runtime."""
    request = _compiled(path, subject, PERF_COUNT="YES").create_infer_request()
    times: dict[str, float] = {}
    for _ in range(PROFILED_PASSES):
        request.infer([subject.tokens.numpy()])
        for node in request.profiling_info:
            kernel = f"{node.node_type} {node.exec_type}"
            times[kernel] = times.get(kernel, 0.0) + node.real_time.total_seconds()
    return most_of(times)


def _int8(subject: Subject) -> Ready:
    path = subject.scratch / "static_int8.onnx"
    model = exported(subject)
    with quiet_libraries():
        quantization = import_module(f"{PACKAGE}.quantization")
        quantization.quantize_static(
            model,
            path,
            _Rows(subject),
            op_types_to_quantize=list(MULTIPLIED),
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
            per_channel=True,
            extra_options={"MatMulConstBOnly": True},
        )
    return _ready(path, subject)


class _Rows:
    """The rows by which the ranges of inputs are set: those that are measured."""

    def __init__(self, subject: Subject) -> None:
        self._left: Iterator[Tensor] = iter([subject.tokens])

    def get_next(self) -> dict[str, Any] | None:
        """Arguments of the next pass; None after the last one."""
        tokens = next(self._left, None)
        return None if tokens is None else {TOKENS: tokens.numpy()}


OPENVINO = Runtime(
    "openvino",
    "OpenVINO, fp32",
    lambda subject: _ready(exported(subject), subject),
    ANOTHER_ORDER,
    packages=("openvino",),
    why_not=why_not_on_gpu,
)
OPENVINO_INT8 = Runtime(
    "openvino_int8",
    "OpenVINO, static int8, weights per row, ranges of inputs from the measured rows",
    _int8,
    ROUNDED_TO_INT8,
    packages=("openvino", PACKAGE, "onnx"),
    why_not=why_not_on_gpu,
    remark=int8_remark,
)
