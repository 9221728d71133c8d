"""What sbatch prints besides the number of an array: nothing is submitted twice. By programs that stand for SLURM's."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from trainlarge.cli import main
from trainlarge.launch.launcher import JobState
from trainlarge.launch.slurm import state as slurm_state
from trainlarge.launch.slurm.state import slurm_jobs
from trainlarge.launch.slurm.submission import submissions
from trainlarge.sweep.store import Study

SBATCH = """#!/bin/bash
for word in "$@"; do case $word in --test-only) exit 0;; --job-name=*) name=${word#*=};; esac; done
echo $name >> FOLDER/accepted
ANSWER
"""
SQUEUE = """#!/bin/bash
echo "INFO: the queue of this site"
case "$*" in
    *--name=*) KNOWN ;;
    *) echo "41|0|PENDING|Priority" ;;
esac
"""
KNOWN = 'while read name; do echo "41|$name"; done < FOLDER/accepted'

Site = Callable[..., Path]


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    """Programs of a cluster whose sbatch answers with these shell commands; returns the file of accepted names."""

    def made(answer: str, known: str = KNOWN) -> Path:
        programs = {"sbatch": SBATCH.replace("ANSWER", answer), "squeue": SQUEUE.replace("KNOWN", known)}
        programs["scontrol"] = "#!/bin/bash\necho MaxArraySize = 1001\n"
        for name, text in programs.items():
            (tmp_path / name).write_text(text.replace("FOLDER", str(tmp_path)))
            (tmp_path / name).chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
        monkeypatch.setattr(slurm_state, "GRACE_SECONDS", 0)
        return tmp_path / "accepted"

    return made


BEFORE, AFTER = "echo 'INFO: 3 GPUs are free'; echo 41", "echo '41;mycluster'; echo; echo 'see https://x.org/41'"
TWO, NONE = "echo 2026; echo 41", "echo 'Submitted batch job'"


@pytest.mark.parametrize("answer", ["echo 41", BEFORE, AFTER, TWO, NONE, "true"])
def test_the_number_is_found_and_the_same_command_submits_nothing(
    answer: str, site: Site, study: Study, tiny_overrides: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    accepted, command = site(answer), ["train", *tiny_overrides, "launcher=slurm"]
    for _ in range(2):
        assert main(command) == 0, capfd.readouterr().err
        [submission] = submissions(study)
        assert submission.arrays[0].number == 41 and len(accepted.read_text().split()) == 1


def test_a_number_that_cannot_be_found_is_one_line_with_what_to_do(
    site: Site, study: Study, tiny_overrides: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    command = ["train", *tiny_overrides, "launcher=slurm"]
    accepted = site("echo 'thank you'", known="true")
    assert main(command) == 2
    [line] = capfd.readouterr().err.strip().splitlines()
    name = accepted.read_text().strip()
    assert "'thank you'" in line and f"scancel --name={name}" in line
    site("echo 'thank you'")
    assert main(command) == 0 and len(accepted.read_text().split()) == 1, "SLURM knows the name by now"
    assert [job.state for job in slurm_jobs(study)] == [JobState.PENDING]


def test_what_sbatch_refuses_leaves_no_array(
    site: Site, study: Study, tiny_overrides: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    site("echo 'INFO: hello' >&2; echo 'sbatch: error: too many jobs' >&2; exit 1")
    assert main(["train", *tiny_overrides, "launcher=slurm"]) == 2
    assert "which says: too many jobs" in capfd.readouterr().err
    assert submissions(study)[0].arrays == () and not slurm_jobs(study)
