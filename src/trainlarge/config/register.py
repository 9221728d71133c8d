"""Tells Hydra the schema: unknown keys and wrong types are refused when a configuration is composed."""

from __future__ import annotations

from hydra.core.config_store import ConfigStore

from trainlarge.config.schema import CompressConfig, TrainConfig


def register_schema() -> None:
    """Store the root schemas as ``schema/train`` and ``schema/compress``."""
    store = ConfigStore.instance()
    store.store(group="schema", name="train", node=TrainConfig, package="_global_")
    store.store(group="schema", name="compress", node=CompressConfig, package="_global_")
