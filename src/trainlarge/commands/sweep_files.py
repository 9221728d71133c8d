"""The sweep files of a study, found by its name or by a path, and how Hydra is told of one outside ``sweeps/``.

A study is a folder of ``sweeps/``. The name of each of its files says when it runs, its stage, and a name of its own
where the stage has several files: ``train.yaml``, ``compress.yaml``, ``1_train.yaml``, ``2_train_sst2.yaml``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path

from trainlarge.commands.rerun import hydra_text
from trainlarge.config.group import Plain
from trainlarge.config.recipe import RECIPE_KEYS
from trainlarge.config.schema import CompressConfig, TrainConfig
from trainlarge.config.share import share_folder
from trainlarge.errors import UserError
from trainlarge.sweep.stages import STAGES
from trainlarge.sweep.text_files import keys_and_values

OF_PARENT = frozenset({"data", "task"})
"""Groups that a compress cell has for a Hugging Face folder alone: a train cell brings its own."""
KEYS = {
    "train": {item.name for item in fields(TrainConfig)} | {"sweep"},
    "compress": {item.name for item in fields(CompressConfig)} - {"recipe"} | {*RECIPE_KEYS, "sweep"},
}
"""Stage -> the first part of every key of its configuration."""
NAMES = "[NUMBER_]STAGE[_NAME].yaml, such as train.yaml, compress.yaml, 1_train.yaml or 2_train_sst2.yaml"
"""What a sweep file of a study may be called, as an error says it."""
_PATH = re.compile(r"(\.|\.\.|~)?/.*|\.|\.\.|~", re.DOTALL)
_SWEEP = re.compile(r"\+?sweeps=(.*)", re.DOTALL)
_TITLE = re.compile(rf"(?:(?P<number>\d{{1,9}})_)?(?P<stage>{'|'.join(STAGES)})(?:_(?P<name>\w[\w-]*))?")
_NUMBERED = re.compile(r"\d+_.*", re.DOTALL)


@dataclass(frozen=True)
class SweepFile:
    """One sweep file of a study: the sweep of one stage."""

    path: Path
    """Where it is."""
    stage: str
    """``train`` or ``compress``."""
    override: str
    """The override by which Hydra reads it."""

    @property
    def title(self) -> str:
        """Its name without ``.yaml``."""
        return self.path.stem

    @property
    def name(self) -> str:
        """The name that it has beside number and stage; empty without."""
        return self._part("name")

    @property
    def number(self) -> int | None:
        """Its place among the files of the study; None where it has no number."""
        return int(self._part("number")) if self._part("number") else None

    @property
    def place(self) -> tuple[int, int, str, str]:
        """What files are put in order by: number, stage, name."""
        return self.number or 0, STAGES.index(self.stage), self.name, self.title

    @cached_property
    def starts_from_checkpoints(self) -> bool:
        """Whether its cells start from other cells: compress cells do, and train cells with a ``checkpoint``."""
        return self.stage == "compress" or any(block.get("checkpoint") for block in _mappings(self.path))

    def _part(self, group: str) -> str:
        match = _TITLE.fullmatch(self.title)
        return (match[group] if match else None) or ""


def sweep_files(study: str, config_dir: str | None = None) -> list[SweepFile]:
    """The sweep files of a study, in the order in which they run.

    Args:
        study: a folder of ``sweeps/`` by its name, any folder of sweep files, or one sweep file by its path.
        config_dir: a folder with a folder ``sweeps/``, beside those of the working directory and of trainlarge.

    Raises:
        UserError: there is no such study or file, or its files have names that say no order.
    """
    files = _files_of_path(Path(study).expanduser()) if is_path(study) else _files_of_name(study, config_dir)
    _check_names(files)
    return sorted(files, key=lambda file: file.place)


def is_path(text: str) -> bool:
    """Whether a study is named by a path: from here, from the root, from home, or as a file."""
    is_file = text.endswith((".yaml", ".yml")) and "=" not in text
    return is_file or _PATH.fullmatch(text) is not None


def located(override: str, stage: str) -> str:
    """An override ``sweeps=PATH`` as Hydra takes it; any other as it is.

    Args:
        stage: whose file it is, where the path is that of a folder.

    Raises:
        UserError: there is no such file, or there are several.
    """
    match = _SWEEP.fullmatch(override)
    if match is None or not is_path(match[1]):
        return override
    path = Path(match[1]).expanduser()
    return _override_of(_file_of_stage(path, stage) if path.is_dir() else path)


def stage_of_arguments(arguments: Sequence[str]) -> str | None:
    """The stage of the last ``sweeps=...`` among arguments, by the name of its file or what is in it; None without."""
    named = [match[1] for text in arguments if (match := _SWEEP.fullmatch(text))]
    if not named:
        return None
    if is_path(named[-1]):
        return sweep_files(named[-1])[0].stage
    return _stage_in(named[-1].rpartition("/")[2])


def _stage_in(title: str) -> str | None:
    """The stage that the name of a file says."""
    match = _TITLE.fullmatch(title)
    return match["stage"] if match else None


def _files_of_name(study: str, config_dir: str | None) -> list[SweepFile]:
    """The files of a folder of ``sweeps/``; of two with one name, the first that Hydra finds."""
    roots = [Path.cwd(), *([] if config_dir is None else [Path(config_dir)]), share_folder()]
    paths = [path for root in reversed(roots) for path in _paths_in(root / "sweeps" / study)]
    if not paths:
        known = sorted({path.parent.name for root in roots for path in (root / "sweeps").glob("*/*.yaml")})
        allowed = f"a folder of sweeps/ with train.yaml or compress.yaml ({', '.join(known)}), or a path: ./{study}"
        raise UserError("study", study, allowed)
    first = {path.stem: path for path in paths}
    return [
        SweepFile(path, stage, f"+sweeps={study}/{title}")
        for title, path in first.items()
        if (stage := _stage_in(title))
    ]


def _files_of_path(path: Path) -> list[SweepFile]:
    if not path.is_dir():
        return [SweepFile(path, _stage_of_file(path), _override_of(path))]
    files = [SweepFile(file, stage, _override_of(file)) for file in _paths_in(path) if (stage := _stage_in(file.stem))]
    if not files:
        raise UserError("study", path, "a folder with train.yaml or compress.yaml, or a sweep file")
    return files


def _paths_in(folder: Path) -> list[Path]:
    """The sweep files of a folder by their names; files with other names are there for other commands.

    Raises:
        UserError: a file has a number, and what follows is no stage.
    """
    paths = sorted(path for path in folder.glob("*.yaml") if path.is_file())
    for path in paths:
        if _NUMBERED.fullmatch(path.stem) and not _stage_in(path.stem):
            raise UserError("sweeps", path, f"called {NAMES}")
    return [path for path in paths if _stage_in(path.stem)]


def _file_of_stage(folder: Path, stage: str) -> Path:
    files = [path for path in _paths_in(folder) if _stage_in(path.stem) == stage]
    if len(files) > 1:
        raise UserError("sweeps", folder, f"one file, since it has several of the stage {stage}: {_listed(files)}")
    return files[0] if files else folder / f"{stage}.yaml"


def _check_names(files: Sequence[SweepFile]) -> None:
    """Refuse names by which the order, or whom an override is for, would be a guess."""
    without = [file.path for file in files if file.number is None]
    if without and len(without) < len(files):
        allowed = "called with a number first, as the other files of this study, or all of them without"
        raise UserError("sweeps", without[0], allowed)
    for file in files:
        if file.name in {"hydra", *STAGES}.union(*KEYS.values()):
            raise UserError("sweeps", file.path, f"called otherwise: {file.name} is the name of a key or a stage")


def _override_of(path: Path) -> str:
    """The override by which Hydra reads a file wherever it is.

    Hydra reads files below its folders only. From each of them as many steps up lead to the root of the file system.
    """
    if path.suffix != ".yaml" or not path.is_file():
        raise UserError("sweeps", path, "an existing sweep file that ends in .yaml")
    absolute = path.resolve()
    roots = (Path.cwd(), share_folder(), absolute)
    up = "../" * (2 + max(len(root.resolve().parts) for root in roots))
    return f"+sweeps@_global_={hydra_text(up + str(absolute.with_suffix('')).lstrip('/'))}"


def _stage_of_file(path: Path) -> str:
    """The stage of a sweep file: that of its name, or the one stage that has the keys in it.

    Raises:
        UserError: there is no such file, or it may be of either stage.
    """
    if path.suffix != ".yaml" or not path.is_file():
        raise UserError("study", path, "a folder of sweep files, or a sweep file that ends in .yaml")
    if stage := _stage_in(path.stem):
        return stage
    keys = {str(key).partition(".")[0] for block in _mappings(path) for key in block} - {"defaults"}
    possible = [stage for stage in STAGES if all(key in KEYS[stage] for key in keys)]
    if len(possible) > 1:
        own = {stage: keys - (KEYS[other] - OF_PARENT) for stage, other in zip(STAGES, reversed(STAGES), strict=True)}
        possible = [stage for stage in possible if own[stage]]
    if len(possible) != 1:
        allowed = "a file called train.yaml or compress.yaml, or with keys of one stage; or say plan STAGE sweeps=PATH"
        raise UserError("study", path, allowed)
    return possible[0]


def _mappings(path: Path) -> list[dict[str, Plain]]:
    """The mappings of a sweep file from keys to values: the file itself and its blocks."""
    content = keys_and_values(path)
    sweep = content.get("sweep")
    blocks: Plain = sweep.get("blocks") if isinstance(sweep, dict) else None
    return [content, *(block for block in (blocks if isinstance(blocks, list) else []) if isinstance(block, dict))]


def _listed(paths: Iterable[Path]) -> str:
    return ", ".join(path.name for path in paths)
