"""A launcher whose options are wrong: one line that names the key, status 2, nothing frozen. No cluster is asked."""

from __future__ import annotations

from pathlib import Path

import pytest

from trainlarge.cli import main
from trainlarge.sweep.store import Study

EITHER = [
    (["launcher.retrys=1"], "launcher.retrys=1", "did you mean retries?"),
    (["+launcher.nodes=2"], "launcher.nodes=2", "one of the keys"),
    (["launcher.retries=-1"], "launcher.retries=-1", "at least 0"),
    (["launcher.retries=many"], "launcher.retries=many", "a whole number"),
    (["launcher.retries=1.5"], "launcher.retries=1.5", "a whole number"),
    (["launcher.max_failures=-2"], "launcher.max_failures=-2", "at least 0"),
    (["launcher.fail_fast=perhaps"], "launcher.fail_fast=perhaps", "true or false"),
    (["launcher.wait=no way"], "launcher.wait=no way", "true or false"),
    (["--retries", "-1"], "launcher.retries=-1", "at least 0"),
    (["--max-failures", "few"], "launcher.max_failures=few", "a whole number"),
    (["--retries"], "--retries=", "must be followed by a whole number"),
    (["-m", "launcher.retries=0,1"], "launcher.retries=0,1", "one value"),
    (["-m", "study=tiny,other"], "study=tiny,other", "one value"),
]
LOCAL = [
    (["launcher.per_device=x"], "launcher.per_device=x", "a whole number"),
    (["launcher.partition=gpu"], "launcher.partition=gpu", "must not be set with launcher=local"),
    (["launcher.sbatch=[--hold]"], "launcher.sbatch=[--hold]", "must not be set with launcher=local"),
    (["launcher.per_device=0"], "launcher.per_device=0", "at least 1"),
    (["launcher.per_device=2", "impl.device=cpu"], "launcher.per_device=2", "no GPUs to share"),
    (["workers=0"], "workers=0", "at least 1"),
    (["workers=-3"], "workers=-3", "at least 1"),
    (["workers=all"], "workers=all", "a whole number"),
    (["launcher=pbs"], "launcher=pbs", "local, slurm"),
    (["launcher.name=pbs"], "launcher.name=pbs", "local, slurm"),
]
SLURM = [
    (["launcher.partion=gpu"], "launcher.partion=gpu", "did you mean partition?"),
    (["launcher.per_device=2"], "launcher.per_device=2", "must not be set with launcher=slurm"),
    (["launcher.cpus=0"], "launcher.cpus=0", "at least 1"),
    (["launcher.cpus=two"], "launcher.cpus=two", "a whole number"),
    (["launcher.array_parallelism=-1"], "launcher.array_parallelism=-1", "at least 0"),
    (["launcher.max_requeues=-1"], "launcher.max_requeues=-1", "at least 0"),
    (["launcher.signal_lead=0"], "launcher.signal_lead=0", "at least 1"),
    (["launcher.time=soon"], "launcher.time=soon", "a time with its unit"),
    (["launcher.memory=1.5G"], "launcher.memory=1.5G", "a whole number with K, M, G or T"),
    (["launcher.memory=lots"], "launcher.memory=lots", "such as 16G"),
    (["launcher.memory=''"], "launcher.memory=", "such as 16G"),
    (["launcher.memory=16GiB"], "launcher.memory=16GiB", "such as 16G"),
    (["launcher.sbatch=['--comment=\"a b']"], 'launcher.sbatch=--comment="a b', "options as a shell reads them"),
    (["launcher.sbatch=--hold"], "launcher.sbatch=--hold", "a list"),
    (["launcher.setup={a: b}"], "launcher.setup={a: b}", "a list"),
    (["launcher.setup=[{a: b}]"], "launcher.setup[0]={'a': 'b'}", "text"),
    (["launcher.sbatch=[[x]]"], "launcher.sbatch[0]=['x']", "text"),
]
COMMANDS = [
    *([name, *wrong] for name in ("local", "slurm") for wrong in EITHER),
    *(["local", *wrong] for wrong in LOCAL),
    *(["slurm", *wrong] for wrong in SLURM),
]


@pytest.mark.parametrize(
    ("launcher", "wrong", "named", "allowed"), COMMANDS, ids=lambda value: value[-1] if isinstance(value, list) else ""
)
def test_one_line_names_the_key_and_what_is_allowed(
    launcher: str,
    wrong: list[str],
    named: str,
    allowed: str,
    study: Study,
    tiny_overrides: list[str],
    capfd: pytest.CaptureFixture[str],
) -> None:
    chosen = [] if launcher == "local" else ["launcher=slurm"]
    assert main(["train", *tiny_overrides, *chosen, *wrong]) == 2
    printed = capfd.readouterr()
    [line] = printed.err.strip().splitlines()
    assert line.startswith("error: ") and named in line and allowed in line, line
    assert not study.path.exists() and "Traceback" not in printed.out


@pytest.mark.parametrize(
    ("text", "named"),
    [("partion: gpu", "launcher.partion="), ("cpus: two", "launcher.cpus=two"), ("cpus: -1", "launcher.cpus=-1")],
)
def test_a_launcher_of_one_s_own_is_checked_the_same_way(
    text: str,
    named: str,
    study: Study,
    tiny_overrides: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "launcher").mkdir()
    (tmp_path / "launcher" / "mine.yaml").write_text(f"name: slurm\n{text}\n")
    monkeypatch.chdir(tmp_path)
    assert main(["train", *tiny_overrides, "launcher=mine"]) == 2
    [line] = capfd.readouterr().err.strip().splitlines()
    assert line.startswith("error: ") and named in line and not study.path.exists()


def test_a_plan_refuses_what_the_command_would(
    study: Study, tiny_overrides: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    for launcher in ("local", "slurm"):
        assert main(["plan", "train", *tiny_overrides, f"launcher={launcher}", "--retries", "-1"]) == 2
        assert "launcher.retries=-1" in capfd.readouterr().err
