"""A compiled step is the plain step, and its compiling is no training time."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._inductor import codecache

from trainlarge.config.data import DataConfig
from trainlarge.config.schema import TrainConfig
from trainlarge.config.task import MaskedLMConfig
from trainlarge.errors import UserError
from trainlarge.machine.device import choose
from trainlarge.models.build import build_model
from trainlarge.models.forward import FORWARDS, Forward, library_logits, library_loss
from trainlarge.models.shape import Shape
from trainlarge.results.comparable import CLOCKS, differences
from trainlarge.results.frames import load_study
from trainlarge.sweep.cell import Cell
from trainlarge.sweep.store import CellFolder, Study
from trainlarge.tasks.masked_lm import MaskedLM
from trainlarge.training import context as training_context
from trainlarge.training.cells import STAGE
from trainlarge.training.clocks import Clock
from trainlarge.training.compiling import Compiling

Tiny = Callable[..., TrainConfig]
Run = Callable[[str, list[dict[str, Any]]], list[CellFolder]]
LOSS = MaskedLM(MaskedLMConfig(), DataConfig(), FORWARDS["fast"]).loss
SHAPE = Shape("modern", 32, 2, 2, 2.0, vocab_size=60, positions=12, dropout=0.1)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of compiled code of the test's own, so that nothing is found there."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    torch._dynamo.reset()
    return tmp_path


def loss_and_gradients(loss: Any) -> dict[str, Tensor]:
    model = build_model(SHAPE, init_std=0.2, seed=0, attention="eager")
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randint(4, 60, (3, 12), generator=generator)
    positions = torch.tensor([[1, 5], [0, 7], [3, 11]])
    torch.manual_seed(5)
    value, weight = loss(model, {"input_ids": inputs, "predicted": positions, "labels": inputs.gather(1, positions)})
    assert weight == 6
    value.backward()
    return {"loss": value.detach()} | {name: weight.grad for name, weight in model.named_parameters()}


@pytest.mark.long
def test_compiled_loss_and_gradients_are_the_plain_ones_with_the_same_dropout(
    cache: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    headers = tmp_path_factory.mktemp("headers")
    monkeypatch.setattr(codecache, "_HEADER_DIR", str(headers))
    plain = loss_and_gradients(LOSS)
    compiled = loss_and_gradients(Compiling("inductor", 1, cache).of(LOSS))
    assert list(cache.rglob("*.so")), "kept, so that it is compiled once"
    assert not list(headers.iterdir()), "inductor takes any file there for a whole one, also of a killed process"
    for name, expected in plain.items():
        torch.testing.assert_close(compiled[name], expected, atol=1e-5, rtol=1e-4, msg=name)


@pytest.mark.long
def test_compiling_is_no_training_time_and_changes_no_result(
    tiny: Tiny, run_here: Run, study: Study, cache: Path
) -> None:
    common = ("impl.precision=fp32", "impl.threads=1", "optim.eps=1e-3")
    [folder] = run_here("train", [tiny(*common)])
    plain = folder.record_data()
    folder.clear_result()
    for path in study.path.glob("trunks/*/*/state.json"):
        path.unlink()
    run_here("train", [tiny(*common, "impl.compile=inductor")])
    compiled = folder.record_data()
    assert compiled["loss"] == pytest.approx(plain["loss"], rel=1e-4) and compiled["cell"] == plain["cell"]
    assert compiled["compile_seconds"] > compiled["train_seconds"] and plain["compile_seconds"] == 0
    assert compiled["wall_seconds"] > compiled["compile_seconds"] + compiled["train_seconds"]
    assert compiled["compile_seconds"] > 40 * compiled["step_seconds"]
    assert len(list((study.path / "probes").glob("*.json"))) == 2, "another implementation, another time of a step"
    [other] = run_here("train", [tiny(*common, "seed=1")])
    cells = load_study(study).cells.set_index("cell")
    assert cells.loc[[folder.id, other.id], "compile"].tolist() == ["inductor", "none"]
    assert "compile (inductor in 1 cells, none in 1)" in differences(cells, CLOCKS)


def test_the_training_clock_stands_still_while_something_is_compiled_in_a_step(cache: Path) -> None:
    def slow_backend(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> Any:
        time.sleep(0.5)
        return graph

    compiling, clock = Compiling("inductor", 1, cache), Clock()
    step = torch.compile(lambda x: x + 1, dynamic=False, backend=slow_backend)
    clock.start()
    with compiling.pausing(clock):
        for rows in (1, 1, 2, 2):
            step(torch.zeros(rows, 3))
    clock.stop()
    assert compiling.seconds > 1 and clock.train_seconds < 0.5
    clock.start()
    step(torch.zeros(3, 3))
    clock.stop()
    assert clock.train_seconds > 0.5, "outside the block nobody looks"


def test_nothing_is_compiled_unless_asked_for(tmp_path: Path) -> None:
    compiling = Compiling("none", 1, tmp_path)
    assert compiling.of(LOSS) == LOSS
    compiling.warm_up(lambda: pytest.fail("no step is needed"))
    assert compiling.seconds == 0


@pytest.mark.parametrize(
    "overrides",
    [
        ("impl.compile=magic",),
        ("impl.compile=inductor", "impl.devices=2"),
        ("impl.compile=graphs", "impl.micro_batch_rows=4"),
    ],
)
def test_what_cannot_be_compiled_is_refused_before_anything_starts(tiny: Tiny, overrides: tuple[str, ...]) -> None:
    with pytest.raises(UserError, match=r"^impl\.compile="):
        tiny(*overrides)


def test_graphs_are_refused_on_the_cpu(tiny: Tiny) -> None:
    with pytest.raises(UserError, match=r"^impl\.compile=graphs"):
        choose(tiny("impl.compile=graphs", "impl.device=cpu").impl)


def test_with_graphs_a_batch_that_does_not_fit_is_not_divided(
    tiny: Tiny, run_here: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def too_large(model: Any, inputs: Tensor, *rest: Tensor) -> Tensor:
        if len(inputs) > 4:
            raise torch.OutOfMemoryError("made up")
        return library_loss(model, inputs, *rest)

    # As on a GPU, but for the graphs themselves.
    monkeypatch.setattr(training_context, "choose", lambda *arguments: replace(choose(*arguments), compile="graphs"))
    monkeypatch.setattr(Compiling, "of", lambda self, loss: loss)
    monkeypatch.setitem(FORWARDS, "library", Forward(too_large, library_logits))
    with pytest.raises(
        UserError, match=r"^impl\.compile=graphs is not valid: must be none or inductor: the batch does not fit"
    ):
        run_here("train", [tiny("impl=plain", "impl.device=cpu")])


def test_how_the_loss_is_compiled_is_no_part_of_a_cell(tiny: Tiny, study: Study) -> None:
    ids = {Cell("train", STAGE.resolve(tiny(f"impl.compile={kind}"))).id for kind in ("none", "inductor", "graphs")}
    assert len(ids) == 1
    facts = choose(tiny("impl.compile=none", "impl.device=cpu").impl).to_json()
    assert "compile" not in facts, "times of steps that were kept before the key existed still serve"
