"""A run on a GPU that was stopped, killed or extended goes on as one that was never touched, but for rounding.

A GPU adds in no fixed order. On a CPU, another order moves a loss by at most 1e-7 of it, a lost optimizer state by 2e-4
to 6e-3, and weights that are a thousandth too large by 4e-5.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable

import pytest
from rich.console import Console

from trainlarge.config.schema import TrainConfig
from trainlarge.launch.engine import run_cells
from trainlarge.sweep.plan import make_cells
from trainlarge.sweep.store import CellFolder, Study

pytestmark = pytest.mark.gpu
Tiny = Callable[..., TrainConfig]
Run = Callable[[str, list[TrainConfig]], list[CellFolder]]
RunOnce = Callable[..., list[CellFolder]]
RunAndStop = Callable[..., None]
Losses = Callable[[CellFolder], list[float]]

ROUNDING = {"fp32": 2e-5, "bf16": 1e-3}
"""Precision -> most by which a loss may differ, as a share of it."""
SAVING = ("impl.save_seconds=0", "budget=60 steps")
ROBERTA = ("arch=roberta", "arch.dropout=0.1", "arch.positions=18")


@pytest.mark.parametrize(
    ("precision", "overrides", "step"),
    [("fp32", (), 17), ("fp32", (), 55), ("fp32", ROBERTA, 47), ("bf16", (), 40)],
    ids=["trunk", "branch", "dropout", "bf16"],
)
def test_a_run_that_was_stopped_goes_on_to_the_same_losses(
    tiny: Tiny, run_here: Run, run_once: RunOnce, run_and_stop: RunAndStop, losses: Losses,
    precision: str, overrides: tuple[str, ...], step: int,
) -> None:  # fmt: skip
    common = (*SAVING, f"impl.precision={precision}", *overrides)
    configs = [tiny(*common, f"budget={steps} steps") for steps in (40, 60)]
    expected = [losses(folder) for folder in run_once(*configs)]
    run_and_stop(step, *configs)
    folders = run_here("train", configs)
    assert any(folder.record_data()["resumed_at"] for folder in folders)
    assert all(folder.record_data()["environment"]["device"] == "cuda" for folder in folders)
    for folder, one in zip(folders, expected, strict=True):
        assert losses(folder) == pytest.approx(one, rel=ROUNDING[precision])


def test_a_killed_process_is_followed_by_one_that_resumes(
    tiny: Tiny, study: Study, run_once: RunOnce, losses: Losses
) -> None:
    config = tiny("impl.precision=fp32", "impl.save_seconds=0.1", "budget=1500 steps", "launcher.retries=1")
    [expected] = map(losses, run_once(config))
    shutil.rmtree(study.path)
    [cell] = make_cells("train", [config])
    folder = study.folder("train", cell.id)
    killer = threading.Thread(target=kill_holder, args=[folder])
    killer.start()
    outcome = run_cells("train", [config], Console(file=io.StringIO()))
    killer.join()
    assert not outcome.failed and folder.status().attempts == 2 and folder.record_data()["resumed_at"]
    assert losses(folder) == pytest.approx(expected, rel=1e-3)


def kill_holder(folder: CellFolder) -> None:
    """Kill, with -9, the process that trains the cell, once it has saved a state."""
    deadline = time.monotonic() + 120
    trunks = folder.path.parents[1] / "trunks"
    while not list(trunks.glob("*/trunk-*/state.json")):
        assert time.monotonic() < deadline, "it never saved a state"
        time.sleep(0.005)
    lease = max((folder.path / "lease").glob("*.json"))
    os.kill(json.loads(lease.read_text())["pid"], signal.SIGKILL)


def test_a_damaged_state_is_noticed_and_the_one_before_is_used(
    tiny: Tiny, study: Study, run_here: Run, run_once: RunOnce, run_and_stop: RunAndStop, losses: Losses
) -> None:
    config = tiny(*SAVING, "impl.precision=fp32")
    [expected] = map(losses, run_once(config))
    run_and_stop(30, config)
    newest = max(study.path.glob("trunks/*/trunk-*/tensors.safetensors"))
    newest.write_bytes(newest.read_bytes()[:-100])
    [folder] = run_here("train", [config])
    assert folder.record_data()["resumed_at"] == [29]
    assert losses(folder) == pytest.approx(expected, rel=ROUNDING["fp32"])


def test_a_larger_budget_later_continues_the_trunk(
    tiny: Tiny, run_here: Run, run_once: RunOnce, losses: Losses
) -> None:
    small, large = (tiny("impl.precision=fp32", f"budget={steps} steps") for steps in (40, 80))
    [expected] = map(losses, run_once(large))
    run_once(small)
    [folder] = run_here("train", [large])
    assert folder.record_data()["resumed_at"] == [32], "where the smaller budget left the trunk"
    assert losses(folder) == pytest.approx(expected, rel=ROUNDING["fp32"])


def test_a_state_goes_on_on_another_kind_of_device_and_back(
    tiny: Tiny, run_here: Run, run_once: RunOnce, run_and_stop: RunAndStop, losses: Losses
) -> None:
    def config(device: str, steps: int) -> TrainConfig:
        return tiny(*SAVING, "impl.precision=fp32", f"impl.device={device}", f"budget={steps} steps")

    [expected] = map(losses, run_once(config("cpu", 120)))
    run_and_stop(20, config("cpu", 60))
    [folder] = run_here("train", [config("cuda", 60)])
    [last] = run_here("train", [config("cpu", 120)])
    assert (folder.record_data()["resumed_at"], last.record_data()["resumed_at"]) == ([20], [48])
    environments = [one.train_record().environment for one in (folder, last)]
    devices = [[*(past["device"] for past in one.before or []), one.device] for one in environments]
    assert devices == [["cpu", "cuda"], ["cpu", "cuda", "cpu"]]
    assert losses(last) == pytest.approx(expected, rel=1e-4)
