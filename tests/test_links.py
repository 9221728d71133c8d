"""Folders of a study that are links: nothing is written to where they lead."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from damaged import NAME, READ, WRITE, Lab, Shell, Trial, Verb, kind_of
from trainlarge.config.tracking import WandbConfig
from trainlarge.errors import UserError
from trainlarge.machine.precision import Precision
from trainlarge.machine.probe import StepTiming, measured_once
from trainlarge.machine.step_time import Round
from trainlarge.results.report.page import write_report
from trainlarge.sweep.store import Study
from trainlarge.tracking.mirror import mirror_study

CLEAN = {"remove": Verb(lambda lab, scratch: ["clean", NAME, "--checkpoints", "--packed", "--yes"])}
REDO = {
    "redo train": Verb(lambda lab, scratch: ["redo", lab.parent, "--study", NAME]),
    "redo compress": Verb(lambda lab, scratch: ["redo", lab.recipe, "--study", NAME]),
}
EVERY_VERB = READ | WRITE | REDO | CLEAN
FOLDERS = {
    "tiny/train",
    "tiny/compress",
    "tiny/train/ID",
    "tiny/compress/ID",
    "tiny/train/ID/lease",
    "tiny/train/ID/checkpoint",
    "tiny/trunks",
    "tiny/trunks/ID",
    "tiny/trunks/ID/trunk-N",
    "tiny/probes",
    "tiny/report",
    "tiny/wandb",
    ".data/ID",
}
"""Some of what a study has: a test of nothing must not pass."""


def moved(place: Path, elsewhere: Path) -> dict[str, tuple[int, int, bytes]]:
    """Move a folder away and leave a link in its place; what is there now."""
    place.rename(elsewhere)
    place.symlink_to(elsewhere)
    return contents(elsewhere)


def contents(folder: Path) -> dict[str, tuple[int, int, bytes]]:
    """Path -> mode, time of change and content of all that is in a folder, and of the folder itself."""
    stats = {path: path.lstat() for path in (folder, *folder.rglob("*"))}
    return {
        str(path): (stat.st_mode, stat.st_mtime_ns, path.read_bytes() if path.is_file() else b"")
        for path, stat in stats.items()
    }


@pytest.mark.parametrize("kind", ["tiny/train", "tiny/compress/ID", "tiny/trunks"])
def test_nothing_is_written_through_a_link(lab: Lab, shell: Shell, tmp_path: Path, kind: str) -> None:
    verbs = {"larger budget": WRITE["larger budget"], "run": WRITE["run"], "sync": READ["sync"], **REDO, **CLEAN}
    assert not list(written_through(folders_of(lab)[kind], verbs, lab, shell, tmp_path))


@pytest.mark.long
@pytest.mark.timeout(900)
def test_nothing_is_written_through_any_folder_that_is_a_link(lab: Lab, shell: Shell, tmp_path: Path) -> None:
    """Each folder of a study in turn is a link; then every command runs."""
    folders = folders_of(lab)
    wrong = [
        what
        for number, kind in enumerate(sorted(folders))
        for what in written_through(folders[kind], EVERY_VERB, lab, shell, tmp_path / str(number))
    ]
    assert not wrong, "\n".join(wrong)


def folders_of(lab: Lab) -> dict[str, str]:
    """Kind -> a folder of a study, or of prepared data."""
    paths = (path for path in lab.root.rglob("*") if path.is_dir())
    folders = {kind_of(name): name for name in sorted(path.relative_to(lab.root).as_posix() for path in paths)}
    assert set(folders) >= FOLDERS, FOLDERS - set(folders)
    return {kind: name for kind, name in folders.items() if kind not in ("tiny", ".data")}


def written_through(name: str, verbs: dict[str, Verb], lab: Lab, shell: Shell, place: Path) -> Iterator[str]:
    """What is changed behind a link in the place of the folder ``name``, or ends in a traceback."""
    trial = Trial(lab, place / "trial", shell)
    elsewhere = place / "elsewhere"
    before = moved(trial.study.path.parent / name, elsewhere)
    for each in trial.give(verbs, "out"):
        if "Traceback" in each.said.printed or each.said.status not in (0, 1, 2):
            yield f"{name}: {each.verb}: {each.said.status} {each.said.printed[-1500:]}"
    after = contents(elsewhere)
    yield from (f"{name}: changed {path}" for path in {*before, *after} if before.get(path) != after.get(path))


@pytest.mark.parametrize("name", ["", "tiny"])
def test_a_study_and_the_folder_of_all_studies_may_be_links(lab: Lab, shell: Shell, tmp_path: Path, name: str) -> None:
    trial = Trial(lab, tmp_path / "trial", shell)
    moved(trial.study.path.parent / name, tmp_path / "elsewhere")
    refused = [each for each in trial.give(READ | WRITE | REDO, "out") if each.said.status]
    # Without `--yes` too, it names the folder that is to be cleaned.
    assert [each.verb for each in refused] == (["clean"] if name else []), refused
    [cleaned] = trial.give(CLEAN, "out")
    assert cleaned.said.status == (2 if name else 0) and ("cleans it" in cleaned.said.printed) == bool(name)


def test_behind_a_link_prepared_data_is_added_and_nothing_is_changed(lab: Lab, shell: Shell, tmp_path: Path) -> None:
    """A larger disk may hold the data of all studies."""
    trial = Trial(lab, tmp_path / "trial", shell)
    before = moved(trial.study.path.parent / ".data", tmp_path / "elsewhere")
    assert not [each for each in trial.give(READ | WRITE | CLEAN, "out") if each.said.status]
    after = contents(tmp_path / "elsewhere")
    assert {path: after[path] for path in before if not path.endswith(".lock")} == {
        path: state for path, state in before.items() if not path.endswith(".lock")
    }


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    return folder


@pytest.mark.parametrize("name", ["report", "wandb"])
def test_a_report_and_a_mirror_are_not_written_through_a_link(
    made_study: Study, tmp_path: Path, elsewhere: Path, name: str
) -> None:
    study = Study(Path(shutil.copytree(made_study.path, tmp_path / "made", ignore=shutil.ignore_patterns("report"))))
    (study.path / name).symlink_to(elsewhere)
    write = write_report if name == "report" else lambda study: mirror_study(study, WandbConfig())
    with pytest.raises(UserError, match=f"{name}=a link to {elsewhere} is not valid: must be a plain folder"):
        write(study)
    assert not list(elsewhere.iterdir())


def test_measurements_are_not_written_through_a_link(tmp_path: Path, elsewhere: Path) -> None:
    (tmp_path / "probes").symlink_to(elsewhere)
    some = Round.of_before(0.1, 10)
    with pytest.raises(UserError, match="probes=a link"):
        StepTiming(tmp_path / "probes", {"shape": 1}).add(some)
    with pytest.raises(UserError, match="probes=a link"):
        measured_once(tmp_path / "probes" / "precision", {"device": 1}, Precision, lambda: Precision("fp32"))
    assert not list(elsewhere.iterdir())
