"""What was submitted, as plain JSON in the study folder: ``<study>/slurm/<name>.json``.

The file is written before the jobs are submitted, since the array tasks read it: with the name of each array before
that is submitted, and with its number as soon as SLURM has told it. An array whose number was never read is found by
its name, and not submitted twice. In the same folder are the batch script ``<name>.sh``, the folder of logs ``<name>/``
and, once a cell has failed, ``<name>.failures/``.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from trainlarge.config import typed_json
from trainlarge.config.group import Plain
from trainlarge.config.launcher import SlurmConfig
from trainlarge.config.plain import from_plain
from trainlarge.sweep.cell import ID_PATTERN
from trainlarge.sweep.files import make_folder, read_json, write_json
from trainlarge.sweep.stages import STAGES
from trainlarge.sweep.store import Study

FOLDER = "slurm"
"""Folder of the submissions in a study."""
SCHEMA = 1


@dataclass(frozen=True)
class SlurmArray:
    """One array of SLURM, which carries the jobs ``first`` to ``first + count - 1`` of its submission."""

    number: int | None
    """SLURM's number of the array; None until sbatch has told it."""
    first: int
    """The job that the array task of index 0 runs."""
    count: int
    """Array tasks."""
    name: str | None = None
    """Its name in SLURM, which no other array has; None in files from before this key."""


@dataclass(frozen=True)
class _Content:
    """Content of the file of a submission; the fields of ``Submission`` say what they mean."""

    schema: int
    stage: str
    created: float
    launcher: dict[str, Plain]
    sbatch: tuple[str, ...]
    arrays: tuple[SlurmArray, ...]
    jobs: tuple[tuple[str, ...], ...]
    command: str | None = None


@dataclass(frozen=True)
class Submission:
    """Jobs that one command submitted together."""

    path: Path
    """The JSON file."""
    stage: str
    """Stage of all cells."""
    jobs: tuple[tuple[str, ...], ...]
    """Cell ids of each job."""
    launcher: SlurmConfig
    """The launcher's configuration."""
    sbatch: tuple[str, ...]
    """Options given to sbatch, without those of a single array."""
    created: float = field(default_factory=time.time)
    """When, in seconds since 1970."""
    arrays: tuple[SlurmArray, ...] = ()
    """The arrays that SLURM has accepted."""
    command: str | None = None
    """The command line that submitted them; None where Python code did, and in files from before this key."""

    @classmethod
    def new(
        cls,
        study: Study,
        stage: str,
        jobs: list[tuple[str, ...]],
        launcher: SlurmConfig,
        sbatch: list[str],
        command: str | None = None,
    ) -> Submission:
        """A submission with a name of its own; nothing is written yet."""
        path = study.path / FOLDER / f"{uuid.uuid4().hex[:8]}.json"
        return cls(path, stage, tuple(jobs), launcher, tuple(sbatch), command=command)

    @classmethod
    def read(cls, path: Path) -> Submission:
        """The submission that ``write`` wrote to ``path``.

        Raises:
            OSError: for a file that is not there.
            ValueError: for one that is not JSON, or not a submission.
        """
        kept = typed_json.read(_Content, read_json(path))
        if kept.schema != SCHEMA:
            raise ValueError(f"{path} has schema {kept.schema}, not {SCHEMA}")
        if kept.stage not in STAGES or not all(ID_PATTERN.fullmatch(cell) for job in kept.jobs for cell in job):
            raise ValueError(f"{path} names something else than cells")
        launcher = from_plain(SlurmConfig, SlurmConfig.known(kept.launcher), SlurmConfig.key)
        return cls(path, kept.stage, kept.jobs, launcher, kept.sbatch, kept.created, kept.arrays, kept.command)

    def write(self) -> Submission:
        """Write the file whole."""
        make_folder(self.logs, inside=self.path.parents[1])
        content = _Content(
            SCHEMA, self.stage, self.created, self.launcher.plain, self.sbatch, self.arrays, self.jobs, self.command
        )
        write_json(self.path, typed_json.plain(content))
        return self

    def with_array(self, array: SlurmArray) -> Submission:
        """This submission with one more array."""
        return replace(self, arrays=(*self.arrays, array))

    def numbered(self, number: int) -> Submission:
        """This submission with the number of its last array."""
        *before, last = self.arrays
        return replace(self, arrays=(*before, replace(last, number=number)))

    def with_numbers(self, numbers: Mapping[str, int]) -> Submission:
        """This submission with the numbers of arrays whose number was not read, by their names."""
        if all(array.number is not None for array in self.arrays):
            return self
        known = {array: numbers.get(array.name or "") for array in self.arrays if array.number is None}
        return replace(
            self, arrays=tuple(replace(array, number=known.get(array, array.number)) for array in self.arrays)
        )

    def without_last(self) -> Submission:
        """This submission without its last array, which SLURM has refused."""
        return replace(self, arrays=self.arrays[:-1])

    def array_name(self, first: int) -> str:
        """Name in SLURM of the array whose index 0 is job ``first``: two studies of one name have different ones."""
        return f"{self.study.name}-{self.stage}-{self.path.stem}" + (f"-{first}" if first else "")

    @property
    def study(self) -> Study:
        """The study that the cells belong to: the one in whose folder the file is now."""
        return Study(self.path.parent.parent)

    @property
    def script(self) -> Path:
        """The batch script."""
        return self.path.with_suffix(".sh")

    @property
    def failures(self) -> Path:
        """Folder of the failures of the cells, one empty file each."""
        return self.path.with_suffix(".failures")

    @property
    def logs(self) -> Path:
        """Folder of what SLURM and the setup lines print; a cell's own output is in the cell's folder."""
        return self.path.with_suffix("")


def submissions(study: Study) -> list[Submission]:
    """All submissions of a study, the newest first; a file that cannot be read is left out."""
    entries = [_read_or_none(path) for path in (study.path / FOLDER).glob("*.json")]
    return sorted((entry for entry in entries if entry), key=lambda entry: entry.created, reverse=True)


def _read_or_none(path: Path) -> Submission | None:
    try:
        return Submission.read(path)
    except (OSError, ValueError):
        return None
