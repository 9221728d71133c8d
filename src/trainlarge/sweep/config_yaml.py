"""The text of ``config.yaml``: a frozen configuration, written fast enough for ten thousand cells."""

from __future__ import annotations

import marshal
import re
from collections.abc import Mapping
from functools import lru_cache

import yaml

from trainlarge.config.group import Plain

_ENTRY = re.compile(r"^(?=[A-Za-z_])", re.MULTILINE)
"""Where a key at the left margin begins."""
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_DUMPER = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
_INDICATORS = "[{:-?"
"""Characters of which each level of nesting takes one at least."""
MOST_DEPTH = 200
"""Levels of nesting; a configuration has five. The C library has no limit, and ends the process at some 50,000."""
MOST_CHARACTERS = 1 << 22
"""Characters of a configuration; forty thousand paths under ``data.files`` are as many. They are read in seconds."""


def from_yaml(text: str) -> Plain:
    """The configuration that ``to_yaml`` wrote.

    Raises:
        yaml.YAMLError: for what is no YAML, is very long or deep, or has aliases, of which ten lines can stand for
            billions of values.
    """
    if len(text) > MOST_CHARACTERS:
        raise yaml.YAMLError(f"longer than {MOST_CHARACTERS} characters")
    if "&" in text or sum(map(text.count, _INDICATORS)) > MOST_DEPTH:
        _check_events(text)
    config: Plain = yaml.load(text, Loader=_LOADER)
    return config


def _check_events(text: str) -> None:
    depth = 0
    for event in yaml.parse(text, Loader=_LOADER):
        if isinstance(event, yaml.AliasEvent):
            raise yaml.YAMLError("a frozen configuration has no aliases")
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > MOST_DEPTH:
            raise yaml.YAMLError(f"nested more than {MOST_DEPTH} deep")


def from_own_yaml(text: str) -> dict[str, Plain]:
    """As ``from_yaml``, for thousands of texts that ``to_yaml`` wrote: what cells have in common is read once.

    Raises:
        yaml.YAMLError: for what is no YAML.
        ValueError: for what is no mapping.
    """
    config: dict[str, Plain] = {}
    for entry in _ENTRY.split(text):
        config.update(marshal.loads(_entry_of(entry)))
    return config


@lru_cache(maxsize=4096)
def _entry_of(text: str) -> bytes:
    entry = from_yaml(text)
    if not isinstance(entry, dict | None):
        raise ValueError("no mapping from keys to values")
    return marshal.dumps(entry or {}, 2)


def to_yaml(config: Mapping[str, Plain]) -> str:
    """The whole mapping, key by key: the cells of a sweep have most groups in common, and writing YAML is slow."""
    # Of version 2, marshalled data are the same bytes for equal values; JSON takes several times as long.
    return "".join(_key_as_yaml(key, marshal.dumps(value, 2)) for key, value in config.items())


@lru_cache(maxsize=4096)
def _key_as_yaml(key: str, marshalled: bytes) -> str:
    entry = {key: marshal.loads(marshalled)}
    return str(yaml.dump(entry, Dumper=_DUMPER, sort_keys=False, default_flow_style=False, allow_unicode=True))
