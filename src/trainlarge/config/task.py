"""What a model learns: one dataclass per task, with all that must be known of the task before anything is computed.

Imports nothing heavy. What a task computes is in ``trainlarge.tasks``, one file per task.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal, cast

from trainlarge.config.choices import ChosenGroup
from trainlarge.config.data import DataConfig
from trainlarge.config.group import with_values
from trainlarge.config.identity import added_with
from trainlarge.config.installed import installed
from trainlarge.config.metric import Metric
from trainlarge.errors import UserError

MOST_ROWS = 100_000_000
MOST_POINTS = 1_000
MOST_LABELS = 1_000_000


@dataclass(frozen=True)
class TaskConfig(ChosenGroup):
    """What a model learns: the keys of every task."""

    key: ClassVar[str] = "task"

    name: str = "mlm"
    """``mlm`` (masked language modelling), ``causal_lm`` (next token), ``classification`` (one label per row) or
    ``regression`` (one number per row)."""
    evaluation_rows: int = 1024
    """Rows of the evaluation set, spread evenly over the validation data."""
    evaluations_per_doubling: int = 1
    """Points of the loss curve each time the number of steps doubles."""

    computed_by: ClassVar[str]
    """Where its class is, ``module:name``: see ``trainlarge.tasks.task``."""
    data_checked_by: ClassVar[str] = "trainlarge.tasks.data_check:check_packed_text"
    """The function, ``module:name``, that looks before any job starts whether data can be prepared for it."""
    head: ClassVar[str]
    """What its models predict, a ``trainlarge.models.family.Head``."""
    metrics: ClassVar[Mapping[str, Metric]]
    """What the task is scored by, ``loss`` first."""
    main_metric: ClassVar[str] = "loss"
    """The metric that choices, targets and figures go by."""
    frequencies: ClassVar[str] = "token frequencies"
    """What a model learns first, from the predictions alone: how often each occurs. Its loss is that of a plateau."""
    columns: ClassVar[Mapping[str, tuple[str, str]]] = {}
    """Keys of the task that become columns of results -> unit and meaning."""

    @classmethod
    def by_name(cls) -> Mapping[str, type[TaskConfig]]:
        """All tasks."""
        return tasks()

    def check(self) -> None:
        self.require_whole(1, "evaluation_rows", most=MOST_ROWS)
        self.require_whole(1, "evaluations_per_doubling", most=MOST_POINTS)

    def check_data(self, data: DataConfig) -> None:
        """Refuse a group ``data`` that the task cannot use.

        Raises:
            UserError: naming the key.
        """

    @property
    def row_labels(self) -> int:
        """Different labels that a row may have; of tasks that label no rows, the least."""
        return 2

    @property
    def label_columns(self) -> tuple[str, str | None, bool] | None:
        """Columns of the label and of the second text, which may be none, and whether labels are numbers.

        None for a task on plain text.
        """
        return None

    @property
    def held_out_share(self) -> float:
        """Share of the training rows that is held out to choose by."""
        return 0.0

    @property
    def row_pooling(self) -> str | None:
        """What is labelled of a row where that is chosen."""
        return None

    @property
    def has_even_steps(self) -> bool:
        """Whether every step has as many tokens, so that tokens and FLOPs are as good as steps."""
        return True

    def with_segments(self, known: int) -> TaskConfig:
        """The task with the segments of its rows filled in.

        Args:
            known: segments that the model knows.

        Raises:
            UserError: on ``task.segments``, when they are more than the model knows, or rows are no pairs.
        """
        del known
        return self

    @abstractmethod
    def predictions(self, sequence_length: int) -> int:
        """Predictions per training row of ``sequence_length`` tokens: what FLOPs, and so budgets, are counted with."""

    def evaluation_predictions(self, sequence_length: int) -> int:
        """Predictions per row of the evaluation set."""
        return self.predictions(sequence_length)


@dataclass(frozen=True)
class MaskedLMConfig(TaskConfig):
    """Masked language modelling (Devlin et al. 2019, section 3.1)."""

    mask_rate: float = 0.15
    """Share of positions masked in training, in (0, 1). 0.15 as published; 0.4 learns faster at small sizes.
    Every token may be masked, ``[SEP]`` too."""
    evaluation_mask_rate: float = 0.15
    """Share of positions masked in the fixed evaluation set, in (0, 1)."""

    columns: ClassVar[Mapping[str, tuple[str, str]]] = {"mask_rate": ("1", "share of positions masked in training")}
    computed_by: ClassVar[str] = "trainlarge.tasks.masked_lm:MaskedLM"
    head: ClassVar[str] = "masked_lm"
    metrics: ClassVar[Mapping[str, Metric]] = {
        "loss": Metric("nats per masked token", "evaluation loss", tie=0.1, negligible=0.02, broken=1.0),
        "accuracy": Metric("1", "share of masked tokens predicted right", higher_is_better=True),
    }

    def check(self) -> None:
        super().check()
        for name in ("mask_rate", "evaluation_mask_rate"):
            self.require(name, 0 < getattr(self, name) < 1, "a number in (0, 1)")

    def predictions(self, sequence_length: int) -> int:
        """Masked positions per training row."""
        return masked_count(self.mask_rate, sequence_length)

    def evaluation_predictions(self, sequence_length: int) -> int:
        """Masked positions per row of the evaluation set."""
        return masked_count(self.evaluation_mask_rate, sequence_length)


@dataclass(frozen=True)
class CausalLMConfig(TaskConfig):
    """Causal language modelling: predicting the next token (Radford et al. 2018)."""

    name: str = "causal_lm"

    computed_by: ClassVar[str] = "trainlarge.tasks.causal_lm:CausalLM"
    head: ClassVar[str] = "causal_lm"
    metrics: ClassVar[Mapping[str, Metric]] = {
        "loss": Metric("nats per token", "evaluation loss", tie=0.1, negligible=0.02, broken=1.0),
        "accuracy": Metric("1", "share of next tokens predicted right", higher_is_better=True),
    }

    def predictions(self, sequence_length: int) -> int:
        """Every token but the first of a row."""
        return sequence_length - 1


SHORTEST_PAIR = 5
"""Least tokens of a row that holds a pair of texts."""


@dataclass(frozen=True)
class LabelledConfig(TaskConfig):
    """Predicting a label of whole rows, sentences or pairs of sentences, from the tables of ``data=text``."""

    label_column: str = "label"
    """Column that holds the label. Rows without a label or a text are left out."""
    second_text_column: str | None = None
    """Column of the second text of a pair; null: rows have the text of ``data.text_column`` alone."""
    selection_share: float = field(default=0.0, metadata=added_with(0.0))
    """Share of the training rows that is held out to choose by (learning rate, epochs: ``sweep.best_of``), in [0, 1).
    The same rows for every cell, whatever ``seed`` and ``data.fraction``; rows with the same first text stay together.
    Nothing is trained on them, and the record has the scores on at most ``evaluation_rows`` of them."""
    batches: Literal["padded", "bucketed"] = field(default="padded", metadata=added_with("padded"))
    """``padded``: every row is filled up to ``data.sequence_length``. ``bucketed``: rows of like lengths share a batch,
    which is filled up to its longest row. It takes as many rows per step, so fewer tokens; tokens and FLOPs count what
    is computed, and a budget in them ends with the first step that reaches it."""
    pooling: Literal["first", "mean"] | None = field(default=None, metadata=added_with(None))
    """What is labelled of a row: its ``first`` token, or the ``mean`` of all its tokens, where the architecture has the
    choice (``modern``). null: what the architecture or the checkpoint has, the first token in ``modern``. Packed text
    has no such first tokens, so that a model which was pretrained on it knows nothing of them; ``mean`` suits it."""

    segments: int | None = field(default=None, metadata=added_with(1))
    """Segments of a pair of texts: with 2, the model reads which tokens are those of the second text, as BERT does
    (Devlin et al. 2019, section 3). null: 2 where the model knows as many, else 1; filled in when a cell is frozen."""

    ignores: ClassVar[frozenset[str]] = frozenset({"arch.tied"})
    data_checked_by: ClassVar[str] = "trainlarge.tasks.data_check:check_labelled"
    head: ClassVar[str] = "sequence_label"
    labels_are_numbers: ClassVar[bool] = False
    """Whether a label is a number that is predicted, and not the name of a class."""

    def check(self) -> None:
        super().check()
        self.require("selection_share", 0 <= self.selection_share < 1, "a number of at least 0 and below 1")
        self.require("segments", self.segments in (None, 1, 2), "1, 2 or null")

    def check_data(self, data: DataConfig) -> None:
        """Refuse data without columns, and rows that are too short for the special tokens."""
        task = f"task={self.name}"
        if data.name != "text":
            raise UserError("data", data.name, f"text with {task}: files with a column of labels")
        if data.hub:
            raise UserError("data.hub", data.hub, f"null with {task}, which reads data.files")
        for name in ("sources", "evaluations"):
            if named := getattr(data, name):
                raise UserError(f"data.{name}", ", ".join(named), f"empty with {task}, which reads data.files")
        if self.second_text_column is not None and data.sequence_length < SHORTEST_PAIR:
            allowed = f"at least {SHORTEST_PAIR} with task.second_text_column: three special tokens and two others"
            raise UserError("data.sequence_length", data.sequence_length, allowed)

    def with_segments(self, known: int) -> LabelledConfig:
        """Two where rows are pairs and the model knows two, unless ``segments`` says otherwise."""
        most = 1 if self.second_text_column is None else min(known, 2)
        if self.segments is not None and self.segments > most:
            why = "without task.second_text_column" if known > 1 else "for a model that knows one segment"
            raise UserError("task.segments", self.segments, f"1 or null {why}")
        return with_values(self, segments=self.segments or most)

    @property
    def label_columns(self) -> tuple[str, str | None, bool]:
        """``label_column``, ``second_text_column``, and whether labels are numbers."""
        return self.label_column, self.second_text_column, self.labels_are_numbers

    @property
    def held_out_share(self) -> float:
        """``selection_share``."""
        return self.selection_share

    @property
    def row_pooling(self) -> str | None:
        """``pooling``."""
        return self.pooling

    @property
    def has_even_steps(self) -> bool:
        """Not where a batch is as long as its longest row."""
        return self.batches == "padded"

    def predictions(self, sequence_length: int) -> int:
        """One per row."""
        return 1


@dataclass(frozen=True)
class ClassificationConfig(LabelledConfig):
    """Classification: one of a few labels, text or whole numbers, per row."""

    name: str = "classification"
    labels: int = 2
    """Number of different labels."""

    frequencies: ClassVar[str] = "label frequencies"
    computed_by: ClassVar[str] = "trainlarge.tasks.classification:Classification"
    metrics: ClassVar[Mapping[str, Metric]] = {
        "loss": Metric("nats per row", "evaluation loss", tie=0.02, negligible=0.01, broken=0.5),
        "accuracy": Metric("1", "share of rows labelled right", higher_is_better=True),
        "f1": Metric("1", "F1 of class 1, of more classes the mean", higher_is_better=True),
        "matthews": Metric("correlation", "Matthews correlation", higher_is_better=True),
    }
    main_metric: ClassVar[str] = "accuracy"

    def check(self) -> None:
        super().check()
        self.require_whole(2, "labels", most=MOST_LABELS)

    @property
    def row_labels(self) -> int:
        """``labels``."""
        return self.labels


@dataclass(frozen=True)
class RegressionConfig(LabelledConfig):
    """Regression: a number per row."""

    name: str = "regression"

    labels_are_numbers: ClassVar[bool] = True
    frequencies: ClassVar[str] = "the mean label"
    computed_by: ClassVar[str] = "trainlarge.tasks.regression:Regression"
    metrics: ClassVar[Mapping[str, Metric]] = {
        "loss": Metric("squared error per row", "evaluation loss", tie=0.02, negligible=0.01, broken=0.5),
        "pearson": Metric("correlation", "Pearson's correlation", higher_is_better=True),
        "spearman": Metric("correlation", "Spearman's correlation of ranks", higher_is_better=True),
    }
    main_metric: ClassVar[str] = "spearman"

    @property
    def row_labels(self) -> int:
        """One output."""
        return 1


TASKS: dict[str, type[TaskConfig]] = {
    "mlm": MaskedLMConfig,
    "causal_lm": CausalLMConfig,
    "classification": ClassificationConfig,
    "regression": RegressionConfig,
}
"""Configuration of a task by its name, of those that come with trainlarge."""
INSTALLED = "trainlarge.tasks"
"""Entry points by which installed packages add tasks of their own."""
DEFAULT_TASK: type[TaskConfig] = MaskedLMConfig
"""The task of a configuration that names none."""


def tasks() -> Mapping[str, type[TaskConfig]]:
    """Configuration of a task by its name: those that come with trainlarge, and those of installed packages."""
    more = cast(Mapping[str, type[TaskConfig]], installed(INSTALLED, TaskConfig, frozenset(TASKS)))
    return {**TASKS, **more}


def masked_count(rate: float, sequence_length: int) -> int:
    """Masked positions per row: ``rate`` of the length, rounded, at least one.

    Raises:
        UserError: ``rate`` is not in (0, 1].
    """
    if not 0 < rate <= 1:
        raise UserError("task.mask_rate", rate, "a number above 0 and at most 1")
    return max(1, round(rate * sequence_length))
