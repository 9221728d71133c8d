"""Methods that cut the vocabulary: rows of the token embedding and of the output layer are removed.

The tokens that stay are renumbered in their old order, and the smaller model reads and predicts the new numbers. A
removed token is replaced by the unknown token, also as a label; where the tokenizer has no unknown token, by the mask
token. Special tokens and the padding token stay. In a model that counts positions from the number of the padding token,
as RoBERTa does, all tokens before it stay, too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

from trainlarge.config.method import Method, method, normalize
from trainlarge.config.model_sizes import ModelSizes
from trainlarge.config.structure import whole_numbers
from trainlarge.errors import UserError


@method("vocabulary", "frequent")
@dataclass(frozen=True)
class Frequent(Method):
    """Keep the tokens that are most frequent in the training split; ties by number.

    Source: Ganesh et al. 2021 (arXiv 2002.11985), section 3.7: 5,000 of 30,000 entries hold 94 % of the tokens.
    """

    disabled_by: ClassVar[Mapping[str, float]] = {"size": 0}
    enabled_by: ClassVar[Mapping[str, float]] = {"size": 1}

    size: int
    """Tokens that stay, the special ones counted; 0 in a configuration disables the method."""

    def __post_init__(self) -> None:
        self.require_whole("size", 1)
        normalize(self, size=int(self.size))

    def check_size(self, always: int, tokens: int) -> None:
        """Raise UserError unless so many can stay.

        Args:
            always: tokens that always stay.
            tokens: entries of the vocabulary.
        """
        allowed = f"more than the {always} tokens that always stay and at most the {tokens} there are"
        self.require("size", always < self.size <= tokens, allowed)

    def fitted(self, model: ModelSizes) -> ModelSizes:
        """With fewer tokens."""
        if model.tokens is not None:
            self.check_size(model.tokens_that_stay, model.tokens)
        return replace(model, tokens=self.size)

    def summary(self) -> str:
        """Such as ``5000 most frequent tokens``."""
        return f"{self.size} most frequent tokens"


@method("vocabulary", "token_list")
@dataclass(frozen=True)
class TokenList(Method):
    """Keep the tokens of a list, and the special ones."""

    tokens: tuple[int, ...]
    """Numbers of the tokens that stay, each once, in any order."""

    def __post_init__(self) -> None:
        numbers = whole_numbers(self.tokens)
        is_valid = bool(numbers) and len(set(numbers)) == len(numbers) and min(numbers) >= 0
        self.require("tokens", is_valid, "a list of token numbers from 0 up, each once, at least one")
        normalize(self, tokens=tuple(sorted(numbers)))

    def check_tokens(self, tokens: int) -> None:
        """Raise UserError unless a vocabulary of ``tokens`` entries has all of them."""
        if self.tokens[-1] >= tokens:
            allowed = f"numbers from 0 to {tokens - 1}, the tokens there are"
            raise UserError(f"{self.slot}.tokens", self.tokens[-1], allowed)

    def fitted(self, model: ModelSizes) -> ModelSizes:
        """With the listed tokens and the special ones."""
        if model.tokens is not None:
            self.check_tokens(model.tokens)
        return replace(model, tokens=None)

    def summary(self) -> str:
        """Such as ``5000 listed tokens``."""
        return f"{len(self.tokens)} listed tokens"
