"""The sweep files of a study, found by its name or by a path, and how Hydra is told of one outside ``sweeps/``."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, fields
from difflib import get_close_matches
from pathlib import Path

from trainlarge.commands.rerun import hydra_text
from trainlarge.config.group import Plain
from trainlarge.config.recipe import SLOTS
from trainlarge.config.schema import CompressConfig, TrainConfig
from trainlarge.config.share import share_folder
from trainlarge.errors import UserError
from trainlarge.sweep.stages import STAGES
from trainlarge.sweep.text_files import keys_and_values

_PATH = re.compile(r"(\.|\.\.|~)?/.*|\.|\.\.|~", re.DOTALL)
_SWEEP = re.compile(r"\+?sweeps=(.*)", re.DOTALL)
_RECIPE = frozenset({*SLOTS, "order"})
_OF_PARENT = frozenset({"data", "task"})
"""Groups that a compress cell has for a Hugging Face folder alone: a train cell brings its own."""
_KEYS = {
    "train": {item.name for item in fields(TrainConfig)} | {"sweep"},
    "compress": {item.name for item in fields(CompressConfig)} - {"recipe"} | _RECIPE | {"sweep"},
}
"""Stage -> the first part of every key of its configuration."""


@dataclass(frozen=True)
class StageSweep:
    """The sweep of one stage of a study."""

    stage: str
    """``train`` or ``compress``."""
    overrides: tuple[str, ...]
    """The override that names its file, and those of the command line that are for it."""

    def arguments(self, config_dir: str | None) -> list[str]:
        """Arguments of the stage's command line."""
        folder = [] if config_dir is None else [f"--config-dir={config_dir}"]
        return ["-m", *folder, *self.overrides]


def sweeps_of(study: str, overrides: Sequence[str], config_dir: str | None = None) -> list[StageSweep]:
    """The sweeps of a study in the order of its stages, each with the overrides that are for it.

    Args:
        study: a folder of ``sweeps/`` by its name, any folder with ``train.yaml`` or ``compress.yaml``, or one sweep
            file by its path.
        overrides: ``KEY=VALUE`` for every stage that has the key, ``STAGE.KEY=VALUE`` for one.
        config_dir: a folder with a folder ``sweeps/``, beside those of the working directory and of trainlarge.

    Raises:
        UserError: there is no such study or file, or an override that none of its stages can take.
    """
    files = _files_of_path(Path(study).expanduser()) if is_path(study) else _files_of_name(study, config_dir)
    stages = list(files)
    owners = {text: _stages_of(text, stages) for text in overrides}
    return [
        StageSweep(stage, (files[stage], *(_without_stage(text) for text in overrides if stage in owners[text])))
        for stage in stages
    ]


def is_path(text: str) -> bool:
    """Whether a study is named by a path: from here, from the root, from home, or as a file."""
    is_file = text.endswith((".yaml", ".yml")) and "=" not in text
    return is_file or _PATH.fullmatch(text) is not None


def located(override: str, stage: str) -> str:
    """An override ``sweeps=PATH`` as Hydra takes it; any other as it is.

    Args:
        stage: whose file it is, where the path is that of a folder.

    Raises:
        UserError: there is no such file.
    """
    match = _SWEEP.fullmatch(override)
    if match is None or not is_path(match[1]):
        return override
    path = Path(match[1]).expanduser()
    return _override_of(path / f"{stage}.yaml" if path.is_dir() else path)


def stage_of_arguments(arguments: Sequence[str]) -> str | None:
    """The stage of the last ``sweeps=...`` among arguments, by the name of its file or what is in it; None without."""
    named = [match[1] for text in arguments if (match := _SWEEP.fullmatch(text))]
    if not named:
        return None
    if is_path(named[-1]):
        return next(iter(_files_of_path(Path(named[-1]).expanduser())))
    stage = named[-1].rpartition("/")[2]
    return stage if stage in STAGES else None


