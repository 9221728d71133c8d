"""What a train cell starts from where it does not start from initial weights. No heavy imports.

That is the checkpoint of another train cell of the study, or a Hugging Face folder of an architecture that is a family;
for tasks that label rows, of any that has such a head in the library. Its shape and its tokenizer are taken over: the
cell is trained by a rate, a budget and a task of its own.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from trainlarge.config.arch import ArchConfig
from trainlarge.config.data import DataConfig
from trainlarge.config.group import with_values
from trainlarge.config.schema import TrainConfig
from trainlarge.data.model_tokenizer import ModelTokenizer, tokenizer_of_checkpoint
from trainlarge.errors import UserError, shown
from trainlarge.launch.job import prove_checkpoint
from trainlarge.models.families import FAMILIES
from trainlarge.models.folder_shape import shape_in
from trainlarge.models.library import LIBRARY
from trainlarge.models.model_folder import TOKENIZER, WEIGHTS, check_positions, folder_digest
from trainlarge.models.shape import head_of
from trainlarge.sweep.checkpoints import check_weights, is_folder, train_cell
from trainlarge.sweep.planned import NOTHING_PLANNED, Planned
from trainlarge.sweep.store import Study


@dataclass(frozen=True)
class Start:
    """A checkpoint that training starts from."""

    id: str
    """Id of its train cell, or digest of the folder."""
    folder: Path
    """Hugging Face folder of the model."""
    arch: ArchConfig
    """Its shape, in full."""
    vocab_size: int
    """Rows of its token embedding."""
    is_cell: bool
    """Whether it is that of a train cell."""
    config: str | None = None
    """Its Hugging Face configuration, where its architecture is no family."""
    weights: str | None = None
    """SHA-256 of the weights of that train cell, once they are proven; None in studies of older versions."""

    @property
    def tokenizer(self) -> ModelTokenizer:
        """What reads the data.

        Raises:
            UserError: on ``checkpoint``, when it cannot be read or has more entries than the model.
        """
        return tokenizer_of_checkpoint(self.folder, self.vocab_size)


def find_start(config: TrainConfig, study: Study | None = None, planned: Planned = NOTHING_PLANNED) -> Start | None:
    """What a train cell starts from; None for initial weights.

    Args:
        study: that of the cell; None: the one that the configuration names.
        planned: train cells whose checkpoints will be there.

    Raises:
        UserError: when ``checkpoint`` is neither a finished train cell of the study nor the whole folder of a family.
    """
    if config.checkpoint is None:
        return None
    if is_folder(config.checkpoint):
        path = Path(config.checkpoint).expanduser().resolve()
        shape = shape_in(path, head_of(config))
        return Start(folder_digest(path), path, shape.arch, shape.vocab_size, is_cell=False, config=shape.config)
    folder, trained = train_cell(study or Study.named(config.study), config.checkpoint, planned)
    arch, vocab_size = trained.arch, trained.data.vocab_size
    return Start(folder.id, folder.checkpoint, arch, vocab_size, is_cell=True, config=trained.checkpoint_config)


def started(config: TrainConfig, planned: Planned) -> TrainConfig:
    """A configuration with all that its checkpoint says.

    Raises:
        UserError: as ``find_start``; or for a shape, a vocabulary or a row that is not that of the checkpoint.
    """
    start = find_start(config, planned=planned)
    if start is None:
        return config
    _check_arch(config, start)
    _check_data(config.data, start)
    own = {"checkpoint": start.id, "checkpoint_digest": None}
    folder = {"checkpoint": str(start.folder), "checkpoint_digest": start.id}
    data = with_values(config.data, vocab_size=start.vocab_size)
    taken = own if start.is_cell else folder
    return replace(config, **taken, checkpoint_config=start.config, arch=start.arch, data=data)


def proven_start(config: TrainConfig, study: Study) -> Start | None:
    """What a frozen train cell of ``study`` starts from, proven to be what it was.

    A train cell with a damaged checkpoint counts as failed from then on: the command that made it makes it again.

    Raises:
        UserError: when it is not what it was.
    """
    start = find_start(config, study)
    if start is None:
        return None
    if start.is_cell:
        folder = study.folder("train", start.id)
        check_weights(folder, start.folder / WEIGHTS)
        prove_checkpoint(folder)
        return replace(start, weights=folder.weights_digest())
    if start.id != config.checkpoint_digest:
        frozen = config.checkpoint_digest
        allowed = f"the folder as it was when the cell was frozen, of digest {frozen} and not {start.id}"
        raise UserError("checkpoint", start.folder, allowed)
    return start


def tokenizer_of(config: TrainConfig, study: Study, planned: Planned = NOTHING_PLANNED) -> ModelTokenizer | None:
    """The tokenizer that a checkpoint brings to a train cell; None for one of its own, or one that is not there yet."""
    start = find_start(config, study, planned)
    return start.tokenizer if start and (start.folder / TOKENIZER).is_file() else None


def check_start(start: Start, study: Study, planned: Planned) -> bool:
    """Whether a checkpoint is there; False where it is still to be trained.

    Raises:
        UserError: its weights are gone, or it diverged.
    """
    if not start.is_cell:
        return True
    if start.id in planned:
        return False
    check_weights(study.folder("train", start.id), start.folder / WEIGHTS)
    return True


def _check_arch(config: TrainConfig, start: Start) -> None:
    default = ArchConfig()
    for name, taken in start.arch.plain.items():
        value = config.arch.plain[name]
        if value not in (taken, default.plain[name]):
            allowed = f"{shown(taken)}, that of the checkpoint: its shape is taken over"
            raise UserError(f"arch.{name}", value, allowed)


def _check_data(data: DataConfig, start: Start) -> None:
    if data.vocab_size not in (start.vocab_size, DataConfig().vocab_size):
        allowed = f"{start.vocab_size}, that of the checkpoint: its tokenizer reads the data"
        raise UserError("data.vocab_size", data.vocab_size, allowed)
    if not start.is_cell:
        check_positions(start.folder, data.sequence_length)
    if start.arch.positions is None:
        return
    family = LIBRARY if start.config else FAMILIES[start.arch.name]
    positions = start.arch.positions - family.first_position
    if data.sequence_length > positions:
        allowed = f"at most {positions}, the arch.positions of the checkpoint"
        raise UserError("data.sequence_length", data.sequence_length, allowed)
