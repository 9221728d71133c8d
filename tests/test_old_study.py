"""A study that an older version made, before digests, splits and rounds of step times, is read and goes on.

``old/before_digests.zip`` holds it: its sweep files, its text and its folder, without trunks.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from trainlarge.cli import main
from trainlarge.results.frames import load_study

SPLIT = "data.split=documents"
LOSSES = {
    "310979bffde7": 3.573659,
    "4ef4b0a262d8": 3.529991,
    "046c2a158a38": 3.235122,
    "a801b78ff0dd": 3.602107,
    "29e7642f22b2": 3.492689,
}
BYTES = {
    "c4e69e82252f": 11988,
    "1d7299f6a6ea": 34360,
    "fbd655714311": 21286,
    "8ae5c4632d90": 11779,
    "d163e1e3e581": 15956,
    "24ef3adacaa1": 45296,
    "8938710bbea7": 28148,
    "27ddf99ae904": 15826,
}


@pytest.fixture
def old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the study; its sweep files and its text lie in the working directory."""
    shutil.unpack_archive(Path(__file__).parent / "old" / "before_digests.zip", tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TRAINLARGE_STUDIES", str(tmp_path / "studies"))
    return tmp_path / "studies" / "old"


def test_its_frames_have_the_numbers_of_its_records(old: Path) -> None:
    frames = load_study(old)
    assert dict(zip(frames.cells["cell"], frames.cells["loss"], strict=True)) == pytest.approx(LOSSES, abs=5e-7)
    assert frames.cells["executed_flops"].isna().all(), "not known then"
    assert dict(zip(frames.compression["cell"], frames.compression["file_bytes"], strict=True)) == BYTES


def test_nothing_that_is_done_runs_again(old: Path, capfd: pytest.CaptureFixture[str]) -> None:
    before = {path: path.read_bytes() for path in old.rglob("record.json")}
    assert main(["train", "-m", "+sweeps=old/train", SPLIT]) == 0
    assert main(["compress", "-m", "+sweeps=old/compress"]) == 0
    printed = capfd.readouterr().out
    assert "train: 5 cells, 5 done, 0 jobs to run" in printed and "compress: 8 cells, 8 done, 0 jobs" in printed
    assert {path: path.read_bytes() for path in old.rglob("record.json")} == before


def test_the_newest_split_is_not_filled_in_beside_cells_of_the_first(
    old: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for verb in (["train", "-m"], ["plan"]):
        assert main([*verb, "+sweeps=old/train"]) == 2
        line = capfd.readouterr().err.strip().splitlines()[-1]
        assert line.startswith(
            "error: data.split=null is not valid: must be documents, by which the cells of study old"
        )
    assert len(list((old / "train").iterdir())) == 5


@pytest.mark.parametrize("verb", ["status", "report"])
def test_verbs_that_read_it_work(old: Path, verb: str) -> None:
    assert main([verb, "old"]) == 0


def test_its_checkpoints_are_compressed_on_their_own_evaluation_set(old: Path) -> None:
    parent = "310979bffde7"
    command = ["compress", "study=old", f"checkpoint={parent}", "prune=none", "quantize.bits=3", "tracking=none"]
    assert main([*command, "impl.device=cpu"]) == 0
    new = load_study(old).compression.set_index("cell").drop(index=list(BYTES))
    assert list(new["parent"]) == [parent] and new["dense_loss"].item() == pytest.approx(LOSSES[parent], abs=1e-6)
