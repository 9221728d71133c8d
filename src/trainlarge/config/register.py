"""Tells Hydra the schema: unknown keys and wrong types are refused when a configuration is composed."""

from __future__ import annotations

from hydra.core.config_store import ConfigStore

from trainlarge.config.schema import CompressConfig, TrainConfig
from trainlarge.config.task import TASKS


def register_schema() -> None:
    """Store the root schemas as ``schema/train`` and ``schema/compress``."""
    store = ConfigStore.instance()
    store.store(group="schema", name="train", node=TrainConfig, package="_global_")
    for name, task in TASKS.items():
        store.store(group="task", name=f"keys_of_{name}", node=task)
    store.store(group="schema", name="compress", node=CompressConfig, package="_global_")
