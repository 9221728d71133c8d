"""What a machine with a GPU must have installed for ``make test-gpu`` is what CONTRIBUTING says, and nothing else."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of links to the packages that CONTRIBUTING asks of such a machine, and those that they require."""
    [asked] = re.findall(r"^That interpreter needs (.*?)\.$", (ROOT / "CONTRIBUTING.md").read_text(), re.M | re.S)
    folder, seen, todo = tmp_path_factory.mktemp("packages"), set(), re.findall("`(.*?)`", asked)
    assert "torch" in todo
    while todo:
        distribution = metadata.distribution(todo.pop())
        if distribution.name in seen:
            continue
        seen.add(distribution.name)
        for requirement in map(Requirement, distribution.requires or []):
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                todo.append(requirement.name)
        for name in {file.parts[0] for file in distribution.files or []} - {"..", "__pycache__"}:
            if not (folder / name).exists():
                (folder / name).symlink_to(Path(str(distribution.locate_file(name))))
    return folder


def run(packages: Path, folder: Path, *arguments: str) -> str:
    """Output of a Python that sees those packages alone; its exit status is 0."""
    ours = ("PYTHON", "PYTEST", "TRAINLARGE")
    environment = {key: value for key, value in os.environ.items() if not key.startswith(ours)}
    environment |= {"PYTHONPATH": f"{packages}:{ROOT / 'src'}", "CUDA_VISIBLE_DEVICES": ""}
    # Without the module `site`, in child processes too: nothing is added to the path.
    command = [sys.executable, "-S", *arguments]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_without_a_gpu_each_of_its_tests_is_found_and_skipped_for_that_reason(packages: Path) -> None:
    code = "import importlib.util as u, sys; print([name for name in sys.argv[1:] if u.find_spec(name)])"
    others = ("hypothesis", "pytest_timeout", "xdist", "wandb", "datasets", "pandas", "pyarrow", "matplotlib", "pytest")
    assert run(packages, ROOT, "-c", code, *others) == "['pytest']\n"
    printed = run(packages, ROOT, "-m", "pytest", "-p", "no:cacheprovider", "-m", "gpu", "tests/gpu")
    [skipped] = re.findall(r"^=+ (\d+) skipped, \d+ warnings? in ", printed, re.M)
    assert "Unknown config option: timeout" in printed, "a warning and no more"
    reasons = re.findall(r"^SKIPPED \[(\d+)\] tests/gpu/\S+ this machine has no CUDA device$", printed, re.M)
    assert sum(map(int, reasons)) == int(skipped) >= 20


@pytest.mark.long
def test_cells_are_trained_and_compressed_in_processes_of_their_own(
    packages: Path, tiny_overrides: list[str], tmp_path: Path
) -> None:
    trainlarge = ("-m", "trainlarge.cli")
    run(packages, tmp_path, *trainlarge, "train", "-m", *tiny_overrides, "budget=20 steps,40 steps")
    compress = ("compress", "-m", "study=tiny", "tracking=none", "impl.device=cpu", "checkpoint=every")
    recipe = ("prune=wanda", "prune.sparsity=0.5", "quantize=gptq", "quantize.bits=4")
    run(packages, tmp_path, *trainlarge, *compress, *recipe)
    assert len(list(tmp_path.glob("studies/tiny/*/*/record.json"))) == 2 + 2
