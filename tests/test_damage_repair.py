"""Every kind of file in a study, with a changed digit, without its second half, and gone: results are made again.

After each damage, whatever reads the study gives what it gave before, or says in one line what is damaged; and the same
commands, or the command that the line names, make all whole again.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from trainlarge.commands.export import export_cell
from trainlarge.commands.show import show_cell
from trainlarge.commands.status import read_state
from trainlarge.config.schema import StageConfig
from trainlarge.errors import UserError
from trainlarge.launch.job import RunningJob
from trainlarge.machine import probe
from trainlarge.results.frames import load_study
from trainlarge.sweep.cell import Cell
from trainlarge.sweep.plan import make_cells, make_plan
from trainlarge.sweep.stages import STAGES, stage_named
from trainlarge.sweep.store import CellFolder, Study

KINDS = {
    ".data/ID/meta.json", ".data/ID/tokenizer.json", ".data/ID/train.bin", ".data/ID/validation.bin",
    "tiny/compress/ID/config.yaml", "tiny/compress/ID/lease/N.json", "tiny/compress/ID/packed.safetensors",
    "tiny/compress/ID/record.json", "tiny/compress/ID/status.json", "tiny/compress/ID/weight_errors.json",
    "tiny/train/ID/checkpoint/config.json", "tiny/train/ID/checkpoint/model.safetensors",
    "tiny/train/ID/checkpoint/tokenizer.json", "tiny/train/ID/config.yaml", "tiny/train/ID/metrics.jsonl",
    "tiny/train/ID/record.json", "tiny/train/ID/status.json", "tiny/train/ID/steps.json",
    "tiny/probes/ID.json", "tiny/trunks/ID/step_time.json",
    "tiny/compress/ID/document_losses.json", "tiny/train/ID/document_losses.json",
    "tiny/trunks/ID/trunk-N/state.json", "tiny/trunks/ID/trunk-N/tensors.safetensors",
}  # fmt: skip
"""Some of what a study has: a test of nothing must not pass."""
CELLS = ["cell", "loss", "accuracy", "step", "tokens", "flops", "parameters", "series"]
CURVES = ["cell", "step", "loss", "train_loss"]
COMPRESSION = ["cell", "loss", "dense_loss", "file_bytes"]


def kind_of(path: str) -> str:
    """The path of a file without the numbers that tell cells, states and leases apart."""
    return re.sub(r"(?<=-)\d{9}|\d{6}(?=\.json)", "N", re.sub(r"[0-9a-f]{12,16}", "ID", path))


@dataclass
class Lab:
    """A study that was trained and compressed, and copies of it to damage."""

    root: Path
    train: list[StageConfig]
    compress: list[StageConfig]
    other: list[StageConfig]
    larger: list[StageConfig]

    def files(self) -> dict[str, str]:
        """Kind -> that file of it which is read: the newest state, and the files of the cell that is compressed."""
        paths = (path for path in self.root.rglob("*") if path.is_file() and path.stat().st_size)
        found = sorted(path.relative_to(self.root).as_posix() for path in paths)
        parent = self.compress[0].checkpoint
        return {kind_of(name): name for name in sorted(found, key=lambda name: parent in name)}

    def copy(self, target: Path) -> Study:
        shutil.copytree(self.root, target, symlinks=True)
        return Study.named("tiny", target)


def run(study: Study, stage: str, configs: list[StageConfig], redo: bool = False) -> list[Path]:
    """What a command does, in this process; raises the error of a job."""
    plan = make_plan(study, stage, make_cells(stage, configs), redo)
    for job in plan.jobs:
        running = RunningJob.claim(study, stage, list(job.cell_ids))
        with running.running():
            stage_named(stage).run(running)
    return [study.folder(stage, cell.id).path for cell in plan.cells]


@pytest.fixture(scope="module")
def lab(
    tmp_path_factory: pytest.TempPathFactory, compose: Callable[..., StageConfig], tiny_overrides: list[str]
) -> Iterator[Lab]:
    root = tmp_path_factory.mktemp("lab") / "studies"
    root.mkdir()
    common = [*tiny_overrides, "impl.device=cpu", "impl.threads=1", "impl.precision=fp32"]
    recipe = ["study=tiny", "tracking=none", "impl.device=cpu", "impl.threads=1"]
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("TRAINLARGE_STUDIES", str(root))
        patched.setattr(probe, "ROUND_SECONDS", 0.02)
        train = [compose("train", *common, f"budget={budget} steps") for budget in (15, 30)]
        last = run(Study.named("tiny", root), "train", train)[-1].name
        compress, other = (
            [compose("compress", *recipe, f"checkpoint={last}", f"quantize.bits={bits}")] for bits in (8, 4)
        )
        run(Study.named("tiny", root), "compress", compress)
        yield Lab(root, train, compress, other, [compose("train", *common, "budget=45 steps")])


Operation = Callable[[Lab, Study, Path], Any]


def frames_of(lab: Lab, study: Study, scratch: Path) -> Any:
    frames = load_study(study)
    # Without the cells that the operations below add.
    own = {cell.id for stage, configs in (("train", lab.train), ("compress", lab.compress))
           for cell in make_cells(stage, configs)}  # fmt: skip
    parts = ((frames.cells, CELLS), (frames.curves, CURVES), (frames.compression, COMPRESSION))
    return [frame[frame["cell"].isin(own)][columns].to_dict("records") for frame, columns in parts]


def exported(stage: str) -> Operation:
    def export(lab: Lab, study: Study, scratch: Path) -> Any:
        [*_, folder] = study.folders(stage) if stage == "compress" else [parent_of(lab, study)]
        export_cell(folder.id, scratch / stage, "tiny")
        weights = load_file(scratch / stage / "model.safetensors")
        names = sorted(path.name for path in (scratch / stage).iterdir())
        sums = {name: float(tensor.double().sum()) for name, tensor in weights.items()}
        return names, sums, (scratch / stage / "tokenizer.json").read_bytes()

    return export


def parent_of(lab: Lab, study: Study) -> CellFolder:
    return study.folder("train", lab.compress[0].checkpoint)


def another_recipe(lab: Lab, study: Study, scratch: Path) -> Any:
    [path] = run(study, "compress", lab.other)
    record = CellFolder(str(path)).record_data()
    return record["loss"], record["dense_loss"], record["files"]["packed.safetensors"]


def larger_budget(lab: Lab, study: Study, scratch: Path) -> Any:
    [path] = run(study, "train", lab.larger)
    folder = CellFolder(str(path))
    return folder.record_data()["loss"], [row["loss"] for row in folder.metrics()]


def states(lab: Lab, study: Study, scratch: Path) -> Any:
    return [(cell.cell, cell.state) for cell in read_state(study).cells]


def shown(lab: Lab, study: Study, scratch: Path) -> Any:
    numbers = [line for line in show_cell(parent_of(lab, study).id, "tiny").splitlines() if "loss:" in line]
    return numbers or "the record is damaged: no numbers"


READ: dict[str, Operation] = {
    "load_study": frames_of, "status": states, "show": shown, "export train": exported("train"),
    "export compress": exported("compress"),
}  # fmt: skip
"""What changes nothing."""
WRITE: dict[str, Operation] = {"another recipe": another_recipe, "larger budget": larger_budget}


def outcomes(lab: Lab, study: Study, scratch: Path, operations: dict[str, Operation]) -> dict[str, Any]:
    """What each operation gives, or the line that it says."""
    return {name: _outcome(partial(operation, lab, study, scratch / name)) for name, operation in operations.items()}


def _outcome(operation: Callable[[], Any]) -> Any:
    try:
        return operation()
    except UserError as error:
        return str(error)


@pytest.fixture(scope="module")
def expected(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the operations give of a whole study."""
    folder = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("TRAINLARGE_STUDIES", str(folder / "studies"))
        found = outcomes(lab, lab.copy(folder / "studies"), folder, READ | WRITE)
    assert not any(isinstance(result, str) for result in found.values()), found
    return found


