"""ONNX Runtime, with weights in fp32 and with dynamic int8."""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from trainlarge.latency.exported import TOKENS, exported, why_not_on_gpu
from trainlarge.latency.quiet import quiet_libraries
from trainlarge.latency.runtime import Ready, Runtime, Subject
from trainlarge.latency.torch_module import PROFILED_PASSES, most_of
from trainlarge.latency.torch_runtimes import ANOTHER_ORDER, ROUNDED_TO_INT8, int8_remark

PACKAGE = "onnxruntime"
MULTIPLIED = ("MatMul", "Gemm")
"""Operations whose weights become int8; embeddings stay as they are, as with the other runtimes."""
_SETTINGS = {
    # Threads that spin for the next pass would disturb the runtimes whose turn is next.
    "session.force_spinning_stop": "1",
}
_ERRORS_ONLY = 3


def _ready(path: Path, subject: Subject) -> Ready:
    session, inputs = _session(path, subject), {TOKENS: subject.tokens.numpy()}

    def logits() -> Tensor:
        return torch.from_numpy(session.run(None, inputs)[0])

    return Ready(logits, path.stat().st_size, lambda: _slowest(path, subject))


def _session(path: Path, subject: Subject, profile: Path | None = None) -> Any:
    runtime = import_module(PACKAGE)
    options = runtime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = subject.threads, 1
    options.log_severity_level = _ERRORS_ONLY
    for name, value in _SETTINGS.items():
        options.add_session_config_entry(name, value)
    if profile is not None:
        options.enable_profiling, options.profile_file_prefix = True, str(profile)
    return runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def _slowest(path: Path, subject: Subject) -> str:
    """The kind of operation that takes most of a pass, by the profile that the runtime writes."""
    session = _session(path, subject, subject.scratch / "profile")
    for _ in range(PROFILED_PASSES):
        session.run(None, {TOKENS: subject.tokens.numpy()})
    times: dict[str, float] = {}
    for event in json.loads(Path(session.end_profiling()).read_text()):
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            kind = event["args"]["op_name"]
            times[kind] = times.get(kind, 0.0) + event["dur"]
    return most_of(times)


def _int8(subject: Subject) -> Ready:
    path = subject.scratch / "int8.onnx"
    model = exported(subject)
    with quiet_libraries():
        quantization = import_module(f"{PACKAGE}.quantization")
        quantization.quantize_dynamic(
            model,
            path,
            op_types_to_quantize=list(MULTIPLIED),
            weight_type=quantization.QuantType.QInt8,
            per_channel=True,
            # Without dot products of int8, sums of two products of 8 bits each are cut off at 16 bits.
            reduce_range=int8_remark(subject.features) is not None,
            extra_options={"MatMulConstBOnly": True},
        )
    return _ready(path, subject)


ONNX = Runtime(
    "onnx",
    "ONNX Runtime, fp32",
    lambda subject: _ready(exported(subject), subject),
    ANOTHER_ORDER,
    packages=(PACKAGE,),
    why_not=why_not_on_gpu,
)
ONNX_INT8 = Runtime(
    "onnx_int8",
    "ONNX Runtime, dynamic int8, weights per row",
    _int8,
    ROUNDED_TO_INT8,
    packages=(PACKAGE, "onnx"),
    why_not=why_not_on_gpu,
    remark=int8_remark,
)
