"""Where ``conf/`` and ``sweeps/`` are: next to ``src`` in a checkout, inside the package in an installed wheel."""

from __future__ import annotations

from pathlib import Path

from trainlarge.errors import UserError

_PACKAGE = Path(__file__).resolve().parents[1]


def share_folder() -> Path:
    """The folder that holds ``conf/`` and ``sweeps/``."""
    checkout = _PACKAGE.parents[1]
    return checkout if (checkout / "conf" / "train.yaml").is_file() else _PACKAGE


def sweep_stages(study: str) -> list[str]:
    """Stages that a folder of sweep files has, in their order: ``train``, ``compress``.

    Raises:
        UserError: when neither the working directory nor trainlarge has such a folder.
    """
    folders = [root / "sweeps" / study for root in (Path.cwd(), share_folder())]
    stages = [
        stage for stage in ("train", "compress") if any((folder / f"{stage}.yaml").is_file() for folder in folders)
    ]
    if not stages:
        raise UserError(
            "study", study, f"a folder of sweeps/ with train.yaml or compress.yaml: {', '.join(_studies())}"
        )
    return stages


def _studies() -> list[str]:
    roots = {Path.cwd() / "sweeps", share_folder() / "sweeps"}
    return sorted({path.parent.name for root in roots for path in root.glob("*/*.yaml")})
