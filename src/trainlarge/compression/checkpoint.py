"""Where the checkpoint of a compress cell comes from: a train cell of the study, or any Hugging Face folder."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from trainlarge.config.data import DataConfig
from trainlarge.config.schema import CompressConfig, TrainConfig
from trainlarge.config.task import TaskConfig
from trainlarge.errors import UserError
from trainlarge.models.model_folder import folder_digest
from trainlarge.sweep.cell import ID_PATTERN
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
        folder = Path(text).expanduser().resolve()
        if config.data is None or config.task is None:
            raise UserError("data", "null", "the text that a Hugging Face folder is evaluated on, such as data=stdlib")
        return Checkpoint(folder_digest(folder), folder, config.data, config.task)
    study = study or Study.named(config.study)
    if text in planned and planned[text].config.study == study.name:
        trained = planned[text].config
        return Checkpoint(text, study.folder("train", text).checkpoint, trained.data, trained.task, trained)
    folder, trained = _train_cell(study, text)
    return Checkpoint(text, folder, trained.data, trained.task, trained)


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


def is_folder(text: str) -> bool:
    """Whether ``checkpoint`` names a folder: with a slash, or one that is there, unless it looks like a cell id."""
    return not ID_PATTERN.fullmatch(text) and ("/" in text or Path(text).is_dir())


@lru_cache(maxsize=4096)
def _train_cell(study: Study, checkpoint: str) -> tuple[Path, TrainConfig]:
    """Model and configuration of a train cell. Kept only when it is there: an error is looked at again."""
    where = f"study {study.name} in {study.path.parent}"
    allowed = f"the id of a finished train cell of {where}, 'every' in a sweep, or a Hugging Face folder"
    folder = study.folder("train", checkpoint) if ID_PATTERN.fullmatch(checkpoint) else None
    if folder is None or not folder.is_done():
        if folder is not None and folder.says_done():
            # Its record is gone: raises the error that names the file and the command that makes it again.
            folder.record_data()
        error = None if folder is None else folder.status().error
        raise UserError("checkpoint", checkpoint, f"{allowed} (it ended with: {error})" if error else allowed)
    return folder.checkpoint, folder.cell().as_train
