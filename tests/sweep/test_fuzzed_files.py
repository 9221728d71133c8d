"""Small files of a study that hold anything: every reader heals them, or names the file in one line.

Mutations are drawn from fixed seeds: bytes, JSON and YAML of other types, deep nesting, keys twice, with a seal that is
right and without one, and things in the place of a file that are none.
"""

from __future__ import annotations

import json
import os
import random
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

import made
from trainlarge.commands import ls, show
from trainlarge.commands.cleanup import find_removable
from trainlarge.commands.status import read_state, status_json
from trainlarge.config.group import Plain
from trainlarge.config.launcher import SlurmConfig
from trainlarge.config.tracking import CsvConfig
from trainlarge.errors import UserError
from trainlarge.launch.job import RunningJob
from trainlarge.launch.slurm.submission import Submission
from trainlarge.machine.probe import StepTiming
from trainlarge.machine.step_time import Round
from trainlarge.results.frames import load_study
from trainlarge.sweep import lease
from trainlarge.sweep.cell import Cell
from trainlarge.sweep.history import commands_of, remember_command
from trainlarge.sweep.lease import Lease
from trainlarge.sweep.plan import make_plan
from trainlarge.sweep.sealed import sealed_text
from trainlarge.sweep.step_times import CellSteps, read_measured
from trainlarge.sweep.store import Study
from trainlarge.tracking.mirror import mirror_study

MOST_SECONDS = 5.0
"""For all readers after one mutation, here where the machine may be busy."""

SIGNS = [("[", "]"), ('{"a":', "}")]


def nested(opens: str, closes: str, depth: int) -> bytes:
    return (opens * depth + "1" + closes * depth).encode()


CONTENTS = [
    b"", b"{}", b"[]", b"null", b"7", b'"text"', b"NaN", b'{"state": NaN}', b"{\xe4: \xff}\n", b"\0" * 100,
    b"\xff\xfe{\0}\0", b'{"state": ' + b"9" * 6000 + b"}", b'{"state": 1e999, "step_seconds": 1e999}',
    b'{"state": "\\ud83d"}', b"- - - - a", b"a: &a [1]\nb: *a\n", b"? {a: b}\n: 1\n", b"a: 2026-01-01\n",
    b"a: &a [x,x]\nb: &b [*a,*a]\nc: &c [*b,*b]\n", b"a: !!python/object/apply:os.getcwd []\n",
    b"a: !!binary 'AA=='\n", b"{}\n" * 1000, b"{", b"'", b"\t- a", b"%YAML 9.9\n---\n", b"- " * 30_000,
    b"? " * 30_000, *(nested(opens, closes, depth) for opens, closes in SIGNS for depth in (900, 60_000)),
    *(nested(opens, "", 60_000) for opens, _ in SIGNS),
]  # fmt: skip
"""What may stand in the place of any file."""
VALUES: list[Plain] = [
    None, True, -1, 0, 3, 2**63, 10**400, 0.5, -1e308, "", "x", "\x1b[31m", "../../x", "9" * 5000,
    [], [1], [[]], {}, {"a": {"b": 1}}, ["x"] * 20,
]  # fmt: skip
"""What may stand in the place of any value."""


@dataclass
class Lab:
    """A study with a file of every small kind."""

    study: Study
    queued: Cell
    """A cell that is not done, with a lease and steps."""
    files: dict[str, Path]
    """Kind -> a file of it."""


def make_lab(root: Path) -> Lab:
    study = Study(root / "s")
    done, other = (made.make_train_cell(study, shape, 7.5) for shape in ((64, 1), (64, 2)))
    compressed = made.make_compress_cell(study, done, 0.5, 4)
    queued = made.train_cell("s", (128, 2), "9 s")
    waiting = study.folder("train", queued.id)
    waiting.freeze(queued)
    (waiting.path / "steps.json").write_text(sealed_text({"steps": 3, "step_seconds": 0.1}))
    held = Lease.acquire(waiting.path)
    assert held is not None
    held.release()
    remember_command(study, "train", "trainlarge train -m +sweeps=made/train")
    timing = StepTiming(study.path / "probes", {"shape": 1})
    timing.add(Round.of_before(0.25, 10))
    timing.use_for({other.id: 0.25})
    mirror_study(study, CsvConfig())
    submitted = Submission.new(study, "train", [(queued.id,)], SlurmConfig(), [], "trainlarge").write()
    names = ("config.yaml", "status.json", "record.json", "metrics.jsonl", "document_losses.json", "mirror.json")
    return Lab(study, queued, {
        **{f"train {name}": done.path / name for name in names},
        **{f"compress {name}": compressed.path / name for name in names[:3]},
        "queued config.yaml": waiting.config_path, "steps.json": waiting.path / "steps.json", "lease": held.path,
        "stray lease": held.path.with_name("000007.json"), "no lease": held.path.with_name("notes.txt"),
        "commands.jsonl": study.path / "commands.jsonl", "probe": timing.path, "submission": submitted.path,
        "like a cell": study.path / "train" / "0123456789ab", "log": done.log,
    })  # fmt: skip


