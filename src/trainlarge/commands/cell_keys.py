"""The keys by which a condition chooses cells of a study: ``clean --keep`` and ``latency --where``."""

from __future__ import annotations

from trainlarge.config.group import Plain
from trainlarge.config.plain import to_plain
from trainlarge.config.schema import TrainConfig
from trainlarge.sweep.store import CellFolder, Study

_UNCOMPRESSED: dict[str, dict[str, Plain]] = {"prune": {"sparsity": 0.0}, "quantize": {"bits": 32}}
"""What a condition reads of a group where the recipe has no such method."""


def keys_of(folder: CellFolder, study: Study) -> dict[str, Plain]:
    """The configuration of a cell as plain data; a compress cell has the keys of its train cell too.

    Raises:
        UserError: when a configuration is damaged.
    """
    config = folder.cell().config
    written = to_plain(config)
    if isinstance(config, TrainConfig):
        return written
    is_folder = config.checkpoint_digest is not None
    parent = {} if is_folder else to_plain(study.folder("train", config.checkpoint).cell().config)
    groups = {name: value for name in _UNCOMPRESSED if isinstance(value := written[name], dict)}
    return {**parent, **written, **{name: {**_UNCOMPRESSED[name], **group} for name, group in groups.items()}}
