"""Find the files of a study that are not needed any more, list them, and remove them on request.

Results are never touched: configurations, states, records, metrics and logs stay, so a done study stays done. A cell
that a process holds is left alone: its lease is taken before anything of it is removed. Nothing is removed that a link
leads to, at most the link itself.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from trainlarge.commands.cell_keys import keys_of
from trainlarge.compression.cells import recoveries_of
from trainlarge.config.schema import CompressConfig, TrainConfig
from trainlarge.errors import UserError
from trainlarge.sweep import files
from trainlarge.sweep.condition import holds
from trainlarge.sweep.lease import Lease, is_held
from trainlarge.sweep.stages import STAGES
from trainlarge.sweep.store import CellFolder, Study
from trainlarge.training.cells import trunk_id
from trainlarge.training.trunk_folder import TRUNKS

OLD_CHECKPOINT = ".checkpoint.old"
_LEFTOVERS = (".*.tmp", OLD_CHECKPOINT)
"""What a process that was killed while it wrote leaves in a cell's folder."""
_LEASES = "[0-9]*.json"


@dataclass(frozen=True)
class Removable:
    """Files that nothing needs."""

    kind: str
    """Why: one of ``KINDS``."""
    paths: tuple[Path, ...]
    """The files or folders to remove."""
    cells: tuple[CellFolder, ...]
    """Cells that they belong to; they stay while one of them is held."""
    size: int
    """Bytes of all files."""

    @classmethod
    def of(cls, kind: str, paths: Iterable[Path], cells: Iterable[CellFolder]) -> Removable:
        """With the size as it is now."""
        paths = tuple(paths)
        return cls(kind, paths, tuple(cells), sum(map(_size, paths)))


@dataclass(frozen=True)
class Wanted:
    """What to look for, in addition to what is never needed."""

    checkpoints: bool = False
    """Weights of train cells that are done, where no compress cell is still to be made from them."""
    packed: bool = False
    """Packed files of compress cells that are done."""
    keep: str | None = None
    """Condition on the configuration: cells that meet it keep checkpoint or packed file. A compress cell has the keys
    of its train cell too, and ``prune.sparsity`` and ``quantize.bits`` even where there is none."""


def find_removable(study: Study, wanted: Wanted | None = None) -> list[Removable]:
    """Everything that can go, without removing it.

    Raises:
        UserError: for a condition that cannot be read, a damaged configuration, which could hide what is needed, or a
            study that is a link.
    """
    if study.path.is_symlink():
        real = study.path.resolve()
        allowed = f"a folder, not a link: TRAINLARGE_STUDIES={real.parent} trainlarge clean {real.name} cleans it"
        raise UserError("study", study.path, allowed)
    look = _Look(study, wanted or Wanted())
    return [item for finder in KINDS.values() for item in finder(look)]


def links(study: Study) -> list[Path]:
    """Links in the places of folders of a study; what they lead to is left alone."""
    tops = [study.path / name for name in (*STAGES, TRUNKS)]
    cells = [folder.path for stage in STAGES for folder in study.folders(stage)]
    return [path for path in (*tops, *cells, *(path / "lease" for path in cells)) if path.is_symlink()]


def remove(items: list[Removable]) -> tuple[int, list[Removable]]:
    """Remove it, each under the leases of its cells.

    Returns:
        The bytes that were freed, and what stays because a cell is held now.
    """
    kept = [item for item in items if not _removed(item)]
    return sum(item.size for item in items) - sum(item.size for item in kept), kept


def _removed(item: Removable) -> bool:
    leases = [Lease.acquire(folder.path) for folder in item.cells]
    taken = [lease for lease in leases if lease]
    try:
        if len(taken) == len(leases):
            # Of each lease the newest file stays, because its number is what fences off an old holder.
            older = [path for lease in taken for path in lease.path.parent.glob(_LEASES) if path.name < lease.path.name]
            for path in (*item.paths, *older):
                _remove(path)
        return len(taken) == len(leases)
    finally:
        for lease in taken:
            lease.release()


