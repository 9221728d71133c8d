"""Byte-level BPE (Sennrich et al. 2016, on bytes as in GPT-2, Radford et al. 2019), trained on the training split."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from trainlarge.config.data import LEAST_VOCABULARY
from trainlarge.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

TOKENIZER = "tokenizer.json"
"""Name of the file of a tokenizer."""
SPECIAL_TOKENS = ("[PAD]", "[CLS]", "[SEP]", "[MASK]")
PAD_ID, CLS_ID, SEP_ID, MASK_ID = range(4)
FIRST_REGULAR_ID = len(SPECIAL_TOKENS)
TRAINING_CHARACTERS = 50_000_000
"""The tokenizer is trained on the documents that hold the first so many characters; merges change little beyond."""


def train_tokenizer(documents: Iterable[str], vocab_size: int) -> Tokenizer:
    """Tokenizer with exactly ``vocab_size`` entries: special tokens (ids 0 to 3), 256 bytes, then merges.

    Deterministic in the documents and their order. There is no unknown token: any text is a sequence of bytes.

    Raises:
        UserError: ``vocab_size`` is below 260, or above what the text has merges for.
    """
    if vocab_size < LEAST_VOCABULARY:
        raise UserError("data.vocab_size", vocab_size, f"a whole number of at least {LEAST_VOCABULARY}")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    single, pair = "[CLS] $A [SEP]", "[CLS] $A [SEP] $B [SEP]"
    ends = [("[CLS]", CLS_ID), ("[SEP]", SEP_ID)]
    tokenizer.post_processor = processors.TemplateProcessing(single, pair, special_tokens=ends)
    tokenizer.train_from_iterator(head(documents, TRAINING_CHARACTERS), _trainer(vocab_size))
    if tokenizer.get_vocab_size() < vocab_size:
        raise UserError("data.vocab_size", vocab_size, f"at most {tokenizer.get_vocab_size()} for this text")
    return tokenizer


def load_tokenizer(path: Path) -> Tokenizer:
    """Tokenizer of a ``tokenizer.json``, which reads ``[SEP]`` in a text as five characters, not as the token."""
    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.encode_special_tokens = True
    return tokenizer


def hugging_face_tokenizer(path: Path) -> PreTrainedTokenizerFast:
    """The tokenizer at ``path`` as `transformers` knows it, with the special tokens set.

    It puts ``[CLS] a [SEP]`` around a sentence and ``[CLS] a [SEP] b [SEP]`` around a pair.
    """
    from transformers import PreTrainedTokenizerFast

    pad, cls, sep, mask = SPECIAL_TOKENS
    names = {"pad_token": pad, "cls_token": cls, "sep_token": sep, "mask_token": mask}
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_file=str(path), clean_up_tokenization_spaces=False, **names
    )


def head(documents: Iterable[str], characters: int) -> Iterator[str]:
    """The first documents, up to the one that reaches ``characters`` characters in all."""
    left = characters
    for text in documents:
        yield text
        left -= len(text)
        if left <= 0:
            return


def _trainer(vocab_size: int) -> trainers.BpeTrainer:
    return trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