def damage(path: Path, how: str) -> None:
    content = path.read_bytes()
    if how == "removed":
        path.unlink()
    elif how == "truncated":
        path.write_bytes(content[: len(content) // 2])
    else:
        path.write_bytes(_changed(content))


def _changed(content: bytes) -> bytes:
    """With one bit changed: in text in a digit, which stays one."""
    middle = len(content) // 2
    is_text = b"\0" not in content
    digit = re.compile(rb"\d").search(content, middle) or re.compile(rb"\d").search(content) if is_text else None
    at = digit.start() if digit else middle
    return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]


def again(lab: Lab, study: Study) -> list[str]:
    """The lines that the same commands say."""
    found = [_outcome(lambda: run(study, "train", lab.train)), _outcome(lambda: run(study, "compress", lab.compress))]
    return [line for line in found if isinstance(line, str)]


def redo(lab: Lab, study: Study, lines: list[str]) -> None:
    """Run the commands that the lines name."""
    for cell in re.findall(r"trainlarge redo ([0-9a-f]{12}) --study tiny", "\n".join(lines)):
        folder = study.find(cell)
        found: Cell = folder.cell()
        run(study, folder.stage, [found.config], redo=True)


@pytest.mark.long
@pytest.mark.parametrize("how", ["changed", "truncated", "removed"])
def test_no_damaged_file_is_read_without_a_word(
    lab: Lab, expected: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    monkeypatch.setattr(probe, "ROUND_SECONDS", 0.02)
    files = lab.files()
    assert set(files) >= KINDS
    wrong = []
    for number, (kind, name) in enumerate(files.items()):
        place = tmp_path / str(number)
        monkeypatch.setenv("TRAINLARGE_STUDIES", str(place / "studies"))
        study = lab.copy(place / "studies")
        damage(place / "studies" / name, how)
        wrong += [f"{kind} {how}: {what}" for what in _wrong(lab, study, place, expected)]
        shutil.rmtree(place)
    assert not wrong, "\n".join(wrong)


def _wrong(lab: Lab, study: Study, place: Path, expected: dict[str, Any]) -> Iterator[str]:
    """What is neither as it was nor told, and what the commands do not repair."""
    found = outcomes(lab, study, place / "damaged", READ) | outcomes(lab, study, place / "damaged", WRITE)
    lines = [result for result in found.values() if isinstance(result, str)]
    for operation, result in found.items():
        if isinstance(result, str):
            if "\n" in result:
                yield f"{operation} says more than a line: {result}"
        elif result != expected[operation] and operation != "status":
            yield f"{operation} is silent"
    lines += again(lab, study)
    redo(lab, study, lines)
    repaired = outcomes(lab, study, place / "repaired", WRITE) | outcomes(lab, study, place / "repaired", READ)
    for operation in repaired.keys() - {"status"}:
        if repaired[operation] != expected[operation]:
            yield f"{operation} is not repaired: {str(repaired[operation])[:300]}"
    if not all(folder.is_done() for stage in STAGES for folder in study.folders(stage)):
        yield "cells are not done again"
