"""Which cells ``trainlarge latency`` measures: those that are named, that meet a condition, or on the frontier."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from trainlarge.commands.cell_keys import keys_of
from trainlarge.errors import UserError
from trainlarge.latency.cell_models import has_model
from trainlarge.results.analysis.frontier import frontier
from trainlarge.results.frames import load_study
from trainlarge.results.scores import main_score
from trainlarge.results.study_parts import Part, parts_of
from trainlarge.sweep.condition import holds
from trainlarge.sweep.stages import STAGES
from trainlarge.sweep.store import CellFolder, Study

WHERE = "--where"


def chosen_cells(study: Study, names: Sequence[str], where: str | None) -> list[CellFolder]:
    """The cells to measure, each once.

    Args:
        study: where they are.
        names: ids, or their starts.
        where: a condition, for all cells that have weights.

    Raises:
        UserError: for a name that is none of one cell, or a condition that cannot be read or that no cell meets.
    """
    named = [study.find(name) for name in names]
    fitting = [] if where is None else _fitting(study, where)
    found = {folder.id: folder for folder in [*named, *fitting]}
    return list(found.values()) if found else _on_frontier(study)


def _fitting(study: Study, where: str) -> list[CellFolder]:
    """Cells that meet a condition; those that lack its keys, as train cells those of recipes, do not.

    Raises:
        UserError: where all lack them, or none meets it.
    """
    folders = [folder for stage in STAGES for folder in study.folders(stage) if has_model(folder)]
    fitting, errors = list[CellFolder](), list[UserError]()
    for folder in folders:
        keys = keys_of(folder, study)
        try:
            fitting += [folder] if holds(where, keys, WHERE) else []
        except UserError as error:
            errors.append(error)
    if errors and len(errors) == len(folders):
        raise errors[-1]
    if not fitting:
        raise UserError(WHERE, where, f"a condition that one of {len(folders)} cells with weights meets")
    return fitting


def _on_frontier(study: Study) -> list[CellFolder]:
    """The frontier of each part: compressed models after their checkpoints; train cells where none was compressed."""
    frames = load_study(study, allow_mixed=True)
    parts = parts_of(frames) or [Part("", frames)]
    found = {folder.id: folder for part in parts for folder in _frontier_of(study, part) if has_model(folder)}
    if not found:
        raise UserError("study", study.name, "a study with weights on its frontier: name cells, or use --where")
    return list(found.values())


def _frontier_of(study: Study, part: Part) -> Iterator[CellFolder]:
    cells, compression = part.frames.cells, part.frames.compression
    if compression.empty:
        yield from _folders(study, "train", frontier(cells, "parameters", main_score(cells)[0])["cell"])
        return
    best = frontier(compression, "file_bytes", main_score(compression)[0])
    yield from _folders(study, "train", best.loc[best["parent"].isin(cells["cell"]), "parent"])
    yield from _folders(study, "compress", best["cell"])


def _folders(study: Study, stage: str, cells: Iterable[str]) -> Iterator[CellFolder]:
    return (study.folder(stage, str(cell)) for cell in cells)
