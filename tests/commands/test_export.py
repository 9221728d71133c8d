from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForMaskedLM, AutoTokenizer

from trainlarge.cli import main
from trainlarge.commands.export import export_cell
from trainlarge.compression import load_packed
from trainlarge.errors import UserError
from trainlarge.sweep.plan import make_cells
from trainlarge.sweep.store import CellFolder, Study


@pytest.fixture
def cells(
    study: Study, tiny: Callable[..., dict[str, Any]], compose: Callable[..., dict[str, Any]], run_here: Any
) -> tuple[CellFolder, CellFolder]:
    """A train cell and a compressed one of it."""
    [train] = run_here("train", [tiny("budget=5 steps", "impl.threads=1")])
    recipe = compose("compress", "study=tiny", f"checkpoint={train.id}", "prune.sparsity=0.5", "quantize.bits=4")
    [packed] = run_here("compress", [recipe])
    return train, packed


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(input_ids=torch.arange(16).view(2, 8)).logits


def test_what_is_exported_computes_the_same(cells: tuple[CellFolder, CellFolder], tmp_path: Path) -> None:
    originals = [AutoModelForMaskedLM.from_pretrained(cells[0].checkpoint), load_packed(cells[1].packed)]
    for folder, original in zip(cells, originals, strict=True):
        target = tmp_path / "out" / folder.stage
        assert main(["export", folder.id[:8], str(target)]) == 0
        exported = AutoModelForMaskedLM.from_pretrained(target)
        assert torch.equal(logits(exported), logits(original))
        words = "a small model"
        ids = [AutoTokenizer.from_pretrained(path)(words)["input_ids"] for path in (target, cells[0].checkpoint)]
        assert ids[0] == ids[1]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["compress", "train"], (
        "nothing temporary stays"
    )
    assert not torch.equal(
        *(logits(AutoModelForMaskedLM.from_pretrained(tmp_path / "out" / name)) for name in ("train", "compress"))
    )


def test_an_existing_folder_is_left_alone(cells: tuple[CellFolder, CellFolder], tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    with pytest.raises(UserError, match="does not exist yet"):
        export_cell(cells[0].id, tmp_path / "mine")
    assert not list((tmp_path / "mine").iterdir())


def test_a_model_that_is_gone_is_named_and_nothing_is_left(
    cells: tuple[CellFolder, CellFolder], tmp_path: Path
) -> None:
    cells[1].packed.unlink()
    with pytest.raises(UserError, match=r"packed file is still there: .*packed\.safetensors is not"):
        export_cell(cells[1].id, tmp_path / "new" / "model", study="tiny")
    assert not list((tmp_path / "new").iterdir())


def test_a_cell_that_is_not_done_is_refused(study: Study, tiny: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    [cell] = make_cells("train", [tiny()])
    study.folder("train", cell.id).freeze(cell)
    with pytest.raises(
        UserError, match=f"cell={cell.id} is not valid: must be a cell that is done; this one is queued"
    ):
        export_cell(cell.id, tmp_path / "out")


def test_a_link_inside_a_checkpoint_is_not_followed(cells: tuple[CellFolder, CellFolder], tmp_path: Path) -> None:
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "key").write_text("private")
    for number, target in enumerate((tmp_path / "secret", tmp_path / "secret" / "key", tmp_path / "nowhere")):
        link = cells[0].checkpoint / "extra"
        link.symlink_to(target)
        for folder in cells:
            with pytest.raises(
                UserError, match=f"checkpoint={link} is not valid: must be a file, not a link to {target}"
            ):
                export_cell(folder.id, tmp_path / f"out{number}", study="tiny")
        link.unlink()
    assert not list(tmp_path.glob("*out*"))


def test_a_revision_of_the_cache_and_a_checkpoint_on_another_disk_are_exported(
    cells: tuple[CellFolder, CellFolder], tmp_path: Path
) -> None:
    snapshot, blobs = tmp_path / "models--a--b" / "snapshots" / "main", tmp_path / "models--a--b" / "blobs"
    snapshot.mkdir(parents=True)
    cells[0].checkpoint.rename(blobs)
    for path in blobs.iterdir():
        (snapshot / path.name).symlink_to(Path("..") / ".." / "blobs" / path.name)
    cells[0].checkpoint.symlink_to(snapshot)
    export_cell(cells[0].id, tmp_path / "out", study="tiny")
    assert (tmp_path / "out" / "model.safetensors").read_bytes() == (blobs / "model.safetensors").read_bytes()
    assert not any(path.is_symlink() for path in (tmp_path / "out").iterdir())
