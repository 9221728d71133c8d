"""Compressed models of Hugging Face folders: they have no train cell, so a folder's name and text stand for it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePath

import pandas as pd

from trainlarge.results.nested import Nested

EVALUATED_ON = ("config.data.", "config.task.")
"""Groups of a compress cell's own configuration that say what a folder is evaluated on: as in that of a train cell."""


def folder_names(records: Nested) -> list[str]:
    """What to call the folder of each record of a compress cell; empty for a checkpoint of the study itself.

    It is the end of the path, with as many parts as tell it from other folders, and the start of the digest too where
    the content of a folder has changed.
    """
    paths, digests = (records.values(f"config.{key}") for key in ("checkpoint", "checkpoint_digest"))
    folders = [(str(path), str(digest)) if digest else None for path, digest in zip(paths, digests, strict=True)]
    names = _names(list(dict.fromkeys(filter(None, folders))))
    return [names[folder] if folder else "" for folder in folders]


def _names(folders: Sequence[tuple[str, str]]) -> dict[tuple[str, str], str]:
    parts = {path: PurePath(path).parts for path, _ in folders}
    length = 1
    while len({of_path[-length:] for of_path in parts.values()}) < len(parts):
        length += 1
    contents = pd.Series([path for path, _ in folders], dtype=str).value_counts()
    return {
        (path, digest): "/".join(parts[path][-length:]) + (f" ({digest[:6]})" if contents[path] > 1 else "")
        for path, digest in folders
    }


def of_folders(compression: pd.DataFrame) -> pd.DataFrame:
    """The rows of models from Hugging Face folders."""
    return compression[compression["checkpoint"].ne("")]
