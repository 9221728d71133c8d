"""A launcher is added by its name alone: ``plan``, ``status`` and running then work, and no other file knows it."""

from __future__ import annotations

import ast
import json
import re
from dataclasses import fields
from pathlib import Path

import pytest

import trainlarge
from trainlarge.cli import main
from trainlarge.config.launcher import LauncherConfig, LocalConfig, SlurmConfig
from trainlarge.sweep.store import Study

SOURCE = Path(trainlarge.__file__).parent
OWN_FILES = ("config/launcher.py", "config/sbatch.py", "launch/local/", "launch/slurm/")


def test_a_third_launcher_plans_runs_and_has_a_status(
    inline: None, study: Study, tiny_overrides: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    command = ["train", *tiny_overrides, "launcher=inline", "launcher.cores=1"]
    assert main(["plan", *command, "--json"]) == 0
    plan = json.loads(capfd.readouterr().out)
    [cell] = [cell["cell"] for cell in plan["jobs"][0]["cells"]]
    assert (plan["launcher"], plan["workers"], plan["arrays"]) == ("inline", 1, [["inline", cell]])
    assert main(["plan", *command]) == 0 and "in this process" in capfd.readouterr().out
    assert main(command) == 0 and study.folder("train", cell).is_done()
    assert (
        study.folder("train", cell).record_data()["provenance"]["command"].endswith("launcher=inline launcher.cores=1")
    )
    capfd.readouterr()
    assert main(["status", study.name, "--json"]) == 0
    assert json.loads(capfd.readouterr().out)["inline"] == {"pending": 2}
    assert main(["status", study.name]) == 0 and "Inline jobs: 2 pending" in capfd.readouterr().out


@pytest.mark.parametrize(
    ("wrong", "named", "allowed"),
    [
        ("launcher.cores=0", "launcher.cores=0", "at least 1"),
        ("launcher.cores=two", "launcher.cores=two", "a whole number"),
        (
            "launcher.partition=gpu",
            "launcher.partition=gpu",
            "must not be set with launcher=inline, only with launcher=slurm",
        ),
        ("launcher.retries=-1", "launcher.retries=-1", "at least 0"),
    ],
)
def test_its_keys_are_checked_like_all_others(
    wrong: str,
    named: str,
    allowed: str,
    inline: None,
    study: Study,
    tiny_overrides: list[str],
    capfd: pytest.CaptureFixture[str],
) -> None:
    assert main(["train", *tiny_overrides, "launcher=inline", wrong]) == 2
    [line] = capfd.readouterr().err.strip().splitlines()
    assert named in line and allowed in line and not study.path.exists()


def test_no_other_file_names_a_launcher_or_its_own_keys() -> None:
    own = {item.name for kind in (LocalConfig, SlurmConfig) for item in fields(kind)}
    own -= {item.name for item in fields(LauncherConfig)}
    keys = re.compile(rf"launcher['\"\])]*(\.|\[['\"])({'|'.join(own - {'per_device'})})\b")
    compared = re.compile(r"launcher['\"\])]*(\.|\[['\"])name['\"\]]* *(==|!=| in )")
    for path in SOURCE.rglob("*.py"):
        name = str(path.relative_to(SOURCE))
        if name.startswith(OWN_FILES):
            continue
        code = code_of(path)
        assert not keys.search(code) and not compared.search(code), name
        assert not re.search(r"['\"](local|slurm|SLURM)['\"]", code), name


def code_of(path: Path) -> str:
    """A file without comments and docstrings."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)):
            node.body = [part for part in node.body if not is_text(part)] or [ast.Pass()]
    return ast.unparse(tree)


def is_text(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
