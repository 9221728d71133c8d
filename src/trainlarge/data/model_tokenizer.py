"""The tokenizer that comes with a model, in its Hugging Face folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainlarge.data.tokenizer import TOKENIZER
from trainlarge.errors import UserError


@dataclass(frozen=True)
class ModelTokenizer:
    """A tokenizer that comes with a model and was not trained on the corpus."""

    file: Path
    """Its ``tokenizer.json``."""
    vocab_size: int
    """Entries."""
    pad_id: int
    """Id of the padding token."""
    cls_id: int
    """Id of the token before a sentence."""
    sep_id: int
    """Id of the token after a document."""
    mask_id: int | None
    """Id of the mask token; None where there is none."""
    unknown_id: int
    """Id of the unknown token; where there is none, of the mask token or else of the token after a document."""
    special_ids: frozenset[int]
    """Ids of all special tokens."""


def model_tokenizer(folder: Path, entries: int) -> ModelTokenizer:
    """What must be known of the tokenizer of a folder.

    Args:
        folder: a Hugging Face folder.
        entries: rows of the token embedding of its model.

    Raises:
        UserError: on ``checkpoint``, when there is none, it has no token that ends a text, or it has tokens beyond the
            model's.
    """
    from transformers import AutoTokenizer

    try:
        tokenizer: Any = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # damaged files make each library raise its own
        cause = str(error).partition("\n")[0][:200]
        raise UserError("checkpoint", folder, f"a folder with a tokenizer that can be read ({cause})") from error
    needed = max(tokenizer.get_vocab().values(), default=-1) + 1
    if needed > entries:
        allowed = f"a folder whose tokenizer has at most {entries} entries, those of its model, and not {needed}"
        raise UserError("checkpoint", folder, allowed)
    mask, unknown = tokenizer.mask_token_id, tokenizer.unk_token_id
    ends = [number for number in (tokenizer.sep_token_id, tokenizer.eos_token_id, mask) if number is not None]
    if not ends:
        raise UserError("checkpoint", folder, "a folder whose tokenizer has a token that ends a text")
    separator = int(ends[0])
    return ModelTokenizer(
        file=folder / TOKENIZER,
        vocab_size=len(tokenizer),
        pad_id=_first(tokenizer.pad_token_id, separator),
        cls_id=_first(tokenizer.cls_token_id, tokenizer.bos_token_id, separator),
        sep_id=separator,
        mask_id=mask,
        unknown_id=_first(unknown, mask, separator),
        special_ids=frozenset(tokenizer.all_special_ids),
    )


def _first(*ids: int | None) -> int:
    return next(number for number in ids if number is not None)
