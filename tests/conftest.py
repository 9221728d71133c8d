"""Fixtures that every test folder shares."""

from __future__ import annotations

import os
import random
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

# Tests run side by side, on a core each: two threads each on two cores take half as long again, and threads that spin
# while they wait take the cores from one another (machine/environment.py). Set before torch is imported, and inherited
# by every process that a test starts.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("TRAINLARGE_CORES", "1")

import pytest
from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig

from trainlarge.config.launcher import LAUNCHERS
from trainlarge.config.register import hydra_schema, register_schema
from trainlarge.config.schema import StageConfig, TrainConfig
from trainlarge.config.share import share_folder
from trainlarge.launch.job import RunningJob
from trainlarge.machine import probe, step_time
from trainlarge.machine.resources import Resources
from trainlarge.sweep.compose import Composer
from trainlarge.sweep.expand import read_config
from trainlarge.sweep.plan import make_cells, make_plan
from trainlarge.sweep.stages import STAGES, stage_named
from trainlarge.sweep.store import CellFolder, Study
from trainlarge.sweep.text_keys import text_keys
from trainlarge.tasks import data_check

if TYPE_CHECKING:
    import damaged
    from trainlarge.results.frames import StudyFrames

# Tests of properties need hypothesis; those of `make test-gpu` do without.
with suppress(ModuleNotFoundError):
    from hypothesis import settings

    # A busy machine is no failure of a property.
    settings.register_profile("patient", deadline=None)
    settings.load_profile("patient")

# A shell ignores interrupts for what it runs in the background, and children inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Test folders are no packages, so the modules beside this file are found by its folder.
sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(scope="session")
def reference() -> Path:
    """Folder of small tables with values of the papers; each names its source in its README."""
    return Path(__file__).resolve().parent / "reference"


@pytest.fixture(scope="session")
def made_study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """Three shapes, four budgets, twenty-four recipes each; not to be changed."""
    import made

    return made.make_study(tmp_path_factory.mktemp("studies") / "made")


@pytest.fixture(scope="session")
def frames(made_study: Study) -> StudyFrames:
    """The frames of the made study; not to be changed."""
    from trainlarge.results.frames import load_study

    return load_study(made_study)


WORDS = [
    "the",
    "a",
    "small",
    "large",
    "model",
    "train",
    "token",
    "width",
    "depth",
    "budget",
    "loss",
    "step",
    "row",
    "of",
    "in",
    "on",
    "with",
    "and",
    "or",
    "not",
    "is",
    "was",
    "by",
    "for",
]


