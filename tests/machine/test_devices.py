"""Each job sees GPUs of its own: found without CUDA, handed to real worker processes, which tell what they see.

There need be no GPU: CUDA_VISIBLE_DEVICES says which there are, for us as for CUDA itself.
"""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from trainlarge.config.launcher import LocalConfig
from trainlarge.config.schema import StageConfig, TrainConfig
from trainlarge.errors import UserError
from trainlarge.launch.engine import run_cells
from trainlarge.launch.local.shares import shares
from trainlarge.launch.stage_runner import RUNNERS
from trainlarge.machine import devices
from trainlarge.machine.devices import visible_devices
from trainlarge.machine.environment import VISIBLE_DEVICES
from trainlarge.machine.resources import Resources
from trainlarge.sweep.store import CellFolder, Study

Tiny = Callable[..., TrainConfig]
ABSENT = "99"
"""A GPU that is not there: what sees it alone computes on the CPU."""


@pytest.fixture
def tiny(tiny: Tiny) -> Tiny:
    """Cells that take a GPU where there is one."""
    return lambda *overrides: tiny("impl.device=auto", *overrides)


@pytest.mark.parametrize(
    ("mask", "found"),
    [
        ("0,1", ("0", "1")), ("2", ("2",)), ("", ()), ("-1", ()), ("0,-1,1", ("0",)), ("NoDevFiles", ()),
        (" 3 , 5 ", ("3", "5")), ("GPU-8a1c,MIG-0b2d/1/0", ("GPU-8a1c", "MIG-0b2d/1/0")),
    ],
)  # fmt: skip
def test_the_mask_is_read_as_cuda_reads_it(mask: str, found: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VISIBLE_DEVICES, mask)
    assert visible_devices() == found


LISTING = """\
GPU 0: NVIDIA H100 (UUID: GPU-5c89852c-d268)
  MIG 3g.20gb     Device  0: (UUID: MIG-c6d4f1ef-42e4)
  MIG 1g.5gb      Device  1: (UUID: MIG-cba663e8-9bed)
GPU 1: NVIDIA H100 (UUID: GPU-7a2be1d9-0c41)
"""


def install(folder: Path, script: str) -> None:
    program = folder / "nvidia-smi"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)


@pytest.mark.parametrize(
    ("script", "found"),
    [
        (f"cat <<'END'\n{LISTING}END", ("MIG-c6d4f1ef-42e4", "MIG-cba663e8-9bed", "GPU-7a2be1d9-0c41")),
        ("echo 'NVIDIA-SMI has failed'; exit 9", ()),
    ],
)
def test_without_a_mask_nvidia_smi_is_asked(
    script: str, found: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(VISIBLE_DEVICES, raising=False)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    install(tmp_path, script)
    assert visible_devices() == found


def test_without_nvidia_smi_the_driver_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VISIBLE_DEVICES, raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    devices._listed.cache_clear()
    for name in ("0000:07:00.0", "0000:0b:00.0"):
        (tmp_path / "gpus" / name).mkdir(parents=True)
    monkeypatch.setattr(devices, "_DRIVER", tmp_path / "gpus")
    assert visible_devices() == ("0", "1")
    devices._listed.cache_clear()


def shared(tiny: Tiny, *overrides: str) -> tuple[Resources, ...]:
    config = tiny(*overrides)
    assert isinstance(config.launcher, LocalConfig)
    return shares(config.launcher, [config])


def masks(tiny: Tiny, *overrides: str) -> list[tuple[str, ...]]:
    return [share.devices for share in shared(tiny, *overrides)]


def test_there_are_as_many_jobs_as_devices_and_each_has_its_own(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VISIBLE_DEVICES, "4,5,7")
    assert masks(tiny) == [("4",), ("5",), ("7",)]
    assert masks(tiny, "workers=2") == [("4",), ("5",)]
    assert masks(tiny, "impl.devices=2") == [("4", "5")], "what is left over is too few for a job"
    assert masks(tiny, "launcher.per_device=2") == [("4",), ("5",), ("7",)] * 2
    assert masks(tiny, "launcher.per_device=2", "workers=4") == [("4",), ("5",), ("7",), ("4",)]
    assert masks(tiny, "impl.device=cpu", "workers=9") == [()] * 9
    monkeypatch.setenv(VISIBLE_DEVICES, "")
    assert masks(tiny) == [()] and shared(tiny)[0].jobs_per_device == 1


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (["workers=4"], "workers=4 is not valid: must be at most 2: 2 GPUs, one per job, launcher.per_device=1"),
        (["workers=2", "impl.devices=2"], "workers=2 is not valid: must be at most 1: 2 GPUs, impl.devices=2 per job"),
        (["impl.devices=3"], "impl.devices=3 is not valid: must be at most 2"),
        (
            ["launcher.per_device=2", "budget=30 min"],
            "launcher.per_device=2 is not valid: must be 1 with budget=30 min",
        ),
        (["launcher.per_device=2", "schedule=fixed", "schedule.horizon=1 h"], "1 with schedule.horizon=1 h"),
        (
            ["launcher.per_device=2", "impl.device=cpu"],
            "launcher.per_device=2 is not valid: must be 1 where there are no GPUs",
        ),
    ],
)
def test_what_the_devices_cannot_serve_is_refused(
    overrides: list[str], told: str, tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VISIBLE_DEVICES, "0,1")
    with pytest.raises(UserError) as error:
        shared(tiny, *overrides)
    assert told in str(error.value)


