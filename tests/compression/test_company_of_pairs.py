"""The same for every pair of methods, in a file of its own, so that another process of the long tests runs it."""

from __future__ import annotations

from itertools import combinations_with_replacement, permutations, product

import pytest

from trainlarge.config.method import Method

from .company import KINDS, agree, of, variants


@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: f"{kind.slot}-{kind.name}")
def test_all_pairs_with_a_method(kind: type[Method]) -> None:
    """Variants of the method among themselves, and with those of every method after it: each pair of methods once."""
    later = [variant for other in KINDS[KINDS.index(kind) + 1 :] for variant in variants(other, 3)]
    for pair in [*combinations_with_replacement(variants(kind, 7), 2), *product(variants(kind, 3), later)]:
        for order in permutations(map(of, pair)):
            agree(order)
