"""The command line as a user meets it: what it prints, its exit status, and what it leaves alone."""

from __future__ import annotations

import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

import trainlarge
from trainlarge.cli import main
from trainlarge.commands.verbs import VERBS
from trainlarge.sweep.status import State
from trainlarge.sweep.store import Study

pytestmark = pytest.mark.usefixtures("unforeseen")

BAD = [
    (["train", "arch.wdth=3"], "arch.wdth=3", "did you mean width?"),
    (["train", "foo=1"], "foo=1", "one of the keys"),
    (["train", "arch.width=abc"], "arch.width=abc", "a whole number"),
    (["train", "arch=gpt"], "arch=gpt", "modern, roberta"),
    (["train", "arch.width=65"], "arch.width=65", "an even number"),
    (["train", "arch.heads=3"], "arch.heads=3", "must divide arch.width=128"),
    (["train", "budget=30"], "budget=30", "a positive number with its unit"),
    (["train", "budget=30 parsecs"], "budget=30 parsecs", "a positive number with its unit"),
    (["train", "study=a/b"], "study=a/b", "a folder name"),
    (["train", "arch.width=64,128"], "arch.width=64,128", "add -m"),
    (["train", "arch.width=[1"], "arch.width=[1", "what Hydra can read"),
    (["train", "+sweeps=nowhere/train"], "+sweeps=nowhere/train", "STUDY/train.yaml"),
    (["train", "-m", "optim.lr=interval(1e-3,1e-2)"], "optim.lr=interval(1e-3,1e-2)", "a list of values"),
    (["train", "optim.batch=${data.rows}"], "optim.batch=${data.rows}", "data.rows"),
    (["train", "-m", "optim.batch=${data.rows}"], "optim.batch=${data.rows}", "data.rows"),
    (["train", "study=null"], "study=null", "write 'null' in quotes"),
    (["train", "-m", "study=null,a"], "study=null", "must have a value"),
    (["train", "launcher=slurm", "launcher.cpus=null"], "launcher.cpus=null", "must have a value"),
    (["train", "launcher.cpus=null"], "launcher.cpus=null", "only with launcher=slurm"),
    (["train", "study=1.1,1.10"], "study=1.1,1.10", "add -m"),
    (["train", "-m", "arch.wdth=1,2"], "arch.wdth=1", "one of the keys"),
    (["train", "data=text", "data.files=[/nowhere/*.txt]"], "data.files=/nowhere/*.txt", "an existing file"),
    (["train", "data=text"], "data.files=", "files ending in .txt"),
    (["train", "optim.batch=100"], "optim.batch=100", "a multiple of data.sequence_length=128"),
    (["train", "schedule=fixed"], "schedule.horizon=", "the budget at which"),
    (["train", "workers=0"], "workers=0", "at least 1"),
    (["train", "impl.device=tpu", "study=x"], "impl.device=tpu", "auto, cpu, cuda"),
    (["train", "tracking.name=wanbd"], "tracking.name=wanbd", "none, wandb, csv"),
    (["train", "tracking=wandb", "tracking.mode=onlin"], "tracking.mode=onlin", "offline, online"),
    (["train", "-m", "tracking=none,wandb"], "tracking.name=none,wandb", "one value"),
    (["plan", "train", "tracking.mode=onlin"], "tracking.mode=onlin", "offline, online"),
    (["compress"], "checkpoint", "the id of a finished train cell"),
    (["compress", "checkpoint=0123456789ab"], "checkpoint=0123456789ab", "the id of a finished train cell"),
    (["compress", "-m", "checkpoint=every"], "checkpoint=every", "finished train cells"),
    (["compress", "checkpoint=0123456789ab", "prune.sparsity=1.2"], "prune.sparsity=1.2", "[0, 1)"),
    (["compress", "checkpoint=0123456789ab", "quantize.bits=0"], "quantize.bits=0", "2 to 8"),
    (["compress", "checkpoint=0123456789ab", "prune=magic"], "prune=magic", "magnitude"),
    (["run", "nowhere"], "study=nowhere", "quickstart"),
    (["report", "nowhere"], "study=nowhere", "study"),
    (["show", "0123456789ab"], "cell=0123456789ab", "cell"),
]