def seen(folder: CellFolder) -> str:
    """What the cell's process says that it sees."""
    [words] = [line.split() for line in folder.log.read_text().splitlines() if VISIBLE_DEVICES in line]
    assert words[2] == folder.id, "each line has its date, time and cell"
    return words[3].removeprefix(f"{VISIBLE_DEVICES}=")


def overlaps(first: dict[str, Any], second: dict[str, Any]) -> bool:
    return bool(first["started"] < second["ended"] and second["started"] < first["ended"])


def test_no_device_has_two_jobs_at_once(tiny: Tiny, study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VISIBLE_DEVICES, "4,GPU-8a1c")
    run_cells("train", [tiny(f"seed={seed}", "impl.threads=1") for seed in range(4)], Console(file=io.StringIO()))
    spans: dict[str, list[StageConfig]] = {}
    for folder in study.folders("train"):
        spans.setdefault(seen(folder), []).append(folder.record_data()["provenance"])
        assert folder.record_data()["environment"]["per_device"] == 1
    assert set(spans) == {"4", "GPU-8a1c"} and sum(map(len, spans.values())) == 4
    assert not any(overlaps(a, b) for on_one in spans.values() for a in on_one for b in on_one if a is not b)


def test_cells_that_share_a_device_say_so_and_keep_their_probe_apart(
    tiny: Tiny, study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VISIBLE_DEVICES, ABSENT)
    configs = [tiny(f"seed={seed}", "impl.threads=1", "launcher.per_device=2") for seed in range(2)]
    run_cells("train", configs, Console(file=io.StringIO()))
    for folder in study.folders("train"):
        environment = folder.record_data()["environment"]
        assert (seen(folder), environment["shared"], environment["per_device"]) == (ABSENT, True, 2)
    [probe] = (study.path / "probes").glob("*.json")
    run_cells("train", [tiny("seed=2", "impl.threads=1")], Console(file=io.StringIO()))
    assert len(list(probe.parent.glob("*.json"))) == 2, "a time beside others is none for a cell of its own"


@pytest.mark.long
def test_what_the_fork_server_imports_does_not_start_cuda() -> None:
    modules = ", ".join(["trainlarge.launch.worker", *RUNNERS.values()])
    code = f"""
import torch
touched = []
for name in ("is_available", "device_count", "init", "_lazy_init", "current_device", "get_device_name"):
    setattr(torch.cuda, name, lambda *arguments, name=name: touched.append(name) or 0)
import {modules}
print(touched, torch.cuda.is_initialized())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[-2] == "[] False", done.stdout
