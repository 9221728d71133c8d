"""A study that commands have made, damages to its files, and what users' commands give after each."""

from __future__ import annotations

import json
import re
import shutil
import traceback
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from rich.console import Console
from safetensors.torch import load_file

from inline_launcher import InlineLauncher
from trainlarge.cli import main
from trainlarge.config.launcher import LocalConfig
from trainlarge.errors import UserError
from trainlarge.launch.launcher import Ending
from trainlarge.machine import probe
from trainlarge.machine.resources import Resources
from trainlarge.sweep.plan import Plan
from trainlarge.sweep.stages import STAGES
from trainlarge.sweep.store import Study

NAME = "tiny"
FOREIGN = ("changed", "a folder", "braces", "latin-1")
"""What a file of each kind becomes in turn: all of these for all kinds take half an hour."""
KINDS = {
    ".data/ID.lock",
    ".data/ID/meta.json",
    ".data/ID/tokenizer.json",
    ".data/ID/train.bin",
    ".data/ID/validation.bin",
    "tiny/commands.jsonl",
    "tiny/compress/ID/config.yaml",
    "tiny/compress/ID/document_losses.json",
    "tiny/compress/ID/lease/N.json",
    "tiny/compress/ID/log.txt",
    "tiny/compress/ID/packed.safetensors",
    "tiny/compress/ID/record.json",
    "tiny/compress/ID/status.json",
    "tiny/compress/ID/weight_errors.json",
    "tiny/probes/ID.json",
    "tiny/report/cells.csv",
    "tiny/report/index.html",
    "tiny/train/ID/checkpoint/config.json",
    "tiny/train/ID/checkpoint/model.safetensors",
    "tiny/train/ID/checkpoint/tokenizer.json",
    "tiny/train/ID/checkpoint/tokenizer_config.json",
    "tiny/train/ID/config.yaml",
    "tiny/train/ID/document_losses.json",
    "tiny/train/ID/lease/N.json",
    "tiny/train/ID/log.txt",
    "tiny/train/ID/metrics.jsonl",
    "tiny/train/ID/mirror.json",
    "tiny/train/ID/record.json",
    "tiny/train/ID/status.json",
    "tiny/train/ID/steps.json",
    "tiny/trunks/ID/step_time.json",
    "tiny/trunks/ID/trunk-N/state.json",
    "tiny/trunks/ID/trunk-N/tensors.safetensors",
    "tiny/wandb-owner.json",
    "tiny/wandb/RUN/run-ID.wandb",
}
"""Some of what a study has: a test of nothing must not pass."""
_NUMBERED = (
    (r"offline-run-\d{8}_\d{6}-", "RUN-"),
    (r"[0-9a-f]{12,20}", "ID"),
    (r"(?<=-)\d{9}|\d{6}(?=\.json)", "N"),
    (r"RUN-ID(-compress)?(-[0-9a-f]{8})?", "RUN"),
    (r"run-ID(-compress)?(-[0-9a-f]{8})?", "run-ID"),
    (r"(?<=report/)\w+(?=\.(png|svg)$)", "FIGURE"),
)
_CELLS = ["cell", "loss", "accuracy", "step", "tokens", "flops", "parameters", "series"]
_CURVES = ["cell", "step", "loss", "train_loss"]
_COMPRESSION = ["cell", "loss", "dense_loss", "file_bytes"]
_COLUMNS = {"cells": _CELLS, "curves": _CURVES, "compression": _COMPRESSION}


def kind_of(path: str) -> str:
    """The path of a file without what tells cells, states, leases, runs and figures apart."""
    for pattern, name in _NUMBERED:
        path = re.sub(pattern, name, path)
    return path


def damage(path: Path, how: str) -> None:
    """A file becomes ``flipped`` (a bit), ``truncated``, ``removed``, or one of ``FOREIGN``."""
    content = path.read_bytes() or b"0"
    middle = len(content) // 2
    path.unlink()
    if how == "a folder":
        path.mkdir()
    elif how != "removed":
        path.write_bytes(
            {
                "truncated": content[:middle],
                "flipped": content[:middle] + bytes([content[middle] ^ 0x80]) + content[middle + 1 :],
                "changed": _with_another_digit(content),
                "braces": b"{}",
                "latin-1": b"{\xe4: \xff}\n" + content,
            }[how]
        )


def _with_another_digit(content: bytes) -> bytes:
    """With one bit changed: in text in a digit, which stays one."""
    middle = len(content) // 2
    is_text = b"\0" not in content
    digit = re.compile(rb"\d").search(content, middle) or re.compile(rb"\d").search(content) if is_text else None
    at = digit.start() if digit else middle
    return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]


@dataclass
class Said:
    """How a command ended and what it printed."""

    status: int
    printed: str


