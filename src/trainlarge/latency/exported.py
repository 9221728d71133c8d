"""A model as an ONNX file, for runtimes that read one."""

from __future__ import annotations

from pathlib import Path

import torch

from trainlarge.latency.quiet import quiet_libraries
from trainlarge.latency.runtime import Logits, Subject

TOKENS, LOGITS = "tokens", "logits"
"""Names of the input and the output in the file."""
_OPSET = 17


def exported(subject: Subject) -> Path:
    """The ONNX file of the model for rows of exactly these sizes; written once for a subject.

    By tracing: the newer exporter of torch takes most of a minute for a small model. Decoders look for the ends of
    packed rows by an operation that ONNX lacks, but for rows of which every token is said to count.

    Raises:
        Exception: what torch raises, where neither can be traced.
    """
    path = subject.scratch / "model.onnx"
    if path.exists():
        return path
    try:
        _export(subject, path, with_mask=False)
    except torch.onnx.errors.UnsupportedOperatorError:
        _export(subject, path, with_mask=True)
    return path


def _export(subject: Subject, path: Path, with_mask: bool) -> None:
    unfinished = path.with_suffix(".tmp")
    # They warn of a deprecated exporter, and of shapes that become constants, as they should.
    with torch.no_grad(), quiet_libraries():
        torch.onnx.export(
            Logits(subject.model, with_mask).eval(),
            (subject.tokens,),
            unfinished,
            input_names=[TOKENS],
            output_names=[LOGITS],
            opset_version=_OPSET,
            dynamo=False,
        )
    unfinished.rename(path)


def why_not_on_gpu(subject: Subject) -> str | None:
    """These runtimes are measured on the CPU."""
    return None if subject.device == "cpu" else "measured on the CPU alone"
