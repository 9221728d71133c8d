"""Every runtime computes the same model, or says why it does not."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from transformers import BertConfig, BertForMaskedLM, LlamaConfig, LlamaForCausalLM, PreTrainedModel

from trainlarge.latency import turns
from trainlarge.latency.cell_models import CellModels, check_length, tokens_for
from trainlarge.latency.measuring import measured
from trainlarge.latency.packages import missing_packages
from trainlarge.latency.registry import RUNTIMES
from trainlarge.latency.runtime import Runtime, Subject
from trainlarge.latency.sparse_runtimes import CsrLinear, is_2_4
from trainlarge.latency.torch_module import held_bytes
from trainlarge.latency.torch_runtimes import DENSE
from trainlarge.latency.turns import LEAST_ROUNDS
from trainlarge.machine.energy import find_energy
from trainlarge.machine.features import features_of
from trainlarge.sweep.latencies import Latency
from trainlarge.sweep.store import CellFolder

SHAPE = {
    "vocab_size": 120,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "max_position_embeddings": 40,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
FOLDER = CellFolder("studies/some/compress/0123456789ab")


@pytest.fixture(autouse=True)
def one_pass_per_round(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(turns, "ROUND_SECONDS", 1e-9)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def model() -> PreTrainedModel:
    torch.manual_seed(0)
    return BertForMaskedLM(BertConfig(**SHAPE)).eval().requires_grad_(False)


@pytest.fixture
def subject_of(tmp_path: Path) -> Callable[..., Subject]:
    def made(model: PreTrainedModel, checkpoint: PreTrainedModel | None = None) -> Subject:
        tokens = torch.randint(3, SHAPE["vocab_size"], (2, 8), generator=torch.Generator().manual_seed(0))
        return Subject(model, tokens, "cpu", 1, features_of("cpu"), tmp_path, tmp_path / "compiled", checkpoint)

    return made


def rows_of(subject: Subject, *names: str) -> dict[str, Latency]:
    runtimes = [RUNTIMES[name] for name in names]
    rows = measured(FOLDER, subject, runtimes, LEAST_ROUNDS, find_energy(subject.scratch))
    return {row.runtime: row for row in rows}


QUICK = [name for name, runtime in RUNTIMES.items() if not runtime.is_slow_to_make]


def test_each_runtime_has_a_row_with_numbers_or_a_reason(
    model: PreTrainedModel, subject_of: Callable[..., Subject]
) -> None:
    """One model for all: which runtimes have numbers here depends on what is installed."""
    with torch.no_grad():
        for layer in model.modules():
            if isinstance(layer, torch.nn.Linear):
                # Three of four zeros, in every group of four.
                layer.weight[:, torch.arange(layer.in_features) % 4 != 0] = 0.0
    rows = rows_of(subject_of(model), *QUICK)
    assert list(rows) == QUICK
    for name, row in rows.items():
        assert (row.seconds is None) == bool(row.why_empty), name
        if row.seconds is None:
            continue
        assert row.seconds_low <= row.seconds <= row.seconds_high
        assert row.speedup_low <= row.speedup <= row.speedup_high
        assert row.logit_error <= RUNTIMES[name].tolerance and row.same_predictions > 0.6
        assert row.kernel and row.model_bytes > 0 and row.flops == rows["dense"].flops > 0
        assert row.joules is None and "reports no energy" in str(row.why_no_joules)
    for name in ("dense", "bf16", "int8", "csr"):
        assert rows[name].why_empty is None, rows[name].why_empty
    for name, row in rows.items():
        if missing := missing_packages(RUNTIMES[name].packages):
            assert row.why_empty == missing
    assert rows["dense"].speedup == 1.0 and rows["dense"].logit_error == 0.0
    assert rows["checkpoint"].why_empty == "the cell has the shapes of its checkpoint, or is a checkpoint itself"
    assert "CUDA GPUs of compute capability 8.0" in str(rows["semi_sparse"].why_empty)
    # What each holds: half the bytes, int8 of the linear layers.
    dense = rows["dense"].model_bytes
    assert dense == held_bytes(model) and 0.45 * dense < rows["bf16"].model_bytes < 0.55 * dense
    assert rows["int8"].model_bytes < 0.75 * dense


@pytest.mark.parametrize("name", ["torchao", "onnx", "onnx_int8", "openvino", "openvino_int8"])
def test_a_runtime_of_another_package_computes_the_same(
    name: str, model: PreTrainedModel, subject_of: Callable[..., Subject]
) -> None:
    if missing := missing_packages(RUNTIMES[name].packages):
        pytest.skip(missing)
    row = rows_of(subject_of(model), name)[name]
    assert row.why_empty is None and row.kernel
    assert row.logit_error <= (1e-5 if name in ("onnx", "openvino") else 0.1)


@pytest.mark.long
@pytest.mark.parametrize("name", ["compiled", "torchao_compiled"])
def test_a_compiled_model_computes_the_same(
    name: str, model: PreTrainedModel, subject_of: Callable[..., Subject]
) -> None:
    if missing := missing_packages(RUNTIMES[name].packages):
        pytest.skip(missing)
    row = rows_of(subject_of(model), name)[name]
    assert row.why_empty is None and row.logit_error <= RUNTIMES[name].tolerance


def test_a_decoder_is_exported_too(subject_of: Callable[..., Subject]) -> None:
    if missing := missing_packages(RUNTIMES["onnx"].packages):
        pytest.skip(missing)
    torch.manual_seed(0)
    row = rows_of(subject_of(LlamaForCausalLM(LlamaConfig(**SHAPE)).eval()), "onnx")["onnx"]
    assert row.why_empty is None and row.logit_error <= 1e-5


def test_a_runtime_that_computes_something_else_has_no_numbers(
    model: PreTrainedModel, subject_of: Callable[..., Subject]
) -> None:
    torch.manual_seed(1)
    other = DENSE.make(subject_of(BertForMaskedLM(BertConfig(**SHAPE)).eval()))
    wrong = Runtime("wrong", "another model", lambda _subject: other, tolerance=0.1)
    broken = Runtime("broken", "does not work", lambda _subject: 1 / 0, tolerance=0.1)  # type: ignore[arg-type, return-value]
    rows = measured(FOLDER, subject_of(model), [wrong, broken], LEAST_ROUNDS, "no counter")
    by_name = {row.runtime: row for row in rows}
    assert "its logits differ from those of dense by 1" in str(by_name["wrong"].why_empty)
    assert by_name["broken"].why_empty == "broken cannot compute this model: ZeroDivisionError: division by zero"
    assert by_name["wrong"].seconds is None and by_name["broken"].seconds is None
    assert by_name["dense"].why_empty is None and by_name["dense"].why_no_joules == "no counter"


def test_a_cut_model_is_compared_with_its_checkpoint(
    model: PreTrainedModel, subject_of: Callable[..., Subject]
) -> None:
    torch.manual_seed(0)
    large = BertForMaskedLM(BertConfig(**{**SHAPE, "num_hidden_layers": 3})).eval()
    rows = rows_of(subject_of(model, large), "checkpoint")
    assert rows["checkpoint"].checkpoint_speedup == 1.0
    assert rows["dense"].checkpoint_speedup is not None and rows["checkpoint"].why_empty is None
    assert rows["checkpoint"].model_bytes > rows["dense"].model_bytes


def test_too_little_memory_is_a_reason(
    model: PreTrainedModel, subject_of: Callable[..., Subject], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trainlarge.latency.measuring.free_memory", lambda: 1000)
    rows = rows_of(subject_of(model), "bf16")
    assert "GiB of memory are free" in str(rows["bf16"].why_empty)
    assert rows["dense"].why_empty is None


def test_a_sparse_layer_computes_what_the_dense_one_does() -> None:
    torch.manual_seed(0)
    layer = torch.nn.Linear(12, 8)
    with torch.no_grad():
        layer.weight[torch.rand(8, 12) < 0.7] = 0.0
    x = torch.randn(3, 5, 12)
    assert torch.allclose(CsrLinear(layer.weight, layer.bias)(x), layer(x), atol=1e-6)
    assert torch.allclose(CsrLinear(layer.weight, None)(x[0]), x[0] @ layer.weight.t(), atol=1e-6)


def test_two_zeros_in_every_four_are_found() -> None:
    matrix = torch.ones(64, 64)
    matrix[:, ::2] = 0.0
    assert is_2_4(matrix) and not is_2_4(matrix[:, :62])
    matrix[3, 0] = 1.0
    assert not is_2_4(matrix)


def test_tokens_are_none_that_mean_something_else(model: PreTrainedModel) -> None:
    models = CellModels(model, None, None)  # type: ignore[arg-type]
    tokens = tokens_for(models, 50, 40)
    assert tokens.shape == (50, 40) and set(range(3, 120)) == set(tokens.unique().tolist())
    assert torch.equal(tokens, tokens_for(models, 50, 40))
    with pytest.raises(ValueError, match="--length=41 is not valid: must be 1 to 40"):
        check_length(model, 41)
