"""``trainlarge export``: a cell's model as a folder that any program of the Hugging Face family reads."""

from __future__ import annotations

import argparse
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from trainlarge.commands.call import Call
from trainlarge.commands.show import add_cell, find_cell
from trainlarge.commands.verbs import verb_parser
from trainlarge.compression.checkpoint import unchanged_checkpoint
from trainlarge.errors import UserError
from trainlarge.sweep.files import give_usual_mode
from trainlarge.sweep.store import CellFolder, Study

_MODEL_FILES = ("*.safetensors", "*.safetensors.index.json", "config.json", "generation_config.json")
"""Files of a checkpoint that describe its weights; the rest is the tokenizer."""

_SNAPSHOTS = "snapshots"
"""Folder of the Hugging Face cache in which a revision is made of links to the files next to it."""

_ONLY_PACKED = {
    "structure": "a cell whose model has the shapes of its checkpoint",
    "activations": "a cell whose model does not round the inputs of its layers",
}
"""What a packed file may say that the layout of Hugging Face cannot -> what can be exported."""


def main(call: Call) -> int:
    """Export a cell."""
    options = parser().parse_args(call.arguments)
    folder = export_cell(options.cell, Path(options.folder), options.study)
    print(f"{folder.stage} cell {folder.id}: {options.folder}")
    return 0


def parser() -> argparse.ArgumentParser:
    """The arguments of the verb."""
    made = verb_parser("export")
    add_cell(made)
    made.add_argument("folder", help="a folder that does not exist yet")
    return made


def export_cell(text: str, target: Path, study: str | None = None) -> CellFolder:
    """Write a cell's model and tokenizer to the new folder ``target``: whole, or not at all.

    A compressed model is written with the rounded float weights that were evaluated. One of other shapes, or whose
    layers round their inputs, is refused: the layout of Hugging Face says neither, and its reader would compute another
    loss. ``trainlarge.load_packed`` reads it; ``save_pretrained`` of that model writes the weights alone.

    Args:
        text: the cell's id, or its start.
        study: name of the study to look in; None: every study.

    Raises:
        UserError: when the cell is not done, its model is not there any more or is damaged, or ``target`` exists.
    """
    folder = find_cell(text, study)
    if not folder.says_done():
        raise UserError("cell", folder.id, f"a cell that is done; this one is {folder.status().state}")
    with _new_folder(target) as temporary:
        _EXPORTERS[folder.stage](folder, temporary)
    return folder


@contextmanager
def _new_folder(target: Path) -> Iterator[Path]:
    """A temporary name next to ``target``, renamed to it if the block ends well."""
    target = target.absolute()
    if target.exists() or target.is_symlink():
        raise UserError("folder", target, "a folder that does not exist yet")
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        yield temporary
        give_usual_mode(temporary)
        temporary.rename(target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _export_compress(folder: CellFolder, target: Path) -> None:
    config, study = folder.cell().as_compress, Study(folder.path.parents[1])
    if config.checkpoint_digest is None:
        source = _checkpoint(study.folder("train", config.checkpoint))
    else:
        source = unchanged_checkpoint(config, study).folder
    _copy(source, target, without=_MODEL_FILES)
    _unpacked(folder).save_pretrained(target)


def _copy(source: Path, target: Path, without: tuple[str, ...] = ()) -> None:
    """Copy a folder. Raises UserError for a link in it that leads to something else than the folder itself."""
    home = source.resolve()
    if home.parent.name == _SNAPSHOTS:
        home = home.parents[1]
    for path in source.rglob("*"):
        if path.is_symlink() and not path.resolve().is_relative_to(home):
            raise UserError("checkpoint", path, f"a file, not a link to {path.readlink()} outside the folder")
    shutil.copytree(source, target, ignore=shutil.ignore_patterns(*without))


def _unpacked(folder: CellFolder):  # type: ignore[no-untyped-def]  # a transformers model, imported only here
    from trainlarge.compression.stored.packing import load_packed, packed_header

    if not folder.packed.is_file():
        raise UserError(
            "cell", folder.id, f"a cell whose packed file is still there: {folder.packed} is not; {_again(folder)}"
        )
    folder.prove(folder.packed.name)
    header = packed_header(folder.packed)
    for part, allowed in _ONLY_PACKED.items():
        if getattr(header, part):
            raise UserError("cell", folder.id, f"{allowed}; this one is read by trainlarge.load_packed")
    return load_packed(folder.packed)


def _checkpoint(folder: CellFolder) -> Path:
    if not folder.checkpoint.is_dir():
        raise UserError(
            "cell", folder.id, f"a cell whose checkpoint is still there: {folder.checkpoint} is not; {_again(folder)}"
        )
    folder.prove(f"{folder.checkpoint.name}/")
    return folder.checkpoint


def _again(folder: CellFolder) -> str:
    return f"to make it again: {folder.redo_command}"


_EXPORTERS: dict[str, Callable[[CellFolder, Path], None]] = {
    "train": lambda folder, target: _copy(_checkpoint(folder), target),
    "compress": _export_compress,
}
"""Stage -> what writes the model of one of its cells to a folder."""
