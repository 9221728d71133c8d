"""Every kind of file in a study is changed, cut or removed; then users' commands run on the study.

The kinds are found by walking a study that commands have made, so a new kind of file is covered by itself. After each
damage every command that reads gives what it gave before, or names the file, or the command that repairs it, in one
line. What makes results again is tested in ``test_damage_repair.py``.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from safetensors.torch import load_file

from trainlarge.cli import main
from trainlarge.machine import precision
from trainlarge.sweep.stages import STAGES
from trainlarge.sweep.store import Study

KINDS = {
    ".data/ID.lock", ".data/ID/meta.json", ".data/ID/tokenizer.json", ".data/ID/train.bin", ".data/ID/validation.bin",
    "tiny/commands.jsonl", "tiny/compress/ID/config.yaml", "tiny/compress/ID/document_losses.json",
    "tiny/compress/ID/lease/N.json", "tiny/compress/ID/log.txt", "tiny/compress/ID/packed.safetensors",
    "tiny/compress/ID/record.json", "tiny/compress/ID/status.json", "tiny/compress/ID/weight_errors.json",
    "tiny/probes/ID.json", "tiny/report/cells.csv", "tiny/report/index.html", "tiny/train/ID/checkpoint/config.json",
    "tiny/train/ID/checkpoint/model.safetensors", "tiny/train/ID/checkpoint/tokenizer.json",
    "tiny/train/ID/checkpoint/tokenizer_config.json", "tiny/train/ID/config.yaml",
    "tiny/train/ID/document_losses.json", "tiny/train/ID/lease/N.json", "tiny/train/ID/log.txt",
    "tiny/train/ID/metrics.jsonl", "tiny/train/ID/mirror.json", "tiny/train/ID/record.json",
    "tiny/train/ID/status.json", "tiny/train/ID/steps.json", "tiny/trunks/ID/step_time.json",
    "tiny/trunks/ID/trunk-N/state.json", "tiny/trunks/ID/trunk-N/tensors.safetensors",
    "tiny/wandb/RUN/run-ID.wandb",
}  # fmt: skip
"""Some of what a study has: a test of nothing must not pass."""
CELLS = ["cell", "loss", "accuracy", "step", "tokens", "flops", "parameters", "series"]
CURVES = ["cell", "step", "loss", "train_loss"]
COMPRESSION = ["cell", "loss", "dense_loss", "file_bytes"]
COLUMNS = {"cells": CELLS, "curves": CURVES, "compression": COMPRESSION}
NUMBERED = ((r"offline-run-\d{8}_\d{6}-", "RUN-"), (r"[0-9a-f]{12,20}", "ID"), (r"(?<=-)\d{9}|\d{6}(?=\.json)", "N"),
            (r"RUN-ID(-compress)?", "RUN"), (r"run-ID-compress", "run-ID"))  # fmt: skip


def kind_of(path: str) -> str:
    """The path of a file without what tells cells, states, leases and runs apart."""
    for pattern, name in NUMBERED:
        path = re.sub(pattern, name, path)
    return path


@dataclass
class Said:
    """How a command ended and what it printed, its child processes included."""

    status: int
    printed: str


@dataclass
class Shell:
    """Gives commands in this process, whose server of jobs has loaded torch already."""

    capture: pytest.CaptureFixture[str]

    def __call__(self, *arguments: str) -> Said:
        self.capture.readouterr()
        try:
            status = main(arguments)
        except SystemExit as exit_:
            status = int(exit_.code or 0)
        printed = self.capture.readouterr()
        return Said(status, printed.out + printed.err)


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
        found = sorted(path.relative_to(self.root).as_posix() for path in paths)
        return {kind_of(name): name for name in sorted(found, key=lambda name: self.parent in name)}

    def copy(self, target: Path) -> Study:
        shutil.copytree(self.root, target, symlinks=True)
        return Study.named("tiny", target)


def train(common: list[str], *budgets: int) -> list[str]:
    return ["train", "-m", *common, f"budget={','.join(f'{budget} steps' for budget in budgets)}"]


def compress(parent: str, bits: int) -> list[str]:
    options = ["study=tiny", "tracking=none", "impl.device=cpu", "impl.threads=1"]
    return ["compress", *options, f"checkpoint={parent}", f"quantize.bits={bits}"]


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory, tiny_overrides: list[str]) -> Iterator[Lab]:
    root = tmp_path_factory.mktemp("lab") / "studies"
    root.mkdir()
    common = [*tiny_overrides[:-1], "impl.threads=1", "impl.precision=fp32", tiny_overrides[-1]]
    common = [each for each in common if not each.startswith("budget=")]
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("TRAINLARGE_STUDIES", str(root))
        assert main(train(common, 15, 30)) == 0
        study = Study.named("tiny", root)
        parent = next(folder.id for folder in study.folders("train") if folder.record_data()["step"] == 30)
        for command in (compress(parent, 8), ["report", "tiny"], ["sync", "tiny"]):
            assert main(command) == 0, command
        yield Lab(root, common, parent, [folder.id for stage in STAGES for folder in study.folders(stage)])


@pytest.fixture
def shell(capfd: pytest.CaptureFixture[str]) -> Shell:
    return Shell(capfd)


@dataclass
class Verb:
    """A command, and what of its result must stay."""

    arguments: Callable[[Lab, Study, Path], list[str]]
    result: Callable[[Lab, Study, Path, Said], Any] = lambda lab, study, scratch, said: None
    is_long: bool = False


def cells_done(lab: Lab, study: Study, scratch: Path, said: Said) -> Any:
    stages = json.loads(said.printed.splitlines()[-1])["stages"]
    return {stage: counts["cells"] - counts["done"] for stage, counts in stages.items()}


def numbers_shown(lab: Lab, study: Study, scratch: Path, said: Said) -> Any:
    return [line for line in said.printed.splitlines() if re.match(r" +(loss|accuracy|file_bytes|dense_loss):", line)]


def tables(lab: Lab, study: Study, scratch: Path, said: Said) -> Any:
    read = {name: pd.read_csv(study.path / "report" / f"{name}.csv")[columns] for name, columns in COLUMNS.items()}
    return {name: frame[frame["cell"].isin(lab.own)].to_dict("records") for name, frame in read.items()}


def mirrored(lab: Lab, study: Study, scratch: Path, said: Said) -> Any:
    # The runs of a checkpoint's recipes change with the recipes that other commands add.
    return [json.loads((study.path / "train" / cell / "mirror.json").read_text())[f"wandb {cell}"]
            for cell in lab.own if (study.path / "train" / cell).is_dir()]  # fmt: skip


def exported(lab: Lab, study: Study, scratch: Path, said: Said) -> Any:
    sums = {name: float(tensor.double().sum()) for name, tensor in load_file(scratch / "model.safetensors").items()}
    return sorted(path.name for path in scratch.iterdir()), sums, (scratch / "tokenizer.json").read_bytes()


def recipe(lab: Lab) -> str:
    return lab.own[-1]


READ = {
    "status": Verb(lambda lab, study, scratch: ["status", "tiny", "--json"], cells_done),
    "show train": Verb(
        lambda lab, study, scratch: ["show", lab.parent, "--study", "tiny"], numbers_shown, is_long=True
    ),
    "show compress": Verb(
        lambda lab, study, scratch: ["show", recipe(lab), "--study", "tiny"], numbers_shown, is_long=True
    ),
    "export train": Verb(lambda lab, study, scratch: ["export", lab.parent, str(scratch), "--study", "tiny"], exported),
    "export compress": Verb(
        lambda lab, study, scratch: ["export", recipe(lab), str(scratch), "--study", "tiny"], exported
    ),
    "sync": Verb(lambda lab, study, scratch: ["sync", "tiny"], mirrored),
    "clean": Verb(lambda lab, study, scratch: ["clean", "tiny", "--checkpoints", "--packed"]),
    "report": Verb(lambda lab, study, scratch: ["report", "tiny"], tables, is_long=True),
    "plan train": Verb(lambda lab, study, scratch: ["plan", *train(lab.common, 15, 30)], is_long=True),
    "plan compress": Verb(lambda lab, study, scratch: ["plan", *compress(lab.parent, 8)], is_long=True),
}
"""Commands that change no result."""


@dataclass
class Outcome:
    """What a command gave, and whether it told of something."""

    verb: str
    said: Said
    result: Any


def outcome(name: str, verb: Verb, lab: Lab, study: Study, scratch: Path, shell: Shell) -> Outcome:
    scratch.parent.mkdir(parents=True, exist_ok=True)
    said = shell(*verb.arguments(lab, study, scratch))
    return Outcome(name, said, verb.result(lab, study, scratch, said) if said.status == 0 else "refused")


def outcomes(verbs: dict[str, Verb], lab: Lab, study: Study, scratch: Path, shell: Shell) -> list[Outcome]:
    return [outcome(name, verb, lab, study, scratch / name.replace(" ", "-"), shell) for name, verb in verbs.items()]


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


@pytest.fixture
def expected(lab: Lab, tmp_path_factory: pytest.TempPathFactory, shell: Shell) -> Callable[..., dict[str, Any]]:
    """What commands give of a whole study."""

    def give(verbs: dict[str, Verb]) -> dict[str, Any]:
        folder = tmp_path_factory.mktemp("whole")
        with pytest.MonkeyPatch.context() as patched:
            patched.setenv("TRAINLARGE_STUDIES", str(folder / "studies"))
            found = outcomes(verbs, lab, lab.copy(folder / "studies"), folder, shell)
        assert not (refused := [each.said for each in found if each.said.status]), refused
        return {each.verb: each.result for each in found}

    return give


def damage(path: Path, how: str) -> None:
    content = path.read_bytes() or b"0"
    if how == "removed":
        path.unlink()
    elif how == "a folder":
        path.unlink()
        path.mkdir()
    elif how == "truncated":
        path.write_bytes(content[: len(content) // 2])
    elif how == "flipped":
        middle = len(content) // 2
        path.write_bytes(
            content[:middle] + bytes([content[middle] ^ 0x80]) + content[middle + 1 :] if content else b"\xff"
        )
    else:
        path.write_bytes(_with_another_digit(content))


def _with_another_digit(content: bytes) -> bytes:
    """With one bit changed: in text in a digit, which stays one."""
    middle = len(content) // 2
    is_text = b"\0" not in content
    digit = re.compile(rb"\d").search(content, middle) or re.compile(rb"\d").search(content) if is_text else None
    at = digit.start() if digit else middle
    return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]


Try = Callable[[str, str, Study, Path], Iterator[str]]


def damaged_copies(lab: Lab, tmp_path: Path, how: str, attempt: Try) -> list[str]:
    """What is wrong after each kind of file was damaged in a copy of its own."""
    files = lab.files()
    assert set(files) >= KINDS, KINDS - set(files)
    found = []
    for number, (kind, name) in enumerate(files.items()):
        place = tmp_path / str(number)
        with pytest.MonkeyPatch.context() as patched:
            patched.setenv("TRAINLARGE_STUDIES", str(place / "studies"))
            study = lab.copy(place / "studies")
            damage(place / "studies" / name, how)
            found += [f"{kind} {how}: {what}" for what in attempt(kind, name, study, place)]
        shutil.rmtree(place)
    return found


LONG = [pytest.param(how, marks=pytest.mark.long) for how in ("flipped", "truncated", "removed", "a folder")]


@pytest.mark.parametrize("how", ["changed", *LONG])
def test_no_damaged_file_is_read_without_a_word(
    lab: Lab, expected: Callable[..., dict[str, Any]], shell: Shell, tmp_path: Path, how: str
) -> None:
    verbs = {name: verb for name, verb in READ.items() if not verb.is_long}
    whole = expected(verbs)

    def attempt(kind: str, name: str, study: Study, place: Path) -> Iterator[str]:
        yield from wrongs(outcomes(verbs, lab, study, place / "out", shell), whole, name)

    wrong = damaged_copies(lab, tmp_path, how, attempt)
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    ("verb", "kind", "how"),
    [
        ("show", "tiny/train/ID/record.json", "changed"),
        ("export", "tiny/train/ID/checkpoint/tokenizer.json", "removed"),
    ],
)
def test_the_program_itself_tells_in_a_line(lab: Lab, tmp_path: Path, verb: str, kind: str, how: str) -> None:
    lab.copy(tmp_path / "studies")
    name = lab.files()[kind]
    damage(tmp_path / "studies" / name, how)
    more = [str(tmp_path / "model")] if verb == "export" else []
    done = subprocess.run(
        [sys.executable, "-m", "trainlarge", verb, lab.parent, *more, "--study", "tiny"],
        env={**os.environ, "TRAINLARGE_STUDIES": str(tmp_path / "studies")},
        capture_output=True,
        text=True,
        check=False,
    )
    printed = done.stdout + done.stderr
    assert done.returncode == (2 if verb == "export" else 0), printed
    assert "Traceback" not in printed and tells(Said(done.returncode, printed), name), printed


@pytest.mark.parametrize("how", ["changed", "flipped", "truncated", "removed"])
def test_a_damaged_measurement_of_precision_is_made_again(
    tmp_path: Path, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No machine without bf16 measures it, so its file is not among those of the study above."""
    monkeypatch.setattr(precision, "_measured", lambda device, threads: {"precision": "fp32", "speedup": 1.01})
    folder = tmp_path / "probes" / "precision"
    assert precision.faster_precision(folder, "cpu", "a processor", 1) == "fp32"
    [path] = folder.glob("*.json")
    whole = path.read_bytes()
    damage(path, how)
    assert precision.faster_precision(folder, "cpu", "a processor", 1) == "fp32"
    assert path.read_bytes() == whole
