"""``impl.precision=auto``: measured where the hardware claims bf16, once for a device, and then kept."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from trainlarge.config.schema import TrainConfig
from trainlarge.machine import device, precision
from trainlarge.machine.device import choose
from trainlarge.machine.precision import PAYS, Precision, faster_precision
from trainlarge.machine.probe import measured_once
from trainlarge.sweep.sealed import read_sealed, write_sealed
from trainlarge.sweep.store import CellFolder, Study

Tiny = Callable[..., TrainConfig]
Run = Callable[[str, list[dict[str, Any]]], list[CellFolder]]


@pytest.fixture(autouse=True)
def small_products(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hardware without bf16 takes a hundred times as long for it."""
    monkeypatch.setitem(precision.SHAPES, "cpu", (32, 256, 1024))


def test_the_faster_precision_is_measured_and_its_threads_given_back(tmp_path: Path) -> None:
    before = torch.get_num_threads()
    found = faster_precision(tmp_path, "cpu", "some CPU", 1)
    [path] = tmp_path.glob("*.json")
    measured = json.loads(path.read_text())
    assert measured["speedup"] > 0 and found == ("bf16" if measured["speedup"] >= PAYS else "fp32")
    assert measured["key"] == {"device_name": "some CPU", "threads": 1, "torch": torch.__version__}
    assert torch.get_num_threads() == before


def test_the_median_of_neighbouring_turns_decides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = iter([9.0, 9.0, *[3.0, 2.0] * 4, *[1.0, 9.0] * 3])
    monkeypatch.setattr(precision, "_turn", lambda *_: next(seconds))
    assert faster_precision(tmp_path, "cpu", "some CPU", 1) == "bf16", "three disturbed turns of seven change nothing"
    assert faster_precision(tmp_path, "cpu", "some CPU", 1) == "bf16" and next(seconds, None) is None, "measured once"


def test_a_gain_that_casts_would_eat_does_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = iter([1.05, 1.0] * 8)
    monkeypatch.setattr(precision, "_turn", lambda *_: next(seconds))
    assert faster_precision(tmp_path, "cpu", "some CPU", 1) == "fp32"


def test_nothing_is_measured_without_the_claim_or_when_told(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    impl = tiny("impl.device=cpu", "impl.threads=1").impl
    monkeypatch.setattr(device, "default_precision", lambda _: "fp32")
    assert choose(impl, tmp_path).precision == "fp32"
    monkeypatch.setattr(device, "default_precision", lambda _: "bf16")
    assert choose(impl).precision == "bf16", "no folder: the claim"
    assert choose(replace(impl, precision="fp32"), tmp_path).precision == "fp32" and not list(tmp_path.iterdir())
    choose(impl, tmp_path)
    assert list(tmp_path.glob("*.json"))


def test_all_jobs_of_a_study_take_what_was_kept(
    tiny: Tiny, run_here: Run, study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device, "default_precision", lambda _: "bf16")
    config = tiny("budget=4 steps", "impl.threads=1", "impl.device=cpu")
    [folder] = run_here("train", [config])
    [path] = (study.path / "probes" / "precision").glob("*.json")
    measured = read_sealed(path)
    assert folder.record_data()["environment"]["precision"] == measured["precision"]
    other = {"bf16": "fp32", "fp32": "bf16"}[measured["precision"]]
    write_sealed(path, {**measured, "precision": other})
    [second] = run_here("train", [replace(config, seed=1)])
    assert second.record_data()["environment"]["precision"] == other


@pytest.mark.parametrize("damage", ["{", '{"precision": "bf16", "seal": "sha256:0"}', "[]", "{}", '{"precision": 16}'])
def test_a_damaged_measurement_is_made_again(tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: str) -> None:
    key = {"device": "cpu"}
    first = measured_once(tmp_path, key, Precision, lambda: Precision("fp32"))
    [path] = tmp_path.glob("*.json")
    path.write_text(damage)
    assert (
        measured_once(tmp_path, key, Precision, lambda: Precision("fp32")) == first and "measured again" in caplog.text
    )
    assert measured_once(tmp_path, key, Precision, lambda: pytest.fail("measured twice")) == first
