"""The shape of a model in a Hugging Face folder, read off its config.json."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from trainlarge.config.arch import ArchConfig
from trainlarge.errors import UserError, shown
from trainlarge.models.families import FAMILIES
from trainlarge.models.family import Family, Head
from trainlarge.models.library import LIBRARY, LIBRARY_STD, frozen_config, library_arch, library_segments
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


@dataclass(frozen=True)
class FolderShape:
    """What a configuration of ours says of the model of a folder."""

    arch: ArchConfig
    """The group ``arch``."""
    vocab_size: int
    """Entries of its vocabulary."""
    config: str | None = None
    """Its Hugging Face configuration, where its architecture is no family; see ``TrainConfig.checkpoint_config``."""


def shape_in(folder: Path, head: Head) -> FolderShape:
    """What describes the model of a folder: a family where its shape is one that the family has.

    Args:
        folder: with ``config.json``, weights and tokenizer.
        head: what is to be predicted. Rows may be labelled by any architecture of the library that has such a head.

    Raises:
        UserError: on ``checkpoint``, when it is not whole, or nothing describes it.
    """
    check_whole(folder)
    written = _config(folder)
    try:
        return FolderShape(*_arch_of_family(folder, written))
    except UserError:
        if head not in LIBRARY.heads:
            raise
    try:
        text = frozen_config(written)
        return FolderShape(*library_arch(text), text)
    except UserError:
        raise
    except Exception as error:  # crafted files make the library raise its own
        cause = str(error).partition("\n")[0][:200]
        raise _refused(folder, f"that the library of models can describe ({cause})") from error


def segments_in(folder: Path) -> int:
    """Texts of a row that the model of a folder can tell apart by vectors of their own.

    Raises:
        UserError: on ``checkpoint``, when its configuration cannot be read.
    """
    try:
        return library_segments(frozen_config(_config(folder)))
    except UserError:
        raise
    except Exception as error:  # crafted files make the library raise its own
        cause = str(error).partition("\n")[0][:200]
        raise _refused(folder, f"that the library of models can describe ({cause})") from error


def _arch_of_family(folder: Path, written: Mapping[str, object]) -> tuple[ArchConfig, int]:
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
