"""What the steps of planned train cells take in: of rows of like lengths, as soon as the data is prepared."""

from __future__ import annotations

from trainlarge.config.canonical import canonical_json
from trainlarge.config.schema import TrainConfig
from trainlarge.data.buckets import StepLengths, training_order
from trainlarge.data.rows_in_use import table_in_use
from trainlarge.sweep.planned import Planned
from trainlarge.sweep.store import Study
from trainlarge.tasks.step import Step, step_of, uneven
from trainlarge.training.start import tokenizer_of


class PlannedSteps:
    """Steps of the train cells of a study; writes nothing.

    Args:
        planned: train cells whose checkpoints will be there.
    """

    def __init__(self, study: Study, planned: Planned) -> None:
        self._study, self._planned = study, planned
        self._lengths: dict[str, StepLengths] = {}
        """Lengths of steps by what they follow from: many jobs share them."""

    def of(self, config: TrainConfig) -> Step:
        """What a step takes in: uneven ones where the lengths of rows are known, else full rows."""
        step = step_of(config)
        if config.task.has_even_steps:
            return step
        lengths = self._found(config, step.rows)
        return step if lengths is None else uneven(step, config, lengths)

    def _found(self, config: TrainConfig, rows: int) -> StepLengths | None:
        """Lengths of the steps of a cell; None where its tokenizer or its data are not there yet."""
        task, data = config.task, config.data
        of_model = tokenizer_of(config, self._study, self._planned)
        if config.checkpoint and of_model is None:
            return None
        table = table_in_use(data, task, self._study.data_root, of_model)
        if table is None:
            return None
        name = of_model.name if of_model else None
        key = canonical_json([data.identity, task.identity, config.seed, rows, name])
        if key not in self._lengths:
            order = training_order(table, config.seed, data.fraction, task.held_out_share, data.sequence_length)
            self._lengths[key] = StepLengths.of_table(table, order, rows, data.sequence_length)
        return self._lengths[key]
