"""Memory, clocks, precision, evaluation and compiling on a GPU."""

from __future__ import annotations

import gc
import json
from collections.abc import Callable
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModelForMaskedLM

from trainlarge.config.data import DataConfig
from trainlarge.config.schema import TrainConfig
from trainlarge.config.task import MaskedLMConfig
from trainlarge.models.build import build_model
from trainlarge.models.forward import FORWARDS, Forward, library_logits, library_loss
from trainlarge.models.shape import Shape
from trainlarge.sweep.store import CellFolder, Study
from trainlarge.tasks.evaluation import EvaluationSet
from trainlarge.tasks.masked_lm import MaskedLM
from trainlarge.tasks.task import make_task
from trainlarge.training.cells import STAGE
from trainlarge.training.context import TrainContext

pytestmark = pytest.mark.gpu
Tiny = Callable[..., TrainConfig]
RunOnce = Callable[..., list[CellFolder]]
Losses = Callable[[CellFolder], list[float]]


def test_where_memory_runs_out_the_micro_batch_is_halved_and_the_result_stays(
    tiny: Tiny, run_once: RunOnce, losses: Losses, caplog: pytest.LogCaptureFixture
) -> None:
    shape = ("arch.width=256", "arch.depth=4", "optim.batch=16384", "budget=30 steps")
    config = tiny("impl=plain", *shape)
    free_all()
    [folder] = run_once(config)
    assert folder.record_data()["environment"]["micro_batch_rows"] == 1024
    expected, needed = losses(folder), torch.cuda.max_memory_allocated()
    free_all()
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction(0.6 * needed / total)
    try:
        [folder] = run_once(config)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert folder.record_data()["environment"]["micro_batch_rows"] in (512, 256)
    assert "out of memory with 1024 rows at once" in caplog.text
    assert losses(folder) == pytest.approx(expected, rel=1e-4)


def test_a_state_that_is_kept_takes_no_memory_of_the_gpu_and_comes_back(tiny: Tiny, study: Study) -> None:
    loop = TrainContext(study, STAGE.resolve(tiny("impl.precision=fp32"))).loop
    loop.run(0, 3, lambda step: 1.0, lambda step, loss: None)
    free_all()
    before = torch.cuda.memory_allocated()
    kept = loop.snapshot()
    assert torch.cuda.memory_allocated() == before
    loop.run(3, 5, lambda step: 1.0, lambda step, loss: None)
    loop.restore(kept)
    optimizer = loop.module.configure_optimizers()
    for number, parameter in enumerate(part for group in optimizer.param_groups for part in group["params"]):
        assert optimizer.state[parameter]["step"].item() == 3
        for name, tensor in optimizer.state[parameter].items():
            assert tensor.device == parameter.device and parameter.is_cuda
            assert torch.equal(tensor.cpu(), kept.optimizer[number][name])
    assert all(torch.equal(tensor.cpu(), kept.model[name]) for name, tensor in loop.module.model.state_dict().items())


def free_all() -> None:
    """Give the memory of earlier models back, and forget how much they took."""
    gc.collect()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()


CYCLES = 20_000_000
"""About a hundredth of a second."""


def slept() -> float:
    """Seconds for which the GPU does nothing when it is told to, the second time."""
    for _ in range(2):
        began, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        began.record()
        torch.cuda._sleep(CYCLES)
        ended.record()
        torch.cuda.synchronize()
    return began.elapsed_time(ended) / 1000


