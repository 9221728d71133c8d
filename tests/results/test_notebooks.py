"""The notebooks run where Jupyter starts them, in their own folder, and from the root of the checkout."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
from IPython.core.interactiveshell import InteractiveShell
from nbclient import NotebookClient

from trainlarge.sweep.store import Study

NOTEBOOKS = sorted((Path(__file__).resolve().parents[2] / "analysis").glob("*.ipynb"))


@pytest.fixture
def checkout(tmp_path: Path, made_study: Study, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout with the notebooks and a finished quickstart; nothing in the environment says where studies are."""
    monkeypatch.delenv("TRAINLARGE_STUDY", raising=False)
    monkeypatch.delenv("TRAINLARGE_STUDIES", raising=False)
    for name in ("analysis", "studies"):
        (tmp_path / name).mkdir()
    for path in NOTEBOOKS:
        (tmp_path / "analysis" / path.name).write_bytes(path.read_bytes())
    (tmp_path / "studies" / "quickstart").symlink_to(made_study.path)
    return tmp_path


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_notebook_runs_in_its_folder(path: Path, checkout: Path) -> None:
    notebook = nbformat.read(checkout / "analysis" / path.name, as_version=4)
    resources = {"metadata": {"path": checkout / "analysis"}}
    NotebookClient(notebook, timeout=120, kernel_name="python3", resources=resources).execute()
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 3


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_notebook_runs_from_the_root(path: Path, checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(checkout)
    shell = InteractiveShell()
    for cell in nbformat.read(checkout / "analysis" / path.name, as_version=4).cells:
        if cell.cell_type == "code":
            shell.run_cell(cell.source.replace("%matplotlib inline", "")).raise_error()
    assert shell.user_ns["study"].cells["cell"].size


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_notebook_reads_the_study_that_the_environment_names(
    path: Path, made_study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TRAINLARGE_STUDY", str(made_study.path))
    first = next(cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code")
    shell = InteractiveShell()
    shell.run_cell(first.source.replace("%matplotlib inline", "")).raise_error()
    assert shell.user_ns["study"].cells["cell"].size


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_notebook_is_stored_without_outputs(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    assert NOTEBOOKS and all(
        not cell.outputs and cell.execution_count is None for cell in notebook.cells if cell.cell_type == "code"
    )
