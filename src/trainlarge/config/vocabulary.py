"""Methods that cut the vocabulary: rows of the token embedding and of the output layer are removed.

The tokens that stay are renumbered in their old order, and the smaller model reads and predicts the new numbers. A
removed token is replaced by the unknown token, also as a label; where the tokenizer has no unknown token, by the mask
token. Special tokens and the padding token stay. In a model that counts positions from the number of the padding token,
as RoBERTa does, all tokens before it stay, too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from trainlarge.config.method import Method, method, normalize
from trainlarge.config.structure import whole_numbers


@method("vocabulary", "frequent")
@dataclass(frozen=True)
class Frequent(Method):
    """Keep the tokens that are most frequent in the training split; ties by number.

    Source: Ganesh et al. 2021 (arXiv 2002.11985), section 3.7: 5,000 of 30,000 entries hold 94 % of the tokens.
    """

    disabled_by: ClassVar[Mapping[str, float]] = {"size": 0}

    size: int
    """Tokens that stay, the special ones counted; 0 in a configuration disables the method."""

    def __post_init__(self) -> None:
        self.require_whole("size", 1)
        normalize(self, size=int(self.size))

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

    def summary(self) -> str:
        """Such as ``5000 listed tokens``."""
        return f"{len(self.tokens)} listed tokens"