@pytest.fixture(scope="session")
def tiny_text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A text file of 3,000 short paragraphs with a structure that a tiny model can learn."""
    draw = random.Random(0)
    paragraphs = (
        " ".join(draw.choice(WORDS[index % 5 :: 5]) for index in range(draw.randint(20, 60))) for _ in range(3000)
    )
    path = tmp_path_factory.mktemp("text") / "tiny.txt"
    path.write_text("\n\n".join(paragraphs), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def compose() -> Callable[..., Any]:
    """Composes a configuration as the command line does: ``compose("train", "arch.width=32", ...)``.

    By the composer of sweeps, which asks Hydra once; that both agree is tested in ``sweep/test_compose.py``.
    Cells compute on the CPU unless an override says otherwise: tests compare bits, and choices made for a CPU.
    """
    register_schema()
    parser = OverridesParser.create()
    composers = {stage: Composer(partial(_composed_by_hydra, stage), _is_group) for stage in STAGES}

    def composed(stage: str, *overrides: str) -> StageConfig:
        point = {override.key_or_group: override.value() for override in parser.parse_overrides([ON_CPU, *overrides])}
        return read_config(stage, composers[stage].config(point))

    return composed


def _composed_by_hydra(stage: str, choices: list[str]) -> DictConfig:
    with initialize_config_dir(version_base="1.3", config_dir=str(share_folder() / "conf")):
        return hydra_compose(stage, choices)


def _is_group(key: str) -> bool:
    return (share_folder() / "conf" / key).is_dir()


@pytest.fixture(scope="session")
def tiny_overrides(tiny_text: Path) -> list[str]:
    """Overrides for a train cell that takes well under a second to run."""
    return [*TINY, f"data.files=[{tiny_text}]"]


@pytest.fixture
def tiny(compose: Callable[..., Any], tiny_overrides: list[str]) -> Callable[..., TrainConfig]:
    """Composes a tiny train configuration, with more overrides."""
    return lambda *overrides: compose("train", *tiny_overrides, *overrides)


ON_CPU = "impl.device=cpu"
"""Also where there is a GPU, for which the tests in ``gpu/`` ask."""
TINY = [
    "study=tiny", ON_CPU, "data=text", "data.vocab_size=300", "data.sequence_length=16", "arch.width=16",
    "arch.depth=1", "tracking=none", "optim.batch=256", "schedule.warmup_steps=4", "task.evaluation_rows=64",
    "budget=40 steps",
]  # fmt: skip


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Study:
    """An empty study named ``tiny`` below ``$TRAINLARGE_STUDIES``; the tests of a session share prepared data."""
    root = tmp_path / "studies"
    root.mkdir()
    prepared = tmp_path_factory.getbasetemp() / "prepared-data"
    prepared.mkdir(exist_ok=True)
    (root / ".data").symlink_to(prepared)
    monkeypatch.setenv("TRAINLARGE_STUDIES", str(root))
    # The steady-state step time is not what these tests are about.
    monkeypatch.setattr(probe, "ROUND_SECONDS", 0.02)
    return Study.named("tiny")


@pytest.fixture
def unforeseen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Has ``data.vocab_size=100000`` fail in the job only, as it does with a large text."""
    monkeypatch.setattr(data_check, "DOUBTFUL_BYTES", 0)


@pytest.fixture
def steps_take(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Has every step of this process take so many seconds, as far as step times are measured, however busy it is here.

    Budgets in seconds then buy as many steps each time.
    """
    now = 0.0

    def set_seconds(seconds: float) -> None:
        def clocks() -> tuple[float, float, float]:
            nonlocal now
            # Asked once per step.
            now += seconds
            return now, now, now

        monkeypatch.setattr(step_time, "clocks", clocks)

    return set_seconds


@pytest.fixture
def run_here(study: Study) -> Callable[..., list[CellFolder]]:
    """Runs configurations of one job in this very process and returns the folders of their cells."""

    def run(stage: str, configs: list[dict[str, Any]], resources: Resources | None = None) -> list[CellFolder]:
        plan = make_plan(study, stage, make_cells(stage, configs))
        for job in plan.jobs:
            running = RunningJob.claim(study, stage, job.cell_ids, resources)
            with running.running():
                stage_named(stage).run(running)
        return [study.folder(stage, cell.id) for cell in plan.cells]

    return run


@pytest.fixture
def inline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """The third launcher, registered, with its yaml in the working directory."""
    from inline_launcher import InlineConfig

    monkeypatch.setitem(LAUNCHERS, "inline", InlineConfig)
    (tmp_path / "launcher").mkdir()
    (tmp_path / "launcher" / "inline.yaml").write_text("defaults: [/schema/launcher/inline]\nname: inline\n")
    monkeypatch.chdir(tmp_path)
    for cached in (text_keys, hydra_schema):
        cached.cache_clear()
    yield
    for cached in (text_keys, hydra_schema):
        cached.cache_clear()


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory, tiny_overrides: list[str]) -> damaged.Lab:
    """A study that commands have made, of which tests damage copies; not to be changed."""
    import damaged

    return damaged.make_lab(tmp_path_factory.mktemp("lab"), tiny_overrides)


@pytest.fixture
def shell(capfd: pytest.CaptureFixture[str]) -> damaged.Shell:
    """Gives commands in this process."""
    import damaged

    return damaged.Shell(capfd)
