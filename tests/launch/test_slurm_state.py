"""Where submitted jobs stand, from the study folder and what squeue and sacct print."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from trainlarge.config.launcher import SlurmConfig
from trainlarge.config.schema import TrainConfig
from trainlarge.errors import UserError
from trainlarge.launch.job import RunningJob
from trainlarge.launch.launcher import JobState
from trainlarge.launch.slurm import state as slurm_state
from trainlarge.launch.slurm.command import SlurmRefusedError
from trainlarge.launch.slurm.state import slurm_jobs
from trainlarge.launch.slurm.submission import SlurmArray, Submission, submissions
from trainlarge.sweep.plan import make_cells, make_plan
from trainlarge.sweep.status import State, Status
from trainlarge.sweep.store import Study

Answers = dict[str, str | Exception]


@pytest.fixture
def cells(study: Study, tiny: Callable[..., TrainConfig]) -> list[str]:
    plan = make_plan(study, "train", make_cells("train", [tiny(f"seed={seed}") for seed in range(4)]))
    return [cell.id for cell in plan.cells]


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> Answers:
    """What each command of SLURM answers."""
    answers: Answers = {"squeue": "", "sacct": SlurmRefusedError("accounting storage is disabled")}

    def command(name: str, *arguments: str, timeout: float = 0) -> str:
        answer = answers[name]
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(slurm_state, "slurm_command", command)
    return answers


def submit(study: Study, jobs: list[tuple[str, ...]], number: int = 5, age: float = 100) -> Submission:
    submission = Submission.new(study, "train", jobs, SlurmConfig(), [])
    submission = replace(submission, created=submission.created - age)
    return submission.with_array(SlurmArray(number, 0, len(jobs))).write()


def states(study: Study) -> list[JobState]:
    return [job.state for job in slurm_jobs(study)]


def test_a_submission_round_trips(study: Study, cells: list[str]) -> None:
    written = submit(study, [(cells[0], cells[1]), (cells[2],)])
    assert submissions(study) == [written] and written.study == study
    (written.path.parent / "torn.json").write_text('{"schema": 1, "sta')
    assert submissions(study) == [written], "a damaged file hides no other"


@pytest.mark.parametrize("stage, cell", [("train", "../../x"), ("train", "x"), ("..", "0" * 12)])
def test_a_submission_that_leads_out_of_the_study_is_refused(study: Study, stage: str, cell: str) -> None:
    path = replace(Submission.new(study, stage, [(cell,)], SlurmConfig(), [])).write().path
    with pytest.raises(ValueError, match="names something else than cells"):
        Submission.read(path)


def test_squeue_tells_what_is_to_come(study: Study, cells: list[str], answers: Answers) -> None:
    submit(study, [(cell,) for cell in cells])
    answers["squeue"] = "5|0|RUNNING|None\n5|1|PENDING|Resources\n5|2|COMPLETING|None\n5|3|REQUEUE_HOLD|launch failed\n"
    assert states(study) == [JobState.RUNNING, JobState.PENDING, JobState.RUNNING, JobState.PENDING]
    assert slurm_jobs(study)[1].slurm_says == "PENDING (Resources)"


@pytest.mark.parametrize("word", ["CANCELLED", "PREEMPTED", "TIMEOUT", "NODE_FAIL", "FAILED", "COMPLETED", ""])
def test_what_slurm_has_given_up_with_an_unfinished_cell_is_lost(
    word: str, study: Study, cells: list[str], answers: Answers
) -> None:
    submit(study, [(cells[0],)])
    answers["squeue"] = f"5|0|{word}|None\n" if word else ""
    assert states(study) == [JobState.LOST]
    for state in (State.DONE, State.FAILED):
        study.folder("train", cells[0]).write_status(Status(state))
        assert states(study) == [JobState.ENDED]


def test_a_cell_with_a_heartbeat_is_not_lost(study: Study, cells: list[str], answers: Answers) -> None:
    submit(study, [(cells[0],)])
    answers["squeue"] = "5|0|FAILED|NonZeroExitCode\n"
    with RunningJob.claim(study, "train", [cells[0]]).running():
        assert states(study) == [JobState.RUNNING]


def test_a_job_of_just_now_may_not_be_in_the_queue_yet(study: Study, cells: list[str], answers: Answers) -> None:
    submit(study, [(cells[0],)], age=0)
    assert states(study) == [JobState.PENDING]


def test_a_number_that_slurm_has_forgotten_is_no_error(study: Study, cells: list[str], answers: Answers) -> None:
    submit(study, [(cells[0],)])
    answers["squeue"] = SlurmRefusedError("Invalid job id specified")
    assert states(study) == [JobState.LOST]


@pytest.mark.parametrize("error", [UserError("launcher", "slurm", "..."), SlurmRefusedError("Unable to contact")])
def test_without_slurm_the_folder_still_tells(
    error: Exception, study: Study, cells: list[str], answers: Answers
) -> None:
    submit(study, [(cells[0],), (cells[1],)])
    answers["squeue"] = error
    study.folder("train", cells[0]).write_status(Status(State.DONE))
    assert states(study) == [JobState.ENDED, JobState.UNKNOWN]


def test_accounting_adds_the_word_that_squeue_has_forgotten(study: Study, cells: list[str], answers: Answers) -> None:
    submit(study, [(cells[0],), (cells[1],)])
    answers["sacct"] = "5_0|CANCELLED by 0\n5_[1-3%1]|CANCELLED by 0\n"
    assert [job.slurm_says for job in slurm_jobs(study)] == ["CANCELLED by 0", ""]


def test_a_lost_job_is_forgotten_once_it_is_submitted_again(study: Study, cells: list[str], answers: Answers) -> None:
    submit(study, [(cells[0],), (cells[1],)], number=5)
    submit(study, [(cells[0],)], number=6, age=50)
    answers["squeue"] = "6|0|PENDING|Priority\n"
    assert [(job.array, job.index, job.state.value) for job in slurm_jobs(study)] == [
        (6, 0, "pending"),
        (5, 1, "lost"),
    ]


def submit_unnumbered(study: Study, cell: str) -> Submission:
    """A submission whose command was killed before it could read the number, or could not read it."""
    submission = Submission.new(study, "train", [(cell,)], SlurmConfig(), [])
    submission = replace(submission, created=submission.created - 100)
    return submission.with_array(SlurmArray(None, 0, 1, submission.array_name(0))).write()


def test_an_array_whose_number_was_not_read_is_found_by_its_name(
    study: Study, cells: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    name = submit_unnumbered(study, cells[0]).arrays[0].name

    def squeue(*command: str, timeout: float = 0) -> str:
        is_by_name = any(word == f"--name={name}" for word in command)
        return f"INFO: hello\n7|{name}\n" if is_by_name else "INFO: hello\n7|0|PENDING|Priority\n"

    monkeypatch.setattr(slurm_state, "slurm_command", squeue)
    assert [(job.array, job.state) for job in slurm_jobs(study)] == [(7, JobState.PENDING)]


def test_an_array_that_slurm_never_had_is_lost_and_unknown_while_slurm_is_silent(
    study: Study, cells: list[str], answers: Answers
) -> None:
    submit_unnumbered(study, cells[0])
    assert states(study) == [JobState.LOST]
    answers["squeue"] = UserError("launcher", "slurm", "...")
    assert states(study) == [JobState.UNKNOWN]


def test_a_site_s_own_lines_are_passed_over(study: Study, cells: list[str], answers: Answers) -> None:
    submit(study, [(cells[0],), (cells[1],)])
    answers["squeue"] = "INFO | welcome | to | us\n5|0|RUNNING|None\n\nbye\n"
    answers["sacct"] = "INFO: a|b\n5_1|TIMEOUT\n"
    assert [job.slurm_says for job in slurm_jobs(study)] == ["RUNNING", "TIMEOUT"]


def test_a_study_that_was_never_submitted_needs_no_slurm(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert slurm_jobs(study) == []
