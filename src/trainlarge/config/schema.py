"""The whole configuration of a cell: ``TrainConfig`` and ``CompressConfig``, made of groups that have a file each.

Keys marked *not identity* cannot change what is computed beyond rounding, and stay out of a cell's id.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal, get_args

from omegaconf import MISSING

from trainlarge.config.arch import ArchConfig
from trainlarge.config.budget import SECONDS, parse_budget
from trainlarge.config.choices import ChosenGroup, chosen_groups
from trainlarge.config.data import DataConfig
from trainlarge.config.identity import NOT_IDENTITY, OMITTED_WHERE_NONE, added_with, stands_for
from trainlarge.config.impl import ImplConfig
from trainlarge.config.launcher import LauncherConfig, LocalConfig
from trainlarge.config.optim import OptimConfig
from trainlarge.config.recipe import Recipe
from trainlarge.config.schedule import ScheduleConfig
from trainlarge.config.task import DEFAULT_TASK, TaskConfig
from trainlarge.config.tracking import TrackingConfig, WandbConfig
from trainlarge.errors import UserError

Clocks = Literal["modelled", "real"]
"""What a budget in seconds may be counted on."""


@dataclass(frozen=True)
class CommonConfig:
    """Keys of both stages."""

    ignores: ClassVar[frozenset[str]] = frozenset()
    """Keys of groups that nobody reads in the stage, in full."""

    study: str = field(default="default", metadata=NOT_IDENTITY)
    """Folder of the results below ``studies/`` (not identity)."""
    seed: int = 0
    """Seed of initial weights, data order and all that the task draws. Nothing in the compress stage reads it: another
    one gives another cell with the same result. Random pruning has ``prune.seed``, and training after pruning the seed
    of the train cell."""
    impl: ImplConfig = field(default_factory=ImplConfig, metadata=NOT_IDENTITY)
    tracking: TrackingConfig = field(default_factory=WandbConfig, metadata=NOT_IDENTITY)
    launcher: LauncherConfig = field(default_factory=LocalConfig, metadata=NOT_IDENTITY)
    workers: int | None = field(default=None, metadata=NOT_IDENTITY)
    """Jobs at once on this machine; null: one for each GPU (times ``launcher.per_device``), one where there is none
    (not identity). For ``launcher=local``; ``slurm`` has ``launcher.array_parallelism``."""
    redo: bool = field(default=False, metadata=NOT_IDENTITY)
    """Run cells again that are done (not identity). The states of their trunk are used where they are still there,
    however they were computed: ``trainlarge clean`` removes them."""


@dataclass(frozen=True)
class TrainConfig(CommonConfig):
    """One train cell."""

    task: TaskConfig = field(default_factory=DEFAULT_TASK)
    checkpoint: str | None = None
    """What to start from: the id of a train cell of the study, or a Hugging Face folder; null: initial weights.
    ``every`` in a sweep stands for all train cells that are done and started from initial weights. ``arch`` and
    ``data.vocab_size`` are then those of the checkpoint, and its tokenizer reads the data."""
    checkpoint_digest: str | None = field(default=None, metadata={**stands_for("checkpoint"), **OMITTED_WHERE_NONE})
    """Content hash of a folder's weights, configuration and tokenizer; filled in when a cell is frozen."""
    checkpoint_config: str | None = field(default=None, metadata={**NOT_IDENTITY, **OMITTED_WHERE_NONE})
    """``config.json`` of a folder whose architecture is no family here; filled in when a cell is frozen (not identity:
    the checkpoint stands for it)."""
    data: DataConfig = field(default_factory=DataConfig)
    arch: ArchConfig = field(default_factory=ArchConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    budget: str = "1000 steps"
    """A number with its unit, or a list of them: ``1k steps``, ``10M tokens``, ``2 PFLOPs``, ``2e12 FLOPs``,
    ``30 min``, ``1 h 30 min``, ``3 epochs`` (passes over the training data in use)."""
    clock: Clocks = field(default="modelled", metadata=added_with("modelled"))
    """What a budget in seconds is counted on: ``modelled`` (turned into steps by the steady-state step time, so that
    the cell can be repeated) or ``real`` (training stops when so many seconds of it have passed)."""

    @property
    def counts_seconds(self) -> bool:
        """Whether steps or rates depend on the steady-state step time."""
        texts = (self.budget, self.schedule.horizon)
        return self.clock == "modelled" and any(text and parse_budget(text).unit == SECONDS for text in texts)

    def check(self) -> None:
        """Refuse what is wrong whatever the data and the model are.

        Raises:
            UserError: naming the key.
        """
        if self.seed < 0:
            raise UserError("seed", self.seed, "a whole number of at least 0")
        self._check_clock()
        self._check_horizon()

    def _check_clock(self) -> None:
        budget = parse_budget(self.budget)
        if self.clock not in get_args(Clocks):
            raise UserError("clock", self.clock, f"one of {', '.join(get_args(Clocks))}")
        if self.clock == "real" and budget.unit != SECONDS:
            allowed = f"modelled with budget={budget}; the real clock counts a budget in seconds"
            raise UserError("clock", self.clock, allowed)
        if self.clock == "real" and self.impl.devices > 1:
            raise UserError("impl.devices", self.impl.devices, "1 with clock=real: each device has its own clock")

    def _check_horizon(self) -> None:
        horizon, budget = self.schedule.horizon, parse_budget(self.budget)
        if self.schedule.name != "fixed" or horizon is None:
            return
        if parse_budget(horizon, "schedule.horizon") < budget:
            raise UserError("schedule.horizon", horizon, f"at least the budget, {budget}")


@dataclass(frozen=True)
class CompressConfig(CommonConfig):
    """One compress cell."""

    ignores: ClassVar[frozenset[str]] = frozenset({"data.vocab_size", "task.evaluations_per_doubling"})

    checkpoint: str = MISSING
    """Id of a train cell of the study, or a Hugging Face folder of a model of the task with its tokenizer;
    ``every`` in a sweep stands for all train cells that are done."""
    recipe: Recipe = field(default_factory=Recipe)
    """The groups ``vocabulary`` to ``activations`` (each a ``name`` with its fields) and their ``order``."""
    checkpoint_digest: str | None = field(default=None, metadata={**stands_for("checkpoint"), **OMITTED_WHERE_NONE})
    """Content hash of a folder's weights, configuration and tokenizer; filled in when a cell is frozen."""
    data: DataConfig | None = field(default=None, metadata=OMITTED_WHERE_NONE)
    """The text that a folder is evaluated on, read by its own tokenizer; a train cell brings its own."""
    task: TaskConfig | None = field(default=None, metadata=OMITTED_WHERE_NONE)
    """How a folder is evaluated; a train cell brings its own."""


StageConfig = TrainConfig | CompressConfig
"""The configuration of a cell of any stage."""
CONFIGS: dict[str, type[TrainConfig] | type[CompressConfig]] = {"train": TrainConfig, "compress": CompressConfig}
"""Stage -> the type of its cells' configurations."""
CHOSEN_GROUPS: dict[str, type[ChosenGroup]] = {
    key: group for config in CONFIGS.values() for key, group in chosen_groups(config).items()
}
"""The groups that have one dataclass per name."""