@dataclass
class Shell:
    """Gives commands in this process."""

    capture: pytest.CaptureFixture[str]

    def __call__(self, *arguments: str) -> Said:
        self.capture.readouterr()
        try:
            status = main(arguments)
        except SystemExit as exit_:
            status = int(exit_.code or 0)
        except Exception:
            traceback.print_exc()
            status = 1
        printed = self.capture.readouterr()
        return Said(status, printed.out + printed.err)


class InThisProcess(InlineLauncher):
    """Takes the place of the local launcher, whose processes take seconds to start."""

    def __init__(self, config: LocalConfig, cells: Any) -> None:
        self._resources = Resources(1)

    def run(self, study: Study, plan: Plan, console: Console) -> Ending:
        for job in plan.jobs:
            try:
                super().run(study, Plan(plan.stage, plan.cells, (job,), command=plan.command), console)
            except UserError:
                # Written to the status of the cell, and told by the command.
                continue
        return Ending()


@dataclass
class Lab:
    """A study that was trained, compressed, reported and mirrored, and copies of it to damage."""

    root: Path
    common: list[str]
    parent: str
    own: list[str]
    """Ids of its cells: commands that are tried on a copy add others."""

    def files(self) -> dict[str, str]:
        """Kind -> that file of it which is read: the newest state, and the files of the cell that is compressed."""
        paths = (path for path in self.root.rglob("*") if path.is_file() and not path.is_symlink())
        names = sorted(path.relative_to(self.root).as_posix() for path in paths)
        kinds = {kind_of(name): name for name in sorted(names, key=lambda name: self.parent in name)}
        assert set(kinds) >= KINDS, KINDS - set(kinds)
        return kinds

    def copy(self, target: Path) -> Study:
        """A copy below the folder ``target``, which becomes that of all studies."""
        shutil.copytree(self.root, target, symlinks=True)
        return Study.named(NAME, target)

    def train(self, *budgets: int) -> list[str]:
        return ["train", "-m", *self.common, f"budget={','.join(f'{budget} steps' for budget in budgets)}"]

    def compress(self, bits: int) -> list[str]:
        options = ["tracking=none", "impl.device=cpu", "impl.threads=1"]
        return ["compress", f"study={NAME}", *options, f"checkpoint={self.parent}", f"quantize.bits={bits}"]

    @property
    def recipe(self) -> str:
        """The compress cell."""
        return self.own[-1]


def make_lab(folder: Path, overrides: list[str]) -> Lab:
    """Train, compress, report and mirror a study below ``folder``, by commands and their own processes.

    Args:
        overrides: a tiny train cell.
    """
    root = folder / "studies"
    root.mkdir()
    common = [each for each in overrides if not each.startswith("budget=")]
    lab = Lab(root, [*common, "impl.threads=1", "impl.precision=fp32"], "", [])
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("TRAINLARGE_STUDIES", str(root))
        assert main(lab.train(15, 30)) == 0
        study = Study.named(NAME, root)
        lab.parent = next(cell.id for cell in study.folders("train") if cell.record_data()["step"] == 30)
        for command in (lab.compress(8), ["report", NAME], ["sync", NAME]):
            assert main(command) == 0, command
    lab.own = [cell.id for stage in STAGES for cell in study.folders(stage)]
    return lab


def write_sweeps(lab: Lab, folder: Path) -> None:
    """The same cells as sweep files below ``folder``, for the command ``run``."""
    keys = [each.split("=", 1) for each in lab.common]
    flat = {key: yaml.safe_load(value) for key, value in keys}
    groups = [{f"override /{key}": flat.pop(key)} for key in ("data", "tracking")]
    (folder / "sweeps" / NAME).mkdir(parents=True)
    content = {
        "train": {"defaults": groups, **_nested(flat), "sweep": {"blocks": [{"budget": ["15 steps", "30 steps"]}]}},
        "compress": {
            "defaults": groups[1:],
            "study": NAME,
            "impl": {"device": "cpu", "threads": 1},
            "checkpoint": lab.parent,
            "sweep": {"blocks": [{"quantize.bits": [8]}]},
        },
    }
    for stage, sweep in content.items():
        path = folder / "sweeps" / NAME / f"{stage}.yaml"
        path.write_text("# @package _global_\n" + yaml.safe_dump(sweep, sort_keys=False))


def _nested(flat: dict[str, Any]) -> dict[str, Any]:
    nested: dict[str, Any] = {}
    for key, value in flat.items():
        group, _, name = key.rpartition(".")
        (nested.setdefault(group, {}) if group else nested)[name] = value
    return nested


