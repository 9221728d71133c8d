"""Runtimes on a GPU: those of torch compute there, 2:4 sparse layers too, and those of CPUs say why they do not."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import BertConfig, BertForMaskedLM

from trainlarge.latency.measuring import measured
from trainlarge.latency.registry import RUNTIMES
from trainlarge.latency.runtime import Subject
from trainlarge.latency.turns import LEAST_ROUNDS
from trainlarge.machine.energy import find_energy
from trainlarge.machine.features import features_of
from trainlarge.sweep.store import CellFolder

pytestmark = pytest.mark.gpu


def test_each_runtime_has_numbers_or_a_reason(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = BertForMaskedLM(
        BertConfig(
            vocab_size=512, hidden_size=128, intermediate_size=256, num_hidden_layers=2, num_attention_heads=2
        )
    )  # fmt: skip
    model.eval().requires_grad_(False).to(torch.device("cuda"))
    for layer in model.modules():
        if isinstance(layer, torch.nn.Linear):
            layer.weight[:, torch.arange(layer.in_features) % 4 >= 2] = 0.0
    tokens = torch.randint(3, 512, (16, 64), device="cuda")
    subject = Subject(model, tokens, "cuda", 1, features_of("cuda"), tmp_path, tmp_path)
    quick = [runtime for runtime in RUNTIMES.values() if not runtime.is_slow_to_make]
    folder = CellFolder("studies/some/train/0123456789ab")
    rows = {row.runtime: row for row in measured(folder, subject, quick, LEAST_ROUNDS, find_energy())}
    assert all((row.seconds is None) == bool(row.why_empty) for row in rows.values())
    assert rows["dense"].seconds and rows["bf16"].seconds and rows["dense"].working_bytes
    for name in ("int8", "onnx", "onnx_int8", "openvino", "openvino_int8"):
        assert rows[name].why_empty, name
    if torch.cuda.get_device_capability() < (8, 0):
        pytest.skip("this GPU does not multiply 2:4 sparse matrices")
    assert rows["semi_sparse"].why_empty is None and (rows["semi_sparse"].logit_error or 0.0) < 0.05