@pytest.mark.parametrize(
    ("arguments", "named", "allowed"), BAD, ids=lambda value: " ".join(value) if isinstance(value, list) else ""
)
def test_bad_input_is_one_line_and_status_2(
    arguments: list[str], named: str, allowed: str, study: Study, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    printed = capfd.readouterr()
    [line] = printed.err.strip().splitlines()
    assert line.startswith("error: ") and named in line and allowed in line
    assert "Traceback" not in printed.out + printed.err
    assert not list(study.path.parent.glob("*/*/*/config.yaml")), "nothing was frozen"


@pytest.mark.parametrize("verb", VERBS)
def test_help_begins_with_what_the_verb_does(verb: str, capfd: pytest.CaptureFixture[str]) -> None:
    with suppress(SystemExit):
        assert main([verb, "--help"]) == 0
    printed = capfd.readouterr().out
    usage, description, *_ = printed.split("\n\n")
    assert usage.startswith(f"usage: trainlarge {verb} ")
    assert " ".join(description.lower().split()) == VERBS[verb].does.lower() + "."
    assert "Hydra" not in printed
    if verb in ("train", "compress", "run"):
        assert "--retries N" in printed and "--no-wait" in printed


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nothing"], "invalid choice: 'nothing'"),
        (["show"], "required: cell"),
        (["status", "a", "b"], "unrecognized arguments: b"),
        (["ls", "--state", "dead"], "invalid choice: 'dead'"),
        (["report", "--retries", "3"], "unrecognized arguments"),
        (["train", "--retrys", "3"], "--retrys"),
        (["train", "--shell-completion", "install=bash"], "trainlarge completion bash"),
        (["train", "-m", "--cfg", "job"], "--cfg=job is not valid: must not be used with --multirun"),
        (["train", "--cfg", "job", "--info"], "must not be used with --cfg"),
        (["train", "--package", "optim"], "must be used with --cfg job"),
        (["train", "--config-dir", "/nowhere"], "--config-dir=/nowhere"),
        (["train", "--hydra-help"], "--help lists the flags"),
        (["train", "budget=null"], "budget=null"),
        (["ls", "--state", "done"], "need a study"),
        (["train", "--cfg"], "--cfg"),
        (["train", "--cfg", "everything"], "--cfg"),
        (["completion", "tcsh"], "invalid choice: 'tcsh'"),
    ],
)
def test_a_mistake_in_flags_is_one_line_and_status_2(
    arguments: list[str], said: str, study: Study, capfd: pytest.CaptureFixture[str]
) -> None:
    try:
        status: int | str | None = main(arguments)
    except SystemExit as stop:
        status = stop.code
    [line] = capfd.readouterr().err.splitlines()
    assert status == 2 and line.startswith("error: ") and said in line


