"""All runtimes, in the order of the rows."""

from __future__ import annotations

from trainlarge.latency.onnx_runtimes import ONNX, ONNX_INT8
from trainlarge.latency.openvino_runtimes import OPENVINO, OPENVINO_INT8
from trainlarge.latency.runtime import Runtime
from trainlarge.latency.sparse_runtimes import CSR, SEMI_SPARSE
from trainlarge.latency.torch_runtimes import (
    BF16_EAGER,
    CHECKPOINT,
    COMPILED,
    DENSE,
    INT8,
    TORCHAO,
    TORCHAO_COMPILED,
)

_ALL = (
    *(DENSE, CHECKPOINT, BF16_EAGER, COMPILED),
    *(INT8, TORCHAO, TORCHAO_COMPILED, ONNX, ONNX_INT8, OPENVINO, OPENVINO_INT8),
    *(CSR, SEMI_SPARSE),
)
RUNTIMES: dict[str, Runtime] = {runtime.name: runtime for runtime in _ALL}
"""Name -> runtime."""