def mutated(content: bytes, draw: random.Random) -> bytes:
    """Something else in the place of a file."""
    kind = draw.random()
    if kind < 0.3 or not content:
        return draw.choice(CONTENTS)
    if kind < 0.45:
        place = draw.randrange(len(content))
        return draw.choice([content[:place], content[:place] + bytes([draw.randrange(256)]) + content[place + 1 :]])
    try:
        data = json.loads(content)
        write: Callable[[Plain], str] = draw.choice([json.dumps, lambda value: _sealed(value)])
    except ValueError:
        rows = content.splitlines(keepends=True)
        if content.startswith(b"{"):
            place = draw.randrange(len(rows))
            row = json.dumps(_changed(json.loads(rows[place]), draw)).encode() + b"\n"
            return b"".join([*rows[:place], row, *rows[place + 1 :]])
        data, write = yaml.safe_load(content), lambda value: str(yaml.safe_dump(value))
    return write(_changed(data, draw)).encode()


def _sealed(value: Plain) -> str:
    return sealed_text(value) if isinstance(value, dict) and value else json.dumps(value)


def _changed(data: Plain, draw: random.Random) -> Plain:
    """With another value at a random place, without that place, or with a key more."""
    owner: Plain = data
    while isinstance(owner, dict | list) and owner:
        key = draw.choice(list(owner) if isinstance(owner, dict) else list(range(len(owner))))
        inner = owner[key]  # type: ignore[call-overload, index]
        if isinstance(inner, dict | list) and inner and draw.random() < 0.8:
            owner = inner
            continue
        if draw.random() < 0.25:
            del owner[key]  # type: ignore[arg-type]
        elif draw.random() < 0.15 and isinstance(owner, dict):
            owner["unheard of"] = draw.choice(VALUES)
        else:
            owner[key] = draw.choice(VALUES)  # type: ignore[call-overload, index]
        return data
    return draw.choice(VALUES)


def readers(lab: Lab) -> Iterator[tuple[str, Callable[[], object]]]:
    """Everything that reads small files, those first that write nothing."""
    study, ids = lab.study, [folder.id for stage in ("train", "compress") for folder in lab.study.folders(stage)]
    yield "status", lambda: status_json(read_state(study))
    for cell in ids:
        yield f"show {cell}", lambda cell=cell: show.show_cell(cell, study.name)
    yield "ls", lambda: ls.cells_text(ls.listed(study)) + ls.studies_text(ls.listed_studies())
    yield "commands", lambda: commands_of(study, "train", {"0" * 12})
    yield "load", lambda: load_study(study)
    yield "load what is whole", lambda: load_study(study, strict=False).documents.sample("train", ids[:2])
    yield "clean", lambda: find_removable(study)
    yield "steps", lambda: read_measured(CellSteps, lab.files["steps.json"])
    yield "times", lambda: [StepTiming.of_file(path).estimate() for path in (study.path / "probes").glob("*.json")]
    yield "mirror", lambda: mirror_study(study, CsvConfig())
    yield "remember", lambda: remember_command(study, "train", "trainlarge train seed=7")
    yield "plan", lambda: make_plan(study, "train", [lab.queued])
    yield "claim", lambda: claimed(lab)


def claimed(lab: Lab) -> None:
    """The queued cell can be run again, whatever happened to it."""
    job = RunningJob.claim(lab.study, "train", [lab.queued.id])
    assert [cell.id for cell in job.cells] == [lab.queued.id]
    assert Lease.acquire(lab.study.folder("train", lab.queued.id).path) is None


def wrong(name: str, read: Callable[[], object], started: float) -> Iterator[str]:
    try:
        read()
    except UserError as error:
        if "\n" in str(error):
            yield f"{name} says more than a line: {error}"
    except Exception as error:
        yield f"{name}: {type(error).__name__}: {str(error)[:300]}"
    if time.monotonic() - started > MOST_SECONDS:
        yield f"{name} takes {time.monotonic() - started:.1f} s"


def after(lab: Lab) -> list[str]:
    """What goes wrong where a small file is something else."""
    started, found = time.monotonic(), list[str]()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name, read in readers(lab):
            found += wrong(name, read, started)
    return found


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    return make_lab(tmp_path_factory.mktemp("studies"))


@pytest.fixture
def lab(whole: Lab, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lab]:
    """The study, with nothing that waits, neither for a heartbeat nor for Hydra; whole again afterwards."""
    monkeypatch.setattr(lease, "WATCHED_HEARTBEATS", 0)
    monkeypatch.setattr(show, "rerun_command", lambda cell, redo: "")
    monkeypatch.setenv("TRAINLARGE_STUDIES", str(whole.study.path.parent))
    content = content_of(whole)
    yield whole
    restore(whole, content)


def content_of(lab: Lab) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in lab.study.path.rglob("*") if path.is_file()}


def restore(lab: Lab, content: dict[Path, bytes]) -> None:
    """Make all files what they were; quicker than a new copy of the study."""
    for path in content_of(lab).keys() - content.keys():
        path.unlink()
    for path, whole in content.items():
        if not path.is_file() or path.read_bytes() != whole:
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(whole)


def test_the_whole_study_is_read(lab: Lab) -> None:
    assert after(lab) == []


@pytest.mark.parametrize("seed", [0, 1, *(pytest.param(seed, marks=pytest.mark.long) for seed in range(2, 6))])
def test_a_mutated_file_is_healed_or_told_in_a_line(lab: Lab, seed: int) -> None:
    draw, found, content = random.Random(seed), list[str](), content_of(lab)
    for kind in (kind for kind in lab.files for _ in range(3)):
        path = lab.files[kind]
        mutation = mutated(content.get(path, b""), draw)
        path.write_bytes(mutation)
        # Expired, so that what a lease says does not matter.
        os.utime(path, (1.0, 1.0))
        found += [f"{kind} = {mutation[:200]!r}: {each}" for each in after(lab)]
        restore(lab, content)
    assert not found, "\n".join(found)
