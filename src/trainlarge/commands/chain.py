"""The sweeps of a study in their order, each with the overrides of the command line that are for it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches

from trainlarge.commands.sweep_files import KEYS, OF_PARENT, SweepFile, sweep_files
from trainlarge.errors import CombinedUserError, UserError

_OF_CHECKPOINTS = frozenset({"sweep.where", "sweep.best_of"})
"""Keys that choose among checkpoints, so that only cells which start from some have a use for them."""


@dataclass(frozen=True)
class StageSweep:
    """The sweep of one file of a study."""

    file: SweepFile
    """The file."""
    given: tuple[str, ...] = ()
    """Overrides of the command line that are for it."""

    @property
    def stage(self) -> str:
        """``train`` or ``compress``."""
        return self.file.stage

    @property
    def title(self) -> str:
        """The name of its file without ``.yaml``."""
        return self.file.title

    def arguments(self, config_dir: str | None) -> list[str]:
        """Arguments of the stage's command line."""
        folder = [] if config_dir is None else [f"--config-dir={config_dir}"]
        return ["-m", *folder, self.file.override, *self.given]

    @contextmanager
    def named_in_errors(self) -> Iterator[None]:
        """While the block runs, errors end with the name of the file, unless it says no more than the stage."""
        try:
            yield
        except UserError as error:
            if self.title == self.stage:
                raise
            lines = [f"{line} (in {self.file.path.name})" for line in str(error).splitlines()]
            raise CombinedUserError(error, lines) from error


def sweeps_of(study: str, overrides: Sequence[str], config_dir: str | None = None) -> list[StageSweep]:
    """The sweeps of a study in their order, each with the overrides that are for it.

    Args:
        study: a folder of ``sweeps/`` by its name, any folder of sweep files, or one sweep file by its path.
        overrides: ``KEY=VALUE`` for every file whose stage has the key, ``STAGE.KEY=VALUE`` for those of one stage,
            ``NAME.KEY=VALUE`` for the files of that name: of ``2_train_sst2.yaml`` it is ``sst2``, or the whole.
        config_dir: a folder with a folder ``sweeps/``, beside those of the working directory and of trainlarge.

    Raises:
        UserError: there is no such study or file, or an override that none of its files can take.
    """
    files = sweep_files(study, config_dir)
    routed = [_routed(text, files) for text in overrides]
    return [StageSweep(file, tuple(text for text, takers in routed if file in takers)) for file in files]


def _routed(override: str, files: Sequence[SweepFile]) -> tuple[str, Sequence[SweepFile]]:
    """An override as a stage reads it, and the files that it is for."""
    bare = override.lstrip("+~")
    first, _, rest = bare.partition("=")[0].partition(".")
    named = [file for file in files if first in (file.stage, file.name, file.title)] if rest else []
    if named:
        key = re.split(r"[./@]", rest)[0]
        signs = override[: len(override) - len(bare)]
        takers = [file for file in named if key in KEYS[file.stage]]
        # Where no stage has the key, the error is that of the first stage, which names those that there are.
        return f"{signs}{bare[len(first) + 1 :]}", takers or named[:1]
    if rest and first in KEYS:
        stages = ", ".join(dict.fromkeys(file.stage for file in files))
        key, _, value = bare.partition("=")
        raise UserError(key, value, f"must be for a stage of this study: {stages}")
    return override, files if first == "hydra" or bare.startswith("hydra/") else _takers(bare, files)


def _takers(override: str, files: Sequence[SweepFile]) -> list[SweepFile]:
    """The files that an override without a name or a stage is for."""
    key, _, value = override.partition("=")
    first = re.split(r"[./@]", key)[0]
    having = [stage for stage, keys in KEYS.items() if first in keys]
    if not having:
        raise UserError(key, value, _no_such_key(first, files))
    takers = _that_read(key, first, [file for file in files if file.stage in having])
    if not takers:
        others = [stage for stage in having if all(file.stage != stage for file in files)] or ["compress"]
        allowed = f"no such key in the stage {files[0].stage} of this study, only in {others[0]}"
        raise UserError(key, value, allowed)
    return takers


def _that_read(key: str, first: str, files: list[SweepFile]) -> list[SweepFile]:
    """Of the files whose stage has a key, those whose cells have it from themselves."""
    stages = {file.stage for file in files}
    if first in OF_PARENT and "train" in stages:
        return [file for file in files if file.stage == "train"]
    if first == "checkpoint" and "compress" in stages:
        return [file for file in files if file.stage == "compress"]
    if key == "sweep.budget_factor":
        return [file for file in files if file.stage == "train"]
    if key in _OF_CHECKPOINTS:
        return [file for file in files if file.starts_from_checkpoints]
    if first == "arch":
        # A checkpoint brings its shape.
        return [file for file in files if not file.starts_from_checkpoints] or files
    return files


def _no_such_key(first: str, files: Sequence[SweepFile]) -> str:
    stages = list(dict.fromkeys(file.stage for file in files))
    names = [file.name for file in files if file.name]
    known = [*names, *(key for stage in stages for key in sorted(KEYS[stage]))]
    close = get_close_matches(first, known, n=1)
    hint = f" (did you mean {close[0]}?)" if close else ""
    return f"no such key in the stages of this study ({', '.join(stages)}){hint}"
