"""The tokenizer that comes with a model, in its Hugging Face folder."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from trainlarge.config.group import Plain
from trainlarge.data.tokenizer import (
    CLS_ID,
    FIRST_REGULAR_ID,
    MASK_ID,
    PAD_ID,
    SEP_ID,
    SPECIAL_TOKENS,
    TOKENIZER,
    load_tokenizer,
)
from trainlarge.errors import UserError
from trainlarge.sweep.digest import file_digest


@dataclass(frozen=True)
class ModelTokenizer:
    """A tokenizer that comes with a model and was not trained on the corpus. Two are equal where their content is."""

    file: Path = field(compare=False)
    """Its ``tokenizer.json``."""
    digest: str
    """SHA-256 of that file."""
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
    has_unknown: bool
    """Whether there is a token for what it does not know; without one, it reads any text as bytes."""
    first_regular_id: int = 0
    """First id that may be put in the place of a masked one: 0, any token, as in BERT; else as in our tokenizers."""

    @property
    def name(self) -> list[Plain]:
        """What the prepared data that it reads is kept by."""
        return [self.digest, self.sep_id]


def tokenizer_of_checkpoint(folder: Path, entries: int) -> ModelTokenizer:
    """The tokenizer of a checkpoint that something else is trained from: as one of ours, or as ``model_tokenizer``.

    Args:
        folder: a Hugging Face folder.
        entries: rows of the token embedding of its model.

    Raises:
        UserError: as ``model_tokenizer``.
    """
    try:
        own = _own_tokenizer(folder / TOKENIZER, file_digest(folder / TOKENIZER))
    except OSError as error:
        raise UserError("checkpoint", folder, f"a folder with {TOKENIZER}") from error
    return own or model_tokenizer(folder, entries)


@lru_cache(maxsize=1024)
def _own_tokenizer(file: Path, digest: str) -> ModelTokenizer | None:
    """A tokenizer that ``train_tokenizer`` made, which is known without a look at its other files; None for others."""
    try:
        tokenizer = load_tokenizer(file)
    except Exception:  # what it is, ``model_tokenizer`` says
        return None
    special = {number: str(token) for number, token in tokenizer.get_added_tokens_decoder().items()}
    if special != dict(enumerate(SPECIAL_TOKENS)):
        return None
    return ModelTokenizer(
        file=file,
        digest=digest,
        vocab_size=tokenizer.get_vocab_size(),
        pad_id=PAD_ID,
        cls_id=CLS_ID,
        sep_id=SEP_ID,
        mask_id=MASK_ID,
        unknown_id=MASK_ID,
        special_ids=frozenset(range(FIRST_REGULAR_ID)),
        has_unknown=False,
        first_regular_id=FIRST_REGULAR_ID,
    )


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
        digest=file_digest(folder / TOKENIZER),
        vocab_size=len(tokenizer),
        pad_id=_first(tokenizer.pad_token_id, separator),
        cls_id=_first(tokenizer.cls_token_id, tokenizer.bos_token_id, separator),
        sep_id=separator,
        mask_id=mask,
        unknown_id=_first(unknown, mask, separator),
        special_ids=frozenset(tokenizer.all_special_ids),
        has_unknown=unknown is not None,
    )


def _first(*ids: int | None) -> int:
    return next(number for number in ids if number is not None)
