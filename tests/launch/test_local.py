"""Jobs in real processes: what fails or is killed ends one job, and nothing that was finished is lost."""

from __future__ import annotations

import io
import operator
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable

import pytest
from rich.console import Console

from trainlarge.config.plain import to_plain
from trainlarge.config.schema import TrainConfig
from trainlarge.launch.engine import CellsFailedError, report_failures, run_cells
from trainlarge.launch.job import RunningJob
from trainlarge.launch.local import processes
from trainlarge.sweep.plan import make_cells
from trainlarge.sweep.status import State, Status
from trainlarge.sweep.store import CellFolder, Study
from waiting import holder_of, wait_for

pytestmark = pytest.mark.usefixtures("unforeseen")

Tiny = Callable[..., TrainConfig]


def quiet() -> Console:
    return Console(file=io.StringIO(), width=200)


def files_of(folder: CellFolder) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder.path)): path.read_bytes()
        for path in sorted(folder.path.rglob("*"))
        if path.is_file()
    }


def test_two_jobs_at_once_run_every_cell_and_again_none(tiny: Tiny, study: Study) -> None:
    configs = [tiny(f"seed={seed}", f"budget={steps} steps", "workers=2") for seed in (0, 1) for steps in (20, 40)]
    outcome = run_cells("train", configs, quiet())
    folders = list(study.folders("train"))
    assert len(folders) == 4 and len(outcome.plan.jobs) == 2 and all(folder.is_done() for folder in folders)
    before = [files_of(folder) for folder in folders]
    again = run_cells("train", configs, quiet())
    assert not again.plan.jobs and again.plan.done == 4
    assert [files_of(folder) for folder in folders] == before


def test_a_frozen_cell_ignores_edits_of_conf(tiny: Tiny, study: Study) -> None:
    [cell] = make_cells("train", [tiny()])
    study.folder("train", cell.id).freeze(cell)
    text = (study.folder("train", cell.id).path / "config.yaml").read_text()
    run_cells("train", [tiny()], quiet())
    assert (study.folder("train", cell.id).path / "config.yaml").read_text() == text
    assert study.folder("train", cell.id).record_data()["config"] == to_plain(cell.config)


def test_a_job_that_raises_leaves_its_error_and_the_rest_goes_on(tiny: Tiny, study: Study) -> None:
    bad, good = tiny("data.vocab_size=100000", "budget=99 steps"), tiny()
    with pytest.raises(CellsFailedError) as failure:
        run_cells("train", [bad, good], quiet())
    [failed] = failure.value.outcome.failed
    folder = study.folder("train", failed)
    assert folder.status().state is State.FAILED and "data.vocab_size=100000" in (folder.status().error or "")
    assert "data.vocab_size=100000" in folder.log.read_text()
    assert sum(other.is_done() for other in study.folders("train")) == 1
    console = quiet()
    report_failures(failure.value.outcome, console)
    lines = console.file.getvalue().strip().splitlines()  # type: ignore[attr-defined]
    assert failed in lines[0] and lines[-1].endswith(f"trainlarge show {failed} --study tiny")


def test_a_killed_job_leaves_its_cells_failed_and_claimable_and_the_rest_goes_on(tiny: Tiny, study: Study) -> None:
    long, short = tiny("budget=1000000 steps"), tiny("budget=20 steps", "seed=1")
    [doomed] = make_cells("train", [long])
    folder = study.folder("train", doomed.id)

    def kill() -> None:
        os.kill(holder_of(folder), signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    with pytest.raises(CellsFailedError) as failure:
        run_cells("train", [long, short], quiet())
    killer.join()
    assert failure.value.outcome.failed == (doomed.id,)
    assert folder.status().state is State.FAILED and "SIGKILL" in (folder.status().error or "")
    assert folder.status().attempts == 1


def test_a_job_that_is_killed_since_it_does_not_stop_is_preempted(
    tiny: Tiny, study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny("budget=1000000 steps")
    [cell] = make_cells("train", [config])
    folder = study.folder("train", cell.id)

    def freeze_it_and_interrupt() -> None:
        os.kill(holder_of(folder), signal.SIGSTOP)
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(processes, "GRACE_SECONDS", 0.2)
    hand = threading.Thread(target=freeze_it_and_interrupt)
    hand.start()
    with pytest.raises(KeyboardInterrupt):
        run_cells("train", [config], quiet())
    hand.join()
    assert folder.status().state is State.PREEMPTED and "SIGKILL" in (folder.status().error or "")
    assert RunningJob.claim(study, "train", [cell.id]).cells and folder.status().retries == 0


def test_a_preempted_cell_whose_process_dies_before_it_claims_has_failed(
    tiny: Tiny, study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    [cell] = make_cells("train", [tiny()])
    folder = study.folder("train", cell.id)
    folder.freeze(cell)
    folder.write_status(Status(State.PREEMPTED, attempts=1))
    # Stands for a process that cannot begin: it gets arguments that it cannot take.
    monkeypatch.setattr(processes, "_run_in_child", operator.neg)
    with pytest.raises(CellsFailedError):
        run_cells("train", [tiny()], quiet())
    assert folder.status().state is State.FAILED and folder.status().error == "the process ended with status 1"


COMMAND = [sys.executable, "-m", "trainlarge.cli", "train"]


def test_an_interrupt_leaves_every_cell_claimable(study: Study, tiny_overrides: list[str]) -> None:
    overrides = [*tiny_overrides, "budget=[1000000 steps, 20 steps]", "schedule=matched"]
    process = subprocess.Popen(
        [*COMMAND, *overrides], start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    wait_for(lambda: any(folder.status().progress for folder in study.folders("train")))
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130 and "continues from here" in errors and "Traceback" not in errors
    states = {folder.status().state for folder in study.folders("train")}
    assert states <= {State.PREEMPTED, State.QUEUED, State.DONE}, "none is left running"


@pytest.mark.long
def test_two_commands_at_once_run_each_cell_once(study: Study, tiny_overrides: list[str]) -> None:
    overrides = [*tiny_overrides, "budget=[20 steps, 40 steps, 60 steps]", "schedule=matched"]
    processes = [
        subprocess.Popen([*COMMAND, *overrides], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        for _ in range(2)
    ]
    printed = [process.communicate(timeout=120)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], printed
    folders = list(study.folders("train"))
    assert len(folders) == 3 and all(folder.is_done() and folder.status().attempts == 1 for folder in folders)
