"""State travels as arguments: which files may touch the environment, the command line and context variables."""

from __future__ import annotations

import ast
import multiprocessing
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import trainlarge
from trainlarge.config.schema import TrainConfig
from trainlarge.launch.worker import Assignment, run_job
from trainlarge.machine.environment import variables
from trainlarge.machine.resources import Resources
from trainlarge.sweep.plan import make_cells
from trainlarge.sweep.store import Study

SOURCE = Path(trainlarge.__file__).parent


def files_with(pattern: str) -> set[str]:
    """Files of the package in whose code, docstrings and comments apart, the pattern occurs."""
    return {
        str(path.relative_to(SOURCE))
        for path in SOURCE.rglob("*.py")
        if any(re.search(pattern, code) for code in statements(path))
    }


def statements(path: Path) -> Iterator[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, (ast.Attribute, ast.Call, ast.Name)):
            yield ast.unparse(node)
        elif isinstance(node, ast.Subscript):
            yield {ast.Store: "{} =", ast.Del: "del {}", ast.Load: "{}"}[type(node.ctx)].format(ast.unparse(node))


def test_the_environment_is_set_in_one_file() -> None:
    methods = files_with(r"^os\.environ\.(setdefault|update|pop|clear)\(|putenv")
    assert methods | files_with(r"^del os\.environ|^os\.environ\[.*\] =$") == {"machine/environment.py"}


def test_the_command_line_is_read_and_set_in_one_file_each() -> None:
    assert files_with(r"^sys\.argv") == {"cli.py", "commands/hydra_entry.py"}
    assert files_with(r"^ContextVar") == {"commands/hydra_entry.py"}


def test_nothing_that_runs_inside_a_job_prints() -> None:
    packages = ("data/", "models/", "machine/", "sweep/", "tasks/", "launch/", "training/", "compression/")
    assert not [name for name in files_with(r"^print\(") if name.startswith(packages)]


def test_variables_are_put_back_one_by_one() -> None:
    with variables({"TRAINLARGE_TEST": "1", "PATH": "/nowhere"}):
        os.environ["TRAINLARGE_OTHER"] = "stays"
        assert os.environ["TRAINLARGE_TEST"] == "1" and os.environ["PATH"] == "/nowhere"
    assert os.environ.pop("TRAINLARGE_OTHER") == "stays", "what others set meanwhile is left alone"
    assert "TRAINLARGE_TEST" not in os.environ and os.environ["PATH"] != "/nowhere"


def test_a_job_gets_its_cores_and_its_command_as_arguments(study: Study, tiny: Callable[..., TrainConfig]) -> None:
    [cell] = make_cells("train", [tiny("impl.threads=0", "budget=5 steps")])
    study.folder("train", cell.id).freeze(cell)
    assignment = Assignment(study.path, "train", (cell.id,), Resources(3, jobs_per_device=2), "trainlarge train x")
    process = multiprocessing.get_context("spawn").Process(target=run_job, args=(assignment,))
    process.start()
    process.join()
    record = study.folder("train", cell.id).record_data()
    assert record["environment"]["threads"] == 3 and record["environment"]["per_device"] == 2
    assert record["provenance"]["command"] == "trainlarge train x"