@pytest.mark.parametrize("arguments", [["--version"], ["train", "--version"]])
def test_the_version_names_what_computes(arguments: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 0
    first, *others = capfd.readouterr().out.splitlines()
    assert first.startswith(f"trainlarge {trainlarge.__version__}")
    assert {line.split()[0] for line in others} >= {"python", "torch", "transformers"}


def test_debug_shows_the_traceback(study: Study) -> None:
    with pytest.raises(ValueError, match=r"arch\.wdth"):
        main(["--debug", "train", "arch.wdth=3"])


def test_help_imports_nothing_heavy() -> None:
    code = "import sys; from trainlarge.cli import main\ntry: main(['--help'])\nexcept SystemExit: pass\n"
    heavy = "names = ('torch', 'transformers', 'hydra', 'pandas', 'wandb')\n"
    heavy += "print(len(sys.modules), [name for name in names if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code + heavy], capture_output=True, text=True, check=True)
    *helped, modules = done.stdout.strip().splitlines()
    count, heavy_ones = modules.split(maxsplit=1)
    assert heavy_ones == "[]" and "train a cell" in "\n".join(helped)
    assert int(count) < 200, "a bare Python has thirty, and each costs about a millisecond"


def test_a_sweep_of_both_stages_runs_and_then_has_nothing_left(
    study: Study,
    tiny_overrides: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    sweeps = tmp_path / "sweeps" / "tiny"
    sweeps.mkdir(parents=True)
    (sweeps / "train.yaml").write_text(
        "# @package _global_\nsweep:\n  blocks:\n"
        "    - {arch.width: 16, arch.depth: [1, 2], budget: [20 steps, 40 steps]}\n"
        "    - {arch.width: 32, arch.depth: 1, budget: 20 steps}\n  exclude: ['arch.depth == 2 and budget == 40']\n"
    )
    (sweeps / "compress.yaml").write_text(
        "# @package _global_\nsweep:\n  where: budget == 20\n  blocks:\n"
        "    - {checkpoint: every, prune.sparsity: [0.0, 0.5], quantize.bits: [32, 4]}\n"
    )
    monkeypatch.chdir(tmp_path)
    fixed = [text for text in tiny_overrides if not text.startswith(("arch.", "budget="))]
    assert main(["train", "-m", "+sweeps=tiny/train", *fixed]) == 0
    assert len(list(study.folders("train"))) == 4
    assert main(["compress", "-m", "+sweeps=tiny/compress", "study=tiny", "tracking=none", "impl.device=cpu"]) == 0
    cells = [folder.cell().config for folder in study.folders("compress")]
    assert len(cells) == 3 * 4
    capfd.readouterr()
    assert main(["compress", "-m", "+sweeps=tiny/compress", "study=tiny", "tracking=none", "impl.device=cpu"]) == 0
    assert "12 cells, 12 done, 0 jobs" in capfd.readouterr().out
    one = ["study=tiny", f"checkpoint={cells[0].checkpoint}", "prune.sparsity=0.5", "quantize.bits=4"]
    assert main(["compress", *one, "tracking=none", "impl.device=cpu"]) == 0
    assert len(list(study.folders("compress"))) == 12, "a cell from the command line is the same cell"
    capfd.readouterr()
    assert main(["sync", "tiny"]) == 0 and main(["sync", "tiny"]) == 0
    told = [line for line in capfd.readouterr().out.splitlines() if "Weights & Biases" in line]
    # A run for the curve of each train cell, and one for the recipes of each compressed one.
    assert told == ["7 runs written to Weights & Biases", "0 runs written to Weights & Biases"]


def test_a_failed_cell_is_status_1_and_names_the_command(
    study: Study, tiny_overrides: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", *tiny_overrides, "data.vocab_size=100000"]) == 1
    last = capfd.readouterr().out.strip().splitlines()[-1]
    [folder] = study.folders("train")
    assert last.endswith(f"trainlarge show {folder.id} --study tiny")


@pytest.fixture
def nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A user who has never logged in to Weights & Biases."""
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("WANDB_API_KEY", "NETRC", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)


def test_a_mirror_that_fails_is_a_warning_after_the_failures(
    study: Study, tiny_overrides: list[str], nobody: None, capfd: pytest.CaptureFixture[str]
) -> None:
    online = [text for text in tiny_overrides if text != "tracking=none"] + ["tracking=wandb", "tracking.mode=online"]
    assert main(["train", "-m", *online, "data.vocab_size=300,100000"]) == 1
    printed = capfd.readouterr()
    states = {folder.status().state: folder.id for folder in study.folders("train")}
    assert set(states) == {State.DONE, State.FAILED} and f"failed {states[State.FAILED]}: " in printed.out
    [warning] = [line for line in printed.err.splitlines() if line.startswith("warning: ")]
    assert "tracking.mode=online" in warning and "trainlarge sync tiny" in warning
    assert main(["train", *online]) == 0
    capfd.readouterr()
    assert main(["sync", "tiny", "--online"]) == 2
    assert capfd.readouterr().err.splitlines()[-1].startswith("error: tracking.mode=online is not valid: ")