def test_the_clocks_wait_for_a_gpu_that_works_behind_them(
    tiny: Tiny, run_once: RunOnce, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slow(*arguments: Any) -> Tensor:
        torch.cuda._sleep(CYCLES)
        return library_loss(*arguments)

    monkeypatch.setitem(FORWARDS, "library", Forward(slow, library_logits))
    least = 0.7 * slept()
    [folder] = run_once(tiny("impl=plain", "budget=100 steps"))
    record = folder.record_data()
    assert record["step_seconds"] > least
    assert all(row["train_seconds"] > least * row["step"] for row in folder.metrics())
    assert 0.6 < record["train_seconds"] / record["model_seconds"] < 1.7


def test_seconds_of_training_are_near_the_modelled_ones(tiny: Tiny, run_once: RunOnce) -> None:
    [folder] = run_once(tiny("arch.width=512", "arch.depth=4", "optim.batch=16384", "budget=200 steps"))
    record = folder.record_data()
    assert 0.5 < record["train_seconds"] / record["model_seconds"] < 2


def test_a_budget_on_the_real_clock_is_used_up(tiny: Tiny, run_once: RunOnce) -> None:
    [folder] = run_once(tiny("clock=real", "budget=1 s"))
    assert 1 <= folder.record_data()["train_seconds"] < 1.5 and folder.record_data()["step"] > 20


@pytest.mark.parametrize("arch", ["modern", "roberta"])
def test_a_run_on_the_gpu_is_that_on_the_cpu_but_for_rounding(
    tiny: Tiny, run_once: RunOnce, losses: Losses, arch: str
) -> None:
    positions = ("arch.positions=18",) if arch == "roberta" else ()
    common = (f"arch={arch}", "arch.dropout=0", "impl.precision=fp32", "budget=40 steps", *positions)
    [on_cpu] = map(losses, run_once(tiny(*common, "impl.device=cpu")))
    [on_gpu] = map(losses, run_once(tiny(*common)))
    assert on_gpu == pytest.approx(on_cpu, rel=1e-4)


def test_bf16_trains_as_fp32_but_for_rounding_and_keeps_fp32_weights(tiny: Tiny, run_once: RunOnce) -> None:
    found = {}
    for precision in ("fp32", "bf16"):
        [folder] = run_once(tiny("arch.width=64", f"impl.precision={precision}", "budget=60 steps"))
        assert folder.record_data()["environment"]["precision"] == precision
        weights = load_file(folder.checkpoint / "model.safetensors").values()
        assert {tensor.dtype for tensor in weights} == {torch.float32}
        found[precision] = folder.record_data()["loss"]
    assert found["bf16"] == pytest.approx(found["fp32"], rel=0.01) and found["bf16"] != found["fp32"]


def test_auto_takes_bf16_where_the_hardware_multiplies_it(tiny: Tiny, run_once: RunOnce, study: Study) -> None:
    if torch.cuda.get_device_capability() < (8, 0):
        pytest.skip("this GPU does not multiply bf16")
    [folder] = run_once(tiny("budget=4 steps"))
    [path] = study.path.glob("probes/precision/*.json")
    assert folder.record_data()["environment"]["precision"] == "bf16", path.read_text()
    assert json.loads(path.read_text())["key"]["device_name"] == torch.cuda.get_device_name()


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("name", ["modern", "roberta"])
def test_an_evaluation_is_that_of_the_cpu_whatever_autocast_is_on(name: Any, attention: str) -> None:
    model = build_model(
        Shape(name, 64, 2, 2, 2.0, vocab_size=300, positions=34), init_std=0.2, seed=0, attention=attention
    )
    draw = torch.Generator().manual_seed(0)
    inputs = torch.randint(4, 300, (600, 32), generator=draw)
    positions = torch.rand(600, 32, generator=draw).argsort(1)[:, :5].sort(1).values
    labels = torch.randint(4, 300, (600, 5), generator=draw)
    data = EvaluationSet({"input_ids": inputs, "predicted": positions, "labels": labels}, "")
    for forward in FORWARDS.values():
        task = MaskedLM(MaskedLMConfig(), DataConfig("stdlib"), forward)
        on_cpu = task.evaluate(model.cpu(), data)
        with torch.autocast("cuda", torch.bfloat16):
            on_gpu = task.evaluate(model.cuda(), data)  # type: ignore[call-arg]
        torch.testing.assert_close(on_gpu.row_losses, on_cpu.row_losses, rtol=1e-4, atol=1e-4)
        assert on_gpu.loss == pytest.approx(on_cpu.loss, rel=1e-5)
        assert on_gpu.metrics["accuracy"] == pytest.approx(on_cpu.metrics["accuracy"], abs=2 / 3000)


def test_a_record_has_the_loss_that_its_checkpoint_has_on_the_cpu(tiny: Tiny, run_once: RunOnce, study: Study) -> None:
    [folder] = run_once(tiny("impl.precision=bf16"))
    config = folder.cell().as_train
    task = make_task(config.task, config.data, FORWARDS["fast"])
    data = task.evaluation_set(task.prepare(study.data_root))
    on_cpu = task.evaluate(AutoModelForMaskedLM.from_pretrained(folder.checkpoint), data)
    assert folder.record_data()["loss"] == pytest.approx(on_cpu.loss, rel=1e-5)


def test_a_compiled_step_is_the_plain_one_and_its_compiling_is_no_training_time(
    tiny: Tiny, run_once: RunOnce, losses: Losses
) -> None:
    common = ("impl.precision=fp32", "budget=40 steps")
    [plain] = run_once(tiny(*common))
    expected = losses(plain)
    [folder] = run_once(tiny(*common, "impl.compile=inductor"))
    record = folder.record_data()
    assert losses(folder) == pytest.approx(expected, rel=1e-3)
    assert record["environment"]["compile"] == "inductor"
    assert record["compile_seconds"] > record["train_seconds"]
    assert record["wall_seconds"] > record["compile_seconds"] + record["train_seconds"]
