"""JSON files in which damage is detected: their last key, ``seal``, is the SHA-256 of all bytes before it.

A file without a seal comes from an older version and is read as it is. The key and the start of its value each tell a
sealed file by themselves, so that no single change makes a sealed file look like an old one.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path

import orjson

from trainlarge.config.group import Plain
from trainlarge.sweep.files import read_bytes, write_text

_START = b',\n "seal": "sha256:'
_END = b'"\n}\n'
_LENGTH = len(_START) + 64 + len(_END)
_SIGNS = (b'"seal"', b'"sha256:')


def sealed_text(value: Mapping[str, object]) -> str:
    """``value``, which must not be empty, as indented JSON with its seal (no NaN, no infinity)."""
    body = json.dumps(value, indent=1, allow_nan=False).removesuffix("\n}")
    return f"{body}{_START.decode()}{hashlib.sha256(body.encode()).hexdigest()}{_END.decode()}"


def write_sealed(path: Path, value: Mapping[str, object], durable: bool = True) -> None:
    """Replace the file ``path`` by ``value`` and its seal."""
    write_text(path, sealed_text(value), durable)


def read_sealed(
    path: Path | str,
    loads: Callable[[bytes], Plain] = orjson.loads,
    check_old: Callable[[dict[str, Plain]], object] = lambda _content: None,
) -> dict[str, Plain]:
    """The content of a sealed file, or of one of an older version, without the seal.

    Args:
        path: the file.
        loads: reads JSON; ``orjson.loads`` turns whole numbers beyond 64 bits into floats, ``exact_json`` does not.
        check_old: called with the content of a file without a seal, which proves nothing; raises ValueError.

    Raises:
        OSError: where it cannot be read.
        ValueError: where it is no JSON object in UTF-8, or not as it was written.
    """
    content = read_bytes(path)
    is_sealed, value = check_seal(content), loads(content)
    if not isinstance(value, dict):
        raise ValueError("no JSON object")
    value.pop("seal", None)
    if not is_sealed:
        check_old(value)
    return value


def check_seal(content: bytes) -> bool:
    """Whether a file with this content is sealed.

    Raises:
        ValueError: where it is, and is not as it was written.
    """
    if content.startswith(_START, -_LENGTH) and content.endswith(_END):
        seal = hashlib.sha256(memoryview(content)[:-_LENGTH]).hexdigest()
        if not content.startswith(seal.encode(), len(_START) - _LENGTH):
            raise ValueError("not as it was written: its seal differs")
        return True
    if any(sign in content[-2 * _LENGTH :] for sign in _SIGNS):
        raise ValueError("not as it was written: its seal is damaged")
    return False
