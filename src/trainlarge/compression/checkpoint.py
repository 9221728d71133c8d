"""Where the checkpoint of a compress cell comes from: a train cell of the study, or any Hugging Face folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from trainlarge.config.data import DataConfig
from trainlarge.config.schema import CompressConfig, TrainConfig
from trainlarge.config.task import TaskConfig
from trainlarge.errors import UserError
from trainlarge.models.model_folder import folder_digest
from trainlarge.sweep.checkpoints import is_folder, train_cell
from trainlarge.sweep.planned import NOTHING_PLANNED, Planned
from trainlarge.sweep.store import Study


@dataclass(frozen=True)
class Checkpoint:
    """A model to compress, and the text that it is evaluated on."""

    id: str
    """Id of the train cell, or digest of the folder."""

    folder: Path
    """Hugging Face folder of the model."""

    data: DataConfig
    """The text that it is evaluated on: the train cell's, or for a folder the compress cell's own."""

    task: TaskConfig
    """How it is evaluated."""

    trained: TrainConfig | None = None
    """The configuration of the train cell that it comes from; None for a folder."""

    weights: str | None = None
    """SHA-256 of the weights of that train cell, once they are proven; None in studies of older versions."""

    @property
    def as_train(self) -> TrainConfig:
        """The configuration of its train cell. Raises ValueError for a folder."""
        if self.trained is None:
            raise ValueError(f"{self.folder} is no checkpoint of a train cell")
        return self.trained

    @property
    def is_cell(self) -> bool:
        """Whether it comes from a train cell."""
        return self.trained is not None


def find_checkpoint(
    config: CompressConfig, study: Study | None = None, planned: Planned = NOTHING_PLANNED
) -> Checkpoint:
    """The checkpoint of a compress cell's configuration.

    Args:
        study: the study of its train cell; None: the one that the configuration names.
        planned: train cells whose checkpoints will be there.

    Raises:
        UserError: when it is neither a finished train cell of the study nor a whole Hugging Face folder.
    """
    text = config.checkpoint
    if is_folder(text):
        path = Path(text).expanduser().resolve()
        if config.data is None or config.task is None:
            raise UserError("data", "null", "the text that a Hugging Face folder is evaluated on, such as data=stdlib")
        return Checkpoint(folder_digest(path), path, config.data, config.task)
    study = study or Study.named(config.study)
    folder, trained = train_cell(study, text, planned)
    return Checkpoint(text, folder.checkpoint, trained.data, trained.task, trained)


def unchanged_checkpoint(config: CompressConfig, study: Study) -> Checkpoint:
    """The checkpoint of a frozen configuration of ``study``, proven to be what it was.

    Raises:
        DamagedFileError: when a file of the train cell's checkpoint is not as it was written.
        UserError: when a folder holds something else than when the cell was frozen.
    """
    checkpoint = find_checkpoint(config, study)
    if checkpoint.is_cell:
        study.folder("train", checkpoint.id).prove(f"{checkpoint.folder.name}/")
    frozen = config.checkpoint_digest
    if frozen and checkpoint.id != frozen:
        allowed = f"the folder as it was when the cell was frozen, of digest {frozen} and not {checkpoint.id}"
        raise UserError("checkpoint", checkpoint.folder, allowed)
    return checkpoint
