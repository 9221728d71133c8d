"""Secrets stay in the frozen configuration: records, remembered commands, reports and mirrors have ``***`` for them.

A password comes into a configuration as ``${oc.env:WANDB_API_KEY}``, or as a line ``export API_KEY=...`` of
``launcher.setup``. The frozen configuration must hold it, since a worker reads nothing else. What others get to see
does not: a value of an environment variable whose name says that it is a secret, and what a shell line assigns to such
a name, or exports under any name.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

from trainlarge.config.group import Plain

MASK = "***"
SHORTEST = 6
"""Characters of the shortest value that counts as a secret: ``true`` is none."""
_SECRET = r"(?:\w*(?:TOKEN|KEY|SECRET)S?|PASS|PW|PAT|PASSWD|PASSWORD|PASSPHRASE|CREDENTIALS?|AUTH)"
_NAME = re.compile(rf"(?:\w+_)?{_SECRET}(?:_\w+)?")
_VALUE = r"""(?:"(?:\\.|[^"\\])*"|'[^']*'|\\.|[^\s,;\])&|"'\\])+"""
_ASSIGNED = re.compile(rf"(\w+=){_VALUE}")
_HIDDEN = re.compile(rf"\bexport(?:\s+\w+={_VALUE})+|\b(?:[A-Z0-9_]+_)?{_SECRET}(?:_[A-Z0-9_]+)?={_VALUE}")
"""Everything that a shell line exports, and what it assigns to the name of a secret."""


def without_secrets(data: Mapping[str, Plain]) -> dict[str, Plain]:
    """Plain data with ``***`` in the place of each secret in its texts."""
    secrets = _secrets_of_the_environment()
    return {name: _masked(value, secrets) for name, value in data.items()}


def text_without_secrets(text: str) -> str:
    """A text with ``***`` in the place of each secret."""
    return _text_without(text, _secrets_of_the_environment())


def _masked(value: Plain, secrets: tuple[str, ...]) -> Plain:
    if isinstance(value, str):
        return _text_without(value, secrets)
    if isinstance(value, dict):
        return {name: _masked(inner, secrets) for name, inner in value.items()}
    return [_masked(inner, secrets) for inner in value] if isinstance(value, list) else value


def _text_without(text: str, secrets: tuple[str, ...]) -> str:
    for secret in secrets:
        text = text.replace(secret, MASK)
    return _HIDDEN.sub(lambda found: _ASSIGNED.sub(rf"\1{MASK}", found[0]), text) if "=" in text else text


def _secrets_of_the_environment() -> tuple[str, ...]:
    """Longest first: one may be a part of another."""
    named = {value for name, value in os.environ.items() if len(value) >= SHORTEST and _NAME.fullmatch(name.upper())}
    return tuple(sorted(named, key=len, reverse=True))