def _files_of_name(study: str, config_dir: str | None) -> dict[str, str]:
    """Stage -> the override that names its file, of a folder of ``sweeps/``."""
    roots = [Path.cwd(), *([] if config_dir is None else [Path(config_dir)]), share_folder()]
    stages = [stage for stage in STAGES if any((root / f"sweeps/{study}/{stage}.yaml").is_file() for root in roots)]
    if not stages:
        known = sorted({path.parent.name for root in roots for path in (root / "sweeps").glob("*/*.yaml")})
        allowed = f"a folder of sweeps/ with train.yaml or compress.yaml ({', '.join(known)}), or a path: ./{study}"
        raise UserError("study", study, allowed)
    return {stage: f"+sweeps={study}/{stage}" for stage in stages}


def _files_of_path(path: Path) -> dict[str, str]:
    if path.is_dir():
        files = {stage: path / f"{stage}.yaml" for stage in STAGES if (path / f"{stage}.yaml").is_file()}
        if not files:
            raise UserError("study", path, "a folder with train.yaml or compress.yaml, or a sweep file")
    else:
        files = {_stage_of_file(path): path}
    return {stage: _override_of(file) for stage, file in files.items()}


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
    if path.stem in STAGES:
        return path.stem
    keys = _first_keys(path)
    possible = [stage for stage in STAGES if all(key in _KEYS[stage] for key in keys)]
    if len(possible) > 1:
        own = {stage: keys - (_KEYS[other] - _OF_PARENT) for stage, other in zip(STAGES, reversed(STAGES), strict=True)}
        possible = [stage for stage in possible if own[stage]]
    if len(possible) != 1:
        allowed = "a file called train.yaml or compress.yaml, or with keys of one stage; or say plan STAGE sweeps=PATH"
        raise UserError("study", path, allowed)
    return possible[0]


def _first_keys(path: Path) -> set[str]:
    content = keys_and_values(path)
    sweep = content.get("sweep")
    blocks: Plain = sweep.get("blocks") if isinstance(sweep, dict) else None
    mappings = [content, *(block for block in (blocks if isinstance(blocks, list) else []) if isinstance(block, dict))]
    return {str(key).partition(".")[0] for mapping in mappings for key in mapping} - {"defaults"}


def _stages_of(override: str, stages: Sequence[str]) -> list[str]:
    """The stages of a study that an override is for."""
    key, _, value = override.lstrip("+~").partition("=")
    first, _, rest = key.partition(".")
    if first in STAGES and rest:
        if first not in stages:
            raise UserError(key, value, f"must be for a stage of this study: {', '.join(stages)}")
        return [first]
    if key.startswith("hydra"):
        return list(stages)
    first = re.split(r"[./@]", key)[0]
    having = ["compress"] if key == "sweep.where" else [stage for stage in STAGES if first in _KEYS[stage]]
    if first in _OF_PARENT and "train" in stages:
        having = ["train"]
    if first == "checkpoint" and "compress" in stages:
        having = ["compress"]
    if not having:
        raise UserError(key, value, _no_such_key(first, stages))
    if not set(having) & set(stages):
        raise UserError(key, value, f"no such key in the stage {stages[0]} of this study, only in {having[0]}")
    return [stage for stage in stages if stage in having]


def _no_such_key(first: str, stages: Sequence[str]) -> str:
    known = [key for stage in stages for key in sorted(_KEYS[stage])]
    close = get_close_matches(first, known, n=1)
    hint = f" (did you mean {close[0]}?)" if close else ""
    return f"no such key in the stages of this study ({', '.join(stages)}){hint}"


def _without_stage(override: str) -> str:
    """``train.arch.width=64`` as the stage reads it: ``arch.width=64``."""
    signs = override[: len(override) - len(override.lstrip("+~"))]
    first, dot, rest = override.lstrip("+~").partition(".")
    return f"{signs}{rest}" if dot and first in STAGES else override
