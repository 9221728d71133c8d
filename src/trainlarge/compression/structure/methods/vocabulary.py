"""Cutting the vocabulary."""

from __future__ import annotations

from trainlarge.compression.layout.shapes import Tokens
from trainlarge.compression.layout.tables import Tables
from trainlarge.compression.layout.tokens import TokenFacts
from trainlarge.compression.registry import Shared, reshapes
from trainlarge.compression.structure.cut import keep_tokens, tables_of
from trainlarge.compression.weights import Weights
from trainlarge.config.vocabulary import Frequent, TokenList


@reshapes(Frequent)
def frequent(method: Frequent, weights: Weights, shared: Shared) -> Weights:
    """Keep the special tokens and the most frequent others."""
    tables, facts = tables_of(weights, "vocabulary.name=frequent"), shared.token_facts(method)
    always = _always(tables, facts)
    method.check_size(len(always), tables.size)
    ranked = facts.counts[: tables.size].argsort(descending=True, stable=True).tolist()
    others = [token for token in ranked if token not in always][: method.size - len(always)]
    return _kept(weights, tables, {*always, *others}, facts)


@reshapes(TokenList)
def token_list(method: TokenList, weights: Weights, shared: Shared) -> Weights:
    """Keep the special tokens and those of the list."""
    tables, facts = tables_of(weights, "vocabulary.name=token_list"), shared.token_facts(method)
    method.check_tokens(tables.size)
    return _kept(weights, tables, {*_always(tables, facts), *method.tokens}, facts)


def _always(tables: Tables, facts: TokenFacts) -> set[int]:
    """Special tokens, the padding token, and all before it where its number must not change."""
    padding = set() if tables.padding is None else {tables.padding}
    before = range(tables.padding or 0) if tables.is_padding_fixed else ()
    return {*facts.special, facts.unknown, *padding, *before}


def _kept(weights: Weights, tables: Tables, kept: set[int], facts: TokenFacts) -> Weights:
    if len(kept) == tables.size:
        return weights
    return keep_tokens(weights, Tokens(tuple(sorted(kept)), tables.size, facts.unknown))
