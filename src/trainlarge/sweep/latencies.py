"""The measured speed of cells, and of sparse layers: two files of a study, to which measuring adds rows. No torch.

Measuring again replaces the rows with the same key and leaves the others as they are.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from trainlarge.errors import UserError
from trainlarge.sweep.files import file_lock, read_bytes, rows_of, write_text
from trainlarge.sweep.recorded import Recorded, key, later
from trainlarge.sweep.store import Study

LATENCIES = "latency.jsonl"
"""File of a study with a row per cell, device, runtime, batch and length."""
BREAK_EVENS = "latency_break_even.jsonl"
"""File of a study with a row per device, shape of a matrix and number of tokens."""
_DAMAGED = "JSON lines as `trainlarge latency` writes them; remove the file and measure again"


@dataclass(frozen=True, kw_only=True)
class Latency(Recorded):
    """How fast one runtime computes one cell: numbers, or why there are none (``why_empty``)."""

    cell: str = key("text", "id of the cell")
    stage: str = key("text", "its stage: train, compress")
    runtime: str = key("text", "what computes the model, such as dense, bf16, int8, onnx")
    batch: int = key("rows", "rows of a pass")
    length: int = key("tokens", "tokens of a row")
    device: str = key("text", "cpu or cuda")
    device_name: str = key("text", "name of the processor")
    threads: int = key("1", "CPU threads")
    versions: str = key("text", "versions of torch and of the library that computes")
    features: str = key("text", "instructions of the processor that decide which kernels there are")
    shared: bool = key("yes or no", "whether other programs kept the machine busy")
    measured: float = key("s", "when, in seconds since 1970")
    rounds: int = key("1", "rounds in which the runtimes took turns")
    why_empty: str | None = later("text", "why there are no numbers", before="", is_optional=True)
    remark: str | None = later("text", "what explains the numbers on this processor", before="", is_optional=True)
    kernel: str | None = later("text", "operation that takes most of the time, and its share", before="")
    attention: str | None = later("text", "attention of the model: eager, sdpa", before="")
    seconds: float | None = later("s", "latency: time of a pass, median over rounds")
    seconds_low: float | None = later("s", "lower quartile over rounds")
    seconds_high: float | None = later("s", "upper quartile over rounds")
    speedup: float | None = later("1", "time of the same model as dense over its own, median over rounds")
    speedup_low: float | None = later("1", "lower end of the 95 % interval of that median")
    speedup_high: float | None = later("1", "upper end of that interval")
    checkpoint_speedup: float | None = later(
        "1", "the same over the dense checkpoint before compression, where the cell has other shapes"
    )
    checkpoint_speedup_low: float | None = later("1", "lower end of the 95 % interval of that median")
    checkpoint_speedup_high: float | None = later("1", "upper end of that interval")
    model_bytes: int | None = later("bytes", "memory of the weights, as the runtime holds them")
    working_bytes: int | None = later("bytes", "most memory that a pass took beside the weights")
    flops: int | None = later("FLOPs", "products of matrices in a pass of the dense model")
    logit_error: float | None = later("1", "norm of the difference from the dense logits over their norm")
    same_predictions: float | None = later("1", "share of outputs whose largest logit is that of dense")
    joules: float | None = later("J", "energy of the processor per pass, median over rounds")
    why_no_joules: str | None = later("text", "why there is no energy", before="", is_optional=True)

    @property
    def key(self) -> tuple[object, ...]:
        """What tells rows apart."""
        place = (self.device, self.device_name, self.threads, self.versions)
        return (self.cell, self.runtime, self.batch, self.length, *place)


@dataclass(frozen=True, kw_only=True)
class BreakEven(Recorded):
    """From which sparsity on the product with a sparse matrix (CSR) is faster than with a dense one."""

    outputs: int = key("1", "rows of the matrix")
    inputs: int = key("1", "columns of the matrix")
    tokens: int = key("tokens", "vectors that it is multiplied with at once: batch times length")
    device: str = key("text", "cpu or cuda")
    device_name: str = key("text", "name of the processor")
    threads: int = key("1", "CPU threads")
    versions: str = key("text", "version of torch")
    shared: bool = key("yes or no", "whether other programs kept the machine busy")
    measured: float = key("s", "when, in seconds since 1970")
    rounds: int = key("1", "rounds in which the sparsities took turns")
    dense_seconds: float = key("s", "time of the dense product, median over rounds")
    speedups: Mapping[str, float] = key(
        "1", "sparsity -> time of the dense product over that of the sparse one, median"
    )
    break_even: float | None = later(
        "1", "sparsity at which both take as long; none where the sparse one is never faster"
    )

    @property
    def key(self) -> tuple[object, ...]:
        """What tells rows apart."""
        place = (self.device, self.device_name, self.threads, self.versions)
        return (self.outputs, self.inputs, self.tokens, *place)


Measured = TypeVar("Measured", Latency, BreakEven)


def read_latencies(study: Study) -> list[Latency]:
    """What was measured of cells, in the order of the file; nothing where nothing was.

    Raises:
        UserError: naming the file, when it is damaged.
    """
    return _read(Latency, study.path / LATENCIES)


def read_break_evens(study: Study) -> list[BreakEven]:
    """What was measured of sparse layers; as ``read_latencies``."""
    return _read(BreakEven, study.path / BREAK_EVENS)


def keep_latencies(study: Study, rows: Iterable[Latency]) -> None:
    """Add rows, each in the place of one with the same key; other processes wait meanwhile.

    Raises:
        UserError: as ``read_latencies``.
    """
    _keep(Latency, study.path / LATENCIES, rows)


def keep_break_evens(study: Study, rows: Iterable[BreakEven]) -> None:
    """As ``keep_latencies``, for sparse layers."""
    _keep(BreakEven, study.path / BREAK_EVENS, rows)


def _read(kind: type[Measured], path: Path) -> list[Measured]:
    try:
        return [kind.from_json(row) for row in rows_of(read_bytes(path))]
    except FileNotFoundError:
        return []
    except (IsADirectoryError, ValueError) as error:
        raise UserError(str(path), "damaged", f"{_DAMAGED} ({error})") from error


def _keep(kind: type[Measured], path: Path, rows: Iterable[Measured]) -> None:
    with file_lock(path.with_suffix(".lock")):
        kept = {row.key: row for row in [*_read(kind, path), *rows]}
        lines = (json.dumps(row.to_json(), allow_nan=False) for row in kept.values())
        write_text(path, "".join(f"{line}\n" for line in lines))