class _Look:
    """One look at a study."""

    def __init__(self, study: Study, wanted: Wanted) -> None:
        self.study, self.wanted = study, wanted
        folders = [folder for stage in STAGES for folder in study.folders(stage)]
        self.links = set(links(study))
        places = {folder: (folder.path.parent, folder.path, folder.path / "lease") for folder in folders}
        self.free = [folder for folder in folders if not is_held(folder.path) and self.links.isdisjoint(places[folder])]
        self.done = {folder: folder.is_done() for folder in folders}

    def done_cells(self, stage: str) -> Iterator[CellFolder]:
        """Free cells of a stage that are done."""
        return (folder for folder in self.free if folder.stage == stage and self.done[folder])

    @cached_property
    def trunks(self) -> dict[str, list[CellFolder]]:
        """Id of a trunk, or of training inside of recipes -> all its cells."""
        by_name: dict[str, list[CellFolder]] = {}
        for folder in self.done:
            config = folder.cell().config
            trunk = trunk_id(config) if isinstance(config, TrainConfig) else None
            names = recoveries_of(config) if isinstance(config, CompressConfig) else (trunk,)
            for name in filter(None, names):
                by_name.setdefault(name, []).append(folder)
        return by_name

    @cached_property
    def needed(self) -> set[str | None]:
        """Checkpoints from which another cell is still to be made."""
        unfinished = (folder for folder, is_done in self.done.items() if not is_done)
        return {folder.cell().config.checkpoint for folder in unfinished}

    def is_kept(self, folder: CellFolder) -> bool:
        """Whether the condition says that a cell keeps its weights."""
        return self.wanted.keep is not None and holds(self.wanted.keep, keys_of(folder, self.study), "--keep")


def _states(look: _Look) -> Iterator[Removable]:
    trunks = look.study.path / TRUNKS
    for path in [] if trunks in look.links else sorted(trunks.glob("[!.]*")):
        cells = look.trunks.get(path.name, [])
        if all(look.done[folder] and folder in look.free for folder in cells):
            yield Removable.of("states", [path], cells)


def _leftovers(look: _Look) -> Iterator[Removable]:
    for folder in look.free:
        paths = sorted({path for pattern in _LEFTOVERS for path in folder.path.glob(pattern)})
        if not folder.checkpoint.exists():
            # A crash between two renames leaves the old checkpoint as the only one.
            paths = [path for path in paths if path.name != OLD_CHECKPOINT]
        if paths:
            yield Removable.of("leftovers", paths, [folder])


def _leases(look: _Look) -> Iterator[Removable]:
    for folder in (*look.done_cells("train"), *look.done_cells("compress")):
        older = sorted((folder.path / "lease").glob(_LEASES))[:-1]
        if older:
            yield Removable.of("leases", older, [folder])


def _checkpoints(look: _Look) -> Iterator[Removable]:
    for folder in look.done_cells("train") if look.wanted.checkpoints else ():
        if os.path.lexists(folder.checkpoint) and folder.id not in look.needed and not look.is_kept(folder):
            yield Removable.of("checkpoints", [folder.checkpoint], [folder])


def _packed(look: _Look) -> Iterator[Removable]:
    for folder in look.done_cells("compress") if look.wanted.packed else ():
        if os.path.lexists(folder.packed) and not look.is_kept(folder):
            yield Removable.of("packed", [folder.packed], [folder])


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        # Renamed first: half a folder must not be taken for a whole one should this be interrupted.
        trash = path.with_name(f".{path.name.removeprefix('.')}.removed.tmp")
        files.remove(trash)
        path.rename(trash)
        shutil.rmtree(trash)
    else:
        path.unlink(missing_ok=True)


def _size(path: Path) -> int:
    """Bytes of a file, of a link itself, or of all files of a folder."""
    inside = [] if path.is_symlink() else path.rglob("*")
    return sum(entry.lstat().st_size for entry in [path, *inside] if entry.is_symlink() or not entry.is_dir())


KINDS: dict[str, Callable[[_Look], Iterator[Removable]]] = {
    "states": _states,
    "leftovers": _leftovers,
    "leases": _leases,
    "checkpoints": _checkpoints,
    "packed": _packed,
}
"""Kind -> what finds it."""
