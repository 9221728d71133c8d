"""The shape of a model in a Hugging Face folder whose architecture is one of the families, read off its config.json."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from trainlarge.config.arch import ArchConfig
from trainlarge.errors import UserError, shown
from trainlarge.models.families import FAMILIES
from trainlarge.models.family import Family
from trainlarge.models.model_folder import check_whole
from trainlarge.sweep.files import exact_json, read_bytes

_SIZES = (
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "intermediate_size",
    "max_position_embeddings",
    "vocab_size",
)
"""What every family calls alike."""
LIBRARY_STD = 0.02
"""Deviation of initial weights where a configuration does not say it."""


def arch_in(folder: Path) -> tuple[ArchConfig, int]:
    """The group ``arch`` that describes the model of a folder, and the entries of its vocabulary.

    Args:
        folder: with ``config.json``, weights and tokenizer.

    Raises:
        UserError: on ``checkpoint``, when it is not whole, or its shape is none that a family has.
    """
    check_whole(folder)
    written = _config(folder)
    family = next((one for one in FAMILIES.values() if one.model_type == written.get("model_type")), None)
    if family is None:
        known = ", ".join(one.model_type for one in FAMILIES.values())
        allowed = f"of an architecture that is a family here ({known}), unlike {written.get('model_type')}"
        raise _refused(folder, allowed)
    sizes = {key: _size(folder, written, key) for key in _SIZES}
    _check_fixed(folder, written, family, sizes)
    width, dropout, std = sizes["hidden_size"], written.get(family.stored.dropout), written.get("initializer_range")
    arch = ArchConfig(
        name=family.name,
        width=width,
        depth=sizes["num_hidden_layers"],
        heads=sizes["num_attention_heads"],
        ffn_ratio=sizes["intermediate_size"] / width,
        positions=sizes["max_position_embeddings"],
        dropout=float(dropout) if isinstance(dropout, (int, float)) else 0.0,
        tied=bool(written.get("tie_word_embeddings", family.stored.is_tied)),
        init_std=float(std) if isinstance(std, (int, float)) and std > 0 else LIBRARY_STD,
    )
    return arch, sizes["vocab_size"]


def _config(folder: Path) -> Mapping[str, object]:
    try:
        written = exact_json(read_bytes(folder / "config.json"))
    except ValueError as error:
        raise _refused(folder, f"with a config.json that can be read ({error})") from error
    if not isinstance(written, dict):
        raise _refused(folder, "whose config.json holds keys and values")
    return written


def _size(folder: Path, written: Mapping[str, object], key: str) -> int:
    size = written.get(key)
    if not isinstance(size, int) or isinstance(size, bool) or size < 1:
        raise _refused(folder, f"whose config.json says {key}, a whole number of at least 1, and not {shown(size)}")
    return size


def _check_fixed(folder: Path, written: Mapping[str, object], family: Family, sizes: Mapping[str, int]) -> None:
    """Refuse what parameters and FLOPs by formula do not count."""
    width, heads = sizes["hidden_size"], sizes["num_attention_heads"]
    fixed = {"num_key_value_heads": heads, "head_dim": width // heads, **family.stored.fixed}
    for key, needed in fixed.items():
        if (value := written.get(key, needed)) not in (needed, None):
            allowed = f"with {key}={shown(needed)}, as arch.name={family.name} counts it, not {shown(value)}"
            raise _refused(folder, allowed)


def _refused(folder: Path, what: str) -> UserError:
    return UserError("checkpoint", folder, f"the Hugging Face folder of a model {what}")