def in_this_process(patched: pytest.MonkeyPatch, folder: Path) -> None:
    """From now on jobs run in this process, on the studies below ``folder``, and figures are not drawn."""
    patched.setenv("TRAINLARGE_STUDIES", str(folder / "studies"))
    patched.chdir(folder)
    patched.setattr(LocalConfig, "run_by", "damaged:InThisProcess")
    patched.setattr(probe, "ROUND_SECONDS", 0.02)
    patched.setattr("trainlarge.results.report.section.drawings", lambda frames: [])


@dataclass
class Verb:
    """A command, and what of its result must stay."""

    arguments: Callable[[Lab, Path], list[str]]
    result: Callable[[Lab, Study, Path, Said], Any] = lambda lab, study, scratch, said: None


def _cells_not_done(lab: Lab, study: Study, scratch: Path, said: Said) -> Any:
    stages = json.loads(said.printed.splitlines()[-1])["stages"]
    return {stage: counts["cells"] - counts["done"] for stage, counts in stages.items()}


def _numbers_shown(lab: Lab, study: Study, scratch: Path, said: Said) -> Any:
    return [line for line in said.printed.splitlines() if re.match(r" +(loss|accuracy|file_bytes|dense_loss):", line)]


def _tables(lab: Lab, study: Study, scratch: Path, said: Said) -> Any:
    read = {name: pd.read_csv(study.path / "report" / f"{name}.csv")[columns] for name, columns in _COLUMNS.items()}
    return {name: frame[frame["cell"].isin(lab.own)].to_dict("records") for name, frame in read.items()}


def _mirrored(lab: Lab, study: Study, scratch: Path, said: Said) -> Any:
    # The runs of a checkpoint's recipes change with the recipes that other commands add; the digest of a record, with
    # when it was made.
    markers = [study.path / "train" / cell / "mirror.json" for cell in lab.own]
    return [f"wandb {path.parent.name}" in json.loads(path.read_text()) for path in markers if path.parent.is_dir()]


def _exported(lab: Lab, study: Study, scratch: Path, said: Said) -> Any:
    sums = {name: float(tensor.double().sum()) for name, tensor in load_file(scratch / "model.safetensors").items()}
    return sorted(path.name for path in scratch.iterdir()), sums, (scratch / "tokenizer.json").read_bytes()


def _added(stage: str) -> Callable[[Lab, Study, Path, Said], Any]:
    """Numbers of the cells that a command has added."""

    def numbers(lab: Lab, study: Study, scratch: Path, said: Said) -> Any:
        cells = [cell for cell in study.folders(stage) if cell.id not in lab.own]
        records = [cell.record_data() for cell in cells if cell.is_done()]
        return [(record["loss"], record["accuracy"], record.get("dense_loss")) for record in records]

    return numbers


READ = {
    "status": Verb(lambda lab, scratch: ["status", NAME, "--json"], _cells_not_done),
    "show train": Verb(lambda lab, scratch: ["show", lab.parent, "--study", NAME], _numbers_shown),
    "show compress": Verb(lambda lab, scratch: ["show", lab.recipe, "--study", NAME], _numbers_shown),
    "export train": Verb(lambda lab, scratch: ["export", lab.parent, str(scratch), "--study", NAME], _exported),
    "export compress": Verb(lambda lab, scratch: ["export", lab.recipe, str(scratch), "--study", NAME], _exported),
    "clean": Verb(lambda lab, scratch: ["clean", NAME, "--checkpoints", "--packed"]),
    "report": Verb(lambda lab, scratch: ["report", NAME], _tables),
    "plan train": Verb(lambda lab, scratch: ["plan", *lab.train(15, 30)]),
    "plan compress": Verb(lambda lab, scratch: ["plan", *lab.compress(8)]),
    "sync": Verb(lambda lab, scratch: ["sync", NAME], _mirrored),
}
"""Commands that change no result."""
NUMBERS = {name: READ[name] for name in ("status", "show train", "export train", "export compress", "report", "sync")}
"""Those of them that read all results again."""
WRITE = {
    "another recipe": Verb(lambda lab, scratch: lab.compress(4), _added("compress")),
    "larger budget": Verb(lambda lab, scratch: lab.train(45), _added("train")),
    "run": Verb(lambda lab, scratch: ["run", NAME]),
}
"""Commands that make results; the last repeats the commands that made the study."""


@dataclass
class Outcome:
    """What a command gave, and whether it told of something."""

    verb: str
    said: Said
    result: Any


def outcomes(verbs: dict[str, Verb], lab: Lab, study: Study, scratch: Path, shell: Shell) -> list[Outcome]:
    """What each command gives; ``"refused"`` where it does not end well."""
    return [_outcome(name, verb, lab, study, scratch / name.replace(" ", "-"), shell) for name, verb in verbs.items()]


