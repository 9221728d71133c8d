from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import made
from trainlarge.cli import main
from trainlarge.commands.cleanup import Wanted, find_removable, remove
from trainlarge.commands.status import read_state
from trainlarge.compression.cells import recoveries_of
from trainlarge.config.recover import Retrain
from trainlarge.errors import UserError
from trainlarge.results.frames import load_study
from trainlarge.sweep.cell import Cell
from trainlarge.sweep.lease import Lease
from trainlarge.sweep.plan import make_plan
from trainlarge.sweep.status import State, Status
from trainlarge.sweep.store import Study
from trainlarge.training.cells import trunk_id

SHAPE = (64, 1)


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Study:
    """Two train cells of one trunk, done, with weights; four packed recipes of the first."""
    monkeypatch.setenv("TRAINLARGE_STUDIES", str(tmp_path))
    study = Study(tmp_path / "made")
    for budget in (7.5, 15.0):
        folder = made.make_train_cell(study, SHAPE, budget)
        write(folder.checkpoint / "model.safetensors", 1000)
        write(study.path / "trunks" / trunk_id(folder.cell().config) / "trunk-000000100" / "tensors.safetensors", 3000)
    parent = next(study.folders("train"))
    for sparsity, bits in ((0.0, 32), (0.0, 4), (0.6, 32), (0.6, 4)):
        write(made.make_compress_cell(study, parent, sparsity, bits).packed, 100)
    return study


