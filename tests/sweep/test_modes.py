"""Files of a study have the mode that the user's umask gives, weights and saved states too."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from trainlarge.commands.export import export_cell
from trainlarge.config.schema import TrainConfig
from trainlarge.sweep.files import replacing_folder
from trainlarge.sweep.store import CellFolder, Study


@pytest.fixture(params=[0o002, 0o022, 0o077], ids=oct)
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def modes(folder: Path) -> set[int]:
    return {stat.S_IMODE(path.stat().st_mode) for path in folder.rglob("*") if path.is_file()}


def test_what_safetensors_writes_is_as_readable_as_any_file(tmp_path: Path, umask: int) -> None:
    with replacing_folder(tmp_path / "checkpoint") as folder:
        folder.mkdir()
        save_file({"a": torch.zeros(3)}, folder / "model.safetensors")
        (folder / "config.json").write_text("{}")
    assert modes(tmp_path) == {0o666 & ~umask}


def test_all_files_of_a_cell_have_one_mode(
    study: Study, tiny: Callable[..., TrainConfig], run_here: Callable[..., list[CellFolder]], tmp_path: Path
) -> None:
    before = os.umask(0o002)
    try:
        [folder] = run_here("train", [tiny("impl.save_seconds=0", "budget=8 steps")])
        export_cell(folder.id, tmp_path / "exported", "tiny")
    finally:
        os.umask(before)
    assert modes(study.path) == modes(tmp_path / "exported") == {0o664}
    assert list(study.path.glob("trunks/*/trunk-*/tensors.safetensors"))