def _outcome(name: str, verb: Verb, lab: Lab, study: Study, scratch: Path, shell: Shell) -> Outcome:
    scratch.parent.mkdir(parents=True, exist_ok=True)
    said = shell(*verb.arguments(lab, scratch))
    return Outcome(name, said, verb.result(lab, study, scratch, said) if said.status == 0 else "refused")


def tells(said: Said, name: str) -> bool:
    """Whether a line names the damaged file, or the command that makes it again."""
    cell = re.search(r"/([0-9a-f]{12})/", name)
    return Path(name).name in said.printed or bool(cell and f"trainlarge redo {cell[1]}" in said.printed)


def wrongs(found: list[Outcome], expected: dict[str, Any], name: str) -> Iterator[str]:
    """What is neither as it was nor told in one line."""
    for each in found:
        said = each.said
        errors = [line for line in said.printed.splitlines() if line.startswith("error: ")]
        if "Traceback" in said.printed or len(errors) > 1:
            yield f"{each.verb} prints a traceback: {said.printed[-1500:]}"
        if said.status not in (0, 1, 2):
            yield f"{each.verb} ends with status {said.status}"
        if each.result != expected[each.verb] and not tells(said, name):
            yield f"{each.verb} is silent, status {said.status}: {said.printed[-300:]} {str(each.result)[:200]}"


def redo(found: list[Outcome], shell: Shell) -> list[Said]:
    """Give the commands that the lines name, parents first; what each says."""
    cells = dict.fromkeys(
        cell for each in found for cell in re.findall(r"trainlarge redo ([0-9a-f]{12})", each.said.printed)
    )
    return [shell("redo", cell, "--study", NAME) for cell in cells]


class Trial:
    """A copy of the study of a lab, on which commands are tried."""

    def __init__(self, lab: Lab, folder: Path, shell: Shell) -> None:
        self.lab, self.folder, self.shell = lab, folder, shell
        self.study = lab.copy(folder / "studies")
        write_sweeps(lab, folder)

    def give(self, verbs: dict[str, Verb], when: str) -> list[Outcome]:
        with pytest.MonkeyPatch.context() as patched:
            in_this_process(patched, self.folder)
            return outcomes(verbs, self.lab, self.study, self.folder / when, self.shell)

    def redo(self, found: list[Outcome]) -> list[Said]:
        with pytest.MonkeyPatch.context() as patched:
            in_this_process(patched, self.folder)
            return redo(found, self.shell)


Results = dict[str, dict[str, Any]]
"""When -> verb -> what the command gives of a whole study."""


def results_of_whole(lab: Lab, folder: Path, shell: Shell) -> Results:
    """What commands give of the study as it is, in a copy below ``folder``."""
    trial, results = Trial(lab, folder, shell), {}
    for when, verbs in (("before", READ), ("write", WRITE), ("after", NUMBERS)):
        given = trial.give(verbs, when)
        assert not (refused := [each for each in given if each.said.status]), refused
        results[when] = {each.verb: each.result for each in given}
    return results


def wrong_after(kind: str, how: str, lab: Lab, whole: Results, folder: Path, shell: Shell) -> Iterator[str]:
    """What is silent, ends in a traceback, or is not repaired after one damage, in a copy below ``folder``."""
    name = lab.files()[kind]
    trial = Trial(lab, folder, shell)
    damage(trial.study.path.parent / name, how)
    read = trial.give(READ, "before")
    yield from wrongs(read, whole["before"], name)
    written = trial.give(WRITE, "write")
    yield from wrongs(written, whole["write"], name)
    repairs = trial.redo([*read, *written])
    yield from (f"a command that repairs fails: {said.printed[-500:]}" for said in repairs if said.status)
    again = [each.verb for each in written if repairs or each.result != whole["write"][each.verb]]
    healed = trial.give({verb: WRITE[verb] for verb in again}, "again") + trial.give(NUMBERS, "after")
    for each in healed:
        if each.result != (whole["write"] | whole["after"])[each.verb]:
            yield f"{each.verb} is not repaired: {each.said.printed[-300:]} {str(each.result)[:200]}"
    if not all(cell.is_done() for stage in STAGES for cell in trial.study.folders(stage)):
        yield "cells are not done again"


def check_damages(damages: Iterable[tuple[str, str]], lab: Lab, folder: Path, shell: Shell) -> None:
    """Each (kind, how) is healed or told, in a copy of its own below ``folder``."""
    whole, wrong = results_of_whole(lab, folder / "whole", shell), []
    for number, (kind, how) in enumerate(damages):
        copy = folder / str(number)
        wrong += [f"{kind} {how}: {each}" for each in wrong_after(kind, how, lab, whole, copy, shell)]
        shutil.rmtree(copy)
    assert not wrong, "\n".join(wrong)
