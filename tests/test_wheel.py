"""The built wheel carries ``conf/`` and ``sweeps/`` and works without the checkout."""

from __future__ import annotations

import os
import subprocess
import sys
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment that holds the installed wheel, and takes the packages it needs from this one."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True)
    [wheel] = folder.glob("*.whl")
    venv.create(folder / "env", with_pip=False)
    [packages] = (folder / "env").glob("lib/python3*/site-packages")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(packages), str(wheel)]
    subprocess.run(pip, check=True, capture_output=True)
    # Behind the wheel on the path, without the editable install that this environment has of the checkout.
    own = [path for path in sys.path if path.endswith("site-packages")]
    (packages / "needed.pth").write_text("".join(f"import sys; sys.path.append({path!r})\n" for path in own))
    return folder / "env" / "bin" / "python"


def run(python: Path, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "TRAINLARGE"))}
    command = [str(python), "-m", "trainlarge.cli", *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.long
def test_the_quickstart_runs_from_the_wheel(installed: Path, tmp_path: Path) -> None:
    where = [str(installed), "-c", "import trainlarge; print(trainlarge.__file__)"]
    origin = subprocess.run(where, cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    assert str(installed.parents[1]) in origin, "the wheel, not the checkout"
    # The quickstart's own sweep files, cut down to a second of training.
    small = ["arch.width=16", "arch.depth=1", "data.vocab_size=300", "task.evaluation_rows=32", "impl.device=cpu"]
    trained = run(
        installed, tmp_path, "train", "-m", "+sweeps=quickstart/train", *small, "budget='20 steps','40 steps'"
    )
    assert trained.returncode == 0, trained.stdout + trained.stderr
    pressed = run(
        installed, tmp_path, "compress", "-m", "+sweeps=quickstart/compress", "prune.sparsity=0.3", "impl.device=cpu"
    )
    assert pressed.returncode == 0, pressed.stdout + pressed.stderr
    reported = run(installed, tmp_path, "report", "quickstart")
    assert reported.returncode == 0, reported.stdout + reported.stderr
    assert len(list((tmp_path / "studies/quickstart/compress").iterdir())) == 2 * 5
    assert (tmp_path / "studies/quickstart/report/index.html").stat().st_size > 10_000
