"""Keys of the launcher to options of sbatch: what is wrong is one line, and needs no cluster to be seen."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from trainlarge.cli import main
from trainlarge.config.launcher import SlurmConfig
from trainlarge.config.plain import from_plain
from trainlarge.errors import UserError
from trainlarge.launch.slurm.command import SlurmRefusedError, clean_environment, first_complaint, slurm_command
from trainlarge.launch.slurm.options import explain_refusal, sbatch_options
from trainlarge.sweep.store import Study


def launcher(**keys: object) -> SlurmConfig:
    return from_plain(SlurmConfig, keys, "launcher")


def test_every_key_becomes_its_option() -> None:
    options = sbatch_options(
        launcher(
            partition="gpu", time="90 min", memory="16G", cpus=8, gpus="a100:1", account="me", qos="low",
            sbatch=["--constraint avx512", "-x n1"], signal_lead=240,
        )
    )  # fmt: skip
    for option in (
        "--partition=gpu", "--time=90", "--mem=16G", "--cpus-per-task=8", "--gres=gpu:a100:1", "--account=me",
        "--qos=low", "--signal=B:USR1@240", "--requeue", "--open-mode=append",
    ):  # fmt: skip
        assert option in options
    assert options[-4:] == ["--constraint", "avx512", "-x", "n1"]


def test_what_is_not_set_is_left_to_the_cluster() -> None:
    assert not any(
        option.startswith(("--partition", "--time", "--mem", "--gres", "--account", "--qos"))
        for option in sbatch_options(launcher())
    )


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("cpus", 0), ("array_parallelism", -1), ("max_requeues", -1), ("max_array_size", -2), ("time", "60"),
        ("time", "4:00:00"), ("time", "30 steps"), ("sbatch", ["--array=1-3"]), ("sbatch", ["--no-requeue"]),
        ("sbatch", ["-oout.txt"]), ("sbatch", ["constraint=a"]), ("setup", ["module load a\nb"]),
    ],
)  # fmt: skip
def test_a_wrong_value_names_its_key_before_slurm_is_asked(key: str, value: object) -> None:
    with pytest.raises(UserError, match=f"^launcher.{key}="):
        launcher(**{key: value})


def test_a_time_limit_leaves_room_for_its_signal() -> None:
    with pytest.raises(
        UserError, match=r"launcher\.signal_lead=180 is not valid: must be less than the time limit of 120 s"
    ):
        launcher(time="2 min")


@pytest.mark.parametrize(
    "entry",
    [
        "--arr=0-3", "--outp=x", "--ar 0-3", "--no-req", "--err=x", "--exp=NONE", "--jo=x", "--pars", "--test",
        "--wr=ls", "--hold --array=1-3", "--hold -a 1-3", "-Ha1-3", "-HJname", "-Mother", "--clusters=a", "--help",
        "-V", "-i file", "--hold script.sh", "--exclu script.sh", "-H script.sh", "-C a b", "script.sh", "", "-", "--",
        "--constraint=a b", "-Cavx512 script.sh",
    ],
)  # fmt: skip
def test_an_option_of_ours_is_refused_however_it_is_written(entry: str) -> None:
    with pytest.raises(UserError, match=r"^launcher\.sbatch="):
        launcher(sbatch=[entry])


@pytest.mark.parametrize("memory", ["0", "16000", "16G", "16g", "16GB", "9999T", "512MB", "1K"])
def test_memory_is_handed_on_as_sbatch_reads_it(memory: str) -> None:
    assert f"--mem={memory}" in sbatch_options(launcher(memory=memory))


@pytest.mark.parametrize(
    "entry",
    ["--hold", "--exclusive", "--exclusive=user", "--constraint=avx512", "--constraint avx512", "-C avx512", "-Cavx512",
     "-w n1", "-wn1", "-HC avx512", "--wait-all-nodes=1", "--ntasks-per-core=1", "--comment='a b'", "--mem-per-cpu=1G"],
)  # fmt: skip
def test_other_options_are_handed_on(entry: str) -> None:
    assert sbatch_options(launcher(sbatch=[entry]))[-1] == shlex.split(entry)[-1]


@pytest.mark.parametrize(
    ("complaint", "start"),
    [
        ("invalid partition specified: foo", "launcher.partition=foo is not valid: "),
        ("Invalid --mem specification", "launcher.memory=7T is not valid: "),
        ("unrecognized option '--bogus'", "launcher.sbatch=['--bogus'] is not valid: "),
        ("Requested node configuration is not available", "launcher=slurm is not valid: "),
        ("Unable to contact slurm controller (connect failure)", "launcher=slurm is not valid: "),
    ],
)
def test_what_slurm_complains_of_names_the_key(complaint: str, start: str) -> None:
    error = explain_refusal(complaint, launcher(partition="foo", memory="7T", sbatch=["--bogus"]))
    assert str(error).startswith(start) and complaint in str(error)


def test_the_first_complaint_is_told_without_the_command() -> None:
    printed = "\nsbatch: error: Batch job submission failed: Invalid qos specification\nallocation failure: more\n"
    assert first_complaint(printed) == "Invalid qos specification"
    assert first_complaint(f"INFO: welcome\n{printed}") == "Invalid qos specification"
    assert first_complaint("a plugin of the site says no\n") == "a plugin of the site says no"


def test_an_enclosing_job_does_not_leak(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SLURM_JOB_ID", "SLURM_MEM_PER_NODE", "SBATCH_PARTITION", "SRUN_DEBUG"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("SLURM_CONF", "/etc/slurm.conf")
    left = {name for name in clean_environment() if name.startswith(("SLURM", "SBATCH", "SRUN"))}
    assert left == {"SLURM_CONF"} and "PATH" in clean_environment()


def test_a_command_that_is_silent_is_given_up() -> None:
    with pytest.raises(UserError, match="sleep was silent for 0 s"):
        slurm_command("sleep", "5", timeout=0.1)


def test_a_command_that_fails_says_why() -> None:
    with pytest.raises(SlurmRefusedError, match="no such thing"):
        slurm_command("bash", "-c", "echo 'sbatch: error: no such thing' >&2; exit 3")


def test_without_slurm_it_is_one_line_and_nothing_is_frozen(
    study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert main(["train", "study=tiny", "launcher=slurm"]) == 2
    [line] = capfd.readouterr().err.strip().splitlines()
    assert line == "error: launcher=slurm is not valid: must be used on a machine with SLURM: sbatch is not here"
    assert not study.path.exists()


def test_cluster_keys_without_a_cluster_are_refused(study: Study, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "study=tiny", "launcher.partition=gpu"]) == 2
    assert "launcher.partition=gpu" in capfd.readouterr().err and not study.path.exists()