def write(path: Path, size: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x" * size)


def kinds(study: Study, **wanted: Any) -> dict[str, int]:
    """Kind -> bytes that could go."""
    found: dict[str, int] = {}
    for item in find_removable(study, Wanted(**wanted)):
        found[item.kind] = found.get(item.kind, 0) + item.size
    return found


def results(study: Study) -> dict[Path, bytes]:
    names = ("config.yaml", "status.json", "record.json", "metrics.jsonl", "log.txt")
    return {path: path.read_bytes() for path in study.path.rglob("*") if path.name in names}


def free_all(study: Study, **wanted: Any) -> int:
    freed, kept = remove(find_removable(study, Wanted(**wanted)))
    assert not kept
    return freed


def test_states_of_done_trunks_go_and_results_stay(study: Study) -> None:
    before, frames = results(study), load_study(study)
    assert kinds(study) == {"states": 3000}
    assert free_all(study) == 3000 and kinds(study) == {}
    assert free_all(study, checkpoints=True, packed=True) == 2 * 1000 + 4 * 100
    assert results(study) == before and read_state(study).is_done
    assert load_study(study).cells.equals(frames.cells)
    plan = make_plan(study, "train", [folder.cell() for folder in study.folders("train")])
    assert not plan.jobs, "a done study is still done"


def test_states_of_an_unfinished_trunk_stay(study: Study) -> None:
    cell = made.train_cell("made", SHAPE, "30 s")
    study.folder("train", cell.id).freeze(cell)
    assert kinds(study) == {}
    other = made.train_cell("made", (64, 2), "30 s")
    study.folder("train", other.id).freeze(other)
    study.folder("train", cell.id).write_record_data(made.bare_record(cell.id))
    study.folder("train", cell.id).write_status(Status(State.DONE))
    assert kinds(study) == {"states": 3000}, "another trunk that is unfinished does not matter"


def test_what_a_held_cell_has_is_left_alone(study: Study) -> None:
    first, second = study.folders("train")
    write(first.path / ".record.json.1.tmp", 7)
    lease = Lease.acquire(first.path)
    assert lease and kinds(study, checkpoints=True) == {"checkpoints": 1000}
    lease.release()
    found = find_removable(study, Wanted(checkpoints=True))
    lease = Lease.acquire(first.path)
    freed, kept = remove(found)
    assert freed == 1000 and {item.kind for item in kept} == {"states", "leftovers", "checkpoints"}
    assert first.checkpoint.exists() and not second.checkpoint.exists() and lease and lease.is_held()


def test_leftovers_go_but_not_the_only_checkpoint(study: Study) -> None:
    first, second = study.folders("train")
    for folder in (first, second):
        write(folder.path / ".checkpoint.tmp" / "model.safetensors", 10)
        write(folder.path / ".checkpoint.old" / "model.safetensors", 20)
    first.checkpoint.rename(first.path / "elsewhere")
    assert kinds(study)["leftovers"] == 10 + 10 + 20
    free_all(study)
    assert (first.path / ".checkpoint.old").exists() and not list(first.path.glob(".*.tmp"))
    assert sorted(path.name for path in second.path.glob(".*")) == []


def test_old_leases_go_and_numbers_still_grow(study: Study) -> None:
    folder = next(study.folders("train"))
    for _ in range(3):
        lease = Lease.acquire(folder.path)
        assert lease
        lease.release()
    assert kinds(study)["leases"] > 0
    free_all(study)
    assert len(list((folder.path / "lease").iterdir())) == 1 and "leases" not in kinds(study)
    after = Lease.acquire(folder.path)
    assert after and after.number > lease.number


def test_a_condition_keeps_what_it_names(study: Study) -> None:
    assert kinds(study, packed=True, keep="quantize.bits == 4 and arch.width == 64")["packed"] == 200
    assert kinds(study, packed=True, keep="prune.sparsity == 0")["packed"] == 200
    assert kinds(study, checkpoints=True, keep="budget > '10 s'")["checkpoints"] == 1000
    with pytest.raises(UserError, match=r"--keep=arch\.wide == 3"):
        find_removable(study, Wanted(checkpoints=True, keep="arch.wide == 3"))


def test_weights_that_a_finetuning_still_needs_stay(study: Study) -> None:
    first, _ = study.folders("train")
    config = first.cell().as_train
    cell = Cell("train", replace(config, checkpoint=first.id))
    study.folder("train", cell.id).freeze(cell)
    assert kinds(study, checkpoints=True)["checkpoints"] == 1000


def test_weights_that_a_compress_cell_still_needs_stay(study: Study) -> None:
    folder = next(study.folders("compress"))
    folder.clear_result()
    assert kinds(study, checkpoints=True)["checkpoints"] == 1000
    assert next(study.folders("train")).id == folder.cell().config.checkpoint


def test_states_of_recovery_stay_until_all_recipes_that_share_it_are_done(study: Study) -> None:
    free_all(study)
    parent = next(study.folders("train"))
    folders = [made.make_compress_cell(study, parent, 0.6, bits, recover=Retrain("5 steps")) for bits in (4, 8)]
    [name] = {name for folder in folders for name in recoveries_of(folder.cell().config)}
    write(study.path / "trunks" / str(name) / "recover-000000005" / "tensors.safetensors", 500)
    folders[1].clear_result()
    assert "states" not in kinds(study)
    folders[1].write_status(Status(State.DONE))
    folders[1].write_record_data(folders[0].record_data())
    assert kinds(study)["states"] == 500 == free_all(study)


def test_a_damaged_configuration_stops_it(study: Study) -> None:
    folder = next(study.folders("train"))
    path = folder.path / "config.yaml"
    path.write_text("")
    # The record has it too.
    folder.record_path.unlink()
    with pytest.raises(UserError, match=r"config\.yaml"):
        find_removable(study)


def test_the_command_removes_only_with_yes(study: Study, capfd: pytest.CaptureFixture[str]) -> None:
    files = sorted(study.path.rglob("*"))
    assert main(["clean", "made"]) == 0
    assert "nothing was removed; --yes frees 3 kB" in capfd.readouterr().out
    assert sorted(study.path.rglob("*")) == files
    assert main(["clean", "made", "--yes"]) == 0 and "freed 3 kB" in capfd.readouterr().out
    assert main(["clean", "made", "--yes"]) == 0 and "nothing to remove" in capfd.readouterr().out
    assert main(["clean", "made", "--keep", "seed == 0"]) == 2
    assert "--keep=seed == 0 is not valid: must be used with" in capfd.readouterr().err


def moved(path: Path, elsewhere: Path) -> dict[Path, bytes]:
    """Move a folder away and leave a link in its place; what is there now."""
    elsewhere.parent.mkdir(parents=True, exist_ok=True)
    path.rename(elsewhere)
    path.symlink_to(elsewhere)
    return contents(elsewhere)


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def put_old_leases(study: Study) -> None:
    for stage in ("train", "compress"):
        for folder in study.folders(stage):
            for number in (1, 2):
                write(folder.path / "lease" / f"{number:06d}.json", 5)
                write(folder.path / ".record.json.1.tmp", 5)


@pytest.mark.parametrize("part", ["trunks", "train", "compress", "train/*", "compress/*", "train/*/lease"])
def test_what_a_link_leads_to_is_left_alone(
    part: str, study: Study, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    put_old_leases(study)
    places = sorted(study.path.glob(part))
    before = {
        tmp_path / "far" / str(number): moved(place, tmp_path / "far" / str(number))
        for number, place in enumerate(places)
    }
    assert places and main(["clean", "made", "--checkpoints", "--packed", "--yes"]) == 0
    assert {folder: contents(folder) for folder in before} == before
    [line] = [
        line for line in capfd.readouterr().out.splitlines() if line.startswith("left alone, since they are links")
    ]
    assert all(str(place) in line and place.is_symlink() for place in places)


@pytest.mark.parametrize("part", ["trunks/*", "trunks/*/*", "train/*/checkpoint", "train/*/checkpoint/*.safetensors"])
def test_of_a_link_that_nothing_needs_only_the_link_goes(part: str, study: Study, tmp_path: Path) -> None:
    places = sorted(study.path.glob(part))
    before = {
        tmp_path / "far" / str(number): moved(place, tmp_path / "far" / str(number))
        for number, place in enumerate(places)
    }
    free_all(study, checkpoints=True)
    assert {folder: contents(folder) for folder in before} == before
    assert places and not any(place.is_symlink() for place in places)


def test_a_packed_file_that_is_a_link_goes_alone(study: Study, tmp_path: Path) -> None:
    target = tmp_path / "far.safetensors"
    next(study.folders("compress")).packed.rename(target)
    next(study.folders("compress")).packed.symlink_to(target)
    free_all(study, packed=True)
    assert target.exists() and not list(study.path.glob("compress/*/packed.safetensors"))


def test_a_study_that_is_a_link_is_cleaned_where_it_lies(
    study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    before = moved(study.path, tmp_path / "disk" / "real")
    assert main(["clean", "made", "--yes"]) == 2
    [line] = capfd.readouterr().err.splitlines()
    assert f"TRAINLARGE_STUDIES={tmp_path / 'disk'} trainlarge clean real" in line
    assert contents(tmp_path / "disk" / "real") == before and load_study(study).cells is not None
    monkeypatch.setenv("TRAINLARGE_STUDIES", str(tmp_path / "disk"))
    assert main(["clean", "real", "--yes"]) == 0 and "freed 3 kB" in capfd.readouterr().out


def test_a_removal_that_was_interrupted_is_done_again(study: Study) -> None:
    [trunk] = (study.path / "trunks").iterdir()
    write(trunk.with_name(f".{trunk.name}.removed.tmp") / "tensors.safetensors", 10)
    assert free_all(study) == 3000 and not list((study.path / "trunks").iterdir())
